package vec

import (
	"fmt"
	"math"
	"math/rand/v2"
	"reflect"
	"testing"

	"pgregory.net/rapid"
)

// The paths promise the same bits. These tests run every function of every path on random
// lengths, offsets and values against the portable path.

// specials are values at which functions change their behaviour.
var specials = func() []float32 {
	s := []float32{0, 1, 0.5, 2, 3, 1.5, 2.5, 0.92, 0.925, 4, 10, 18, 88.7, 88.73, 89, 103.9, 104, 150,
		0x1p-149, 0x1p-127, 0x1p-126, 0x1p-25, 0x1p-24, 0x1p-12, 0x1p23, 0x1p24, 0x1p31, 65536, 65537, 1e10,
		math.Pi, math.Pi / 2, math.Pi / 4, 65504, 65520, 0x1p-14, 0x1p-15, 0x1p-24, math.MaxFloat32, inf, nan}
	for _, x := range s[:len(s):len(s)] {
		s = append(s, -x)
	}
	return s
}()

// values draws float32 values of one kind: everyday ones, any bits, or special ones.
func values(r *rand.Rand, kind, n int) []float32 {
	v := make([]float32, n)
	for i := range v {
		switch kind {
		case 0:
			v[i] = float32(r.NormFloat64() * 3)
		case 1:
			v[i] = math.Float32frombits(r.Uint32())
		case 2:
			v[i] = specials[r.IntN(len(specials))]
		case 3:
			v[i] = float32(r.IntN(41) - 20) // integers, many equal pairs
		default:
			return append(v[:0], values(r, r.IntN(4), n)...)
		}
	}
	return v
}

// sameFloat reports equality of bits, all NaNs being equal.
func sameFloat(x, y float32) bool {
	return math.Float32bits(x) == math.Float32bits(y) || x != x && y != y
}

// shift copies v to a slice that starts off elements after an allocation.
func shift[T any](v []T, off int) []T {
	return append(make([]T, off, off+len(v)), v...)[off:]
}

// argument makes a random argument of the type t for slices of n elements.
func argument(r *rand.Rand, t reflect.Type, kind, n, off int) reflect.Value {
	switch t {
	case reflect.TypeFor[[]float32]():
		return reflect.ValueOf(shift(values(r, kind, n), off))
	case reflect.TypeFor[float32]():
		return reflect.ValueOf(values(r, kind, 1)[0])
	case reflect.TypeFor[[]bool]():
		v := make([]bool, n)
		for i := range v {
			v[i] = r.IntN(2) == 0
		}
		return reflect.ValueOf(shift(v, off))
	case reflect.TypeFor[[]int32]():
		v := make([]int32, n)
		for i := range v {
			v[i] = int32(r.Uint32()) >> r.IntN(32)
		}
		return reflect.ValueOf(shift(v, off))
	case reflect.TypeFor[[]uint16]():
		v := make([]uint16, n)
		for i := range v {
			v[i] = uint16(r.Uint32())
		}
		return reflect.ValueOf(shift(v, off))
	case reflect.TypeFor[[]float64]():
		v := make([]float64, n)
		for i, x := range values(r, kind, n) {
			v[i] = float64(x) * (1 + r.Float64()*0x1p-20)
		}
		return reflect.ValueOf(shift(v, off))
	}
	panic(t)
}

// guarded is a destination between two guard zones that must stay as they are.
type guarded struct {
	whole, dst reflect.Value
	off, n     int
}

const guard = 80

func newGuarded(t reflect.Type, off, n int) guarded {
	whole := reflect.MakeSlice(t, guard+off+n+guard, guard+off+n+guard)
	return guarded{whole, whole.Slice3(guard+off, guard+off+n, guard+off+n), off, n}
}

func (g guarded) check(t *rapid.T) {
	for i := range g.whole.Len() {
		if (i < guard+g.off || i >= guard+g.off+g.n) && !g.whole.Index(i).IsZero() {
			t.Fatalf("element %d outside dst [0, %d) was written", i-guard-g.off, g.n)
		}
	}
}

// differ returns the first index at which two slices or numbers differ in their bits, or -1.
func differ(x, y reflect.Value) int {
	if x.Kind() != reflect.Slice {
		if sameFloat(float32(x.Float()), float32(y.Float())) {
			return -1
		}
		return 0
	}
	for i := range x.Len() {
		a, b := x.Index(i), y.Index(i)
		same := a.Interface() == b.Interface()
		switch a.Kind() {
		case reflect.Float32:
			same = sameFloat(float32(a.Float()), float32(b.Float()))
		case reflect.Float64:
			same = math.Float64bits(a.Float()) == math.Float64bits(b.Float()) || a.Float() != a.Float() && b.Float() != b.Float()
		}
		if !same {
			return i
		}
	}
	return -1
}

// eachPath runs f for every path but the portable one.
func eachPath(t *testing.T, f func(t *testing.T, p *Funcs)) {
	for _, p := range Paths() {
		if p == Portable {
			continue
		}
		t.Run(p.String(), func(t *testing.T) { f(t, For(p)) })
	}
}

