package cpu_test

import (
	"math/rand/v2"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	. "github.com/gomlx/gomlx/core/graph"
)

// A model is a training step as a pure function: parameters, momenta and a
// batch in, new parameters, new momenta and the loss out.
type model struct {
	name   string
	params []shapes.Shape
	batch  []shapes.Shape // inputs; the last one is int32 labels
	loss   func(params, batch []*Node) *Node
	limits []int // exclusive upper bounds of integer inputs, by position in batch
}

// step writes the whole training step: loss, gradient, clipping by global norm,
// SGD with momentum and decay.
func (m model) step(g *Graph) []*Node {
	var params, momenta, batch []*Node
	for i, s := range m.params {
		params = append(params, Parameter(g, "w"+string(rune('0'+i/100))+string(rune('0'+i/10%10))+string(rune('0'+i%10)), s))
	}
	for i, s := range m.params {
		momenta = append(momenta, Parameter(g, "m"+string(rune('0'+i/100))+string(rune('0'+i/10%10))+string(rune('0'+i%10)), s))
	}
	for i, s := range m.batch {
		batch = append(batch, Parameter(g, "x"+string(rune('0'+i)), s))
	}
	loss := m.loss(params, batch)
	grads := Gradient(loss, params...)
	var norm *Node
	for _, gr := range grads {
		sq := ReduceAllSum(Square(gr))
		if norm == nil {
			norm = sq
		} else {
			norm = Add(norm, sq)
		}
	}
	scale := Min(ScalarOne(g, dtypes.Float32), Div(Scalar(g, dtypes.Float32, 1), AddScalar(Sqrt(norm), 1e-6)))
	outs := []*Node{}
	var next []*Node
	for i, gr := range grads {
		gr = Add(Mul(gr, scale), MulScalar(params[i], 5e-4))
		mom := Add(MulScalar(momenta[i], 0.9), gr)
		next = append(next, mom)
		outs = append(outs, Sub(params[i], MulScalar(mom, 0.01)))
	}
	return append(append(outs, next...), loss)
}

// crossEntropy is the mean of −log softmax at the labels.
func crossEntropy(logits, labels *Node) *Node {
	hot := OneHot(labels, logits.Shape().Dimensions[1], dtypes.Float32)
	return Neg(ReduceAllMean(ReduceSum(Mul(LogSoftmax(logits), hot), 1)))
}

func relu(x *Node) *Node { return Where(GreaterThan(x, ZerosLike(x)), x, ZerosLike(x)) }

// batchNorm normalises over all axes but the last, in primitive operations.
func batchNorm(x, scale, offset *Node) *Node {
	rank := x.Rank()
	axes := make([]int, rank-1)
	for i := range axes {
		axes[i] = i
	}
	mean := ReduceAndKeep(x, ReduceMean, axes...)
	centred := Sub(x, mean)
	variance := ReduceAndKeep(Square(centred), ReduceMean, axes...)
	normal := Div(centred, Sqrt(AddScalar(variance, 1e-5)))
	return Add(Mul(normal, ExpandLeftToRank(scale, rank)), ExpandLeftToRank(offset, rank))
}

var oihw = compute.ConvolveAxesConfig{
	InputBatch: 0, InputSpatial: []int{1, 2}, InputChannels: 3,
	KernelOutputChannels: 0, KernelInputChannels: 1, KernelSpatial: []int{2, 3},
	OutputBatch: 0, OutputSpatial: []int{1, 2}, OutputChannels: 3,
}

func conv(x, w *Node, stride int) *Node {
	pad := (w.Shape().Dimensions[2] - 1) / 2
	return ConvGeneral(x, w, oihw, []int{stride, stride}, [][2]int{{pad, pad}, {pad, pad}}, nil, nil, 1, 1)
}

func f32(dims ...int) shapes.Shape { return shapes.Make(dtypes.Float32, dims...) }

