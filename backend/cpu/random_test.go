package cpu_test

import (
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/dtypes/bfloat16"
	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/compute/shapes"
	"pgregory.net/rapid"

	"github.com/cohort-learning/cohort/backend/cpu"
)

// drawn is a random graph: parameters with values, and operations that append
// one value each to a list that begins with the parameters.
type drawn struct {
	inputs []any
	shapes []shapes.Shape // of all values
	rough  map[int]bool   // values that the engines round differently
	ops    []func(f compute.Function, v []compute.Value) (compute.Value, error)
	names  []string
}

var drawnTypes = []dtypes.DType{
	dtypes.Float32, dtypes.Float32, dtypes.Float32, dtypes.Float64, dtypes.BFloat16,
	dtypes.Int32, dtypes.Int64, dtypes.Int8, dtypes.Uint8, dtypes.Bool,
}

func drawDims(t *rapid.T) []int { return rapid.SliceOfN(rapid.IntRange(1, 5), 0, 4).Draw(t, "dims") }

// drawValues draws small numbers, so that products stay exact in integers and
// moderate in floats.
func drawValues(t *rapid.T, s shapes.Shape) any {
	n := s.Size()
	v := rapid.SliceOfN(rapid.IntRange(-8, 8), n, n).Draw(t, "values")
	flat := dtypes.MakeAnySlice(s.DType, n)
	for i, x := range v {
		switch f := flat.(type) {
		case []float32:
			f[i] = float32(x) / 4
		case []float64:
			f[i] = float64(x) / 4
		case []bfloat16.BFloat16:
			f[i] = bfloat16.FromFloat32(float32(x) / 4)
		case []int32:
			f[i] = int32(x)
		case []int64:
			f[i] = int64(x)
		case []int8:
			f[i] = int8(x)
		case []uint8:
			f[i] = uint8(x + 8)
		case []bool:
			f[i] = x > 0
		}
	}
	return flat
}

// pick draws the index of a value that satisfies ok, or −1.
func (d *drawn) pick(t *rapid.T, ok func(s shapes.Shape) bool) int {
	var fit []int
	for i, s := range d.shapes {
		if ok(s) {
			fit = append(fit, i)
		}
	}
	if len(fit) == 0 {
		return -1
	}
	// Prefer recent values: chains are what gets fused.
	k := rapid.IntRange(0, len(fit)-1).Draw(t, "operand")
	if rapid.Bool().Draw(t, "recent") {
		k = len(fit) - 1
	}
	return fit[k]
}

func any1(shapes.Shape) bool { return true }

// from tells that the next value is computed from the given ones; it is rough if
// one of them is, or if the operation rounds.
func (d *drawn) from(rounds bool, operands ...int) {
	for _, i := range operands {
		rounds = rounds || d.rough[i]
	}
	if rounds {
		d.rough[len(d.shapes)] = true
	}
}

// add appends an operation whose result shape is known.
func (d *drawn) add(name string, s shapes.Shape, op func(f compute.Function, v []compute.Value) (compute.Value, error)) {
	d.names = append(d.names, fmt.Sprintf("%d: %s -> %s", len(d.shapes), name, s))
	d.shapes = append(d.shapes, s)
	d.ops = append(d.ops, op)
}

func withType(s shapes.Shape, dt dtypes.DType) shapes.Shape { return shapes.Make(dt, s.Dimensions...) }

