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
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"iter"
	"slices"
	"sync"
)

// Set is an ordered collection of named tensors. The zero value is an empty set, ready for [Set.Put]. A Set is a value: a
// copy shares the elements of the tensors, but what is put into one copy does not appear in another, also when the copies
// are in different goroutines. [Set.Clone] copies the elements too.
type Set struct {
	names   []string
	tensors []Tensor // one a name; never changed in place below the length that a copy may see
	at      *positions
}

// positions finds names. It is shared by all copies of a Set and only grows: by the one copy that is as long as it is.
// Any other copy that gets a new name starts its own.
type positions struct {
	mu sync.RWMutex
	of map[string]int
}

// NewSet returns an empty set with room for n tensors.
func NewSet(n int) Set {
	return Set{
		names:   make([]string, 0, n),
		tensors: make([]Tensor, 0, n),
		at:      &positions{of: make(map[string]int, n)},
	}
}

// Put stores t under name: at the end if the name is new, else in its old place.
func (s *Set) Put(name string, t Tensor) {
	if i := s.find(name); i >= 0 {
		s.tensors = slices.Clone(s.tensors)
		s.tensors[i] = t
		return
	}
	s.add(name, t)
}

// add appends a tensor of a new name.
func (s *Set) add(name string, t Tensor) {
	if s.at == nil {
		*s = NewSet(1)
	}
	s.at.mu.Lock()
	defer s.at.mu.Unlock()
	if len(s.at.of) != len(s.names) { // another copy has gone on from here
		own := &positions{of: make(map[string]int, len(s.names)+1)}
		for i, n := range s.names {
			own.of[n] = i
		}
		s.names, s.tensors, s.at = slices.Clone(s.names), slices.Clone(s.tensors), own
	}
	s.at.of[name] = len(s.names)
	s.names = append(s.names, name)
	s.tensors = append(s.tensors, t)
}

// find returns the position of name, or −1.
func (s Set) find(name string) int {
	if s.at == nil {
		return -1
	}
	s.at.mu.RLock()
	defer s.at.mu.RUnlock()
	if i, ok := s.at.of[name]; ok && i < len(s.names) {
		return i
	}
	return -1
}

// Get returns the tensor of that name.
func (s Set) Get(name string) (Tensor, bool) {
	if i := s.find(name); i >= 0 {
		return s.tensors[i], true
	}
	return Tensor{}, false
}

// Must returns the tensor of that name and panics if there is none.
func (s Set) Must(name string) Tensor {
	t, ok := s.Get(name)
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
		for i, n := range s.names {
			if !yield(n, s.tensors[i]) {
				return
			}
		}
	}
}

// Size returns the number of scalars in all tensors.
func (s Set) Size() int {
	n := 0
	for _, t := range s.tensors {
		n += t.Len()
	}
	return n
}

// Bytes returns the bytes of all elements, without names and shapes.
func (s Set) Bytes() int64 {
	var n int64
	for _, t := range s.tensors {
		n += int64(t.Len()) * int64(t.DType().Size())
	}
	return n
}

// Clone returns a copy that shares nothing with s.
func (s Set) Clone() Set { return s.apply(Tensor.Clone) }

// Zeros returns a set of the same names, types and shapes filled with 0.
func (s Set) Zeros() Set {
	return s.apply(func(t Tensor) Tensor { return NewTensor(t.DType(), t.Shape...) })
}

// Convert returns a copy with elements of type d, rounded to the nearest. Values beyond float32's range become ±Inf.
func (s Set) Convert(d DType) Set {
	return s.apply(func(t Tensor) Tensor {
		if t.DType() == d {
			return t.Clone()
		}
		u := NewTensor(d, t.Shape...)
		for i, v := range t.F32 {
			u.F64[i] = float64(v)
		}
		for i, v := range t.F64 {
			u.F32[i] = float32(v)
		}
		return u
	})
}

// apply returns the set of f(t) under the names of s.
func (s Set) apply(f func(Tensor) Tensor) Set {
	out := NewSet(len(s.names))
	for i, n := range s.names {
		out.add(n, f(s.tensors[i]))
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
	s.tensors = slices.Clone(s.tensors)
	for n, t := range other.All() {
		if i := s.find(n); i >= 0 {
			s.tensors[i] = t
		} else {
			s.add(n, t)
		}
	}
}

// Match returns an error that names the first difference in names, types or shapes between s and like, or nil. The order
// of the tensors may differ.
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
		if like.find(n) < 0 {
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

// Digest returns the SHA-256 of a set: of names, types, shapes and elements, in order. Sets with equal digests are equal to
// the bit and in the same order.
func Digest(s Set) [sha256.Size]byte {
	h := sha256.New()
	b := append([]byte("cohort/weights/v1\x00"), make([]byte, 8)...)
	binary.LittleEndian.PutUint64(b[len(b)-8:], uint64(s.Len()))
	h.Write(b)
	buf := make([]byte, chunk)
	for n, t := range s.All() {
		h.Write(appendLayout(nil, n, t.Shape, t.DType()))
		if err := writeElements(h, t, buf); err != nil {
			panic(err) // a hash does not fail
		}
	}
	return [sha256.Size]byte(h.Sum(nil))
}

// appendLayout appends a tensor's name, element type and shape, each of self-evident length.
func appendLayout(b []byte, name string, shape []int, d DType) []byte {
	b = binary.LittleEndian.AppendUint64(b, uint64(len(name)))
	b = append(b, name...)
	b = append(b, byte(d))
	b = binary.LittleEndian.AppendUint64(b, uint64(len(shape)))
	for _, n := range shape {
		b = binary.LittleEndian.AppendUint64(b, uint64(n))
	}
	return b
}
