package assisted

import (
	"errors"
	"fmt"
	"slices"

	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// Sponsor is the organisation that has labels: what it wants to predict, and which of its rows are for what. It stays with the
// coordinator; members get keys and residuals, and do not learn what rows beyond those to fit are for.
//
// Rows stand in the order Fit, Solve, Held, Test. Residuals are sent of the first part only.
type Sponsor struct {
	Objective Objective
	Keys      []string   // of the rows, none twice
	Blocks    []string   // of the rows, told to organisations whose keys are in doubt; nil: none
	Compared  [][]string // of the rows, values that are compared with those of organisations whose keys are in doubt; nil: none
	Labels    *mat.Dense // n×1 classes or n×K values
	Fit       int        // rows to fit models to
	Solve     int        // rows on which weights and rate are solved; 0: on those of Fit
	Held      int        // rows on which it is decided when to stop
	Test      int        // rows on which the outcome is measured
	Own       string     // the member that is the sponsor's own desk
	// Strata, if not nil, are groups of rows for methods whose assistors fit each apart, and Stratum says in which each row is: [Strata.Of].
	Strata  *Strata
	Stratum []int
}

// Part is a range of rows, from ≤ i < to.
type Part struct{ From, To int }

// Len is how many rows there are.
func (p Part) Len() int { return p.To - p.From }

// Of returns the rows of x, which share its values; nil if there are none.
func (p Part) Of(x *mat.Dense) *mat.Dense { return between(x, p.From, p.To) }

// Fitted are the rows of which residuals are sent.
func (s *Sponsor) Fitted() Part { return Part{0, s.Fit} }

// Solved are the rows on which weights and rates are solved.
func (s *Sponsor) Solved() Part {
	if s.Solve == 0 {
		return s.Fitted()
	}
	return Part{s.Fit, s.Fit + s.Solve}
}

// HeldOut are the rows on which it is decided when to stop.
func (s *Sponsor) HeldOut() Part { return Part{s.Fit + s.Solve, s.Fit + s.Solve + s.Held} }

// Tested are the rows on which the outcome is measured.
func (s *Sponsor) Tested() Part {
	return Part{s.Fit + s.Solve + s.Held, s.Fit + s.Solve + s.Held + s.Test}
}

// Scored are the rows on which organisations are compared: the most independent ones there are.
func (s *Sponsor) Scored() Part {
	for _, p := range []Part{s.Tested(), s.HeldOut()} {
		if p.Len() > 0 {
			return p
		}
	}
	return s.Solved()
}

// Outputs is K, the number of columns of F.
func (s *Sponsor) Outputs() int { return s.Objective.Outputs(s.Labels) }

// Validate returns an error that says what is wrong.
func (s *Sponsor) Validate() error {
	if s.Labels == nil {
		return errors.New("the sponsor has no labels")
	}
	n, _ := s.Labels.Dims()
	switch {
	case len(s.Keys) != n:
		return fmt.Errorf("%d keys for %d labels", len(s.Keys), n)
	case (s.Strata == nil) != (s.Stratum == nil) || s.Strata != nil && len(s.Stratum) != n:
		return fmt.Errorf("%d labels, and the strata of %d rows: give that of each row, and what strata there are, or neither", n, len(s.Stratum))
	case s.Strata != nil && (slices.Min(s.Stratum) < 0 || slices.Max(s.Stratum) >= s.Strata.Count):
		return fmt.Errorf("rows are in strata %d to %d: there are %d, from 0", slices.Min(s.Stratum), slices.Max(s.Stratum), s.Strata.Count)
	case s.Blocks != nil && len(s.Blocks) != n:
		return fmt.Errorf("%d blocks for %d labels", len(s.Blocks), n)
	case s.Compared != nil && len(s.Compared) != n:
		return fmt.Errorf("values to compare of %d rows for %d labels", len(s.Compared), n)
	case s.Fit < 2 || s.Solve < 0 || s.Held < 0 || s.Test < 0:
		return fmt.Errorf("%d rows to fit, %d to solve on, %d held out, %d to test on: need at least 2 to fit and no negative number", s.Fit, s.Solve, s.Held, s.Test)
	case s.Fit+s.Solve+s.Held+s.Test != n:
		return fmt.Errorf("%d rows to fit, %d to solve on, %d held out and %d to test on are not %d, the number of labels", s.Fit, s.Solve, s.Held, s.Test, n)
	}
	seen := make(map[string]int, n)
	for i, k := range s.Keys {
		if j, twice := seen[k]; twice {
			return fmt.Errorf("key %q is there twice, in rows %d and %d", k, j, i)
		}
		seen[k] = i
	}
	if err := s.Objective.Check(s.Labels); err != nil {
		return err
	}
	for name, p := range map[string]Part{"to fit": s.Fitted(), "to solve on": s.Solved(), "held out": s.HeldOut(), "to test on": s.Tested()} {
		if p.Len() > 0 && unmasked(p.Of(s.Labels)) == 0 {
			return fmt.Errorf("of the rows %s none has a label", name)
		}
	}
	return nil
}

// Shares says what parts of rows are set apart; the rest is to fit.
type Shares struct {
	Solve float64 `yaml:"solve,omitempty" json:"solve,omitempty" doc:"part of the training rows whose residual is never sent; weights and rates are solved on them"`
	Held  float64 `yaml:"held,omitempty" json:"held,omitempty" doc:"part of the training rows on which it is decided when to stop"`
	Test  float64 `yaml:"test,omitempty" json:"test,omitempty" doc:"part of all rows that the outcome is measured on"`
}

// Deal deals n rows in a random order: first the rows to test on, ⌊Test·n⌋, then of the m others ⌊Solve·m⌋ and ⌊Held·m⌋. Order
// has the rows as a sponsor's stand: those to fit, to solve on, held out, and to test on.
func (p Shares) Deal(n int, r *rng.Stream) (order []int, fit, solve, held, test int, err error) {
	for _, v := range []float64{p.Solve, p.Held, p.Test, p.Solve + p.Held} {
		if !(v >= 0 && v < 1) {
			return nil, 0, 0, 0, 0, fmt.Errorf("parts of rows: solve %g, held %g, test %g: each, and the sum of the first two, must be in [0, 1)", p.Solve, p.Held, p.Test)
		}
	}
	test = part(p.Test, n)
	rest := n - test
	solve, held = part(p.Solve, rest), part(p.Held, rest)
	fit = rest - solve - held
	if fit < 2 {
		return nil, 0, 0, 0, 0, fmt.Errorf("of %d rows, %d are left to fit models to: need at least 2", n, fit)
	}
	return r.Perm(n), fit, solve, held, test, nil
}

// part is ⌊share·n⌋, with the product moved by 1e-9 in favour of the nearest integer above.
func part(share float64, n int) int { return int(float64(share*float64(n)) + 1e-9) }

// Arrange returns a sponsor's rows in the order dealt, of all its keys and labels.
func (s Sponsor) Arrange(order []int, fit, solve, held, test int) *Sponsor {
	s.Keys, s.Blocks, s.Compared, s.Stratum = reorder(s.Keys, order), reorder(s.Blocks, order), reorder(s.Compared, order), reorder(s.Stratum, order)
	s.Labels = Pick(s.Labels, order)
	s.Fit, s.Solve, s.Held, s.Test = fit, solve, held, test
	return &s
}

// reorder returns what is said of some rows, in their order; nil of nil.
func reorder[T any](all []T, order []int) []T {
	if all == nil {
		return nil
	}
	out := make([]T, len(order))
	for i, row := range order {
		out[i] = all[row]
	}
	return out
}
