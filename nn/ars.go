package nn

import (
	"fmt"
	"math"
)

// buildARS makes the auto-encoder recommender of PersonalFR (Le et al., arXiv 2212.08779): from a user's ratings of all items, 0
// where there is none, to a score for every item. With hidden widths h₁ … h_k,
//
//	encoder.linear1, norm1 … linear_k, norm_k    items → h₁ → … → h_k, each linear, layer norm over the features, tanh
//	decoder.linear1, norm1 … linear_k            h_k → … → h₁ → items, alike, the last linear layer alone
//
// with dropout on the code, the output of the encoder. Weights are Xavier uniform, U(±√(6/(in + out))), biases 0, γ = 1, β = 0
// (Glorot and Bengio, AISTATS 2010).
func buildARS(c Config, rate float64) (*Model, error) {
	b := newBuilder("ars", c, rate)
	if len(c.Input) == 1 && c.Input[0] != c.Classes {
		b.fail("it reads ratings of %d items and scores %d: both must be all items", c.Input[0], c.Classes)
	}
	items := fixed("items", c.Classes)
	k := len(c.Hidden)
	hidden := make([]Dim, k)
	for i, width := range c.Hidden {
		hidden[i] = scaled(fmt.Sprintf("hidden%d", i+1), width)
	}
	var layers []layer
	add := func(part string, i int, in, out Dim, last bool) {
		name := fmt.Sprintf("%s.linear%d", part, i)
		bound := math.Sqrt(6 / float64(b.at(in)+b.at(out)))
		layers = append(layers, b.linear(name, dense{in: in, out: out, position: 1, weight: Init{Kind: Uniform, Value: bound}}))
		if last {
			for j := range 2 {
				b.model.Params[len(b.model.Params)-1-j].Head = true
			}
			return
		}
		layers = append(layers, scaler, b.normalize(fmt.Sprintf("%s.norm%d", part, i), features{dim: out, height: 1, width: 1}), b.act)
	}
	in := items
	for i, out := range hidden {
		add("encoder", i+1, in, out, false)
		in = out
	}
	layers = append(layers, b.dropout("code", *c.Dropout, b.at(in)))
	for i := range k {
		out, last := items, i == k-1
		if !last {
			out = hidden[k-2-i]
		}
		add("decoder", i+1, in, out, last)
		in = out
	}
	return b.done(chain(layers...))
}
