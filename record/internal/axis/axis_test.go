package axis_test

import (
	"fmt"
	"math"
	"testing"

	"pgregory.net/rapid"

	"github.com/cohort-learning/cohort/record/internal/axis"
)

func ExampleTicks() {
	fmt.Println(axis.Ticks(0.03, 0.97, 5, false))
	fmt.Println(axis.Ticks(1, 3, 5, true))
	// Output:
	// [0 0.2 0.4 0.6000000000000001 0.8 1]
	// [1 2 3]
}

func TestTicks(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		value := rapid.OneOf(rapid.Float64Range(-10, 10), rapid.Float64Range(-math.MaxFloat64, math.MaxFloat64),
			rapid.SampledFrom([]float64{0, 1, 1e9, 1e9 + 1e-7, 5e-324, math.MaxFloat64}))
		lo, hi := value.Draw(t, "lo"), value.Draw(t, "hi")
		if lo > hi {
			lo, hi = hi, lo
		}
		n, whole := rapid.IntRange(1, 12).Draw(t, "n"), rapid.Bool().Draw(t, "whole")
		ticks := axis.Ticks(lo, hi, n, whole)
		if len(ticks) < 2 || len(ticks) > n+2 {
			t.Fatalf("%d ticks: %v", len(ticks), ticks)
		}
		first, last := ticks[0], ticks[len(ticks)-1]
		slack := 1e-8 * max(last-first, 1e-300)
		if first > lo+slack || last < hi-slack {
			t.Fatalf("%v does not span %v to %v", ticks, lo, hi)
		}
		for i := 1; i < len(ticks); i++ {
			if d := ticks[i] - ticks[i-1]; !(d > 0) && first != last || math.IsInf(ticks[i], 0) {
				t.Fatalf("%v does not rise", ticks)
			}
			if whole && max(math.Abs(lo), math.Abs(hi)) < 1e306 && ticks[i] != math.Trunc(ticks[i]) && ticks[i] < 1e15 {
				t.Fatalf("%v are not whole", ticks)
			}
		}
	})
}

func TestDecimals(t *testing.T) {
	for step, want := range map[float64]int{5: 0, 1: 0, 0.5: 1, 0.2: 1, 0.05: 2, 1e-300: 8} {
		if got := axis.Decimals(step); got != want {
			t.Errorf("%v: %d, want %d", step, got, want)
		}
	}
}
