package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// Offsets of the fields of type panel.
const (
	panelA   = 0
	panelB   = 24
	panelC   = 48
	panelRo  = 72
	panelKo  = 96
	panelCo  = 120
	panelN   = 152
	panelLdb = 160
	panelAdd = 168
	panelNxt = 176
	panelFar = 200
	panelPit = 208
)

// Registers of a panel kernel. The twelve row pointers leave three for the rest,
// so that loop bounds live on the stack and the frame pointer is used as well.
var (
	rowRegs = []GPPhysical{RAX, RBX, RCX, RDX, RSI, RDI, R8, R9, R10, R11, R12, R13}
	idx     = R14
	bPtr    = R15
	koPtr   = RBP
)

func panels(masks Mem) {
	for _, vecs := range []int{2, 1} {
		for rows := 12; rows >= 1; rows-- {
			panel512(rows, vecs)
		}
	}
	for _, vecs := range []int{2, 1} {
		for rows := 6; rows >= 1; rows-- {
			panel256(rows, vecs, masks)
		}
	}
	panel256(1, 8, masks)
}

// frame is what a panel kernel keeps on the stack.
type frame struct{ end, ldb, ro, co, tiles, next Mem }

func newFrame() frame {
	f := AllocLocal(48)
	return frame{f, f.Offset(8), f.Offset(16), f.Offset(24), f.Offset(32), f.Offset(40)}
}

// prologue loads the pointer to the panel into idx and fills the frame.
func (f frame) prologue() {
	Load(Param("p"), idx)
	MOVQ(Mem{Base: idx, Disp: panelKo}, RAX)
	MOVQ(Mem{Base: idx, Disp: panelKo + 8}, RBX)
	LEAQ(Mem{Base: RAX, Index: RBX, Scale: 4}, RAX)
	MOVQ(RAX, f.end)
	MOVQ(Mem{Base: idx, Disp: panelLdb}, RAX)
	SHLQ(Imm(2), RAX)
	MOVQ(RAX, f.ldb)
	Load(Param("first"), RBX)
	for _, table := range []struct {
		disp int
		at   Mem
	}{{panelRo, f.ro}, {panelCo, f.co}} {
		MOVQ(Mem{Base: idx, Disp: table.disp}, RAX)
		LEAQ(Mem{Base: RAX, Index: RBX, Scale: 4}, RAX)
		MOVQ(RAX, table.at)
	}
	Load(Param("tiles"), RAX)
	MOVQ(RAX, f.tiles)
	MOVQ(Mem{Base: idx, Disp: panelNxt}, RAX)
	MOVQ(RAX, f.next)
}

// fetchAhead asks for the next lines of the panel that comes after this one. idx is the panel.
func (f frame) fetchAhead() {
	MOVQ(Mem{Base: idx, Disp: panelFar}, RCX)
	TESTQ(RCX, RCX)
	JZ(LabelRef("fetched"))
	MOVQ(f.next, RAX)
	Label("fetch")
	PREFETCHT1(Mem{Base: RAX})
	ADDQ(Imm(64), RAX)
	DECQ(RCX)
	JNZ(LabelRef("fetch"))
	MOVQ(RAX, f.next)
	Label("fetched")
}

// loadRows makes the row registers point to the rows of A of the next tile. idx is the panel.
func (f frame) loadRows(rows int) {
	MOVQ(f.ro, koPtr)
	MOVQ(Mem{Base: idx, Disp: panelA}, bPtr)
	for i := range rows {
		MOVLQSX(Mem{Base: koPtr, Disp: 4 * i}, rowRegs[i])
		LEAQ(Mem{Base: bPtr, Index: rowRegs[i], Scale: 4}, rowRegs[i])
	}
	ADDQ(Imm(uint64(4*rows)), f.ro)
}

// eachRowOfC emits do once for each row with its address in C. The panel is in idx, which is lost.
func (f frame) eachRowOfC(rows int, do func(row int, c Mem)) {
	MOVQ(Mem{Base: idx, Disp: panelC}, bPtr)
	MOVQ(f.co, koPtr)
	for i := range rows {
		MOVLQSX(Mem{Base: koPtr, Disp: 4 * i}, idx)
		do(i, Mem{Base: bPtr, Index: idx, Scale: 4})
	}
}

// kLoop emits the loop over the summands around body. ldb and end are where the frame has them, or registers with the same.
func (f frame) kLoop(ldb, end Op, body func()) {
	MOVQ(Mem{Base: idx, Disp: panelB}, bPtr)
	MOVQ(Mem{Base: idx, Disp: panelKo}, koPtr)
	Label("summand")
	MOVLQSX(Mem{Base: koPtr}, idx)
	body()
	ADDQ(ldb, bPtr)
	ADDQ(Imm(4), koPtr)
	CMPQ(koPtr, end)
	JNE(LabelRef("summand"))
}

// nextTile emits the end of the loop over tiles.
func (f frame) nextTile(rows int) {
	ADDQ(Imm(uint64(4*rows)), f.co)
	DECQ(f.tiles)
	JNZ(LabelRef("tile"))
}

