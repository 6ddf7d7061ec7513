package gal

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/assisttest"
	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"gonum.org/v1/gonum/mat"
	"pgregory.net/rapid"
)

func with(change func(*Options)) Options {
	o := Defaults()
	change(&o)
	return o
}

// TestPerClassOfOne checks that with one output weights per class are the exact ones, bit for bit.
func TestPerClassOfOne(t *testing.T) {
	y, x := blocks(11, 40, 1, 2, 1)
	for _, o := range []assisted.Objective{{Loss: assisted.Squared}, {Loss: assisted.Absolute}} {
		var digests [][]string
		for _, weights := range []string{"exact", "per-class"} {
			w := assisttest.NewWorld(assisttest.OLS(t), x...)
			l := w.Must(t, algorithm(t, with(func(o *Options) { o.Weights = weights }), 4, sponsor(o, y), w), 4)
			digests = append(digests, l.Digests())
		}
		if !slices.Equal(digests[0], digests[1]) {
			t.Errorf("%s: weights per class of one output are other bits than exact ones", o.Loss)
		}
	}
}

// TestPerClass checks that weights per class explain each output at least as well as common weights, and all of them better where
// organisations know different classes.
func TestPerClass(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		seed, n := rapid.Uint64().Draw(t, "seed"), rapid.IntRange(1, 6).Draw(t, "organisations")
		q := rapid.SampledFrom([]float64{1, 1.5, 2, 4}).Draw(t, "exponent")
		r := random(seed, 20, 3)
		var g []*mat.Dense
		for m := range n {
			g = append(g, random(seed+uint64(m)+1, 20, 3))
		}
		common := (&Algorithm{Options: with(func(o *Options) { o.Exponent = q })}).weigh(r, g)
		each := (&Algorithm{Options: with(func(o *Options) { o.Weights, o.Exponent = "per-class", q })}).weigh(r, g)
		for k := range 3 {
			one, a, b := make([]*mat.Dense, n), make([]float64, n), make([]float64, n)
			for m := range n {
				one[m], a[m], b[m] = assisted.Columns(g[m], []int{k}), common[m][0], each[m][k]
			}
			s := newStack(assisted.Columns(r, []int{k}), one)
			if x, y := s.loss(a, q), s.loss(b, q); y > x*(1+1e-7) {
				t.Errorf("output %d: the loss is %g with weights of its own and %g with common ones", k, y, x)
			}
		}
	})
	r := random(1, 30, 2)
	g := []*mat.Dense{mat.DenseCopyOf(r), mat.DenseCopyOf(r)}
	for i := range 30 {
		g[0].Set(i, 1, 0) // the first knows the first class only, the second the other
		g[1].Set(i, 0, 0)
	}
	w := (&Algorithm{Options: with(func(o *Options) { o.Weights = "per-class" })}).weigh(r, g)
	for m, want := range [][]float64{{1, 0}, {0, 1}} {
		for k := range want {
			if math.Abs(w[m][k]-want[k]) > 1e-12 {
				t.Errorf("weights %v, want each to be trusted with what it knows", w)
			}
		}
	}
}

// TestNonNegative checks the conditions of an optimum on random problems, also where organisations say the same or nothing: weights are
// not negative, the gradient is 0 where they are positive and not negative elsewhere; and that they explain at least as much as
// weights on the simplex.
func TestNonNegative(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, seed := rapid.IntRange(1, 9).Draw(t, "organisations"), rapid.Uint64().Draw(t, "seed")
		r := random(seed, 25, 1)
		var g []*mat.Dense
		for m := range n {
			x := random(seed+uint64(m)+1, 25, 1)
			switch rapid.IntRange(0, 4).Draw(t, "kind") {
			case 0:
				x.Add(x, scaled(2, r))
			case 1:
				x.Zero()
			case 2:
				if m > 0 {
					x.Copy(g[m-1])
				}
			}
			g = append(g, x)
		}
		s := newStack(r, g)
		w := s.nonNegative()
		slope := s.slope(w, 2)
		for m, v := range w {
			if v < 0 || v > 0 && math.Abs(slope[m]) > 1e-7 || slope[m] < -1e-7 {
				t.Errorf("weight %d of %v has gradient %g", m, w, slope[m])
			}
		}
		if best, simplex := s.loss(w, 2), s.loss(s.exact(2), 2); best > simplex*(1+1e-9) {
			t.Errorf("the loss is %g, and %g on the simplex", best, simplex)
		}
	})
}

// TestProjection checks that with weights of any sum the fit is a projection, so that the rate of the squared loss, whose residuals are
// twice the errors, is ½.
func TestProjection(t *testing.T) {
	y, x := blocks(12, 40, 1, 2, 1)
	w := assisttest.NewWorld(assisttest.OLS(t), x...)
	l := w.Must(t, algorithm(t, with(func(o *Options) { o.Weights = "nnls" }), 3, sponsor(assisted.Objective{Loss: assisted.Squared}, y), w), 3)
	for i, rate := range l.Metric("rate", "") {
		if math.Abs(rate-.5) > 1e-6 {
			t.Errorf("rate of round %d: %g, want ½", i, rate)
		}
	}
}

