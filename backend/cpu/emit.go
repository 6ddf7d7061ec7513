package cpu

import (
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"

	"github.com/cohort-learning/cohort/backend/cpu/kernel"
	"github.com/cohort-learning/cohort/backend/cpu/loops"
	"github.com/cohort-learning/cohort/backend/cpu/workers"
)

// emit appends the step of a unit.
func (b *planning) emit(u *unit) error {
	if u.group != nil {
		return b.emitGroup(u)
	}
	n := u.node
	st := planStep{name: n.op.String()}
	for _, in := range n.ins {
		if in.op != compute.OpTypeParameter || b.needed[in.id] {
			st.reads = append(st.reads, b.slot(in.root))
		}
	}
	for _, m := range u.made {
		st.writes = append(st.writes, b.slot(m))
	}
	if n.dt != dtypes.InvalidDType && n.size() == 0 {
		return nil
	}
	bind, err := b.binder(n, u.made)
	if err != nil {
		return err
	}
	if bind == nil {
		return nil
	}
	st.bind = bind
	b.p.steps = append(b.p.steps, st)
	return nil
}

func (b *planning) emitGroup(u *unit) error {
	gr := u.group
	for _, n := range gr.nodes {
		if n.op == opReduce && b.k.rows(n.attr.(folding).reduction, n.dt) == nil {
			return fail(n, n.dt)
		}
		if n.op != opReduce && b.k.of(n, 0) == nil {
			return fail(n, n.ins[0].dt)
		}
	}
	empty := true
	for _, n := range u.made {
		empty = empty && n.size() == 0
	}
	if empty {
		return nil
	}
	p := b.compile(gr)
	st := planStep{name: "program"}
	for i := range p.loads {
		st.reads = append(st.reads, p.loads[i].slot)
	}
	for _, n := range u.made {
		st.writes = append(st.writes, b.slot(n))
	}
	st.inPlace = p.inPlace()
	tasks := 1
	if p.task > 0 {
		tasks = (p.n + p.task - 1) / p.task
	}
	st.bind = func(base []unsafe.Pointer) runner { return &programCall{p: p, base: base, tasks: tasks} }
	b.p.steps = append(b.p.steps, st)
	return nil
}

// place in memory of an operand.
type ref struct {
	slot   int
	offset int // bytes
}

func (b *planning) ref(n *node) ref { return ref{b.slot(n.root), n.offset * n.dt.Size()} }

func (r ref) at(base []unsafe.Pointer) unsafe.Pointer { return unsafe.Add(base[r.slot], r.offset) }

func (b *planning) refs(ns []*node) []ref {
	out := make([]ref, len(ns))
	for i, n := range ns {
		out[i] = b.ref(n)
	}
	return out
}

// ranged runs a function over ranges of 0 ≤ i < n.
type ranged struct {
	n, per int
	do     func(lo, hi int)
}

func (r *ranged) Tasks() int { return (r.n + r.per - 1) / r.per }

func (r *ranged) Do(task int, _ *workers.Worker) { r.do(task*r.per, min((task+1)*r.per, r.n)) }

func (r *ranged) run(s *workers.Session) { s.Run(r) }

// newRanged cuts n items of the given cost (element operations) each.
func newRanged(n, cost int, do func(lo, hi int)) *ranged {
	per := max(taskCost/max(cost, 1), (n+maxTasks-1)/maxTasks, 1)
	return &ranged{n, per, do}
}

// serial is a step on one thread.
type serial func(s *workers.Session)

func (f serial) run(s *workers.Session) { f(s) }