// cnn is HeteroFL's convolutional network with the given widths.
func cnn(batch, size, channels, classes int, widths ...int) model {
	m := model{name: "cnn"}
	in := channels
	for _, w := range widths {
		m.params = append(m.params, f32(w, in, 3, 3), f32(w), f32(w), f32(w))
		in = w
	}
	m.params = append(m.params, f32(in, classes), f32(classes))
	m.batch = []shapes.Shape{f32(batch, size, size, channels), shapes.Make(dtypes.Int32, batch)}
	m.limits = []int{0, classes}
	m.loss = func(p, b []*Node) *Node {
		x := b[0]
		for i := range widths {
			x = Add(conv(x, p[4*i], 1), ExpandLeftToRank(p[4*i+1], 4))
			x = relu(batchNorm(x, p[4*i+2], p[4*i+3]))
			if x.Shape().Dimensions[1] > 1 {
				x = MaxPool(x).Window(2).Strides(2).NoPadding().Done()
			}
		}
		x = ReduceMean(x, 1, 2)
		n := 4 * len(widths)
		return crossEntropy(Add(Dot(x, p[n]).Product(), ExpandLeftToRank(p[n+1], 2)), b[1])
	}
	return m
}

// mlp has one hidden layer.
func mlp(batch, in, hidden, classes int) model {
	return model{
		name:   "mlp",
		params: []shapes.Shape{f32(in, hidden), f32(hidden), f32(hidden, classes), f32(classes)},
		batch:  []shapes.Shape{f32(batch, in), shapes.Make(dtypes.Int32, batch)},
		limits: []int{0, classes},
		loss: func(p, b []*Node) *Node {
			x := relu(Add(Dot(b[0], p[0]).Product(), ExpandLeftToRank(p[1], 2)))
			return crossEntropy(Add(Dot(x, p[2]).Product(), ExpandLeftToRank(p[3], 2)), b[1])
		},
	}
}

// lstm is a language model of stacked layers, unrolled over the steps.
func lstm(batch, steps, vocab, width, layers int) model {
	m := model{name: "lstm"}
	m.params = append(m.params, f32(vocab, width))
	for range layers {
		m.params = append(m.params, f32(width, 4*width), f32(width, 4*width), f32(4*width))
	}
	m.params = append(m.params, f32(width, vocab), f32(vocab))
	m.batch = []shapes.Shape{shapes.Make(dtypes.Int32, steps, batch, 1), shapes.Make(dtypes.Int32, steps*batch)}
	m.limits = []int{vocab, vocab}
	m.loss = func(p, b []*Node) *Node {
		g := p[0].Graph()
		x := Gather(p[0], b[0]) // [steps, batch, width]
		var outs []*Node
		h, c := make([]*Node, layers), make([]*Node, layers)
		for l := range layers {
			h[l], c[l] = Zeros(g, f32(batch, width)), Zeros(g, f32(batch, width))
		}
		for t := range steps {
			in := Squeeze(Slice(x, AxisElem(t)), 0)
			for l := range layers {
				wx, wh, bias := p[1+3*l], p[2+3*l], p[3+3*l]
				z := Add(Add(Dot(in, wx).Product(), Dot(h[l], wh).Product()), ExpandLeftToRank(bias, 2))
				gate := func(i int) *Node { return Slice(z, AxisRange(), AxisRange(i*width, (i+1)*width)) }
				c[l] = Add(Mul(Sigmoid(gate(1)), c[l]), Mul(Sigmoid(gate(0)), Tanh(gate(2))))
				h[l] = Mul(Sigmoid(gate(3)), Tanh(c[l]))
				in = h[l]
			}
			outs = append(outs, in)
		}
		y := Concatenate(outs, 0) // [steps·batch, width]
		n := 1 + 3*layers
		return crossEntropy(Add(Dot(y, p[n]).Product(), ExpandLeftToRank(p[n+1], 2)), b[1])
	}
	return m
}

