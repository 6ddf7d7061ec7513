package learner

import (
	"context"
	"fmt"
	"slices"

	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/weights"
	"gonum.org/v1/gonum/mat"
)

// Sharer is a learner whose models of several rounds can share all but their last layer: one feature extractor φ and a head a round
// (Deep Model Sharing: Diao, Ding and Tarokh, NeurIPS 2022).
type Sharer interface {
	Learner
	// FitShared fits heads h_1 … h_T, each to targets of its own (n×k; a row that is NaN throughout is left out for that head), and
	// one φ, by
	//
	//	min Σ_t ℓ(y_t, h_t(φ(x)))
	//
	// Every head has the unit of its own targets. The model predicts n×(T·k) values, head after head. Start is a model of this learner
	// for the first T − 1 of them, to go on from; nil, or one of another form: all begins anew.
	FitShared(ctx context.Context, x *mat.Dense, targets []*mat.Dense, start Model, r *rng.Stream) (Model, error)
}

// FitShared implements [Sharer].
func (l networks) FitShared(ctx context.Context, x *mat.Dense, targets []*mat.Dense, start Model, r *rng.Stream) (Model, error) {
	if len(targets) == 0 {
		return nil, ErrNoRows
	}
	n, k := targets[0].Dims()
	d, any := 0, make([]float64, n)
	all, bias, constant := make([]target, len(targets)), []float64(nil), true
	for h, y := range targets {
		if rows, columns := y.Dims(); rows != n || columns != k {
			return nil, &ShapeError{"targets", rows, columns, fmt.Sprintf("%d×%d, as of the first round", n, k)}
		}
		known, w := unmask(y)
		var err error
		if _, d, _, w, err = checkFit(x, known, w); err != nil {
			return nil, err
		}
		for i, v := range w {
			any[i] = max(any[i], v)
		}
		all[h] = regression(known, w)
		bias, constant = append(bias, all[h].bias...), constant && all[h].unit == 0
	}
	if d == 0 || constant {
		return &Linear{Bias: bias}, nil
	}
	l.outputs, l.heads = k, len(targets)
	before, _ := start.(*network)
	if before != nil && !before.leads(l.architecture, d) {
		before = nil
	}
	return l.fit(ctx, x, all, any, false, before, r)
}

// unmask returns targets with 0 in the rows that are NaN throughout, which have weight 0.
func unmask(y *mat.Dense) (*mat.Dense, []float64) {
	n, _ := y.Dims()
	known, w := mat.DenseCopyOf(y), make([]float64, n)
	for i := range n {
		if row := known.RawRowView(i); absent(row) {
			clear(row)
		} else {
			w[i] = 1
		}
	}
	return known, w
}

// leads reports whether m is of the form a, but for its last head, on d columns.
func (m *network) leads(a architecture, d int) bool {
	if a.kind == "mlp" {
		a.shape = []int{d}
	}
	return m.kind == a.kind && slices.Equal(m.shape, a.shape) && slices.Equal(m.widths, a.widths) && m.codes == a.codes &&
		m.embedded == a.embedded && m.each == a.each && m.outputs == a.outputs && m.architecture.heads == a.heads-1
}

// lend copies parameters into those of the same network with more heads, whose own are left as they are.
func (m *network) lend(to weights.Set) {
	for name, t := range m.params.All() {
		copy(to.Must(name).F32, t.F32) // heads are the first axis of the last layer
	}
}