// binder returns what makes the runner of a single node; nil if there is
// nothing to do.
func (b *planning) binder(n *node, made []*node) (func(base []unsafe.Pointer) runner, error) {
	in := b.refs(n.ins)
	var out []ref
	for _, m := range made {
		out = append(out, b.ref(m))
	}
	size := n.dt.Size
	switch n.op {
	case opUnpack:
		dt, count := n.ins[0].dt, n.size()
		return func(base []unsafe.Pointer) runner {
			return serial(func(*workers.Session) { loops.Unpack(out[0].at(base), in[0].at(base), dt, count) })
		}, nil
	case opPack:
		dt, count := n.dt, n.size()
		return func(base []unsafe.Pointer) runner {
			return serial(func(*workers.Session) { loops.Pack(out[0].at(base), in[0].at(base), dt, count) })
		}, nil
	case opDecode:
		f, err := n.attr.(blockFormat).format()
		if err != nil {
			return nil, err
		}
		blocks := n.size() / f.Values
		return func(base []unsafe.Pointer) runner {
			return newRanged(blocks, 2*f.Values, func(lo, hi int) { f.Decode(out[0].at(base), in[0].at(base), lo, hi) })
		}, nil
	case compute.OpTypeSchedulingBarrier:
		bytes := n.bytes()
		return func(base []unsafe.Pointer) runner {
			return serial(func(*workers.Session) {
				copy(unsafeBytes(out[0].at(base), bytes), unsafeBytes(in[0].at(base), bytes))
			})
		}, nil
	case opMatMul:
		if n.dt == dtypes.Float32 {
			return b.gemm(n, in, out[0]), nil
		}
		return b.matMul(n, in, out[0])
	case opConv:
		return b.conv(n, in, out[0])
	case opFastConv:
		return b.fastConv(n, in, out[0]), nil
	case opPlace:
		return b.placed(n, in, out[0]), nil
	case opArg:
		a, x := n.attr.(argMinMax), n.ins[0]
		k := loops.ArgExtreme(x.dt, n.dt, a.isMin)
		if k == nil {
			return nil, fail(n, x.dt)
		}
		outer, line, inner := product(x.dims[:a.axis]), x.dims[a.axis], product(x.dims[a.axis+1:])
		from, to := line*inner*x.dt.Size(), inner*size()
		return func(base []unsafe.Pointer) runner {
			return newRanged(outer, line*inner, func(lo, hi int) {
				k(unsafe.Add(out[0].at(base), lo*to), unsafe.Add(in[0].at(base), lo*from), hi-lo, line, inner)
			})
		}, nil
	case opWindow:
		a := n.attr.(windowed)
		w := &loops.Windows{Axes: a.axes}
		k := loops.ReduceWindow(w, a.reduction, n.dt)
		if k == nil {
			return nil, fail(n, n.dt)
		}
		pl, ok := w.Plane()
		if plan := b.pool(n, pl, ok); plan != nil {
			return poolStep(plan, in[0], n.ins[0].size(), out[0], n.size(), ref{}, 0), nil
		}
		if ok {
			op, identity, elem := b.k.binary(a.reduction.Op(n.dt), n.dt, 0), a.reduction.Identity(n.dt), size()
			return func(base []unsafe.Pointer) runner {
				return newRanged(pl.Outer, n.size()/pl.Outer*pl.A.Window*pl.B.Window, func(lo, hi int) {
					loops.ReducePlanes(&pl, op, identity, elem, out[0].at(base), in[0].at(base), lo, hi)
				})
			}, nil
		}
		count, taps := n.size(), 1
		for _, ax := range a.axes {
			taps *= ax.Window
		}
		return func(base []unsafe.Pointer) runner {
			return newRanged(count, 8*taps, func(lo, hi int) { k(out[0].at(base), in[0].at(base), lo, hi) })
		}, nil
	case opSelect:
		a := n.attr.(windowed)
		w := &loops.Windows{Axes: a.axes}
		pl, ok := w.Plane()
		if plan := b.pool(n, pl, ok); plan != nil {
			return poolStep(plan, in[0], n.size(), in[1], n.ins[1].size(), out[0], n.size()), nil
		}
		if ok {
			k := loops.SelectPlanes(n.dt, a.smallest)
			return func(base []unsafe.Pointer) runner {
				return newRanged(pl.Outer, n.size()/pl.Outer*4, func(lo, hi int) {
					k(&pl, out[0].at(base), in[0].at(base), in[1].at(base), lo, hi)
				})
			}, nil
		}
		k := loops.SelectAndScatter(w, n.dt, a.smallest)
		if k == nil {
			return nil, fail(n, n.dt)
		}
		return func(base []unsafe.Pointer) runner {
			return serial(func(*workers.Session) { k(out[0].at(base), in[0].at(base), in[1].at(base)) })
		}, nil
	case opGather:
		a := n.attr.(loops.Slices)
		elem := size()
		return func(base []unsafe.Pointer) runner {
			return newRanged(a.Count, a.WindowSize+20, func(lo, hi int) {
				loops.Gather(&a, out[0].at(base), in[0].at(base), in[1].at(base), elem, lo, hi)
			})
		}, nil
	case opScatter:
		a := n.attr.(scattered)
		k := b.k.binary(a.reduction.Op(n.dt), n.dt, 0)
		if k == nil {
			return nil, fail(n, n.dt)
		}
		load := b.copier(n.ins[0])
		elem := size()
		return func(base []unsafe.Pointer) runner {
			return serial(func(*workers.Session) {
				load(out[0].at(base), base)
				loops.Scatter(&a.slices, k, out[0].at(base), in[1].at(base), in[2].at(base), elem)
			})
		}, nil
	case opDynSlice:
		return b.dynamicSlice(n, in, out[0]), nil
	case opDynSet:
		return b.dynamicSet(n, in, out[0]), nil
	case opRandom:
		return b.random(n, made, in), nil
	case compute.OpTypeWhile:
		return b.while(n, made, in), nil
	case compute.OpTypeIf:
		return b.branch(n, made, in), nil
	case compute.OpTypeSort:
		return b.sort(n, made, in), nil
	}
	return nil, fail(n, n.dt)
}

