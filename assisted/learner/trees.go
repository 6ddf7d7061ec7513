package learner

import (
	"math"

	"github.com/cohort-learning/cohort/parallel"
	"gonum.org/v1/gonum/mat"
)

// tree is a binary tree in preorder: the left child of a node that splits is the node after it.
type tree struct {
	nodes  []node
	values []float64 // width values a leaf
	first  int       // the output that the first value is added to
	width  int
}

// node splits, if column ≥ 0: rows with a value ≤ cut go left, others to the node next; missing ones where missingLeft
// says. Else it is the leaf of number next.
type node struct {
	column, next int32
	missingLeft  bool
	cut          float64
}

// leaf returns the values of the leaf that a row of features falls into.
func (t *tree) leaf(x []float64) []float64 {
	at := int32(0)
	for {
		n := &t.nodes[at]
		if n.column < 0 {
			return t.values[int(n.next)*t.width:][:t.width]
		}
		v := x[n.column]
		if v <= n.cut || n.missingLeft && math.IsNaN(v) {
			at++
		} else {
			at = n.next
		}
	}
}

// scale multiplies all values.
func (t *tree) scale(by float64) {
	for i := range t.values {
		t.values[i] *= by
	}
}

// ensemble is a sum of trees: the outputs of a row are base + scale·Σ_t tree_t(x).
type ensemble struct {
	columns int // of features
	base    []float64
	scale   float64
	trees   []tree
}

// Predict implements [Model].
func (m *ensemble) Predict(x *mat.Dense) (*mat.Dense, error) {
	if err := checkPredict(x, m.columns); err != nil {
		return nil, err
	}
	n, _ := x.Dims()
	if n == 0 {
		return new(mat.Dense), nil
	}
	out := mat.NewDense(n, len(m.base), nil)
	const block = 256
	parallel.Do((n+block-1)/block, 0, func(b int) {
		for i := b * block; i < min(n, (b+1)*block); i++ {
			m.row(out.RawRowView(i), x.RawRowView(i), nil)
		}
	})
	return finite(out)
}

// row predicts one row, from the trees that use allows.
func (m *ensemble) row(out, x []float64, use func(t int) bool) {
	used := 0
	for t := range m.trees {
		if use != nil && !use(t) {
			continue
		}
		used++
		first := m.trees[t].first
		for c, v := range m.trees[t].leaf(x) {
			out[first+c] += v
		}
	}
	scale := m.scale
	if use != nil && used > 0 { // a mean over those
		scale *= float64(len(m.trees)) / float64(used)
	}
	for c, b := range m.base {
		out[c] = b + float64(scale*out[c])
	}
}

// MarshalBinary implements [Model].
func (m *ensemble) MarshalBinary() ([]byte, error) {
	w := newWriter("trees")
	w.int(m.columns)
	w.floats(m.base)
	w.float(m.scale)
	w.int(len(m.trees))
	for _, t := range m.trees {
		w.int(t.first)
		w.int(t.width)
		w.int(len(t.nodes))
		for _, n := range t.nodes {
			w.int(int(n.column + 1))
			w.int(int(n.next))
			if n.column >= 0 {
				w.flag(n.missingLeft)
				w.float(n.cut)
			}
		}
		w.floats(t.values)
	}
	return w.b, nil
}

func readEnsemble(r *reader) Model {
	m := &ensemble{columns: r.int(), base: r.floats(), scale: r.float()}
	r.check(len(m.base) > 0, "no outputs")
	m.trees = make([]tree, r.length(5))
	for i := range m.trees {
		m.trees[i] = readTree(r, m.columns, len(m.base))
		if r.err != nil {
			return m
		}
	}
	return m
}

// readTree reads a tree on that many columns with outputs among that many.
func readTree(r *reader, columns, outputs int) tree {
	t := tree{first: r.int(), width: r.int()}
	r.check(t.width > 0 && t.first+t.width <= outputs, "a tree's outputs %d to %d of %d", t.first, t.first+t.width, outputs)
	t.nodes = make([]node, r.length(2))
	for at := range t.nodes {
		n := &t.nodes[at]
		n.column, n.next = int32(r.int())-1, int32(r.int())
		if n.column >= 0 {
			n.missingLeft, n.cut = r.flag(), r.float()
			r.check(int(n.column) < columns, "a split by column %d of %d", n.column, columns)
			r.check(int(n.next) > at+1 && int(n.next) < len(t.nodes), "a branch from node %d to %d of %d", at, n.next, len(t.nodes))
		}
	}
	t.values = r.floats()
	r.check(len(t.nodes) > 0, "a tree without nodes")
	for _, n := range t.nodes {
		if n.column < 0 && r.err == nil {
			r.check(int(n.next) < len(t.values)/t.width, "leaf %d of %d values", n.next, len(t.values))
		}
	}
	r.check(r.err != nil || t.nodes[len(t.nodes)-1].column < 0, "a tree ends in a split")
	return t
}
