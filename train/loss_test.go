package train_test

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/gomlx/core/graph"
	"pgregory.net/rapid"
)

// outputs is a model whose parameter is its output: what the loss does to it shows in its gradient.
func outputs(dims ...int) *nn.Model {
	p := nn.Param{Name: "z"}
	for _, d := range dims {
		p.Dims = append(p.Dims, nn.Dim{Name: "z", Size: d})
	}
	return &nn.Model{Name: "outputs", Rate: 1, Input: []int{1}, Classes: dims[len(dims)-1], Params: []nn.Param{p},
		Forward: func(p *nn.Pass, _ *graph.Node) *graph.Node { return p.Params["z"] }}
}

// TestMaskedCrossEntropy holds the reference values of HeteroFL's masked loss, here from PyTorch 2.15.0 in float64:
// masked_fill of the absent classes 0 and 2 with 0 and −∞, and no mask.
func TestMaskedCrossEntropy(t *testing.T) {
	z := weights.NewSet(1)
	z.Put("z", weights.Of64([]float64{2, -1, 0.5, 1, 0.3, 0.2, -0.7, 1.5}, 2, 4))
	for _, c := range []struct {
		mask train.Mask
		loss float64
		grad []float64
	}{
		{train.ZeroMask, 1.234072579735, []float64{0, 0.036164744064, 0, -0.232776677306, 0, -0.420719966388, 0, 0.290901963141}},
		{train.InfMask, 0.833968232438, []float64{0, 0.059601461011, 0, -0.059601461011, 0, -0.392917491521, 0, 0.392917491521}},
		{train.NoMask, 1.658333997270, []float64{0.304730018799, 0.015171614280, 0.067994457897, -0.387896090976, 0.089400117989, -0.419107428067, 0.032888465447, 0.296818844631}},
	} {
		engines(t, func(t *testing.T, e *train.Engine) {
			spec := &train.Spec{Model: outputs(2, 4), DType: weights.Float64, Mask: c.mask}
			s := must[*train.Session](t)(e.Begin(spec, z, train.Options{LabelMask: []float32{0, 1, 0, 1}}))
			defer s.Close()
			loss, grad, err := s.BatchGradient(train.Batch{N: 2, X: []float32{0, 0}, Labels: []int32{3, 1}})
			if err != nil {
				t.Fatal(err)
			}
			near(t, "loss", []float64{loss}, []float64{c.loss}, 1e-11)
			near(t, "gradient", values(grad.Must("z")), c.grad, 1e-11)
			for _, absent := range []int{0, 2, 4, 6} {
				if g := grad.Must("z").At(absent); c.mask != train.NoMask && g != 0 {
					t.Errorf("mask %d: gradient %v of an absent class, want exactly 0", c.mask, g)
				}
			}
		})
	}
}

// TestCrossEntropyPerToken: the loss of [batch, tokens, classes] is the mean over all positions, and large outputs do
// not overflow.
func TestCrossEntropyPerToken(t *testing.T) {
	engines(t, func(t *testing.T, e *train.Engine) {
		z := weights.NewSet(1)
		z.Put("z", weights.Of32([]float32{1000, 0, 0, 0, 0, 1000, 0, 0, 0, 0, 0, 0}, 2, 3, 2))
		s := must[*train.Session](t)(e.Begin(&train.Spec{Model: outputs(2, 3, 2)}, z, train.Options{}))
		defer s.Close()
		loss, _, err := s.BatchGradient(train.Batch{N: 2, X: []float32{0, 0}, Labels: []int32{0, 1, 1, 0, 1, 0}})
		if err != nil {
			t.Fatal(err)
		}
		near(t, "loss", []float64{loss}, []float64{4 * math.Ln2 / 6}, 1e-7)
	})
}

