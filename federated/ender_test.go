package federated_test

import (
	"slices"
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
)

// brief is a census that finds that it is over after some rounds.
type brief struct {
	*census
	rounds int
}

func (b brief) Over(s federated.State) bool { return s.Round >= b.rounds }

// TestEnder checks that no round is opened after the one that an algorithm ends with, that this one is closed as the last, and that a
// resume at any point comes to the same end.
func TestEnder(t *testing.T) {
	begin := func() *fedtest.Run {
		return &fedtest.Run{World: crowd(4), Algorithm: brief{learn(federated.Selection{Everyone: true}), 3}, Config: federated.Config{Rounds: 9}}
	}
	whole := begin().Must(t)
	var last []bool
	for _, r := range whole.Rounds {
		last = append(last, r.Last)
	}
	if !slices.Equal(last, []bool{false, false, true}) || whole.Final.Round != 3 {
		t.Fatalf("rounds closed, and which was said to be the last: %v; the state is of round %d, want 3", last, whole.Final.Round)
	}
	for i, from := range whole.Snapshots {
		r := begin()
		r.From, r.Kept = &from, whole.Kept[i]
		if got := r.Must(t); !slices.Equal(got.Digests(), whole.Digests()[i+1:]) || got.Final.Digest() != whole.Final.Digest() {
			t.Errorf("resumed after round %d, it comes to another end, in %d more rounds", i, len(got.Rounds))
		}
	}
	from := whole.Snapshots[2] // as it was when the last phase had closed, and the round had not
	from.State.Round, from.State.Step = 2, 1
	r := begin()
	r.From, r.Kept = &from, whole.Kept[2]
	if got := r.Must(t); !slices.Equal(got.Digests(), whole.Digests()[2:]) || len(got.Phases) != 0 {
		t.Errorf("resumed before its last round was closed, it closes %d phases and %d rounds, want no phase and that round", len(got.Phases), len(got.Rounds))
	}
	stop := make(chan struct{})
	close(stop)
	r = begin()
	r.Config.Stop, r.From, r.Kept = stop, &whole.Snapshots[2], whole.Kept[2]
	if _, err := r.Do(t.Context()); err != nil {
		t.Errorf("a run that is over cannot be stopped: %v", err)
	}
}
