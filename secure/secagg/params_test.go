package secagg

import (
	"math"
	"strings"
	"testing"
)

// The table of the least k and t by theorem 3.10 of Bell et al. (2020), computed for the specification: γ = δ, n, k, t.
func TestChooseTable(t *testing.T) {
	for _, tt := range []struct {
		part    float64
		n, k, t int
	}{
		{.05, 100, 11, 6}, {.05, 500, 29, 16}, {.05, 1000, 31, 17}, {.05, 5000, 36, 20}, {.05, 10000, 37, 20},
		{.10, 100, 21, 11}, {.10, 500, 46, 25}, {.10, 1000, 52, 28}, {.10, 5000, 58, 31}, {.10, 10000, 60, 32},
		{.20, 100, 41, 21}, {.20, 500, 95, 50}, {.20, 1000, 109, 57}, {.20, 5000, 130, 68}, {.20, 10000, 134, 70},
		{.33, 100, 67, 34}, {.33, 500, 230, 118}, {.33, 1000, 309, 158}, {.33, 5000, 440, 225}, {.33, 10000, 472, 241},
	} {
		lost := int(tt.part * float64(tt.n))
		if k, th := degree(tt.n, lost, lost, 1, Curious); k != tt.k || th != tt.t {
			t.Errorf("n=%d, %.2f corrupt and lost: k=%d t=%d, want %d, %d", tt.n, tt.part, k, th, tt.k, tt.t)
		}
		p, err := Choose(tt.n, tt.part, tt.part, Curious)
		if err != nil {
			t.Fatal(err)
		}
		// Even k: what is lost by rounding is at most a few neighbours.
		if p.Neighbours%2 != 0 || p.Neighbours < tt.k || p.Neighbours > tt.k+4 || 2*p.Threshold <= p.Neighbours {
			t.Errorf("n=%d, %.2f: chose k=%d t=%d for the least %d, %d", tt.n, tt.part, p.Neighbours, p.Threshold, tt.k, tt.t)
		}
		p.Session = "x"
		if err := p.Validate(); err != nil {
			t.Error(err)
		}
	}
}

func TestChoose(t *testing.T) {
	for _, m := range []Model{Malicious, Curious} {
		for n := 2; n < 40; n++ {
			p, err := Choose(n, .1, .1, m)
			if err != nil {
				t.Fatalf("n=%d: %v", n, err)
			}
			p.Session = "x"
			if err := p.Validate(); err != nil {
				t.Errorf("n=%d: %v", n, err)
			}
			if n <= 32 && p.Neighbours != 0 {
				t.Errorf("n=%d: a sparse graph of %d neighbours", n, p.Neighbours)
			}
		}
	}
	p, err := Choose(1000, .1, .2, Malicious)
	if err != nil || p.Neighbours == 0 || p.Threshold < 2*(p.Neighbours+1)/3+1 {
		t.Errorf("1000 members, malicious: %+v, %v", p, err)
	}
	t.Logf("1000 members, 10%% corrupt, 20%% lost, malicious: k=%d t=%d", p.Neighbours, p.Threshold)
	for _, tt := range []struct {
		n      int
		bad, l float64
	}{{1, 0, 0}, {1 << 16, 0, 0}, {10, 0, .5}, {10, .8, .3}, {10, -1, 0}, {10, 0, 1}} {
		if p, err := Choose(tt.n, tt.bad, tt.l, Malicious); err == nil {
			t.Errorf("%+v: chose %+v", tt, p)
		}
	}
}

