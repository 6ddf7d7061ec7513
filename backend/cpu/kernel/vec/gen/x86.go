package main

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"

	"github.com/mmcloughlin/avo/attr"
	"github.com/mmcloughlin/avo/build"
	"github.com/mmcloughlin/avo/ir"
	. "github.com/mmcloughlin/avo/operand"
	"github.com/mmcloughlin/avo/pass"
	"github.com/mmcloughlin/avo/printer"
	"github.com/mmcloughlin/avo/reg"
)

// x86 emits kernels for AVX-512 (wide) or AVX2.
type x86 struct {
	*build.Context
	wide   bool
	suffix string
	table  *constTable

	k     *kernel
	hoist int // how many constants live in registers throughout
	fixed map[*value]reg.VecVirtual
	last  map[*value]int

	// Of the function being emitted.
	base []reg.Register
	idx  reg.GPVirtual
	tail reg.Register // opmask of the tail, AVX-512 only
	rowP map[int][2]reg.GPVirtual
	s1   reg.GPVirtual
	s3   reg.GPVirtual

	// Of the body being emitted.
	vals   map[*value]reg.Register
	acc    reg.VecVirtual
	inTail bool
	disp   int // vectors past idx
}

// constTable collects the 32-bit constants of one file.
type constTable struct {
	at   map[uint32]int
	bits []uint32
}

func (t *constTable) mem(bits uint32) Mem {
	i, ok := t.at[bits]
	if !ok {
		i = len(t.bits)
		t.at[bits] = i
		t.bits = append(t.bits, bits)
	}
	return NewDataAddr(NewStaticSymbol("consts"), 4*i)
}

// lanesOf returns the number of float32 lanes of a vector.
func (x *x86) lanes() int {
	if x.wide {
		return 16
	}
	return 8
}

func (x *x86) vec() reg.VecVirtual {
	if x.wide {
		return x.ZMM()
	}
	return x.YMM()
}

func (x *x86) maskReg() reg.Register {
	if x.wide {
		return x.K()
	}
	return x.YMM()
}

// highRegister matches vector registers that only EVEX instructions can name: the register allocator
// spreads into them, but AVX2 has no such instructions.
var highRegister = regexp.MustCompile(`\b[XY](1[6-9]|2[0-9]|3[01])\b`)

// x86File returns the assembly file and the Go stubs of all kernels.
func x86File(wide bool, suffix string, ks []*kernel) (asm, stubs []byte) {
	table := &constTable{at: map[uint32]int{}}
	hoists := make([]int, len(ks))
	for i, k := range ks {
		// Hoist as many constants as the register allocator accepts.
		for hoists[i] = min(len(k.body.order), 30); ; hoists[i]-- {
			if hoists[i] < 0 {
				panic("no registers for " + k.name + suffix)
			}
			x := &x86{Context: build.NewContext(), wide: wide, suffix: suffix, table: table, hoist: hoists[i]}
			x.function(k)
			f, err := x.Result()
			if err != nil {
				panic(fmt.Sprintf("%s%s: %v", k.name, suffix, err))
			}
			err = pass.Compile.Execute(f)
			if err == nil && (wide || !highRegister.Match(printed(printer.NewGoAsm, f))) {
				break
			}
			if err != nil && !strings.Contains(err.Error(), "allocat") {
				panic(fmt.Sprintf("%s%s: %v", k.name, suffix, err))
			}
		}
	}
	x := &x86{Context: build.NewContext(), wide: wide, suffix: suffix, table: table}
	for i, k := range ks {
		x.hoist = hoists[i]
		x.function(k)
	}
	x.StaticGlobal("consts")
	x.DataAttributes(attr.RODATA | attr.NOPTR)
	for i, b := range table.bits {
		x.AddDatum(4*i, U32(b))
	}
	f, err := x.Result()
	if err != nil {
		panic(err)
	}
	if err := pass.Compile.Execute(f); err != nil {
		panic(err)
	}
	return printed(printer.NewGoAsm, f), printed(printer.NewStubs, f)
}

func printed(p printer.Builder, f *ir.File) []byte {
	out, err := p(printer.Config{Argv: []string{"go", "generate"}, Pkg: "vec"}).Print(f)
	if err != nil {
		panic(err)
	}
	return bytes.TrimLeft(out, "\n")
}

// signature returns the Go parameters of the assembly function of k.
func signature(k *kernel) string {
	var ps []string
	for _, a := range k.args {
		t := a.elem.goType()
		if !a.scalar {
			t = "[]" + t
		}
		ps = append(ps, a.name+" "+t)
	}
	switch {
	case k.reduce:
		for _, a := range k.args {
			if !a.scalar {
				ps = append(ps, "t"+a.name+" *float32")
			}
		}
		return "func(" + strings.Join(ps, ", ") + ") float32"
	case k.rows > 0:
		ps = append(ps, "groups, stride int")
	}
	return "func(" + strings.Join(ps, ", ") + ")"
}

