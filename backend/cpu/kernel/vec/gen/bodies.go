package main

import (
	"github.com/cohort-learning/cohort/backend/cpu/kernel/vec/internal/coef"
)

// The elementary functions on vectors. Each mirrors the scalar function of the same name in
// portable_math.go, operation for operation; the comments there say why.

const signBits = 1 << 31

func (b *builder) absOf(x *value) *value { return b.andNot(x, b.bits(signBits)) }

// withSign sets the sign bit of s in x.
func (b *builder) withSign(x, s *value) *value { return b.or(x, b.and(s, b.bits(signBits))) }

func (b *builder) negate(x *value) *value { return b.xor(x, b.bits(signBits)) }

// atMost and atLeast clamp x and keep NaN.
func (b *builder) atMost(x *value, hi float32) *value  { return b.minRaw(b.num(hi), x) }
func (b *builder) atLeast(x *value, lo float32) *value { return b.maxRaw(b.num(lo), x) }

func (b *builder) pow2(n *value) *value { return b.shl(b.intAdd(n, b.bits(127)), 23) }

func (b *builder) horner(x *value, c []float32) *value {
	p := b.num(c[len(c)-1])
	for i := len(c) - 2; i >= 0; i-- {
		p = b.fma(p, x, b.num(c[i]))
	}
	return p
}

func (b *builder) reduceLn2(x *value) (n, r *value) {
	n = b.round(toEven, b.mul(x, b.num(coef.Log2E)))
	r = b.fma(n, b.num(-coef.Ln2Hi), x)
	return n, b.fma(n, b.num(-coef.Ln2Lo), r)
}

// unitExp is eʳ for a reduced argument.
func (b *builder) unitExp(r *value) *value {
	p := b.fma(b.horner(r, coef.Exp[:]), b.mul(r, r), r)
	return b.add(p, b.num(1))
}

func (b *builder) scaledExp(n, r *value) *value {
	p := b.unitExp(r)
	i := b.toInt(n)
	h := b.sar(i, 1)
	return b.mul(b.mul(p, b.pow2(h)), b.pow2(b.intSub(i, h)))
}

func (b *builder) exp(x *value) *value {
	n, r := b.reduceLn2(b.atLeast(b.atMost(x, 89), -104))
	return b.scaledExp(n, r)
}

func (b *builder) expm1(x *value) *value {
	n, r := b.reduceLn2(b.atLeast(b.atMost(x, 89), -18))
	t := b.fma(b.horner(r, coef.Expm1[:]), b.mul(r, r), r)
	s := b.shl(b.intAdd(b.toInt(n), b.bits(126)), 23)
	y := b.fma(s, t, b.sub(s, b.num(0.5)))
	y = b.add(y, y)
	y = b.sel(b.cmp(eq, n, b.num(0)), t, y)
	return b.withSign(y, x)
}

func (b *builder) tanh(x *value) *value {
	a := b.absOf(x)
	c := b.atMost(a, 10)
	n, r := b.reduceLn2(b.add(c, c))
	t := b.fma(b.horner(r, coef.Expm1[:]), b.mul(r, r), r)
	s := b.pow2(b.toInt(n))
	e := b.fma(s, t, b.sub(s, b.num(1)))
	y := b.div(e, b.add(e, b.num(2)))
	y = b.sel(b.cmp(lt, a, b.num(0x1p-12)), a, y)
	return b.withSign(y, x)
}

func (b *builder) logistic(x *value) *value {
	n, r := b.reduceLn2(b.atLeast(b.or(x, b.bits(signBits)), -104))
	e := b.scaledExp(n, r)
	num := b.sel(b.cmp(lt, x, b.num(0)), e, b.num(1))
	return b.div(num, b.add(b.num(1), e))
}

func (b *builder) split(x *value) (e, m *value) {
	e = b.sar(b.intSub(x, b.bits(coef.SqrtHalfBits)), 23)
	return e, b.intSub(x, b.shl(e, 23))
}

