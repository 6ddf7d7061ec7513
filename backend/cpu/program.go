package cpu

import (
	"slices"
	"unsafe"

	"github.com/cohort-learning/cohort/backend/cpu/loops"
	"github.com/cohort-learning/cohort/backend/cpu/workers"
)

// A program computes a group of element-wise nodes, and reductions among them,
// over one index space, block by block.
//
// The space is a row-major box of n elements. In the map form each task takes
// a range of elements and runs all instructions on one block of it after the
// other; intermediate values live in scratch memory that stays in cache. If
// the space is also cut into rows of a fixed number of elements, blocks are
// whole rows, and a value may have one element a row: the fold of a row, or
// something computed from such. In the fold form the space is prefix × middle
// × suffix, and results are folds over the middle.
type program struct {
	n      int // elements of the space
	row    int // elements of a row; 1 if there are none
	block  int // elements of a block, a multiple of row
	task   int // elements of a task, a multiple of block
	loads  []load
	code   []instr
	regs   []register
	bytes  int // scratch memory of a worker
	stores []store
	fold   *fold // nil in the map form
}

// register is where a value of the current block lies.
type register struct {
	size   int  // bytes an element
	perRow bool // one element a row
	at     int  // offset in the scratch memory, or −1 if it lies elsewhere
}

// load makes elements of memory available in a register.
type load struct {
	kind    loadKind
	reg     int
	slot    int
	offset  int // bytes
	size    int
	dims    []int // for strided loads: the space, merged for these strides
	strides []int
	period  int // for periodic loads: elements after which they repeat
}

type loadKind uint8

const (
	direct   loadKind = iota // in the order of the space: no copy
	scalar                   // the same element everywhere: no copy
	periodic                 // repeats within a block: copied once a task
	strided                  // copied block by block
)

// store says that a register lies in the memory of a result.
type store struct{ reg, slot, size int }

// instr is one step on a block.
type instr struct {
	kind     instrKind
	kernel   loops.Kernel
	rows     loops.RowKernel
	dst      int
	src      [3]int // registers; −1 if unused
	stepSize [4]int // for eachRow: bytes a row by which dst and src advance
	perRow   bool   // counts rows, not elements
}

type instrKind uint8

const (
	elementwise instrKind = iota
	eachRow               // kernel once a row, operands that have one element a row as scalars
	foldRows              // one element a row from a row
	spread                // a row from one element
)

// maxRegs bounds the registers of a program.
const maxRegs = 96

const (
	blockBytes  = 24 << 10 // scratch that a block should fit in
	minBlockLen = 256      // elements
	maxBlockLen = 4096
	taskCost    = 48 << 10 // element operations that are worth a task
	maxTasks    = 64
)

// programCall is a program in one frame.
type programCall struct {
	p     *program
	base  []unsafe.Pointer // of the frame
	tasks int
	job   foldJob
}

func (c *programCall) Tasks() int { return c.tasks }

// Do runs the map form on elements task·p.task and on.
func (c *programCall) Do(task int, w *workers.Worker) {
	p := c.p
	var regs [maxRegs]unsafe.Pointer
	scratch := w.Bytes(p.bytes)
	lo := task * p.task
	hi := min(lo+p.task, p.n)
	c.begin(&regs, scratch, lo, min(p.block, hi-lo))
	for at := lo; at < hi; at += p.block {
		c.step(&regs, scratch, at, min(p.block, hi-at))
	}
}

// begin sets the registers that do not change from block to block.
func (c *programCall) begin(regs *[maxRegs]unsafe.Pointer, scratch unsafe.Pointer, lo, n int) {
	p := c.p
	for i := range p.regs {
		if at := p.regs[i].at; at >= 0 {
			regs[i] = unsafe.Add(scratch, at)
		}
	}
	for i := range p.loads {
		l := &p.loads[i]
		switch l.kind {
		case scalar:
			regs[l.reg] = unsafe.Add(c.base[l.slot], l.offset)
		case periodic:
			from := unsafe.Add(c.base[l.slot], l.offset)
			if l.period == 1 {
				loops.Fill(regs[l.reg], from, l.size, n)
				continue
			}
			d := loops.Slice[byte](regs[l.reg], n*l.size)
			for done := copy(d, loops.Slice[byte](from, min(l.period, n)*l.size)); done < len(d); {
				done += copy(d[done:], d[:done])
			}
		}
	}
}

