package personalfr

import (
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/cohort-learning/cohort/backend/cpu/kernel"
	"github.com/cohort-learning/cohort/backend/cpu/kernel/vec"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/weights"
)

// network is the architecture "ars" of package nn, as the kernels of this package see it: blocks of a linear layer, layer norm
// and tanh, of which the first reads a few items and the last layer, without norm and tanh, scores a few.
type network struct {
	items  int
	width  int     // h₁: of the rows of items
	blocks []block // from items to h₁ again; the first one's weight has a row for each item in [params.in]
	out    string  // name of the last linear layer
	drop   float64
	at     int // block whose output is the code
	f      *vec.Funcs
	path   kernel.Path

	mu    sync.Mutex
	plans map[gemmKey]*kernel.Gemm
}

// block is linear, norm, tanh. Its tensors are by place in [params.dense]; −1 where there is none.
type block struct {
	name                      string
	in, out                   int
	weight, bias, gamma, beta int
}

type gemmKey struct {
	kind    byte
	m, n, k int
}

const normEps = 1e-5 // as in nn

const (
	input   = "encoder.linear1.weight" // the tensor with a column for each item
	encoder = "encoder."               // what names of the encoder's tensors begin with
)

// networkOf reads the layout of a model; an error if it is another architecture.
func networkOf(m *nn.Model) (*network, error) {
	if m.Name != "ars" {
		return nil, fmt.Errorf("the model is %q; ratings take the architecture ars", m.Name)
	}
	path, err := kernel.Default()
	if err != nil {
		return nil, err
	}
	vectors, err := vec.Default()
	if err != nil {
		return nil, err
	}
	n := &network{items: m.Classes, path: path, f: vec.For(vectors), plans: map[gemmKey]*kernel.Gemm{}}
	if len(m.Noise) > 0 {
		n.drop = m.Noise[0].Drop
	}
	for _, p := range m.Params {
		layer, shape := layerOf(p.Name), p.Shape(m.Rate)
		switch {
		case p.Role == nn.Kernel && p.Head:
			n.out = layer
		case p.Role == nn.Kernel:
			n.blocks = append(n.blocks, block{name: layer, in: shape[1], out: shape[0], weight: -1, bias: -1, gamma: -1, beta: -1})
			if strings.HasPrefix(layer, encoder) {
				n.at = len(n.blocks) - 1
			}
		}
	}
	n.width = n.blocks[0].out
	for i, name := range n.denseNames(m) {
		layer := layerOf(name)
		kind := name[len(layer)+1:]
		b := &n.blocks[n.blockOf(layer)]
		switch {
		case strings.Contains(layer, ".norm") && kind == "weight":
			b.gamma = i
		case strings.Contains(layer, ".norm"):
			b.beta = i
		case kind == "weight":
			b.weight = i
		default:
			b.bias = i
		}
	}
	return n, nil
}

// blockOf returns which block a layer belongs to: encoder.norm2 to that of encoder.linear2.
func (n *network) blockOf(layer string) int {
	linear := strings.Replace(layer, ".norm", ".linear", 1)
	return slices.IndexFunc(n.blocks, func(b block) bool { return b.name == linear })
}

// layerOf is the name of a parameter without its last word.
func layerOf(name string) string { return name[:strings.LastIndexByte(name, '.')] }

// denseNames are the tensors that have no row for each item, in the model's order.
func (n *network) denseNames(m *nn.Model) []string {
	var names []string
	for _, p := range m.Params {
		if p.Name != input && !p.Head {
			names = append(names, p.Name)
		}
	}
	return names
}

// weightName and biasName are the tensors of the last layer.
func (n *network) weightName() string { return n.out + ".weight" }
func (n *network) biasName() string   { return n.out + ".bias" }

