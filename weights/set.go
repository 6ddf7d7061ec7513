// Package weights holds what models are made of and what members send: sets of named tensors.
//
// Three nouns:
//   - [Set]: tensors by name, in the order of the network; arithmetic, norms, finiteness, safetensors files.
//   - [Index]: which coordinates of a set a member holds: per tensor the product of one set of positions an axis
//     (a prefix, a prefix of every head, or any list). It slices a set and scatters a slice back.
//   - [Acc]: exact sums of many sets in 128-bit fixed point, so that a total does not depend on the order of arrival,
//     on threads, on relays or on restarts.
//
// Everything is deterministic: tensors are visited in the order in which they were put.
package weights

import (
	"fmt"
	"iter"
	"math"
	"slices"
)

// Set is an ordered collection of named tensors. The zero value is an empty set that reads as empty; use [NewSet] or
// [Set.Put] on a variable to fill it. Copying a Set shares its tensors; [Set.Clone] copies them.
type Set struct {
	names  []string
	byName map[string]Tensor
}

// NewSet returns an empty set with room for n tensors.
func NewSet(n int) Set {
	return Set{names: make([]string, 0, n), byName: make(map[string]Tensor, n)}
}

// Put stores t under name: at the end if the name is new, else in its old place.
func (s *Set) Put(name string, t Tensor) {
	if s.byName == nil {
		s.byName = make(map[string]Tensor)
	}
	if _, ok := s.byName[name]; !ok {
		s.names = append(s.names, name)
	}
	s.byName[name] = t
}

// Get returns the tensor of that name.
func (s Set) Get(name string) (Tensor, bool) {
	t, ok := s.byName[name]
	return t, ok
}

// Must returns the tensor of that name and panics if there is none.
func (s Set) Must(name string) Tensor {
	t, ok := s.byName[name]
	if !ok {
		panic(fmt.Sprintf("weights: no tensor %q in a set of %d", name, len(s.names)))
	}
	return t
}

// Names returns the names in order. The caller must not change the slice.
func (s Set) Names() []string { return s.names }

// Len returns the number of tensors.
func (s Set) Len() int { return len(s.names) }

// All visits the tensors in order.
func (s Set) All() iter.Seq2[string, Tensor] {
	return func(yield func(string, Tensor) bool) {
		for _, n := range s.names {
			if !yield(n, s.byName[n]) {
				return
			}
		}
	}
}

// Size returns the number of scalars in all tensors.
func (s Set) Size() int {
	n := 0
	for _, t := range s.byName {
		n += t.Len()
	}
	return n
}

// Bytes returns the bytes of all elements, without names and shapes.
func (s Set) Bytes() int64 {
	var n int64
	for _, t := range s.byName {
		n += int64(t.Len()) * int64(t.DType().Size())
	}
	return n
}

// Clone returns a copy that shares nothing with s.
func (s Set) Clone() Set {
	return s.apply(Tensor.Clone)
}

// Zeros returns a set of the same names, types and shapes filled with 0.
func (s Set) Zeros() Set {
	return s.apply(func(t Tensor) Tensor { return NewTensor(t.DType(), t.Shape...) })
}

// Convert returns a copy with elements of type d. Values beyond float32's range become ±Inf.
func (s Set) Convert(d DType) Set {
	return s.apply(func(t Tensor) Tensor {
		u := NewTensor(d, t.Shape...)
		for i := range t.Len() {
			u.SetAt(i, t.At(i))
		}
		return u
	})
}

func (s Set) apply(f func(Tensor) Tensor) Set {
	out := NewSet(len(s.names))
	for n, t := range s.All() {
		out.Put(n, f(t))
	}
	return out
}

// Filter returns the tensors whose names satisfy keep, shared with s.
func (s Set) Filter(keep func(name string) bool) Set {
	out := NewSet(len(s.names))
	for n, t := range s.All() {
		if keep(n) {
			out.Put(n, t)
		}
	}
	return out
}

