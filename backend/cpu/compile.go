package cpu

import (
	"slices"

	"github.com/gomlx/compute"
)

// compile writes the program of a group of nodes. external tells which nodes
// are needed outside and slotOf where a root lies.
func (b *planning) compile(gr *group) *program {
	w := &writer{b: b, gr: gr, p: &program{row: 1}, values: map[*node]int{}, loaded: map[loadKey]int{}}
	w.p.n = product(gr.dims)
	if gr.split >= 0 {
		w.p.row = product(gr.dims[gr.split:])
	}
	if gr.fold != nil {
		w.p.fold = newFold(gr)
	}
	for _, n := range gr.nodes {
		w.node(n)
	}
	w.finish()
	return w.p
}

// writer is the state of compile.
type writer struct {
	b      *planning
	gr     *group
	p      *program
	values map[*node]int // register of a node of the group
	loaded map[loadKey]int
	cost   int // operations an element
}

type loadKey struct {
	root  *node
	at    string // offset, size and strides
	forms string
}

func (w *writer) register(size int, perRow bool) int {
	w.p.regs = append(w.p.regs, register{size: size, perRow: perRow, at: 0})
	return len(w.p.regs) - 1
}

// node writes the instructions of one node.
func (w *writer) node(n *node) {
	p := w.p
	if n.op == opReduce {
		src := w.operand(n, 0, n.ins[0].dims, false, false)
		if p.fold != nil {
			p.fold.add(w, n, src)
			return
		}
		f := n.attr.(folding)
		dst := w.register(n.dt.Size(), true)
		p.code = append(p.code, instr{kind: foldRows, rows: w.b.k.rows(f.reduction, n.dt), dst: dst, src: [3]int{src, -1, -1}})
		w.values[n] = dst
		w.cost++
		w.store(n, dst)
		return
	}
	perRow := w.gr.split >= 0 && w.gr.rowNodes[n]
	in := instr{src: [3]int{-1, -1, -1}, perRow: perRow}
	// First choice: pass scalars as such, and values that have one element a
	// row as scalars row by row.
	var s scalars
	byRow := false
	for i := range n.ins {
		switch w.shapeOf(n, i, perRow) {
		case isScalar:
			s |= 1 << i
		case isRowScalar:
			s |= 1 << i
			byRow = true
		}
	}
	if byRow && p.row < 16 {
		s = 0
	}
	k := w.b.k.of(n, s)
	if k == nil || s == 0 {
		s, byRow = 0, false
		k = w.b.k.of(n, 0)
	}
	in.kernel = k
	for i := range n.ins {
		in.src[i] = w.operand(n, i, n.dims, perRow, s&(1<<i) != 0)
	}
	size := n.dt.Size()
	in.dst = w.register(size, perRow)
	if byRow {
		in.kind = eachRow
		in.stepSize[3] = p.row * size
		for i, r := range in.src {
			if r < 0 {
				continue
			}
			switch {
			case w.isScalarReg(r):
			case p.regs[r].perRow:
				in.stepSize[i] = p.regs[r].size
			default:
				in.stepSize[i] = p.row * p.regs[r].size
			}
		}
	}
	p.code = append(p.code, in)
	w.values[n] = in.dst
	w.cost += costOf(n.op)
	w.store(n, in.dst)
}

func costOf(op compute.OpType) int {
	switch op {
	case compute.OpTypeExp, compute.OpTypeLog, compute.OpTypeTanh, compute.OpTypeLogistic, compute.OpTypeErf,
		compute.OpTypeLog1p, compute.OpTypeExpm1, compute.OpTypeSin, compute.OpTypeCos:
		return 8
	case compute.OpTypePow:
		return 24
	case compute.OpTypeDiv, compute.OpTypeSqrt, compute.OpTypeRsqrt:
		return 3
	}
	return 1
}

