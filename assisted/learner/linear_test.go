package learner_test

import (
	"math"
	"slices"
	"testing"

	"github.com/cohort-learning/cohort/assisted/learner"
	"gonum.org/v1/gonum/mat"
)

// Two directions at 60°: what is left of y after both have fitted shrinks by cos² 60° = ¼ a round (assisted learning as
// alternating projections; von Neumann).
func TestAlternatingProjections(t *testing.T) {
	e := mat.NewDense(3, 1, []float64{1, 1, 1})
	a := mat.NewDense(3, 1, []float64{1, 0, 0})
	b := mat.NewDense(3, 1, []float64{0.5, math.Sqrt(3) / 2, 0})
	plain := learner.Spec{Name: "linear", NoIntercept: true}
	for round, want := range [][]float64{{-0.433013, 0.25, 1}, {-0.108253, 0.0625, 1}, {-0.027063, 0.015625, 1}, {-0.006766, 0.003906, 1}} {
		for _, x := range []*mat.Dense{a, b} {
			e.Sub(e, fitted(t, plain, x, e, nil))
		}
		for i, v := range want {
			if math.Abs(e.At(i, 0)-v) > 1e-6 {
				t.Errorf("round %d, row %d: %v, want %v", round+1, i, e.At(i, 0), v)
			}
		}
	}
}

// Residual sums of squares of two modules that share one direction; numpy's lstsq gave the numbers.
func TestAlternatingLeastSquares(t *testing.T) {
	a := mat.NewDense(8, 2, []float64{1, 0, 1, 1, 1, 2, 1, 3, 1, 4, 1, 5, 1, 6, 1, 7})
	b := mat.NewDense(8, 2, []float64{0, 1, 1, 0, 0, 2, 1, 1, 0, 3, 1, 2, 0, 4, 1, 3})
	e := mat.NewDense(8, 1, []float64{1, 3, 2, 5, 4, 8, 5, 11})
	plain := learner.Spec{Name: "linear", NoIntercept: true}
	want := []float64{18.869048, 5.206090, 4.741364, 4.725557, 4.725019, 4.725001}
	for i, rss := range want {
		e.Sub(e, fitted(t, plain, []*mat.Dense{a, b}[i%2], e, nil))
		if got := math.Pow(mat.Norm(e, 2), 2); math.Abs(got-rss) > 1e-6 {
			t.Errorf("half-step %d: residual sum of squares %.6f, want %v", i, got, rss)
		}
	}
}

// The first round of GAL's example: least squares with intercept of the pseudo-residuals of two organisations.
func TestPseudoResiduals(t *testing.T) {
	r := mat.NewDense(5, 3, []float64{.6, -.2, -.4, .6, -.2, -.4, -.4, .8, -.4, -.4, -.2, .6, -.4, -.2, .6})
	x1, x2 := mat.NewDense(5, 1, []float64{-1, -.5, 0, .5, 1}), mat.NewDense(5, 1, []float64{1, -1, 2, 0, -2})
	wants := [][]float64{
		{.6, 0, -.6, .3, 0, -.3, 0, 0, 0, -.3, 0, .3, -.6, 0, .6},
		{0, .2, -.2, 0, -.2, .2, 0, .4, -.4, 0, 0, 0, 0, -.4, .4},
	}
	for i, x := range []*mat.Dense{x1, x2} {
		got, want := fitted(t, learner.Spec{Name: "linear"}, x, r, nil), mat.NewDense(5, 3, wants[i])
		if !mat.EqualApprox(got, want, 1e-12) {
			t.Errorf("organisation %d: %v, want %v", i+1, mat.Formatted(got), mat.Formatted(want))
		}
	}
}

// A column that stands there twice, scaled, shares its coefficient; a constant one has none; predictions are those of the
// single column, also where there are more columns than rows.
func TestSingularDesign(t *testing.T) {
	x := mat.NewDense(4, 4, []float64{1, 10, 7, 3, 2, 20, 7, 1, 4, 40, 7, 4, 8, 80, 7, 1})
	y := mat.NewDense(4, 1, []float64{1, 2, 3, 5})
	single := mat.NewDense(4, 2, []float64{1, 3, 2, 1, 4, 4, 8, 1})
	m := fit(t, learner.Spec{Name: "linear"}, x, y, nil).(*learner.Linear)
	if !mat.EqualApprox(predict(t, m, x), fitted(t, learner.Spec{Name: "linear"}, single, y, nil), 1e-12) {
		t.Error("a repeated column changed the fit")
	}
	if a, b, c := m.Coefficients.At(0, 0), m.Coefficients.At(1, 0), m.Coefficients.At(2, 0); math.Abs(a-10*b) > 1e-12 || math.Abs(c) > 1e-9 {
		t.Errorf("coefficients %v, %v, %v: want a, a/10, 0", a, b, c)
	}
}

