package cpu

import (
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/pkg/errors"

	"github.com/cohort-learning/cohort/backend/cpu/loops"
)

// This file lowers the operations with structure to nodes whose attribute
// holds everything the kernels need.

// Lowered kinds of nodes; the attribute is given in parentheses.
const (
	opMatMul   compute.OpType = 10_200 + iota // dense products of any dtype (product3)
	opConv                                    // channel-last convolution (*loops.Conv)
	opPlace                                   // operands copied to boxes of a result ([]place)
	opArg                                     // index of the extreme element (argMinMax)
	opWindow                                  // moving window (windowed)
	opSelect                                  // select and scatter (windowed)
	opGather                                  // (*loops.Slices)
	opScatter                                 // (scattered)
	opDynSlice                                // ([]int sizes)
	opDynSet                                  // none
	opRandom                                  // none
)

// matProduct is the attribute of opMatMul: over every combination of the batch
// axes the product of an m×k and a k×n matrix. The operands are [batch…,m,k] and
// [batch…,k,n]. The axes of the result are those of the batch, then rows, then
// columns, in the order perm of that list.
type matProduct struct {
	batch      []int
	rows, cols []int // whose products are m and n
	k          int
	perm       []int
}

func (p matProduct) m() int { return product(p.rows) }
func (p matProduct) n() int { return product(p.cols) }

// layout returns the strides of the result in memory for each batch axis, and
// for the merged rows and columns; false if those do not merge, or neither
// lies together.
func (p matProduct) layout() (batch []int, row, col int, ok bool) {
	natural := slices.Concat(p.batch, p.rows, p.cols)
	dims := make([]int, len(natural))
	for to, from := range p.perm {
		dims[to] = natural[from]
	}
	strides := make([]int, len(natural))
	for to, s := range rowMajor(dims) {
		strides[p.perm[to]] = s
	}
	nb, nr := len(p.batch), len(p.batch)+len(p.rows)
	merged := func(dims, strides []int) (int, bool) {
		d, s := mergeAxes(dims, strides)
		d, s = squeezed(d), squeeze(s, d)
		switch len(d) {
		case 0:
			return 1, true
		case 1:
			return s[0], true
		}
		return 0, false
	}
	row, ok1 := merged(p.rows, strides[nb:nr])
	col, ok2 := merged(p.cols, strides[nr:])
	ok = ok1 && ok2 && (row == 1 || col == 1 || p.m() == 1 || p.n() == 1)
	if ok && p.n() == 1 && p.m() > 1 && row != 1 {
		ok = false
	}
	return strides[:nb], row, col, ok
}

// dotGeneral emits the product with the axes of the result in the order perm
// (nil for the natural one).
func (g *graph) dotGeneral(x, y *node, a dotGeneral, out dtypes.DType, perm []int) *node {
	acc := a.accumulate
	if acc.IsHalfPrecision() {
		acc = dtypes.Float32
	}
	x, y = g.convert(x, acc), g.convert(y, acc)
	xFree, yFree := others(len(x.dims), a.lhsContract, a.lhsBatch), others(len(y.dims), a.rhsContract, a.rhsBatch)
	p := matProduct{k: 1}
	for _, k := range a.lhsBatch {
		p.batch = append(p.batch, x.dims[k])
	}
	for _, k := range xFree {
		p.rows = append(p.rows, x.dims[k])
	}
	for _, k := range yFree {
		p.cols = append(p.cols, y.dims[k])
	}
	for _, k := range a.lhsContract {
		p.k *= x.dims[k]
	}
	natural := slices.Concat(p.batch, p.rows, p.cols)
	for k := range natural {
		p.perm = append(p.perm, k)
	}
	var after []int // permutation that is left to a view
	if perm != nil {
		want := p
		want.perm = perm
		if _, _, _, ok := want.layout(); ok && acc == dtypes.Float32 && out == acc {
			p = want
		} else {
			after = perm
		}
	}
	x = g.transpose(x, slices.Concat(a.lhsBatch, xFree, a.lhsContract))
	y = g.transpose(y, slices.Concat(a.rhsBatch, a.rhsContract, yFree))
	x = g.reshape(x, slices.Concat(p.batch, []int{p.m(), p.k}))
	y = g.reshape(y, slices.Concat(p.batch, []int{p.k, p.n()}))
	if acc != dtypes.Float32 || len(x.dims) > 0 && (slices.Min(x.strides) < 0 || slices.Min(y.strides) < 0) {
		x, y = g.contiguous(x), g.contiguous(y)
	}
	dims := make([]int, len(natural))
	for to, from := range p.perm {
		dims[to] = natural[from]
	}
	r := g.convert(g.emit(opMatMul, acc, dims, p, x, y), out)
	if after != nil {
		r = g.transpose(r, after)
	}
	return r
}

