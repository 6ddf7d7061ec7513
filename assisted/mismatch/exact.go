package mismatch

import (
	"math"
	"math/bits"
)

// countable is the most rows or labels of a block, those of the dustbin among them, whose permutations are all counted.
const countable = 8

// enumerate makes the plan the exact one: P_ij is the share of permutations in which row i has label j, each weighing Π exp L_ij. A
// row or column that takes several is as many. It sums over sets of labels that the first rows may have (2ⁿ of them) from both ends:
//
//	F(S ∪ j) += F(S)·exp L_{|S|, j},   B(S) = Σ_{j ∉ S} exp L_{|S|, j}·B(S ∪ j),   P_ij = Σ_{|S| = i, j ∉ S} F(S)·exp L_ij·B(S ∪ j)/F(all)
//
// in logarithms, so that nothing underflows.
func (t *transport) enumerate() {
	rows, cols := copies(t.r), copies(t.c)
	n := len(rows)
	l := make([]float64, n*n)
	for i, row := range rows {
		for j, col := range cols {
			l[i*n+j] = t.l[row*t.cols+col]
		}
	}
	sets := 1 << n
	forward, backward := make([]float64, sets), make([]float64, sets)
	for s := range sets {
		forward[s], backward[s] = math.Inf(-1), math.Inf(-1)
	}
	forward[0], backward[sets-1] = 0, 0
	each := func(s int, f func(j, more int, weight float64)) {
		row := bits.OnesCount(uint(s))
		for j := range n {
			if more := s | 1<<j; more != s {
				f(j, more, l[row*n+j])
			}
		}
	}
	for s := range sets {
		each(s, func(_, more int, w float64) { forward[more] = logAdd(forward[more], forward[s]+w) })
	}
	for s := sets - 2; s >= 0; s-- {
		each(s, func(_, more int, w float64) { backward[s] = logAdd(backward[s], w+backward[more]) })
	}
	clear(t.kernel)
	for s := range sets - 1 {
		row := rows[bits.OnesCount(uint(s))]
		each(s, func(j, more int, w float64) {
			t.kernel[row*t.cols+cols[j]] += math.Exp(forward[s] + w + backward[more] - backward[0])
		})
	}
	for i, r := range t.r {
		t.u[i] = 1
		t.den[i] = r
	}
	for j := range t.v {
		t.v[j] = 1
	}
}

// copies lists every index as often as its capacity says.
func copies(capacities []float64) (all []int) {
	for i, c := range capacities {
		for range int(math.Round(c)) {
			all = append(all, i)
		}
	}
	return all
}

// exact reports whether the block's permutations are all counted.
func (p *fullPlan) exact(b *belief) bool {
	dustRows, dustLabels := p.dust(b.unmatched)
	return !p.sinkhorn && b.unmatched == 0 && max(len(p.labels)+int(dustRows), len(p.rows)+int(dustLabels)) <= countable
}

// fairWeight returns log w such that in a block whose rows and labels say nothing a share α of its pairs is moved in the mean, where
// permutations weigh (1−α)^(links that stay)·w^(links that are moved); rest is how many rows, and labels, came without one another.
// Of p pairs, w can be moved in C(p, w)·Σ_k (−1)^k C(w, k)·(w + rest − k)! ways. With many pairs it is α/(αp + rest).
func fairWeight(alpha float64, pairs, rest int) float64 {
	ways := make([]float64, pairs+1)
	for w := range ways {
		sign := 1.
		for k := range w + 1 {
			ways[w] += sign * binomial(w, k) * factorial(w+rest-k)
			sign = -sign
		}
		ways[w] *= binomial(pairs, w)
	}
	moved := func(x float64) float64 { // where a link that is moved weighs x times one that stays
		sum, total, weight := 0.0, 0.0, 1.0
		for w, n := range ways {
			sum += float64(w) * n * weight
			total += n * weight
			weight *= x
		}
		return sum / total / float64(pairs)
	}
	low, high := math.Log(1e-30), math.Log(1e30)
	for range 100 {
		if mid := (low + high) / 2; moved(math.Exp(mid)) < alpha {
			low = mid
		} else {
			high = mid
		}
	}
	return math.Log1p(-alpha) + (low+high)/2
}

func factorial(n int) float64 { return math.Gamma(float64(n + 1)) }

func binomial(n, k int) float64 { return factorial(n) / factorial(k) / factorial(n-k) }