// panel512 emits the kernel for rows×(16·vecs) tiles with AVX-512.
func panel512(rows, vecs int) {
	TEXT(fmt.Sprintf("panel512r%dv%d", rows, vecs), NOSPLIT, "func(p *panel, first, tiles int)")
	Doc(fmt.Sprintf("panel512r%dv%d computes tiles of %d rows by up to %d columns, from row first on.", rows, vecs, rows, 16*vecs))
	Pragma("noescape")
	f := newFrame()
	f.prologue()

	// K1, K2: the columns of each vector.
	masks := []Register{K1, K2}
	MOVQ(Mem{Base: idx, Disp: panelN}, RBX)
	MOVQ(I32(-1), RAX)
	BZHIQ(RBX, RAX, RAX)
	for v := range vecs {
		if v > 0 {
			SHRQ(Imm(16), RAX)
		}
		KMOVW(EAX, masks[v])
	}

	acc := make([][]VecPhysical, rows)
	for i := range acc {
		for v := range vecs {
			acc[i] = append(acc[i], zmm(i*vecs+v))
		}
	}
	b, temps := []VecPhysical{Z24, Z25}, []VecPhysical{Z26, Z27, Z28, Z29, Z30, Z31}

	Label("tile")
	Load(Param("p"), idx)
	f.fetchAhead()
	f.loadRows(rows)
	CMPB(Mem{Base: idx, Disp: panelAdd}, Imm(0))
	JNE(LabelRef("add"))
	for i := range rows {
		for v := range vecs {
			VPXORD(acc[i][v], acc[i][v], acc[i][v])
		}
	}
	JMP(LabelRef("sum"))
	Label("add")
	f.eachRowOfC(rows, func(i int, c Mem) {
		for v := range vecs {
			VMOVUPS_Z(c.Offset(64*v), masks[v], acc[i][v])
		}
	})
	Load(Param("p"), idx)
	Label("sum")
	f.kLoop(f.ldb, f.end, func() {
		for v := range vecs {
			VMOVUPS_Z(Mem{Base: bPtr, Disp: 64 * v}, masks[v], b[v])
		}
		for i := range rows {
			a := Mem{Base: rowRegs[i], Index: idx, Scale: 4}
			if vecs == 1 {
				VFMADD231PS_BCST(a, b[0], acc[i][0])
				continue
			}
			x := temps[i%len(temps)]
			VBROADCASTSS(a, x)
			for v := range vecs {
				VFMADD231PS(b[v], x, acc[i][v])
			}
		}
	})
	Load(Param("p"), idx)
	f.eachRowOfC(rows, func(i int, c Mem) {
		for v := range vecs {
			VMOVUPS(acc[i][v], masks[v], c.Offset(64*v))
		}
	})
	f.nextTile(rows)
	VZEROUPPER()
	RET()
}

func zmm(i int) VecPhysical {
	return []VecPhysical{Z0, Z1, Z2, Z3, Z4, Z5, Z6, Z7, Z8, Z9, Z10, Z11, Z12, Z13, Z14, Z15,
		Z16, Z17, Z18, Z19, Z20, Z21, Z22, Z23, Z24, Z25, Z26, Z27, Z28, Z29, Z30, Z31}[i]
}

func ymm(i int) VecPhysical {
	return []VecPhysical{Y0, Y1, Y2, Y3, Y4, Y5, Y6, Y7, Y8, Y9, Y10, Y11, Y12, Y13, Y14, Y15}[i]
}

// maskTable is sixteen lanes of ones and sixteen of zeros: a mask for n lanes
// begins 4·n bytes before its middle.
func maskTable() Mem {
	m := GLOBL("laneMasks", RODATA|NOPTR)
	for i := range 32 {
		v := U32(0xffffffff)
		if i >= 16 {
			v = 0
		}
		DATA(4*i, v)
	}
	return m
}

// fetchC asks for the rows of C of the next tile, which are needed when its sums are done. The panel is in idx.
func (f frame) fetchC(rows, bytes int) {
	f.eachRowOfC(rows, func(_ int, c Mem) {
		PREFETCHT0(c)
		PREFETCHT0(c.Offset(bytes - 4))
	})
	Load(Param("p"), idx)
}

