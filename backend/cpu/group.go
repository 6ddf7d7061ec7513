package cpu

import (
	"slices"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
)

// group is a set of nodes that one program computes, in the order of the graph.
//
// Its space is the largest of their shapes (of the operand, for a reduction),
// without axes of size 1. All nodes have that shape, except: if a reduction
// folds the last axes, these become rows, and nodes may have one element a row;
// or reductions fold some other axes, and end the program.
type group struct {
	nodes    []*node
	dims     []int
	split    int            // axes before the rows, or −1
	rowNodes map[*node]bool // those with one element a row
	fold     []int          // axes that the reductions at the end fold, or nil
}

const (
	maxRow       = 16 << 10 // elements of a row that is handled as a whole
	maxGroup     = 48       // nodes of a group
	maxOperands  = 28       // values that a group reads
	longRow      = 4 << 10  // longer rows need company to occupy all threads
	companyOfRow = 8
)

// unit is what one step computes: a group or a single other node.
type unit struct {
	group  *group
	node   *node
	made   []*node // what gets memory
	deps   []*unit // units it reads from; follow find
	into   *unit   // the unit that this one was merged into
	lo, hi int     // smallest and largest node id
	heavy  int     // heavy nodes before the last node of the unit
	mark   int     // search that visited it last
	done   bool
}

func (u *unit) find() *unit {
	for u.into != nil {
		u = u.into
	}
	return u
}

// nodes returns what the unit computes.
func (u *unit) nodes() []*node {
	if u.group != nil {
		return u.group.nodes
	}
	return []*node{u.node}
}

func fusable(n *node) bool { return isElementwise(n) || n.op == opReduce }

// grouping is the state of groups.
type grouping struct {
	b       *planning
	unitOf  []*unit           // by node id, of roots
	readers map[*node][]*unit // groups that read a root from outside
	search  int
	heavy   int
	shrinks []bool  // by node id: in the end only small values are made from it
	extra   []*node // copies that only this plan has
}

// groups partitions the needed nodes into units, joining each element-wise node
// and reduction to a group that it reads from, or reads the same as, if the
// result is one program and no cycle arises.
func (b *planning) groups() []*unit {
	g := &grouping{b: b, unitOf: make([]*unit, len(b.g.nodes)), readers: map[*node][]*unit{}}
	g.findShrinking()
	var units []*unit
	for _, n := range b.g.nodes {
		if !b.needed[n.id] || n.isView() || n.op == compute.OpTypeParameter || n.op == compute.OpTypeConstant {
			continue
		}
		if n.op == opResult {
			g.unitOf[n.id] = g.unitOf[n.ins[0].id]
			continue
		}
		if fusable(n) && g.join(n) {
			continue
		}
		u := &unit{node: n, lo: n.id, hi: n.id, heavy: g.heavy}
		if fusable(n) {
			u.group, _ = analyse([]*node{n})
		} else {
			g.heavy++
		}
		units = append(units, u)
		g.own(u, n)
	}
	units = slices.DeleteFunc(units, func(u *unit) bool { return u.into != nil })
	g.recompute(units)
	units = g.prune(units)
	g.publish(units)
	return units
}

// findShrinking marks the element-wise nodes whose values end in reductions
// only.
func (g *grouping) findShrinking() {
	nodes := g.b.g.nodes
	g.shrinks = make([]bool, len(nodes))
	grows := make([]bool, len(nodes)) // something else reads it
	for n := range g.b.slotOf {
		grows[n.id] = true
	}
	for i := len(nodes) - 1; i >= 0; i-- {
		n := nodes[i]
		if !g.b.needed[i] || n.isView() {
			continue
		}
		g.shrinks[i] = n.op == opReduce || isElementwise(n) && !grows[i]
		for _, in := range n.ins {
			if !g.shrinks[i] {
				grows[in.root.id] = true
			}
		}
	}
}

// own records that u computes n.
func (g *grouping) own(u *unit, n *node) {
	g.unitOf[n.id] = u
	u.lo, u.hi = min(u.lo, n.id), max(u.hi, n.id)
	for _, in := range n.ins {
		r := in.root
		if d := g.unitOf[r.id]; d != nil {
			if d = d.find(); d != u && !slices.Contains(u.deps, d) {
				u.deps = append(u.deps, d)
			}
			if d == u {
				continue
			}
		}
		if rs := g.readers[r]; u.group != nil && (len(rs) == 0 || rs[len(rs)-1] != u) {
			g.readers[r] = append(rs, u)
		}
	}
}

