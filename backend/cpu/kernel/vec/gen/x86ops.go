package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/reg"
)

// in returns the register of a value, loading constants that are not hoisted.
func (x *x86) in(v *value) reg.Register {
	switch {
	case v.acc:
		return x.acc
	case x.fixed[v] != nil:
		return x.fixed[v]
	case v.konst:
		r := x.vec()
		x.VBROADCASTSS(x.table.mem(v.bits), r)
		return r
	}
	r, ok := x.vals[v]
	if !ok {
		panic(fmt.Sprintf("%s: value %d is read before it is written", x.k.name, v.id))
	}
	return r
}

// out returns the register for the result of o: the accumulator for the value that it carries on.
func (x *x86) out(o *op) reg.Register {
	var r reg.Register
	switch {
	case o.dst == x.k.accOut:
		r = x.acc
	case o.dst.mask:
		r = x.maskReg()
	default:
		r = x.vec()
	}
	x.vals[o.dst] = r
	return r
}

// dies reports whether operation i is the last to read v, and v's register may be overwritten.
func (x *x86) dies(v *value, i int) bool { return !v.fixed() && x.last[v] == i }

// predicate is the immediate of VCMPPS.
var predicate = [...]uint8{eq: 0x00, ne: 0x04, lt: 0x11, le: 0x12, gt: 0x1e, ge: 0x1d, uno: 0x03}

func (x *x86) op(i int, o *op) {
	var a, b reg.Register
	if o.code != opFMA && o.code != opFNMA && o.code != opSel {
		if len(o.src) > 0 {
			a = x.in(o.src[0])
		}
		if len(o.src) > 1 {
			b = x.in(o.src[1])
		}
	}
	switch o.code {
	case opLoad:
		x.load(o)
	case opStore:
		x.store(o.imm, o.src[0].mask, a)
	case opAdd:
		x.VADDPS(b, a, x.out(o))
	case opSub:
		x.VSUBPS(b, a, x.out(o))
	case opMul:
		x.VMULPS(b, a, x.out(o))
	case opDiv:
		x.VDIVPS(b, a, x.out(o))
	case opFMA, opFNMA:
		x.fused(i, o)
	case opSqrt:
		x.VSQRTPS(a, x.out(o))
	case opRound:
		if x.wide {
			x.VRNDSCALEPS(U8(o.imm), a, x.out(o))
		} else {
			x.VROUNDPS(U8(o.imm), a, x.out(o))
		}
	case opMinRaw:
		x.VMINPS(b, a, x.out(o))
	case opMaxRaw:
		x.VMAXPS(b, a, x.out(o))
	case opMinimum, opMaximum:
		x.extremum(o, a, b)
	case opAnd:
		x.VANDPS(b, a, x.out(o))
	case opOr:
		x.VORPS(b, a, x.out(o))
	case opXor:
		x.VXORPS(b, a, x.out(o))
	case opAndNot:
		x.VANDNPS(a, b, x.out(o))
	case opCmp:
		x.VCMPPS(U8(predicate[o.imm]), b, a, x.out(o))
	case opSel:
		x.choose(i, o)
	case opMaskAnd:
		if x.wide {
			x.KANDW(b, a, x.out(o))
		} else {
			x.VANDPS(b, a, x.out(o))
		}
	case opMaskOr:
		if x.wide {
			x.KORW(b, a, x.out(o))
		} else {
			x.VORPS(b, a, x.out(o))
		}
	case opMaskNot:
		if x.wide {
			x.KNOTW(a, x.out(o))
		} else {
			ones := x.YMM()
			x.VPCMPEQD(ones, ones, ones)
			x.VXORPS(ones, a, x.out(o))
		}
	case opIntAdd:
		x.VPADDD(b, a, x.out(o))
	case opIntSub:
		x.VPSUBD(b, a, x.out(o))
	case opShl:
		x.VPSLLD(U8(o.imm), a, x.out(o))
	case opSar:
		x.VPSRAD(U8(o.imm), a, x.out(o))
	case opShr:
		x.VPSRLD(U8(o.imm), a, x.out(o))
	case opIntMin:
		x.VPMINSD(b, a, x.out(o))
	case opIntEq:
		x.VPCMPEQD(b, a, x.out(o))
	case opToInt:
		x.VCVTTPS2DQ(a, x.out(o))
	case opToFloat:
		x.VCVTDQ2PS(a, x.out(o))
	default:
		panic(fmt.Sprintf("opcode %d", o.code))
	}
}