func (d *drawn) step(t *rapid.T) {
	type f = compute.Function
	type vs = []compute.Value
	i := d.pick(t, any1)
	s := d.shapes[i]
	rank := s.Rank()
	switch rapid.IntRange(0, 13).Draw(t, "kind") {
	case 0, 1: // arithmetic with a partner of the same shape, or a scalar
		j := d.pick(t, func(p shapes.Shape) bool {
			return p.DType == s.DType && (p.Rank() == 0 || rank == 0 || slices.Equal(p.Dimensions, s.Dimensions))
		})
		if s.DType == dtypes.Bool {
			out := s
			if rank == 0 {
				out = d.shapes[j]
			}
			d.add("or", out, func(f f, v vs) (compute.Value, error) { return f.LogicalOr(v[i], v[j]) })
			return
		}
		out := s
		if rank == 0 {
			out = d.shapes[j]
		}
		k := rapid.IntRange(0, 4).Draw(t, "op")
		if k == 4 && (d.rough[i] || d.rough[j]) {
			return // roundings may turn the comparison
		}
		d.from(false, i, j)
		switch k {
		case 0:
			d.add(fmt.Sprint("add ", i, j), out, func(f f, v vs) (compute.Value, error) { return f.Add(v[i], v[j]) })
		case 1:
			d.add(fmt.Sprint("sub ", i, j), out, func(f f, v vs) (compute.Value, error) { return f.Sub(v[i], v[j]) })
		case 2:
			d.add(fmt.Sprint("mul ", i, j), out, func(f f, v vs) (compute.Value, error) { return f.Mul(v[i], v[j]) })
		case 3:
			d.add(fmt.Sprint("max ", i, j), out, func(f f, v vs) (compute.Value, error) { return f.Max(v[i], v[j]) })
		case 4:
			d.add(fmt.Sprint("less ", i, j), withType(out, dtypes.Bool), func(f f, v vs) (compute.Value, error) { return f.LessThan(v[i], v[j]) })
		}
	case 2: // a bounded function
		if !s.DType.IsFloat() {
			return
		}
		d.from(true, i)
		switch rapid.IntRange(0, 3).Draw(t, "op") {
		case 0:
			d.add(fmt.Sprint("tanh ", i), s, func(f f, v vs) (compute.Value, error) { return f.Tanh(v[i]) })
		case 1:
			d.add(fmt.Sprint("logistic ", i), s, func(f f, v vs) (compute.Value, error) { return f.Logistic(v[i]) })
		case 2:
			d.add(fmt.Sprint("neg ", i), s, func(f f, v vs) (compute.Value, error) { return f.Neg(v[i]) })
		case 3:
			d.add(fmt.Sprint("abs ", i), s, func(f f, v vs) (compute.Value, error) { return f.Abs(v[i]) })
		}
	case 3, 4: // reduction
		if s.DType == dtypes.Bool || rank == 0 {
			return
		}
		axes := rapid.SliceOfNDistinct(rapid.IntRange(0, rank-1), 1, rank, rapid.ID[int]).Draw(t, "axes")
		slices.Sort(axes)
		var dims []int
		for k, n := range s.Dimensions {
			if !slices.Contains(axes, k) {
				dims = append(dims, n)
			}
		}
		out := shapes.Make(s.DType, dims...)
		d.from(s.DType.IsFloat(), i)
		if rapid.Bool().Draw(t, "sum") {
			d.add(fmt.Sprint("sum ", i, axes), out, func(f f, v vs) (compute.Value, error) { return f.ReduceSum(v[i], axes...) })
		} else {
			d.add(fmt.Sprint("maximum ", i, axes), out, func(f f, v vs) (compute.Value, error) { return f.ReduceMax(v[i], axes...) })
		}
		if rapid.Bool().Draw(t, "repeat") { // back to the shape, as a softmax does
			j := len(d.shapes) - 1
			var keep []int
			for k := range s.Dimensions {
				if !slices.Contains(axes, k) {
					keep = append(keep, k)
				}
			}
			d.from(false, j)
			d.add(fmt.Sprint("repeat ", j), s, func(f f, v vs) (compute.Value, error) { return f.BroadcastInDim(v[j], s, keep) })
		}
	case 5: // transpose
		perm := rapid.Permutation(indices(rank)).Draw(t, "perm")
		dims := make([]int, rank)
		for k, p := range perm {
			dims[k] = s.Dimensions[p]
		}
		d.from(false, i)
		d.add(fmt.Sprint("transpose ", i, perm), shapes.Make(s.DType, dims...), func(f f, v vs) (compute.Value, error) { return f.Transpose(v[i], perm...) })
	case 6: // reshape
		dims := []int{s.Size()}
		if rapid.Bool().Draw(t, "one") {
			dims = append([]int{1}, s.Dimensions...)
		}
		d.from(false, i)
		d.add(fmt.Sprint("reshape ", i), shapes.Make(s.DType, dims...), func(f f, v vs) (compute.Value, error) { return f.Reshape(v[i], dims...) })
	case 7: // slice
		starts, limits, strides, dims := make([]int, rank), make([]int, rank), make([]int, rank), make([]int, rank)
		for k, n := range s.Dimensions {
			starts[k] = rapid.IntRange(0, n-1).Draw(t, "start")
			limits[k] = rapid.IntRange(starts[k]+1, n).Draw(t, "limit")
			strides[k] = rapid.IntRange(1, 2).Draw(t, "stride")
			dims[k] = (limits[k] - starts[k] + strides[k] - 1) / strides[k]
		}
		d.from(false, i)
		d.add(fmt.Sprint("slice ", i, starts, limits, strides), shapes.Make(s.DType, dims...), func(f f, v vs) (compute.Value, error) {
			return f.Slice(v[i], starts, limits, strides)
		})
	case 8: // convert
		dt := rapid.SampledFrom(drawnTypes).Draw(t, "to")
		if dt == dtypes.Uint8 || dt == dtypes.Int8 {
			return // of numbers that do not fit
		}
		if d.rough[i] && !dt.IsFloat() {
			return
		}
		d.from(dt == dtypes.BFloat16, i)
		d.add(fmt.Sprint("convert ", i), withType(s, dt), func(f f, v vs) (compute.Value, error) { return f.ConvertDType(v[i], dt) })
	case 9: // select
		c := d.pick(t, func(p shapes.Shape) bool { return p.DType == dtypes.Bool && slices.Equal(p.Dimensions, s.Dimensions) })
		j := d.pick(t, func(p shapes.Shape) bool { return p.DType == s.DType && slices.Equal(p.Dimensions, s.Dimensions) })
		if c < 0 {
			return
		}
		d.from(false, c, i, j)
		d.add(fmt.Sprint("where ", c, i, j), s, func(f f, v vs) (compute.Value, error) { return f.Where(v[c], v[i], v[j]) })
	case 10: // concatenate with itself and a partner
		if rank == 0 {
			return
		}
		axis := rapid.IntRange(0, rank-1).Draw(t, "axis")
		dims := slices.Clone(s.Dimensions)
		dims[axis] *= 2
		j := d.pick(t, func(p shapes.Shape) bool { return p.DType == s.DType && slices.Equal(p.Dimensions, s.Dimensions) })
		d.from(false, i, j)
		d.add(fmt.Sprint("concatenate ", i, j, axis), shapes.Make(s.DType, dims...), func(f f, v vs) (compute.Value, error) {
			return f.Concatenate(axis, v[i], v[j])
		})
	case 11: // product
		if s.DType == dtypes.Bool || rank == 0 {
			return
		}
		k := rapid.IntRange(0, rank-1).Draw(t, "axis")
		j := d.pick(t, func(p shapes.Shape) bool {
			return p.DType == s.DType && p.Rank() > 0 && slices.Contains(p.Dimensions, s.Dimensions[k])
		})
		p := d.shapes[j]
		l := slices.Index(p.Dimensions, s.Dimensions[k])
		dims := slices.Concat(slices.Delete(slices.Clone(s.Dimensions), k, k+1), slices.Delete(slices.Clone(p.Dimensions), l, l+1))
		if len(dims) > 4 {
			return
		}
		d.from(s.DType.IsFloat(), i, j)
		d.add(fmt.Sprint("dot ", i, k, j, l), shapes.Make(s.DType, dims...), func(f f, v vs) (compute.Value, error) {
			return f.DotGeneral(v[i], []int{k}, nil, v[j], []int{l}, nil, compute.DotGeneralConfig{})
		})
	case 12: // reverse
		if rank > 0 {
			axis := rapid.IntRange(0, rank-1).Draw(t, "axis")
			d.from(false, i)
			d.add(fmt.Sprint("reverse ", i, axis), s, func(f f, v vs) (compute.Value, error) { return f.Reverse(v[i], axis) })
		}
	case 13: // pad
		j := d.pick(t, func(p shapes.Shape) bool { return p.DType == s.DType && p.Rank() == 0 })
		if j < 0 || rank == 0 || s.DType == dtypes.Bool {
			return
		}
		axes, dims := make([]compute.PadAxis, rank), make([]int, rank)
		for k, n := range s.Dimensions {
			axes[k] = compute.PadAxis{
				Start: rapid.IntRange(0, 2).Draw(t, "low"), End: rapid.IntRange(0, 2).Draw(t, "high"),
				Interior: rapid.IntRange(0, 1).Draw(t, "between"),
			}
			dims[k] = n + axes[k].Start + axes[k].End + (n-1)*axes[k].Interior
		}
		d.from(false, i, j)
		d.add(fmt.Sprint("pad ", i), shapes.Make(s.DType, dims...), func(f f, v vs) (compute.Value, error) { return f.Pad(v[i], v[j], axes...) })
	}
}

