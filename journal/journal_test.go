package journal_test

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/journal/faultfs"
)

// clock returns a clock that ticks a second a call, for journals that are equal
// byte for byte.
func clock() func() time.Time {
	t := time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC)
	return func() time.Time { t = t.Add(time.Second); return t }
}

type round struct {
	Round int    `json:"round"`
	Note  string `json:"note,omitempty"`
}

func create(t *testing.T, dir string, o journal.Options) *journal.Journal {
	t.Helper()
	if o.Now == nil {
		o.Now = clock()
	}
	j, err := journal.Create(dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return j
}

func appendRounds(t *testing.T, j *journal.Journal, from, to int) {
	t.Helper()
	for i := from; i < to; i++ {
		if _, err := j.Append("round.closed", round{Round: i}); err != nil {
			t.Fatal(err)
		}
	}
}

func closeJournal(t *testing.T, j *journal.Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Fatal(err)
	}
}

// rounds reads the rounds that the journal in dir holds, as a stranger would:
// without the lock.
func rounds(t *testing.T, dir string) []int {
	t.Helper()
	var got []int
	for e, err := range journal.Decode[round](journal.Read(journal.OS(), dir, "round.closed")) {
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, e.Body.Round)
	}
	return got
}

func Example() {
	dir, err := os.MkdirTemp("", "run")
	if err != nil {
		panic(err)
	}
	defer os.RemoveAll(dir)

	now := func() time.Time { return time.Date(2026, 1, 31, 12, 0, 0, 0, time.UTC) }
	j, err := journal.Create(dir, journal.Options{Run: "mnist-1", Now: now})
	if err != nil {
		panic(err)
	}
	type closed struct {
		Round    int     `json:"round"`
		Accuracy float64 `json:"accuracy"`
	}
	for i, acc := range []float64{0.71, 0.84} {
		if _, err := j.Append("round.closed", closed{i + 1, acc}); err != nil {
			panic(err)
		}
	}
	if err := j.Close(); err != nil {
		panic(err)
	}

	j, err = journal.Open(dir, journal.Options{})
	if err != nil {
		panic(err)
	}
	defer j.Close()
	for e, err := range journal.Decode[closed](j.Records("round.closed")) {
		if err != nil {
			panic(err)
		}
		fmt.Println(e.Seq, e.Kind, e.Body.Round, e.Body.Accuracy)
	}
	fmt.Println(j.Head().Seq, j.Head().Hash)
	// Output:
	// 1 round.closed 1 0.71
	// 2 round.closed 2 0.84
	// 2 875f11bbe7b57c176c0cd5da622e5f20031b4f7a743741244acd3d7a1fc9d6e2
}

