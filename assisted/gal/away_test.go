package gal

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/assisttest"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"gonum.org/v1/gonum/mat"
)

// TestAway checks that whoever goes for good has weight 0 from then on, and that the run says what that costs: the loss on the rows
// that organisations are compared on, where the mean stands for its models, beside the loss with them.
func TestAway(t *testing.T) {
	c := newTrial(t)
	w := c.world.Fresh()
	a := algorithm(t, Defaults(), c.rounds, c.sponsor, w)
	l, err := w.Do(a, c.rounds, func(r *fedtest.Run) {
		r.Members.Tamper = func(a *federated.Answer) {
			if a.Order.Member.Name == "org-2" && a.Order.Round >= 2 {
				a.Result, a.Err = federated.Result{}, errors.New("gone")
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	if got := l.Metric("weight", "org-2"); len(got) != 2 {
		t.Errorf("weights of org-2: %v, want those of two rounds", got)
	}
	e, err := a.Ensemble(l.Final)
	if err != nil {
		t.Fatal(err)
	}
	rows := c.sponsor.Tested()
	loss := func(away ...string) float64 {
		f, _ := w.Predict(t, e, c.sponsor.Keys, away...)
		return c.sponsor.Objective.Value(rows.Of(c.sponsor.Labels), rows.Of(f))
	}
	with, without := loss(), loss("org-2")
	if without <= with {
		t.Fatalf("the loss is %g with org-2 and %g without: of no use here", with, without)
	}
	cost := l.Metric("away", "org-2")
	assisttest.Near(t, "cost", assisttest.Column(cost[len(cost)-1]), assisttest.Column(without-with), 1e-9)
	if len(cost) != 2 {
		t.Errorf("costs %v, want those of the last two rounds", cost)
	}
	phases := l.Phase(assisted.Fits)
	for round, want := range map[int]string{2: "org-2 (1)", 3: "org-2 (2)"} {
		notes := strings.Join(phases[round].Notes, "\n")
		if !strings.Contains(notes, want) || !strings.Contains(notes, "On 12 rows set apart the loss is ") {
			t.Errorf("round %d: %q", round, notes)
		}
	}
	if notes := strings.Join(phases[3].Notes, "\n"); !strings.Contains(notes, fmt.Sprintf("%.4g with the models that they fitted before and %.4g where these do not", with, without)) {
		t.Errorf("the last round does not say that the loss is %.4g with org-2 and %.4g without: %q", with, without, notes)
	}
	if got := l.Metric("away", "org-1"); len(got) > 0 {
		t.Errorf("org-1 was there all the time: %v", got)
	}
}

// TestComesBack checks that who was away and comes back is away no more.
func TestComesBack(t *testing.T) {
	c := newTrial(t)
	l := c.run(t, false, func(r *fedtest.Run) {
		r.Members.Tamper = func(a *federated.Answer) {
			if a.Order.Member.Name == "org-2" && a.Order.Round == 1 {
				a.Result.Attached = assisted.AppendMatrix(nil, mat.NewDense(1, 1, nil))
			}
		}
	})
	if got := l.Metric("away", "org-2"); len(got) != 1 {
		t.Errorf("away: %v, want one round", got)
	}
	last := assisted.MustCourse(l.Final)
	if len(last.Away)+len(last.Missed) != 0 || !slices.Contains(last.Members, "org-2") {
		t.Errorf("%+v", last)
	}
}