// gemmRun is a matrix product in a frame.
type gemmRun struct {
	call       kernel.GemmCall
	base       []unsafe.Pointer
	a, b, c    ref
	la, lb, lc int
	work       int // slot
	lwork      int
}

func (g *gemmRun) run(s *workers.Session) {
	g.call.A = floats(g.a.at(g.base), g.la)
	g.call.B = floats(g.b.at(g.base), g.lb)
	g.call.C = floats(g.c.at(g.base), g.lc)
	if g.lwork > 0 {
		g.call.Work = floats(g.base[g.work], g.lwork)
	}
	s.RunCall(&g.call)
}

// reach is the number of elements from the first to the last of a view.
func reach(n *node) int {
	last := 1
	for k, d := range n.dims {
		if d == 0 {
			return 0
		}
		last += (d - 1) * n.strides[k]
	}
	return last
}

func (b *planning) gemm(n *node, in []ref, out ref) func(base []unsafe.Pointer) runner {
	p := n.attr.(matProduct)
	operand := func(x *node) kernel.Operand {
		last := len(x.dims) - 1
		return kernel.Operand{Batch: x.strides[:last-1], Row: x.strides[last-1], Col: x.strides[last]}
	}
	batch, row, col, _ := p.layout()
	plan := kernel.NewGemm(b.path, kernel.GemmShape{
		Batch: p.batch, M: p.m(), N: p.n(), K: p.k,
		A: operand(n.ins[0]), B: operand(n.ins[1]), C: kernel.Operand{Batch: batch, Row: row, Col: col},
	})
	work := -1
	if plan.WorkspaceLen() > 0 {
		work = b.temporary(4 * plan.WorkspaceLen())
	}
	la, lb, lc := reach(n.ins[0]), reach(n.ins[1]), n.size()
	return func(base []unsafe.Pointer) runner {
		return &gemmRun{
			call: kernel.GemmCall{Plan: plan}, base: base, a: in[0], b: in[1], c: out,
			la: la, lb: lb, lc: lc, work: work, lwork: plan.WorkspaceLen(),
		}
	}
}

