package cpu

import (
	"fmt"
	"slices"
	"unsafe"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"

	"github.com/cohort-learning/cohort/backend/cpu/loops"
)

// node is one value of a lowered graph: concrete shape, and either computed
// into memory of its own (root is the node itself) or a view of another.
type node struct {
	op   compute.OpType
	ins  []*node
	dt   dtypes.DType
	dims []int
	attr any
	id   int

	// Where the elements lie: element (i0, i1, …) is at offset + Σ ik·strides[k]
	// of the root's memory, counted in elements of this node's own dtype.
	root    *node
	offset  int
	strides []int

	output int // of an opResult: which one
}

func (n *node) size() int { return product(n.dims) }

func (n *node) bytes() int { return n.dt.SizeForDimensions(n.dims...) }

// isView tells whether the node has no memory of its own.
func (n *node) isView() bool { return n.root != n }

// dense tells whether the elements lie in row-major order without gaps.
func (n *node) dense() bool {
	want := 1
	for k := len(n.dims) - 1; k >= 0; k-- {
		if n.dims[k] != 1 {
			if n.strides[k] != want {
				return false
			}
			want *= n.dims[k]
		}
	}
	return true
}

// whole tells whether the node is the root's memory from beginning to end.
func (n *node) whole() bool {
	return n.offset == 0 && n.dense() && n.bytes() == n.root.bytes()
}

func product(dims []int) int {
	p := 1
	for _, d := range dims {
		p *= d
	}
	return p
}

// rowMajor returns the strides of a dense array.
func rowMajor(dims []int) []int {
	s := make([]int, len(dims))
	n := 1
	for k := len(dims) - 1; k >= 0; k-- {
		s[k] = n
		n *= dims[k]
	}
	return s
}

func unsafeBytes(p unsafe.Pointer, n int) []byte { return unsafe.Slice((*byte)(p), n) }

// graph is a lowered function. Nodes appear after their operands.
type graph struct {
	backend *Backend
	nodes   []*node
	params  []*node // by index; nil if unused
	outputs []*node
	known   map[string]*node
	key     []byte
}

func newGraph(b *Backend) *graph { return &graph{backend: b, known: map[string]*node{}} }

// emit returns the node with this operation, or an equal one that exists.
// Operations with effects on identity (barriers, control flow, parameters) are
// appended with emitNew.
func (g *graph) emit(op compute.OpType, dt dtypes.DType, dims []int, attr any, ins ...*node) *node {
	k := g.key[:0]
	k = appendInt(k, int(op))
	k = appendInt(k, int(dt))
	for _, d := range dims {
		k = appendInt(k, d)
	}
	for _, in := range ins {
		k = appendInt(append(k, '#'), in.id)
	}
	if attr != nil {
		k = fmt.Appendf(append(k, '|'), "%v", attr)
	}
	g.key = k
	if n := g.known[string(k)]; n != nil {
		return n
	}
	n := g.emitNew(op, dt, dims, attr, ins...)
	g.known[string(k)] = n
	return n
}

func appendInt(k []byte, v int) []byte {
	return append(k, byte(v), byte(v>>8), byte(v>>16), byte(v>>24), byte(v>>32), ';')
}

func (g *graph) emitNew(op compute.OpType, dt dtypes.DType, dims []int, attr any, ins ...*node) *node {
	n := &node{op: op, ins: ins, dt: dt, dims: dims, attr: attr, id: len(g.nodes)}
	n.root, n.strides = n, rowMajor(dims)
	g.nodes = append(g.nodes, n)
	return n
}

// view returns a node that reads x with other dimensions and strides.
func (g *graph) view(op compute.OpType, x *node, dims, strides []int, offset int, attr any) *node {
	before := len(g.nodes)
	n := g.emit(op, x.dt, dims, attr, x)
	if len(g.nodes) > before {
		n.root, n.offset, n.strides = x.root, offset, strides
		for k, d := range dims {
			if d == 1 && strides[k] < 0 { // never walked
				n.strides = slices.Clone(n.strides)
				n.strides[k] = 0
			}
		}
	}
	return n
}

// constant returns a node for known data. Small constants are merged.
func (g *graph) constant(dt dtypes.DType, dims []int, data unsafe.Pointer) *node {
	size := dt.SizeForDimensions(dims...)
	if size > 256 {
		return g.emitNew(compute.OpTypeConstant, dt, dims, data)
	}
	key := fmt.Sprintf("const %v %v %x", dt, dims, unsafeBytes(data, size))
	if n := g.known[key]; n != nil {
		return n
	}
	n := g.emitNew(compute.OpTypeConstant, dt, dims, data)
	g.known[key] = n
	return n
}

