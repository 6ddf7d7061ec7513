// Package loops holds the portable kernels of the cpu backend: for every
// element type and operation one plain Go loop over contiguous blocks.
//
// A [Kernel] reads up to three operand blocks and writes one result block of
// n elements. Blocks are addressed by raw pointers, because the backend keeps
// every temporary in one untyped arena; the element types are fixed when the
// kernel is looked up ([Unary], [Binary], [Compare], [Select], [Convert]). A
// result block may be the same memory as an operand block of the same element
// size, but may not overlap one partially.
//
// Bool is stored as one byte that is 0 or 1. The half-precision types take
// part in [Convert] only: arithmetic on them is done in float32 by the caller
// and rounded back, which is what their definition asks for.
//
// [RowReduce], [Gather], [Scatter], [Window] and the other functions with
// shapes are the reference implementations of the structured operations; none
// allocates in proportion to the data.
package loops

import (
	"unsafe"

	"github.com/gomlx/compute/dtypes"
)

// Kernel computes one block of n results from up to three operand blocks;
// operands beyond the arity of the operation are ignored.
type Kernel func(dst, a, b, c unsafe.Pointer, n int)

type signed interface {
	int8 | int16 | int32 | int64
}

type unsigned interface {
	uint8 | uint16 | uint32 | uint64
}

type integer interface{ signed | unsigned }

type float interface{ float32 | float64 }

type number interface{ integer | float }

// Slice views n elements at p. A nil p is allowed for n = 0.
func Slice[T any](p unsafe.Pointer, n int) []T { return unsafe.Slice((*T)(p), n) }

// Size is the number of bytes of one element of dt; packed types (below one
// byte) report 1, the size of their storage unit.
func Size(dt dtypes.DType) int { return dt.Size() }

// perNumber picks the instantiation for a numeric type; nil for others.
func perNumber[F any](dt dtypes.DType, i8, i16, i32, i64, u8, u16, u32, u64, f32, f64 F) F {
	switch dt {
	case dtypes.Int8:
		return i8
	case dtypes.Int16:
		return i16
	case dtypes.Int32:
		return i32
	case dtypes.Int64:
		return i64
	case dtypes.Uint8:
		return u8
	case dtypes.Uint16:
		return u16
	case dtypes.Uint32:
		return u32
	case dtypes.Uint64:
		return u64
	case dtypes.Float32:
		return f32
	case dtypes.Float64:
		return f64
	}
	var none F
	return none
}