func (b *builder) splitDenormal(x *value) (e, m *value) {
	small := b.cmp(lt, x, b.num(0x1p-126))
	i, m := b.split(b.sel(small, b.mul(x, b.num(0x1p23)), x))
	return b.add(b.toFloat(i), b.sel(small, b.num(-23), b.num(0))), m
}

func (b *builder) logOf(e, f *value) *value {
	s := b.mul(f, f)
	y := b.mul(b.mul(s, f), b.horner(f, coef.Log[:]))
	y = b.fma(e, b.num(coef.Ln2Lo), y)
	y = b.fma(s, b.num(-0.5), y)
	y = b.add(y, f)
	return b.fma(e, b.num(coef.Ln2Hi), y)
}

const (
	infBits    = 0x7f800000
	negInfBits = 0xff800000
	nanBits    = 0x7fc00000
)

// logSpecial replaces y, the logarithm of x, where x is not positive and finite.
func (b *builder) logSpecial(x, y *value) *value {
	y = b.sel(b.cmp(lt, x, b.bits(infBits)), y, x) // +Inf and NaN stay
	y = b.sel(b.cmp(eq, x, b.num(0)), b.bits(negInfBits), y)
	return b.sel(b.cmp(lt, x, b.num(0)), b.bits(nanBits), y)
}

func (b *builder) log(x *value) *value {
	e, m := b.splitDenormal(x)
	return b.logSpecial(x, b.logOf(e, b.sub(m, b.num(1))))
}

func (b *builder) log1p(x *value) *value {
	one := b.num(1)
	u := b.add(one, x)
	t := b.sub(u, one)
	lost := b.add(b.sub(one, b.sub(u, t)), b.sub(x, t))
	e, m := b.split(u)
	scale := b.shl(b.intSub(b.bits(127), b.intMin(e, b.bits(126))), 23)
	f := b.fma(lost, scale, b.sub(m, one))
	y := b.logSpecial(u, b.logOf(b.toFloat(e), f))
	return b.sel(b.cmp(lt, b.absOf(x), b.num(0x1p-24)), x, y)
}

func (b *builder) erf(x *value) *value {
	a := b.absOf(x)
	small := b.fma(b.horner(b.mul(a, a), coef.Erf[:]), a, a)
	n, r := b.reduceLn2(b.horner(b.atMost(a, coef.ErfMax), coef.LogErfc[:]))
	large := b.fnma(b.unitExp(r), b.pow2(b.toInt(n)), b.num(1))
	y := b.sel(b.cmp(lt, a, b.num(coef.ErfSplit)), small, large)
	return b.withSign(y, x)
}

func (b *builder) reduceHalfPi(x *value) (q, r *value) {
	n := b.round(toEven, b.mul(x, b.num(coef.TwoOverPi)))
	r = b.fma(n, b.num(-coef.PiHalf1), x)
	r = b.fma(n, b.num(-coef.PiHalf2), r)
	return b.toInt(n), b.fma(n, b.num(-coef.PiHalf3), r)
}

func (b *builder) sinQuadrant(q, r *value) *value {
	s := b.mul(r, r)
	sn := b.fma(b.mul(r, s), b.horner(s, coef.Sin[:]), r)
	cs := b.fma(b.mul(s, s), b.horner(s, coef.Cos[:]), b.fma(s, b.num(-0.5), b.num(1)))
	one := b.bits(1)
	v := b.sel(b.intEq(b.and(q, one), one), cs, sn)
	return b.xor(v, b.shl(b.and(q, b.bits(2)), 30))
}

func (b *builder) sin(x *value) *value {
	q, r := b.reduceHalfPi(x)
	return b.sel(b.cmp(lt, b.absOf(x), b.num(0x1p-12)), x, b.sinQuadrant(q, r))
}

func (b *builder) cos(x *value) *value {
	q, r := b.reduceHalfPi(x)
	return b.sinQuadrant(b.intAdd(q, b.bits(1)), r)
}

