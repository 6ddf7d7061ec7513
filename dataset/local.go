package dataset

import (
	"fmt"
	"slices"

	"github.com/cohort-learning/cohort/rng"
)

// Divide cuts every client's list at random into parts of the given fractions, such as 0.8, 0.1, 0.1 to train, validate
// and test locally; what the fractions leave below 1 is dropped. Fractions must be positive and sum to at most 1.
//
// A list is cut class by class if each of its classes has at least two samples, else as a whole. A part that would get
// less than one sample of a list is empty for it, except the first, which never is while the list is not.
func (p *Partition) Divide(e *Examples, seed uint64, fractions ...float64) ([]*Partition, error) {
	var sum float64
	for _, f := range fractions {
		if !(f > 0) {
			return nil, fmt.Errorf("local parts: fraction %v is not positive", f)
		}
		sum += f
	}
	if len(fractions) == 0 || sum > 1+1e-9 {
		return nil, fmt.Errorf("local parts: fractions %v sum to %v; they must sum to at most 1", fractions, sum)
	}
	owners := make([][]int32, len(fractions))
	for i := range owners {
		owners[i] = unowned(p.Samples)
	}
	r := rng.New(seed, 0, "", "partition/local")
	for k := range p.Clients() {
		for _, stratum := range p.strata(e, k) {
			shuffled(stratum, r)
			at, upTo := 0, 0.0
			for i, f := range fractions {
				upTo += f
				to := min(int(upTo*float64(len(stratum))+0.5), len(stratum))
				if i == 0 {
					to = max(to, 1)
				}
				for ; at < to; at++ {
					owners[i][stratum[at]] = int32(k)
				}
			}
		}
	}
	parts := make([]*Partition, len(fractions))
	for i, owner := range owners {
		parts[i] = fromOwners(owner, p.Clients())
		parts[i].Scheme, parts[i].Seed, parts[i].names = p.Scheme, p.Seed, p.names
	}
	return parts, nil
}

// strata returns copies of a client's rows, by class if every class has at least two.
func (p *Partition) strata(e *Examples, client int) [][]int32 {
	rows := slices.Clone(p.Rows(client))
	if len(rows) == 0 {
		return nil
	}
	if e.Labels == nil {
		return [][]int32{rows}
	}
	slices.SortStableFunc(rows, func(a, b int32) int { return int(e.Labels[a] - e.Labels[b]) })
	var strata [][]int32
	for from := 0; from < len(rows); {
		to := from + 1
		for to < len(rows) && e.Labels[rows[to]] == e.Labels[rows[from]] {
			to++
		}
		if to-from < 2 {
			return [][]int32{rows}
		}
		strata = append(strata, rows[from:to:to])
		from = to
	}
	return strata
}
