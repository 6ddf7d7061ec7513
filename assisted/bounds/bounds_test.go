package bounds_test

import (
	"testing"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/assisttest"
	"github.com/cohort-learning/cohort/assisted/bounds"
	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

func regression(t *testing.T) bounds.Problem {
	x, y := assisted.Friedman(300, 1, rng.New(1, 0, "", "friedman"))
	return bounds.Problem{
		Sponsor: &assisted.Sponsor{Objective: assisted.Objective{Loss: assisted.Squared}, Keys: assisttest.Keys(300), Labels: y, Fit: 200, Test: 100},
		Parts:   []*mat.Dense{assisted.Columns(x, []int{0, 1, 3}), assisted.Columns(x, []int{2}), assisted.Columns(x, []int{4})},
		Learner: assisttest.OLS(t),
	}
}

// TestLateIsTheMean checks that late fusion of least squares is the mean of the organisations' own predictions.
func TestLateIsTheMean(t *testing.T) {
	p := regression(t)
	got, err := p.Late(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	var want mat.Dense
	for _, x := range p.Parts {
		one := p
		one.Parts = []*mat.Dense{x}
		f, err := one.Late(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if want.IsEmpty() {
			want.Scale(1./3, f)
			continue
		}
		var third mat.Dense
		third.Scale(1./3, f)
		want.Add(&want, &third)
	}
	assisttest.Near(t, "late fusion", got, &want, 1e-12)
}

// TestStacking checks that stacked linear models are about as good as one on all columns, and better than their mean.
func TestStacking(t *testing.T) {
	p := regression(t)
	late, err := p.Late(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	stacked, err := p.Stacking(t.Context(), assisttest.OLS(t))
	if err != nil {
		t.Fatal(err)
	}
	test, o := p.Sponsor.Tested(), p.Sponsor.Objective
	a, b := o.Value(test.Of(p.Sponsor.Labels), test.Of(late)), o.Value(test.Of(p.Sponsor.Labels), test.Of(stacked))
	if b > a-3 || b > 9 {
		t.Errorf("squared errors: the mean of models %g, stacked %g", a, b)
	}
}

func TestClasses(t *testing.T) {
	x, y := assisted.Blobs(120, 4, 3, rng.New(1, 0, "", "blobs"))
	l, err := learner.Spec{Name: "logistic"}.New()
	if err != nil {
		t.Fatal(err)
	}
	p := bounds.Problem{
		Sponsor: &assisted.Sponsor{Objective: assisted.Objective{Loss: assisted.CrossEntropy, Classes: 3}, Keys: assisttest.Keys(120), Labels: y, Fit: 90, Test: 30},
		Parts:   []*mat.Dense{assisted.Columns(x, []int{0, 1}), assisted.Columns(x, []int{2, 3})}, Learner: l,
	}
	f, err := p.Late(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	test := p.Sponsor.Tested()
	if a := p.Sponsor.Objective.Measure(test.Of(y), test.Of(f))[0].Value; a < .9 {
		t.Errorf("accuracy %g", a)
	}
	p.Learner = assisttest.OLS(t)
	if _, err := p.Late(t.Context()); err == nil {
		t.Error("least squares fits classes")
	}
	if _, err := p.Stacking(t.Context(), l); err == nil {
		t.Error("classes are stacked")
	}
}
