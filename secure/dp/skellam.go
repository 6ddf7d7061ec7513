package dp

import (
	"fmt"
	"io"
	"math"
)

// Skellam is distributed noise on integers, for sums that are only ever seen as a whole, under secure aggregation (Agarwal,
// Kairouz, Liu, NeurIPS 2021, arXiv 2110.04995). Every member clips its update to S, multiplies it by a scale s, rounds it to
// integers at random, adds a share of the noise, and sends the result into the secure sum. Shares are Skellam distributed, the
// difference of two Poisson draws, and sums of those are Skellam again: of n shares of variance µ/n the sum has variance µ.
//
// # What it costs
//
// Let Δ₁ and Δ₂ bound the norms of one member's integers, and µ be the variance of the sum's noise. For integer α > 1
// (corollary 3.6 of the paper; in the words of its proof: the Gaussian's divergence and a remainder that vanishes as µ grows)
//
//	RDP(α) ≤ α·Δ₂²/(2µ) + min( ((2α−1)·Δ₂² + 6Δ₁)/(4µ²), 3Δ₁/(2µ) )
//
// Reference values, α, Δ₁, Δ₂, µ → bound:
//
//	 2       1     1        1 → 2.5
//	 2     100    10      400 → 0.25140625
//	 8     100    10      400 → 1.00328125
//	32    4096    64    65536 → 1.00001645088
//	16   32000  1000  1000000 → 8.000007798
//
// At a real α the bound of the next integer holds, as divergences grow with α. With the orders of [Orders] and the conversion of
// [Curve.Epsilon]: (Δ₁, Δ₂, µ, T, δ) = (100, 10, 400, 1, 1e-5) → ε = 2.171917; (4096, 64, 65536, 50, 1e-5) → 9.338017;
// (32000, 1000, 25e6, 100, 1e-6) → 11.855390. No amplification by sampling is claimed for this mechanism: who takes part is
// known to those who run the secure sum.
//
// # Norms after rounding
//
// Rounding up or down at random, without bias, can lengthen a vector of d coordinates. A member draws again until
//
//	‖rounded‖₂² ≤ Δ₂² = min( (sS + √d)², (sS)² + d/4 + √(2 ln(1/β))·(sS + √d/2) )
//
// which one draw fulfils with probability at least 1−β (Kairouz, Liu, Steinke, ICML 2021, arXiv 2102.06387, on conditional
// rounding), and as integers are at most their squares, Δ₁ = min(√d·Δ₂, Δ₂²).
//
// # What its sampler is safe against
//
// Noise and data are integers and are added as such, so the last bits of floating point tell nothing. The shares' probabilities
// are right to float64 only (see [Noise.Poisson]), and outcomes rarer than 2⁻⁵³ may be missing. A bound on δ must allow for what
// that adds up to, about 1e-13 a coordinate and round for a share of variance 10⁵: for 10⁶ coordinates and 100 rounds that is
// 1e-5. Where it matters, [Central] is exact.
type Skellam struct {
	Clip      float64 // S > 0
	Scale     float64 // s > 0, integers to a unit: the step is 1/s
	Dimension int     // d ≥ 1, coordinates of an update
	Noise     float64 // z ≥ 0: the sum's noise has deviation z·S·s in integers
	Survivors int     // n ≥ 1: the least number of shares in a sum that members let be opened
	Beta      float64 // β in [0, 1), usually e^{−½}; 0 takes the bound that needs no second draw
}

