package mismatch

import (
	"context"
	"math"
	"slices"
	"testing"

	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// The example of the reference values: predictions and labels.
var (
	exampleF = []float64{.2, -1, .5, 2}
	exampleY = []float64{1, 0, -2, 3}
)

func squares(f, y []float64, lambda float64) *mat.Dense {
	c := mat.NewDense(len(f), len(y), nil)
	c.Apply(func(i, j int, _ float64) float64 {
		cost := (f[i] - y[j]) * (f[i] - y[j])
		if i != j {
			cost += lambda
		}
		return cost
	}, c)
	return c
}

func close(t *testing.T, what string, got, want, within float64) {
	t.Helper()
	if !(math.Abs(got-want) <= within) {
		t.Errorf("%s is %v, should be %v ± %v", what, got, want, within)
	}
}

func TestSortingIsAssignment(t *testing.T) {
	of, sum := Assign(squares(exampleF, exampleY, 0))
	close(t, "the least cost", sum, 2.29, 1e-12)
	if !slices.Equal(of, []int{1, 2, 0, 3}) {
		t.Errorf("the best permutation is %v", of)
	}
	all, sorted := []int{0, 1, 2, 3}, make([]int, 4)
	matchSorted(all, all, exampleF, exampleY, sorted)
	if !slices.Equal(sorted, of) {
		t.Errorf("sorted matching gives %v", sorted)
	}
}

func TestLambdaPath(t *testing.T) {
	for _, c := range []struct {
		lambda float64
		of     []int
		sum    float64
	}{
		{0, []int{1, 2, 0, 3}, 2.29}, {.5, []int{1, 2, 0, 3}, 3.79}, {1, []int{0, 2, 1, 3}, 4.89}, {2, []int{0, 2, 1, 3}, 6.89},
		{3, []int{0, 1, 2, 3}, 8.89}, {5, []int{0, 1, 2, 3}, 8.89}, {20, []int{0, 1, 2, 3}, 8.89},
	} {
		of, sum := Assign(squares(exampleF, exampleY, c.lambda))
		if close(t, "the cost", sum, c.sum, 1e-12); !slices.Equal(of, c.of) {
			t.Errorf("at λ = %v the best permutation is %v, should be %v", c.lambda, of, c.of)
		}
	}
}

// energy returns the plan of a cost at τ, its rows exact to a tolerance, ⟨P, C⟩ and J = ⟨P, C⟩ + τ Σ P(log P − 1).
func energy(t *testing.T, cost *mat.Dense, tau, tolerance float64) (p *mat.Dense, inner, j float64) {
	t.Helper()
	l := mat.DenseCopyOf(cost)
	l.Scale(-1/tau, l)
	p, err := Sinkhorn(l, 100_000, tolerance)
	if err != nil {
		t.Fatal(err)
	}
	n, m := cost.Dims()
	for i := range n {
		for k := range m {
			w := p.At(i, k)
			inner += w * cost.At(i, k)
			if w > 0 {
				j += tau * w * (math.Log(w) - 1)
			}
		}
	}
	return p, inner, inner + j
}

func TestFreeEnergy(t *testing.T) {
	// The specification has 2.318497, 1.880267 at τ = 0.1 and 2.290050, 2.250039 at 0.01, from sweeps that were not at their end: J
	// is below its minimum at 0.1, and at 0.01 the plan is a permutation but for exp(−60).
	for _, c := range []struct{ tau, inner, j, tolerance float64 }{
		{10, 12.248392, -80.673136, 1e-13}, {1, 3.173690, -3.053218, 1e-13}, {.1, 2.318456, 1.880283, 1e-8}, {.01, 2.29, 2.25, 1e-8},
	} {
		p, inner, j := energy(t, squares(exampleF, exampleY, 0), c.tau, c.tolerance)
		close(t, "⟨P, C⟩", inner, c.inner, 1e-6)
		close(t, "J", j, c.j, 1e-6)
		if c.tau == 1 {
			var soft mat.VecDense
			soft.MulVec(p, mat.NewVecDense(4, exampleY))
			for i, want := range []float64{.305997, -1.849576, .626519, 2.917060} {
				close(t, "Py", soft.AtVec(i), want, 1e-6)
			}
		}
	}
}

func TestEnvelopeGradient(t *testing.T) {
	const tau, h = .5, 1e-5
	p, _, j := energy(t, squares(exampleF, exampleY, 0), tau, 1e-13)
	close(t, "J", j, -0.156295, 1e-6)
	for i, want := range []float64{-.280664, 1.972972, -.300469, -1.991839} {
		soft := 0.0
		for k, y := range exampleY {
			soft += p.At(i, k) * y
		}
		close(t, "2(f − Py)", 2*(exampleF[i]-soft), want, 1e-6)
		shifted := func(d float64) float64 {
			f := slices.Clone(exampleF)
			f[i] += d
			_, _, j := energy(t, squares(f, exampleY, 0), tau, 1e-13)
			return j
		}
		close(t, "the central difference", (shifted(h)-shifted(-h))/(2*h), want, 1e-6)
	}
}

func TestTransportFormIsNotBarycentric(t *testing.T) {
	r := rng.New(1, 0, "", "plans")
	check := func(p *mat.Dense, f []float64) (transport, barycentric, spread float64) {
		for i := range f {
			mean, square := 0.0, 0.0
			for j, y := range exampleY {
				w := p.At(i, j)
				transport += w * (f[i] - y) * (f[i] - y)
				mean += w * y
				square += w * y * y
			}
			barycentric += (f[i] - mean) * (f[i] - mean)
			spread += square - mean*mean
		}
		return
	}
	for range 20 {
		l := mat.NewDense(4, 4, nil)
		l.Apply(func(int, int, float64) float64 { return 2 * r.NormFloat64() }, l)
		p, err := Sinkhorn(l, 10_000, 1e-12)
		if err != nil {
			t.Fatal(err)
		}
		a, b, c := check(p, exampleF)
		close(t, "the transport form less the barycentric one", a-b, c, 1e-8)
	}
	even := mat.NewDense(4, 4, slices.Repeat([]float64{.25}, 16))
	a, b, _ := check(even, slices.Repeat([]float64{.5}, 4))
	close(t, "the barycentric form of the even plan", b, 0, 1e-12)
	close(t, "the transport form of the even plan", a, 13, 1e-12)
}

// TestSinkhornUnderflow has costs that underflow by far, so that scalings go through logarithms.
func TestSinkhornUnderflow(t *testing.T) {
	r := rng.New(2, 0, "", "costs")
	l := mat.NewDense(30, 30, nil)
	l.Apply(func(int, int, float64) float64 { return -1e4 * r.Float64() }, l)
	p, err := Sinkhorn(l, 100_000, 1e-6)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 30 {
		close(t, "a row sum", mat.Sum(p.RowView(i)), 1, 2e-6)
		close(t, "a column sum", mat.Sum(p.ColView(i)), 1, 2e-6)
	}
	neg := mat.DenseCopyOf(l)
	neg.Scale(-1, neg)
	of, _ := Assign(neg)
	kept := 0.0
	for i, j := range of {
		kept += p.At(i, j)
	}
	if kept < 29 {
		t.Errorf("at a temperature of nothing %v of 30 rows are assigned as the best assignment does", kept)
	}
}

// shuffled is a linear problem with a share of wrong links.
func shuffled(seed uint64, n, d int, sigma, alpha float64) (x *mat.Dense, p Problem, beta []float64) {
	r := rng.New(seed, 0, "", "linear")
	x, y, beta := LinearTable(n, d, sigma, r)
	return x, Problem{Y: y, Own: Shuffle(n, alpha, r)}, beta
}

func fit(t *testing.T, x *mat.Dense, p Problem, o Options) (*Linear, *Result) {
	t.Helper()
	m, err := NewLinear(x, true, 0)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Fit(context.Background(), p, m, o)
	if err != nil {
		t.Fatal(err)
	}
	return m, r
}

// naive returns least squares of the labels as they came.
func naive(t *testing.T, x *mat.Dense, p Problem) *Linear {
	t.Helper()
	m, err := NewLinear(x, true, 0)
	if err != nil {
		t.Fatal(err)
	}
	y := mat.DenseCopyOf(p.Y)
	for i, j := range p.Own {
		y.SetRow(i, p.Y.RawRowView(j))
	}
	if err := m.Fit(context.Background(), nil, y, nil); err != nil {
		t.Fatal(err)
	}
	return m
}

func same(t *testing.T, what string, a, b *mat.Dense, within float64) {
	t.Helper()
	if !mat.EqualApprox(a, b, within) {
		t.Errorf("%s differ: %v and %v", what, mat.Formatted(a.T()), mat.Formatted(b.T()))
	}
}

func TestNoDoubtIsNaive(t *testing.T) {
	x, p, _ := shuffled(3, 60, 3, .1, .3)
	want := naive(t, x, p)
	zero := 0.0
	for _, plan := range []string{"full", "bin"} {
		m, r := fit(t, x, p, Options{Plan: plan, Alpha: &zero})
		if !mat.Equal(m.Coefficients(), want.Coefficients()) {
			t.Errorf("with a share of wrong links of 0 the %s plan changes bits of least squares", plan)
		}
		if slices.Min(r.Linked) != 1 {
			t.Errorf("with a share of wrong links of 0 the %s plan doubts a link: %v", plan, slices.Min(r.Linked))
		}
	}
	certain := p
	certain.Certain = slices.Repeat([]bool{true}, 60)
	m, r := fit(t, x, certain, Options{})
	if !mat.Equal(m.Coefficients(), want.Coefficients()) || r.Alpha != 0 {
		t.Errorf("certain rows changed bits of least squares, or are doubted: α̂ = %v", r.Alpha)
	}
	blocks := p
	blocks.Own, blocks.Y = nil, mat.DenseCopyOf(p.Y)
	for i, j := range p.Own {
		blocks.Y.SetRow(i, p.Y.RawRowView(j))
	}
	for i := range 60 {
		blocks.Blocks = append(blocks.Blocks, i)
	}
	if m, _ := fit(t, x, blocks, Options{}); !mat.Equal(m.Coefficients(), want.Coefficients()) {
		t.Error("blocks of one row changed bits of least squares")
	}
}

func TestRightPairsStay(t *testing.T) {
	x, p, _ := shuffled(4, 200, 3, .01, 0)
	want := naive(t, x, p)
	for _, plan := range []string{"full", "bin"} {
		m, r := fit(t, x, p, Options{Plan: plan})
		same(t, "coefficients of right pairs", m.Coefficients(), want.Coefficients(), 1e-3)
		if r.Alpha > 2./200 {
			t.Errorf("%s: α̂ of right pairs is %v", plan, r.Alpha)
		}
	}
}

// TestColdPlanIsHardEM: without an identity prior and with hardly any noise the plan is sorted matching, round by round.
func TestColdPlanIsHardEM(t *testing.T) {
	x, p, _ := shuffled(5, 40, 2, .3, 1)
	start, hard := naive(t, x, p), naive(t, x, p)
	f, y, of, all := mat.NewDense(40, 1, nil), mat.NewDense(40, 1, nil), make([]int, 40), make([]int, 40)
	for i := range all {
		all[i] = i
	}
	for range 30 {
		if err := hard.Predict(context.Background(), nil, f); err != nil {
			t.Fatal(err)
		}
		matchSorted(all, all, f.RawMatrix().Data, p.Y.RawMatrix().Data, of)
		for i, j := range of {
			y.Set(i, 0, p.Y.At(j, 0))
		}
		if err := hard.Fit(context.Background(), nil, y, nil); err != nil {
			t.Fatal(err)
		}
	}
	anybody := p
	anybody.Own = slices.Repeat([]int{-1}, 40)
	if _, err := Fit(context.Background(), anybody, start,
		Options{Plan: "full", Ready: true, Noise: 1e-7, Mixture: -1, Rounds: 30, Sweeps: 2000}); err != nil {
		t.Fatal(err)
	}
	same(t, "coefficients of the cold plan and of hard EM", start.Coefficients(), hard.Coefficients(), 1e-4)
}

// TestBinsOfDistinctLabelsAreExact: without own labels equal labels are exchangeable.
func TestBinsOfDistinctLabelsAreExact(t *testing.T) {
	r := rng.New(6, 0, "", "labels")
	n := 40
	y, f := mat.NewDense(n, 1, nil), mat.NewDense(n, 1, nil)
	for i := range n {
		y.Set(i, 0, float64(r.IntN(4)))
		f.Set(i, 0, 4*r.Float64()-.5)
	}
	p := Problem{Y: y, Own: slices.Repeat([]int{-1}, n)}
	l, err := p.layout()
	if err != nil {
		t.Fatal(err)
	}
	b := &belief{f: f, noise: .5, alpha: 1, sweeps: 10_000, tolerance: 1e-12}
	full, bin := newPosterior(n, 1), newPosterior(n, 1)
	(&fullPlan{block: &l.blocks[0], l: l, scratch: &pool{}}).solve(b, full, 1)
	(&binPlan{block: &l.blocks[0], l: l}).solve(b, bin, 1)
	same(t, "soft labels of the full plan and of bins", full.soft, bin.soft, 1e-6)
	for i := range n {
		close(t, "the expected cost", bin.cost[i], full.cost[i], 1e-6)
		close(t, "the entropy", bin.entropy[i], full.entropy[i], 1e-6)
	}
}

func TestSymmetries(t *testing.T) {
	x, p, _ := shuffled(7, 120, 3, .2, .4)
	for _, plan := range []string{"full", "bin"} {
		m, r := fit(t, x, p, Options{Plan: plan})
		perm := rng.New(8, 0, "", "order").Perm(120)
		back := make([]int, 120)
		for i, j := range perm {
			back[j] = i
		}
		px, py, own := mat.NewDense(120, 3, nil), mat.NewDense(120, 1, nil), make([]int, 120)
		for i, j := range perm {
			px.SetRow(i, x.RawRowView(j))
			py.Set(i, 0, p.Y.At(j, 0))
			own[i] = back[p.Own[j]]
		}
		pm, pr := fit(t, px, Problem{Y: py, Own: own}, Options{Plan: plan})
		same(t, "coefficients of rows in another order", pm.Coefficients(), m.Coefficients(), 1e-5)
		for i, j := range perm {
			close(t, "a link's probability in another order", pr.Linked[i], r.Linked[j], 1e-3)
		}
		ay := mat.DenseCopyOf(p.Y)
		ay.Apply(func(_, _ int, v float64) float64 { return 3*v - 2 }, ay)
		am, ar := fit(t, x, Problem{Y: ay, Own: p.Own}, Options{Plan: plan})
		want := mat.DenseCopyOf(m.Coefficients())
		want.Scale(3, want)
		want.Set(3, 0, want.At(3, 0)-2)
		same(t, "coefficients of 3y − 2", am.Coefficients(), want, 1e-4)
		close(t, "α̂ of 3y − 2", ar.Alpha, r.Alpha, 1e-4)
	}
}

func TestLabelsArePreserved(t *testing.T) {
	x, p, _ := shuffled(9, 120, 3, .2, .4)
	_, r := fit(t, x, p, Options{Plan: "full", Pair: true})
	close(t, "Σȳ", mat.Sum(r.Soft), mat.Sum(p.Y), 120*marginLimit)
	if of := slices.Sorted(slices.Values(r.Pair)); len(slices.Compact(of)) != 120 {
		t.Error("the hard pairing gives a label to two rows")
	}
	right := 0
	for i, j := range r.Pair {
		if i == j {
			right++
		}
	}
	if right < 75 {
		t.Errorf("%d of 120 labels are with their rows, 72 were before", right)
	}
}

// TestFreeEnergyFalls: with α and σ² held, neither the plan nor the fit may raise J, with either entropy.
func TestFreeEnergyFalls(t *testing.T) {
	x, p, _ := shuffled(10, 60, 2, .3, .5)
	for _, sinkhorn := range []bool{false, true} {
		l, err := p.layout()
		if err != nil {
			t.Fatal(err)
		}
		m := naive(t, x, p)
		b := &belief{f: mat.NewDense(60, 1, nil), noise: .2, alpha: .5, sweeps: 10_000, tolerance: 1e-12}
		last, post := math.Inf(1), newPosterior(60, 1)
		plan := &fullPlan{block: &l.blocks[0], l: l, sinkhorn: sinkhorn, scratch: &pool{}}
		var scaled *transport // of the last plan
		step := func(what string) {
			sum := 0.0
			for i := range 60 {
				for j := range 60 {
					w := scaled.mass(i, j)
					if w == 0 {
						continue
					}
					d := b.f.At(i, 0) - p.Y.At(j, 0)
					sum += w * (d*d/(2*b.noise) + math.Log(w) - 1)
					switch {
					case j != p.Own[i] && sinkhorn:
						sum -= w * math.Log(b.alpha/59)
					case j != p.Own[i]:
						sum += w*math.Log(59) + w // −(1−P) log(1−P) of a small P
					default:
						sum -= w * math.Log(1-b.alpha)
						if !sinkhorn && w < 1 {
							sum -= (1 - w) * math.Log1p(-w)
						}
					}
				}
			}
			if sum > last+1e-9 {
				t.Errorf("%s raises J from %v to %v (Sinkhorn's entropy: %v)", what, last, sum, sinkhorn)
			}
			last = sum
		}
		for range 15 {
			if err := m.Predict(context.Background(), nil, b.f); err != nil {
				t.Fatal(err)
			}
			if scaled != nil {
				step("the fit")
			}
			plan.solve(b, post, 1)
			scaled = plan.scratch.take()
			plan.scratch.put(scaled)
			step("the plan")
			if err := m.Fit(context.Background(), nil, post.soft, nil); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestOneBlockIsNone(t *testing.T) {
	x, p, _ := shuffled(11, 80, 2, .2, .3)
	want, _ := fit(t, x, p, Options{})
	p.Blocks = slices.Repeat([]int{7}, 80)
	if m, _ := fit(t, x, p, Options{}); !mat.Equal(m.Coefficients(), want.Coefficients()) {
		t.Error("one block for all changes bits")
	}
}