// The format is what the package comment says, read here without the package.
func TestFormat(t *testing.T) {
	dir := t.TempDir()
	j := create(t, dir, journal.Options{Run: "r<1>"})
	appendRounds(t, j, 0, 3)
	if _, err := j.Append("raw", json.RawMessage(` { "a" : [1,
		2] } `)); err != nil {
		t.Fatal(err)
	}
	closeJournal(t, j)
	data, err := os.ReadFile(filepath.Join(dir, "journal.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	prev := strings.Repeat("0", 64)
	lines := strings.SplitAfter(string(data), "\n")
	if len(lines) != 6 || lines[5] != "" {
		t.Fatalf("%d lines, want 5 and nothing behind the last line feed", len(lines)-1)
	}
	for i, line := range lines[:5] {
		var r struct {
			Seq        int
			Time       time.Time
			Kind       string
			Body       json.RawMessage
			Prev, Hash string
		}
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		sum := sha256.Sum256([]byte(line[:len(line)-76]))
		if r.Seq != i || r.Prev != prev || r.Hash != hex.EncodeToString(sum[:]) {
			t.Errorf("line %d: %s", i, line)
		}
		prev = r.Hash
	}
	if want := `"kind":"journal.opened","body":{"format":"cohort-journal","version":1,"run":"r<1>"},"prev":"0`; !strings.Contains(lines[0], want) {
		t.Errorf("header %s", lines[0])
	}
	if want := `{"seq":4,"time":"2026-01-31T12:00:05.000000000Z","kind":"raw","body":{"a":[1,2]},"prev":"`; !strings.HasPrefix(lines[4], want) {
		t.Errorf("last line %s", lines[4])
	}
}

func TestAppendAfterOpen(t *testing.T) {
	dir := t.TempDir()
	j := create(t, dir, journal.Options{Run: "r"})
	appendRounds(t, j, 0, 3)
	head := j.Head()
	closeJournal(t, j)
	if _, err := j.Append("late", nil); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("append after close: %v", err)
	}
	if err := j.Close(); !errors.Is(err, journal.ErrClosed) {
		t.Errorf("second close: %v", err)
	}

	j, err := journal.Open(dir, journal.Options{Run: "r"})
	if err != nil {
		t.Fatal(err)
	}
	if j.Head() != head || j.Header().Run != "r" || j.Recovery() != (journal.Recovery{}) || j.Recovery().String() != "" {
		t.Errorf("reopened: head %v, header %v, recovery %v", j.Head(), j.Header(), j.Recovery())
	}
	r, err := j.Append("round.closed", round{Round: 3})
	if err != nil {
		t.Fatal(err)
	}
	if r.Seq != 4 || r.Prev != head.Hash {
		t.Errorf("continued with %+v after %+v", r, head)
	}
	all, err := j.AppendAll([]journal.Entry{{Kind: "round.closed", Body: round{Round: 4}}, {Kind: "other", Body: 1}, {Kind: "round.closed", Body: round{Round: 5}}})
	if err != nil {
		t.Fatal(err)
	}
	var seen []journal.Record
	for r, err := range j.Records() {
		if err != nil {
			t.Fatal(err)
		}
		seen = append(seen, r)
	}
	for i, r := range all {
		if got := seen[5+i]; got.Hash != r.Hash || got.Offset != r.Offset || !bytes.Equal(got.Body, r.Body) || !got.Time.Equal(r.Time) {
			t.Errorf("read %+v, appended %+v", got, r)
		}
	}
	if n := 0; true {
		for range j.Records("other") { // stops when asked to
			n++
			break
		}
		if n != 1 {
			t.Errorf("%d records of one kind", n)
		}
	}
	closeJournal(t, j)
	if got := fmt.Sprint(rounds(t, dir)); got != "[0 1 2 3 4 5]" {
		t.Errorf("rounds %s", got)
	}
	for _, err := range journal.Decode[string](journal.Read(journal.OS(), dir, "round.closed")) {
		if err == nil || !strings.Contains(err.Error(), "record 1 (round.closed)") {
			t.Errorf("decoding as another type: %v", err)
		}
	}
}

func TestRefusals(t *testing.T) {
	dir := t.TempDir()
	if _, err := journal.Open(dir, journal.Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("open without a journal: %v", err)
	}
	if _, err := os.Stat(filepath.Join(dir, journal.LockName)); err == nil {
		t.Error("open without a journal left a lock file")
	}
	j := create(t, dir, journal.Options{Run: "a"})

	var locked *journal.LockedError
	me := fmt.Sprintf("process %d on ", os.Getpid())
	if _, err := journal.Open(dir, journal.Options{}); !errors.As(err, &locked) || !strings.HasPrefix(locked.Holder, me) {
		t.Errorf("second writer: %v", err)
	}
	if holder, held, err := journal.Locked(journal.OS(), dir); !held || err != nil || !strings.HasPrefix(holder, me) {
		t.Errorf("Locked while it is: %q %v %v", holder, held, err)
	}
	if _, err := j.Append("big", strings.Repeat("x", journal.MaxLine)); err == nil || !strings.Contains(err.Error(), "limit") {
		t.Errorf("body above the limit: %v", err)
	}
	if _, err := j.Append("wrong", func() {}); err == nil {
		t.Error("appended a function")
	}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic for an invalid kind")
			}
		}()
		_, _ = j.Append("Round Closed", nil)
	}()
	closeJournal(t, j)

	if _, held, err := journal.Locked(journal.OS(), dir); held || err != nil {
		t.Errorf("Locked after close: %v %v", held, err)
	}
	if _, err := journal.Create(dir, journal.Options{Run: "a"}); !errors.Is(err, journal.ErrExists) {
		t.Errorf("create over a journal: %v", err)
	}
	if _, err := journal.Open(dir, journal.Options{Run: "b"}); err == nil || !strings.Contains(err.Error(), `"a"`) {
		t.Errorf("open as another run: %v", err)
	}
	if got := rounds(t, dir); got != nil {
		t.Errorf("refused records were written: %v", got)
	}
}