// TestBeyondPredicts checks that what a run of each variant came to is what its ensemble predicts, with fewer rows and weights by class,
// and that the training loss never rises.
func TestBeyondPredicts(t *testing.T) {
	y, x := blocks(13, 60, 2, 1, 1)
	s := sponsor(threeClass, y)
	s.Fit, s.Test = 45, 15
	for name, o := range map[string]Options{
		"per-class": with(func(o *Options) { o.Weights = "per-class" }),
		"nnls":      with(func(o *Options) { o.Weights = "nnls" }),
		"subsample": with(func(o *Options) { o.Subsample = .5 }),
	} {
		w := assisttest.NewWorld(assisttest.OLS(t), x...)
		a := algorithm(t, o, 4, s, w)
		l := w.Must(t, a, 4)
		e, err := a.Ensemble(l.Final)
		if err != nil {
			t.Fatal(err)
		}
		f, _ := w.Predict(t, e, s.Keys)
		assisttest.Near(t, name, f, assisttest.Matrix(t, l.Final, "F"), 1e-12)
		without, _ := w.Predict(t, e, s.Keys, "org-2") // its mean over the rows to fit stands for it
		without.Sub(f, without)
		for k := range 3 {
			if sum := mat.Sum(without.Slice(0, s.Fit, k, k+1)); math.Abs(sum) > 1e-9 {
				t.Errorf("%s: without org-2, output %d is off by %g over all rows to fit, which its mean should make good", name, k, sum)
			}
		}
		loss := l.Metric("loss.train", "")
		for i := 1; i < len(loss); i++ {
			if loss[i] > loss[i-1]*(1+1e-12) {
				t.Errorf("%s: training losses %v rise", name, loss)
			}
		}
	}
}

// TestSubsample checks that all rows are what comes of no subsample, bit for bit; that else residuals of so many rows and no others are
// sent, of others in each round, to all organisations the same; and that behind noise they stay unsent.
func TestSubsample(t *testing.T) {
	c := newTrial(t)
	run := func(o Options, hear func(round int, member string, r *mat.Dense)) *fedtest.Trace {
		w := c.world.Fresh()
		l, err := w.Do(algorithm(t, o, c.rounds, c.sponsor, w), c.rounds, func(r *fedtest.Run) {
			r.Members.Tamper = func(a *federated.Answer) {
				if a.Order.Phase != assisted.Fits || hear == nil {
					return
				}
				sent, ok := a.Task.Sets["r"].Get("r")
				if !ok {
					t.Fatal("no residuals are sent")
				}
				hear(a.Order.Round, a.Order.Member.Name, mat.NewDense(sent.Shape[0], sent.Shape[1], sent.F64))
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	if got := run(with(func(o *Options) { o.Subsample = 1 }), nil); !slices.Equal(got.Digests(), run(Defaults(), nil).Digests()) {
		t.Error("a subsample of all rows comes to other bits than none")
	}
	for _, privacy := range []string{"none", "laplace"} {
		drawn := map[string]string{}
		run(with(func(o *Options) { o.Subsample, o.Privacy = .3, privacy }), func(round int, member string, r *mat.Dense) {
			var rows []int
			for i := range 36 {
				if !assisted.Masked(r, i) {
					rows = append(rows, i)
				}
			}
			if len(rows) != 11 {
				t.Errorf("%s: residuals of %d rows are sent, want ⌈0.3·36⌉", privacy, len(rows))
			}
			key, text := fmt.Sprint(round), fmt.Sprint(rows)
			if before, ok := drawn[key]; ok && before != text {
				t.Errorf("round %d: %s gets other rows than another", round, member)
			}
			drawn[key] = text
		})
		if len(drawn) != c.rounds || drawn["0"] == drawn["1"] {
			t.Errorf("rows drawn in %d rounds: %v", len(drawn), drawn)
		}
	}
}

// TestSubsampleTellsLess checks that of rows that were never sent the attack reads no label: after a round at half of the rows it knows
// these and guesses the most frequent of ten classes for others; after many it knows nearly all.
func TestSubsampleTellsLess(t *testing.T) {
	s := tenClasses(4000)
	for rounds, want := range map[int]float64{1: .5 + .5/10, 2: .75 + .25/10, 10: 1} {
		a, err := with(func(o *Options) { o.Subsample = .5 }).New(rounds, s, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := a.Recovery(server())
		if err != nil {
			t.Fatal(err)
		}
		if math.Abs(got-want) > .02 {
			t.Errorf("in %d rounds %.3f of the labels are recovered, about %.3f were expected", rounds, got, want)
		}
	}
}

// TestByHeart checks that learners that know rows by heart are called so, once, and tame ones are not.
func TestByHeart(t *testing.T) {
	c := newTrial(t)
	notes := func(l learner.Learner) (n int) {
		for _, d := range c.world.Desks {
			d.Learner = l
		}
		for _, p := range c.run(t, false, nil).Phases {
			n += strings.Count(strings.Join(p.Notes, "\n"), "by heart")
		}
		return n
	}
	nearest, err := learner.Spec{Name: "knn", Neighbours: 1}.New()
	if err != nil {
		t.Fatal(err)
	}
	if got := notes(nearest); got != 1 {
		t.Errorf("that the nearest neighbour knows rows by heart is said %d times", got)
	}
	if got := notes(assisttest.OLS(t)); got != 0 {
		t.Error("least squares is said to know rows by heart")
	}
}

// TestMedians checks that weights by absolute errors are warned of where labels are classes, and not elsewhere.
func TestMedians(t *testing.T) {
	y, x := blocks(14, 40, 1, 2, 1)
	for _, c := range []struct {
		objective assisted.Objective
		exponent  float64
		want      bool
	}{{threeClass, 1, true}, {threeClass, 2, false}, {assisted.Objective{Loss: assisted.Absolute}, 1, false}} {
		w := assisttest.NewWorld(assisttest.OLS(t), x...)
		l := w.Must(t, algorithm(t, with(func(o *Options) { o.Exponent = c.exponent }), 1, sponsor(c.objective, y), w), 1)
		if got := strings.Contains(strings.Join(l.Phase(assisted.Rows)[0].Notes, "\n"), "medians"); got != c.want {
			t.Errorf("%s, exponent %g: warned %t", c.objective.Loss, c.exponent, got)
		}
	}
}
