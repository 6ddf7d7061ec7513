package cpu

import (
	"slices"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapeinference"
	"github.com/gomlx/compute/shapes"
	"github.com/pkg/errors"

	"github.com/cohort-learning/cohort/backend/cpu/loops"
)

// lowering rewrites the record of one function into a graph, given the sizes
// of the dynamic axes.
type lowering struct {
	g     *graph
	fn    *Function
	sizes shapes.AxisBindings
	done  map[*record]*node
	multi map[*record][]*node // results of operations with several
	uses  map[*record]int     // how many operands and results a record is
}

// lower returns the graph of f. Its parameters are those of f followed by what
// f captures.
func lower(b *Backend, f *Function, sizes shapes.AxisBindings) (*graph, error) {
	l := &lowering{
		g: newGraph(b), fn: f, sizes: sizes,
		done: make(map[*record]*node, len(f.records)), multi: map[*record][]*node{},
	}
	l.g.params = make([]*node, len(f.params)+len(f.captures))
	for _, r := range f.params { // in order, also the unused ones
		if err := l.lower(r); err != nil {
			return nil, err
		}
	}
	order := needed(f.outputs)
	l.uses = countUses(order, f.outputs)
	for _, r := range order {
		if err := l.lower(r); err != nil {
			return nil, errors.WithMessagef(err, "cpu backend: compiling %s", r.op)
		}
	}
	for _, r := range f.outputs {
		l.g.outputs = append(l.g.outputs, l.done[r])
	}
	if err := l.g.fold(); err != nil {
		return nil, err
	}
	return l.g, nil
}

// needed returns the records that outputs depend on, operands first, each
// as late as its first use allows.
func needed(outputs []*record) []*record {
	var order []*record
	seen := map[*record]bool{}
	var visit func(r *record)
	visit = func(r *record) {
		if seen[r] {
			return
		}
		seen[r] = true
		for _, in := range r.ins {
			visit(in)
		}
		order = append(order, r)
	}
	for _, r := range outputs {
		visit(r)
	}
	return order
}

func countUses(order, outputs []*record) map[*record]int {
	uses := make(map[*record]int, len(order))
	for _, r := range order {
		for _, in := range r.ins {
			uses[in]++
		}
	}
	for _, r := range outputs {
		uses[r]++
	}
	return uses
}

// dims resolves the dimensions of a recorded shape.
func (l *lowering) dims(s shapes.Shape) ([]int, error) {
	if !s.IsDynamic() {
		return s.Dimensions, nil
	}
	c, err := s.Resolve(l.sizes)
	return c.Dimensions, err
}

func (l *lowering) lower(r *record) error {
	if l.done[r] != nil || l.multi[r] != nil {
		return nil
	}
	ins := make([]*node, len(r.ins))
	for i, in := range r.ins {
		ins[i] = l.done[in]
	}
	n, err := l.one(r, ins)
	if err != nil {
		return err
	}
	if n != nil {
		l.done[r] = n
	}
	return nil
}