// Validate returns an error that names what is out of range.
func (s Skellam) Validate() error {
	positive := func(v float64) bool { return v > 0 && !math.IsInf(v, 1) }
	switch {
	case !positive(s.Clip):
		return fmt.Errorf("clip bound %v: expected a positive number", s.Clip)
	case !positive(s.Scale):
		return fmt.Errorf("scale %v: expected a positive number", s.Scale)
	case s.Dimension < 1:
		return fmt.Errorf("dimension %d: expected at least 1", s.Dimension)
	case !(s.Noise >= 0) || math.IsInf(s.Noise, 1):
		return fmt.Errorf("noise multiplier %v: expected a number of 0 or more", s.Noise)
	case s.Survivors < 1:
		return fmt.Errorf("%d survivors: expected at least 1", s.Survivors)
	case !(s.Beta >= 0 && s.Beta < 1):
		return fmt.Errorf("beta %v: expected a number in [0, 1)", s.Beta)
	case s.Share() > mostVariance:
		return fmt.Errorf("a share of noise has variance %g, at most %g can be drawn: lower the scale", s.Share(), mostVariance)
	}
	return nil
}

// mostVariance keeps the float64 arithmetic of the Poisson sampler accurate.
const mostVariance = 1e9

// FinestScale returns the largest power of two, up to 2²⁰, at which a member's share of the noise can be drawn, whatever s.Scale
// is; the finer, the less rounding adds to the norms.
func (s Skellam) FinestScale() float64 {
	s.Scale = 1 << 20
	for s.Scale > 1 && s.Share() > mostVariance {
		s.Scale /= 2
	}
	return s.Scale
}

// Norms returns Δ₁ and Δ₂, the bounds on a member's integers.
func (s Skellam) Norms() (l1, l2 float64) {
	d := float64(s.Dimension)
	length := s.Scale * s.Clip * (1 + 0x1p-20) // clipping rounds
	square := (length + math.Sqrt(d)) * (length + math.Sqrt(d))
	if s.Beta > 0 {
		square = min(square, length*length+d/4+math.Sqrt(2*math.Log(1/s.Beta))*(length+math.Sqrt(d)/2))
	}
	return min(math.Sqrt(d*square), square), math.Sqrt(square)
}

// Variance returns µ, the variance of the noise in a sum of as few shares as are admitted. More shares add more noise.
func (s Skellam) Variance() float64 {
	sd := s.Noise * s.Clip * s.Scale
	return sd * sd
}

// Share returns the variance of one member's noise.
func (s Skellam) Share() float64 { return s.Variance() / float64(s.Survivors) }

// Curve returns the cost of a number of rounds. It panics if that is negative.
func (s Skellam) Curve(rounds int) Curve {
	if rounds < 0 {
		panic(fmt.Sprintf("dp: %d rounds", rounds))
	}
	if rounds == 0 {
		return Curve{}
	}
	l1, l2 := s.Norms()
	at := make([]float64, len(orders))
	for i, a := range orders {
		at[i] = float64(rounds) * SkellamDivergence(int(math.Ceil(a)), l1, l2, s.Variance())
	}
	return Curve{at}
}

// SkellamDivergence returns the bound on the Rényi divergence of order α > 1 of Skellam noise of variance µ on integer vectors
// that differ by one of norms Δ₁ and Δ₂; see [Skellam].
func SkellamDivergence(alpha int, l1, l2, variance float64) float64 {
	if alpha < 2 {
		panic(fmt.Sprintf("dp: Rényi divergence of order %d", alpha))
	}
	a := float64(alpha)
	if l2 == 0 {
		return 0
	}
	return a*l2*l2/(2*variance) + min(((2*a-1)*l2*l2+6*l1)/(4*variance*variance), 3*l1/(2*variance))
}

