package cpu

import (
	"sort"
	"unsafe"

	"github.com/gomlx/compute/dtypes"

	"github.com/cohort-learning/cohort/backend/cpu/loops"
	"github.com/cohort-learning/cohort/backend/cpu/workers"
)

// This file emits the steps whose work depends on data: computed positions,
// random bits, and operations with closures.

// boxStart reads the start indices of a dynamic slice and returns the offset of
// the box in elements.
func boxStart(base []unsafe.Pointer, starts []ref, dt dtypes.DType, strides, limits []int) int {
	at := 0
	for k, r := range starts {
		at += min(max(loops.LoadIndex(r.at(base), dt, 0), 0), limits[k]) * strides[k]
	}
	return at
}

func (b *planning) dynamicSlice(n *node, in []ref, out ref) func(base []unsafe.Pointer) runner {
	x := n.ins[0]
	strides, limits := rowMajor(x.dims), make([]int, len(x.dims))
	to := rowMajor(n.dims)
	var axes []loops.Axis
	for k := range x.dims {
		limits[k] = x.dims[k] - n.dims[k]
		axes = append(axes, loops.Axis{Dim: n.dims[k], A: to[k], B: strides[k]})
	}
	axes = loops.MergeAxes(axes)
	var dt dtypes.DType
	if len(n.ins) > 1 {
		dt = n.ins[1].dt
	}
	size := n.dt.Size()
	return func(base []unsafe.Pointer) runner {
		return serial(func(*workers.Session) {
			at := boxStart(base, in[1:], dt, strides, limits)
			loops.CopyAxes(out.at(base), unsafe.Add(in[0].at(base), at*size), size, axes)
		})
	}
}

func (b *planning) dynamicSet(n *node, in []ref, out ref) func(base []unsafe.Pointer) runner {
	update := n.ins[1]
	strides, limits := rowMajor(n.dims), make([]int, len(n.dims))
	from := rowMajor(update.dims)
	var axes []loops.Axis
	for k := range n.dims {
		limits[k] = n.dims[k] - update.dims[k]
		axes = append(axes, loops.Axis{Dim: update.dims[k], A: strides[k], B: from[k]})
	}
	axes = loops.MergeAxes(axes)
	var dt dtypes.DType
	if len(n.ins) > 2 {
		dt = n.ins[2].dt
	}
	size := n.dt.Size()
	load := b.copier(n.ins[0])
	empty := update.size() == 0
	return func(base []unsafe.Pointer) runner {
		return serial(func(*workers.Session) {
			load(out.at(base), base)
			if !empty {
				at := boxStart(base, in[2:], dt, strides, limits)
				loops.CopyAxes(unsafe.Add(out.at(base), at*size), in[1].at(base), size, axes)
			}
		})
	}
}

func (b *planning) random(n *node, made []*node, in []ref) func(base []unsafe.Pointer) runner {
	state, values := -1, -1
	bytes := 0
	for _, m := range made {
		if m.output == 0 {
			state = b.slot(m)
		} else {
			values, bytes = b.slot(m), m.bytes()
		}
	}
	return func(base []unsafe.Pointer) runner {
		return serial(func(*workers.Session) {
			st := *(*[3]uint64)(in[0].at(base))
			if values >= 0 {
				loops.Philox(&st, unsafeBytes(base[values], bytes))
			}
			if state >= 0 {
				*(*[3]uint64)(base[state]) = st
			}
		})
	}
}

// inner is a nested plan in a frame of its own.
type inner struct {
	p *plan
	f *frame
}

func newInner(p *plan) *inner { return &inner{p, p.newFrame()} }

func (i *inner) set(param int, at unsafe.Pointer) {
	if s := i.p.params[param].slot; s >= 0 {
		i.f.base[s] = at
	}
}

func (i *inner) setOutput(k int, at unsafe.Pointer) { i.f.base[i.p.outputs[k].slot] = at }

// outputSlots returns for every output of a nested plan the slot that it goes
// to, −1 if nothing reads it, and its size.
func (b *planning) outputSlots(made []*node, outputs []planOutput) (slots, bytes []int) {
	slots, bytes = repeat(-1, len(outputs)), make([]int, len(outputs))
	for k := range outputs {
		bytes[k] = int(outputs[k].shape.ByteSize())
	}
	for _, m := range made {
		slots[m.output] = b.slot(m)
	}
	return slots, bytes
}

