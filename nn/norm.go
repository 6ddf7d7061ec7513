package nn

import (
	"fmt"

	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
)

// NormKind selects a norm layer. Every kind but none has a scale γ and a shift β a channel and adds ε = 1e-5 to variances.
type NormKind string

// The kinds of norm layers.
const (
	// StaticBatchNorm uses the batch in training and keeps nothing; evaluation statistics are collected once afterwards
	// and given as [Pass.Stats] (HeteroFL, section 3).
	StaticBatchNorm NormKind = "sbn"
	// BatchNorm uses the batch in training and updates running statistics, v ← 0.9·v + 0.1·batch with the unbiased
	// variance, which evaluation uses.
	BatchNorm NormKind = "bn"
	// InstanceNorm normalises every channel of every example by itself.
	InstanceNorm NormKind = "in"
	// LayerNorm normalises every example over all its channels and positions.
	LayerNorm NormKind = "ln"
	// GroupNorm normalises every example over each of 4 groups of neighbouring channels.
	GroupNorm NormKind = "gn"
	// NoNorm is the identity.
	NoNorm NormKind = "none"
)

const (
	normEps      = 1e-5
	normMomentum = 0.1
	normGroups   = 4
)

// normalize adds a norm layer of the model's kind for images or vectors of the features in.
func (b *builder) normalize(name string, in features) layer { return b.normOf(b.norm, name, in) }

func (b *builder) normOf(kind NormKind, name string, in features) layer {
	if kind == NoNorm {
		return chain()
	}
	m := b.model
	channels := b.at(in.dim)
	batch := kind == StaticBatchNorm || kind == BatchNorm
	m.Params = append(m.Params,
		Param{Name: name + ".weight", Dims: []Dim{in.dim}, Role: NormScale, Init: b.scale, BatchStats: batch},
		Param{Name: name + ".bias", Dims: []Dim{in.dim}, Role: NormShift, BatchStats: batch})
	m.Modules = append(m.Modules, Module{Name: name, Params: []string{name + ".weight", name + ".bias"},
		Ops: 2 * int64(channels) * int64(in.positions())})

	switch kind {
	case StaticBatchNorm:
		m.Norms = append(m.Norms, Norm{Name: name, Dim: in.dim})
	case BatchNorm:
		m.Params = append(m.Params,
			Param{Name: name + ".running_mean", Dims: []Dim{in.dim}, Role: Buffer, BatchStats: true},
			Param{Name: name + ".running_var", Dims: []Dim{in.dim}, Role: Buffer, Init: Init{Value: 1}, BatchStats: true})
	}
	if batch {
		if in.positions() == 1 {
			m.MinBatch = 2
		}
		return func(p *Pass, x *graph.Node) *graph.Node { return p.batchNorm(kind, name, x) }
	}

	groups := map[NormKind]int{InstanceNorm: channels, LayerNorm: 1, GroupNorm: normGroups}[kind]
	if channels%groups != 0 {
		b.fail("%s: group norm needs a multiple of %d channels and has %d: use wider layers or another norm",
			name, groups, channels)
	}
	if channels/groups*in.positions() == 1 {
		b.fail("%s: norm %q sees a single value (%d channels in %d groups at %d×%d), which it turns into 0: "+
			"use wider layers, larger images or another norm", name, kind, channels, groups, in.height, in.width)
	}
	return func(p *Pass, x *graph.Node) *graph.Node { return p.groupNorm(groups, name, x) }
}

// batchNorm returns (x − μ)/√(σ² + ε)·γ + β a channel, the last axis of x: with mean and biased variance of the batch
// (Ioffe and Szegedy 2015), or in evaluation with the statistics given.
func (p *Pass) batchNorm(kind NormKind, name string, x *graph.Node) *graph.Node {
	gamma, beta := p.Params[name+".weight"], p.Params[name+".bias"]
	if !p.Train && (kind == BatchNorm || p.Stats != nil) {
		stats := p.Stats
		if kind == BatchNorm {
			stats = p.Params
		}
		mean, variance := stats[name+".running_mean"], stats[name+".running_var"]
		if mean == nil || variance == nil {
			panic(fmt.Sprintf("nn: evaluation statistics of %s are missing", name))
		}
		return affine(graph.Sub(x, toRank(mean, x)), toRank(variance, x), toRank(gamma, x), toRank(beta, x))
	}

	channels := x.Shape().Dimensions[x.Rank()-1]
	n := x.Shape().Size() / channels
	if n < 2 {
		panic(fmt.Sprintf("nn: %s needs more than one value a channel for its variance, x is %s", name, x.Shape()))
	}
	y, mean, variance := normalizeBatch(x, gamma, beta)
	unbiased := graph.MulScalar(variance, float64(n)/float64(n-1))
	if kind == StaticBatchNorm {
		p.Batch = append(p.Batch, BatchStat{Name: name, Mean: mean, Var: unbiased})
		return y
	}
	p.update(name+".running_mean", mean)
	p.update(name+".running_var", unbiased)
	return y
}