// fused emits ±a·b + c in the form that overwrites an operand that is not needed any more.
func (x *x86) fused(i int, o *op) {
	va, vb, vc := o.src[0], o.src[1], o.src[2]
	f231, f213 := x.VFMADD231PS, x.VFMADD213PS
	if o.code == opFNMA {
		f231, f213 = x.VFNMADD231PS, x.VFNMADD213PS
	}
	switch {
	case vc.acc && o.dst == x.k.accOut:
		f231(x.in(vb), x.in(va), x.acc)
		x.vals[o.dst] = x.acc
	case x.dies(vc, i) && vc != va && vc != vb:
		r := x.in(vc)
		f231(x.in(vb), x.in(va), r)
		x.vals[o.dst] = r
	case x.dies(va, i) && va != vb:
		r := x.in(va)
		f213(x.in(vc), x.in(vb), r)
		x.vals[o.dst] = r
	case x.dies(vb, i) && va != vb:
		r := x.in(vb)
		f213(x.in(vc), x.in(va), r)
		x.vals[o.dst] = r
	default:
		c := x.in(vc)
		r := c
		if !vc.konst || x.fixed[vc] != nil { // a constant just loaded may be overwritten
			r = x.out(o)
			x.VMOVAPS(c, r)
		}
		f231(x.in(vb), x.in(va), r)
		x.vals[o.dst] = r
	}
}

// extremum emits the IEEE 754 minimum or maximum. VMINPS and VMAXPS return their second source
// for two zeros and for a NaN: asking both ways settles zeros, and a sum makes the NaN.
func (x *x86) extremum(o *op, a, b reg.Register) {
	t1, t2, r := x.vec(), x.vec(), x.vec()
	if o.code == opMaximum {
		x.VMAXPS(a, b, t1)
		x.VMAXPS(b, a, t2)
		x.VANDPS(t1, t2, r)
	} else {
		x.VMINPS(a, b, t1)
		x.VMINPS(b, a, t2)
		x.VORPS(t1, t2, r)
	}
	m := x.maskReg()
	x.VCMPPS(U8(predicate[uno]), b, a, m)
	if x.wide {
		x.VADDPS(a, b, m, r)
		x.VMOVAPS(r, x.out(o))
		return
	}
	s := x.vec()
	x.VADDPS(a, b, s)
	x.VBLENDVPS(m, s, r, x.out(o))
}

func (x *x86) choose(i int, o *op) {
	m := x.in(o.src[0])
	vt, vf := o.src[1], o.src[2]
	if !x.wide {
		x.VBLENDVPS(m, x.in(vt), x.in(vf), x.out(o))
		return
	}
	// Zero masking spares the register of a zero, and its load.
	if vf.konst && vf.bits == 0 {
		x.VMOVAPS_Z(x.in(vt), m, x.out(o))
		return
	}
	x.VBLENDMPS(x.in(vt), x.in(vf), m, x.out(o))
}

func (x *x86) load(o *op) {
	m := x.addr(o.imm, o.row)
	e := x.k.args[o.imm].elem
	r := x.out(o)
	switch {
	case x.wide:
		x.loadWide(e, m, r)
	case x.inTail:
		x.loadOne(e, m, r.(reg.VecVirtual))
	default:
		x.loadYMM(e, m, r.(reg.VecVirtual))
	}
}

func (x *x86) loadWide(e elem, m Mem, r reg.Register) {
	k := x.tail
	switch {
	case e == f32 || e == i32:
		if x.inTail {
			x.VMOVUPS_Z(m, k, r)
		} else {
			x.VMOVUPS(m, r)
		}
	case e == bool8:
		t := x.XMM()
		if x.inTail {
			x.VMOVDQU8_Z(m, k, t)
		} else {
			x.VMOVDQU8(m, t)
		}
		x.VPTESTMB(t, t, r)
	case e == u16:
		if x.inTail {
			x.VPMOVZXWD_Z(m, k, r)
		} else {
			x.VPMOVZXWD(m, r)
		}
	case e == f16:
		if x.inTail {
			x.VCVTPH2PS_Z(m, k, r)
		} else {
			x.VCVTPH2PS(m, r)
		}
	case e == f64:
		lo, hi := x.YMM(), x.YMM()
		m2 := m.Offset(64)
		if x.inTail {
			k2 := x.K()
			x.KSHIFTRW(U8(8), k, k2)
			x.VCVTPD2PS_Z(m, k, lo)
			x.VCVTPD2PS_Z(m2, k2, hi)
		} else {
			x.VCVTPD2PS(m, lo)
			x.VCVTPD2PS(m2, hi)
		}
		z := r.(reg.VecVirtual)
		x.VINSERTF32X8(U8(1), hi, lo.AsZ(), z)
	}
}

func (x *x86) loadYMM(e elem, m Mem, r reg.VecVirtual) {
	switch e {
	case f32, i32:
		x.VMOVUPS(m, r)
	case bool8:
		x.VPMOVZXBD(m, r)
		zero := x.YMM()
		x.VPXOR(zero, zero, zero)
		x.VPSUBD(r, zero, r)
	case u16:
		x.VPMOVZXWD(m, r)
	case f16:
		x.VCVTPH2PS(m, r)
	case f64:
		hi := x.XMM()
		x.VCVTPD2PSY(m, r.AsX())
		x.VCVTPD2PSY(m.Offset(32), hi)
		x.VINSERTF128(U8(1), hi, r, r)
	}
}

