package vec

import (
	"math"

	"github.com/cohort-learning/cohort/backend/cpu/kernel/vec/internal/coef"
)

// The scalar functions that every path evaluates lane by lane, operation for operation. A product
// that a sum follows is either fused by fma or wrapped in float32(…), which forbids fusing.

const signBit = 1 << 31

var (
	inf = float32(math.Inf(1))
	nan = float32(math.NaN())
)

// fma returns x·y + z rounded once. The product of two float32 is exact in float64, so only the
// addition rounds; making an inexact sum odd (round to odd) lets the final conversion round as if
// it saw the exact value (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums",
// IEEE Transactions on Computers 57, 2008).
func fma(x, y, z float32) float32 {
	p, zd := float64(x)*float64(y), float64(z)
	s := p + zd
	t := s - p
	err := (p - (s - t)) + (zd - t)
	b := math.Float64bits(s)
	if b&1 == 0 && (err > 0 || err < 0) {
		if (err > 0) == (s > 0) {
			b++
		} else {
			b--
		}
	}
	return float32(math.Float64frombits(b))
}

func abs(x float32) float32 { return math.Float32frombits(math.Float32bits(x) &^ signBit) }

// orSign returns x with the sign bit of s set in it.
func orSign(x, s float32) float32 {
	return math.Float32frombits(math.Float32bits(x) | math.Float32bits(s)&signBit)
}

func sign(x float32) float32 {
	switch {
	case x > 0:
		return 1
	case x < 0:
		return -1
	}
	return x
}

// sqrt is correctly rounded: float64 has more than twice the digits of float32.
func sqrt(x float32) float32 { return float32(math.Sqrt(float64(x))) }

func floor(x float32) float32 { return float32(math.Floor(float64(x))) }

func round(x float32) float32 { return float32(math.RoundToEven(float64(x))) }

// pow2 returns 2ⁿ for -127 < n < 128.
func pow2(n int32) float32 { return math.Float32frombits(uint32(n+127) << 23) }

// horner evaluates Σ c[i]·xⁱ with fused steps from the highest power down.
func horner(x float32, c []float32) float32 {
	p := c[len(c)-1]
	for i := len(c) - 2; i >= 0; i-- {
		p = fma(p, x, c[i])
	}
	return p
}

// reduceLn2 returns n = round(x/ln2) and x - n·ln2.
func reduceLn2(x float32) (n, r float32) {
	n = round(x * coef.Log2E)
	r = fma(n, -coef.Ln2Hi, x)
	return n, fma(n, -coef.Ln2Lo, r)
}

// scaledExp returns eʳ·2ⁿ; the two factors keep an intermediate result from overflowing or from
// being rounded twice when the result is denormal.
func scaledExp(n, r float32) float32 {
	p := fma(horner(r, coef.Exp[:]), r*r, r) + 1
	i := int32(n)
	h := i >> 1
	return p * pow2(h) * pow2(i-h)
}

// Beyond these bounds eˣ is +Inf or rounds to 0; clamping to them keeps 2ⁿ representable in halves.
const (
	expMax = 89
	expMin = -104
)

// clamp returns x limited to [lo, hi], and NaN for NaN.
func clamp(x, lo, hi float32) float32 {
	if x > hi {
		x = hi
	}
	if x < lo {
		x = lo
	}
	return x
}

func exp(x float32) float32 {
	if x != x {
		return x
	}
	return scaledExp(reduceLn2(clamp(x, expMin, expMax)))
}

func expm1(x float32) float32 {
	if x != x {
		return x
	}
	n, r := reduceLn2(clamp(x, -18, expMax)) // e⁻¹⁸ - 1 rounds to -1
	t := fma(horner(r, coef.Expm1[:]), r*r, r)
	s := pow2(int32(n) - 1) // half of 2ⁿ, which may overflow
	y := fma(s, t, s-0.5)
	y += y
	if n == 0 {
		y = t
	}
	return orSign(y, x)
}

func tanh(x float32) float32 {
	if x != x {
		return x
	}
	a := abs(x)
	// With e = e²ᵃ - 1, tanh a = e/(e + 2); from 10 on it rounds to 1.
	n, r := reduceLn2(2 * clamp(a, 0, 10))
	t := fma(horner(r, coef.Expm1[:]), r*r, r)
	s := pow2(int32(n))
	e := fma(s, t, s-1)
	y := e / (e + 2)
	if a < 0x1p-12 {
		y = a
	}
	return orSign(y, x)
}

func logistic(x float32) float32 {
	if x != x {
		return x
	}
	e := scaledExp(reduceLn2(clamp(-abs(x), expMin, expMax)))
	num := float32(1)
	if x < 0 {
		num = e
	}
	return num / (1 + e)
}

// split returns e and m in [√½, √2) with x = m·2ᵉ for positive normal x.
func split(x float32) (e int32, m float32) {
	b := int32(math.Float32bits(x))
	e = (b - coef.SqrtHalfBits) >> 23
	return e, math.Float32frombits(uint32(b - e<<23))
}