func (l *lowering) one(r *record, ins []*node) (*node, error) {
	g := l.g
	if red, ok := reductions[r.op]; ok {
		return g.reduce(red, ins[0], r.attr.([]int)), nil
	}
	switch r.op {
	case compute.OpTypeParameter:
		dims, err := l.dims(r.shape)
		if err != nil {
			return nil, err
		}
		return l.param(r.attr.(parameter).index, r.shape.DType, dims), nil
	case opCapture:
		dims, err := l.dims(r.shape)
		if err != nil {
			return nil, err
		}
		return l.param(len(l.fn.params)+r.attr.(int), r.shape.DType, dims), nil
	case compute.OpTypeConstant:
		return g.constant(r.shape.DType, r.shape.Dimensions, r.attr.(unsafe.Pointer)), nil
	case opResult:
		return l.multi[r.ins[0]][r.output], nil
	case compute.OpTypeOptimizationBarrier, compute.OpTypeSchedulingBarrier:
		x := g.copyOrWhole(ins[0])
		n := g.emitNew(r.op, x.dt, x.dims, nil, append([]*node{x}, ins[1:]...)...)
		n.root, n.strides, n.offset = x.root, x.strides, x.offset
		if r.op == compute.OpTypeSchedulingBarrier {
			n.root, n.strides, n.offset = n, rowMajor(n.dims), 0
		}
		return n, nil
	case compute.OpTypeIota:
		dims, err := l.dims(r.shape)
		if err != nil {
			return nil, err
		}
		return g.iota(r.shape.DType, dims, r.attr.(int)), nil
	case compute.OpTypeWhere:
		dims := ins[0].dims
		for _, in := range ins[1:] {
			if len(in.dims) > 0 {
				dims = in.dims
			}
		}
		return g.where(ins[0], ins[1], ins[2], dims), nil
	case compute.OpTypeConvertDType:
		return g.convert(ins[0], r.shape.DType), nil
	case opDecode:
		return g.decode(ins[0], r.attr.(blockFormat))
	case compute.OpTypeBitcast:
		return g.bitcast(ins[0], r.shape.DType), nil
	case compute.OpTypeReshape:
		dims, err := l.reshapeDims(r.shape, ins[0])
		if err != nil {
			return nil, err
		}
		return g.reshape(ins[0], dims), nil
	case compute.OpTypeDynamicReshape:
		return l.dynamicReshape(r, ins)
	case compute.OpTypeDynamicDimensionSize:
		return g.integers(ins[0].dims[r.attr.(int)]), nil
	case compute.OpTypeDynamicShape:
		n := g.integers(ins[0].dims...)
		return g.reshape(n, []int{len(ins[0].dims)}), nil
	case compute.OpTypeTranspose:
		if n := l.transposedProduct(r); n != nil {
			return n, nil
		}
		return g.transpose(ins[0], r.attr.([]int)), nil
	case compute.OpTypeBroadcastInDim:
		dims, err := l.dims(r.shape)
		if err != nil {
			return nil, err
		}
		return g.broadcast(ins[0], dims, r.attr.([]int)), nil
	case compute.OpTypeSlice:
		a := r.attr.(slicing)
		limits := slices.Clone(a.limits)
		for k, v := range limits {
			if v == shapes.DynamicDim {
				limits[k] = ins[0].dims[k]
			}
		}
		s, err := shapeinference.Slice(shapes.Make(ins[0].dt, ins[0].dims...), a.starts, limits, a.strides)
		if err != nil {
			return nil, err
		}
		return g.slice(ins[0], a.starts, s.Dimensions, a.strides), nil
	case compute.OpTypeReverse:
		return g.reverse(ins[0], r.attr.([]int)), nil
	case compute.OpTypePad:
		return g.pad(ins[0], ins[1], r.attr.([]compute.PadAxis)), nil
	case compute.OpTypeConcatenate:
		return g.concatenate(r.attr.(int), ins), nil
	case compute.OpTypeArgMinMax:
		return g.argMinMax(ins[0], r.attr.(argMinMax), r.shape.DType), nil
	case compute.OpTypeDotGeneral:
		return g.dotGeneral(ins[0], ins[1], r.attr.(dotGeneral), r.shape.DType, nil), nil
	case compute.OpTypeConvGeneral:
		return g.convGeneral(ins[0], ins[1], r.attr.(convGeneral))
	case compute.OpTypeReduceWindow:
		return g.reduceWindow(ins[0], r.attr.(reduceWindow)), nil
	case compute.OpTypeSelectAndScatterMax, compute.OpTypeSelectAndScatterMin:
		return g.selectAndScatter(r.op, ins[0], ins[1], r.attr.(reduceWindow)), nil
	case compute.OpTypeGather:
		return g.gather(ins[0], ins[1], r.attr.(gather))
	case compute.OpTypeScatterSum, compute.OpTypeScatterMax, compute.OpTypeScatterMin:
		return g.scatter(r.op, ins[0], ins[1], ins[2], r.attr.(scatter)), nil
	case compute.OpTypeDynamicSlice:
		return g.dynamicSlice(ins[0], ins[1:], r.attr.([]int)), nil
	case compute.OpTypeDynamicUpdateSlice:
		return g.dynamicUpdateSlice(ins[0], ins[1], ins[2:]), nil
	case compute.OpTypeBatchNormForInference:
		return g.batchNormInference(r.attr.(batchNorm), ins), nil
	case compute.OpTypeBatchNormForTraining:
		l.multi[r] = g.batchNormTraining(r.attr.(batchNorm), ins)
		return nil, nil
	case compute.OpTypeBatchNormGradient:
		l.multi[r] = g.batchNormGradient(r.attr.(batchNorm), ins)
		return nil, nil
	case compute.OpTypeRNGBitGenerator:
		dims, err := l.dims(r.outs[1].shape)
		if err != nil {
			return nil, err
		}
		l.multi[r] = g.random(ins[0], r.outs[1].shape.DType, dims)
		return nil, nil
	case compute.OpTypeCall:
		return nil, l.call(r, ins)
	case compute.OpTypeWhile, compute.OpTypeIf, compute.OpTypeSort:
		return nil, l.control(r, ins)
	}
	if len(ins) == 1 {
		return g.unary(r.op, ins[0]), nil
	}
	if r.op == compute.OpTypeAdd && l.uses[r.ins[0]] == 1 && l.uses[r.ins[1]] == 1 {
		if n := g.joinSum(ins[0], ins[1]); n != nil {
			return n, nil
		}
	}
	dims := ins[0].dims
	if len(dims) == 0 {
		dims = ins[1].dims
	} else if len(ins[1].dims) > 0 {
		dims = slices.Clone(dims)
		for k, d := range ins[1].dims {
			if dims[k] == 1 {
				dims[k] = d
			}
			if d != 1 && dims[k] != d {
				return nil, errors.Errorf("shapes %v and %v do not broadcast", ins[0].dims, ins[1].dims)
			}
		}
	}
	return g.binary(r.op, ins[0], ins[1], dims), nil
}

