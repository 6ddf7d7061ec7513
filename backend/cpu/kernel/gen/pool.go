package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Offsets of the fields of type poolRow.
const (
	poolX      = 0
	poolY      = 24
	poolDX     = 48
	poolTaps   = 72
	poolPixels = 96
	poolStep   = 104
	poolC      = 112
	poolScale  = 120
)

// lanes emits operations on vectors of bits/32 channels, some of which may be
// masked out. Registers 14 and 15, or the masks K1 and K2, are its own.
type lanes struct {
	bits  int
	table Mem
	whole bool // no lane is masked out
}

func (l lanes) reg(i int) VecPhysical {
	if l.bits == 512 {
		return zmm(i)
	}
	return ymm(i)
}

// only restricts loads and stores to the first rest channels. RAX is lost.
func (l lanes) only(rest GPPhysical) {
	MOVQ(U32(uint32(l.bits/32)), RAX)
	CMPQ(rest, RAX)
	CMOVQLT(rest, RAX)
	if l.bits == 512 {
		MOVQ(I32(-1), R15)
		BZHIQ(RAX, R15, R15)
		KMOVW(R15L, K1)
		return
	}
	LEAQ(l.table, R15)
	ADDQ(Imm(64), R15)
	SHLQ(Imm(2), RAX)
	SUBQ(RAX, R15)
	VMOVDQU(Mem{Base: R15}, Y15)
}

func (l lanes) load(m Mem, r VecPhysical) {
	switch {
	case l.whole:
		VMOVUPS(m, r)
	case l.bits == 512:
		VMOVUPS_Z(m, K1, r)
	default:
		VMASKMOVPS(m, Y15, r)
	}
}

func (l lanes) store(r VecPhysical, m Mem) {
	switch {
	case l.whole:
		VMOVUPS(r, m)
	case l.bits == 512:
		VMOVUPS(r, K1, m)
	default:
		VMASKMOVPS(r, Y15, m)
	}
}

// greater sets the condition: x > best, or x is not a number.
func (l lanes) greater(x, best VecPhysical) {
	const gt, unordered = 0x1e, 0x03
	if l.bits == 512 {
		VCMPPS(Imm(gt), best, x, K2)
		VCMPPS(Imm(unordered), x, x, K3)
		KORW(K3, K2, K2)
		return
	}
	VCMPPS(Imm(gt), best, x, Y14)
	VCMPPS(Imm(unordered), x, x, Y13)
	VORPS(Y13, Y14, Y14)
}

// move sets to to from where the condition holds.
func (l lanes) move(from, to VecPhysical) {
	if l.bits == 512 {
		VMOVAPS(from, K2, to)
	} else {
		VBLENDVPS(Y14, from, to, to)
	}
}

// spread fills r with copies of the integer n.
func (l lanes) spread(n GPPhysical, r VecPhysical) {
	if l.bits == 512 {
		VPBROADCASTD(n.As32(), r)
	} else {
		VMOVD(n.As32(), X12) // not MOVD: mixed with AVX, instructions of SSE wait for the upper halves
		VPBROADCASTD(X12, r)
	}
}

// takeWhereEqual sets r to v in the lanes where the integers a and b agree, and to zero in the others.
func (l lanes) takeWhereEqual(a, b, v, r VecPhysical) {
	if l.bits == 512 {
		VPCMPEQD(a, b, K2)
		VMOVAPS_Z(v, K2, r)
		return
	}
	VPCMPEQD(a, b, Y14)
	VANDPS(v, Y14, r)
}

// addWhereEqual adds v to sum in the lanes where the integers a and b agree.
func (l lanes) addWhereEqual(a, b, v, sum VecPhysical) {
	if l.bits == 512 {
		VPCMPEQD(a, b, K2)
		VADDPS(v, sum, K2, sum)
		return
	}
	VPCMPEQD(a, b, Y14)
	VANDPS(v, Y14, Y14)
	VADDPS(Y14, sum, sum)
}

func pools(table Mem) {
	for _, bits := range []int{512, 256} {
		l := lanes{bits: bits, table: table}
		l.kernel("maxPool", "sets y to the greatest x of each window", poolX, lanes.maxPool)
		l.kernel("maxPoolGrad", "adds y to dx where x is the first greatest of its window", poolX, lanes.maxPoolGrad)
		l.kernel("maxPoolGradSet", "sets dx to y where x is the first greatest of its window, and to zero elsewhere", poolX, lanes.maxPoolGradSet)
		l.kernel("sumPool", "sets y to scale times the sum of x over each window", poolX, lanes.sumPool)
		l.kernel("sumPoolGrad", "adds scale·y to dx all over each window", poolDX, lanes.sumPoolGrad)
		l.kernel("sumPoolGradSet", "sets dx to scale·y all over each window", poolDX, lanes.sumPoolGradSet)
	}
}

// Registers of a pooling kernel.
var (
	poolIn   = R8  // first tap of this block of channels
	poolOut  = R9  // y of this block
	poolRest = R10 // channels left
	poolTap  = R11 // number of the tap
	poolTabl = RCX // offsets of the taps
	poolN    = RDX // number of taps
	poolDiff = R13 // from x to dx in bytes
)

// tap is the address of this block of channels at the tap whose number is in poolTap. RAX is lost.
func (l lanes) tap() Mem {
	MOVLQSX(Mem{Base: poolTabl, Index: poolTap, Scale: 4}, RAX)
	return Mem{Base: poolIn, Index: RAX, Scale: 4}
}