// others returns the axes below rank that neither list names.
func others(rank int, a, b []int) []int {
	var free []int
	for k := range rank {
		if !slices.Contains(a, k) && !slices.Contains(b, k) {
			free = append(free, k)
		}
	}
	return free
}

// place says where in the result an operand goes: its element (i0, i1, …) to
// offset + Σ ik·strides[k].
type place struct {
	offset  int
	strides []int
}

// placing fills the result with operand 0, a scalar, unless the places cover
// it, and copies the other operands to their places.
type placing struct {
	fill   bool
	places []place
}

func (g *graph) pad(x, fill *node, axes []compute.PadAxis) *node {
	dims := make([]int, len(x.dims))
	starts, keep, ones := make([]int, len(dims)), make([]int, len(dims)), repeat(1, len(dims))
	strides := rowMajor(dims)
	offset := 0
	for k, ax := range axes {
		d := x.dims[k]
		dims[k] = d + ax.Start + ax.End + max(d-1, 0)*ax.Interior
	}
	full := rowMajor(dims)
	for k, ax := range axes {
		// Negative padding cuts off elements: keep those whose place is inside.
		step := ax.Interior + 1
		first := 0
		if ax.Start < 0 {
			first = (-ax.Start + step - 1) / step
		}
		last := x.dims[k] - 1 // the last index that is kept
		if at := ax.Start + last*step; at >= dims[k] {
			last -= (at - dims[k] + step) / step
		}
		starts[k], keep[k] = first, max(last-first+1, 0)
		if keep[k] == 0 {
			starts[k] = 0
		}
		strides[k] = full[k] * step
		offset += (ax.Start + first*step) * full[k]
	}
	if product(keep) == 0 {
		return g.broadcast(fill, dims, nil)
	}
	x = g.slice(x, starts, keep, ones)
	return g.emit(opPlace, x.dt, dims, placing{true, []place{{offset, strides}}}, g.contiguous(fill), x)
}

func (g *graph) concatenate(axis int, ins []*node) *node {
	dims := slices.Clone(ins[0].dims)
	for _, in := range ins[1:] {
		dims[axis] += in.dims[axis]
	}
	full := rowMajor(dims)
	var a placing
	var parts []*node
	at := 0
	for _, in := range ins {
		if in.size() > 0 {
			a.places = append(a.places, place{at * full[axis], full})
			parts = append(parts, in)
		}
		at += in.dims[axis]
	}
	if len(parts) == 1 {
		return parts[0]
	}
	return g.emit(opPlace, ins[0].dt, dims, a, parts...)
}

func (g *graph) argMinMax(x *node, a argMinMax, out dtypes.DType) *node {
	switch {
	case x.dt.IsHalfPrecision():
		x = g.convert(x, dtypes.Float32)
	case x.dt == dtypes.Bool:
		x = g.convert(x, dtypes.Uint8)
	}
	if out.IsHalfPrecision() {
		return g.convert(g.argMinMax(x, a, dtypes.Int32), out)
	}
	return g.emit(opArg, out, slices.Delete(slices.Clone(x.dims), a.axis, a.axis+1), a, g.contiguous(x))
}

// windowed is the attribute of window nodes.
type windowed struct {
	axes      []loops.WindowAxis
	reduction loops.Reduction
	smallest  bool
}

