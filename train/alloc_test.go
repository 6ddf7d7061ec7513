//go:build !race

package train_test

import (
	"testing"

	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/compute"
)

// On the cpu engine a step in steady state allocates nothing.
func TestStepsAllocateNothing(t *testing.T) {
	b := must[compute.Backend](t)(backend.New("cpu", backend.Options{}))
	e := train.NewEngine(b)
	defer e.Close()
	const n = 4
	image := train.Batch{N: n, X: make([]float32, n*64), Labels: make([]int32, n)}
	for i := range image.X {
		image.X[i] = float32(i%7) - 3
	}
	text := train.Batch{N: n, Tokens: make([]int32, n*6), Labels: make([]int32, n*6)}
	for name, c := range map[string]struct {
		config nn.Config
		batch  train.Batch
		masked bool
	}{
		"cnn":         {config: nn.Config{Input: []int{8, 8, 1}, Classes: 3, Widths: []int{4, 8}}, batch: image, masked: true},
		"resnet":      {config: nn.Config{Input: []int{8, 8, 1}, Classes: 3, Widths: []int{4, 8}, Blocks: []int{1, 1}}, batch: image},
		"mlp":         {config: nn.Config{Input: []int{8, 8, 1}, Classes: 3, Hidden: []int{16}}, batch: image},
		"transformer": {config: nn.Config{Vocabulary: 11, Tokens: 6, Embedding: 16, Heads: 2, Layers: 1}, batch: text},
	} {
		t.Run(name, func(t *testing.T) {
			m := must[*nn.Model](t)(must[nn.Builder](t)(nn.New(name, c.config))(1))
			spec := &train.Spec{Model: m, Optimizer: train.SGD{Momentum: 0.9, Decay: 5e-4}, Clip: 1}
			var o train.Options
			if c.masked {
				spec.Mask, o.LabelMask = train.ZeroMask, []float32{1, 1, 0}
			}
			s := must[*train.Session](t)(e.Begin(spec, m.Initial(weights.Float32, rng.New(1, 0, "", "w")), o))
			defer s.Close()
			batch := c.batch
			batch.Random = rng.New(1, 0, "", "dropout")
			step := func() {
				if _, err := s.Step(batch, 0.01); err != nil {
					t.Fatal(err)
				}
			}
			step()
			step()
			// The runtime's own allocations come at any time: one try without any is enough.
			for try := 1; ; try++ {
				n := testing.AllocsPerRun(100, step)
				if n == 0 {
					return
				}
				if try == 3 {
					t.Fatalf("a step allocates %v times", n)
				}
			}
		})
	}
}
