package semifl

import (
	"fmt"
	"testing"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/dataset/augment"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// bars deals noisy 8×8 images of a bar, in one of three places for the classes, to members of n images each; six are the
// server's, and 30 to test on.
func bars(t testing.TB, members, n int) *fedtest.World {
	t.Helper()
	data := &dataset.Examples{Name: "bars", Shape: []int{8, 8, 1}, Classes: []string{"top", "middle", "bottom"},
		Mean: []float32{0.4}, Std: []float32{0.3}}
	r := rng.New(5, 0, "", "bars")
	draw := func(k int) dataset.View {
		v := dataset.View{Data: data}
		for i := range k {
			class := i % 3
			for p := range 64 {
				x := 40 + r.IntN(60)
				if row := p / 8; row >= 2*class+1 && row <= 2*class+2 {
					x += 120
				}
				data.U8 = append(data.U8, uint8(x))
			}
			data.Labels = append(data.Labels, int32(class))
			v.Rows = append(v.Rows, int32(len(data.Labels)-1))
		}
		return v
	}
	w := &fedtest.World{Engine: fedtest.Engine(t, "go"), Seed: 3, Pooled: draw(6), Test: draw(30)}
	for k := range members {
		w.Members = append(w.Members, fedtest.Holder{Name: fmt.Sprintf("member-%d", k), Train: draw(n), Test: dataset.View{Data: data}})
	}
	return w
}

// problem is a small convolutional network on bars.
func problem(t testing.TB) *federated.Problem {
	t.Helper()
	build, err := nn.New("cnn", nn.Config{Input: []int{8, 8, 1}, Classes: 3, Widths: []int{4, 8}})
	if err != nil {
		t.Fatal(err)
	}
	return &federated.Problem{
		Build: build, Rounds: 4, Select: federated.Selection{Fraction: 0.5},
		Training: federated.Training{Epochs: 2, Batch: 5, Rate: train.Cosine{Rate: 0.05, Period: 4}, Clip: 1,
			Optimizer: train.SGD{Momentum: 0.9, Nesterov: true, Decay: 5e-4}, Augment: dataset.Augment{CropPad: 1}},
		Measuring: federated.Measuring{Every: 1, Batch: 16},
	}
}

// small is SemiFL for bars.
func small(change func(*Config)) Config {
	c := Defaults()
	c.Threshold, c.ServerEpochs, c.Strong = 0.6, 40, augment.Small()
	c.Strong.Cutout, c.Strong.Translate = 3, 1
	if change != nil {
		change(&c)
	}
	return c
}

// run runs the method of a configuration.
func run(t testing.TB, w *fedtest.World, p *federated.Problem, c Config, change func(*fedtest.Run)) *fedtest.Trace {
	t.Helper()
	a, err := New(p, c)
	if err != nil {
		t.Fatal(err)
	}
	r := &fedtest.Run{World: w, Algorithm: a, Config: federated.Config{Rounds: p.Rounds}}
	if change != nil {
		change(r)
	}
	return r.Must(t)
}

// emptyTotal is the sum of one member that did not move.
func emptyTotal(like weights.Set) map[string]*weights.Acc {
	total := weights.NewAcc(like, false)
	total.MustAdd(like.Zeros(), nil, nil, 1)
	return map[string]*weights.Acc{"w": total}
}
