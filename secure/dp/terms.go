package dp

import (
	"fmt"
	"math"
)

// Mechanism is a way to hide members in a sum.
type Mechanism string

// The mechanisms.
const (
	CentralGaussian    Mechanism = "central-gaussian"    // [Central]: whoever holds the sum adds the noise
	DistributedSkellam Mechanism = "distributed-skellam" // [Skellam]: members add it in shares, under a secure sum
)

// Terms are what a run announces about its privacy, and what a member holds it to: the same noise in every round. Their JSON
// form is part of the terms that members sign.
type Terms struct {
	Mechanism Mechanism `json:"mechanism"`
	Fraction  float64   `json:"fraction"` // q in (0, 1]: the chance that a round asks a member, by a coin of its own
	Noise     float64   `json:"noise"`    // z > 0
	Clip      float64   `json:"clip"`     // S > 0
	Delta     float64   `json:"delta"`    // δ in (0, 1) at which the run states its ε
	Members   int       `json:"members"`  // K, all that are enrolled, there or not
	// Survivors is how many of those that are asked must have answered at least, or the sum is not opened. It sizes the shares of
	// distributed noise; 0 with central noise.
	Survivors int `json:"survivors,omitempty"`
	// EveryEnrolledCharged says that every enrolled member counts every round, asked or not. Only then does being asked by chance
	// make a round cheaper; otherwise a member counts the rounds that it takes, each at its full price.
	EveryEnrolledCharged bool `json:"every_enrolled_charged"`
	// Trusts names who adds the noise and could leave it out; empty if nobody could alone.
	Trusts string `json:"trusts,omitempty"`

	// What distributed noise needs besides, see [Skellam].
	Scale     float64 `json:"scale,omitempty"`
	Dimension int     `json:"dimension,omitempty"`
	Beta      float64 `json:"beta,omitempty"`
}

// Validate returns an error that names what is out of range or contradicts itself.
func (t Terms) Validate() error {
	switch {
	case !(t.Noise > 0) || math.IsInf(t.Noise, 1):
		return fmt.Errorf("noise multiplier %v: expected a positive number", t.Noise)
	case math.IsInf(t.Clip, 1):
		return fmt.Errorf("noise without a clip bound: nothing says how much noise")
	case !(t.Clip > 0):
		return fmt.Errorf("clip bound %v: expected a positive number", t.Clip)
	case !(t.Delta > 0 && t.Delta < 1):
		return fmt.Errorf("delta %v: expected a probability between 0 and 1", t.Delta)
	}
	if err := population(t.Fraction, t.Members); err != nil {
		return err
	}
	switch t.Mechanism {
	case CentralGaussian:
		switch {
		case t.Trusts == "":
			return fmt.Errorf("central noise is added by somebody: expected a name in trusts")
		case t.Survivors != 0 || t.Scale != 0 || t.Dimension != 0 || t.Beta != 0:
			return fmt.Errorf("survivors, scale, dimension and beta belong to distributed noise, and this is %s", t.Mechanism)
		}
		return nil
	case DistributedSkellam:
		switch {
		case t.EveryEnrolledCharged:
			return fmt.Errorf("distributed noise claims no amplification by sampling: every_enrolled_charged must be false")
		case t.Survivors > t.Members:
			return fmt.Errorf("%d survivors of %d members", t.Survivors, t.Members)
		}
		return t.Skellam().Validate()
	}
	return fmt.Errorf("mechanism %.40q: expected %s or %s", string(t.Mechanism), CentralGaussian, DistributedSkellam)
}

// Amplified reports whether the chance of not being asked makes a round cheaper.
func (t Terms) Amplified() bool {
	return t.Mechanism == CentralGaussian && t.EveryEnrolledCharged && t.Fraction < 1
}

// Release returns one round of central noise as a member counts it: with the fraction q if [Terms.Amplified], and as one in which
// it certainly took part otherwise. It panics for another mechanism, whose cost is a [Curve].
func (t Terms) Release() Release {
	if t.Mechanism != CentralGaussian {
		panic(fmt.Sprintf("dp: a release of %q", t.Mechanism))
	}
	r := Release{Fraction: 1, Noise: t.Noise, Rounds: 1}
	if t.Amplified() {
		r.Fraction = t.Fraction
	}
	return r
}

// Skellam returns the distributed noise of the terms.
func (t Terms) Skellam() Skellam {
	return Skellam{Clip: t.Clip, Scale: t.Scale, Dimension: t.Dimension, Noise: t.Noise, Survivors: t.Survivors, Beta: t.Beta}
}

// Curve returns what a number of rounds cost a member, by Rényi divergences. It panics if rounds is negative or the terms are not
// valid.
func (t Terms) Curve(rounds int) Curve {
	if err := t.Validate(); err != nil {
		panic(fmt.Sprintf("dp: cost of terms: %v", err))
	}
	if t.Mechanism == DistributedSkellam {
		return t.Skellam().Curve(rounds)
	}
	r := t.Release()
	r.Rounds = rounds
	c, err := Gaussian(r)
	if err != nil {
		panic(fmt.Sprintf("dp: cost of terms: %v", err))
	}
	return c
}

// Epsilon returns what a number of rounds cost a member at δ: by [PLD] with central noise, or by [RDP] where PLD does not resolve
// the question, and always by RDP with distributed noise.
func (t Terms) Epsilon(delta float64, rounds int) (float64, error) {
	if err := t.Validate(); err != nil {
		return 0, err
	}
	if t.Mechanism == CentralGaussian {
		r := t.Release()
		r.Rounds = rounds
		if e, err := PLD.Epsilon(delta, r); err == nil {
			return e, nil
		}
		return RDP.Epsilon(delta, r)
	}
	if rounds < 0 || !(delta >= 0) {
		return 0, fmt.Errorf("%d rounds at delta %v: expected 0 rounds or more and a probability", rounds, delta)
	}
	return t.Skellam().Curve(rounds).Epsilon(delta), nil
}
