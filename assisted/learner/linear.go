package learner

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/lapack/lapack64"
	"gonum.org/v1/gonum/mat"
)

// leastSquares fits, with z the standardised features of a row,
//
//	min over b, β of Σ_i w_i ‖y_i − b − z_i β‖² + λ ‖β‖²
//
// The intercept b is not penalised. For λ = 0 and a singular design it is the solution of least ‖β‖: fitted values are the
// projection on the columns in any case. λ is in rows: it does not grow with the data.
type leastSquares struct {
	lambda    float64
	intercept bool
}

func newLinear(s Spec) (Learner, error) { return leastSquares{0, !s.NoIntercept}, nil }

func newRidge(s Spec) (Learner, error) {
	lambda := or(s.Lambda, 1)
	if lambda < 0 {
		return nil, fmt.Errorf("lambda: %g, expected 0 or more", lambda)
	}
	return leastSquares{lambda, !s.NoIntercept}, nil
}

func (l leastSquares) Fit(ctx context.Context, x, y *mat.Dense, w []float64, _ *rng.Stream) (Model, error) {
	n, d, k, w, err := checkFit(x, y, w)
	if err != nil {
		return nil, err
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	m := &Linear{Bias: make([]float64, k)}
	if l.intercept {
		m.Bias = columnMeans(y, w)
	}
	if d == 0 {
		return m, nil
	}
	s := standardise(x, w, l.intercept)
	z, t := s.apply(x), mat.NewDense(n, k, nil)
	for i := range n {
		root := math.Sqrt(w[i])
		zi, ti := z.RawRowView(i), t.RawRowView(i)
		for j := range zi {
			zi[j] *= root
		}
		for j, v := range y.RawRowView(i) {
			ti[j] = (v - m.Bias[j]) * root
		}
	}
	m.Fill, m.Center = s.fill, s.center
	if m.Coefficients, err = solve(z, t, l.lambda); err != nil {
		return nil, err
	}
	m.unscale(s)
	return m, nil
}

// unscale turns coefficients of standardised features into those of features.
func (m *Linear) unscale(s scaling) {
	for j, scale := range s.scale {
		floats.Scale(1/scale, m.Coefficients.RawRowView(j))
	}
}

// columnMeans returns the means of the columns of y under w.
func columnMeans(y *mat.Dense, w []float64) []float64 {
	n, k := y.Dims()
	means, column := make([]float64, k), make([]float64, n)
	for j := range k {
		mat.Col(column, j, y)
		means[j], _ = weightedMean(column, w)
	}
	return means
}

// solve returns the β (d×k) that minimises ‖zβ − t‖² + λ‖β‖², of least norm if λ = 0, by the singular values σ of z:
// β = V diag(σ/(σ²+λ)) Uᵀt over those σ that are more than rounding. A tall z is first reduced to its triangle R, whose
// singular values are the same; z and t are overwritten then.
func solve(z, t *mat.Dense, lambda float64) (*mat.Dense, error) {
	n, d := z.Dims()
	_, k := t.Dims()
	if n > d+k {
		z, t = reduce(z, t)
	}
	var svd mat.SVD
	if !svd.Factorize(z, mat.SVDThin) {
		return nil, errors.New("least squares: the singular values of the features did not converge; are some of them extremely large?")
	}
	sigma := svd.Values(nil)
	var u, v mat.Dense
	svd.UTo(&u)
	svd.VTo(&v)
	var c mat.Dense
	c.Mul(u.T(), t)
	least := sigma[0] * float64(max(n, d)) * 0x1p-52
	for i, s := range sigma {
		factor := 0.0
		if s > least {
			factor = s / (float64(s*s) + lambda)
		}
		for j, a := range c.RawRowView(i) {
			c.Set(i, j, a*factor)
		}
	}
	beta := new(mat.Dense)
	beta.Mul(&v, &c)
	return beta, nil
}

// reduce returns R (d×d) and Qᵀt (d×k) of z = QR for z with more than d+k rows.
func reduce(z, t *mat.Dense) (triangle, right *mat.Dense) {
	_, d := z.Dims()
	_, k := t.Dims()
	var both mat.Dense
	both.Augment(z, t)
	tau, work := make([]float64, d+k), make([]float64, 1)
	general := both.RawMatrix()
	lapack64.Geqrf(general, tau, work, -1)
	work = make([]float64, int(work[0]))
	lapack64.Geqrf(general, tau, work, len(work))
	triangle, right = mat.NewDense(d, d, nil), mat.NewDense(d, k, nil)
	for i := range d {
		row := both.RawRowView(i)
		copy(triangle.RawRowView(i)[i:], row[i:d])
		copy(right.RawRowView(i), row[d:])
	}
	return triangle, right
}

// Linear is an affine model: the prediction of a row x is Bias + (x − Center)·Coefficients, x = Fill where it is missing.
type Linear struct {
	Bias         []float64  // k
	Coefficients *mat.Dense // d×k; nil if there are no features
	Fill, Center []float64  // d
}

// Predict implements [Model].
func (m *Linear) Predict(x *mat.Dense) (*mat.Dense, error) {
	d := len(m.Fill)
	if err := checkPredict(x, d); err != nil {
		return nil, err
	}
	n, _ := x.Dims()
	if n == 0 {
		return new(mat.Dense), nil
	}
	out := mat.NewDense(n, len(m.Bias), nil)
	if d > 0 {
		out.Mul(scaling{m.Fill, m.Center, ones(d)}.apply(x), m.Coefficients)
	}
	for i := range n {
		for j, b := range m.Bias {
			out.Set(i, j, out.At(i, j)+b)
		}
	}
	return finite(out)
}

// Add adds scale times the predictions of o to those of m: a sum of linear models is a linear model, so that an organisation
// needs to keep only one. Both must have been fitted to the same columns and fill the same values in.
func (m *Linear) Add(scale float64, o *Linear) error {
	switch {
	case len(m.Bias) != len(o.Bias):
		return fmt.Errorf("a linear model of %d outputs cannot be added to one of %d", len(o.Bias), len(m.Bias))
	case !slices.Equal(m.Fill, o.Fill):
		return errors.New("linear models that fill different values in for missing ones cannot be added: they were fitted to different rows or columns")
	}
	for c := range m.Bias {
		m.Bias[c] += float64(scale * o.Bias[c])
	}
	for j := range m.Fill {
		shift := m.Center[j] - o.Center[j]
		for c, b := range o.Coefficients.RawRowView(j) {
			m.Bias[c] += float64(scale * shift * b)
			m.Coefficients.Set(j, c, m.Coefficients.At(j, c)+float64(scale*b))
		}
	}
	return nil
}

// MarshalBinary implements [Model].
func (m *Linear) MarshalBinary() ([]byte, error) {
	w := newWriter("linear")
	w.floats(m.Bias)
	w.floats(m.Fill)
	w.floats(m.Center)
	if len(m.Fill) > 0 {
		w.matrix(m.Coefficients)
	}
	return w.b, nil
}

func readLinear(r *reader) Model {
	m := &Linear{Bias: r.floats(), Fill: r.floats(), Center: r.floats()}
	r.check(len(m.Bias) > 0, "no outputs")
	r.check(len(m.Fill) == len(m.Center), "%d values to fill in for %d columns", len(m.Fill), len(m.Center))
	if len(m.Fill) > 0 {
		m.Coefficients = r.matrix()
		rows, columns := m.Coefficients.Dims()
		r.check(rows == len(m.Fill) && columns == len(m.Bias), "%d×%d coefficients for %d columns and %d outputs", rows, columns, len(m.Fill), len(m.Bias))
	}
	return m
}

// constant predicts the mean of the targets, or always the same number.
type constant struct{ value *float64 }

func newConstant(s Spec) (Learner, error) { return constant{s.Value}, nil }

func (c constant) Fit(_ context.Context, x, y *mat.Dense, w []float64, _ *rng.Stream) (Model, error) {
	_, _, k, w, err := checkFit(x, y, w)
	if err != nil {
		return nil, err
	}
	if c.value == nil {
		return &Linear{Bias: columnMeans(y, w)}, nil
	}
	return &Linear{Bias: slices.Repeat([]float64{*c.value}, k)}, nil
}

func ones(n int) []float64 { return slices.Repeat([]float64{1}, n) }
