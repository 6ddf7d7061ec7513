package nn

import (
	"fmt"
	"slices"

	"github.com/gomlx/gomlx/core/graph"
)

// layer is one step of a forward pass.
type layer func(p *Pass, x *graph.Node) *graph.Node

// features is what flows between two layers: a vector of dim at every position of an example. Images have height·width
// positions, sequences one a token, vectors one.
type features struct {
	dim           Dim
	height, width int
}

func (f features) positions() int { return f.height * f.width }

// builder collects the parameters, norms and costs of a model while its layers are made. The first error wins and is
// returned by done.
type builder struct {
	model *Model
	norm  NormKind
	act   layer
	// kernel is how the kernels of convolutions start, scale how γ of norms does.
	kernel, scale Init
	err           error
}

func newBuilder(name string, c Config, rate float64) *builder {
	b := &builder{
		model:  &Model{Name: name, Rate: rate, Input: slices.Clone(c.Input), Classes: c.Classes, MinBatch: 1},
		norm:   c.Norm,
		act:    activations[c.Activation],
		kernel: uniformFan(""),
		scale:  Init{Value: 1},
	}
	return b
}

func (b *builder) fail(format string, args ...any) {
	if b.err == nil {
		b.err = fmt.Errorf("%s at rate %v: "+format, append([]any{b.model.Name, b.model.Rate}, args...)...)
	}
}

func (b *builder) at(d Dim) int { return d.At(b.model.Rate) }

// done finishes the model with its forward pass, which checks what it is given.
func (b *builder) done(forward layer) (*Model, error) {
	if b.err != nil {
		return nil, b.err
	}
	m := b.model
	m.Forward = func(p *Pass, x *graph.Node) *graph.Node {
		m.check(p, x)
		return forward(p, x)
	}
	return m, nil
}

// check panics unless x and p fit m.
func (m *Model) check(p *Pass, x *graph.Node) {
	shape := x.Shape().Dimensions
	fits := len(shape) == 1+len(m.Input)
	for i := 0; fits && i < len(m.Input); i++ {
		fits = shape[i+1] == m.Input[i] || (m.Tokens && shape[i+1] < m.Input[i] && shape[i+1] > 0)
	}
	if !fits || x.DType().IsInt() != m.Tokens {
		panic(fmt.Sprintf("nn: %s takes [batch] + %v (tokens: %v), not %s", m.Name, m.Input, m.Tokens, x.Shape()))
	}
	if (p.Train || (len(m.Norms) > 0 && p.Stats == nil)) && shape[0] < m.MinBatch {
		panic(fmt.Sprintf("nn: %s with batch statistics needs batches of at least %d examples, not %d",
			m.Name, m.MinBatch, shape[0]))
	}
	for _, q := range m.Params {
		n, ok := p.Params[q.Name]
		if !ok {
			panic(fmt.Sprintf("nn: %s needs parameter %q", m.Name, q.Name))
		}
		if want := q.Shape(m.Rate); !slices.Equal(n.Shape().Dimensions, want) {
			panic(fmt.Sprintf("nn: parameter %q of %s at rate %v is %v, expected %v",
				q.Name, m.Name, m.Rate, n.Shape().Dimensions, want))
		}
	}
}

func chain(layers ...layer) layer {
	return func(p *Pass, x *graph.Node) *graph.Node {
		for _, l := range layers {
			x = l(p, x)
		}
		return x
	}
}

// fixed is an axis of n positions that is the same at every rate.
func fixed(name string, n int) Dim { return Dim{Name: name, Size: n} }

// scaled is a feature axis of n positions at rate 1.
func scaled(name string, n int) Dim { return Dim{Name: name, Size: n, Scaled: true} }

// uniformFan is PyTorch's default for the weight of a linear or convolution layer, U(−1/√fan, 1/√fan), and with the name of
// that weight for its bias.
func uniformFan(weight string) Init { return Init{Kind: Uniform, FanIn: true, Of: weight} }

// dense describes a linear layer.
type dense struct {
	in, out  Dim
	weight   Init
	bias     Init
	head     bool // the last layer of the model: its rows are labels
	position int  // how often it is applied to one example
}

// linear adds y = x·Wᵀ + b with W [out, in].
func (b *builder) linear(name string, d dense) layer {
	w, bias := name+".weight", name+".bias"
	b.model.Params = append(b.model.Params,
		Param{Name: w, Dims: []Dim{d.out, d.in}, Role: Kernel, Init: d.weight, Labels: d.head, Head: d.head},
		Param{Name: bias, Dims: []Dim{d.out}, Role: Bias, Init: d.bias, Labels: d.head, Head: d.head})
	macs := int64(d.position) * int64(b.at(d.in)) * int64(b.at(d.out))
	b.model.Modules = append(b.model.Modules, Module{Name: name, Params: []string{w, bias}, MACs: macs, Ops: macs})
	return func(p *Pass, x *graph.Node) *graph.Node {
		y := graph.DotGeneral(x, []int{x.Rank() - 1}, nil, p.Params[w], []int{1}, nil)
		return graph.Add(y, graph.ExpandLeftToRank(p.Params[bias], y.Rank()))
	}
}

