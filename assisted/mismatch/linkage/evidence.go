package linkage

import "math"

// Clue is what is known of one link from elsewhere: how much likelier it is than a link that nothing is known of, as a natural
// logarithm, s_ij.
type Clue struct {
	Label int
	Odds  float64
}

// Evidence is what is known of links beside keys and blocks. In a plan the prior weight of a link is multiplied by exp s_ij, of the label
// that a row came with as of every other.
type Evidence struct {
	// Clues are by row, in any order.
	Clues [][]Clue
	// Rest is by row what is known of the labels of its block that no clue names, in the mean: log of the mean of exp s_ij.
	Rest []float64
}

// Of returns what is known of a link.
func (e *Evidence) Of(row, label int) float64 {
	for _, c := range e.Clues[row] {
		if c.Label == label {
			return c.Odds
		}
	}
	return e.Rest[row]
}

// Evidence is what the model says of every link: for each row the labels that fields speak for (log-odds above 0) and the one that it
// came with (own, −1: none; nil: row i with label i), and for all other labels of its block their mean, log (Σ exp s)/count.
func (p *Pairs) Evidence(m *Model, own []int) *Evidence {
	odds := map[Pattern]float64{}
	for pattern := range p.counts {
		odds[pattern] = m.LogOdds(pattern)
	}
	e := &Evidence{Clues: make([][]Clue, len(p.block)), Rest: make([]float64, len(p.block))}
	for i, g := range p.block {
		if g < 0 {
			continue
		}
		b, mine := &p.groups[g], i
		if own != nil {
			mine = own[i]
		}
		sum, count := 0.0, 0.0
		for c, pattern := range b.patterns[p.place[i]*len(b.labels) : (p.place[i]+1)*len(b.labels)] {
			s := odds[pattern]
			if s > 0 || b.labels[c] == mine {
				e.Clues[i] = append(e.Clues[i], Clue{Label: b.labels[c], Odds: s})
				continue
			}
			sum += math.Exp(s)
			count++
		}
		if count > 0 {
			e.Rest[i] = math.Log(sum / count)
		}
	}
	return e
}
