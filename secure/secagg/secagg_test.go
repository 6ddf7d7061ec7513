package secagg_test

import (
	"errors"
	"math"
	"testing"

	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/secure/secagg"
	"pgregory.net/rapid"
)

// Every way in which up to five members can be lost before any of the steps, up to the order of four and more members, in both
// models: the sum is that of the survivors, or too few are left and that is what the error says.
func TestEveryDropOut(t *testing.T) {
	sums, failures := 0, 0
	for n := 2; n <= 5; n++ {
		r := rng.New(1, n, "", "order")
		for code := range int(math.Pow(never+1, float64(n))) {
			steps, ascending := make([]int, n), true
			for i := range n {
				steps[i] = code % (never + 1)
				code /= never + 1
				ascending = ascending && (i == 0 || steps[i] >= steps[i-1])
			}
			if n > 3 {
				if !ascending {
					continue
				}
				r.Shuffle(n, func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
			}
			left := make([]int, never) // who answered each step
			for _, s := range steps {
				for step := range s {
					left[step]++
				}
			}
			lost := func(i int) int { return steps[i] }
			for _, p := range []secagg.Params{
				{Members: n, Threshold: 2*n/3 + 1, Size: 5, Extra: 2},
				{Members: n, Threshold: n/2 + 1, Size: 5, Extra: 2, Bits: 32, Levels: 1 << 8, Model: secagg.Curious},
			} {
				s := open(t, p)
				got, err := s.run(lost)
				if possible := left[unmask] >= p.Threshold; possible != (err == nil) || err != nil && !errors.Is(err, secagg.ErrTooFew) {
					t.Fatalf("lost before %v, answered %v of threshold %d: %v", steps, left, p.Threshold, err)
				}
				if err != nil {
					failures++
					continue
				}
				sums++
				s.check(got, lost)
			}
		}
	}
	// With t of n needed and five steps to be lost before: Σ_{l≤n−t} C(l+4, 4) patterns of four or five members, twenty-seven and
	// twelve in the two models together; 5^l·C(n, l) of fewer, seventeen and two.
	if sums != 27+12+17+2 {
		t.Errorf("%d sums and %d failures: patterns were not what they should be", sums, failures)
	}
}

// Larger cohorts on both graphs, up to 30 % lost, in one step or spread over all.
func TestDropOuts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(6, 13).Draw(t, "members")
		p := secagg.Params{Members: n, Threshold: 2*n/3 + 1, Size: rapid.IntRange(0, 40).Draw(t, "size"),
			Extra: rapid.IntRange(0, 3).Draw(t, "extra"), Bits: rapid.SampledFrom([]int{32, 64}).Draw(t, "bits"), Levels: 1 << 16}
		if k := rapid.IntRange(2, 5).Draw(t, "half"); rapid.Bool().Draw(t, "sparse") && 2*k+1 < n {
			p.Neighbours, p.Threshold, p.Model = 2*k, k+1, secagg.Curious
		}
		in := rapid.SampledFrom([]int{keys, shares, masked, confirm, unmask, -1}).Draw(t, "lost before")
		gone := map[int]int{}
		for _, i := range rapid.Permutation(indices(n)).Draw(t, "order")[:rapid.IntRange(0, 3*n/10).Draw(t, "lost")] {
			if gone[i] = in; in < 0 {
				gone[i] = rapid.IntRange(keys, unmask).Draw(t, "step")
			}
		}
		lost := func(i int) int {
			if step, ok := gone[i]; ok {
				return step
			}
			return never
		}
		s := open(t, p)
		got, err := s.run(lost)
		if err != nil {
			if p.Neighbours > 0 && errors.Is(err, secagg.ErrTooFew) {
				return // a neighbourhood that lost too many by chance
			}
			t.Fatal(err)
		}
		s.check(got, lost)
	})
}

func indices(n int) []int {
	out := make([]int, n)
	for i := range out {
		out[i] = i
	}
	return out
}

func all(int) int { return never }

// A masked vector alone is uniform: bytes of one member's words, whose input is zero, pass a χ² test with 255 degrees of freedom
// (mean 255, deviation 22.6). The randomness is fixed, so this fails always or never.
func TestMaskedVectorIsUniform(t *testing.T) {
	p := secagg.Params{Session: "uniform", Members: 3, Threshold: 3, Size: 1 << 15, Extra: 64}
	b := newBook(3)
	server, err := secagg.NewServer(p, b)
	if err != nil {
		t.Fatal(err)
	}
	members := map[string]*secagg.Member{}
	for i := range 3 {
		trust := b.trust(name(i))
		trust.Random = &stream{rng.New(1, 0, name(i), "keys")}
		m, a, err := secagg.NewMember(p, name(i), 0, trust)
		if err != nil {
			t.Fatal(err)
		}
		members[name(i)] = m
		if err := server.Advert(a); err != nil {
			t.Fatal(err)
		}
	}
	list, err := server.Adverts()
	if err != nil {
		t.Fatal(err)
	}
	for n, m := range members {
		sh, err := m.Share(list)
		if err != nil {
			t.Fatal(err)
		}
		if err := server.Boxes(n, sh.Boxes); err != nil {
			t.Fatal(err)
		}
	}
	for n, m := range members {
		boxes, err := server.Inbox(n)
		if err != nil {
			t.Fatal(err)
		}
		y, err := m.Mask(boxes, p.NewVector(p.Size))
		if err != nil {
			t.Fatal(err)
		}
		raw, err := y.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		var counts [256]float64
		for _, c := range raw[18:] {
			counts[c]++
		}
		expected, chi := float64(len(raw)-18)/256, 0.0
		for _, c := range counts {
			chi += (c - expected) * (c - expected) / expected
		}
		if chi < 255-5*22.6 || chi > 255+5*22.6 {
			t.Errorf("%s: χ² = %.1f", n, chi)
		}
	}
}

