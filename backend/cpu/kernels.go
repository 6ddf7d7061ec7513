package cpu

import (
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"

	"github.com/cohort-learning/cohort/backend/cpu/kernel/vec"
	"github.com/cohort-learning/cohort/backend/cpu/loops"
)

// kernels finds the block kernel of an operation: a vector function for
// float32 where there is one, and the portable loop otherwise.
type kernels struct{ f *vec.Funcs }

// A scalar operand of a kernel is passed as a pointer to its only element;
// which operands are scalars is part of the choice of the kernel.
type scalars uint8

const (
	scalarA scalars = 1 << iota
	scalarB
	scalarC
)

func floats(p unsafe.Pointer, n int) []float32 { return unsafe.Slice((*float32)(p), n) }

func truths(p unsafe.Pointer, n int) []bool { return unsafe.Slice((*bool)(p), n) }

func vecUnary(f vec.Unary) loops.Kernel {
	return func(dst, a, _, _ unsafe.Pointer, n int) { f(floats(dst, n), floats(a, n)) }
}

func vecBinary(f vec.Binary) loops.Kernel {
	return func(dst, a, b, _ unsafe.Pointer, n int) { f(floats(dst, n), floats(a, n), floats(b, n)) }
}

// vecScalar has the scalar second, vecScalarFirst has it first.
func vecScalar(f vec.Scalar) loops.Kernel {
	return func(dst, a, b, _ unsafe.Pointer, n int) { f(floats(dst, n), floats(a, n), *(*float32)(b)) }
}

func vecScalarFirst(f vec.Scalar) loops.Kernel {
	return func(dst, a, b, _ unsafe.Pointer, n int) { f(floats(dst, n), floats(b, n), *(*float32)(a)) }
}

func vecCompare(f vec.Compare) loops.Kernel {
	return func(dst, a, b, _ unsafe.Pointer, n int) { f(truths(dst, n), floats(a, n), floats(b, n)) }
}

func vecCompareScalar(f vec.CompareScalar) loops.Kernel {
	return func(dst, a, b, _ unsafe.Pointer, n int) { f(truths(dst, n), floats(a, n), *(*float32)(b)) }
}

func vecCompareScalarFirst(f vec.CompareScalar) loops.Kernel {
	return func(dst, a, b, _ unsafe.Pointer, n int) { f(truths(dst, n), floats(b, n), *(*float32)(a)) }
}

// unary returns the kernel of a one-operand node.
func (k kernels) unary(op compute.OpType, dt dtypes.DType) loops.Kernel {
	if op == compute.OpTypeIdentity {
		return loops.Copy(dt.Size())
	}
	if dt == dtypes.Float32 {
		f := k.f
		v := map[compute.OpType]vec.Unary{
			compute.OpTypeNeg: f.Neg, compute.OpTypeAbs: f.Abs, compute.OpTypeSign: f.Sign,
			compute.OpTypeSqrt: f.Sqrt, compute.OpTypeRsqrt: f.Rsqrt, compute.OpTypeFloor: f.Floor,
			compute.OpTypeCeil: f.Ceil, compute.OpTypeRound: f.Round, compute.OpTypeExp: f.Exp,
			compute.OpTypeExpm1: f.Expm1, compute.OpTypeLog: f.Log, compute.OpTypeLog1p: f.Log1p,
			compute.OpTypeTanh: f.Tanh, compute.OpTypeLogistic: f.Logistic, compute.OpTypeErf: f.Erf,
			compute.OpTypeSin: f.Sin, compute.OpTypeCos: f.Cos,
		}[op]
		if v != nil {
			return vecUnary(v)
		}
	}
	return loops.Unary(op, dt)
}

// convert returns the kernel of a conversion.
func (k kernels) convert(from, to dtypes.DType) loops.Kernel {
	f := k.f
	switch {
	case from == dtypes.Bool && to == dtypes.Float32:
		return func(dst, a, _, _ unsafe.Pointer, n int) { f.BoolToF32(floats(dst, n), truths(a, n)) }
	case from == dtypes.Int32 && to == dtypes.Float32:
		return func(dst, a, _, _ unsafe.Pointer, n int) { f.I32ToF32(floats(dst, n), unsafe.Slice((*int32)(a), n)) }
	case from == dtypes.BFloat16 && to == dtypes.Float32:
		return func(dst, a, _, _ unsafe.Pointer, n int) { f.BF16ToF32(floats(dst, n), unsafe.Slice((*uint16)(a), n)) }
	case from == dtypes.Float16 && to == dtypes.Float32:
		return func(dst, a, _, _ unsafe.Pointer, n int) { f.F16ToF32(floats(dst, n), unsafe.Slice((*uint16)(a), n)) }
	case from == dtypes.Float32 && to == dtypes.BFloat16:
		return func(dst, a, _, _ unsafe.Pointer, n int) { f.F32ToBF16(unsafe.Slice((*uint16)(dst), n), floats(a, n)) }
	case from == dtypes.Float32 && to == dtypes.Float16:
		return func(dst, a, _, _ unsafe.Pointer, n int) { f.F32ToF16(unsafe.Slice((*uint16)(dst), n), floats(a, n)) }
	}
	return loops.Convert(from, to)
}