// step computes the block of n elements that begins at element at.
func (c *programCall) step(regs *[maxRegs]unsafe.Pointer, scratch unsafe.Pointer, at, n int) {
	p := c.p
	rows, firstRow := n, at
	if p.row > 1 {
		rows, firstRow = n/p.row, at/p.row
	}
	for i := range p.loads {
		l := &p.loads[i]
		if l.kind != direct && l.kind != strided {
			continue
		}
		first, count := at, n
		if p.regs[l.reg].perRow {
			first, count = firstRow, rows
		}
		from := unsafe.Add(c.base[l.slot], l.offset)
		if l.kind == direct {
			regs[l.reg] = unsafe.Add(from, first*l.size)
		} else {
			loops.CopyStrided(regs[l.reg], from, l.size, l.dims, l.strides, first, count)
		}
	}
	for i := range p.stores {
		s := &p.stores[i]
		first := at
		if p.regs[s.reg].perRow {
			first = firstRow
		}
		regs[s.reg] = unsafe.Add(c.base[s.slot], first*s.size)
	}
	for i := range p.code {
		in := &p.code[i]
		var a, b, d unsafe.Pointer
		a = regs[in.src[0]]
		if in.src[1] >= 0 {
			b = regs[in.src[1]]
		}
		if in.src[2] >= 0 {
			d = regs[in.src[2]]
		}
		switch in.kind {
		case elementwise:
			count := n
			if in.perRow {
				count = rows
			}
			in.kernel(regs[in.dst], a, b, d, count)
		case eachRow:
			for r := range rows {
				in.kernel(unsafe.Add(regs[in.dst], r*in.stepSize[3]), unsafe.Add(a, r*in.stepSize[0]),
					unsafe.Add(b, r*in.stepSize[1]), unsafe.Add(d, r*in.stepSize[2]), p.row)
			}
		case foldRows:
			in.rows(regs[in.dst], a, rows, p.row)
		case spread:
			size := p.regs[in.dst].size
			for r := range rows {
				loops.Fill(unsafe.Add(regs[in.dst], r*p.row*size), unsafe.Add(a, r*size), size, p.row)
			}
		}
	}
}

// run executes the program.
func (c *programCall) run(s *workers.Session) {
	if c.p.fold != nil {
		c.runFold(s)
		return
	}
	s.Run(c)
}

// inPlace lists pairs of a slot that is read and one that is written which may
// be the same memory: each element of the first is read for the last time
// when, or before, the element of the second at its place is written.
func (p *program) inPlace() [][2]int {
	var pairs [][2]int
	for _, l := range p.loads {
		if l.kind != direct || l.offset != 0 {
			continue
		}
		alone, last := true, 0
		for _, o := range p.loads {
			alone = alone && (o.slot != l.slot || o.reg == l.reg)
		}
		for i, in := range p.code {
			if slices.Contains(in.src[:], l.reg) {
				last = i
			}
		}
		for _, s := range p.stores {
			r := &p.regs[s.reg]
			if !alone || s.size != l.size || r.perRow != p.regs[l.reg].perRow {
				continue
			}
			for i, in := range p.code {
				if in.dst == s.reg && i >= last && (in.kind == elementwise || in.kind == eachRow) && !p.folds(l.reg) {
					pairs = append(pairs, [2]int{l.slot, s.slot})
				}
			}
		}
	}
	return pairs
}

// folds tells whether a register is folded at the end of each block.
func (p *program) folds(reg int) bool {
	if p.fold == nil {
		return false
	}
	return slices.ContainsFunc(p.fold.outs, func(o foldOut) bool { return o.src == reg })
}