// stream reads deterministic "randomness" for tests.
type stream struct{ r *rng.Stream }

func (s *stream) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = byte(s.r.Uint32())
	}
	return len(b), nil
}

// With k = n−1 neighbours the sparse graph is the complete one, message by message.
func TestSparseWithAllNeighboursIsComplete(t *testing.T) {
	sparse := secagg.Params{Members: 7, Threshold: 5, Neighbours: 6, Size: 9}
	complete := sparse
	complete.Neighbours = 0
	for _, p := range []secagg.Params{sparse, complete} {
		s := open(t, p)
		lost := func(i int) int { return []int{never, masked, never, unmask, never, never, never}[i] }
		got, err := s.run(lost)
		if err != nil {
			t.Fatal(err)
		}
		s.check(got, lost)
		if got.Recovered != 1 {
			t.Errorf("k=%d: pair masks of %d members removed, want 1", p.Neighbours, got.Recovered)
		}
	}
	if a, b := sparse.Defaults(), complete.Defaults(); a.Survivors != b.Survivors || a.Holders != b.Holders {
		t.Errorf("defaults differ: %+v, %+v", a, b)
	}
}

// Three levels of nested widths, rows of different lengths: each word is the sum of those who hold it; the innermost level's
// extra words are too thin at Holders 3 and are not sent.
func TestIndexSets(t *testing.T) {
	const d = 3000
	level := func(width int) (r secagg.Ranges) {
		var i []int
		for row := 0; row < 30; row++ {
			for c := 0; c < width; c++ {
				i = append(i, row*100+c)
			}
		}
		return secagg.Indices(i)
	}
	for _, bits := range []int{32, 64} {
		p := secagg.Params{Members: 9, Threshold: 7, Size: d, Extra: 3, Bits: bits, Levels: 1 << 16, Holders: 3,
			Holdings: []secagg.Ranges{level(25), level(50), level(90), level(100)}}
		s := open(t, p)
		s.holding = func(i int) int { return []int{0, 1, 2, 2, 1, 0, 2, 2, 3}[i] }
		lost := func(i int) int { return []int{never, never, masked, never, never, unmask, never, never, never}[i] }
		got, err := s.run(lost)
		if err != nil {
			t.Fatal(err)
		}
		s.check(got, lost)
		if want := level(90); !got.Sent.Equal(want) {
			t.Errorf("%d words sent, want the %d that three hold", got.Sent.Len(), want.Len())
		}
		for i, n := range []int{750, 1500, 2700, 2700} {
			j := []int{0, 1, 3, 8}[i]
			if got := s.masked[name(j)].Len(); got != n || s.members[name(j)].Sent().Len() != n {
				t.Errorf("member of holding %d sent %d words, want %d", i, got, n)
			}
		}
		// One more holder of the outer part lost: its words would be sums of two.
		s = open(t, p)
		s.holding = func(i int) int { return []int{0, 1, 2, 2, 1, 0, 2, 1, 1}[i] }
		lost = func(i int) int { return []int{never, never, masked, never, never, never, never, never, never}[i] }
		if _, err := s.run(lost); !errors.Is(err, secagg.ErrTooFew) {
			t.Errorf("two survivors hold the outer words: %v", err)
		}
	}
}

// Every member holds a set of its own (rolling windows), and some have nothing in common.
func TestRollingIndexSets(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n, d := 6, rapid.IntRange(1, 60).Draw(t, "size")
		p := secagg.Params{Members: n, Threshold: 5, Size: d, Holders: 2}
		for range n {
			var held []int
			for c := range d {
				if rapid.IntRange(0, 2).Draw(t, "held") > 0 {
					held = append(held, c)
				}
			}
			p.Holdings = append(p.Holdings, secagg.Indices(held))
		}
		s := open(t, p)
		s.holding = func(i int) int { return i }
		lost := func(i int) int { return never }
		if rapid.Bool().Draw(t, "one is lost") {
			lost = func(i int) int { return []int{never, masked, never, never, never, never}[i] }
		}
		got, err := s.run(lost)
		if errors.Is(err, secagg.ErrTooFew) {
			return // the one that was lost left a word to a single holder
		}
		if err != nil {
			t.Fatal(err)
		}
		s.check(got, lost)
	})
}