func (g *graph) windows(x *node, a reduceWindow) (windowed, []int) {
	var w windowed
	dims := make([]int, len(x.dims))
	for k, d := range x.dims {
		ax := loops.WindowAxis{
			In: d, Window: a.window[k], Stride: a.strides[k], Low: a.paddings[k][0],
			InDilation: a.inputDilations[k], WindowDilation: a.windDilation[k],
		}
		span := (d-1)*ax.InDilation + 1 + a.paddings[k][0] + a.paddings[k][1]
		ax.Out = (span-(ax.Window-1)*ax.WindowDilation-1)/ax.Stride + 1
		w.axes = append(w.axes, ax)
		dims[k] = ax.Out
	}
	return w, dims
}

func (g *graph) reduceWindow(x *node, a reduceWindow) *node {
	if x.dt.IsHalfPrecision() {
		return g.convert(g.reduceWindow(g.convert(x, dtypes.Float32), a), x.dt)
	}
	w, dims := g.windows(x, a)
	switch a.reduction {
	case compute.ReduceOpSum:
		w.reduction = loops.Sum
	case compute.ReduceOpProduct:
		w.reduction = loops.Product
	case compute.ReduceOpMax:
		w.reduction = loops.Max
	case compute.ReduceOpMin:
		w.reduction = loops.Min
	}
	return g.emit(opWindow, x.dt, dims, w, g.contiguous(x))
}

func (g *graph) selectAndScatter(op compute.OpType, x, source *node, a reduceWindow) *node {
	if x.dt.IsHalfPrecision() {
		return g.convert(g.selectAndScatter(op, g.convert(x, dtypes.Float32), g.convert(source, dtypes.Float32), a), x.dt)
	}
	w, _ := g.windows(x, a)
	w.smallest = op == compute.OpTypeSelectAndScatterMin
	return g.emit(opSelect, x.dt, x.dims, w, g.contiguous(x), g.contiguous(source))
}

func (g *graph) gather(x, index *node, a gather) (*node, error) {
	x, index = g.contiguous(x), g.contiguous(index)
	full := rowMajor(x.dims)
	size := slices.Clone(a.size)
	for k, d := range size {
		if d < 0 {
			size[k] = x.dims[k]
		}
		if size[k] > x.dims[k] {
			return nil, errors.Errorf("Gather: slice size %d for an axis of size %d", size[k], x.dims[k])
		}
	}
	indexDims, indexStrides := index.dims, rowMajor(index.dims)
	s := loops.Slices{Index: index.dt, Component: 1, Count: 1, WindowSize: 1}
	if a.indexAxis < len(indexDims) {
		s.Component = indexStrides[a.indexAxis]
	}
	for _, k := range a.startMap {
		s.Stride = append(s.Stride, full[k])
		s.Limit = append(s.Limit, x.dims[k]-size[k])
	}
	// Output axes: windows at offsetAxes, the rest from the index.
	rank := len(a.offsetAxes)
	for k := range indexDims {
		if k != a.indexAxis {
			rank++
		}
	}
	dims := make([]int, rank)
	kind := make([]int, rank) // operand axis, or −1−index axis
	nextIndex, nextWindow := 0, 0
	for k := range dims {
		if slices.Contains(a.offsetAxes, k) {
			for slices.Contains(a.collapsed, nextWindow) {
				nextWindow++
			}
			dims[k], kind[k] = size[nextWindow], nextWindow
			nextWindow++
			continue
		}
		if nextIndex == a.indexAxis {
			nextIndex++
		}
		dims[k], kind[k] = indexDims[nextIndex], -1-nextIndex
		nextIndex++
	}
	out := rowMajor(dims)
	for k, from := range kind {
		if from >= 0 {
			s.Window = append(s.Window, loops.Axis{Dim: dims[k], A: out[k], B: full[from]})
			s.WindowSize *= dims[k]
		} else {
			s.Batch = append(s.Batch, loops.Axis{Dim: dims[k], A: out[k], B: indexStrides[-1-from]})
			s.Count *= dims[k]
		}
	}
	s.Window = loops.MergeAxes(s.Window)
	return g.emit(opGather, x.dt, dims, s, x, index), nil
}

