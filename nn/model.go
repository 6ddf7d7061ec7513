// Package nn makes architectures: functions over GoMLX graphs whose parameters are named, ordered and can be thinned.
//
// Three nouns:
//   - [Dim]: one feature axis, by name. A parameter's shape is a list of dims, so that "keep half of stage 2" means the same
//     positions in every tensor that touches stage 2.
//   - [Model]: one architecture at one width: its parameters, its norm layers, its cost, and Forward.
//   - [Pass]: one use of a model in a graph: parameters, mode, statistics and noise come in, batch statistics go out.
//
// [New] knows the architectures by name and makes them at any rate; [Config] describes them. A thin copy of a model is the
// same architecture at a smaller rate; [Index] says which coordinates of the wide model it holds.
//
// # Names and layouts
//
// A model's parameters load into a PyTorch module whose attributes have these names, with load_state_dict, and back:
// linear weights are [out, in], convolution kernels [out, in, height, width], norms weight and bias (and running_mean,
// running_var). Images are [batch, height, width, channels] here and are flattened in PyTorch's order, channel first.
//
//	linear       linear
//	location     location
//	mlp          linear1, norm1, linear2, norm2 …, linear
//	lenet        conv1, conv2, linear1 …, linear; norm1 … if asked for
//	cnn          conv1, norm1, conv2, norm2 …, linear
//	galcnn       as cnn
//	lstm         embedding (nn.Embedding, if asked for), lstm (nn.LSTM of one layer), linear
//	resnet       conv1, layer1.0.norm1, layer1.0.conv1, layer1.0.norm2, layer1.0.conv2, layer1.0.shortcut … (Sequentials
//	             layer1, layer2 …), norm, linear
//	wresnet      as resnet
//	transformer  embedding, position (nn.Embedding), embedding_norm, layers.0.attention.{q,k,v,o}, layers.0.norm1,
//	             layers.0.linear1, layers.0.linear2, layers.0.norm2 … (a ModuleList layers), decoder.linear1,
//	             decoder.norm, decoder.linear2
//	ars          encoder.linear1, encoder.norm1, encoder.linear2, encoder.norm2, decoder.linear1, decoder.norm1, decoder.linear2
//
// In PyTorch sbn is BatchNorm2d (BatchNorm1d for vectors) without tracked statistics, in, ln and gn are GroupNorm with as
// many groups as channels, 1 and 4; the transformer's norms are LayerNorm. All ε are 1e-5.
//
// Initial values have PyTorch's distributions, U(−1/√fan, 1/√fan) for weights and biases of linear and convolution layers,
// γ = 1 and β = 0, except in cnn, resnet and transformer, which follow HeteroFL: linear biases start at 0, feed-forward
// weights are N(0, 0.02²) and every encoder layer starts as a copy of the first. Linear biases of wresnet start at 0, too, and
// its kernels are N(0, 2/fan_out). The linear layers of ars are Xavier uniform. γ of galcnn is N(1, 0.02²). The weights and biases of
// lstm's layer are U(−1/√h, 1/√h), with h the width of its state.
//
// # Caveats
//
// Forward panics on inputs and parameters that do not fit, as graph functions do. Tokens outside the vocabulary are not
// detected. A pass with batch statistics needs [Model.MinBatch] examples.
package nn

import (
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/gomlx/core/graph"
)

// Dim is one axis of a parameter. Axes of the same name are the same features and are always thinned together; the height
// and width of a kernel are not features and have no name.
type Dim struct {
	Name   string
	Size   int  // features at rate 1
	Scaled bool // whether a thinner model has fewer
	Heads  int  // > 0: the axis is this many equally long heads, each thinned by itself
	// Block > 1: every feature spans Block neighbouring positions of the axis, as the channels of a flattened image do.
	// Such an axis is thinned by whole features, by the same ones as the other axes of its name.
	Block int
}

// At returns the length of d in a model of the given rate: ⌈rate·Size⌉ features, with heads Heads·⌈rate·Size/Heads⌉, times
// Block. The product is lowered by 1e-9 before it is rounded up, so that a rate such as 0.1 does not gain a position by
// representation error.
func (d Dim) At(rate float64) int { return d.features(rate) * max(1, d.Block) }

func (d Dim) features(rate float64) int {
	if !d.Scaled {
		return d.Size
	}
	if d.Heads > 0 {
		return d.Heads * ceil(float64(d.Size/d.Heads)*rate)
	}
	return ceil(float64(d.Size) * rate)
}

