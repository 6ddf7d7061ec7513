package mismatch

import (
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
	"pgregory.net/rapid"
)

// cheapest tries every assignment of rows from i on to columns that are free.
func cheapest(cost *mat.Dense, i int, taken []bool) float64 {
	n, m := cost.Dims()
	if i == n {
		return 0
	}
	best := math.Inf(1)
	for j := range m {
		if !taken[j] {
			taken[j] = true
			best = min(best, cost.At(i, j)+cheapest(cost, i+1, taken))
			taken[j] = false
		}
	}
	return best
}

func TestAssignAgainstBruteForce(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 5).Draw(t, "rows")
		m := n + rapid.IntRange(0, 2).Draw(t, "more columns")
		draw := rapid.OneOf(rapid.Float64Range(-3, 3), rapid.Map(rapid.IntRange(0, 2), func(i int) float64 { return float64(i) }))
		cost := mat.NewDense(n, m, nil)
		cost.Apply(func(int, int, float64) float64 { return draw.Draw(t, "cost") }, cost)
		of, sum := Assign(cost)
		if want := cheapest(cost, 0, make([]bool, m)); math.Abs(sum-want) > 1e-9 {
			t.Fatalf("the assignment %v costs %v, the cheapest %v: %v", of, sum, want, mat.Formatted(cost))
		}
		sorted := slices.Sorted(slices.Values(of))
		if len(slices.Compact(sorted)) != n {
			t.Fatalf("two rows got the same column: %v", of)
		}
	})
}

func TestAssignForbidden(t *testing.T) {
	inf := math.Inf(1)
	if of, sum := Assign(mat.NewDense(2, 2, []float64{inf, 1, 2, 0})); sum != 3 || !slices.Equal(of, []int{1, 0}) {
		t.Errorf("assignment around a forbidden pair: %v, %v", of, sum)
	}
	if of, sum := Assign(mat.NewDense(2, 2, []float64{inf, 1, inf, 0})); of != nil || !math.IsInf(sum, 1) {
		t.Errorf("there is no assignment, but Assign found %v, %v", of, sum)
	}
}

func TestMatchSortedIsCheapest(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(t, "rows")
		f := rapid.SliceOfN(rapid.Float64Range(-2, 2), n, n).Draw(t, "f")
		y := rapid.SliceOfN(rapid.Float64Range(-2, 2), n, n).Draw(t, "y")
		cost := mat.NewDense(n, n, nil)
		cost.Apply(func(i, j int, _ float64) float64 { return (f[i] - y[j]) * (f[i] - y[j]) }, cost)
		all, of := make([]int, n), make([]int, n)
		for i := range all {
			all[i] = i
		}
		matchSorted(all, all, f, y, of)
		got := 0.0
		for i, j := range of {
			got += cost.At(i, j)
		}
		if _, want := Assign(cost); math.Abs(got-want) > 1e-9 {
			t.Fatalf("sorted matching costs %v, the cheapest %v", got, want)
		}
	})
}
