package assisted

import (
	"math"
	"strings"
	"testing"

	"gonum.org/v1/gonum/diff/fd"
	"gonum.org/v1/gonum/mat"
	"pgregory.net/rapid"
)

var objectives = []Objective{
	{Loss: Squared}, {Loss: Absolute}, {Loss: CrossEntropy, Classes: 3}, {Loss: CrossEntropy, Classes: 2}, {Loss: Logistic},
	{Loss: Poisson}, {Loss: LogCosh},
}

// problem draws labels and predictions for an objective.
func problem(t *rapid.T, o Objective) (y, f, g *mat.Dense) {
	n := rapid.IntRange(1, 8).Draw(t, "rows")
	number := rapid.Float64Range(-3, 3)
	y = mat.NewDense(n, 1, nil)
	for i := range n {
		if o.Classifies() {
			y.Set(i, 0, float64(rapid.IntRange(0, o.classes()-1).Draw(t, "class")))
		} else if o.Loss == Poisson {
			y.Set(i, 0, float64(rapid.IntRange(0, 9).Draw(t, "count")))
		} else {
			y.Set(i, 0, number.Draw(t, "label"))
		}
	}
	k := o.Outputs(y)
	fill := func(name string) *mat.Dense {
		return mat.NewDense(n, k, rapid.SliceOfN(number, n*k, n*k).Draw(t, name))
	}
	return y, fill("F"), fill("G")
}

// TestResidualIsTheGradient compares pseudo-residuals with finite differences of the loss summed over rows.
func TestResidualIsTheGradient(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := rapid.SampledFrom(objectives).Draw(t, "objective")
		y, f, _ := problem(t, o)
		n, k := f.Dims()
		if o.Loss == Absolute {
			for i := range n {
				if math.Abs(y.At(i, 0)-f.At(i, 0)) < 1e-3 {
					t.Skip("at a kink there is no gradient")
				}
			}
		}
		at := func(x []float64) float64 { return float64(n) * o.Value(y, mat.NewDense(n, k, x)) }
		want := fd.Gradient(nil, at, values(f), &fd.Settings{Formula: fd.Central})
		for i, r := range values(o.Residual(y, f)) {
			if math.Abs(r+want[i]) > 1e-5 {
				t.Errorf("%s: residual %d is %g, minus the gradient %g", o.Loss, i, r, -want[i])
			}
		}
	})
}

// TestResidualsOfClasses checks what always holds of cross-entropy: rows of r sum to 0 and are within ±1, and at F⁰ columns sum to
// 0, too.
func TestResidualsOfClasses(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := Objective{Loss: CrossEntropy, Classes: 3}
		y, f, _ := problem(t, o)
		r := o.Residual(y, f)
		n, _ := r.Dims()
		for i := range n {
			if sum := mat.Sum(r.RowView(i)); math.Abs(sum) > 1e-12 || mat.Max(r) > 1 || mat.Min(r) < -1 {
				t.Errorf("row %d of the residuals is %v", i, r.RawRowView(i))
			}
		}
		start, err := o.Initial(y)
		if err != nil {
			t.Skip("a class is empty")
		}
		r = o.Residual(y, Constant(n, start))
		for k := range 3 {
			if sum := mat.Sum(r.ColView(k)); math.Abs(sum) > 1e-12 {
				t.Errorf("at the first predictions, column %d sums to %g", k, sum)
			}
		}
	})
}

// TestSearchIsALeast checks that no rate beside the one found is better, up to the cap.
func TestSearchIsALeast(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		o := rapid.SampledFrom(objectives).Draw(t, "objective")
		y, f, g := problem(t, o)
		const most = 300
		step := o.Search(y, f, g, most)
		at := func(eta float64) float64 {
			var x mat.Dense
			x.Scale(eta, g)
			x.Add(f, &x)
			return o.Value(y, &x)
		}
		best := at(step.Rate)
		if step.Capped != (step.Rate == most && o.Classifies()) && !(step.Rate == most) {
			t.Errorf("rate %g is flagged as capped: %v", step.Rate, step.Capped)
		}
		for _, eta := range []float64{0, step.Rate * .5, step.Rate * .99, step.Rate * 1.01, step.Rate * 2, 1e-4, .1, 1, 10} {
			if o.Loss != Squared && o.Loss != Absolute && eta > most {
				continue
			}
			if v := at(eta); v < best-1e-9*(1+best) {
				t.Errorf("%s: at rate %g the loss is %g, at %g it is %g", o.Loss, step.Rate, best, eta, v)
			}
		}
	})
}

