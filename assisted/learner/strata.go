package learner

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// FitStrata fits a model of l's for each stratum of rows. The first column of x (n×(1+d)) says which of so many strata a row is in, from
// 0; the others are features. The model predicts rows of the same form. Of a stratum with fewer than two rows nothing can be learned, and
// 0 is predicted there.
func FitStrata(ctx context.Context, l Learner, x, y *mat.Dense, count int, r *rng.Stream) (Model, error) {
	n, k := y.Dims()
	if rows, d := x.Dims(); rows != n || d < 2 {
		return nil, &ShapeError{"features", rows, d, fmt.Sprintf("%d rows, as many as there are targets, of a stratum and one feature or more", n)}
	}
	parts, err := byStratum(x, count)
	if err != nil {
		return nil, err
	}
	m := &strata{k, make([]Model, count)}
	for s, rows := range parts {
		if len(rows) < 2 {
			continue
		}
		targets := mat.NewDense(len(rows), k, nil)
		for i, row := range rows {
			targets.SetRow(i, y.RawRowView(row))
		}
		if m.models[s], err = l.Fit(ctx, withoutStratum(x, rows), targets, nil, r); err != nil {
			return nil, fmt.Errorf("stratum %d: %w", s+1, err)
		}
	}
	return m, nil
}

// Stratified reports whether a model was fitted by [FitStrata].
func Stratified(m Model) bool {
	_, ok := m.(*strata)
	return ok
}

// strata is a model for each stratum; nil where nothing is known.
type strata struct {
	outputs int
	models  []Model
}

// byStratum returns which rows are in each stratum.
func byStratum(x *mat.Dense, count int) ([][]int, error) {
	n, _ := x.Dims()
	parts := make([][]int, count)
	for i := range n {
		v := x.At(i, 0)
		if !(v >= 0 && v < float64(count)) || v != math.Trunc(v) {
			return nil, &ValueError{"strata", i, 0, v, fmt.Sprintf("a stratum of 0 to %d", count-1)}
		}
		parts[int(v)] = append(parts[int(v)], i)
	}
	return parts, nil
}

// withoutStratum returns the features of some rows.
func withoutStratum(x *mat.Dense, rows []int) *mat.Dense {
	_, d := x.Dims()
	out := mat.NewDense(len(rows), d-1, nil)
	for i, row := range rows {
		out.SetRow(i, x.RawRowView(row)[1:])
	}
	return out
}

// Predict implements [Model].
func (m *strata) Predict(x *mat.Dense) (*mat.Dense, error) {
	n, d := x.Dims()
	if n == 0 {
		return new(mat.Dense), nil
	}
	if d < 2 {
		return nil, &ShapeError{"features", n, d, "a stratum and one feature or more"}
	}
	parts, err := byStratum(x, len(m.models))
	if err != nil {
		return nil, err
	}
	out := mat.NewDense(n, m.outputs, nil)
	for s, rows := range parts {
		if len(rows) == 0 || m.models[s] == nil {
			continue
		}
		v, err := m.models[s].Predict(withoutStratum(x, rows))
		if err != nil {
			return nil, fmt.Errorf("stratum %d: %w", s+1, err)
		}
		if _, k := v.Dims(); k != m.outputs {
			return nil, fmt.Errorf("stratum %d: the model predicts %d values, expected %d", s+1, k, m.outputs)
		}
		for i, row := range rows {
			out.SetRow(row, v.RawRowView(i))
		}
	}
	return out, nil
}

const strataKind = "strata"

// MarshalBinary implements [Model].
func (m *strata) MarshalBinary() ([]byte, error) {
	w := newWriter(strataKind)
	w.int(m.outputs)
	w.int(len(m.models))
	for _, one := range m.models {
		if one == nil {
			w.text("")
			continue
		}
		b, err := one.MarshalBinary()
		if err != nil {
			return nil, err
		}
		w.text(string(b))
	}
	return w.b, nil
}

// readStrata reads what MarshalBinary wrote.
func readStrata(r *reader) (Model, error) {
	m := &strata{outputs: r.int()}
	inner := make([]string, r.length(1))
	for s := range inner {
		inner[s] = r.text()
	}
	r.check(m.outputs > 0, "no outputs")
	r.check(len(inner) > 0, "no strata")
	if err := r.close(); err != nil {
		return nil, err
	}
	m.models = make([]Model, len(inner))
	for s, b := range inner {
		if b == "" {
			continue
		}
		var err error
		if m.models[s], err = decodeInner(b); err != nil {
			return nil, fmt.Errorf("stratum %d: %w", s+1, err)
		}
	}
	return m, nil
}

// decodeInner reads a model that is part of another one, and holds none itself.
func decodeInner(b string) (Model, error) {
	_, kind, err := open([]byte(b))
	if err == nil && (kind == votesKind || kind == strataKind) {
		err = errors.New("a model of models within another one")
	}
	if err != nil {
		return nil, err
	}
	return Decode([]byte(b))
}
