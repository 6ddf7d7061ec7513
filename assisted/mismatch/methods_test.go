package mismatch

import (
	"context"
	"errors"
	"math"
	"runtime"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
	"pgregory.net/rapid"
)

func off(m *Linear, beta []float64) float64 {
	sum := 0.0
	for c, b := range beta {
		d := m.Coefficients().At(c, 0) - b
		sum += d * d
	}
	return math.Sqrt(sum)
}

// tried is the error of β̂ of every method on the same problems, averaged.
func tried(t *testing.T, n, d, repeats int, sigma, alpha float64) map[string]float64 {
	t.Helper()
	ctx, mean := context.Background(), map[string]float64{}
	for seed := range repeats {
		x, p, beta := shuffled(uint64(seed), n, d, sigma, alpha)
		told := Rival{Alpha: &alpha}
		for name, f := range map[string]func(m Model) error{
			"oracle":  func(m Model) error { return m.Fit(ctx, nil, p.Y, nil) },
			"naive":   func(m Model) error { return Naive(ctx, p, m, Rival{}) },
			"huber":   func(m Model) error { return Huber(ctx, p, m, Rival{}) },
			"lad":     func(m Model) error { return LAD(ctx, p, m, Rival{}) },
			"two":     func(m Model) error { return TwoStage(ctx, p, m, told) },
			"hard":    func(m Model) error { return HardEM(ctx, p, m, Rival{}) },
			"sort":    func(m Model) error { return Sort(ctx, p, m, told) },
			"assign":  func(m Model) error { return LambdaAssignment(ctx, p, m, Rival{}) },
			"greedy":  func(m Model) error { return LocalSearch(ctx, p, x, m, Rival{}) },
			"mixture": func(m Model) error { _, err := Fit(ctx, p, m, Options{Rounds: -1}); return err },
			"full":    func(m Model) error { _, err := Fit(ctx, p, m, Options{Plan: "full"}); return err },
			"bin":     func(m Model) error { _, err := Fit(ctx, p, m, Options{Plan: "bin"}); return err },
			"sem": func(m Model) error {
				return StochasticEM(ctx, p, m, Rival{}, rng.New(uint64(seed), 0, "", "chain"))
			},
		} {
			m, err := NewLinear(x, false, 0)
			if err != nil {
				t.Fatal(err)
			}
			if err := f(m); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			mean[name] += off(m, beta) / float64(repeats)
		}
	}
	return mean
}

func TestMethods(t *testing.T) {
	e := tried(t, 200, 5, 2, .1, .5)
	for name, most := range map[string]float64{
		"oracle": .03, "mixture": .05, "full": .04, "bin": .04, "sort": .06, "assign": .08, "two": .3, "hard": .6, "lad": .4, "greedy": .15,
	} {
		if e[name] > most {
			t.Errorf("%s: mean error %.4f, at most %v expected", name, e[name], most)
		}
	}
	for _, name := range []string{"full", "bin"} {
		if e[name] > 2.3*e["oracle"] || 5*e[name] > e["huber"] || e[name] > e["mixture"]+.002 {
			t.Errorf("%s: mean error %.4f, of the oracle %.4f, of Huber %.4f, of the mixture %.4f", name, e[name], e["oracle"], e["huber"], e["mixture"])
		}
	}
	if e["naive"] < .4 || e["naive"] > .6 {
		t.Errorf("naive: mean error %.4f, a share of .5 of wrong links shrinks by as much", e["naive"])
	}
	if e["sem"] > 1 {
		t.Errorf("stochastic EM: mean error %.4f", e["sem"])
	}
	t.Log(e)
}

func TestAlphaIsFound(t *testing.T) {
	for _, alpha := range []float64{.2, .5, .7} {
		x, p, _ := shuffled(3, 1000, 5, .3, alpha)
		_, r := fit(t, x, p, Options{})
		close(t, "α̂", r.Alpha, alpha, .05)
		close(t, "σ̂²", r.Noise, .09, .03)
		if r.Margin > marginLimit {
			t.Errorf("a row of the plan is off by %v", r.Margin)
		}
	}
}

