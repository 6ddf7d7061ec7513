package main

import (
	"fmt"
	"math"
)

// A kernel is described once, as straight-line code over vectors of unknown width. Each emitter
// instantiates it for its instruction set: in the main loop, unrolled, and for the tail.

// elem is the type of a slice element in memory. In registers everything is a vector of 32-bit
// lanes, or a mask.
type elem int

const (
	f32   elem = iota
	i32        // int32
	f64        // float64 in memory, converted from and to float32 lanes
	u16        // uint16 in memory, the low half of each lane
	f16        // binary16 in memory, converted from and to float32 lanes
	bool8      // Go bool in memory, a mask in registers
)

func (e elem) size() int { return [...]int{4, 4, 8, 2, 2, 1}[e] }

func (e elem) goType() string {
	return [...]string{"float32", "int32", "float64", "uint16", "uint16", "bool"}[e]
}

// arg is a parameter of a kernel: a slice, or a float32 that is broadcast to all lanes.
type arg struct {
	name   string
	elem   elem
	scalar bool
}

// opcode names an operation on values; see builder's methods for what they compute.
type opcode int

const (
	opLoad opcode = iota // arg imm, row imm2
	opStore
	opAdd
	opSub
	opMul
	opDiv
	opFMA
	opFNMA
	opSqrt
	opRound
	opMinRaw
	opMaxRaw
	opMinimum
	opMaximum
	opAnd
	opOr
	opXor
	opAndNot
	opCmp
	opSel
	opMaskAnd
	opMaskOr
	opMaskNot
	opIntAdd
	opIntSub
	opShl
	opSar
	opShr
	opIntMin
	opIntEq
	opToInt
	opToFloat
)

// Rounding modes of opRound, numbered as in the x86 immediate.
const (
	toEven = iota
	down
	up
	towardsZero
)

// Predicates of opCmp: ordered and quiet, except ne, which is true for NaN, and uno, which is true
// only for NaN.
const (
	eq = iota
	ne
	lt
	le
	gt
	ge
	uno
)

// value is one result of an operation, a constant, a broadcast parameter or the accumulator.
type value struct {
	id    int
	mask  bool
	konst bool
	bits  uint32 // of a constant
	param int    // index of the broadcast argument, else -1
	acc   bool
}

// fixed reports whether the value lives outside the body: it must not be overwritten.
func (v *value) fixed() bool { return v.konst || v.param >= 0 || v.acc }

// op is one operation. dst is nil for stores.
type op struct {
	code opcode
	dst  *value
	src  []*value
	imm  int
	row  int
}

// kernel is a function to generate.
type kernel struct {
	name string
	args []arg
	body *builder

	unroll int // vectors per turn of the main loop

	// Reductions run over groups of 64 lanes and return the folded accumulator.
	reduce bool
	init   float32
	fold   func(b *builder, x, y *value) *value
	accOut *value

	// Column kernels run over rows: args[0] is the slice of partial results.
	rows int // rows per group; 0 for other kernels
}

// builder records the operations of a body.
type builder struct {
	args   []arg
	ops    []op
	n      int
	konsts map[uint32]*value
	params map[int]*value
	order  []*value // constants and parameters in order of first use
	loaded map[[2]int]*value
	acc    *value
}

func newBuilder(args []arg) *builder {
	return &builder{args: args, konsts: map[uint32]*value{}, params: map[int]*value{}, loaded: map[[2]int]*value{}}
}

func (b *builder) val() *value { b.n++; return &value{id: b.n, param: -1} }

func (b *builder) index(name string) int {
	for i, a := range b.args {
		if a.name == name {
			return i
		}
	}
	panic(fmt.Sprintf("no argument %q in %v", name, b.args))
}

func (b *builder) emit(code opcode, imm int, mask bool, src ...*value) *value {
	d := b.val()
	d.mask = mask
	b.ops = append(b.ops, op{code: code, dst: d, src: src, imm: imm})
	return d
}

// num is a float32 constant, bits one given by its bits.
func (b *builder) num(x float32) *value { return b.bits(math.Float32bits(x)) }

func (b *builder) bits(u uint32) *value {
	if v := b.konsts[u]; v != nil {
		return v
	}
	v := b.val()
	v.konst, v.bits = true, u
	b.konsts[u] = v
	b.order = append(b.order, v)
	return v
}

// load reads the argument: a vector, a mask for bool slices, or the broadcast scalar.
func (b *builder) load(name string) *value { return b.loadRow(name, 0) }

// loadRow reads the vector of the given row of a column kernel's matrix argument.
func (b *builder) loadRow(name string, row int) *value {
	i := b.index(name)
	if b.args[i].scalar {
		if b.params[i] == nil {
			v := b.val()
			v.param = i
			b.params[i] = v
			b.order = append(b.order, v)
		}
		return b.params[i]
	}
	if v := b.loaded[[2]int{i, row}]; v != nil {
		return v
	}
	d := b.val()
	d.mask = b.args[i].elem == bool8
	b.ops = append(b.ops, op{code: opLoad, dst: d, imm: i, row: row})
	b.loaded[[2]int{i, row}] = d
	return d
}

