package nn

import (
	"fmt"
	"math"
	"testing"

	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// job is one forward and backward pass of a model outside of any training loop.
type job struct {
	model   *Model
	params  weights.Set
	x       weights.Tensor // numbers, or tokens as numbers
	train   bool
	scale   float64
	stats   weights.Set // evaluation statistics; empty for batch statistics
	noise   weights.Set
	cotan   weights.Tensor  // weights of the outputs in the loss Σ cotan·y; empty for no gradients
	backend compute.Backend // nil is the Go engine
}

// outcome holds what a job computed.
type outcome struct {
	y       weights.Tensor
	grads   weights.Set // of the trained parameters and, for numbers, of "x"
	batch   weights.Set // batch statistics as Name.mean and Name.var
	updated weights.Set
}

type jobGraph struct {
	g      *graph.Graph
	inputs []weights.Tensor
	tokens map[int]bool
}

func (j *jobGraph) parameter(name string, t weights.Tensor, tokens bool) *graph.Node {
	dt := dtypes.Float32
	switch {
	case tokens:
		dt = dtypes.Int32
		j.tokens[len(j.inputs)] = true
	case t.DType() == weights.Float64:
		dt = dtypes.Float64
	}
	j.inputs = append(j.inputs, t)
	return graph.Parameter(j.g, name, shapes.Make(dt, t.Shape...))
}

func (j *jobGraph) run() []weights.Tensor {
	args := make([]any, len(j.inputs))
	for i, t := range j.inputs {
		switch {
		case j.tokens[i]:
			ids := make([]int32, t.Len())
			for k := range ids {
				ids[k] = int32(t.At(k))
			}
			args[i] = tensors.FromFlatDataAndDimensions(ids, t.Shape...)
		case t.DType() == weights.Float64:
			args[i] = tensors.FromFlatDataAndDimensions(t.F64, t.Shape...)
		default:
			args[i] = tensors.FromFlatDataAndDimensions(t.F32, t.Shape...)
		}
	}
	out := j.g.Run(args...)
	result := make([]weights.Tensor, len(out))
	for i, t := range out {
		if t.DType() == dtypes.Float64 {
			result[i] = weights.Of64(tensors.MustCopyFlatData[float64](t), t.Shape().Dimensions...)
		} else {
			result[i] = weights.Of32(tensors.MustCopyFlatData[float32](t), t.Shape().Dimensions...)
		}
	}
	return result
}

// compiled is a job whose graph can be run again with other inputs of the same shapes.
type compiled struct {
	graph  jobGraph
	finish func([]weights.Tensor) outcome
}

func (jb job) compile() *compiled {
	backend := jb.backend
	if backend == nil {
		backend = gobackend.GetBackend()
	}
	c := &compiled{graph: jobGraph{g: graph.NewGraph(backend, "nn test"), tokens: map[int]bool{}}}
	jg := &c.graph
	p := &Pass{Params: map[string]*graph.Node{}, Train: jb.train, Scale: jb.scale}
	x := jg.parameter("x", jb.x, jb.model.Tokens)
	var wrt []*graph.Node
	var wrtNames []string
	for _, q := range jb.model.Params {
		n := jg.parameter(q.Name, jb.params.Must(q.Name), false)
		p.Params[q.Name] = n
		if q.Trained() {
			wrt, wrtNames = append(wrt, n), append(wrtNames, q.Name)
		}
	}
	if !jb.model.Tokens {
		wrt, wrtNames = append(wrt, x), append(wrtNames, "x")
	}
	nodes := func(s weights.Set) map[string]*graph.Node {
		if s.Len() == 0 {
			return nil
		}
		m := map[string]*graph.Node{}
		for name, t := range s.All() {
			m[name] = jg.parameter("side."+name, t, false)
		}
		return m
	}
	p.Stats, p.Noise = nodes(jb.stats), nodes(jb.noise)

	y := jb.model.Forward(p, x)
	outputs := []*graph.Node{y}
	if jb.cotan.Len() > 0 {
		loss := graph.ReduceAllSum(graph.Mul(y, jg.parameter("cotangent", jb.cotan, false)))
		outputs = append(outputs, graph.Gradient(loss, wrt...)...)
	} else {
		wrtNames = nil
	}
	for _, s := range p.Batch {
		outputs = append(outputs, s.Mean, s.Var)
	}
	var updated []string
	for _, q := range jb.model.Params {
		if n, ok := p.Updated[q.Name]; ok {
			updated = append(updated, q.Name)
			outputs = append(outputs, n)
		}
	}
	if err := jg.g.Compile(outputs...); err != nil {
		panic(err)
	}
	c.finish = func(out []weights.Tensor) outcome {
		o := outcome{y: out[0]}
		out = out[1:]
		take := func(s *weights.Set, name string) {
			s.Put(name, out[0])
			out = out[1:]
		}
		for _, name := range wrtNames {
			take(&o.grads, name)
		}
		for _, s := range p.Batch {
			take(&o.batch, s.Name+".mean")
			take(&o.batch, s.Name+".var")
		}
		for _, name := range updated {
			take(&o.updated, name)
		}
		return o
	}
	return c
}

func (c *compiled) run() outcome { return c.finish(c.graph.run()) }

func (jb job) run() outcome { return jb.compile().run() }

// build makes a model or ends the test.
func build(t testing.TB, name string, c Config, rate float64) *Model {
	t.Helper()
	b, err := New(name, c)
	if err != nil {
		t.Fatal(err)
	}
	m, err := b(rate)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// random fills a tensor with normal numbers.
func random(d weights.DType, r *rng.Stream, shape ...int) weights.Tensor {
	t := weights.NewTensor(d, shape...)
	for i := range t.Len() {
		t.SetAt(i, r.NormFloat64())
	}
	return t
}

// example returns a random batch for m: numbers, or tokens up to and including the mask.
func example(m *Model, d weights.DType, r *rng.Stream, batch int) weights.Tensor {
	x := random(d, r, append([]int{batch}, m.Input...)...)
	if m.Tokens {
		for i := range x.Len() {
			x.SetAt(i, float64(r.IntN(m.Classes+1)))
		}
	}
	return x
}

// jobFor returns a job with random parameters (none at a symmetric point), input, cotangents and dropout masks.
func jobFor(m *Model, d weights.DType, seed uint64, batch int) job {
	r := rng.New(seed, 0, "", "nn test")
	params := m.Initial(d, r)
	for name, t := range params.All() {
		q, _ := m.Param(name)
		for i := range t.Len() {
			switch v := r.NormFloat64(); q.Role {
			case NormScale, Buffer:
				t.SetAt(i, 1+0.2*math.Abs(v))
			case Bias, NormShift:
				t.SetAt(i, 0.2*v)
			}
		}
	}
	x := example(m, d, r, batch)
	out := []int{batch}
	if m.Tokens {
		out = append(out, m.Input[0])
	}
	jb := job{model: m, params: params, x: x, cotan: random(d, r, append(out, m.Classes)...)}
	for _, n := range m.Noise {
		mask := weights.NewTensor(d, append([]int{batch}, n.Dims...)...)
		for i := range mask.Len() {
			if r.Float64() >= n.Drop {
				mask.SetAt(i, 1/(1-n.Drop))
			}
		}
		jb.noise.Put(n.Name, mask)
	}
	return jb
}

// worst returns the largest |a−b| over the largest |b|.
func worst(a, b weights.Tensor) float64 {
	if fmt.Sprint(a.Shape) != fmt.Sprint(b.Shape) {
		panic(fmt.Sprintf("shapes %v and %v", a.Shape, b.Shape))
	}
	var diff, size float64
	for i := range a.Len() {
		diff = math.Max(diff, math.Abs(a.At(i)-b.At(i)))
		size = math.Max(size, math.Abs(b.At(i)))
		if math.IsNaN(a.At(i)) || math.IsNaN(b.At(i)) {
			return math.NaN()
		}
	}
	if size == 0 {
		return diff
	}
	return diff / size
}