func TestNewerVersionIsRefused(t *testing.T) {
	for body, want := range map[string]string{
		`{"format":"cohort-journal","version":2,"run":""}`: "version 2",
		`{"format":"other","version":1,"run":""}`:          `format "other"`,
		`[]`: "record 0",
	} {
		dir := t.TempDir()
		writeLines(t, dir, line(0, "journal.opened", body, ""))
		if _, err := journal.Open(dir, journal.Options{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", body, err)
		}
		for _, err := range journal.Read(journal.OS(), dir) {
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("read %s: %v", body, err)
			}
		}
	}
	dir := t.TempDir()
	writeLines(t, dir, line(0, "round.closed", `{}`, ""))
	if _, err := journal.Open(dir, journal.Options{}); err == nil || !strings.Contains(err.Error(), "no journal") {
		t.Errorf("without a header: %v", err)
	}
}

// line makes a line by the package comment alone. An empty prev means zeros.
func line(seq int, kind, body, prev string) string {
	if prev == "" {
		prev = strings.Repeat("0", 64)
	}
	s := fmt.Sprintf(`{"seq":%d,"time":"2026-01-31T12:00:00.000000000Z","kind":%q,"body":%s,"prev":%q`, seq, kind, body, prev)
	return s + fmt.Sprintf(`,"hash":"%x"}`, sha256.Sum256([]byte(s))) + "\n"
}

func hashOf(line string) string { return line[len(line)-67 : len(line)-3] }

func writeLines(t *testing.T, dir string, lines ...string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, journal.FileName), []byte(strings.Join(lines, "")), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestDamageIsNamed(t *testing.T) {
	head := line(0, "journal.opened", `{"format":"cohort-journal","version":1,"run":""}`, "")
	one := line(1, "a", `{"x":1}`, hashOf(head))
	two := line(2, "b", `{"x":2}`, hashOf(one))
	three := line(3, "c", `3`, hashOf(two))
	for _, tt := range []struct {
		name  string
		lines []string
		seq   uint64
		what  string
	}{
		{"changed body", []string{head, one, strings.Replace(two, `"x":2`, `"x":3`, 1), three}, 2, "says its hash is"},
		{"changed hash", []string{head, strings.Replace(one, hashOf(one), hashOf(two), 1), two}, 1, "says its hash is"},
		{"record missing", []string{head, one, three}, 2, "has the number 3"},
		{"record twice", []string{head, one, one, two}, 2, "has the number 1"},
		{"another chain", []string{head, one, line(2, "b", `{"x":2}`, hashOf(head)), three}, 2, "follows a record with hash"},
		{"empty line", []string{head, one, "\n", two}, 2, "too short"},
		{"line feed lost", []string{head, strings.TrimSuffix(one, "\n") + two, three}, 1, "says its hash is"},
		{"zeros", []string{head, one, strings.Repeat("\x00", 300) + "\n"}, 2, "does not end in"},
		{"body not JSON", []string{head, line(1, "a", `{x}`, hashOf(head))}, 1, "not JSON"},
		{"no kind", []string{head, line(1, "", `1`, hashOf(head))}, 1, "no valid kind"},
		{"upper case kind", []string{head, line(1, "A", `1`, hashOf(head))}, 1, "no valid kind"},
		{"too long", []string{head, one, strings.Repeat(" ", journal.MaxLine) + "\n"}, 2, "longer than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			writeLines(t, dir, tt.lines...)
			before := strings.Join(tt.lines, "")
			good := strings.Join(tt.lines[:tt.seq], "")

			_, err := journal.Open(dir, journal.Options{})
			var d *journal.DamageError
			if !errors.As(err, &d) {
				t.Fatalf("open: %v", err)
			}
			if d.Seq != tt.seq || d.Offset != int64(len(good)) || !strings.Contains(d.What, tt.what) {
				t.Errorf("damage %+v, want record %d at %d: %s", d, tt.seq, len(good), tt.what)
			}
			if !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), "--from-last-good") {
				t.Errorf("unhelpful: %v", err)
			}
			if b, _ := os.ReadFile(filepath.Join(dir, journal.FileName)); string(b) != before {
				t.Error("refusing has changed the journal")
			}
			n := uint64(0)
			for _, err := range journal.Read(journal.OS(), dir) {
				if err != nil {
					if !errors.As(err, &d) || n != tt.seq {
						t.Errorf("read: %v after %d records", err, n)
					}
					break
				}
				n++
			}

			j, err := journal.Open(dir, journal.Options{FromLastGood: true})
			if err != nil {
				t.Fatal(err)
			}
			rec := j.Recovery()
			if rec.Damage == nil || rec.Damage.Seq != tt.seq || !strings.Contains(rec.String(), rec.Aside) {
				t.Errorf("recovery %+v", rec)
			}
			if aside, err := os.ReadFile(rec.Aside); err != nil || good+string(aside) != before {
				t.Errorf("set aside %d bytes of %d: %v", len(aside), len(before)-len(good), err)
			}
			for c, err := range journal.Decode[journal.Cut](j.Records(journal.KindCut)) {
				want := journal.Cut{Offset: int64(len(good)), Bytes: int64(len(before) - len(good)),
					Aside: filepath.Base(rec.Aside), Damage: d.What}
				if err != nil || c.Seq != tt.seq || c.Body != want {
					t.Errorf("record of the cut %+v, want %+v: %v", c, want, err)
				}
			}
			if h := j.Head(); h.Seq != tt.seq {
				t.Errorf("head %+v, want %d", h, tt.seq)
			}
			closeJournal(t, j)
			j, err = journal.Open(dir, journal.Options{})
			if err != nil {
				t.Fatalf("open again: %v", err)
			}
			closeJournal(t, j)
		})
	}
}

