package reproduce

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/mismatch"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// assistance is two organisations with columns of their own: the sponsor has the target, and 30 % of the assistor's rows are linked
// to another of the sponsor's.
type assistance struct {
	sponsor, assistor, target             *mat.Dense
	sponsorTest, assistorTest, targetTest *mat.Dense // rightly linked
	links                                 []int      // by row of the assistor: the sponsor's row
}

func (l *Lab) assistance(n, d, repeat int, wrong float64) assistance {
	r := rng.New(l.Seed<<16+uint64(repeat), 0, "", "assistance")
	own, y, _ := mismatch.LinearTable(2*n, d, 0, r)
	other, z, _ := mismatch.LinearTable(2*n, d, .3, r)
	y.Add(y, z)
	part := func(m *mat.Dense, lo, hi int) *mat.Dense {
		_, k := m.Dims()
		return mat.DenseCopyOf(m.Slice(lo, hi, 0, k))
	}
	return assistance{part(own, 0, n), part(other, 0, n), part(y, 0, n), part(own, n, 2*n), part(other, n, 2*n), part(y, n, 2*n),
		mismatch.Shuffle(n, wrong, r)}
}

// learn lets the two fit residuals in turn by least squares, six times each (assisted learning, Procedure 1), over links from the
// assistor's rows to the sponsor's, and returns the mean square of the test error.
func (a assistance) learn(ctx context.Context, links []int) (float64, error) {
	n, d := a.sponsor.Dims()
	residual, rest := mat.DenseCopyOf(a.target), mat.DenseCopyOf(a.targetTest)
	other, otherTest := mat.NewDense(n, d, nil), a.assistorTest
	for i, j := range links {
		other.SetRow(j, a.assistor.RawRowView(i))
	}
	for range 6 {
		for _, side := range [][2]*mat.Dense{{a.sponsor, a.sponsorTest}, {other, otherTest}} {
			m, err := mismatch.NewLinear(side[0], true, 0)
			if err != nil {
				return 0, err
			}
			if err := m.Fit(ctx, nil, residual, nil); err != nil {
				return 0, err
			}
			f := mat.NewDense(n, 1, nil)
			if err := m.Predict(ctx, nil, f); err != nil {
				return 0, err
			}
			residual.Sub(residual, f)
			for i := range n {
				at := m.Coefficients().At(d, 0)
				for c, v := range side[1].RawRowView(i) {
					at += v * m.Coefficients().At(c, 0)
				}
				rest.Set(i, 0, rest.At(i, 0)-at)
			}
		}
	}
	return math.Pow(mat.Norm(rest, 2), 2) / float64(n), nil
}

// mismatchAssist aligns the assistor's rows to the sponsor's residuals before assisted learning.
func (l *Lab) mismatchAssist(ctx context.Context, wrongly float64) error {
	const n, d, repeats = 1000, 5, 3
	var right, wrong, aligned, alpha float64
	for repeat := range repeats {
		a := l.assistance(n, d, repeat, wrongly)
		straight := make([]int, n)
		for i := range straight {
			straight[i] = i
		}
		m, err := mismatch.NewLinear(a.sponsor, true, 0)
		if err != nil {
			return err
		}
		if err := m.Fit(ctx, nil, a.target, nil); err != nil {
			return err
		}
		residual := mat.NewDense(n, 1, nil)
		if err := m.Predict(ctx, nil, residual); err != nil {
			return err
		}
		residual.Sub(a.target, residual)
		found, err := mismatch.Align(ctx, a.assistor, residual, assisted.Links{Own: a.links}, nil, mismatch.Options{Pair: true})
		if err != nil {
			return err
		}
		if slices.Contains(found.Pair, -1) {
			return fmt.Errorf("a row of the assistor found no partner, though there are as many as it has")
		}
		alpha += found.Alpha / repeats
		for sum, links := range map[*float64][]int{&right: straight, &wrong: a.links, &aligned: found.Pair} {
			loss, err := a.learn(ctx, links)
			if err != nil {
				return err
			}
			*sum += loss / repeats
		}
	}
	of := fmt.Sprintf("two organisations, %.0f %% of the links wrong: ", 100*wrongly)
	l.report(of+"test loss with right links", math.NaN(), "none", right)
	l.report(of+"test loss with the links as they are", math.NaN(), "none", wrong)
	l.report(of+"test loss after alignment", math.NaN(), "none", aligned)
	l.report(of+"α̂", wrongly, "as drawn", alpha)
	l.require(of+"share of the loss that alignment makes good", math.NaN(), "target of the medium scale", (wrong-aligned)/(wrong-right), ">=", .5)
	return nil
}
