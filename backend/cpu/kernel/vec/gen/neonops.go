package main

import "fmt"

// scratch is the general register for constants and single elements: no kernel uses it otherwise.
const scratch = 26

// in returns the register of a value; constants that are not hoisted get a temporary one.
func (g *neon) in(v *value) int {
	if v.acc {
		return g.acc
	}
	if r, ok := g.fixed[v]; ok {
		return r
	}
	if v.konst {
		r := g.constant(v.bits, scratch)
		g.temps = append(g.temps, r)
		return r
	}
	r, ok := g.vals[v]
	if !ok {
		panic(fmt.Sprintf("%s: value %d is read before it is written", g.k.name, v.id))
	}
	return r
}

func (g *neon) dies(v *value, i int) bool { return !v.fixed() && g.last[v] == i }

// out returns a register for the result of o.
func (g *neon) out(o *op) int {
	if o.dst == g.k.accOut {
		g.vals[o.dst] = g.acc
		return g.acc
	}
	r := g.reg()
	g.vals[o.dst] = r
	return r
}

// simple are the operations that are one instruction with one or two sources.
var simple = map[opcode]string{
	opAdd: "FADD", opSub: "FSUB", opMul: "FMUL", opDiv: "FDIV", opSqrt: "FSQRT",
	opMinRaw: "FMIN", opMaxRaw: "FMAX", opMinimum: "FMIN", opMaximum: "FMAX",
	opAnd: "AND", opOr: "ORR", opXor: "EOR", opAndNot: "BIC",
	opMaskAnd: "AND", opMaskOr: "ORR", opMaskNot: "NOT",
	opIntAdd: "ADD", opIntSub: "SUB", opIntMin: "SMIN", opIntEq: "CMEQ",
	opToInt: "FCVTZS", opToFloat: "SCVTF",
}

var frint = [...]string{toEven: "FRINTN", down: "FRINTM", up: "FRINTP", towardsZero: "FRINTZ"}

func (g *neon) op(i int, o *op) {
	name, ok := simple[o.code]
	switch {
	case ok && len(o.src) == 1:
		a := g.in(o.src[0])
		g.finish(i, o)
		g.ins(name, g.out(o), a)
	case ok:
		a, b := g.in(o.src[0]), g.in(o.src[1])
		g.finish(i, o)
		g.ins(name, g.out(o), a, b)
	case o.code == opLoad:
		g.load(o)
	case o.code == opStore:
		r := g.in(o.src[0])
		g.store(o.imm, r, g.dies(o.src[0], i))
		g.finish(i, o)
	case o.code == opFMA || o.code == opFNMA:
		g.fused(i, o)
	case o.code == opRound:
		a := g.in(o.src[0])
		g.finish(i, o)
		g.ins(frint[o.imm], g.out(o), a)
	case o.code == opShl || o.code == opSar || o.code == opShr:
		a := g.in(o.src[0])
		g.finish(i, o)
		g.shift(map[opcode]string{opShl: "SHL", opSar: "SSHR", opShr: "USHR"}[o.code], g.out(o), a, o.imm)
	case o.code == opCmp:
		g.compare(i, o)
	case o.code == opSel:
		m, t, f := g.in(o.src[0]), g.in(o.src[1]), g.in(o.src[2])
		d := m
		if !g.dies(o.src[0], i) {
			d = g.reg()
			g.ins("ORR", d, m, m)
			g.finish(i, o)
		} else {
			g.finish(i, o)
			g.take(d)
		}
		g.ins("BSL", d, t, f)
		g.settle(o, d)
	default:
		panic(fmt.Sprintf("opcode %d", o.code))
	}
}

// finish releases the registers of the sources that operation i reads last, and of temporaries:
// the result may take one of them, since an instruction reads before it writes.
func (g *neon) finish(i int, o *op) {
	for _, r := range g.temps {
		g.release(r)
	}
	g.temps = g.temps[:0]
	seen := map[*value]bool{}
	for _, v := range o.src {
		if r, ok := g.vals[v]; ok && g.dies(v, i) && !seen[v] {
			seen[v] = true
			g.release(r)
		}
	}
}

// take removes r from the free registers.
func (g *neon) take(r int) {
	for i, f := range g.free {
		if f == r {
			g.free = append(g.free[:i:i], g.free[i+1:]...)
			return
		}
	}
	g.spill = true // the caller starts again with fewer constants in registers
}

func (g *neon) fused(i int, o *op) {
	name := map[opcode]string{opFMA: "FMLA", opFNMA: "FMLS"}[o.code]
	va, vb, vc := o.src[0], o.src[1], o.src[2]
	a, b, c := g.in(va), g.in(vb), g.in(vc)
	switch {
	case o.dst == g.k.accOut && vc.acc:
		g.vals[o.dst] = g.acc
		g.ins(name, g.acc, a, b)
		g.finish(i, o)
	case g.dies(vc, i) && vc != va && vc != vb && o.dst != g.k.accOut:
		g.ins(name, c, a, b)
		g.finish(i, o)
		g.take(c)
		g.vals[o.dst] = c
	default:
		d := g.reg()
		g.ins("ORR", d, c, c)
		g.ins(name, d, a, b)
		g.finish(i, o)
		g.settle(o, d)
	}
}

