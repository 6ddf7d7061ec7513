package kernel

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"
)

// drawSize draws a size around the edges of tiles and blocks, or any other.
func drawSize(t *rapid.T, name string, limit int) int {
	n := rapid.OneOf(
		rapid.IntRange(0, 40),
		rapid.SampledFrom([]int{11, 12, 13, 15, 16, 17, 24, 25, 31, 32, 33, 48, 63, 64, 65, 191, 192, 193, 320, 321, 385, 641}),
		rapid.IntRange(0, limit),
	).Draw(t, name)
	return min(n, limit)
}

// drawOperand draws strides for rows×cols matrices, and the length of the slice that holds them.
func drawOperand(t *rapid.T, name string, batch []int, rows, cols int, result bool) (Operand, int) {
	layout := rapid.SampledFrom([]string{"rows", "columns", "gaps", "shared", "interleaved"}).Draw(t, name)
	o := RowMajor(batch, rows, cols)
	switch {
	case layout == "columns":
		o = RowMajor(batch, cols, rows).T()
	case layout == "gaps":
		o = RowMajor(batch, rows, cols+5)
		o.Col = 1
	case layout == "shared" && !result:
		for d := range o.Batch {
			o.Batch[d] = 0
		}
	case layout == "interleaved" && !result:
		o.Row, o.Col = 2*cols, 2
		for d := range o.Batch {
			o.Batch[d] *= 2
		}
	}
	return o, extent(batch, o, rows, cols)
}

// gemmTerms calls f with the offsets of a, b and c of every term.
func gemmTerms(s GemmShape, f func(a, b, c int)) {
	batch := 1
	for _, n := range s.Batch {
		batch *= n
	}
	for b := range batch {
		at := func(o Operand) int {
			off, rest := 0, b
			for d := len(s.Batch) - 1; d >= 0; d-- {
				off += rest % s.Batch[d] * o.Batch[d]
				rest /= s.Batch[d]
			}
			return off
		}
		a0, b0, c0 := at(s.A), at(s.B), at(s.C)
		for i := range s.M {
			for j := range s.N {
				for k := range s.K {
					f(a0+i*s.A.Row+k*s.A.Col, b0+k*s.B.Row+j*s.B.Col, c0+i*s.C.Row+j*s.C.Col)
				}
			}
		}
	}
}

func TestGemmEqualsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := GemmShape{
			M: drawSize(t, "m", 700), N: drawSize(t, "n", 700), K: drawSize(t, "k", 700),
			Accumulate: rapid.Bool().Draw(t, "accumulate"),
		}
		for s.M*s.N*s.K > 4_000_000 {
			s.M, s.N, s.K = (s.M+1)/2, (s.N+1)/2, s.K-s.K/3
		}
		if s.M*s.N*s.K < 20_000 {
			s.Batch = rapid.SampledFrom([][]int{nil, {3}, {2, 5}, {0}, {150}}).Draw(t, "batch")
		}
		var lenA, lenB, lenC int
		s.A, lenA = drawOperand(t, "A", s.Batch, s.M, s.K, false)
		s.B, lenB = drawOperand(t, "B", s.Batch, s.K, s.N, false)
		s.C, lenC = drawOperand(t, "C", s.Batch, s.M, s.N, true)
		rnd := newRandom(rapid.Uint64().Draw(t, "seed"))
		a, b, before := rnd.slice(lenA), rnd.slice(lenB), rnd.slice(lenC)
		want := newReference(lenC)
		inside := make([]bool, lenC)
		one := s
		one.K = 1
		gemmTerms(one, func(_, _, c int) {
			inside[c] = true
			if s.Accumulate {
				want.add(c, before[c], 1)
			}
		})
		gemmTerms(s, func(i, j, k int) { want.add(k, a[i], b[j]) })
		for _, p := range Available() {
			got := guarded(lenC)
			copy(got.mid, before)
			runChecked(t, &GemmCall{Plan: NewGemm(p, s), A: a, B: b, C: got.mid})
			c := got.values(t)
			for i, in := range inside {
				if !in && c[i] != before[i] {
					t.Fatalf("%v: C[%d] between the rows was overwritten", p, i)
				}
				if !in {
					c[i] = 0
				}
			}
			want.check(t, p.String()+" C", c)
		}
	})
}

// bigGemms take every way through the plan: B read in place, packed by the task
// or by a phase of its own; A in place or packed; many blocks.
var bigGemms = []GemmShape{
	{M: 20, N: 300, K: 650}, {M: 200, N: 70, K: 700}, {M: 400, N: 260, K: 660}, {M: 1000, N: 33, K: 40},
	{M: 130, N: 1100, K: 70},
	{M: 10, N: 200, K: 784}, {M: 784, N: 200, K: 10}, {M: 1, N: 999, K: 333}, {M: 999, N: 1, K: 333},
	{Batch: []int{40}, M: 17, N: 17, K: 9}, {Batch: []int{3}, M: 250, N: 64, K: 64},
}

func (s GemmShape) withLayout(layout int) GemmShape {
	s.A, s.B, s.C = RowMajor(s.Batch, s.M, s.K), RowMajor(s.Batch, s.K, s.N), RowMajor(s.Batch, s.M, s.N)
	if layout&1 != 0 {
		s.A = RowMajor(s.Batch, s.K, s.M).T()
	}
	if layout&2 != 0 {
		s.B = RowMajor(s.Batch, s.N, s.K).T()
	}
	return s
}

