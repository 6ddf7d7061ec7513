package mismatch

import (
	"context"
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/assisted/mismatch/linkage"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// Align is the first stage of an assisted run whose rows are badly linked: it matches the assistor's rows, features x (n×d), with the
// sponsor's residuals (m×k) through the linear model of the residuals on x. Result.Soft has by row of the assistor the residual that
// belongs to it in expectation, Result.Linked the probability that the given link is right, Result.Weight how much of the row has a
// partner at all: what a learner of the assistor fits in place of the residuals as they came. A nil model is linear with intercept and
// a little ridge; another one must be made for the same n rows. Values that both sides have, such as names, are compared (package linkage).
//
// The plan tells who is whom. It stays with the party that is entitled to both sides; only Soft goes to the other.
func Align(ctx context.Context, x, residuals *mat.Dense, l assisted.Links, m Model, o Options) (*Result, error) {
	if m == nil {
		linear, err := NewLinear(x, true, 1e-6)
		if err != nil {
			return nil, err
		}
		m = linear
	}
	n, _ := x.Dims()
	p := Problem{Y: residuals, Own: l.Own, Blocks: l.Blocks, LabelBlocks: l.SponsorBlocks, Certain: l.Certain}
	if rows, _ := p.sizes(); rows != n {
		return nil, badInput("%d rows of features, %d links", n, rows)
	}
	if l.Compared != nil {
		labelBlocks := l.SponsorBlocks
		if l.Blocks == nil {
			labelBlocks = nil
		}
		pairs, err := linkage.Compare(linkage.Table{Records: l.Compared, Blocks: l.Blocks}, linkage.Table{Records: l.SponsorCompared, Blocks: labelBlocks})
		if err != nil {
			return nil, fmt.Errorf("mismatch: comparing rows: %w", err)
		}
		p.Evidence = pairs.Evidence(pairs.Estimate(), l.Own)
	}
	return Fit(ctx, p, m, o)
}

// Aligner is [Align] for a desk: rows are paired by what a model of the residuals says of them.
type Aligner struct {
	// Learner is what explains residuals, cross-fitted in five folds; nil: a linear model.
	Learner learner.Learner
	Options
}

var _ assisted.Aligner = Aligner{}

// Align implements [assisted.Aligner].
func (a Aligner) Align(ctx context.Context, x, residuals *mat.Dense, l assisted.Links, r *rng.Stream) (*assisted.Alignment, error) {
	o := a.Options
	o.Pair = true
	n, _ := x.Dims()
	var m Model
	if a.Learner == nil {
		linear, err := NewLinear(Complete(x, true), true, 1e-6)
		if err != nil {
			return nil, err
		}
		m = linear
	} else {
		o.Warm, o.Mixture, o.Rounds = FlexibleWarm, FlexibleMixture, FlexibleRounds
		full := Complete(x, false)
		cross, err := NewCrossFit(n, 5, r.Fork("folds"), func(f int) (Model, error) {
			return NewLearned(a.Learner, full, r.Fork(fmt.Sprint("fold ", f))), nil
		})
		if err != nil {
			return nil, err
		}
		m = cross
	}
	found, err := Align(ctx, x, residuals, l, m, o)
	if err != nil {
		return nil, err
	}
	out := &assisted.Alignment{Pair: found.Pair, Wrong: found.Alpha, Spread: math.Exp(found.Entropy), Explained: 1, Warnings: found.Warnings}
	for i, p := range found.Linked {
		if (l.Own == nil || l.Own[i] >= 0) && p < .5 {
			out.Doubted++
		}
	}
	if v := variance(residuals); v > 0 {
		out.Explained = 1 - found.Noise/v
	}
	return out, nil
}

// variance returns the mean variance of a matrix's columns.
func variance(m *mat.Dense) float64 {
	n, k := m.Dims()
	sum := 0.0
	for c := range k {
		col := mat.Col(nil, c, m)
		mean := 0.0
		for _, v := range col {
			mean += v / float64(n)
		}
		for _, v := range col {
			sum += (v - mean) * (v - mean) / float64(n*k)
		}
	}
	return sum
}

// Rounds of the stages of [Fit] for learners that are cross-fitted, each fit from scratch.
const (
	FlexibleWarm    = 5
	FlexibleMixture = 10
	FlexibleRounds  = 10
)

// Complete returns features with a column's mean where a value is missing, standardised by column if asked for; columns that are the
// same in every row are left out.
func Complete(raw *mat.Dense, standardise bool) *mat.Dense {
	n, d := raw.Dims()
	var keep [][]float64
	for c := range d {
		col := mat.Col(nil, c, raw)
		mean, square, known := 0.0, 0.0, 0.0
		for _, v := range col {
			if !math.IsNaN(v) {
				known++
				mean += (v - mean) / known
			}
		}
		for i, v := range col {
			if math.IsNaN(v) {
				col[i] = mean
			}
			square += (col[i] - mean) * (col[i] - mean) / float64(n)
		}
		if !(square > 1e-24*mean*mean) {
			continue
		}
		if standardise {
			for i := range col {
				col[i] = (col[i] - mean) / math.Sqrt(square)
			}
		}
		keep = append(keep, col)
	}
	if len(keep) == 0 {
		return mat.NewDense(n, 1, nil)
	}
	x := mat.NewDense(n, len(keep), nil)
	for c, col := range keep {
		x.SetCol(c, col)
	}
	return x
}
