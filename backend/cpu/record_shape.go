package cpu

import (
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapeinference"
	"github.com/gomlx/compute/shapes"
	"github.com/pkg/errors"

	"github.com/cohort-learning/cohort/backend/cpu/loops"
)

// This file records the operations that move elements and those that fold
// them.

// Reshape records the same elements in row-major order with other dimensions.
func (f *Function) Reshape(x compute.Value, dimensions ...int) (compute.Value, error) {
	ins, err := f.values("Reshape", x)
	if err != nil {
		return nil, err
	}
	shape, err := shapeinference.Reshape(ins[0].shape, dimensions)
	if err != nil {
		return nil, err
	}
	return f.add(compute.OpTypeReshape, shape, nil, ins...), nil
}

// dynamicReshape holds, for each axis, its static size (−1 if not static) and
// which operand of the record has its size (0 if none).
type dynamicReshape struct {
	static []int
	value  []int
	names  []string
}

// DynamicReshape records a reshape to dimensions that are known only when it
// runs.
func (f *Function) DynamicReshape(x compute.Value, dimensions ...compute.DynamicDimensionSpec) (compute.Value, error) {
	vs := []compute.Value{x}
	var d dynamicReshape
	for _, spec := range dimensions {
		static, at := spec.Static, 0
		if spec.Name != "" {
			static = shapes.DynamicDim
		}
		if spec.Value != nil {
			at = len(vs)
			vs = append(vs, spec.Value)
		}
		d.static = append(d.static, static)
		d.value = append(d.value, at)
		d.names = append(d.names, spec.Name)
	}
	ins, err := f.values("DynamicReshape", vs...)
	if err != nil {
		return nil, err
	}
	shape, err := shapeinference.DynamicReshape(ins[0].shape, dimensions)
	if err != nil {
		return nil, err
	}
	for _, r := range ins[1:] {
		if r.shape.Rank() != 0 || !r.shape.DType.IsInt() {
			return nil, errors.Errorf("DynamicReshape: a dimension has shape %s, want an integer scalar", r.shape)
		}
	}
	root := f.root()
	for _, name := range d.names {
		if name != "" {
			root.axisNames.Insert(name)
		}
	}
	return f.add(compute.OpTypeDynamicReshape, shape, d, ins...), nil
}

// DynamicDimensionSize records the size of an axis as an Int32 scalar.
func (f *Function) DynamicDimensionSize(x compute.Value, axis int) (compute.Value, error) {
	ins, err := f.values("DynamicDimensionSize", x)
	if err != nil {
		return nil, err
	}
	if axis < 0 || axis >= ins[0].shape.Rank() {
		return nil, errors.Errorf("DynamicDimensionSize: axis %d of shape %s", axis, ins[0].shape)
	}
	return f.add(compute.OpTypeDynamicDimensionSize, shapes.Make(dtypes.Int32), axis, ins...), nil
}

// DynamicShape records all dimensions as an Int32 vector.
func (f *Function) DynamicShape(x compute.Value) (compute.Value, error) {
	ins, err := f.values("DynamicShape", x)
	if err != nil {
		return nil, err
	}
	return f.add(compute.OpTypeDynamicShape, shapes.Make(dtypes.Int32, ins[0].shape.Rank()), nil, ins...), nil
}

// Transpose records a permutation of axes: axis i of the result is axis
// permutation[i] of x.
func (f *Function) Transpose(x compute.Value, permutation ...int) (compute.Value, error) {
	ins, err := f.values("Transpose", x)
	if err != nil {
		return nil, err
	}
	shape, err := shapeinference.Transpose(ins[0].shape, permutation)
	if err != nil {
		return nil, err
	}
	return f.add(compute.OpTypeTranspose, shape, slices.Clone(permutation), ins...), nil
}

// BroadcastInDim records the repetition of x along new axes and axes of size 1;
// axis i of x becomes axis broadcastAxes[i] of the result.
func (f *Function) BroadcastInDim(x compute.Value, shape shapes.Shape, broadcastAxes []int) (compute.Value, error) {
	ins, err := f.values("BroadcastInDim", x)
	if err != nil {
		return nil, err
	}
	if err := shapeinference.BroadcastInDim(ins[0].shape, shape, broadcastAxes, f.root().axisNames); err != nil {
		return nil, err
	}
	shape = shape.Clone()
	shape.DType = ins[0].shape.DType
	return f.add(compute.OpTypeBroadcastInDim, shape, slices.Clone(broadcastAxes), ins...), nil
}