func TestLinkProbabilities(t *testing.T) {
	x, p, _ := shuffled(12, 400, 4, .1, .3)
	for i := range 20 { // some rows are known
		p.Certain = append(p.Certain, p.Own[i] == i)
	}
	p.Certain = append(p.Certain, make([]bool, 380)...)
	_, r := fit(t, x, p, Options{Pair: true})
	right, wrong, n := 0.0, 0.0, 0
	for i, j := range p.Own {
		if i == j {
			right += r.Linked[i]
			n++
		} else {
			wrong += r.Linked[i]
		}
		if p.Certain[i] && (r.Linked[i] != 1 || r.Pair[i] != j) {
			t.Errorf("row %d is certain, but its link has probability %v and label %d", i, r.Linked[i], r.Pair[i])
		}
	}
	if right/float64(n) < .85 || wrong/float64(400-n) > .2 {
		t.Errorf("right links have probability %.2f in the mean, wrong ones %.2f", right/float64(n), wrong/float64(400-n))
	}
}

// TestBlocksWithoutPairs: only the block of each row and label is known.
func TestBlocksWithoutPairs(t *testing.T) {
	x, p, beta := shuffled(13, 400, 3, .1, 0)
	p.Own = nil
	r := rng.New(13, 0, "", "blocks")
	for range 400 {
		p.Blocks = append(p.Blocks, r.IntN(100))
		p.Own = append(p.Own, -1)
	}
	p.LabelBlocks = slices.Clone(p.Blocks)
	m, res := fit(t, x, p, Options{Rounds: 200, Pair: true})
	if e := off(m, beta); e > .05 {
		t.Errorf("with blocks of about four and no pairs β̂ is off by %v", e)
	}
	right := 0
	for i, j := range res.Pair {
		if i == j {
			right++
		}
	}
	if right < 250 {
		t.Errorf("%d of 400 labels found their row", right)
	}
	if res.Alpha != 1 {
		t.Errorf("α̂ is %v where no row came with a label", res.Alpha)
	}
}

// TestDustbin: some labels are missing, some belong to nobody.
func TestDustbin(t *testing.T) {
	x, whole, beta := shuffled(14, 300, 3, .1, .3)
	for _, plan := range []string{"full", "bin"} {
		for _, c := range []struct{ rows, labels int }{{300, 240}, {240, 300}} {
			y := mat.NewDense(c.labels, 1, nil)
			for j := range c.labels {
				y.Set(j, 0, whole.Y.At(j, 0))
			}
			p := Problem{Y: y}
			for i := range c.rows {
				j := whole.Own[i]
				if j >= c.labels {
					j = -1
				}
				p.Own = append(p.Own, j)
			}
			m, r := fit(t, mat.DenseCopyOf(x.Slice(0, c.rows, 0, 3)), p, Options{Plan: plan, Pair: true})
			if e := off(m, beta); e > .06 {
				t.Errorf("%s plan, %d rows and %d labels: β̂ is off by %v", plan, c.rows, c.labels, e)
			}
			mass, paired := 0.0, 0
			for i, w := range r.Weight {
				mass += w
				if r.Pair[i] >= 0 {
					paired++
				}
			}
			if want := min(c.rows, c.labels); math.Abs(mass-float64(want)) > 1 || paired != want {
				t.Errorf("%s plan, %d rows and %d labels: mass %v and %d pairs, should be %d", plan, c.rows, c.labels, mass, paired, want)
			}
			taken := slices.DeleteFunc(slices.Sorted(slices.Values(r.Pair)), func(j int) bool { return j < 0 })
			if len(slices.Compact(taken)) != paired {
				t.Errorf("%s plan: a label went to two rows", plan)
			}
		}
	}
}

func TestVectorLabels(t *testing.T) {
	x, p, _ := shuffled(15, 200, 3, .2, .4)
	two := mat.NewDense(200, 2, nil)
	r := rng.New(15, 0, "", "second")
	for i := range 200 {
		two.SetRow(i, []float64{p.Y.At(i, 0), x.At(i, 0) - x.At(i, 1) + .2*r.NormFloat64()})
	}
	p.Y = two
	m, res := fit(t, x, p, Options{})
	close(t, "a coefficient of the second number", m.Coefficients().At(0, 1), 1, .05)
	close(t, "α̂", res.Alpha, .4, .05)
	if _, err := Fit(context.Background(), p, m, Options{Full: 100}); err == nil || !strings.Contains(err.Error(), "blocks") {
		t.Errorf("vector labels in a block that is too large: %v", err)
	}
}

