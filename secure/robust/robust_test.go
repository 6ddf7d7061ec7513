package robust

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/weights"
	"pgregory.net/rapid"
)

// points are seven updates of two coordinates, two of them far off. Rows are float32, so they are given ten times as large,
// which is exact; results and radii scale with them.
var points = [][]float64{{0, 0}, {10, 2}, {1, 10}, {11, 9}, {4, 3}, {100, 100}, {-80, 120}}

func like(d int) weights.Set {
	s := weights.NewSet(1)
	s.Put("x", weights.NewTensor(weights.Float32, d))
	return s
}

func vector(x []float64) weights.Set {
	s := weights.NewSet(1)
	s.Put("x", weights.Of64(x, len(x)))
	return s
}

// spoolOf returns a spool of rows, added in the given order.
func spoolOf(t testing.TB, rows [][]float64, order []int, weight func(i int) uint64) *Spool {
	t.Helper()
	s, err := NewSpool(like(len(rows[0])), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	for k := range rows {
		i := k
		if order != nil {
			i = order[k]
		}
		w := uint64(1)
		if weight != nil {
			w = weight(i)
		}
		if err := s.Append(i, fmt.Sprintf("m%d", i), 0, vector(rows[i]), nil, nil, w); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

func combine(t testing.TB, s *Spool, r Rule, before *weights.Set) (x []float64, c Centre) {
	t.Helper()
	c, err := r.Combine(t.Context(), s, before, rng.New(1, 0, "", "buckets"))
	if err != nil {
		t.Fatalf("%s: %v", r, err)
	}
	return c.Value.Must("x").F64, c
}

// The values are those of the reference (computed in float64 from the definitions), for points a tenth as large.
func TestReferenceValues(t *testing.T) {
	for _, c := range []struct {
		method Method
		first  int // points; 0: all
		want   []float64
	}{
		{Mean{}, 0, []float64{.657142857143, 3.485714285714}},
		{Median{}, 0, []float64{.4, .9}},
		{Median{}, 6, []float64{.7, .6}},
		{TrimmedMean{Beta: 0.3}, 0, []float64{.5, .733333333333}},
		{Krum{Liars: 2}, 0, []float64{.4, .3}},
		{Krum{Liars: 2, Multi: true, Keep: 3}, 0, []float64{.466666666667, .166666666667}},
		{Bulyan{Liars: 1}, 0, []float64{.166666666667, .166666666667}},
		{GeometricMedian{Iterations: 4, Nu: 1e-5}, 0, []float64{.538007107097, .732478400100}},
		{GeometricMedian{Iterations: 200, Nu: 1e-9}, 0, []float64{.530700932206, .681926055170}},
		{CentredClip{Radius: 20}, 0, []float64{.414973309989, .782616307293}},
		{CentredClip{Radius: 20, Iterations: 2}, 0, []float64{.524480006494, .993056657881}},
	} {
		rows := points
		if c.first > 0 {
			rows = points[:c.first]
		}
		got, _ := combine(t, spoolOf(t, rows, nil, nil), Rule{Method: c.method}, nil)
		for k, want := range c.want {
			if !(math.Abs(got[k]/10-want) < 1e-12) {
				t.Errorf("%s of %d points: %.12f, %.12f, want %v", c.method, len(rows), got[0]/10, got[1]/10, c.want)
				break
			}
		}
	}
	weighted, _ := combine(t, spoolOf(t, points, nil, func(i int) uint64 { return uint64(i + 1) }),
		Rule{Method: GeometricMedian{Iterations: 300, Nu: 1e-9, Weighted: true}}, nil)
	if math.Abs(weighted[0]/10-.591236210654) > 1e-12 || math.Abs(weighted[1]/10-1.099560489037) > 1e-12 {
		t.Errorf("weighted geometric median %v", weighted)
	}
}

// The objective at the geometric median, and Krum's scores, by the same reference.
func TestReferenceScores(t *testing.T) {
	s := spoolOf(t, points, nil, nil)
	v := plain(s, 1)
	d, err := v.distances(t.Context(), []float64{5.30700932206, 6.81926055170})
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	for _, x := range d {
		sum += x / 10
	}
	if math.Abs(sum-30.543532823319) > 1e-11 {
		t.Errorf("objective %.12f", sum)
	}
	pairs, err := v.pairs(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	got := scores(pairs, 7, []int{0, 1, 2, 3, 4, 5, 6}, 7-2-2)
	for i, want := range []float64{2.30, 1.91, 2.60, 2.36, 1.20, 518.07, 600.08} {
		if math.Abs(got[i]/100-want) > 1e-9 {
			t.Errorf("krum score of %d is %g, want %g", i, got[i]/100, want)
		}
	}
}

// A centre is kept: two rounds of one iteration are one round of two on the same updates.
func TestCentredClipRemembers(t *testing.T) {
	s := spoolOf(t, points, nil, nil)
	_, first := combine(t, s, Rule{Method: CentredClip{Radius: 20}}, nil)
	second, _ := combine(t, s, Rule{Method: CentredClip{Radius: 20}}, first.Memory)
	want, _ := combine(t, s, Rule{Method: CentredClip{Radius: 20, Iterations: 2}}, nil)
	if !slices.Equal(second, want) {
		t.Errorf("%v, want %v", second, want)
	}
	wrong := like(3)
	if _, err := (Rule{Method: CentredClip{Radius: 20}}).Combine(t.Context(), s, &wrong, nil); err == nil {
		t.Error("a memory of another shape was taken")
	}
}

func TestWeightedMedian(t *testing.T) {
	for _, c := range []struct {
		x    []float64
		w    []uint64
		want float64
	}{
		{[]float64{3, 1, 2}, []uint64{1, 1, 1}, 2},
		{[]float64{4, 1, 3, 2}, []uint64{1, 1, 1, 1}, 2.5},
		{[]float64{1, 2, 3}, []uint64{10, 1, 1}, 1},
		{[]float64{1, 2, 3}, []uint64{2, 1, 1}, 1.5}, // exactly half
		{[]float64{1, 2, 3}, []uint64{1, 1, 5}, 3},
	} {
		var rows [][]float64
		for _, x := range c.x {
			rows = append(rows, []float64{x})
		}
		got, _ := combine(t, spoolOf(t, rows, nil, func(i int) uint64 { return c.w[i] }), Rule{Method: Median{Weighted: true}}, nil)
		if got[0] != c.want {
			t.Errorf("median of %v weighing %v is %g, want %g", c.x, c.w, got[0], c.want)
		}
	}
}

func TestBulyanTies(t *testing.T) {
	for _, c := range []struct {
		x    []float32
		keep int
		want float64
	}{{[]float32{1, 2, 3, 4, 5}, 3, 3}, {[]float32{0, 2, 4}, 2, 1}, {[]float32{5, 5, 9, 1}, 1, 5}} {
		if got := closest(slices.Clone(c.x), c.keep); got != c.want {
			t.Errorf("the %d values of %v nearest to their median average %g, want %g", c.keep, c.x, got, c.want)
		}
	}
}

var methods = []Method{Mean{}, Mean{Weighted: true}, Median{}, Median{Weighted: true}, TrimmedMean{Beta: 0.2}, Krum{Liars: 1},
	Krum{Liars: 1, Multi: true}, Bulyan{Liars: 1}, GeometricMedian{}, GeometricMedian{Weighted: true}, NormClip{}, NormClip{Norm: 2},
	CentredClip{}, CentredClip{Radius: 2, Iterations: 2, Weighted: true}}

// However results arrive and however many threads compute, bits are the same.
func TestSameBits(t *testing.T) {
	r := rng.New(3, 0, "", "rows")
	const n, d = 17, 2<<16 + 5 // three blocks
	rows := make([][]float64, n)
	for i := range rows {
		rows[i] = make([]float64, d)
		for k := range rows[i] {
			rows[i][k] = r.NormFloat64()
		}
	}
	weight := func(i int) uint64 { return uint64(1 + i%4) }
	a, b := spoolOf(t, rows, nil, weight), spoolOf(t, rows, r.Perm(n), weight)
	for _, m := range []Method{Median{Weighted: true}, Krum{Liars: 1, Multi: true}, GeometricMedian{Weighted: true, Iterations: 1}, CentredClip{}} {
		for _, bucket := range []int{0, 2} {
			x, _ := combine(t, a, Rule{Method: m, Bucket: bucket, Threads: 1}, nil)
			y, _ := combine(t, b, Rule{Method: m, Bucket: bucket, Threads: 3}, nil)
			if !slices.Equal(x, y) {
				t.Errorf("%s, bucket %d: other bits", m, bucket)
			}
		}
	}
}

// Rules of one result are that result, and those that need no more than one member agree on equal results.
func TestDegenerate(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		n := rapid.IntRange(7, 12).Draw(rt, "n")
		x := []float64{float64(rapid.Float32Range(-100, 100).Draw(rt, "x")), float64(rapid.Float32Range(-100, 100).Draw(rt, "y"))}
		one := spoolOf(t, [][]float64{x}, nil, nil)
		same := spoolOf(t, slices.Repeat([][]float64{x}, n), nil, nil)
		var rows [][]float64
		for range n {
			rows = append(rows, []float64{float64(float32(rapid.Float64Range(-9, 9).Draw(rt, "v")))})
		}
		spread := spoolOf(t, rows, nil, nil)
		for _, m := range methods {
			if m.Check(1) == nil && m.Validate() == nil && m != (NormClip{Norm: 2}) && m != (CentredClip{Radius: 2, Iterations: 2, Weighted: true}) {
				if got, _ := combine(t, one, Rule{Method: m}, nil); !slices.Equal(got, x) {
					rt.Errorf("%s of one result %v is %v", m, x, got)
				}
			}
			if m != (NormClip{Norm: 2}) && m != (CentredClip{Radius: 2, Iterations: 2, Weighted: true}) {
				got, _ := combine(t, same, Rule{Method: m}, nil)
				for k := range x {
					if math.Abs(got[k]-x[k]) > 1e-13*math.Abs(x[k]) {
						rt.Errorf("%s of %d equal results %v is %v", m, n, x, got)
					}
				}
			}
			got, _ := combine(t, spread, Rule{Method: m}, nil)
			lo, hi := math.Inf(1), math.Inf(-1)
			for _, r := range rows {
				lo, hi = min(lo, r[0]), max(hi, r[0])
			}
			if m != (NormClip{Norm: 2}) && m != (NormClip{}) && !strings.Contains(m.String(), "centred") && (got[0] < lo-1e-9 || got[0] > hi+1e-9) {
				rt.Errorf("%s of %v is %g, outside of them", m, rows, got[0])
			}
		}
		mean, _ := combine(t, spread, Rule{Method: Mean{}}, nil)
		untrimmed, _ := combine(t, spread, Rule{Method: TrimmedMean{}}, nil)
		unclipped, _ := combine(t, spread, Rule{Method: NormClip{Norm: 1e9}}, nil)
		whole, _ := combine(t, spread, Rule{Method: Krum{Multi: true, Keep: n}}, nil)
		if mean[0] != untrimmed[0] || mean[0] != unclipped[0] || mean[0] != whole[0] {
			rt.Errorf("mean %g, trimmed by 0 %g, clipped far out %g, of all by krum %g", mean[0], untrimmed[0], unclipped[0], whole[0])
		}
	})
}

// As many liars as a rule stands, sending anything at all, cannot take the result away from the honest.
func TestStandsLiars(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const n, f = 11, 2
		rows := make([][]float64, n)
		for i := range rows {
			for range 3 {
				rows[i] = append(rows[i], rapid.Float64Range(-1, 1).Draw(rt, "honest"))
			}
		}
		at := rapid.IntRange(0, n-1).Draw(rt, "who")
		for k := range f {
			for j := range 3 {
				rows[(at+k)%n][j] = rapid.Float64Range(-1e6, 1e6).Draw(rt, "lie")
			}
		}
		s := spoolOf(t, rows, nil, nil)
		for _, m := range []Method{Median{}, TrimmedMean{Beta: 0.2}, Krum{Liars: f}, Krum{Liars: f, Multi: true}, Bulyan{Liars: f},
			GeometricMedian{Iterations: 100}, NormClip{}, CentredClip{}} {
			got, _ := combine(t, s, Rule{Method: m}, nil)
			for _, v := range got {
				if math.Abs(v) > 4 { // a ball of honest updates has radius √3; the geometric median may leave it by 2n/(n−2f)
					rt.Errorf("%s: %v", m, got)
					break
				}
			}
		}
	})
}