// loadOne loads a single element into lane 0 and zeros the others.
func (x *x86) loadOne(e elem, m Mem, r reg.VecVirtual) {
	xr := r.AsX()
	t := x.GP32()
	switch e {
	case f32, i32:
		x.VMOVSS(m, xr)
	case bool8:
		x.MOVBLZX(m, t)
		x.NEGL(t)
		x.VMOVD(t, xr)
	case u16:
		x.MOVWLZX(m, t)
		x.VMOVD(t, xr)
	case f16:
		x.MOVWLZX(m, t)
		x.VMOVD(t, xr)
		x.VCVTPH2PS(xr, xr)
	case f64:
		x.VMOVSD(m, xr)
		x.VCVTPD2PSX(xr, xr)
	}
}

func (x *x86) store(arg int, mask bool, r reg.Register) {
	m := x.addr(arg, 0)
	e := x.k.args[arg].elem
	if mask != (e == bool8) {
		panic(x.k.name + ": a mask is stored as a number or a number as a mask")
	}
	switch {
	case x.wide:
		x.storeWide(e, m, r)
	case x.inTail:
		x.storeOne(e, m, r.(reg.VecVirtual))
	default:
		x.storeYMM(e, m, r.(reg.VecVirtual))
	}
}

func (x *x86) storeWide(e elem, m Mem, r reg.Register) {
	k := x.tail
	switch e {
	case f32, i32:
		if x.inTail {
			x.VMOVUPS(r, k, m)
		} else {
			x.VMOVUPS(r, m)
		}
	case bool8:
		t := x.XMM()
		x.VPMOVM2B(r, t)
		x.VPABSB(t, t)
		if x.inTail {
			x.VMOVDQU8(t, k, m)
		} else {
			x.VMOVDQU8(t, m)
		}
	case u16:
		if x.inTail {
			x.VPMOVDW(r, k, m)
		} else {
			x.VPMOVDW(r, m)
		}
	case f16:
		if x.inTail {
			x.VCVTPS2PH(U8(0), r, k, m)
		} else {
			x.VCVTPS2PH(U8(0), r, m)
		}
	case f64:
		z := r.(reg.VecVirtual)
		half, lo, hi := x.YMM(), x.ZMM(), x.ZMM()
		x.VCVTPS2PD(z.AsY(), lo)
		x.VEXTRACTF32X8(U8(1), z, half)
		x.VCVTPS2PD(half, hi)
		if x.inTail {
			k2 := x.K()
			x.KSHIFTRW(U8(8), k, k2)
			x.VMOVUPD(lo, k, m)
			x.VMOVUPD(hi, k2, m.Offset(64))
		} else {
			x.VMOVUPD(lo, m)
			x.VMOVUPD(hi, m.Offset(64))
		}
	}
}

func (x *x86) storeYMM(e elem, m Mem, r reg.VecVirtual) {
	hi, lo := x.XMM(), x.XMM()
	switch e {
	case f32, i32:
		x.VMOVUPS(r, m)
	case bool8:
		x.VEXTRACTI128(U8(1), r, hi)
		x.VPACKSSDW(hi, r.AsX(), lo)
		x.VPACKSSWB(lo, lo, lo)
		x.VPABSB(lo, lo)
		x.VMOVQ(lo, m)
	case u16:
		x.VEXTRACTI128(U8(1), r, hi)
		x.VPACKUSDW(hi, r.AsX(), lo)
		x.VMOVDQU(lo, m)
	case f16:
		x.VCVTPS2PH(U8(0), r, m)
	case f64:
		a, b := x.YMM(), x.YMM()
		x.VCVTPS2PD(r.AsX(), a)
		x.VEXTRACTF128(U8(1), r, hi)
		x.VCVTPS2PD(hi, b)
		x.VMOVUPD(a, m)
		x.VMOVUPD(b, m.Offset(32))
	}
}

// storeOne stores lane 0.
func (x *x86) storeOne(e elem, m Mem, r reg.VecVirtual) {
	xr := r.AsX()
	t, u := x.GP32(), x.XMM()
	switch e {
	case f32, i32:
		x.VMOVSS(xr, m)
	case bool8:
		x.VMOVD(xr, t)
		x.ANDL(Imm(1), t)
		x.MOVB(t.As8(), m)
	case u16:
		x.VMOVD(xr, t)
		x.MOVW(t.As16(), m)
	case f16:
		x.VCVTPS2PH(U8(0), xr, u)
		x.VMOVD(u, t)
		x.MOVW(t.As16(), m)
	case f64:
		x.VCVTPS2PD(xr, u)
		x.VMOVSD(u, m)
	}
}
