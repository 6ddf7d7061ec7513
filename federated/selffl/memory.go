package selffl

import (
	"errors"
	"fmt"
	"strings"

	"github.com/cohort-learning/cohort/weights"
)

// memory is what a client keeps: its model under the model's own names, which is its personal model, and, under names that begin
// with reserved, what it knows of itself.
type memory struct {
	theta  weights.Set
	past   []weights.Set // its last uploads, the newest last, for Rounds
	cover  weights.Set   // levels: 1 at the coordinates that it sent
	round  int           // in which it trained last
	pass   int           // of its data under way, and how many rows of it are done
	offset int
	rate   float64   // of its level
	mass   []float64 // by block: its weight, v_m (0: not known) and h_m
	v, h   []float64
}

const (
	reserved = "selffl."
	numbers  = reserved + "numbers"
	covered  = reserved + "cover."
)

func pastName(i int) string { return fmt.Sprintf("%spast%d.", reserved, i) }

// set returns the memory as a client's set.
func (m memory) set() *weights.Set {
	out := weights.NewSet(m.theta.Len() + 1)
	put := func(prefix string, s weights.Set) {
		for n, t := range s.All() {
			out.Put(prefix+n, t)
		}
	}
	put("", m.theta)
	x := []float64{float64(m.round), float64(m.pass), float64(m.offset), m.rate, float64(len(m.past)), float64(len(m.mass))}
	for _, list := range [][]float64{m.mass, m.v, m.h} {
		x = append(x, list...)
	}
	out.Put(numbers, weights.Of64(x, len(x)))
	put(covered, m.cover)
	for i, s := range m.past {
		put(pastName(i), s)
	}
	return &out
}

// recall reads what a client keeps.
func recall(s *weights.Set, blocks int) (m memory, err error) {
	damaged := errors.New("what this client keeps is damaged, or of another setting: remove it to begin anew")
	t, ok := s.Get(numbers)
	if !ok || t.Len() != 6+3*blocks || int(t.At(5)) != blocks {
		return m, damaged
	}
	x := make([]float64, t.Len())
	for i := range x {
		x[i] = t.At(i)
	}
	m.round, m.pass, m.offset, m.rate = int(x[0]), int(x[1]), int(x[2]), x[3]
	m.mass, m.v, m.h = x[6:6+blocks], x[6+blocks:6+2*blocks], x[6+2*blocks:]
	if m.pass < 0 || m.offset < 0 {
		return m, damaged
	}
	m.past = make([]weights.Set, min(max(0, int(x[4])), RoundsKept))
	for n, t := range s.All() {
		rest, own := strings.CutPrefix(n, reserved)
		if !own {
			m.theta.Put(n, t)
			continue
		}
		if name, ok := strings.CutPrefix(n, covered); ok {
			m.cover.Put(name, t)
		}
		for i := range m.past {
			if name, ok := strings.CutPrefix(reserved+rest, pastName(i)); ok {
				m.past[i].Put(name, t)
			}
		}
	}
	return m, nil
}