// join tries to add n to a group.
func (g *grouping) join(n *node) bool {
	var candidates []*unit
	add := func(u *unit) {
		if u != nil {
			if u = u.find(); u.group != nil && !slices.Contains(candidates, u) {
				candidates = append(candidates, u)
			}
		}
	}
	for _, in := range n.ins {
		add(g.unitOf[in.root.id])
	}
	direct := len(candidates)
	slices.SortFunc(candidates, func(x, y *unit) int { return y.hi - x.hi })
	for _, in := range n.ins {
		if rs := g.readers[in.root]; len(rs) > 0 && in.root.size() >= n.size() {
			add(rs[len(rs)-1])
		}
	}
	for i, u := range candidates {
		if g.heavy != u.heavy && (i >= direct || !g.small(n)) {
			continue // keep what is far apart in time apart in memory
		}
		gr, ok := analyse(append(slices.Clone(u.group.nodes), n))
		if !ok || g.cyclic(u, n) {
			continue
		}
		u.group, u.heavy = gr, g.heavy
		g.own(u, n)
		for _, v := range candidates {
			if v = v.find(); v != u && v.heavy == u.heavy {
				g.merge(u, v)
			}
		}
		return true
	}
	return false
}

// small tells that holding n in memory costs nothing.
func (g *grouping) small(n *node) bool {
	return n.size() <= 1024 || n.id < len(g.shrinks) && g.shrinks[n.id]
}

// cyclic tells whether n reads, other than directly, from u.
func (g *grouping) cyclic(u *unit, n *node) bool {
	g.search++
	for _, in := range n.ins {
		if d := g.unitOf[in.root.id]; d != nil {
			if d = d.find(); d != u && g.reaches(d, u) {
				return true
			}
		}
	}
	return false
}

// reaches tells whether u reads from target, at any remove.
func (g *grouping) reaches(u, target *unit) bool {
	if u == target {
		return true
	}
	if u.mark == g.search || u.hi < target.lo {
		return false
	}
	u.mark = g.search
	for _, d := range u.deps {
		if g.reaches(d.find(), target) {
			return true
		}
	}
	return false
}

// merge puts the nodes of v into u if the result is one program.
func (g *grouping) merge(u, v *unit) {
	nodes := slices.Concat(u.group.nodes, v.group.nodes)
	slices.SortFunc(nodes, func(x, y *node) int { return x.id - y.id })
	gr, ok := analyse(nodes)
	if !ok {
		return
	}
	for _, pair := range [2][2]*unit{{u, v}, {v, u}} {
		g.search++
		for _, d := range pair[0].deps {
			if d = d.find(); d != pair[1] && d != pair[0] && g.reaches(d, pair[1]) {
				return
			}
		}
	}
	u.group, v.into = gr, u
	u.lo, u.hi = min(u.lo, v.lo), max(u.hi, v.hi)
	var deps []*unit
	for _, d := range slices.Concat(u.deps, v.deps) {
		if d = d.find(); d != u && !slices.Contains(deps, d) {
			deps = append(deps, d)
		}
	}
	u.deps = deps
}

// analyse describes the program of nodes, which are in the order of the graph;
// false if they do not fit into one.
func analyse(nodes []*node) (*group, bool) {
	if len(nodes) > maxGroup {
		return nil, false
	}
	gr := &group{nodes: nodes, split: -1}
	size := -1
	for _, n := range nodes {
		d := n.dims
		if n.op == opReduce {
			d = n.ins[0].dims
		}
		if s := product(d); s > size {
			size, gr.dims = s, squeezed(d)
		}
	}
	for _, n := range nodes {
		if n.op == opReduce && !gr.addReduction(n) {
			return nil, false
		}
	}
	var operands []*node
	for i, n := range nodes {
		if n.op != opReduce {
			switch d := squeezed(n.dims); {
			case slices.Equal(d, gr.dims):
			case gr.split >= 0 && slices.Equal(d, gr.dims[:gr.split]):
				gr.setRow(n)
			default:
				return nil, false
			}
		}
		for _, in := range n.ins {
			if !slices.Contains(nodes[:i], in.root) {
				if slices.Contains(nodes[i:], in.root) {
					return nil, false
				}
				if !slices.Contains(operands, in) {
					operands = append(operands, in)
				}
				continue
			}
			if !gr.readable(n, in) {
				return nil, false
			}
		}
	}
	return gr, len(operands) <= maxOperands
}

