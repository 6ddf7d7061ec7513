package learner

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// Block is an organisation's part w_j (d×h) of the first layer of a network that organisations share, with the state of the optimiser by
// which it is updated in the organisation's turns. It is a [Model]: what it predicts are pre-activations, X_j w_j. A missing value is the
// mean of its column.
//
// Blocks do not change; [Block.Update] returns another.
type Block struct {
	scaling
	w    *mat.Dense
	adam adam   // of w, row by row
	head Layers // as the last turn has left them
}

// Layers are a head under training: its numbers, and the state of their optimiser, which go from turn to turn with it.
type Layers struct {
	Theta         []float64
	First, Second []float64 // moments of Adam, as many as numbers; 0 before the first step
	Steps         int       // of Adam so far
}

// NewLayers are a head before its first turn.
func NewLayers(h Head) Layers {
	return Layers{Theta: slices.Clone(h.Theta), First: make([]float64, len(h.Theta)), Second: make([]float64, len(h.Theta))}
}

// Matrix is the numbers as one row, and their moments as two more.
func (l Layers) Matrix() *mat.Dense {
	return mat.NewDense(3, len(l.Theta), slices.Concat(l.Theta, l.First, l.Second))
}

// LayersOf reads what [Layers.Matrix] made; what is not of that shape has no numbers.
func LayersOf(x *mat.Dense, steps int) Layers {
	if rows, _ := x.Dims(); rows != 3 {
		return Layers{Steps: steps}
	}
	return Layers{x.RawRowView(0), x.RawRowView(1), x.RawRowView(2), steps}
}

// Check returns an error that says what is wrong with layers of a head of such widths.
func (l Layers) Check(widths []int) error {
	if err := (Head{widths, l.Theta}).Check(); err != nil {
		return err
	}
	n := len(l.Theta)
	if len(l.First) != n || len(l.Second) != n || l.Steps < 0 {
		return fmt.Errorf("%d and %d moments of %d numbers after %d steps", len(l.First), len(l.Second), n, l.Steps)
	}
	for i := range l.First {
		if !(math.Abs(l.First[i]) <= largest && l.Second[i] >= 0 && l.Second[i] <= largest) {
			return fmt.Errorf("moments of parameter %d are %v and %v", i, l.First[i], l.Second[i])
		}
	}
	return nil
}

// NewBlock returns a part of a first layer of so many units for an organisation with columns x, from which they are standardised, or not if
// they are to be taken as they are. Its numbers are uniform in ±√(6/d) (He and others 2015), or 0 where r is nil.
func NewBlock(x *mat.Dense, units int, raw bool, r *rng.Stream) (*Block, error) {
	n, d := x.Dims()
	if n == 0 || d == 0 {
		return nil, ErrNoRows
	}
	if err := checkFinite(x); err != nil {
		return nil, err
	}
	ones := make([]float64, n)
	for i := range ones {
		ones[i] = 1
	}
	b := &Block{scaling: standardise(x, ones, true), w: mat.NewDense(d, units, nil)}
	if raw {
		for j := range d {
			b.center[j], b.scale[j] = 0, 1
		}
	}
	if r != nil {
		bound := math.Sqrt(6 / float64(d))
		b.w.Apply(func(_, _ int, _ float64) float64 { return r.Uniform(-bound, bound) }, b.w)
	}
	return b, nil
}

// Head is what the organisation's last turn has left; empty before the first.
func (b *Block) Head() Layers { return b.head }

// Turn is what an organisation is asked for when it is its turn.
type Turn struct {
	X      *mat.Dense // n×d, its columns of the rows to learn from
	Others *mat.Dense // n×h, Σ X_i w_i over all others
	Widths []int      // of the head
	Head   Layers
	Bias   bool // whether the bias of the first layer is updated, too: that is for the sponsor
	// Slope returns the gradient of the loss with respect to F, n×K.
	Slope func(f *mat.Dense) *mat.Dense
	Steps int
	Rate  float64
	Plain bool // steps along the gradient instead of Adam's
}