// bigCalls returns a call of each kind on path p with a name, and its result.
func bigCalls(p Path) map[string]func() (Call, []float32) {
	calls := map[string]func() (Call, []float32){}
	for _, s := range bigGemms {
		for layout := range 4 {
			s := s.withLayout(layout)
			calls[fmt.Sprintf("gemm %v %dx%dx%d layout %d", s.Batch, s.M, s.N, s.K, layout)] = func() (Call, []float32) {
				rnd := newRandom(uint64(s.M))
				g := NewGemm(p, s)
				a, b := rnd.slice(max(g.aLen, g.bLen)), rnd.slice(max(g.aLen, g.bLen))
				c := make([]float32, g.cLen)
				return &GemmCall{Plan: g, A: a, B: b, C: c}, c
			}
		}
	}
	for _, s := range []ConvShape{
		{N: 3, H: 28, W: 28, Cin: 1, Cout: 8, KH: 3, KW: 3, PadT: 1, PadB: 1, PadL: 1, PadR: 1},
		{N: 10, H: 14, W: 14, Cin: 16, Cout: 40, KH: 3, KW: 3, PadT: 1, PadB: 1, PadL: 1, PadR: 1},
		{N: 2, H: 16, W: 16, Cin: 64, Cout: 48, KH: 3, KW: 3, PadT: 1, PadB: 1, PadL: 1, PadR: 1, StrideH: 2, StrideW: 2},
		{N: 10, H: 3, W: 3, Cin: 128, Cout: 160, KH: 3, KW: 3, PadT: 1, PadB: 1, PadL: 1, PadR: 1},
		{N: 12, H: 4, W: 4, Cin: 256, Cout: 96, KH: 3, KW: 3, PadT: 1, PadB: 1, PadL: 1, PadR: 1},
		{N: 4, H: 16, W: 16, Cin: 32, Cout: 64, KH: 1, KW: 1, StrideH: 2, StrideW: 2},
		{N: 2, H: 1, W: 3000, Cin: 4, Cout: 6, KH: 1, KW: 9, StrideW: 2, PadL: 4, PadR: 4},
		{N: 2, H: 9, W: 200, Cin: 24, Cout: 24, KH: 3, KW: 5, DilH: 2, Groups: 4},
	} {
		for _, layout := range []KernelStrides{s.HWIO(), s.OIHW()} {
			s := s
			s.Kernel = layout
			for kind, plan := range map[string]func(Path, ConvShape) *Conv{"Y": NewConvForward, "dX": NewConvInputGrad, "dW": NewConvWeightGrad} {
				calls[fmt.Sprintf("conv %s %+v", kind, s)] = func() (Call, []float32) {
					rnd := newRandom(uint64(s.Cin))
					n := s.normal()
					c := &ConvCall{Plan: plan(p, s), X: rnd.slice(n.xLen()), W: rnd.slice(n.wLen()), Y: rnd.slice(n.yLen())}
					return c, map[string][]float32{"Y": c.Y, "dX": c.X, "dW": c.W}[kind]
				}
			}
		}
	}
	pool := PoolShape{N: 3, H: 40, W: 40, C: 33, KH: 3, KW: 3, StrideH: 2, StrideW: 2, PadT: 1, PadB: 1, PadL: 1, PadR: 1}
	calls["max pool gradient"] = func() (Call, []float32) {
		rnd := newRandom(5)
		dx := make([]float32, pool.N*pool.H*pool.W*pool.C)
		return &PoolCall{Plan: NewMaxPoolGrad(p, pool), X: rnd.slice(len(dx)), DY: rnd.slice(len(dx)), DX: dx}, dx
	}
	return calls
}

func TestSameBitsForAnyNumberOfWorkers(t *testing.T) {
	for _, p := range Available() {
		for name, prepare := range bigCalls(p) {
			var want []float32
			for _, workers := range []int{1, 3, 8} {
				c, result := prepare()
				_, scratch := giveWork(c)
				runParallel(c, workers, len(scratch.buf))
				if want == nil {
					want = slices.Clone(result)
				} else if !slices.Equal(result, want) {
					t.Errorf("%v: %s: %d workers give other bits than one", p, name, workers)
				}
			}
		}
	}
}

// TestPathsAgree compares each path with its portable twin: they add the same
// products, in blocks of other sizes.
func TestPathsAgree(t *testing.T) {
	twin := bigCalls(Portable)
	for _, p := range Available()[1:] {
		for name, prepare := range bigCalls(p) {
			run := func(prepare func() (Call, []float32)) []float32 {
				c, result := prepare()
				_, s := giveWork(c)
				Run(c, s)
				return result
			}
			got, want := run(prepare), run(twin[name])
			var worst, scale float64
			for i, w := range want {
				scale = max(scale, float64(w), -float64(w))
				worst = max(worst, float64(got[i]-w), float64(w-got[i]))
			}
			if !(worst <= 1e-5*scale) {
				t.Errorf("%v: %s: differs from the portable path by %g, values are up to %g", p, name, worst, scale)
			}
		}
	}
}

func TestNoAllocation(t *testing.T) {
	for _, p := range Available() {
		for name, prepare := range bigCalls(p) {
			c, _ := prepare()
			_, s := giveWork(c)
			n := 1.0
			for range 3 { // the count is the whole process's, and the runtime may allocate on its own account
				if n = testing.AllocsPerRun(1, func() { Run(c, s) }); n == 0 {
					break
				}
			}
			if n != 0 {
				t.Errorf("%v: %s: %g allocations", p, name, n)
			}
		}
	}
}

func TestShortSlicePanics(t *testing.T) {
	s := GemmShape{M: 4, N: 5, K: 6}.withLayout(0)
	c := &GemmCall{Plan: NewGemm(Portable, s), A: make([]float32, 24), B: make([]float32, 29), C: make([]float32, 20)}
	defer func() {
		const want = "kernel: Gemm: the right operand has 29 values, want at least 30"
		if r := recover(); r != want {
			t.Errorf("panic %v, want %q", r, want)
		}
	}()
	Run(c, new(Scratch))
}