// TestThreadsChangeNoBit needs blocks large enough to be divided.
func TestThreadsChangeNoBit(t *testing.T) {
	x, p, _ := shuffled(16, 700, 4, .2, .5)
	for _, plan := range []string{"full", "bin"} {
		o := Options{Plan: plan, Rounds: 5, Mixture: 20}
		m, r := fit(t, x, p, o)
		before := runtime.GOMAXPROCS(1)
		m1, r1 := fit(t, x, p, o)
		runtime.GOMAXPROCS(before)
		if !mat.Equal(m.Coefficients(), m1.Coefficients()) || !slices.Equal(r.Linked, r1.Linked) {
			t.Errorf("%s plan: one thread gives other bits", plan)
		}
	}
}

func TestWarnings(t *testing.T) {
	r := rng.New(17, 0, "", "noise")
	x, y := mat.NewDense(300, 2, nil), mat.NewDense(300, 1, nil)
	for i := range 300 {
		x.SetRow(i, []float64{r.NormFloat64(), r.NormFloat64()})
		y.Set(i, 0, r.NormFloat64())
	}
	own := slices.Repeat([]int{-1}, 300)
	_, res := fit(t, x, Problem{Y: y, Own: own}, Options{})
	if len(res.Warnings) == 0 || !strings.Contains(res.Warnings[0], "undecided") {
		t.Errorf("features say nothing of the target, but there is no warning: %q", res.Warnings)
	}
}

func TestBadInput(t *testing.T) {
	y := mat.NewDense(3, 1, []float64{1, 2, 3})
	nan, big := mat.NewDense(3, 1, []float64{1, math.NaN(), 3}), 1.
	for what, c := range map[string]struct {
		p Problem
		o Options
	}{
		"one of Y and Classes": {},
		"label 1 is NaN":       {p: Problem{Y: nan}},
		"all labels are the":   {p: Problem{Y: mat.NewDense(3, 1, nil)}},
		"at least 2":           {p: Problem{Classes: []int{0}, Count: 1}},
		"class 5":              {p: Problem{Classes: []int{0, 5}, Count: 2}},
		"came with label 9":    {p: Problem{Y: y, Own: []int{0, 9, 1}}},
		"with two rows":        {p: Problem{Y: y, Own: []int{0, 1, 1}}},
		"2 entries for 3 rows": {p: Problem{Y: y, Blocks: []int{1, 1}}},
		"2 entries for 3 labe": {p: Problem{Y: y, LabelBlocks: []int{1, 1}}},
		"of block":             {p: Problem{Y: y, Blocks: []int{1, 1, 1}, LabelBlocks: []int{1, 1, 2}}},
		"no label":             {p: Problem{Y: y, Own: []int{0, 1, -1}, Certain: []bool{false, false, true}}},
		"LabelBlocks has to":   {p: Problem{Y: y, Own: []int{0, 1, -1}, Blocks: []int{1, 1, 1}}},
		"wrong links is 1":     {p: Problem{Y: y}, o: Options{Alpha: &big}},
		"plan \"half\"":        {p: Problem{Y: y}, o: Options{Plan: "half"}},
		"too small for bins":   {p: Problem{Y: y}, o: Options{Plan: "bin"}},
		"noise variance":       {p: Problem{Y: y}, o: Options{Noise: -1}},
		"share of rows":        {p: Problem{Y: y}, o: Options{Unmatched: 1}},
	} {
		m, err := NewLinear(mat.NewDense(3, 1, []float64{1, 2, 4}), false, 0)
		if err != nil {
			t.Fatal(err)
		}
		_, err = Fit(context.Background(), c.p, m, c.o)
		var bad *InputError
		if !errors.As(err, &bad) || !strings.Contains(err.Error(), what) {
			t.Errorf("the error about %q is %v", what, err)
		}
	}
	if _, err := NewLinear(nan, false, 0); err == nil {
		t.Error("features may not be NaN")
	}
	m, _ := NewLinear(mat.NewDense(3, 2, []float64{1, 1, 1, 1, 1, 1}), false, 0)
	if err := m.Fit(context.Background(), nil, y, nil); err == nil || !strings.Contains(err.Error(), "depend on each other") {
		t.Errorf("features that depend on each other: %v", err)
	}
}

