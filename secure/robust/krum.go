package robust

import (
	"cmp"
	"context"
	"fmt"
	"slices"
)

// Krum scores every update by the sum of the squared distances to its n−f−2 nearest others and returns the one with the
// smallest score, the first member's on ties; with Keep m it returns the mean of the m best (multi-Krum). It stands f liars
// of n ≥ 2f+3 (Blanchard et al., NeurIPS 2017, section 4 and, for several, section 5).
type Krum struct {
	Liars int  // f
	Multi bool // the mean of several instead of the best
	Keep  int  // how many, with Multi; 0 means n − f
}

// String implements [Method].
func (m Krum) String() string {
	if m.Multi {
		return fmt.Sprintf("multi-krum (f=%d)", m.Liars)
	}
	return fmt.Sprintf("krum (f=%d)", m.Liars)
}

// Validate implements [Method].
func (m Krum) Validate() error {
	switch {
	case m.Liars < 0:
		return fmt.Errorf("liars %d: need 0 or more", m.Liars)
	case m.Keep < 0:
		return fmt.Errorf("keep %d: need 0, for all but the liars, or more", m.Keep)
	case m.Keep > 0 && !m.Multi:
		return fmt.Errorf("keep %d is for multi-krum; krum keeps one", m.Keep)
	}
	return nil
}

// Check implements [Method].
func (m Krum) Check(n int) error {
	if n < 2*m.Liars+3 {
		return fmt.Errorf("%s needs at least 2f+3 = %d results, there are %d: ask more members or set liars to %d", m, 2*m.Liars+3, n, max(0, (n-3)/2))
	}
	if m.Keep > n {
		return fmt.Errorf("%s is to keep %d results of %d", m, m.Keep, n)
	}
	return nil
}

func (m Krum) Weighs() bool { return false }
func (m Krum) Parts() bool  { return false }

func (m Krum) combine(ctx context.Context, v *view, _ []float64) (centre, after []float64, err error) {
	d, err := v.pairs(ctx)
	if err != nil {
		return nil, nil, err
	}
	n := v.len()
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	order := ranked(scores(d, n, all, n-m.Liars-2))
	keep := 1
	if m.Multi {
		keep = cmp.Or(m.Keep, n-m.Liars)
	}
	c := make([]float64, n)
	for _, i := range order[:keep] {
		c[i] = 1
	}
	centre, err = v.combination(ctx, nil, c, c)
	return centre, nil, err
}

// pairs returns the squared distances of all pairs of rows: that of rows i > j at i(i−1)/2 + j.
func (v *view) pairs(ctx context.Context) ([]float64, error) {
	n := v.len()
	return v.blocks(ctx, n*(n-1)/2, func(_ int, x [][]float32, sum []float64) {
		const strip = 1024 // coordinates whose rows stay in the cache
		for lo := 0; lo < len(x[0]); lo += strip {
			hi := min(lo+strip, len(x[0]))
			at := 0
			for i := range n {
				for j := range i {
					sum[at] += squared(x[i][lo:hi], x[j][lo:hi])
					at++
				}
			}
		}
	})
}

// squared is ‖a − b‖², with four partial sums.
func squared(a, b []float32) float64 {
	b = b[:len(a)]
	var s [4]float64
	k := 0
	for ; k+4 <= len(a); k += 4 {
		d0, d1 := float64(a[k])-float64(b[k]), float64(a[k+1])-float64(b[k+1])
		d2, d3 := float64(a[k+2])-float64(b[k+2]), float64(a[k+3])-float64(b[k+3])
		s[0] += float64(d0 * d0)
		s[1] += float64(d1 * d1)
		s[2] += float64(d2 * d2)
		s[3] += float64(d3 * d3)
	}
	for ; k < len(a); k++ {
		d := float64(a[k]) - float64(b[k])
		s[0] += float64(d * d)
	}
	return s[0] + s[1] + s[2] + s[3]
}

func pair(d []float64, i, j int) float64 {
	if i < j {
		i, j = j, i
	}
	return d[i*(i-1)/2+j]
}

// scores returns, by position in among, the sum of the squared distances to the nearest neighbours among the others.
func scores(d []float64, n int, among []int, neighbours int) []float64 {
	out := make([]float64, len(among))
	near := make([]float64, 0, n)
	for k, i := range among {
		near = near[:0]
		for _, j := range among {
			if i != j {
				near = append(near, pair(d, i, j))
			}
		}
		slices.Sort(near)
		for _, x := range near[:min(neighbours, len(near))] {
			out[k] += x
		}
	}
	return out
}

// ranked returns positions by score, the first ones on ties.
func ranked(score []float64) []int {
	order := make([]int, len(score))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(score[a], score[b]) })
	return order
}

// Bulyan chooses θ = n−2f updates by Krum, one after the other out of those that are left (of n′ updates with the
// n′−f−2 nearest others, at least 1), and returns at every coordinate the mean of the θ−2f of their values that are closest
// to their median, the smaller one on ties. It stands f liars of n ≥ 4f+3 (El Mhamdi et al., arXiv 1802.07927, section 4).
type Bulyan struct {
	Liars int // f
}

func (m Bulyan) String() string { return fmt.Sprintf("bulyan (f=%d)", m.Liars) }

// Validate implements [Method].
func (m Bulyan) Validate() error {
	if m.Liars < 0 {
		return fmt.Errorf("liars %d: need 0 or more", m.Liars)
	}
	return nil
}

// Check implements [Method].
func (m Bulyan) Check(n int) error {
	if n < 4*m.Liars+3 {
		return fmt.Errorf("%s needs at least 4f+3 = %d results, there are %d: ask more members or set liars to %d", m, 4*m.Liars+3, n, max(0, (n-3)/4))
	}
	return nil
}

func (m Bulyan) Weighs() bool { return false }
func (m Bulyan) Parts() bool  { return false }

func (m Bulyan) combine(ctx context.Context, v *view, _ []float64) (centre, after []float64, err error) {
	d, err := v.pairs(ctx)
	if err != nil {
		return nil, nil, err
	}
	n := v.len()
	left := make([]int, n)
	for i := range left {
		left[i] = i
	}
	chosen := make([]bool, n)
	for range n - 2*m.Liars {
		k := ranked(scores(d, n, left, max(1, len(left)-m.Liars-2)))[0]
		chosen[left[k]] = true
		left = slices.Delete(left, k, k+1)
	}
	keep := n - 4*m.Liars
	w := v.weight
	v.weight = make([]float64, n) // tells the chosen ones in a column
	for i := range n {
		if chosen[i] {
			v.weight[i] = 1
		}
	}
	centre, err = v.columns(ctx, func(x []float32, w []float64) float64 {
		k := 0
		for i, a := range x {
			if w[i] != 0 {
				x[k] = a
				k++
			}
		}
		return closest(x[:k], keep)
	})
	v.weight = w
	return centre, nil, err
}

// closest returns the mean of the keep values of x that are closest to their median. It sorts x.
func closest(x []float32, keep int) float64 {
	slices.Sort(x)
	m := middle(x)
	lo, hi := 0, len(x)
	for hi-lo > keep { // the furthest is at either end
		if m-float64(x[lo]) > float64(x[hi-1])-m {
			lo++
		} else {
			hi--
		}
	}
	return average(x[lo:hi])
}