func TestValidate(t *testing.T) {
	good := Params{Session: "s", Members: 100, Threshold: 67, Size: 10}
	if err := good.Validate(); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		change func(p *Params)
		want   string
	}{
		{func(p *Params) { p.Session = "" }, "name of its own"},
		{func(p *Params) { p.Members = 1 }, "1 members"},
		{func(p *Params) { p.Members = 1 << 16 }, "65536 members"},
		{func(p *Params) { p.Threshold = 66 }, "threshold 66 of 100: expected 67 to 100"},
		{func(p *Params) { p.Threshold = 101 }, "threshold 101"},
		{func(p *Params) { p.Threshold, p.Model = 50, Curious }, "threshold 50 of 100: expected 51"},
		{func(p *Params) { p.Neighbours, p.Threshold = 21, 16 }, "21 neighbours"},
		{func(p *Params) { p.Neighbours, p.Threshold = 20, 14 }, "threshold 14 of 21: expected 15"},
		{func(p *Params) { p.Neighbours, p.Threshold, p.Survivors = 20, 15, 60 }, "60 survivors of 100 on a sparse graph: need 67"},
		{func(p *Params) { p.Survivors = 66 }, "66 survivors"},
		{func(p *Params) { p.Bits = 16 }, "16 bits"},
		{func(p *Params) { p.Bits = 32; p.MaxWeight = 1000 }, "modulus too small: need b=39"},
		{func(p *Params) { p.MaxWeight = 1 << 62 }, "modulus too small: need b=91"},
		{func(p *Params) { p.Clip = -1 }, "clip bound"},
		{func(p *Params) { p.Levels = 1 }, "1 levels"},
		{func(p *Params) { p.Holders = 1 }, "1 members hold"},
		{func(p *Params) { p.Model = 7 }, "model 7"},
		{func(p *Params) { p.Size = -1 }, "-1 words"},
		{func(p *Params) { p.Holdings = []Ranges{{{0, 11}}} }, "holding 0: range [0, 11)"},
		{func(p *Params) { p.Holdings = []Ranges{{{0, 2}, {2, 3}}} }, "joined"},
		{func(p *Params) { p.Holdings = []Ranges{{{1, 1}}} }, "empty"},
		{func(p *Params) { p.Neighbours, p.Threshold = 20, 15; p.Holdings = []Ranges{All(10), {{0, 5}}} }, "complete graph"},
	} {
		p := good
		tt.change(&p)
		if err := p.Validate(); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", p, err, tt.want)
		}
	}
	// The boundary itself: n·W·Q = 2^32 sums up to 2^32 − n·W.
	p := Params{Session: "s", Members: 1 << 5, Threshold: 30, Bits: 32, MaxWeight: 1 << 5}
	if err := p.Validate(); err != nil {
		t.Errorf("n·W·Q = 2^32 fits 32 bits: %v", err)
	}
	// Whatever is agreed changes the digest.
	seen := map[[32]byte]bool{}
	for _, change := range []func(p *Params){
		func(*Params) {}, func(p *Params) { p.Session = "t" }, func(p *Params) { p.Members++ }, func(p *Params) { p.Threshold++ },
		func(p *Params) { p.Neighbours = 20 }, func(p *Params) { p.Survivors = 70 }, func(p *Params) { p.Model = Curious },
		func(p *Params) { p.Size++ }, func(p *Params) { p.Extra++ }, func(p *Params) { p.Bits = 32 }, func(p *Params) { p.Holders = 5 },
		func(p *Params) { p.Clip = 1 }, func(p *Params) { p.Levels = 9 }, func(p *Params) { p.MaxWeight = 3 },
		func(p *Params) { p.Holdings = []Ranges{{{0, 9}}} },
	} {
		p := good
		change(&p)
		d := p.Defaults().digest()
		if seen[d] {
			t.Errorf("%+v has the digest of other terms", p)
		}
		seen[d] = true
	}
}

func TestGraph(t *testing.T) {
	for _, n := range []int{7, 8, 9, 30, 101} {
		for _, k := range []int{0, 2, 6, 8} {
			p := Params{Session: "s", Members: n, Threshold: 2, Neighbours: k, Holdings: []Ranges{{}}}
			adverts := make(Adverts, n)
			for i := range adverts {
				adverts[i] = Advert{Name: string(rune('a' + i)), Channel: [32]byte{1, byte(i)}, Mask: [32]byte{2, byte(i)}}
			}
			r, err := newRoster(p, adverts)
			if err != nil {
				t.Fatal(err)
			}
			degree := n - 1
			if k > 0 && k+1 < n {
				degree = k
			}
			for i := range n {
				near := r.neighbours(i)
				if len(near) != degree {
					t.Fatalf("n=%d k=%d: member %d has %d neighbours", n, k, i, len(near))
				}
				at := 0
				for j := range n {
					if r.adjacent(i, j) != r.adjacent(j, i) {
						t.Fatalf("n=%d k=%d: %d and %d disagree", n, k, i, j)
					}
					if r.adjacent(i, j) {
						if near[at] != j || r.slot(i, j) != at {
							t.Fatalf("n=%d k=%d: neighbours of %d: %v", n, k, i, near)
						}
						at++
					}
				}
			}
		}
	}
}

// The tails against sums of exact terms, over all of small distributions.
func TestTails(t *testing.T) {
	for all := 1; all <= 12; all++ {
		for marked := 0; marked <= all; marked++ {
			for draws := 0; draws <= all; draws++ {
				want := 0.0
				for x := draws; x >= 0; x-- {
					want += binomial(marked, x) * binomial(all-marked, draws-x) / binomial(all, draws)
					if got := upper(all, marked, draws, x); math.Abs(got-want) > 1e-12 {
						t.Fatalf("P[Hypergeom(%d, %d, %d) ≥ %d] = %v, want %v", all, marked, draws, x, got, want)
					}
					if got := lower(all, marked, draws, x); math.Abs(got-(1-want)) > 1e-12 {
						t.Fatalf("P[Hypergeom(%d, %d, %d) < %d] = %v, want %v", all, marked, draws, x, got, 1-want)
					}
				}
			}
		}
	}
}

func binomial(n, k int) float64 {
	if k < 0 || k > n {
		return 0
	}
	c := 1.0
	for i := range k {
		c = c * float64(n-i) / float64(i+1)
	}
	return c
}
