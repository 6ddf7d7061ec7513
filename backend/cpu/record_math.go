package cpu

import (
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapeinference"
	"github.com/gomlx/compute/shapes"
	"github.com/pkg/errors"
)

// This file records the element-wise operations.

func (f *Function) unary(op compute.OpType, x compute.Value) (compute.Value, error) {
	ins, err := f.values(op.String(), x)
	if err != nil {
		return nil, err
	}
	shape, err := shapeinference.UnaryOp(op, ins[0].shape)
	if err != nil {
		return nil, err
	}
	if err := arithmetic(op, shape.DType); err != nil {
		return nil, err
	}
	return f.add(op, shape, nil, ins...), nil
}

// arithmetic refuses dtypes that can only be stored and converted.
func arithmetic(op compute.OpType, dt dtypes.DType) error {
	if dt.IsPacked() || dt.IsComplex() {
		return errors.Wrapf(compute.ErrNotImplemented, "cpu backend: %s of dtype %s", op, dt)
	}
	return nil
}

// test records an operation from floats to Bool.
func (f *Function) test(op compute.OpType, x compute.Value) (compute.Value, error) {
	ins, err := f.values(op.String(), x)
	if err != nil {
		return nil, err
	}
	shape := ins[0].shape.Clone()
	if !shape.DType.IsFloat() {
		return nil, errors.Errorf("%s: operand must be float, got %s", op, shape)
	}
	shape.DType = dtypes.Bool
	return f.add(op, shape, nil, ins...), nil
}

func (f *Function) binary(op compute.OpType, lhs, rhs compute.Value) (compute.Value, error) {
	ins, err := f.values(op.String(), lhs, rhs)
	if err != nil {
		return nil, err
	}
	shape, err := shapeinference.BinaryOp(op, ins[0].shape, ins[1].shape)
	if err != nil {
		return nil, err
	}
	if err := arithmetic(op, shape.DType); err != nil {
		return nil, err
	}
	return f.add(op, shape.Clone(), nil, ins...), nil
}

func (f *Function) compare(op compute.OpType, lhs, rhs compute.Value) (compute.Value, error) {
	ins, err := f.values(op.String(), lhs, rhs)
	if err != nil {
		return nil, err
	}
	if err := arithmetic(op, ins[0].shape.DType); err != nil {
		return nil, err
	}
	shape, err := shapeinference.ComparisonOp(op, ins[0].shape, ins[1].shape)
	if err != nil {
		return nil, err
	}
	return f.add(op, shape, nil, ins...), nil
}

// Abs records the element-wise operation.
func (f *Function) Abs(x compute.Value) (compute.Value, error) { return f.unary(compute.OpTypeAbs, x) }

// BitCount records the element-wise operation.
func (f *Function) BitCount(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeBitCount, x)
}

// BitwiseNot records the element-wise operation.
func (f *Function) BitwiseNot(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeBitwiseNot, x)
}

// Ceil records the element-wise operation.
func (f *Function) Ceil(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeCeil, x)
}

// Clz records the element-wise operation.
func (f *Function) Clz(x compute.Value) (compute.Value, error) { return f.unary(compute.OpTypeClz, x) }

// Cos records the element-wise operation.
func (f *Function) Cos(x compute.Value) (compute.Value, error) { return f.unary(compute.OpTypeCos, x) }

// Erf records the element-wise operation.
func (f *Function) Erf(x compute.Value) (compute.Value, error) { return f.unary(compute.OpTypeErf, x) }

// Exp records the element-wise operation.
func (f *Function) Exp(x compute.Value) (compute.Value, error) { return f.unary(compute.OpTypeExp, x) }

// Expm1 records the element-wise operation.
func (f *Function) Expm1(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeExpm1, x)
}

// Floor records the element-wise operation.
func (f *Function) Floor(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeFloor, x)
}

// Log records the element-wise operation.
func (f *Function) Log(x compute.Value) (compute.Value, error) { return f.unary(compute.OpTypeLog, x) }

// Log1p records the element-wise operation.
func (f *Function) Log1p(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeLog1p, x)
}

