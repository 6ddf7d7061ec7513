package mismatch

import (
	"cmp"
	"context"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
)

// Rival says how the methods that MSL is compared with go about it. Not every method uses every field.
type Rival struct {
	// Alpha is the share of wrong links that the method is told; nil: the share of residuals beyond Huber's threshold.
	Alpha *float64
	// Rounds bounds the rounds; 0: the method's own.
	Rounds int
	// Ready tells that the model is already fitted.
	Ready bool
}

// contest prepares a problem for a method of numbers in which every row came with a label; scalar asks for one number a label.
func contest(p Problem, m Model, v Rival, scalar bool) (*search, error) {
	o := Options{Alpha: v.Alpha, Ready: v.Ready, Full: math.MaxInt}
	if err := o.Validate(); err != nil {
		return nil, err
	}
	l, err := p.layout()
	if err != nil {
		return nil, err
	}
	switch {
	case l.classes != nil:
		return nil, badInput("this method is for numbers, not for classes")
	case l.pairs < l.n:
		return nil, badInput("this method needs a label with every row; %d came without", l.n-l.pairs)
	case scalar && l.k != 1:
		return nil, badInput("this method sorts labels, so they are one number each, not %d", l.k)
	}
	s := &search{Options: o, l: l, m: m, alpha: 0.5}
	return s, s.prepare()
}

// suspects returns by block the positions of the rows with the largest residuals |y_i − f_i|, ⌈α·n⌉ of all.
func (s *search) suspects(t *mat.Dense, alpha float64) [][]int {
	type place struct {
		block, row int
		r          float64
	}
	var all []place
	for b, k := range s.l.blocks {
		for r, i := range k.rows {
			all = append(all, place{b, r, math.Abs(t.At(i, 0) - s.f.At(i, 0))})
		}
	}
	slices.SortStableFunc(all, func(a, b place) int { return cmp.Compare(b.r, a.r) })
	found := make([][]int, len(s.l.blocks))
	for _, p := range all[:min(len(all), int(math.Ceil(alpha*float64(len(all))-1e-9)))] {
		found[p.block] = append(found[p.block], p.row)
	}
	return found
}

// rematch returns the labels when the given rows of each block share out theirs by rank of f, and all others keep their own.
func (s *search) rematch(t *mat.Dense, who [][]int) *mat.Dense {
	out, of := mat.DenseCopyOf(t), make([]int, s.l.n)
	f, y := s.f.RawMatrix().Data, s.l.y.RawMatrix().Data
	for b, k := range s.l.blocks {
		rows, labels := make([]int, len(who[b])), make([]int, len(who[b]))
		for c, r := range who[b] {
			rows[c], labels[c] = k.rows[r], s.l.own[k.rows[r]]
		}
		matchSorted(rows, labels, f, y, of)
		for _, i := range rows {
			out.Set(i, 0, y[of[i]])
		}
	}
	return out
}

// share returns the share of wrong links that the method was told, or that of residuals beyond c·s of Huber's estimate.
func (s *search) share(t *mat.Dense) float64 {
	if s.Alpha != nil {
		return *s.Alpha
	}
	n := 0
	for _, w := range s.huber(t) {
		if w < 1 {
			n++
		}
	}
	return float64(n) / float64(s.l.n)
}

// Sort is MSL-sort, for scalar labels and without a likelihood: the ⌈αn⌉ rows of largest |y_i − f_i| share out their labels by
// rank, the others keep theirs, refit, up to 100 times from Huber's estimate. Within the rows in question sorting is the best
// assignment for every convex loss of f − y. O(n log n) time and O(n) memory a round.
func Sort(ctx context.Context, p Problem, m Model, v Rival) error {
	return rematching(ctx, p, m, v, rounds(v.Rounds, 100))
}

// TwoStage is the estimate after Slawski and Ben-David: wrong links as a sparse shift of the mean, which is Huber's estimate; then the
// ⌈αn⌉ worst residuals are matched by rank, once, and the model is fitted again.
func TwoStage(ctx context.Context, p Problem, m Model, v Rival) error {
	return rematching(ctx, p, m, v, 1)
}

func rematching(ctx context.Context, p Problem, m Model, v Rival, most int) error {
	s, err := contest(p, m, v, true)
	if err != nil {
		return err
	}
	if err := s.begin(ctx); err != nil {
		return err
	}
	t, _ := s.given()
	alpha := s.share(t)
	for i := range most {
		if err := s.fit(ctx, s.rematch(t, s.suspects(t, alpha)), nil); err != nil {
			return err
		}
		if s.say("sort", i) {
			return nil
		}
	}
	return nil
}

// begin is Huber's estimate, or the predictions of a model that is ready.
func (s *search) begin(ctx context.Context) error {
	if s.Ready {
		return s.predict(ctx)
	}
	return s.start(ctx)
}

// naive is where a rival begins: with the model as it is if that is ready, else with the fit to the labels as they are given.
func (s *search) naive(ctx context.Context, ready bool, t *mat.Dense) error {
	if ready {
		return s.predict(ctx)
	}
	return s.fit(ctx, t, nil)
}

// HardEM is alternating minimisation: all labels of a block are dealt out by rank of f, refit, to a fixed point or 100 rounds. It
// begins with the model as it is if that is ready, else with the naive fit.
func HardEM(ctx context.Context, p Problem, m Model, v Rival) error {
	s, err := contest(p, m, v, true)
	if err != nil {
		return err
	}
	t, _ := s.given()
	if err := s.naive(ctx, v.Ready, t); err != nil {
		return err
	}
	all := make([][]int, len(s.l.blocks))
	for b, k := range s.l.blocks {
		for r := range k.rows {
			all[b] = append(all[b], r)
		}
	}
	for i := range rounds(v.Rounds, 100) {
		if err := s.fit(ctx, s.rematch(t, all), nil); err != nil {
			return err
		}
		if s.say("hard", i) {
			return nil
		}
	}
	return nil
}

func sortedCopy(v []float64) []float64 { return slices.Sorted(slices.Values(v)) }
