package cpu

import (
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/pkg/errors"

	"github.com/cohort-learning/cohort/backend/cpu/loops"
)

// This file records the operations on quantized weights. Decoding the blocks
// of a format is an operation of its own; the rest is written out in primitive
// ones, which the plan fuses, and the product is that of float32.

// blockFormat is the attribute of opDecode.
type blockFormat struct {
	scheme compute.QuantizationScheme // NF4 or GGML
	ggml   compute.GGMLQuantType
}

func (b blockFormat) format() (loops.BlockFormat, error) {
	if b.scheme == compute.QuantNF4 {
		return loops.NF4(), nil
	}
	f, ok := loops.GGML(b.ggml)
	if !ok {
		return f, errors.Wrapf(compute.ErrNotImplemented, "cpu backend: GGML format %s", b.ggml)
	}
	return f, nil
}

// decode records the float32 values of the blocks along the last axis of x.
func (f *Function) decode(what string, x *record, b blockFormat) (*record, error) {
	format, err := b.format()
	if err != nil {
		return nil, errors.WithMessage(err, what)
	}
	shape := x.shape.Clone()
	last := shape.Rank() - 1
	if shape.Dimensions[last]%format.Bytes != 0 {
		return nil, errors.Errorf("%s: rows of %s do not divide into blocks of %d bytes (%s)", what, x.shape, format.Bytes, b.ggml)
	}
	shape.DType = dtypes.Float32
	shape.Dimensions[last] = shape.Dimensions[last] / format.Bytes * format.Values
	return f.add(opDecode, shape, b, x), nil
}

// isByteMatrix tells whether a shape can hold rows of GGML blocks.
func isByteMatrix(s shapes.Shape) bool {
	return s.DType == dtypes.Uint8 && s.Rank() == 2 && !s.IsDynamic()
}

// FusedQuantizedDense records activation(x·weights + bias) for quantized
// weights: integers of up to eight bits or NF4 indices of shape [K,N], whose
// blocks of columns have a scale each, or rows of GGML blocks, [N, bytes].
func (f *Function) FusedQuantizedDense(x, weights, bias compute.Value, q *compute.Quantization, activation compute.ActivationType) (compute.Value, error) {
	const what = "FusedQuantizedDense"
	if q == nil {
		return nil, errors.Errorf("%s: no quantization given", what)
	}
	operands := []compute.Value{x, weights}
	for _, v := range []compute.Value{bias, q.Scale, q.ZeroPoint} {
		if v != nil {
			operands = append(operands, v)
		}
	}
	if _, err := f.values(what, operands...); err != nil { // all of them, before anything is recorded
		return nil, err
	}
	ins, _ := f.values(what, x, weights)
	xs, last := ins[0].shape, ins[0].shape.Rank()-1
	if xs.DType != dtypes.Float32 {
		return nil, errors.Wrapf(compute.ErrNotImplemented, "cpu backend: %s of shape %s, only Float32", what, xs)
	}
	w, contract, err := f.dequantized(what, ins[1], q)
	if err != nil {
		return nil, err
	}
	inputs, outputs := w.shape.Dimensions[contract], w.shape.Dimensions[1-contract]
	if last < 0 || xs.Dimensions[last] != inputs {
		return nil, errors.Errorf("%s: operand has shape %s, weights %s take %d features", what, xs, ins[1].shape, inputs)
	}
	c := &chain{f: f}
	y := c.do(f.DotGeneral(ins[0], []int{last}, nil, w, []int{contract}, nil, compute.DotGeneralConfig{}))
	if bias != nil {
		b, _ := f.values(what, bias)
		if !b[0].shape.Equal(shapes.Make(dtypes.Float32, outputs)) {
			return nil, errors.Errorf("%s: bias has shape %s, want %s", what, b[0].shape, shapes.Make(dtypes.Float32, outputs))
		}
		if c.err == nil {
			y = c.binary(compute.OpTypeAdd, y, c.align(b[0], y))
		}
	}
	y = c.activate(y, activation)
	return y, c.err
}