// scalar returns a constant of any dtype with the given value.
func (g *graph) scalar(dt dtypes.DType, v float64) *node {
	p := alignedBytes(8)
	switch dt {
	case dtypes.Float16, dtypes.BFloat16:
		v32 := float32(v)
		loops.Convert(dtypes.Float32, dt)(p, unsafe.Pointer(&v32), nil, nil, 1)
	default:
		loops.Convert(dtypes.Float64, dt)(p, unsafe.Pointer(&v), nil, nil, 1)
	}
	return g.constant(dt, nil, p)
}

// uniform returns the value of a float constant that is the same everywhere.
func (n *node) uniform() (float64, bool) {
	r := n.root
	if r.op != compute.OpTypeConstant || r.size() != 1 {
		return 0, false
	}
	p := r.attr.(unsafe.Pointer)
	switch r.dt {
	case dtypes.Float32:
		return float64(*(*float32)(p)), true
	case dtypes.Float64:
		return *(*float64)(p), true
	}
	return 0, false
}

// reshape returns x with other dimensions, as a view if its elements lie so
// that this is possible, and of a copy otherwise.
func (g *graph) reshape(x *node, dims []int) *node {
	if slices.Equal(x.dims, dims) {
		return x
	}
	strides, ok := reshapeStrides(x.dims, x.strides, dims)
	if !ok {
		x = g.copy(x)
		strides = rowMajor(dims)
	}
	return g.view(compute.OpTypeReshape, x, dims, strides, x.offset, nil)
}

// reshapeStrides finds strides for dimensions to that address the same
// elements in the same order as dimensions from with strides do.
func reshapeStrides(from, strides, to []int) ([]int, bool) {
	if product(from) == 0 {
		return rowMajor(to), true
	}
	out := make([]int, len(to))
	i, j := 0, 0
	for i < len(from) || j < len(to) {
		i1, j1 := i+1, j+1 // groups from[i:i1] and to[j:j1] with equal products
		a, b := 1, 1
		if i < len(from) {
			a = from[i]
		} else {
			i1 = i
		}
		if j < len(to) {
			b = to[j]
		} else {
			j1 = j
		}
		for a != b {
			if a < b {
				a *= from[i1]
				i1++
			} else {
				b *= to[j1]
				j1++
			}
		}
		stride := 1
		last := -1
		for k := i; k < i1; k++ {
			if from[k] == 1 {
				continue
			}
			if last >= 0 && strides[last] != strides[k]*from[k] {
				return nil, false
			}
			last = k
		}
		if last >= 0 {
			stride = strides[last]
		}
		for k := j1 - 1; k >= j; k-- {
			out[k] = stride
			stride *= to[k]
		}
		i, j = i1, j1
	}
	return out, true
}

func (g *graph) transpose(x *node, perm []int) *node {
	identity := true
	dims, strides := make([]int, len(perm)), make([]int, len(perm))
	for i, p := range perm {
		dims[i], strides[i] = x.dims[p], x.strides[p]
		identity = identity && i == p
	}
	if identity {
		return x
	}
	return g.view(compute.OpTypeTranspose, x, dims, strides, x.offset, perm)
}

// broadcast returns x repeated to dims; axis i of x is axis axes[i] of the
// result.
func (g *graph) broadcast(x *node, dims, axes []int) *node {
	if len(x.dims) == len(dims) && slices.Equal(x.dims, dims) {
		return x
	}
	strides := make([]int, len(dims))
	for i, a := range axes {
		if x.dims[i] == dims[a] && dims[a] != 1 {
			strides[a] = x.strides[i]
		}
	}
	return g.view(compute.OpTypeBroadcastInDim, x, dims, strides, x.offset, axes)
}

// broadcastTo applies the implicit rule: x is a scalar, or has the same rank
// and 1 where dims differ.
func (g *graph) broadcastTo(x *node, dims []int) *node {
	axes := make([]int, len(x.dims))
	for i := range axes {
		axes[i] = i
	}
	return g.broadcast(x, dims, axes)
}

func (g *graph) slice(x *node, starts, dims, steps []int) *node {
	strides := make([]int, len(dims))
	offset := x.offset
	for k := range dims {
		strides[k] = x.strides[k] * steps[k]
		offset += starts[k] * x.strides[k]
	}
	if product(dims) == 0 {
		offset = x.offset
	}
	return g.view(compute.OpTypeSlice, x, dims, strides, offset, [2][]int{starts, steps})
}

func (g *graph) reverse(x *node, axes []int) *node {
	strides := slices.Clone(x.strides)
	offset := x.offset
	if x.size() > 0 {
		for _, a := range axes {
			offset += (x.dims[a] - 1) * strides[a]
			strides[a] = -strides[a]
		}
	}
	return g.view(compute.OpTypeReverse, x, x.dims, strides, offset, axes)
}

// copy returns x in memory of its own.
func (g *graph) copy(x *node) *node {
	if !x.isView() {
		return x
	}
	return g.emit(compute.OpTypeIdentity, x.dt, x.dims, nil, x)
}

