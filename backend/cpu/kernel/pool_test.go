package kernel

import (
	"math"
	"testing"

	"pgregory.net/rapid"
)

// drawPool draws a pooling all of whose windows see some pixel.
func drawPool(t *rapid.T) PoolShape {
	small := func(name string, lo, hi int) int { return rapid.IntRange(lo, hi).Draw(t, name) }
	s := PoolShape{
		N: small("n", 1, 3), H: small("h", 1, 12), W: small("w", 1, 12), C: small("c", 1, 40),
		KH: small("kh", 1, 4), KW: small("kw", 1, 4),
		StrideH: small("sh", 0, 4), StrideW: small("sw", 0, 4),
		DilH: small("dh", 0, 2), DilW: small("dw", 0, 2),
	}
	if s.DilH <= 1 && s.DilW <= 1 { // a padding below the window
		s.PadT, s.PadB = small("pt", 0, s.KH-1), small("pb", 0, s.KH-1)
		s.PadL, s.PadR = small("pl", 0, s.KW-1), small("pr", 0, s.KW-1)
		if s.H < s.KH {
			s.PadT, s.PadB = 0, 0
		}
		if s.W < s.KW {
			s.PadL, s.PadR = 0, 0
		}
	}
	return s
}

// naivePool calls f with the output index and the input indices of every window.
func naivePool(s PoolShape, f func(y int, xs []int)) {
	sh, sw := orDefault(s.StrideH, s.KH), orDefault(s.StrideW, s.KW)
	dh, dw := orDefault(s.DilH, 1), orDefault(s.DilW, 1)
	for n := range s.N {
		for p := range s.OutH() {
			for q := range s.OutW() {
				for c := range s.C {
					var xs []int
					for h := range s.KH {
						for w := range s.KW {
							r, col := p*sh-s.PadT+h*dh, q*sw-s.PadL+w*dw
							if r >= 0 && r < s.H && col >= 0 && col < s.W {
								xs = append(xs, ((n*s.H+r)*s.W+col)*s.C+c)
							}
						}
					}
					f(((n*s.OutH()+p)*s.OutW()+q)*s.C+c, xs)
				}
			}
		}
	}
}

// poolReference computes all four poolings. Sums are in float32, in the order of the kernels.
func poolReference(s PoolShape, d Divisor, x, dy []float32) (maxY, maxDX, sumY, sumDX []float32) {
	n := s.N * s.OutH() * s.OutW() * s.C
	maxY, sumY = make([]float32, n), make([]float32, n)
	maxDX, sumDX = make([]float32, len(x)), make([]float32, len(x))
	naivePool(s, func(y int, xs []int) {
		best, sum, scale := xs[0], x[xs[0]], float32(1)
		for _, i := range xs[1:] {
			sum += x[i]
			if x[i] > x[best] || x[i] != x[i] {
				best = i
			}
		}
		switch d {
		case DivideByWindow:
			scale = 1 / float32(s.KH*s.KW)
		case DivideByInside:
			scale = 1 / float32(len(xs))
		}
		maxY[y], sumY[y] = x[best], sum*scale
		maxDX[best] += dy[y]
		for _, i := range xs {
			sumDX[i] += float32(dy[y] * scale)
		}
	})
	return maxY, maxDX, sumY, sumDX
}

// sameValues fails unless got and want are equal bit by bit, all NaN being one value.
func sameValues(t *rapid.T, what string, got, want []float32) {
	t.Helper()
	for i := range want {
		if got[i] != want[i] && !(math.IsNaN(float64(got[i])) && math.IsNaN(float64(want[i]))) {
			t.Fatalf("%s[%d] = %g, want %g", what, i, got[i], want[i])
		}
	}
}

func TestPoolEqualsDefinition(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := drawPool(t)
		d := rapid.SampledFrom([]Divisor{DivideNot, DivideByWindow, DivideByInside}).Draw(t, "divisor")
		rnd := newRandom(rapid.Uint64().Draw(t, "seed"))
		x, dy := rnd.slice(s.N*s.H*s.W*s.C), rnd.slice(s.N*s.OutH()*s.OutW()*s.C)
		for i := range x { // ties, and rarely a NaN
			x[i] = float32(math.Round(float64(x[i]) * 4))
			if rnd.IntN(50) == 0 {
				x[i] = float32(math.NaN())
			}
		}
		maxY, maxDX, sumY, sumDX := poolReference(s, d, x, dy)
		run := func(n int, call func(out []float32) *PoolCall) []float32 {
			got := guarded(n)
			Run(call(got.mid), new(Scratch))
			return got.values(t)
		}
		for _, p := range Available() {
			sameValues(t, p.String()+" max", run(len(maxY), func(out []float32) *PoolCall {
				return &PoolCall{Plan: NewMaxPool(p, s), X: x, Y: out}
			}), maxY)
			sameValues(t, p.String()+" max gradient", run(len(x), func(out []float32) *PoolCall {
				return &PoolCall{Plan: NewMaxPoolGrad(p, s), X: x, DY: dy, DX: out}
			}), maxDX)
			sameValues(t, p.String()+" sum", run(len(sumY), func(out []float32) *PoolCall {
				return &PoolCall{Plan: NewSumPool(p, s, d), X: x, Y: out}
			}), sumY)
			sameValues(t, p.String()+" sum gradient", run(len(x), func(out []float32) *PoolCall {
				return &PoolCall{Plan: NewSumPoolGrad(p, s, d), DY: dy, DX: out}
			}), sumDX)
		}
	})
}
