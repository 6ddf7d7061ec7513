package record_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/journal/faultfs"
	"github.com/cohort-learning/cohort/record"
)

func text(s string) func(io.Writer) error {
	return func(w io.Writer) error { _, err := io.WriteString(w, s); return err }
}

func files(t *testing.T, dir string) string {
	t.Helper()
	entries, err := os.ReadDir(dir)
	must(t, err)
	var names []string
	for _, e := range entries {
		name := e.Name()
		if i := strings.Index(name, "."+digits(name)); i >= 0 {
			name = name[:i]
		}
		names = append(names, name)
	}
	return strings.Join(names, " ")
}

// digits returns the digest's digits in a file name.
func digits(name string) string {
	parts := strings.Split(name, ".")
	return parts[len(parts)-2]
}

func load(t *testing.T, c record.Checkpoints, cp record.Checkpoint) string {
	t.Helper()
	var content []byte
	must(t, c.Load(&cp, func(r io.Reader) (err error) { content, err = io.ReadAll(r); return err }))
	return string(content)
}

func TestCheckpoints(t *testing.T) {
	c := record.Checkpoints{FS: journal.OS(), Dir: filepath.Join(t.TempDir(), "checkpoints")}
	if _, ok, bad, err := c.Latest(); ok || bad != nil || err != nil {
		t.Errorf("latest of nothing: %v %v %v", ok, bad, err)
	}
	for round := range 5 {
		_, err := c.Save(round, text(fmt.Sprint("round ", round)))
		must(t, err)
		if round%2 == 0 {
			_, err := c.SaveNamed("best", round, text(fmt.Sprint("best of ", round)))
			must(t, err)
		}
	}
	if got, want := files(t, c.Dir), "best.round-000004 round-000003 round-000004"; got != want {
		t.Errorf("kept %s, want %s", got, want)
	}
	cp, err := c.Save(5, text("five"))
	must(t, err)
	if want := sha256.Sum256([]byte("five")); cp.Digest != want || cp.Bytes != 4 || cp.Round != 5 {
		t.Errorf("saved %+v, want digest %x", cp, want)
	}
	got, ok, bad, err := c.Latest()
	if got != cp || !ok || bad != nil || err != nil {
		t.Errorf("latest %+v %v %v %v, saved %+v", got, ok, bad, err, cp)
	}
	if s := load(t, c, got); s != "five" {
		t.Errorf("loaded %q", s)
	}
	best, ok, _, err := c.Named("best")
	if !ok || err != nil || best.Round != 4 || load(t, c, best) != "best of 4" {
		t.Errorf("best %+v %v %v", best, ok, err)
	}
	if found, ok, _, err := c.Find(best.Digest); found != best || !ok || err != nil {
		t.Errorf("found %+v %v %v", found, ok, err)
	}

	// A run that has gone back: the rounds after it are another past's.
	back, err := c.Save(4, text("another four"))
	must(t, err)
	if got, want := files(t, c.Dir), "best.round-000004 round-000004"; got != want {
		t.Errorf("kept %s, want %s", got, want)
	}
	if s := load(t, c, back); s != "another four" {
		t.Errorf("loaded %q", s)
	}
}

func TestDamagedCheckpoint(t *testing.T) {
	c := record.Checkpoints{FS: journal.OS(), Dir: t.TempDir()}
	one, err := c.Save(1, text("one"))
	must(t, err)
	two, err := c.Save(2, text("two"))
	must(t, err)
	must(t, os.WriteFile(two.Path, []byte("twö"), 0o644))
	var damaged *record.DigestError
	called := false
	if err := c.Load(&two, func(io.Reader) error { called = true; return nil }); !errors.As(err, &damaged) || called {
		t.Errorf("load: %v, reader called: %v", err, called)
	}
	cp, ok, bad, err := c.Latest()
	if cp != one || !ok || err != nil || len(bad) != 1 || !errors.As(bad[0], &damaged) || damaged.Path != two.Path {
		t.Errorf("latest %+v %v %v %v", cp, ok, bad, err)
	}
}

// Saving fails at every operation: the checkpoint before stays, whole, and
// saving again works.
func TestSaveFails(t *testing.T) {
	save := func(dir string, fsys journal.FS) error {
		_, err := record.Checkpoints{FS: fsys, Dir: dir, Keep: 1}.Save(2, text("two"))
		return err
	}
	prepare := func() (dir string) {
		dir = t.TempDir()
		_, err := record.Checkpoints{FS: journal.OS(), Dir: dir, Keep: 1}.Save(1, text("one"))
		must(t, err)
		return dir
	}
	latest := func(dir string) string {
		c := record.Checkpoints{FS: journal.OS(), Dir: dir}
		cp, ok, bad, err := c.Latest()
		if !ok || bad != nil || err != nil {
			t.Fatalf("latest: %v %v %v", ok, bad, err)
		}
		return load(t, c, cp)
	}
	clean := faultfs.New(journal.OS())
	must(t, save(prepare(), clean))
	renamed := false
	for i, e := range clean.Events() {
		for _, rule := range []faultfs.Rule{
			{N: i + 1, Err: syscall.ENOSPC},
			{N: i + 1, Err: syscall.ENOSPC, Part: 2},
			{N: i + 1, Crash: faultfs.PowerLoss},
			{N: i + 1, Crash: faultfs.PowerLoss, Part: 2},
			{N: i + 1, Crash: faultfs.PowerLoss, After: true},
			{N: i + 1, Crash: faultfs.PowerLossAfterMetadata},
			{N: i + 1, Crash: faultfs.PowerLossAfterMetadata, After: true},
		} {
			dir := prepare()
			f := faultfs.New(journal.OS())
			f.Add(rule)
			if err := save(dir, f); err == nil {
				t.Errorf("%v %+v: no error", e, rule)
			} else if rule.Err != nil && !journal.IsFull(err) {
				t.Errorf("%v %+v: %v", e, rule, err)
			}
			if got := latest(dir); got != "one" && (got != "two" || e.Op != faultfs.Rename && !renamed) {
				t.Errorf("%v %+v: latest is %q", e, rule, got)
			}
			must(t, save(dir, faultfs.New(journal.OS())))
			if got := files(t, dir); got != "round-000002" {
				t.Errorf("%v %+v: left %s", e, rule, got)
			}
		}
		renamed = renamed || e.Op == faultfs.Rename
	}
	if !renamed {
		t.Error("nothing was renamed")
	}

	dir := prepare()
	broken := errors.New("no model")
	if _, err := (record.Checkpoints{FS: journal.OS(), Dir: dir}).Save(2, func(io.Writer) error { return broken }); !errors.Is(err, broken) {
		t.Errorf("the writer's error: %v", err)
	}
	if got := files(t, dir); got != "round-000001" {
		t.Errorf("left %s", got)
	}
}