func TestEarlierAsideStays(t *testing.T) {
	dir := t.TempDir()
	head := line(0, "journal.opened", `{"format":"cohort-journal","version":1,"run":""}`, "")
	for _, want := range []string{"journal.cut-1.jsonl", "journal.cut-1.2.jsonl", "journal.cut-1.3.jsonl"} {
		writeLines(t, dir, head, want+"\n")
		j, err := journal.Open(dir, journal.Options{FromLastGood: true})
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(dir, want))
		if err != nil || string(b) != want+"\n" {
			t.Errorf("%s holds %q: %v", want, b, err)
		}
		closeJournal(t, j)
	}
}

// Whatever is cut off the last line, the records before it are there and the
// next one follows them.
func TestIncompleteLastRecordIsCut(t *testing.T) {
	dir := t.TempDir()
	j := create(t, dir, journal.Options{})
	appendRounds(t, j, 0, 3)
	closeJournal(t, j)
	path := filepath.Join(dir, journal.FileName)
	whole, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	last := bytes.LastIndexByte(whole[:len(whole)-1], '\n') + 1
	for n := last + 1; n < len(whole); n++ {
		if err := os.WriteFile(path, whole[:n], 0o644); err != nil {
			t.Fatal(err)
		}
		if got := fmt.Sprint(rounds(t, dir)); got != "[0 1]" {
			t.Fatalf("cut at %d: a reader sees rounds %s", n, got)
		}
		j, err := journal.Open(dir, journal.Options{FS: faultfs.New(journal.OS())})
		if err != nil {
			t.Fatalf("cut at %d: %v", n, err)
		}
		if r := j.Recovery(); r.CutAt != int64(last) || r.CutBytes != int64(n-last) || !strings.Contains(r.String(), "incomplete") {
			t.Fatalf("cut at %d: recovery %+v, want byte %d", n, r, last)
		}
		appendRounds(t, j, 7, 8)
		closeJournal(t, j)
		if got := fmt.Sprint(rounds(t, dir)); got != "[0 1 7]" {
			t.Fatalf("cut at %d: rounds %s", n, got)
		}
	}
}

func TestCreateAfterKilledCreate(t *testing.T) {
	head := line(0, "journal.opened", `{"format":"cohort-journal","version":1,"run":""}`, "")
	for _, left := range []string{"", head[:1], head[:len(head)-1]} {
		dir := t.TempDir()
		writeLines(t, dir, left)
		if _, err := journal.Open(dir, journal.Options{}); !errors.Is(err, journal.ErrEmpty) {
			t.Errorf("open of %q: %v", left, err)
		}
		j := create(t, dir, journal.Options{})
		appendRounds(t, j, 0, 1)
		closeJournal(t, j)
		if got := fmt.Sprint(rounds(t, dir)); got != "[0]" {
			t.Errorf("rounds %s", got)
		}
	}
}

