package learner

import (
	"errors"
	"fmt"
	"math"

	"gonum.org/v1/gonum/mat"
)

// ErrNoRows is returned where there is nothing to fit: no row, or no row of positive weight.
var ErrNoRows = errors.New("no rows to fit: all were left out, or no entity is in the data")

// ShapeError tells of a matrix whose shape does not go with the others.
type ShapeError struct {
	Matrix        string // which: "features", "targets", "weights" or "labels"
	Rows, Columns int
	Want          string // what it should have been
}

func (e *ShapeError) Error() string {
	return fmt.Sprintf("%s are %d×%d, expected %s", e.Matrix, e.Rows, e.Columns, e.Want)
}

// ValueError tells of a number that cannot be used. Rows and columns count from 0.
type ValueError struct {
	Matrix      string // where: "features", "targets", "weights", "labels" or "predictions"
	Row, Column int
	Value       float64
	Want        string // what it should have been
}

func (e *ValueError) Error() string {
	return fmt.Sprintf("%s: row %d, column %d (counted from 0) is %v, expected %s", e.Matrix, e.Row, e.Column, e.Value, e.Want)
}

// checkFit checks what a learner was given and returns the sizes, d = 0 for features without columns. Weights come back
// as 1 for all if there are none.
func checkFit(x, y *mat.Dense, w []float64) (n, d, k int, weights []float64, err error) {
	n, k = y.Dims()
	if n == 0 {
		return 0, 0, 0, nil, ErrNoRows
	}
	d, err = checkFeatures(x, n)
	if err != nil {
		return 0, 0, 0, nil, err
	}
	for i := range n {
		for j, v := range y.RawRowView(i) {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return 0, 0, 0, nil, &ValueError{"targets", i, j, v, "a finite number"}
			}
		}
	}
	weights, err = checkWeights(w, n)
	return n, d, k, weights, err
}

// checkFeatures checks that x has n rows and nothing infinite, and returns its columns.
func checkFeatures(x *mat.Dense, n int) (int, error) {
	rows, d := x.Dims()
	if d == 0 {
		return 0, nil
	}
	if rows != n {
		return 0, &ShapeError{"features", rows, d, fmt.Sprintf("%d rows, as many as there are targets", n)}
	}
	return d, checkFinite(x)
}

// checkFinite refuses infinite features.
func checkFinite(x *mat.Dense) error {
	n, _ := x.Dims()
	for i := range n {
		for j, v := range x.RawRowView(i) {
			if math.IsInf(v, 0) {
				return &ValueError{"features", i, j, v, "a finite number, or NaN where the value is missing"}
			}
		}
	}
	return nil
}

func checkWeights(w []float64, n int) ([]float64, error) {
	if w == nil {
		w = make([]float64, n)
		for i := range w {
			w[i] = 1
		}
		return w, nil
	}
	if len(w) != n {
		return nil, &ShapeError{"weights", len(w), 1, fmt.Sprintf("%d rows, as many as there are targets", n)}
	}
	var sum float64
	for i, v := range w {
		if !(v >= 0) || math.IsInf(v, 0) {
			return nil, &ValueError{"weights", i, 0, v, "a finite number, 0 or more"}
		}
		sum += v
	}
	if sum == 0 {
		return nil, ErrNoRows
	}
	if math.IsInf(sum, 0) {
		return nil, errors.New("weights: their sum is infinite; divide them by a common number")
	}
	return w, nil
}

// checkLabels checks the labels of n rows of x and returns the columns of x and the weights.
func checkLabels(x *mat.Dense, labels []int, k int, w []float64) (d int, weights []float64, err error) {
	if len(labels) == 0 {
		return 0, nil, ErrNoRows
	}
	if k < 2 {
		return 0, nil, fmt.Errorf("%d classes, expected 2 or more", k)
	}
	for i, l := range labels {
		if l < 0 || l >= k {
			return 0, nil, &ValueError{"labels", i, 0, float64(l), fmt.Sprintf("a class of 0 to %d", k-1)}
		}
	}
	if d, err = checkFeatures(x, len(labels)); err != nil {
		return 0, nil, err
	}
	weights, err = checkWeights(w, len(labels))
	return d, weights, err
}

// checkPredict checks features for a model of d columns.
func checkPredict(x *mat.Dense, d int) error {
	if n, columns := x.Dims(); columns != d && d != 0 {
		return &ShapeError{"features", n, columns, fmt.Sprintf("%d columns, as many as were fitted", d)}
	}
	return checkFinite(x)
}

// finite returns the predictions if all are finite.
func finite(out *mat.Dense) (*mat.Dense, error) {
	n, _ := out.Dims()
	for i := range n {
		for j, v := range out.RawRowView(i) {
			if math.IsNaN(v) || math.IsInf(v, 0) {
				return nil, &ValueError{"predictions", i, j, v, "a finite number: the features of this row are too large for the model"}
			}
		}
	}
	return out, nil
}
