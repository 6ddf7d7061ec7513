package faultfs_test

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/journal/faultfs"
)

// put writes content the careless way: no sync at all unless asked for.
func put(t *testing.T, f journal.FS, name, content string, sync bool) error {
	t.Helper()
	w, err := f.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	if _, err := io.WriteString(w, content); err != nil {
		return errors.Join(err, w.Close())
	}
	if sync {
		if err := w.Sync(); err != nil {
			return errors.Join(err, w.Close())
		}
	}
	return w.Close()
}

func onDisk(t *testing.T, name string) string {
	t.Helper()
	b, err := os.ReadFile(name)
	if errors.Is(err, os.ErrNotExist) {
		return "(none)"
	}
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestCrash(t *testing.T) {
	for _, tt := range []struct {
		name              string
		crash             faultfs.Crash
		syncFile, syncDir bool
		want              string
	}{
		{"nothing synced", faultfs.PowerLoss, false, false, "(none)"},
		{"content only", faultfs.PowerLoss, true, false, "(none)"},
		{"entry only", faultfs.PowerLoss, false, true, ""},
		{"both", faultfs.PowerLoss, true, true, "new"},
		{"metadata first", faultfs.PowerLossAfterMetadata, false, false, ""},
		{"metadata first, content synced", faultfs.PowerLossAfterMetadata, true, false, "new"},
		{"killed", faultfs.Kill, false, false, "new"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			f := faultfs.New(journal.OS())
			name := filepath.Join(dir, "a")
			if err := put(t, f, name, "new", tt.syncFile); err != nil {
				t.Fatal(err)
			}
			if tt.syncDir {
				if err := f.SyncDir(dir); err != nil {
					t.Fatal(err)
				}
			}
			if err := f.Crash(tt.crash); err != nil {
				t.Fatal(err)
			}
			if got := onDisk(t, name); got != tt.want {
				t.Errorf("after the crash %q, want %q", got, tt.want)
			}
			if err := put(t, f, name, "later", true); !errors.Is(err, faultfs.ErrCrashed) {
				t.Errorf("writing after the crash: %v", err)
			}
		})
	}
}

