package federated

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/cohort-learning/cohort/rng"
)

// Validate returns an error that says which field is out of range.
func (s Selection) Validate() error {
	if !(s.Fraction >= 0 && s.Fraction <= 1) {
		return fmt.Errorf("fraction of members %g is outside (0, 1]", s.Fraction)
	}
	if s.Coins && (s.Everyone || s.ByExamples || s.Fraction == 0) {
		return errors.New("members are drawn by coins: give the fraction of them, and nothing else that draws")
	}
	return nil
}

// nobody reports whether the selection asks for no members at all, as phases do in which only the server works.
func (s Selection) nobody() bool { return !s.Everyone && s.Fraction == 0 }

// size is how many of n members are asked: ⌊Fraction·n⌋ or ⌈Fraction·n⌉, at least one. The product is moved by 1e-9 in
// favour of the nearest integer, so that 0.29·100 is 29.
func (s Selection) size(n int) int {
	x := s.Fraction * float64(n)
	if s.RoundUp {
		return min(n, max(1, int(math.Ceil(x-1e-9))))
	}
	return min(n, max(1, int(math.Floor(x+1e-9))))
}

// cohort is who is asked in a phase, ascending.
type cohort struct {
	all  bool // everybody of the population
	n    int
	list []int // who, unless all
}

func (c cohort) at(k int) int {
	if c.all {
		return k
	}
	return c.list[k]
}

// within reports whether everybody in c is one of the first n members.
func (c cohort) within(n int) bool {
	if c.all {
		return c.n <= n
	}
	return len(c.list) == 0 || c.list[0] >= 0 && c.list[len(c.list)-1] < n
}

// Count returns how many of a population would be drawn now, if nobody was busy; with Coins, how many could be.
func (s Selection) Count(pop Population) int {
	if s.nobody() {
		return 0
	}
	n := 0
	for i := range pop.Len() {
		m := pop.Member(i)
		if !m.Gone && (s.Everyone || s.Coins || m.Samples > 0) && (s.Eligible == nil || s.Eligible(m)) {
			n++
		}
	}
	if s.Everyone || s.Coins || n == 0 {
		return n
	}
	return s.size(n)
}

// draw selects the members of a phase among the first n of a population: everybody eligible, or the head of a random
// permutation of those who are eligible and have examples. Members that are busy with an earlier task are not asked again
// and take up places of the cohort; those that are gone are not there.
func (s Selection) draw(srv Server, n int, busy map[int]bool, round int, purpose string) (cohort, error) {
	switch {
	case s.nobody():
		return cohort{}, nil
	case s.Coins:
		return s.toss(srv, n, round, purpose)
	}
	return s.pick(srv.Population, n, busy, func() *rng.Stream { return srv.Rand(round, purpose) }), nil
}

// toss draws every eligible member that is there by a coin of its own. A member that is gone has its coin all the same, so that
// the others' do not depend on it.
func (s Selection) toss(srv Server, n, round int, purpose string) (cohort, error) {
	if srv.Secret == nil {
		return cohort{}, errors.New("members are to be drawn in secret, and nobody here keeps secrets")
	}
	key, err := srv.Secret(round, purpose)
	if err != nil {
		return cohort{}, fmt.Errorf("secret coins: %w", err)
	}
	coins := rand.New(rand.NewChaCha8(key))
	c := cohort{}
	for i := range n {
		shows := coins.Float64() < s.Fraction
		if m := srv.Population.Member(i); shows && !m.Gone && (s.Eligible == nil || s.Eligible(m)) {
			c.list = append(c.list, i)
		}
	}
	c.n = len(c.list)
	return c, nil
}

func (s Selection) pick(pop Population, n int, busy map[int]bool, r func() *rng.Stream) cohort {
	if s.Everyone && s.Eligible == nil && len(busy) == 0 && allThere(pop, n) {
		return cohort{all: true, n: n}
	}
	pool := make([]int, 0, n)
	for i := range n {
		m := pop.Member(i)
		if !m.Gone && (s.Everyone || m.Samples > 0) && (s.Eligible == nil || s.Eligible(m)) {
			pool = append(pool, i)
		}
	}
	if s.Everyone {
		pool = slices.DeleteFunc(pool, func(i int) bool { return busy[i] })
		return cohort{n: len(pool), list: pool}
	}
	if len(pool) == 0 {
		return cohort{}
	}
	size := s.size(len(pool))
	draws := min(len(pool), size+len(busy))
	var order []int
	if s.ByExamples {
		order = byExamples(pop, pool, draws, r())
	} else {
		order = r().Sample(len(pool), draws)
	}
	chosen := make([]int, 0, size)
	for _, k := range order {
		if len(chosen)+len(busy) >= size {
			break
		}
		if i := pool[k]; !busy[i] {
			chosen = append(chosen, i)
		}
	}
	slices.Sort(chosen)
	return cohort{n: len(chosen), list: chosen}
}

// allThere reports whether none of the first n members is gone.
func allThere(pop Population, n int) bool {
	for i := range n {
		if pop.Member(i).Gone {
			return false
		}
	}
	return true
}

// head is the first n members of a population.
type head struct {
	Population
	n int
}

func (h head) Len() int { return h.n }

// byExamples draws positions of pool, whose members all have examples, with probabilities proportional to their number,
// without putting back.
func byExamples(pop Population, pool []int, draws int, r *rng.Stream) []int {
	w := make([]float64, len(pool))
	for k, i := range pool {
		w[k] = float64(pop.Member(i).Samples)
	}
	order := make([]int, draws)
	for j := range order {
		order[j] = r.Categorical(w)
		w[order[j]] = 0
	}
	return order
}
