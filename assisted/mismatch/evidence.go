package mismatch

import (
	"cmp"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/assisted/mismatch/linkage"
)

// clue is a [linkage.Clue] of a row within its block.
type clue struct {
	at   int // place of the label in the block
	odds float64
}

// readEvidence sorts clues into blocks. Those of rows and labels that are settled say nothing.
func (l *layout) readEvidence(e *linkage.Evidence) error {
	if e == nil {
		return nil
	}
	if len(e.Clues) != l.n || len(e.Rest) != l.n {
		return badInput("evidence of %d and %d rows for %d", len(e.Clues), len(e.Rest), l.n)
	}
	l.evidence = true
	for k := range l.blocks {
		b := &l.blocks[k]
		place := make(map[int]int, len(b.labels))
		for at, j := range b.labels {
			place[j] = at
		}
		b.clues, b.rest = make([][]clue, len(b.rows)), make([]float64, len(b.rows))
		for r, i := range b.rows {
			if math.IsNaN(e.Rest[i]) || math.IsInf(e.Rest[i], 0) {
				return badInput("evidence of row %d about other labels is %v: it has to be finite", i, e.Rest[i])
			}
			b.rest[r] = e.Rest[i]
			for _, c := range e.Clues[i] {
				if c.Label < 0 || c.Label >= l.m {
					return badInput("a clue of row %d is about label %d: labels are 0 to %d", i, c.Label, l.m-1)
				}
				if math.IsNaN(c.Odds) || math.IsInf(c.Odds, 0) {
					return badInput("a clue of row %d about label %d is %v: it has to be finite", i, c.Label, c.Odds)
				}
				if at, ok := place[c.Label]; ok {
					b.clues[r] = append(b.clues[r], clue{at, c.Odds})
				}
			}
			slices.SortFunc(b.clues[r], func(x, y clue) int { return cmp.Compare(x.at, y.at) })
			for c := range b.clues[r] {
				if c > 0 && b.clues[r][c].at == b.clues[r][c-1].at {
					return badInput("row %d has two clues about label %d", i, b.labels[b.clues[r][c].at])
				}
			}
		}
	}
	return nil
}

// known returns what is known of the r-th row's own label, and of the others in the mean, log of the mean of exp s.
func (b *block) known(r int) (own, others float64) {
	if b.clues == nil {
		return 0, 0
	}
	own = b.rest[r]
	sum, count := math.Inf(-1), float64(len(b.labels)-1)
	for _, c := range b.clues[r] {
		if c.at == b.own[r] {
			own = c.odds
			continue
		}
		sum = logAdd(sum, c.odds)
		count--
	}
	if count > 0 {
		sum = logAdd(sum, b.rest[r]+math.Log(count))
	}
	if len(b.labels) < 2 {
		return own, 0
	}
	return own, sum - math.Log(float64(len(b.labels)-1))
}