// contiguous returns x, or a copy if its elements do not lie in order.
func (g *graph) contiguous(x *node) *node {
	if x.dense() {
		return x
	}
	return g.copy(x)
}

func (g *graph) convert(x *node, dt dtypes.DType) *node {
	switch {
	case x.dt == dt:
		return x
	case x.dt.IsPacked():
		wide := dtypes.Int8
		if x.dt.IsUnsigned() {
			wide = dtypes.Uint8
		}
		return g.convert(g.emit(opUnpack, wide, x.dims, nil, g.contiguous(x)), dt)
	case dt.IsPacked():
		wide := dtypes.Int8
		if dt.IsUnsigned() {
			wide = dtypes.Uint8
		}
		return g.emit(opPack, dt, x.dims, nil, g.contiguous(g.convert(x, wide)))
	case x.dt.IsHalfPrecision() && dt != dtypes.Float32, dt.IsHalfPrecision() && x.dt != dtypes.Float32:
		return g.convert(g.convert(x, dtypes.Float32), dt)
	}
	// Convert small things before they are repeated.
	if x.op == compute.OpTypeBroadcastInDim && x.ins[0].size() < x.size() {
		return g.broadcast(g.convert(x.ins[0], dt), x.dims, x.attr.([]int))
	}
	return g.emit(compute.OpTypeConvertDType, dt, x.dims, nil, x)
}

// binary emits an element-wise operation on operands of any two shapes that
// broadcast to dims.
func (g *graph) binary(op compute.OpType, x, y *node, dims []int) *node {
	if x.dt.IsHalfPrecision() {
		r := g.binary(op, g.convert(x, dtypes.Float32), g.convert(y, dtypes.Float32), dims)
		if r.dt == dtypes.Bool {
			return r
		}
		return g.convert(r, x.dt)
	}
	x, y = g.broadcastTo(x, dims), g.broadcastTo(y, dims)
	if s := g.simplify(op, x, y); s != nil {
		return s
	}
	dt := x.dt
	if loops.Binary(op, dt) == nil {
		dt = dtypes.Bool // a comparison
	}
	return g.emit(op, dt, dims, nil, x, y)
}

// simplify finds cheaper forms of an operation with a constant operand.
func (g *graph) simplify(op compute.OpType, x, y *node) *node {
	if v, ok := y.uniform(); ok {
		switch {
		case op == compute.OpTypeMul && v == 1, op == compute.OpTypeDiv && v == 1,
			op == compute.OpTypeAdd && v == 0, op == compute.OpTypeSub && v == 0,
			op == compute.OpTypePow && v == 1:
			return x
		case op == compute.OpTypePow && v == 2:
			return g.binary(compute.OpTypeMul, x, x, x.dims)
		case op == compute.OpTypePow && v == 0.5:
			return g.unary(compute.OpTypeSqrt, x)
		}
	}
	if v, ok := x.uniform(); ok {
		switch {
		case op == compute.OpTypeMul && v == 1, op == compute.OpTypeAdd && v == 0:
			return y
		}
	}
	return nil
}

func (g *graph) unary(op compute.OpType, x *node) *node {
	if x.dt.IsHalfPrecision() {
		r := g.unary(op, g.convert(x, dtypes.Float32))
		if r.dt == dtypes.Bool {
			return r
		}
		return g.convert(r, x.dt)
	}
	if x.op == compute.OpTypeBroadcastInDim && x.ins[0].size() < x.size() {
		return g.broadcast(g.unary(op, x.ins[0]), x.dims, x.attr.([]int))
	}
	dt := x.dt
	if op == compute.OpTypeIsFinite || op == compute.OpTypeIsNaN {
		dt = dtypes.Bool
	}
	return g.emit(op, dt, x.dims, nil, x)
}

func (g *graph) where(cond, x, y *node, dims []int) *node {
	return g.emit(compute.OpTypeWhere, x.dt, dims, nil, g.broadcastTo(cond, dims), g.broadcastTo(x, dims), g.broadcastTo(y, dims))
}

// reduce folds the axes (ascending) of x.
func (g *graph) reduce(r loops.Reduction, x *node, axes []int) *node {
	if x.dt.IsHalfPrecision() {
		return g.convert(g.reduce(r, g.convert(x, dtypes.Float32), axes), x.dt)
	}
	var dims, fold []int
	for k, d := range x.dims {
		if !slices.Contains(axes, k) {
			dims = append(dims, d)
		} else if d != 1 {
			fold = append(fold, k)
		}
	}
	if len(fold) == 0 {
		return g.reshape(x, dims)
	}
	return g.emit(opReduce, x.dt, dims, folding{r, fold}, x)
}

// opReduce is the lowered form of all reductions; its attribute is a folding.
const opReduce compute.OpType = 10_100

// folding is what a reduction folds and how.
type folding struct {
	reduction loops.Reduction
	axes      []int // ascending, none of size 1
}
