package vec

import (
	"math"
	"testing"
)

// ulps returns |got - want| in units in the last place of the float32 nearest to want.
func ulps(got float32, want float64) float64 {
	if math.IsNaN(want) != (got != got) {
		return math.Inf(1)
	}
	if math.IsNaN(want) {
		return 0
	}
	if w := float32(want); got == w {
		if math.Float32bits(got) != math.Float32bits(w) { // the sign of zero
			return math.Inf(1)
		}
		if math.IsInf(want, 0) || math.IsInf(float64(w), 0) {
			return 0
		}
	} else if math.IsInf(float64(got), 0) {
		got32 := math.Copysign(0x1p128, float64(got)) // the next float32 if the exponent went on
		return math.Abs(got32-want) / 0x1p104
	}
	_, e := math.Frexp(want)
	return math.Abs(float64(got)-want) / math.Ldexp(1, max(e-24, -149))
}

var elementary = []struct {
	name  string
	fn    func(f *Funcs) Unary
	exact func(float64) float64
	bound float64
}{
	{"Exp", func(f *Funcs) Unary { return f.Exp }, math.Exp, 1.1},
	{"Expm1", func(f *Funcs) Unary { return f.Expm1 }, math.Expm1, 1.6},
	{"Log", func(f *Funcs) Unary { return f.Log }, math.Log, 1.0},
	{"Log1p", func(f *Funcs) Unary { return f.Log1p }, math.Log1p, 1.6},
	{"Tanh", func(f *Funcs) Unary { return f.Tanh }, math.Tanh, 2.6},
	{"Logistic", func(f *Funcs) Unary { return f.Logistic }, func(x float64) float64 { return 1 / (1 + math.Exp(-x)) }, 2.5},
	{"Erf", func(f *Funcs) Unary { return f.Erf }, math.Erf, 1.2},
	{"Sin", func(f *Funcs) Unary { return f.Sin }, math.Sin, 1.7},
	{"Cos", func(f *Funcs) Unary { return f.Cos }, math.Cos, 1.7},
	{"Rsqrt", func(f *Funcs) Unary { return f.Rsqrt }, func(x float64) float64 { return 1 / math.Sqrt(x) }, 1.5},
	{"Sqrt", func(f *Funcs) Unary { return f.Sqrt }, math.Sqrt, 0.5},
}

// sweep calls f with blocks that cover the float32 line: every step-th bit pattern of both signs.
func sweep(step uint32, f func(a []float32)) {
	block := make([]float32, 0, 1024)
	for b := uint64(0); b < 1<<32; b += uint64(step) {
		block = append(block, math.Float32frombits(uint32(b)))
		if len(block) == cap(block) {
			f(block)
			block = block[:0]
		}
	}
	f(block)
}

// TestElementaryErrors measures the largest error over the whole float32 line.
func TestElementaryErrors(t *testing.T) {
	step := uint32(40009)
	if *exhaustive {
		step = 257
	}
	f := For(Paths()[len(Paths())-1])
	for _, e := range elementary {
		t.Run(e.name, func(t *testing.T) {
			t.Parallel()
			var worst float64
			var at float32
			dst := make([]float32, 1024)
			fn := e.fn(f)
			sweep(step, func(a []float32) {
				fn(dst[:len(a)], a)
				for i, x := range a {
					if u := ulps(dst[i], e.exact(float64(x))); u > worst {
						worst, at = u, x
					}
				}
			})
			t.Logf("largest error %.3f ulp at %g", worst, at)
			if worst > e.bound {
				t.Errorf("largest error %.3f ulp at %g (%#08x), bound %g", worst, at, math.Float32bits(at), e.bound)
			}
		})
	}
}