func ceil(x float64) int { return max(1, int(math.Ceil(x-1e-9))) }

// Role says what a parameter is for; methods select by role, never by name.
type Role uint8

// The roles of parameters.
const (
	Kernel    Role = iota // weight of a linear or convolution layer
	Bias                  // bias of a linear or convolution layer
	Embedding             // rows looked up by token or position
	NormScale             // γ of a norm layer
	NormShift             // β of a norm layer
	Buffer                // running statistics of a batch norm layer: not trained by gradients
)

// Param is one named tensor of a model.
type Param struct {
	Name string
	Dims []Dim
	Role Role
	Init Init
	// Labels marks the tensors whose first axis counts classes or tokens: final linear weight and bias, token embedding.
	// Count-based aggregation leaves out the rows of labels that a client has never seen.
	Labels bool
	// Head marks the tensors of the last dense layer, the default personal part of methods that have one.
	Head bool
	// BatchStats marks the tensors of a norm layer that uses statistics over the batch (γ, β and running values): what
	// FedBN keeps local.
	BatchStats bool
}

// Shape returns the shape of p in a model of the given rate.
func (p Param) Shape(rate float64) []int {
	s := make([]int, len(p.Dims))
	for i, d := range p.Dims {
		s[i] = d.At(rate)
	}
	return s
}

// Trained reports whether p is changed by gradients.
func (p Param) Trained() bool { return p.Role != Buffer }

// Init is a distribution of initial values.
type Init struct {
	Kind  InitKind
	Value float64 // bound, standard deviation or constant
	Mean  float64 // of a normal distribution
	// FanIn replaces Value by 1/√(inputs of one output): the elements of the weight that share a position of its first axis.
	// The weight is the parameter Of, or this one if Of is empty.
	FanIn bool
	Of    string
	// FanOut replaces Value by √(2/outputs of one input): the elements of the weight that share a position of its second axis.
	FanOut bool
	// Copy names a parameter whose initial values this one copies.
	Copy string
}

// InitKind selects a distribution.
type InitKind uint8

// The kinds of initial values.
const (
	Constant InitKind = iota
	Uniform           // U(−Value, Value)
	Normal            // N(Mean, Value²)
)

// Model is one architecture at one width.
type Model struct {
	Name    string   // e.g. "cnn", "resnet", "transformer"
	Rate    float64  // 1 is the full width
	Input   []int    // shape of one example: [height width channels], [features], [steps features] or [tokens]
	Tokens  bool     // whether the input is token ids (int32) instead of numbers
	Classes int      // width of the output: classes or vocabulary
	Params  []Param  // in the order of the network
	Norms   []Norm   // layers whose statistics static batch norm collects, in order
	Noise   []Noise  // dropout masks that training wants, in order
	Modules []Module // layers with parameters, for counting
	// MinBatch is the smallest batch that a pass with batch statistics can take: 2 if a batch norm layer sees one value a
	// channel and example, whose variance over a batch of one does not exist, else 1.
	MinBatch int
	// Forward builds the output [batch, …, Classes] for the input x [batch, Input…]. It reads p and appends to p.Batch.
	Forward func(p *Pass, x *graph.Node) *graph.Node
}

// Norm is one layer of static batch norm: Name + ".running_mean" and ".running_var" hold its evaluation statistics.
type Norm struct {
	Name string
	Dim  Dim
}

// Noise is one dropout mask: an input of shape [batch, Dims…] that holds 0 with probability Drop and 1/(1−Drop) else.
type Noise struct {
	Name string
	Dims []int
	Drop float64
}

// Pass is one use of a model in a graph.
type Pass struct {
	Params map[string]*graph.Node
	// Train selects training mode: batch statistics, the Scaler and dropout.
	Train bool
	// Scale is ρ, the width of this model relative to the global one: in training activations are divided by it (Scaler).
	// 0 and 1 switch the Scaler off.
	Scale float64
	// Stats holds evaluation statistics by name, as [Model.StatNames] lists them; nil, or training, means batch statistics.
	Stats map[string]*graph.Node
	// Noise holds the dropout masks by name in training.
	Noise map[string]*graph.Node
	// Batch receives what every layer of [Model.Norms] saw, in their order, unless Stats were used instead.
	Batch []BatchStat
	// Updated receives the new values of Buffer parameters in training.
	Updated map[string]*graph.Node
}

// BatchStat is what one static batch norm layer saw: mean and unbiased variance (n/(n−1)) a channel.
type BatchStat struct {
	Name      string
	Mean, Var *graph.Node
}