func (b *planning) matMul(n *node, in []ref, out ref) (func(base []unsafe.Pointer) runner, error) {
	k := loops.MatMul(n.dt)
	if k == nil {
		return nil, fail(n, n.dt)
	}
	p, size := n.attr.(matProduct), n.dt.Size()
	rows, cols := p.m(), p.n()
	return func(base []unsafe.Pointer) runner {
		return newRanged(product(p.batch)*rows, 2*p.k*cols, func(lo, hi int) {
			for i := lo; i < hi; {
				at, row := i/rows, i%rows
				count := min(rows-row, hi-i)
				k(unsafe.Add(out.at(base), i*cols*size), unsafe.Add(in[0].at(base), i*p.k*size),
					unsafe.Add(in[1].at(base), at*p.k*cols*size), count, p.k, cols)
				i += count
			}
		})
	}, nil
}

func (b *planning) conv(n *node, in []ref, out ref) (func(base []unsafe.Pointer) runner, error) {
	c := n.attr.(loops.Conv)
	k := loops.Convolve(&c, n.dt)
	if k == nil {
		return nil, fail(n, n.dt)
	}
	taps := 1
	for _, ax := range c.Axes {
		taps *= ax.Window
	}
	return func(base []unsafe.Pointer) runner {
		return newRanged(c.Positions(), taps*c.InChannels/c.Groups*c.OutChannels, func(lo, hi int) {
			k(out.at(base), in[0].at(base), in[1].at(base), lo, hi)
		})
	}, nil
}

// convRun is a convolution by the kernel package in a frame.
type convRun struct {
	call    kernel.ConvCall
	base    []unsafe.Pointer
	refs    [3]ref // X, W, Y
	lens    [3]int
	work    int // slot
	workLen int
}

func (c *convRun) run(s *workers.Session) {
	c.call.X = floats(c.refs[0].at(c.base), c.lens[0])
	c.call.W = floats(c.refs[1].at(c.base), c.lens[1])
	c.call.Y = floats(c.refs[2].at(c.base), c.lens[2])
	if c.workLen > 0 {
		c.call.Work = floats(c.base[c.work], c.workLen)
	}
	s.RunCall(&c.call)
}

func (b *planning) fastConv(n *node, in []ref, out ref) func(base []unsafe.Pointer) runner {
	a := n.attr.(fastConv)
	r := convRun{lens: [3]int{}}
	var plan *kernel.Conv
	x, y := n.ins[0], n.ins[1]
	switch a.kind {
	case convForward:
		plan = kernel.NewConvForward(b.path, a.shape)
		r.refs, r.lens = [3]ref{in[0], in[1], out}, [3]int{x.size(), reach(y), n.size()}
	case convInputGrad:
		plan = kernel.NewConvInputGrad(b.path, a.shape)
		r.refs, r.lens = [3]ref{out, in[1], in[0]}, [3]int{n.size(), reach(y), x.size()}
	case convWeightGrad:
		plan = kernel.NewConvWeightGrad(b.path, a.shape)
		r.refs, r.lens = [3]ref{in[0], out, in[1]}, [3]int{x.size(), n.size(), y.size()}
	}
	r.workLen = plan.WorkspaceLen()
	if r.workLen > 0 {
		r.work = b.temporary(4 * r.workLen)
	}
	return func(base []unsafe.Pointer) runner {
		c := r
		c.base, c.call.Plan = base, plan
		return &c
	}
}

// pool returns the plan of a window node by the kernel package, or nil if that
// has none.
func (b *planning) pool(n *node, p loops.Plane, ok bool) *kernel.Pool {
	if !ok || n.dt != dtypes.Float32 || n.size() == 0 || !reachesInside(p.A) || !reachesInside(p.B) {
		return nil
	}
	s := kernel.PoolShape{
		N: p.Outer, H: p.A.In, W: p.B.In, C: p.Inner, KH: p.A.Window, KW: p.B.Window,
		StrideH: p.A.Stride, StrideW: p.B.Stride, PadT: p.A.Low, PadB: highOf(p.A), PadL: p.B.Low, PadR: highOf(p.B),
		DilH: p.A.WindowDilation, DilW: p.B.WindowDilation,
	}
	a := n.attr.(windowed)
	switch {
	case n.op == opSelect && !a.smallest:
		return kernel.NewMaxPoolGrad(b.path, s)
	case n.op == opWindow && a.reduction == loops.Max:
		return kernel.NewMaxPool(b.path, s)
	case n.op == opWindow && a.reduction == loops.Sum:
		return kernel.NewSumPool(b.path, s, kernel.DivideNot)
	}
	return nil
}

