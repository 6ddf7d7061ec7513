// Package bounds is what assistance between organisations is compared with and that is no protocol: late fusion, averaged and
// stacked models, and networks of organisations that are trained as one ([Fusion]). They need labels, predictions of labels or
// gradients where organisations would not have them, and are computed on tables that lie in one place.
package bounds

import (
	"context"
	"errors"
	"fmt"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// Problem is a table that lies in one place, by the columns of its organisations. Rows stand as in the sponsor's labels.
type Problem struct {
	Sponsor *assisted.Sponsor
	Parts   []*mat.Dense // features of each organisation, for all rows
	Learner learner.Learner
	// Own, if not nil, is the learner of each organisation, in place of the one of all.
	Own  []learner.Learner
	Seed uint64
}

// learner returns the learner of organisation m.
func (p Problem) learner(m int) learner.Learner {
	if p.Own != nil {
		return p.Own[m]
	}
	return p.Learner
}

// Late is late fusion: each organisation fits the labels from its own columns, and predictions F, n×K for all rows, are the mean
// of theirs. Of classes the learner has to be a [learner.Classifier]; the mean is of its scores. For regression it is the average of
// models.
func (p Problem) Late(ctx context.Context) (*mat.Dense, error) {
	var sum *mat.Dense
	for m, x := range p.Parts {
		f, err := p.single(ctx, p.learner(m), x, fmt.Sprint(m))
		if err != nil {
			return nil, fmt.Errorf("organisation %d: %w", m, err)
		}
		if sum == nil {
			sum = f
			continue
		}
		sum.Add(sum, f)
	}
	if sum == nil {
		return nil, errors.New("there is no organisation")
	}
	sum.Scale(1/float64(len(p.Parts)), sum)
	return sum, nil
}

// single fits the labels of the rows to fit from some columns and predicts all rows.
func (p Problem) single(ctx context.Context, l learner.Learner, x *mat.Dense, purpose string) (*mat.Dense, error) {
	fit := p.Sponsor.Fitted()
	model, err := p.model(ctx, l, fit.Of(x), fit.Of(p.Sponsor.Labels), purpose)
	if err != nil {
		return nil, err
	}
	return model.Predict(x)
}

func (p Problem) model(ctx context.Context, l learner.Learner, x, y *mat.Dense, purpose string) (learner.Model, error) {
	r := rng.New(p.Seed, 0, "", purpose)
	if !p.Sponsor.Objective.Classifies() {
		return l.Fit(ctx, x, y, nil, r)
	}
	c, ok := l.(learner.Classifier)
	if !ok {
		return nil, errors.New("the learner fits numbers and no classes: take logistic, or another one that fits classes")
	}
	rows, _ := y.Dims()
	labels := make([]int, rows)
	for i := range labels {
		labels[i] = int(y.At(i, 0))
	}
	k := p.Sponsor.Objective.Classes
	if p.Sponsor.Objective.Loss == assisted.Logistic {
		k = 2
	}
	return c.FitClasses(ctx, x, labels, k, nil, r)
}

// Stacking predicts the labels from predictions (Wolpert 1992): every organisation's model predicts each fifth of the rows to fit from the
// other four, meta is fitted to labels on these predictions, n×M, and the organisations' models are fitted again to all rows. For
// regression.
func (p Problem) Stacking(ctx context.Context, meta learner.Learner) (*mat.Dense, error) {
	if p.Sponsor.Objective.Classifies() {
		return nil, errors.New("stacking is for regression here")
	}
	const folds = 5
	fit, all := p.Sponsor.Fit, len(p.Sponsor.Keys)
	y := p.Sponsor.Fitted().Of(p.Sponsor.Labels)
	if fit < folds {
		return nil, fmt.Errorf("%d rows to fit, for %d folds", fit, folds)
	}
	order := rng.New(p.Seed, 0, "", "folds").Perm(fit)
	out, whole := mat.NewDense(fit, len(p.Parts), nil), mat.NewDense(all, len(p.Parts), nil)
	for m, x := range p.Parts {
		for fold := range folds {
			var in, left []int
			for i, row := range order {
				if i%folds == fold {
					left = append(left, row)
				} else {
					in = append(in, row)
				}
			}
			model, err := p.model(ctx, p.learner(m), assisted.Pick(x, in), assisted.Pick(y, in), fmt.Sprintf("%d/%d", m, fold))
			if err != nil {
				return nil, err
			}
			f, err := model.Predict(assisted.Pick(x, left))
			if err != nil {
				return nil, err
			}
			for i, row := range left {
				out.Set(row, m, f.At(i, 0))
			}
		}
		f, err := p.single(ctx, p.learner(m), x, fmt.Sprint(m))
		if err != nil {
			return nil, err
		}
		for i := range all {
			whole.Set(i, m, f.At(i, 0))
		}
	}
	model, err := meta.Fit(ctx, out, y, nil, rng.New(p.Seed, 0, "", "meta"))
	if err != nil {
		return nil, err
	}
	return model.Predict(whole)
}
