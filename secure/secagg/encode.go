package secagg

import (
	"fmt"
	"math"
	"math/bits"

	"github.com/cohort-learning/cohort/rng"
)

// Encode sets dst[i] to weight·q with
//
//	q = ⌊(x+c)(Q−1)/(2c) + U⌋,   x = x[i] clipped to [−c, c],   U uniform in [0, 1) from r,
//
// which is right on average. One number is drawn from r for each element, so encoding a vector in pieces gives the same words
// as encoding it at once; with the stream of a member's name a simulation gives them too. The error names an element that is
// not finite, or a weight above p.MaxWeight. It panics if the lengths differ or if W is not p.Bits wide.
func Encode[W Word](p Params, dst []W, x []float32, weight uint64, r *rng.Stream) error {
	p = p.Defaults()
	p.check(len(dst), len(x), bits.Len64(uint64(^W(0))))
	if weight > p.MaxWeight {
		return fmt.Errorf("secure aggregation: weight %d: at most %d was agreed", weight, p.MaxWeight)
	}
	top := float64(p.Levels - 1)
	scale := top / (2 * p.Clip)
	for i, v := range x {
		f := float64(v)
		if math.IsNaN(f) || math.IsInf(f, 0) {
			return fmt.Errorf("secure aggregation: element %d is %v: the training has diverged", i, v)
		}
		y := float64((min(max(f, -p.Clip), p.Clip) + p.Clip) * scale)
		q := math.Floor(y)
		if r.Float64() < y-q {
			q++
		}
		dst[i] = W(uint64(min(q, top)) * weight)
	}
	return nil
}

// Decode sets dst[i] to the mean (sum[i]/weight)·2c/(Q−1) − c, weight > 0 being the sum of the weights of those whose words are
// in sum. An error names a sum that no such members can have. It panics if the lengths differ or if W is not p.Bits wide.
func Decode[W Word](p Params, dst []float32, sum []W, weight uint64) error {
	p = p.Defaults()
	p.check(len(dst), len(sum), bits.Len64(uint64(^W(0))))
	if weight == 0 {
		return fmt.Errorf("secure aggregation: a mean of weight 0")
	}
	hi, most := bits.Mul64(weight, p.Levels-1)
	if hi != 0 {
		return fmt.Errorf("secure aggregation: weights sum to %d: too many for %d levels", weight, p.Levels)
	}
	for i, s := range sum {
		if uint64(s) > most {
			return fmt.Errorf("secure aggregation: word %d is %d, and weights of %d sum to at most %d", i, s, weight, most)
		}
		mean := float64(s) / float64(weight)
		dst[i] = float32(float64(mean*(2*p.Clip/float64(p.Levels-1))) - p.Clip)
	}
	return nil
}

func (p Params) check(dst, src, width int) {
	if dst != src || width != p.Bits {
		panic(fmt.Sprintf("secagg: %d elements into %d of %d bits, terms say %d bits", src, dst, width, p.Bits))
	}
}