func (b *builder) store(name string, v *value) {
	b.ops = append(b.ops, op{code: opStore, src: []*value{v}, imm: b.index(name)})
}

// accumulator is the value that a reduction carries from vector to vector.
func (b *builder) accumulator() *value {
	if b.acc == nil {
		b.acc = b.val()
		b.acc.acc = true
	}
	return b.acc
}

func (b *builder) add(x, y *value) *value       { return b.emit(opAdd, 0, false, x, y) }
func (b *builder) sub(x, y *value) *value       { return b.emit(opSub, 0, false, x, y) }
func (b *builder) mul(x, y *value) *value       { return b.emit(opMul, 0, false, x, y) }
func (b *builder) div(x, y *value) *value       { return b.emit(opDiv, 0, false, x, y) }
func (b *builder) fma(x, y, z *value) *value    { return b.emit(opFMA, 0, false, x, y, z) }  // x·y + z
func (b *builder) fnma(x, y, z *value) *value   { return b.emit(opFNMA, 0, false, x, y, z) } // z - x·y
func (b *builder) sqrt(x *value) *value         { return b.emit(opSqrt, 0, false, x) }
func (b *builder) round(m int, x *value) *value { return b.emit(opRound, m, false, x) }

// minRaw and maxRaw are NaN if y is NaN; x must not be. The sign of a zero result is undefined.
func (b *builder) minRaw(x, y *value) *value { return b.emit(opMinRaw, 0, false, x, y) }
func (b *builder) maxRaw(x, y *value) *value { return b.emit(opMaxRaw, 0, false, x, y) }

// minimum and maximum propagate NaN and order -0 below +0.
func (b *builder) minimum(x, y *value) *value { return b.emit(opMinimum, 0, false, x, y) }
func (b *builder) maximum(x, y *value) *value { return b.emit(opMaximum, 0, false, x, y) }

func (b *builder) and(x, y *value) *value    { return b.emit(opAnd, 0, false, x, y) }
func (b *builder) or(x, y *value) *value     { return b.emit(opOr, 0, false, x, y) }
func (b *builder) xor(x, y *value) *value    { return b.emit(opXor, 0, false, x, y) }
func (b *builder) andNot(x, y *value) *value { return b.emit(opAndNot, 0, false, x, y) } // x &^ y

func (b *builder) cmp(pred int, x, y *value) *value { return b.emit(opCmp, pred, true, x, y) }
func (b *builder) sel(m, x, y *value) *value        { return b.emit(opSel, 0, false, m, x, y) } // m ? x : y
func (b *builder) maskAnd(x, y *value) *value       { return b.emit(opMaskAnd, 0, true, x, y) }
func (b *builder) maskOr(x, y *value) *value        { return b.emit(opMaskOr, 0, true, x, y) }
func (b *builder) maskNot(x *value) *value          { return b.emit(opMaskNot, 0, true, x) }

func (b *builder) intAdd(x, y *value) *value  { return b.emit(opIntAdd, 0, false, x, y) }
func (b *builder) intSub(x, y *value) *value  { return b.emit(opIntSub, 0, false, x, y) }
func (b *builder) shl(x *value, n int) *value { return b.emit(opShl, n, false, x) }
func (b *builder) sar(x *value, n int) *value { return b.emit(opSar, n, false, x) }
func (b *builder) shr(x *value, n int) *value { return b.emit(opShr, n, false, x) }
func (b *builder) intMin(x, y *value) *value  { return b.emit(opIntMin, 0, false, x, y) }
func (b *builder) intEq(x, y *value) *value   { return b.emit(opIntEq, 0, true, x, y) }
func (b *builder) toInt(x *value) *value      { return b.emit(opToInt, 0, false, x) } // towards zero
func (b *builder) toFloat(x *value) *value    { return b.emit(opToFloat, 0, false, x) }

// lastUses maps each value that the body computes to the index of the operation that reads it last.
func (b *builder) lastUses(out *value) map[*value]int {
	last := map[*value]int{}
	for i, o := range b.ops {
		for _, s := range o.src {
			last[s] = i
		}
		if o.dst != nil {
			last[o.dst] = max(last[o.dst], i)
		}
	}
	if out != nil {
		last[out] = len(b.ops)
	}
	return last
}

// hoistable lists the constants and parameters, the most used first.
func (b *builder) hoistable() []*value {
	uses := map[*value]int{}
	for _, o := range b.ops {
		for _, s := range o.src {
			uses[s]++
		}
	}
	vs := append([]*value(nil), b.order...)
	for i := range vs { // stable selection by falling number of uses; parameters always come first
		for j := i; j > 0 && rank(vs[j], uses) > rank(vs[j-1], uses); j-- {
			vs[j], vs[j-1] = vs[j-1], vs[j]
		}
	}
	return vs
}

func rank(v *value, uses map[*value]int) int {
	if v.param >= 0 {
		return math.MaxInt
	}
	return uses[v]
}
