package simulation_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/journal/faultfs"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/train"
)

// opening is how many operations it takes at least to make the folder of a run.
const opening = 16

// reference runs a job to its end, undisturbed, and returns what it left and what it did to files on the way.
func reference(t *testing.T, e *train.Engine, name string, every int) (outcome, string, []faultfs.Event) {
	t.Helper()
	dir, f := t.TempDir(), faultfs.New(journal.OS())
	s, err := work(job(t, e, name), dir, f, every)
	if err != nil {
		t.Fatal(err)
	}
	return look(t, dir), s.Digest(), f.Events()
}

// TestCrash loses power, or is killed, at a write, sync or rename of a run, and ends bit-identical when it is run again: for
// FedAvg and SCAFFOLD, whose clients keep something, at every write to the journal and every rename, and at one in five of
// all other operations. With COHORT_THOROUGH=1 it tries all operations of all runs, which takes minutes.
func TestCrash(t *testing.T) {
	e := fedtest.Engine(t, "go")
	for name, every := range map[string]int{"fedavg": 2, "scaffold": 1, "asynchronous": 1, "heterofl": 3, "attacked": 3} {
		t.Run(name, func(t *testing.T) {
			want, digest, events := reference(t, e, name, every)
			j := job(t, e, name)
			tried := 0
			for i, event := range events {
				crash := []faultfs.Crash{faultfs.PowerLoss, faultfs.Kill, faultfs.PowerLossAfterMetadata}[i%3]
				always := every < 3 && name != "asynchronous" && (event.Op == faultfs.Rename ||
					event.Op == faultfs.Write && strings.HasSuffix(event.Name, journal.FileName))
				if i < opening || !always && i%5 != 0 && os.Getenv("COHORT_THOROUGH") == "" {
					continue
				}
				dir, f := t.TempDir(), faultfs.New(journal.OS())
				f.Add(faultfs.Rule{N: i + 1, Part: event.Bytes / 2, Crash: crash})
				if _, err := work(j, dir, f, every); err == nil || !f.Crashed() {
					t.Errorf("operation %d, %s of %s: no crash: %v", i, event.Op, event.Name, err)
					continue
				}
				tried++
				s, err := work(j, dir, faultfs.New(journal.OS()), every)
				if err != nil {
					t.Errorf("operation %d, %s of %s: %v", i, event.Op, event.Name, err)
					continue
				}
				if s.Digest() != digest {
					t.Errorf("operation %d, %s of %s: another final state", i, event.Op, event.Name)
				}
				if got := look(t, dir); got != want {
					t.Errorf("operation %d, %s of %s: left\n%+v, want\n%+v", i, event.Op, event.Name, got, want)
				}
			}
			t.Logf("%d crashes", tried)
		})
	}
}

// TestKilled kills the process itself (SIGKILL) after every write of a journal record and at every rename of a checkpoint.
func TestKilled(t *testing.T) {
	if dir := os.Getenv("SIMULATION_TEST_DIR"); dir != "" {
		f := faultfs.New(journal.OS())
		var n int
		var op faultfs.Op
		if _, err := fmt.Sscan(os.Getenv("SIMULATION_TEST_KILL"), &op, &n); err != nil {
			t.Fatal(err)
		}
		r := faultfs.Rule{Op: op, N: n, After: true, Hook: func(faultfs.Event) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}}
		if op == faultfs.Write {
			r.Name = journal.FileName
		}
		f.Add(r)
		_, err := work(job(t, fedtest.Engine(t, "go"), os.Getenv("SIMULATION_TEST_JOB")), dir, f, 1)
		t.Fatalf("survived: %v", err)
	}
	if testing.Short() {
		t.Skip("starts many processes")
	}
	e := fedtest.Engine(t, "go")
	for _, name := range []string{"fedavg", "asynchronous"} {
		want, digest, events := reference(t, e, name, 1)
		records, renames := 0, 0
		for _, v := range events {
			switch {
			case v.Op == faultfs.Write && strings.HasSuffix(v.Name, journal.FileName):
				records++
			case v.Op == faultfs.Rename:
				renames++
			}
		}
		kill := func(op faultfs.Op, n int) {
			dir := t.TempDir()
			cmd := exec.Command(os.Args[0], "-test.run=^TestKilled$")
			cmd.Env = append(os.Environ(), "SIMULATION_TEST_DIR="+dir, "SIMULATION_TEST_JOB="+name, fmt.Sprintf("SIMULATION_TEST_KILL=%s %d", op, n))
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Exited() {
				t.Fatalf("%s: not killed at %s %d: %v\n%s", name, op, n, err, out)
			}
			s, err := work(job(t, e, name), dir, faultfs.New(journal.OS()), 1)
			if err != nil {
				t.Errorf("%s: killed at %s %d: %v", name, op, n, err)
				return
			}
			if got := look(t, dir); s.Digest() != digest || got != want {
				t.Errorf("%s: killed at %s %d: left\n%+v, want\n%+v", name, op, n, got, want)
			}
		}
		for n := 1; n <= records; n++ {
			kill(faultfs.Write, n)
		}
		for n := 1; n <= renames; n++ {
			kill(faultfs.Rename, n)
		}
		t.Logf("%s: killed at %d records and %d renames", name, records, renames)
	}
}

