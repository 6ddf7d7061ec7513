package main

import (
	"fmt"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/gomlx/core/graph"

	"github.com/cohort-learning/cohort/nn"
)

// Models that package nn does not have, with the parameters of their PyTorch counterparts.

// layers collects the parameters of a model.
type layers struct{ m *nn.Model }

// param adds a parameter with uniform initial values in ±1/√fan, fan being its inputs, or those of
// the parameter of.
func (l layers) param(name, of string, role nn.Role, dims ...int) {
	p := nn.Param{Name: name, Role: role, Init: nn.Init{Kind: nn.Uniform, FanIn: true, Of: of}}
	for i, d := range dims {
		p.Dims = append(p.Dims, nn.Dim{Name: fmt.Sprintf("%s.%d", name, i), Size: d})
	}
	l.m.Params = append(l.m.Params, p)
}

// linear adds y = x·Wᵀ + b on the last axis, for a number of positions an example.
func (l layers) linear(name string, in, out, positions int) func(p *nn.Pass, x *graph.Node) *graph.Node {
	w, bias := name+".weight", name+".bias"
	l.param(w, "", nn.Kernel, out, in)
	l.param(bias, w, nn.Bias, out)
	l.count(name, in*out*positions)
	return func(p *nn.Pass, x *graph.Node) *graph.Node {
		y := graph.DotGeneral(x, []int{x.Rank() - 1}, nil, p.Params[w], []int{1}, nil)
		return graph.Add(y, graph.ExpandLeftToRank(p.Params[bias], y.Rank()))
	}
}

// count notes the multiply-adds of a layer for one example.
func (l layers) count(name string, macs int) {
	l.m.Modules = append(l.m.Modules, nn.Module{Name: name, MACs: int64(macs)})
}

// conv adds a convolution without bias from images of size×size to images smaller by the stride.
func (l layers) conv(name string, size, in, out, kernel, stride int) func(p *nn.Pass, x *graph.Node) *graph.Node {
	w := name + ".weight"
	l.param(w, "", nn.Kernel, out, in, kernel, kernel)
	l.count(name, in*out*kernel*kernel*size*size/(stride*stride))
	c := Case{KH: kernel, KW: kernel, Stride: stride, Pad: kernel / 2, Dil: 1, Groups: 1}
	return func(p *nn.Pass, x *graph.Node) *graph.Node { return convolve(c, x, p.Params[w]) }
}

// norm adds batch norm by the statistics of the batch, followed by ReLU.
func (l layers) norm(name string, n int) func(p *nn.Pass, x *graph.Node) *graph.Node {
	dim := []nn.Dim{{Name: name, Size: n}}
	l.m.Params = append(l.m.Params,
		nn.Param{Name: name + ".weight", Dims: dim, Role: nn.NormScale, Init: nn.Init{Value: 1}, BatchStats: true},
		nn.Param{Name: name + ".bias", Dims: dim, Role: nn.NormShift, BatchStats: true})
	l.m.Norms = append(l.m.Norms, nn.Norm{Name: name, Dim: dim[0]})
	return func(p *nn.Pass, x *graph.Node) *graph.Node {
		if !x.Graph().Backend().Capabilities().Operations[compute.OpTypeBatchNormForTraining] {
			panic("the backend has no batch norm for training")
		}
		y, mean, variance := graph.InternalBatchNormForTraining(x, p.Params[name+".weight"], p.Params[name+".bias"], 1e-5, -1)
		p.Batch = append(p.Batch, nn.BatchStat{Name: name, Mean: graph.StopGradient(mean), Var: graph.StopGradient(variance)})
		return nn.ReLU(y)
	}
}