// store puts the value of n into memory if somebody outside needs it.
func (w *writer) store(n *node, reg int) {
	if slot, ok := w.b.slotOf[n]; ok {
		w.p.stores = append(w.p.stores, store{reg, slot, n.dt.Size()})
		w.p.regs[reg].at = -1
	}
}

// What an operand looks like to an instruction.
type operandShape uint8

const (
	isVector operandShape = iota
	isScalar
	isRowScalar
)

func (w *writer) shapeOf(n *node, i int, perRow bool) operandShape {
	x := n.ins[i]
	if r, ok := w.values[x.root]; ok {
		if w.p.regs[r].perRow && !perRow {
			return isRowScalar
		}
		return isVector
	}
	for k, st := range x.strides {
		if st != 0 && x.dims[k] != 1 {
			return isVector
		}
	}
	return isScalar
}

func (w *writer) isScalarReg(r int) bool {
	for i := range w.p.loads {
		if w.p.loads[i].reg == r {
			return w.p.loads[i].kind == scalar
		}
	}
	return false
}

// operand returns the register of operand i of n; as a scalar if asked, and
// otherwise as a block.
func (w *writer) operand(n *node, i int, dims []int, perRow, asScalar bool) int {
	x := n.ins[i]
	p := w.p
	if r, ok := w.values[x.root]; ok {
		if p.regs[r].perRow && !perRow && !asScalar && p.row > 1 {
			return w.spread(r)
		}
		return r
	}
	strides := squeeze(x.strides, x.dims)
	space := w.gr.dims
	if perRow {
		space = space[:w.gr.split]
	}
	if len(space) == 0 { // a single element a row or in all
		space, strides = []int{1}, []int{0}
	}
	if p.fold != nil {
		space, strides = p.fold.arrange(space), p.fold.arrange(strides)
	}
	l := load{slot: w.b.slot(x.root), offset: x.offset * x.dt.Size(), size: x.dt.Size()}
	l.dims, l.strides = mergeAxes(space, strides)
	l.kind, l.period = kindOf(l.dims, l.strides)
	if asScalar {
		l.kind = scalar
	}
	key := loadKey{x.root, string(appendInt(appendInt(appendInt(nil, l.offset), l.size), int(l.kind))), formKey(l, perRow)}
	if r, ok := w.loaded[key]; ok {
		return r
	}
	l.reg = w.register(l.size, perRow)
	p.loads = append(p.loads, l)
	w.loaded[key] = l.reg
	w.cost++
	return l.reg
}

func formKey(l load, perRow bool) string {
	var k []byte
	for i := range l.dims {
		k = appendInt(appendInt(k, l.dims[i]), l.strides[i])
	}
	if perRow {
		k = append(k, 'r')
	}
	return string(k)
}

func (w *writer) spread(r int) int {
	key := loadKey{nil, string(appendInt(nil, r)), "spread"}
	if s, ok := w.loaded[key]; ok {
		return s
	}
	s := w.register(w.p.regs[r].size, false)
	w.p.code = append(w.p.code, instr{kind: spread, dst: s, src: [3]int{r, -1, -1}})
	w.loaded[key] = s
	w.cost++
	return s
}

// squeeze drops the strides of axes of size 1.
func squeeze(strides, dims []int) []int {
	var out []int
	for k, d := range dims {
		if d != 1 {
			out = append(out, strides[k])
		}
	}
	return out
}

// squeezed drops the dimensions of size 1.
func squeezed(dims []int) []int {
	return slices.DeleteFunc(slices.Clone(dims), func(d int) bool { return d == 1 })
}

// mergeAxes joins neighbouring axes that one stride can walk.
func mergeAxes(dims, strides []int) (d, s []int) {
	for k := range dims {
		if n := len(d); n > 0 && s[n-1] == strides[k]*dims[k] {
			d[n-1] *= dims[k]
			s[n-1] = strides[k]
			continue
		}
		d, s = append(d, dims[k]), append(s, strides[k])
	}
	return d, s
}