// LogicalNot records the element-wise operation.
func (f *Function) LogicalNot(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeLogicalNot, x)
}

// Logistic records the element-wise operation.
func (f *Function) Logistic(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeLogistic, x)
}

// Neg records the element-wise operation.
func (f *Function) Neg(x compute.Value) (compute.Value, error) { return f.unary(compute.OpTypeNeg, x) }

// Round records the element-wise operation.
func (f *Function) Round(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeRound, x)
}

// Rsqrt records the element-wise operation.
func (f *Function) Rsqrt(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeRsqrt, x)
}

// Sign records the element-wise operation.
func (f *Function) Sign(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeSign, x)
}

// Sin records the element-wise operation.
func (f *Function) Sin(x compute.Value) (compute.Value, error) { return f.unary(compute.OpTypeSin, x) }

// Sqrt records the element-wise operation.
func (f *Function) Sqrt(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeSqrt, x)
}

// Tanh records the element-wise operation.
func (f *Function) Tanh(x compute.Value) (compute.Value, error) {
	return f.unary(compute.OpTypeTanh, x)
}

// IsFinite records the element-wise test.
func (f *Function) IsFinite(x compute.Value) (compute.Value, error) {
	return f.test(compute.OpTypeIsFinite, x)
}

// IsNaN records the element-wise test.
func (f *Function) IsNaN(x compute.Value) (compute.Value, error) {
	return f.test(compute.OpTypeIsNaN, x)
}

// Add records the element-wise operation.
func (f *Function) Add(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeAdd, lhs, rhs)
}

// Atan2 records the element-wise operation.
func (f *Function) Atan2(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeAtan2, lhs, rhs)
}

// BitwiseAnd records the element-wise operation.
func (f *Function) BitwiseAnd(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeBitwiseAnd, lhs, rhs)
}

// BitwiseOr records the element-wise operation.
func (f *Function) BitwiseOr(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeBitwiseOr, lhs, rhs)
}

// BitwiseXor records the element-wise operation.
func (f *Function) BitwiseXor(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeBitwiseXor, lhs, rhs)
}

// Div records the element-wise operation.
func (f *Function) Div(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeDiv, lhs, rhs)
}

// LogicalAnd records the element-wise operation.
func (f *Function) LogicalAnd(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeLogicalAnd, lhs, rhs)
}

// LogicalOr records the element-wise operation.
func (f *Function) LogicalOr(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeLogicalOr, lhs, rhs)
}

// LogicalXor records the element-wise operation.
func (f *Function) LogicalXor(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeLogicalXor, lhs, rhs)
}

// Max records the element-wise operation.
func (f *Function) Max(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeMax, lhs, rhs)
}

// Min records the element-wise operation.
func (f *Function) Min(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeMin, lhs, rhs)
}

// Mul records the element-wise operation.
func (f *Function) Mul(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeMul, lhs, rhs)
}

// Pow records the element-wise operation.
func (f *Function) Pow(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypePow, lhs, rhs)
}

// Rem records the element-wise operation.
func (f *Function) Rem(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeRem, lhs, rhs)
}

// ShiftLeft records the element-wise operation.
func (f *Function) ShiftLeft(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeShiftLeft, lhs, rhs)
}

// ShiftRightArithmetic records the element-wise operation.
func (f *Function) ShiftRightArithmetic(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeShiftRightArithmetic, lhs, rhs)
}

// ShiftRightLogical records the element-wise operation.
func (f *Function) ShiftRightLogical(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeShiftRightLogical, lhs, rhs)
}

// Sub records the element-wise operation.
func (f *Function) Sub(lhs, rhs compute.Value) (compute.Value, error) {
	return f.binary(compute.OpTypeSub, lhs, rhs)
}

// Equal records the element-wise comparison.
func (f *Function) Equal(lhs, rhs compute.Value) (compute.Value, error) {
	return f.compare(compute.OpTypeEqual, lhs, rhs)
}

