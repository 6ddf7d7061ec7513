package mismatch

import (
	"context"
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/parallel"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// Robot is how [ROBOT] goes about it; the zero value is the published setting but for the optimiser.
type Robot struct {
	Starts  int     // random fits of d rows that the start is chosen from; 0: 10,000
	Rounds  int     // steps of Adam; 0: 200
	Rate    float64 // of Adam; 0: 0.01
	Epsilon float64 // ε over the largest cost; 0: 1e-4
	Sweeps  int     // of Sinkhorn a step; 0: 200
	Simple  bool    // the gradient at the plan held fast, instead of the hypergradient
}

// ROBOT is the estimate after Xie et al. (arXiv 2012.00123) for the linear model of features x (n×d): all labels are shuffled, the
// pairs that came are not used. With C_ij = (y_j − x_iβ)² and S = Sinkhorn(−C/ε) it descends Σ S_ij C_ij, whose hypergradient with
// respect to C is
//
//	G = S − (1/ε) S∘(C − a1ᵀ − 1bᵀ),  [diag μ, S; Sᵀ, diag ν][a; b] = [(S∘C)1; (S∘C)ᵀ1]
//
// with the last row and column of the singular system left out. It returns β.
func ROBOT(ctx context.Context, x *mat.Dense, y []float64, o Robot, r *rng.Stream) ([]float64, error) {
	n, d := x.Dims()
	if len(y) != n || n <= d {
		return nil, badInput("%d labels for %d rows of %d features: as many labels as rows are needed, and more rows than features", len(y), n, d)
	}
	beta := robotStart(x, y, orElse(o.Starts, 10_000), r)
	if beta == nil {
		return nil, badInput("no %d rows of the features determine a fit", d)
	}
	f, l, cost := make([]float64, n), mat.NewDense(n, n, nil), mat.NewDense(n, n, nil)
	t := &transport{threads: parallel.Threads()}
	first, second := make([]float64, d), make([]float64, d)
	for step := 1; step <= orElse(o.Rounds, 200); step++ {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		mat.NewVecDense(n, f).MulVec(x, mat.NewVecDense(d, beta))
		cost.Apply(func(i, j int, _ float64) float64 { return (y[j] - f[i]) * (y[j] - f[i]) }, cost)
		epsilon := orElse64(o.Epsilon, 1e-4) * mat.Max(cost)
		l.Scale(-1/epsilon, cost)
		t.size(n, n)
		copy(t.l, l.RawMatrix().Data)
		for i := range n {
			t.r[i], t.c[i] = 1, 1
		}
		if step == 1 {
			t.anneal()
		}
		t.solve(orElse(o.Sweeps, 200), 1e-9)
		g := mat.NewDense(n, n, nil)
		g.Apply(func(i, j int, _ float64) float64 { return t.mass(i, j) }, g)
		if !o.Simple {
			if err := hypergradient(g, cost, epsilon); err != nil {
				return nil, err
			}
		}
		slope := make([]float64, d) // ∂/∂β of the mean cost: Σ_ij G_ij·2(f_i − y_j)x_i/n
		for i := range n {
			sum := 0.0
			for j, w := range g.RawRowView(i) {
				sum += 2 * w * (f[i] - y[j]) / float64(n)
			}
			for c, v := range x.RawRowView(i) {
				slope[c] += sum * v
			}
		}
		for c, v := range slope {
			first[c], second[c] = .9*first[c]+.1*v, .999*second[c]+.001*v*v
			m, q := first[c]/(1-math.Pow(.9, float64(step))), second[c]/(1-math.Pow(.999, float64(step)))
			beta[c] -= orElse64(o.Rate, 0.01) * m / (math.Sqrt(q) + 1e-8)
		}
	}
	return beta, nil
}

// robotStart returns, of fits to d random rows with d random labels, the one whose sorted predictions come within 0.01 of the
// sorted labels most often.
func robotStart(x *mat.Dense, y []float64, starts int, r *rng.Stream) []float64 {
	n, d := x.Dims()
	sorted := sortedCopy(y)
	var best []float64
	score := -1
	a, b, f := mat.NewDense(d, d, nil), mat.NewVecDense(d, nil), make([]float64, n)
	for range starts {
		rows, labels := r.Sample(n, d), r.Sample(n, d)
		for c := range d {
			a.SetRow(c, x.RawRowView(rows[c]))
			b.SetVec(c, y[labels[c]])
		}
		var lu mat.LU
		lu.Factorize(a)
		beta := mat.NewVecDense(d, nil)
		if lu.Cond() > 1e10 || lu.SolveVecTo(beta, false, b) != nil {
			continue
		}
		mat.NewVecDense(n, f).MulVec(x, beta)
		hits := 0
		for i, v := range sortedCopy(f) {
			if math.Abs(v-sorted[i]) < 1e-2 {
				hits++
			}
		}
		if hits > score {
			score, best = hits, beta.RawVector().Data
		}
	}
	return best
}

// hypergradient turns the plan S into G.
func hypergradient(s, cost *mat.Dense, epsilon float64) error {
	n, _ := s.Dims()
	size := 2*n - 1
	a, b := mat.NewDense(size, size, nil), mat.NewVecDense(size, nil)
	for i := range n {
		for j := range n {
			w := s.At(i, j)
			c := w * cost.At(i, j)
			a.Set(i, i, a.At(i, i)+w)
			b.SetVec(i, b.AtVec(i)+c)
			if j < n-1 {
				a.Set(i, n+j, w)
				a.Set(n+j, i, w)
				a.Set(n+j, n+j, a.At(n+j, n+j)+w)
				b.SetVec(n+j, b.AtVec(n+j)+c)
			}
		}
	}
	// A plan that is nearly a permutation makes the system nearly singular; the least ridge decides what it leaves open.
	for i := range size {
		a.Set(i, i, a.At(i, i)*(1+1e-9)+1e-12)
	}
	var x mat.VecDense
	var lu mat.LU
	lu.Factorize(a)
	if err := lu.SolveVecTo(&x, false, b); err != nil && math.IsNaN(mat.Norm(&x, 1)) {
		return fmt.Errorf("mismatch: the hypergradient's system: %w", err)
	}
	s.Apply(func(i, j int, w float64) float64 {
		last := 0.0
		if j < n-1 {
			last = x.AtVec(n + j)
		}
		return w - w/epsilon*(cost.At(i, j)-x.AtVec(i)-last)
	}, s)
	return nil
}