// Per coordinate, those count who hold it: the same as a spool of theirs alone.
func TestHolders(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		const d = 4
		n := rapid.IntRange(1, 6).Draw(rt, "n")
		whole := like(d)
		s, err := NewSpool(whole, t.TempDir())
		if err != nil {
			rt.Fatal(err)
		}
		defer s.Close()
		held := make([][][]float64, d)
		weight := make([]uint64, d)
		for i := range n {
			keep := rapid.IntRange(0, d).Draw(rt, "keep")
			var x []float64
			var cover []int32
			for k := range keep {
				x = append(x, float64(float32(rapid.Float64Range(-5, 5).Draw(rt, "x"))))
				if rapid.Bool().Draw(rt, "covered") {
					cover = append(cover, int32(k))
					held[k] = append(held[k], []float64{x[k]})
					weight[k] += uint64(i + 1)
				}
			}
			at, in := weights.Index{"x": {weights.Prefix(keep)}}, weights.Index{"x": {weights.List(cover)}}
			if err := s.Append(i, "m", 0, vector(x), at, in, uint64(i+1)); err != nil {
				rt.Fatal(err)
			}
		}
		for _, m := range []Method{Mean{}, Median{}, TrimmedMean{Beta: 0.3}} {
			got, c := combine(t, s, Rule{Method: m}, nil)
			for k := range d {
				count := c.Weight
				if c.Counts != nil {
					count = c.Counts["x"][k]
				}
				if count != weight[k] {
					rt.Errorf("coordinate %d counts %d, want %d", k, count, weight[k])
				}
				want := []float64{0}
				if len(held[k]) > 0 {
					want, _ = combine(t, spoolOf(t, held[k], nil, nil), Rule{Method: m}, nil)
				}
				if got[k] != want[0] {
					rt.Errorf("%s: coordinate %d is %g, want %g of its holders alone", m, k, got[k], want[0])
				}
			}
		}
	})
}