// scattered is the attribute of scatter nodes.
type scattered struct {
	slices    loops.Slices
	reduction loops.Reduction
}

func (g *graph) scatter(op compute.OpType, x, index, updates *node, a scatter) *node {
	if x.dt.IsHalfPrecision() {
		return g.convert(g.scatter(op, g.convert(x, dtypes.Float32), index, g.convert(updates, dtypes.Float32), a), x.dt)
	}
	index, updates = g.contiguous(index), g.contiguous(updates)
	full, up, indexStrides := rowMajor(x.dims), rowMajor(updates.dims), rowMajor(index.dims)
	s := loops.Slices{Index: index.dt, Component: 1, Count: 1, WindowSize: 1}
	if a.indexAxis < len(index.dims) {
		s.Component = indexStrides[a.indexAxis]
	}
	window := repeat(1, len(x.dims)) // size of the window along each operand axis
	next, nextIndex := 0, 0
	for k, d := range updates.dims {
		if slices.Contains(a.windowAxes, k) {
			for slices.Contains(a.inserted, next) {
				next++
			}
			s.Window = append(s.Window, loops.Axis{Dim: d, A: up[k], B: full[next]})
			s.WindowSize *= d
			window[next] = d
			next++
			continue
		}
		if nextIndex == a.indexAxis {
			nextIndex++
		}
		s.Batch = append(s.Batch, loops.Axis{Dim: d, A: up[k], B: indexStrides[nextIndex]})
		s.Count *= d
		nextIndex++
	}
	for _, k := range a.startMap {
		s.Stride = append(s.Stride, full[k])
		s.Limit = append(s.Limit, x.dims[k]-window[k])
	}
	s.Window = loops.MergeAxes(s.Window)
	red := map[compute.OpType]loops.Reduction{
		compute.OpTypeScatterSum: loops.Sum, compute.OpTypeScatterMax: loops.Max, compute.OpTypeScatterMin: loops.Min,
	}[op]
	return g.emit(opScatter, x.dt, x.dims, scattered{s, red}, x, index, updates)
}

func (g *graph) dynamicSlice(x *node, starts []*node, sizes []int) *node {
	dims := slices.Clone(sizes)
	for k, d := range dims {
		if d < 0 {
			dims[k] = x.dims[k]
		}
	}
	ins := []*node{g.contiguous(x)}
	for _, s := range starts {
		ins = append(ins, g.contiguous(s))
	}
	return g.emit(opDynSlice, x.dt, dims, nil, ins...)
}

func (g *graph) dynamicUpdateSlice(x, update *node, starts []*node) *node {
	ins := []*node{x, g.contiguous(update)}
	for _, s := range starts {
		ins = append(ins, g.contiguous(s))
	}
	return g.emit(opDynSet, x.dt, x.dims, nil, ins...)
}

func (g *graph) random(state *node, dt dtypes.DType, dims []int) []*node {
	m := g.emit(opRandom, dt, dims, nil, g.contiguous(state))
	m.dt, m.dims = dtypes.InvalidDType, nil
	return []*node{g.emit(opResult, dtypes.Uint64, state.dims, 0, m), g.resultOf(m, dt, dims)}
}

func (g *graph) resultOf(m *node, dt dtypes.DType, dims []int) *node {
	n := g.emit(opResult, dt, dims, 1, m)
	n.output = 1
	return n
}

// The batch normalisations over all axes but a.axis, in primitive operations.

func (g *graph) overBatch(x *node, axis int) []int { return others(len(x.dims), []int{axis}, nil) }

func (g *graph) batchNormTraining(a batchNorm, ins []*node) []*node {
	dt := ins[0].dt
	if dt.IsHalfPrecision() {
		out := g.batchNormTraining(a, g.widen(ins))
		return g.narrow(out, dt)
	}
	x := ins[0]
	axes := g.overBatch(x, a.axis)
	inv := g.scalar(dt, 1/float64(x.size()/x.dims[a.axis]))
	per := []int{x.dims[a.axis]}
	mean := g.binary(compute.OpTypeMul, g.reduce(loops.Sum, x, axes), inv, per)
	centred := g.binary(compute.OpTypeSub, x, g.perFeature(mean, x, a.axis), x.dims)
	square := g.binary(compute.OpTypeMul, centred, centred, x.dims)
	variance := g.binary(compute.OpTypeMul, g.reduce(loops.Sum, square, axes), inv, per)
	y := g.normalise(a, centred, ins[1], ins[2], variance)
	return []*node{y, mean, variance}
}