func indices(n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = i
	}
	return s
}

// run executes the graph and returns the values of its last results.
func (d *drawn) run(t *rapid.T, b compute.Backend, outputs []int) []any {
	builder := b.Builder("random")
	f := builder.Main()
	var values []compute.Value
	var bufs []compute.Buffer
	check := func(err error) {
		if err != nil {
			t.Fatalf("%s: %v\n%v", b.Name(), err, d.names)
		}
	}
	for i, in := range d.inputs {
		v, err := f.Parameter(fmt.Sprint("x", i), d.shapes[i], nil)
		check(err)
		values = append(values, v)
		buf, err := b.BufferFromFlatData(0, in, d.shapes[i])
		check(err)
		bufs = append(bufs, buf)
	}
	for _, op := range d.ops {
		v, err := op(f, values)
		check(err)
		values = append(values, v)
	}
	var outs []compute.Value
	for _, o := range outputs {
		outs = append(outs, values[o])
	}
	check(f.Return(outs, nil))
	exec, err := builder.Compile()
	check(err)
	var flats []any
	for range 2 { // the second execution finds used memory
		res, err := exec.Execute(bufs, nil, 0)
		check(err)
		flats = nil
		for i, r := range res {
			s := d.shapes[outputs[i]]
			flat := dtypes.MakeAnySlice(s.DType, s.Size())
			check(r.ToFlatData(flat))
			flats = append(flats, flat)
		}
	}
	return flats
}

