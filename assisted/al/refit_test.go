package al

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/assisttest"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
)

// TestRefit checks that a run that refits comes to what another run of its best number of rounds on all rows comes to, that only rows to fit have
// residuals before, that the second stage can be resumed anywhere, and what it has come to before its end.
func TestRefit(t *testing.T) {
	y, x := friedman(2, 160)
	for _, order := range []string{"chain", "greedy", "star-average"} {
		s := sponsor(y)
		s.Fit, s.Solve, s.Held, s.Test = 70, 20, 30, 40
		o := Defaults()
		o.Order, o.Patience, o.Refit = order, 3, true
		const rounds = 30
		w := assisttest.NewWorld(assisttest.OLS(t), x...)
		a, err := o.New(rounds, s, w.Desks)
		if err != nil {
			t.Fatal(err)
		}
		var log sent
		l, err := w.Do(a, o.Most(rounds), func(r *fedtest.Run) { r.Members.Tamper = log.note })
		if err != nil {
			t.Fatal(err)
		}
		held := l.Metric("loss.held", "")
		best := len(held) - 3
		for _, r := range log {
			if n, _ := r.Dims(); n != 120 {
				t.Fatalf("%s: targets of %d rows, want all that will ever be sent", order, n)
			}
		}
		first, last := log[0], log[len(log)-1]
		if !assisted.Masked(first, 70) || assisted.Masked(first, 69) || !assisted.Masked(first, 119) || assisted.Masked(last, 119) {
			t.Errorf("%s: residuals of the wrong rows were sent", order)
		}

		all := *s
		all.Fit, all.Solve, all.Held = 120, 0, 0
		o.Patience, o.Refit = 0, false
		fresh := w.Fresh()
		alone, err := o.New(best, &all, fresh.Desks)
		if err != nil {
			t.Fatal(err)
		}
		want := fresh.Must(t, alone, best)
		assisttest.Near(t, order+": F", assisttest.Matrix(t, l.Final, "F"), assisttest.Matrix(t, want.Final, "F"), 1e-10)
		e, err := a.Ensemble(l.Final)
		if err != nil {
			t.Fatal(err)
		}
		f, _ := w.Predict(t, e, s.Keys)
		assisttest.Near(t, order+": prediction", f, assisttest.Matrix(t, l.Final, "F"), 1e-10)
		if n := len(l.Snapshots); n != len(held)+best {
			t.Errorf("%s: %d rounds, want %d and %d again", order, n, len(held), best)
		}
		var notes []string
		for _, p := range l.Phases {
			notes = append(notes, p.Notes...)
		}
		if all := strings.Join(notes, "\n"); !strings.Contains(all, "rounds are run again, from round") || !strings.Contains(all, "on all 120 rows") {
			t.Errorf("%s: it is not said that rounds are run again: %s", order, all)
		}

		for _, from := range []int{len(held) - 2, len(held) - 1, len(held)} { // before, at, and after the first round of the second stage
			got, err := w.Do(a, 60, func(r *fedtest.Run) { r.From, r.Kept = &l.Snapshots[from], l.Kept[from] })
			if err != nil || !slices.Equal(got.Digests(), l.Digests()[from+1:]) {
				t.Errorf("%s: resumed after round %d it comes to another state, %v", order, from+1, err)
			}
		}
		if e, err = a.Ensemble(l.Snapshots[len(held)].State); err != nil || e.Last()+1 != best {
			t.Errorf("%s: in the middle of the second stage the outcome has %d rounds, want the %d of the first, %v", order, e.Last()+1, best, err)
		}
	}
}

// TestRefitNothing checks a run whose organisations know nothing: no round is better than none, and nothing is run again.
func TestRefitNothing(t *testing.T) {
	s := sponsor(random(1, 60, 1))
	s.Fit, s.Held = 30, 30
	o := Defaults()
	o.Refit, o.Patience = true, 1
	w := assisttest.NewWorld(assisttest.OLS(t), random(2, 60, 20), random(3, 60, 8))
	a, err := o.New(5, s, w.Desks)
	if err != nil {
		t.Fatal(err)
	}
	l, err := w.Do(a, 10, nil)
	if err != nil || len(l.Snapshots) != 1 {
		t.Fatalf("%d rounds, %v", len(l.Snapshots), err)
	}
	if e, err := a.Ensemble(l.Final); err != nil || len(e.Members) > 0 {
		t.Errorf("the ensemble has %d members, %v", len(e.Members), err)
	}
}

// TestRefitLost checks that an organisation that is lost in the first stage is not missed in the second.
func TestRefitLost(t *testing.T) {
	y, x := friedman(3, 90)
	s := sponsor(y)
	s.Fit, s.Held = 60, 30
	o := Defaults()
	o.Refit = true
	w := assisttest.NewWorld(assisttest.OLS(t), x...)
	a, err := o.New(2, s, w.Desks)
	if err != nil {
		t.Fatal(err)
	}
	l, err := w.Do(a, 4, func(r *fedtest.Run) {
		r.Members.Tamper = func(a *federated.Answer) {
			if a.Order.Member.Name == "org-2" && a.Order.Round < 2 {
				a.Result, a.Err = federated.Result{}, errors.New("asleep")
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	e, err := a.Ensemble(l.Final)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(e.Voice("org-2").Terms); n != len(e.Voice("org-1").Terms) || n == 0 {
		t.Errorf("org-2 has %d models, org-1 %d", n, len(e.Voice("org-1").Terms))
	}
}

// TestRefitThatCannotBe checks what is said of it.
func TestRefitThatCannotBe(t *testing.T) {
	for want, change := range map[string]func(*Options, *assisted.Sponsor){
		"is for held-out rows to say":  func(_ *Options, s *assisted.Sponsor) { s.Held = 0 },
		"set rows.solve to 0, or rate": func(o *Options, s *assisted.Sponsor) { o.Rate, s.Solve = "exact", 1 },
	} {
		o, s := Defaults(), sponsor(assisttest.Column(1, 2, 3, 4))
		s.Fit, s.Held = 2, 1
		o.Refit = true
		change(&o, s)
		if _, err := o.New(3, s, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
}