// Ridge by hand: one column, z = (−1,1)·…, slope Σzy/(Σz²+λ).
func TestRidge(t *testing.T) {
	x, y := mat.NewDense(2, 1, []float64{3, 7}), mat.NewDense(2, 1, []float64{1, 5})
	got := fitted(t, learner.Spec{Name: "ridge", Lambda: new(2.0)}, x, y, nil)
	if want := []float64{2, 4}; math.Abs(got.At(0, 0)-want[0])+math.Abs(got.At(1, 0)-want[1]) > 1e-12 {
		t.Errorf("%v, want %v", got.RawMatrix().Data, want)
	}
}

func TestConstant(t *testing.T) {
	y := mat.NewDense(2, 2, []float64{1, 5, 4, 2})
	for _, c := range []struct {
		spec learner.Spec
		w    []float64
		want []float64
	}{
		{learner.Spec{Name: "constant"}, nil, []float64{2.5, 3.5}},
		{learner.Spec{Name: "constant"}, []float64{2, 1}, []float64{2, 4}},
		{learner.Spec{Name: "constant", Value: new(0.0)}, nil, []float64{0, 0}},
		{learner.Spec{Name: "linear"}, nil, []float64{2.5, 3.5}}, // no features
	} {
		m := fit(t, c.spec, new(mat.Dense), y, c.w)
		if got := predict(t, m, mat.NewDense(1, 9, nil)); !slices.Equal(got.RawRowView(0), c.want) {
			t.Errorf("%+v: %v, want %v", c.spec, got.RawRowView(0), c.want)
		}
	}
}

// The sum of linear models, and of strata of them, predicts what the sum of predictions is; other models have none.
func TestSum(t *testing.T) {
	x, y := friedman(40, 1)
	x.Set(3, 2, math.NaN())
	in := inStrata(x, func(i int) int { return i * i % 3 })
	c := []float64{0.5, -2, 3}
	for _, strata := range []bool{false, true} {
		var models []learner.Model
		at, want := x, mat.NewDense(40, 1, nil)
		for i := range c {
			spec := learner.Spec{Name: "ridge", Lambda: new(float64(i))}
			m := fit(t, spec, x, y, nil)
			if strata {
				l, err := spec.New()
				if err != nil {
					t.Fatal(err)
				}
				at = in
				if m, err = learner.FitStrata(t.Context(), l, in, y, 4, nil); err != nil { // there is nothing in two of them
					t.Fatal(err)
				}
			}
			models = append(models, m)
			var one mat.Dense
			one.Scale(c[i], predict(t, m, at))
			want.Add(want, &one)
		}
		sum, ok := learner.Sum(models, c)
		if !ok {
			t.Fatal("linear models have no sum")
		}
		if got := predict(t, sum, at); !mat.EqualApprox(got, want, 1e-10) {
			t.Errorf("strata %t: the sum of models is not the sum of predictions", strata)
		}
		if _, ok := learner.Sum(append(models[:2:2], fit(t, specOf("tree"), x, y, nil)), c); ok {
			t.Errorf("strata %t: a tree was added", strata)
		}
	}
}

// Every model of a session in one: the sum predicts what the sum of predictions is.
func TestAdd(t *testing.T) {
	x, y := friedman(30, 1)
	x.Set(3, 2, math.NaN())
	sum := fit(t, learner.Spec{Name: "linear"}, x, y, nil).(*learner.Linear)
	o := fit(t, learner.Spec{Name: "ridge", Lambda: new(5.0)}, x, y, nil).(*learner.Linear)
	var want, half mat.Dense
	half.Scale(0.5, predict(t, o, x))
	want.Add(predict(t, sum, x), &half)
	if err := sum.Add(0.5, o); err != nil {
		t.Fatal(err)
	}
	if !mat.EqualApprox(predict(t, sum, x), &want, 1e-10) {
		t.Error("the sum of models is not the sum of predictions")
	}
	other := fit(t, learner.Spec{Name: "linear"}, mat.DenseCopyOf(x.Slice(0, 9, 0, 5)), mat.DenseCopyOf(y.Slice(0, 9, 0, 1)), nil).(*learner.Linear)
	if err := sum.Add(1, other); err == nil {
		t.Error("models that fill in different values were added")
	}
}
