package weights

import (
	"errors"
	"fmt"
	"math"
	"slices"
)

// Acc adds many sets exactly. Every coordinate is a 128-bit two's complement fixed-point number whose least bit is 2⁻⁹⁶:
// each weight·value is rounded once to that grid (half to even; a float32 of magnitude 2⁻⁷³ or more times any integer
// weight is not rounded at all) and the additions are exact, so that a total is the same bits in any order and grouping.
// Sums must stay below 2³¹ in magnitude: Add refuses a set if Σ weight·max|value| of a tensor over all that were added would
// reach that, so whether a collection of sets is accepted as a whole does not depend on their order either.
//
// The mean of equal float32 sets has their bits, but for what the grid does not hold: −0 comes back as 0, and magnitudes
// below 2⁻⁷³ come back to the nearest multiple of 2⁻⁹⁶.
//
// With counts, every coordinate also has the sum of the weights of those who covered it: the |K| of count-based
// aggregation. Memory: 16 bytes a coordinate, and 8 more with counts in those tensors that somebody covered in part.
//
// An Acc is not safe for concurrent use; parallel folders add to one each and [Acc.Merge] them.
type Acc struct {
	names    []string
	tensors  []accTensor
	at       map[string]int
	counting bool
	weight   uint64
}

type accTensor struct {
	shape []int
	sum   []fixed
	bound fixed    // Σ weight·max|value| so far: no coordinate's magnitude is greater
	whole uint64   // the weight of those who covered every coordinate, if counting
	part  []uint64 // the weight of the others by coordinate; nil if there are none
}

// weightLimit is what the sum of all weights must stay below.
const weightLimit = 1 << 63

// NewAcc returns a zero sum for sets of the names and shapes of like. The elements of like are not read.
func NewAcc(like Set, counting bool) *Acc {
	a := &Acc{at: make(map[string]int, like.Len()), counting: counting}
	for name, t := range like.All() {
		a.put(name, accTensor{shape: slices.Clone(t.Shape), sum: make([]fixed, elements(t.Shape))})
	}
	return a
}

func (a *Acc) put(name string, t accTensor) {
	a.at[name] = len(a.names)
	a.names = append(a.names, name)
	a.tensors = append(a.tensors, t)
}

// tensor returns the sum of that name and panics if there is none.
func (a *Acc) tensor(name string) *accTensor {
	i, ok := a.at[name]
	if !ok {
		panic(fmt.Sprintf("weights: no tensor %q in a sum of %d", name, len(a.names)))
	}
	return &a.tensors[i]
}

// Add adds weight·x. The set x has the shapes that at slices from the whole (nil: everything); only the coordinates that
// are also in cover (nil: all of at) are added and counted; at and cover may name more tensors than the sum has. Nothing is added if an error is returned: weight 0, a name or
// shape that does not fit, NaN or infinity anywhere in x, or a sum that could leave the range.
func (a *Acc) Add(x Set, at, cover Index, weight uint64) error {
	terms, err := a.terms(x, at, cover, weight)
	if err != nil {
		return err
	}
	for _, m := range terms {
		t := m.to
		t.bound = m.bound
		if a.counting && m.whole {
			t.whole += weight
		} else if a.counting && t.part == nil {
			t.part = make([]uint64, len(t.sum))
		}
		walk(t.shape, m.axes, m.cover, func(g, l int, runs []run) {
			for _, r := range runs {
				sum := t.sum[g+r.g : g+r.g+r.n]
				if m.x.F64 != nil {
					addFloat64(sum, m.x.F64[l+r.l:l+r.l+r.n], weight)
				} else {
					addFloat32(sum, m.x.F32[l+r.l:l+r.l+r.n], weight)
				}
				if a.counting && !m.whole {
					count := t.part[g+r.g : g+r.g+r.n]
					for i := range count {
						count[i] += weight
					}
				}
			}
		})
	}
	a.weight += weight
	return nil
}