// Many appenders share syncs; each record is there once, in a valid chain, and
// the order of one appender's records is kept. A reader follows meanwhile.
func TestConcurrentAppend(t *testing.T) {
	const writers, each = 16, 25
	dir := t.TempDir()
	fsys := &countingFS{FS: journal.OS()}
	j := create(t, dir, journal.Options{FS: fsys, Now: func() time.Time { return time.Unix(0, 0) }})
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range each {
				r, err := j.Append("round.closed", round{Round: i, Note: fmt.Sprint(w)})
				if err != nil {
					t.Error(err)
					return
				}
				if h := j.Head(); h.Seq < r.Seq {
					t.Errorf("record %d returned, but the head is %d", r.Seq, h.Seq)
				}
			}
		})
	}
	wg.Go(func() {
		for range 20 {
			for _, err := range j.Records() {
				if err != nil {
					t.Error(err)
				}
			}
			for _, err := range journal.Read(journal.OS(), dir) {
				if err != nil {
					t.Error(err)
				}
			}
		}
	})
	wg.Wait()
	closeJournal(t, j)
	next := make(map[string]int)
	n := 0
	for e, err := range journal.Decode[round](journal.Read(journal.OS(), dir, "round.closed")) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Body.Round != next[e.Body.Note] {
			t.Errorf("writer %s: record %d, want %d", e.Body.Note, e.Body.Round, next[e.Body.Note])
		}
		next[e.Body.Note]++
		n++
	}
	if n != writers*each {
		t.Errorf("%d records, want %d", n, writers*each)
	}
	if s := fsys.syncs.Load(); s >= writers*each {
		t.Errorf("%d syncs for %d records: nothing is shared", s, n)
	}
}

// A journal of format version 1, kept in the tree: it must stay readable.
func TestGolden(t *testing.T) {
	b, err := os.ReadFile("testdata/v1.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	s := journal.NewScanner(bytes.NewReader(b), "v1.jsonl")
	for {
		if _, err = s.Next(); err != nil {
			break
		}
	}
	const want = "{2 875f11bbe7b57c176c0cd5da622e5f20031b4f7a743741244acd3d7a1fc9d6e2}"
	if head, _ := s.Head(); err != io.EOF || fmt.Sprint(head) != want {
		t.Errorf("head %v, want %s: %v", head, want, err)
	}
}

// Reading from the middle of a journal finds the same records as reading it all.
func TestFrom(t *testing.T) {
	dir := t.TempDir()
	j := create(t, dir, journal.Options{FS: faultfs.New(journal.OS())})
	var entries []journal.Entry
	for i := range 2500 {
		entries = append(entries, journal.Entry{Kind: "round.closed", Body: round{Round: i}})
	}
	if _, err := j.AppendAll(entries); err != nil {
		t.Fatal(err)
	}
	check := func() {
		t.Helper()
		var all []journal.Record
		for r, err := range j.Records() {
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, r)
		}
		for _, from := range []uint64{0, 1, 1023, 1024, 1025, 2047, 2048, 2500, 2501, 9999} {
			next := from
			for r, err := range j.From(from) {
				if err != nil || r.Seq != next || r.Offset != all[next].Offset || r.Hash != all[next].Hash {
					t.Fatalf("from %d: record %d is %+v: %v", from, next, r, err)
				}
				next++
			}
			if want := max(from, 2501); next != want {
				t.Errorf("from %d: ended before %d, want %d", from, next, want)
			}
		}
	}
	check()
	closeJournal(t, j)
	var err error
	if j, err = journal.Open(dir, journal.Options{FS: faultfs.New(journal.OS())}); err != nil {
		t.Fatal(err)
	}
	check()
	closeJournal(t, j)
}

// A journal that is there is gone on with; none, and one without a complete header, is made.
func TestOpenOrCreate(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, journal.FileName), []byte("{\"v\":"), 0o644); err != nil {
		t.Fatal(err)
	}
	for i, at := range []string{dir, filepath.Join(dir, "new"), dir} {
		j, err := journal.OpenOrCreate(at, journal.Options{Run: "r"})
		if err != nil {
			t.Fatal(err)
		}
		if seq := j.Head().Seq; seq != uint64(i/2) {
			t.Errorf("journal %d has record %d last", i, seq)
		}
		if _, err := j.Append("round.closed", round{}); err != nil {
			t.Fatal(err)
		}
		closeJournal(t, j)
	}
}