func (b *planning) branch(n *node, made []*node, in []ref) func(base []unsafe.Pointer) runner {
	a := n.attr.(*nested)
	slots, bytes := b.outputSlots(made, a.plans[0].outputs)
	captures := len(a.plans[0].params)
	return func(base []unsafe.Pointer) runner {
		var frames [2]*inner
		spare := make([]unsafe.Pointer, len(slots))
		for k, s := range slots {
			if s < 0 {
				spare[k] = alignedBytes(bytes[k])
			}
		}
		return serial(func(s *workers.Session) {
			which, operands := 1, in[1+captures:]
			if *(*bool)(in[0].at(base)) {
				which, operands = 0, in[1:1+captures]
			}
			if frames[which] == nil {
				frames[which] = newInner(a.plans[which])
			}
			f := frames[which]
			for k, r := range operands {
				f.set(k, r.at(base))
			}
			for k, slot := range slots {
				if slot >= 0 {
					f.setOutput(k, base[slot])
				} else {
					f.setOutput(k, spare[k])
				}
			}
			f.f.run(s)
		})
	}
}

func (b *planning) while(n *node, made []*node, in []ref) func(base []unsafe.Pointer) runner {
	a := n.attr.(*nested)
	cond, body := a.plans[0], a.plans[1]
	slots, bytes := b.outputSlots(made, body.outputs)
	fromCond := len(cond.params) - a.own
	return func(base []unsafe.Pointer) runner {
		c, d := newInner(cond), newInner(body)
		var state, next []unsafe.Pointer
		for k := range slots {
			state = append(state, alignedBytes(bytes[k]))
			next = append(next, alignedBytes(bytes[k]))
		}
		goOn := alignedBytes(1)
		return serial(func(s *workers.Session) {
			for k := range state {
				copy(unsafeBytes(state[k], bytes[k]), unsafeBytes(in[k].at(base), bytes[k]))
			}
			for k, r := range in[a.own : a.own+fromCond] {
				c.set(a.own+k, r.at(base))
			}
			for k, r := range in[a.own+fromCond:] {
				d.set(a.own+k, r.at(base))
			}
			c.setOutput(0, goOn)
			for {
				for k := range state {
					c.set(k, state[k])
					d.set(k, state[k])
					d.setOutput(k, next[k])
				}
				if c.f.run(s); !*(*bool)(goOn) {
					break
				}
				d.f.run(s)
				state, next = next, state
			}
			for k, slot := range slots {
				if slot >= 0 {
					copy(unsafeBytes(base[slot], bytes[k]), unsafeBytes(state[k], bytes[k]))
				}
			}
		})
	}
}

// sort sorts lines along an axis together, stably, by a comparator plan.
func (b *planning) sort(n *node, made []*node, in []ref) func(base []unsafe.Pointer) runner {
	a := n.attr.(*nested)
	compare := a.plans[0]
	x := n.ins[0]
	count, line, stride := a.own, x.dims[a.axis], product(x.dims[a.axis+1:])
	outer := product(x.dims[:a.axis])
	slots := repeat(-1, count)
	for _, m := range made {
		slots[m.output] = b.slot(m)
	}
	sizes := make([]int, count)
	for k := range sizes {
		sizes[k] = n.ins[k].dt.Size()
	}
	return func(base []unsafe.Pointer) runner {
		l := &sorter{c: newInner(compare), less: alignedBytes(1), order: make([]int, line), sizes: sizes, step: stride}
		l.c.setOutput(0, l.less)
		l.lines = make([]unsafe.Pointer, count)
		return serial(func(s *workers.Session) {
			l.s = s
			for k, r := range in[count:] {
				l.c.set(2*count+k, r.at(base))
			}
			for o := range outer {
				for j := range stride {
					first := o*line*stride + j
					for k := range count {
						l.lines[k] = unsafe.Add(in[k].at(base), first*sizes[k])
					}
					for i := range l.order {
						l.order[i] = i
					}
					sort.Stable(l)
					for k, slot := range slots {
						if slot < 0 {
							continue
						}
						for i, from := range l.order {
							to := unsafe.Add(base[slot], (first+i*stride)*sizes[k])
							copy(unsafeBytes(to, sizes[k]), unsafeBytes(unsafe.Add(l.lines[k], from*stride*sizes[k]), sizes[k]))
						}
					}
				}
			}
			l.s = nil
		})
	}
}

// sorter sorts the order of one line; it implements sort.Interface.
type sorter struct {
	c     *inner
	s     *workers.Session
	less  unsafe.Pointer
	order []int
	lines []unsafe.Pointer // of each operand
	sizes []int
	step  int // elements between neighbours of a line
}

func (l *sorter) Len() int      { return len(l.order) }
func (l *sorter) Swap(i, j int) { l.order[i], l.order[j] = l.order[j], l.order[i] }

func (l *sorter) Less(i, j int) bool {
	for k, at := range l.lines {
		l.c.set(2*k, unsafe.Add(at, l.order[i]*l.step*l.sizes[k]))
		l.c.set(2*k+1, unsafe.Add(at, l.order[j]*l.step*l.sizes[k]))
	}
	l.c.f.run(l.s)
	return *(*bool)(l.less)
}
