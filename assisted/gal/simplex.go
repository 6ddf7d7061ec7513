package gal

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

// simplex returns the w that minimises ½wᵀAw − bᵀw over w ≥ 0, Σw = 1, for a positive semi-definite A, by an active set in the
// manner of Wolfe's algorithm for the point of a polytope nearest to the origin (Mathematical Programming 11, 1976): a set of
// coordinates whose affine minimiser lies inside the simplex takes in the coordinate that the gradient likes best, and gives
// up those that the new minimiser would make negative. It ends when the duality gap is at most 1e-10 of the largest term, or when
// rounding keeps the objective from falling.
func simplex(a *mat.SymDense, b []float64) []float64 {
	n := len(b)
	q := quadratic{a, b}
	size := q.size()
	w := make([]float64, n)
	if size == 0 {
		for m := range w {
			w[m] = 1 / float64(n)
		}
		return w
	}
	set := []int{q.corner()}
	w[set[0]] = 1
	best := slices.Clone(w)
	for range 50 * n {
		slope := q.slope(w)
		in := floats.MinIdx(slope)
		if floats.Dot(w, slope)-slope[in] <= 1e-12*size || slices.Contains(set, in) {
			break
		}
		set = append(set, in)
		set = q.inside(w, set, q.affine)
		floats.Scale(1/floats.Sum(w), w)
		if !(q.value(w) < q.value(best)) {
			break
		}
		copy(best, w)
	}
	return best
}

type quadratic struct {
	a *mat.SymDense
	b []float64
}

// size is that of the largest term.
func (q quadratic) size() float64 {
	most := floats.Norm(q.b, math.Inf(1))
	for m := range q.b {
		most = math.Max(most, q.a.At(m, m))
	}
	return most
}

func (q quadratic) value(w []float64) float64 {
	x := mat.NewVecDense(len(w), w)
	return 0.5*mat.Inner(x, q.a, x) - floats.Dot(q.b, w)
}

func (q quadratic) slope(w []float64) []float64 {
	var v mat.VecDense
	v.MulVec(q.a, mat.NewVecDense(len(w), w))
	d := v.RawVector().Data
	floats.Sub(d, q.b)
	return d
}

// corner is the corner of the simplex with the least value.
func (q quadratic) corner() int {
	best, least := 0, math.Inf(1)
	for m := range q.b {
		if v := 0.5*q.a.At(m, m) - q.b[m]; v < least {
			best, least = m, v
		}
	}
	return best
}

// inside moves w to the minimiser over a set of coordinates without regard to signs, or as far towards it as w stays positive, in
// which case a coordinate that is 0 leaves the set and it goes on with the rest.
func (q quadratic) inside(w []float64, set []int, minimiser func(set []int) []float64) []int {
	for len(set) > 0 {
		v := minimiser(set)
		step, out := 1.0, -1
		for i, m := range set {
			if v[i] <= 0 && w[m] > v[i] {
				if t := w[m] / (w[m] - v[i]); t < step || out < 0 && t <= step {
					step, out = t, m
				}
			}
		}
		for i, m := range set {
			w[m] += float64(step * (v[i] - w[m]))
		}
		if out < 0 {
			break
		}
		w[out] = 0
		set = slices.DeleteFunc(set, func(m int) bool { return m == out })
	}
	return set
}

// affine minimises over Σ_{m∈set} w_m = 1 without regard to signs: Aw + λ1 = b on the set. Where that has more than one solution, or none,
// as between organisations that say the same, a little is added to the diagonal of A.
func (q quadratic) affine(set []int) []float64 {
	n := len(set)
	size := 0.0
	for _, m := range set {
		size = math.Max(size, q.a.At(m, m))
	}
	if size == 0 {
		size = 1
	}
	k, y := mat.NewDense(n+1, n+1, nil), mat.NewVecDense(n+1, nil)
	for i, m := range set {
		for j, l := range set {
			k.Set(i, j, q.a.At(m, l)/size)
		}
		y.SetVec(i, q.b[m]/size)
		k.Set(i, n, 1)
		k.Set(n, i, 1)
	}
	y.SetVec(n, 1)
	for {
		var lu mat.LU
		lu.Factorize(k)
		var x mat.VecDense
		if lu.Cond() < 1e13 && lu.SolveVecTo(&x, false, y) == nil {
			return x.RawVector().Data[:n]
		}
		for i := range n {
			k.Set(i, i, k.At(i, i)*(1+1e-10)+1e-11)
		}
	}
}