func (p *Pass) update(name string, batch *graph.Node) {
	if p.Updated == nil {
		p.Updated = make(map[string]*graph.Node)
	}
	p.Updated[name] = graph.Add(
		graph.MulScalar(p.Params[name], 1-normMomentum), graph.MulScalar(graph.StopGradient(batch), normMomentum))
}

// normalizeBatch returns x normalised over all axes but the last, and mean and biased variance [channels]. Engines that
// have batch norm as one operation run that one; for the others it is written out with the variance in two passes,
// mean((x−μ)²), because E[x²]−μ² cancels. No gradient flows through the returned statistics.
func normalizeBatch(x, gamma, beta *graph.Node) (y, mean, variance *graph.Node) {
	ops := x.Graph().Backend().Capabilities().Operations
	if ops[compute.OpTypeBatchNormForTraining] && ops[compute.OpTypeBatchNormGradient] {
		y, mean, variance = graph.InternalBatchNormForTraining(x, gamma, beta, normEps, -1)
		return y, graph.StopGradient(mean), graph.StopGradient(variance)
	}
	axes := make([]int, x.Rank()-1)
	for i := range axes {
		axes[i] = i
	}
	m := graph.ReduceAndKeep(x, graph.ReduceMean, axes...)
	d := graph.Sub(x, m)
	v := graph.ReduceAndKeep(graph.Square(d), graph.ReduceMean, axes...)
	y = affine(d, v, toRank(gamma, x), toRank(beta, x))
	return y, graph.StopGradient(graph.Reshape(m, -1)), graph.StopGradient(graph.Reshape(v, -1))
}

// affine returns d/√(v + ε)·γ + β. The three statistics are joined before they meet d, the only large tensor.
func affine(d, v, gamma, beta *graph.Node) *graph.Node {
	return graph.Add(graph.Mul(d, graph.Div(gamma, graph.Sqrt(graph.AddScalar(v, normEps)))), beta)
}

// groupNorm returns x normalised for each example over the positions and channels of each of equally many neighbouring
// channels (Wu and He 2018): 1 group is layer norm, as many as channels is instance norm.
func (p *Pass) groupNorm(groups int, name string, x *graph.Node) *graph.Node {
	shape := x.Shape().Dimensions
	batch, channels := shape[0], shape[len(shape)-1]
	g := graph.Reshape(x, batch, -1, groups, channels/groups)
	d := graph.Sub(g, graph.ReduceAndKeep(g, graph.ReduceMean, 1, 3))
	v := graph.ReduceAndKeep(graph.Square(d), graph.ReduceMean, 1, 3)
	y := graph.Div(d, graph.Sqrt(graph.AddScalar(v, normEps)))
	y = graph.Reshape(y, shape...)
	return graph.Add(graph.Mul(y, toRank(p.Params[name+".weight"], x)), toRank(p.Params[name+".bias"], x))
}

// tokenNorm adds layer norm over the last axis of every position by itself, as sequences use it.
func (b *builder) tokenNorm(name string, in features) layer {
	// Counted and initialised as the other norms; one token is one example of width in.dim.
	b.normOf(LayerNorm, name, in)
	return func(p *Pass, x *graph.Node) *graph.Node {
		d := graph.Sub(x, graph.ReduceAndKeep(x, graph.ReduceMean, -1))
		v := graph.ReduceAndKeep(graph.Square(d), graph.ReduceMean, -1)
		y := graph.Div(d, graph.Sqrt(graph.AddScalar(v, normEps)))
		return graph.Add(graph.Mul(y, toRank(p.Params[name+".weight"], x)), toRank(p.Params[name+".bias"], x))
	}
}

// toRank gives a vector of channels leading axes of length 1, so that it meets the last axis of x.
func toRank(v, x *graph.Node) *graph.Node { return graph.ExpandLeftToRank(v, x.Rank()) }

var normKinds = []NormKind{StaticBatchNorm, BatchNorm, InstanceNorm, LayerNorm, GroupNorm, NoNorm}
