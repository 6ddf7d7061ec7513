package learner

import (
	"context"
	"encoding"
	"fmt"

	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// Learner fits a model of an organisation's own kind. Implementations are safe for concurrent use.
type Learner interface {
	// Fit fits targets y (n×k) from features x (n×d), NaN = missing, rows weighted by w (nil: all equal). It changes none of
	// them and keeps no reference to them. Learners without randomness do not use r, which may then be nil.
	Fit(ctx context.Context, x, y *mat.Dense, w []float64, r *rng.Stream) (Model, error)
}

// Classifier fits classes: labels are 0 … k−1, one a row of x (n×d). Its model predicts n×k scores, the greatest of which
// is the class: probabilities from tree, forest and knn, from all others numbers whose softmax are probabilities.
type Classifier interface {
	FitClasses(ctx context.Context, x *mat.Dense, labels []int, k int, w []float64, r *rng.Stream) (Model, error)
}

// Model predicts n×k values for n×d features. Its binary form is a tagged, versioned encoding that [Decode] reads back.
// Models are safe for concurrent use.
type Model interface {
	// Predict returns n×k values for x (n×d), which has the columns that were fitted. A model that was fitted without
	// features takes any matrix and looks at its number of rows only.
	Predict(x *mat.Dense) (*mat.Dense, error)
	encoding.BinaryMarshaler
}

// kinds are the models that [Decode] reads, by the tag that they are written with.
var kinds = map[string]func(*reader) Model{
	"block":   readBlock,
	"kernel":  readKernel,
	"linear":  readLinear,
	"nearest": readNearest,
	"network": readNetwork,
	"program": readProgramModel,
	"trees":   readEnsemble,
}

// Decode reads what a [Model] has written with MarshalBinary. Bytes that no model wrote are an error.
func Decode(b []byte) (Model, error) {
	r, kind, err := open(b)
	if err != nil {
		return nil, err
	}
	if kind == votesKind || kind == strataKind { // not among kinds, since they hold some of them
		nested := readVotes
		if kind == strataKind {
			nested = readStrata
		}
		m, err := nested(r)
		if err != nil {
			return nil, fmt.Errorf("model of kind %q: %w", kind, err)
		}
		return m, nil
	}
	read, ok := kinds[kind]
	if !ok {
		return nil, fmt.Errorf("a model of kind %q, which this version does not know", kind)
	}
	m := read(r)
	if err := r.close(); err != nil {
		return nil, fmt.Errorf("model of kind %q: %w", kind, err)
	}
	return m, nil
}