// transposedProduct lowers the transposition of a matrix product that nothing
// else reads to a product that writes its result in that order; nil if r is
// none.
func (l *lowering) transposedProduct(r *record) *node {
	perm := r.attr.([]int)
	x := r.ins[0]
	for x.op == compute.OpTypeTranspose && l.uses[x] == 1 {
		first := x.attr.([]int)
		both := make([]int, len(perm))
		for i, p := range perm {
			both[i] = first[p]
		}
		perm, x = both, x.ins[0]
	}
	if x.op != compute.OpTypeDotGeneral || l.uses[x] != 1 {
		return nil
	}
	return l.g.dotGeneral(l.done[x.ins[0]], l.done[x.ins[1]], x.attr.(dotGeneral), x.shape.DType, perm)
}

func (l *lowering) param(index int, dt dtypes.DType, dims []int) *node {
	n := l.g.emitNew(compute.OpTypeParameter, dt, dims, index)
	l.g.params[index] = n
	return n
}

// reshapeDims resolves the target of a reshape; one axis whose name says
// nothing may take what is left.
func (l *lowering) reshapeDims(s shapes.Shape, x *node) ([]int, error) {
	dims := slices.Clone(s.Dimensions)
	open, rest := -1, x.size()
	for k, d := range dims {
		if d == shapes.DynamicDim {
			one := shapes.Shape{DType: s.DType, Dimensions: []int{d}, AxisNames: []string{s.AxisName(k)}}
			c, err := one.Resolve(l.sizes)
			if err != nil {
				if open >= 0 {
					return nil, err
				}
				open = k
				continue
			}
			dims[k] = c.Dimensions[0]
		}
		if dims[k] > 0 {
			rest /= dims[k]
		}
	}
	if open >= 0 {
		dims[open] = rest
	}
	if product(dims) != x.size() {
		return nil, errors.Errorf("reshape of %v to %v", x.dims, dims)
	}
	return dims, nil
}

func (l *lowering) dynamicReshape(r *record, ins []*node) (*node, error) {
	a := r.attr.(dynamicReshape)
	dims := slices.Clone(a.static)
	open, rest := -1, ins[0].size()
	for k := range dims {
		switch {
		case a.value[k] > 0:
			v, err := l.g.value(ins[a.value[k]])
			if err != nil {
				return nil, errors.WithMessagef(err, "size of axis %q", a.names[k])
			}
			dims[k] = v
		case a.names[k] != "":
			open = k
			continue
		}
		if dims[k] > 0 {
			rest /= dims[k]
		}
	}
	if open >= 0 {
		dims[open] = rest
	}
	if product(dims) != ins[0].size() {
		return nil, errors.Errorf("DynamicReshape of %v to %v: sizes differ", ins[0].dims, dims)
	}
	for k, name := range a.names {
		if name == "" {
			continue
		}
		if have, ok := l.sizes[name]; ok && have != dims[k] {
			return nil, errors.Errorf("DynamicReshape: axis %q has size %d and %d", name, have, dims[k])
		}
		l.sizes[name] = dims[k]
	}
	return l.g.reshape(ins[0], dims), nil
}

