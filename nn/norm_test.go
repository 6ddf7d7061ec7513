package nn

import (
	"math"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"

	"github.com/cohort-learning/cohort/weights"
)

// normOnly is a model of one batch norm layer behind the Scaler, on vectors of two features.
func normOnly(kind NormKind) *Model {
	b := newBuilder("norm only", Config{Input: []int{2}, Classes: 2}, 1)
	m, err := b.done(chain(scaler, b.normOf(kind, "norm", b.input())))
	if err != nil {
		panic(err)
	}
	return m
}

// TestBatchNormValues checks the worked example of the HeteroFL specification, I7: the Scaler before a batch norm only
// turns ε into ρ²·ε.
func TestBatchNormValues(t *testing.T) {
	m := normOnly(StaticBatchNorm)
	jb := job{model: m, params: m.Initial(weights.Float64, nil), train: true,
		x: weights.Of64([]float64{1, 2, 3, -1, 0, 4}, 3, 2)}
	y := jb.run().y
	want := []float64{-.267260, .162221, 1.336302, -1.297770, -1.069042, 1.135549}
	for i, w := range want {
		if math.Abs(y.At(i)-w) > 1e-6 {
			t.Errorf("y[%d] = %.7f, want %.6f", i, y.At(i), w)
		}
	}

	jb.scale = 0.25
	scaled := jb.run().y
	var diff float64
	for i := range want {
		diff = math.Max(diff, math.Abs(scaled.At(i)-y.At(i)))
		col := []float64{1, 3, 0}
		if i%2 == 1 {
			col = []float64{2, -1, 4}
		}
		mean := (col[0] + col[1] + col[2]) / 3
		var v float64
		for _, c := range col {
			v += (c - mean) * (c - mean) / 3
		}
		if exact := (col[i/2] - mean) / math.Sqrt(v+1e-5*0.25*0.25); math.Abs(scaled.At(i)-exact) > 1e-12 {
			t.Errorf("with ρ = 1/4, y[%d] = %.15f, want %.15f", i, scaled.At(i), exact)
		}
	}
	if math.Abs(diff-4.05e-6) > 0.05e-6 {
		t.Errorf("ρ = 1/4 moves the output by at most %.3g, want 4.05e-06", diff)
	}
}

// TestScalerOnlyInTraining checks that evaluation does not depend on ρ and that training does, wherever no norm hides it.
func TestScalerOnlyInTraining(t *testing.T) {
	image := Config{Input: []int{8, 8, 2}, Classes: 3, Widths: []int{4, 8}}
	for name, c := range map[string]Config{
		"mlp":         {Input: []int{4}, Classes: 3},
		"cnn":         image,
		"lenet":       image,
		"resnet":      {Input: image.Input, Classes: 3, Widths: image.Widths, Blocks: []int{1, 1}},
		"transformer": {Vocabulary: 7, Tokens: 4, Embedding: 8, Heads: 2, FeedForward: 6, Layers: 1, Dropout: new(0.0)},
	} {
		if name == "cnn" || name == "resnet" {
			c.Norm = NoNorm
		}
		jb := jobFor(build(t, name, c, 1), weights.Float64, 5, 2)
		jb.cotan = weights.Tensor{}
		plain := jb.run().y
		jb.scale = 0.25
		if y := jb.run().y; !y.Equal(plain) {
			t.Errorf("%s: the Scaler changes evaluation", name)
		}
		jb.train = true
		if y := jb.run().y; worst(y, plain) < 1e-3 {
			t.Errorf("%s: the Scaler does not change training", name)
		}
		jb.scale = 1
		if y := jb.run().y; !y.Equal(plain) {
			t.Errorf("%s: ρ = 1 changes training", name)
		}
	}
}

// TestMinBatch checks that a batch of one is refused exactly where a batch norm sees one value a channel.
func TestMinBatch(t *testing.T) {
	for _, c := range []struct {
		name   string
		config Config
		want   int
	}{
		{"cnn", Config{Input: []int{8, 8, 1}, Classes: 2}, 2},
		{"cnn", Config{Input: []int{28, 28, 1}, Classes: 2}, 1},
		{"cnn", Config{Input: []int{8, 8, 1}, Classes: 2, Norm: LayerNorm}, 1},
		{"mlp", Config{Input: []int{3}, Classes: 2, Norm: BatchNorm}, 2},
		{"mlp", Config{Input: []int{3}, Classes: 2}, 1},
	} {
		m := build(t, c.name, c.config, 0.0625)
		if m.MinBatch != c.want {
			t.Errorf("%s %v %q: smallest batch %d, want %d", c.name, c.config.Input, c.config.Norm, m.MinBatch, c.want)
		}
		jb := jobFor(m, weights.Float32, 1, 1)
		jb.train = true
		if got := panics(func() { jb.compile() }); got != (c.want == 2) {
			t.Errorf("%s %v %q: training on one example panics: %v", c.name, c.config.Input, c.config.Norm, got)
		}
	}
}