func (gr *group) setRow(n *node) {
	if gr.rowNodes == nil {
		gr.rowNodes = map[*node]bool{}
	}
	gr.rowNodes[n] = true
}

// addReduction finds the form of the program from a reduction in it.
func (gr *group) addReduction(n *node) bool {
	x := n.ins[0]
	if !slices.Equal(squeezed(x.dims), gr.dims) {
		return false
	}
	axes := squeezedAxes(x.dims, n.attr.(folding).axes)
	split := len(gr.dims) - len(axes)
	row := product(gr.dims[split:])
	if axes[0] == split && row > 0 && row <= maxRow && (row <= longRow || product(gr.dims[:split]) >= companyOfRow) {
		if gr.fold != nil || gr.split >= 0 && gr.split != split {
			return false
		}
		gr.split = split
		gr.setRow(n)
		return true
	}
	if gr.split >= 0 || gr.fold != nil && !slices.Equal(gr.fold, axes) {
		return false
	}
	gr.fold = axes
	contiguous := axes[len(axes)-1]-axes[0]+1 == len(axes)
	return contiguous || len(gr.nodes) == 1
}

// readable tells whether node n of the group can use the view x of another one
// from a register.
func (gr *group) readable(n, x *node) bool {
	r := x.root
	if r.op == opReduce && gr.fold != nil || x.offset != 0 || x.dt != r.dt {
		return false
	}
	perRow := n.op != opReduce && gr.rowNodes[n]
	if perRow && !gr.rowNodes[r] {
		return false
	}
	dims := gr.dims
	if gr.rowNodes[r] {
		dims = gr.dims[:gr.split]
	}
	want := rowMajor(dims)
	have := squeezed(x.dims)
	strides := squeeze(x.strides, x.dims)
	if perRow != gr.rowNodes[r] { // one element a row, repeated along it
		want = append(want, repeat(0, len(gr.dims)-gr.split)...)
		dims = gr.dims
	}
	return slices.Equal(have, dims) && slices.Equal(strides, want)
}

// squeezedAxes maps axes of dims to axes of squeezed(dims).
func squeezedAxes(dims, axes []int) []int {
	var out []int
	at := 0
	for k, d := range dims {
		if d == 1 {
			continue
		}
		if slices.Contains(axes, k) {
			out = append(out, at)
		}
		at++
	}
	return out
}

// publish finds which nodes need memory: those that another unit reads, and the
// results.
func (g *grouping) publish(units []*unit) {
	wanted := make([]bool, len(g.unitOf))
	for n := range g.b.slotOf {
		wanted[n.id] = true
	}
	for _, u := range units {
		for _, n := range u.nodes() {
			for _, in := range n.ins {
				if d := g.unitOf[in.root.id]; d == nil || d.find() != u {
					wanted[in.root.id] = true
				}
			}
		}
	}
	for _, n := range g.b.g.nodes {
		u := g.unitOf[n.id]
		if u == nil {
			continue
		}
		if u = u.find(); u.group != nil && !slices.Contains(u.group.nodes, n) {
			continue // pruned
		}
		// A fold has no other result, and a node with one result always has it.
		last := n.op == opReduce && u.group.fold != nil || u.group == nil && n.dt != dtypes.InvalidDType && n.op != opResult
		if wanted[n.id] && n.dt != dtypes.InvalidDType || last {
			u.made = append(u.made, n)
		}
	}
}

// schedule orders units so that each comes after those it reads from, close to
// the order of the graph.
func (b *planning) schedule(units []*unit) []*unit {
	slices.SortFunc(units, func(x, y *unit) int { return x.hi - y.hi })
	var order []*unit
	var visit func(u *unit)
	visit = func(u *unit) {
		if u = u.find(); u.done {
			return
		}
		u.done = true
		for _, d := range u.deps {
			visit(d)
		}
		order = append(order, u)
	}
	for _, u := range units {
		visit(u)
	}
	return order
}
