package learner

import (
	"context"
	"fmt"

	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// FitVotes fits classes 0 … k−1 with any learner, and returns a model that predicts no scores but votes, n×k: 1 at the class that it
// decides for, −1/(k−1) at the others (the coding of Zhu, Zou, Rosset and Hastie 2009, Multi-class AdaBoost). A
// [Classifier] fits the classes themselves; any other learner fits their coding, the greatest value of which is then the class.
// The first of equal ones wins.
func FitVotes(ctx context.Context, l Learner, x *mat.Dense, labels []int, k int, w []float64, r *rng.Stream) (Model, error) {
	var m Model
	var err error
	if c, ok := l.(Classifier); ok {
		m, err = c.FitClasses(ctx, x, labels, k, w, r)
	} else {
		if _, _, err = checkLabels(x, labels, k, w); err == nil {
			m, err = l.Fit(ctx, x, coded(labels, k), w, r)
		}
	}
	if err != nil {
		return nil, err
	}
	return &votes{k, m}, nil
}

// coded returns the n×k coding of classes.
func coded(labels []int, k int) *mat.Dense {
	y := mat.NewDense(len(labels), k, nil)
	for i, l := range labels {
		vote(y.RawRowView(i), l)
	}
	return y
}

// vote makes a row one for a class.
func vote(row []float64, class int) {
	for c := range row {
		row[c] = -1 / float64(len(row)-1)
	}
	row[class] = 1
}

// votes is a model of scores of which only the greatest counts.
type votes struct {
	classes int
	scores  Model
}

// Predict implements [Model].
func (m *votes) Predict(x *mat.Dense) (*mat.Dense, error) {
	out, err := m.scores.Predict(x)
	if err != nil || out.IsEmpty() {
		return out, err
	}
	n, k := out.Dims()
	if k != m.classes {
		return nil, fmt.Errorf("the model predicts %d scores for %d classes", k, m.classes)
	}
	for i := range n {
		row, best := out.RawRowView(i), 0
		for c, v := range row {
			if v > row[best] {
				best = c
			}
		}
		vote(row, best)
	}
	return out, nil
}

const votesKind = "votes"

// MarshalBinary implements [Model].
func (m *votes) MarshalBinary() ([]byte, error) {
	b, err := m.scores.MarshalBinary()
	if err != nil {
		return nil, err
	}
	w := newWriter(votesKind)
	w.int(m.classes)
	w.text(string(b))
	return w.b, nil
}

// readVotes reads what MarshalBinary wrote, with the scores of a model that is none of votes again.
func readVotes(r *reader) (Model, error) {
	classes, inner := r.int(), r.text()
	r.check(classes >= 2, "votes for %d classes", classes)
	if err := r.close(); err != nil {
		return nil, err
	}
	scores, err := decodeInner(inner)
	return &votes{classes, scores}, err
}
