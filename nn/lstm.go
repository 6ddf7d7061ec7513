package nn

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"
)

// buildLSTM makes one layer of long short-term memory (Hochreiter and Schmidhuber 1997, with forget gates) over sequences
// [batch, steps, features], and "linear" on its last state, or on that of every step. With state width h, [i f g o] =
// x_t·W_ihᵀ + b_ih + h_{t−1}·W_hhᵀ + b_hh and
//
//	c_t = σ(f)·c_{t−1} + σ(i)·tanh(g)        h_t = σ(o)·tanh(c_t)
//
// A step whose features are all NaN is not there: the state stays as it is, which is what PyTorch does with packed sequences. Another
// NaN counts as 0. In training dropout acts on what "linear" sees.
//
// With a vocabulary the last feature of every step is a code, 0 … vocabulary−1, which is looked up in "embedding"; its last row is for all
// that is no such code. This is how GAL's network reads diagnoses (Diao, Ding and Tarokh, NeurIPS 2022, MIMIC-III). Nothing is thinned.
func buildLSTM(c Config, rate float64) (*Model, error) {
	b := newBuilder("lstm", c, rate)
	if len(c.Hidden) != 1 {
		b.fail("hidden %v: it has one layer, of one width", c.Hidden)
		return b.done(nil)
	}
	s := lstm{builder: b, steps: c.Input[0], features: c.Input[1], state: fixed("state", c.Hidden[0]), codes: c.Vocabulary, each: c.EachStep}
	if s.codes > 0 {
		s.embed(c.Embedding)
	}
	cell := s.cell()
	dims, positions := []int{c.Hidden[0]}, 1
	if s.each {
		dims, positions = []int{s.steps, c.Hidden[0]}, s.steps
	}
	return b.done(chain(cell, b.dropout("state", *c.Dropout, dims...), b.linear("linear", dense{in: s.state, out: fixed("classes", c.Classes), head: true, position: positions,
		weight: uniformFan(""), bias: uniformFan("linear.weight")})))
}

type lstm struct {
	*builder
	steps, features int
	state           Dim
	codes           int // rows of the embedding but for one; 0: none
	width           int // of the embedding
	each            bool
}

// embed adds the embedding of codes.
func (s *lstm) embed(width int) {
	s.width = width
	s.model.Params = append(s.model.Params, Param{Name: "embedding.weight", Role: Embedding, Init: Init{Kind: Normal, Value: 1},
		Dims: []Dim{fixed("codes", s.codes+1), fixed("embedding", width)}})
	s.model.Modules = append(s.model.Modules, Module{Name: "embedding", Params: []string{"embedding.weight"}})
}

// cell adds the layer "lstm", from sequences to the last state [batch, h], or to the states of all steps [batch, steps, h].
func (s *lstm) cell() layer {
	in := s.features
	if s.codes > 0 {
		in += s.width - 1
	}
	h := s.state.Size
	gates := fixed("gates", 4*h)
	start := Init{Kind: Uniform, FanIn: true, Of: "lstm.weight_hh_l0"}
	names := []string{"lstm.weight_ih_l0", "lstm.weight_hh_l0", "lstm.bias_ih_l0", "lstm.bias_hh_l0"}
	s.model.Params = append(s.model.Params,
		Param{Name: names[0], Dims: []Dim{gates, fixed("features", in)}, Role: Kernel, Init: start},
		Param{Name: names[1], Dims: []Dim{gates, s.state}, Role: Kernel, Init: uniformFan("")},
		Param{Name: names[2], Dims: []Dim{gates}, Role: Bias, Init: start},
		Param{Name: names[3], Dims: []Dim{gates}, Role: Bias, Init: start})
	macs := int64(s.steps) * int64(in+h) * int64(4*h)
	s.model.Modules = append(s.model.Modules, Module{Name: "lstm", Params: names, MACs: macs, Ops: macs})
	return func(p *Pass, x *graph.Node) *graph.Node {
		values, there := s.read(p, x)
		z := graph.DotGeneral(values, []int{2}, nil, p.Params[names[0]], []int{1}, nil) // [batch, steps, 4h]
		z = graph.Add(z, graph.ExpandLeftToRank(graph.Add(p.Params[names[2]], p.Params[names[3]]), 3))
		return s.run(z, there, p.Params[names[1]])
	}
}

// read returns the numbers of every step, without NaN and with codes looked up, and which steps are there [batch, steps].
func (s *lstm) read(p *Pass, x *graph.Node) (values, there *graph.Node) {
	missing := graph.IsNaN(x)
	all := graph.ReduceMin(graph.ConvertDType(missing, x.DType()), 2)
	there = graph.LessThan(all, graph.ScalarOne(x.Graph(), x.DType()))
	values = graph.Where(missing, graph.ZerosLike(x), x)
	if s.codes == 0 {
		return values, there
	}
	code := graph.SliceAxis(x, 2, graph.AxisElem(s.features-1))
	last := graph.ConstAs(code, float64(s.codes))
	known := graph.LogicalAnd(graph.GreaterOrEqual(code, graph.ZerosLike(code)), graph.LessThan(code, graph.BroadcastToShape(last, code.Shape())))
	rows := graph.ConvertDType(graph.StopGradient(graph.Where(known, code, graph.BroadcastToShape(last, code.Shape()))), dtypes.Int32)
	looked := graph.Gather(p.Params["embedding.weight"], rows) // [batch, steps, width]
	if s.features == 1 {
		return looked, there
	}
	return graph.Concatenate([]*graph.Node{graph.SliceAxis(values, 2, graph.AxisRange(0, s.features-1)), looked}, 2), there
}

// run moves the state over the steps of z, what the gates get from the input.
func (s *lstm) run(z, there, recurrent *graph.Node) *graph.Node {
	g, batch, width := z.Graph(), z.Shape().Dimensions[0], s.state.Size
	h := graph.Zeros(g, graph.SliceAxis(z, 2, graph.AxisRange(0, width)).Shape())
	h = graph.Reshape(graph.SliceAxis(h, 1, graph.AxisElem(0)), batch, width)
	c := h
	states := make([]*graph.Node, s.steps)
	for t := range s.steps {
		at := graph.Reshape(graph.SliceAxis(z, 1, graph.AxisElem(t)), batch, 4*width)
		if t > 0 {
			at = graph.Add(at, graph.DotGeneral(h, []int{1}, nil, recurrent, []int{1}, nil))
		}
		gate := func(i int) *graph.Node { return graph.SliceAxis(at, 1, graph.AxisRange(i*width, (i+1)*width)) }
		next := graph.Add(graph.Mul(graph.Logistic(gate(1)), c), graph.Mul(graph.Logistic(gate(0)), graph.Tanh(gate(2))))
		state := graph.Mul(graph.Logistic(gate(3)), graph.Tanh(next))
		here := graph.BroadcastToShape(graph.SliceAxis(there, 1, graph.AxisElem(t)), h.Shape())
		h, c = graph.Where(here, state, h), graph.Where(here, next, c)
		states[t] = h
	}
	if s.each {
		return graph.Stack(states, 1)
	}
	return h
}

func (c Config) validateLSTM() error {
	if len(c.Input) != 2 {
		return fmt.Errorf("input %v: expected [steps, features]", c.Input)
	}
	if c.Embedding > 0 && c.Vocabulary == 0 {
		return fmt.Errorf("embedding %d: it looks up codes, so it needs their number, vocabulary", c.Embedding)
	}
	return nil
}