// binary returns the kernel of a two-operand node whose operands have type dt,
// or nil if there is none for this choice of scalars.
func (k kernels) binary(op compute.OpType, dt dtypes.DType, s scalars) loops.Kernel {
	if dt == dtypes.Float32 {
		return k.binaryFloat(op, s)
	}
	if s != 0 {
		return nil
	}
	if v := loops.Binary(op, dt); v != nil {
		return v
	}
	return loops.Compare(op, dt)
}

func (k kernels) binaryFloat(op compute.OpType, s scalars) loops.Kernel {
	f := k.f
	type forms struct {
		vv     vec.Binary
		vs, sv vec.Scalar
	}
	if b, ok := map[compute.OpType]forms{
		compute.OpTypeAdd: {f.Add, f.AddS, f.AddS}, compute.OpTypeSub: {f.Sub, f.SubS, f.RSubS},
		compute.OpTypeMul: {f.Mul, f.MulS, f.MulS}, compute.OpTypeDiv: {f.Div, f.DivS, f.RDivS},
		compute.OpTypeMax: {f.Max, f.MaxS, f.MaxS}, compute.OpTypeMin: {f.Min, f.MinS, f.MinS},
		compute.OpTypePow: {f.Pow, f.PowS, f.RPowS},
	}[op]; ok {
		switch s {
		case 0:
			return vecBinary(b.vv)
		case scalarB:
			return vecScalar(b.vs)
		case scalarA:
			return vecScalarFirst(b.sv)
		}
		return nil
	}
	type comparisons struct {
		vv     vec.Compare
		vs, sv vec.CompareScalar
	}
	if c, ok := map[compute.OpType]comparisons{
		compute.OpTypeEqual: {f.Eq, f.EqS, f.EqS}, compute.OpTypeNotEqual: {f.Ne, f.NeS, f.NeS},
		compute.OpTypeLessThan: {f.Lt, f.LtS, f.GtS}, compute.OpTypeLessOrEqual: {f.Le, f.LeS, f.GeS},
		compute.OpTypeGreaterThan: {f.Gt, f.GtS, f.LtS}, compute.OpTypeGreaterOrEqual: {f.Ge, f.GeS, f.LeS},
	}[op]; ok {
		switch s {
		case 0:
			return vecCompare(c.vv)
		case scalarB:
			return vecCompareScalar(c.vs)
		case scalarA:
			return vecCompareScalarFirst(c.sv)
		}
		return nil
	}
	if s != 0 {
		return nil
	}
	if v := loops.Binary(op, dtypes.Float32); v != nil {
		return v
	}
	return loops.Compare(op, dtypes.Float32)
}

// choose returns the kernel of a Where node.
func (k kernels) choose(dt dtypes.DType, s scalars) loops.Kernel {
	f := k.f
	if dt == dtypes.Float32 {
		switch s {
		case 0:
			return func(dst, a, b, c unsafe.Pointer, n int) {
				f.Select(floats(dst, n), truths(a, n), floats(b, n), floats(c, n))
			}
		case scalarC:
			return func(dst, a, b, c unsafe.Pointer, n int) {
				f.SelectVS(floats(dst, n), truths(a, n), floats(b, n), *(*float32)(c))
			}
		case scalarB:
			return func(dst, a, b, c unsafe.Pointer, n int) {
				f.SelectSV(floats(dst, n), truths(a, n), *(*float32)(b), floats(c, n))
			}
		}
		return nil
	}
	if s != 0 {
		return nil
	}
	return loops.Select(dt.Size())
}

// of returns the kernel of an element-wise node with the given scalars, or nil.
func (k kernels) of(n *node, s scalars) loops.Kernel {
	switch {
	case n.op == compute.OpTypeConvertDType:
		if s != 0 {
			return nil
		}
		return k.convert(n.ins[0].dt, n.dt)
	case n.op == compute.OpTypeWhere:
		return k.choose(n.dt, s)
	case len(n.ins) == 2:
		return k.binary(n.op, n.ins[0].dt, s)
	case s != 0:
		return nil
	}
	return k.unary(n.op, n.ins[0].dt)
}

// rows returns the kernel that folds rows.
func (k kernels) rows(r loops.Reduction, dt dtypes.DType) loops.RowKernel {
	if dt == dtypes.Float32 {
		fold := map[loops.Reduction]vec.Reduce{
			loops.Sum: k.f.Sum, loops.Product: k.f.Prod, loops.Max: k.f.MaxOf, loops.Min: k.f.MinOf,
		}[r]
		if fold != nil {
			return func(dst, src unsafe.Pointer, rows, n int) {
				d, s := floats(dst, rows), floats(src, rows*n)
				for i := range d {
					d[i] = fold(s[i*n : (i+1)*n])
				}
			}
		}
	}
	return loops.RowReduce(r, dt)
}

// isElementwise tells whether the node computes each element from the elements
// at the same place of its operands.
func isElementwise(n *node) bool {
	switch n.op {
	case compute.OpTypeIdentity, compute.OpTypeConvertDType, compute.OpTypeWhere:
		return true
	case compute.OpTypeParameter, compute.OpTypeConstant:
		return false
	}
	if n.isView() || n.op >= opResult || len(n.ins) == 0 || len(n.ins) > 2 {
		return false
	}
	if len(n.ins) == 1 {
		return loops.Unary(n.op, n.ins[0].dt) != nil
	}
	return loops.Binary(n.op, n.ins[0].dt) != nil || loops.Compare(n.op, n.ins[0].dt) != nil
}
