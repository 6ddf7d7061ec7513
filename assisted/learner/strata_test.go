package learner_test

import (
	"context"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/rng"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"gonum.org/v1/gonum/mat"
)

// inStrata puts the stratum of each row before its features.
func inStrata(x *mat.Dense, of func(i int) int) *mat.Dense {
	n, d := x.Dims()
	out := mat.NewDense(n, d+1, nil)
	for i := range n {
		out.SetRow(i, append([]float64{float64(of(i))}, x.RawRowView(i)...))
	}
	return out
}

// Models of strata are those of their rows alone, also after they were written and read; where there were too few rows they say 0.
func TestStrata(t *testing.T) {
	x, y := friedman(40, 2)
	of := func(i int) int {
		if i == 7 {
			return 2 // alone in its stratum
		}
		return i % 2
	}
	l, err := specOf("linear").New()
	if err != nil {
		t.Fatal(err)
	}
	all := inStrata(x, of)
	m, err := learner.FitStrata(t.Context(), l, all, y, 4, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	again, err := learner.DecodeBy(l, b)
	if err != nil {
		t.Fatal(err)
	}
	if !learner.Stratified(again) {
		t.Error("what was read is not stratified")
	}
	for _, m := range []learner.Model{m, again} {
		got := predict(t, m, all)
		for s := range 2 {
			var px, py mat.Dense
			var rows []int
			for i := range 40 {
				if of(i) == s {
					rows = append(rows, i)
				}
			}
			px.CloneFrom(some(x, rows))
			py.CloneFrom(some(y, rows))
			want := predict(t, fit(t, specOf("linear"), &px, &py, nil), &px)
			if diff := cmp.Diff(want.RawMatrix().Data, some(got, rows).RawMatrix().Data, cmpopts.EquateApprox(0, 1e-12)); diff != "" {
				t.Errorf("stratum %d: %s", s, diff)
			}
		}
		if diff := cmp.Diff([]float64{0}, got.RawRowView(7)); diff != "" {
			t.Errorf("a row alone in its stratum: %s", diff)
		}
	}
	for want, x := range map[string]*mat.Dense{
		"a stratum of 0 to 3":               inStrata(x, func(int) int { return 4 }),
		"a stratum and one feature or more": mat.NewDense(40, 1, nil),
	} {
		if _, err := m.Predict(x); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
		if _, err := learner.FitStrata(t.Context(), l, x, y, 4, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("fitting: want an error with %q, got %v", want, err)
		}
	}
}

func some(x *mat.Dense, rows []int) *mat.Dense {
	_, k := x.Dims()
	out := mat.NewDense(len(rows), k, nil)
	for i, row := range rows {
		out.SetRow(i, x.RawRowView(row))
	}
	return out
}

// A model of strata holds no models that hold others.
func TestStrataOfStrata(t *testing.T) {
	x, y := friedman(12, 1)
	l, err := specOf("linear").New()
	if err != nil {
		t.Fatal(err)
	}
	m, err := learner.FitStrata(t.Context(), strataLearner{l}, inStrata(inStrata(x, func(i int) int { return i % 2 }), func(int) int { return 0 }), y, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := learner.Decode(b); err == nil || !strings.Contains(err.Error(), "within another") {
		t.Errorf("strata of strata: %v", err)
	}
}

// strataLearner fits strata, where only a plain model belongs.
type strataLearner struct{ learner.Learner }

func (l strataLearner) Fit(ctx context.Context, x, y *mat.Dense, _ []float64, r *rng.Stream) (learner.Model, error) {
	return learner.FitStrata(ctx, l.Learner, x, y, 2, r)
}
