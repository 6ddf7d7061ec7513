package weights_test

import (
	"testing"

	"github.com/cohort-learning/cohort/weights"
	"pgregory.net/rapid"
)

// Adding with counts is as adding the same set once a unit of weight, each over its own cover.
func TestAddEach(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(1, 6).Draw(rt, "coordinates")
		x := make([]float32, n)
		counts := make([]uint64, n)
		for i := range x {
			x[i] = float32(rapid.IntRange(-1<<20, 1<<20).Draw(rt, "x")) / 1024
			counts[i] = rapid.Uint64Range(0, 5).Draw(rt, "count")
		}
		part, whole := weights.Of32(x, n), weights.Of32(x, n)
		s := weights.NewSet(2)
		s.Put("part", part)
		s.Put("whole", whole)
		got, want := weights.NewAcc(s, true), weights.NewAcc(s, true)
		if err := got.AddEach(s, map[string][]uint64{"part": counts}, 5); err != nil {
			rt.Fatal(err)
		}
		for k := range uint64(5) {
			var cover []int32
			for i, c := range counts {
				if c > k {
					cover = append(cover, int32(i))
				}
			}
			want.MustAdd(s, nil, weights.Index{"part": {weights.List(cover)}, "whole": nil}, 1)
		}
		mean := got.Mean(weights.Float32)
		for i := range n {
			for _, name := range s.Names() {
				if got.Total(name, i) != want.Total(name, i) || got.Count(name, i) != want.Count(name, i) {
					rt.Errorf("%s[%d]: %g of %d, want %g of %d", name, i, got.Total(name, i), got.Count(name, i), want.Total(name, i), want.Count(name, i))
				}
			}
			if m := mean.Must("part").F32[i]; counts[i] > 0 && m != x[i] || counts[i] == 0 && m != 0 {
				rt.Errorf("mean %g of %d times %g", m, counts[i], x[i])
			}
		}
	})
}

func TestAddEachRefuses(t *testing.T) {
	s := weights.NewSet(1)
	s.Put("x", weights.Of64([]float64{1, 2}, 2))
	for what, c := range map[string][]uint64{"too few counts": {1}, "count above the weight": {1, 4}} {
		a := weights.NewAcc(s, true)
		if err := a.AddEach(s, map[string][]uint64{"x": c}, 3); err == nil || a.Weight() != 0 || a.Total("x", 0) != 0 {
			t.Errorf("%s: error %v, weight %d", what, err, a.Weight())
		}
	}
}
