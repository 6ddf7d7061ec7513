package gal

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/assisttest"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"gonum.org/v1/gonum/mat"
	"pgregory.net/rapid"
)

func near(tolerance float64) cmp.Option { return cmpopts.EquateApprox(0, tolerance) }

// sponsor has labels for all rows, to be fitted.
func sponsor(o assisted.Objective, y *mat.Dense) *assisted.Sponsor {
	n, _ := y.Dims()
	return &assisted.Sponsor{Objective: o, Keys: assisttest.Keys(n), Labels: y, Fit: n, Own: "org-1"}
}

func algorithm(t testing.TB, o Options, rounds int, s *assisted.Sponsor, w *assisttest.World) *Algorithm {
	t.Helper()
	a, err := o.New(rounds, s, w.Desks)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// The classes and features that the specification's first reference values are of.
var (
	fiveLabels = assisttest.Column(0, 0, 1, 2, 2)
	fiveA      = assisttest.Column(-1, -.5, 0, .5, 1)
	fiveB      = assisttest.Column(1, -1, 2, 0, -2)
	threeClass = assisted.Objective{Loss: assisted.CrossEntropy, Classes: 3}
)

// TestFive checks a round of cross-entropy against values computed by hand.
func TestFive(t *testing.T) {
	w := assisttest.NewWorld(assisttest.OLS(t), fiveA, fiveB)
	a := algorithm(t, Defaults(), 1, sponsor(threeClass, fiveLabels), w)
	s, err := a.Init(t.Context(), federated.Server{})
	if err != nil {
		t.Fatal(err)
	}
	f := assisttest.Matrix(t, s, "F")
	if diff := cmp.Diff([]float64{-0.916291, -1.609438, -0.916291}, f.RawRowView(3), near(1e-6)); diff != "" {
		t.Error("F⁰:", diff)
	}
	r := assisttest.Matrix(t, s, "r")
	want := mat.NewDense(5, 3, []float64{.6, -.2, -.4, .6, -.2, -.4, -.4, .8, -.4, -.4, -.2, .6, -.4, -.2, .6})
	assisttest.Near(t, "residuals", r, want, 1e-12)
	if got := threeClass.Value(fiveLabels, f); math.Abs(got-1.054920) > 1e-6 {
		t.Errorf("cross-entropy %.6f, want 1.054920", got)
	}

	l := w.Must(t, a, 1)
	for name, want := range map[string]float64{"org-1": .75, "org-2": .25} {
		if got := l.Metric("weight", name); len(got) != 1 || math.Abs(got[0]-want) > 1e-9 {
			t.Errorf("weight of %s is %v, want %g", name, got, want)
		}
	}
	if got := l.Metric("rate", ""); got[0] != 300 {
		t.Errorf("rate %v, want the cap: the rows are separable", got)
	}
	if got := l.Metric("rate.capped", ""); len(got) != 1 {
		t.Error("that the rate is at its cap is not flagged")
	}

	released := Defaults()
	released.Weights = "softmax-adam"
	l = w.Fresh().Must(t, algorithm(t, released, 1, sponsor(threeClass, fiveLabels), w.Fresh()), 1)
	for name, want := range map[string]float64{"org-1": 0.745408, "org-2": 0.254592} {
		if got := l.Metric("weight", name); math.Abs(got[0]-want) > 1e-6 {
			t.Errorf("weight of %s by Adam is %v, want %g", name, got, want)
		}
	}
	g1 := mat.NewDense(5, 3, []float64{.6, 0, -.6, .3, 0, -.3, 0, 0, 0, -.3, 0, .3, -.6, 0, .6})
	g2 := mat.NewDense(5, 3, []float64{0, .2, -.2, 0, -.2, .2, 0, .4, -.4, 0, 0, 0, 0, -.4, .4})
	var g mat.Dense
	g1.Scale(.75, g1)
	g2.Scale(.25, g2)
	g.Add(g1, g2)
	for eta, want := range map[float64]float64{0: 1.054920, 1: 0.790582, 5: 0.330094, 20: 0.055234} {
		var at mat.Dense
		at.Scale(eta, &g)
		at.Add(f, &at)
		if got := threeClass.Value(fiveLabels, &at); math.Abs(got-want) > 1e-6 {
			t.Errorf("cross-entropy at rate %g is %.6f, want %.6f", eta, got, want)
		}
	}
}

// TestFour checks weights and rate of the squared loss against values computed by hand.
func TestFour(t *testing.T) {
	r := assisttest.Column(-2, -1, 0, 3)
	g := []*mat.Dense{assisttest.Column(-2, -2, 0, 2), assisttest.Column(0, 0, -1, 3)}
	s := newStack(r, g)
	w := s.exact(2)
	if diff := cmp.Diff([]float64{.7, .3}, w, near(1e-12)); diff != "" {
		t.Error("weights:", diff)
	}
	if diff := cmp.Diff([]float64{0.70071846, 0.29928154}, s.softmaxAdam(2), near(1e-8)); diff != "" {
		t.Error("weights by Adam:", diff)
	}
	y, f := assisttest.Column(1, 2, 3, 6), assisttest.Column(3, 3, 3, 3)
	all := assisttest.Column(-1.4, -1.4, -.3, 2.3)
	o := assisted.Objective{Loss: assisted.Squared}
	step := o.Search(y, f, all, 300)
	if math.Abs(step.Rate-1.193548387) > 1e-9 {
		t.Errorf("rate %.9f, want 1.193548387", step.Rate)
	}
	f.Add(f, scaled(step.Rate, all))
	if rss := 4 * o.Value(y, f); math.Abs(rss-0.751612903) > 1e-9 {
		t.Errorf("residual sum of squares %.9f, want 0.751612903", rss)
	}
}

func scaled(by float64, x *mat.Dense) *mat.Dense {
	var out mat.Dense
	out.Scale(by, x)
	return &out
}

// TestAbsoluteSearch checks the weighted median.
func TestAbsoluteSearch(t *testing.T) {
	o := assisted.Objective{Loss: assisted.Absolute}
	y, f, g := assisttest.Column(-2, -1, 0, 3), assisttest.Column(0, 0, 0, 0), assisttest.Column(-1, -.5, .2, 1)
	if step := o.Search(y, f, g, 300); math.Abs(step.Rate-2) > 1e-12 {
		t.Errorf("rate %v, want 2", step.Rate)
	}
	for eta, want := range map[float64]float64{0: 6, 2: 1.4, 2.5: 1.75, 3: 2.1} {
		if got := 4 * o.Value(y, scaled(eta, g)); math.Abs(got-want) > 1e-12 {
			t.Errorf("loss at rate %g is %g, want %g", eta, got, want)
		}
	}
}

// random draws a matrix of standard normal numbers.
func random(seed uint64, rows, columns int) *mat.Dense {
	r := rand.New(rand.NewPCG(seed, 1))
	x := mat.NewDense(rows, columns, nil)
	x.Apply(func(_, _ int, _ float64) float64 { return r.NormFloat64() }, x)
	return x
}

// TestAloneIsLeastSquares checks that one organisation with the squared loss comes to least squares in one round, at half the
// rate, since residuals are twice the errors, and stays there.
func TestAloneIsLeastSquares(t *testing.T) {
	x, y := random(1, 20, 3), random(2, 20, 1)
	ols, err := assisttest.OLS(t).Fit(t.Context(), x, y, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	want, err := ols.Predict(x)
	if err != nil {
		t.Fatal(err)
	}
	w := assisttest.NewWorld(assisttest.OLS(t), x)
	l := w.Must(t, algorithm(t, Defaults(), 2, sponsor(assisted.Objective{Loss: assisted.Squared}, y), w), 2)
	assisttest.Near(t, "F", assisttest.Matrix(t, l.Final, "F"), want, 1e-12)
	assisttest.Near(t, "F¹", assisttest.Matrix(t, l.Snapshots[0].State, "F"), want, 1e-12)
	if rate := l.Metric("rate", ""); math.Abs(rate[0]-.5) > 1e-12 {
		t.Errorf("rates %v, want ½ at first", rate)
	}
}

// TestAloneIsBoosting checks that one organisation is gradient boosting with the same learner, bit for bit.
func TestAloneIsBoosting(t *testing.T) {
	x := random(3, 30, 2)
	y := mat.NewDense(30, 1, nil)
	for i := range 30 {
		y.Set(i, 0, float64(i%3))
	}
	const rounds = 4
	w := assisttest.NewWorld(assisttest.OLS(t), x)
	l := w.Must(t, algorithm(t, Defaults(), rounds, sponsor(threeClass, y), w), rounds)

	start, err := threeClass.Initial(y)
	if err != nil {
		t.Fatal(err)
	}
	f := assisted.Constant(30, start)
	for range rounds {
		m, err := assisttest.OLS(t).Fit(t.Context(), x, threeClass.Residual(y, f), nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		g, err := m.Predict(x)
		if err != nil {
			t.Fatal(err)
		}
		f.Add(f, scaled(threeClass.Search(y, f, g, 300).Rate, g))
	}
	if got := assisttest.Matrix(t, l.Final, "F"); !mat.Equal(got, f) {
		t.Error("one organisation comes to other bits than boosting")
	}
}

// blocks is a problem of three classes with features at several organisations: class k is where feature k is largest.
func blocks(seed uint64, n int, widths ...int) (y *mat.Dense, features []*mat.Dense) {
	all := 0
	for _, w := range widths {
		all += w
	}
	x := random(seed, n, all)
	y = mat.NewDense(n, 1, nil)
	for i := range n {
		y.Set(i, 0, float64(threeClass.Predict([]float64{x.At(i, 0) + x.At(i, all-1), x.At(i, 1), x.At(i, 2) - x.At(i, 0)})))
	}
	at := 0
	for _, w := range widths {
		features = append(features, mat.DenseCopyOf(x.Slice(0, n, at, at+w)))
		at += w
	}
	return y, features
}

// TestScaleFree checks that residuals of another scale make no difference with exact weights and rates, and do with Adam's.
func TestScaleFree(t *testing.T) {
	y, x := blocks(4, 40, 1, 2, 1)
	half := random(5, 40, 1) // any residual; what is fitted to c·r is c times what is fitted to r
	var g []*mat.Dense
	for _, part := range x {
		m, err := assisttest.OLS(t).Fit(t.Context(), part, half, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		v, err := m.Predict(part)
		if err != nil {
			t.Fatal(err)
		}
		g = append(g, v)
	}
	const c = 7.5
	var big []*mat.Dense
	for _, v := range g {
		big = append(big, scaled(c, v))
	}
	one, other := newStack(half, g), newStack(scaled(c, half), big)
	if diff := cmp.Diff(one.exact(2), other.exact(2), near(1e-9)); diff != "" {
		t.Error("exact weights depend on the scale:", diff)
	}
	if cmp.Equal(one.softmaxAdam(2), other.softmaxAdam(2), near(1e-4)) {
		t.Error("Adam's weights do not depend on the scale, which they are known to")
	}
	_ = y
}

// TestSameAndNothing checks that a copy of an organisation changes no prediction, that the order of organisations changes only the
// order of weights, and that one without information has weight 0.
func TestSameAndNothing(t *testing.T) {
	y, x := blocks(6, 60, 2, 1, 1)
	const rounds = 3
	f := func(features ...*mat.Dense) (*mat.Dense, *fedtest.Trace) {
		w := assisttest.NewWorld(assisttest.OLS(t), features...)
		l := w.Must(t, algorithm(t, Defaults(), rounds, sponsor(threeClass, y), w), rounds)
		return assisttest.Matrix(t, l.Final, "F"), l
	}
	want, plain := f(x[0], x[1], x[2])
	twice, _ := f(x[0], x[1], x[2], x[1])
	assisttest.Near(t, "with a copy", twice, want, 1e-6)
	turned, other := f(x[2], x[0], x[1])
	assisttest.Near(t, "in another order", turned, want, 1e-6)
	for m := range 3 {
		a, b := plain.Metric("weight", fmt.Sprintf("org-%d", m+1)), other.Metric("weight", fmt.Sprintf("org-%d", (m+1)%3+1))
		if diff := cmp.Diff(a, b, near(1e-6)); diff != "" {
			t.Errorf("weights of organisation %d in another order: %s", m+1, diff)
		}
	}
	with, l := f(x[0], x[1], x[2], mat.NewDense(60, 1, nil))
	assisttest.Near(t, "with one that has nothing", with, want, 1e-6)
	for _, w := range l.Metric("weight", "org-4") {
		if w > 1e-9 {
			t.Errorf("the weights of an organisation without information are %v", l.Metric("weight", "org-4"))
		}
	}
}

// TestExactWeights checks on random problems that the weights are on the simplex, that none of its corners, nor its middle, nor
// small steps from them are better, for all exponents.
func TestExactWeights(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, seed := rapid.IntRange(1, 9).Draw(t, "organisations"), rapid.Uint64().Draw(t, "seed")
		rows := rapid.IntRange(2, 30).Draw(t, "rows")
		q := rapid.SampledFrom([]float64{1, 1.5, 2, 4}).Draw(t, "exponent")
		r := random(seed, rows, 1)
		var g []*mat.Dense
		for m := range n {
			g = append(g, random(seed+uint64(m)+1, rows, 1))
			if m > 0 && rapid.Bool().Draw(t, "like r") {
				g[m].Add(g[m], scaled(2, r))
			}
		}
		s := newStack(r, g)
		w := s.exact(q)
		sum := 0.0
		for _, v := range w {
			sum += v
			if v < 0 {
				t.Fatalf("weights %v", w)
			}
		}
		if math.Abs(sum-1) > 1e-12 {
			t.Fatalf("weights %v sum to %g", w, sum)
		}
		best := s.loss(w, q)
		tolerance := 1e-7 * best
		middle := make([]float64, n)
		for m := range n {
			middle[m] = 1 / float64(n)
			corner := make([]float64, n)
			corner[m] = 1
			if v := s.loss(corner, q); v < best-tolerance {
				t.Errorf("organisation %d alone has loss %g, weights %v have %g", m, v, w, best)
			}
			for _, step := range []float64{1e-1, 1e-2, 1e-3} { // towards the corner
				at := make([]float64, n)
				for l := range at {
					at[l] = (1-step)*w[l] + step*corner[l]
				}
				if v := s.loss(at, q); v < best-tolerance {
					t.Errorf("%g towards organisation %d the loss is %g, less than %g", step, m, v, best)
				}
			}
		}
		if v := s.loss(middle, q); v < best-tolerance {
			t.Errorf("equal weights have loss %g, %v have %g", v, w, best)
		}
	})
}

// TestTrainingLossFalls checks that the loss on the rows to fit never rises, for every objective.
func TestTrainingLossFalls(t *testing.T) {
	y, x := blocks(7, 50, 2, 1, 1)
	for _, o := range []assisted.Objective{threeClass, {Loss: assisted.Squared}, {Loss: assisted.Absolute}} {
		w := assisttest.NewWorld(assisttest.OLS(t), x...)
		l := w.Must(t, algorithm(t, Defaults(), 5, sponsor(o, y), w), 5)
		loss := l.Metric("loss.train", "")
		for i := 1; i < len(loss); i++ {
			if loss[i] > loss[i-1]*(1+1e-12) {
				t.Errorf("%s: training losses %v rise", o.Loss, loss)
			}
		}
		if len(loss) != 5 {
			t.Errorf("%s: %d training losses of 5 rounds", o.Loss, len(loss))
		}
	}
}

// TestPredictionIsTraining checks that asking for the rows of the run again gives what the run came to, and that one
// organisation's absence is stood for by its mean and said.
func TestPredictionIsTraining(t *testing.T) {
	y, x := blocks(8, 40, 2, 1, 1)
	s := sponsor(threeClass, y)
	s.Fit, s.Test = 30, 10
	w := assisttest.NewWorld(assisttest.OLS(t), x...)
	a := algorithm(t, Defaults(), 4, s, w)
	l := w.Must(t, a, 4)
	e, err := a.Ensemble(l.Final)
	if err != nil {
		t.Fatal(err)
	}
	want := assisttest.Matrix(t, l.Final, "F")
	got, told := w.Predict(t, e, s.Keys)
	assisttest.Near(t, "prediction", got, want, 1e-12)
	if d := told.Metric("degraded", "org-2"); len(d) != 0 {
		t.Errorf("a whole prediction is marked as degraded: %v", d)
	}
	got, told = w.Predict(t, e, s.Keys, "org-2")
	if d := told.Metric("degraded", "org-2"); len(d) != 1 || d[0] != 40 {
		t.Errorf("without org-2, degraded is %v", d)
	}
	var off mat.Dense
	off.Sub(want, got)
	var sum [3]float64 // what is missing has mean 0 over the rows to fit
	for i := range 30 {
		for k := range sum {
			sum[k] += off.At(i, k)
		}
	}
	if diff := cmp.Diff(sum[:], make([]float64, 3), near(1e-9)); diff != "" {
		t.Error("the mean of what is missing:", diff)
	}
	if mat.Norm(&off, 2) == 0 {
		t.Error("the absence of an organisation changes nothing")
	}
}
