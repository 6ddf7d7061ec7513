package mismatch

import (
	"cmp"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
)

// Assign returns the assignment of the n rows of a cost matrix to n of its m ≥ n columns that costs least in sum: the column of
// every row, and the sum. It grows the assignment by one shortest augmenting path a row (Jonker and Volgenant 1987), O(n²m).
// Costs of +∞ forbid a pair. It panics if n > m, and returns nil and +∞ if every assignment is forbidden.
func Assign(cost mat.Matrix) ([]int, float64) {
	n, m := cost.Dims()
	if n > m {
		panic("mismatch: an assignment of more rows than columns")
	}
	var (
		inf  = math.Inf(1)
		u    = make([]float64, n)
		v    = make([]float64, m)
		row  = make([]int, m) // of a column, −1: free
		of   = make([]int, n) // column of a row
		from = make([]int, m) // row before a column on the path
		dist = make([]float64, m)
		done = make([]bool, m)
	)
	for j := range row {
		row[j] = -1
	}
	for start := range n {
		for j := range dist {
			dist[j], done[j] = inf, false
		}
		i, low, end := start, 0.0, -1
		for end < 0 {
			next := -1
			for j := range m {
				if done[j] {
					continue
				}
				if d := low + cost.At(i, j) - u[i] - v[j]; d < dist[j] {
					dist[j], from[j] = d, i
				}
				if next < 0 || dist[j] < dist[next] {
					next = j
				}
			}
			if next < 0 || math.IsInf(dist[next], 1) {
				return nil, inf
			}
			low, done[next] = dist[next], true
			if row[next] < 0 {
				end = next
			} else {
				i = row[next]
			}
		}
		// Reduced costs stay non-negative, and those of the path become 0.
		u[start] += low
		for j := range m {
			if done[j] && j != end {
				u[row[j]] += low - dist[j]
				v[j] -= low - dist[j]
			}
		}
		for j := end; ; {
			i := from[j]
			row[j] = i
			of[i], j = j, of[i]
			if i == start {
				break
			}
		}
	}
	sum := 0.0
	for i, j := range of {
		sum += cost.At(i, j)
	}
	return of, sum
}

// matchSorted pairs rows with labels by rank: the label of rank r goes to the row whose prediction has rank r. Of all ways to
// deal the labels out it costs least for every convex loss of f − y (rearrangement). It writes into of the label of each row.
func matchSorted(rows, labels []int, f, y []float64, of []int) {
	byF, byY := slices.Clone(rows), slices.Clone(labels)
	slices.SortStableFunc(byF, func(a, b int) int { return cmp.Compare(f[a], f[b]) })
	slices.SortStableFunc(byY, func(a, b int) int { return cmp.Compare(y[a], y[b]) })
	for r, i := range byF {
		of[i] = byY[r]
	}
}
