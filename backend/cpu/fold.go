package cpu

import (
	"unsafe"

	"github.com/cohort-learning/cohort/backend/cpu/loops"
	"github.com/cohort-learning/cohort/backend/cpu/workers"
)

// fold is the ending of a program in the fold form: over a space prefix ×
// middle × suffix it folds the middle axis. The work is cut into units: one
// prefix, a chunk of the middle, and all of the suffix or, if that is long, a
// piece of it. Units leave partial results, which are combined in the order of
// the chunks; the cut depends on shapes alone.
type fold struct {
	order                  []int // axes of the space, those folded together; nil if they are already
	prefix, middle, suffix int
	long                   bool // the suffix is cut into pieces of a block
	lanes                  int  // rows of the suffix that are accumulated side by side
	chunk, chunks          int  // rows of the middle in a unit, units along the middle
	pieces                 int  // units along the suffix
	units, perTask         int
	outs                   []foldOut
}

// foldOut is one result.
type foldOut struct {
	src      int // register with the values
	slot     int
	partial  int // slot of the partial results; −1 if there is one chunk
	size     int // bytes an element
	op       loops.Kernel
	identity unsafe.Pointer
	at       int // offset of the accumulators in the scratch memory
}

// newFold analyses the axes of the group's space.
func newFold(gr *group) *fold {
	f := &fold{prefix: 1, middle: 1, suffix: 1, lanes: 1, pieces: 1}
	folded := make([]bool, len(gr.dims))
	for _, k := range gr.fold {
		folded[k] = true
		f.middle *= gr.dims[k]
	}
	first, last := gr.fold[0], gr.fold[len(gr.fold)-1]
	if last-first+1 == len(gr.fold) {
		f.prefix, f.suffix = product(gr.dims[:first]), product(gr.dims[last+1:])
	} else {
		for k := range gr.dims {
			if !folded[k] {
				f.order = append(f.order, k)
				f.prefix *= gr.dims[k]
			}
		}
		f.order = append(f.order, gr.fold...)
	}
	f.long = f.suffix > maxBlockLen
	return f
}

// arrange puts per-axis values into the order of the fold.
func (f *fold) arrange(v []int) []int {
	if f.order == nil {
		return v
	}
	out := make([]int, len(v))
	for i, k := range f.order {
		out[i] = v[k]
	}
	return out
}

func (f *fold) add(w *writer, n *node, src int) {
	red := n.attr.(folding).reduction
	f.outs = append(f.outs, foldOut{
		src: src, slot: w.b.slot(n), partial: -1, size: n.dt.Size(),
		op: w.b.k.binary(red.Op(n.dt), n.dt, 0), identity: red.Identity(n.dt),
	})
	w.cost++
}

// cut chooses blocks, units and tasks.
func (f *fold) cut(w *writer) {
	p := w.p
	period := 1
	for i := range p.loads {
		l := &p.loads[i]
		if l.kind == periodic {
			if (f.middle*f.suffix)%l.period != 0 || l.period > maxBlockLen {
				l.kind = strided
				continue
			}
			period = lcm(period, l.period)
		}
	}
	if period > 2*maxBlockLen {
		period = 1
		for i := range p.loads {
			if l := &p.loads[i]; l.kind == periodic && l.period > 1 {
				l.kind = strided
			}
		}
	}
	perPrefix := f.middle * f.suffix
	want := max(taskCost/max(w.cost, 1), 1) // elements of a unit
	if f.long {
		p.block = min(p.block, f.suffix)
		f.pieces = (f.suffix + p.block - 1) / p.block
		rows := max(want/p.block, 1)
		f.chunk = max(rows, (f.middle+maxTasks-1)/maxTasks)
		if f.prefix*f.pieces >= maxTasks {
			f.chunk = f.middle
		}
	} else {
		for f.lanes = 1; f.lanes*2*f.suffix <= 256 && lcm(period, f.lanes*2*f.suffix) <= maxBlockLen; f.lanes *= 2 {
		}
		unit := lcm(period, f.lanes*f.suffix)
		p.block = max(p.block/unit, 1) * unit
		rows := p.block / f.suffix
		f.chunk = roundUp(max(want/f.suffix, (f.middle+maxTasks-1)/maxTasks, 1), rows)
		if f.prefix >= maxTasks || perPrefix < 2*want {
			f.chunk = f.middle
		}
		if f.chunk >= f.middle { // small folds need no large blocks
			p.block = min(p.block, roundUp(perPrefix, unit))
		}
	}
	f.chunk = max(min(f.chunk, f.middle), 1)
	f.chunks = max((f.middle+f.chunk-1)/f.chunk, 1)
	f.units = f.prefix * f.chunks * f.pieces
	perUnit := max(f.chunk*f.suffix/f.pieces, 1)
	f.perTask = max(want/perUnit, (f.units+maxTasks-1)/maxTasks, 1)
	if f.chunks > 1 {
		for i := range f.outs {
			o := &f.outs[i]
			o.partial = w.b.temporary(f.prefix * f.chunks * f.suffix * o.size)
		}
	}
}

