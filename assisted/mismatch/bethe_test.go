package mismatch

import (
	"math"
	"slices"
	"testing"

	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// solved is the plan of one block at given predictions, its rows exact to a tolerance.
func solved(t *testing.T, p Problem, f *mat.Dense, noise, alpha float64, sinkhorn bool) (*fullPlan, *transport) {
	t.Helper()
	l, err := p.layout()
	if err != nil {
		t.Fatal(err)
	}
	plan := &fullPlan{block: &l.blocks[0], l: l, sinkhorn: sinkhorn, scratch: &pool{}}
	b := &belief{f: f, noise: noise, alpha: alpha, sweeps: 20_000, tolerance: 1e-12}
	if worst, sweeps := plan.solve(b, newPosterior(l.n, l.k), 1); worst > 1e-12 {
		t.Fatalf("after %d sweeps a row is off by %v", sweeps, worst)
	}
	scaled := plan.scratch.take()
	return plan, scaled
}

// exact are the probabilities P_ij under weights exp(L_ij) of permutations, all of which are looked at.
func exact(l []float64, n int) []float64 {
	p, total := make([]float64, n*n), 0.0
	of, taken := make([]int, n), make([]bool, n)
	var walk func(i int, w float64)
	walk = func(i int, w float64) {
		if i == n {
			total += w
			for r, c := range of {
				p[r*n+c] += w
			}
			return
		}
		for j := range n {
			if !taken[j] {
				taken[j], of[i] = true, j
				walk(i+1, w*math.Exp(l[i*n+j]))
				taken[j] = false
			}
		}
	}
	walk(0, 1)
	for i := range p {
		p[i] /= total
	}
	return p
}

// TestBetheIsNearerToPermutations: with the same kernel own links are nearer to what all permutations say than by Sinkhorn's plan,
// which moves too many.
func TestBetheIsNearerToPermutations(t *testing.T) {
	const n, noise, alpha = 9, .3, .4
	r := rng.New(1, 0, "", "small")
	var bethe, sinkhorn, moves float64
	for range 8 {
		y, f := mat.NewDense(n, 1, nil), mat.NewDense(n, 1, nil)
		for i := range n {
			f.Set(i, 0, r.NormFloat64())
			y.Set(i, 0, f.At(i, 0)+math.Sqrt(noise)*r.NormFloat64())
		}
		p := Problem{Y: y, Own: Shuffle(n, alpha, r)}
		plan, scaled := solved(t, p, f, noise, alpha, false)
		want := exact(scaled.l, n)
		plain := mat.NewDense(n, n, slices.Clone(scaled.l))
		s, err := Sinkhorn(plain, 100_000, 1e-10)
		if err != nil {
			t.Fatal(err)
		}
		for i := range n {
			j := plan.own[i]
			bethe += math.Abs(scaled.mass(i, j) - want[i*n+j])
			sinkhorn += math.Abs(s.At(i, j) - want[i*n+j])
			moves += want[i*n+j] - s.At(i, j)
		}
	}
	t.Logf("own links are off by %.4f in the mean by Bethe's plan, by %.4f by Sinkhorn's, too low by %.4f", bethe/n/8, sinkhorn/n/8, moves/n/8)
	if bethe > .6*sinkhorn || moves < 0 {
		t.Errorf("own links are off by %v by Bethe's plan, by %v by Sinkhorn's", bethe/n/8, sinkhorn/n/8)
	}
}

// TestSmallBlocksAreExact: where blocks are small the plan is what all permutations say, with or without a dustbin.
func TestSmallBlocksAreExact(t *testing.T) {
	const noise, alpha = .3, .4
	r := rng.New(2, 0, "", "exact")
	for n := 2; n <= 7; n++ {
		y, f := mat.NewDense(n, 1, nil), mat.NewDense(n, 1, nil)
		for i := range n {
			f.Set(i, 0, r.NormFloat64())
			y.Set(i, 0, r.NormFloat64())
		}
		_, scaled := solved(t, Problem{Y: y}, f, noise, alpha, false)
		want := exact(scaled.l, n)
		for i := range want {
			close(t, "an entry of the plan", scaled.mass(i/n, i%n), want[i], 1e-9)
		}
		// One label more than rows: it goes to the dustbin, whose row is one of the permutation's.
		more := mat.NewDense(n+1, 1, append(slices.Clone(y.RawMatrix().Data), 2.5))
		p := Problem{Y: more}
		for i := range n {
			p.Own = append(p.Own, i)
		}
		_, scaled = solved(t, p, f, noise, alpha, false)
		want = exact(scaled.l, n+1)
		for i := range want {
			close(t, "an entry of the plan with a dustbin", scaled.mass(i/(n+1), i%(n+1)), want[i], 1e-9)
		}
	}
}

// TestPlanThatSaysNothing: where every label fits every row alike, links are as likely as before, also where some rows came without a
// label or some labels without a row.
func TestPlanThatSaysNothing(t *testing.T) {
	for _, c := range []struct{ rows, labels, pairs int }{{30, 30, 30}, {30, 30, 20}, {30, 25, 20}, {25, 30, 25}, {2, 2, 2}, {3, 3, 3}, {7, 7, 5}, {8, 6, 6}} {
		y := mat.NewDense(c.labels, 1, nil)
		y.Set(0, 0, 1) // they may not all be the same
		p := Problem{Y: y}
		for i := range c.rows {
			own := -1
			if i < c.pairs {
				own = i
			}
			p.Own = append(p.Own, own)
		}
		l, err := p.layout()
		if err != nil {
			t.Fatal(err)
		}
		plan := &fullPlan{block: &l.blocks[0], l: l, scratch: &pool{}}
		b := &belief{f: mat.NewDense(c.rows, 1, nil), noise: 1e12, alpha: .3, sweeps: 100_000, tolerance: 1e-12}
		out := newPosterior(c.rows, 1)
		plan.solve(b, out, 1)
		for i := range c.pairs {
			within := .01
			if c.labels > c.rows { // the dustbin prefers what is rare
				within = .1
			}
			close(t, "a link's probability", out.own[i], .7, within)
		}
	}
}

// TestBetheIsStationary: rows and columns add up, and no exchange of mass between two rows and two columns lowers the free energy
// Σ P·E + Σ P log P − Σ (1−P) log(1−P), of which −P stands for the last term but for own links.
func TestBetheIsStationary(t *testing.T) {
	const n, noise, alpha = 30, .2, .5
	_, p, _ := shuffled(20, n, 1, .4, alpha)
	f := mat.NewDense(n, 1, nil)
	r := rng.New(20, 0, "", "predictions")
	for i := range n {
		f.Set(i, 0, p.Y.At(i, 0)+.4*r.NormFloat64())
	}
	plan, scaled := solved(t, p, f, noise, alpha, false)
	mass := mat.NewDense(n, n, nil)
	mass.Apply(func(i, j int, _ float64) float64 { return scaled.mass(i, j) }, mass)
	for i := range n {
		close(t, "a row sum", mat.Sum(mass.RowView(i)), 1, 1e-9)
		close(t, "a column sum", mat.Sum(mass.ColView(i)), 1, 1e-9)
	}
	energy := func(i, j int, w float64) float64 {
		e := -w*scaled.l[i*n+j] + w*math.Log(w)
		if plan.own[i] == j {
			return e - (1-w)*math.Log1p(-w)
		}
		return e + w
	}
	for range 2000 {
		i, k, j, l := r.IntN(n), r.IntN(n), r.IntN(n), r.IntN(n)
		cells := [4][2]int{{i, j}, {k, l}, {i, l}, {k, j}}
		least := 1.
		for _, c := range cells {
			least = min(least, mass.At(c[0], c[1]))
		}
		if i == k || j == l || least < 1e-9 {
			continue
		}
		change := 0.0
		for c, at := range cells {
			w, sign := mass.At(at[0], at[1]), 1.
			if c > 1 {
				sign = -1
			}
			change += energy(at[0], at[1], w+sign*least/100) - energy(at[0], at[1], w)
		}
		if change < -1e-12 {
			t.Fatalf("moving mass between rows %d, %d and columns %d, %d lowers the free energy by %v", i, k, j, l, -change)
		}
	}
}

// TestFullPlanFindsAlpha: α̂ of a full plan is right; Sinkhorn's is too high by about 0.1.
func TestFullPlanFindsAlpha(t *testing.T) {
	for _, alpha := range []float64{.3, .7} {
		x, p, _ := shuffled(21, 400, 4, .3, alpha)
		_, r := fit(t, x, p, Options{Plan: "full", Rounds: 25})
		close(t, "α̂", r.Alpha, alpha, .05)
		close(t, "σ̂²", r.Noise, .09, .03)
		if r.Margin > marginLimit {
			t.Errorf("a row of the plan is off by %v", r.Margin)
		}
	}
	x, p, _ := shuffled(21, 300, 5, .3, .3)
	if _, r := fit(t, x, p, Options{Plan: "full", Sinkhorn: true}); r.Alpha < .35 {
		t.Errorf("α̂ of the specification's plan is %v: what is said of it does not hold", r.Alpha)
	}
}
