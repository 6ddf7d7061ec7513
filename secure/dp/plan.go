package dp

import (
	"fmt"
	"math"
)

// Plan is what a run may cost at most.
type Plan struct {
	Epsilon    float64 // ε > 0
	Delta      float64 // δ in (0, 1); less than one in as many members as there are
	Fraction   float64 // q
	Accountant Accountant
}

// The noise multipliers between which plans are looked for, and how close to the least one they end: always above it.
const (
	leastPlanned, mostPlanned = 1e-3, 1e6
	planPrecision             = 1e-3
)

func (p Plan) validate() error {
	switch {
	case !(p.Epsilon > 0):
		return fmt.Errorf("epsilon %v: expected a positive number", p.Epsilon)
	case !(p.Delta > 0 && p.Delta < 1):
		return fmt.Errorf("delta %v: expected a probability between 0 and 1", p.Delta)
	}
	return Release{Fraction: p.Fraction}.Validate()
}

// Noise returns a noise multiplier z with ε(z) ≤ Epsilon after a number of rounds, at most 0.1 % above the least. It is an
// error if no multiplier up to 10⁶ is enough, which with [RDP] is so for ε below about ln(1/δ)/1000.
func (p Plan) Noise(rounds int) (float64, error) {
	if err := p.validate(); err != nil {
		return 0, err
	}
	release := Release{Fraction: p.Fraction, Rounds: rounds}
	if err := release.Validate(); err != nil {
		return 0, err
	}
	if release.silent() {
		return 0, nil
	}
	cost := func(z float64) (float64, error) {
		release.Noise = z
		return p.Accountant.Epsilon(p.Delta, release)
	}
	low, high := 0.7, 1.0
	if p.Accountant == PLD { // RDP is quicker, and a little above; it does not reach the least ε
		q := p
		q.Accountant = RDP
		if z, err := q.Noise(rounds); err == nil {
			low, high = 0.8*z, z
		}
	}
	over, err := cost(low)
	for ; err == nil && over <= p.Epsilon; over, err = cost(low) {
		if low < leastPlanned {
			return low, nil
		}
		low, high = low/2, low
	}
	if err != nil {
		return 0, err
	}
	under, err := cost(high)
	for ; err == nil && under > p.Epsilon; under, err = cost(high) {
		if high > mostPlanned {
			return 0, fmt.Errorf("no noise multiplier up to %g reaches epsilon %g in %d rounds at delta %g", mostPlanned, p.Epsilon, rounds, p.Delta)
		}
		low, over, high = high, under, 2*high
	}
	// ln ε is nearly linear in ln z: go to where the chord is ε, and then just beyond, until the two sides are close.
	raised := false
	for err == nil && high > low*(1+planPrecision) {
		part := 0.5
		if under > 0 && !math.IsInf(over, 1) {
			part = math.Log(over/p.Epsilon) / math.Log(over/under)
		}
		width := math.Log(high / low)
		beyond := 0.4 * planPrecision / width
		if raised {
			beyond = -beyond
		}
		z := low * math.Exp(width*min(0.98, max(0.02, part-beyond)))
		var e float64
		if e, err = cost(z); e <= p.Epsilon {
			high, under, raised = z, e, false
		} else {
			low, over, raised = z, e, true
		}
	}
	return high, err
}

// Rounds returns how many rounds with noise multiplier z cost at most Epsilon: the inverse of [Plan.Noise]. It is at most 10⁷;
// that much also if rounds cost nothing.
func (p Plan) Rounds(z float64) (int, error) {
	if err := p.validate(); err != nil {
		return 0, err
	}
	fits := func(rounds int) (bool, error) {
		e, err := p.Accountant.Epsilon(p.Delta, Release{Fraction: p.Fraction, Noise: z, Rounds: rounds})
		return e <= p.Epsilon, err
	}
	low, high := 0, 1 // low fits
	for high < mostRounds {
		ok, err := fits(high)
		if err != nil {
			return 0, err
		}
		if !ok {
			break
		}
		low, high = high, min(2*high, mostRounds)
	}
	if ok, err := fits(high); ok || err != nil {
		return high, err
	}
	for high-low > 1 {
		middle := low + (high-low)/2
		ok, err := fits(middle)
		if err != nil {
			return 0, err
		}
		if ok {
			low = middle
		} else {
			high = middle
		}
	}
	return low, nil
}
