package main

import (
	"fmt"

	. "github.com/mmcloughlin/avo/build"
	. "github.com/mmcloughlin/avo/operand"
	. "github.com/mmcloughlin/avo/reg"
)

// lanes512 sets k to a mask of the lanes skip … skip+15 that are below n. AX is lost.
func lanes512(n Register, skip int, k Register) {
	MOVQ(I32(-1), RAX)
	BZHIQ(n, RAX, RAX)
	if skip > 0 {
		SHRQ(Imm(uint64(skip)), RAX)
	}
	KMOVW(EAX, k)
}

// pack512 emits the copies that build panels, with AVX-512.
func pack512() {
	TEXT("rows512", NOSPLIT, "func(dst, src *float32, ko *int32, dstStride, n, width, k int)")
	Doc("rows512 sets dst[i·dstStride+j] = src[ko[i]+j] for j < n and 0 for n ≤ j < width ≤ 32, for i < k, k ≥ 1.")
	Pragma("noescape")
	dst, src, ko, stride, count := RDI, RSI, RDX, R8, R9
	Load(Param("dst"), dst)
	Load(Param("src"), src)
	Load(Param("ko"), ko)
	Load(Param("dstStride"), stride)
	SHLQ(Imm(2), stride)
	Load(Param("n"), R10)
	Load(Param("width"), R11)
	Load(Param("k"), count)
	lanes512(R10, 0, K1)
	lanes512(R10, 16, K2)
	lanes512(R11, 0, K3)
	lanes512(R11, 16, K4)
	CMPQ(R11, Imm(16))
	JLE(LabelRef("narrow"))
	for _, vecs := range []int{2, 1} {
		label := map[int]string{2: "wide", 1: "narrow"}[vecs]
		Label(label)
		MOVLQSX(Mem{Base: ko}, RAX)
		for v := range vecs {
			VMOVUPS_Z(Mem{Base: src, Index: RAX, Scale: 4, Disp: 64 * v}, []Register{K1, K2}[v], zmm(v))
		}
		for v := range vecs {
			VMOVUPS(zmm(v), []Register{K3, K4}[v], Mem{Base: dst, Disp: 64 * v})
		}
		ADDQ(Imm(4), ko)
		ADDQ(stride, dst)
		DECQ(count)
		JNZ(LabelRef(label))
		VZEROUPPER()
		RET()
	}
	transpose512()
}

