package nn

import (
	"fmt"

	"github.com/gomlx/gomlx/core/graph"
)

// buildLinear makes softmax regression: one linear layer from the flattened example to the classes, "linear" (torch:
// nn.Linear). Nothing is thinned.
func buildLinear(c Config, rate float64) (*Model, error) {
	b := newBuilder("linear", c, rate)
	flat, in := flatten(b.input())
	return b.done(chain(flat, b.torchLinear("linear", in, fixed("classes", c.Classes), true)))
}

// buildLocation makes the location model: its output is the vector "location", whatever the example. With the row itself as
// target and mean squares it learns the mean of the rows; the curvature of that loss is 2/features at every coordinate.
func buildLocation(c Config, rate float64) (*Model, error) {
	b := newBuilder("location", c, rate)
	d := fixed("features", c.Input[0])
	b.model.Classes = d.Size
	b.model.Params = append(b.model.Params, Param{Name: "location", Dims: []Dim{d}, Role: Kernel, Head: true})
	return b.done(func(p *Pass, x *graph.Node) *graph.Node {
		return graph.BroadcastToDims(graph.Reshape(p.Params["location"], 1, d.Size), x.Shape().Dimensions...)
	})
}

// buildMLP makes hidden layers "linear1", "linear2" …, each followed by Scaler, norm ("norm1" …) and activation, and
// "linear", the output layer.
func buildMLP(c Config, rate float64) (*Model, error) {
	b := newBuilder("mlp", c, rate)
	flat, in := flatten(b.input())
	layers := []layer{flat}
	for i, width := range c.Hidden {
		out := scaled(fmt.Sprintf("linear%d", i+1), width)
		layers = append(layers, b.torchLinear(out.Name, in, out, false), scaler,
			b.normalize(fmt.Sprintf("norm%d", i+1), features{dim: out, height: 1, width: 1}), b.act)
		in = out
	}
	layers = append(layers, b.torchLinear("linear", in, fixed("classes", c.Classes), true))
	return b.done(chain(layers...))
}

// input describes the examples of the model.
func (b *builder) input() features {
	in := b.model.Input
	if len(in) == 3 {
		return features{dim: fixed("input", in[2]), height: in[0], width: in[1]}
	}
	return features{dim: fixed("input", in[0]), height: 1, width: 1}
}
