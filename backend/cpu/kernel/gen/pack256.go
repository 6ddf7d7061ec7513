package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// pack256 emits the copies that build panels and tiles, with AVX2.
func pack256(table Mem) {
	rows256(table)
	tileRows256(6)
	tileRows256(16)
	transpose256(table)
	tileTranspose256()
}

// rows256 emits the copy of rows with AVX2.
func rows256(table Mem) {
	TEXT("rows256", NOSPLIT, "func(dst, src *float32, ko *int32, dstStride, n, width, k int)")
	Doc("rows256 sets dst[i·dstStride+j] = src[ko[i]+j] for j < n and 0 for n ≤ j < width ≤ 16, for i < k, k ≥ 1.")
	Pragma("noescape")
	dst, src, ko, stride, count := RDI, RSI, RDX, R8, R9
	Load(Param("dst"), dst)
	Load(Param("src"), src)
	Load(Param("ko"), ko)
	Load(Param("dstStride"), stride)
	SHLQ(Imm(2), stride)
	Load(Param("k"), count)
	for i, name := range []string{"n", "width"} {
		Load(Param(name), RAX)
		SHLQ(Imm(2), RAX)
		LEAQ(table, RBX)
		ADDQ(Imm(64), RBX)
		SUBQ(RAX, RBX)
		VMOVDQU(Mem{Base: RBX}, ymm(12+2*i))
		VMOVDQU(Mem{Base: RBX, Disp: 32}, ymm(13+2*i))
	}
	VXORPS(Y1, Y1, Y1)
	Load(Param("n"), RBX)
	Load(Param("width"), R11)
	CMPQ(R11, Imm(16))
	JNE(LabelRef("masked"))
	CMPQ(RBX, Imm(16))
	JEQ(LabelRef("whole"))
	CMPQ(RBX, Imm(8))
	JLE(LabelRef("narrow"))
	load := func(v int, src Mem) { VMASKMOVPS(src, ymm(12+v), ymm(v)) }
	store := func(v int, dst Mem) { VMOVUPS(ymm(v), dst) }
	for _, loop := range []struct {
		label       string
		vecs        int // of the source
		load, store func(v int, m Mem)
	}{
		{"whole", 2, func(v int, src Mem) { VMOVUPS(src, ymm(v)) }, store},
		{"wide", 2, load, store},
		{"narrow", 1, load, store},
		{"masked", 2, load, func(v int, dst Mem) { VMASKMOVPS(ymm(v), ymm(14+v), dst) }},
	} {
		Label(loop.label)
		MOVLQSX(Mem{Base: ko}, RAX)
		for v := range loop.vecs {
			loop.load(v, Mem{Base: src, Index: RAX, Scale: 4, Disp: 32 * v})
		}
		for v := range 2 {
			loop.store(v, Mem{Base: dst, Disp: 32 * v})
		}
		ADDQ(Imm(4), ko)
		ADDQ(stride, dst)
		DECQ(count)
		JNZ(LabelRef(loop.label))
		VZEROUPPER()
		RET()
	}
}