func TestOverwriteIsLost(t *testing.T) {
	name := filepath.Join(t.TempDir(), "a")
	if err := os.WriteFile(name, []byte("0123456789"), 0o644); err != nil {
		t.Fatal(err)
	}
	f := faultfs.New(journal.OS())
	w, err := f.OpenFile(name, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	at := func(s string, off int64) {
		t.Helper()
		if _, err := w.WriteAt([]byte(s), off); err != nil {
			t.Fatal(err)
		}
	}
	at("AB", 1)
	if err := w.Truncate(6); err != nil {
		t.Fatal(err)
	}
	at("xyz", 8) // leaves a hole
	if err := w.Sync(); err != nil {
		t.Fatal(err)
	}
	at("lost", 0)
	if got, want := onDisk(t, name), "lost45\x00\x00xyz"; got != want {
		t.Errorf("before the crash %q, want %q", got, want)
	}
	if err := f.Crash(faultfs.PowerLoss); err != nil {
		t.Fatal(err)
	}
	if got, want := onDisk(t, name), "0AB345\x00\x00xyz"; got != want {
		t.Errorf("after the crash %q, want %q", got, want)
	}
}

func TestRename(t *testing.T) {
	for _, tt := range []struct {
		crash   faultfs.Crash
		syncDir bool
		a, b    string
	}{
		{faultfs.PowerLoss, false, "new", "old"},
		{faultfs.PowerLoss, true, "(none)", "new"},
		{faultfs.PowerLossAfterMetadata, false, "(none)", "new"},
	} {
		dir := t.TempDir()
		a, b := filepath.Join(dir, "a"), filepath.Join(dir, "b")
		f := faultfs.New(journal.OS())
		err := errors.Join(put(t, f, a, "new", true), put(t, f, b, "old", true), f.SyncDir(dir), f.Rename(a, b))
		if tt.syncDir {
			err = errors.Join(err, f.SyncDir(dir))
		}
		if err := errors.Join(err, f.Crash(tt.crash)); err != nil {
			t.Fatal(err)
		}
		if onDisk(t, a) != tt.a || onDisk(t, b) != tt.b {
			t.Errorf("%+v: a is %q, b is %q", tt, onDisk(t, a), onDisk(t, b))
		}
	}
}

func TestRules(t *testing.T) {
	dir := t.TempDir()
	a := filepath.Join(dir, "a.txt")

	t.Run("error at the second write", func(t *testing.T) {
		f := faultfs.New(journal.OS())
		f.Add(faultfs.Rule{Op: faultfs.Write, Name: "*.txt", N: 2, Part: 2, Err: syscall.ENOSPC})
		if err := put(t, f, a, "first", false); err != nil {
			t.Fatal(err)
		}
		if err := put(t, f, a, "second", false); !errors.Is(err, syscall.ENOSPC) || !journal.IsFull(err) {
			t.Errorf("second write: %v", err)
		}
		if got := onDisk(t, a); got != "se" {
			t.Errorf("short write left %q", got)
		}
		if err := put(t, f, a, "third", false); err != nil {
			t.Errorf("third write: %v", err)
		}
	})
	t.Run("torn", func(t *testing.T) {
		f := faultfs.New(journal.OS())
		f.Add(faultfs.Rule{Op: faultfs.Write, Part: 3, Crash: faultfs.PowerLoss})
		if err := put(t, f, a, "torn apart", false); !errors.Is(err, faultfs.ErrCrashed) {
			t.Errorf("torn write: %v", err)
		}
		if got := onDisk(t, a); got != "tor" {
			t.Errorf("torn write left %q", got)
		}
	})
	t.Run("hooks", func(t *testing.T) {
		f := faultfs.New(journal.OS())
		var calls []string
		seen := func(when string) func(faultfs.Event) {
			return func(e faultfs.Event) { calls = append(calls, when+" "+string(e.Op)+" "+onDisk(t, a)) }
		}
		f.Add(faultfs.Rule{Op: faultfs.Write, N: 1, Hook: seen("before")})
		f.Add(faultfs.Rule{Op: faultfs.Sync, N: 1, After: true, Hook: seen("after")})
		if err := put(t, f, a, "new", true); err != nil {
			t.Fatal(err)
		}
		if got, want := fmt.Sprint(calls), "[before write  after sync new]"; got != want {
			t.Errorf("calls %s, want %s", got, want)
		}
		ops := ""
		for _, e := range f.Events() {
			ops += fmt.Sprintf("%s %s %d; ", e.Op, filepath.Base(e.Name), e.Bytes)
		}
		if want := "truncate a.txt 0; write a.txt 3; sync a.txt 0; "; ops != want {
			t.Errorf("events %q, want %q", ops, want)
		}
	})
}

func TestLockEndsWithCrash(t *testing.T) {
	name := filepath.Join(t.TempDir(), "lock")
	f := faultfs.New(journal.OS())
	if _, err := f.Lock(name); err != nil {
		t.Fatal(err)
	}
	var locked *journal.LockedError
	if _, err := journal.OS().Lock(name); !errors.As(err, &locked) {
		t.Errorf("lock while locked: %v", err)
	}
	if err := f.Crash(faultfs.Kill); err != nil {
		t.Fatal(err)
	}
	l, err := journal.OS().Lock(name)
	if err != nil {
		t.Fatalf("lock after the crash: %v", err)
	}
	if err := l.Close(); err != nil {
		t.Error(err)
	}
}

// A file that is replaced by journal.WriteFile has, whatever fails wherever,
// either its old content or its new one.
func Example() {
	dir, err := os.MkdirTemp("", "faultfs")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)
	name := filepath.Join(dir, "state")
	hello := func(w io.Writer) error { _, err := io.WriteString(w, "new"); return err }

	clean := faultfs.New(journal.OS())
	if err := journal.WriteFile(clean, name, hello); err != nil {
		panic(err)
	}
	for i, e := range clean.Events() {
		if err := os.WriteFile(name, []byte("old"), 0o644); err != nil {
			panic(err)
		}
		f := faultfs.New(journal.OS())
		f.Add(faultfs.Rule{N: i + 1, After: true, Crash: faultfs.PowerLoss})
		failed := journal.WriteFile(f, name, hello) != nil
		content, err := os.ReadFile(name)
		fmt.Println("crash after", e.Op, failed, string(content), err)
	}
	// Output:
	// crash after create true old <nil>
	// crash after write true old <nil>
	// crash after sync true old <nil>
	// crash after rename true old <nil>
	// crash after syncdir true new <nil>
}
