package member

import (
	"testing"

	"github.com/cohort-learning/cohort/secure/dp"
	"github.com/cohort-learning/cohort/transport"
)

// What a round owes: every round once, a second task for the same round once more and at its full price, and where rounds are
// charged by the chance of being asked, those in between as well.
func TestOwed(t *testing.T) {
	full := &dp.Terms{Mechanism: dp.CentralGaussian, Fraction: 0.5, Noise: 1, Clip: 1, Delta: 1e-5, Members: 3, Trusts: "c"}
	chance := *full
	chance.EveryEnrolledCharged = true
	type due struct {
		round, attempt int
		amplified      bool
	}
	pay := func(r *run, terms *dp.Terms, round int, task byte, want ...due) {
		t.Helper()
		owed := r.owed(terms, round, transport.Digest{task})
		if len(owed) != len(want) {
			t.Fatalf("round %d owes %+v, want %+v", round, owed, want)
		}
		for i, c := range owed {
			if got := (due{c.Round, c.Attempt, c.Amplified}); got != want[i] {
				t.Errorf("round %d owes %+v, want %+v", round, got, want[i])
			}
			r.pay(c)
		}
		if again := r.owed(terms, round, transport.Digest{task}); len(again) > 0 {
			t.Errorf("round %d owes %+v after it was paid", round, again)
		}
	}
	r := newRun("r")
	pay(r, full, 4, 'a', due{4, 0, false})
	pay(r, full, 4, 'b', due{4, 1, false}) // another task for the round, after a rollback or from a curious coordinator
	pay(r, full, 4, 'c', due{4, 2, false})
	pay(r, full, 2, 'd', due{2, 0, false})

	r = newRun("r")
	pay(r, &chance, 0, 0, due{0, 0, true})
	pay(r, &chance, 0, 'a', due{0, 0, true}) // it asks now: the same charge, and the journal says for what
	pay(r, &chance, 0, 'b', due{0, 1, false})
	pay(r, &chance, 3, 'c', due{1, 0, true}, due{2, 0, true}, due{3, 0, true})
	pay(r, &chance, 4, 0, due{4, 0, true})
	if owed := r.owed(&chance, 2, transport.Digest{}); len(owed) > 0 {
		t.Errorf("a round that is over owes %+v", owed)
	}
}
