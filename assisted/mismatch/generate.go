package mismatch

import (
	"fmt"
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

// Friedman draws the first problem of Friedman (1991): x uniform on [0, 1]^d, d ≥ 5,
// y = 10 sin(πx₁x₂) + 20(x₃ − ½)² + 10x₄ + 5x₅ + σN(0, 1). It returns x (n×d), y (n×1) and y without noise.
func Friedman(n, d int, sigma float64, r *rng.Stream) (x, y *mat.Dense, clean []float64) {
	if d < 5 {
		panic(fmt.Sprintf("mismatch: Friedman's problem has at least 5 features, not %d", d))
	}
	x, y, clean = mat.NewDense(n, d, nil), mat.NewDense(n, 1, nil), make([]float64, n)
	for i := range n {
		v := x.RawRowView(i)
		for c := range v {
			v[c] = r.Float64()
		}
		clean[i] = 10*math.Sin(math.Pi*v[0]*v[1]) + 20*(v[2]-.5)*(v[2]-.5) + 10*v[3] + 5*v[4]
		y.Set(i, 0, clean[i]+sigma*r.NormFloat64())
	}
	return x, y, clean
}
