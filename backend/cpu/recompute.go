package cpu

import "slices"

// recompute puts copies of cheap nodes into the groups that read them, so that
// they need not be stored: reading x and adding a bias again costs less than
// writing the sum and reading it. A node is cheap if it is a short chain of
// simple operations on one value of its own size that lies in memory anyway, and
// on small ones.
func (g *grouping) recompute(units []*unit) {
	for _, u := range units {
		if u.group == nil || len(u.group.fold) > 1 && !contiguous(u.group.fold) {
			continue
		}
		c := &copying{g: g, u: u, copies: map[*node]*node{}}
		old := make([][]*node, len(u.group.nodes))
		changed := false
		for i, n := range u.group.nodes {
			old[i] = n.ins
			for k, in := range n.ins {
				if d := g.unitOf[in.root.id]; d == nil || d.find() == u || u.group.rowNodes[n] && n.op != opReduce {
					continue
				}
				if cost := g.cheap(in.root, maxRecompute); cost > maxRecompute || in.dt != in.root.dt {
					continue
				}
				if !changed || slices.Equal(n.ins, old[i]) {
					n.ins = slices.Clone(n.ins)
				}
				n.ins[k] = c.view(in)
				changed = true
			}
		}
		if !changed {
			continue
		}
		gr, ok := analyse(slices.Concat(c.order, u.group.nodes))
		if !ok || !slices.Equal(gr.dims, u.group.dims) {
			for i, n := range u.group.nodes {
				n.ins = old[i]
			}
			continue
		}
		u.group = gr
		for _, n := range c.order {
			g.own(u, n)
		}
	}
}

// maxRecompute bounds the cost of a chain that is computed again.
const maxRecompute = 6

func contiguous(axes []int) bool { return axes[len(axes)-1]-axes[0]+1 == len(axes) }

// cheap returns the cost of computing n again; above limit if that is out of
// the question.
func (g *grouping) cheap(n *node, limit int) int {
	never := limit + 1
	if _, output := g.b.slotOf[n]; output || !isElementwise(n) || g.small(n) || costOf(n.op) > 3 {
		return never
	}
	cost := costOf(n.op)
	full := 0
	for _, in := range n.ins {
		r := in.root
		switch {
		case r.size()*8 <= n.size():
		case full > 0 || r.size() > n.size():
			return never
		default:
			full++
			if r.dt.Size() > n.dt.Size() {
				return never
			}
			if d := g.unitOf[r.id]; d != nil && d.find() == g.unitOf[n.id].find() {
				// Otherwise only a value of the group: it must be cheap itself.
				more := g.cheap(r, limit-cost)
				if more > limit-cost {
					return never
				}
				cost += more
			}
		}
	}
	return cost
}

// copying collects the copies for one group.
type copying struct {
	g      *grouping
	u      *unit
	copies map[*node]*node
	order  []*node
}

// view returns the view x with a copy of its root.
func (c *copying) view(x *node) *node {
	r := c.root(x.root)
	if x == x.root || r == x.root {
		return r
	}
	v := *x
	v.root = r
	v.id = c.g.newID(&v)
	return &v
}

// root returns a copy of r, whose operands are copies if they are cheap.
func (c *copying) root(r *node) *node {
	if n := c.copies[r]; n != nil {
		return n
	}
	n := *r
	n.ins = slices.Clone(r.ins)
	for k, in := range n.ins {
		if d := c.g.unitOf[in.root.id]; d != nil && d.find() != c.u && c.g.cheap(in.root, maxRecompute) <= maxRecompute {
			n.ins[k] = c.view(in)
		}
	}
	n.root = &n
	n.id = c.g.newID(&n)
	c.copies[r] = &n
	c.order = append(c.order, &n)
	return &n
}

// newID numbers a node that only this plan knows.
func (g *grouping) newID(n *node) int {
	g.extra = append(g.extra, n)
	g.unitOf = append(g.unitOf, nil)
	return len(g.unitOf) - 1
}

// prune drops the nodes of groups that nothing needs any more, and units that
// have none left, from the last to the first.
func (g *grouping) prune(units []*unit) []*unit {
	wanted := make([]bool, len(g.unitOf))
	for n := range g.b.slotOf {
		wanted[n.id] = true
	}
	order := g.b.schedule(slices.Clone(units))
	for i := len(order) - 1; i >= 0; i-- {
		u := order[i]
		if u.group == nil {
			for _, in := range u.node.ins {
				wanted[in.root.id] = true
			}
			continue
		}
		var keep []*node
		for k := len(u.group.nodes) - 1; k >= 0; k-- {
			n := u.group.nodes[k]
			if !wanted[n.id] {
				continue
			}
			keep = append(keep, n)
			for _, in := range n.ins {
				wanted[in.root.id] = true
			}
		}
		slices.Reverse(keep)
		if len(keep) < len(u.group.nodes) && len(keep) > 0 {
			u.group, _ = analyse(keep)
		} else if len(keep) == 0 {
			u.group.nodes = nil
		}
		u.deps = u.deps[:0]
		for _, n := range keep {
			for _, in := range n.ins {
				if d := g.unitOf[in.root.id]; d != nil {
					if d = d.find(); d != u && !slices.Contains(u.deps, d) {
						u.deps = append(u.deps, d)
					}
				}
			}
		}
	}
	for _, u := range units {
		u.done = false
	}
	return slices.DeleteFunc(units, func(u *unit) bool { return u.group != nil && len(u.group.nodes) == 0 })
}