func TestShuffle(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, alpha := rapid.IntRange(2, 50).Draw(t, "n"), rapid.Float64Range(0, 1).Draw(t, "alpha")
		own := Shuffle(n, alpha, rng.New(1, 0, "", "shuffle"))
		wrong := 0
		for i, j := range own {
			wrong += flag(i != j)
		}
		if want := int(math.Round(alpha * float64(n))); wrong != want && want != 1 {
			t.Fatalf("%d links are wrong, should be %d", wrong, want)
		}
		if slices.Sort(own); len(slices.Compact(own)) != n {
			t.Fatal("a label came twice")
		}
	})
}

// TestHypergradient compares G with finite differences of Σ S∘C with respect to C.
func TestHypergradient(t *testing.T) {
	const epsilon, h = .7, 1e-5
	r := rng.New(19, 0, "", "costs")
	cost := mat.NewDense(5, 5, nil)
	cost.Apply(func(int, int, float64) float64 { return r.Float64() }, cost)
	value := func(c *mat.Dense) (*mat.Dense, float64) {
		l := mat.DenseCopyOf(c)
		l.Scale(-1/epsilon, l)
		s, err := Sinkhorn(l, 10_000, 1e-13)
		if err != nil {
			t.Fatal(err)
		}
		sum := 0.0
		for i := range 5 {
			sum += mat.Dot(s.RowView(i), c.RowView(i))
		}
		return s, sum
	}
	g, _ := value(cost)
	if err := hypergradient(g, cost, epsilon); err != nil {
		t.Fatal(err)
	}
	for i := range 5 {
		for j := range 5 {
			at := func(d float64) float64 {
				c := mat.DenseCopyOf(cost)
				c.Set(i, j, c.At(i, j)+d)
				_, v := value(c)
				return v
			}
			close(t, "G", g.At(i, j), (at(h)-at(-h))/(2*h), 1e-5)
		}
	}
}

// TestROBOT is in the published setting: x ~ N(1, 1), σ² = ‖β‖²/100.
func TestROBOT(t *testing.T) {
	r := rng.New(0, 0, "", "published")
	x, y, beta := mat.NewDense(150, 2, nil), make([]float64, 150), []float64{r.NormFloat64(), r.NormFloat64()}
	for i := range y {
		x.SetRow(i, []float64{1 + r.NormFloat64(), 1 + r.NormFloat64()})
		y[i] = floats.Dot(x.RawRowView(i), beta) + floats.Norm(beta, 2)/10*r.NormFloat64()
	}
	got, err := ROBOT(context.Background(), x, y, Robot{Starts: 3000, Rounds: 40}, r)
	if err != nil {
		t.Fatal(err)
	}
	if e := floats.Distance(got, beta, 2); e > .2*floats.Norm(beta, 2) {
		t.Errorf("β̂ is off by %v of %v", e, floats.Norm(beta, 2))
	}
}

// parrot predicts the mean in its first fits and then learns the given labels by heart.
type parrot struct {
	p    Problem
	fits int
}

func (m *parrot) Fit(context.Context, []int, *mat.Dense, []float64) error {
	m.fits++
	return nil
}

func (m *parrot) Predict(_ context.Context, _ []int, out *mat.Dense) error {
	out.Zero()
	if m.fits > 4 {
		for i, j := range m.p.Own {
			out.Set(i, 0, m.p.Y.At(j, 0)+1e-6*float64(m.fits%2)) // it never comes to rest
		}
	}
	return nil
}

// TestRestart: when the transport calls every link right against the mixture, it begins again with the mixture's share held.
func TestRestart(t *testing.T) {
	_, p, _ := shuffled(18, 200, 3, .1, .4)
	r, err := Fit(context.Background(), p, &parrot{p: p}, Options{Plan: "bin", Warm: 1, Mixture: 3, Rounds: 100})
	if err != nil {
		t.Fatal(err)
	}
	if !r.Restarted || r.Alpha < .1 || len(r.Warnings) == 0 || !strings.Contains(r.Warnings[len(r.Warnings)-1], "held at the mixture's") {
		t.Errorf("restarted: %v, α̂ = %v, warnings %q", r.Restarted, r.Alpha, r.Warnings)
	}
}
