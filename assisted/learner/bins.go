package learner

import (
	"math"
	"slices"

	"github.com/cohort-learning/cohort/parallel"
	"gonum.org/v1/gonum/mat"
)

// binned are features as trees see them: for every column the number of the interval that a value lies in.
type binned struct {
	n    int
	cuts [][]float64 // by column, ascending: a value is in bin b if it is ≤ cuts[b] and not ≤ cuts[b−1]
	bins [][]uint16  // by column and row; a missing value is in bin len(cuts)+1
}

// missing returns the bin of missing values of a column.
func (b *binned) missing(column int) uint16 { return uint16(len(b.cuts[column]) + 1) }

// bin sorts the columns of x into at most most bins each, besides one for missing values. Where a column has no more
// distinct values, each has a bin of its own, and cuts lie half-way between neighbours, so that splits are exact; otherwise
// bins hold about equally many of the rows.
func bin(x *mat.Dense, rows []int, most int) *binned {
	n, d := x.Dims()
	b := &binned{n: n, cuts: make([][]float64, d), bins: make([][]uint16, d)}
	parallel.Do(d, 0, func(j int) {
		known := make([]float64, 0, len(rows))
		for _, i := range rows {
			if v := x.At(i, j); !math.IsNaN(v) {
				known = append(known, v)
			}
		}
		slices.Sort(known)
		b.cuts[j] = cuts(known, most)
		b.bins[j] = make([]uint16, n)
		for i := range n {
			b.bins[j][i] = b.missing(j)
			if v := x.At(i, j); !math.IsNaN(v) {
				at, _ := slices.BinarySearch(b.cuts[j], v)
				b.bins[j][i] = uint16(at)
			}
		}
	})
	return b
}

// cuts returns ascending cuts between sorted values for at most most bins.
func cuts(sorted []float64, most int) []float64 {
	distinct := 0
	for i, v := range sorted {
		if i == 0 || v != sorted[i-1] {
			distinct++
		}
	}
	var out []float64
	for i := 1; i < len(sorted); i++ {
		a, b := sorted[i-1], sorted[i]
		full := (len(out)+1)*len(sorted) <= i*most // the first i values fill one bin more than there is
		if a == b || distinct > most && !full {
			continue
		}
		middle := a/2 + b/2
		if middle < a || middle >= b { // neighbours in floating point
			middle = a
		}
		out = append(out, middle)
	}
	return out
}
