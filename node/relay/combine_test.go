package relay

import (
	"log/slog"
	"slices"
	"testing"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/transport"
)

// What the coordinator says of a sum decides what is handed in next: nothing, the same again, the others, or each by itself until
// the one is found that is refused.
func TestIncluded(t *testing.T) {
	k, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		what  string
		in    transport.Inclusion
		batch int
		left  []int // orders that are still to be handed in
		fails bool
		alone bool
	}{
		{"accepted", transport.Inclusion{Outcome: transport.Accepted}, 3, nil, false, false},
		{"had before", transport.Inclusion{Outcome: transport.Duplicate}, 3, nil, false, false},
		{"some counted, some over", transport.Inclusion{Outcome: transport.Refused, Code: transport.CodeConflict, Counted: "1", Out: "2"}, 3, []int{3}, false, false},
		{"busy", transport.Inclusion{Outcome: transport.Refused, Code: transport.CodeBusy}, 3, []int{1, 2, 3}, true, false},
		{"no blob", transport.Inclusion{Outcome: transport.Refused, Code: transport.CodeBlob}, 1, []int{1, 2, 3}, true, false},
		{"somebody's fault", transport.Inclusion{Outcome: transport.Refused, Code: transport.CodeSignature}, 3, []int{1, 2, 3}, true, true},
		{"the first one's fault", transport.Inclusion{Outcome: transport.Refused, Code: transport.CodeSignature}, 1, []int{2, 3}, false, false},
		{"others than those inside", transport.Inclusion{Outcome: transport.Refused, Code: transport.CodeConflict, Out: "9"}, 3, []int{1, 2, 3}, true, false},
	} {
		t.Run(c.what, func(t *testing.T) {
			dir := t.TempDir()
			l, err := openLedger(dir, "region", k.Public(), journal.Options{})
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			store, err := blob.OpenDir(dir+"/store", nil)
			if err != nil {
				t.Fatal(err)
			}
			defer store.Close()
			r := &Relay{ledger: l, store: store, fed: k.Public(), log: slog.New(slog.DiscardHandler), root: t.Context(), cancel: func(error) {}}
			p := &phase{key: phaseKey{"run", 0, "train"}}
			for order := 1; order <= 3; order++ {
				if err := l.note(KindPassed, passed{"run", order, "leaf", 0, "train", message(t, k, "", &transport.Task{Order: order})}); err != nil {
					t.Fatal(err)
				}
				if err := l.note(KindKept, kept{"run", order, message(t, k, "leaf", &transport.Result{Order: order})}); err != nil {
					t.Fatal(err)
				}
			}
			err = r.included(p, l.open(p.key)[:c.batch], []byte(message(t, k, "", &c.in)))
			var left []int
			for _, x := range l.open(p.key) {
				if !x.have {
					left = append(left, x.order)
				}
			}
			if (err != nil) != c.fails || !slices.Equal(left, c.left) || p.alone != c.alone {
				t.Errorf("%v; left %v, want %v; one by one: %v", err, left, c.left, p.alone)
			}
		})
	}
}
