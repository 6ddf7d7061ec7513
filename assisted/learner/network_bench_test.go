package learner_test

import (
	"context"
	"testing"

	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

func benchmarkNetwork(b *testing.B, s learner.Spec, n, d, k int) {
	r := rng.New(1, 0, "", "bench")
	x, y := mat.NewDense(n, d, nil), mat.NewDense(n, k, nil)
	for i := range n {
		for j := range d {
			x.Set(i, j, r.NormFloat64())
		}
		for j := range k {
			y.Set(i, j, r.NormFloat64())
		}
	}
	l, err := s.New()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		m, err := l.Fit(context.Background(), x, y, nil, rng.New(1, 0, "", "fit"))
		if err != nil {
			b.Fatal(err)
		}
		if _, err := m.Predict(x); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMLP(b *testing.B) { benchmarkNetwork(b, learner.Spec{Name: "mlp"}, 400, 10, 1) }

func BenchmarkCNN(b *testing.B) {
	benchmarkNetwork(b, learner.Spec{Name: "cnn", Shape: []int{14, 7, 1}, Hidden: []int{16, 32, 64}, Epochs: 3}, 4096, 98, 10)
}

func BenchmarkLSTM(b *testing.B) {
	benchmarkNetwork(b, learner.Spec{Name: "lstm", Shape: []int{12, 8}, Hidden: []int{32}, Epochs: 1}, 400, 96, 1)
}
