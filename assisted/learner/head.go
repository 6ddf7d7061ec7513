package learner

import (
	"fmt"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// Head is what a sponsor holds of a network whose first layer is divided among organisations: the bias b of that layer and the layers
// above it, w̃. Of pre-activations z = Σ_j X_j w_j (n×h) it makes
//
//	F = φ(… φ(φ(z + b) W₁ + b₁) …) W_L + b_L,  φ(v) = max(v, 0)
//
// after Procedure 2 of assisted learning (Xian, Wang, Ding and Ghanadan, NeurIPS 2020).
type Head struct {
	Widths []int // h, then the width of each hidden layer above, then the number of outputs: two or more
	// Theta is b, then W₁ row by row (a row an input), b₁, W₂ …
	Theta []float64
}

// Parameters is how many a head of such widths has.
func Parameters(widths []int) int {
	n := widths[0]
	for l := range len(widths) - 1 {
		n += (widths[l] + 1) * widths[l+1]
	}
	return n
}

// NewHead draws a head: weights of a layer with d inputs are uniform in ±√(6/d), as rectified units want them (He, Zhang, Ren and Sun 2015),
// and biases are 0.
func NewHead(widths []int, r *rng.Stream) Head {
	h := Head{slices.Clone(widths), make([]float64, Parameters(widths))}
	for l := range len(widths) - 1 {
		bound := math.Sqrt(6 / float64(widths[l]))
		w, _ := h.layer(h.Theta, l)
		for i := range w {
			w[i] = r.Uniform(-bound, bound)
		}
	}
	return h
}

// largest bounds the parameters of a network, so that what they make of numbers of a sensible size can be computed.
const largest = 1e50

// Check returns an error that says what is wrong with the head.
func (h Head) Check() error {
	if len(h.Widths) < 2 || slices.ContainsFunc(h.Widths, func(w int) bool { return w < 1 || w > 1<<16 }) {
		return fmt.Errorf("layers of widths %v: expected at least one hidden layer and the outputs, of 1 to %d units each", h.Widths, 1<<16)
	}
	if n := Parameters(h.Widths); len(h.Theta) != n {
		return fmt.Errorf("%d parameters of layers of widths %v, which have %d", len(h.Theta), h.Widths, n)
	}
	for i, v := range h.Theta {
		if !(math.Abs(v) <= largest) {
			return fmt.Errorf("parameter %d is %v", i, v)
		}
	}
	return nil
}

// Outputs is the number of columns of F.
func (h Head) Outputs() int { return h.Widths[len(h.Widths)-1] }

// layer returns what is between layer l and the next of a vector like Theta: W, row by row, and the bias.
func (h Head) layer(theta []float64, l int) (w, b []float64) {
	at := h.Widths[0]
	for k := range l {
		at += (h.Widths[k] + 1) * h.Widths[k+1]
	}
	inputs, outputs := h.Widths[l], h.Widths[l+1]
	return theta[at:][:inputs*outputs], theta[at+inputs*outputs:][:outputs]
}

// Values returns F (n×K) of pre-activations z (n×h), which it does not change.
func (h Head) Values(z *mat.Dense) *mat.Dense {
	_, f := h.forward(z)
	return f
}

// forward returns the inputs of all layers above the first, and F.
func (h Head) forward(z *mat.Dense) (inputs []*mat.Dense, f *mat.Dense) {
	n, _ := z.Dims()
	a := mat.DenseCopyOf(z)
	for i := range n {
		add(a.RawRowView(i), 1, h.Theta[:h.Widths[0]])
	}
	for l := range len(h.Widths) - 1 {
		rectify(a)
		inputs = append(inputs, a)
		w, b := h.layer(h.Theta, l)
		next := mat.NewDense(n, h.Widths[l+1], nil)
		for i := range n {
			row := next.RawRowView(i)
			multiply(row, a.RawRowView(i), w)
			add(row, 1, b)
		}
		a = next
	}
	return inputs, a
}

// backward returns the gradient with respect to Theta, and to z, of a loss whose gradient with respect to F is df. Sums over rows are
// added up in their order.
func (h Head) backward(inputs []*mat.Dense, df *mat.Dense) (theta []float64, dz *mat.Dense) {
	theta = make([]float64, len(h.Theta))
	n, _ := df.Dims()
	for l := len(h.Widths) - 2; l >= 0; l-- {
		w, _ := h.layer(h.Theta, l)
		gw, gb := h.layer(theta, l)
		dz = mat.NewDense(n, h.Widths[l], nil)
		for i := range n {
			x, d, back := inputs[l].RawRowView(i), df.RawRowView(i), dz.RawRowView(i)
			outer(gw, x, d)
			add(gb, 1, d)
			for j, v := range x {
				if v > 0 {
					back[j] = dot(d, w[j*len(d):])
				}
			}
		}
		df = dz
	}
	for i := range n {
		add(theta[:h.Widths[0]], 1, dz.RawRowView(i))
	}
	return theta, dz
}

// Scaled returns the head whose F_k is offset_k + scale_k F_k.
func (h Head) Scaled(offset, scale []float64) Head {
	h.Theta = slices.Clone(h.Theta)
	w, b := h.layer(h.Theta, len(h.Widths)-2)
	for i := range w {
		w[i] *= scale[i%len(scale)]
	}
	for k := range b {
		b[k] = offset[k] + float64(b[k]*scale[k])
	}
	return h
}

// Begin sets the bias of the outputs, so that F begins near it.
func (h Head) Begin(f []float64) {
	_, b := h.layer(h.Theta, len(h.Widths)-2)
	for k := range b {
		b[k] += f[k]
	}
}

func rectify(x *mat.Dense) {
	n, _ := x.Dims()
	for i := range n {
		row := x.RawRowView(i)
		for k, v := range row {
			row[k] = max(v, 0)
		}
	}
}

// add adds a·x to dst.
func add(dst []float64, a float64, x []float64) {
	for k := range dst {
		dst[k] += float64(a * x[k])
	}
}

// multiply adds x W to dst, of W row by row.
func multiply(dst, x, w []float64) {
	for j, v := range x {
		if v != 0 {
			add(dst, v, w[j*len(dst):])
		}
	}
}

// outer adds xᵀ d to dst, row by row.
func outer(dst, x, d []float64) {
	for j, v := range x {
		if v != 0 {
			add(dst[j*len(d):][:len(d)], v, d)
		}
	}
}

// dot is Σ_k a_k b_k.
func dot(a, b []float64) (sum float64) {
	for k, v := range a {
		sum += float64(v * b[k])
	}
	return sum
}
