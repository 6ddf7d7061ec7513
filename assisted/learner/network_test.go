package learner_test

import (
	"bytes"
	"context"
	"errors"
	"math"
	"runtime"
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
	// The scales of the steps differ a little, so that the two predictions are close and not equal.
	if a, b := gaps.At(0, 0), gaps.At(1, 0); math.Abs(a-b) > .2 {
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

func TestNetworkThreads(t *testing.T) {
	x, y, _ := stripes(150)
	for _, s := range []learner.Spec{
		{Name: "mlp", Epochs: 3, Hidden: []int{80, 70}, Batch: 150},
		{Name: "cnn", Shape: []int{6, 6, 1}, Hidden: []int{4, 8}, Batch: 64, Epochs: 2},
		{Name: "lstm", Shape: []int{6, 6}, Hidden: []int{20}, Batch: 64, Epochs: 2},
	} {
		var want []byte
		for _, threads := range []int{1, 5} {
			before := runtime.GOMAXPROCS(threads)
			got := bits(fitted(t, s, x, y, nil))
			runtime.GOMAXPROCS(before)
			if want == nil {
				want = got
			}
			if !bytes.Equal(got, want) {
				t.Errorf("%s: %d threads give other bits", s.Name, threads)
			}
		}
	}
}
