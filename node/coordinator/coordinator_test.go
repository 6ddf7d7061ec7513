package coordinator

import (
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
		w.t.Fatal("the run does not end")
	}
}

// TestSameBits: what a network of members computes is what the simulation computes.
func TestSameBits(t *testing.T) {
	for _, method := range []string{"fedavg", "scaffold", "heterofl"} {
		t.Run(method, func(t *testing.T) {
			w := newWorld(t, method)
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
