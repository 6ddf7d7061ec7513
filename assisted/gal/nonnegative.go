package gal

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

// nonNegative returns a w ≥ 0 that minimises ½wᵀAw − bᵀw, for a positive semi-definite A, by the active set of Lawson and Hanson
// (Solving Least Squares Problems, 1974, chapter 23): a set of coordinates whose unconstrained minimiser is positive takes in the
// coordinate whose gradient falls most, and gives up those that the new minimiser would make negative. It ends when no gradient
// outside the set is below −1e-12 of the largest term, or when rounding keeps the objective from falling.
func nonNegative(a *mat.SymDense, b []float64) []float64 {
	n := len(b)
	q := quadratic{a, b}
	size := q.size()
	w, best := make([]float64, n), make([]float64, n)
	var set []int
	for range 50 * n {
		slope := q.slope(w)
		in := floats.MinIdx(slope)
		if slope[in] >= -1e-12*size || slices.Contains(set, in) {
			break
		}
		set = q.inside(w, append(set, in), q.free)
		if !(q.value(w) < q.value(best)) {
			break
		}
		copy(best, w)
	}
	return best
}

// free minimises over a set of coordinates without regard to signs: Aw = b on the set. Where that has more than one solution, as between
// organisations that say the same, a little is added to the diagonal of A.
func (q quadratic) free(set []int) []float64 {
	n := len(set)
	a, y := mat.NewSymDense(n, nil), mat.NewVecDense(n, nil)
	size := 0.0
	for _, m := range set {
		size = math.Max(size, q.a.At(m, m))
	}
	if size == 0 {
		size = 1
	}
	for i, m := range set {
		for j := range i + 1 {
			a.SetSym(i, j, q.a.At(m, set[j])/size)
		}
		y.SetVec(i, q.b[m]/size)
	}
	for {
		var c mat.Cholesky
		var x mat.VecDense
		if c.Factorize(a) && c.Cond() < 1e13 && c.SolveVecTo(&x, y) == nil {
			return x.RawVector().Data
		}
		for i := range n {
			a.SetSym(i, i, a.At(i, i)*(1+1e-10)+1e-11)
		}
	}
}
