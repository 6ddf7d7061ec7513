package cpu

import (
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
)

// planOf compiles a function of parameters of the given shapes and returns how
// many steps walk over at least large elements, and how many there are.
func planOf(t *testing.T, large int, dims [][]int, build func(f *Function, x []compute.Value) []compute.Value) (big, all int) {
	t.Helper()
	b, err := New(Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Finalize()
	f := newBuilder(b.(*Backend), t.Name()).main
	var x []compute.Value
	for _, d := range dims {
		v, err := f.Parameter("x", shapes.Make(dtypes.Float32, d...), nil)
		if err != nil {
			t.Fatal(err)
		}
		x = append(x, v)
	}
	if err := f.Return(build(f, x), nil); err != nil {
		t.Fatal(err)
	}
	p, err := compile(b.(*Backend), f, shapes.AxisBindings{})
	if err != nil {
		t.Fatal(err)
	}
	for _, st := range p.steps {
		most := 0
		for _, s := range append(st.reads, st.writes...) {
			most = max(most, p.slots[s].bytes/4)
		}
		if most >= large {
			big++
		}
	}
	return big, len(p.steps)
}

func must(t *testing.T) func(compute.Value, error) compute.Value {
	return func(v compute.Value, err error) compute.Value {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestPasses(t *testing.T) {
	ok := must(t)
	image := []int{8, 14, 14, 32}
	for _, c := range []struct {
		name     string
		dims     [][]int
		big, all int
		build    func(f *Function, x []compute.Value) []compute.Value
	}{
		{"softmax", [][]int{{64, 100}}, 1, 1, func(f *Function, x []compute.Value) []compute.Value {
			return []compute.Value{ok(f.FusedSoftmax(x[0], 1))}
		}},
		{"layer norm", [][]int{{64, 100}, {100}, {100}}, 1, 1, func(f *Function, x []compute.Value) []compute.Value {
			return []compute.Value{ok(f.FusedLayerNorm(x[0], []int{1}, 1e-5, x[1], x[2]))}
		}},
		{"fused and written out are one", [][]int{{64, 100}}, 1, 1, func(f *Function, x []compute.Value) []compute.Value {
			m := ok(f.Reshape(ok(f.ReduceMax(x[0], 1)), 64, 1))
			e := ok(f.Exp(ok(f.Sub(x[0], m))))
			s := ok(f.Reshape(ok(f.ReduceSum(e, 1)), 64, 1))
			return []compute.Value{ok(f.Add(ok(f.FusedSoftmax(x[0], 1)), ok(f.Div(e, s))))}
		}},
		{"batch norm", [][]int{image, {32}, {32}}, 3, 5, func(f *Function, x []compute.Value) []compute.Value {
			y, mean, variance, err := f.BatchNormForTraining(x[0], x[1], x[2], 1e-5, 3)
			return []compute.Value{ok(y, err), mean, variance}
		}},
		{"batch norm gradient", [][]int{image, {32}, {32}, {32}, image}, 2, 5, func(f *Function, x []compute.Value) []compute.Value {
			gx, gs, gb, err := f.BatchNormGradient(x[0], x[1], x[2], x[3], x[4], 1e-5, 3)
			return []compute.Value{ok(gx, err), gs, gb}
		}},
		{"transposed product", [][]int{{64, 300}, {64, 200}}, 1, 1, func(f *Function, x []compute.Value) []compute.Value {
			d := ok(f.DotGeneral(x[0], []int{0}, nil, x[1], []int{0}, nil, compute.DotGeneralConfig{}))
			return []compute.Value{ok(f.Transpose(d, 1, 0))}
		}},
		{"gradients of slices", [][]int{{100, 50}, {100, 50}}, 1, 1, func(f *Function, x []compute.Value) []compute.Value {
			zero := ok(f.Constant([]float32{0}))
			a := ok(f.Pad(x[0], zero, compute.PadAxis{}, compute.PadAxis{End: 50}))
			b := ok(f.Pad(x[1], zero, compute.PadAxis{}, compute.PadAxis{Start: 50}))
			return []compute.Value{ok(f.Add(a, b))}
		}},
		{"constants", [][]int{{10}}, 0, 1, func(f *Function, x []compute.Value) []compute.Value {
			c := ok(f.Iota(shapes.Make(dtypes.Float32, 10), 0))
			return []compute.Value{ok(f.Mul(x[0], ok(f.Exp(ok(f.Sqrt(c))))))}
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			big, all := planOf(t, 5000, c.dims, c.build)
			if big != c.big || all != c.all {
				t.Errorf("%d passes over large arrays and %d steps, want %d and %d", big, all, c.big, c.all)
			}
		})
	}
}
