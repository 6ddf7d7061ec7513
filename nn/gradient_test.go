package nn

import (
	"fmt"
	"math"
	"testing"

	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/weights"
)

// TestGradients compares the gradients of every kind of layer and norm with central differences in float64.
func TestGradients(t *testing.T) {
	type c struct {
		name   string
		config Config
		rate   float64
		batch  int
	}
	cases := []c{
		{"linear", Config{Input: []int{3, 2, 2}, Classes: 3}, 1, 3},
		{"mlp", Config{Input: []int{5}, Classes: 3, Hidden: []int{6, 4}, Activation: "tanh"}, 0.5, 3},
		{"mlp", Config{Input: []int{5}, Classes: 3, Hidden: []int{6}, Activation: "sigmoid", Norm: "sbn"}, 1, 4},
		{"mlp", Config{Input: []int{5}, Classes: 3, Hidden: []int{8}, Activation: "gelu", Norm: "gn"}, 1, 2},
		{"lenet", Config{Input: []int{6, 6, 2}, Classes: 3, Widths: []int{2, 4}, Hidden: []int{5}}, 0.5, 2},
		{"resnet", Config{Input: []int{5, 5, 2}, Classes: 3, Widths: []int{4, 8}, Blocks: []int{1, 2}}, 0.5, 2},
		{"wresnet", Config{Input: []int{8, 8, 1}, Classes: 3, Depth: 4, Widen: 1}, 0.25, 2},
		{"resnet", Config{Input: []int{4, 4, 2}, Classes: 3, Widths: []int{2, 2}, Blocks: []int{1, 1}, Bottleneck: true}, 1, 2},
		{"transformer", Config{Vocabulary: 6, Tokens: 4, Embedding: 8, Heads: 2, FeedForward: 6, Layers: 2}, 0.5, 2},
	}
	for _, norm := range normKinds {
		cases = append(cases, c{"cnn", Config{Input: []int{5, 4, 2}, Classes: 3, Widths: []int{4, 8}, Norm: norm}, 1, 3})
	}
	for _, c := range cases {
		t.Run(fmt.Sprintf("%s-%s-%v", c.name, c.config.Norm, c.rate), func(t *testing.T) {
			jb := jobFor(build(t, c.name, c.config, c.rate), weights.Float64, 1, c.batch)
			jb.train, jb.scale = true, c.rate
			checkGradient(t, jb)
		})
	}
}

// checkGradient compares up to 12 coordinates of every gradient with central differences.
func checkGradient(t *testing.T, jb job) {
	t.Helper()
	got := jb.run().grads
	forward := jb
	forward.cotan = weights.Tensor{}
	pass := forward.compile()
	loss := func() float64 {
		y := pass.run().y
		var sum float64
		for i := range y.Len() {
			sum += y.At(i) * jb.cotan.At(i)
		}
		return sum
	}
	r := rng.New(2, 0, "", "coordinates")
	const h = 1e-5
	for name, g := range got.All() {
		values := jb.x
		if name != "x" {
			values = jb.params.Must(name)
		}
		for _, i := range r.Sample(g.Len(), min(g.Len(), 12)) {
			v := values.At(i)
			values.SetAt(i, v+h)
			up := loss()
			values.SetAt(i, v-h)
			down := loss()
			values.SetAt(i, v)
			want := (up - down) / (2 * h)
			if diff := math.Abs(g.At(i) - want); diff > 1e-6*math.Max(1, math.Abs(want)) {
				t.Errorf("d loss / d %s[%d] = %.9g, central difference %.9g", name, i, g.At(i), want)
			}
		}
	}
}