// kindOf finds the cheapest way to load.
func kindOf(dims, strides []int) (loadKind, int) {
	last := len(dims) - 1
	switch {
	case product(dims) == 0:
		return strided, 0
	case last == 0 && strides[0] == 1:
		return direct, 0
	case last == 0 && strides[0] == 0:
		return periodic, 1
	case last == 1 && strides[0] == 0 && strides[1] == 1 && dims[1] <= maxBlockLen:
		return periodic, dims[1]
	}
	return strided, 0
}

// finish chooses the block and task sizes and gives registers their places.
func (w *writer) finish() {
	p := w.p
	unit := p.row // blocks are multiples of this
	for _, l := range p.loads {
		if l.kind == periodic && !p.regs[l.reg].perRow {
			unit = lcm(unit, l.period)
		}
	}
	if unit > 2*maxBlockLen {
		unit = p.row
	}
	for i := range p.loads {
		l := &p.loads[i]
		if l.kind != periodic {
			continue
		}
		rowPeriodic := p.regs[l.reg].perRow && l.period > 1
		if rowPeriodic || !p.regs[l.reg].perRow && unit%l.period != 0 || p.fold != nil && p.fold.long && l.period > 1 {
			l.kind = strided
		}
	}
	perElement := w.assign()
	p.block = min(max(blockBytes/max(perElement, 1), minBlockLen), maxBlockLen)
	p.block = max(p.block/unit, 1) * unit
	if p.fold != nil {
		p.fold.cut(w)
	} else {
		p.block = min(p.block, roundUp(max(p.n, 1), unit))
		want := max(taskCost/max(w.cost, 1), (p.n+maxTasks-1)/maxTasks)
		p.task = roundUp(max(want, 1), p.block)
	}
	p.place()
}

func roundUp(n, unit int) int { return (n + unit - 1) / unit * unit }

func lcm(a, b int) int {
	x, y := a, b
	for y != 0 {
		x, y = y, x%y
	}
	return a / x * b
}

// assign gives registers that are never in use at once the same number of a
// scratch area; the areas become offsets in place. It returns the bytes that
// all areas need for each element.
func (w *writer) assign() int {
	p := w.p
	last := make([]int, len(p.regs))
	for i := range last {
		last[i] = -1
	}
	for i, in := range p.code {
		for _, r := range in.src {
			if r >= 0 {
				last[r] = i
			}
		}
	}
	if p.fold != nil {
		for _, o := range p.fold.outs {
			last[o.src] = len(p.code)
		}
	}
	type area struct {
		size   int
		perRow bool
		busy   int // last instruction that reads it
	}
	var areas []area
	take := func(r, from int) {
		reg := &p.regs[r]
		for i := range areas {
			a := &areas[i]
			if a.busy <= from && a.size == reg.size && a.perRow == reg.perRow {
				a.busy, reg.at = max(last[r], from), i
				return
			}
		}
		reg.at = len(areas)
		areas = append(areas, area{reg.size, reg.perRow, max(last[r], from)})
	}
	for _, l := range p.loads {
		switch l.kind {
		case direct, scalar:
			p.regs[l.reg].at = -1
		case periodic:
			last[l.reg] = len(p.code) // kept for all blocks
			take(l.reg, -1)
		default:
			take(l.reg, -1)
		}
	}
	for i, in := range p.code {
		if p.regs[in.dst].at >= 0 {
			take(in.dst, i)
		}
	}
	total := 0
	for _, a := range areas {
		if !a.perRow {
			total += a.size
		}
	}
	return total
}

// place turns the areas into offsets for the chosen block.
func (p *program) place() {
	offset := map[int]int{}
	for i := range p.regs {
		r := &p.regs[i]
		if r.at < 0 {
			continue
		}
		at, ok := offset[r.at]
		if !ok {
			at = p.bytes
			offset[r.at] = at
			count := p.block
			if r.perRow {
				count /= p.row
			}
			p.bytes += roundUp(count*r.size, 64)
		}
		r.at = at
	}
	if p.fold != nil {
		p.fold.place(p)
	}
}