// transpose512 emits the transposition in blocks of 16×16.
func transpose512() {
	TEXT("transpose512", NOSPLIT, "func(dst, src *float32, dstStride, srcStride, n, width, k int)")
	Doc("transpose512 sets dst[i·dstStride+j] = src[j·srcStride+i] for j < n and 0 for n ≤ j < width ≤ 16, for i < k, k ≥ 1.")
	Pragma("noescape")
	dst, src, dstStride, srcStride, n, rest := RDI, RSI, R8, R9, R10, R12
	Load(Param("dst"), dst)
	Load(Param("src"), src)
	Load(Param("dstStride"), dstStride)
	SHLQ(Imm(2), dstStride)
	Load(Param("srcStride"), srcStride)
	SHLQ(Imm(2), srcStride)
	Load(Param("n"), n)
	Load(Param("width"), R11)
	Load(Param("k"), rest)
	lanes512(R11, 0, K3)

	Label("block")
	MOVQ(I32(-1), RBX)
	MOVQ(U32(16), RAX) // the instruction looks at eight bits of the count
	CMPQ(rest, RAX)
	CMOVQLT(rest, RAX)
	BZHIQ(RAX, RBX, RBX)
	KMOVW(EBX, K1)
	MOVQ(src, RCX)
	CMPQ(n, Imm(16))
	JLT(LabelRef("few"))
	for j := range 16 {
		VMOVUPS_Z(Mem{Base: RCX}, K1, zmm(j))
		ADDQ(srcStride, RCX)
	}
	JMP(LabelRef("loaded"))
	Label("few")
	for j := range 16 {
		XORL(EAX, EAX)
		CMPQ(n, Imm(uint64(j)))
		CMOVLGT(EBX, EAX)
		CMOVQLE(src, RCX) // a row that is not there: an address that is, loads of no lane from elsewhere are slow
		KMOVW(EAX, K2)
		VMOVUPS_Z(Mem{Base: RCX}, K2, zmm(j))
		ADDQ(srcStride, RCX)
	}
	Label("loaded")
	for g := 0; g < 16; g += 2 { // pairs: t(g) = low halves of rows g, g+1; t(g+1) = high
		VUNPCKLPS(zmm(g+1), zmm(g), zmm(16+g))
		VUNPCKHPS(zmm(g+1), zmm(g), zmm(16+g+1))
	}
	for g := 0; g < 16; g += 4 { // fours: u(g+q) = columns q, q+4, q+8, q+12 of rows g … g+3
		VUNPCKLPD(zmm(16+g+2), zmm(16+g), zmm(g))
		VUNPCKHPD(zmm(16+g+2), zmm(16+g), zmm(g+1))
		VUNPCKLPD(zmm(16+g+3), zmm(16+g+1), zmm(g+2))
		VUNPCKHPD(zmm(16+g+3), zmm(16+g+1), zmm(g+3))
	}
	columns := make([]VecPhysical, 16)
	for q := range 4 {
		v := func(i int) VecPhysical { return zmm(16 + 4*q + i) }
		VSHUFF32X4(Imm(0x88), zmm(4+q), zmm(q), v(0))
		VSHUFF32X4(Imm(0x88), zmm(12+q), zmm(8+q), v(1))
		VSHUFF32X4(Imm(0xdd), zmm(4+q), zmm(q), v(2))
		VSHUFF32X4(Imm(0xdd), zmm(12+q), zmm(8+q), v(3))
		columns[q], columns[q+8], columns[q+4], columns[q+12] = zmm(q), zmm(8+q), zmm(4+q), zmm(12+q)
		VSHUFF32X4(Imm(0x88), v(1), v(0), columns[q])
		VSHUFF32X4(Imm(0xdd), v(1), v(0), columns[q+8])
		VSHUFF32X4(Imm(0x88), v(3), v(2), columns[q+4])
		VSHUFF32X4(Imm(0xdd), v(3), v(2), columns[q+12])
	}
	for i, c := range columns {
		VMOVUPS(c, K3, Mem{Base: dst})
		ADDQ(dstStride, dst)
		if i < 15 {
			CMPQ(rest, Imm(uint64(i+1)))
			JLE(LabelRef("done"))
		}
	}
	ADDQ(Imm(64), src)
	SUBQ(Imm(16), rest)
	JG(LabelRef("block"))
	Label("done")
	VZEROUPPER()
	RET()
}

// sums emits the addition of partial results.
func sums(bits int) {
	TEXT(fmt.Sprintf("sum%d", bits), NOSPLIT, "func(dst, src *float32, pitch, n, parts int)")
	lanes := bits / 32
	Doc(fmt.Sprintf("sum%d sets dst[i] = src[i] + src[pitch+i] + … (parts summands, in this order) for i < %d·n, n ≥ 1.", bits, 2*lanes))
	Pragma("noescape")
	dst, src, pitch, n, parts := RDI, RSI, R8, R9, R10
	Load(Param("dst"), dst)
	Load(Param("src"), src)
	Load(Param("pitch"), pitch)
	SHLQ(Imm(2), pitch)
	Load(Param("n"), n)
	Load(Param("parts"), parts)
	reg := zmm
	if bits == 256 {
		reg = ymm
	}
	Label("vector")
	MOVQ(src, RAX)
	MOVQ(parts, RBX)
	VMOVUPS(Mem{Base: RAX}, reg(0))
	VMOVUPS(Mem{Base: RAX, Disp: bits / 8}, reg(1))
	JMP(LabelRef("next"))
	Label("part")
	VADDPS(Mem{Base: RAX}, reg(0), reg(0))
	VADDPS(Mem{Base: RAX, Disp: bits / 8}, reg(1), reg(1))
	Label("next")
	ADDQ(pitch, RAX)
	DECQ(RBX)
	JNZ(LabelRef("part"))
	VMOVUPS(reg(0), Mem{Base: dst})
	VMOVUPS(reg(1), Mem{Base: dst, Disp: bits / 8})
	ADDQ(Imm(uint64(bits/4)), dst)
	ADDQ(Imm(uint64(bits/4)), src)
	DECQ(n)
	JNZ(LabelRef("vector"))
	VZEROUPPER()
	RET()
}
