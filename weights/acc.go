package weights

import (
	"fmt"
	"math"
	"math/bits"
)

// Acc adds many sets exactly. Every coordinate is a 128-bit two's complement fixed-point number whose least bit is 2⁻⁹⁶:
// each weight·value is rounded once to that grid (half to even; a float32 of magnitude 2⁻⁷² or more times any integer
// weight is not rounded at all) and the additions are exact, so that a total is the same bits in any order and grouping.
// Sums must stay below 2³¹ in magnitude.
//
// With counts, every coordinate also keeps the sum of the weights of those who covered it: the |K| of count-based
// aggregation. Memory: 16 bytes a coordinate, 24 with counts.
type Acc struct {
	names    []string
	tensors  map[string]*accTensor
	counting bool
	weight   uint64
}

type accTensor struct {
	shape []int
	hi    []int64
	lo    []uint64
	count []uint64
	bound float64 // Σ weight·max|value| so far: an upper bound of any coordinate's magnitude
}

// accLimit is the magnitude that a sum must stay below.
const accLimit = 1 << 31

// NewAcc returns a zero sum for sets of the names and shapes of like. The elements of like are not read.
func NewAcc(like Set, counting bool) *Acc {
	a := &Acc{tensors: make(map[string]*accTensor, like.Len()), counting: counting}
	for name, t := range like.All() {
		n := t.Len()
		at := &accTensor{shape: t.Shape, hi: make([]int64, n), lo: make([]uint64, n)}
		if counting {
			at.count = make([]uint64, n)
		}
		a.names = append(a.names, name)
		a.tensors[name] = at
	}
	return a
}

// Add adds weight·x. The set x has the shapes that at slices from the whole (nil: everything); only the coordinates that
// are also in cover (nil: all of at) are added and counted. Nothing is added if an error is returned: a name or shape that
// does not fit, NaN or infinity, or a sum that could leave the range.
func (a *Acc) Add(x Set, at, cover Index, weight uint64) error {
	if err := a.Check(x, at, cover, weight); err != nil {
		return err
	}
	a.MustAdd(x, at, cover, weight)
	return nil
}

// Check returns the error that Add would return, and changes nothing.
func (a *Acc) Check(x Set, at, cover Index, weight uint64) error {
	if weight == 0 {
		return fmt.Errorf("weight 0")
	}
	for name, t := range x.All() {
		w, ok := a.tensors[name]
		if !ok {
			return fmt.Errorf("tensor %q is not part of the sum", name)
		}
		axes, held := at[name]
		if !held && at != nil {
			return fmt.Errorf("tensor %q is outside the task's index", name)
		}
		if err := checkAxes(axes, w.shape); err != nil {
			return fmt.Errorf("tensor %q: index: %w", name, err)
		}
		if err := checkAxes(cover[name], w.shape); err != nil {
			return fmt.Errorf("tensor %q: cover: %w", name, err)
		}
		if want := sliceShape(w.shape, axes); !sameShape(t.Shape, want) {
			return fmt.Errorf("tensor %q has shape %v, expected %v", name, t.Shape, want)
		}
		if i := t.firstNonFinite(); i >= 0 {
			return fmt.Errorf("tensor %q holds %v at %v", name, t.At(i), coordinate(t.Shape, i))
		}
		if b := w.boundWith(t, weight); b >= accLimit {
			return fmt.Errorf("tensor %q: a sum could reach %g, the limit is 2³¹: values or weights are too large", name, b)
		}
	}
	for _, name := range a.names {
		if _, held := at[name]; !held && at != nil {
			continue
		}
		if _, ok := x.Get(name); !ok {
			return fmt.Errorf("tensor %q is missing", name)
		}
	}
	return nil
}

// boundWith is the bound of w's coordinates once weight·t is added, rounded up.
func (w *accTensor) boundWith(t Tensor, weight uint64) float64 {
	return math.Nextafter(w.bound+math.Nextafter(t.maxAbs()*float64(weight), math.Inf(1)), math.Inf(1))
}

// MustAdd is Add for arguments that Check has just accepted.
func (a *Acc) MustAdd(x Set, at, cover Index, weight uint64) {
	for name, t := range x.All() {
		w := a.tensors[name]
		w.bound = w.boundWith(t, weight)
		c, covered := cover[name]
		if !covered && cover != nil {
			continue
		}
		walk(w.shape, at[name], c, func(g, l, n int) {
			if t.F64 != nil {
				addRun(w, g, t.F64[l:l+n], weight)
			} else {
				addRun(w, g, t.F32[l:l+n], weight)
			}
		})
	}
	a.weight += weight
}

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

func sameShape(a, b []int) bool {
	if len(a) != len(b) {
		return false
	}
	for i := range a {
		if a[i] != b[i] {
			return false
		}
	}
	return true
}

