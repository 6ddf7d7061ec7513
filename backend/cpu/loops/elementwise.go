package loops

import (
	"math"
	"math/bits"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
)

// Unary returns the kernel of a one-operand operation on dt, or nil if the
// operation is not defined there. The result has type dt, except for
// IsFinite and IsNaN, which give Bool.
func Unary(op compute.OpType, dt dtypes.DType) Kernel {
	if dt == dtypes.Bool {
		if op == compute.OpTypeLogicalNot {
			return logicalNot
		}
		return nil
	}
	switch op {
	case compute.OpTypeAbs:
		return perNumber[Kernel](dt, absSigned[int8], absSigned[int16], absSigned[int32], absSigned[int64],
			Copy(1), Copy(2), Copy(4), Copy(8), absFloat[float32], absFloat[float64])
	case compute.OpTypeNeg:
		return perNumber[Kernel](dt, neg[int8], neg[int16], neg[int32], neg[int64],
			neg[uint8], neg[uint16], neg[uint32], neg[uint64], neg[float32], neg[float64])
	case compute.OpTypeSign:
		return perNumber[Kernel](dt, signInt[int8], signInt[int16], signInt[int32], signInt[int64],
			signInt[uint8], signInt[uint16], signInt[uint32], signInt[uint64], signFloat[float32], signFloat[float64])
	case compute.OpTypeBitwiseNot:
		return perNumber[Kernel](dt, not[int8], not[int16], not[int32], not[int64],
			not[uint8], not[uint16], not[uint32], not[uint64], nil, nil)
	case compute.OpTypeBitCount:
		return perNumber[Kernel](dt, popCount[int8], popCount[int16], popCount[int32], popCount[int64],
			popCount[uint8], popCount[uint16], popCount[uint32], popCount[uint64], nil, nil)
	case compute.OpTypeClz:
		return perNumber[Kernel](dt, clz[int8], clz[int16], clz[int32], clz[int64],
			clz[uint8], clz[uint16], clz[uint32], clz[uint64], nil, nil)
	case compute.OpTypeIsFinite:
		return perFloat(dt, isFinite[float32], isFinite[float64])
	case compute.OpTypeIsNaN:
		return perFloat(dt, isNaN[float32], isNaN[float64])
	case compute.OpTypeSqrt:
		return perFloat(dt, sqrt[float32], sqrt[float64])
	}
	if f := scalarFunc(op); f != nil {
		return perFloat(dt, mapFloat[float32](f), mapFloat[float64](f))
	}
	return nil
}

// scalarFunc is the float64 function behind a transcendental or rounding
// operation. Float32 kernels round its result once, so they are correct to
// within half an ulp of float32 plus the error of the float64 function.
func scalarFunc(op compute.OpType) func(float64) float64 {
	switch op {
	case compute.OpTypeExp:
		return math.Exp
	case compute.OpTypeExpm1:
		return math.Expm1
	case compute.OpTypeLog:
		return math.Log
	case compute.OpTypeLog1p:
		return math.Log1p
	case compute.OpTypeLogistic:
		return func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }
	case compute.OpTypeTanh:
		return math.Tanh
	case compute.OpTypeSin:
		return math.Sin
	case compute.OpTypeCos:
		return math.Cos
	case compute.OpTypeErf:
		return math.Erf
	case compute.OpTypeCeil:
		return math.Ceil
	case compute.OpTypeFloor:
		return math.Floor
	case compute.OpTypeRound:
		return math.RoundToEven
	case compute.OpTypeRsqrt:
		return func(x float64) float64 { return 1 / math.Sqrt(x) }
	}
	return nil
}

func perFloat(dt dtypes.DType, f32, f64 Kernel) Kernel {
	switch dt {
	case dtypes.Float32:
		return f32
	case dtypes.Float64:
		return f64
	}
	return nil
}