func TestMeanSquares(t *testing.T) {
	engines(t, func(t *testing.T, e *train.Engine) {
		z := weights.NewSet(1)
		z.Put("z", weights.Of64([]float64{1, 2, 3, 4}, 2, 2))
		s := must[*train.Session](t)(e.Begin(&train.Spec{Model: outputs(2, 2), DType: weights.Float64, Loss: train.MeanSquares}, z, train.Options{}))
		defer s.Close()
		loss, grad, err := s.BatchGradient(train.Batch{N: 2, X: []float32{0, 0}, Targets: []float32{0, 2, 5, 4}})
		if err != nil {
			t.Fatal(err)
		}
		near(t, "loss", []float64{loss}, []float64{(1 + 4) / 4.0}, 1e-15)
		near(t, "gradient", values(grad.Must("z")), []float64{0.5, 0, -1, 0}, 1e-15)
	})
}

func TestMaskRefused(t *testing.T) {
	e := goEngine(t)
	m := linear(3, 2)
	spec := &train.Spec{Model: m, Mask: train.ZeroMask}
	w := m.Zeros(weights.Float32)
	for want, mask := range map[string][]float32{
		"3 numbers for 2 classes": {1, 1, 0},
		"without any class":       {0, 0},
	} {
		if _, err := e.Begin(spec, w, train.Options{LabelMask: mask}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("mask %v: %v, want an error with %q", mask, err, want)
		}
	}
	s := must[*train.Session](t)(e.Begin(spec, w, train.Options{}))
	defer s.Close()
	if _, err := s.Step(referenceBatches[0], 0.1); err == nil || !strings.Contains(err.Error(), "label mask") {
		t.Errorf("training without a label mask: %v", err)
	}
}

// TestMaskedCrossEntropyProperty compares loss and gradient with their formulas in plain Go, for any shape, mask and
// labels: with p the softmax of the masked outputs, the gradient of a present class c is (p_c − [c = y])/n, and that of
// an absent one 0.
func TestMaskedCrossEntropyProperty(t *testing.T) {
	e := goEngine(t)
	rapid.Check(t, func(rt *rapid.T) {
		n, classes := rapid.IntRange(1, 4).Draw(rt, "n"), rapid.IntRange(2, 5).Draw(rt, "classes")
		mask := train.Mask(rapid.IntRange(1, 2).Draw(rt, "mask"))
		present := make([]float32, classes)
		for c := range present {
			present[c] = float32(rapid.IntRange(0, 1).Draw(rt, "present"))
		}
		var labels []int32
		first := rapid.IntRange(0, classes-1).Draw(rt, "first")
		present[first] = 1
		for range n {
			y := rapid.IntRange(0, classes-1).Draw(rt, "label")
			if present[y] == 0 {
				y = first
			}
			labels = append(labels, int32(y))
		}
		z := rapid.SliceOfN(rapid.Float64Range(-30, 30), n*classes, n*classes).Draw(rt, "z")
		w := weights.NewSet(1)
		w.Put("z", weights.Of64(slices.Clone(z), n, classes))

		var wantLoss float64
		wantGrad := make([]float64, n*classes)
		for i := range n {
			row := slices.Clone(z[i*classes : (i+1)*classes])
			for c := range row {
				if present[c] == 0 {
					row[c] = []float64{0, math.Inf(-1)}[mask-train.ZeroMask]
				}
			}
			top, sum := slices.Max(row), 0.0
			for _, v := range row {
				sum += math.Exp(v - top)
			}
			wantLoss += (top + math.Log(sum) - row[labels[i]]) / float64(n)
			for c, v := range row {
				g := math.Exp(v-top) / sum
				if int32(c) == labels[i] {
					g--
				}
				wantGrad[i*classes+c] = g * float64(present[c]) / float64(n)
			}
		}

		s := must[*train.Session](rt)(e.Begin(&train.Spec{Key: "masked", Model: outputs(n, classes), DType: weights.Float64, Mask: mask}, w,
			train.Options{LabelMask: present}))
		defer s.Close()
		loss, grad, err := s.BatchGradient(train.Batch{N: n, X: make([]float32, n), Labels: labels})
		if err != nil {
			rt.Fatal(err)
		}
		near(rt, "loss", []float64{loss}, []float64{wantLoss}, 1e-12)
		near(rt, "gradient", values(grad.Must("z")), wantGrad, 1e-13)
	})
}
