package journal_test

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/journal/faultfs"
)

// countingFS counts syncs and makes each long enough for others to queue up.
type countingFS struct {
	journal.FS
	syncs atomic.Int64
}

func (c *countingFS) OpenFile(name string, flag int, perm fs.FileMode) (journal.File, error) {
	f, err := c.FS.OpenFile(name, flag, perm)
	return countingFile{f, c}, err
}

type countingFile struct {
	journal.File
	fs *countingFS
}

func (f countingFile) Sync() error {
	f.fs.syncs.Add(1)
	time.Sleep(time.Millisecond)
	return f.File.Sync()
}

// work is a run as the journal sees it: it goes on from what the journal holds
// until four rounds are closed, the last two with one sync. It returns the
// rounds that it was told are durable.
func work(dir string, fsys journal.FS) (acked []int, err error) {
	o := journal.Options{FS: fsys, Run: "w", Now: clock()}
	j, err := journal.Open(dir, o)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, journal.ErrEmpty) {
		j, err = journal.Create(dir, o)
	}
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, j.Close()) }()
	next := 0
	for _, err := range j.Records("round.closed") {
		if err != nil {
			return acked, err
		}
		next++
	}
	for ; next < 2; next++ {
		if _, err := j.Append("round.closed", round{Round: next}); err != nil {
			return acked, err
		}
		acked = append(acked, next)
	}
	var rest []journal.Entry
	for i := next; i < 4; i++ {
		rest = append(rest, journal.Entry{Kind: "round.closed", Body: round{Round: i}})
	}
	if _, err := j.AppendAll(rest); err != nil {
		return acked, err
	}
	for ; next < 4; next++ {
		acked = append(acked, next)
	}
	return acked, nil
}

// At every operation of a run, before it, after it, and within every write, for
// every way to crash: what was acknowledged is there, and going on ends with
// the same rounds as a run without a crash.
func TestCrashAtEveryOperation(t *testing.T) {
	clean := faultfs.New(journal.OS())
	if _, err := work(t.TempDir(), clean); err != nil {
		t.Fatal(err)
	}
	var rules []faultfs.Rule
	for i, e := range clean.Events() {
		for _, crash := range []faultfs.Crash{faultfs.PowerLoss, faultfs.PowerLossAfterMetadata, faultfs.Kill} {
			rules = append(rules,
				faultfs.Rule{N: i + 1, Crash: crash},
				faultfs.Rule{N: i + 1, Crash: crash, After: true})
			for part := 1; part < e.Bytes; part += 1 + e.Bytes/20 {
				rules = append(rules, faultfs.Rule{N: i + 1, Crash: crash, Part: part})
			}
		}
	}
	if len(rules) < 300 {
		t.Fatalf("only %d crashes are tried", len(rules))
	}
	for _, rule := range rules {
		dir := t.TempDir()
		f := faultfs.New(journal.OS())
		f.Add(rule)
		acked, err := work(dir, f)
		if !errors.Is(err, faultfs.ErrCrashed) {
			t.Fatalf("%+v: no crash: %v", rule, err)
		}
		if _, err := os.Stat(filepath.Join(dir, journal.FileName)); err == nil {
			if got := rounds(t, dir); len(got) < len(acked) {
				t.Errorf("%+v: rounds %v were acknowledged, %v are there", rule, acked, got)
			}
		} else if len(acked) > 0 {
			t.Errorf("%+v: rounds %v were acknowledged, and the journal is gone", rule, acked)
		}
		if _, err := work(dir, faultfs.New(journal.OS())); err != nil {
			t.Errorf("%+v: going on: %v", rule, err)
		} else if got := fmt.Sprint(rounds(t, dir)); got != "[0 1 2 3]" {
			t.Errorf("%+v: ended with rounds %s", rule, got)
		}
	}
}

// The same for a crash while a damaged record is moved aside: nothing that
// stood in the journal is lost.
func TestCrashWhileSettingAside(t *testing.T) {
	head := line(0, "journal.opened", `{"format":"cohort-journal","version":1,"run":""}`, "")
	const bad = "damaged\nand more\n"
	open := func(dir string, fsys journal.FS) error {
		j, err := journal.Open(dir, journal.Options{FS: fsys, FromLastGood: true})
		if err != nil {
			return err
		}
		return j.Close()
	}
	clean := faultfs.New(journal.OS())
	dir := t.TempDir()
	writeLines(t, dir, head, bad)
	if err := open(dir, clean); err != nil {
		t.Fatal(err)
	}
	for i := range clean.Events() {
		for _, after := range []bool{false, true} {
			for _, crash := range []faultfs.Crash{faultfs.PowerLoss, faultfs.PowerLossAfterMetadata} {
				dir := t.TempDir()
				writeLines(t, dir, head, bad)
				f := faultfs.New(journal.OS())
				f.Add(faultfs.Rule{N: i + 1, After: after, Crash: crash})
				if err := open(dir, f); !errors.Is(err, faultfs.ErrCrashed) {
					t.Fatalf("operation %d: %v", i+1, err)
				}
				if err := open(dir, faultfs.New(journal.OS())); err != nil {
					t.Errorf("operation %d: %v", i+1, err)
				}
				aside, err := os.ReadFile(filepath.Join(dir, "journal.cut-1.jsonl"))
				if err != nil || string(aside) != bad {
					t.Errorf("operation %d: set aside %q: %v", i+1, aside, err)
				}
			}
		}
	}
}

