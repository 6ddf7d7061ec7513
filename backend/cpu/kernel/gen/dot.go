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
		lanes{bits, table}.dot()
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
	if l.bits == 512 {
		VEXTRACTF64X4(Imm(1), Z0, Y1)
		VADDPS(Y1, Y0, Y0)
	}
	VEXTRACTF128(Imm(1), Y0, X1)
	VADDPS(X1, X0, X0)
	VHADDPS(X0, X0, X0)
	VHADDPS(X0, X0, X0)
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