// gemm returns the plan of C[m,n] = A[m,k]·B[k,n]. Kinds: 'f' A row-major, B the transposed of a row-major matrix (y = x·Wᵀ);
// 'b' both row-major (dx = dy·W); 'w' A the transposed of a row-major matrix (dW = dyᵀ·x).
func (n *network) gemm(kind byte, m, cols, k int) *kernel.Gemm {
	key := gemmKey{kind: kind, m: m, n: cols, k: k}
	n.mu.Lock()
	defer n.mu.Unlock()
	if g, ok := n.plans[key]; ok {
		return g
	}
	s := kernel.GemmShape{M: m, N: cols, K: k, A: kernel.RowMajor(nil, m, k), B: kernel.RowMajor(nil, k, cols), C: kernel.RowMajor(nil, m, cols)}
	switch kind {
	case 'f':
		s.B = kernel.RowMajor(nil, cols, k).T()
	case 'w':
		s.A = kernel.RowMajor(nil, k, m).T()
	}
	g := kernel.NewGemm(n.path, s)
	n.plans[key] = g
	return g
}

// params are the values of a network, or their gradients, for some of the items.
type params struct {
	in      []float32   // a row of width values for each item: its column of the first weight
	out     []float32   // a row for each item: its row of the last weight
	outBias []float32   // one for each item
	dense   [][]float32 // all other tensors
}

// zeros returns params of n items.
func (n *network) zeros(m *nn.Model, items int) params {
	p := params{in: make([]float32, items*n.width), out: make([]float32, items*n.width), outBias: make([]float32, items)}
	for _, name := range n.denseNames(m) {
		q, _ := m.Param(name)
		size := 1
		for _, d := range q.Shape(m.Rate) {
			size *= d
		}
		p.dense = append(p.dense, make([]float32, size))
	}
	return p
}

// transpose writes the columns of x [rows, of] at positions (nil: all) to dst, a row for each.
func transpose(dst, x []float32, rows, of int, positions []int32) {
	count := len(positions)
	if positions == nil {
		count = of
	}
	for r := range rows {
		line := x[r*of : (r+1)*of]
		for k := range count {
			c := k
			if positions != nil {
				c = int(positions[k])
			}
			dst[k*rows+r] = line[c]
		}
	}
}

// load fills in what a set of tensors has. Where a tensor has an axis of items it has all of them, or just those of p if part.
func (n *network) load(p *params, m *nn.Model, s weights.Set, items []int32, part bool) error {
	if part || len(items) == n.items {
		items = nil
	}
	dense := n.denseNames(m)
	for name, t := range s.All() {
		if t.F32 == nil {
			return fmt.Errorf("tensor %q is not in float32", name)
		}
		switch name {
		case input:
			of := len(t.F32) / n.width
			transpose(p.in, t.F32, n.width, of, items)
		case n.weightName():
			gatherRows(p.out, t.F32, n.width, items)
		case n.biasName():
			gatherRows(p.outBias, t.F32, 1, items)
		default:
			i := slices.Index(dense, name)
			if i < 0 {
				return fmt.Errorf("tensor %q is none of the model", name)
			}
			copy(p.dense[i], t.F32)
		}
	}
	return nil
}

// gatherRows copies rows of x at positions (nil: all).
func gatherRows(dst, x []float32, width int, positions []int32) {
	if positions == nil {
		copy(dst, x)
		return
	}
	for k, i := range positions {
		copy(dst[k*width:(k+1)*width], x[int(i)*width:])
	}
}

// store returns the tensors that like names, in the shapes that they have there, from p, whose items are those of the shapes.
func (n *network) store(p params, m *nn.Model, like weights.Set) weights.Set {
	dense := n.denseNames(m)
	out := weights.NewSet(like.Len())
	for name, t := range like.All() {
		x := weights.NewTensor(weights.Float32, t.Shape...)
		switch name {
		case input:
			transpose(x.F32, p.in, len(p.in)/n.width, n.width, nil)
		case n.weightName():
			copy(x.F32, p.out)
		case n.biasName():
			copy(x.F32, p.outBias)
		default:
			copy(x.F32, p.dense[slices.Index(dense, name)])
		}
		out.Put(name, x)
	}
	return out
}