// reference runs the graph on the go engine; false if that fails inside, as it
// does for some graphs that return parameters.
func (d *drawn) reference(t *rapid.T, b compute.Backend, outputs []int) (flats []any, ok bool) {
	defer func() {
		if e := recover(); e != nil {
			if _, bug := e.(runtime.Error); !bug {
				panic(e)
			}
			ok = false
		}
	}()
	return d.run(t, b, outputs), true
}

// numbers converts a flat slice; integers that float64 cannot hold do not
// arise from the small values that are drawn, except by overflow, which both
// engines wrap.
func numbers(flat any) []float64 {
	var out []float64
	switch f := flat.(type) {
	case []float32:
		for _, v := range f {
			out = append(out, float64(v))
		}
	case []float64:
		out = f
	case []bfloat16.BFloat16:
		for _, v := range f {
			out = append(out, v.Float64())
		}
	case []int8:
		for _, v := range f {
			out = append(out, float64(v))
		}
	case []uint8:
		for _, v := range f {
			out = append(out, float64(v))
		}
	case []int32:
		for _, v := range f {
			out = append(out, float64(v))
		}
	case []int64:
		for _, v := range f {
			out = append(out, float64(v))
		}
	case []bool:
		for _, v := range f {
			if v {
				out = append(out, 1)
			} else {
				out = append(out, 0)
			}
		}
	}
	return out
}

// TestRandomGraphsEqualGoEngine compares random graphs on both engines: exactly,
// but for values that went through a float operation that rounds.
func TestRandomGraphsEqualGoEngine(t *testing.T) {
	if raceEnabled {
		t.Skip("the go engine fails under the race detector")
	}
	reference, err := gobackend.New("")
	if err != nil {
		t.Fatal(err)
	}
	b := newBackend(t, cpu.Options{})
	rapid.Check(t, func(t *rapid.T) {
		d := &drawn{rough: map[int]bool{}}
		base := drawDims(t)
		for range rapid.IntRange(2, 5).Draw(t, "inputs") {
			dims := base
			if rapid.IntRange(0, 2).Draw(t, "other shape") == 0 {
				dims = drawDims(t)
			}
			s := shapes.Make(rapid.SampledFrom(drawnTypes).Draw(t, "dtype"), dims...)
			d.inputs = append(d.inputs, drawValues(t, s))
			if s.DType == dtypes.BFloat16 {
				d.rough[len(d.shapes)] = true // arithmetic on it rounds at once
			}
			d.shapes = append(d.shapes, s)
		}
		for range rapid.IntRange(1, 25).Draw(t, "operations") {
			d.step(t)
			if d.shapes[len(d.shapes)-1].Size() > 2000 {
				break
			}
		}
		outputs := []int{len(d.shapes) - 1}
		for range 2 {
			outputs = append(outputs, rapid.IntRange(0, len(d.shapes)-1).Draw(t, "output"))
		}
		want, ok := d.reference(t, reference, outputs)
		if !ok {
			return
		}
		got := d.run(t, b, outputs)
		for i := range want {
			w, g := numbers(want[i]), numbers(got[i])
			s := d.shapes[outputs[i]]
			tolerance := 0.0
			if d.rough[outputs[i]] {
				tolerance = 1e-4
				if slices.ContainsFunc(d.shapes, func(s shapes.Shape) bool { return s.DType == dtypes.BFloat16 }) {
					tolerance = 0.1
				}
			}
			for j := range w {
				if math.IsNaN(w[j]) && math.IsNaN(g[j]) || w[j] == g[j] {
					continue
				}
				if !(math.Abs(w[j]-g[j]) <= tolerance*(1+math.Abs(w[j]))) {
					t.Fatalf("value %d of output %d (%s) is %g, the go engine has %g\n%v", j, outputs[i], s, g[j], w[j], d.names)
				}
			}
		}
	})
}