// splitDenormal is split for any positive finite x, with e as a float32.
func splitDenormal(x float32) (e, m float32) {
	var off float32
	if x < 0x1p-126 {
		x *= 0x1p23
		off = -23
	}
	i, m := split(x)
	return float32(i) + off, m
}

// logOf returns e·ln2 + log(1+f).
func logOf(e, f float32) float32 {
	s := f * f
	y := (s * f) * horner(f, coef.Log[:])
	y = fma(e, coef.Ln2Lo, y)
	y = fma(s, -0.5, y)
	y += f
	return fma(e, coef.Ln2Hi, y)
}

func log(x float32) float32 {
	switch {
	case !(x >= 0):
		return nan
	case x == 0:
		return -inf
	case x == inf:
		return inf
	}
	e, m := splitDenormal(x)
	return logOf(e, m-1)
}

func log1p(x float32) float32 {
	u := 1 + x
	switch {
	case !(u >= 0):
		return nan
	case u == 0:
		return -inf
	case u == inf:
		return inf
	case abs(x) < 0x1p-24:
		return x
	}
	t := u - 1
	lost := (1 - (u - t)) + (x - t) // 1 + x = u + lost exactly
	e, m := split(u)
	f := fma(lost, pow2(-min(e, 126)), m-1)
	return logOf(float32(e), f)
}

func erf(x float32) float32 {
	if x != x {
		return x
	}
	a := abs(x)
	var y float32
	if a < coef.ErfSplit {
		y = fma(horner(a*a, coef.Erf[:]), a, a)
	} else {
		n, r := reduceLn2(horner(clamp(a, 0, coef.ErfMax), coef.LogErfc[:]))
		p := fma(horner(r, coef.Exp[:]), r*r, r) + 1
		y = fma(-p, pow2(int32(n)), 1)
	}
	return orSign(y, x)
}

// reduceHalfPi returns the quadrant q = round(x/(π/2)) and x - q·π/2 for |x| ≤ coef.TrigMax.
func reduceHalfPi(x float32) (q int32, r float32) {
	n := round(x * coef.TwoOverPi)
	r = fma(n, -coef.PiHalf1, x)
	r = fma(n, -coef.PiHalf2, r)
	return int32(n), fma(n, -coef.PiHalf3, r)
}

// sinQuadrant returns the sine of r + q·π/2.
func sinQuadrant(q int32, r float32) float32 {
	s := r * r
	sn := fma(r*s, horner(s, coef.Sin[:]), r)
	cs := fma(s*s, horner(s, coef.Cos[:]), fma(s, -0.5, 1))
	v := sn
	if q&1 != 0 {
		v = cs
	}
	return math.Float32frombits(math.Float32bits(v) ^ uint32(q&2)<<30)
}

func sin(x float32) float32 {
	a := abs(x)
	switch {
	case a < 0x1p-12:
		return x
	case a <= coef.TrigMax:
		return sinQuadrant(reduceHalfPi(x))
	}
	return float32(math.Sin(float64(x))) // exact reduction of large arguments; NaN, ±Inf
}

func cos(x float32) float32 {
	if abs(x) <= coef.TrigMax {
		q, r := reduceHalfPi(x)
		return sinQuadrant(q+1, r)
	}
	return float32(math.Cos(float64(x)))
}

// logExt returns log x as an unevaluated sum hi + lo with a relative error near 2⁻²⁹, for positive
// finite x: log m = 2·atanh((m-1)/(m+1)), where the quotient and the final sum carry a low part.
func logExt(x float32) (hi, lo float32) {
	e, m := splitDenormal(x)
	q, p := m-1, m+1
	pLo := m - (p - 1)
	rcp := 1 / p
	r := q * rcp
	rLo := fma(-r, p, q)
	rLo = fma(-r, pLo, rLo) * rcp
	s := r * r
	rLo = fma(rLo, s, rLo) // the derivative of atanh is 1 + r² + …
	l := fma(2, rLo, float32(r*s)*horner(s, coef.Atanh[:]))
	h, r2 := float32(e*coef.Ln2Hi15), r+r
	hi = h + r2
	t := hi - h
	lo = (h - (hi - t)) + (r2 - t)
	lo += fma(e, coef.Ln2Lo15, l)
	sum := hi + lo
	return sum, lo - (sum - hi)
}

func pow(x, y float32) float32 {
	ax := abs(x)
	if y == 0 || x == 1 {
		return 1
	}
	if x != x || y != y {
		return nan
	}
	yInt := floor(y) == y
	half := y * 0.5
	odd := yInt && floor(half) != half
	var v float32
	switch {
	case x < 0 && ax < inf && !yInt:
		return nan
	case ax == 1:
		v = 1
	default:
		var hi, lo float32
		switch {
		case ax == 0:
			hi = -inf
		case ax == inf:
			hi = inf
		default:
			hi, lo = logExt(ax)
		}
		z := y * hi
		var zLo float32
		if abs(z) <= 128 {
			zLo = fma(y, lo, fma(y, hi, -z))
		}
		n, r := reduceLn2(clamp(z, expMin, expMax))
		v = scaledExp(n, r+zLo)
	}
	if odd {
		v = orSign(v, x)
	}
	return v
}
