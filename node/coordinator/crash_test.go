package coordinator

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/journal/faultfs"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/transport"
)

// restart is what follows a crash: a new process on what is left on the disk. The members have lived on.
func (w *world) restart(fsys journal.FS) error {
	for _, m := range w.members {
		m.quit()
	}
	w.bus, w.fs = transport.NewMemory(), fsys
	if err := w.begin(); err != nil {
		return err
	}
	w.joinAll()
	return nil
}

// crashed runs a world that crashes by the rule, and goes on after the crash to the end of the run.
func crashed(t *testing.T, method string, window int, rule faultfs.Rule) *world {
	t.Helper()
	w := newWorld(t, method)
	w.window = window
	f := faultfs.New(journal.OS())
	f.Add(rule)
	w.fs = f
	err := w.begin()
	if err == nil {
		w.joinAll()
		for !f.Crashed() {
			select {
			case <-w.run.Done():
			case <-time.After(time.Millisecond):
				continue
			case <-time.After(patience):
				t.Fatal("neither a crash nor an end")
			}
			break
		}
	} else {
		w.joinAll() // of no avail
	}
	if w.server != nil {
		w.end()
	}
	if !f.Crashed() { // this time there were fewer operations
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	if err := w.restart(journal.OS()); err != nil {
		t.Fatalf("after the crash: %v", err)
	}
	w.wait()
	if err := w.run.Err(); err != nil {
		b, _ := os.ReadFile(w.dir + "/run/journal.jsonl")
		t.Fatalf("after the crash: %v\n%s", err, b)
	}
	w.end()
	return w
}

// TestCrash crashes the coordinator at writes, syncs and renames all along a run: power is lost, the process is killed, writes
// are torn. The run ends with the bits of the undisturbed one, whatever the window and however much is inside a checkpoint of
// sums. With COHORT_THOROUGH=1 it tries every operation.
func TestCrash(t *testing.T) {
	for _, c := range []struct {
		method string
		window int
	}{{"fedavg", 2}, {"scaffold", 64}, {"heterofl", 1}, {"asynchronous", 3}, {"robust", 2}, {"secure", 3}, {"private", 2}, {"heterofl behind relays", 1},
		{"scaffold together", 2}, {"gal", 2}, {"gal together", 2}} {
		t.Run(c.method, func(t *testing.T) {
			w := newWorld(t, c.method)
			w.window = c.window
			f := faultfs.New(journal.OS())
			w.fs = f
			want := ""
			if c.method != "asynchronous" && c.method != "private" { // there it depends on who is how fast, or on chance
				want = w.simulated()
			}
			if err := w.begin(); err != nil {
				t.Fatal(err)
			}
			w.joinAll()
			w.wait()
			w.end()
			w.replay("undisturbed")
			if got := w.digest(); got != want && want != "" {
				t.Fatalf("undisturbed, the run ended in %.16s…, the simulation in %.16s…", got, want)
			}
			events := f.Events()
			opening := slices.IndexFunc(events, func(e faultfs.Event) bool { return strings.HasSuffix(e.Name, termsName) })
			step := max(1, len(events)/12)
			if os.Getenv("COHORT_THOROUGH") != "" {
				step = 1
			}
			for i := opening; i < len(events)-1; i += step {
				e := events[i]
				rule := faultfs.Rule{N: i + 1, Part: e.Bytes / 2, Crash: []faultfs.Crash{faultfs.PowerLoss, faultfs.Kill, faultfs.PowerLossAfterMetadata}[i%3]}
				w := crashed(t, c.method, c.window, rule)
				w.replay(fmt.Sprintf("operation %d, about %s of %s", i, e.Op, e.Name))
				if got := w.digest(); got != want && want != "" {
					t.Errorf("after a crash at operation %d, about %s of %s, the run ended in %.16s…, not %.16s…", i, e.Op, e.Name, got, want)
				}
			}
		})
	}
}

// replay computes the run again from its journal and the members' data alone.
func (w *world) replay(when string) {
	w.t.Helper()
	if err := w.replayed(); err != nil {
		w.t.Errorf("%s: %v", when, err)
	}
}

func (w *world) replayed() error {
	dir := filepath.Join(w.dir, "run")
	h, err := simulation.ReadHistory(record.Read(journal.OS(), dir))
	if err != nil {
		return err
	}
	a, err := ReadAttendance(dir)
	if err != nil {
		return err
	}
	j := &simulation.Job{Algorithm: w.alg(), Fleet: w.fleet, Config: w.config, Workers: 2, Secret: simulation.KeptSecrets(journal.OS(), dir)}
	if n, _, err := j.Replay(context.Background(), h, a.Resets); err != nil || n != w.config.Rounds {
		return fmt.Errorf("%d of %d rounds come out again: %w", n, w.config.Rounds, err)
	}
	return nil
}