// StatNames returns the names of the evaluation statistics of m: mean and variance of every norm layer in order.
func (m *Model) StatNames() []string {
	names := make([]string, 0, 2*len(m.Norms))
	for _, n := range m.Norms {
		names = append(names, n.Name+".running_mean", n.Name+".running_var")
	}
	return names
}

// Param returns the parameter of that name.
func (m *Model) Param(name string) (Param, bool) {
	for _, p := range m.Params {
		if p.Name == name {
			return p, true
		}
	}
	return Param{}, false
}

// Zeros returns a set of m's parameters filled with 0.
func (m *Model) Zeros(d weights.DType) weights.Set {
	s := weights.NewSet(len(m.Params))
	for _, p := range m.Params {
		s.Put(p.Name, weights.NewTensor(d, p.Shape(m.Rate)...))
	}
	return s
}

// Initial returns m's parameters drawn from their initial distributions, in order, in float64 rounded to d.
func (m *Model) Initial(d weights.DType, r *rng.Stream) weights.Set {
	s := weights.NewSet(len(m.Params))
	for _, p := range m.Params {
		if p.Init.Copy != "" {
			s.Put(p.Name, s.Must(p.Init.Copy).Clone())
			continue
		}
		t := weights.NewTensor(d, p.Shape(m.Rate)...)
		v := p.Init.Value
		if p.Init.FanIn {
			v = 1 / math.Sqrt(float64(m.fanIn(p)))
		}
		if p.Init.FanOut {
			shape := p.Shape(m.Rate)
			v = math.Sqrt(2 / (float64(t.Len()) / float64(shape[1])))
		}
		for i := range t.Len() {
			switch p.Init.Kind {
			case Constant:
				t.SetAt(i, v)
			case Uniform:
				t.SetAt(i, r.Uniform(-v, v))
			case Normal:
				t.SetAt(i, p.Init.Mean+float64(v*r.NormFloat64()))
			}
		}
		s.Put(p.Name, t)
	}
	return s
}

// fanIn is the number of inputs of one output: the elements of the weight that share one position of its first axis.
func (m *Model) fanIn(p Param) int {
	if p.Init.Of != "" {
		q, ok := m.Param(p.Init.Of)
		if !ok {
			panic(fmt.Sprintf("nn: %s takes its fan from %s, which %s does not have", p.Name, p.Init.Of, m.Name))
		}
		p = q
	}
	n := 1
	for _, d := range p.Shape(m.Rate)[1:] {
		n *= d
	}
	return n
}

// Pick chooses which positions of a feature axis a thin model holds: keep of whole.
type Pick func(d Dim, whole, keep int) weights.Axis

// Leading picks the first positions, with heads the first positions of every head: the nested slices of HeteroFL
// (arXiv 2010.01264, section 3).
func Leading(d Dim, whole, keep int) weights.Axis {
	if d.Heads > 0 {
		return weights.Heads(d.Heads, keep/d.Heads)
	}
	return weights.Prefix(keep)
}

// Index returns which coordinates of whole a model of the given rate holds. Axes that are not scaled are taken whole; pick
// is asked once a name, so that all tensors that share features agree.
func Index(whole *Model, rate float64, pick Pick) weights.Index {
	ix := make(weights.Index, len(whole.Params))
	chosen := make(map[string]weights.Axis)
	for _, p := range whole.Params {
		axes := make([]weights.Axis, len(p.Dims))
		for i, d := range p.Dims {
			w, k := d.features(whole.Rate), d.features(rate)
			if !d.Scaled || w == k {
				continue
			}
			a, ok := chosen[d.Name]
			if !ok {
				unit := d
				unit.Block = 0
				a = pick(unit, w, k)
				chosen[d.Name] = a
			}
			axes[i] = spread(a, w, d.Block)
		}
		ix[p.Name] = axes
	}
	return ix
}

// spread turns positions of an axis of the given features into positions of an axis where each feature spans block
// neighbours.
func spread(a weights.Axis, features, block int) weights.Axis {
	if block <= 1 {
		return a
	}
	kept := a.Positions(features)
	leading := true
	list := make([]int32, 0, len(kept)*block)
	for i, p := range kept {
		leading = leading && int(p) == i
		for j := range block {
			list = append(list, p*int32(block)+int32(j))
		}
	}
	if leading {
		return weights.Prefix(len(list))
	}
	return weights.List(list)
}