// panel256 emits the kernel for rows×(8·vecs) tiles with AVX2 and FMA. It reads
// whole vectors of B: narrower panels must be packed, and those of more than two
// vectors are always whole. What C holds is added in the
// end, so that nothing waits for it.
func panel256(rows, vecs int, table Mem) {
	TEXT(fmt.Sprintf("panel256r%dv%d", rows, vecs), NOSPLIT, "func(p *panel, first, tiles int)")
	Doc(fmt.Sprintf("panel256r%dv%d computes tiles of %d rows by up to %d columns, from row first on.", rows, vecs, rows, 8*vecs))
	Pragma("noescape")
	f := newFrame()
	f.prologue()
	acc := make([][]VecPhysical, rows)
	for i := range acc {
		for v := range vecs {
			acc[i] = append(acc[i], ymm(i*vecs+v))
		}
	}
	b, temps := []VecPhysical{Y12, Y13}, []VecPhysical{Y14, Y15}
	// The first tile asks for the next panel of B, row by row, the others again and again for the first line of this one.
	ldb, end, next, pitch := R8, R9, R10, R11
	MOVQ(f.ldb, ldb)
	MOVQ(f.end, end)
	MOVQ(f.next, next)
	MOVQ(Mem{Base: idx, Disp: panelPit}, pitch)
	SHLQ(Imm(2), pitch)
	TESTQ(next, next)
	JNZ(LabelRef("tile"))
	XORQ(pitch, pitch)
	MOVQ(Mem{Base: idx, Disp: panelB}, next)

	Label("tile")
	Load(Param("p"), idx)
	f.fetchC(rows, 32*vecs)
	f.loadRows(rows)
	for i := range rows {
		for v := range vecs {
			VXORPS(acc[i][v], acc[i][v], acc[i][v])
		}
	}
	f.kLoop(ldb, end, func() {
		PREFETCHT1(Mem{Base: next})
		ADDQ(pitch, next)
		load := func(v int) Op { return Mem{Base: bPtr, Disp: 32 * v} }
		if vecs <= len(b) {
			for v := range vecs {
				VMOVUPS(load(v), b[v])
			}
			load = func(v int) Op { return b[v] }
		}
		for i := range rows {
			x := temps[i%len(temps)]
			VBROADCASTSS(Mem{Base: rowRegs[i], Index: idx, Scale: 4}, x)
			for v := range vecs {
				VFMADD231PS(load(v), x, acc[i][v])
			}
		}
	})
	Load(Param("p"), idx)
	if vecs <= len(b) {
		CMPQ(Mem{Base: idx, Disp: panelN}, Imm(uint64(8*vecs)))
		JNE(LabelRef("narrow"))
	}
	CMPB(Mem{Base: idx, Disp: panelAdd}, Imm(0))
	JEQ(LabelRef("set"))
	f.eachRowOfC(rows, func(i int, c Mem) {
		for v := range vecs {
			VADDPS(c.Offset(32*v), acc[i][v], acc[i][v])
			VMOVUPS(acc[i][v], c.Offset(32*v))
		}
	})
	JMP(LabelRef("stored"))
	Label("set")
	f.eachRowOfC(rows, func(i int, c Mem) {
		for v := range vecs {
			VMOVUPS(acc[i][v], c.Offset(32*v))
		}
	})
	Label("stored")
	XORQ(pitch, pitch)
	Load(Param("p"), idx)
	MOVQ(Mem{Base: idx, Disp: panelB}, next)
	f.nextTile(rows)
	VZEROUPPER()
	RET()
	if vecs > len(b) {
		return
	}

	Label("narrow")
	MOVQ(Mem{Base: idx, Disp: panelN}, RAX) // its last three bits are the lanes of the last vector
	CMPB(Mem{Base: idx, Disp: panelAdd}, Imm(0))
	JEQ(LabelRef("setLanes"))
	MOVQ(RAX, RCX)
	SHLQ(Imm(2), RCX)
	LEAQ(table, RBX)
	ADDQ(Imm(64), RBX)
	SUBQ(RCX, RBX)
	mask, c0 := temps[0], temps[1]
	VMOVDQU(Mem{Base: RBX, Disp: 32 * (vecs - 1)}, mask)
	f.eachRowOfC(rows, func(i int, c Mem) {
		for v := range vecs {
			if v < vecs-1 {
				VADDPS(c.Offset(32*v), acc[i][v], acc[i][v])
				continue
			}
			VMASKMOVPS(c.Offset(32*v), mask, c0)
			VADDPS(c0, acc[i][v], acc[i][v])
		}
	})
	Load(Param("p"), idx)
	Label("setLanes")
	f.eachRowOfC(rows, func(i int, c Mem) {
		for v := range vecs - 1 {
			VMOVUPS(acc[i][v], c.Offset(32*v))
		}
		storeLanes(acc[i][vecs-1], c.Offset(32*(vecs-1)), fmt.Sprintf("row%d", i))
	})
	JMP(LabelRef("stored"))
}

// storeLanes stores the first lanes of v, AL modulo 8 of them, in pieces of four, two and one: a store with a mask takes
// longer than all of them on some processors. The index register of to and v are lost.
func storeLanes(v VecPhysical, to Mem, name string) {
	x, index := v.AsX(), to.Index
	TESTB(Imm(4), AL)
	JZ(LabelRef(name + "two"))
	VMOVUPS(x, to)
	VEXTRACTF128(Imm(1), v.AsY(), x)
	ADDQ(Imm(4), index)
	Label(name + "two")
	TESTB(Imm(2), AL)
	JZ(LabelRef(name + "one"))
	VMOVLPS(x, to)
	VPERMILPS(Imm(0x0e), x, x)
	ADDQ(Imm(2), index)
	Label(name + "one")
	TESTB(Imm(1), AL)
	JZ(LabelRef(name + "end"))
	VMOVSS(x, to)
	Label(name + "end")
}
