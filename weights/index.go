package weights

import (
	"encoding/json"
	"fmt"
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

// Positions returns the kept positions of an axis of that size, in the order in which a slice holds them.
func (a Axis) Positions(size int) []int32 {
	switch a.kind {
	case axisList:
		return a.list
	case axisHeads:
		w := size / a.heads
		p := make([]int32, 0, a.heads*a.n)
		for h := range a.heads {
			for i := range a.n {
				p = append(p, int32(h*w+i))
			}
		}
		return p
	}
	p := make([]int32, a.Len(size))
	for i := range p {
		p[i] = int32(i)
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
		seen := make([]bool, size)
		for _, p := range a.list {
			if p < 0 || int(p) >= size {
				return fmt.Errorf("position %d of an axis of %d", p, size)
			}
			if seen[p] {
				return fmt.Errorf("position %d twice", p)
			}
			seen[p] = true
		}
	}
	return nil
}

type axisJSON struct {
	Prefix *int    `json:"prefix,omitempty"`
	Heads  int     `json:"heads,omitempty"`
	Keep   int     `json:"keep,omitempty"`
	List   []int32 `json:"list,omitempty"`
}

// MarshalJSON writes the form described at [Axis].
func (a Axis) MarshalJSON() ([]byte, error) {
	switch a.kind {
	case axisPrefix:
		return json.Marshal(axisJSON{Prefix: &a.n})
	case axisHeads:
		return json.Marshal(axisJSON{Heads: a.heads, Keep: a.n})
	case axisList:
		if a.list == nil {
			return []byte(`{"list":[]}`), nil
		}
		return json.Marshal(struct {
			List []int32 `json:"list"`
		}{a.list})
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
	if err := json.Unmarshal(b, &j); err != nil {
		return fmt.Errorf("axis %s: %w", b, err)
	}
	switch {
	case j.Prefix != nil && *j.Prefix >= 0:
		*a = Prefix(*j.Prefix)
	case j.Heads > 0 && j.Keep >= 0:
		*a = Heads(j.Heads, j.Keep)
	case j.Prefix == nil && j.Heads == 0:
		*a = List(j.List)
	default:
		return fmt.Errorf("axis %s: negative length", b)
	}
	return nil
}

// Index says which coordinates of a set somebody holds: for each tensor named in it the Cartesian product of one [Axis]
// an axis. A nil or empty list of axes is the whole tensor; a tensor that is not named is not held. A nil Index stands for
// everything.
type Index map[string][]Axis

// Check returns an error that names the first tensor whose axes do not fit the whole.
func (ix Index) Check(whole Set) error {
	for name := range ix {
		if _, ok := whole.Get(name); !ok {
			return fmt.Errorf("index names tensor %q, which the model does not have", name)
		}
	}
	for name, t := range whole.All() {
		axes := ix[name]
		if len(axes) == 0 {
			continue
		}
		if len(axes) != len(t.Shape) {
			return fmt.Errorf("index gives %d axes for tensor %q of shape %v", len(axes), name, t.Shape)
		}
		for i, a := range axes {
			if err := a.check(t.Shape[i]); err != nil {
				return fmt.Errorf("index of tensor %q, axis %d: %w", name, i, err)
			}
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
		walk(t.Shape, axes, nil, func(g, l, n int) {
			if t.F64 != nil {
				copy(s.F64[l:l+n], t.F64[g:g+n])
			} else {
				copy(s.F32[l:l+n], t.F32[g:g+n])
			}
		})
		out.Put(name, s)
	}
	return out
}

// Scatter copies part, a set of the shapes that Slice gives, back into the indexed coordinates of whole.
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
		walk(t.Shape, axes, nil, func(g, l, n int) {
			if t.F64 != nil {
				copy(t.F64[g:g+n], s.F64[l:l+n])
			} else {
				copy(t.F32[g:g+n], s.F32[l:l+n])
			}
		})
	}
}

func (ix Index) must(whole Set) {
	if err := ix.Check(whole); err != nil {
		panic("weights: " + err.Error())
	}
}

// Like returns zeros of the shapes that Slice(whole) would have.
func (ix Index) Like(whole Set) Set {
	out := NewSet(whole.Len())
	for name, t := range whole.All() {
		axes, ok := ix[name]
		if !ok && ix != nil {
			continue
		}
		out.Put(name, NewTensor(t.DType(), sliceShape(t.Shape, axes)...))
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

// walk visits the coordinates of axes in a tensor of the given shape as contiguous runs: n elements from offset g of the
// whole lie at offset l of the slice. With a cover, only the coordinates that are also in cover are visited; cover must be
// a subset of axes, and l still counts in the slice of axes.
func walk(shape []int, axes, cover []Axis, visit func(g, l, n int)) {
	if len(shape) == 0 {
		visit(0, 0, 1)
		return
	}
	rank := len(shape)
	at := make([]axisWalk, rank)
	gStride, lStride := 1, 1
	for i := rank - 1; i >= 0; i-- {
		var a, c Axis
		if len(axes) > 0 {
			a = axes[i]
		}
		if len(cover) > 0 {
			c = cover[i]
		} else {
			c = a
		}
		at[i] = newAxisWalk(a, c, shape[i], gStride, lStride)
		gStride *= shape[i]
		lStride *= a.Len(shape[i])
	}
	// Trailing axes that are taken whole form one block with the axis before them.
	last := rank - 1
	for last > 0 && at[last].whole {
		last--
	}
	var rec func(axis, g, l int)
	rec = func(axis, g, l int) {
		w := &at[axis]
		if axis == last {
			for _, r := range w.runs {
				visit(g+r.g*w.gStride, l+r.l*w.lStride, r.n*w.gStride)
			}
			return
		}
		for _, r := range w.runs {
			for k := range r.n {
				rec(axis+1, g+(r.g+k)*w.gStride, l+(r.l+k)*w.lStride)
			}
		}
	}
	rec(0, 0, 0)
}

// axisWalk is one axis of a walk: runs of n neighbouring positions that start at g in the whole and at l in the slice.
type axisWalk struct {
	runs             []axisRun
	gStride, lStride int
	whole            bool // one run over the whole axis, in both
}

type axisRun struct{ g, l, n int }

func newAxisWalk(a, c Axis, size, gStride, lStride int) axisWalk {
	w := axisWalk{gStride: gStride, lStride: lStride}
	if a.kind != axisList && c.kind != axisList && a.kind != axisHeads && c.kind != axisHeads {
		n := min(a.Len(size), c.Len(size))
		w.runs = []axisRun{{0, 0, n}}
		w.whole = n == size && a.Len(size) == size
		return w
	}
	local := make(map[int32]int)
	for l, g := range a.Positions(size) {
		local[g] = l
	}
	for _, g := range c.Positions(size) {
		l, ok := local[g]
		if !ok {
			continue
		}
		if k := len(w.runs) - 1; k >= 0 && w.runs[k].g+w.runs[k].n == int(g) && w.runs[k].l+w.runs[k].n == l {
			w.runs[k].n++
			continue
		}
		w.runs = append(w.runs, axisRun{int(g), l, 1})
	}
	w.whole = len(w.runs) == 1 && w.runs[0] == axisRun{0, 0, size} && a.Len(size) == size
	return w
}