// place reserves the accumulators behind the registers.
func (f *fold) place(p *program) {
	n := f.lanes * f.suffix
	if f.long {
		n = p.block
	}
	for i := range f.outs {
		f.outs[i].at = p.bytes
		p.bytes += roundUp(n*f.outs[i].size, 64)
	}
}

// foldJob runs the units of a fold.
type foldJob struct{ c *programCall }

func (j *foldJob) Tasks() int {
	f := j.c.p.fold
	return (f.units + f.perTask - 1) / f.perTask
}

func (j *foldJob) Do(task int, w *workers.Worker) {
	p := j.c.p
	f := p.fold
	var regs [maxRegs]unsafe.Pointer
	scratch := w.Bytes(p.bytes)
	j.c.begin(&regs, scratch, 0, p.block)
	for u := task * f.perTask; u < min((task+1)*f.perTask, f.units); u++ {
		piece := u % f.pieces
		chunk := u / f.pieces % f.chunks
		j.c.unit(&regs, scratch, u/f.pieces/f.chunks, chunk, piece)
	}
}

// unit folds rows of one chunk.
func (c *programCall) unit(regs *[maxRegs]unsafe.Pointer, scratch unsafe.Pointer, prefix, chunk, piece int) {
	p := c.p
	f := p.fold
	m0 := chunk * f.chunk
	m1 := min(m0+f.chunk, f.middle)
	width := f.lanes * f.suffix // elements that are accumulated side by side
	if f.long {
		width = min(p.block, f.suffix-piece*p.block)
	}
	for i := range f.outs {
		o := &f.outs[i]
		loops.Fill(unsafe.Add(scratch, o.at), o.identity, o.size, width)
	}
	if f.long {
		for m := m0; m < m1; m++ {
			c.step(regs, scratch, (prefix*f.middle+m)*f.suffix+piece*p.block, width)
			c.accumulate(regs, scratch, width, width)
		}
	} else {
		lo, hi := (prefix*f.middle+m0)*f.suffix, (prefix*f.middle+m1)*f.suffix
		for at := lo; at < hi; at += p.block {
			n := min(p.block, hi-at)
			c.step(regs, scratch, at, n)
			c.accumulate(regs, scratch, n, width)
		}
	}
	for i := range f.outs {
		o := &f.outs[i]
		acc := unsafe.Add(scratch, o.at)
		n := width
		if !f.long {
			for l := f.lanes; l > 1; l /= 2 {
				half := l / 2 * f.suffix
				o.op(acc, acc, unsafe.Add(acc, half*o.size), nil, half)
			}
			n = f.suffix
		}
		to, row := c.base[o.slot], prefix
		if o.partial >= 0 {
			to, row = c.base[o.partial], prefix*f.chunks+chunk
		}
		to = unsafe.Add(to, (row*f.suffix+piece*p.block)*o.size)
		copy(loops.Slice[byte](to, n*o.size), loops.Slice[byte](acc, n*o.size))
	}
}

// accumulate folds n elements of each value into width accumulators.
func (c *programCall) accumulate(regs *[maxRegs]unsafe.Pointer, scratch unsafe.Pointer, n, width int) {
	for i := range c.p.fold.outs {
		o := &c.p.fold.outs[i]
		acc := unsafe.Add(scratch, o.at)
		v := regs[o.src]
		for done := 0; done < n; done += width {
			o.op(acc, acc, unsafe.Add(v, done*o.size), nil, min(width, n-done))
		}
	}
}

// runFold runs all units and combines their partial results.
func (c *programCall) runFold(s *workers.Session) {
	f := c.p.fold
	c.job.c = c
	s.Run(&c.job)
	for i := range f.outs {
		o := &f.outs[i]
		if o.partial < 0 {
			continue
		}
		line := f.suffix * o.size
		for row := range f.prefix {
			d := unsafe.Add(c.base[o.slot], row*line)
			part := unsafe.Add(c.base[o.partial], row*f.chunks*line)
			copy(loops.Slice[byte](d, line), loops.Slice[byte](part, line))
			for k := 1; k < f.chunks; k++ {
				o.op(d, d, unsafe.Add(part, k*line), nil, f.suffix)
			}
		}
	}
}
