package weights

import (
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
)

// DType is the type of a tensor's elements.
type DType uint8

// The element types that models are kept in. Float32 is what travels; Float64 exists so that reference values can be
// checked with the real training loop.
const (
	Float32 DType = iota
	Float64
)

// String returns "float32" or "float64".
func (d DType) String() string {
	if d == Float64 {
		return "float64"
	}
	return "float32"
}

// Size returns the bytes of one element.
func (d DType) Size() int {
	if d == Float64 {
		return 8
	}
	return 4
}

// Tensor is a dense row-major array. Exactly one of F32 and F64 holds its elements; the product of Shape is their number.
// A tensor is a header: copying it shares the elements, [Tensor.Clone] copies them.
type Tensor struct {
	Shape []int
	F32   []float32
	F64   []float64
}

// NewTensor returns zeros of the given type and shape.
func NewTensor(d DType, shape ...int) Tensor {
	n := elements(shape)
	t := Tensor{Shape: slices.Clone(shape)}
	if d == Float64 {
		t.F64 = make([]float64, n)
	} else {
		t.F32 = make([]float32, n)
	}
	return t
}

// Of32 returns a tensor that holds data itself. It panics if the shape does not match.
func Of32(data []float32, shape ...int) Tensor {
	checkLen(len(data), shape)
	return Tensor{Shape: slices.Clone(shape), F32: data}
}

// Of64 returns a tensor that holds data itself. It panics if the shape does not match.
func Of64(data []float64, shape ...int) Tensor {
	checkLen(len(data), shape)
	if data == nil {
		data = []float64{} // an empty tensor keeps its type
	}
	return Tensor{Shape: slices.Clone(shape), F64: data}
}

// volume returns the product of shape. It is not ok if a dimension is negative, or if the product of the non-zero ones,
// which strides are made of, is so large that the bytes of as many coordinates of a sum would be no int.
func volume(shape []int) (n int, ok bool) {
	n, full := 1, uint64(16)
	for _, d := range shape {
		if d < 0 {
			return 0, false
		}
		n *= d
		if d == 0 {
			continue
		}
		var hi uint64
		if hi, full = bits.Mul64(full, uint64(d)); hi != 0 || full > math.MaxInt {
			return 0, false
		}
	}
	return n, true
}

// elements returns the product of shape and panics if there is none.
func elements(shape []int) int {
	n, ok := volume(shape)
	if !ok {
		panic(fmt.Sprintf("weights: shape %v is negative or too large", shape))
	}
	return n
}

// valid returns an error unless t's elements fill its shape.
func (t Tensor) valid() error {
	if t.F32 != nil && t.F64 != nil {
		return errors.New("it has elements of two types")
	}
	n, ok := volume(t.Shape)
	if !ok {
		return fmt.Errorf("shape %v is negative or too large", t.Shape)
	}
	if n != t.Len() {
		return fmt.Errorf("%d elements do not fill shape %v", t.Len(), t.Shape)
	}
	return nil
}

func checkLen(n int, shape []int) {
	if n != elements(shape) {
		panic(fmt.Sprintf("weights: %d elements do not fill shape %v", n, shape))
	}
}

// DType returns the type of t's elements.
func (t Tensor) DType() DType {
	if t.F64 != nil {
		return Float64
	}
	return Float32
}

// Len returns the number of elements.
func (t Tensor) Len() int {
	if t.F64 != nil {
		return len(t.F64)
	}
	return len(t.F32)
}

// At returns element i in row-major order, widened to float64.
func (t Tensor) At(i int) float64 {
	if t.F64 != nil {
		return t.F64[i]
	}
	return float64(t.F32[i])
}

// SetAt stores v, rounded to t's type, as element i in row-major order.
func (t Tensor) SetAt(i int, v float64) {
	if t.F64 != nil {
		t.F64[i] = v
		return
	}
	t.F32[i] = float32(v)
}

// Clone returns a copy that shares nothing with t.
func (t Tensor) Clone() Tensor {
	return Tensor{Shape: slices.Clone(t.Shape), F32: slices.Clone(t.F32), F64: slices.Clone(t.F64)}
}

// SameLayout reports whether t and u have the same type and shape.
func (t Tensor) SameLayout(u Tensor) bool {
	return t.DType() == u.DType() && slices.Equal(t.Shape, u.Shape)
}

// Equal reports whether t and u are the same to the bit (so NaNs with equal bits are equal, and 0 and −0 are not).
func (t Tensor) Equal(u Tensor) bool {
	if !t.SameLayout(u) {
		return false
	}
	for i, v := range t.F32 {
		if math.Float32bits(v) != math.Float32bits(u.F32[i]) {
			return false
		}
	}
	for i, v := range t.F64 {
		if math.Float64bits(v) != math.Float64bits(u.F64[i]) {
			return false
		}
	}
	return true
}

// firstNonFinite returns the position of the first NaN or ±Inf, or -1.
func (t Tensor) firstNonFinite() int {
	if t.maxAbs() <= math.MaxFloat64 {
		return -1
	}
	for i := range t.Len() {
		if v := t.At(i); v-v != 0 {
			return i
		}
	}
	return -1
}

// maxAbs returns the greatest magnitude, or a value that is not finite if an element is not. It compares bits: without the
// sign, their order is that of the magnitudes, then infinity, then NaN.
func (t Tensor) maxAbs() float64 {
	var a, b, c, d uint32
	x := t.F32
	for ; len(x) >= 4; x = x[4:] {
		a = max(a, math.Float32bits(x[0])&^(1<<31))
		b = max(b, math.Float32bits(x[1])&^(1<<31))
		c = max(c, math.Float32bits(x[2])&^(1<<31))
		d = max(d, math.Float32bits(x[3])&^(1<<31))
	}
	for _, v := range x {
		a = max(a, math.Float32bits(v)&^(1<<31))
	}
	var m uint64
	for _, v := range t.F64 {
		m = max(m, math.Float64bits(v)&^(1<<63))
	}
	return max(float64(math.Float32frombits(max(a, b, c, d))), math.Float64frombits(m))
}
