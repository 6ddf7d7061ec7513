package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/journal/faultfs"
	"github.com/cohort-learning/cohort/secure/dp/ledger"
)

// member is what a member does: for three rounds it charges, and only then lets something leave.
func member(dir string, fsys journal.FS) (left []int, err error) {
	l, err := ledger.Open(dir, data, "/data", ledger.Options{FS: fsys})
	if err != nil {
		return nil, err
	}
	if err := l.SetBudget(context.Background(), ledger.Budget{Epsilon: 50, Delta: 1e-5}); err != nil {
		return nil, err
	}
	for round := range 3 {
		if _, err := l.ChargeWithin(context.Background(), ledger.Budget{}, entry("c", "r", round, gaussian(1, 2))); err != nil {
			return left, err
		}
		left = append(left, round)
	}
	return left, nil
}

// At every operation on files, before it, after it and within every write, with and without the power going: whatever has left is
// charged, and going on ends with each round charged once.
func TestCrashAtEveryOperation(t *testing.T) {
	clean := faultfs.New(journal.OS())
	if _, err := member(t.TempDir(), clean); err != nil {
		t.Fatal(err)
	}
	var rules []faultfs.Rule
	for i, e := range clean.Events() {
		for _, crash := range []faultfs.Crash{faultfs.PowerLoss, faultfs.PowerLossAfterMetadata, faultfs.Kill} {
			rules = append(rules, faultfs.Rule{N: i + 1, Crash: crash}, faultfs.Rule{N: i + 1, Crash: crash, After: true})
			for part := 1; part < e.Bytes; part += 1 + e.Bytes/3 {
				rules = append(rules, faultfs.Rule{N: i + 1, Crash: crash, Part: part})
			}
		}
	}
	if len(rules) < 100 {
		t.Fatalf("only %d crashes are tried", len(rules))
	}
	want, err := gaussian(1, 2).Epsilon(1e-5, 3)
	if err != nil {
		t.Fatal(err)
	}
	for _, rule := range rules {
		dir := t.TempDir()
		f := faultfs.New(journal.OS())
		f.Add(rule)
		left, err := member(dir, f)
		if !errors.Is(err, faultfs.ErrCrashed) {
			t.Fatalf("%+v: no crash: %v", rule, err)
		}
		s, err := open(t, dir, data, "/data", ledger.Options{}).Summary(1e-5)
		if err != nil || s.Rounds < len(left) || s.Rounds > len(left)+1 {
			t.Errorf("%+v: rounds %v have left, %d are charged, %v", rule, left, s.Rounds, err)
		}
		if _, err := member(dir, faultfs.New(journal.OS())); err != nil {
			t.Errorf("%+v: going on: %v", rule, err)
		}
		s, err = open(t, dir, data, "/data", ledger.Options{}).Summary(1e-5)
		if err != nil || s.Rounds != 3 || s.Epsilon != want || s.Budget.Epsilon != 50 {
			t.Errorf("%+v: ended with %+v, %v", rule, s, err)
		}
	}
	t.Logf("%d operations, %d crashes", len(clean.Events()), len(rules))
}

// A disk that is full, or fails to sync, charges nothing and says so; the next try does.
func TestFailures(t *testing.T) {
	for _, op := range []faultfs.Op{faultfs.Write, faultfs.Sync} {
		dir := t.TempDir()
		f := faultfs.New(journal.OS())
		l := open(t, dir, data, "/data", ledger.Options{FS: f})
		charge(t, l, entry("c", "r", 0, gaussian(1, 2)))
		f.Add(faultfs.Rule{Op: op, Name: journal.FileName, N: 1, Err: syscall.ENOSPC})
		if _, err := l.Charge(t.Context(), entry("c", "r", 1, gaussian(1, 2))); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("%s fails: %v", op, err)
		}
		if s, err := l.Summary(1e-5); err != nil || s.Rounds != 1 {
			t.Errorf("%s fails: %d rounds, %v", op, s.Rounds, err)
		}
		charge(t, l, entry("c", "r", 1, gaussian(1, 2)))
		if s, err := open(t, dir, data, "/data", ledger.Options{}).Summary(1e-5); err != nil || s.Rounds != 2 {
			t.Errorf("%s works again: %d rounds, %v", op, s.Rounds, err)
		}
	}
}

// TestMain lets the test program be a member of its own: see TestProcesses.
func TestMain(m *testing.M) {
	if dir := os.Getenv("LEDGER_TEST_DIR"); dir != "" {
		os.Exit(process(dir, os.Getenv("LEDGER_TEST_NAME")))
	}
	os.Exit(m.Run())
}

