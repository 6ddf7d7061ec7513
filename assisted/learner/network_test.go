package learner_test

import (
	"context"
	"errors"
	"math"
	"sync"
	"testing"

	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// A network is better than a line where the truth is none, whatever the unit of the targets.
func TestMLP(t *testing.T) {
	x, y := weyl(500, 0)
	tx, ty := weyl(500, 5000)
	line := rmse(predict(t, fit(t, learner.Spec{Name: "linear"}, x, y, nil), tx), ty)
	var large mat.Dense
	large.Scale(1e4, y)
	got := rmse(predict(t, fit(t, learner.Spec{Name: "mlp", Epochs: 60}, x, y, nil), tx), ty)
	if got > line/1.5 {
		t.Errorf("test error %.3f, of a line %.3f", got, line)
	}
	var want mat.Dense
	want.Scale(1e4, predict(t, fit(t, learner.Spec{Name: "mlp", Epochs: 3}, x, y, nil), tx))
	if again := predict(t, fit(t, learner.Spec{Name: "mlp", Epochs: 3}, x, &large, nil), tx); !mat.EqualApprox(again, &want, 1e-3) {
		t.Error("predictions depend on the unit of the targets")
	}
}

// stripes are 6×6 images, with vertical stripes of an unknown phase (target 1) or horizontal ones (target −1), and noise.
func stripes(n int) (x, y *mat.Dense, labels []int) {
	r := rng.New(1, 0, "", "stripes")
	x, y, labels = mat.NewDense(n, 36, nil), mat.NewDense(n, 1, nil), make([]int, n)
	for i := range n {
		labels[i] = i % 2
		y.Set(i, 0, float64(1-2*labels[i]))
		phase := r.IntN(2)
		for at := range 36 {
			along := []int{at % 6, at / 6}[labels[i]]
			x.Set(i, at, float64((along+phase)%2)+0.3*r.NormFloat64())
		}
	}
	return x, y, labels
}

func right(scores *mat.Dense, labels []int) float64 {
	count := 0.0
	for i, l := range labels {
		row := scores.RawRowView(i)
		if len(row) == 1 && (row[0] < 0) == (l == 1) || len(row) == 2 && (row[1] > row[0]) == (l == 1) {
			count++
		}
	}
	return count / float64(len(labels))
}

// No single pixel tells: a convolution sees it, numbers or classes.
func TestCNN(t *testing.T) {
	x, y, labels := stripes(240)
	part := func(m *mat.Dense, from, to int) *mat.Dense {
		_, d := m.Dims()
		return mat.DenseCopyOf(m.Slice(from, to, 0, d))
	}
	s := learner.Spec{Name: "cnn", Shape: []int{6, 6, 1}, Hidden: []int{4, 8}, Batch: 16, Epochs: 8, Rate: new(0.05)}
	test := part(x, 160, 240)
	if got := right(predict(t, fit(t, s, part(x, 0, 160), part(y, 0, 160), nil), test), labels[160:]); got < .95 {
		t.Errorf("numbers: %.3f are right", got)
	}
	if got := right(predict(t, classify(t, s, part(x, 0, 160), labels[:160], 2, nil), test), labels[160:]); got < .95 {
		t.Errorf("classes: %.3f are right", got)
	}
}

// Whether the first step of four was positive: the state must remember it. Steps that are missing are not there.
func TestLSTM(t *testing.T) {
	r := rng.New(1, 0, "", "sequences")
	x, y, labels := mat.NewDense(300, 8, nil), mat.NewDense(300, 1, nil), make([]int, 300)
	for i := range 300 {
		for j := range 8 {
			x.Set(i, j, r.NormFloat64())
		}
		if x.At(i, 0) < 0 {
			labels[i] = 1
		}
		y.Set(i, 0, float64(1-2*labels[i]))
	}
	s := learner.Spec{Name: "lstm", Shape: []int{4, 2}, Hidden: []int{8}, Epochs: 25, Rate: new(0.02)}
	m := fit(t, s, x, y, nil)
	if got := right(predict(t, m, x), labels); got < .9 {
		t.Errorf("%.3f are right", got)
	}
	nan := math.NaN()
	gaps := predict(t, m, mat.NewDense(3, 8, []float64{
		nan, nan, 1, 2, nan, nan, 3, 4,
		1, 2, 3, 4, nan, nan, nan, nan,
		nan, nan, nan, nan, nan, nan, nan, nan,
	}))
	if math.IsNaN(gaps.At(2, 0)) {
		t.Error("a sequence without a step")
	}
	if a, b := gaps.At(0, 0), gaps.At(1, 0); math.Abs(a-b) > 1e-6 {
		t.Errorf("the same two steps with gaps: %v and %v", a, b)
	}
}

func TestNetworkShape(t *testing.T) {
	x, y := friedman(5, 1)
	l, err := learner.Spec{Name: "lstm", Shape: []int{3, 2}}.New()
	if err != nil {
		t.Fatal(err)
	}
	var shape *learner.ShapeError
	if _, err := l.Fit(context.Background(), x, y, nil, rng.New(1, 0, "", "fit")); !errors.As(err, &shape) {
		t.Errorf("five columns for 3×2: %v", err)
	}
	flat := mat.NewDense(5, 1, []float64{2, 2, 2, 2, 2})
	if got := fitted(t, learner.Spec{Name: "mlp"}, x, flat, nil); !mat.Equal(got, flat) {
		t.Errorf("targets that are all 2: %v", got.RawMatrix().Data)
	}
}

// Answers in every step: what is asked for is the sum of the numbers so far, which the last state alone could not tell of earlier steps.
func TestEachStep(t *testing.T) {
	r := rng.New(1, 0, "", "sums")
	x, y := mat.NewDense(300, 4, nil), mat.NewDense(300, 4, nil)
	for i := range 300 {
		sum := 0.0
		for j := range 4 {
			x.Set(i, j, r.NormFloat64())
			sum += x.At(i, j)
			y.Set(i, j, sum)
		}
	}
	s := learner.Spec{Name: "lstm", Shape: []int{4, 1}, Hidden: []int{12}, Epochs: 20, Rate: new(0.01), EachStep: true, Dropout: new(0.05)}
	if got := rmse(predict(t, fit(t, s, x, y, nil), x), y); got > .6 {
		t.Errorf("error %.3f where targets have deviation 1.6", got)
	}
	l, err := s.New()
	if err != nil {
		t.Fatal(err)
	}
	var shape *learner.ShapeError
	if _, err := l.Fit(context.Background(), x, mat.DenseCopyOf(y.Slice(0, 300, 0, 3)), nil, rng.New(1, 0, "", "fit")); !errors.As(err, &shape) {
		t.Errorf("three outputs for four steps: %v", err)
	}
}

// Codes are no quantities: what matters is whether one is odd. Missing and unknown ones are taken.
func TestCodes(t *testing.T) {
	x, y, labels := mat.NewDense(240, 4, nil), mat.NewDense(240, 1, nil), make([]int, 240)
	r := rng.New(1, 0, "", "codes")
	for i := range 240 {
		code := r.IntN(8)
		x.SetRow(i, []float64{r.NormFloat64(), float64(r.IntN(8)), r.NormFloat64(), float64(code)})
		labels[i] = code % 2
		y.Set(i, 0, float64(1-2*labels[i]))
	}
	s := learner.Spec{Name: "lstm", Shape: []int{2, 2}, Hidden: []int{8}, Codes: 8, Embedding: 4, Epochs: 25, Rate: new(0.02)}
	m := fit(t, s, x, y, nil)
	if got := right(predict(t, m, x), labels); got < .95 {
		t.Errorf("%.3f are right", got)
	}
	v := predict(t, m, mat.NewDense(3, 4, []float64{0, 1, 0, 99, 0, 1, 0, math.NaN(), 0, 1, 0, -5}))
	if v.At(0, 0) != v.At(1, 0) || v.At(0, 0) != v.At(2, 0) {
		t.Errorf("codes that are none predict differently: %v", v.RawMatrix().Data)
	}
}

// Without features that tell anything, a network predicts the constant that its exponent asks for.
func TestPower(t *testing.T) {
	n := 64
	x, y := mat.NewDense(n, 1, nil), mat.NewDense(n, 1, nil)
	for i := range n {
		y.Set(i, 0, float64(i%2))
	}
	y.Set(0, 0, 20)
	for _, q := range []float64{1, 1.5, 2, 3, 4} {
		s := learner.Spec{Name: "mlp", Hidden: []int{4}, Power: &q, Rate: new(0.01), Batch: n, Epochs: 600}
		got := predict(t, fit(t, s, x, y, nil), x).At(0, 0)
		// The constant with the least Σ|y − c|^q, by golden section.
		lo, hi := 0.0, 20.0
		cost := func(c float64) (sum float64) {
			for i := range n {
				sum += math.Pow(math.Abs(y.At(i, 0)-c), q)
			}
			return sum
		}
		for range 100 {
			if a, b := lo+(hi-lo)*.382, lo+(hi-lo)*.618; cost(a) < cost(b) {
				hi = b
			} else {
				lo = a
			}
		}
		if math.Abs(got-lo) > .15*math.Max(1, lo) {
			t.Errorf("exponent %v: predicts %v, the best constant is %v", q, got, lo)
		}
	}
}

// Weight 0 leaves a row out, and what stands there does not matter.
func TestNetworkWeights(t *testing.T) {
	x, y, _ := stripes(60)
	w := make([]float64, 60)
	for i := range w {
		w[i] = float64(i%3) / 2
	}
	for _, s := range []learner.Spec{
		{Name: "mlp", Epochs: 3},
		{Name: "cnn", Shape: []int{6, 6, 1}, Hidden: []int{4, 8}, Batch: 16, Epochs: 2},
		{Name: "lstm", Shape: []int{6, 6}, Hidden: []int{5}, Epochs: 2},
	} {
		want := fit(t, s, x, y, w)
		cx, cy := mat.DenseCopyOf(x), mat.DenseCopyOf(y)
		for i := 0; i < 60; i += 3 {
			cx.Set(i, 3, 1e6)
			cy.Set(i, 0, -1e6)
		}
		if got := fit(t, s, cx, cy, w); !mat.Equal(predict(t, got, x), predict(t, want, x)) {
			t.Errorf("%s: rows of weight 0 change the fit", s.Name)
		}
		if even := fit(t, s, x, y, nil); mat.Equal(predict(t, even, x), predict(t, want, x)) {
			t.Errorf("%s: weights change nothing", s.Name)
		}
	}
}

// A model answers many at once, decoded or not.
func TestNetworkConcurrently(t *testing.T) {
	x, y, _ := stripes(40)
	m := fit(t, learner.Spec{Name: "cnn", Shape: []int{6, 6, 1}, Hidden: []int{4, 8}, Batch: 16, Epochs: 1}, x, y, nil)
	want := predict(t, m, x)
	back, _ := kept(t, m)
	var wait sync.WaitGroup
	for range 8 {
		wait.Go(func() {
			if got, err := back.Predict(x); err != nil || !mat.Equal(got, want) {
				t.Errorf("other predictions (%v)", err)
			}
		})
	}
	wait.Wait()
}
