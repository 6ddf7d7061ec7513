package learner_test

import (
	"context"
	"math"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"gonum.org/v1/gonum/mat"
	"pgregory.net/rapid"
)

func glm(t fataler, spec learner.Spec, x, y, o *mat.Dense, family string) learner.Model {
	t.Helper()
	l, err := spec.New()
	if err != nil {
		t.Fatal(err)
	}
	m, err := l.(learner.Generalised).FitGLM(context.Background(), x, y, o, family)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func column(v ...float64) *mat.Dense { return mat.NewDense(len(v), 1, v) }

// The example of Dobson (An Introduction to Generalized Linear Models, 1990, page 93) that R's manual of glm has: counts of a randomised trial
// by outcome and treatment.
func TestDobson(t *testing.T) {
	x := mat.NewDense(9, 4, nil)
	for i := range 9 {
		if i%3 > 0 {
			x.Set(i, i%3-1, 1)
		}
		if i/3 > 0 {
			x.Set(i, 1+i/3, 1)
		}
	}
	y := column(18, 17, 15, 20, 10, 20, 25, 13, 12)
	m := glm(t, learner.Spec{Name: "linear"}, x, y, mat.NewDense(9, 1, nil), "poisson").(*learner.Linear)
	intercept := predict(t, m, mat.NewDense(1, 4, nil)).At(0, 0)
	got := append([]float64{intercept}, m.Coefficients.RawMatrix().Data...)
	if diff := cmp.Diff([]float64{3.044522, -0.4542553, -0.2929871, 0, 0}, got, cmpopts.EquateApprox(0, 1e-6)); diff != "" {
		t.Error("coefficients:", diff)
	}
	deviance := 0.0
	eta := predict(t, m, x)
	for i := range 9 {
		mu := math.Exp(eta.At(i, 0))
		deviance += 2 * (y.At(i, 0)*math.Log(y.At(i, 0)/mu) - y.At(i, 0) + mu)
	}
	if math.Abs(deviance-5.129141) > 1e-6 {
		t.Errorf("the deviance is %.7g, want 5.129141", deviance)
	}
}

// labels draws labels of a family.
func labels(family string, eta []float64, draw func() float64) *mat.Dense {
	y := mat.NewDense(len(eta), 1, nil)
	for i, v := range eta {
		switch u := draw(); family {
		case "logistic":
			if u < 1/(1+math.Exp(-v)) {
				y.Set(i, 0, 1)
			}
		case "poisson":
			p := math.Exp(-math.Exp(v))
			for k, sum := 0., p; sum < u && k < 100; sum += p {
				k++
				p *= math.Exp(v) / k
				y.Set(i, 0, k)
			}
		default:
			y.Set(i, 0, v+2*u-1)
		}
	}
	return y
}

// TestScore checks on random problems, with offsets and missing values, that the score is 0 at the optimum: Σ (∂d/∂η) z = 0 for every column and for
// the intercept.
func TestScore(t *testing.T) {
	slope := map[string]func(y, eta float64) float64{
		"squared":  func(y, eta float64) float64 { return eta - y },
		"logistic": func(y, eta float64) float64 { return 1/(1+math.Exp(-eta)) - y },
		"poisson":  func(y, eta float64) float64 { return math.Exp(eta) - y },
		"log-cosh": func(y, eta float64) float64 { return -math.Tanh(y - eta) },
	}
	rapid.Check(t, func(rt *rapid.T) {
		family := rapid.SampledFrom(learner.Families()).Draw(rt, "family")
		seed := rapid.Uint64().Draw(rt, "seed")
		x, u := friedman(60, seed)
		o := mat.NewDense(60, 1, nil)
		o.Apply(func(i, _ int, _ float64) float64 { return math.Sin(float64(i)) / 2 }, o)
		eta := make([]float64, 60)
		for i := range eta {
			eta[i] = o.At(i, 0) + x.At(i, 0) - x.At(i, 1)
		}
		at := -1
		y := labels(family, eta, func() float64 { at++; return math.Mod(math.Abs(u.At(at, 0))*977, 1) })
		x.Set(3, 1, math.NaN())
		m := glm(t, learner.Spec{Name: "linear"}, x, y, o, family)
		part := predict(t, m, x)
		mean := 0.0
		for i := range 60 {
			if i != 3 {
				mean += x.At(i, 1) / 59
			}
		}
		x.Set(3, 1, mean)
		for j := -1; j < 5; j++ {
			score := 0.0
			for i := range 60 {
				z := 1.0
				if j >= 0 {
					z = x.At(i, j)
				}
				score += slope[family](y.At(i, 0), o.At(i, 0)+part.At(i, 0)) * z
			}
			if math.Abs(score) > 1e-5 {
				rt.Errorf("%s: the score of column %d is %g", family, j, score)
			}
		}
	})
}

// TestGLMSquared checks that of the normal family it is least squares of what the offset leaves, with a penalty and without an intercept, too.
func TestGLMSquared(t *testing.T) {
	x, y := friedman(30, 1)
	o := mat.DenseCopyOf(y)
	o.Apply(func(i, _ int, v float64) float64 { return math.Cos(v) }, o)
	var left mat.Dense
	left.Sub(y, o)
	for _, spec := range []learner.Spec{{Name: "linear"}, {Name: "ridge"}, {Name: "linear", NoIntercept: true}} {
		got, want := predict(t, glm(t, spec, x, y, o, "squared"), x), predict(t, fit(t, spec, x, &left, nil), x)
		if !mat.EqualApprox(got, want, 1e-9) {
			t.Errorf("%+v: it is not least squares", spec)
		}
	}
}

// TestSeparable checks that the fit ends where likelihood has no maximum, and that a penalty gives it one.
func TestSeparable(t *testing.T) {
	x, y, o := column(-2, -1, 1, 2), column(0, 0, 1, 1), column(0, 0, 0, 0)
	for spec, most := range map[string]float64{"linear": 1e6, "ridge": 10} {
		got := predict(t, glm(t, learner.Spec{Name: spec}, x, y, o, "logistic"), x)
		if v := got.At(3, 0); !(v > 1 && v < most) || got.At(0, 0) > -1 {
			t.Errorf("%s: predictors %v", spec, got.RawMatrix().Data)
		}
	}
}

// TestGLMErrors checks what is said of labels and offsets that cannot be.
func TestGLMErrors(t *testing.T) {
	l, err := learner.Spec{Name: "linear"}.New()
	if err != nil {
		t.Fatal(err)
	}
	g := l.(learner.Generalised)
	x, o := column(1, 2, 3), column(0, 0, 0)
	for want, c := range map[string]struct {
		y, o   *mat.Dense
		family string
	}{
		"expected one of log-cosh, logistic, poisson, squared": {column(1, 2, 3), o, "gamma"},
		"counts: 0, 1, 2":      {column(1, 2.5, 3), o, "poisson"},
		"0 or 1":               {column(1, 2, 0), o, "logistic"},
		"these have 1 columns": {column(1, 2, 3), column(1, 2), "squared"},
	} {
		if _, err := g.FitGLM(t.Context(), x, c.y, c.o, c.family); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
}
