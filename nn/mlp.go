package nn

import "fmt"

// buildLinear makes softmax regression: one linear layer from the flattened example to the classes, "linear" (torch:
// nn.Linear). Nothing is thinned.
func buildLinear(c Config, rate float64) (*Model, error) {
	b := newBuilder("linear", c, rate)
	flat, in := flatten(b.input())
	return b.done(chain(flat, b.torchLinear("linear", in, fixed("classes", c.Classes), true)))
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
