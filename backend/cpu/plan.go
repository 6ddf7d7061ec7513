package cpu

import (
	"runtime/debug"
	"slices"
	"sync"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/pkg/errors"

	"github.com/cohort-learning/cohort/backend/cpu/kernel"
	"github.com/cohort-learning/cohort/backend/cpu/kernel/vec"
	"github.com/cohort-learning/cohort/backend/cpu/workers"
)

// plan is a graph ready to run. It is immutable but for its idle frames.
type plan struct {
	backend *Backend
	params  []planParam
	outputs []planOutput
	slots   []slot
	steps   []planStep
	arena   int // bytes

	mu   sync.Mutex
	idle []*frame
}

// planParam is an input; slot is −1 if nothing reads it.
type planParam struct {
	slot  int
	shape shapes.Shape
}

// planOutput is a result and the input whose memory it may take over if that
// is donated, or −1.
type planOutput struct {
	slot  int
	shape shapes.Shape
	reuse int
}

// slot is a place for one value.
type slot struct {
	kind   slotKind
	bytes  int
	offset int            // in the arena
	data   unsafe.Pointer // of a constant
	index  int            // of a parameter or output
	first  int            // step that writes it
	last   int            // last step that reads it
}

type slotKind uint8

const (
	inArena slotKind = iota
	isConstant
	isParameter
	isOutput
)

// runner is a step in a frame.
type runner interface{ run(s *workers.Session) }

// planStep makes the runner of a step for a frame, whose values lie at base.
type planStep struct {
	name    string
	bind    func(base []unsafe.Pointer) runner
	reads   []int
	writes  []int
	inPlace [][2]int // pairs of a read and a written slot that may share memory
}

// frame is the memory of one execution.
type frame struct {
	arena   unsafe.Pointer
	base    []unsafe.Pointer
	runners []runner
	step    int // the runner at work
}

// planning is the state of newPlan.
type planning struct {
	g      *graph
	k      kernels
	path   kernel.Path
	p      *plan
	slotOf map[*node]int
	needed []bool // by node id
}

// newPlan plans the outputs of g.
func newPlan(g *graph) (*plan, error) {
	return planFor(g, g.outputs, true)
}

func planFor(g *graph, outputs []*node, withParams bool) (*plan, error) {
	b := &planning{
		g: g, k: kernels{vec.For(vecPath(g.backend.path))}, path: g.backend.path,
		p: &plan{backend: g.backend}, slotOf: map[*node]int{},
	}
	results := b.ownOutputs(outputs)
	b.markNeeded(results)
	for i, n := range results {
		s := slot{kind: isOutput, bytes: n.bytes(), index: i, first: -1, last: -1}
		b.slotOf[n] = b.addSlot(s)
		b.p.outputs = append(b.p.outputs, planOutput{b.slotOf[n], shapes.Make(outputs[i].dt, outputs[i].dims...), -1})
	}
	if withParams {
		for i, n := range g.params {
			pp := planParam{slot: -1}
			if n != nil {
				pp.shape = shapes.Make(n.dt, n.dims...)
				if b.needed[n.id] {
					pp.slot = b.addSlot(slot{kind: isParameter, bytes: n.bytes(), index: i, first: -1, last: -1})
					b.slotOf[n] = pp.slot
				}
			}
			b.p.params = append(b.p.params, pp)
		}
	}
	units := b.schedule(b.groups())
	for _, u := range units {
		for _, n := range u.made {
			if _, ok := b.slotOf[n]; !ok {
				b.slotOf[n] = b.addSlot(slot{kind: inArena, bytes: n.bytes(), first: -1, last: -1})
			}
		}
		if err := b.emit(u); err != nil {
			return nil, err
		}
	}
	b.lifetimes()
	b.layout()
	return b.p, nil
}

func vecPath(p kernel.Path) vec.Path {
	v, err := vec.ParsePath(p.String())
	if err != nil {
		panic(err)
	}
	return v
}

func (b *planning) addSlot(s slot) int {
	b.p.slots = append(b.p.slots, s)
	return len(b.p.slots) - 1
}