// TestFullDisk runs out of space at one write in three of a run: it stops with an error that says what to do, and goes
// on to the same end when there is space again.
func TestFullDisk(t *testing.T) {
	e := fedtest.Engine(t, "go")
	want, digest, events := reference(t, e, "scaffold", 1)
	j := job(t, e, "scaffold")
	for i, event := range events {
		if event.Op != faultfs.Write || i < opening || strings.Contains(event.Name, "run.json") || i%3 != 0 {
			continue
		}
		dir, f := t.TempDir(), faultfs.New(journal.OS())
		f.Add(faultfs.Rule{Op: faultfs.Write, Part: event.Bytes / 2, N: writes(events[:i+1]), Err: syscall.ENOSPC})
		_, err := work(j, dir, f, 1)
		if !journal.IsFull(err) || !strings.Contains(err.Error(), "free some space") {
			t.Errorf("write %d of %s: error %v", i, event.Name, err)
		}
		s, err := work(j, dir, faultfs.New(journal.OS()), 1)
		if err != nil {
			t.Errorf("write %d of %s: %v", i, event.Name, err)
			continue
		}
		if got := look(t, dir); s.Digest() != digest || got != want {
			t.Errorf("write %d of %s: left\n%+v, want\n%+v", i, event.Name, got, want)
		}
	}
}

func writes(events []faultfs.Event) (n int) {
	for _, e := range events {
		if e.Op == faultfs.Write {
			n++
		}
	}
	return n
}

// A run in a folder computes what a run in memory computes, on any number of workers, and verifies.
func TestVerify(t *testing.T) {
	e := fedtest.Engine(t, "go")
	for name := range jobs {
		_, digest, _ := reference(t, e, name, 2)
		dir := t.TempDir()
		if _, err := work(job(t, e, name), dir, faultfs.New(journal.OS()), 2); err != nil {
			t.Fatal(err)
		}
		for _, workers := range []int{1, 3, 8} {
			j := job(t, e, name)
			j.Workers = workers
			s, err := j.Run(t.Context())
			if err != nil || s.Digest() != digest {
				t.Errorf("%s with %d workers: another state, error %v", name, workers, err)
			}
			if n, err := j.Verify(t.Context(), dir); n != rounds || err != nil {
				t.Errorf("%s with %d workers: %d rounds agree, error %v", name, workers, n, err)
			}
		}
		j := job(t, e, name)
		j.Fleet.Seed++
		var differs *simulation.MismatchError
		if n, err := j.Verify(t.Context(), dir); n != 0 || !errors.As(err, &differs) || differs.Round != 0 {
			t.Errorf("%s with another seed: %d rounds agree, error %v", name, n, err)
		}
		far, err := j.Distance(t.Context(), dir)
		if err != nil || !(far["w"] > 0) {
			t.Errorf("%s with another seed: distance %v, error %v", name, far, err)
		}
		if far, err = job(t, e, name).Distance(t.Context(), dir); err != nil || far["w"] != 0 {
			t.Errorf("%s: distance %v, error %v; want 0", name, far, err)
		}
		// Once more in the same folder: nothing is left to do, and nothing is written.
		before := look(t, dir)
		if s, err := work(job(t, e, name), dir, faultfs.New(journal.OS()), 2); err != nil || s.Digest() != digest {
			t.Errorf("%s: run again after its end: %v", name, err)
		}
		if look(t, dir) != before {
			t.Errorf("%s: run again after its end: the folder has changed", name)
		}
	}
}
