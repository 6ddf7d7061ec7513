package dp

import (
	"fmt"
	"io"
	"math"

	"github.com/cohort-learning/cohort/weights"
)

// Central is noise added by the one who holds the sum: members must trust whoever that is.
type Central struct {
	Clip     float64 // S > 0; +Inf only without noise
	Noise    float64 // z ≥ 0
	Fraction float64 // q in (0, 1]
	Members  int     // K, all that are enrolled, there or not
}

// Validate returns an error that names what is out of range.
func (c Central) Validate() error {
	switch {
	case !(c.Noise >= 0) || math.IsInf(c.Noise, 1):
		return fmt.Errorf("noise multiplier %v: expected a number of 0 or more", c.Noise)
	case !(c.Clip > 0):
		return fmt.Errorf("clip bound %v: expected a positive number", c.Clip)
	case math.IsInf(c.Clip, 1) && c.Noise > 0:
		return fmt.Errorf("noise without a clip bound: nothing says how much noise")
	}
	return population(c.Fraction, c.Members)
}

// Denominator returns qK, by which every sum is divided, whoever came.
func (c Central) Denominator() float64 { return c.Fraction * float64(c.Members) }

// Deviation returns the standard deviation of one coordinate's noise in what [Central.Mean] returns: z·S/(qK).
func (c Central) Deviation() float64 { return c.Noise * c.Clip / c.Denominator() }

// slack is what rounding may add to a member's part of the sum: 2⁻²³ in clipping to float32, a share of 2⁻⁵³ of the
// whole sum in rounding it to float64, for as many members as there can be.
func (c Central) slack() float64 { return 0x1p-20 + float64(c.Members)*0x1p-52 }

// Mean publishes a round of DP-FedAvg (McMahan et al., arXiv 1710.06963, algorithm 1, estimator f̃_f, with uniform weights):
//
//	( Σ_{k ∈ cohort} Δ_k + N(0, (zS)²·I) ) / (qK)
//
// from the exact sum of updates that were clipped to S and added with weight 1, also if nobody came. The noise is drawn from
// random, outside of tests crypto/rand.Reader; see the package comment for what it is safe against. Its deviation is greater
// than z·S by about a millionth, which pays for the rounding of clipped updates and of the sum. Errors: settings out of range,
// a coordinate beyond what K clipped updates can sum to, or a reader that fails; nothing must be published then.
func (c Central) Mean(random io.Reader, sum *weights.Acc, d weights.DType) (weights.Set, error) {
	if err := c.Validate(); err != nil {
		return weights.Set{}, fmt.Errorf("noise on a sum: %w", err)
	}
	if sum.Weight() > uint64(c.Members) {
		return weights.Set{}, fmt.Errorf("noise on a sum: its weights sum to %d, of %d members with weight 1 each", sum.Weight(), c.Members)
	}
	if c.Noise == 0 {
		return sum.Over(c.Denominator(), d), nil
	}
	total := sum.Over(1, weights.Float64)
	most := c.Clip * float64(c.Members) * 1.001
	sigma := c.Noise * c.Clip * (1 + c.slack()) * (1 + math.Sqrt(float64(total.Size()))*gridLoss(c.Noise))
	n := NewNoise(random)
	for name, t := range total.All() {
		for i, v := range t.F64 {
			if !(math.Abs(v) <= most) {
				return weights.Set{}, fmt.Errorf("noise on a sum: %q holds %g, more than %d updates clipped to %g can sum to", name, v, c.Members, c.Clip)
			}
			noisy, err := n.add(v, sigma)
			if err != nil {
				return weights.Set{}, fmt.Errorf("noise on a sum: %w", err)
			}
			t.F64[i] = noisy / c.Denominator()
		}
	}
	return total.Convert(d), nil
}