func (x *x86) asmName(k *kernel) string { return k.name + "Asm" + x.suffix }

func (x *x86) function(k *kernel) {
	x.k = k
	x.fixed = map[*value]reg.VecVirtual{}
	x.last = k.body.lastUses(k.accOut)
	x.Function(x.asmName(k))
	x.Pragma("noescape")
	x.SignatureExpr(signature(k))
	x.base = make([]reg.Register, len(k.args))
	for i, a := range k.args {
		if !a.scalar {
			x.base[i] = x.Load(x.Param(a.name).Base(), x.GP64())
		}
	}
	for i, v := range k.body.hoistable() {
		switch {
		case v.param >= 0:
			r := x.vec()
			p, err := x.Param(k.args[v.param].name).Resolve()
			if err != nil {
				panic(err)
			}
			x.VBROADCASTSS(p.Addr, r)
			x.fixed[v] = r
		case i < x.hoist:
			r := x.vec()
			x.VBROADCASTSS(x.table.mem(v.bits), r)
			x.fixed[v] = r
		}
	}
	x.idx = x.GP64()
	switch {
	case k.reduce:
		x.reduction()
	case k.rows > 0:
		x.columns()
	default:
		x.elementwise()
	}
}

// advance moves all slices by n elements: idx counts elements, addresses scale it.
func (x *x86) advance(n int) { x.ADDQ(U32(n), x.idx) }

func (x *x86) elementwise() {
	n := x.Load(x.Param(x.k.args[0].name).Len(), x.GP64())
	x.XORQ(x.idx, x.idx)
	w := x.lanes()
	if u := x.k.unroll; u > 1 {
		x.SUBQ(U32(u*w), n)
		x.JL(LabelRef("rest"))
		x.Label("unrolled")
		for j := range u {
			x.body(j, false)
		}
		x.advance(u * w)
		x.SUBQ(U32(u*w), n)
		x.JGE(LabelRef("unrolled"))
		x.Label("rest")
		x.ADDQ(U32(u*w), n)
	}
	x.SUBQ(U32(w), n)
	x.JL(LabelRef("tail"))
	x.Label("vector")
	x.body(0, false)
	x.advance(w)
	x.SUBQ(U32(w), n)
	x.JGE(LabelRef("vector"))
	x.Label("tail")
	x.ADDQ(U32(w), n)
	x.JZ(LabelRef("done"))
	if x.wide {
		x.tailMask(n)
		x.body(0, true)
	} else {
		x.Label("single")
		x.body(0, true)
		x.advance(1)
		x.DECQ(n)
		x.JNZ(LabelRef("single"))
	}
	x.Label("done")
	x.VZEROUPPER()
	x.RET()
}

// tailMask sets the opmask of the tail to the n lowest lanes.
func (x *x86) tailMask(n reg.Register) {
	ones := x.GP64()
	x.MOVQ(I32(-1), ones)
	x.BZHIQ(n, ones, ones)
	k := x.K()
	x.KMOVW(ones.As32(), k)
	x.tail = k
}

func (x *x86) reduction() {
	k := x.k
	first := 0
	for k.args[first].scalar {
		first++
	}
	n := x.Load(x.Param(k.args[first].name).Len(), x.GP64())
	accs := make([]reg.VecVirtual, 64/x.lanes())
	start := newBuilder(nil).num(k.init)
	for j := range accs {
		accs[j] = x.vec()
		x.VBROADCASTSS(x.table.mem(start.bits), accs[j])
	}
	tails := make([]reg.Register, len(k.args))
	for i, a := range k.args {
		if !a.scalar {
			tails[i] = x.Load(x.Param("t"+a.name), x.GP64())
		}
	}
	x.XORQ(x.idx, x.idx)
	x.SUBQ(Imm(64), n)
	x.JL(LabelRef("tail"))
	x.Label("group")
	for j, r := range accs {
		x.acc = r
		x.body(j, false)
	}
	x.advance(64)
	x.SUBQ(Imm(64), n)
	x.JGE(LabelRef("group"))
	x.Label("tail")
	// The tail, padded to a group by the caller, takes one more turn.
	x.TESTQ(tails[first], tails[first])
	x.JZ(LabelRef("fold"))
	for i, t := range tails {
		if t != nil {
			x.MOVQ(t, x.base[i])
		}
	}
	x.XORQ(tails[first], tails[first])
	x.XORQ(x.idx, x.idx)
	x.XORQ(n, n)
	x.JMP(LabelRef("group"))
	x.Label("fold")
	fold := func(a, b reg.VecVirtual) {
		f := newBuilder(nil)
		p, q := f.val(), f.val()
		out := k.fold(f, p, q)
		k, last := x.k, x.last
		x.k, x.last = &kernel{body: f, accOut: out}, map[*value]int{}
		x.vals = map[*value]reg.Register{p: a, q: b}
		x.acc = a
		for i := range f.ops {
			x.op(i, &f.ops[i])
		}
		x.k, x.last = k, last
	}
	for m := len(accs) / 2; m > 0; m /= 2 {
		for j := range m {
			fold(accs[j], accs[j+m])
		}
	}
	half := func(move func(from, to reg.VecVirtual)) {
		t := x.vec()
		move(accs[0], t)
		fold(accs[0], t)
	}
	if x.wide {
		half(func(a, t reg.VecVirtual) { x.VSHUFF32X4(U8(0xee), a, a, t) })
		half(func(a, t reg.VecVirtual) { x.VSHUFF32X4(U8(0x01), a, a, t) })
	} else {
		half(func(a, t reg.VecVirtual) { x.VPERM2F128(U8(0x01), a, a, t) })
	}
	half(func(a, t reg.VecVirtual) { x.VPERMILPS(U8(0xee), a, t) })
	half(func(a, t reg.VecVirtual) { x.VPERMILPS(U8(0x55), a, t) })
	ret, err := x.ReturnIndex(0).Resolve()
	if err != nil {
		panic(err)
	}
	x.VMOVSS(accs[0].AsX(), ret.Addr)
	x.VZEROUPPER()
	x.RET()
}