// highOf is the padding at the end that makes the number of windows come out.
func highOf(ax loops.WindowAxis) int {
	return (ax.Out-1)*ax.Stride + (ax.Window-1)*ax.WindowDilation + 1 - ax.In - ax.Low
}

// reachesInside tells whether every window sees the operand.
func reachesInside(ax loops.WindowAxis) bool {
	if ax.InDilation != 1 {
		return false
	}
	for o := range ax.Out {
		inside := false
		for t := range ax.Window {
			p := o*ax.Stride - ax.Low + t*ax.WindowDilation
			inside = inside || p >= 0 && p < ax.In
		}
		if !inside {
			return false
		}
	}
	return true
}

// poolRun is a pooling or its gradient in a frame.
type poolRun struct {
	call kernel.PoolCall
	base []unsafe.Pointer
	refs [3]ref // X, Y, or X, DY, DX
	lens [3]int
}

func (p *poolRun) run(s *workers.Session) {
	p.call.X = floats(p.refs[0].at(p.base), p.lens[0])
	y := floats(p.refs[1].at(p.base), p.lens[1])
	if p.lens[2] > 0 {
		p.call.DY = y
		p.call.DX = floats(p.refs[2].at(p.base), p.lens[2])
	} else {
		p.call.Y = y
	}
	s.RunCall(&p.call)
}

func poolStep(plan *kernel.Pool, x ref, lx int, y ref, ly int, dx ref, ldx int) func(base []unsafe.Pointer) runner {
	return func(base []unsafe.Pointer) runner {
		return &poolRun{call: kernel.PoolCall{Plan: plan}, base: base, refs: [3]ref{x, y, dx}, lens: [3]int{lx, ly, ldx}}
	}
}

// copier returns a function that copies a view in row-major order.
func (b *planning) copier(x *node) func(to unsafe.Pointer, base []unsafe.Pointer) {
	r, size, n := b.ref(x), x.dt.Size(), x.size()
	if x.dense() {
		return func(to unsafe.Pointer, base []unsafe.Pointer) {
			copy(unsafeBytes(to, n*size), unsafeBytes(r.at(base), n*size))
		}
	}
	dims, strides := mergeAxes(x.dims, x.strides)
	return func(to unsafe.Pointer, base []unsafe.Pointer) {
		loops.CopyStrided(to, r.at(base), size, dims, strides, 0, n)
	}
}

// placed copies operands into boxes of the result.
func (b *planning) placed(n *node, in []ref, out ref) func(base []unsafe.Pointer) runner {
	a := n.attr.(placing)
	size, count := n.dt.Size(), n.size()
	parts := n.ins
	if a.fill {
		parts = parts[1:]
	}
	refs := in[len(in)-len(parts):]
	axes := make([][]loops.Axis, len(parts))
	for i, x := range parts {
		for k, d := range x.dims {
			axes[i] = append(axes[i], loops.Axis{Dim: d, A: a.places[i].strides[k], B: x.strides[k]})
		}
		axes[i] = loops.MergeAxes(axes[i])
	}
	return func(base []unsafe.Pointer) runner {
		return serial(func(*workers.Session) {
			to := out.at(base)
			if a.fill {
				loops.Fill(to, in[0].at(base), size, count)
			}
			for i := range parts {
				loops.CopyAxes(unsafe.Add(to, a.places[i].offset*size), refs[i].at(base), size, axes[i])
			}
		})
	}
}
