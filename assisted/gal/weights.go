package gal

import (
	"math"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

// stack is the fitted values of M organisations and the residuals that they are to explain, each as one vector of N·K.
type stack struct {
	r []float64
	g [][]float64
}

// newStack takes rows that are not masked.
func newStack(r *mat.Dense, g []*mat.Dense) stack {
	s := stack{g: make([][]float64, len(g))}
	rows, _ := r.Dims()
	for i := range rows {
		row := r.RawRowView(i)
		if math.IsNaN(row[0]) {
			continue
		}
		s.r = append(s.r, row...)
		for m := range g {
			s.g[m] = append(s.g[m], g[m].RawRowView(i)...)
		}
	}
	return s
}

// loss is the mean of |r − Σ_m w_m g_m|^q over all entries.
func (s stack) loss(w []float64, q float64) float64 {
	sum := 0.0
	for _, u := range s.rest(w) {
		sum += math.Pow(math.Abs(u), q)
	}
	return sum / float64(len(s.r))
}

// rest is r − Σ_m w_m g_m.
func (s stack) rest(w []float64) []float64 {
	u := append([]float64(nil), s.r...)
	for m, g := range s.g {
		floats.AddScaled(u, -w[m], g)
	}
	return u
}

// Weights of the authors' released code.
const (
	adamSteps = 100
	adamRate  = 0.1
	adamDecay = 5e-4
)

// softmaxAdam returns gradient assistance weights as the released code computes them: w = softmax(θ) with θ = 1 at first, and
// a hundred full-batch steps of Adam at rate 0.1 with an L2 penalty of 5e-4 on θ that goes through Adam's moments. What it
// comes to depends on the scale of the residuals.
func (s stack) softmaxAdam(q float64) []float64 {
	n := len(s.g)
	theta, w := make([]float64, n), make([]float64, n)
	first, second := make([]float64, n), make([]float64, n)
	for m := range theta {
		theta[m] = 1
	}
	for t := 1; t <= adamSteps; t++ {
		softmax(theta, w)
		slope := s.slope(w, q)
		mean := floats.Dot(w, slope)
		for m := range theta {
			d := float64(w[m]*(slope[m]-mean)) + float64(adamDecay*theta[m])
			first[m] = float64(0.9*first[m]) + float64(0.1*d)
			second[m] = float64(0.999*second[m]) + float64(0.001*d*d)
			a := first[m] / (1 - math.Pow(0.9, float64(t)))
			b := second[m] / (1 - math.Pow(0.999, float64(t)))
			theta[m] -= float64(adamRate*a) / (math.Sqrt(b) + 1e-8)
		}
	}
	softmax(theta, w)
	return w
}

func softmax(theta, w []float64) {
	most := floats.Max(theta)
	for m := range w {
		w[m] = math.Exp(theta[m] - most)
	}
	floats.Scale(1/floats.Sum(w), w)
}

// slope is the gradient of the loss by w: −(q/NK) Σ |u|^{q−1} sign(u) g_m.
func (s stack) slope(w []float64, q float64) []float64 {
	u := s.rest(w)
	for i, v := range u {
		switch {
		case q == 2:
			u[i] = 2 * v
		case v == 0:
		default:
			u[i] = math.Copysign(q*math.Pow(math.Abs(v), q-1), v)
		}
	}
	d := make([]float64, len(s.g))
	for m, g := range s.g {
		d[m] = -floats.Dot(u, g) / float64(len(u))
	}
	return d
}

// exact returns the weights on the simplex that minimise the loss. For q = 2 it is a quadratic programme, solved until the
// duality gap is at most 1e-10 of the loss at the corners; for other q each step of Newton's method is one.
func (s stack) exact(q float64) []float64 {
	n := len(s.g)
	if n == 1 {
		return []float64{1}
	}
	if q == 2 {
		return simplex(s.normal())
	}
	return s.newton(q)
}

// normal is least squares as ½wᵀAw − bᵀw: A_{ml} = Σ g_m g_l / NK and b_m = Σ g_m r / NK.
func (s stack) normal() (a *mat.SymDense, b []float64) {
	n := len(s.g)
	a, b = mat.NewSymDense(n, nil), make([]float64, n)
	scale := 1 / float64(len(s.r))
	for m := range n {
		for l := range m + 1 {
			a.SetSym(m, l, float64(scale*floats.Dot(s.g[m], s.g[l])))
		}
		b[m] = float64(scale * floats.Dot(s.g[m], s.r))
	}
	return a, b
}

// nonNegative returns the w ≥ 0 that minimise the squared loss, whatever their sum.
func (s stack) nonNegative() []float64 { return nonNegative(s.normal()) }

// newton minimises the loss with |u|^q rounded off to (u² + μ²)^{q/2}, for μ from a tenth of the residuals' size down to 1e-9
// of it: each time by Newton's method, whose steps are quadratic programmes on the simplex, until the duality gap is at most
// 1e-8 of the loss.
func (s stack) newton(q float64) []float64 {
	n := len(s.g)
	w := make([]float64, n)
	for m := range w {
		w[m] = 1 / float64(n)
	}
	size := floats.Norm(s.r, math.Inf(1))
	if size == 0 {
		return w
	}
	for mu := 0.1; mu >= 1e-9; mu /= 10 {
		if q == 4 {
			mu = 1e-9 // it is smooth as it is
		}
		for range 100 {
			value, slope, curve := s.smooth(w, q, mu*size)
			if gap := floats.Dot(w, slope) - floats.Min(slope); gap <= 1e-9*value {
				break
			}
			b := make([]float64, n) // of ½(v−w)ᵀH(v−w) + slope·(v−w)
			for m := range b {
				b[m] = -slope[m]
				for l := range n {
					b[m] += float64(curve.At(m, l) * w[l])
				}
			}
			if !s.advance(w, simplex(curve, b), slope, value, q, mu*size) {
				break
			}
		}
	}
	return w
}

// advance moves w towards to, as far as the rounded-off loss falls by a share of what its slope promises. It reports whether
// it fell.
func (s stack) advance(w, to, slope []float64, value, q, mu float64) bool {
	d := make([]float64, len(w))
	floats.SubTo(d, to, w)
	promise := floats.Dot(slope, d)
	at := make([]float64, len(w))
	for step := 1.0; step > 1e-12; step /= 2 {
		floats.AddScaledTo(at, w, step, d)
		if s.rounded(at, q, mu) < value+1e-4*step*promise {
			copy(w, at)
			return true
		}
	}
	return false
}

func (s stack) rounded(w []float64, q, mu float64) float64 {
	sum := 0.0
	for _, u := range s.rest(w) {
		sum += math.Pow(float64(u*u)+float64(mu*mu), q/2)
	}
	return sum / float64(len(s.r))
}

// smooth is the rounded-off loss with its gradient and Hessian by w.
func (s stack) smooth(w []float64, q, mu float64) (value float64, slope []float64, curve *mat.SymDense) {
	u := s.rest(w)
	n, all := len(s.g), float64(len(u))
	first, second := make([]float64, len(u)), make([]float64, len(u))
	for i, v := range u {
		z := float64(v*v) + float64(mu*mu)
		value += math.Pow(z, q/2) / all
		first[i] = q * v * math.Pow(z, q/2-1) / all
		second[i] = q * math.Pow(z, q/2-2) * (float64((q-1)*v*v) + float64(mu*mu)) / all
	}
	slope, curve = make([]float64, n), mat.NewSymDense(n, nil)
	weighted := make([]float64, len(u))
	for m, g := range s.g {
		slope[m] = -floats.Dot(first, g)
		floats.MulTo(weighted, second, g)
		for l := range m + 1 {
			curve.SetSym(m, l, floats.Dot(weighted, s.g[l]))
		}
	}
	return value, slope, curve
}