// slot returns the slot of a root.
func (b *planning) slot(n *node) int {
	if s, ok := b.slotOf[n]; ok {
		return s
	}
	if n.op != compute.OpTypeConstant {
		panic("cpu: " + n.op.String() + " is read before it is computed")
	}
	s := b.addSlot(slot{kind: isConstant, data: n.attr.(unsafe.Pointer), bytes: n.bytes()})
	b.slotOf[n] = s
	return s
}

// temporary reserves memory for the step that is about to be emitted.
func (b *planning) temporary(bytes int) int {
	at := len(b.p.steps)
	return b.addSlot(slot{kind: inArena, bytes: bytes, first: at, last: at})
}

// ownOutputs returns for each output a node that nothing else returns and that
// is computed into memory of its own.
func (b *planning) ownOutputs(outputs []*node) []*node {
	taken := map[*node]bool{}
	own := make([]*node, len(outputs))
	for i, n := range outputs {
		r := n.root
		if !n.whole() || r.op == compute.OpTypeParameter || r.op == compute.OpTypeConstant || taken[r] {
			r = b.g.emitNew(compute.OpTypeIdentity, n.dt, n.dims, nil, n)
		}
		taken[r] = true
		own[i] = r
	}
	return own
}

func (b *planning) markNeeded(outputs []*node) {
	b.needed = make([]bool, len(b.g.nodes))
	var visit func(n *node)
	visit = func(n *node) {
		if b.needed[n.id] {
			return
		}
		b.needed[n.id] = true
		for _, in := range n.ins {
			visit(in)
		}
	}
	for _, n := range outputs {
		visit(n)
	}
}

// fail is the error for an operation without a kernel.
func fail(n *node, dt dtypes.DType) error {
	return errors.Wrapf(compute.ErrNotImplemented, "cpu backend: %s of dtype %s", n.op, dt)
}

// lifetimes finds the first and last step that touches each slot.
func (b *planning) lifetimes() {
	for i, st := range b.p.steps {
		for _, s := range st.writes {
			sl := &b.p.slots[s]
			if sl.first < 0 {
				sl.first = i
			}
			sl.last = max(sl.last, i)
		}
		for _, s := range st.reads {
			sl := &b.p.slots[s]
			sl.last = max(sl.last, i)
		}
	}
}