// slicing holds the box of a Slice; a limit of −1 means the end of the axis.
type slicing struct{ starts, limits, strides []int }

// Slice records the elements of a box.
func (f *Function) Slice(x compute.Value, starts, limits, strides []int) (compute.Value, error) {
	ins, err := f.values("Slice", x)
	if err != nil {
		return nil, err
	}
	if len(strides) == 0 {
		strides = repeat(1, ins[0].shape.Rank())
	}
	shape, err := shapeinference.Slice(ins[0].shape, starts, limits, strides)
	if err != nil {
		return nil, err
	}
	a := slicing{slices.Clone(starts), slices.Clone(limits), slices.Clone(strides)}
	return f.add(compute.OpTypeSlice, shape, a, ins...), nil
}

func repeat(v, n int) []int {
	s := make([]int, n)
	for i := range s {
		s[i] = v
	}
	return s
}

// Reverse records x with the order of elements along the axes reversed.
func (f *Function) Reverse(x compute.Value, axes ...int) (compute.Value, error) {
	ins, err := f.values("Reverse", x)
	if err != nil {
		return nil, err
	}
	if len(axes) == 0 {
		return ins[0], nil
	}
	axes, err = axesOf("Reverse", ins[0].shape.Rank(), axes)
	if err != nil {
		return nil, err
	}
	return f.add(compute.OpTypeReverse, ins[0].shape, axes, ins...), nil
}

// Pad records x surrounded and interspersed by a value.
func (f *Function) Pad(x, fill compute.Value, axes ...compute.PadAxis) (compute.Value, error) {
	ins, err := f.values("Pad", x, fill)
	if err != nil {
		return nil, err
	}
	if ins[1].shape.Rank() != 0 || ins[1].shape.DType != ins[0].shape.DType {
		return nil, errors.Errorf("Pad: the fill value has shape %s, want a scalar %s", ins[1].shape, ins[0].shape.DType)
	}
	if err := arithmetic(compute.OpTypePad, ins[0].shape.DType); err != nil {
		return nil, err
	}
	shape, err := shapeinference.Pad(ins[0].shape, axes...)
	if err != nil {
		return nil, err
	}
	all := make([]compute.PadAxis, ins[0].shape.Rank())
	copy(all, axes)
	return f.add(compute.OpTypePad, shape, all, ins...), nil
}

// Concatenate records the operands behind each other along an axis.
func (f *Function) Concatenate(axis int, operands ...compute.Value) (compute.Value, error) {
	ins, err := f.values("Concatenate", operands...)
	if err != nil {
		return nil, err
	}
	all := make([]shapes.Shape, len(ins))
	for i, r := range ins {
		all[i] = r.shape
		if err := arithmetic(compute.OpTypeConcatenate, r.shape.DType); err != nil {
			return nil, err
		}
	}
	shape, err := shapeinference.Concatenate(all, axis)
	if err != nil {
		return nil, err
	}
	if len(ins) == 1 {
		return ins[0], nil
	}
	return f.add(compute.OpTypeConcatenate, shape, axis, ins...), nil
}

func (f *Function) reduce(op compute.OpType, x compute.Value, axes []int) (compute.Value, error) {
	ins, err := f.values(op.String(), x)
	if err != nil {
		return nil, err
	}
	s := ins[0].shape
	axes, err = axesOf(op.String(), s.Rank(), axes)
	if err != nil {
		return nil, err
	}
	var ok bool
	switch op {
	case compute.OpTypeReduceLogicalAnd, compute.OpTypeReduceLogicalOr, compute.OpTypeReduceLogicalXor:
		ok = s.DType == dtypes.Bool
	case compute.OpTypeReduceBitwiseAnd, compute.OpTypeReduceBitwiseOr, compute.OpTypeReduceBitwiseXor:
		ok = s.DType.IsInt()
	default:
		ok = s.DType.IsInt() || s.DType.IsFloat() || s.DType == dtypes.Bool
	}
	if !ok {
		return nil, errors.Errorf("%s is not defined on shape %s", op, s)
	}
	if err := arithmetic(op, s.DType); err != nil {
		return nil, err
	}
	shape, err := shapeinference.Reduce(s, axes)
	if err != nil {
		return nil, err
	}
	return f.add(op, shape.Clone(), axes, ins...), nil
}

