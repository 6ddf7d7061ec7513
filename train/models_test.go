package train_test

import (
	"testing"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// stripes are 8×8 images whose class is the direction of their stripes.
func stripes(n int) dataset.View {
	e := &dataset.Examples{Name: "stripes", Shape: []int{8, 8, 1}, Classes: []string{"across", "down"}}
	r := rng.New(5, 0, "", "stripes")
	for i := range n {
		phase := r.IntN(4)
		for y := range 8 {
			for x := range 8 {
				at := []int{y, x}[i%2]
				v := uint8(r.IntN(60))
				if (at+phase)/2%2 == 0 {
					v += 190
				}
				e.U8 = append(e.U8, v)
			}
		}
		e.Labels = append(e.Labels, int32(i%2))
	}
	e.Normalise(0)
	return e.All()
}

// TestImageModels trains every image architecture a little, with the Scaler, the mask, augmentation and statistics, on
// every engine.
func TestImageModels(t *testing.T) {
	train8, test8 := stripes(84), stripes(30)
	for name, c := range map[string]nn.Config{
		"cnn":        {Widths: []int{4, 8}},
		"cnn bn":     {Widths: []int{4, 8}, Norm: nn.BatchNorm},
		"cnn gn":     {Widths: []int{8, 8}, Norm: nn.GroupNorm},
		"resnet":     {Widths: []int{4, 8}, Blocks: []int{1, 1}},
		"mlp":        {Hidden: []int{16}},
		"lenet none": {Widths: []int{4, 8}, Hidden: []int{16}},
	} {
		t.Run(name, func(t *testing.T) {
			c.Input, c.Classes = []int{8, 8, 1}, 2
			architecture := name
			for i, b := range name {
				if b == ' ' {
					architecture = name[:i]
					break
				}
			}
			m := must[*nn.Model](t)(must[nn.Builder](t)(nn.New(architecture, c))(1))
			engines(t, func(t *testing.T, e *train.Engine) {
				spec := &train.Spec{Model: m, Optimizer: train.SGD{Momentum: 0.9, Decay: 5e-4}, Clip: 1, Mask: train.ZeroMask, Scale: 0.5}
				s := must[*train.Session](t)(e.Begin(spec, m.Initial(weights.Float32, rng.New(1, 0, "", "w")),
					train.Options{LabelMask: []float32{1, 1}}))
				defer s.Close()
				r := must[train.Report](t)(s.Fit(t.Context(), train.Fit{Data: train8, Epochs: 6, Batch: 10, Rate: train.Constant(0.05),
					Augment: dataset.Augment{CropPad: 1}, Random: rng.New(1, 0, "", "fit")}))
				if len(m.Norms) > 0 {
					stats := must[train.Statistics](t)(s.Statistics(t.Context(), train8, train.Pass{Batch: 10}))
					if stats.Batches != 9 {
						t.Errorf("%d batches of statistics, want 9", stats.Batches)
					}
					if err := s.SetStats(stats.Mean()); err != nil {
						t.Fatal(err)
					}
				}
				met := must[train.Metrics](t)(s.Evaluate(t.Context(), test8, train.EvalOptions{LabelMask: []float32{1, 1}}))
				if met.Accuracy < 0.9 {
					t.Errorf("accuracy %.3f, loss %.3f after %+v, want above 0.9", met.Accuracy, met.Loss, r)
				}
			})
		})
	}
}

// TestTransformer trains the masked language model on a text in which every token has one successor.
func TestTransformer(t *testing.T) {
	data := &dataset.Examples{Name: "cycle", Shape: []int{6}}
	for i := range 40 {
		for j := range 6 {
			data.Tok = append(data.Tok, int32((i+j)%5))
		}
	}
	m := must[*nn.Model](t)(must[nn.Builder](t)(nn.New("transformer",
		nn.Config{Vocabulary: 5, Tokens: 6, Embedding: 16, Heads: 2, FeedForward: 16, Layers: 1}))(1))
	engines(t, func(t *testing.T, e *train.Engine) {
		spec := &train.Spec{Model: m, Target: train.FromInput, Hide: train.Hide{Prob: 0.15, ID: 5}, Optimizer: train.Adam{}, Clip: 1}
		s := must[*train.Session](t)(e.Begin(spec, m.Initial(weights.Float32, rng.New(1, 0, "", "w")), train.Options{}))
		defer s.Close()
		o := train.EvalOptions{Random: rng.New(1, 0, "", "hide")}
		before := must[train.Metrics](t)(s.Evaluate(t.Context(), data.All(), o))
		must[train.Report](t)(s.Fit(t.Context(), train.Fit{Data: data.All(), Epochs: 20, Batch: 10, Rate: train.Constant(0.01), Random: rng.New(1, 0, "", "fit")}))
		after := must[train.Metrics](t)(s.Evaluate(t.Context(), data.All(), o))
		if after.N != 240 || after.Perplexity > 2 || after.Perplexity > before.Perplexity/2 {
			t.Errorf("perplexity from %.2f to %.2f on %d tokens, want below 2", before.Perplexity, after.Perplexity, after.N)
		}
	})
}
