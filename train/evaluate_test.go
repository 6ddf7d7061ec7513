package train_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/gomlx/core/graph"
)

// TestEvaluate compares with the same figures computed in plain Go, for batch sizes that do and do not divide the rows.
func TestEvaluate(t *testing.T) {
	engines(t, func(t *testing.T, e *train.Engine) {
		m := linear(5, 3)
		spec := &train.Spec{Model: m, DType: weights.Float64, Mask: train.ZeroMask}
		w := m.Initial(weights.Float64, rng.New(3, 0, "", "w"))
		data := blobs(37, 5, 3, 2)
		x, y := data.Data.F32, data.Data.Labels
		for _, mask := range [][]float32{nil, {1, 0, 1}} {
			var loss float64
			var logits []float64
			correct := 0
			confusion := [][]int{{0, 0, 0}, {0, 0, 0}, {0, 0, 0}}
			for i := range 37 {
				z := make([]float64, 3)
				best, sum := 0, 0.0
				for c := range z {
					z[c] = w.Must("bias").At(c)
					for j := range 5 {
						z[c] += w.Must("weight").At(c*5+j) * float64(x[i*5+j])
					}
					if mask != nil && mask[c] == 0 {
						z[c] = 0
					}
					sum += math.Exp(z[c])
					if z[c] > z[best] {
						best = c
					}
				}
				logits = append(logits, z...)
				loss += math.Log(sum) - z[y[i]]
				confusion[y[i]][best]++
				if best == int(y[i]) {
					correct++
				}
			}
			for _, batch := range []int{0, 1, 10, 37, 50} {
				o := train.EvalOptions{Batch: batch, LabelMask: mask, Confusion: true}
				got := must[train.Metrics](t)(e.Evaluate(t.Context(), spec, w, weights.Set{}, data, o))
				near(t, "loss", []float64{got.Loss, got.Perplexity}, []float64{loss / 37, math.Exp(loss / 37)}, 1e-12)
				if got.N != 37 || got.Correct != correct || got.Accuracy != float64(correct)/37 ||
					!slices.EqualFunc(got.Confusion, confusion, slices.Equal[[]int]) {
					t.Errorf("batch %d: %+v, want %d correct and %v", batch, got, correct, confusion)
				}
				z := must[weights.Tensor](t)(e.Predict(t.Context(), spec, w, weights.Set{}, data, o))
				if !slices.Equal(z.Shape, []int{37, 3}) {
					t.Errorf("outputs of shape %v", z.Shape)
				}
				near(t, "outputs", values(z), logits, 1e-12)
			}
		}
	})
}

func TestClasses(t *testing.T) {
	m := train.Metrics{Confusion: [][]int{{3, 1, 0}, {2, 4, 0}, {0, 0, 0}}}
	got := m.Classes()
	want := []train.Class{
		{N: 4, Predicted: 5, Correct: 3, Recall: 0.75, Precision: 0.6, F1: 6.0 / 9},
		{N: 6, Predicted: 5, Correct: 4, Recall: 4.0 / 6, Precision: 0.8, F1: 8.0 / 11},
	}
	if !slices.Equal(got[:2], want) || got[2].N != 0 || !math.IsNaN(got[2].Recall) || !math.IsNaN(got[2].F1) {
		t.Errorf("%+v, want %+v and a class without examples", got, want)
	}
	if (train.Metrics{}).Classes() != nil {
		t.Error("classes without a confusion matrix")
	}
}

