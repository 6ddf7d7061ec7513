package mismatch

import (
	"context"
	"math"

	"github.com/cohort-learning/cohort/parallel"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// Naive fits every row to the label that it came with.
func Naive(ctx context.Context, p Problem, m Model, v Rival) error {
	return reweighted(ctx, p, m, v, 1, func(*search, *mat.Dense) []float64 { return nil })
}

// Huber is Huber's M-estimate by iteratively reweighted fits, w = min(1, c·s/|r|), c = 1.345, s = median|r|/0.6745.
func Huber(ctx context.Context, p Problem, m Model, v Rival) error {
	return reweighted(ctx, p, m, v, 50, (*search).huber)
}

// LAD fits the least sum of absolute residuals by reweighted fits, w = 1/√(r² + (1e-6 s_y)²), s_y the labels' standard deviation.
func LAD(ctx context.Context, p Problem, m Model, v Rival) error {
	return reweighted(ctx, p, m, v, 200, func(s *search, t *mat.Dense) []float64 {
		w, e := make([]float64, s.l.n), 1e-12*s.l.scale
		for i := range w {
			w[i] = math.Sqrt(s.l.scale / (distance(t.RawRowView(i), s.f.RawRowView(i)) + e))
		}
		return w
	})
}

func reweighted(ctx context.Context, p Problem, m Model, v Rival, most int, weigh func(*search, *mat.Dense) []float64) error {
	s, err := contest(p, m, v, false)
	if err != nil {
		return err
	}
	t, _ := s.given()
	var w []float64
	for i := range rounds(v.Rounds, most) {
		if err := s.fit(ctx, t, w); err != nil {
			return err
		}
		if s.say("reweight", i) {
			return nil
		}
		w = weigh(s, t)
	}
	return nil
}

// LambdaAssignment is J at τ = 0, from the mixture's estimate: by rounds the assignment of least Σ (f_i − y_π(i))² + λ·#moved with λ = 4σ² log m, then the fit.
// σ² stays that of the mixture: one that follows the residuals grows with every wrong link that is kept, and λ with it, until none
// is moved. O(n³) time a round.
func LambdaAssignment(ctx context.Context, p Problem, m Model, v Rival) error {
	s, err := contest(p, m, v, false)
	if err != nil {
		return err
	}
	if err := s.begin(ctx); err != nil {
		return err
	}
	t, _ := s.given()
	if !(s.held && s.alpha == 0) {
		s.huber(t) // begins σ²
		if _, _, err := s.mixture(ctx); err != nil {
			return err
		}
	}
	for i := range rounds(v.Rounds, 30) {
		for _, b := range s.l.blocks {
			cost := mat.NewDense(len(b.rows), len(b.labels), nil)
			lambda := 4 * s.noise * math.Log(float64(max(2, len(b.labels))))
			for r, i := range b.rows {
				for c, j := range b.labels {
					d := distance(s.l.y.RawRowView(j), s.f.RawRowView(i))
					if c != b.own[r] {
						d += lambda
					}
					cost.Set(r, c, d)
				}
			}
			of, _ := Assign(cost)
			for r, i := range b.rows {
				t.SetRow(i, s.l.y.RawRowView(b.labels[of[r]]))
			}
		}
		if err := s.fit(ctx, t, nil); err != nil {
			return err
		}
		if s.say("assign", i) {
			return nil
		}
	}
	return nil
}

// StochasticEM is the estimate after Abid and Zou (arXiv 1804.00681): by rounds a Metropolis chain over transpositions of labels,
// which accepts with probability min(1, exp(−Δ/2σ²)), n·log n proposals a round of which the second half gives the mean label of
// every row; then the fit. The predictions of the second half of the 40 rounds are averaged and fitted once more.
func StochasticEM(ctx context.Context, p Problem, m Model, v Rival, r *rng.Stream) error {
	s, err := contest(p, m, v, true)
	if err != nil {
		return err
	}
	t, _ := s.given()
	if err := s.naive(ctx, v.Ready, t); err != nil {
		return err
	}
	z := t.RawMatrix().Data
	s.noise = s.residual(z)
	most := rounds(v.Rounds, 40)
	mean, average := mat.NewDense(s.l.n, 1, nil), mat.NewDense(s.l.n, 1, nil)
	for round := range most {
		mean.Zero()
		for _, b := range s.l.blocks {
			s.chain(b, z, mean, r)
		}
		for _, i := range s.l.settled {
			mean.Set(i, 0, z[i])
		}
		if err := s.fit(ctx, mean, nil); err != nil {
			return err
		}
		s.noise = s.residual(z)
		if round >= most/2 {
			average.Add(average, s.f)
		}
	}
	average.Scale(1/float64(most-most/2), average)
	return s.fit(ctx, average, nil)
}

// residual returns the mean square of z − f.
func (s *search) residual(z []float64) float64 {
	sum := 0.0
	for i, y := range z {
		d := y - s.f.At(i, 0)
		sum += d * d
	}
	return max(sum/float64(len(z)), 1e-8*s.l.scale)
}

// chain moves the labels z of a block and writes their mean over the second half of the chain.
func (s *search) chain(b block, z []float64, mean *mat.Dense, r *rng.Stream) {
	n := len(b.rows)
	steps := int(float64(n) * math.Log(float64(n)))
	since := make([]int, n) // step at which a row got its label, for its mean
	half := steps / 2
	note := func(row, now int) {
		if from := max(since[row], half); now > from {
			i := b.rows[row]
			mean.Set(i, 0, mean.At(i, 0)+z[i]*float64(now-from)/float64(steps-half))
		}
		since[row] = now
	}
	for step := range steps {
		p, q := r.IntN(n), r.IntN(n)
		i, j := b.rows[p], b.rows[q]
		delta := 2 * (z[i] - z[j]) * (s.f.At(i, 0) - s.f.At(j, 0)) // of Σ(z − f)² when they swap
		if delta > 0 && r.Float64() >= math.Exp(-delta/(2*s.noise)) {
			continue
		}
		note(p, step)
		note(q, step)
		z[i], z[j] = z[j], z[i]
	}
	for row := range n {
		note(row, steps)
		if steps == half { // a block of one row makes no step
			mean.Set(b.rows[row], 0, z[b.rows[row]])
		}
	}
}

// LocalSearch is the greedy search of Mazumder and Wang (arXiv 2106.02175) for the linear model of features x (n×d, with a column of
// ones for an intercept): with H = I − X(XᵀX)⁻¹Xᵀ it makes the swap of two labels that lowers ‖HPy‖² most until none lowers it.
// With g = Hz and D = z_j − z_i a swap changes it by 2D(g_i − g_j) + D²(H_ii + H_jj − 2H_ij). n² numbers of memory and n²/2 swaps to
// look at a step. It fits m to the labels that it ends with.
func LocalSearch(ctx context.Context, p Problem, x *mat.Dense, m Model, v Rival) error {
	s, err := contest(p, m, v, true)
	if err != nil {
		return err
	}
	h, err := residualMaker(x)
	if err != nil {
		return err
	}
	n := s.l.n
	t, _ := s.given()
	z := t.RawMatrix().Data
	g, own := make([]float64, n), make([]float64, n) // own is H's diagonal
	for i := range own {
		own[i] = h.At(i, i)
	}
	mat.NewVecDense(n, g).MulVec(h, mat.NewVecDense(n, z))
	type swap struct {
		gain float64
		i, j int
	}
	best := make([]swap, n)
	blockOf := make([]int, n)
	for i := range blockOf {
		blockOf[i] = -1
	}
	for b, k := range s.l.blocks {
		for _, i := range k.rows {
			blockOf[i] = b
		}
	}
	for range rounds(v.Rounds, 10*n) {
		if err := ctx.Err(); err != nil {
			return context.Cause(ctx)
		}
		parallel.Chunks(n, rowChunk, parallel.Threads(), func(_, lo, hi int) {
			for i := lo; i < hi; i++ {
				b, row := swap{}, h.RawRowView(i)
				for j := i + 1; j < n; j++ {
					d := z[j] - z[i]
					gain := d * (2*(g[i]-g[j]) + d*(own[i]+own[j]-2*row[j]))
					if gain < b.gain && blockOf[i] >= 0 && blockOf[i] == blockOf[j] {
						b = swap{gain, i, j}
					}
				}
				best[i] = b
			}
		})
		b := best[0]
		for _, other := range best {
			if other.gain < b.gain {
				b = other
			}
		}
		if b.gain > -1e-10 {
			break
		}
		d := z[b.j] - z[b.i]
		hi, hj := h.RawRowView(b.i), h.RawRowView(b.j)
		for k := range g {
			g[k] += d * (hi[k] - hj[k])
		}
		z[b.i], z[b.j] = z[b.j], z[b.i]
	}
	return s.fit(ctx, t, nil)
}

// residualMaker returns I − X(XᵀX)⁻¹Xᵀ.
func residualMaker(x *mat.Dense) (*mat.Dense, error) {
	n, d := x.Dims()
	if n <= d {
		return nil, badInput("%d rows for %d features: the search needs more rows", n, d)
	}
	var qr mat.QR
	qr.Factorize(x)
	if qr.Cond() > 1e12 {
		return nil, badInput("the features depend on each other: leave some out")
	}
	var whole mat.Dense
	qr.QTo(&whole)
	q := whole.Slice(0, n, 0, d)
	h := mat.NewDense(n, n, nil)
	h.Mul(q, q.T())
	h.Apply(func(i, j int, v float64) float64 { return float64(flag(i == j)) - v }, h)
	return h, nil
}
