package nn

import (
	"fmt"
	"math"

	"github.com/gomlx/gomlx/core/graph"
)

// buildTransformer makes HeteroFL's masked language model (arXiv 2010.01264). Tokens [batch, length] are looked up in
// "embedding" (one row more than the vocabulary, for the mask) and added to the rows of "position"; layer norm
// "embedding_norm" and dropout follow. Then post-norm encoder layers "layers.0" …, and the decoder: "decoder.linear1",
// GELU, layer norm "decoder.norm" and "decoder.linear2", which gives logits [batch, length, vocabulary].
//
// The width of every head is thinned by itself, so the number of heads is the same at every rate. The attention
// temperature is √(local width of a head).
func buildTransformer(c Config, rate float64) (*Model, error) {
	c.Input, c.Classes = []int{c.Tokens}, c.Vocabulary
	b := newBuilder("transformer", c, rate)
	m := b.model
	m.Tokens = true
	t := transformer{builder: b, heads: c.Heads, tokens: c.Tokens, drop: *c.Dropout,
		embedding: scaled("embedding", c.Embedding)}
	width := b.at(t.embedding)
	if c.Embedding%c.Heads != 0 || width%c.Heads != 0 || width != (Dim{Size: c.Embedding, Scaled: true, Heads: c.Heads}).At(rate) {
		b.fail("embedding width %d (of %d at rate 1) is not a multiple of %d heads: use another embedding, rate or number of heads",
			width, c.Embedding, c.Heads)
		return b.done(nil)
	}

	normal := Init{Kind: Normal, Value: 1}
	m.Params = append(m.Params,
		Param{Name: "embedding.weight", Dims: []Dim{fixed("tokens", c.Vocabulary+1), t.embedding}, Role: Embedding,
			Init: normal, Labels: true},
		Param{Name: "position.weight", Dims: []Dim{fixed("positions", c.Tokens), t.embedding}, Role: Embedding, Init: normal})
	m.Modules = append(m.Modules,
		Module{Name: "embedding", Params: []string{"embedding.weight"}},
		Module{Name: "position", Params: []string{"position.weight"}})
	layers := []layer{t.embed, b.tokenNorm("embedding_norm", t.at(t.embedding)), t.dropout("embedding_dropout", t.embedding)}
	for i := range c.Layers {
		layers = append(layers, t.encoder(i, c.FeedForward))
	}
	hidden := scaled("decoder.linear1", c.Embedding)
	layers = append(layers,
		t.linear("decoder.linear1", t.embedding, hidden, uniformFan("")), scaler, activations["gelu"],
		b.tokenNorm("decoder.norm", t.at(hidden)),
		b.linear("decoder.linear2", dense{in: hidden, out: fixed("classes", c.Vocabulary), head: true, position: c.Tokens,
			weight: uniformFan("")}))
	return b.done(chain(layers...))
}

type transformer struct {
	*builder
	heads, tokens int
	drop          float64
	embedding     Dim
}

// at describes vectors of d at every position of a sequence.
func (t transformer) at(d Dim) features { return features{dim: d, height: t.tokens, width: 1} }

func (t transformer) linear(name string, in, out Dim, weight Init) layer {
	return t.builder.linear(name, dense{in: in, out: out, position: t.tokens, weight: weight})
}

// embed returns embedding[x] + position[0 … length−1], each through the Scaler.
func (t transformer) embed(p *Pass, x *graph.Node) *graph.Node {
	length := x.Shape().Dimensions[1]
	tokens := graph.Gather(p.Params["embedding.weight"], graph.InsertAxes(x, -1))
	positions := graph.Slice(p.Params["position.weight"], graph.AxisRange(0, length))
	return graph.Add(scaler(p, tokens), scaler(p, graph.InsertAxes(positions, 0)))
}

// dropout drops elements of d at every position of a sequence in training.
func (t transformer) dropout(name string, d Dim) layer {
	return t.builder.dropout(name, t.drop, t.tokens, t.builder.at(d))
}

// encoder adds layer i: x ← norm1(x + drop(attention(x))), x ← norm2(x + drop(linear2(drop(gelu(linear1(x)))))).
// All layers start as copies of layer 0.
func (t transformer) encoder(i, feedForward int) layer {
	name := fmt.Sprintf("layers.%d", i)
	first := len(t.model.Params)
	hidden := scaled(name+".linear1", feedForward)
	narrow := Init{Kind: Normal, Value: 0.02}
	attend := t.attention(name + ".attention")
	drop1 := t.dropout(name+".dropout1", t.embedding)
	norm1 := t.tokenNorm(name+".norm1", t.at(t.embedding))
	feed := chain(
		t.linear(name+".linear1", t.embedding, hidden, narrow), scaler, activations["gelu"],
		t.dropout(name+".dropout", hidden),
		t.linear(name+".linear2", hidden, t.embedding, narrow), scaler,
		t.dropout(name+".dropout2", t.embedding))
	norm2 := t.tokenNorm(name+".norm2", t.at(t.embedding))
	if i > 0 {
		for j := first; j < len(t.model.Params); j++ {
			q := &t.model.Params[j]
			q.Init = Init{Copy: "layers.0" + q.Name[len(name):]}
		}
	}
	return func(p *Pass, x *graph.Node) *graph.Node {
		x = norm1(p, graph.Add(x, drop1(p, attend(p, x))))
		return norm2(p, graph.Add(x, feed(p, x)))
	}
}

// attention adds self-attention with projections "q", "k", "v" and "o": per head softmax(q·kᵀ/√w)·v, where w is the local
// width of a head. The Scaler follows each projection.
func (t transformer) attention(name string) layer {
	perHead := func(d string) Dim {
		h := scaled(name+"."+d, t.embedding.Size)
		h.Heads = t.heads
		return h
	}
	match, value := perHead("qk"), perHead("v") // q and k meet in a product: one axis
	q := t.linear(name+".q", t.embedding, match, uniformFan(""))
	k := t.linear(name+".k", t.embedding, match, uniformFan(""))
	v := t.linear(name+".v", t.embedding, value, uniformFan(""))
	o := t.linear(name+".o", value, t.embedding, uniformFan(""))
	temperature := math.Sqrt(float64(t.builder.at(t.embedding) / t.heads))
	split := func(x *graph.Node) *graph.Node { // [batch, length, heads, width]
		shape := x.Shape().Dimensions
		return graph.Reshape(x, shape[0], shape[1], t.heads, shape[2]/t.heads)
	}
	return func(p *Pass, x *graph.Node) *graph.Node {
		qs, ks, vs := split(scaler(p, q(p, x))), split(scaler(p, k(p, x))), split(scaler(p, v(p, x)))
		scores := graph.DotGeneral(qs, []int{3}, []int{0, 2}, ks, []int{3}, []int{0, 2}) // [batch, heads, length, length]
		weights := softmax(graph.DivScalar(scores, temperature))
		y := graph.DotGeneral(weights, []int{3}, []int{0, 1}, vs, []int{1}, []int{0, 2}) // [batch, heads, length, width]
		y = graph.TransposeAllAxes(y, 0, 2, 1, 3)
		shape := x.Shape().Dimensions
		return scaler(p, o(p, graph.Reshape(y, shape[0], shape[1], -1)))
	}
}