func mapFloat[T float](f func(float64) float64) Kernel {
	return func(dst, a, _, _ unsafe.Pointer, n int) {
		d, x := Slice[T](dst, n), Slice[T](a, n)
		for i, v := range x {
			d[i] = T(f(float64(v)))
		}
	}
}

func logicalNot(dst, a, _, _ unsafe.Pointer, n int) {
	d, x := Slice[uint8](dst, n), Slice[uint8](a, n)
	for i, v := range x {
		d[i] = v ^ 1
	}
}

func absSigned[T signed](dst, a, _, _ unsafe.Pointer, n int) {
	d, x := Slice[T](dst, n), Slice[T](a, n)
	for i, v := range x {
		d[i] = max(v, -v)
	}
}

func absFloat[T float](dst, a, _, _ unsafe.Pointer, n int) {
	d, x := Slice[T](dst, n), Slice[T](a, n)
	for i, v := range x {
		d[i] = T(math.Abs(float64(v)))
	}
}

func neg[T number](dst, a, _, _ unsafe.Pointer, n int) {
	d, x := Slice[T](dst, n), Slice[T](a, n)
	for i, v := range x {
		d[i] = -v
	}
}

func signInt[T integer](dst, a, _, _ unsafe.Pointer, n int) {
	d, x := Slice[T](dst, n), Slice[T](a, n)
	for i, v := range x {
		switch {
		case v > 0:
			d[i] = 1
		case v < 0:
			d[i] = ^T(0) // -1
		default:
			d[i] = 0
		}
	}
}

func signFloat[T float](dst, a, _, _ unsafe.Pointer, n int) {
	d, x := Slice[T](dst, n), Slice[T](a, n)
	for i, v := range x {
		switch {
		case v > 0:
			d[i] = 1
		case v < 0:
			d[i] = -1
		default: // ±0 and NaN are their own sign
			d[i] = v
		}
	}
}

func sqrt[T float](dst, a, _, _ unsafe.Pointer, n int) {
	d, x := Slice[T](dst, n), Slice[T](a, n)
	for i, v := range x {
		d[i] = T(math.Sqrt(float64(v)))
	}
}

func not[T integer](dst, a, _, _ unsafe.Pointer, n int) {
	d, x := Slice[T](dst, n), Slice[T](a, n)
	for i, v := range x {
		d[i] = ^v
	}
}

// bitsOf zero-extends the bits of v.
func bitsOf[T integer](v T) uint64 {
	width := uint(unsafe.Sizeof(v)) * 8
	return uint64(v) << (64 - width) >> (64 - width)
}

func popCount[T integer](dst, a, _, _ unsafe.Pointer, n int) {
	d, x := Slice[T](dst, n), Slice[T](a, n)
	for i, v := range x {
		d[i] = T(bits.OnesCount64(bitsOf(v)))
	}
}

func clz[T integer](dst, a, _, _ unsafe.Pointer, n int) {
	d, x := Slice[T](dst, n), Slice[T](a, n)
	for i, v := range x {
		d[i] = T(bits.LeadingZeros64(bitsOf(v)) - (64 - 8*int(unsafe.Sizeof(v))))
	}
}

func isFinite[T float](dst, a, _, _ unsafe.Pointer, n int) {
	d, x := Slice[bool](dst, n), Slice[T](a, n)
	for i, v := range x {
		d[i] = v-v == 0
	}
}

func isNaN[T float](dst, a, _, _ unsafe.Pointer, n int) {
	d, x := Slice[bool](dst, n), Slice[T](a, n)
	for i, v := range x {
		d[i] = v != v
	}
}