// Update makes steps on the loss of the network, with what the others say held fixed:
//
//	(w_j, w̃) ← (w_j, w̃) − rate · step(∂L/∂(w_j, w̃)),  F = head(X_j w_j + Σ_{i≠j} X_i w_i)
//
// with all rows in each. A step is that of Adam (Kingma and Ba 2015; β = 0.9 and 0.999, ε = 1e-8), whose moments last from turn to turn: those of
// w_j stay with the block, those of w̃ go with it. Or it is the gradient itself.
func (b *Block) Update(ctx context.Context, t Turn) (*Block, error) {
	n, d := t.X.Dims()
	units := t.Widths[0]
	if rows, columns := t.Others.Dims(); rows != n || columns != units {
		return nil, &ShapeError{"activations of others", rows, columns, fmt.Sprintf("%d×%d", n, units)}
	}
	if rows, columns := b.w.Dims(); rows != d || columns != units {
		return nil, &ShapeError{"part of the first layer", rows, columns, fmt.Sprintf("%d×%d", d, units)}
	}
	x := b.apply(t.X)
	next := &Block{scaling: b.scaling, w: mat.DenseCopyOf(b.w), adam: b.adam.clone(), head: t.Head}
	next.head.Theta = slices.Clone(t.Head.Theta)
	above := adam{t.Head.Steps, slices.Clone(t.Head.First), slices.Clone(t.Head.Second)}
	w, head, from := next.w.RawMatrix().Data, Head{t.Widths, next.head.Theta}, units
	if t.Bias {
		from = 0
	}
	for range t.Steps {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		dw, dhead := gradient(x, next.w, head, t)
		if t.Plain {
			add(w, -t.Rate, dw)
			add(head.Theta[from:], -t.Rate, dhead[from:])
			continue
		}
		next.adam.step(w, dw, t.Rate, 0)
		above.step(head.Theta, dhead, t.Rate, from)
	}
	next.head.Steps, next.head.First, next.head.Second = above.steps, above.first, above.second
	if err := next.head.Check(t.Widths); err != nil {
		return nil, fmt.Errorf("%w: %w", errDiverged, err)
	}
	for _, v := range w {
		if !(math.Abs(v) <= largest) {
			return nil, errDiverged
		}
	}
	return next, nil
}

// gradient is that with respect to w, row by row, and to the head.
func gradient(x, w *mat.Dense, head Head, t Turn) (dw, dhead []float64) {
	n, d := x.Dims()
	z := product(x, w)
	for i := range n {
		add(z.RawRowView(i), 1, t.Others.RawRowView(i))
	}
	inputs, f := head.forward(z)
	dhead, dz := head.backward(inputs, t.Slope(f))
	dw = make([]float64, d*head.Widths[0])
	for i := range n {
		outer(dw, x.RawRowView(i), dz.RawRowView(i))
	}
	return dw, dhead
}

// product is x w.
func product(x, w *mat.Dense) *mat.Dense {
	n, _ := x.Dims()
	_, units := w.Dims()
	z := mat.NewDense(n, units, nil)
	for i := range n {
		multiply(z.RawRowView(i), x.RawRowView(i), w.RawMatrix().Data)
	}
	return z
}

// Predict implements [Model].
func (b *Block) Predict(x *mat.Dense) (*mat.Dense, error) {
	if err := checkPredict(x, len(b.fill)); err != nil {
		return nil, err
	}
	return finite(product(b.apply(x), b.w))
}

// MarshalBinary implements [Model].
func (b *Block) MarshalBinary() ([]byte, error) {
	w := newWriter("block")
	b.scaling.write(w)
	w.matrix(b.w)
	b.adam.write(w)
	w.floats(b.head.Theta)
	adam{b.head.Steps, b.head.First, b.head.Second}.write(w)
	return w.b, nil
}

func readBlock(r *reader) Model {
	b := &Block{scaling: readScaling(r), w: r.matrix(), adam: readAdam(r)}
	rows, columns := b.w.Dims()
	r.check(rows == len(b.fill) && rows > 0, "a part of a layer for %d columns, of which there are %d", rows, len(b.fill))
	r.check(len(b.adam.first) == 0 || len(b.adam.first) == rows*columns, "moments of %d numbers, of which there are %d", len(b.adam.first), rows*columns)
	b.head.Theta = r.floats()
	above := readAdam(r)
	b.head.Steps, b.head.First, b.head.Second = above.steps, above.first, above.second
	return b
}

// adam is the state of the optimiser of that name.
type adam struct {
	steps         int
	first, second []float64 // moments; none before the first step
}

func (a adam) clone() adam { return adam{a.steps, slices.Clone(a.first), slices.Clone(a.second)} }

// step moves theta against the gradient g, from the number of that index on.
func (a *adam) step(theta, g []float64, rate float64, from int) {
	const beta1, beta2, epsilon = 0.9, 0.999, 1e-8
	if len(a.first) == 0 {
		a.first, a.second = make([]float64, len(g)), make([]float64, len(g))
	}
	a.steps++
	c1, c2 := 1-math.Pow(beta1, float64(a.steps)), 1-math.Pow(beta2, float64(a.steps))
	for i := from; i < len(g); i++ {
		v := g[i]
		a.first[i] = float64(beta1*a.first[i]) + float64((1-beta1)*v)
		a.second[i] = float64(beta2*a.second[i]) + float64((1-beta2)*v*v)
		theta[i] -= float64(rate * (a.first[i] / c1) / (math.Sqrt(a.second[i]/c2) + epsilon))
	}
}

func (a adam) write(w *writer) {
	w.int(a.steps)
	w.floats(a.first)
	w.floats(a.second)
}

func readAdam(r *reader) adam {
	a := adam{steps: r.int(), first: r.floats(), second: r.floats()}
	r.check(len(a.first) == len(a.second), "%d first moments and %d second ones", len(a.first), len(a.second))
	return a
}

var _ Model = (*Block)(nil)
