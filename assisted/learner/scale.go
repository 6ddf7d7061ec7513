package learner

import (
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
)

// scaling maps features to what a model without missing values computes with: z = (x − center)/scale, x = fill where it is
// missing. All three have an entry a column.
type scaling struct{ fill, center, scale []float64 }

// standardise returns the scaling of x (n×d) under the weights w: center and fill are the means of the known values,
// scale their standard deviation √(Σw(x−mean)²/Σw), 1 for a column that is constant. A column without any known value has
// mean 0. If not centred, center is 0 and scale the root mean square.
func standardise(x *mat.Dense, w []float64, centred bool) scaling {
	n, d := x.Dims()
	s := scaling{make([]float64, d), make([]float64, d), make([]float64, d)}
	column := make([]float64, n)
	for j := range d {
		mat.Col(column, j, x)
		mean, most := weightedMean(column, w)
		s.fill[j] = mean
		if centred {
			s.center[j] = mean
		}
		s.scale[j] = deviation(column, w, s.center[j], most)
	}
	return s
}

// standardiseAlike is [standardise], centred, for columns of which every features-th is the same feature in another place: they
// have one center and one scale. A column without any known value is filled with the center.
func standardiseAlike(x *mat.Dense, w []float64, features int) scaling {
	n, d := x.Dims()
	s := scaling{make([]float64, d), make([]float64, d), make([]float64, d)}
	places := d / features
	pooled, repeated := make([]float64, 0, n*places), make([]float64, 0, n*places)
	column := make([]float64, n)
	for f := range features {
		pooled, repeated = pooled[:0], repeated[:0]
		for j := f; j < d; j += features {
			mat.Col(column, j, x)
			pooled, repeated = append(pooled, column...), append(repeated, w...)
		}
		mean, most := weightedMean(pooled, repeated)
		scale := deviation(pooled, repeated, mean, most)
		for j := f; j < d; j += features {
			mat.Col(column, j, x)
			s.center[j], s.scale[j], s.fill[j] = mean, scale, mean
			if slices.ContainsFunc(heavy(w), func(i int) bool { return !math.IsNaN(column[i]) }) {
				s.fill[j], _ = weightedMean(column, w)
			}
		}
	}
	return s
}

// weightedMean returns the mean of the known values of v and their greatest absolute value.
func weightedMean(v, w []float64) (mean, most float64) {
	for i, x := range v {
		if w[i] > 0 && !math.IsNaN(x) {
			most = math.Max(most, math.Abs(x))
		}
	}
	unit := 1.0
	if most > 1e150 { // the sum could overflow
		unit = most
	}
	var sum, total float64
	for i, x := range v {
		if w[i] > 0 && !math.IsNaN(x) {
			sum += float64(w[i] * (x / unit))
			total += w[i]
		}
	}
	if total == 0 {
		return 0, 0
	}
	return sum / total * unit, most
}

// deviation returns the root mean square of v − center, or 1 if that is no more than rounding of values up to most.
func deviation(v, w []float64, center, most float64) float64 {
	if most == 0 {
		return 1
	}
	var sum, total float64
	for i, x := range v {
		if w[i] > 0 && !math.IsNaN(x) {
			u := x/most - center/most
			sum += float64(w[i] * u * u)
			total += w[i]
		}
	}
	relative := math.Sqrt(sum / total)
	if s := relative * most; relative > 1e-14 && s > 1e-290 { // what is smaller cannot be divided by
		return s
	}
	return 1
}

// apply returns the scaled features, n×d.
func (s scaling) apply(x *mat.Dense) *mat.Dense {
	n, d := x.Dims()
	if n == 0 || d == 0 {
		return new(mat.Dense)
	}
	z := mat.NewDense(n, d, nil)
	for i := range n {
		s.row(z.RawRowView(i), x.RawRowView(i))
	}
	return z
}

// row scales one row of features into z.
func (s scaling) row(z, x []float64) {
	for j, v := range x {
		if math.IsNaN(v) {
			v = s.fill[j]
		}
		z[j] = (v - s.center[j]) / s.scale[j]
	}
}

func (s scaling) write(w *writer) {
	w.floats(s.fill)
	w.floats(s.center)
	w.floats(s.scale)
}

func readScaling(r *reader) scaling {
	s := scaling{r.floats(), r.floats(), r.floats()}
	r.check(len(s.center) == len(s.fill) && len(s.scale) == len(s.fill), "scales of %d, %d and %d columns", len(s.fill), len(s.center), len(s.scale))
	for _, v := range s.scale {
		r.check(v > 0, "a column's scale is %v", v)
	}
	return s
}