// eachTap emits a loop over the taps from number first on.
func (l lanes) eachTap(label string, first int, body func()) {
	if l.whole {
		label += "Whole"
	}
	MOVQ(U32(uint32(first)), poolTap)
	CMPQ(poolTap, poolN)
	JGE(LabelRef(label + "End"))
	Label(label)
	body()
	INCQ(poolTap)
	CMPQ(poolTap, poolN)
	JLT(LabelRef(label))
	Label(label + "End")
}

// kernel emits a kernel that runs body for each pixel and block of channels.
func (l lanes) kernel(name, doc string, input int, body func(lanes)) {
	name = fmt.Sprintf("%s%d", name, l.bits)
	TEXT(name, NOSPLIT, "func(p *poolRow)")
	Doc(name + " " + doc + ".")
	Pragma("noescape")
	p := RBX
	Load(Param("p"), p)
	MOVQ(Mem{Base: p, Disp: input}, RSI)
	MOVQ(Mem{Base: p, Disp: poolY}, RDI)
	MOVQ(Mem{Base: p, Disp: poolTaps}, poolTabl)
	MOVQ(Mem{Base: p, Disp: poolTaps + 8}, poolN)
	MOVQ(Mem{Base: p, Disp: poolPixels}, R12)
	MOVQ(Mem{Base: p, Disp: poolDX}, poolDiff)
	SUBQ(Mem{Base: p, Disp: poolX}, poolDiff)
	VBROADCASTSS(Mem{Base: p, Disp: poolScale}, l.reg(5))
	Label("pixel")
	MOVQ(RSI, poolIn)
	MOVQ(RDI, poolOut)
	MOVQ(Mem{Base: p, Disp: poolC}, poolRest)
	Label("channels")
	if l.bits == 256 { // a store with a mask takes long on some processors
		CMPQ(poolRest, Imm(8))
		JL(LabelRef("few"))
		whole := l
		whole.whole = true
		body(whole)
		JMP(LabelRef("next"))
		Label("few")
	}
	l.only(poolRest)
	body(l)
	Label("next")
	ADDQ(Imm(uint64(l.bits/8)), poolIn)
	ADDQ(Imm(uint64(l.bits/8)), poolOut)
	SUBQ(Imm(uint64(l.bits/32)), poolRest)
	JG(LabelRef("channels"))
	MOVQ(Mem{Base: p, Disp: poolStep}, RAX)
	LEAQ(Mem{Base: RSI, Index: RAX, Scale: 4}, RSI)
	MOVQ(Mem{Base: p, Disp: poolC}, RAX)
	LEAQ(Mem{Base: RDI, Index: RAX, Scale: 4}, RDI)
	DECQ(R12)
	JNZ(LabelRef("pixel"))
	VZEROUPPER()
	RET()
}

func (l lanes) maxPool() {
	best, x := l.reg(0), l.reg(1)
	XORQ(poolTap, poolTap)
	l.load(l.tap(), best)
	l.eachTap("taps", 1, func() {
		l.load(l.tap(), x)
		l.greater(x, best)
		l.move(x, best)
	})
	l.store(best, Mem{Base: poolOut})
}

// findMax leaves the number of the first greatest tap in register 2 and dy in register 4.
func (l lanes) findMax() {
	best, x, where, this := l.reg(0), l.reg(1), l.reg(2), l.reg(3)
	XORQ(poolTap, poolTap)
	l.load(l.tap(), best)
	l.spread(poolTap, where)
	l.eachTap("taps", 1, func() {
		l.load(l.tap(), x)
		l.spread(poolTap, this)
		l.greater(x, best)
		l.move(x, best)
		l.move(this, where)
	})
	l.load(Mem{Base: poolOut}, l.reg(4))
}

// gradTap sets RAX to the address of the current tap in dx.
func (l lanes) gradTap() Mem {
	LEAQ(l.tap(), RAX)
	ADDQ(poolDiff, RAX)
	return Mem{Base: RAX}
}

func (l lanes) maxPoolGrad() {
	x, where, this, dy := l.reg(1), l.reg(2), l.reg(3), l.reg(4)
	l.findMax()
	l.eachTap("give", 0, func() {
		at := l.gradTap()
		l.load(at, x)
		l.spread(poolTap, this)
		l.addWhereEqual(where, this, dy, x)
		l.store(x, at)
	})
}

func (l lanes) maxPoolGradSet() {
	x, where, this, dy := l.reg(1), l.reg(2), l.reg(3), l.reg(4)
	l.findMax()
	l.eachTap("give", 0, func() {
		at := l.gradTap()
		l.spread(poolTap, this)
		l.takeWhereEqual(where, this, dy, x)
		l.store(x, at)
	})
}

func (l lanes) sumPool() {
	sum, x := l.reg(0), l.reg(1)
	XORQ(poolTap, poolTap)
	l.load(l.tap(), sum)
	l.eachTap("taps", 1, func() {
		l.load(l.tap(), x)
		VADDPS(x, sum, sum)
	})
	VMULPS(l.reg(5), sum, sum)
	l.store(sum, Mem{Base: poolOut})
}

func (l lanes) sumPoolGrad() {
	x, dy := l.reg(1), l.reg(4)
	l.load(Mem{Base: poolOut}, dy)
	VMULPS(l.reg(5), dy, dy)
	l.eachTap("give", 0, func() {
		at := l.tap()
		l.load(at, x)
		VADDPS(dy, x, x)
		l.store(x, at)
	})
}

func (l lanes) sumPoolGradSet() {
	dy := l.reg(4)
	l.load(Mem{Base: poolOut}, dy)
	VMULPS(l.reg(5), dy, dy)
	l.eachTap("give", 0, func() { l.store(dy, l.tap()) })
}
