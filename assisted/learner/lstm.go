package learner

import (
	"math"

	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// lstm is one layer of long short-term memory (Hochreiter and Schmidhuber 1997, with forget gates) over the steps of a
// sequence; its output is the last hidden state. With [i f g o] = [x_t h]W + b
//
//	c ← σ(f)·c + σ(i)·tanh(g),   h ← σ(o)·tanh(c)
//
// A step whose values are all NaN is not there: the state stays as it is.
type lstm struct {
	steps, features, hidden int
	gates                   *dense
	past                    []lstmStep
}

// lstmStep is what one step leaves for the way back.
type lstmStep struct {
	input      *mat.Dense // [x h]
	gates      *mat.Dense // activated
	before, at *mat.Dense // cell state
	there      []bool
}

func newLSTM(s *slab, steps, features, hidden int) *lstm {
	return &lstm{steps: steps, features: features, hidden: hidden, gates: newDense(s, features+hidden, 4*hidden)}
}

func (l *lstm) start(r *rng.Stream) { l.gates.draw(r, 1/math.Sqrt(float64(l.hidden))) }

func sigmoid(x float64) float64 { return 1 / (1 + math.Exp(-x)) }

func (l *lstm) forward(x *mat.Dense, train bool) *mat.Dense {
	n, _ := x.Dims()
	h, c := mat.NewDense(n, l.hidden, nil), mat.NewDense(n, l.hidden, nil)
	l.past = l.past[:0]
	for t := range l.steps {
		s := lstmStep{input: mat.NewDense(n, l.features+l.hidden, nil), before: c, at: mat.DenseCopyOf(c), there: make([]bool, n)}
		for i := range n {
			in := s.input.RawRowView(i)
			copy(in[l.features:], h.RawRowView(i))
			for j, v := range x.RawRowView(i)[t*l.features:][:l.features] {
				if !math.IsNaN(v) {
					in[j], s.there[i] = v, true
				}
			}
		}
		s.gates = l.gates.forward(s.input, train)
		h, c = mat.DenseCopyOf(h), s.at
		for i := range n {
			if s.there[i] {
				l.advance(s.gates.RawRowView(i), c.RawRowView(i), h.RawRowView(i))
			}
		}
		l.past = append(l.past, s)
	}
	return h
}

// advance activates the gates of a row and moves its state on.
func (l *lstm) advance(z, c, h []float64) {
	i, f, g, o := l.split(z)
	for j := range c {
		i[j], f[j], g[j], o[j] = sigmoid(i[j]), sigmoid(f[j]), math.Tanh(g[j]), sigmoid(o[j])
		c[j] = float64(f[j]*c[j]) + float64(i[j]*g[j])
		h[j] = o[j] * math.Tanh(c[j])
	}
}

func (l *lstm) split(z []float64) (i, f, g, o []float64) {
	d := l.hidden
	return z[:d], z[d : 2*d], z[2*d : 3*d], z[3*d:]
}

func (l *lstm) backward(dh *mat.Dense) *mat.Dense {
	n, _ := dh.Dims()
	in := mat.NewDense(n, l.steps*l.features, nil)
	dc := mat.NewDense(n, l.hidden, nil)
	gw, gb := mat.NewDense(l.features+l.hidden, 4*l.hidden, nil), make([]float64, 4*l.hidden)
	for t := l.steps - 1; t >= 0; t-- {
		s := l.past[t]
		dz := mat.NewDense(n, 4*l.hidden, nil)
		for i := range n {
			if s.there[i] {
				l.retreat(dz.RawRowView(i), s.gates.RawRowView(i), s.before.RawRowView(i), s.at.RawRowView(i), dc.RawRowView(i), dh.RawRowView(i))
			}
		}
		l.gates.x = s.input
		di := l.gates.backward(dz)
		gw.Add(gw, l.gates.gw)
		for j, v := range l.gates.gb {
			gb[j] += v
		}
		for i := range n {
			copy(in.RawRowView(i)[t*l.features:], di.RawRowView(i)[:l.features])
			if s.there[i] {
				copy(dh.RawRowView(i), di.RawRowView(i)[l.features:])
			}
		}
	}
	l.gates.gw.Copy(gw)
	copy(l.gates.gb, gb)
	return in
}

// retreat writes the gradient before activation of a row's gates to dz, and moves that of its cell state dc back a step.
func (l *lstm) retreat(dz, gates, before, at, dc, dh []float64) {
	i, f, g, o := l.split(gates)
	di, df, dg, do := l.split(dz)
	for j := range dc {
		tanh := math.Tanh(at[j])
		do[j] = dh[j] * tanh * o[j] * (1 - o[j])
		d := dc[j] + float64(dh[j]*o[j]*(1-float64(tanh*tanh)))
		di[j] = d * g[j] * i[j] * (1 - i[j])
		df[j] = d * before[j] * f[j] * (1 - f[j])
		dg[j] = d * i[j] * (1 - float64(g[j]*g[j]))
		dc[j] = d * f[j]
	}
}
