package weights

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
)

// Axis is a set of positions on one axis of a tensor. The zero value is every position.
//
// Its JSON form is what travels in a task: "all", {"prefix":n}, {"heads":h,"keep":k} or {"list":[…]}.
type Axis struct {
	kind  axisKind
	n     int // prefix length, or positions kept of each head
	heads int
	list  []int32
}

type axisKind uint8

const (
	axisAll axisKind = iota
	axisPrefix
	axisHeads
	axisList
)

// All keeps every position.
func All() Axis { return Axis{} }

// Prefix keeps positions 0 … n−1.
func Prefix(n int) Axis {
	if n < 0 {
		panic(fmt.Sprintf("weights: Prefix(%d)", n))
	}
	return Axis{kind: axisPrefix, n: n}
}

// Heads keeps, on an axis made of equally long heads, the first keep positions of every head: h·(size/heads) + [0, keep).
func Heads(heads, keep int) Axis {
	if heads <= 0 || keep < 0 {
		panic(fmt.Sprintf("weights: Heads(%d, %d)", heads, keep))
	}
	return Axis{kind: axisHeads, heads: heads, n: keep}
}

// List keeps the given positions, which must be distinct and non-negative, in the given order: position i of a slice is
// position positions[i] of the whole. The Axis holds the slice itself.
func List(positions []int32) Axis { return Axis{kind: axisList, list: positions} }

// Positions returns the kept positions of an axis of that size, in the order in which a slice holds them. The caller must
// not change the slice.
func (a Axis) Positions(size int) []int32 {
	if a.kind == axisList {
		return a.list
	}
	p := make([]int32, 0, a.Len(size))
	for _, r := range a.runs(size) {
		for i := range r.n {
			p = append(p, int32(r.g+i))
		}
	}
	return p
}

// Len returns how many positions of an axis of that size are kept.
func (a Axis) Len(size int) int {
	switch a.kind {
	case axisPrefix:
		return a.n
	case axisHeads:
		return a.heads * a.n
	case axisList:
		return len(a.list)
	}
	return size
}

// check returns an error unless a fits on an axis of that size.
func (a Axis) check(size int) error {
	switch a.kind {
	case axisPrefix:
		if a.n > size {
			return fmt.Errorf("prefix %d of an axis of %d", a.n, size)
		}
	case axisHeads:
		if size%a.heads != 0 || a.n > size/a.heads {
			return fmt.Errorf("%d positions of each of %d heads of an axis of %d", a.n, a.heads, size)
		}
	case axisList:
		return checkList(a.list, size)
	}
	return nil
}

func checkList(list []int32, size int) error {
	rising := true
	for i, p := range list {
		if p < 0 || int(p) >= size {
			return fmt.Errorf("position %d of an axis of %d", p, size)
		}
		rising = rising && (i == 0 || list[i-1] < p)
	}
	if rising {
		return nil
	}
	seen := make([]bool, size)
	for _, p := range list {
		if seen[p] {
			return fmt.Errorf("position %d twice", p)
		}
		seen[p] = true
	}
	return nil
}

// axisJSON is the form of an axis that is not whole: one of prefix, heads with keep, and list.
type axisJSON struct {
	Prefix *int     `json:"prefix,omitempty"`
	Heads  *int     `json:"heads,omitempty"`
	Keep   *int     `json:"keep,omitempty"`
	List   *[]int32 `json:"list,omitempty"`
}

// MarshalJSON writes the form described at [Axis].
func (a Axis) MarshalJSON() ([]byte, error) {
	switch a.kind {
	case axisPrefix:
		return json.Marshal(axisJSON{Prefix: &a.n})
	case axisHeads:
		return json.Marshal(axisJSON{Heads: &a.heads, Keep: &a.n})
	case axisList:
		list := a.list
		if list == nil {
			list = []int32{}
		}
		return json.Marshal(axisJSON{List: &list})
	}
	return []byte(`"all"`), nil
}

// UnmarshalJSON reads the form described at [Axis].
func (a *Axis) UnmarshalJSON(b []byte) error {
	if string(b) == `"all"` {
		*a = All()
		return nil
	}
	var j axisJSON
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&j); err != nil {
		return fmt.Errorf("axis %.80s: %w", b, err)
	}
	switch heads := j.Heads != nil && j.Keep != nil; {
	case j.Prefix != nil && j.Heads == nil && j.Keep == nil && j.List == nil && *j.Prefix >= 0:
		*a = Prefix(*j.Prefix)
	case heads && j.Prefix == nil && j.List == nil && *j.Heads > 0 && *j.Keep >= 0:
		*a = Heads(*j.Heads, *j.Keep)
	case j.List != nil && j.Prefix == nil && j.Heads == nil && j.Keep == nil:
		*a = List(*j.List)
	default:
		return fmt.Errorf(`axis %.80s: expected "all", {"prefix":n}, {"heads":h,"keep":k} or {"list":[…]} with n, k ≥ 0 and h > 0`, b)
	}
	return nil
}

// Index says which coordinates of a set somebody holds: for each tensor named in it the Cartesian product of one [Axis]
// an axis. A nil or empty list of axes is the whole tensor; a tensor that is not named is not held. A nil Index stands for
// everything.
type Index map[string][]Axis