// EqualTotalOrder records the element-wise comparison.
func (f *Function) EqualTotalOrder(lhs, rhs compute.Value) (compute.Value, error) {
	return f.compare(compute.OpTypeEqualTotalOrder, lhs, rhs)
}

// GreaterOrEqual records the element-wise comparison.
func (f *Function) GreaterOrEqual(lhs, rhs compute.Value) (compute.Value, error) {
	return f.compare(compute.OpTypeGreaterOrEqual, lhs, rhs)
}

// GreaterOrEqualTotalOrder records the element-wise comparison.
func (f *Function) GreaterOrEqualTotalOrder(lhs, rhs compute.Value) (compute.Value, error) {
	return f.compare(compute.OpTypeGreaterOrEqualTotalOrder, lhs, rhs)
}

// GreaterThan records the element-wise comparison.
func (f *Function) GreaterThan(lhs, rhs compute.Value) (compute.Value, error) {
	return f.compare(compute.OpTypeGreaterThan, lhs, rhs)
}

// GreaterThanTotalOrder records the element-wise comparison.
func (f *Function) GreaterThanTotalOrder(lhs, rhs compute.Value) (compute.Value, error) {
	return f.compare(compute.OpTypeGreaterThanTotalOrder, lhs, rhs)
}

// LessOrEqual records the element-wise comparison.
func (f *Function) LessOrEqual(lhs, rhs compute.Value) (compute.Value, error) {
	return f.compare(compute.OpTypeLessOrEqual, lhs, rhs)
}

// LessOrEqualTotalOrder records the element-wise comparison.
func (f *Function) LessOrEqualTotalOrder(lhs, rhs compute.Value) (compute.Value, error) {
	return f.compare(compute.OpTypeLessOrEqualTotalOrder, lhs, rhs)
}

// LessThan records the element-wise comparison.
func (f *Function) LessThan(lhs, rhs compute.Value) (compute.Value, error) {
	return f.compare(compute.OpTypeLessThan, lhs, rhs)
}

// LessThanTotalOrder records the element-wise comparison.
func (f *Function) LessThanTotalOrder(lhs, rhs compute.Value) (compute.Value, error) {
	return f.compare(compute.OpTypeLessThanTotalOrder, lhs, rhs)
}

// NotEqual records the element-wise comparison.
func (f *Function) NotEqual(lhs, rhs compute.Value) (compute.Value, error) {
	return f.compare(compute.OpTypeNotEqual, lhs, rhs)
}

// NotEqualTotalOrder records the element-wise comparison.
func (f *Function) NotEqualTotalOrder(lhs, rhs compute.Value) (compute.Value, error) {
	return f.compare(compute.OpTypeNotEqualTotalOrder, lhs, rhs)
}

// Clamp records min(max(x, low), high).
func (f *Function) Clamp(low, x, high compute.Value) (compute.Value, error) {
	y, err := f.Max(x, low)
	if err != nil {
		return nil, errors.WithMessage(err, "Clamp")
	}
	return f.Min(y, high)
}

// Where records condition ? onTrue : onFalse.
func (f *Function) Where(condition, onTrue, onFalse compute.Value) (compute.Value, error) {
	ins, err := f.values("Where", condition, onTrue, onFalse)
	if err != nil {
		return nil, err
	}
	shape, err := shapeinference.Where(ins[0].shape, ins[1].shape, ins[2].shape)
	if err != nil {
		return nil, err
	}
	if err := arithmetic(compute.OpTypeWhere, shape.DType); err != nil {
		return nil, err
	}
	return f.add(compute.OpTypeWhere, shape.Clone(), nil, ins...), nil
}

// ConvertDType records a conversion of every element.
func (f *Function) ConvertDType(x compute.Value, dt dtypes.DType) (compute.Value, error) {
	ins, err := f.values("ConvertDType", x)
	if err != nil {
		return nil, err
	}
	if !capabilities.DTypes[dt] {
		return nil, errors.Wrapf(compute.ErrNotImplemented, "cpu backend: ConvertDType to %s", dt)
	}
	shape := ins[0].shape.Clone()
	shape.DType = dt
	return f.add(compute.OpTypeConvertDType, shape, nil, ins...), nil
}