// value computes an integer that depends on constants only.
func (g *graph) value(n *node) (int, error) {
	if !g.constantParts()[n.id] {
		return 0, errors.Wrap(compute.ErrNotImplemented, "depends on data, not only on shapes")
	}
	dense := g.copyOrWhole(n)
	if err := g.evaluate([]*node{dense.root}); err != nil {
		return 0, err
	}
	return loops.LoadIndex(dense.root.attr.(unsafe.Pointer), dense.dt, dense.offset), nil
}

// call writes the body of the callee in place of the call.
func (l *lowering) call(r *record, ins []*node) error {
	callee := r.attr.([]*Function)[0]
	inner := &lowering{g: l.g, fn: callee, sizes: l.sizes, done: map[*record]*node{}, multi: map[*record][]*node{}}
	for i, p := range callee.params {
		inner.done[p] = ins[i]
	}
	order := needed(callee.outputs)
	inner.uses = countUses(order, callee.outputs)
	for _, q := range order {
		if err := inner.lower(q); err != nil {
			return errors.WithMessagef(err, "in function %q: %s", callee.name, q.op)
		}
	}
	out := make([]*node, len(callee.outputs))
	for i, q := range callee.outputs {
		out[i] = inner.done[q]
	}
	l.multi[r] = out
	return nil
}

// nested is the attribute of lowered While, If and Sort nodes.
type nested struct {
	plans []*plan
	own   int // operands before the captures
	axis  int
}

// control lowers an operation with closures, which are compiled on their own.
func (l *lowering) control(r *record, ins []*node) error {
	c := r.attr.(control)
	a := &nested{own: c.own, axis: c.axis}
	for _, f := range c.fns {
		g, err := lower(l.g.backend, f, l.sizes)
		if err != nil {
			return err
		}
		p, err := newPlan(g)
		if err != nil {
			return err
		}
		a.plans = append(a.plans, p)
	}
	dense := make([]*node, len(ins))
	for i, in := range ins {
		dense[i] = l.g.contiguous(in)
	}
	m := l.g.emitNew(r.op, dtypes.InvalidDType, nil, a, dense...)
	out := make([]*node, len(r.outs))
	for i, o := range r.outs {
		dims, err := l.dims(o.shape)
		if err != nil {
			return err
		}
		out[i] = l.g.result(m, i, o.shape.DType, dims)
	}
	l.multi[r] = out
	return nil
}

// result emits the node for one of several results of m.
func (g *graph) result(m *node, i int, dt dtypes.DType, dims []int) *node {
	n := g.emitNew(opResult, dt, dims, nil, m)
	n.output = i
	return n
}

// copyOrWhole returns x if it is all of some memory in order, or a copy.
func (g *graph) copyOrWhole(x *node) *node {
	if x.whole() {
		return x
	}
	return g.copy(x)
}

func (g *graph) integers(v ...int) *node {
	p := alignedBytes(4 * len(v))
	for i, d := range v {
		loops.Slice[int32](p, len(v))[i] = int32(d)
	}
	if len(v) == 1 {
		return g.constant(dtypes.Int32, nil, p)
	}
	return g.constant(dtypes.Int32, []int{len(v)}, p)
}

func (g *graph) iota(dt dtypes.DType, dims []int, axis int) *node {
	if dt.IsHalfPrecision() {
		return g.convert(g.iota(dtypes.Float32, dims, axis), dt)
	}
	d := dims[axis]
	p := alignedBytes(d * dt.Size())
	counts := make([]int64, d)
	for i := range counts {
		counts[i] = int64(i)
	}
	if d > 0 {
		loops.Convert(dtypes.Int64, dt)(p, unsafe.Pointer(&counts[0]), nil, nil, d)
	}
	return g.broadcast(g.constant(dt, []int{d}, p), dims, []int{axis})
}

func (g *graph) decode(x *node, b blockFormat) (*node, error) {
	f, err := b.format()
	if err != nil {
		return nil, err
	}
	dims := slices.Clone(x.dims)
	last := len(dims) - 1
	dims[last] = dims[last] / f.Bytes * f.Values
	return g.emit(opDecode, dtypes.Float32, dims, b, g.contiguous(x)), nil
}

func (g *graph) bitcast(x *node, dt dtypes.DType) *node {
	if x.dt == dt {
		return x
	}
	dims := slices.Clone(x.dims)
	from, to := x.dt.Bits(), dt.Bits()
	switch {
	case from > to:
		dims = append(dims, from/to)
	case from < to:
		dims = dims[:len(dims)-1]
	}
	x = g.copyOrWhole(x)
	n := g.emit(compute.OpTypeBitcast, dt, dims, nil, x)
	n.root = x.root
	return n
}
