package coordinator

import (
	"bytes"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/rng"
)

// patience bounds tests that hang; nothing is measured by it.
const patience = 20 * time.Second

func (w *world) joinAll() {
	for _, m := range w.members {
		m.join()
	}
}

func (w *world) wait() {
	w.t.Helper()
	select {
	case <-w.run.Done():
	case <-time.After(patience):
		w.t.Fatalf("the run does not end:\n%s", w.describe())
	}
}

// TestSameBits: what a network of members computes is what the simulation computes.
func TestSameBits(t *testing.T) {
	for _, method := range []string{"fedavg", "scaffold", "heterofl", "robust", "fickle", "secure", "scaffold together", "heterofl together"} {
		t.Run(method, func(t *testing.T) {
			w := newWorld(t, method)
			if method == "robust" {
				w.window = 1
			}
			w.undisturbed("undisturbed")
		})
	}
}

// A round in which a rule finds all answers unfit fails for everybody: members take back what they kept, and the next round goes on
// from the same state.
func TestFickle(t *testing.T) {
	w := newWorld(t, "fickle")
	fails := 0
	for round := range w.config.Rounds {
		if rng.New(w.fleet.Seed, round, "", "train/buckets").IntN(2) == 0 {
			fails++
		}
	}
	if fails == 0 || fails == w.config.Rounds {
		t.Fatalf("%d of %d rounds fail: this tests nothing", fails, w.config.Rounds)
	}
	if err := w.begin(); err != nil {
		t.Fatal(err)
	}
	w.joinAll()
	w.wait()
	w.end()
	text, err := os.ReadFile(filepath.Join(w.dir, "run", journal.FileName))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), `"message":"train: the round failed: not this round"`); n != 5*fails {
		t.Errorf("told %d times, want %d: as a note and of four members, in each of %d rounds", n, 5*fails, fails)
	}
}

// TestJournalAfterTheEnd: a member that comes back when the run is over can still see that the journal only went on.
func TestJournalAfterTheEnd(t *testing.T) {
	w := newWorld(t, "fedavg")
	w.config.Rounds = 1
	if err := w.begin(); err != nil {
		t.Fatal(err)
	}
	w.joinAll()
	w.wait()
	defer w.end()
	whole, err := os.ReadFile(filepath.Join(w.dir, "run", journal.FileName))
	if err != nil {
		t.Fatal(err)
	}
	lines := bytes.SplitAfter(whole, []byte("\n"))
	for _, from := range []int{0, 3, len(lines) - 2} {
		var got bytes.Buffer
		if err := w.run.WriteJournal(&got, uint64(from)); err != nil || !bytes.Equal(got.Bytes(), bytes.Join(lines[from:], nil)) {
			t.Errorf("from record %d: %d bytes, %v", from, got.Len(), err)
		}
	}
}

// describe tells how a world stands that does not go on.
func (w *world) describe() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%+v\n", w.run.Now())
	w.run.desk.mu.Lock()
	for id, x := range w.run.desk.orders {
		fmt.Fprintf(&b, "order %d of %s, %s: state %d, error %v, task made %v\n", id, x.Member.Name, x.Phase, x.state, x.err, x.task != nil)
	}
	w.run.desk.mu.Unlock()
	for name, m := range w.members {
		m.mu.Lock()
		fmt.Fprintf(&b, "%s: here %v, at work on %v, keeps %v\n", name, w.run.here(name), m.busy, slices.Collect(maps.Keys(m.kept)))
		m.mu.Unlock()
	}
	return b.String()
}
