package mismatch

import (
	"context"

	"gonum.org/v1/gonum/mat"
)

// Links says how the rows of an assisting organisation are thought to go with those of the sponsor.
type Links struct {
	// Own names by row of the assistor the sponsor's row that it is thought to be, −1 for none; nil: row by row.
	Own []int
	// Blocks and SponsorBlocks name the block of each row on either side, such as a postcode; see [Problem].
	Blocks, SponsorBlocks []int
	// Certain marks rows of the assistor whose link is surely right.
	Certain []bool
}

// Align is the first stage of an assisted run whose rows are badly linked: it matches the assistor's rows, features x (n×d), with the
// sponsor's residuals (m×k) through the linear model of the residuals on x. Result.Soft has by row of the assistor the residual that
// belongs to it in expectation, Result.Linked the probability that the given link is right, Result.Weight how much of the row has a
// partner at all: what a learner of the assistor fits in place of the residuals as they came. A nil model is linear with intercept and
// a little ridge; another one must be made for the same n rows.
//
// The plan tells who is whom. It stays with the party that is entitled to both sides; only Soft goes to the other.
func Align(ctx context.Context, x, residuals *mat.Dense, l Links, m Model, o Options) (*Result, error) {
	if m == nil {
		linear, err := NewLinear(x, true, 1e-6)
		if err != nil {
			return nil, err
		}
		m = linear
	}
	n, _ := x.Dims()
	p := Problem{Y: residuals, Own: l.Own, Blocks: l.Blocks, LabelBlocks: l.SponsorBlocks, Certain: l.Certain}
	if rows, _ := p.sizes(); rows != n {
		return nil, badInput("%d rows of features, %d links", n, rows)
	}
	return Fit(ctx, p, m, o)
}