// tileRows256 emits the copy of a matrix by tiles, or panels, of so many columns.
func tileRows256(columns int) {
	name := fmt.Sprintf("tileRows256x%d", columns)
	TEXT(name, NOSPLIT, "func(dst, src *float32, ko *int32, dstStride, tiles, k int)")
	Doc(fmt.Sprintf("%[1]s sets dst[t·dstStride+%[2]d·l+i] = src[ko[l]+%[2]d·t+i] for i < %[2]d, t < tiles and l < k, tiles ≥ 1, k ≥ 1.", name, columns))
	Pragma("noescape")
	dst, src, ko, stride, tiles, count := RDI, RSI, RDX, R8, R9, R10
	Load(Param("dst"), dst)
	Load(Param("src"), src)
	Load(Param("ko"), ko)
	Load(Param("dstStride"), stride)
	SHLQ(Imm(2), stride)
	Load(Param("tiles"), tiles)
	Load(Param("k"), count)
	Label("row")
	MOVLQSX(Mem{Base: ko}, RAX)
	LEAQ(Mem{Base: src, Index: RAX, Scale: 4}, RBX)
	MOVQ(dst, RCX)
	MOVQ(tiles, RAX)
	Label("tile")
	from, to := Mem{Base: RBX}, Mem{Base: RCX}
	if columns == 16 {
		VMOVUPS(from, Y0)
		VMOVUPS(from.Offset(32), Y1)
		VMOVUPS(Y0, to)
		VMOVUPS(Y1, to.Offset(32))
	} else {
		VMOVUPS(from, X0)
		VMOVSD(from.Offset(16), X1)
		VMOVUPS(X0, to)
		VMOVSD(X1, to.Offset(16))
	}
	ADDQ(Imm(uint64(4*columns)), RBX)
	ADDQ(stride, RCX)
	DECQ(RAX)
	JNZ(LabelRef("tile"))
	ADDQ(Imm(4), ko)
	ADDQ(Imm(uint64(4*columns)), dst)
	DECQ(count)
	JNZ(LabelRef("row"))
	VZEROUPPER()
	RET()
}

// transpose256 emits the transposition in blocks of 8×8.
func transpose256(table Mem) {
	TEXT("transpose256", NOSPLIT, "func(dst, src *float32, dstStride, srcStride, n, width, k int)")
	Doc("transpose256 sets dst[i·dstStride+j] = src[j·srcStride+i] for j < n and 0 for n ≤ j < width ≤ 8, for i < k, k ≥ 1.")
	Pragma("noescape")
	dst, src, dstStride, srcStride, n, width, rest, mask := RDI, RSI, R8, R9, R10, R11, R12, R13
	Load(Param("dst"), dst)
	Load(Param("src"), src)
	Load(Param("dstStride"), dstStride)
	SHLQ(Imm(2), dstStride)
	Load(Param("srcStride"), srcStride)
	SHLQ(Imm(2), srcStride)
	Load(Param("n"), n)
	Load(Param("width"), width)
	Load(Param("k"), rest)

	Label("block")
	MOVQ(src, RCX)
	CMPQ(n, Imm(8))
	JLT(LabelRef("few"))
	CMPQ(rest, Imm(8))
	JLT(LabelRef("few"))
	for j := range 8 {
		VMOVUPS(Mem{Base: RCX}, ymm(j))
		ADDQ(srcStride, RCX)
	}
	JMP(LabelRef("loaded"))
	Label("few")
	MOVQ(U32(8), RAX)
	CMPQ(rest, RAX)
	CMOVQLT(rest, RAX)
	SHLQ(Imm(2), RAX)
	LEAQ(table, mask)
	ADDQ(Imm(64), mask)
	SUBQ(RAX, mask)
	VMOVDQU(Mem{Base: mask}, Y15)
	for j := range 8 {
		VXORPS(ymm(j), ymm(j), ymm(j))
	}
	for j := range 8 {
		CMPQ(n, Imm(uint64(j)))
		JLE(LabelRef("loaded"))
		VMASKMOVPS(Mem{Base: RCX}, Y15, ymm(j))
		ADDQ(srcStride, RCX)
	}
	Label("loaded")
	for g := 0; g < 8; g += 2 {
		VUNPCKLPS(ymm(g+1), ymm(g), ymm(8+g))
		VUNPCKHPS(ymm(g+1), ymm(g), ymm(8+g+1))
	}
	for g := 0; g < 8; g += 4 {
		VUNPCKLPD(ymm(8+g+2), ymm(8+g), ymm(g))
		VUNPCKHPD(ymm(8+g+2), ymm(8+g), ymm(g+1))
		VUNPCKLPD(ymm(8+g+3), ymm(8+g+1), ymm(g+2))
		VUNPCKHPD(ymm(8+g+3), ymm(8+g+1), ymm(g+3))
	}
	for q := range 4 {
		VPERM2F128(Imm(0x20), ymm(4+q), ymm(q), ymm(8+q))
		VPERM2F128(Imm(0x31), ymm(4+q), ymm(q), ymm(12+q))
	}
	CMPQ(width, Imm(8))
	JNE(LabelRef("narrow"))
	for i := range 8 {
		VMOVUPS(ymm(8+i), Mem{Base: dst})
		ADDQ(dstStride, dst)
		if i < 7 {
			CMPQ(rest, Imm(uint64(i+1)))
			JLE(LabelRef("done"))
		}
	}
	Label("next")
	ADDQ(Imm(32), src)
	SUBQ(Imm(8), rest)
	JG(LabelRef("block"))
	Label("done")
	VZEROUPPER()
	RET()

	Label("narrow")
	MOVQ(width, RAX)
	for i := range 8 {
		XORQ(RCX, RCX)
		storeLanes(ymm(8+i), Mem{Base: dst, Index: RCX, Scale: 4}, fmt.Sprintf("row%d", i))
		ADDQ(dstStride, dst)
		if i < 7 {
			CMPQ(rest, Imm(uint64(i+1)))
			JLE(LabelRef("done"))
		}
	}
	JMP(LabelRef("next"))
}

