package selffl

import (
	"fmt"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
)

// Within names an estimator of v_m, the variance of a client's own estimate.
type Within string

// The estimators.
const (
	// Trajectory is the variance of the local model over the last half of its steps, from where that half begins to the end,
	// averaged over the coordinates: the published idea. It grows with the learning rate and falls with the batch size, which say nothing about the client.
	Trajectory Within = "trajectory"
	// Calibrated is Trajectory times [Calibration], the default.
	Calibrated Within = "trajectory-calibrated"
	// Rounds is the variance of what the client sent in its last [RoundsKept] rounds.
	Rounds Within = "rounds"
	// Sandwich is the mean of the diagonal of H⁻¹CH⁻¹/n at the end of training, with H the Hessian of the client's loss and C
	// the covariance of the gradients of its examples; for small models.
	Sandwich Within = "sandwich"
	// Fisher takes the mean of g·gᵀ over the examples, the empirical Fisher information, for both; for small models.
	Fisher Within = "fisher"
)

// Withins lists the estimators.
func Withins() []Within { return []Within{Calibrated, Trajectory, Rounds, Sandwich, Fisher} }

// Validate returns an error unless w is one of [Withins].
func (w Within) Validate() error {
	if !slices.Contains(Withins(), w) {
		return fmt.Errorf("uq: %q, expected trajectory-calibrated, trajectory, rounds, sandwich or fisher", w)
	}
	return nil
}

// RoundsKept is how many of its uploads a client remembers for [Rounds].
const RoundsKept = 5

// Calibration returns κ = 2B/(n·h·η). Where the noise of single gradients has covariance C, SGD of rate η and batch B on a
// quadratic of curvature h has the stationary variance ηC/(Bh(2 − ηh)) ≈ ηC/(2Bh) (Mandt, Hoffman, Blei 2017), and the
// minimum of the loss of n examples the variance C/(nh²). κ makes the second of the first: η and B cancel.
func Calibration(batch, examples int, h, rate float64) float64 {
	return 2 * float64(batch) / (float64(examples) * h * rate)
}

// Moments are mean and variance of a sequence of vectors, one after the other (Welford 1962). The zero value is empty.
type Moments struct {
	n    int
	mean []float64
	m2   []float64
}

// Observe adds one vector to w, given in parts, one after the other: as many numbers as before.
func Observe[F Float](w *Moments, parts ...[]F) {
	if w.n == 0 {
		size := 0
		for _, p := range parts {
			size += len(p)
		}
		w.mean, w.m2 = make([]float64, size), make([]float64, size)
	}
	w.n++
	inverse, at := 1/float64(w.n), 0
	for _, p := range parts {
		mean, m2 := w.mean[at:at+len(p)], w.m2[at:at+len(p)]
		for j, x := range p {
			d := float64(x) - mean[j]
			mean[j] += float64(d * inverse)
			m2[j] += float64(d * (float64(x) - mean[j]))
		}
		at += len(p)
	}
}

// Len returns how many vectors were added.
func (w *Moments) Len() int { return w.n }

// Variance returns the variances of the coordinates from lo to hi, averaged; false if fewer than two vectors were added or
// there are no such coordinates.
func (w *Moments) Variance(lo, hi int) (float64, bool) {
	if w.n < 2 || lo >= hi {
		return 0, false
	}
	var sum float64
	for _, x := range w.m2[lo:hi] {
		sum += x
	}
	return sum / float64(w.n-1) / float64(hi-lo), true
}

// Secant returns the curvature along the way from init to θ, from the gradients at both ends:
//
//	h = ⟨∇F(init) − ∇F(θ), init − θ⟩ / ‖init − θ‖²
//
// false if the way is too short, or the loss is not convex along it.
func Secant[F Float](gradInit, grad, init, theta [][]F) (float64, bool) {
	var num, den float64
	for p := range init {
		for j := range init[p] {
			d := float64(init[p][j]) - float64(theta[p][j])
			num += float64(d * (float64(gradInit[p][j]) - float64(grad[p][j])))
			den += float64(d * d)
		}
	}
	if !(num > 0) || !(den >= 1e-20) {
		return 0, false
	}
	h := num / den
	return h, !math.IsInf(h, 0)
}

// SandwichVariance returns diag(H⁻¹ C H⁻¹)/n: the variance of the minimum of the mean of n losses with Hessian H and gradients
// of covariance C. Directions without curvature are damped by a millionth of H's mean diagonal. It fails if H is not
// positive definite even then.
func SandwichVariance(h, c mat.Symmetric, n int) ([]float64, error) {
	d := h.SymmetricDim()
	damped := mat.NewSymDense(d, nil)
	damped.CopySym(h)
	ridge := 1e-6 * mat.Trace(h) / float64(d)
	for i := range d {
		damped.SetSym(i, i, damped.At(i, i)+ridge)
	}
	var chol mat.Cholesky
	if !chol.Factorize(damped) {
		return nil, fmt.Errorf("the Hessian of %d parameters is not positive definite: the loss is not at a minimum", d)
	}
	var inverse mat.SymDense
	if err := chol.InverseTo(&inverse); err != nil && math.IsInf(chol.Cond(), 1) {
		return nil, fmt.Errorf("inverting the Hessian of %d parameters: %w", d, err)
	}
	var left, both mat.Dense
	left.Mul(&inverse, c)
	both.Mul(&left, &inverse)
	v := make([]float64, d)
	for i := range v {
		v[i] = both.At(i, i) / float64(n)
	}
	return v, nil
}

// Smooth returns the mean of an old variance and a new one; the new one if there was none.
func Smooth(old, fresh float64) float64 {
	if old == 0 {
		return fresh
	}
	return 0.5*old + 0.5*fresh
}
