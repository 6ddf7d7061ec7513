package cpu

import (
	"slices"

	"github.com/gomlx/compute/dtypes"
)

// This file joins the terms of sums that automatic differentiation writes when a
// value is used in many places, as the weights and the states of an unrolled
// recurrent network are.

// joinSum returns a single node for x + y, of which nothing else is read, or
// nil.
func (g *graph) joinSum(x, y *node) *node {
	if x.dt != dtypes.Float32 || !slices.Equal(x.dims, y.dims) || x.op != y.op || x.size() == 0 {
		return nil
	}
	switch x.op {
	case opPlace:
		return g.joinPlaces(x, y)
	case opMatMul:
		return g.joinProducts(x, y)
	}
	return nil
}

// joinPlaces adds two arrays that are zero but for boxes which do not overlap:
// gradients of slices. The result has the boxes of both.
func (g *graph) joinPlaces(x, y *node) *node {
	a, b := x.attr.(placing), y.attr.(placing)
	if !a.fill || !b.fill {
		return nil
	}
	for _, n := range []*node{x, y} {
		if v, ok := n.ins[0].uniform(); !ok || v != 0 {
			return nil
		}
	}
	full := rowMajor(x.dims)
	covered := 0
	for i, p := range a.places {
		covered += x.ins[1+i].size()
		for j, q := range b.places {
			if !disjoint(full, x.dims, p, x.ins[1+i].dims, q, y.ins[1+j].dims) {
				return nil
			}
		}
	}
	for j := range b.places {
		covered += y.ins[1+j].size()
	}
	c := placing{covered < x.size(), slices.Concat(a.places, b.places)}
	ins := slices.Concat(x.ins[1:], y.ins[1:])
	if c.fill {
		ins = slices.Concat(x.ins[:1], ins)
	}
	return g.emit(opPlace, x.dt, x.dims, c, ins...)
}

// disjoint tells whether two boxes of an array are known not to overlap.
func disjoint(full, dims []int, p place, pDims []int, q place, qDims []int) bool {
	atP, atQ := p.offset, q.offset
	for k, stride := range full {
		if dims[k] > 1 && (p.strides[k] != stride && pDims[k] > 1 || q.strides[k] != stride && qDims[k] > 1) {
			return false
		}
		i, j := atP/stride, atQ/stride
		atP, atQ = atP%stride, atQ%stride
		if i+pDims[k] <= j || j+qDims[k] <= i {
			return true
		}
	}
	return false
}

// joinProducts adds two matrix products of the same form as one product of
// concatenated operands: Σ AᵢBᵢ = [A₁ A₂ …]·[B₁; B₂; …]. That pays if the operands
// are smaller than the result, as in the gradients of shared weights.
func (g *graph) joinProducts(x, y *node) *node {
	p, q := x.attr.(matProduct), y.attr.(matProduct)
	if len(p.batch) > 0 || !slices.Equal(p.rows, q.rows) || !slices.Equal(p.cols, q.cols) || !slices.Equal(p.perm, q.perm) {
		return nil
	}
	m, n := p.m(), p.n()
	if q.k*(m+n) > m*n {
		return nil
	}
	left := g.chainParts(g.transpose(x.ins[0], []int{1, 0}), g.transpose(y.ins[0], []int{1, 0}))
	right := g.chainParts(x.ins[1], y.ins[1])
	p.k += q.k
	return g.emit(opMatMul, x.dt, x.dims, p, g.transpose(left, []int{1, 0}), right)
}

// chainParts concatenates two matrices along the first axis; if x is such a
// concatenation itself, its parts are taken instead.
func (g *graph) chainParts(x, y *node) *node {
	parts := []*node{x}
	r := x.root
	if r.op == opPlace && !r.attr.(placing).fill && x.whole() && slices.Equal(x.dims, r.dims) && stacked(r) {
		parts = r.ins
	}
	return g.concatenate(0, append(slices.Clone(parts), y))
}

// stacked tells whether a node is a concatenation along its first axis.
func stacked(n *node) bool {
	for _, in := range n.ins {
		if !slices.Equal(in.dims[1:], n.dims[1:]) {
			return false
		}
	}
	return n.op == opPlace && len(n.dims) > 0
}