// Binary returns the kernel of a two-operand operation whose result has the
// type of its operands, or nil if it is not defined on dt. Integer division
// by zero gives all bits set and the remainder by zero the dividend.
func Binary(op compute.OpType, dt dtypes.DType) Kernel {
	if dt == dtypes.Bool {
		switch op {
		case compute.OpTypeLogicalAnd, compute.OpTypeMul, compute.OpTypeMin:
			return and[uint8]
		case compute.OpTypeLogicalOr, compute.OpTypeAdd, compute.OpTypeMax:
			return or[uint8]
		case compute.OpTypeLogicalXor:
			return xor[uint8]
		}
		return nil
	}
	switch op {
	case compute.OpTypeAdd:
		return perNumber[Kernel](dt, add[int8], add[int16], add[int32], add[int64],
			add[uint8], add[uint16], add[uint32], add[uint64], add[float32], add[float64])
	case compute.OpTypeSub:
		return perNumber[Kernel](dt, sub[int8], sub[int16], sub[int32], sub[int64],
			sub[uint8], sub[uint16], sub[uint32], sub[uint64], sub[float32], sub[float64])
	case compute.OpTypeMul:
		return perNumber[Kernel](dt, mul[int8], mul[int16], mul[int32], mul[int64],
			mul[uint8], mul[uint16], mul[uint32], mul[uint64], mul[float32], mul[float64])
	case compute.OpTypeDiv:
		return perNumber[Kernel](dt, divInt[int8], divInt[int16], divInt[int32], divInt[int64],
			divInt[uint8], divInt[uint16], divInt[uint32], divInt[uint64], divFloat[float32], divFloat[float64])
	case compute.OpTypeRem:
		return perNumber[Kernel](dt, remInt[int8], remInt[int16], remInt[int32], remInt[int64],
			remInt[uint8], remInt[uint16], remInt[uint32], remInt[uint64], remFloat[float32], remFloat[float64])
	case compute.OpTypePow:
		return perNumber[Kernel](dt, powInt[int8], powInt[int16], powInt[int32], powInt[int64],
			powInt[uint8], powInt[uint16], powInt[uint32], powInt[uint64], powFloat[float32], powFloat[float64])
	case compute.OpTypeMax:
		return perNumber[Kernel](dt, maxOf[int8], maxOf[int16], maxOf[int32], maxOf[int64],
			maxOf[uint8], maxOf[uint16], maxOf[uint32], maxOf[uint64], maxOf[float32], maxOf[float64])
	case compute.OpTypeMin:
		return perNumber[Kernel](dt, minOf[int8], minOf[int16], minOf[int32], minOf[int64],
			minOf[uint8], minOf[uint16], minOf[uint32], minOf[uint64], minOf[float32], minOf[float64])
	case compute.OpTypeAtan2:
		return perFloat(dt, atan2[float32], atan2[float64])
	case compute.OpTypeBitwiseAnd:
		return perNumber[Kernel](dt, and[int8], and[int16], and[int32], and[int64],
			and[uint8], and[uint16], and[uint32], and[uint64], nil, nil)
	case compute.OpTypeBitwiseOr:
		return perNumber[Kernel](dt, or[int8], or[int16], or[int32], or[int64],
			or[uint8], or[uint16], or[uint32], or[uint64], nil, nil)
	case compute.OpTypeBitwiseXor:
		return perNumber[Kernel](dt, xor[int8], xor[int16], xor[int32], xor[int64],
			xor[uint8], xor[uint16], xor[uint32], xor[uint64], nil, nil)
	case compute.OpTypeShiftLeft:
		return perNumber[Kernel](dt, shl[int8], shl[int16], shl[int32], shl[int64],
			shl[uint8], shl[uint16], shl[uint32], shl[uint64], nil, nil)
	case compute.OpTypeShiftRightArithmetic:
		return perNumber[Kernel](dt, shr[int8, int8], shr[int16, int16], shr[int32, int32], shr[int64, int64],
			shr[uint8, int8], shr[uint16, int16], shr[uint32, int32], shr[uint64, int64], nil, nil)
	case compute.OpTypeShiftRightLogical:
		return perNumber[Kernel](dt, shr[int8, uint8], shr[int16, uint16], shr[int32, uint32], shr[int64, uint64],
			shr[uint8, uint8], shr[uint16, uint16], shr[uint32, uint32], shr[uint64, uint64], nil, nil)
	}
	return nil
}