// Bitcast records a reinterpretation of the bits.
func (f *Function) Bitcast(x compute.Value, dt dtypes.DType) (compute.Value, error) {
	ins, err := f.values("Bitcast", x)
	if err != nil {
		return nil, err
	}
	if !capabilities.DTypes[dt] {
		return nil, errors.Wrapf(compute.ErrNotImplemented, "cpu backend: Bitcast to %s", dt)
	}
	if dt.Bits() > ins[0].shape.DType.Bits() && ins[0].shape.Rank() == 0 {
		return nil, errors.Errorf("Bitcast: a scalar %s has too few bits for %s", ins[0].shape, dt)
	}
	shape, err := shapeinference.Bitcast(ins[0].shape, dt)
	if err != nil {
		return nil, err
	}
	return f.add(compute.OpTypeBitcast, shape, nil, ins...), nil
}

// Identity returns x.
func (f *Function) Identity(x compute.Value) (compute.Value, error) {
	ins, err := f.values("Identity", x)
	if err != nil {
		return nil, err
	}
	return ins[0], nil
}

// OptimizationBarrier records that the results are not to be merged with
// equal values computed elsewhere.
func (f *Function) OptimizationBarrier(operands ...compute.Value) ([]compute.Value, error) {
	ins, err := f.values("OptimizationBarrier", operands...)
	if err != nil {
		return nil, err
	}
	out := make([]compute.Value, len(ins))
	for i, r := range ins {
		out[i] = f.add(compute.OpTypeOptimizationBarrier, r.shape, nil, r)
	}
	return out, nil
}

// SchedulingBarrier records that the result is available only after all
// dependencies.
func (f *Function) SchedulingBarrier(operand compute.Value, dependencies ...compute.Value) (compute.Value, error) {
	ins, err := f.values("SchedulingBarrier", append([]compute.Value{operand}, dependencies...)...)
	if err != nil {
		return nil, err
	}
	return f.add(compute.OpTypeSchedulingBarrier, ins[0].shape, nil, ins...), nil
}

// Iota records the numbers 0, 1, … along an axis.
func (f *Function) Iota(shape shapes.Shape, axis int) (compute.Value, error) {
	if err := f.open("Iota"); err != nil {
		return nil, err
	}
	if axis < 0 || axis >= shape.Rank() {
		return nil, errors.Errorf("Iota: axis %d of shape %s", axis, shape)
	}
	if err := arithmetic(compute.OpTypeIota, shape.DType); err != nil {
		return nil, err
	}
	return f.add(compute.OpTypeIota, shape.Clone(), axis), nil
}

// RNGBitGenerator records the generation of random bits; see loops.Philox.
func (f *Function) RNGBitGenerator(state compute.Value, shape shapes.Shape) (newState, values compute.Value, err error) {
	ins, err := f.values("RNGBitGenerator", state)
	if err != nil {
		return nil, nil, err
	}
	if !ins[0].shape.Equal(compute.RNGStateShape) {
		return nil, nil, errors.Errorf("RNGBitGenerator: state has shape %s, want %s", ins[0].shape, compute.RNGStateShape)
	}
	if err := arithmetic(compute.OpTypeRNGBitGenerator, shape.DType); err != nil {
		return nil, nil, err
	}
	out := f.addMulti(compute.OpTypeRNGBitGenerator, []shapes.Shape{ins[0].shape, shape}, nil, ins...)
	return out[0], out[1], nil
}

// axesOf resolves the axes of a reduction; none means all.
func axesOf(what string, rank int, axes []int) ([]int, error) {
	if len(axes) == 0 {
		axes = make([]int, rank)
		for i := range axes {
			axes[i] = i
		}
	}
	axes = slices.Clone(axes)
	slices.Sort(axes)
	for i, a := range axes {
		if a < 0 || a >= rank || i > 0 && a == axes[i-1] {
			return nil, errors.Errorf("%s: axes %v for rank %d, want distinct ones in [0, %d)", what, axes, rank, rank)
		}
	}
	return axes, nil
}