// layout places the arena slots so that those alive at the same time do not
// overlap: in the order of their first use, each at the smallest gap that
// holds it. A step that may work in place gives its result the memory of an
// operand that dies with it.
func (b *planning) layout() {
	slots := b.p.slots
	var order []int
	for i := range slots {
		if slots[i].kind == inArena && slots[i].first >= 0 {
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(x, y int) int { return slots[x].first - slots[y].first })
	heirs := b.heirs()
	type busy struct{ offset, end, last int }
	var live []busy // ascending offsets
	for _, i := range order {
		s := &slots[i]
		size := roundUp(max(s.bytes, 1), 64)
		if from, ok := heirs[i]; ok {
			s.offset = slots[from].offset
			for k := range live {
				if live[k].offset == s.offset {
					live[k].last = s.last
				}
			}
			continue
		}
		live = slices.DeleteFunc(live, func(l busy) bool { return l.last < s.first })
		best, bestGap, at, end := -1, int(^uint(0)>>1), 0, 0
		for k, l := range live {
			if gap := l.offset - end; gap >= size && gap < bestGap {
				best, bestGap, at = k, gap, end
			}
			end = max(end, l.end)
		}
		if best < 0 {
			best, at = len(live), end
		}
		s.offset = at
		live = slices.Insert(live, best, busy{at, at + size, s.last})
		b.p.arena = max(b.p.arena, at+size)
	}
}

// heirs maps arena slots to the slots whose memory they take over, and gives
// outputs the inputs that they may take over.
func (b *planning) heirs() map[int]int {
	slots := b.p.slots
	heirs := map[int]int{}
	for i, st := range b.p.steps {
		used := map[int]bool{}
		for _, pair := range st.inPlace {
			from, to := &slots[pair[0]], &slots[pair[1]]
			if from.last != i || to.first != i || from.bytes != to.bytes || used[pair[0]] || used[pair[1]] {
				continue
			}
			switch {
			case from.kind == inArena && to.kind == inArena:
				heirs[pair[1]] = pair[0]
			case from.kind == isParameter && to.kind == isOutput && b.p.outputs[to.index].reuse < 0:
				b.p.outputs[to.index].reuse = from.index
			default:
				continue
			}
			used[pair[0]], used[pair[1]] = true, true
		}
	}
	return heirs
}

// newFrame allocates the memory of one execution.
func (p *plan) newFrame() *frame {
	f := &frame{base: make([]unsafe.Pointer, len(p.slots))}
	f.arena = alignedBytes(p.arena)
	for i := range p.slots {
		switch s := &p.slots[i]; s.kind {
		case inArena:
			f.base[i] = unsafe.Add(f.arena, s.offset)
		case isConstant:
			f.base[i] = s.data
		}
	}
	f.runners = make([]runner, len(p.steps))
	for i := range p.steps {
		f.runners[i] = p.steps[i].bind(f.base)
	}
	return f
}

func (p *plan) takeFrame() *frame {
	p.mu.Lock()
	if n := len(p.idle); n > 0 {
		f := p.idle[n-1]
		p.idle = p.idle[:n-1]
		p.mu.Unlock()
		return f
	}
	p.mu.Unlock()
	return p.newFrame()
}

func (p *plan) giveFrame(f *frame) {
	for _, in := range p.params {
		if in.slot >= 0 {
			f.base[in.slot] = nil
		}
	}
	for _, out := range p.outputs {
		f.base[out.slot] = nil
	}
	p.mu.Lock()
	p.idle = append(p.idle, f)
	p.mu.Unlock()
}

func (f *frame) run(s *workers.Session) {
	for i, r := range f.runners {
		f.step = i
		r.run(s)
	}
}

// run executes a frame of p and returns a panic of one of its steps as an
// error. The frame must not be used again then.
func (p *plan) run(f *frame, s *workers.Session) (err error) {
	defer func() {
		v := recover()
		if v == nil {
			return
		}
		e, ok := v.(*workers.Panic)
		if !ok {
			e = &workers.Panic{Value: v, Stack: debug.Stack()}
		}
		err = errors.Wrapf(e, "cpu backend: panic in step %d (%s)", f.step, p.steps[f.step].name)
	}()
	f.run(s)
	return nil
}

// constantParts tells, by node id, which nodes depend on constants only.
func (g *graph) constantParts() []bool {
	c := make([]bool, len(g.nodes))
	for i, n := range g.nodes {
		switch n.op {
		case compute.OpTypeConstant:
			c[i] = true
		case compute.OpTypeParameter, compute.OpTypeWhile, compute.OpTypeIf, compute.OpTypeSort, opRandom,
			compute.OpTypeOptimizationBarrier, compute.OpTypeSchedulingBarrier:
		default:
			c[i] = len(n.ins) > 0
			for _, in := range n.ins {
				c[i] = c[i] && c[in.id]
			}
		}
	}
	return c
}

// maxFold bounds the bytes of a value that is computed at compile time.
const maxFold = 4 << 20

// fold computes what depends on constants only.
func (g *graph) fold() error {
	c := g.constantParts()
	wanted := map[*node]bool{}
	var order []*node
	want := func(n *node) {
		r := n.root
		if c[n.id] && r.op != compute.OpTypeConstant && !wanted[r] && r.bytes() <= maxFold {
			wanted[r] = true
			order = append(order, r)
		}
	}
	for _, n := range g.nodes {
		if !c[n.id] {
			for _, in := range n.ins {
				want(in)
			}
		}
	}
	for _, n := range g.outputs {
		want(n)
	}
	if len(order) == 0 {
		return nil
	}
	return g.evaluate(order)
}

// evaluate computes nodes that depend on constants only and makes them
// constants.
func (g *graph) evaluate(ns []*node) error {
	ns = slices.DeleteFunc(slices.Clone(ns), func(n *node) bool { return n.op == compute.OpTypeConstant })
	if len(ns) == 0 {
		return nil
	}
	p, err := planFor(g, ns, false)
	if err != nil {
		return err
	}
	f := p.newFrame()
	for i := range p.outputs {
		f.base[p.outputs[i].slot] = alignedBytes(ns[i].bytes())
	}
	s := g.backend.pool.Enter()
	err = p.run(f, s)
	s.Leave()
	if err != nil {
		return err
	}
	for i, n := range ns {
		n.op, n.ins, n.attr = compute.OpTypeConstant, nil, f.base[p.outputs[i].slot]
	}
	return nil
}
