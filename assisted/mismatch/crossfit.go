package mismatch

import (
	"context"
	"errors"
	"fmt"

	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/parallel"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// CrossFit makes a flexible model honest about its own rows: each of its folds is predicted by a model that was fitted to the
// others only. One that has learned its own wrong labels by heart would call every link right.
type CrossFit struct {
	n           int
	folds, rest [][]int
	models      []Model
}

// NewCrossFit divides n rows into folds at random and asks for a model for each. Models of different folds are fitted at once, so
// they share nothing that changes.
func NewCrossFit(n, folds int, r *rng.Stream, model func(fold int) (Model, error)) (*CrossFit, error) {
	if folds < 2 || folds > n {
		return nil, badInput("%d folds of %d rows: at least 2 folds of at least a row are needed", folds, n)
	}
	c := &CrossFit{n: n, folds: make([][]int, folds), rest: make([][]int, folds)}
	of := make([]int, n)
	for at, i := range r.Perm(n) {
		of[i] = at % folds
	}
	for i, f := range of {
		for g := range folds {
			if f == g {
				c.folds[g] = append(c.folds[g], i)
			} else {
				c.rest[g] = append(c.rest[g], i)
			}
		}
	}
	for f := range folds {
		m, err := model(f)
		if err != nil {
			return nil, err
		}
		c.models = append(c.models, m)
	}
	return c, nil
}

// Models returns the folds' models: what they predict for new rows may be averaged.
func (c *CrossFit) Models() []Model { return c.models }

var errAllRows = errors.New("mismatch: a cross-fitted model is fitted to all rows and predicts all")

// Fit implements [Model]: every fold's model learns from the other folds.
func (c *CrossFit) Fit(ctx context.Context, rows []int, t *mat.Dense, w []float64) error {
	if rows != nil {
		return errAllRows
	}
	return c.all(func(f int) error { return c.models[f].Fit(ctx, c.rest[f], t, w) })
}

// Predict implements [Model]: every row by the model that has not seen it.
func (c *CrossFit) Predict(ctx context.Context, rows []int, out *mat.Dense) error {
	if rows != nil {
		return errAllRows
	}
	return c.all(func(f int) error { return c.models[f].Predict(ctx, c.folds[f], out) })
}

func (c *CrossFit) all(do func(f int) error) error {
	errs := make([]error, len(c.models))
	parallel.Do(len(errs), 0, func(f int) { errs[f] = do(f) })
	for f, err := range errs {
		if err != nil {
			return fmt.Errorf("fold %d: %w", f, err)
		}
	}
	return nil
}

// Learned is an organisation's own learner as f_θ: every fit is a new model from scratch. Trees and neighbours learn by heart: wrap
// it in [CrossFit].
type Learned struct {
	learner learner.Learner
	x       *mat.Dense
	random  *rng.Stream
	model   learner.Model
}

// NewLearned returns a learner on features x, n×d. The learner may draw from r.
func NewLearned(l learner.Learner, x *mat.Dense, r *rng.Stream) *Learned {
	return &Learned{learner: l, x: x, random: r}
}

// Learned returns the model of the last fit, nil before.
func (m *Learned) Learned() learner.Model { return m.model }

// take returns the given rows of a matrix, all for nil.
func take(x *mat.Dense, rows []int) *mat.Dense {
	if rows == nil {
		return x
	}
	_, d := x.Dims()
	out := mat.NewDense(len(rows), d, nil)
	for r, i := range rows {
		out.SetRow(r, x.RawRowView(i))
	}
	return out
}

// Fit implements [Model].
func (m *Learned) Fit(ctx context.Context, rows []int, t *mat.Dense, w []float64) error {
	if w != nil && rows != nil {
		own := make([]float64, len(rows))
		for r, i := range rows {
			own[r] = w[i]
		}
		w = own
	}
	fitted, err := m.learner.Fit(ctx, take(m.x, rows), take(t, rows), w, m.random)
	if err != nil {
		return err
	}
	m.model = fitted
	return nil
}

// Predict implements [Model].
func (m *Learned) Predict(_ context.Context, rows []int, out *mat.Dense) error {
	if m.model == nil {
		return errors.New("mismatch: a learner predicts only after it was fitted")
	}
	p, err := m.model.Predict(take(m.x, rows))
	if err != nil {
		return err
	}
	n, _ := m.x.Dims()
	r := 0
	each(rows, n, func(i int) {
		out.SetRow(i, p.RawRowView(r))
		r++
	})
	return nil
}
