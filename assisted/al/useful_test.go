package al

import (
	"math"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/assisttest"
	"gonum.org/v1/gonum/mat"
)

// TestUsefulness checks that the test tells who knows something from who does not, before any residual is sent.
func TestUsefulness(t *testing.T) {
	y, x := friedman(8, 400)
	w := assisttest.NewWorld(assisttest.OLS(t), x[0], x[2], random(9, 400, 4))
	w.Desks["org-1"].Sketch, w.Desks["org-2"].Sketch, w.Desks["org-3"].Sketch = assisted.Open, 3, 3
	u := &Useful{Table: assisted.Table{Sponsor: sponsor(y), Desks: w.Desks}, Mixtures: 3}
	l := w.Must(t, u, 1)
	knows, not := l.Metric("useful.p", "org-2"), l.Metric("useful.p", "org-3")
	if len(knows) != 1 || knows[0] > 1e-6 || len(not) != 1 || not[0] < .01 {
		t.Errorf("p-values: %v of whom knows something, %v of whom does not", knows, not)
	}
	if p := l.Phase(assisted.Fits); len(p) != 0 {
		t.Error("residuals were sent")
	}
	w.Desks["org-2"].Sketch = 0
	again := w.Fresh()
	l, err := again.Do(&Useful{Table: assisted.Table{Sponsor: sponsor(y), Desks: again.Desks}, Mixtures: 3}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	if notes := strings.Join(l.Phase(assisted.Sketches)[0].Notes, "\n"); !strings.Contains(notes, "org-2 is not tested in round 1: asked for 3 mixtures") {
		t.Errorf("that an organisation tells none is not said: %q", notes)
	}
}

// TestCompareByHand compares the statistic with n log(RSS₀/RSS₁) for one column more, and its degrees of freedom with what came in.
func TestCompareByHand(t *testing.T) {
	y := assisttest.Column(1, 2, 3, 6, 4, 0)
	own, more := assisttest.Column(1, 2, 3, 4, 5, 6), assisttest.Column(0, 1, 0, 1, 1, 0)
	got, err := Compare(squared, y, own, more, 6)
	if err != nil {
		t.Fatal(err)
	}
	rss := func(x ...*mat.Dense) float64 {
		all := mat.DenseCopyOf(x[0])
		for _, c := range x[1:] {
			var both mat.Dense
			both.Augment(all, c)
			all = &both
		}
		m, err := assisttest.OLS(t).Fit(t.Context(), all, y, nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		f, err := m.Predict(all)
		if err != nil {
			t.Fatal(err)
		}
		f.Sub(y, f)
		return math.Pow(mat.Norm(f, 2), 2)
	}
	if want := 6 * math.Log(rss(own)/rss(own, more)); math.Abs(got.Statistic-want) > 1e-9 || got.Freedom != 1 {
		t.Errorf("%+v, want %g on 1 degree of freedom", got, want)
	}
	if got, err := Compare(squared, y, own, own, 6); err != nil || got.P != 1 || got.Freedom != 0 {
		t.Errorf("against itself: %+v, %v", got, err)
	}
}

// TestCompareCounts checks the analysis of deviance of Dobson's counts (1990, page 93) that R's manual of glm has: outcomes say something beside
// treatments with χ² = 5.4523 on 2 degrees of freedom, p = 0.06547; treatments say nothing.
func TestCompareCounts(t *testing.T) {
	y := assisttest.Column(18, 17, 15, 20, 10, 20, 25, 13, 12)
	outcome, treatment := mat.NewDense(9, 2, nil), mat.NewDense(9, 2, nil)
	for i := range 9 {
		if i%3 > 0 {
			outcome.Set(i, i%3-1, 1)
		}
		if i/3 > 0 {
			treatment.Set(i, i/3-1, 1)
		}
	}
	o := assisted.Objective{Loss: assisted.Poisson}
	got, err := Compare(o, y, treatment, outcome, 9)
	if err != nil || math.Abs(got.Statistic-5.4523) > 5e-5 || got.Freedom != 2 || math.Abs(got.P-.06547) > 5e-6 {
		t.Errorf("outcomes: %+v, %v", got, err)
	}
	if got, err = Compare(o, y, outcome, treatment, 9); err != nil || got.Statistic > 1e-6 {
		t.Errorf("treatments: %+v, %v", got, err)
	}
}

// TestNullDistribution checks for every objective that p-values of columns that know nothing are about uniform.
func TestNullDistribution(t *testing.T) {
	for _, o := range []assisted.Objective{squared, {Loss: assisted.Logistic}, {Loss: assisted.CrossEntropy, Classes: 3}} {
		const draws = 150
		mean, small := 0.0, 0
		for k := range uint64(draws) {
			own, more, noise := random(3*k, 150, 2), random(3*k+1, 150, 2), random(3*k+2, 150, 3)
			y := mat.NewDense(150, 1, nil)
			for i := range 150 {
				v := own.At(i, 0) + noise.At(i, 0)
				if o.Classifies() {
					v = float64(threeWay(v, max(2, o.Classes)))
				}
				y.Set(i, 0, v)
			}
			got, err := Compare(o, y, own, more, 150)
			if err != nil {
				t.Fatal(err)
			}
			if want := 2 * max(1, o.Classes-1); got.Freedom != want {
				t.Fatalf("%s: %d degrees of freedom, want %d", o.Loss, got.Freedom, want)
			}
			mean += got.P / draws
			if got.P < .05 {
				small++
			}
		}
		if math.Abs(mean-.5) > .1 || small > 18 {
			t.Errorf("%s: p-values have mean %.2f, %d of %d below 0.05", o.Loss, mean, small, draws)
		}
	}
}

// threeWay cuts a number into classes.
func threeWay(v float64, classes int) int {
	switch {
	case v < 0:
		return 0
	case v < 1 || classes == 2:
		return 1
	}
	return 2
}