// Check returns an error that names the first tensor whose axes do not fit the whole.
func (ix Index) Check(whole Set) error {
	for _, name := range slices.Sorted(maps.Keys(ix)) {
		if whole.find(name) < 0 {
			return fmt.Errorf("index names tensor %s, which the model does not have", quote(name))
		}
	}
	for name, t := range whole.All() {
		if err := checkAxes(ix[name], t.Shape); err != nil {
			return fmt.Errorf("index of tensor %q: %w", name, err)
		}
	}
	return nil
}

// checkAxes returns an error unless axes, if there are any, fit shape.
func checkAxes(axes []Axis, shape []int) error {
	if len(axes) == 0 {
		return nil
	}
	if len(axes) != len(shape) {
		return fmt.Errorf("%d axes for shape %v", len(axes), shape)
	}
	for i, a := range axes {
		if err := a.check(shape[i]); err != nil {
			return fmt.Errorf("axis %d: %w", i, err)
		}
	}
	return nil
}

// Fits returns an error unless part has the names and shapes that Slice(whole) has, and cover (nil: all of ix) names
// coordinates of the whole. Elements and their type are not looked at; ix and cover may name more tensors than there are.
func (ix Index) Fits(part, whole Set, cover Index) error {
	for name, t := range whole.All() {
		if err := checkAxes(ix[name], t.Shape); err != nil {
			return fmt.Errorf("tensor %s: index: %w", quote(name), err)
		}
		if err := checkAxes(cover[name], t.Shape); err != nil {
			return fmt.Errorf("tensor %s: cover: %w", quote(name), err)
		}
		axes, held := ix[name]
		if !held && ix != nil {
			continue
		}
		x, ok := part.Get(name)
		if !ok {
			return fmt.Errorf("tensor %s is missing", quote(name))
		}
		if want := sliceShape(t.Shape, axes); !slices.Equal(x.Shape, want) {
			return fmt.Errorf("tensor %s has shape %v, expected %v", quote(name), x.Shape, want)
		}
	}
	for _, name := range part.Names() {
		_, held := ix[name]
		if whole.find(name) < 0 || ix != nil && !held {
			return fmt.Errorf("tensor %s is not expected here", quote(name))
		}
	}
	return nil
}

// Slice copies the indexed coordinates of whole into a new, smaller set. It panics where [Index.Check] fails.
func (ix Index) Slice(whole Set) Set {
	ix.must(whole)
	out := NewSet(whole.Len())
	for name, t := range whole.All() {
		axes, ok := ix[name]
		if !ok && ix != nil {
			continue
		}
		s := NewTensor(t.DType(), sliceShape(t.Shape, axes)...)
		walk(t.Shape, axes, nil, func(g, l int, runs []run) {
			if t.F64 != nil {
				gather(s.F64[l:], t.F64[g:], runs)
			} else {
				gather(s.F32[l:], t.F32[g:], runs)
			}
		})
		out.add(name, s)
	}
	return out
}

func gather[F float32 | float64](part, whole []F, runs []run) {
	for _, r := range runs {
		if r.n == 1 {
			part[r.l] = whole[r.g]
			continue
		}
		copy(part[r.l:r.l+r.n], whole[r.g:r.g+r.n])
	}
}

// Scatter copies part, a set of the shapes that Slice gives, back into the indexed coordinates of whole. It panics where
// [Index.Check] fails and where part has other types or shapes.
func (ix Index) Scatter(whole, part Set) {
	ix.must(whole)
	for name, t := range whole.All() {
		axes, ok := ix[name]
		if !ok && ix != nil {
			continue
		}
		s := part.Must(name)
		if want := sliceShape(t.Shape, axes); !slices.Equal(s.Shape, want) || s.DType() != t.DType() {
			panic(fmt.Sprintf("weights: slice of %q is %v %v, expected %v %v", name, s.DType(), s.Shape, t.DType(), want))
		}
		walk(t.Shape, axes, nil, func(g, l int, runs []run) {
			if t.F64 != nil {
				scatter(t.F64[g:], s.F64[l:], runs)
			} else {
				scatter(t.F32[g:], s.F32[l:], runs)
			}
		})
	}
}

func scatter[F float32 | float64](whole, part []F, runs []run) {
	for _, r := range runs {
		if r.n == 1 {
			whole[r.g] = part[r.l]
			continue
		}
		copy(whole[r.g:r.g+r.n], part[r.l:r.l+r.n])
	}
}

func (ix Index) must(whole Set) {
	if err := ix.Check(whole); err != nil {
		panic("weights: " + err.Error())
	}
}

// Like returns zeros of the shapes that Slice(whole) would have. It panics where [Index.Check] fails.
func (ix Index) Like(whole Set) Set {
	ix.must(whole)
	out := NewSet(whole.Len())
	for name, t := range whole.All() {
		axes, ok := ix[name]
		if !ok && ix != nil {
			continue
		}
		out.add(name, NewTensor(t.DType(), sliceShape(t.Shape, axes)...))
	}
	return out
}

func sliceShape(shape []int, axes []Axis) []int {
	if len(axes) == 0 {
		return shape
	}
	out := make([]int, len(shape))
	for i, a := range axes {
		out[i] = a.Len(shape[i])
	}
	return out
}
