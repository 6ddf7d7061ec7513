package personalfr

import (
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/backend/cpu/kernel/vec"
	"github.com/cohort-learning/cohort/train"
)

// optimizer is the update rule of package train on rows of numbers, to the same formulas. A row without a gradient has g = nil,
// which is as good as zeros.
type optimizer struct {
	slots  int
	update func(f *vec.Funcs, w, g []float32, slots [][]float32, scale, rate float32, tmp []float32)
	// begin is told the number of the step, from 1, before its updates.
	begin func(step int)
}

// optimizerOf returns the rule of an optimiser; the error lists those that there are.
func optimizerOf(o train.Optimizer) (*optimizer, error) {
	switch o := o.(type) {
	case nil:
		return sgd(train.SGD{}), nil
	case train.SGD:
		if o.Dampening != 0 {
			return nil, fmt.Errorf("dampening %g: expected 0", o.Dampening)
		}
		return sgd(o), nil
	case train.Adam:
		return adam(o), nil
	}
	return nil, fmt.Errorf("the optimiser %T is not for sparse rows: use sgd or adam", o)
}

// gradient writes scale·g + decay·w to tmp.
func gradient(f *vec.Funcs, tmp, w, g []float32, scale, decay float32) {
	if g == nil {
		clear(tmp)
	} else {
		f.MulS(tmp, g, scale)
	}
	if decay != 0 {
		f.FMAS(tmp, w, decay, tmp)
	}
}

func sgd(o train.SGD) *optimizer {
	decay, momentum := float32(o.Decay), float32(o.Momentum)
	s := &optimizer{begin: func(int) {}}
	if momentum != 0 {
		s.slots = 1
	}
	s.update = func(f *vec.Funcs, w, g []float32, slots [][]float32, scale, rate float32, tmp []float32) {
		gradient(f, tmp, w, g, scale, decay)
		if momentum != 0 {
			b := slots[0]
			f.FMAS(b, b, momentum, tmp)
			if o.Nesterov {
				f.FMAS(tmp, b, momentum, tmp)
			} else {
				tmp = b
			}
		}
		f.FMAS(w, tmp, -rate, w)
	}
	return s
}

// adam follows Kingma and Ba (arXiv 1412.6980) as torch.optim.Adam does: w ← w − η/(1 − β₁ᵗ)·m/(√v/√(1 − β₂ᵗ) + ε).
func adam(o train.Adam) *optimizer {
	b1, b2 := o.Betas[0], o.Betas[1]
	if b1 == 0 && b2 == 0 {
		b1, b2 = 0.9, 0.999
	}
	eps := o.Eps
	if eps == 0 {
		eps = 1e-8
	}
	var first, second float64 // 1 − βᵗ
	s := &optimizer{slots: 2, begin: func(step int) {
		first, second = 1-math.Pow(b1, float64(step)), 1-math.Pow(b2, float64(step))
	}}
	s.update = func(f *vec.Funcs, w, g []float32, slots [][]float32, scale, rate float32, tmp []float32) {
		gradient(f, tmp, w, g, scale, float32(o.Decay))
		m, v := slots[0], slots[1]
		f.MulS(m, m, float32(b1))
		f.FMAS(m, tmp, float32(1-b1), m)
		f.Mul(tmp, tmp, tmp)
		f.MulS(v, v, float32(b2))
		f.FMAS(v, tmp, float32(1-b2), v)
		f.Sqrt(tmp, v)
		f.FMASS(tmp, tmp, float32(1/math.Sqrt(second)), float32(eps))
		f.Div(tmp, m, tmp)
		f.FMAS(w, tmp, -rate*float32(1/first), w)
	}
	return s
}

// apply updates all parameters with the gradients of the batch, times scale. Rows of items that are not held are left alone; rows
// that are held and have no ratings in the batch have the gradient 0.
func (l *learner) apply(o *optimizer, slots []params, held []bool, scale, rate float32) {
	state := make([][]float32, len(slots))
	pick := func(f func(p *params) []float32) [][]float32 {
		for i := range slots {
			state[i] = f(&slots[i])
		}
		return state
	}
	size := max(l.width, len(l.w.outBias))
	for _, w := range l.w.dense {
		size = max(size, len(w))
	}
	l.tmp = room(l.tmp, size)
	for i, w := range l.w.dense {
		o.update(l.f, w, l.g.dense[i], pick(func(p *params) []float32 { return p.dense[i] }), scale, rate, l.tmp[:len(w)])
	}
	c := 0
	for row := range l.w.outBias {
		touched := c < len(l.cols) && int(l.cols[c]) == row
		if touched {
			c++
		}
		if !held[row] {
			continue
		}
		from, to := row*l.width, (row+1)*l.width
		var in, out, bias []float32
		if touched {
			in, out, bias = l.g.in[from:to], l.g.out[from:to], l.g.outBias[row:row+1]
		}
		o.update(l.f, l.w.in[from:to], in, pick(func(p *params) []float32 { return p.in[from:to] }), scale, rate, l.tmp[:l.width])
		o.update(l.f, l.w.out[from:to], out, pick(func(p *params) []float32 { return p.out[from:to] }), scale, rate, l.tmp[:l.width])
		o.update(l.f, l.w.outBias[row:row+1], bias, pick(func(p *params) []float32 { return p.outBias[row : row+1] }), scale, rate, l.tmp[:1])
	}
}