// perFeature repeats a vector along all axes of x but one.
func (g *graph) perFeature(v, x *node, axis int) *node { return g.broadcast(v, x.dims, []int{axis}) }

// normalise returns centred·scale/√(variance+ε) + offset.
func (g *graph) normalise(a batchNorm, centred, scale, offset, variance *node) *node {
	per := variance.dims
	factor := g.binary(compute.OpTypeMul, g.inverseDeviation(a, variance), scale, per)
	y := g.binary(compute.OpTypeMul, centred, g.perFeature(factor, centred, a.axis), centred.dims)
	return g.binary(compute.OpTypeAdd, y, g.perFeature(offset, centred, a.axis), centred.dims)
}

func (g *graph) inverseDeviation(a batchNorm, variance *node) *node {
	eps := g.scalar(variance.dt, float64(a.epsilon))
	return g.unary(compute.OpTypeRsqrt, g.binary(compute.OpTypeAdd, variance, eps, variance.dims))
}

func (g *graph) batchNormInference(a batchNorm, ins []*node) *node {
	if dt := ins[0].dt; dt.IsHalfPrecision() {
		return g.convert(g.batchNormInference(a, g.widen(ins)), dt)
	}
	x := ins[0]
	centred := g.binary(compute.OpTypeSub, x, g.perFeature(ins[3], x, a.axis), x.dims)
	return g.normalise(a, centred, ins[1], ins[2], ins[4])
}

// batchNormGradient implements, with x̂ = (x−mean)/√(variance+ε), n elements per
// feature and the gradient v of the result:
//
//	offset: Σ v     scale: Σ v·x̂     x: scale/√(variance+ε) · (v − Σv/n − x̂·Σ(v·x̂)/n)
func (g *graph) batchNormGradient(a batchNorm, ins []*node) []*node {
	dt := ins[0].dt
	if dt.IsHalfPrecision() {
		return g.narrow(g.batchNormGradient(a, g.widen(ins)), dt)
	}
	x, scale, mean, variance, v := ins[0], ins[1], ins[2], ins[3], ins[4]
	axes, per := g.overBatch(x, a.axis), scale.dims
	mul := func(x, y *node) *node { return g.binary(compute.OpTypeMul, x, y, x.dims) }
	sub := func(x, y *node) *node { return g.binary(compute.OpTypeSub, x, y, x.dims) }
	inv := g.scalar(dt, 1/float64(x.size()/x.dims[a.axis]))
	rstd := g.inverseDeviation(a, variance)
	xhat := mul(sub(x, g.perFeature(mean, x, a.axis)), g.perFeature(rstd, x, a.axis))
	gradOffset := g.reduce(loops.Sum, v, axes)
	gradScale := g.reduce(loops.Sum, mul(v, xhat), axes)
	meanV := g.binary(compute.OpTypeMul, gradOffset, inv, per)
	meanVX := g.binary(compute.OpTypeMul, gradScale, inv, per)
	inner := sub(sub(v, g.perFeature(meanV, x, a.axis)), mul(xhat, g.perFeature(meanVX, x, a.axis)))
	gradX := mul(inner, g.perFeature(mul(scale, rstd), x, a.axis))
	return []*node{gradX, gradScale, gradOffset}
}

func (g *graph) widen(ins []*node) []*node {
	out := make([]*node, len(ins))
	for i, in := range ins {
		out[i] = g.convert(in, dtypes.Float32)
	}
	return out
}

func (g *graph) narrow(outs []*node, dt dtypes.DType) []*node {
	for i, n := range outs {
		outs[i] = g.convert(n, dt)
	}
	return outs
}
