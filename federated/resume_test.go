package federated_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
)

// Members that are gone are not asked, be it everybody or a part, and keep their place in the roster.
func TestGone(t *testing.T) {
	for _, who := range []federated.Selection{{Everyone: true}, {Fraction: 0.9}, {Everyone: true, Eligible: func(federated.Member) bool { return true }}} {
		w := crowd(9)
		w.Members[3].Gone = true
		l := do(t, w, learn(who), 8, func(r *fedtest.Run) {
			r.Trace.OnPhase = func(p federated.PhaseClosed) { w.Members[5].Gone = p.Round >= 3 }
		})
		for i, o := range l.Opened {
			if slices.Contains(o.Selected, 3) || i > 3 && slices.Contains(o.Selected, 5) || o.Everyone || o.Roster != 9 {
				t.Errorf("%+v, round %d: asked %v of a roster of %d", who, i, o.Selected, o.Roster)
			}
			if p := l.Phases[i]; p.Everyone || !slices.Equal(p.Folded[0].Members, o.Selected) {
				t.Errorf("%+v, round %d: folded %+v, everyone %t; asked were %v", who, i, p.Folded, p.Everyone, o.Selected)
			}
		}
		if who.Everyone && len(l.Opened[7].Selected) != 7 {
			t.Errorf("asked %v, want 7 of 9", l.Opened[7].Selected)
		}
	}
}

// lengths is a census that notes how many members there are when a phase is finished.
type lengths struct {
	*census
	seen []int
}

func (l *lengths) Finish(ctx context.Context, srv federated.Server, s federated.State, p federated.Phase, sums map[string]*federated.Sum, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	l.seen = append(l.seen, srv.Population.Len())
	return l.census.Finish(ctx, srv, s, p, sums, roll)
}

// A member that comes while a phase is under way takes part from the next one on.
func TestGrowingRoster(t *testing.T) {
	w, late := crowd(3), crowd(6)
	a := &lengths{census: learn(federated.Selection{Everyone: true})}
	r := &fedtest.Run{World: w, Algorithm: a, Config: federated.Config{Rounds: 3}}
	r.Trace.Heard = func(_ string, n, _ int) {
		if n == 1 {
			w.Members = late.Members[:len(w.Members)+1]
		}
	}
	l := r.Must(t)
	for i, o := range l.Opened {
		if o.Roster != 3+i || !o.Everyone || !l.Phases[i].Everyone || l.Phases[i].Asked != 3+i || a.seen[i] != 3+i {
			t.Errorf("round %d: opened %+v, closed %+v, finished with %d members", i, o, l.Phases[i], a.seen[i])
		}
	}
}

// A phase that does not fit the snapshot is not opened again.
func TestBadUnderway(t *testing.T) {
	good := federated.PhaseOpened{Phase: "train", Roster: 2, Selected: federated.Indices{1}}
	for want, change := range map[string]func(*federated.Underway){
		"":                               func(*federated.Underway) {},
		`"eval" of round 0`:              func(u *federated.Underway) { u.Opened.Phase = "eval" },
		`"train" of round 1`:             func(u *federated.Underway) { u.Opened.Round = 1 },
		"from version 4":                 func(u *federated.Underway) { u.Opened.Base = 4 },
		"a roster of 0":                  func(u *federated.Underway) { u.Opened.Roster = 0 },
		"the population has 2 members":   func(u *federated.Underway) { u.Opened.Roster = 3 },
		"asked members of a roster of 2": func(u *federated.Underway) { u.Opened.Selected = federated.Indices{2} },
		"not a checkpoint of a phase":    func(u *federated.Underway) { u.Fold = []byte("no") },
	} {
		u := &federated.Underway{Opened: good}
		change(u)
		r := &fedtest.Run{World: crowd(2), Algorithm: learn(federated.Selection{Fraction: 1}), Config: federated.Config{Rounds: 1},
			From: &federated.Snapshot{Under: u}}
		l, err := r.Do(t.Context())
		switch {
		case want == "" && (err != nil || len(l.Opened) > 0 || fmt.Sprint(l.Phases[0].Folded) != "[{0 [1]}]"):
			t.Errorf("opened %+v, closed %+v, error %v", l.Opened, l.Phases, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}

// Where orders are numbered apart, the number of a member's order follows from its place, whoever else is asked, also when the run
// goes on from any round; a phase that was opened with numbers one after the other keeps them.
func TestApart(t *testing.T) {
	who := federated.Selection{Fraction: 0.4, Coins: true}
	see := func(numbers map[int]map[int]int, change func(*fedtest.Run)) *fedtest.Trace {
		return do(t, crowd(9), learn(who), 6, func(r *fedtest.Run) {
			r.Config.Apart = true
			r.Config.Window = 2
			r.Members.Delay = func(o *federated.Order) time.Duration {
				if numbers[o.Round] == nil {
					numbers[o.Round] = map[int]int{}
				}
				numbers[o.Round][o.Member.Index] = o.ID
				return time.Second
			}
			if change != nil {
				change(r)
			}
		})
	}
	numbers := map[int]map[int]int{}
	l := see(numbers, nil)
	for round, of := range numbers {
		for member, id := range of {
			if id != 9*round+member {
				t.Errorf("round %d: the order of member %d is number %d", round, member, id)
			}
		}
	}
	again := map[int]map[int]int{}
	see(again, func(r *fedtest.Run) { r.From, r.Kept = &l.Snapshots[2], l.Kept[2] })
	for round, of := range again {
		if round < 3 || fmt.Sprint(of) != fmt.Sprint(numbers[round]) {
			t.Errorf("round %d after resuming: %v, not %v", round, of, numbers[round])
		}
	}
	old := map[int]map[int]int{}
	see(old, func(r *fedtest.Run) {
		u := &federated.Underway{Opened: federated.PhaseOpened{Phase: "train", Roster: 9, Selected: federated.Indices{4, 7}}}
		r.From = &federated.Snapshot{Under: u}
	})
	if got := fmt.Sprint(old[0]); got != "map[4:0 7:1]" {
		t.Errorf("orders of a phase that was opened otherwise: %s", got)
	}
	for member, id := range old[1] {
		if id != 2+member {
			t.Errorf("in the phase after it member %d has number %d", member, id)
		}
	}
}