// Merge puts every tensor of other into s, replacing those of the same name.
func (s *Set) Merge(other Set) {
	for n, t := range other.All() {
		s.Put(n, t)
	}
}

// Match returns an error that names the first difference in names, types or shapes between s and like, or nil.
func (s Set) Match(like Set) error {
	for n, t := range like.All() {
		u, ok := s.Get(n)
		if !ok {
			return fmt.Errorf("tensor %q is missing", n)
		}
		if !u.SameLayout(t) {
			return fmt.Errorf("tensor %q is %v %v, expected %v %v", n, u.DType(), u.Shape, t.DType(), t.Shape)
		}
	}
	for _, n := range s.names {
		if _, ok := like.Get(n); !ok {
			return fmt.Errorf("tensor %q is not expected here", n)
		}
	}
	return nil
}

// Equal reports whether s and other hold the same names with bit-equal tensors; the order may differ.
func (s Set) Equal(other Set) bool {
	if s.Len() != other.Len() {
		return false
	}
	for n, t := range s.All() {
		u, ok := other.Get(n)
		if !ok || !t.Equal(u) {
			return false
		}
	}
	return true
}

// Finite returns an error that names the first tensor and coordinate that is NaN or infinite, or nil.
func (s Set) Finite() error {
	for n, t := range s.All() {
		if i := t.firstNonFinite(); i >= 0 {
			return fmt.Errorf("tensor %q holds %v at %v", n, t.At(i), coordinate(t.Shape, i))
		}
	}
	return nil
}

func coordinate(shape []int, i int) []int {
	at := make([]int, len(shape))
	for a := len(shape) - 1; a >= 0; a-- {
		at[a] = i % shape[a]
		i /= shape[a]
	}
	return at
}

// Norm returns the Euclidean norm √Σx² over all tensors together, summed in float64 in order.
func (s Set) Norm() float64 {
	var sum float64
	for _, t := range s.All() {
		for _, v := range t.F32 {
			sum += float64(float64(v) * float64(v))
		}
		for _, v := range t.F64 {
			sum += float64(v * v)
		}
	}
	return math.Sqrt(sum)
}

// Sub returns s − other, each difference rounded once to s's type. It panics if the sets do not match.
func (s Set) Sub(other Set) Set {
	return s.combine(other, func(a, b float64) float64 { return a - b })
}

// AddScaled adds alpha·other to s in place, computed in float64 and rounded once. It panics if the sets do not match.
func (s Set) AddScaled(alpha float64, other Set) {
	for n, t := range s.All() {
		u := other.Must(n)
		if !t.SameLayout(u) {
			panic(fmt.Sprintf("weights: %q is %v %v and %v %v", n, t.DType(), t.Shape, u.DType(), u.Shape))
		}
		for i := range t.Len() {
			t.SetAt(i, t.At(i)+float64(alpha*u.At(i)))
		}
	}
}

// Scale multiplies s by alpha in place.
func (s Set) Scale(alpha float64) {
	for _, t := range s.All() {
		for i := range t.Len() {
			t.SetAt(i, alpha*t.At(i))
		}
	}
}

// Map returns f applied to corresponding elements of s and other in float64, rounded once to s's type.
// It panics if the sets do not match.
func (s Set) Map(other Set, f func(a, b float64) float64) Set { return s.combine(other, f) }

func (s Set) combine(other Set, f func(a, b float64) float64) Set {
	out := NewSet(len(s.names))
	for n, t := range s.All() {
		u := other.Must(n)
		if !slices.Equal(t.Shape, u.Shape) {
			panic(fmt.Sprintf("weights: %q has shapes %v and %v", n, t.Shape, u.Shape))
		}
		v := NewTensor(t.DType(), t.Shape...)
		for i := range t.Len() {
			v.SetAt(i, f(t.At(i), u.At(i)))
		}
		out.Put(n, v)
	}
	return out
}
