package cpu

import (
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
)

// group is a set of nodes that one program computes.
type group struct {
	nodes    []*node
	dims     []int // the space, without axes of size 1
	split    int   // axes before the rows, or −1
	rowNodes map[*node]bool
	fold     []int // axes of the space that the reductions at the end fold, or nil
}

// unit is what one step computes: a group or a single other node.
type unit struct {
	group *group
	node  *node
	made  []*node // what gets memory
}

func fusable(n *node) bool { return isElementwise(n) || n.op == opReduce }

// groups partitions the needed nodes into units.
func (b *planning) groups() []*unit {
	var units []*unit
	for _, n := range b.g.nodes {
		if !b.needed[n.id] || n.isView() || n.op == compute.OpTypeParameter || n.op == compute.OpTypeConstant {
			continue
		}
		switch {
		case n.op == opResult:
		case !fusable(n):
			units = append(units, &unit{node: n, made: b.results(n)})
		default:
			gr := &group{nodes: []*node{n}, dims: squeezed(n.dims), split: -1}
			if n.op == opReduce {
				gr.dims = squeezed(n.ins[0].dims)
				gr.fold = squeezedAxes(n.ins[0].dims, n.attr.(folding).axes)
			}
			units = append(units, &unit{group: gr, made: []*node{n}})
		}
	}
	return units
}

// results returns the nodes that hold the results of n.
func (b *planning) results(n *node) []*node {
	if n.dt != dtypes.InvalidDType {
		return []*node{n}
	}
	var out []*node
	for _, m := range b.g.nodes[n.id+1:] {
		if m.op == opResult && m.ins[0] == n {
			out = append(out, m)
		}
	}
	return out
}

// squeezedAxes maps axes of dims to axes of squeezed(dims).
func squeezedAxes(dims, axes []int) []int {
	var out []int
	at := 0
	for k, d := range dims {
		for _, a := range axes {
			if a == k && d != 1 {
				out = append(out, at)
			}
		}
		if d != 1 {
			at++
		}
	}
	return out
}

// schedule orders units so that each comes after those it reads from.
func (b *planning) schedule(units []*unit) []*unit { return units }
