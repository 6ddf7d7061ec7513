package mismatch

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/parallel"
	"gonum.org/v1/gonum/mat"
)

// Model is f_θ on the n rows of one table. It is for one goroutine at a time.
type Model interface {
	// Fit moves θ towards the minimum of Σ_{i ∈ rows} w_i ℓ(f_θ(x_i), t_i): all the way, or by some epochs from where it is. t is
	// n×k, soft labels or class probabilities; w is n weights, nil for equal ones. Nil rows are all.
	Fit(ctx context.Context, rows []int, t *mat.Dense, w []float64) error
	// Predict writes f_θ(x_i), the label or the logarithms of class probabilities, into row i of out (n×k) for i in rows.
	Predict(ctx context.Context, rows []int, out *mat.Dense) error
}

// each calls f for every row of rows, or of all n.
func each(rows []int, n int, f func(i int)) {
	if rows == nil {
		for i := range n {
			f(i)
		}
		return
	}
	for _, i := range rows {
		f(i)
	}
}

// Linear is f(x) = xβ + β₀ fitted by least squares: β = (XᵀWX + ridge·tr(XᵀWX)/d·I)⁻¹XᵀWt, exactly and from scratch in every
// fit. The intercept is not shrunk.
type Linear struct {
	x         *mat.Dense
	intercept bool
	ridge     float64
	coef      *mat.Dense    // d×k, the intercept in the last row
	whole     *mat.Cholesky // of XᵀX over all rows, once it was needed
}

// NewLinear returns the linear model of features x, n×d. Ridge is relative to the features' mean square; 0 is least squares.
func NewLinear(x *mat.Dense, intercept bool, ridge float64) (*Linear, error) {
	n, d := x.Dims()
	if !(ridge >= 0) {
		return nil, badInput("ridge %v: it may not be negative", ridge)
	}
	if err := finite(x); err != nil {
		return nil, err
	}
	if n < d {
		return nil, badInput("%d rows for %d features: least squares needs more rows", n, d)
	}
	return &Linear{x: x, intercept: intercept, ridge: ridge}, nil
}

func finite(x *mat.Dense) error {
	n, _ := x.Dims()
	for i := range n {
		for c, v := range x.RawRowView(i) {
			if v-v != 0 {
				return badInput("feature %d of row %d is %v: fill in missing values first", c, i, v)
			}
		}
	}
	return nil
}

// Coefficients returns β, d×k, and after it a row of intercepts if there are any. Nil before the first fit.
func (m *Linear) Coefficients() *mat.Dense { return m.coef }

const linearChunk = 4096

func (m *Linear) width() int {
	_, d := m.x.Dims()
	if m.intercept {
		d++
	}
	return d
}

// sums returns Σ over rows of f's contributions, size numbers each, added by fixed chunks so that threads change no bit.
func (m *Linear) sums(rows []int, size int, f func(i int, sum []float64)) []float64 {
	n, _ := m.x.Dims()
	if rows != nil {
		n = len(rows)
	}
	parts := make([][]float64, (n+linearChunk-1)/linearChunk)
	parallel.Chunks(n, linearChunk, parallel.Threads(), func(at, lo, hi int) {
		sum := make([]float64, size)
		for r := lo; r < hi; r++ {
			i := r
			if rows != nil {
				i = rows[r]
			}
			f(i, sum)
		}
		parts[at] = sum
	})
	total := parts[0]
	for _, p := range parts[1:] {
		for j, v := range p {
			total[j] += v
		}
	}
	return total
}

// gram returns the factored XᵀWX.
func (m *Linear) gram(rows []int, w []float64) (*mat.Cholesky, error) {
	if m.whole != nil && rows == nil && w == nil {
		return m.whole, nil
	}
	d, features := m.width(), m.width()
	if m.intercept {
		features--
	}
	a := m.sums(rows, d*d, func(i int, sum []float64) {
		x, wi := m.x.RawRowView(i), 1.0
		if w != nil {
			wi = w[i]
		}
		if wi == 0 {
			return
		}
		for p, xp := range x {
			row := sum[p*d : p*d+d]
			for q, xq := range x[:p+1] {
				row[q] += wi * xp * xq
			}
		}
		if m.intercept {
			row := sum[features*d:]
			for q, xq := range x {
				row[q] += wi * xq
			}
			row[features] += wi
		}
	})
	s, trace := mat.NewSymDense(d, nil), 0.0
	for p := range d {
		for q := range p + 1 {
			s.SetSym(p, q, a[p*d+q])
		}
		if p < features {
			trace += a[p*d+p]
		}
	}
	for p := range features {
		s.SetSym(p, p, s.At(p, p)+m.ridge*trace/float64(features))
	}
	g := &mat.Cholesky{}
	if !g.Factorize(s) || g.Cond() > 1e14 {
		return nil, errors.New("mismatch: the features of the linear model depend on each other (a column that is constant, or a sum of " +
			"others): leave some out, or give it a little ridge such as 1e-6")
	}
	if rows == nil && w == nil {
		m.whole = g
	}
	return g, nil
}

// Fit implements [Model].
func (m *Linear) Fit(_ context.Context, rows []int, t *mat.Dense, w []float64) error {
	_, k := t.Dims()
	d := m.width()
	g, err := m.gram(rows, w)
	if err != nil {
		return err
	}
	b := m.sums(rows, d*k, func(i int, sum []float64) {
		ti, wi := t.RawRowView(i), 1.0
		if w != nil {
			wi = w[i]
		}
		for p, xp := range m.x.RawRowView(i) {
			for c, v := range ti {
				sum[p*k+c] += wi * xp * v
			}
		}
		if m.intercept {
			for c, v := range ti {
				sum[(d-1)*k+c] += wi * v
			}
		}
	})
	coef := mat.NewDense(d, k, nil)
	if err := g.SolveTo(coef, mat.NewDense(d, k, b)); err != nil {
		return fmt.Errorf("mismatch: least squares: %w", err)
	}
	m.coef = coef
	return nil
}

// Predict implements [Model].
func (m *Linear) Predict(_ context.Context, rows []int, out *mat.Dense) error {
	if m.coef == nil {
		return errors.New("mismatch: a linear model predicts only after it was fitted")
	}
	n, features := m.x.Dims()
	_, k := m.coef.Dims()
	beta := m.coef.RawMatrix().Data
	predict := func(i int) {
		o := out.RawRowView(i)
		clear(o)
		if m.intercept {
			copy(o, beta[features*k:])
		}
		for p, xp := range m.x.RawRowView(i) {
			for c := range o {
				o[c] += xp * beta[p*k+c]
			}
		}
	}
	if rows != nil {
		parallel.Chunks(len(rows), linearChunk, parallel.Threads(), func(_, lo, hi int) { each(rows[lo:hi], n, predict) })
		return nil
	}
	parallel.Chunks(n, linearChunk, parallel.Threads(), func(_, lo, hi int) {
		for i := lo; i < hi; i++ {
			predict(i)
		}
	})
	return nil
}

// rms returns the root of the mean of v².
func rms(v []float64) float64 {
	sum := 0.0
	for _, x := range v {
		sum += x * x
	}
	return math.Sqrt(sum / float64(len(v)))
}
