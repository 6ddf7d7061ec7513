package vec

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// finest is the widest path of this machine.
func finest() *Funcs { ps := Paths(); return For(ps[len(ps)-1]) }

// TestFMAIsExact compares the emulation with exact rational arithmetic, near ties in particular.
func TestFMAIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		for range 200 {
			x, y := float32(r.IntN(1<<24)), float32(r.IntN(1<<24))
			x, y = float32(math.Ldexp(float64(x), -r.IntN(100))), float32(math.Ldexp(float64(y), -r.IntN(100)))
			// An addend of few bits, far from the product or next to it, makes ties likely.
			z := float32(math.Ldexp(float64(1+r.IntN(4)), math.Ilogb(float64(x)*float64(y)+1e-300)+r.IntN(60)-30))
			if r.IntN(2) == 0 {
				z = -z
			}
			exact := new(big.Float).SetPrec(2000).SetFloat64(float64(x) * float64(y))
			exact.Add(exact, big.NewFloat(float64(z)))
			want, _ := exact.Float32()
			if got := fma(x, y, z); got != want {
				t.Fatalf("fma(%g, %g, %g) = %g, exactly %g", x, y, z, got, want)
			}
		}
	})
}

func TestPowErrors(t *testing.T) {
	f := finest()
	r := rand.New(rand.NewPCG(1, 2))
	const n = 1024
	x, y, dst := make([]float32, n), make([]float32, n), make([]float32, n)
	var worst float64
	var wx, wy float32
	rounds := 300
	if *exhaustive {
		rounds = 100_000
	}
	for round := range rounds {
		for i := range x {
			switch round % 4 {
			case 0: // exponents that use the whole range of results
				x[i] = math.Float32frombits(r.Uint32() &^ signBit)
				y[i] = float32((r.Float64()*256 - 128) / math.Log2(float64(x[i])))
			case 1: // bases near 1, large exponents
				x[i] = float32(1 + r.NormFloat64()*1e-3)
				y[i] = float32(r.NormFloat64() * 3e4)
			case 2: // everyday values
				x[i], y[i] = float32(r.Float64()*10), float32(r.NormFloat64()*4)
			case 3: // negative bases, integer exponents
				x[i], y[i] = float32(-r.Float64()*10), float32(r.IntN(61)-30)
			}
		}
		f.Pow(dst, x, y)
		for i := range x {
			if u := ulps(dst[i], math.Pow(float64(x[i]), float64(y[i]))); u > worst {
				worst, wx, wy = u, x[i], y[i]
			}
		}
	}
	t.Logf("largest error %.3f ulp at %g^%g", worst, wx, wy)
	if worst > 2.5 {
		t.Errorf("largest error %.3f ulp at %g^%g, bound 2.5", worst, wx, wy)
	}
}

// TestPowSpecial compares every pair of special values with math.Pow, which follows IEEE 754.
func TestPowSpecial(t *testing.T) {
	dst := make([]float32, len(specials))
	for _, p := range Paths() {
		f := For(p)
		for _, y := range specials {
			f.PowS(dst, specials, y)
			for i, x := range specials {
				want := math.Pow(float64(x), float64(y))
				if u := ulps(dst[i], want); u > 3 {
					t.Errorf("%s: %g^%g = %g, want %g", p, x, y, dst[i], want)
				}
			}
		}
	}
}

