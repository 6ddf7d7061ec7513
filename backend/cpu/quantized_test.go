package cpu_test

import (
	"encoding/binary"
	"math"
	"slices"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/compute/shapes"
	"pgregory.net/rapid"

	"github.com/cohort-learning/cohort/backend/cpu"
)

// quantized is a graph on quantized weights with its inputs.
type quantized struct {
	flats  []any
	shapes []shapes.Shape
	build  func(f compute.Function, p []compute.Value) (compute.Value, error)
}

// input adds an input and returns its number.
func (q *quantized) input(flat any, s shapes.Shape) int {
	q.flats, q.shapes = append(q.flats, flat), append(q.shapes, s)
	return len(q.flats) - 1
}

type fataler interface{ Fatal(args ...any) }

func (q *quantized) run(t fataler, b compute.Backend) []float32 {
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	builder := b.Builder("quantized")
	f := builder.Main()
	var params []compute.Value
	var bufs []compute.Buffer
	for i, s := range q.shapes {
		p, err := f.Parameter("p"+string(rune('0'+i)), s, nil)
		check(err)
		buf, err := b.BufferFromFlatData(0, q.flats[i], s)
		check(err)
		params, bufs = append(params, p), append(bufs, buf)
	}
	y, err := q.build(f, params)
	check(err)
	check(f.Return([]compute.Value{y}, nil))
	exec, err := builder.Compile()
	check(err)
	out, err := exec.Execute(bufs, nil, 0)
	check(err)
	s, err := out[0].Shape()
	check(err)
	flat := make([]float32, s.Size())
	check(out[0].ToFlatData(flat))
	return flat
}

var ggmlTypes = []compute.GGMLQuantType{
	compute.GGMLQ4_0, compute.GGMLQ8_0, compute.GGMLIQ4NL, compute.GGMLQ4_K, compute.GGMLQ6_K,
}

// drawBlocks draws blocks of any contents, but for their scales: those are
// powers of two near one, so that sums are exact.
func drawBlocks(t *rapid.T, q compute.GGMLQuantType, rows, blocks int) ([]uint8, shapes.Shape) {
	size := q.BytesPerBlock()
	data := rapid.SliceOfN(rapid.Byte(), rows*blocks*size, rows*blocks*size).Draw(t, "blocks")
	at := []int{0}
	switch q {
	case compute.GGMLQ4_K:
		at = []int{0, 2}
	case compute.GGMLQ6_K:
		at = []int{208}
	}
	for b := range rows * blocks {
		for _, k := range at {
			half := rapid.SampledFrom([]uint16{0x3800, 0x3c00, 0x4000, 0xbc00}).Draw(t, "scale") // ½, 1, 2, −1
			binary.LittleEndian.PutUint16(data[b*size+k:], half)
		}
	}
	return data, shapes.Make(dtypes.Uint8, rows, blocks*size)
}

// drawQuarters draws multiples of ¼.
func drawQuarters(t *rapid.T, s shapes.Shape) []float32 {
	return drawValues(t, s).([]float32)
}