func (x *x86) columns() {
	k := x.k
	cols := x.Load(x.Param("part").Len(), x.GP64())
	groups := x.Load(x.Param("groups"), x.GP64())
	x.s1, x.s3 = x.GP64(), x.GP64()
	x.Load(x.Param("stride"), x.s1)
	x.SHLQ(Imm(2), x.s1)
	x.LEAQ(Mem{Base: x.s1, Index: x.s1, Scale: 2}, x.s3)
	w := x.lanes()
	if x.wide {
		rest := x.GP64()
		x.MOVQ(cols, rest)
		x.ANDQ(Imm(uint64(w-1)), rest)
		x.tailMask(rest)
	}
	x.TESTQ(groups, groups)
	x.JZ(LabelRef("done"))
	x.Label("group")
	x.XORQ(x.idx, x.idx)
	x.rowP = map[int][2]reg.GPVirtual{}
	for i := range k.args {
		if k.isMatrix(i) {
			p := [2]reg.GPVirtual{x.GP64(), x.GP64()}
			x.MOVQ(x.base[i], p[0])
			if k.rows > 4 {
				x.LEAQ(Mem{Base: x.base[i], Index: x.s1, Scale: 4}, p[1])
			}
			x.rowP[i] = p
		}
	}
	step := func(n int) {
		x.advance(n)
		for i := range k.args {
			if k.isMatrix(i) {
				x.ADDQ(U32(4*n), x.rowP[i][0])
				if k.rows > 4 {
					x.ADDQ(U32(4*n), x.rowP[i][1])
				}
			}
		}
	}
	n := x.GP64()
	x.MOVQ(cols, n)
	x.SUBQ(U32(w), n)
	x.JL(LabelRef("tail"))
	x.Label("vector")
	x.body(0, false)
	step(w)
	x.SUBQ(U32(w), n)
	x.JGE(LabelRef("vector"))
	x.Label("tail")
	x.ADDQ(U32(w), n)
	x.JZ(LabelRef("next"))
	if x.wide {
		x.body(0, true)
	} else {
		x.Label("single")
		x.body(0, true)
		step(1)
		x.DECQ(n)
		x.JNZ(LabelRef("single"))
	}
	x.Label("next")
	for i := range k.args {
		if k.isMatrix(i) {
			x.LEAQ(Mem{Base: x.base[i], Index: x.s1, Scale: uint8(k.rows)}, x.base[i].(reg.GPVirtual))
		}
	}
	x.DECQ(groups)
	x.JNZ(LabelRef("group"))
	x.Label("done")
	x.VZEROUPPER()
	x.RET()
}

// addr is the memory operand of the current vector of an argument.
func (x *x86) addr(arg, row int) Mem {
	if x.k.isMatrix(arg) {
		p := x.rowP[arg]
		m := Mem{Base: p[row/4]}
		switch row % 4 {
		case 1, 2:
			m.Index, m.Scale = x.s1, uint8(row%4)
		case 3:
			m.Index, m.Scale = x.s3, 1
		}
		return m
	}
	size := x.k.args[arg].elem.size()
	return Mem{Base: x.base[arg], Index: x.idx, Scale: uint8(size), Disp: x.disp * x.lanes() * size}
}

// body emits the operations for the vector j past idx.
func (x *x86) body(j int, tail bool) {
	x.disp, x.inTail = j, tail
	x.vals = map[*value]reg.Register{}
	for i := range x.k.body.ops {
		x.op(i, &x.k.body.ops[i])
	}
}