// tileTranspose256 emits the transposition of six rows into a tile.
func tileTranspose256() {
	TEXT("tileTranspose256", NOSPLIT, "func(dst, src *float32, srcStride, blocks int)")
	Doc("tileTranspose256 sets dst[6·l+i] = src[i·srcStride+l] for i < 6 and l < 8·blocks, blocks ≥ 1.")
	Pragma("noescape")
	dst, src, stride, stride3, rest := RDI, RSI, R8, R9, R10
	Load(Param("dst"), dst)
	Load(Param("src"), src)
	Load(Param("srcStride"), stride)
	SHLQ(Imm(2), stride)
	LEAQ(Mem{Base: stride, Index: stride, Scale: 2}, stride3)
	Load(Param("blocks"), rest)
	Label("block")
	LEAQ(Mem{Base: src, Index: stride3, Scale: 1}, RAX)
	for half, base := range []GPPhysical{src, RAX} {
		VMOVUPS(Mem{Base: base}, ymm(3*half))
		VMOVUPS(Mem{Base: base, Index: stride, Scale: 1}, ymm(3*half+1))
		VMOVUPS(Mem{Base: base, Index: stride, Scale: 2}, ymm(3*half+2))
	}
	for g := 0; g < 6; g += 2 { // pairs of rows: columns 0, 1, 4, 5, and 2, 3, 6, 7
		VUNPCKLPS(ymm(g+1), ymm(g), ymm(6+g))
		VUNPCKHPS(ymm(g+1), ymm(g), ymm(7+g))
	}
	for q := range 2 { // the first four rows: columns 2q and 2q+4, 2q+1 and 2q+5
		VUNPCKLPD(ymm(8+q), ymm(6+q), ymm(2*q))
		VUNPCKHPD(ymm(8+q), ymm(6+q), ymm(2*q+1))
	}
	for half := range 2 {
		for q := range 4 {
			at := Mem{Base: dst, Disp: 24 * (4*half + q)}
			last := ymm(10 + q/2)
			if half == 0 {
				VMOVUPS(ymm(q).AsX(), at)
			} else {
				VEXTRACTF128(Imm(1), ymm(q), at)
				if q%2 == 0 {
					VEXTRACTF128(Imm(1), last, last.AsX())
				}
			}
			if q%2 == 0 {
				VMOVLPS(last.AsX(), at.Offset(16))
			} else {
				VMOVHPS(last.AsX(), at.Offset(16))
			}
		}
	}
	ADDQ(Imm(32), src)
	ADDQ(Imm(6*8*4), dst)
	DECQ(rest)
	JNZ(LabelRef("block"))
	VZEROUPPER()
	RET()
}
