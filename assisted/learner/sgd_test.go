package learner_test

import (
	"context"
	"math"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// Without weight decay and with time, squared error ends at least squares, and absolute error at the line through those of
// five points that an outlier does not move.
func TestDescentReachesItsOptimum(t *testing.T) {
	x := mat.NewDense(5, 1, []float64{-2, -1, 0, 1, 2})
	y := mat.NewDense(5, 1, []float64{-.2, -.1, 0, .1, 3})
	spec := learner.Spec{Name: "linear-sgd", Decay: new(0.0), Epochs: 400}
	if got, want := fitted(t, spec, x, y, nil), fitted(t, learner.Spec{Name: "linear"}, x, y, nil); !mat.EqualApprox(got, want, 1e-6) {
		t.Errorf("squares: %v, want %v", got.RawMatrix().Data, want.RawMatrix().Data)
	}
	spec.Power, spec.Rate, spec.Epochs = new(1.0), new(0.01), 4000
	if got := fitted(t, spec, x, y, nil); math.Abs(got.At(0, 0)+.2) > .01 || math.Abs(got.At(4, 0)-.2) > .01 {
		t.Errorf("absolute error: ends %v and %v, want -0.2 and 0.2", got.At(0, 0), got.At(4, 0))
	}
}

// One step by hand: full batch, one row a class. z = ±1, so with start β, b the error of row i is e_i = b + z_i β − y_i and
// the gradient (q/2)Σ|e_i|^{q−1} sign(e_i)(z_i, 1), before clipping.
func TestOneStep(t *testing.T) {
	x, y := mat.NewDense(2, 1, []float64{1, 3}), mat.NewDense(2, 1, []float64{-.1, .2})
	for _, q := range []float64{1, 1.5, 2, 3, 4} {
		r := rng.New(1, 0, "org", "fit")
		beta, b := r.Uniform(-1, 1), r.Uniform(-1, 1)
		var gb, g0 float64
		for i, z := range []float64{-1, 1} {
			e := b + z*beta - y.At(i, 0)
			s := q / 2 * math.Copysign(math.Pow(math.Abs(e), q-1), e)
			gb, g0 = gb+z*s, g0+s
		}
		clip := math.Min(1, 1/(math.Hypot(gb, g0)+1e-6))
		beta, b = beta-.1*(clip*gb+5e-4*beta), b-.1*(clip*g0+5e-4*b)
		got := fitted(t, learner.Spec{Name: "linear-sgd", Power: &q, Epochs: 1}, x, y, nil)
		if want := mat.NewDense(2, 1, []float64{b - beta, b + beta}); !mat.EqualApprox(got, want, 1e-12) {
			t.Errorf("q = %v: %v, want %v", q, got.RawMatrix().Data, want.RawMatrix().Data)
		}
	}
}

func TestDescentDiverges(t *testing.T) {
	x, y := friedman(20, 1)
	l, err := learner.Spec{Name: "linear-sgd", Rate: new(1e200), Epochs: 9}.New()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.Fit(context.Background(), x, y, nil, rng.New(1, 0, "", "fit")); err == nil || !strings.Contains(err.Error(), "smaller rate") {
		t.Errorf("steps of 1e200: %v", err)
	}
}

func classify(t fataler, s learner.Spec, x *mat.Dense, labels []int, k int, w []float64) learner.Model {
	t.Helper()
	l, err := s.New()
	if err != nil {
		t.Fatal(err)
	}
	m, err := l.(learner.Classifier).FitClasses(context.Background(), x, labels, k, w, rng.New(1, 0, "org", "fit"))
	if err != nil {
		t.Fatal(s.Name, err)
	}
	return m
}

func TestLogistic(t *testing.T) {
	l, err := learner.Spec{Name: "logistic"}.New()
	if err != nil {
		t.Fatal(err)
	}
	x, y := friedman(9, 1)
	if _, err := l.Fit(context.Background(), x, y, nil, nil); err == nil || !strings.Contains(err.Error(), "choose linear, ridge") {
		t.Errorf("targets that are numbers: %v", err)
	}

	// Without features: the log of the weighted class frequencies, up to a constant.
	m := classify(t, learner.Spec{Name: "logistic"}, new(mat.Dense), []int{0, 1, 1, 1}, 2, []float64{2, 1, 1, 4})
	s := predict(t, m, mat.NewDense(1, 1, nil))
	if got := s.At(0, 1) - s.At(0, 0); math.Abs(got-math.Log(3)) > 1e-6 {
		t.Errorf("log odds %v, want log 3", got)
	}

	// Two rows z = ±1 of either class: β = (−a, a) with 2·w·p = λa, p = 1/(1+exp 2a); for λ = 1, 2/(1+exp 2a) = a.
	m = classify(t, learner.Spec{Name: "logistic"}, mat.NewDense(2, 1, []float64{10, 30}), []int{0, 1}, 2, nil)
	a := predict(t, m, mat.NewDense(1, 1, []float64{30})).At(0, 1)
	if math.Abs(2/(1+math.Exp(2*a))-a) > 1e-6 {
		t.Errorf("a = %v does not solve 2/(1+exp 2a) = a", a)
	}
}

func BenchmarkDescent(b *testing.B) {
	r := rng.New(1, 0, "", "digits")
	x, y := mat.NewDense(1437, 8, nil), mat.NewDense(1437, 10, nil)
	for i := range 1437 {
		for j := range 8 {
			x.Set(i, j, r.NormFloat64())
		}
		y.Set(i, r.IntN(10), 1)
	}
	for b.Loop() {
		fit(b, learner.Spec{Name: "linear-sgd"}, x, y, nil)
	}
}
