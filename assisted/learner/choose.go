package learner

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// choice fits several learners to four fifths of the rows, drawn at random, and takes the one with the least weighted squared
// error on the rest; that one is fitted again, to all rows. In assisted learning a module may so take another kind of model in
// every round (Xian and others, NeurIPS 2020, the row LRG of table 2). With fewer than ten rows it takes the first.
type choice struct {
	names    []string
	learners []Learner
}

func newChoice(s Spec) (Learner, error) {
	names := s.Among
	if names == nil {
		names = []string{"linear", "forest", "boosted"}
	}
	if len(names) < 2 {
		return nil, fmt.Errorf("among: %v, expected the names of two learners or more", names)
	}
	var l choice
	for _, name := range names {
		if name == "choose" {
			return nil, errors.New("among: choose cannot choose itself")
		}
		one, err := Spec{Name: name}.New()
		if err != nil {
			return nil, fmt.Errorf("among: %w", err)
		}
		if _, refuses := one.(logistic); refuses {
			return nil, errors.New("among: logistic fits classes, and these learners fit numbers")
		}
		l.names, l.learners = append(l.names, name), append(l.learners, one)
	}
	return l, nil
}

func (l choice) Fit(ctx context.Context, x, y *mat.Dense, w []float64, r *rng.Stream) (Model, error) {
	_, d, _, w, err := checkFit(x, y, w)
	if err != nil {
		return nil, err
	}
	if d == 0 {
		return &Linear{Bias: columnMeans(y, w)}, nil
	}
	streams := make([]*rng.Stream, len(l.learners))
	rows := heavy(w)
	r.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
	for i, name := range l.names {
		streams[i] = r.Fork(name)
	}
	best := 0
	if len(rows) >= 10 {
		if best, err = l.best(ctx, x, y, w, rows[len(rows)/5:], rows[:len(rows)/5], streams); err != nil {
			return nil, err
		}
	}
	m, err := l.learners[best].Fit(ctx, x, y, w, streams[best])
	if err != nil {
		return nil, fmt.Errorf("%s: %w", l.names[best], err)
	}
	return m, nil
}

// best returns the learner that, fitted to some rows, errs least on others.
func (l choice) best(ctx context.Context, x, y *mat.Dense, w []float64, fit, test []int, streams []*rng.Stream) (int, error) {
	fx, fy, fw := pick(x, y, w, fit)
	tx, ty, tw := pick(x, y, w, test)
	best, least := 0, math.Inf(1)
	for i, one := range l.learners {
		m, err := one.Fit(ctx, fx, fy, fw, streams[i])
		if err != nil {
			return 0, fmt.Errorf("%s: %w", l.names[i], err)
		}
		p, err := m.Predict(tx)
		var far *ValueError
		if errors.As(err, &far) && far.Matrix == "predictions" {
			continue // it predicts what is no number
		}
		if err != nil {
			return 0, fmt.Errorf("%s: %w", l.names[i], err)
		}
		var loss float64
		for at, weight := range tw {
			loss += float64(weight * squaredDistance(p.RawRowView(at), ty.RawRowView(at)))
		}
		if loss < least {
			best, least = i, loss
		}
	}
	return best, nil
}

// pick returns some of the rows.
func pick(x, y *mat.Dense, w []float64, rows []int) (px, py *mat.Dense, pw []float64) {
	_, d := x.Dims()
	_, k := y.Dims()
	px, py, pw = mat.NewDense(len(rows), d, nil), mat.NewDense(len(rows), k, nil), make([]float64, len(rows))
	for at, i := range rows {
		px.SetRow(at, x.RawRowView(i))
		py.SetRow(at, y.RawRowView(i))
		pw[at] = w[i]
	}
	return px, py, pw
}
