package mismatch

import (
	"math"

	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// Shuffle returns which label comes with each of n rows when round(α·n) of them, drawn at random, pass theirs round in a circle:
// own[i] is the label that row i comes with, its true one is i. Exactly that many links are wrong (none if it would be one).
func Shuffle(n int, alpha float64, r *rng.Stream) (own []int) {
	own = make([]int, n)
	for i := range own {
		own[i] = i
	}
	rows := r.Sample(n, int(math.Round(alpha*float64(n))))
	for c, i := range rows {
		own[i] = rows[(c+1)%len(rows)]
	}
	return own
}

// LinearTable draws the linear problem that methods are measured on: x ~ N(0, I_d), β uniform on the unit sphere, y = xβ + σN(0, 1).
// It returns x (n×d), y (n×1) in the order of x, and β.
func LinearTable(n, d int, sigma float64, r *rng.Stream) (x, y *mat.Dense, beta []float64) {
	x, y, beta = mat.NewDense(n, d, nil), mat.NewDense(n, 1, nil), make([]float64, d)
	for c := range beta {
		beta[c] = r.NormFloat64()
	}
	norm := rms(beta) * math.Sqrt(float64(d))
	for c := range beta {
		beta[c] /= norm
	}
	for i := range n {
		row, sum := x.RawRowView(i), 0.0
		for c := range row {
			row[c] = r.NormFloat64()
			sum += row[c] * beta[c]
		}
		y.Set(i, 0, sum+sigma*r.NormFloat64())
	}
	return x, y, beta
}