// process charges rounds until the budget is spent, and prints each when it may leave.
func process(dir, name string) int {
	d := data
	if name == "c" { // the same data, after a change
		d = ledger.Digest{9}
	}
	l, err := ledger.Open(dir, d, "/data", ledger.Options{})
	if err != nil {
		fmt.Println("error", err)
		return 1
	}
	rounds, err := strconv.Atoi(os.Getenv("LEDGER_TEST_ROUNDS"))
	if err != nil {
		return 1
	}
	fmt.Println("ready")
	for { // until all are
		if _, err := os.Stat(dir + ".go"); err == nil {
			break
		}
		time.Sleep(100 * time.Microsecond)
	}
	for round := range rounds {
		_, err := l.ChargeWithin(context.Background(), ledger.Budget{}, entry(name, "r", round, gaussian(1, 4)))
		var refused *ledger.SpentError
		if errors.As(err, &refused) {
			return 0
		}
		if err != nil {
			fmt.Println("error", err)
			return 1
		}
		fmt.Println("round", round)
	}
	return 0
}

func start(t *testing.T, dir, name string, rounds int) (*exec.Cmd, func() []string) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	c := exec.Command(exe)
	c.Env = append(os.Environ(), "LEDGER_TEST_DIR="+dir, "LEDGER_TEST_NAME="+name, "LEDGER_TEST_ROUNDS="+strconv.Itoa(rounds))
	out := &lines{}
	c.Stdout, c.Stderr = out, os.Stderr
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c, out.list
}

type lines struct {
	mu   sync.Mutex
	text []byte
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text = append(l.text, b...)
	return len(b), nil
}

func (l *lines) list() (out []string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	start := 0
	for i, c := range l.text {
		if c == '\n' {
			out = append(out, string(l.text[start:i]))
			start = i + 1
		}
	}
	return out
}

// let lets the processes that wait begin.
func let(t *testing.T, dir string) {
	t.Helper()
	if err := os.WriteFile(dir+".go", nil, 0o644); err != nil {
		t.Fatal(err)
	}
}

// Three processes charge the same data at once, one of them as they are after a change: together they get exactly the rounds that the budget has.
func TestProcesses(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ledgers")
	const rounds = 15
	ten, err := gaussian(1, 4).Epsilon(1e-5, rounds)
	if err != nil {
		t.Fatal(err)
	}
	l := open(t, dir, data, "/data", ledger.Options{})
	if err := l.SetBudget(t.Context(), ledger.Budget{Epsilon: ten * 1.0001, Delta: 1e-5}); err != nil {
		t.Fatal(err)
	}
	total := 0
	var ends []func()
	for _, name := range []string{"a", "b", "c"} {
		c, out := start(t, dir, name, 12)
		for len(out()) == 0 {
			time.Sleep(time.Millisecond)
		}
		ends = append(ends, func() {
			if err := c.Wait(); err != nil {
				t.Errorf("%s: %v: %v", name, err, out())
			}
			total += len(out()) - 1
		})
	}
	let(t, dir)
	for _, end := range ends {
		end()
	}
	s, err := l.Summary(1e-5)
	if err != nil || s.Rounds != rounds || total != rounds {
		t.Errorf("%d rounds are charged and %d have left, want %d; %v", s.Rounds, total, rounds, err)
	}
}

// A process is killed while it charges: what it let leave is charged.
func TestKill(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "ledgers")
	let(t, dir)
	for n := range 5 {
		name := fmt.Sprint("m", n)
		c, out := start(t, dir, name, 10_000)
		for len(out()) < 4+2*n {
			time.Sleep(time.Millisecond)
		}
		if err := c.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = c.Wait() // it was killed
		s, err := open(t, dir, data, "/data", ledger.Options{}).Summary(1e-5)
		if err != nil || len(s.Runs) != n+1 {
			t.Fatalf("%+v, %v", s, err)
		}
		if got, left := s.Runs[n].Rounds, len(out())-1; got < left || got > left+1 {
			t.Errorf("%d rounds have left, %d are charged", left, got)
		}
	}
}

// Many goroutines share one ledger, and others have it open too.
func TestGoroutines(t *testing.T) {
	dir := t.TempDir()
	shared := open(t, dir, data, "/data", ledger.Options{})
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			l := shared
			if i%2 == 1 {
				var err error
				if l, err = ledger.Open(dir, data, "/data", ledger.Options{}); err != nil {
					t.Error(err)
					return
				}
			}
			for round := range 5 {
				if _, err := l.ChargeWithin(t.Context(), ledger.Budget{}, entry(fmt.Sprint("c", i), "r", round, gaussian(1, 9))); err != nil {
					t.Error(err)
				}
				if _, _, err := l.Spent(1e-5); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if s, err := shared.Summary(1e-5); err != nil || s.Rounds != 20 || len(s.Runs) != 4 {
		t.Errorf("%+v, %v", s, err)
	}
}