func add[T number](dst, a, b, _ unsafe.Pointer, n int) {
	d, x, y := Slice[T](dst, n), Slice[T](a, n), Slice[T](b, n)
	for i, v := range x {
		d[i] = v + y[i]
	}
}

func sub[T number](dst, a, b, _ unsafe.Pointer, n int) {
	d, x, y := Slice[T](dst, n), Slice[T](a, n), Slice[T](b, n)
	for i, v := range x {
		d[i] = v - y[i]
	}
}

func mul[T number](dst, a, b, _ unsafe.Pointer, n int) {
	d, x, y := Slice[T](dst, n), Slice[T](a, n), Slice[T](b, n)
	for i, v := range x {
		d[i] = v * y[i]
	}
}

func divFloat[T float](dst, a, b, _ unsafe.Pointer, n int) {
	d, x, y := Slice[T](dst, n), Slice[T](a, n), Slice[T](b, n)
	for i, v := range x {
		d[i] = v / y[i]
	}
}

func divInt[T integer](dst, a, b, _ unsafe.Pointer, n int) {
	d, x, y := Slice[T](dst, n), Slice[T](a, n), Slice[T](b, n)
	for i, v := range x {
		if y[i] == 0 {
			d[i] = ^T(0)
			continue
		}
		d[i] = v / y[i]
	}
}

func remInt[T integer](dst, a, b, _ unsafe.Pointer, n int) {
	d, x, y := Slice[T](dst, n), Slice[T](a, n), Slice[T](b, n)
	for i, v := range x {
		if y[i] == 0 {
			d[i] = v
			continue
		}
		d[i] = v % y[i]
	}
}

func remFloat[T float](dst, a, b, _ unsafe.Pointer, n int) {
	d, x, y := Slice[T](dst, n), Slice[T](a, n), Slice[T](b, n)
	for i, v := range x {
		d[i] = T(math.Mod(float64(v), float64(y[i])))
	}
}

func powFloat[T float](dst, a, b, _ unsafe.Pointer, n int) {
	d, x, y := Slice[T](dst, n), Slice[T](a, n), Slice[T](b, n)
	for i, v := range x {
		d[i] = T(math.Pow(float64(v), float64(y[i])))
	}
}

// powInt wraps around like multiplication; a negative exponent gives the
// truncated quotient 1/x^|y|, that is 0 unless x is 1 or -1.
func powInt[T integer](dst, a, b, _ unsafe.Pointer, n int) {
	d, x, y := Slice[T](dst, n), Slice[T](a, n), Slice[T](b, n)
	for i, base := range x {
		e := y[i]
		if e < 0 {
			switch {
			case base == 1:
				d[i] = 1
			case base == ^T(0): // -1
				if e&1 == 0 {
					d[i] = 1
				} else {
					d[i] = base
				}
			default:
				d[i] = 0
			}
			continue
		}
		r := T(1)
		for ; e > 0; e >>= 1 {
			if e&1 == 1 {
				r *= base
			}
			base *= base
		}
		d[i] = r
	}
}

func maxOf[T number](dst, a, b, _ unsafe.Pointer, n int) {
	d, x, y := Slice[T](dst, n), Slice[T](a, n), Slice[T](b, n)
	for i, v := range x {
		d[i] = max(v, y[i])
	}
}

func minOf[T number](dst, a, b, _ unsafe.Pointer, n int) {
	d, x, y := Slice[T](dst, n), Slice[T](a, n), Slice[T](b, n)
	for i, v := range x {
		d[i] = min(v, y[i])
	}
}

func atan2[T float](dst, a, b, _ unsafe.Pointer, n int) {
	d, x, y := Slice[T](dst, n), Slice[T](a, n), Slice[T](b, n)
	for i, v := range x {
		d[i] = T(math.Atan2(float64(v), float64(y[i])))
	}
}