func panics(f func()) (yes bool) {
	defer func() { yes = recover() != nil }()
	f()
	return false
}

// TestBatchNormAsOneOperation checks that an engine with batch norm as one operation gives what the written-out form gives.
func TestBatchNormAsOneOperation(t *testing.T) {
	for _, d := range []weights.DType{weights.Float32, weights.Float64} {
		jb := jobFor(build(t, "cnn", Config{Input: []int{6, 5, 2}, Classes: 3, Widths: []int{4, 8}}, 1), d, 3, 4)
		jb.train = true
		plain := jb.run()
		engine := &normBackend{Backend: gobackend.GetBackend()}
		jb.backend = engine
		fused := jb.run()
		if engine.used != 2 {
			t.Fatalf("the operation was used %d times for 2 norm layers and as often backwards, want 2", engine.used)
		}
		tol := map[weights.DType]float64{weights.Float32: 2e-5, weights.Float64: 1e-7}[d] // the operation's ε is a float32
		if e := worst(fused.y, plain.y); e > tol {
			t.Errorf("%v: outputs differ by %.2g", d, e)
		}
		for name, g := range plain.grads.All() {
			if maxAbs(g) < 1e-4 {
				continue // biases before a norm: 0 but for rounding
			}
			if e := worst(fused.grads.Must(name), g); e > tol {
				t.Errorf("%v: gradients of %s differ by %.2g", d, name, e)
			}
		}
		for name, s := range plain.batch.All() {
			if e := worst(fused.batch.Must(name), s); e > tol {
				t.Errorf("%v: %s differ by %.2g", d, name, e)
			}
		}
	}
}

// normBackend is the Go engine with batch norm added as one operation, computed by its closed forms:
// y = x̂·γ + β, dγ = Σ g·x̂, dβ = Σ g, dx = γ/(n·σ)·(n·g − Σ g − x̂·Σ g·x̂).
type normBackend struct {
	compute.Backend
	used int
}

func (b *normBackend) Capabilities() compute.Capabilities {
	c := b.Backend.Capabilities().Clone()
	c.Operations[compute.OpTypeBatchNormForTraining] = true
	c.Operations[compute.OpTypeBatchNormGradient] = true
	return c
}

func (b *normBackend) Builder(name string) compute.Builder {
	inner := b.Backend.Builder(name)
	return &normBuilder{inner, &normFunction{inner.Main(), b}}
}

type normBuilder struct {
	compute.Builder
	main *normFunction
}

func (b *normBuilder) Main() compute.Function { return b.main }

type normFunction struct {
	compute.Function
	backend *normBackend
}

// values writes formulas over the operations of a function; it panics where they fail.
type values struct {
	f     compute.Function
	shape shapes.Shape
	axes  []int
}

func (v values) op(f func(a, b compute.Value) (compute.Value, error), a, b compute.Value) compute.Value {
	out, err := f(a, b)
	if err != nil {
		panic(err)
	}
	return out
}

func (v values) mul(a, b compute.Value) compute.Value { return v.op(v.f.Mul, a, b) }
func (v values) sub(a, b compute.Value) compute.Value { return v.op(v.f.Sub, a, b) }
func (v values) add(a, b compute.Value) compute.Value { return v.op(v.f.Add, a, b) }

func (v values) sum(x compute.Value) compute.Value {
	out, err := v.f.ReduceSum(x, v.axes...)
	if err != nil {
		panic(err)
	}
	return out
}

// wide broadcasts a vector of channels, or a number, to the shape of the images.
func (v values) wide(x compute.Value) compute.Value {
	out, err := v.f.BroadcastInDim(x, v.shape, []int{v.shape.Rank() - 1})
	if err != nil {
		panic(err)
	}
	return out
}