// Hide returns what a member sends: x, of norm at most S, in integers and with its share of the noise. Members that are away or
// have nothing to say send the same with x = 0. Randomness comes from random, outside of tests crypto/rand.Reader.
func (s Skellam) Hide(random io.Reader, x []float64) (out []int64, err error) {
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if len(x) != s.Dimension {
		return nil, fmt.Errorf("hide an update of %d coordinates, expected %d", len(x), s.Dimension)
	}
	var square float64
	for _, v := range x {
		square += v * v
	}
	if !(math.Sqrt(square) <= s.Clip*(1+0x1p-20)) {
		return nil, fmt.Errorf("hide an update of norm %v: expected it clipped to %v", math.Sqrt(square), s.Clip)
	}
	n := NewNoise(random)
	defer n.failed(&err)
	_, most := s.Norms()
	out = make([]int64, len(x))
	for {
		square = 0
		for i, v := range x {
			v *= s.Scale
			floor := math.Floor(v)
			if n.unit() < v-floor {
				floor++
			}
			out[i] = int64(floor)
			square += floor * floor
		}
		if square <= most*most {
			break
		}
	}
	rate := s.Share() / 2
	for i := range out {
		plus, minus := n.poisson(rate), n.poisson(rate)
		out[i] += plus - minus
	}
	return out, nil
}

// unit returns a multiple of 2⁻⁵³ in [0, 1).
func (n *Noise) unit() float64 { return float64(n.word()>>11) * 0x1p-53 }

// Poisson returns a draw from the Poisson distribution of the given rate in [0, 1e9]. Below 10 it multiplies uniform numbers
// (Knuth); above it is Hörmann's transformed rejection PTRS ("The transformed rejection method for generating Poisson random
// variables", Insurance: Mathematics and Economics 12, 1993). Its uniform numbers have 53 bits and its comparisons are made in
// float64: what is drawn differs from the Poisson distribution by about 1e-14 + 3e-16·√rate in total variation.
func (n *Noise) Poisson(rate float64) (v int64, err error) {
	if !(rate >= 0 && rate <= mostVariance) {
		panic(fmt.Sprintf("dp: Poisson rate %v", rate))
	}
	defer n.failed(&err)
	return n.poisson(rate), nil
}

func (n *Noise) poisson(rate float64) int64 {
	if rate < 10 {
		limit, product := math.Exp(-rate), 1.0
		for k := int64(0); ; k++ {
			if product *= 1 - n.unit(); product <= limit { // numbers in (0, 1]
				if rate == 0 {
					return 0
				}
				return k
			}
		}
	}
	root := math.Sqrt(rate)
	b := 0.931 + 2.53*root
	a := -0.059 + 0.02483*b
	inverseAlpha := 1.1239 + 1.1328/(b-3.4)
	squeeze := 0.9277 - 3.6224/(b-2)
	for {
		u, v := n.unit()-0.5, 1-n.unit()
		us := 0.5 - math.Abs(u)
		k := math.Floor((2*a/us+b)*u + rate + 0.43)
		switch {
		case us >= 0.07 && v <= squeeze:
			return int64(k)
		case k < 0 || us < 0.013 && v > us:
			continue
		}
		if math.Log(v*inverseAlpha/(a/(us*us)+b)) <= logPoisson(k, rate) {
			return int64(k)
		}
	}
}

// logPoisson returns ln(e^{−λ}·λ^k/k!) without the differences of great numbers that the formula has (Loader, "Fast and accurate
// computation of binomial probabilities", 2000): with k = λ(1+d),
//
//	−½ ln(2πk) − (1/(12k) − 1/(360k³) + …) − λ·((1+d)·ln(1+d) − d)
func logPoisson(k, rate float64) float64 {
	if k < 20 {
		l, _ := math.Lgamma(k + 1)
		return k*math.Log(rate) - rate - l
	}
	d := (k - rate) / rate
	deviance := (1+d)*math.Log1p(d) - d
	if math.Abs(d) < 0.1 { // Σ_{j≥2} (−d)^j / (j(j−1))
		deviance = 0
		power := d * d
		for j := 2.0; j < 20; j++ {
			deviance += power / (j * (j - 1))
			power *= -d
		}
	}
	stirling := (1./12 - (1./360-(1./1260-1./1680/(k*k))/(k*k))/(k*k)) / k
	return -math.Log(2*math.Pi*k)/2 - stirling - rate*deviance
}
