// Package axis chooses the numbers that stand at the axes of charts.
package axis

import (
	"fmt"
	"math"
)

// Ticks returns at least two and at most n+2 round numbers that span lo to hi: 1,
// 2 or 5 times a power of ten apart, and at least 1 apart if whole. If hi is not
// above lo, or hardly, they span somewhat more. It panics unless lo and hi are
// finite and n is positive.
func Ticks(lo, hi float64, n int, whole bool) []float64 {
	if math.IsNaN(lo-hi) || math.IsInf(lo, 0) || math.IsInf(hi, 0) || n < 1 {
		panic(fmt.Sprintf("axis: ticks from %v to %v, at most %d", lo, hi, n))
	}
	greatest := max(math.Abs(lo), math.Abs(hi))
	if greatest > 1e306 { // round numbers might overflow
		return []float64{lo, hi}
	}
	if hi <= lo {
		hi = lo + max(1e-9, math.Abs(lo)*0.1)
	}
	hi = max(hi, lo+max(greatest*1e-12, 1e-300)) // what float64 can tell apart
	step := math.Pow(10, math.Floor(math.Log10((hi-lo)/float64(n))))
	for _, m := range []float64{1, 2, 5, 10} {
		if (hi-lo)/(step*m) <= float64(n) {
			step *= m
			break
		}
	}
	if whole && step < 1 {
		step = 1
	}
	first, last := math.Floor(lo/step+1e-9), math.Ceil(hi/step-1e-9)
	if last == first {
		last++
	}
	t := make([]float64, int(last-first)+1)
	for i := range t {
		t[i] = (first + float64(i)) * step
	}
	return t
}

// Decimals returns how many decimals numbers need that are step apart: 0 for 5,
// 1 for 0.5; at most 8.
func Decimals(step float64) (n int) {
	for ; step < 0.9999 && n < 8; step *= 10 {
		n++
	}
	return n
}
