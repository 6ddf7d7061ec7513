package learner

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

// descent fits an affine model by minibatch stochastic gradient descent on
//
//	ℓ_q = 1/(B·k) Σ_i Σ_c w_i |y_ic − b_c − z_i β_c|^q,   z standardised, w of mean 1,
//
// as Gradient Assisted Learning's "Linear" does (Diao, Ding, Tarokh, NeurIPS 2022, and its released settings): rate 0.1, ten
// times less after half of the epochs, momentum 0.9, weight decay 5·10⁻⁴ (also of b), batches of 1024, 100 epochs, gradients
// clipped to norm 1, a start drawn from U(±1/√d).
type descent struct {
	power, rate, momentum, decay float64
	batch, epochs                int
}

func newDescent(s Spec) (Learner, error) {
	l := descent{or(s.Power, 2), or(s.Rate, 0.1), or(s.Momentum, 0.9), or(s.Decay, 5e-4), cmp.Or(s.Batch, 1024), cmp.Or(s.Epochs, 100)}
	if err := checkDescent(l.power, l.momentum); err != nil {
		return nil, err
	}
	return l, checkSteps(l.rate, l.decay, l.batch, l.epochs)
}

// checkDescent checks the loss, and what steps remember.
func checkDescent(power, momentum float64) error {
	switch {
	case power < 1:
		return fmt.Errorf("power: %g, expected 1 or more", power)
	case momentum < 0 || momentum >= 1:
		return fmt.Errorf("momentum: %g, expected 0 or more, below 1", momentum)
	}
	return nil
}

var errDiverged = errors.New("the steps diverged; give it a smaller rate")

// checkSteps checks what learners by steps have in common.
func checkSteps(rate, decay float64, batch, epochs int) error {
	switch {
	case rate <= 0:
		return fmt.Errorf("rate: %g, expected more than 0", rate)
	case decay < 0:
		return fmt.Errorf("decay: %g, expected 0 or more", decay)
	case batch < 1:
		return fmt.Errorf("batch: %d, expected 1 or more", batch)
	case epochs < 1:
		return fmt.Errorf("epochs: %d, expected 1 or more", epochs)
	}
	return nil
}

func (l descent) Fit(ctx context.Context, x, y *mat.Dense, w []float64, r *rng.Stream) (Model, error) {
	_, d, k, w, err := checkFit(x, y, w)
	if err != nil {
		return nil, err
	}
	if d == 0 {
		return &Linear{Bias: columnMeans(y, w)}, nil
	}
	s := standardise(x, w, true)
	z := s.apply(x)
	rows := heavy(w)
	unit := float64(len(rows)) / floats.Sum(w)

	// The last row of params, gradient and velocity is that of the intercept.
	params := mat.NewDense(d+1, k, nil)
	p := params.RawMatrix().Data
	for i := range p {
		p[i] = r.Uniform(-1, 1) / math.Sqrt(float64(d))
	}
	gradient, velocity := mat.NewDense(d+1, k, nil), make([]float64, len(p))
	g, e := gradient.RawMatrix().Data, make([]float64, 4*k)
	for epoch := range l.epochs {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		rate := l.rate
		if 2*epoch >= l.epochs && epoch > 0 {
			rate = l.rate / 10
		}
		r.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
		for at := 0; at < len(rows); at += l.batch {
			batch := rows[at:min(at+l.batch, len(rows))]
			clear(g)
			for from := 0; from < len(batch); from += 4 {
				four := batch[from:min(from+4, len(batch))]
				for j, i := range four {
					f := e[j*k:][:k]
					affine(f, z.RawRowView(i), p)
					slope(l.power, f, y.RawRowView(i), w[i]*unit/float64(len(batch)*k))
				}
				if len(four) == 4 {
					spread4(g, z.RawRowView(four[0]), z.RawRowView(four[1]), z.RawRowView(four[2]), z.RawRowView(four[3]), e)
					continue
				}
				for j, i := range four {
					spread(g, z.RawRowView(i), e[j*k:][:k])
				}
			}
			floats.Scale(math.Min(1, 1/(floats.Norm(g, 2)+1e-6)), g)
			for i := range p {
				velocity[i] = float64(l.momentum*velocity[i]) + g[i] + float64(l.decay*p[i])
				p[i] -= float64(rate * velocity[i])
			}
		}
	}
	if v := floats.Sum(p); math.IsNaN(v) || math.IsInf(v, 0) {
		return nil, errDiverged
	}
	m := &Linear{Bias: mat.Row(nil, d, params), Coefficients: mat.DenseCopyOf(params.Slice(0, d, 0, k)), Fill: s.fill, Center: s.center}
	m.unscale(s)
	return m, nil
}

// heavy returns the rows of positive weight.
func heavy(w []float64) []int {
	rows := make([]int, 0, len(w))
	for i, v := range w {
		if v > 0 {
			rows = append(rows, i)
		}
	}
	return rows
}

// affine computes f = b + zβ, β (d×k) above b (1×k) in p.
func affine(f, z, p []float64) {
	k, d := len(f), len(z)
	copy(f, p[d*k:])
	j := 0
	for ; j+4 <= d; j += 4 {
		z0, z1, z2, z3 := z[j], z[j+1], z[j+2], z[j+3]
		p0, p1, p2, p3 := p[j*k:][:k], p[(j+1)*k:][:k], p[(j+2)*k:][:k], p[(j+3)*k:][:k]
		for c := range f {
			f[c] += float64(z0*p0[c]) + float64(z1*p1[c]) + float64(z2*p2[c]) + float64(z3*p3[c])
		}
	}
	for ; j < d; j++ {
		floats.AddScaled(f, z[j], p[j*k:][:k])
	}
}

// spread adds the gradient of the parameters of [affine] at z to g, e being that of f.
func spread(g, z, e []float64) {
	k, d := len(e), len(z)
	for j, v := range z {
		row := g[j*k:][:k]
		for c, x := range e {
			row[c] += float64(v * x)
		}
	}
	floats.Add(g[d*k:], e)
}

// spread4 is [spread] for four rows whose e follow one another: gradients are read and written once for all of them.
func spread4(g, z0, z1, z2, z3, e []float64) {
	k, d := len(e)/4, len(z0)
	e0, e1, e2, e3 := e[:k], e[k:][:k], e[2*k:][:k], e[3*k:][:k]
	z1, z2, z3 = z1[:d], z2[:d], z3[:d]
	for j, v0 := range z0 {
		v1, v2, v3 := z1[j], z2[j], z3[j]
		for c, row := 0, g[j*k:][:k]; c < len(row); c++ {
			row[c] += float64(v0*e0[c]) + float64(v1*e1[c]) + float64(v2*e2[c]) + float64(v3*e3[c])
		}
	}
	for c, row := 0, g[d*k:][:k]; c < len(row); c++ {
		row[c] += e0[c] + e1[c] + e2[c] + e3[c]
	}
}

// slope turns the outputs f of a row into scale·∂|f − y|^q/∂f.
func slope(power float64, f, y []float64, scale float64) {
	scale *= power
	if power == 2 {
		for c, v := range y {
			f[c] = scale * (f[c] - v)
		}
		return
	}
	for c, v := range y {
		e := f[c] - v
		switch {
		case e == 0:
			f[c] = 0
		case power == 1:
			f[c] = math.Copysign(scale, e)
		case power == 1.5:
			f[c] = math.Copysign(scale*math.Sqrt(math.Abs(e)), e)
		case power == 4:
			f[c] = scale * e * e * e
		default:
			f[c] = math.Copysign(scale*math.Pow(math.Abs(e), power-1), e)
		}
	}
}