func addRun[F float32 | float64](w *accTensor, g int, x []F, weight uint64) {
	hi, lo := w.hi[g:g+len(x)], w.lo[g:g+len(x)]
	for i, v := range x {
		h, l := fixed(float64(v), weight)
		var c uint64
		lo[i], c = bits.Add64(lo[i], l, 0)
		hi[i] += int64(h) + int64(c)
	}
	if w.count != nil {
		count := w.count[g : g+len(x)]
		for i := range count {
			count[i] += weight
		}
	}
}

// fixed returns weight·x in units of 2⁻⁹⁶, rounded half to even, as two's complement. |weight·x| must be below 2³¹.
func fixed(x float64, weight uint64) (hi, lo uint64) {
	b := math.Float64bits(x)
	exp := int(b>>52) & 0x7ff
	man := b & (1<<52 - 1)
	if exp == 0 {
		exp = 1
	} else {
		man |= 1 << 52
	}
	if man == 0 {
		return 0, 0
	}
	hi, lo = bits.Mul64(man, weight)
	switch s := exp - 1075 + 96; { // weight·x = (hi,lo)·2^(exp−1075)
	case s >= 64:
		hi, lo = lo<<(s-64), 0
	case s > 0:
		hi, lo = hi<<s|lo>>(64-s), lo<<s
	case s < 0:
		hi, lo = roundShift(hi, lo, -s)
	}
	if b>>63 != 0 {
		var c uint64
		lo, c = bits.Add64(^lo, 1, 0)
		hi = ^hi + c
	}
	return hi, lo
}

// roundShift returns (hi,lo) / 2^s rounded half to even, s > 0.
func roundShift(hi, lo uint64, s int) (uint64, uint64) {
	if s > 128 {
		return 0, 0
	}
	var half, rest bool // the bit below the result, and any bit below that
	switch {
	case s <= 64:
		half = lo>>(s-1)&1 != 0
		rest = lo&(1<<(s-1)-1) != 0
		if s == 64 {
			hi, lo = 0, hi
		} else {
			hi, lo = hi>>s, hi<<(64-s)|lo>>s
		}
	default:
		half = hi>>(s-65)&1 != 0
		rest = hi&(1<<(s-65)-1) != 0 || lo != 0
		if s == 128 {
			hi, lo = 0, 0
		} else {
			hi, lo = 0, hi>>(s-64)
		}
	}
	if half && (rest || lo&1 != 0) {
		var c uint64
		lo, c = bits.Add64(lo, 1, 0)
		hi += c
	}
	return hi, lo
}

// float returns the nearest float64 of a fixed-point number.
func float(hi int64, lo uint64) float64 {
	neg := hi < 0
	h, l := uint64(hi), lo
	if neg {
		var c uint64
		l, c = bits.Add64(^l, 1, 0)
		h = ^h + c
	}
	var f float64
	if h == 0 {
		f = math.Ldexp(float64(l), -96)
	} else {
		// The highest 64 bits, with a sticky bit for what is cut, round once in the conversion.
		z := bits.LeadingZeros64(h)
		top := h<<z | l>>(64-z)
		if l<<z != 0 {
			top |= 1
		}
		f = math.Ldexp(float64(top), 64-z-96)
	}
	if neg {
		return -f
	}
	return f
}

// Weight returns the sum of the weights of all added sets.
func (a *Acc) Weight() uint64 { return a.weight }

// Names returns the tensors' names in order. The caller must not change the slice.
func (a *Acc) Names() []string { return a.names }

// Total returns the sum at one coordinate, rounded once to float64.
func (a *Acc) Total(name string, i int) float64 {
	t := a.tensors[name]
	return float(t.hi[i], t.lo[i])
}

// Count returns the weight that covered one coordinate: the total weight if a does not count.
func (a *Acc) Count(name string, i int) uint64 {
	if !a.counting {
		return a.weight
	}
	return a.tensors[name].count[i]
}

// Mean returns Σ weight·x / Σ weight over those who covered each coordinate, computed in float64 and rounded once to d;
// coordinates that nobody covered are 0.
func (a *Acc) Mean(d DType) Set {
	return a.over(d, func(name string, i int) float64 { return float64(a.Count(name, i)) })
}

// Over returns the sum divided by denominator, computed in float64 and rounded once to d.
func (a *Acc) Over(denominator float64, d DType) Set {
	return a.over(d, func(string, int) float64 { return denominator })
}

func (a *Acc) over(d DType, by func(string, int) float64) Set {
	out := NewSet(len(a.names))
	for _, name := range a.names {
		t := NewTensor(d, a.tensors[name].shape...)
		for i := range t.Len() {
			if c := by(name, i); c != 0 {
				t.SetAt(i, a.Total(name, i)/c)
			}
		}
		out.Put(name, t)
	}
	return out
}