// TestSearchReleased checks that the released search comes near the exact one where the loss is smooth, and obeys its cap.
func TestSearchReleased(t *testing.T) {
	y := mat.NewDense(6, 1, []float64{0, 0, 1, 1, 0, 1})
	f, g := mat.NewDense(6, 1, nil), mat.NewDense(6, 1, []float64{-1, -.5, .2, 1, .4, -.1})
	o := Objective{Loss: Logistic}
	exact, released := o.Search(y, f, g, 300), o.SearchReleased(y, f, g, 300)
	if math.Abs(exact.Rate-released.Rate) > 1e-4 {
		t.Errorf("rates %g and %g", exact.Rate, released.Rate)
	}
	if s := o.SearchReleased(y, f, g, .5); s.Rate != .5 || !s.Capped {
		t.Errorf("with a cap of ½: %+v", s)
	}
}

func TestLabelsThatCannotBe(t *testing.T) {
	column := func(v ...float64) *mat.Dense { return mat.NewDense(len(v), 1, v) }
	for want, c := range map[string]struct {
		o Objective
		y *mat.Dense
	}{
		"expected squared":          {Objective{Loss: "huber"}, column(1)},
		"need at least 2":           {Objective{Loss: CrossEntropy, Classes: 1}, column(0)},
		"label 1 is 3":              {Objective{Loss: CrossEntropy, Classes: 3}, column(0, 3)},
		"label 0 is 0.5":            {Objective{Loss: Logistic}, column(.5)},
		"is for counts":             {Objective{Loss: Poisson}, column(1, 1.5)},
		"label 1 is NaN":            {Objective{Loss: Logistic}, column(0, math.NaN())},
		"infinite":                  {Objective{Loss: Squared}, column(math.Inf(1))},
		"missing in 1 of 2 columns": {Objective{Loss: Squared}, mat.NewDense(1, 2, []float64{1, math.NaN()})},
		"have 2":                    {Objective{Loss: Logistic}, mat.NewDense(1, 2, nil)},
		"leave out classes":         {Objective{Loss: Absolute, Classes: 2}, column(1)},
	} {
		if err := c.o.Check(c.y); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
	if _, err := (Objective{Loss: CrossEntropy, Classes: 3}).Initial(column(0, 1)); err == nil || !strings.Contains(err.Error(), "class 2") {
		t.Errorf("a class without rows: %v", err)
	}
	smooth, err := Objective{Loss: CrossEntropy, Classes: 3, Smooth: true}.Initial(column(0, 1))
	if err != nil || math.Abs(smooth[2]-math.Log(.2)) > 1e-12 {
		t.Errorf("a class without rows, smoothed: %v, %v", smooth, err)
	}
}

// TestMasked checks that rows without a label are neither scored nor fitted.
func TestMasked(t *testing.T) {
	o := Objective{Loss: Absolute}
	y, f := mat.NewDense(3, 1, []float64{1, math.NaN(), 3}), mat.NewDense(3, 1, []float64{0, 0, 0})
	if got := o.Value(y, f); got != 2 {
		t.Errorf("loss %g, want 2", got)
	}
	if got := (Objective{Loss: Absolute}).errors(y, f)[0].Value; got != 2 {
		t.Errorf("mean error %g, want 2", got)
	}
	r := o.Residual(y, f)
	if !math.IsNaN(r.At(1, 0)) || r.At(0, 0) != 1 {
		t.Errorf("residuals %v", mat.Formatted(r))
	}
	if start, err := o.Initial(y); err != nil || start[0] != 2 {
		t.Errorf("first prediction %v, %v", start, err)
	}
}

func TestAUROC(t *testing.T) {
	y := mat.NewDense(5, 1, []float64{0, 1, 0, 1, 1})
	for want, score := range map[float64][]float64{
		1: {0, 2, 1, 3, 4}, 0: {9, 2, 8, 3, 4}, .5: {1, 1, 1, 1, 1}, 4.5 / 6: {0, 0, 1, 2, 3},
	} {
		if got := AUROC(y, score); math.Abs(got-want) > 1e-12 {
			t.Errorf("scores %v: %g, want %g", score, got, want)
		}
	}
	if got := AUROC(mat.NewDense(2, 1, nil), []float64{1, 2}); !math.IsNaN(got) {
		t.Errorf("of one class: %g", got)
	}
}
