package loops_test

import (
	"fmt"
	"math"
	"slices"
	"testing"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"pgregory.net/rapid"

	"github.com/cohort-learning/cohort/backend/cpu/loops"
)

func at[T any](s []T) unsafe.Pointer { return unsafe.Pointer(unsafe.SliceData(s)) }

// A kernel is looked up once and then runs on blocks of memory.
func Example() {
	add := loops.Binary(compute.OpTypeAdd, dtypes.Int16)
	a, b := []int16{1, 2, 3}, []int16{10, 20, 30}
	sum := make([]int16, 3)
	add(at(sum), at(a), at(b), nil, len(sum))
	fmt.Println(sum)
	// Output: [11 22 33]
}

func apply[T, R any](t *testing.T, k loops.Kernel, operands ...[]T) []R {
	t.Helper()
	if k == nil {
		t.Fatal("no such kernel")
	}
	p := make([]unsafe.Pointer, 3)
	for i, o := range operands {
		p[i] = at(o)
	}
	dst := make([]R, len(operands[0]))
	k(at(dst), p[0], p[1], p[2], len(dst))
	return dst
}

func same[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: got %v, want %v", what, got, want)
	}
}

func TestIntegerEdges(t *testing.T) {
	div, rem := loops.Binary(compute.OpTypeDiv, dtypes.Int8), loops.Binary(compute.OpTypeRem, dtypes.Int8)
	x, y := []int8{7, -7, 5, -128}, []int8{2, 2, 0, -1}
	same(t, "quotient", apply[int8, int8](t, div, x, y), []int8{3, -3, -1, -128})
	same(t, "remainder", apply[int8, int8](t, rem, x, y), []int8{1, -1, 5, 0})
	pow := loops.Binary(compute.OpTypePow, dtypes.Int32)
	same(t, "power", apply[int32, int32](t, pow, []int32{3, -1, -1, 2, 0}, []int32{4, -3, -2, -1, 0}), []int32{81, -1, 1, 0, 1})
	shift := func(op compute.OpType, x, by int8) int8 {
		return apply[int8, int8](t, loops.Binary(op, dtypes.Int8), []int8{x}, []int8{by})[0]
	}
	same(t, "shifts", []int8{
		shift(compute.OpTypeShiftLeft, -1, 1), shift(compute.OpTypeShiftRightArithmetic, -2, 1),
		shift(compute.OpTypeShiftRightLogical, -2, 1), shift(compute.OpTypeShiftLeft, 1, 9),
	}, []int8{-2, -1, 127, 0})
	same(t, "leading zeros", apply[int8, int8](t, loops.Unary(compute.OpTypeClz, dtypes.Int8), []int8{7, 0, -1}), []int8{5, 8, 0})
	same(t, "ones", apply[int8, int8](t, loops.Unary(compute.OpTypeBitCount, dtypes.Int8), []int8{7, 0, -1}), []int8{3, 0, 8})
	same(t, "sign", apply[uint8, uint8](t, loops.Unary(compute.OpTypeSign, dtypes.Uint8), []uint8{0, 200}), []uint8{0, 1})
	same(t, "sign", apply[int16, int16](t, loops.Unary(compute.OpTypeSign, dtypes.Int16), []int16{0, 9, -9}), []int16{0, 1, -1})
}

func TestTotalOrder(t *testing.T) {
	nan := float32(math.NaN())
	ascending := []float32{
		float32(math.Copysign(float64(nan), -1)), float32(math.Inf(-1)), -1,
		float32(math.Copysign(0, -1)), 0, 1, float32(math.Inf(1)), nan,
	}
	less := loops.Compare(compute.OpTypeLessThanTotalOrder, dtypes.Float32)
	same(t, "neighbours", apply[float32, bool](t, less, ascending[:7], ascending[1:]), slices.Repeat([]bool{true}, 7))
	equal := loops.Compare(compute.OpTypeEqualTotalOrder, dtypes.Float32)
	same(t, "itself", apply[float32, bool](t, equal, ascending, ascending), slices.Repeat([]bool{true}, 8))
}

func TestPackAndUnpack(t *testing.T) {
	for _, dt := range []dtypes.DType{dtypes.Int2, dtypes.Uint2, dtypes.Int4, dtypes.Uint4} {
		n := 1<<dt.Bits() + 1 // an odd number
		want := make([]int8, n)
		for i := range want {
			want[i] = int8(i % (1 << dt.Bits()))
			if !dt.IsUnsigned() {
				want[i] -= 1 << (dt.Bits() - 1)
			}
		}
		packed := make([]byte, dt.SizeForDimensions(n))
		got := make([]int8, n)
		loops.Pack(at(packed), at(want), dt, n)
		loops.Unpack(at(got), at(packed), dt, n)
		same(t, dt.String(), got, want)
	}
}

