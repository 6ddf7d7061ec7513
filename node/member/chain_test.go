package member

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/transport"
	"pgregory.net/rapid"
)

// chain makes a journal and returns its lines and heads.
func chain(t testing.TB, n int) (lines [][]byte, heads []transport.Head) {
	t.Helper()
	dir := t.TempDir()
	j, err := journal.Create(dir, journal.Options{Run: "chain"})
	if err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if _, err := j.Append("something", fmt.Sprintf("%d \"prev\":\" and \"hash\":\"", i)); err != nil {
			t.Fatal(err)
		}
	}
	for r, err := range j.Records() {
		if err != nil {
			t.Fatal(err)
		}
		heads = append(heads, transport.Head{Seq: r.Seq, Hash: transport.Digest(r.Hash)})
	}
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(filepath.Join(dir, journal.FileName))
	if err != nil {
		t.Fatal(err)
	}
	lines = bytes.SplitAfter(b, []byte("\n"))
	return lines[:len(lines)-1], heads
}

// Lines link two heads if and only if they are the records between them, unchanged.
func TestLink(t *testing.T) {
	lines, heads := chain(t, 12)
	rapid.Check(t, func(t *rapid.T) {
		from := rapid.IntRange(0, len(heads)-1).Draw(t, "from")
		to := rapid.IntRange(from, len(heads)-1).Draw(t, "to")
		good := bytes.Join(lines[from:], nil)
		if err := link(bytes.NewReader(good), heads[from], heads[to]); err != nil {
			t.Fatalf("from %d to %d: %v", from, to, err)
		}
		if from == to {
			return
		}
		bad := bytes.Clone(bytes.Join(lines[from:to+1], nil))
		at := rapid.IntRange(0, len(bad)-1).Draw(t, "byte")
		bad[at] ^= byte(rapid.IntRange(1, 255).Draw(t, "flip"))
		if err := link(bytes.NewReader(bad), heads[from], heads[to]); !errors.Is(err, errChain) {
			t.Errorf("from %d to %d with byte %d flipped: %v", from, to, at, err)
		}
		skip := rapid.IntRange(from, to).Draw(t, "skip")
		gap := append(append([][]byte{}, lines[from:skip]...), lines[skip+1:to+1]...)
		if err := link(bytes.NewReader(bytes.Join(gap, nil)), heads[from], heads[to]); !errors.Is(err, errChain) {
			t.Errorf("from %d to %d without %d: %v", from, to, skip, err)
		}
		other := heads[to]
		other.Hash[9] ^= 1
		if err := link(bytes.NewReader(good), heads[from], other); !errors.Is(err, errChain) {
			t.Errorf("to another head: %v", err)
		}
	})
}

// A line that says the same in other letters is none: its own hash does not cover the digits of that hash.
func TestLinkInCapitals(t *testing.T) {
	lines, heads := chain(t, 3)
	for at, c := range lines[2] {
		bad := bytes.Clone(bytes.Join(lines[:3], nil))
		if i := len(bad) - len(lines[2]) + at; c >= 'a' && c <= 'z' {
			bad[i] ^= 0x20
			if err := link(bytes.NewReader(bad), heads[0], heads[2]); !errors.Is(err, errChain) {
				t.Errorf("byte %d, %q, in capitals: %v", at, c, err)
			}
		}
	}
	for _, start := range []string{`{"Seq":2,`, `{"seq":02,`, `{"seq":2 ,`, `{"seq":+2,`, `{"x":1,"seq":2,`, `{ "seq":2,`} {
		line := append([]byte(start), bytes.TrimPrefix(lines[2], []byte(`{"seq":2,`))...)
		sum := sha256.Sum256(line[:len(line)-hashTail])
		hex.Encode(line[len(line)-hexLen-len(lineEnd):], sum[:])
		head := transport.Head{Seq: 2, Hash: sum}
		if err := link(bytes.NewReader(append(bytes.Join(lines[:2], nil), line...)), heads[0], head); !errors.Is(err, errChain) {
			t.Errorf("a line that begins with %s: %v", start, err)
		}
	}
}

func FuzzLink(f *testing.F) {
	lines, heads := chain(f, 4)
	f.Add(bytes.Join(lines, nil))
	f.Add(bytes.Join(lines[1:], nil))
	f.Add([]byte(`{"seq":1,"time":"","kind":"","body":1,"prev":"","hash":""}` + "\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		if err := link(bytes.NewReader(b), heads[0], heads[3]); err == nil && !bytes.HasPrefix(b, bytes.Join(lines[:4], nil)) {
			t.Error("other records link the heads")
		}
	})
}

func TestRanges(t *testing.T) {
	r, err := parseRanges("0-41,43,50-50")
	if err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int]bool{0: true, 41: true, 42: false, 43: true, 50: true, 51: false, -1: false} {
		if r.has(n) != want {
			t.Errorf("%d: %v", n, !want)
		}
	}
	for _, bad := range []string{"-", "3-1", "1,", "-4", "a", "1-2-3", "0-99999999999999999999"} {
		if _, err := parseRanges(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
	if r, err := parseRanges("0-9223372036854775807"); err != nil || !r.has(1<<40) {
		t.Errorf("everything: %v", err)
	}
}

func TestOneLine(t *testing.T) {
	if got := oneLine("a\nb\tc\x1b[2J\u202edx", 100); got != "a b c[2Jdx" {
		t.Errorf("%q", got)
	}
	if got := oneLine(strings.Repeat("é", 100), 11); got != "ééééé…" {
		t.Errorf("%q", got)
	}
}

// Runs have folders of their own, whatever they are called.
func TestFileOf(t *testing.T) {
	seen := map[string]string{}
	for _, run := range []string{"mnist", "mnist-2", "", ".", "..", "../../etc/passwd", "a/b", "Study", "study", "con:", "-rf", strings.Repeat("x", 300), "é"} {
		f := fileOf(run)
		if other, ok := seen[strings.ToLower(f)]; ok || f == "" || f[0] == '.' || f[0] == '-' || strings.ContainsAny(f, `/\:`) || len(f) > 100 {
			t.Errorf("run %q is kept in %q, %q too", run, f, other)
		}
		seen[strings.ToLower(f)] = run
	}
}

func TestFolder(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "north")
	if _, err := OpenFolder(dir); !errors.Is(err, ErrNoMember) {
		t.Errorf("nobody: %v", err)
	}
	k, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	token := identity.Token{URL: "https://localhost:1", Federation: k.Public(), Name: "north"}
	f, err := NewFolder(dir, token)
	if err != nil || f.Card.Enrolled {
		t.Fatal(f, err)
	}
	token.URL = "https://localhost:2" // a newer invitation
	again, err := NewFolder(dir, token)
	if err != nil || again.Key.Public() != f.Key.Public() || again.Card.URL != token.URL {
		t.Errorf("taken over: %+v, %v", again, err)
	}
	again.Card.Enrolled = true
	if err := again.Save(); err != nil {
		t.Fatal(err)
	}
	open, err := OpenFolder(dir)
	if err != nil || open.Card.URL != token.URL || !open.Card.Enrolled || open.Key.Public() != f.Key.Public() {
		t.Errorf("opened: %+v, %v", open, err)
	}
	token.Name = "south"
	if _, err := NewFolder(dir, token); err == nil || !strings.Contains(err.Error(), `belongs to the member "north"`) {
		t.Errorf("another name: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, CardName), []byte(`{"version":9}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := OpenFolder(dir); err == nil || !strings.Contains(err.Error(), "version 9; this program reads version 1") {
		t.Errorf("a later version: %v", err)
	}
}
