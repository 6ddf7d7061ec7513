package robust

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
)

// Mean is the mean Σ w_i x_i / Σ w_i over those who hold each coordinate: no defence, to compare with.
type Mean struct {
	Weighted bool // by the weights of results instead of alike
}

func (m Mean) String() string    { return "mean" }
func (m Mean) Validate() error   { return nil }
func (m Mean) Check(n int) error { return atLeast("mean", n, 1) }
func (m Mean) Weighs() bool      { return m.Weighted }
func (m Mean) Parts() bool       { return true }

func (m Mean) combine(ctx context.Context, v *view, _ []float64) (centre, after []float64, err error) {
	centre, err = v.combination(ctx, nil, v.weight, v.weight)
	return centre, nil, err
}

// Median is the median of every coordinate over those who hold it; of an even number of values the mean of the two in the
// middle. It stands any minority of liars (Yin et al., arXiv 1803.01498, definition 1).
//
// Weighted it is the smallest value at which the weights of the values up to it reach half of all weight, or the mean of it
// and the next one if they reach exactly half.
type Median struct {
	Weighted bool // by the weights of results instead of alike
}

func (m Median) String() string    { return "median" }
func (m Median) Validate() error   { return nil }
func (m Median) Check(n int) error { return atLeast("median", n, 1) }
func (m Median) Weighs() bool      { return m.Weighted }
func (m Median) Parts() bool       { return true }

func (m Median) combine(ctx context.Context, v *view, _ []float64) (centre, after []float64, err error) {
	do := func(x []float32, _ []float64) float64 {
		slices.Sort(x)
		return middle(x)
	}
	if m.Weighted {
		do = weightedMedian
	}
	centre, err = v.columns(ctx, do)
	return centre, nil, err
}

// middle is the median of sorted numbers.
func middle[F float32 | float64](x []F) float64 {
	n := len(x)
	if n%2 == 1 {
		return float64(x[n/2])
	}
	return (float64(x[n/2-1]) + float64(x[n/2])) / 2
}

func weightedMedian(x []float32, w []float64) float64 {
	order := make([]int, len(x))
	var total float64
	for i := range order {
		order[i] = i
		total += w[i]
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(x[a], x[b]) })
	var sum float64
	for k, i := range order {
		sum += w[i]
		switch {
		case 2*sum == total && k+1 < len(order):
			return (float64(x[i]) + float64(x[order[k+1]])) / 2
		case 2*sum >= total:
			return float64(x[i])
		}
	}
	return float64(x[order[len(order)-1]])
}

// TrimmedMean is, at every coordinate, the mean of the values of those who hold it without the b = ⌊β·n⌋ smallest and the b
// largest. It stands up to b liars; with β = 0 it is the plain mean (Yin et al., arXiv 1803.01498, definition 2).
type TrimmedMean struct {
	Beta float64 // part dropped at either end, in [0, ½); the usual choice is 0.1
}

func (m TrimmedMean) String() string { return fmt.Sprintf("trimmed mean %g", m.Beta) }

// Validate implements [Method].
func (m TrimmedMean) Validate() error {
	if !(m.Beta >= 0 && m.Beta < 0.5) {
		return fmt.Errorf("trim %g: need a part in [0, 0.5), since nothing is left when half is dropped at either end", m.Beta)
	}
	return nil
}

func (m TrimmedMean) Check(n int) error { return atLeast(m.String(), n, 1) }
func (m TrimmedMean) Weighs() bool      { return false }
func (m TrimmedMean) Parts() bool       { return true }

func (m TrimmedMean) combine(ctx context.Context, v *view, _ []float64) (centre, after []float64, err error) {
	centre, err = v.columns(ctx, func(x []float32, _ []float64) float64 {
		b := int(math.Floor(float64(m.Beta*float64(len(x))) + 1e-9))
		if b > 0 {
			slices.Sort(x)
		}
		return average(x[b : len(x)-b])
	})
	return centre, nil, err
}

func average[F float32 | float64](x []F) float64 {
	var s float64
	for _, v := range x {
		s += float64(v)
	}
	return s / float64(len(x))
}

// atLeast returns an error if there are fewer than need results.
func atLeast(what string, n, need int) error {
	if n >= need {
		return nil
	}
	return fmt.Errorf("%s needs at least %d results, there are %d", what, need, n)
}