func and[T integer](dst, a, b, _ unsafe.Pointer, n int) {
	d, x, y := Slice[T](dst, n), Slice[T](a, n), Slice[T](b, n)
	for i, v := range x {
		d[i] = v & y[i]
	}
}

func or[T integer](dst, a, b, _ unsafe.Pointer, n int) {
	d, x, y := Slice[T](dst, n), Slice[T](a, n), Slice[T](b, n)
	for i, v := range x {
		d[i] = v | y[i]
	}
}

func xor[T integer](dst, a, b, _ unsafe.Pointer, n int) {
	d, x, y := Slice[T](dst, n), Slice[T](a, n), Slice[T](b, n)
	for i, v := range x {
		d[i] = v ^ y[i]
	}
}

func shl[T integer](dst, a, b, _ unsafe.Pointer, n int) {
	d, x, y := Slice[T](dst, n), Slice[T](a, n), Slice[T](b, n)
	for i, v := range x {
		d[i] = v << bitsOf(y[i])
	}
}

// shr shifts values of type T as values of type W of the same width, which
// decides whether the sign moves in.
func shr[T, W integer](dst, a, b, _ unsafe.Pointer, n int) {
	d, x, y := Slice[W](dst, n), Slice[W](a, n), Slice[T](b, n)
	for i, v := range x {
		d[i] = v >> bitsOf(y[i])
	}
}

// Compare returns the kernel of a comparison on dt, whose result is Bool, or
// nil if it is not defined there. The total-order comparisons put
// -NaN < -Inf < finite < -0 < +0 < finite < +Inf < +NaN.
func Compare(op compute.OpType, dt dtypes.DType) Kernel {
	if dt == dtypes.Bool {
		dt = dtypes.Uint8
	}
	switch op {
	case compute.OpTypeEqual:
		return perNumber[Kernel](dt, eq[int8], eq[int16], eq[int32], eq[int64],
			eq[uint8], eq[uint16], eq[uint32], eq[uint64], eq[float32], eq[float64])
	case compute.OpTypeNotEqual:
		return perNumber[Kernel](dt, ne[int8], ne[int16], ne[int32], ne[int64],
			ne[uint8], ne[uint16], ne[uint32], ne[uint64], ne[float32], ne[float64])
	case compute.OpTypeLessThan:
		return perNumber[Kernel](dt, lt[int8], lt[int16], lt[int32], lt[int64],
			lt[uint8], lt[uint16], lt[uint32], lt[uint64], lt[float32], lt[float64])
	case compute.OpTypeLessOrEqual:
		return perNumber[Kernel](dt, le[int8], le[int16], le[int32], le[int64],
			le[uint8], le[uint16], le[uint32], le[uint64], le[float32], le[float64])
	case compute.OpTypeGreaterThan:
		return swap(Compare(compute.OpTypeLessThan, dt))
	case compute.OpTypeGreaterOrEqual:
		return swap(Compare(compute.OpTypeLessOrEqual, dt))
	}
	plain, ok := map[compute.OpType]compute.OpType{
		compute.OpTypeEqualTotalOrder:          compute.OpTypeEqual,
		compute.OpTypeNotEqualTotalOrder:       compute.OpTypeNotEqual,
		compute.OpTypeLessThanTotalOrder:       compute.OpTypeLessThan,
		compute.OpTypeLessOrEqualTotalOrder:    compute.OpTypeLessOrEqual,
		compute.OpTypeGreaterThanTotalOrder:    compute.OpTypeGreaterThan,
		compute.OpTypeGreaterOrEqualTotalOrder: compute.OpTypeGreaterOrEqual,
	}[op]
	if !ok {
		return nil
	}
	switch dt {
	case dtypes.Float32:
		return totalOrder(Compare(plain, dtypes.Int32), order32, 4)
	case dtypes.Float64:
		return totalOrder(Compare(plain, dtypes.Int64), order64, 8)
	}
	return Compare(plain, dt)
}

