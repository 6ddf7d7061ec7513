package learner

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/parallel"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

// supportVectors fits, for every output on its own, ε-insensitive regression with the kernel K(z, z') = exp(−γ‖z − z'‖²) on
// standardised features (Vapnik 1995): f(x) = b + Σ_i β_i K(z_i, z) with
//
//	min over β of ½ βᵀKβ − yᵀβ + ε Σ|β_i|,   Σ β_i = 0,   |β_i| ≤ C·w_i
//
// by sequential minimal optimisation: two coefficients at a time, chosen by second-order information (Fan, Chen and Lin,
// Working set selection using second order information, 2005).
type supportVectors struct {
	c, epsilon float64
	gamma      *float64 // nil: 1/(d·variance of the features)
}

func newSVR(s Spec) (Learner, error) {
	l := supportVectors{or(s.C, 1), or(s.Epsilon, 0.1), s.Gamma}
	switch {
	case l.c <= 0:
		return nil, fmt.Errorf("c: %g, expected more than 0", l.c)
	case l.epsilon < 0:
		return nil, fmt.Errorf("epsilon: %g, expected 0 or more", l.epsilon)
	case l.gamma != nil && *l.gamma <= 0:
		return nil, fmt.Errorf("gamma: %g, expected more than 0", *l.gamma)
	}
	return l, nil
}

func (l supportVectors) Fit(ctx context.Context, x, y *mat.Dense, w []float64, _ *rng.Stream) (Model, error) {
	_, d, k, w, err := checkFit(x, y, w)
	if err != nil {
		return nil, err
	}
	if d == 0 {
		return &Linear{Bias: columnMeans(y, w)}, nil
	}
	s := standardise(x, w, true)
	rows := heavy(w)
	z := mat.NewDense(len(rows), d, nil)
	bounds := make([]float64, len(rows))
	var square float64
	for at, i := range rows {
		s.row(z.RawRowView(at), x.RawRowView(i))
		bounds[at] = l.c * w[i]
		square += float64(w[i] * floats.Dot(z.RawRowView(at), z.RawRowView(at)))
	}
	gamma := 1.0
	if l.gamma != nil {
		gamma = *l.gamma
	} else if square > 0 {
		gamma = floats.Sum(w) / square
	}
	kernel := newKernel(z, gamma)
	beta, bias := mat.NewDense(len(rows), k, nil), make([]float64, k)
	failures := make([]error, k)
	optimise := func(c int) {
		target := make([]float64, len(rows))
		for at, i := range rows {
			target[at] = y.At(i, c)
		}
		p := newPairwise(kernel, target, bounds, l.epsilon)
		failures[c] = p.run(ctx)
		bias[c] = p.bias()
		for at := range rows {
			beta.Set(at, c, p.alpha[0][at]-p.alpha[1][at])
		}
	}
	if kernel.roomy() {
		parallel.Do(k, 0, optimise)
	} else {
		for c := range k {
			optimise(c)
		}
	}
	if err := errors.Join(failures...); err != nil {
		return nil, err
	}
	return supporting(s, gamma, z, beta, bias), nil
}

// supporting keeps the rows that have a coefficient.
func supporting(s scaling, gamma float64, z, beta *mat.Dense, bias []float64) *gaussians {
	m := &gaussians{scaling: s, gamma: gamma, bias: bias}
	n, d := z.Dims()
	k := len(bias)
	var vectors, coefficients []float64
	for i := range n {
		if floats.Norm(beta.RawRowView(i), math.Inf(1)) > 0 {
			vectors = append(vectors, z.RawRowView(i)...)
			coefficients = append(coefficients, beta.RawRowView(i)...)
		}
	}
	if count := len(vectors) / d; count > 0 {
		m.vectors, m.coefficients = mat.NewDense(count, d, vectors), mat.NewDense(count, k, coefficients)
	}
	return m
}

// gaussians is a sum of Gaussian bumps on standardised features: bias + Σ_i coefficients_i exp(−γ‖z − vector_i‖²).
type gaussians struct {
	scaling
	gamma        float64
	bias         []float64
	vectors      *mat.Dense // s×d; nil if there are none
	coefficients *mat.Dense // s×k
}

// Predict implements [Model].
func (m *gaussians) Predict(x *mat.Dense) (*mat.Dense, error) {
	if err := checkPredict(x, len(m.fill)); err != nil {
		return nil, err
	}
	n, _ := x.Dims()
	if n == 0 {
		return new(mat.Dense), nil
	}
	out := mat.NewDense(n, len(m.bias), nil)
	z := m.apply(x)
	parallel.Do(n, 0, func(i int) {
		o := out.RawRowView(i)
		copy(o, m.bias)
		if m.vectors == nil {
			return
		}
		s, _ := m.vectors.Dims()
		for v := range s {
			floats.AddScaled(o, math.Exp(-m.gamma*squaredDistance(z.RawRowView(i), m.vectors.RawRowView(v))), m.coefficients.RawRowView(v))
		}
	})
	return finite(out)
}

func squaredDistance(a, b []float64) float64 {
	var sum float64
	for i, v := range a {
		d := v - b[i]
		sum += float64(d * d)
	}
	return sum
}

// MarshalBinary implements [Model].
func (m *gaussians) MarshalBinary() ([]byte, error) {
	w := newWriter("kernel")
	m.scaling.write(w)
	w.float(m.gamma)
	w.floats(m.bias)
	w.flag(m.vectors != nil)
	if m.vectors != nil {
		w.matrix(m.vectors)
		w.matrix(m.coefficients)
	}
	return w.b, nil
}

func readKernel(r *reader) Model {
	m := &gaussians{scaling: readScaling(r), gamma: r.float(), bias: r.floats()}
	r.check(len(m.fill) > 0 && len(m.bias) > 0 && m.gamma > 0, "%d features, %d outputs, gamma %v", len(m.fill), len(m.bias), m.gamma)
	if r.flag() {
		m.vectors, m.coefficients = r.matrix(), r.matrix()
		s, d := m.vectors.Dims()
		t, k := m.coefficients.Dims()
		r.check(s == t && d == len(m.fill) && k == len(m.bias), "%d×%d vectors with %d×%d coefficients", s, d, t, k)
	}
	return m
}
