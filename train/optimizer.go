package train

import (
	"fmt"
	"math"

	"github.com/gomlx/gomlx/core/graph"
)

// Optimizer is an update rule that treats every parameter by itself. Implementations are values that do not change.
type Optimizer interface {
	// Slots names the state tensors of a parameter; each has its shape and is 0 at the start.
	Slots() []string
	// Scalars appends the numbers that Update needs and that change with the step, counted from 1: as many in each step.
	Scalars(dst []float64, step int) []float64
	// Update builds the next value of a parameter and of its slots.
	Update(u Update) (next *graph.Node, slots []*graph.Node)
	// Validate reports settings outside their range.
	Validate() error
}

// Update is what an optimiser sees of one parameter. All nodes have the parameter's type; Rate and Scalars are scalars.
type Update struct {
	Param, Grad, Rate *graph.Node
	Scalars           []*graph.Node // as [Optimizer.Scalars] made them
	Slots             []*graph.Node // as [Optimizer.Slots] named them
}

// SGD is stochastic gradient descent as torch.optim.SGD defines it, with rate η:
//
//	g ← g + Decay·w
//	b ← Momentum·b + (1 − Dampening)·g      (b ← g in the first step)
//	g ← g + Momentum·b if Nesterov, else b  (only with momentum)
//	w ← w − η·g
type SGD struct {
	Momentum, Dampening, Decay float64
	Nesterov                   bool
}

// Slots implements [Optimizer].
func (o SGD) Slots() []string {
	if o.Momentum == 0 {
		return nil
	}
	return []string{"momentum"}
}

// Scalars implements [Optimizer].
func (o SGD) Scalars(dst []float64, step int) []float64 {
	switch {
	case o.Momentum == 0 || o.Dampening == 0:
		return dst
	case step == 1:
		return append(dst, 1)
	}
	return append(dst, 1-o.Dampening)
}

// Update implements [Optimizer].
func (o SGD) Update(u Update) (*graph.Node, []*graph.Node) {
	g := decayed(u, o.Decay)
	var slots []*graph.Node
	if o.Momentum != 0 {
		fresh := g
		if o.Dampening != 0 {
			fresh = graph.Mul(g, u.Scalars[0])
		}
		b := graph.Add(graph.MulScalar(u.Slots[0], o.Momentum), fresh)
		slots = []*graph.Node{b}
		if o.Nesterov {
			g = graph.Add(g, graph.MulScalar(b, o.Momentum))
		} else {
			g = b
		}
	}
	return graph.Sub(u.Param, graph.Mul(g, u.Rate)), slots
}

// Validate implements [Optimizer].
func (o SGD) Validate() error {
	switch {
	case !(o.Momentum >= 0) || math.IsInf(o.Momentum, 0):
		return fmt.Errorf("momentum %v: need 0 or more", o.Momentum)
	case !(o.Decay >= 0) || math.IsInf(o.Decay, 0):
		return fmt.Errorf("weight decay %v: need 0 or more", o.Decay)
	case o.Dampening != o.Dampening || math.IsInf(o.Dampening, 0):
		return fmt.Errorf("dampening %v is not finite", o.Dampening)
	case o.Nesterov && (o.Momentum == 0 || o.Dampening != 0):
		return fmt.Errorf("momentum of Nesterov's kind must be above 0 and without dampening, not %v and %v", o.Momentum, o.Dampening)
	}
	return nil
}

// Adam (Kingma and Ba 2015) as torch.optim.Adam defines it, in step t with rate η:
//
//	g ← g + Decay·w
//	m ← β₁m + (1−β₁)g        v ← β₂v + (1−β₂)g²
//	w ← w − η/(1−β₁ᵗ) · m / (√v/√(1−β₂ᵗ) + Eps)
type Adam struct {
	Betas [2]float64 // zero: 0.9, 0.999
	Eps   float64    // 0: 1e-8
	Decay float64
}

// AdamW (Loshchilov and Hutter 2019) as torch.optim.AdamW defines it: Adam whose decay does not pass through the moments;
// w ← w·(1 − η·Decay) comes before the step. Decay 0 means none; PyTorch's own default is 0.01.
type AdamW struct {
	Betas [2]float64 // zero: 0.9, 0.999
	Eps   float64    // 0: 1e-8
	Decay float64
}

// Slots implements [Optimizer].
func (o Adam) Slots() []string { return []string{"mean", "square"} }

// Slots implements [Optimizer].
func (o AdamW) Slots() []string { return Adam{}.Slots() }

// Scalars implements [Optimizer].
func (o Adam) Scalars(dst []float64, step int) []float64 {
	b := o.betas()
	return append(dst, 1-math.Pow(b[0], float64(step)), math.Sqrt(1-math.Pow(b[1], float64(step))))
}

// Scalars implements [Optimizer].
func (o AdamW) Scalars(dst []float64, step int) []float64 { return Adam(o).Scalars(dst, step) }

// Update implements [Optimizer].
func (o Adam) Update(u Update) (*graph.Node, []*graph.Node) {
	return o.step(u, u.Param, decayed(u, o.Decay))
}

// Update implements [Optimizer].
func (o AdamW) Update(u Update) (*graph.Node, []*graph.Node) {
	w := u.Param
	if o.Decay != 0 {
		w = graph.Mul(w, graph.OneMinus(graph.MulScalar(u.Rate, o.Decay)))
	}
	return Adam(o).step(u, w, u.Grad)
}

// step is Adam's rule from w along g.
func (o Adam) step(u Update, w, g *graph.Node) (*graph.Node, []*graph.Node) {
	b, eps := o.betas(), o.Eps
	if eps == 0 {
		eps = 1e-8
	}
	m := graph.Add(graph.MulScalar(u.Slots[0], b[0]), graph.MulScalar(g, 1-b[0]))
	v := graph.Add(graph.MulScalar(u.Slots[1], b[1]), graph.MulScalar(graph.Mul(g, g), 1-b[1]))
	denominator := graph.AddScalar(graph.Div(graph.Sqrt(v), u.Scalars[1]), eps)
	rate := graph.Div(u.Rate, u.Scalars[0])
	return graph.Sub(w, graph.Mul(graph.Div(m, denominator), rate)), []*graph.Node{m, v}
}

func (o Adam) betas() [2]float64 {
	if o.Betas == [2]float64{} {
		return [2]float64{0.9, 0.999}
	}
	return o.Betas
}

// Validate implements [Optimizer].
func (o Adam) Validate() error {
	for i, b := range o.Betas {
		if !(b >= 0 && b < 1) {
			return fmt.Errorf("beta %d is %v: need 0 or more and below 1", i+1, b)
		}
	}
	if !(o.Eps >= 0) || math.IsInf(o.Eps, 0) {
		return fmt.Errorf("eps %v: need 0 or more", o.Eps)
	}
	if !(o.Decay >= 0) || math.IsInf(o.Decay, 0) {
		return fmt.Errorf("weight decay %v: need 0 or more", o.Decay)
	}
	return nil
}

// Validate implements [Optimizer].
func (o AdamW) Validate() error { return Adam(o).Validate() }

// decayed returns the gradient of the loss plus ½·decay·w².
func decayed(u Update, decay float64) *graph.Node {
	if decay == 0 {
		return u.Grad
	}
	return graph.Add(u.Grad, graph.MulScalar(u.Param, decay))
}

// The interface is kept by these.
var (
	_ Optimizer = SGD{}
	_ Optimizer = Adam{}
	_ Optimizer = AdamW{}
)