// Check returns the error that Add would return, and adds nothing.
func (a *Acc) Check(x Set, at, cover Index, weight uint64) error {
	_, err := a.terms(x, at, cover, weight)
	return err
}

// MustAdd is Add for what [Acc.Check] has accepted: it panics where Add returns an error.
func (a *Acc) MustAdd(x Set, at, cover Index, weight uint64) {
	if err := a.Add(x, at, cover, weight); err != nil {
		panic("weights: " + err.Error())
	}
}

// term is a tensor that may be added.
type term struct {
	to          *accTensor
	x           Tensor
	axes, cover []Axis
	whole       bool // covers every coordinate
	bound       fixed
}

// terms returns what Add has to add, or why it must not.
func (a *Acc) terms(x Set, at, cover Index, weight uint64) ([]term, error) {
	if weight == 0 {
		return nil, errors.New("weight 0")
	}
	if weight >= weightLimit-a.weight {
		return nil, fmt.Errorf("weight %d: the weights' sum, %d so far, must stay below 2⁶³", weight, a.weight)
	}
	for _, name := range a.names {
		if _, held := at[name]; x.find(name) < 0 && (held || at == nil) {
			return nil, fmt.Errorf("tensor %q is missing", name)
		}
	}
	terms := make([]term, 0, x.Len())
	for name, t := range x.All() {
		m, covered, err := a.term(name, t, at, cover, weight)
		if err != nil {
			return nil, err
		}
		if covered {
			terms = append(terms, m)
		}
	}
	return terms, nil
}

func (a *Acc) term(name string, x Tensor, at, cover Index, weight uint64) (m term, covered bool, err error) {
	i, ok := a.at[name]
	if !ok {
		return m, false, fmt.Errorf("tensor %s is not part of the sum", quote(name))
	}
	t := &a.tensors[i]
	axes, held := at[name]
	if !held && at != nil {
		return m, false, fmt.Errorf("tensor %q is outside the task's index", name)
	}
	if err := checkAxes(axes, t.shape); err != nil {
		return m, false, fmt.Errorf("tensor %q: index: %w", name, err)
	}
	c, covered := cover[name]
	covered = covered || cover == nil
	if err := checkAxes(c, t.shape); err != nil {
		return m, false, fmt.Errorf("tensor %q: cover: %w", name, err)
	}
	if want := sliceShape(t.shape, axes); !slices.Equal(x.Shape, want) {
		return m, false, fmt.Errorf("tensor %q has shape %v, expected %v", name, x.Shape, want)
	}
	if err := x.valid(); err != nil {
		return m, false, fmt.Errorf("tensor %q: %w", name, err)
	}
	greatest := x.maxAbs()
	if !(greatest <= math.MaxFloat64) {
		i := x.firstNonFinite()
		return m, false, fmt.Errorf("tensor %q holds %v at %v", name, x.At(i), coordinate(x.Shape, i))
	}
	if !covered {
		return m, false, nil
	}
	m = term{to: t, x: x, axes: axes, cover: c, whole: slices.Equal(sliceShape(t.shape, axes), t.shape) && slices.Equal(sliceShape(t.shape, c), t.shape)}
	if m.bound, ok = t.bound.addBound(greatest, weight); !ok {
		return m, false, fmt.Errorf("tensor %q: a sum could reach %g, the limit is 2³¹: values or weights are too large",
			name, t.bound.float()+greatest*float64(weight))
	}
	return m, true, nil
}

// Merge adds what other holds, so that a is as if everything that was added to other had been added to it. Nothing is
// added if an error is returned: names, shapes or counting that differ, or a sum that could leave the range.
func (a *Acc) Merge(other *Acc) error {
	if err := a.CheckMerge(other); err != nil {
		return err
	}
	for i, name := range a.names {
		t, o := &a.tensors[i], other.tensor(name)
		for k, v := range o.sum {
			t.sum[k] = t.sum[k].add(v)
		}
		if o.part != nil {
			if t.part == nil {
				t.part = make([]uint64, len(t.sum))
			}
			for k, v := range o.part {
				t.part[k] += v
			}
		}
		t.bound = t.bound.add(o.bound)
		t.whole += o.whole
	}
	a.weight += other.weight
	return nil
}