func TestRegressionMetrics(t *testing.T) {
	engines(t, func(t *testing.T, e *train.Engine) {
		m := linear(2, 1)
		w := m.Zeros(weights.Float64)
		w.Must("weight").SetAt(0, 1)
		w.Must("bias").SetAt(0, 0.5)
		data := numbers(0)
		data.Data.Shape, data.Data.F32, data.Data.Targets = []int{2}, []float32{1, 9, 2, 9, 4, 9}, []float32{1, 3, 5}
		v := data.Data.All()
		spec := &train.Spec{Model: m, DType: weights.Float64, Loss: train.MeanSquares}
		// Outputs are 1.5, 2.5 and 4.5, targets 1, 3 and 5: every error is a half, and Σ(y − 3)² is 8.
		got := must[train.Metrics](t)(e.Evaluate(t.Context(), spec, w, weights.Set{}, v, train.EvalOptions{Batch: 2}))
		near(t, "N, loss, MSE, MAE, R2", []float64{float64(got.N), got.Loss, got.MSE, got.MAE, got.R2},
			[]float64{3, 0.25, 0.25, 0.5, 1 - 0.75/8}, 1e-12)
	})
}

func TestEvaluateRefused(t *testing.T) {
	e := goEngine(t)
	m := linear(5, 3)
	w := m.Zeros(weights.Float32)
	data := blobs(4, 5, 3, 2)
	normed := *m
	normed.Norms = []nn.Norm{{Name: "n", Dim: nn.Dim{Name: "n", Size: 3}}}
	scalar := func(z, _ *graph.Node) *graph.Node { return graph.ReduceAllMean(z) }
	for want, c := range map[string]struct {
		spec *train.Spec
		o    train.EvalOptions
	}{
		"does not say how":       {&train.Spec{Model: m}, train.EvalOptions{LabelMask: []float32{1, 1, 1}}},
		"batches of -1":          {&train.Spec{Model: m}, train.EvalOptions{Batch: -1}},
		"1 numbers for 3":        {&train.Spec{Model: m, Mask: train.InfMask}, train.EvalOptions{LabelMask: []float32{1}}},
		"evaluation statistics":  {&train.Spec{Model: &normed}, train.EvalOptions{}},
		"one number an example":  {&train.Spec{Model: m, Custom: scalar}, train.EvalOptions{}},
		"evaluating linear: its": {&train.Spec{Model: m, Custom: scalar}, train.EvalOptions{}},
	} {
		if _, err := e.Evaluate(t.Context(), c.spec, w, weights.Set{}, data, c.o); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want an error with %q", err, want)
		}
	}
}

// centred is one static batch norm layer on numbers, without γ and β; its output is squared so that it depends on w.
func centred() *nn.Model {
	m := linear(1, 1)
	m.Norms = []nn.Norm{{Name: "norm", Dim: nn.Dim{Name: "c", Size: 1}}}
	m.MinBatch = 2
	m.Forward = func(p *nn.Pass, x *graph.Node) *graph.Node {
		mean, variance := p.Stats["norm.running_mean"], p.Stats["norm.running_var"]
		if p.Stats == nil {
			n := float64(x.Shape().Dimensions[0])
			mean = graph.ReduceMean(x, 0)
			d := graph.Sub(x, graph.ExpandLeftToRank(mean, 2))
			variance = graph.DivScalar(graph.ReduceSum(graph.Mul(d, d), 0), n-1)
			p.Batch = append(p.Batch, nn.BatchStat{Name: "norm", Mean: mean, Var: variance})
		}
		z := graph.Div(graph.Sub(x, graph.ExpandLeftToRank(mean, 2)), graph.ExpandLeftToRank(graph.Sqrt(variance), 2))
		return graph.Mul(z, p.Params["weight"])
	}
	return m
}