// TestPhiloxKnownAnswers checks the vectors that come with the paper's
// reference implementation.
func TestPhiloxKnownAnswers(t *testing.T) {
	for _, c := range []struct {
		state [3]uint64
		want  [4]uint32
	}{
		{[3]uint64{}, [4]uint32{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
		{[3]uint64{1<<64 - 1, 1<<64 - 1, 1<<64 - 1}, [4]uint32{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
		{[3]uint64{0x299f31d0a4093822, 0x85a308d3243f6a88, 0x0370734413198a2e}, [4]uint32{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
	} {
		out := make([]byte, 16)
		state := c.state
		loops.Philox(&state, out)
		same(t, "bits", loops.Slice[uint32](at(out), 4), c.want[:])
		if state[1] != c.state[1]+1 {
			t.Errorf("the counter went from %x to %x", c.state[1], state[1])
		}
	}
}

func TestCopyStridedIsIndexing(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		dims := rapid.SliceOfN(rapid.IntRange(1, 5), 0, 4).Draw(t, "dims")
		strides := make([]int, len(dims))
		low, high, n := 0, 0, 1
		for k, d := range dims {
			strides[k] = rapid.IntRange(-3, 3).Draw(t, "stride")
			low += min(0, strides[k]*(d-1))
			high += max(0, strides[k]*(d-1))
			n *= d
		}
		src := make([]int32, high-low+1)
		for i := range src {
			src[i] = int32(i)
		}
		first := rapid.IntRange(0, n-1).Draw(t, "first")
		count := rapid.IntRange(0, n-first).Draw(t, "count")
		got := make([]int32, count)
		loops.CopyStrided(at(got), at(src[-low:]), 4, dims, strides, first, count)
		for i := range got {
			rest, offset := first+i, -low
			for k := len(dims) - 1; k >= 0; k-- {
				offset += rest % dims[k] * strides[k]
				rest /= dims[k]
			}
			if got[i] != src[offset] {
				t.Fatalf("element %d is %d, want %d", i, got[i], src[offset])
			}
		}
	})
}

func TestRowReduce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rows, n := rapid.IntRange(1, 4).Draw(t, "rows"), rapid.IntRange(0, 40).Draw(t, "n")
		src := rapid.SliceOfN(rapid.Int64Range(-9, 9), rows*n, rows*n).Draw(t, "values")
		for red, f := range map[loops.Reduction]func(a, b int64) int64{
			loops.Sum:     func(a, b int64) int64 { return a + b },
			loops.Product: func(a, b int64) int64 { return a * b },
			loops.Max:     func(a, b int64) int64 { return max(a, b) },
			loops.Min:     func(a, b int64) int64 { return min(a, b) },
			loops.And:     func(a, b int64) int64 { return a & b },
			loops.Or:      func(a, b int64) int64 { return a | b },
			loops.Xor:     func(a, b int64) int64 { return a ^ b },
		} {
			got := make([]int64, rows)
			loops.RowReduce(red, dtypes.Int64)(at(got), at(src), rows, n)
			for i := range got {
				want := *(*int64)(red.Identity(dtypes.Int64))
				for _, v := range src[i*n : (i+1)*n] {
					want = f(want, v)
				}
				if got[i] != want {
					t.Fatalf("reduction %d of %v is %d, want %d", red, src[i*n:(i+1)*n], got[i], want)
				}
			}
		}
	})
}

// TestPlanesAreWindows compares the window over one or two axes with the one
// over any.
func TestPlanesAreWindows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		axis := func(name string) loops.WindowAxis {
			a := loops.WindowAxis{
				In: rapid.IntRange(1, 6).Draw(t, name), Window: rapid.IntRange(1, 3).Draw(t, name), Stride: rapid.IntRange(1, 3).Draw(t, name),
				Low: rapid.IntRange(0, 2).Draw(t, name), InDilation: rapid.IntRange(1, 2).Draw(t, name), WindowDilation: rapid.IntRange(1, 2).Draw(t, name),
			}
			span := (a.In-1)*a.InDilation + 1 + a.Low
			a.Out = max((span-(a.Window-1)*a.WindowDilation-1)/a.Stride+1, 1)
			return a
		}
		still := func(n int) loops.WindowAxis {
			return loops.WindowAxis{In: n, Out: n, Window: 1, Stride: 1, InDilation: 1, WindowDilation: 1}
		}
		w := loops.Windows{Axes: []loops.WindowAxis{still(2), axis("a"), axis("b"), still(3)}}
		p, ok := w.Plane()
		if !ok {
			t.Fatal("not a plane")
		}
		in, out := 1, w.Size()
		for _, ax := range w.Axes {
			in *= ax.In
		}
		x := rapid.SliceOfN(rapid.Int32Range(-5, 5), in, in).Draw(t, "operand")
		want, got := make([]int32, out), make([]int32, out)
		for _, red := range []loops.Reduction{loops.Sum, loops.Max} {
			loops.ReduceWindow(&w, red, dtypes.Int32)(at(want), at(x), 0, out)
			loops.ReducePlanes(&p, loops.Binary(red.Op(dtypes.Int32), dtypes.Int32), red.Identity(dtypes.Int32), 4, at(got), at(x), 0, p.Outer)
			if !slices.Equal(got, want) {
				t.Fatalf("reduction %d: got %v, want %v", red, got, want)
			}
		}
		y := rapid.SliceOfN(rapid.Int32Range(-5, 5), out, out).Draw(t, "source")
		dWant, dGot := make([]int32, in), make([]int32, in)
		for _, smallest := range []bool{false, true} {
			loops.SelectAndScatter(&w, dtypes.Int32, smallest)(at(dWant), at(x), at(y))
			loops.SelectPlanes(dtypes.Int32, smallest)(&p, at(dGot), at(x), at(y), 0, p.Outer)
			if !slices.Equal(dGot, dWant) {
				t.Fatalf("smallest %v: got %v, want %v", smallest, dGot, dWant)
			}
		}
	})
}

func TestArgExtreme(t *testing.T) {
	nan := float32(math.NaN())
	x := []float32{3, 1, 1, 5, nan, 9, 2, 2, 2}
	arg := func(smallest bool) []int32 {
		got := make([]int32, 3)
		loops.ArgExtreme(dtypes.Float32, dtypes.Int32, smallest)(at(got), at(x), 3, 3, 1)
		return got
	}
	same(t, "smallest", arg(true), []int32{1, 1, 0})
	same(t, "largest", arg(false), []int32{0, 1, 0})
}