// eachField runs f for every function of the table, with its portable twin.
func eachField(t *testing.T, p *Funcs, f func(t *testing.T, name string, fn, twin reflect.Value)) {
	pv, tv := reflect.ValueOf(p).Elem(), reflect.ValueOf(For(Portable)).Elem()
	for i := range pv.NumField() {
		name := pv.Type().Field(i).Name
		if name == "Path" {
			continue
		}
		t.Run(name, func(t *testing.T) {
			if pv.Field(i).IsNil() {
				t.Fatalf("path %s lacks %s", p.Path, name)
			}
			f(t, name, pv.Field(i), tv.Field(i))
		})
	}
}

var lengths = rapid.OneOf(rapid.IntRange(0, 70), rapid.IntRange(0, 700), rapid.SampledFrom([]int{16, 64, 128, 1024, 4095, 4096, 4097, 12289}))

func TestPathsAgree(t *testing.T) {
	eachPath(t, func(t *testing.T, p *Funcs) {
		eachField(t, p, func(t *testing.T, name string, fn, twin reflect.Value) {
			ft := fn.Type()
			if ft.NumIn() > 0 && ft.In(ft.NumIn()-1) == reflect.TypeFor[int]() {
				t.Skip("column reductions have their own test")
			}
			rapid.Check(t, func(t *rapid.T) {
				n, kind, off := lengths.Draw(t, "n"), rapid.IntRange(0, 3).Draw(t, "kind"), rapid.IntRange(0, 5).Draw(t, "offset")
				r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
				hasDst := ft.NumOut() == 0 || name == "ExpSubSum"
				var args, twinArgs []reflect.Value
				var dst, want guarded
				for i := range ft.NumIn() {
					if i == 0 && hasDst {
						dst, want = newGuarded(ft.In(0), off, n), newGuarded(ft.In(0), off, n)
						args, twinArgs = append(args, dst.dst), append(twinArgs, want.dst)
						continue
					}
					a := argument(r, ft.In(i), kind, n, rapid.IntRange(0, 5).Draw(t, "offset"))
					args, twinArgs = append(args, a), append(twinArgs, a)
				}
				got, ref := fn.Call(args), twin.Call(twinArgs)
				if len(got) > 0 {
					if differ(got[0], ref[0]) >= 0 {
						t.Fatalf("returned %v, portable %v", got[0], ref[0])
					}
				}
				if hasDst {
					dst.check(t)
					if i := differ(dst.dst, want.dst); i >= 0 {
						in := ""
						for _, a := range args[1:] {
							if a.Kind() == reflect.Slice {
								a = a.Index(i)
							}
							in += fmt.Sprintf(" %v", a)
						}
						t.Fatalf("element %d of %d: got %v, portable %v, operands%s", i, n, dst.dst.Index(i), want.dst.Index(i), in)
					}
				}
			})
		})
	})
}

func TestColumnReductionsAgree(t *testing.T) {
	ref := For(Portable)
	eachPath(t, func(t *testing.T, p *Funcs) {
		rapid.Check(t, func(t *rapid.T) {
			cols := rapid.OneOf(rapid.IntRange(0, 40), rapid.IntRange(200, 600)).Draw(t, "cols")
			rows := rapid.OneOf(rapid.IntRange(0, 40), rapid.IntRange(500, 1100)).Draw(t, "rows")
			if cols > 100 {
				rows = min(rows, 30)
			}
			stride := cols + rapid.IntRange(0, 3).Draw(t, "gap")
			kind := rapid.IntRange(0, 3).Draw(t, "kind")
			r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
			off := rapid.IntRange(0, 5).Draw(t, "offset")
			a, b := shift(values(r, kind, rows*stride), off), shift(values(r, kind, rows*stride), off/2)
			m, start := shift(values(r, kind, cols), 1), values(r, kind, cols)
			for _, c := range []struct {
				name string
				call func(f *Funcs, dst []float32)
			}{
				{"SumRows", func(f *Funcs, dst []float32) { f.SumRows(dst, a, rows, stride) }},
				{"SumMulRows", func(f *Funcs, dst []float32) { f.SumMulRows(dst, a, b, rows, stride) }},
				{"SumSqDiffRows", func(f *Funcs, dst []float32) { f.SumSqDiffRows(dst, a, m, rows, stride) }},
			} {
				got := newGuarded(reflect.TypeFor[[]float32](), off, cols)
				dst := got.dst.Interface().([]float32)
				copy(dst, start)
				want := append([]float32(nil), start...)
				c.call(p, dst)
				c.call(ref, want)
				got.check(t)
				if i := differ(got.dst, reflect.ValueOf(want)); i >= 0 {
					t.Fatalf("%s: column %d of %d×%d: got %v, portable %v", c.name, i, rows, cols, dst[i], want[i])
				}
			}
		})
	})
}
