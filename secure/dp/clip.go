package dp

import (
	"fmt"
	"io"
	"math"

	"github.com/cohort-learning/cohort/weights"
)

// Clip returns x·min(1, bound/‖x‖₂), the norm taken over all tensors together, and ‖x‖₂ (McMahan et al., arXiv 1710.06963,
// section 3, "flat clipping"). x stays as it is; if it is short enough, the result shares its elements. An error means that x
// holds NaN or infinity. It panics unless bound > 0; with bound +Inf nothing is clipped. Rounding to x's type may leave the
// norm up to a part of 2⁻²³ above bound, for which [Central] allows.
func Clip(x weights.Set, bound float64) (clipped weights.Set, norm float64, err error) {
	if !(bound > 0) {
		panic(fmt.Sprintf("dp: clip bound %v", bound))
	}
	if err := x.Finite(); err != nil {
		return weights.Set{}, 0, fmt.Errorf("clip an update: %w", err)
	}
	norm = x.Norm()
	if norm <= bound {
		return x, norm, nil
	}
	clipped = x.Clone()
	if math.IsInf(norm, 1) {
		return weights.Set{}, norm, fmt.Errorf("clip an update: its norm exceeds float64")
	}
	clipped.Scale(bound / norm)
	return clipped, norm, nil
}

// ClipEach clips each of the L tensors of x to bound/√L, so that the norm of all is at most bound (McMahan et al., section 3,
// "per-layer clipping").
func ClipEach(x weights.Set, bound float64) (weights.Set, error) {
	out := weights.NewSet(x.Len())
	for name, t := range x.All() {
		var one weights.Set
		one.Put(name, t)
		one, _, err := Clip(one, bound/math.Sqrt(float64(x.Len())))
		if err != nil {
			return weights.Set{}, err
		}
		out.Merge(one)
	}
	return out, nil
}

// Adaptive follows a quantile of the updates' norms with the clip bound (Andrew, Thakkar, McMahan, Ramaswamy, NeurIPS 2021,
// arXiv 1905.03871, algorithm 1). Every member that takes part tells whether its update fitted, b_k = 1 if ‖Δ_k‖ ≤ S, else 0,
// and after the round
//
//	b̃ = (Σ_k (b_k − ½) + N(0, σ_b²)) / (qK) + ½
//	S ← S·exp(−η·(b̃ − γ))
//
// so that in the long run a part γ of the updates fits. Bits are sent as [Bit], b_k − ½, in the same protected sum as the
// update: the sum's sensitivity to a member is ½.
type Adaptive struct {
	Quantile   float64 // γ in [0, 1]; 0.5 is usual
	Rate       float64 // η > 0; 0.2 is usual
	CountNoise float64 // σ_b ≥ 0; qK/20 is usual
	Fraction   float64 // q
	Members    int     // K
}

// FirstClip is the clip bound to start from (section 3 of the paper); the bound finds its size within some dozens of rounds.
const FirstClip = 0.1

// NewAdaptive returns the settings that the paper recommends: γ = ½, η = 0.2, σ_b = qK/20.
func NewAdaptive(fraction float64, members int) Adaptive {
	return Adaptive{Quantile: 0.5, Rate: 0.2, CountNoise: fraction * float64(members) / 20, Fraction: fraction, Members: members}
}

// Validate returns an error that names what is out of range.
func (a Adaptive) Validate() error {
	switch {
	case !(a.Quantile >= 0 && a.Quantile <= 1):
		return fmt.Errorf("quantile %v: expected a number in [0, 1]", a.Quantile)
	case !(a.Rate > 0) || math.IsInf(a.Rate, 1):
		return fmt.Errorf("rate %v: expected a positive number", a.Rate)
	case !(a.CountNoise >= 0) || math.IsInf(a.CountNoise, 1):
		return fmt.Errorf("count noise %v: expected 0 or more", a.CountNoise)
	}
	return population(a.Fraction, a.Members)
}

// Bit is what a member adds to the count: ½ if its update fitted, else −½. Members that are away add 0.
func Bit(norm, clip float64) float64 {
	if norm <= clip {
		return 0.5
	}
	return -0.5
}

// UpdateNoise divides the noise multiplier z between update and count: with the update's noise multiplier
//
//	z_Δ = (z⁻² − (2σ_b)⁻²)^(−½)
//
// both together cost as much as one release with z (theorem 1 of the paper). It is an error if the count's noise is too little
// for that, z ≥ 2σ_b; with z = 0 nothing is private and z_Δ = 0.
func (a Adaptive) UpdateNoise(z float64) (float64, error) {
	if z == 0 {
		return 0, nil
	}
	if !(z > 0) || z >= 2*a.CountNoise {
		return 0, fmt.Errorf("noise multiplier %v with count noise %v: expected less than twice the count noise; raise the count noise or ask for less noise",
			z, a.CountNoise)
	}
	r := z / (2 * a.CountNoise)
	return z / math.Sqrt((1-r)*(1+r)), nil
}

// Next returns the clip bound of the next round from the bound of this one and the sum of the members' bits, with noise from
// random, which outside of tests is crypto/rand.Reader.
func (a Adaptive) Next(random io.Reader, clip, bits float64) (float64, error) {
	if err := a.Validate(); err != nil {
		return 0, err
	}
	if !(clip > 0) || math.IsInf(clip, 1) || !(math.Abs(bits) <= float64(a.Members)/2) {
		return 0, fmt.Errorf("next clip bound from %v and bits that sum to %v, of %d members", clip, bits, a.Members)
	}
	n := NewNoise(random)
	noisy, err := n.add(bits, a.CountNoise)
	if err != nil {
		return 0, fmt.Errorf("noise on the count of clipped updates: %w", err)
	}
	part := noisy/(a.Fraction*float64(a.Members)) + 0.5
	return min(max(clip*math.Exp(-a.Rate*(part-a.Quantile)), math.SmallestNonzeroFloat32), math.MaxFloat32), nil
}

func population(fraction float64, members int) error {
	if !(fraction > 0 && fraction <= 1) {
		return fmt.Errorf("fraction %v: expected a probability above 0, at most 1", fraction)
	}
	if members < 1 {
		return fmt.Errorf("%d members: expected at least 1", members)
	}
	return nil
}