func swap(k Kernel) Kernel {
	if k == nil {
		return nil
	}
	return func(dst, a, b, c unsafe.Pointer, n int) { k(dst, b, a, c, n) }
}

// totalOrder compares floats through integers with the same order, a few at
// a time.
func totalOrder(k Kernel, order func(dst, src unsafe.Pointer, n int), size int) Kernel {
	const chunk = 64
	return func(dst, a, b, _ unsafe.Pointer, n int) {
		var x, y [chunk]int64
		for i := 0; i < n; i += chunk {
			m := min(chunk, n-i)
			order(unsafe.Pointer(&x), unsafe.Add(a, i*size), m)
			order(unsafe.Pointer(&y), unsafe.Add(b, i*size), m)
			k(unsafe.Add(dst, i), unsafe.Pointer(&x), unsafe.Pointer(&y), nil, m)
		}
	}
}

func order32(dst, src unsafe.Pointer, n int) {
	d := Slice[int32](dst, n)
	for i, v := range Slice[int32](src, n) {
		d[i] = v ^ int32(uint32(v>>31)>>1)
	}
}

func order64(dst, src unsafe.Pointer, n int) {
	d := Slice[int64](dst, n)
	for i, v := range Slice[int64](src, n) {
		d[i] = v ^ int64(uint64(v>>63)>>1)
	}
}

func eq[T number](dst, a, b, _ unsafe.Pointer, n int) {
	d, x, y := Slice[bool](dst, n), Slice[T](a, n), Slice[T](b, n)
	for i, v := range x {
		d[i] = v == y[i]
	}
}

func ne[T number](dst, a, b, _ unsafe.Pointer, n int) {
	d, x, y := Slice[bool](dst, n), Slice[T](a, n), Slice[T](b, n)
	for i, v := range x {
		d[i] = v != y[i]
	}
}

func lt[T number](dst, a, b, _ unsafe.Pointer, n int) {
	d, x, y := Slice[bool](dst, n), Slice[T](a, n), Slice[T](b, n)
	for i, v := range x {
		d[i] = v < y[i]
	}
}

func le[T number](dst, a, b, _ unsafe.Pointer, n int) {
	d, x, y := Slice[bool](dst, n), Slice[T](a, n), Slice[T](b, n)
	for i, v := range x {
		d[i] = v <= y[i]
	}
}

// Select returns the kernel dst = a ? b : c for elements of the given size in
// bytes; a is Bool.
func Select(size int) Kernel {
	switch size {
	case 1:
		return choose[uint8]
	case 2:
		return choose[uint16]
	case 4:
		return choose[uint32]
	case 8:
		return choose[uint64]
	}
	return nil
}

func choose[T any](dst, a, b, c unsafe.Pointer, n int) {
	d, p, x, y := Slice[T](dst, n), Slice[bool](a, n), Slice[T](b, n), Slice[T](c, n)
	for i, t := range p {
		if t {
			d[i] = x[i]
		} else {
			d[i] = y[i]
		}
	}
}

// Copy returns the kernel dst = a for elements of the given size in bytes.
func Copy(size int) Kernel {
	switch size {
	case 1:
		return move[uint8]
	case 2:
		return move[uint16]
	case 4:
		return move[uint32]
	case 8:
		return move[uint64]
	}
	return nil
}

func move[T any](dst, a, _, _ unsafe.Pointer, n int) { copy(Slice[T](dst, n), Slice[T](a, n)) }

// Fill sets n elements of the given size at dst to the element at src.
func Fill(dst, src unsafe.Pointer, size, n int) {
	switch size {
	case 1:
		fill[uint8](dst, src, n)
	case 2:
		fill[uint16](dst, src, n)
	case 4:
		fill[uint32](dst, src, n)
	case 8:
		fill[uint64](dst, src, n)
	}
}

func fill[T any](dst, src unsafe.Pointer, n int) {
	v := *(*T)(src)
	d := Slice[T](dst, n)
	for i := range d {
		d[i] = v
	}
}
