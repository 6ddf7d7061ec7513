package rng_test

import (
	"fmt"
	"math"
	"slices"
	"testing"

	"github.com/cohort-learning/cohort/rng"
	"pgregory.net/rapid"
)

func ExampleNew() {
	a := rng.New(1, 3, "client-007", "batches")
	b := rng.New(1, 3, "client-007", "batches")
	fmt.Println(a.Perm(5), b.Perm(5))
	// Output: [2 3 4 1 0] [2 3 4 1 0]
}

// The numbers themselves are part of the promise that an old run can be verified by a new binary.
func TestGolden(t *testing.T) {
	r := rng.New(42, 7, "m", "p")
	got := []uint64{r.Uint64(), r.Uint64(), uint64(r.IntN(1000)), math.Float64bits(r.NormFloat64())}
	want := golden
	if !slices.Equal(got, want) {
		t.Errorf("stream changed: got %#x, want %#x", got, want)
	}
}

func TestNamesAreIndependent(t *testing.T) {
	seen := map[uint64]string{}
	for _, n := range []struct {
		seed    uint64
		round   int
		mem, pu string
	}{{1, 0, "", "a"}, {2, 0, "", "a"}, {1, 1, "", "a"}, {1, 0, "a", ""}, {1, 0, "", "b"}, {1, 0, "a", "a"}, {1, -1, "", "a"}} {
		v := rng.New(n.seed, n.round, n.mem, n.pu).Uint64()
		name := fmt.Sprint(n)
		if other, ok := seen[v]; ok {
			t.Errorf("%s and %s share a stream", name, other)
		}
		seen[v] = name
	}
}

func TestResume(t *testing.T) {
	r := rng.New(1, 0, "", "x")
	r.Uint64()
	b, err := r.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	var q rng.Stream
	if err := q.UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	if a, b := r.Uint64(), q.Uint64(); a != b {
		t.Errorf("resumed stream gave %d, want %d", b, a)
	}
}

func TestMoments(t *testing.T) {
	const n = 200000
	for _, shape := range []float64{0.1, 0.5, 1, 2.5, 30} {
		r := rng.New(5, 0, "", fmt.Sprint(shape))
		var s, s2 float64
		for range n {
			x := r.Gamma(shape)
			s += x
			s2 += x * x
		}
		mean, va := s/n, s2/n-(s/n)*(s/n)
		if math.Abs(mean-shape) > 5*math.Sqrt(shape/n) || math.Abs(va-shape) > 0.05*shape+0.01 {
			t.Errorf("Gamma(%g): mean %g, variance %g", shape, mean, va)
		}
	}
}

func TestDirichletTinyAlpha(t *testing.T) {
	r := rng.New(5, 0, "", "tiny")
	for range 100 {
		p := r.Dirichlet([]float64{1e-4, 1e-4, 1e-4})
		var sum float64
		for _, v := range p {
			sum += v
		}
		if math.Abs(sum-1) > 1e-12 {
			t.Fatalf("sum of %v is %g", p, sum)
		}
	}
}

func TestSampleIsUniformAndDistinct(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 60).Draw(t, "n")
		k := rapid.IntRange(0, n).Draw(t, "k")
		got := rng.New(rapid.Uint64().Draw(t, "seed"), 0, "", "s").Sample(n, k)
		seen := map[int]bool{}
		for _, v := range got {
			if v < 0 || v >= n || seen[v] {
				t.Fatalf("bad sample %v", got)
			}
			seen[v] = true
		}
	})
	count := make([]int, 10)
	r := rng.New(9, 0, "", "u")
	for range 20000 {
		for _, v := range r.Sample(10, 3) {
			count[v]++
		}
	}
	for i, c := range count {
		if c < 5700 || c > 6300 {
			t.Errorf("member %d drawn %d times of an expected 6000", i, c)
		}
	}
}

var golden = []uint64{0x6d8b2fcff68fc16a, 0xdde1c13e984e7c35, 0x281, 0x4000bf8d4e626d0f}