// drawDense draws FusedQuantizedDense in any form.
func drawDense(t *rapid.T) *quantized {
	q := &quantized{}
	quant := compute.Quantization{
		Scheme:    rapid.SampledFrom([]compute.QuantizationScheme{compute.QuantLinear, compute.QuantNF4, compute.QuantGGML}).Draw(t, "scheme"),
		BlockAxis: 1,
	}
	in, out := rapid.IntRange(1, 40).Draw(t, "in"), rapid.IntRange(1, 40).Draw(t, "out")
	var weights any
	var weightShape shapes.Shape
	if quant.Scheme == compute.QuantGGML {
		quant.GGMLType = rapid.SampledFrom(ggmlTypes).Draw(t, "format")
		blocks := rapid.IntRange(1, 2).Draw(t, "blocks")
		in, out = blocks*quant.GGMLType.ValuesPerBlock(), rapid.IntRange(1, 6).Draw(t, "out")
		weights, weightShape = drawBlocks(t, quant.GGMLType, out, blocks)
	} else {
		dt := rapid.SampledFrom([]dtypes.DType{
			dtypes.Int8, dtypes.Uint8, dtypes.Int4, dtypes.Uint4, dtypes.Int2, dtypes.Uint2,
		}).Draw(t, "dtype")
		if dt.IsPacked() { // whole bytes
			out = (out + 3) / 4 * 4
		}
		weightShape = shapes.Make(dt, in, out)
		bytes := rapid.SliceOfN(rapid.Byte(), int(weightShape.ByteSize()), int(weightShape.ByteSize())).Draw(t, "weights")
		weights = bytes
		if dt == dtypes.Int8 {
			ints := make([]int8, len(bytes))
			for i, b := range bytes {
				ints[i] = int8(b)
			}
			weights = ints
		}
	}
	dims := append(rapid.SliceOfN(rapid.IntRange(1, 4), 0, 2).Draw(t, "batch"), in)
	xs := shapes.Make(dtypes.Float32, dims...)
	x, w := q.input(drawQuarters(t, xs), xs), q.input(weights, weightShape)
	scale, zero, bias := -1, -1, -1
	if quant.Scheme != compute.QuantGGML {
		quant.BlockSize = rapid.IntRange(1, out+3).Draw(t, "block size")
		s := shapes.Make(dtypes.Float32, in, (out+quant.BlockSize-1)/quant.BlockSize)
		scale = q.input(drawQuarters(t, s), s)
		if quant.Scheme == compute.QuantLinear && rapid.Bool().Draw(t, "zero points") {
			zero = q.input(drawQuarters(t, s), s)
		}
	}
	if rapid.Bool().Draw(t, "bias") {
		s := shapes.Make(dtypes.Float32, out)
		bias = q.input(drawQuarters(t, s), s)
	}
	activation := compute.ActivationType(rapid.IntRange(int(compute.ActivationNone), int(compute.ActivationTanh)).Draw(t, "activation"))
	q.build = func(f compute.Function, p []compute.Value) (compute.Value, error) {
		spec, b := quant, compute.Value(nil)
		if scale >= 0 {
			spec.Scale = p[scale]
		}
		if zero >= 0 {
			spec.ZeroPoint = p[zero]
		}
		if bias >= 0 {
			b = p[bias]
		}
		return f.FusedQuantizedDense(p[x], p[w], b, &spec, activation)
	}
	return q
}

// drawLookup draws QuantizedEmbeddingLookup with indices inside.
func drawLookup(t *rapid.T) *quantized {
	q := &quantized{}
	format := rapid.SampledFrom(ggmlTypes).Draw(t, "format")
	rows := rapid.IntRange(1, 6).Draw(t, "rows")
	data, s := drawBlocks(t, format, rows, rapid.IntRange(1, 2).Draw(t, "blocks"))
	q.input(data, s)
	dims := append(rapid.SliceOfN(rapid.IntRange(1, 4), 0, 2).Draw(t, "batch"), 1)
	is := shapes.Make(dtypes.Int32, dims...)
	index := make([]int32, is.Size())
	for i := range index {
		index[i] = int32(rapid.IntRange(0, rows-1).Draw(t, "index"))
	}
	q.input(index, is)
	q.build = func(f compute.Function, p []compute.Value) (compute.Value, error) {
		return f.QuantizedEmbeddingLookup(p[0], p[1], &compute.Quantization{Scheme: compute.QuantGGML, GGMLType: format})
	}
	return q
}