func (b *builder) logExt(x *value) (hi, lo *value) {
	e, m := b.splitDenormal(x)
	one := b.num(1)
	q, p := b.sub(m, one), b.add(m, one)
	pLo := b.sub(m, b.sub(p, one))
	rcp := b.div(one, p)
	r := b.mul(q, rcp)
	rLo := b.fnma(r, p, q)
	rLo = b.mul(b.fnma(r, pLo, rLo), rcp)
	s := b.mul(r, r)
	rLo = b.fma(rLo, s, rLo)
	l := b.fma(b.num(2), rLo, b.mul(b.mul(r, s), b.horner(s, coef.Atanh[:])))
	h, r2 := b.mul(e, b.num(coef.Ln2Hi15)), b.add(r, r)
	hi = b.add(h, r2)
	t := b.sub(hi, h)
	lo = b.add(b.sub(h, b.sub(hi, t)), b.sub(r2, t))
	lo = b.add(lo, b.fma(e, b.num(coef.Ln2Lo15), l))
	sum := b.add(hi, lo)
	return sum, b.sub(lo, b.sub(sum, hi))
}

func (b *builder) pow(x, y *value) *value {
	zero, one, inf := b.num(0), b.num(1), b.bits(infBits)
	ax := b.absOf(x)
	hi, lo := b.logExt(ax)
	hi = b.sel(b.cmp(lt, ax, inf), hi, ax) // +Inf and NaN
	hi = b.sel(b.cmp(eq, ax, zero), b.bits(negInfBits), hi)
	z := b.mul(y, hi)
	zLo := b.fma(y, lo, b.fma(y, hi, b.negate(z)))
	zLo = b.sel(b.cmp(le, b.absOf(z), b.num(128)), zLo, zero)
	n, r := b.reduceLn2(b.atLeast(b.atMost(z, 89), -104))
	v := b.scaledExp(n, b.add(r, zLo))
	v = b.sel(b.cmp(eq, ax, one), one, v)

	yInt := b.cmp(eq, b.round(down, y), y)
	half := b.mul(y, b.num(0.5))
	even := b.cmp(eq, b.round(down, half), half)
	odd := b.maskAnd(yInt, b.maskNot(even))
	v = b.or(v, b.and(x, b.sel(odd, b.bits(signBits), zero)))
	finiteNeg := b.maskAnd(b.cmp(lt, x, zero), b.cmp(lt, ax, inf))
	v = b.sel(b.maskAnd(finiteNeg, b.maskNot(yInt)), b.bits(nanBits), v)
	v = b.sel(b.maskOr(b.cmp(uno, x, x), b.cmp(uno, y, y)), b.bits(nanBits), v)
	return b.sel(b.maskOr(b.cmp(eq, y, zero), b.cmp(eq, x, one)), one, v)
}

func (b *builder) signOf(x *value) *value {
	nonzero := b.cmp(gt, b.absOf(x), b.num(0))
	return b.sel(nonzero, b.withSign(b.num(1), x), x)
}

// toBF16 rounds to bfloat16 and leaves the bits in the low half of each lane.
func (b *builder) toBF16(x *value) *value {
	odd := b.and(b.shr(x, 16), b.bits(1))
	r := b.shr(b.intAdd(x, b.intAdd(odd, b.bits(0x7fff))), 16)
	quiet := b.or(b.shr(x, 16), b.bits(1<<6))
	return b.sel(b.cmp(uno, x, x), quiet, r)
}

// toI32 truncates and saturates; NaN gives 0.
func (b *builder) toI32(x *value) *value {
	big := b.cmp(ge, x, b.num(0x1p31))
	i := b.toInt(x) // -2³¹ for values below on every instruction set
	i = b.sel(big, b.bits(0x7fffffff), i)
	return b.sel(b.cmp(uno, x, x), b.bits(0), i)
}
