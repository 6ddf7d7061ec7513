package learner

import (
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
	"pgregory.net/rapid"
)

// Few distinct values have a bin each; many share at most so many bins, of which none holds much more than its part.
func TestBins(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := rapid.SliceOfN(rapid.OneOf(rapid.Float64Range(-10, 10), rapid.Map(rapid.IntRange(-5, 5), func(v int) float64 { return float64(v) })), 1, 200).Draw(t, "values")
		most := rapid.IntRange(2, 30).Draw(t, "most")
		rows := make([]int, len(values))
		for i := range rows {
			rows[i] = i
		}
		b := bin(mat.NewDense(len(values), 1, slices.Clone(values)), rows, most)
		distinct := slices.Clone(values)
		slices.Sort(distinct)
		distinct = slices.Compact(distinct)
		if got := len(b.cuts[0]) + 1; got > most || len(distinct) <= most && got != len(distinct) {
			t.Fatalf("%d bins of at most %d for %d values", got, most, len(distinct))
		}
		heaviest := map[uint16]map[float64]int{}
		count := map[uint16]int{}
		for i, v := range values {
			at := b.bins[0][i]
			if int(at) < len(b.cuts[0]) && v > b.cuts[0][at] || at > 0 && v <= b.cuts[0][at-1] {
				t.Fatalf("%v is in bin %d of %v", v, at, b.cuts[0])
			}
			if heaviest[at] == nil {
				heaviest[at] = map[float64]int{}
			}
			heaviest[at][v]++
			count[at]++
		}
		for at, values := range heaviest {
			last := 0
			for _, n := range values {
				last = max(last, n)
			}
			if part := float64(len(rows)) / float64(most); float64(count[at]) > math.Ceil(part)+float64(last) {
				t.Fatalf("bin %d holds %d of %d rows, its heaviest value %d", at, count[at], len(rows), last)
			}
		}
	})
}