// TestSpecialValues pins the behaviour at the points where users trip.
func TestSpecialValues(t *testing.T) {
	negZero := float32(math.Copysign(0, -1))
	for _, p := range Paths() {
		f := For(p)
		for _, c := range []struct {
			name    string
			fn      Unary
			x, want float32
		}{
			{"Exp", f.Exp, inf, inf}, {"Exp", f.Exp, -inf, 0}, {"Exp", f.Exp, nan, nan}, {"Exp", f.Exp, 0, 1},
			{"Exp", f.Exp, 88.73, inf}, {"Exp", f.Exp, -103.9, 0x1p-149}, {"Exp", f.Exp, -104, 0},
			{"Expm1", f.Expm1, negZero, negZero}, {"Expm1", f.Expm1, -inf, -1}, {"Expm1", f.Expm1, 0x1p-149, 0x1p-149},
			{"Log", f.Log, 0, -inf}, {"Log", f.Log, negZero, -inf}, {"Log", f.Log, -1, nan}, {"Log", f.Log, inf, inf},
			{"Log", f.Log, 1, 0}, {"Log", f.Log, -inf, nan}, {"Log", f.Log, nan, nan},
			{"Log1p", f.Log1p, negZero, negZero}, {"Log1p", f.Log1p, -1, -inf}, {"Log1p", f.Log1p, -2, nan}, {"Log1p", f.Log1p, inf, inf},
			{"Tanh", f.Tanh, inf, 1}, {"Tanh", f.Tanh, -inf, -1}, {"Tanh", f.Tanh, negZero, negZero}, {"Tanh", f.Tanh, nan, nan},
			{"Logistic", f.Logistic, -inf, 0}, {"Logistic", f.Logistic, inf, 1}, {"Logistic", f.Logistic, 0, 0.5},
			{"Erf", f.Erf, -inf, -1}, {"Erf", f.Erf, negZero, negZero}, {"Erf", f.Erf, nan, nan},
			{"Sin", f.Sin, inf, nan}, {"Sin", f.Sin, negZero, negZero}, {"Cos", f.Cos, 0, 1}, {"Cos", f.Cos, -inf, nan},
			{"Sqrt", f.Sqrt, negZero, negZero}, {"Sqrt", f.Sqrt, -1, nan}, {"Rsqrt", f.Rsqrt, 0, inf}, {"Rsqrt", f.Rsqrt, negZero, -inf},
			{"Sign", f.Sign, nan, nan}, {"Sign", f.Sign, negZero, negZero}, {"Sign", f.Sign, -0x1p-149, -1},
			{"Round", f.Round, 2.5, 2}, {"Round", f.Round, -0.5, negZero}, {"Ceil", f.Ceil, -0.5, negZero}, {"Floor", f.Floor, -0.5, -1},
			{"Relu", f.Relu, nan, 0}, {"Relu", f.Relu, -1, 0}, {"Relu", f.Relu, 3, 3},
		} {
			var dst [1]float32
			c.fn(dst[:], []float32{c.x})
			if !sameFloat(dst[0], c.want) {
				t.Errorf("%s: %s(%g) = %g, want %g", p, c.name, c.x, dst[0], c.want)
			}
		}
		var dst [4]float32
		f.Max(dst[:], []float32{nan, 1, negZero, 0}, []float32{1, nan, 0, negZero})
		for i, want := range []float32{nan, nan, 0, 0} {
			if !sameFloat(dst[i], want) {
				t.Errorf("%s: Max case %d = %g, want %g", p, i, dst[i], want)
			}
		}
		f.Min(dst[:], []float32{nan, 1, negZero, 0}, []float32{1, nan, 0, negZero})
		for i, want := range []float32{nan, nan, negZero, negZero} {
			if !sameFloat(dst[i], want) {
				t.Errorf("%s: Min case %d = %g, want %g", p, i, dst[i], want)
			}
		}
		var n [6]int32
		f.F32ToI32(n[:], []float32{nan, inf, -inf, 2.9, -2.9, 0x1p31})
		if want := [6]int32{0, math.MaxInt32, math.MinInt32, 2, -2, math.MaxInt32}; n != want {
			t.Errorf("%s: F32ToI32 = %v, want %v", p, n, want)
		}
	}
}

// TestHalfRoundTrip checks every binary16 and bfloat16 value, and the rounding against a search
// for the nearest value.
func TestHalfRoundTrip(t *testing.T) {
	f := finest()
	all := make([]uint16, 1<<16)
	for i := range all {
		all[i] = uint16(i)
	}
	wide, back := make([]float32, len(all)), make([]uint16, len(all))
	f.F16ToF32(wide, all)
	f.F32ToF16(back, wide)
	for i, h := range all {
		e, m := int(h>>10&31), float64(h&0x3ff)
		want := math.Ldexp(m+1024, e-25)
		switch {
		case e == 0:
			want = math.Ldexp(m, -24)
		case e == 31 && m == 0:
			want = math.Inf(1)
		case e == 31:
			want = math.NaN()
		}
		if h>>15 != 0 {
			want = -want
		}
		if !sameFloat(wide[i], float32(want)) {
			t.Fatalf("F16ToF32(%#04x) = %g, want %g", h, wide[i], want)
		}
		if back[i] != h && !(e == 31 && m != 0) {
			t.Fatalf("F32ToF16(%g) = %#04x, want %#04x", wide[i], back[i], h)
		}
	}
	// Halfway points between neighbours go to the even one, anything closer to the nearer one.
	for h := uint16(0); h < 0x7c00-1; h++ {
		lo, hi := float64(wide[h]), float64(wide[h+1])
		mid := float32((lo + hi) / 2)
		in := []float32{mid, math.Nextafter32(mid, -1), math.Nextafter32(mid, inf)}
		var out [3]uint16
		f.F32ToF16(out[:], in)
		if want := [3]uint16{h + h&1, h, h + 1}; out != want {
			t.Fatalf("F32ToF16 around %g: %#04x, want %#04x", mid, out, want)
		}
	}
	f.BF16ToF32(wide, all)
	f.F32ToBF16(back, wide)
	for i, h := range all {
		if wide[i] == wide[i] && back[i] != h {
			t.Fatalf("F32ToBF16(%g) = %#04x, want %#04x", wide[i], back[i], h)
		}
	}
	var out [3]uint16
	f.F32ToBF16(out[:], []float32{math.Float32frombits(0x3f808000), math.Float32frombits(0x3f818000), math.Float32frombits(0x3f808001)})
	if want := [3]uint16{0x3f80, 0x3f82, 0x3f81}; out != want {
		t.Errorf("F32ToBF16 ties: %#04x, want %#04x", out, want)
	}
}