func (v values) vector(x float64) compute.Value {
	n := v.shape.Dimensions[v.shape.Rank()-1]
	var out compute.Value
	var err error
	if v.shape.DType == dtypes.Float64 {
		flat := make([]float64, n)
		for i := range flat {
			flat[i] = x
		}
		out, err = v.f.Constant(flat, n)
	} else {
		flat := make([]float32, n)
		for i := range flat {
			flat[i] = float32(x)
		}
		out, err = v.f.Constant(flat, n)
	}
	if err != nil {
		panic(err)
	}
	return out
}

func (f *normFunction) values(x compute.Value, axis int) (values, float64) {
	shape, err := f.Builder().OpShape(x)
	if err != nil || axis != shape.Rank()-1 {
		panic("batch norm of the test engine takes the last axis")
	}
	v := values{f: f.Function, shape: shape}
	for i := range shape.Rank() - 1 {
		v.axes = append(v.axes, i)
	}
	return v, float64(shape.Size() / shape.Dimensions[axis])
}

func (f *normFunction) BatchNormForTraining(x, gamma, beta compute.Value, eps float32, axis int) (y, mean, variance compute.Value, err error) {
	f.backend.used++
	v, n := f.values(x, axis)
	mean = v.mul(v.sum(x), v.vector(1/n))
	d := v.sub(x, v.wide(mean))
	variance = v.mul(v.sum(v.mul(d, d)), v.vector(1/n))
	inv, err := f.Rsqrt(v.add(variance, v.vector(float64(eps))))
	return v.add(v.mul(v.mul(d, v.wide(inv)), v.wide(gamma)), v.wide(beta)), mean, variance, err
}

func (f *normFunction) BatchNormGradient(x, gamma, mean, variance, g compute.Value, eps float32, axis int) (dx, dGamma, dBeta compute.Value, err error) {
	v, n := f.values(x, axis)
	inv, err := f.Rsqrt(v.add(variance, v.vector(float64(eps))))
	normal := v.mul(v.sub(x, v.wide(mean)), v.wide(inv))
	dBeta, dGamma = v.sum(g), v.sum(v.mul(g, normal))
	inner := v.sub(v.sub(v.mul(g, v.wide(v.vector(n))), v.wide(dBeta)), v.mul(normal, v.wide(dGamma)))
	return v.mul(inner, v.wide(v.mul(v.mul(gamma, inv), v.vector(1/n)))), dGamma, dBeta, err
}

// TestVarianceDoesNotCancel checks that a small variance around a large mean survives float32, which E[x²]−μ² does not.
func TestVarianceDoesNotCancel(t *testing.T) {
	m := normOnly(BatchNorm)
	jb := job{model: m, params: m.Initial(weights.Float32, nil), train: true,
		x: weights.Of32([]float32{4096, 1, 4097, 2, 4098, 3, 4099, 4}, 4, 2)}
	o := jb.run()
	for i := range 4 {
		if a, b := o.y.At(2*i), o.y.At(2*i+1); math.Abs(a-b) > 1e-6 {
			t.Errorf("around 4097 %v, around 2 %v", a, b)
		}
	}
	// 0.9·1 + 0.1·(5/3): the running variance is unbiased.
	if v := o.updated.Must("norm.running_var"); math.Abs(v.At(0)-(0.9+0.5/3)) > 1e-6 {
		t.Errorf("running variance %v, want %v", v.At(0), 0.9+0.5/3)
	}
}

// TestPoolAndReLUTies checks the two conventions of PyTorch that decide gradients at ties.
func TestPoolAndReLUTies(t *testing.T) {
	b := newBuilder("pool", Config{Input: []int{2, 4, 1}, Classes: 2}, 1)
	pool, _ := b.maxPool("pool", b.input())
	m, err := b.done(func(p *Pass, x *graph.Node) *graph.Node { return graph.Reshape(pool(p, ReLU(x)), -1, 2) })
	if err != nil {
		t.Fatal(err)
	}
	jb := job{model: m, cotan: weights.Of64([]float64{5, 7}, 1, 2),
		x: weights.Of64([]float64{
			1, 3, 0, -1,
			3, 3, -2, 0,
		}, 1, 2, 4, 1)}
	want := weights.Of64([]float64{0, 5, 0, 0, 0, 0, 0, 0}, 1, 2, 4, 1)
	if g := jb.run().grads.Must("x"); !g.Equal(want) {
		t.Errorf("gradient %v, want %v: the first of equal maxima, and 0 at 0", g.F64, want.F64)
	}
}