// TestStatistics holds the reference value of static batch norm: batches (1, 2, 3, 4) and (10, 20) give mean 8.75 and
// variance 25.8333 (pooled they would give 6.6667 and 52.6667), over one client or over two.
func TestStatistics(t *testing.T) {
	engines(t, func(t *testing.T, e *train.Engine) {
		m := centred()
		spec := &train.Spec{Model: m, DType: weights.Float64, Loss: train.MeanSquares, Scale: 0.5}
		w := m.Zeros(weights.Float64)
		w.Must("weight").SetAt(0, 1)
		data := numbers(0)
		data.Data.F32 = []float32{1, 2, 3, 4, 10, 20}
		all := data.Data.All()
		first, second := all, all
		first.Rows, second.Rows = all.Rows[:4], all.Rows[4:]

		whole := must[train.Statistics](t)(e.Statistics(t.Context(), spec, w, all, train.Pass{Batch: 4}))
		var parts train.Statistics
		parts.Add(must[train.Statistics](t)(e.Statistics(t.Context(), spec, w, first, train.Pass{})))
		parts.Add(must[train.Statistics](t)(e.Statistics(t.Context(), spec, w, second, train.Pass{})))
		for _, s := range []train.Statistics{whole, parts} {
			mean := s.Mean()
			near(t, "mean and variance", append(values(mean.Must("norm.running_mean")), values(mean.Must("norm.running_var"))...),
				[]float64{8.75, 25.833333333333332}, 1e-12)
			if s.Batches != 2 {
				t.Errorf("%d batches, want 2", s.Batches)
			}
		}
		z := must[weights.Tensor](t)(e.Predict(t.Context(), spec, w, whole.Mean(), first, train.EvalOptions{}))
		near(t, "normalised", values(z), []float64{-7.75 / math.Sqrt(155.0/6), -6.75 / math.Sqrt(155.0/6), -5.75 / math.Sqrt(155.0/6), -4.75 / math.Sqrt(155.0/6)}, 1e-12)

		if _, err := e.Statistics(t.Context(), spec, w, all, train.Pass{Batch: 5}); err == nil || !strings.Contains(err.Error(), "batch of 1") {
			t.Errorf("statistics with a last batch of 1: %v", err)
		}
		s := must[train.Statistics](t)(e.Statistics(t.Context(), spec, w, all, train.Pass{Batch: 5, SkipSmall: true}))
		if s.Batches != 1 {
			t.Errorf("%d batches, want the small one skipped", s.Batches)
		}
		if _, err := e.Statistics(t.Context(), &train.Spec{Model: linear(1, 1)}, linear(1, 1).Zeros(weights.Float32), all, train.Pass{}); err == nil {
			t.Error("statistics of a model without static batch norm")
		}
	})
}

// TestGradientAverages: the gradient over batches is the gradient of the whole, and equals a finite difference.
func TestGradientAverages(t *testing.T) {
	engines(t, func(t *testing.T, e *train.Engine) {
		m := linear(5, 3)
		spec := &train.Spec{Model: m, DType: weights.Float64}
		w := m.Initial(weights.Float64, rng.New(3, 0, "", "w"))
		data := blobs(23, 5, 3, 4)
		gradient := func(w weights.Set, p train.Pass) (float64, weights.Set) {
			s := must[*train.Session](t)(e.Begin(spec, w, train.Options{}))
			defer s.Close()
			loss, g, err := s.Gradient(t.Context(), data, p)
			if err != nil {
				t.Fatal(err)
			}
			return loss, g
		}
		loss, whole := gradient(w, train.Pass{})
		partLoss, parts := gradient(w, train.Pass{Batch: 7, Random: rng.New(1, 0, "", "order")})
		near(t, "loss", []float64{partLoss}, []float64{loss}, 1e-13)
		near(t, "gradient", values(parts.Must("weight")), values(whole.Must("weight")), 1e-13)
		const h = 1e-6
		for _, i := range []int{0, 7, 14} {
			up, down := w.Clone(), w.Clone()
			up.Must("weight").SetAt(i, w.Must("weight").At(i)+h)
			down.Must("weight").SetAt(i, w.Must("weight").At(i)-h)
			high, _ := gradient(up, train.Pass{})
			low, _ := gradient(down, train.Pass{})
			near(t, "slope", []float64{whole.Must("weight").At(i)}, []float64{(high - low) / (2 * h)}, 1e-8)
		}
	})
}