// CheckMerge returns the error that Merge would return, and adds nothing.
func (a *Acc) CheckMerge(other *Acc) error {
	if a.counting != other.counting {
		return fmt.Errorf("merge of sums with and without counts")
	}
	if other.weight >= weightLimit-a.weight {
		return fmt.Errorf("merge of weights %d and %d: their sum must stay below 2⁶³", a.weight, other.weight)
	}
	if len(a.names) != len(other.names) {
		return fmt.Errorf("merge of sums of %d and %d tensors", len(a.names), len(other.names))
	}
	for i, name := range a.names {
		t := &a.tensors[i]
		j, ok := other.at[name]
		if !ok {
			return fmt.Errorf("merge: tensor %q is missing", name)
		}
		o := &other.tensors[j]
		if !slices.Equal(t.shape, o.shape) {
			return fmt.Errorf("merge: tensor %q has shapes %v and %v", name, t.shape, o.shape)
		}
		if t.bound.add(o.bound).hi < 0 {
			return fmt.Errorf("merge: tensor %q: a sum could reach %g, the limit is 2³¹", name, t.bound.float()+o.bound.float())
		}
	}
	return nil
}

// Weight returns the sum of the weights of all added sets.
func (a *Acc) Weight() uint64 { return a.weight }

// Names returns the tensors' names in order. The caller must not change the slice.
func (a *Acc) Names() []string { return a.names }

// Total returns the sum at one coordinate, rounded once to float64.
func (a *Acc) Total(name string, i int) float64 { return a.tensor(name).sum[i].float() }

// Count returns the weight that covered one coordinate: the total weight if a does not count.
func (a *Acc) Count(name string, i int) uint64 {
	t := a.tensor(name)
	if !a.counting {
		return a.weight
	}
	if t.part == nil {
		return t.whole
	}
	return t.whole + t.part[i]
}

// Mean returns Σ weight·x / Σ weight over those who covered each coordinate, computed in float64 and rounded once to d;
// coordinates that nobody covered are 0.
func (a *Acc) Mean(d DType) Set {
	return a.divided(d, func(t *accTensor) (float64, []uint64) {
		if !a.counting {
			return float64(a.weight), nil
		}
		return float64(t.whole), t.part
	})
}

// Over returns the sum divided by denominator, computed in float64 and rounded once to d. It panics if denominator is 0 or
// NaN.
func (a *Acc) Over(denominator float64, d DType) Set {
	if denominator == 0 || denominator != denominator {
		panic(fmt.Sprintf("weights: Over(%v)", denominator))
	}
	return a.divided(d, func(*accTensor) (float64, []uint64) { return denominator, nil })
}

// divided returns each sum divided by what by returns for its tensor: one number, or counts of which whole is a part.
func (a *Acc) divided(d DType, by func(*accTensor) (float64, []uint64)) Set {
	out := NewSet(len(a.names))
	for i, name := range a.names {
		t := &a.tensors[i]
		x := NewTensor(d, t.shape...)
		all, part := by(t)
		if d == Float64 {
			divide(x.F64, t.sum, all, t.whole, part)
		} else {
			divide(x.F32, t.sum, all, t.whole, part)
		}
		out.add(name, x)
	}
	return out
}

func divide[F float32 | float64](dst []F, sum []fixed, all float64, whole uint64, part []uint64) {
	if part == nil {
		if all == 0 {
			return // nobody covered it
		}
		for i := range dst {
			dst[i] = F(sum[i].float() / all)
		}
		return
	}
	for i := range dst {
		if c := whole + part[i]; c != 0 {
			dst[i] = F(sum[i].float() / float64(c))
		}
	}
}
