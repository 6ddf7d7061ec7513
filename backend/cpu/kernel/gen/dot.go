package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

const panelRows = 144

func dots(table Mem) {
	for _, bits := range []int{512, 256} {
		lanes{bits: bits, table: table}.dot()
	}
}

// dot emits the product of contiguous rows with a contiguous vector: four
// accumulators of vectors, added in pairs in the end.
func (l lanes) dot() {
	name := fmt.Sprintf("dot%d", l.bits)
	TEXT(name, NOSPLIT, "func(p *panel)")
	Doc(name + " computes c[co[i]] (+)= Σ a[ro[i]+k]·b[k] over k < len(ko), for i < rows.")
	Pragma("noescape")
	p, a, b, rest, rows, ro, co := RBX, R8, R9, R10, R11, R12, R13
	bytes, n := l.bits/8, l.bits/32
	Load(Param("p"), p)
	MOVQ(Mem{Base: p, Disp: panelRows}, rows)
	MOVQ(Mem{Base: p, Disp: panelRo}, ro)
	MOVQ(Mem{Base: p, Disp: panelCo}, co)
	Label("row")
	MOVLQSX(Mem{Base: ro}, RAX)
	MOVQ(Mem{Base: p, Disp: panelA}, a)
	LEAQ(Mem{Base: a, Index: RAX, Scale: 4}, a)
	MOVQ(Mem{Base: p, Disp: panelB}, b)
	MOVQ(Mem{Base: p, Disp: panelKo + 8}, rest)
	for i := range 4 {
		VXORPS(l.reg(i).AsX(), l.reg(i).AsX(), l.reg(i).AsX()) // clears the whole register
	}
	SUBQ(Imm(uint64(4*n)), rest)
	JL(LabelRef("few"))
	Label("four")
	for i := range 4 {
		VMOVUPS(Mem{Base: a, Disp: bytes * i}, l.reg(4+i))
		VFMADD231PS(Mem{Base: b, Disp: bytes * i}, l.reg(4+i), l.reg(i))
	}
	ADDQ(U32(uint32(4*bytes)), a)
	ADDQ(U32(uint32(4*bytes)), b)
	SUBQ(Imm(uint64(4*n)), rest)
	JGE(LabelRef("four"))
	Label("few")
	ADDQ(Imm(uint64(4*n)), rest)
	JZ(LabelRef("total"))
	Label("one")
	l.only(rest)
	l.load(Mem{Base: a}, l.reg(4))
	l.load(Mem{Base: b}, l.reg(5))
	VFMADD231PS(l.reg(5), l.reg(4), l.reg(0))
	ADDQ(Imm(uint64(bytes)), a)
	ADDQ(Imm(uint64(bytes)), b)
	SUBQ(Imm(uint64(n)), rest)
	JG(LabelRef("one"))
	Label("total")
	VADDPS(l.reg(1), l.reg(0), l.reg(0))
	VADDPS(l.reg(3), l.reg(2), l.reg(2))
	VADDPS(l.reg(2), l.reg(0), l.reg(0))
	l.total(l.reg(0), l.reg(1))
	MOVLQSX(Mem{Base: co}, RAX)
	MOVQ(Mem{Base: p, Disp: panelC}, a)
	CMPB(Mem{Base: p, Disp: panelAdd}, Imm(0))
	JEQ(LabelRef("set"))
	VADDSS(Mem{Base: a, Index: RAX, Scale: 4}, X0, X0)
	Label("set")
	VMOVSS(X0, Mem{Base: a, Index: RAX, Scale: 4})
	ADDQ(Imm(4), ro)
	ADDQ(Imm(4), co)
	DECQ(rows)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// maxDotColumns is the number of columns that the kernels over runs can compute.
const maxDotColumns = 4

func runDots(table Mem) {
	for _, bits := range []int{512, 256} {
		for n := 1; n <= maxDotColumns; n++ {
			lanes{bits: bits, table: table}.runDot(n)
		}
	}
}

// runDot emits the product of rows that consist of contiguous runs with n
// contiguous columns: lanes along the sum instead of along the columns.
func (l lanes) runDot(n int) {
	name := fmt.Sprintf("runDot%dn%d", l.bits, n)
	TEXT(name, NOSPLIT, "func(p *panel)")
	Doc(fmt.Sprintf("%s computes c[co[i]+j] = Σ a[ro[i]+ko[r]+l]·b[j·len(ko)·ldb+r·ldb+l] over runs r < len(ko) and l < ldb, for i < rows, j < %d.", name, n))
	Pragma("noescape")
	p, base, ko, a, b, count, runs := RBX, RSI, RDI, R8, R9, R10, R11
	ro, co, stride, stride3, rows := R12, R13, RDX, R14, RCX
	bytes, width := l.bits/8, l.bits/32
	shift := map[int]uint64{512: 4, 256: 3}[l.bits]
	Load(Param("p"), p)
	MOVQ(Mem{Base: p, Disp: panelRows}, rows)
	MOVQ(Mem{Base: p, Disp: panelRo}, ro)
	MOVQ(Mem{Base: p, Disp: panelCo}, co)
	MOVQ(Mem{Base: p, Disp: panelLdb}, count)
	ANDQ(Imm(uint64(width-1)), count)
	l.only(count) // the lanes of the last vector of a run
	MOVQ(Mem{Base: p, Disp: panelKo + 8}, stride)
	IMULQ(Mem{Base: p, Disp: panelLdb}, stride)
	SHLQ(Imm(2), stride)
	LEAQ(Mem{Base: stride, Index: stride, Scale: 2}, stride3)
	column := func(j int) Mem {
		return []Mem{{Base: b}, {Base: b, Index: stride, Scale: 1}, {Base: b, Index: stride, Scale: 2}, {Base: b, Index: stride3, Scale: 1}}[j]
	}
	x, y := l.reg(4), l.reg(5)

	Label("row")
	MOVLQSX(Mem{Base: ro}, RAX)
	MOVQ(Mem{Base: p, Disp: panelA}, base)
	LEAQ(Mem{Base: base, Index: RAX, Scale: 4}, base)
	MOVQ(Mem{Base: p, Disp: panelKo}, ko)
	MOVQ(Mem{Base: p, Disp: panelKo + 8}, runs)
	MOVQ(Mem{Base: p, Disp: panelB}, b)
	for j := range n {
		VXORPS(l.reg(j).AsX(), l.reg(j).AsX(), l.reg(j).AsX())
	}
	Label("run")
	MOVLQSX(Mem{Base: ko}, RAX)
	LEAQ(Mem{Base: base, Index: RAX, Scale: 4}, a)
	MOVQ(Mem{Base: p, Disp: panelLdb}, count)
	SHRQ(Imm(shift), count)
	JZ(LabelRef("last"))
	Label("vector")
	VMOVUPS(Mem{Base: a}, x)
	for j := range n {
		VFMADD231PS(column(j), x, l.reg(j))
	}
	ADDQ(Imm(uint64(bytes)), a)
	ADDQ(Imm(uint64(bytes)), b)
	DECQ(count)
	JNZ(LabelRef("vector"))
	Label("last")
	MOVQ(Mem{Base: p, Disp: panelLdb}, count)
	ANDQ(Imm(uint64(width-1)), count)
	JZ(LabelRef("next"))
	l.load(Mem{Base: a}, x)
	for j := range n {
		l.load(column(j), y)
		VFMADD231PS(y, x, l.reg(j))
	}
	LEAQ(Mem{Base: b, Index: count, Scale: 4}, b)
	Label("next")
	ADDQ(Imm(4), ko)
	DECQ(runs)
	JNZ(LabelRef("run"))
	MOVLQSX(Mem{Base: co}, RAX)
	MOVQ(Mem{Base: p, Disp: panelC}, a)
	for j := range n {
		l.total(l.reg(j), x)
		VMOVSS(l.reg(j).AsX(), Mem{Base: a, Index: RAX, Scale: 4, Disp: 4 * j})
	}
	ADDQ(Imm(4), ro)
	ADDQ(Imm(4), co)
	DECQ(rows)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// total adds all lanes of v into its first. tmp is lost.
func (l lanes) total(v, tmp VecPhysical) {
	if l.bits == 512 {
		VEXTRACTF64X4(Imm(1), v, tmp.AsY())
		VADDPS(tmp.AsY(), v.AsY(), v.AsY())
	}
	VEXTRACTF128(Imm(1), v.AsY(), tmp.AsX())
	VADDPS(tmp.AsX(), v.AsX(), v.AsX())
	VHADDPS(v.AsX(), v.AsX(), v.AsX())
	VHADDPS(v.AsX(), v.AsX(), v.AsX())
}