// wideResNet is WRN-28-2 (Zagoruyko and Komodakis 2016, arXiv 1605.07146) for 32×32 images of ten
// classes: a convolution to 16 channels, three stages of four pre-activation blocks with 32, 64
// and 128 channels, the mean over positions and a linear layer.
func wideResNet() *nn.Model {
	m := &nn.Model{Name: "wrn-28-2", Rate: 1, Input: []int{32, 32, 3}, Classes: 10, MinBatch: 1}
	l := layers{m}
	type layer = func(p *nn.Pass, x *graph.Node) *graph.Node
	run := []layer{l.conv("conv1", 32, 3, 16, 3, 1)}
	in, size := 16, 32
	for i, out := range []int{32, 64, 128} {
		for j := range 4 {
			name, stride := fmt.Sprintf("layer%d.%d", i+1, j), 1
			if i > 0 && j == 0 {
				stride = 2
			}
			norm1, conv1 := l.norm(name+".norm1", in), l.conv(name+".conv1", size, in, out, 3, stride)
			norm2, conv2 := l.norm(name+".norm2", out), l.conv(name+".conv2", size/stride, out, out, 3, 1)
			var shortcut layer
			if in != out || stride != 1 {
				shortcut = l.conv(name+".shortcut", size, in, out, 1, stride)
			}
			run = append(run, func(p *nn.Pass, x *graph.Node) *graph.Node {
				a := norm1(p, x)
				if shortcut != nil {
					x = shortcut(p, a)
				}
				return graph.Add(x, conv2(p, norm2(p, conv1(p, a))))
			})
			in, size = out, size/stride
		}
	}
	run = append(run, l.norm("norm", in),
		func(_ *nn.Pass, x *graph.Node) *graph.Node { return graph.ReduceMean(x, 1, 2) },
		l.linear("linear", in, m.Classes, 1))
	m.Forward = func(p *nn.Pass, x *graph.Node) *graph.Node {
		for _, f := range run {
			x = f(p, x)
		}
		return x
	}
	return m
}

// lstm is the medium language model of Zaremba et al. 2014 (arXiv 1409.2329) without dropout: an
// embedding of 10,000 words, two LSTM layers of 650 units over 35 positions, unrolled, and a
// linear layer to the vocabulary. As in PyTorch every gate has two biases, and the gates stand in
// the order input, forget, cell, output.
func lstm() *nn.Model {
	const vocabulary, width, steps = 10000, 650, 35
	m := &nn.Model{Name: "lstm", Rate: 1, Input: []int{steps}, Tokens: true, Classes: vocabulary, MinBatch: 1}
	l := layers{m}
	l.param("embedding.weight", "", nn.Embedding, vocabulary, width)
	type layer = func(p *nn.Pass, x *graph.Node) *graph.Node
	var stack []layer
	for i := range 2 {
		input := l.linear(fmt.Sprintf("lstm%d.input", i), width, 4*width, steps)
		hidden := l.linear(fmt.Sprintf("lstm%d.hidden", i), width, 4*width, steps)
		stack = append(stack, func(p *nn.Pass, x *graph.Node) *graph.Node { // x is [batch, steps, width]
			gates := input(p, x) // of all steps at once
			batch := x.Shape().Dimensions[0]
			h := graph.Zeros(x.Graph(), x.Shape().Clone())
			h = graph.Reshape(graph.Slice(h, graph.AxisRange(), graph.AxisElem(0), graph.AxisRange()), batch, width)
			c := h
			var outputs []*graph.Node
			for t := range steps {
				g := graph.Slice(gates, graph.AxisRange(), graph.AxisElem(t), graph.AxisRange())
				g = graph.Add(graph.Reshape(g, batch, 4*width), hidden(p, h))
				gate := func(k int) *graph.Node {
					return graph.Slice(g, graph.AxisRange(), graph.AxisRange(k*width, (k+1)*width))
				}
				c = graph.Add(graph.Mul(graph.Logistic(gate(1)), c), graph.Mul(graph.Logistic(gate(0)), graph.Tanh(gate(2))))
				h = graph.Mul(graph.Logistic(gate(3)), graph.Tanh(c))
				outputs = append(outputs, h)
			}
			return graph.Stack(outputs, 1)
		})
	}
	decoder := l.linear("decoder", width, vocabulary, steps)
	m.Forward = func(p *nn.Pass, x *graph.Node) *graph.Node {
		e := p.Params["embedding.weight"]
		x = graph.Gather(e, graph.InsertAxes(graph.ConvertDType(x, dtypes.Int32), -1))
		for _, f := range stack {
			x = f(p, x)
		}
		return decoder(p, x)
	}
	return m
}