func TestQuantizedEqualsGoEngine(t *testing.T) {
	if raceEnabled {
		t.Skip("the go engine fails under the race detector")
	}
	reference, err := gobackend.New("")
	if err != nil {
		t.Fatal(err)
	}
	b := newBackend(t, cpu.Options{})
	for name, draw := range map[string]func(t *rapid.T) *quantized{"dense": drawDense, "lookup": drawLookup} {
		t.Run(name, func(t *testing.T) {
			rapid.Check(t, func(t *rapid.T) {
				q := draw(t)
				got, want := q.run(t, b), q.run(t, reference)
				if len(got) != len(want) {
					t.Fatalf("%d values, the go engine has %d", len(got), len(want))
				}
				for i, w := range want {
					if d := math.Abs(float64(got[i] - w)); !(d <= 1e-4*(1+math.Abs(float64(w)))) {
						t.Fatalf("value %d is %g, the go engine has %g", i, got[i], w)
					}
				}
			})
		})
	}
}

func TestQuantizedDenseByHand(t *testing.T) {
	q := &quantized{}
	x := q.input([]float32{1, 2}, shapes.Make(dtypes.Float32, 1, 2))
	w := q.input([]uint8{0x21, 0x83, 0x0f, 0x70}, shapes.Make(dtypes.Int4, 2, 4)) // 1 2 3 −8, −1 0 0 7
	s := q.input([]float32{1, 10, 2, 20}, shapes.Make(dtypes.Float32, 2, 2))      // for columns 0–2 and 3
	z := q.input([]float32{0, 1, 0.5, 0}, shapes.Make(dtypes.Float32, 2, 2))
	bias := q.input([]float32{100, 0, 0, 0}, shapes.Make(dtypes.Float32, 4))
	q.build = func(f compute.Function, p []compute.Value) (compute.Value, error) {
		return f.FusedQuantizedDense(p[x], p[w], p[bias], &compute.Quantization{
			Scheme: compute.QuantLinear, Scale: p[s], ZeroPoint: p[z], BlockAxis: 1, BlockSize: 3,
		}, compute.ActivationRelu)
	}
	// Rows of the weights: 1 2 3 −79 and −1.5 0.5 0.5 140.
	if got, want := q.run(t, newBackend(t, cpu.Options{})), []float32{98, 3, 4, 201}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestLookupClampsIndices(t *testing.T) {
	q := &quantized{}
	data := make([]uint8, 2*34)
	binary.LittleEndian.PutUint16(data, 0x3c00)      // 1
	binary.LittleEndian.PutUint16(data[34:], 0x4000) // 2
	for i := range 32 {
		data[2+i], data[36+i] = uint8(i), uint8(-i)
	}
	q.input(data, shapes.Make(dtypes.Uint8, 2, 34))
	q.input([]int64{-5, 7, 0}, shapes.Make(dtypes.Int64, 3, 1))
	q.build = func(f compute.Function, p []compute.Value) (compute.Value, error) {
		return f.QuantizedEmbeddingLookup(p[0], p[1], &compute.Quantization{Scheme: compute.QuantGGML, GGMLType: compute.GGMLQ8_0})
	}
	got := q.run(t, newBackend(t, cpu.Options{}))
	for i := range 32 {
		if v := float32(i); got[i] != v || got[32+i] != -2*v || got[64+i] != v {
			t.Errorf("column %d: got %g, %g, %g, want %g, %g, %g", i, got[i], got[32+i], got[64+i], v, -2*v, v)
		}
	}
}

func TestQuantizedRefusals(t *testing.T) {
	b := newBackend(t, cpu.Options{})
	for _, c := range []struct {
		name          string
		x, w, s       shapes.Shape
		q             compute.Quantization
		unimplemented bool
	}{
		{"half precision", shapes.Make(dtypes.Float16, 2, 4), shapes.Make(dtypes.Int8, 4, 6), shapes.Make(dtypes.Float32, 4, 2),
			compute.Quantization{BlockAxis: 1, BlockSize: 3}, true},
		{"wide weights", shapes.Make(dtypes.Float32, 2, 4), shapes.Make(dtypes.Int32, 4, 6), shapes.Make(dtypes.Float32, 4, 2),
			compute.Quantization{BlockAxis: 1, BlockSize: 3}, true},
		{"unknown format", shapes.Make(dtypes.Float32, 2, 256), shapes.Make(dtypes.Uint8, 3, 84), shapes.Make(dtypes.Float32, 1),
			compute.Quantization{Scheme: compute.QuantGGML, GGMLType: compute.GGMLQ2_K}, true},
		{"torn block", shapes.Make(dtypes.Float32, 2, 32), shapes.Make(dtypes.Uint8, 3, 35), shapes.Make(dtypes.Float32, 1),
			compute.Quantization{Scheme: compute.QuantGGML, GGMLType: compute.GGMLQ8_0}, false},
		{"inputs", shapes.Make(dtypes.Float32, 2, 5), shapes.Make(dtypes.Int8, 4, 6), shapes.Make(dtypes.Float32, 4, 2),
			compute.Quantization{BlockAxis: 1, BlockSize: 3}, false},
		{"scales", shapes.Make(dtypes.Float32, 2, 4), shapes.Make(dtypes.Int8, 4, 6), shapes.Make(dtypes.Float32, 4, 3),
			compute.Quantization{BlockAxis: 1, BlockSize: 3}, false},
		{"block axis", shapes.Make(dtypes.Float32, 2, 4), shapes.Make(dtypes.Int8, 4, 6), shapes.Make(dtypes.Float32, 4, 2),
			compute.Quantization{BlockAxis: 0, BlockSize: 3}, false},
		{"block size", shapes.Make(dtypes.Float32, 2, 4), shapes.Make(dtypes.Int8, 4, 6), shapes.Make(dtypes.Float32, 4, 2),
			compute.Quantization{BlockAxis: 1}, false},
	} {
		f := b.Builder(c.name).Main()
		var p []compute.Value
		for _, s := range []shapes.Shape{c.x, c.w, c.s} {
			v, err := f.Parameter("p", s, nil)
			if err != nil {
				t.Fatal(err)
			}
			p = append(p, v)
		}
		c.q.Scale = p[2]
		_, err := f.FusedQuantizedDense(p[0], p[1], nil, &c.q, compute.ActivationNone)
		if err == nil || compute.IsNotImplemented(err) != c.unimplemented {
			t.Errorf("%s: error %v, want one; it says that this is not implemented: %t", c.name, err, c.unimplemented)
		}
	}
}

func TestQuantizedWithDynamicBatch(t *testing.T) {
	b := newBackend(t, cpu.Options{})
	builder := b.Builder("dynamic")
	f := builder.Main()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	open := shapes.MakeDynamic(dtypes.Int32, []int{shapes.DynamicDim, 1}, []string{"batch", ""})
	index, err := f.Parameter("index", open, nil)
	check(err)
	block := make([]uint8, 2*34) // rows of 32 ones and of 32 twos
	for i := range block {
		block[i] = 1
	}
	binary.LittleEndian.PutUint16(block, 0x3c00)
	binary.LittleEndian.PutUint16(block[34:], 0x4000)
	data, err := f.Constant(block, 2, 34)
	check(err)
	bias, err := f.Constant([]float32{0.5, 0.25}, 2)
	check(err)
	q := &compute.Quantization{Scheme: compute.QuantGGML, GGMLType: compute.GGMLQ8_0}
	rows, err := f.QuantizedEmbeddingLookup(data, index, q)
	check(err)
	y, err := f.FusedQuantizedDense(rows, data, bias, q, compute.ActivationNone)
	check(err)
	check(f.Return([]compute.Value{y}, nil))
	exec, err := builder.Compile()
	check(err)
	for _, index := range [][]int32{{1}, {0, 1, 1}, {0}} {
		in, err := b.BufferFromFlatData(0, index, shapes.Make(dtypes.Int32, len(index), 1))
		check(err)
		out, err := exec.Execute([]compute.Buffer{in}, nil, 0)
		check(err)
		var want []float32
		for _, i := range index {
			want = append(want, 32*float32(i+1)+0.5, 64*float32(i+1)+0.25)
		}
		if got := floatsOf(t, out[0]); !slices.Equal(got, want) {
			t.Errorf("rows %v: got %v, want %v", index, got, want)
		}
	}
}