// A full disk is said to be full, costs no record, and is over when there is
// space again.
func TestFullDisk(t *testing.T) {
	for _, rule := range []faultfs.Rule{
		{Op: faultfs.Write, N: 3, Err: syscall.ENOSPC},
		{Op: faultfs.Write, N: 3, Part: 40, Err: syscall.ENOSPC},
		{Op: faultfs.Sync, N: 4, Err: syscall.ENOSPC},              // the cut at creation is the first
		{Op: faultfs.Sync, N: 4, After: true, Err: syscall.ENOSPC}, // content is there, but not known to be
	} {
		dir := t.TempDir()
		f := faultfs.New(journal.OS())
		j := create(t, dir, journal.Options{FS: f})
		f.Add(rule)
		appendRounds(t, j, 0, 2)
		head := j.Head()
		var err error
		var at int
		for i := 2; err == nil && i < 6; i++ {
			at = i
			_, err = j.Append("round.closed", round{Round: i})
			if err == nil {
				head = j.Head()
			}
		}
		if !journal.IsFull(err) || !strings.Contains(err.Error(), "no space left") || !strings.Contains(err.Error(), dir) {
			t.Errorf("%+v: %v", rule, err)
		}
		if j.Head() != head {
			t.Errorf("%+v: head %+v, want %+v", rule, j.Head(), head)
		}
		if got := len(rounds(t, dir)); got != at {
			t.Errorf("%+v: %d rounds in the file after the failure, want %d", rule, got, at)
		}
		appendRounds(t, j, at, at+2)
		closeJournal(t, j)
		if got := len(rounds(t, dir)); got != at+2 {
			t.Errorf("%+v: %d rounds at the end, want %d", rule, got, at+2)
		}
	}
}

// If even the cut fails, the next append makes up for it.
func TestCutFails(t *testing.T) {
	dir := t.TempDir()
	f := faultfs.New(journal.OS())
	j := create(t, dir, journal.Options{FS: f})
	appendRounds(t, j, 0, 1)
	f.Add(faultfs.Rule{Op: faultfs.Write, N: 1, Part: 50, Err: syscall.ENOSPC})
	f.Add(faultfs.Rule{Op: faultfs.Truncate, N: 1, Err: syscall.EIO})
	f.Add(faultfs.Rule{Op: faultfs.Truncate, N: 2, Err: syscall.EIO})
	for range 2 {
		if _, err := j.Append("round.closed", round{Round: 1}); !errors.Is(err, syscall.EIO) {
			t.Errorf("append while the cut fails: %v", err)
		}
	}
	for r, err := range j.Records() { // does not see the torn line
		if err != nil || r.Seq > 1 {
			t.Errorf("record %d: %v", r.Seq, err)
		}
	}
	appendRounds(t, j, 1, 3)
	closeJournal(t, j)
	if got := fmt.Sprint(rounds(t, dir)); got != "[0 1 2]" {
		t.Errorf("rounds %s", got)
	}
}

// The real thing: a process that is killed at its n-th write or sync.
func TestKilledProcess(t *testing.T) {
	if dir := os.Getenv("JOURNAL_TEST_DIR"); dir != "" {
		f := faultfs.New(journal.OS())
		var n int
		var op faultfs.Op
		if _, err := fmt.Sscan(os.Getenv("JOURNAL_TEST_KILL"), &op, &n); err != nil {
			t.Fatal(err)
		}
		f.Add(faultfs.Rule{Op: op, N: n, After: true, Hook: func(faultfs.Event) {
			p, err := os.FindProcess(os.Getpid())
			if err != nil {
				panic(err)
			}
			_ = p.Kill()
			select {}
		}})
		_, err := work(dir, f)
		t.Fatalf("survived: %v", err)
	}
	for n := 1; n <= 4; n++ {
		for _, op := range []faultfs.Op{faultfs.Write, faultfs.Sync} {
			dir := t.TempDir()
			cmd := exec.Command(os.Args[0], "-test.run=^TestKilledProcess$")
			cmd.Env = append(os.Environ(), "JOURNAL_TEST_DIR="+dir, fmt.Sprintf("JOURNAL_TEST_KILL=%s %d", op, n))
			out, err := cmd.CombinedOutput()
			var exit *exec.ExitError
			if !errors.As(err, &exit) || exit.Exited() {
				t.Fatalf("not killed: %v\n%s", err, out)
			}
			if _, held, err := journal.Locked(journal.OS(), dir); held || err != nil {
				t.Errorf("the lock outlives its process: %v %v", held, err)
			}
			if _, err := work(dir, faultfs.New(journal.OS())); err != nil {
				t.Errorf("killed at %s %d: %v", op, n, err)
			} else if got := fmt.Sprint(rounds(t, dir)); got != "[0 1 2 3]" {
				t.Errorf("killed at %s %d: ended with rounds %s", op, n, got)
			}
		}
	}
}

// What Open hands to a resuming run is durable, even if the writer before it
// was killed between write and sync: else a later loss of power would take back
// what the run has gone on from.
func TestOpenSyncs(t *testing.T) {
	dir := t.TempDir()
	f := faultfs.New(journal.OS())
	j := create(t, dir, journal.Options{FS: f})
	closeJournal(t, j)
	path := filepath.Join(dir, journal.FileName)
	w, err := f.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	end := int64(len(line(0, "journal.opened", `{"format":"cohort-journal","version":1,"run":""}`, "")))
	next := line(1, "round.closed", `{"round":7}`, j.Head().Hash.String())
	if _, err := w.WriteAt([]byte(next), end); err != nil { // never synced
		t.Fatal(err)
	}
	j, err = journal.Open(dir, journal.Options{FS: f})
	if err != nil {
		t.Fatal(err)
	}
	if h := j.Head(); h.Seq != 1 {
		t.Fatalf("head %+v", h)
	}
	if err := f.Crash(faultfs.PowerLoss); err != nil {
		t.Fatal(err)
	}
	if got := fmt.Sprint(rounds(t, dir)); got != "[7]" {
		t.Errorf("rounds %s after losing power", got)
	}
}