// settle records that the result of o is in register d, and carries it on if it is the accumulator.
func (g *neon) settle(o *op, d int) {
	if o.dst == g.k.accOut {
		g.ins("ORR", g.acc, d, d)
		g.release(d)
		d = g.acc
	}
	g.vals[o.dst] = d
}

func (g *neon) compare(i int, o *op) {
	a, b := g.in(o.src[0]), g.in(o.src[1])
	if o.imm == uno {
		t := g.reg()
		g.ins("FCMEQ", t, b, b)
		g.finish(i, o)
		d := g.out(o)
		g.ins("FCMEQ", d, a, a)
		g.ins("AND", d, d, t)
		g.ins("NOT", d, d)
		g.release(t)
		return
	}
	g.finish(i, o)
	d := g.out(o)
	switch o.imm {
	case eq:
		g.ins("FCMEQ", d, a, b)
	case ne:
		g.ins("FCMEQ", d, a, b)
		g.ins("NOT", d, d)
	case lt:
		g.ins("FCMGT", d, b, a)
	case le:
		g.ins("FCMGE", d, b, a)
	case gt:
		g.ins("FCMGT", d, a, b)
	case ge:
		g.ins("FCMGE", d, a, b)
	}
}

// pointer is the register that walks along an argument, or one row of it.
func (g *neon) pointer(arg, row int) int {
	if g.k.isMatrix(arg) {
		return g.rows[arg][row]
	}
	return g.base[arg]
}

func (g *neon) load(o *op) {
	p := g.pointer(o.imm, o.row)
	d := g.out(o)
	step := "" // column kernels load args[0] and then store it: only the store moves on
	if !(g.k.rows > 0 && o.imm == 0) {
		step = ".P"
	}
	at := func(n int) string {
		if step == "" {
			return fmt.Sprintf("(R%d)", p)
		}
		return fmt.Sprintf("%d(R%d)", n, p)
	}
	switch e := g.k.args[o.imm].elem; {
	case (e == f32 || e == i32) && g.inTail:
		g.line("FMOVS%s %s, F%d", step, at(4), d)
	case e == f32 || e == i32:
		g.line("VLD1%s %s, [V%d.B16]", step, at(16), d)
	case e == bool8 && g.inTail:
		g.line("MOVBU.P 1(R%d), R%d", p, scratch)
		g.line("FMOVS R%d, F%d", scratch, d)
		g.ins("NEG", d, d)
	case e == bool8:
		g.line("FMOVS.P 4(R%d), F%d", p, d)
		g.ins("UXTL8", d, d)
		g.ins("UXTL", d, d)
		g.ins("NEG", d, d)
	case (e == u16 || e == f16) && g.inTail:
		g.line("MOVHU.P 2(R%d), R%d", p, scratch)
		g.line("FMOVS R%d, F%d", scratch, d)
		g.widen(e, d)
	case e == u16 || e == f16:
		g.line("FMOVD.P 8(R%d), F%d", p, d)
		g.widen(e, d)
	case e == f64 && g.inTail:
		g.line("FMOVD.P 8(R%d), F%d", p, d)
		g.ins("FCVTND", d, d)
	case e == f64:
		t := g.reg()
		g.line("VLD1.P 16(R%d), [V%d.B16]", p, d)
		g.line("VLD1.P 16(R%d), [V%d.B16]", p, t)
		g.ins("FCVTND", d, d)
		g.ins("FCVTN2D", d, t)
		g.release(t)
	}
}

func (g *neon) widen(e elem, d int) {
	if e == f16 {
		g.ins("FCVTL", d, d)
		return
	}
	g.ins("UXTL", d, d)
}

// store writes register r; unless last, the register must keep its value.
func (g *neon) store(arg, r int, last bool) {
	p := g.pointer(arg, 0)
	e := g.k.args[arg].elem
	if (e == f32 || e == i32) && g.inTail {
		g.line("FMOVS.P F%d, 4(R%d)", r, p)
		return
	}
	if e == f32 || e == i32 {
		g.line("VST1.P [V%d.B16], 16(R%d)", r, p)
		return
	}
	t := g.reg()
	defer g.release(t)
	switch {
	case e == bool8 && g.inTail:
		g.line("FMOVS F%d, R%d", r, scratch)
		g.line("AND $1, R%d, R%d", scratch, scratch)
		g.line("MOVB.P R%d, 1(R%d)", scratch, p)
	case e == bool8:
		g.ins("XTN", t, r)
		g.ins("XTN8", t, t)
		g.ins("USHR8", t, t)
		g.line("FMOVS.P F%d, 4(R%d)", t, p)
	case e == u16 || e == f16:
		if e == f16 {
			g.ins("FCVTN", t, r)
		} else {
			g.ins("XTN", t, r)
		}
		if !g.inTail {
			g.line("FMOVD.P F%d, 8(R%d)", t, p)
			return
		}
		g.line("FMOVS F%d, R%d", t, scratch)
		g.line("MOVH.P R%d, 2(R%d)", scratch, p)
	case e == f64:
		g.ins("FCVTLD", t, r)
		if g.inTail {
			g.line("FMOVD.P F%d, 8(R%d)", t, p)
			return
		}
		g.line("VST1.P [V%d.B16], 16(R%d)", t, p)
		g.ins("FCVTL2D", t, r)
		g.line("VST1.P [V%d.B16], 16(R%d)", t, p)
	}
}
