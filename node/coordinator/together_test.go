package coordinator

import (
	"path/filepath"
	"slices"
	"testing"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/transport"
)

// TestTogether: members that understand it get the tasks of later phases in one message for all, which is on record before; each
// has had one task of its own before, or was told its place. The others get tasks of their own as ever. The bits are those of the simulation.
func TestTogether(t *testing.T) {
	w := newWorld(t, "scaffold together")
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
		t.Errorf("the run ended in %.16s…, the simulation in %.16s…", got, want)
	}
	told := 0
	for r, err := range journal.Decode[together](journal.Read(w.fs, filepath.Join(w.dir, "run"), KindTogether)) {
		if err != nil {
			t.Fatal(err)
		}
		for _, g := range r.Body.Groups {
			told++
			if len(g.Orders) < 2 || len(g.Orders) != len(g.Places) || g.Message == (transport.Digest{}) {
				t.Errorf("record %d: %+v", r.Seq, g)
			}
		}
	}
	if told == 0 {
		t.Fatal("nothing was told to many at once")
	}
	for name, m := range w.members {
		m.mu.Lock()
		many := 0
		for _, e := range m.heard {
			if e.Kind == transport.KindTasks {
				many++
			}
		}
		if m.apart < 1 || many < 1 || !slices.ContainsFunc(m.heard, func(e transport.Envelope) bool { return e.Kind == transport.KindClose }) {
			t.Errorf("%s got %d tasks of its own and %d of many", name, m.apart, many)
		}
		m.mu.Unlock()
	}
}

// TestNotTogether: who does not say that it understands them gets no tasks of many.
func TestNotTogether(t *testing.T) {
	w := newWorld(t, "fedavg")
	w.undisturbed("each for itself")
	for name, m := range w.members {
		m.mu.Lock()
		for _, e := range m.heard {
			if e.Kind == transport.KindTasks || e.Kind == transport.KindSeat {
				t.Errorf("%s got %s", name, e.Kind)
			}
		}
		m.mu.Unlock()
	}
}

// TestHelloBeforeHere: what a member says of itself counts also if it is heard before the word that the member is connected.
func TestHelloBeforeHere(t *testing.T) {
	w := newWorld(t, "fedavg")
	if err := w.begin(); err != nil {
		t.Fatal(err)
	}
	defer w.end()
	e := transport.Envelope{From: "early"}
	if err := e.Put(&transport.Hello{Versions: []int{transport.Version}, Kernels: "k", Program: "p", Can: []string{transport.CanTasks}}); err != nil {
		t.Fatal(err)
	}
	w.server.hello("early", e, func(string, transport.Body) {})
	if w.run.shares("early") {
		t.Error("it is not here yet")
	}
	w.server.presence("early", true)
	if _, _, kernels, program := w.server.Presence("early"); kernels != "k" || program != "p" || !w.run.shares("early") {
		t.Errorf("known are %q, %q, together %v", kernels, program, w.run.shares("early"))
	}
}
