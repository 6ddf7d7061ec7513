package selffl

import (
	"fmt"
	"math"
)

// The closed forms of the model of two levels, for one coordinate; with one variance a client the same weights hold for all.
//
//	θ_m | θ_0 ~ N(θ_0, σ_0²)   θ_m^L | θ_m ~ N(θ_m, v_m)   m = 1 … M, flat prior on θ_0
//
// σ_0² is called between here, v_m the variance of a client's own estimate θ_m^L (not of its examples).

// Precision returns w_m = 1/(σ_0² + v_m): how much client m's estimate says about θ_0. It panics if either is negative or
// both are 0.
func Precision(between, v float64) float64 {
	if !(between >= 0) || !(v >= 0) || between+v == 0 {
		panic(fmt.Sprintf("selffl: no precision of variances %v between clients and %v within one", between, v))
	}
	return 1 / (between + v)
}

// Precisions returns w_m of every client and W = Σ w_m.
func Precisions(between float64, v []float64) (w []float64, total float64) {
	w = make([]float64, len(v))
	for m := range v {
		w[m] = Precision(between, v[m])
		total += w[m]
	}
	return w, total
}

// Global returns G = Σ w_m θ_m / W, the server's estimate of θ_0, whose variance is 1/W.
func Global(theta, w []float64) float64 {
	var sum, total float64
	for m := range theta {
		sum += w[m] * theta[m]
		total += w[m]
	}
	return sum / total
}

// Posterior returns mean and variance of θ_m given everything, from the global estimate:
//
//	λ_m = v_m/(v_m + σ_0²)   E = (1 − λ_m) θ_m^L + λ_m G   Var = (1 − λ_m) v_m + λ_m² v_G
func Posterior(theta, v, between, g, vg float64) (mean, variance float64) {
	l := Pull(v, between, 0)
	return (1-l)*theta + l*g, (1-l)*v + l*l*vg
}

// LeaveOneOut returns the others' estimate of θ_0, without client m, and its variance:
//
//	G_{−m} = (W·G − w_m θ_m)/(W − w_m)   v_{G−m} = 1/(W − w_m)
//
// A client computes it of the global estimate itself: it knows what it has sent.
func LeaveOneOut(g, total, theta, w float64) (mean, variance float64) {
	return (total*g - w*theta) / (total - w), 1 / (total - w)
}

// Pull returns how far the posterior of θ_m lies on the way from the client's own estimate to that of others, which has the
// variance others:
//
//	β_m = v_m/(v_m + σ_0² + v_{G−m})
//
// With others = 0 it is λ_m, the weight of the global estimate in which the client is itself.
func Pull(v, between, others float64) float64 {
	if v == 0 {
		return 0
	}
	return v / (v + between + others)
}

// Pairwise returns the mean of θ_m if the others' estimates were independent given θ_m: weights 1/v_m on its own and
// 1/(2σ_0² + v_k) on every other. They are not, since all share θ_0, so it is not the posterior; it is here to compare with.
func Pairwise(m int, theta, v []float64, between float64) float64 {
	var sum, total float64
	for k := range theta {
		w := 1 / v[k]
		if k != m {
			w = 1 / (2*between + v[k])
		}
		sum += w * theta[k]
		total += w
	}
	return sum / total
}

// WarmPull returns the contraction that a start (1 − ρ)·θ_m + ρ·G_{−m} needs so that the posterior stays where it is:
//
//	b = β/(β + ρ(1 − β))
//
// With ρ = 1 it is β.
func WarmPull(beta, rho float64) float64 {
	if beta == 0 {
		return 0
	}
	return beta / (beta + rho*(1-beta))
}

// Contraction returns (1 − ηh)^ℓ, what ℓ steps of rate η leave of the way to the minimum of a quadratic with curvature h.
func Contraction(rate, h float64, steps int) float64 { return math.Pow(1-rate*h, float64(steps)) }

// Descent is how long and how fast a client trains.
type Descent struct {
	Steps int
	Rate  float64
	// Capped says that the rate asked for was too large for the curvature, so that less was planned with.
	Capped bool
}

// largest is the greatest ηh that steps are planned with.
const largest = 0.999

// Plan returns the number of steps, and the rate, by which gradient descent on a quadratic of curvature h goes from its start
// to where a part b of the way to the minimum is left:
//
//	ℓ* = ln b / ln(1 − ηh)   ℓ = ⌈ℓ*⌉ within [least, most]   η' = (1 − b^{1/ℓ})/h ≤ η
//
// so that a whole number of steps lands exactly; where ℓ had to be moved into its bounds, the rate stays η. With b = 0 nothing
// of the start may be left, and the steps are as many as are allowed; with b = 1 there is nothing to do, and they are as few.
func Plan(b, h, rate float64, least, most int) Descent {
	d := Descent{Rate: rate}
	if rate*h >= 1 {
		d.Capped, d.Rate = true, largest/h
	}
	switch {
	case !(b > 0):
		d.Steps = most
		return d
	case b >= 1-1e-12:
		d.Steps = least
		return d
	}
	exact := math.Log(b) / math.Log1p(-d.Rate*h)
	n := math.Ceil(exact)
	if !(n >= float64(least) && n <= float64(most)) { // also where it is no number
		d.Steps = least
		if n > float64(most) {
			d.Steps = most
		}
		return d
	}
	d.Steps = int(n)
	d.Rate = -math.Expm1(math.Log(b)/n) / h
	return d
}

// leastMoved is the least part of the way to the minimum that an upload is taken to have gone.
const leastMoved = 0.2

// Unshrink returns by what the way from start to upload is multiplied so that it ends where the client's own estimate would
// be, if a part b of the way was left: 1/(1 − b), at most 5.
//
//	θ̃ = init + (θ − init)·Unshrink(b)
//
// Uploads are pulled towards their start, so their spread says too little about σ_0². Without this correction the estimate
// feeds on itself: a small σ_0² makes few steps, few steps a smaller spread, and so on until nobody learns anything.
func Unshrink(b float64) float64 { return 1 / math.Max(leastMoved, 1-b) }
