package ledger

import (
	"cmp"
	"maps"
	"slices"

	"github.com/cohort-learning/cohort/secure/dp"
)

// maxKinds is how many kinds of Gaussian noise, pairs of q and z, are composed by their privacy losses; more only by Rényi
// divergences. A kind takes some milliseconds.
const maxKinds = 24

// cost is what entries add up to. Equal rounds are counted together, so that it grows with the kinds of rounds, not with their
// number.
type cost struct {
	gaussian map[dp.Release]int // rounds by q and z, with Rounds 1
	skellam  map[dp.Skellam]int
	curve    dp.Curve // of all
	rounds   int
	units    map[any]dp.Curve // of one round

	known map[float64]priced // of the present state, by δ
}

type priced struct {
	epsilon    float64
	accountant dp.Accountant
}

func newCost() *cost {
	return &cost{gaussian: map[dp.Release]int{}, skellam: map[dp.Skellam]int{}, units: map[any]dp.Curve{}, known: map[float64]priced{}}
}

func (c *cost) clone() *cost {
	return &cost{gaussian: maps.Clone(c.gaussian), skellam: maps.Clone(c.skellam), curve: c.curve, rounds: c.rounds, units: c.units, known: map[float64]priced{}}
}

// add counts an entry.
func (c *cost) add(e Entry) {
	if e.Terms.Mechanism == dp.DistributedSkellam {
		c.addSkellam(e.Terms.Skellam(), 1)
	} else {
		c.addGaussian(e.release())
	}
}

func (c *cost) addGaussian(r dp.Release) {
	one := r
	one.Rounds = 1
	c.gaussian[one] += r.Rounds
	c.grow(one, r.Rounds, func() dp.Curve {
		unit, err := dp.Gaussian(one)
		if err != nil {
			panic("ledger: " + err.Error()) // entries are validated before they are counted
		}
		return unit
	})
}

func (c *cost) addSkellam(s dp.Skellam, rounds int) {
	c.skellam[s] += rounds
	c.grow(s, rounds, func() dp.Curve { return s.Curve(1) })
}

// grow adds to the curve what rounds of a kind cost; make is asked once for each kind.
func (c *cost) grow(kind any, rounds int, make func() dp.Curve) {
	unit, ok := c.units[kind]
	if !ok {
		unit = make()
		c.units[kind] = unit
	}
	c.curve = c.curve.Add(unit.Times(rounds))
	c.rounds += rounds
	clear(c.known)
}

// merge counts all that another cost counts.
func (c *cost) merge(o *cost) {
	for r, n := range o.gaussian {
		r.Rounds = n
		c.addGaussian(r)
	}
	for s, n := range o.skellam {
		c.addSkellam(s, n)
	}
}

// releases returns the Gaussian rounds in an order that does not depend on anything but them.
func (c *cost) releases() []dp.Release {
	out := make([]dp.Release, 0, len(c.gaussian))
	for r, n := range c.gaussian {
		r.Rounds = n
		out = append(out, r)
	}
	slices.SortFunc(out, func(a, b dp.Release) int {
		return cmp.Or(cmp.Compare(a.Fraction, b.Fraction), cmp.Compare(a.Noise, b.Noise))
	})
	return out
}

// epsilon returns the least ε at δ that an accountant vouches for.
func (c *cost) epsilon(delta float64) (float64, dp.Accountant) {
	if p, ok := c.known[delta]; ok {
		return p.epsilon, p.accountant
	}
	p := priced{c.curve.Epsilon(delta), dp.RDP}
	if len(c.skellam) == 0 && len(c.gaussian) > 0 && len(c.gaussian) <= maxKinds {
		// An error says that the question is beyond that accountant's limits; the other one's answer stands.
		if e, err := dp.PLD.Epsilon(delta, c.releases()...); err == nil && e <= p.epsilon {
			p = priced{e, dp.PLD}
		}
	}
	c.known[delta] = p
	return p.epsilon, p.accountant
}

// within reports whether ε at the budget's δ is at most that of the budget; it asks the quick accountant first.
func (c *cost) within(b Budget) bool {
	if c.curve.Epsilon(b.Delta) <= b.Epsilon {
		return true
	}
	e, _ := c.epsilon(b.Delta)
	return e <= b.Epsilon
}