// transformer is one block of attention and feed-forward layers with layer
// normalisation, repeated.
func transformer(batch, steps, vocab, width, heads, blocks int) model {
	m := model{name: "transformer"}
	m.params = append(m.params, f32(vocab, width))
	for range blocks {
		m.params = append(m.params, f32(width), f32(width), f32(width, 3*width), f32(width, width),
			f32(width), f32(width), f32(width, 4*width), f32(4*width, width))
	}
	m.params = append(m.params, f32(width, vocab), f32(vocab))
	m.batch = []shapes.Shape{shapes.Make(dtypes.Int32, batch, steps, 1), shapes.Make(dtypes.Int32, steps*batch)}
	m.limits = []int{vocab, vocab}
	norm := func(x, scale, offset *Node) *Node {
		c := Sub(x, ReduceAndKeep(x, ReduceMean, -1))
		v := ReduceAndKeep(Square(c), ReduceMean, -1)
		return Add(Mul(Div(c, Sqrt(AddScalar(v, 1e-5))), ExpandLeftToRank(scale, 2)), ExpandLeftToRank(offset, 2))
	}
	m.loss = func(p, b []*Node) *Node {
		x := Reshape(Gather(p[0], b[0]), batch*steps, width)
		for k := range blocks {
			q := p[1+8*k:]
			qkv := Dot(norm(x, q[0], q[1]), q[2]).Product()
			part := func(i int) *Node {
				y := Slice(qkv, AxisRange(), AxisRange(i*width, (i+1)*width))
				return TransposeAllAxes(Reshape(y, batch, steps, heads, width/heads), 0, 2, 1, 3)
			}
			scores := Einsum("bhqd,bhkd->bhqk", part(0), part(1))
			att := Softmax(MulScalar(scores, 0.125), -1)
			y := Einsum("bhqk,bhkd->bhqd", att, part(2))
			y = Reshape(TransposeAllAxes(y, 0, 2, 1, 3), batch*steps, width)
			x = Add(x, Dot(y, q[3]).Product())
			z := Dot(norm(x, q[4], q[5]), q[6]).Product()
			z = Mul(z, MulScalar(AddScalar(Erf(MulScalar(z, 0.70710678)), 1), 0.5))
			x = Add(x, Dot(z, q[7]).Product())
		}
		n := 1 + 8*blocks
		return crossEntropy(Add(Dot(x, p[n]).Product(), ExpandLeftToRank(p[n+1], 2)), b[1])
	}
	return m
}

// spy hands out the executables that graphs compile.
type spy struct {
	compute.Backend
	last compute.Executable
}

type spyBuilder struct {
	compute.Builder
	s *spy
}

func (s *spy) Builder(name string) compute.Builder { return &spyBuilder{s.Backend.Builder(name), s} }

func (b *spyBuilder) Compile() (compute.Executable, error) {
	e, err := b.Builder.Compile()
	b.s.last = e
	return e, err
}

// compileModel compiles the training step of a model.
func compileModel(t testing.TB, b compute.Backend, m model) compute.Executable {
	t.Helper()
	s := &spy{Backend: b}
	g := NewGraph(s, m.name)
	outs := m.step(g)
	if err := g.Compile(outs...); err != nil {
		t.Fatal(err)
	}
	return s.last
}

// inputs draws parameters and a batch.
func (m model) inputs(t testing.TB, b compute.Backend, seed uint64) []compute.Buffer {
	t.Helper()
	r := rand.New(rand.NewPCG(seed, 1))
	var bufs []compute.Buffer
	add := func(flat any, s shapes.Shape) {
		buf, err := b.BufferFromFlatData(0, flat, s)
		if err != nil {
			t.Fatal(err)
		}
		bufs = append(bufs, buf)
	}
	draw := func(s shapes.Shape, sd float64) {
		flat := make([]float32, s.Size())
		for i := range flat {
			flat[i] = float32(r.NormFloat64() * sd)
		}
		add(flat, s)
	}
	for _, s := range m.params {
		draw(s, 0.1)
	}
	for _, s := range m.params {
		draw(s, 0.01)
	}
	for i, s := range m.batch {
		if s.DType == dtypes.Float32 {
			draw(s, 1)
			continue
		}
		flat := make([]int32, s.Size())
		for j := range flat {
			flat[j] = r.Int32N(int32(m.limits[i]))
		}
		add(flat, s)
	}
	return bufs
}