// torchLinear is a linear layer on vectors with PyTorch's initial values.
func (b *builder) torchLinear(name string, in, out Dim, head bool) layer {
	return b.linear(name, dense{in: in, out: out, head: head, position: 1,
		weight: uniformFan(""), bias: uniformFan(name + ".weight")})
}

// classifier is the last linear layer of HeteroFL's networks: bias 0 at the start.
func (b *builder) classifier(name string, in Dim) layer {
	return b.linear(name, dense{in: in, out: fixed("classes", b.model.Classes), head: true, position: 1,
		weight: uniformFan("")})
}

// convolution describes a square convolution, padded with zeros by ⌊kernel/2⌋ on every side.
type convolution struct {
	out            Dim
	kernel, stride int
	bias           bool
}

// conv adds a convolution of NHWC images with kernels [out, in, height, width].
func (b *builder) conv(name string, in features, c convolution) (layer, features) {
	w, bias := name+".weight", name+".bias"
	params := []string{w}
	b.model.Params = append(b.model.Params, Param{Name: w, Role: Kernel, Init: b.kernel,
		Dims: []Dim{c.out, in.dim, fixed("", c.kernel), fixed("", c.kernel)}})
	pad := c.kernel / 2
	size := func(n int) int { return (n+2*pad-c.kernel)/c.stride + 1 }
	out := features{dim: c.out, height: size(in.height), width: size(in.width)}
	macs := int64(out.positions()) * int64(c.kernel*c.kernel) * int64(b.at(in.dim)) * int64(b.at(c.out))
	ops := macs
	if c.bias {
		params = append(params, bias)
		b.model.Params = append(b.model.Params, Param{Name: bias, Dims: []Dim{c.out}, Role: Bias, Init: uniformFan(w)})
		ops += int64(out.positions()) * int64(b.at(c.out))
	}
	b.model.Modules = append(b.model.Modules, Module{Name: name, Params: params, MACs: macs, Ops: ops})
	return func(p *Pass, x *graph.Node) *graph.Node {
		y := graph.ConvGeneral(x, p.Params[w], nhwcOIHW, []int{c.stride, c.stride}, [][2]int{{pad, pad}, {pad, pad}},
			nil, nil, 1, 1)
		if c.bias {
			y = graph.Add(y, graph.ExpandLeftToRank(p.Params[bias], 4))
		}
		return y
	}, out
}

// nhwcOIHW convolves images [batch, height, width, channels] with kernels [out, in, height, width].
var nhwcOIHW = graph.ConvolveAxesConfig{
	InputBatch: 0, InputSpatial: []int{1, 2}, InputChannels: 3,
	KernelOutputChannels: 0, KernelInputChannels: 1, KernelSpatial: []int{2, 3},
	OutputBatch: 0, OutputSpatial: []int{1, 2}, OutputChannels: 3,
}

// maxPool halves images, rounding down: the maximum of each 2×2 window. Of equal values the first in reading order gets
// the gradient, as in PyTorch.
func (b *builder) maxPool(name string, in features) (layer, features) {
	out := features{dim: in.dim, height: in.height / 2, width: in.width / 2}
	if out.positions() == 0 {
		b.fail("%s cannot halve an image of %d×%d: use larger images or fewer layers", name, in.height, in.width)
	}
	return func(_ *Pass, x *graph.Node) *graph.Node { return graph.MaxPool(x).Window(2).Done() }, out
}

// globalMean averages every channel over the positions of an image.
func globalMean(_ *Pass, x *graph.Node) *graph.Node { return graph.ReduceMean(x, 1, 2) }

// flatten turns images [batch, height, width, channels] into vectors in PyTorch's order: channel, row, column.
func flatten(in features) (layer, Dim) {
	d := in.dim
	if in.positions() > 1 {
		d.Block = in.positions()
	}
	return func(_ *Pass, x *graph.Node) *graph.Node {
		batch := x.Shape().Dimensions[0]
		if x.Rank() == 4 && in.positions() > 1 && x.Shape().Dimensions[3] > 1 {
			x = graph.TransposeAllAxes(x, 0, 3, 1, 2)
		}
		return graph.Reshape(x, batch, -1)
	}, d
}

// dropout multiplies an example of the given dimensions by the mask of that name in training. Of shorter sequences the head of the
// mask is taken.
func (b *builder) dropout(name string, drop float64, dims ...int) layer {
	if drop == 0 {
		return chain()
	}
	model := b.model
	model.Noise = append(model.Noise, Noise{Name: name, Dims: dims, Drop: drop})
	return func(p *Pass, x *graph.Node) *graph.Node {
		if !p.Train {
			return x
		}
		mask, ok := p.Noise[name]
		if !ok {
			panic(fmt.Sprintf("nn: %s needs the dropout mask %q in training", model.Name, name))
		}
		if length := x.Shape().Dimensions[1]; mask.Shape().Dimensions[1] > length {
			mask = graph.SliceAxis(mask, 1, graph.AxisRange(0, length))
		}
		return graph.Mul(x, mask)
	}
}

// scaler is HeteroFL's Scaler, u/ρ in training and u else (arXiv 2010.01264, section 3): activations of a thin network are
// scaled up while it trains so that the wide one needs no correction.
func scaler(p *Pass, x *graph.Node) *graph.Node {
	if !p.Train || p.Scale == 0 || p.Scale == 1 {
		return x
	}
	return graph.DivScalar(x, p.Scale)
}