func TestUnfit(t *testing.T) {
	part, err := NewSpool(like(2), t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer part.Close()
	for i := range 3 {
		at := weights.Index{"x": nil}
		if i == 1 {
			at = weights.Index{"x": {weights.Prefix(1)}}
		}
		if err := part.Append(i, fmt.Sprintf("m%d", i), 0, vector(make([]float64, []int{2, 1, 2}[i])), at, nil, 1); err != nil {
			t.Fatal(err)
		}
	}
	six := spoolOf(t, points[:6], nil, nil)
	for want, c := range map[string]struct {
		s *Spool
		r Rule
	}{
		"2f+3 = 7 results, there are 6":            {six, Rule{Method: Krum{Liars: 2}}},
		"4f+3 = 7 results, there are 6":            {six, Rule{Method: Bulyan{Liars: 1}}},
		"keep 7 results of 6":                      {six, Rule{Method: Krum{Multi: true, Keep: 7}}},
		"6 results in buckets of 2 are 3":          {six, Rule{Method: Krum{Liars: 1}, Bucket: 2}},
		"m1 sent a part of the model":              {part, Rule{Method: Krum{}}},
		"bulyan (f=0) compares whole":              {part, Rule{Method: Bulyan{}}},
		"geometric median compares whole":          {part, Rule{Method: GeometricMedian{}}},
		"the clipped mean needs at least 1 result": {&Spool{like: like(1)}, Rule{Method: NormClip{}}},
	} {
		_, err := c.r.Combine(t.Context(), c.s, nil, rng.New(1, 0, "", "x"))
		var unfit *UnfitError
		if !errors.As(err, &unfit) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}

func TestValidate(t *testing.T) {
	for want, r := range map[string]Rule{
		"":           {Method: Median{}, Bucket: 2},
		"no method":  {},
		"bucket":     {Method: Median{}, Bucket: -1},
		"trim 0.5":   {Method: TrimmedMean{Beta: 0.5}},
		"trim -0.1":  {Method: TrimmedMean{Beta: -0.1}},
		"trim NaN":   {Method: TrimmedMean{Beta: math.NaN()}},
		"liars -1":   {Method: Krum{Liars: -1}},
		"liars -2":   {Method: Bulyan{Liars: -2}},
		"keep -1":    {Method: Krum{Multi: true, Keep: -1}},
		"keep 2":     {Method: Krum{Keep: 2}},
		"norm -1":    {Method: NormClip{Norm: -1}},
		"norm NaN":   {Method: CentredClip{Radius: math.NaN()}},
		"iterations": {Method: GeometricMedian{Iterations: -1}},
		"nu":         {Method: GeometricMedian{Nu: math.Inf(1)}},
	} {
		if err := r.Validate(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}

// What is read from a spool that has lost its file is an error of the machine, and a context that is done ends the work.
func TestBroken(t *testing.T) {
	s := spoolOf(t, points, nil, nil)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := (Rule{Method: Median{}}).Combine(ctx, s, nil, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v, want that of the context", err)
	}
	if err := s.file.Truncate(8); err != nil {
		t.Fatal(err)
	}
	var unfit *UnfitError
	if _, err := (Rule{Method: Median{}}).Combine(t.Context(), s, nil, nil); err == nil || errors.As(err, &unfit) {
		t.Errorf("error %v", err)
	}
	if _, err := NewSpool(like(1), "/nowhere"); err == nil {
		t.Error("a spool in a folder that does not exist")
	}
}
