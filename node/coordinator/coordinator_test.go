package coordinator

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"
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
	for _, method := range []string{"fedavg", "scaffold", "heterofl", "robust"} {
		t.Run(method, func(t *testing.T) {
			w := newWorld(t, method)
			if method == "robust" {
				w.window = 1
			}
			want := w.simulated()
			if err := w.begin(); err != nil {
				t.Fatal(err)
			}
			w.joinAll()
			w.wait()
			if err := w.run.Err(); err != nil {
				t.Fatal(err)
			}
			w.end()
			if got := w.digest(); got != want {
				t.Errorf("the network ended in %.16s…, the simulation in %.16s…", got, want)
			}
		})
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
