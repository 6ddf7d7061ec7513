package secagg

import (
	"fmt"
	"math"
)

// Odds that Choose allows for each whole session.
const (
	surrounded    = 0x1p-40 // some member has t corrupt neighbours
	unrecoverable = 0x1p-30 // some member has fewer than t surviving neighbours
)

// dense is the number of members up to which everyone is everyone's neighbour: there is little to save.
const dense = 32

// Choose returns terms (n, t, k and the model) for n members of whom the coordinator may hold a part corrupt and a part dropout
// may be lost, both in [0, 1): the sparse graph of fewest neighbours, or the complete one where that is not smaller. An error
// means that no threshold is both safe and reachable.
//
// By Bell et al. (2020, section 3.2 and theorem 3.10) with neighbours drawn by a random ring:
//
//	n·P[Hypergeom(n−1, ⌊γn⌋, k) ≥ t] < 2⁻⁴⁰   and   n·P[Hypergeom(n−1, n−⌊δn⌋−1, k) < t] < 2⁻³⁰,
//
// and the ring holds together: n²·P[k given places on it are all corrupt or lost] < 2⁻⁴⁰, for it takes two gaps of k/2.
func Choose(n int, corrupt, dropout float64, m Model) (Params, error) {
	if n < 2 || n > mostMembers {
		return Params{}, fmt.Errorf("secure aggregation: %d members: expected 2 to %d", n, mostMembers)
	}
	if !(corrupt >= 0 && corrupt < 1 && dropout >= 0 && dropout < 1) {
		return Params{}, fmt.Errorf("secure aggregation: parts corrupt %v and lost %v: expected numbers in [0, 1)", corrupt, dropout)
	}
	p := Params{Members: n, Model: m}
	bad, lost := int(corrupt*float64(n)), int(dropout*float64(n))
	if n > dense && n-lost >= m.Least(n) {
		p.Neighbours, p.Threshold = degree(n, bad, lost, 2, m)
	}
	if p.Neighbours == 0 {
		p.Threshold = max(m.Least(n), bad+1)
		if n-lost < p.Threshold {
			return Params{}, fmt.Errorf("secure aggregation: %d of %d members may be lost and %d be corrupt: a threshold of %d cannot be reached",
				lost, n, bad, p.Threshold)
		}
	}
	return p, nil
}

// degree returns the least k, in steps, with its least t; 0, 0 if that is not below n−1.
func degree(n, bad, lost, step int, m Model) (k, t int) {
	for k = step; k+1 < n; k += step {
		t = k/2 + 1
		if m == Malicious {
			t = m.Least(k + 1)
		}
		for ; t <= k && float64(n)*upper(n-1, bad, k, t) >= surrounded; t++ {
		}
		gap := float64(n) * float64(n) * hypergeometric(n, min(bad+lost, n), k, k)
		if t <= k && gap < surrounded && float64(n)*lower(n-1, n-lost-1, k, t) < unrecoverable {
			return k, t
		}
	}
	return 0, 0
}

// upper returns P[X ≥ t] for X ~ Hypergeom(all, marked, draws).
func upper(all, marked, draws, t int) (p float64) {
	x := t
	for ; x <= min(marked, draws) && x*all <= marked*draws; x++ { // up to the mean
		p += hypergeometric(all, marked, draws, x)
	}
	// From there on each term is the one before times a factor below 1 that falls.
	for term := hypergeometric(all, marked, draws, x); term > p*0x1p-60; x++ {
		p += term
		term *= float64(marked-x) * float64(draws-x) / (float64(x+1) * float64(all-marked-draws+x+1))
	}
	return p
}

// lower returns P[X < t] for X ~ Hypergeom(all, marked, draws).
func lower(all, marked, draws, t int) float64 { return upper(all, all-marked, draws, draws-t+1) }

func hypergeometric(all, marked, draws, x int) float64 {
	if x < 0 || x > marked || x > draws || draws-x > all-marked {
		return 0
	}
	return math.Exp(choices(marked, x) + choices(all-marked, draws-x) - choices(all, draws))
}

// choices returns ln C(n, k).
func choices(n, k int) float64 {
	a, _ := math.Lgamma(float64(n + 1))
	b, _ := math.Lgamma(float64(k + 1))
	c, _ := math.Lgamma(float64(n - k + 1))
	return a - b - c
}
