package robust

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
)

// GeometricMedian is the point z with the smallest Σ α_i ‖z − x_i‖, found by the smoothed Weiszfeld algorithm: from the mean,
//
//	z ← Σ β_i x_i / Σ β_i    with β_i = α_i / max(ν, ‖z − x_i‖)
//
// a few times. It stands any minority of liars (RFA; Pillutla, Kakade, Harchaoui, arXiv 1912.13445, algorithm 2). The paper
// weighs by examples; that is Weighted, and lets a liar claim many.
type GeometricMedian struct {
	Iterations int     // 0 means 3, as in the paper
	Nu         float64 // ν; 0 means 1e-6
	Weighted   bool    // by the weights of results instead of alike
}

func (m GeometricMedian) String() string { return "geometric median" }

// Validate implements [Method].
func (m GeometricMedian) Validate() error {
	switch {
	case m.Iterations < 0:
		return fmt.Errorf("iterations %d: need 0, for 3, or more", m.Iterations)
	case !(m.Nu >= 0) || math.IsInf(m.Nu, 0):
		return fmt.Errorf("nu %g: need 0, for 1e-6, or more", m.Nu)
	}
	return nil
}

func (m GeometricMedian) Check(n int) error { return atLeast("the geometric median", n, 1) }
func (m GeometricMedian) Weighs() bool      { return m.Weighted }
func (m GeometricMedian) Parts() bool       { return false }

func (m GeometricMedian) combine(ctx context.Context, v *view, _ []float64) (z, after []float64, err error) {
	nu := cmp.Or(m.Nu, 1e-6)
	alpha := portions(v.weight)
	if z, err = v.combination(ctx, nil, alpha, alpha); err != nil {
		return nil, nil, err
	}
	for range cmp.Or(m.Iterations, 3) {
		d, err := v.distances(ctx, z)
		if err != nil {
			return nil, nil, err
		}
		for i := range d {
			d[i] = alpha[i] / max(nu, d[i])
		}
		beta := portions(d)
		if z, err = v.combination(ctx, nil, beta, beta); err != nil {
			return nil, nil, err
		}
	}
	return z, nil, nil
}

// portions returns w/Σw.
func portions(w []float64) []float64 {
	var sum float64
	for _, x := range w {
		sum += x
	}
	out := make([]float64, len(w))
	for i, x := range w {
		out[i] = x / sum
	}
	return out
}

// NormClip is the mean of x_i·min(1, S/‖x_i‖): nobody's update is longer than S. Where members hold parts, norms are of the
// parts and means over those who hold a coordinate.
type NormClip struct {
	Norm     float64 // S; 0 means the median of the norms of the round
	Weighted bool    // by the weights of results instead of alike
}

// String implements [Method].
func (m NormClip) String() string {
	if m.Norm == 0 {
		return "mean of updates clipped to their median norm"
	}
	return fmt.Sprintf("mean of updates clipped to norm %g", m.Norm)
}

func (m NormClip) Validate() error   { return validNorm(m.Norm) }
func (m NormClip) Check(n int) error { return atLeast("the clipped mean", n, 1) }
func (m NormClip) Weighs() bool      { return m.Weighted }
func (m NormClip) Parts() bool       { return true }

func validNorm(s float64) error {
	if !(s >= 0) || math.IsInf(s, 0) {
		return fmt.Errorf("norm %g: need 0, for the median of the norms, or more", s)
	}
	return nil
}

func (m NormClip) combine(ctx context.Context, v *view, _ []float64) (centre, after []float64, err error) {
	d, err := v.distances(ctx, nil)
	if err != nil {
		return nil, nil, err
	}
	centre, err = v.combination(ctx, nil, clipped(v.weight, d, m.Norm), v.weight)
	return centre, nil, err
}

// clipped returns w_i·min(1, s/d_i); s = 0 stands for the median of d.
func clipped(w, d []float64, s float64) []float64 {
	if s == 0 {
		sorted := slices.Sorted(slices.Values(d))
		s = middle(sorted)
	}
	out := make([]float64, len(w))
	for i := range w {
		out[i] = w[i]
		if d[i] > s {
			out[i] = w[i] * (s / d[i])
		}
	}
	return out
}

// CentredClip moves a centre v, which it keeps from round to round and which is 0 at first, towards the updates, by each of
// them no further than τ/n:
//
//	v ← v + (1/n) Σ_i (x_i − v)·min(1, τ/‖x_i − v‖)
//
// L ≥ 1 times a round (Karimireddy, He, Jaggi, arXiv 2012.10333, algorithm 2). Its guarantee over many rounds needs members
// that use momentum. Where members hold parts, norms are of the parts and means over those who hold a coordinate.
type CentredClip struct {
	Radius     float64 // τ; 0 means the median of the distances to v, anew at every iteration
	Iterations int     // L; 0 means 1
	Weighted   bool    // by the weights of results instead of alike
}

// String implements [Method].
func (m CentredClip) String() string {
	if m.Radius == 0 {
		return "centred clipping at the median distance"
	}
	return fmt.Sprintf("centred clipping at %g", m.Radius)
}

// Validate implements [Method].
func (m CentredClip) Validate() error {
	if m.Iterations < 0 {
		return fmt.Errorf("iterations %d: need 0, for 1, or more", m.Iterations)
	}
	return validNorm(m.Radius)
}

func (m CentredClip) Check(n int) error { return atLeast("centred clipping", n, 1) }
func (m CentredClip) Weighs() bool      { return m.Weighted }
func (m CentredClip) Parts() bool       { return true }

func (m CentredClip) combine(ctx context.Context, v *view, before []float64) (centre, after []float64, err error) {
	centre = slices.Clone(before)
	if centre == nil {
		centre = make([]float64, v.spool.size)
	}
	for range cmp.Or(m.Iterations, 1) {
		d, err := v.distances(ctx, centre)
		if err != nil {
			return nil, nil, err
		}
		step, err := v.combination(ctx, centre, clipped(v.weight, d, m.Radius), v.weight)
		if err != nil {
			return nil, nil, err
		}
		for i, s := range step {
			centre[i] += s
		}
	}
	return centre, centre, nil
}