// reductions maps the reduction operations to their kernels.
var reductions = map[compute.OpType]loops.Reduction{
	compute.OpTypeReduceSum: loops.Sum, compute.OpTypeReduceProduct: loops.Product,
	compute.OpTypeReduceMax: loops.Max, compute.OpTypeReduceMin: loops.Min,
	compute.OpTypeReduceBitwiseAnd: loops.And, compute.OpTypeReduceLogicalAnd: loops.And,
	compute.OpTypeReduceBitwiseOr: loops.Or, compute.OpTypeReduceLogicalOr: loops.Or,
	compute.OpTypeReduceBitwiseXor: loops.Xor, compute.OpTypeReduceLogicalXor: loops.Xor,
}

// ReduceBitwiseAnd records the reduction over the given axes, or all.
func (f *Function) ReduceBitwiseAnd(x compute.Value, axes ...int) (compute.Value, error) {
	return f.reduce(compute.OpTypeReduceBitwiseAnd, x, axes)
}

// ReduceBitwiseOr records the reduction over the given axes, or all.
func (f *Function) ReduceBitwiseOr(x compute.Value, axes ...int) (compute.Value, error) {
	return f.reduce(compute.OpTypeReduceBitwiseOr, x, axes)
}

// ReduceBitwiseXor records the reduction over the given axes, or all.
func (f *Function) ReduceBitwiseXor(x compute.Value, axes ...int) (compute.Value, error) {
	return f.reduce(compute.OpTypeReduceBitwiseXor, x, axes)
}

// ReduceLogicalAnd records the reduction over the given axes, or all.
func (f *Function) ReduceLogicalAnd(x compute.Value, axes ...int) (compute.Value, error) {
	return f.reduce(compute.OpTypeReduceLogicalAnd, x, axes)
}

// ReduceLogicalOr records the reduction over the given axes, or all.
func (f *Function) ReduceLogicalOr(x compute.Value, axes ...int) (compute.Value, error) {
	return f.reduce(compute.OpTypeReduceLogicalOr, x, axes)
}

// ReduceLogicalXor records the reduction over the given axes, or all.
func (f *Function) ReduceLogicalXor(x compute.Value, axes ...int) (compute.Value, error) {
	return f.reduce(compute.OpTypeReduceLogicalXor, x, axes)
}

// ReduceMax records the reduction over the given axes, or all.
func (f *Function) ReduceMax(x compute.Value, axes ...int) (compute.Value, error) {
	return f.reduce(compute.OpTypeReduceMax, x, axes)
}

// ReduceMin records the reduction over the given axes, or all.
func (f *Function) ReduceMin(x compute.Value, axes ...int) (compute.Value, error) {
	return f.reduce(compute.OpTypeReduceMin, x, axes)
}

// ReduceProduct records the reduction over the given axes, or all.
func (f *Function) ReduceProduct(x compute.Value, axes ...int) (compute.Value, error) {
	return f.reduce(compute.OpTypeReduceProduct, x, axes)
}

// ReduceSum records the reduction over the given axes, or all.
func (f *Function) ReduceSum(x compute.Value, axes ...int) (compute.Value, error) {
	return f.reduce(compute.OpTypeReduceSum, x, axes)
}

// argMinMax holds the parameters of ArgMinMax.
type argMinMax struct {
	axis  int
	isMin bool
}

// ArgMinMax records the index of the smallest or largest element along an axis.
func (f *Function) ArgMinMax(x compute.Value, axis int, out dtypes.DType, isMin bool) (compute.Value, error) {
	ins, err := f.values("ArgMinMax", x)
	if err != nil {
		return nil, err
	}
	numbers := ins[0].shape
	if numbers.DType == dtypes.Bool {
		numbers = numbers.Clone()
		numbers.DType = dtypes.Uint8
	}
	shape, err := shapeinference.ArgMinMax(numbers, axis, out)
	if err != nil {
		return nil, err
	}
	if err := arithmetic(compute.OpTypeArgMinMax, ins[0].shape.DType); err != nil {
		return nil, err
	}
	if err := arithmetic(compute.OpTypeArgMinMax, out); err != nil {
		return nil, err
	}
	return f.add(compute.OpTypeArgMinMax, shape, argMinMax{axis, isMin}, ins...), nil
}