// dequantized records the float32 weights, and tells the axis of their inputs.
func (f *Function) dequantized(what string, w *record, q *compute.Quantization) (r *record, contract int, err error) {
	if q.Scheme == compute.QuantGGML {
		if q.ZeroPoint != nil || !isByteMatrix(w.shape) {
			return nil, 0, errors.Errorf("%s: GGML weights are a Uint8 matrix without zero points, got %s", what, w.shape)
		}
		r, err = f.decode(what, w, blockFormat{q.Scheme, q.GGMLType})
		return r, 1, err
	}
	s := w.shape
	if s.Rank() != 2 || s.IsDynamic() || q.BlockAxis != 1 || q.BlockSize < 1 {
		return nil, 0, errors.Errorf("%s: weights %s in blocks of %d along axis %d, want a matrix with blocks along axis 1", what, s, q.BlockSize, q.BlockAxis)
	}
	if !s.DType.IsInt() || s.DType.Bits() > 8 {
		return nil, 0, errors.Wrapf(compute.ErrNotImplemented, "cpu backend: %s with weights %s, only integers of up to 8 bits", what, s)
	}
	c := &chain{f: f}
	var v compute.Value
	switch q.Scheme {
	case compute.QuantLinear:
		v = c.do(f.ConvertDType(w, dtypes.Float32))
	case compute.QuantNF4:
		if q.ZeroPoint != nil {
			return nil, 0, errors.Errorf("%s: NF4 has no zero points", what)
		}
		bytes := dtypes.Int8
		if s.DType.IsUnsigned() {
			bytes = dtypes.Uint8
		}
		if v = c.do(f.ConvertDType(w, bytes)); c.err == nil {
			d, err := f.decode(what, v.(*record), blockFormat{scheme: q.Scheme})
			v = c.do(d, err)
		}
	default:
		return nil, 0, errors.Wrapf(compute.ErrNotImplemented, "cpu backend: %s with quantization scheme %s", what, q.Scheme)
	}
	v = c.perBlock(what, compute.OpTypeMul, v, q.Scale, q.BlockSize)
	if q.ZeroPoint != nil {
		v = c.perBlock(what, compute.OpTypeAdd, v, q.ZeroPoint, q.BlockSize)
	}
	if c.err != nil {
		return nil, 0, c.err
	}
	return v.(*record), 0, nil
}

// perBlock records op on a matrix and the value of the block that each element
// is in: by, of shape [rows, blocks], has one for every size columns.
func (c *chain) perBlock(what string, op compute.OpType, x, by compute.Value, size int) compute.Value {
	if c.err != nil {
		return nil
	}
	ins, err := c.f.values(what, x, by)
	if err != nil {
		return c.do(nil, err)
	}
	rows, cols := ins[0].shape.Dimensions[0], ins[0].shape.Dimensions[1]
	size = max(min(size, cols), 1)
	blocks := (cols + size - 1) / size
	if want := shapes.Make(dtypes.Float32, rows, blocks); !ins[1].shape.Equal(want) {
		return c.do(nil, errors.Errorf("%s: scales or zero points of shape %s for %d blocks of columns, want %s", what, ins[1].shape, blocks, want))
	}
	if cols%size == 0 {
		x3 := c.do(c.f.Reshape(ins[0], rows, blocks, size))
		by3 := c.do(c.f.Reshape(ins[1], rows, blocks, 1))
		y := c.binary(op, x3, by3)
		if c.err != nil {
			return nil
		}
		return c.do(c.f.Reshape(y, rows, cols))
	}
	spread := c.do(c.f.BroadcastInDim(ins[1], shapes.Make(dtypes.Float32, rows, blocks, size), []int{0, 1}))
	if c.err == nil {
		spread = c.do(c.f.Reshape(spread, rows, blocks*size))
	}
	if c.err == nil {
		spread = c.do(c.f.Slice(spread, []int{0, 0}, []int{rows, cols}, []int{1, 1}))
	}
	return c.binary(op, ins[0], spread)
}

// QuantizedEmbeddingLookup records the rows of data, Uint8 with GGML blocks,
// that indices of shape […,1] name, as float32. As in Gather, an index outside
// stands for the nearest row.
func (f *Function) QuantizedEmbeddingLookup(data, indices compute.Value, q *compute.Quantization) (compute.Value, error) {
	const what = "QuantizedEmbeddingLookup"
	if q == nil {
		return nil, errors.Errorf("%s: no quantization given", what)
	}
	if q.Scheme != compute.QuantGGML {
		return nil, errors.Wrapf(compute.ErrNotImplemented, "cpu backend: %s with quantization scheme %s, only GGML", what, q.Scheme)
	}
	ins, err := f.values(what, data, indices)
	if err != nil {
		return nil, err
	}
	ds, is := ins[0].shape, ins[1].shape
	if !isByteMatrix(ds) {
		return nil, errors.Errorf("%s: data has shape %s, want a Uint8 matrix", what, ds)
	}
	last := is.Rank() - 1
	if !is.DType.IsInt() || last < 0 || is.Dimensions[last] != 1 {
		return nil, errors.Errorf("%s: indices have shape %s, want integers with a last axis of size 1", what, is)
	}
	rows, err := f.Gather(ins[0], ins[1], last, []int{last}, []int{0}, []int{0}, slices.Concat([]int{1}, ds.Dimensions[1:]), false)
	if err != nil {
		return nil, err
	}
	y, err := f.decode(what, rows.(*record), blockFormat{q.Scheme, q.GGMLType})
	if err != nil {
		return nil, err
	}
	return y, nil
}
