package weights

import (
	"fmt"
	"math"
	"slices"
)

// Norm returns the Euclidean norm √Σx² over all tensors together. Squares are summed in float64 in a fixed order (four
// interleaved partial sums a tensor); sums that leave float64's range are repeated with scaled elements. It is NaN if an
// element is NaN, else +Inf if one is infinite.
func (s Set) Norm() float64 {
	sum := s.squares(1)
	if sum >= 0x1p-900 && sum <= math.MaxFloat64 || sum != sum {
		return math.Sqrt(sum)
	}
	var m float64
	for _, t := range s.tensors {
		m = max(m, t.maxAbs())
	}
	if m == 0 || m > math.MaxFloat64 {
		return m
	}
	_, exp := math.Frexp(m)
	exp = max(exp, -1000) // 2^−exp is a normal number
	return math.Ldexp(math.Sqrt(s.squares(math.Ldexp(1, -exp))), exp)
}

// squares returns Σ (scale·x)².
func (s Set) squares(scale float64) float64 {
	var sum float64
	for _, t := range s.tensors {
		sum += squares(t.F32, scale) + squares(t.F64, scale)
	}
	return sum
}

func squares[F float32 | float64](x []F, scale float64) float64 {
	var a, b, c, d float64
	for ; len(x) >= 4; x = x[4:] {
		p, q, r, t := float64(x[0])*scale, float64(x[1])*scale, float64(x[2])*scale, float64(x[3])*scale
		a += float64(p * p)
		b += float64(q * q)
		c += float64(r * r)
		d += float64(t * t)
	}
	for _, v := range x {
		p := float64(v) * scale
		a += float64(p * p)
	}
	return (a + b) + (c + d)
}

// Sub returns s − other, each difference computed in float64 and rounded once to s's type. It panics if names or shapes
// differ.
func (s Set) Sub(other Set) Set {
	s.mustPair(other, false)
	out := NewSet(len(s.names))
	for n, t := range s.All() {
		u, v := other.Must(n), NewTensor(t.DType(), t.Shape...)
		switch {
		case t.F64 != nil && u.F64 != nil:
			sub(v.F64, t.F64, u.F64)
		case t.F32 != nil && u.F32 != nil:
			sub(v.F32, t.F32, u.F32) // float64 has more than twice the digits, so rounding twice is rounding once
		default:
			for i := range t.Len() {
				v.SetAt(i, t.At(i)-u.At(i))
			}
		}
		out.add(n, v)
	}
	return out
}

func sub[F float32 | float64](dst, a, b []F) {
	a, b = a[:len(dst)], b[:len(dst)]
	for i := range dst {
		dst[i] = a[i] - b[i]
	}
}

// AddScaled adds alpha·other to s in place, computed in float64 and rounded once. It panics if names, types or shapes
// differ.
func (s Set) AddScaled(alpha float64, other Set) {
	s.mustPair(other, true)
	for n, t := range s.All() {
		u := other.Must(n)
		addScaled(t.F32, alpha, u.F32)
		addScaled(t.F64, alpha, u.F64)
	}
}

func addScaled[F float32 | float64](dst []F, alpha float64, x []F) {
	x = x[:len(dst)]
	for i, v := range x {
		dst[i] = F(float64(dst[i]) + float64(alpha*float64(v)))
	}
}

// Scale multiplies s by alpha in place, computed in float64 and rounded once.
func (s Set) Scale(alpha float64) {
	for _, t := range s.tensors {
		for i, v := range t.F32 {
			t.F32[i] = float32(alpha * float64(v))
		}
		for i, v := range t.F64 {
			t.F64[i] = alpha * v
		}
	}
}

// Map returns f applied to corresponding elements of s and other in float64, rounded once to s's type.
// It panics if names or shapes differ.
func (s Set) Map(other Set, f func(a, b float64) float64) Set {
	s.mustPair(other, false)
	out := NewSet(len(s.names))
	for n, t := range s.All() {
		u, v := other.Must(n), NewTensor(t.DType(), t.Shape...)
		for i := range t.Len() {
			v.SetAt(i, f(t.At(i), u.At(i)))
		}
		out.add(n, v)
	}
	return out
}

// mustPair panics unless s and other have the same names and shapes, and types if asked.
func (s Set) mustPair(other Set, types bool) {
	for n, t := range s.All() {
		u := other.Must(n)
		if !slices.Equal(t.Shape, u.Shape) || types && t.DType() != u.DType() {
			panic(fmt.Sprintf("weights: %q is %v %v and %v %v", n, t.DType(), t.Shape, u.DType(), u.Shape))
		}
	}
	if s.Len() != other.Len() {
		panic(fmt.Sprintf("weights: sets of %d and %d tensors", s.Len(), other.Len()))
	}
}
