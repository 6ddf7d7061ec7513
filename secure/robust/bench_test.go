package robust

import (
	"testing"

	"github.com/cohort-learning/cohort/rng"
)

// BenchmarkRules combines 50 updates of 100,000 numbers: 20 MB of rows.
func BenchmarkRules(b *testing.B) {
	const n, d = 50, 100_000
	r := rng.New(1, 0, "", "rows")
	rows := make([][]float64, n)
	for i := range rows {
		rows[i] = make([]float64, d)
		for k := range rows[i] {
			rows[i][k] = r.NormFloat64()
		}
	}
	s := spoolOf(b, rows, nil, nil)
	for _, m := range []Method{Mean{}, Median{}, Median{Weighted: true}, TrimmedMean{Beta: 0.1}, Krum{Liars: 5}, Bulyan{Liars: 5}, GeometricMedian{},
		NormClip{}, CentredClip{}} {
		b.Run(Rule{Method: m}.String(), func(b *testing.B) {
			b.SetBytes(4 * n * d)
			for b.Loop() {
				if _, err := (Rule{Method: m}).Combine(b.Context(), s, nil, nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
