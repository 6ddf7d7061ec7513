package journal_test

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/journal/faultfs"
)

func keyOf(b byte) func() ([32]byte, error) {
	return func() ([32]byte, error) { return [32]byte{b}, nil }
}

// result is the entry of a sealed result, and end that of a phase, which hides how many there were.
func result(name string) journal.Entry {
	return journal.Entry{Kind: "result.received", Body: map[string]string{"member": name}, Seal: 256}
}

func end(n int) journal.Entry {
	return journal.Entry{Kind: "phase.closed", Body: round{Round: n}, Seal: 1024, Fill: 8, Filler: 256}
}

// sealedJournal has two phases: one of two results, one of five.
func sealedJournal(t *testing.T, dir string) {
	t.Helper()
	j := create(t, dir, journal.Options{Run: "r", Now: clock(), Key: keyOf(1)})
	for n, names := range [][]string{{"a", "clinic-with-a-long-name"}, {"a", "b", "c", "d", "e"}} {
		if _, err := j.Append("phase.opened", round{Round: n}); err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if _, err := j.AppendAll([]journal.Entry{result(name)}); err != nil {
				t.Fatal(err)
			}
		}
		recs, err := j.AppendAll([]journal.Entry{end(n)})
		if err != nil || recs[0].Kind != "phase.closed" || recs[0].Hash != j.Head().Hash || !recs[0].Sealed() {
			t.Fatalf("%+v %v", recs, err)
		}
	}
	closeJournal(t, j)
}

// told is what the records of a journal say.
func told(seq iter.Seq2[journal.Record, error]) (string, error) {
	var out []string
	for r, err := range seq {
		if err != nil {
			return strings.Join(out, "\n"), err
		}
		out = append(out, fmt.Sprintf("%d %s %s", r.Seq, r.Kind, r.Body))
	}
	return strings.Join(out, "\n"), nil
}

const sealedTale = `0 journal.opened {"format":"cohort-journal","version":1,"run":"r"}
1 phase.opened {"round":0}
2 result.received {"member":"a"}
3 result.received {"member":"clinic-with-a-long-name"}
9 phase.closed {"round":0}
10 phase.opened {"round":1}
11 result.received {"member":"a"}
12 result.received {"member":"b"}
13 result.received {"member":"c"}
14 result.received {"member":"d"}
15 result.received {"member":"e"}
18 phase.closed {"round":1}`

// Whoever has the key reads what was written, with its times; whoever lacks it can check the chain, and sees two phases that
// differ in nothing but what was in the open.
func TestSealed(t *testing.T) {
	dir := t.TempDir()
	sealedJournal(t, dir)
	if got, err := told(journal.Opened(journal.Read(journal.OS(), dir), keyOf(1))); got != sealedTale || err != nil {
		t.Errorf("with the key:\n%s\n%v", got, err)
	}
	if got, err := told(journal.Opened(journal.Read(journal.OS(), dir), keyOf(1), "phase.closed")); got != "9 phase.closed {\"round\":0}\n18 phase.closed {\"round\":1}" || err != nil {
		t.Errorf("one kind:\n%s\n%v", got, err)
	}
	var shapes [2][]string
	phase := -1
	var last journal.Record
	for r, err := range journal.Read(journal.OS(), dir) {
		if err != nil {
			t.Fatal(err)
		}
		switch r.Kind {
		case "phase.opened":
			phase++
		case journal.KindSealed:
			if !r.Time.Equal(last.Time) {
				t.Errorf("record %d shows a time of its own", r.Seq)
			}
			shapes[phase] = append(shapes[phase], fmt.Sprint(r.Kind, len(r.Body)))
		}
		last = r
	}
	if a, b := fmt.Sprint(shapes[0]), fmt.Sprint(shapes[1]); a != b || len(shapes[0]) != 8 {
		t.Errorf("two results look like\n%s\nfive like\n%s", a, b)
	}
	text, err := os.ReadFile(filepath.Join(dir, journal.FileName))
	if err != nil || bytes.Contains(text, []byte("clinic")) || bytes.Contains(text, []byte("result")) || bytes.Contains(text, []byte("filling")) {
		t.Errorf("what is sealed can be read: %v\n%s", err, text)
	}

	// It goes on where it was, and the writer reads its own.
	j, err := journal.Open(dir, journal.Options{Run: "r", Now: clock(), Key: keyOf(1)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.AppendAll([]journal.Entry{result("f"), end(2)}); err != nil {
		t.Fatal(err)
	}
	if got, err := told(j.Records()); got != sealedTale+"\n19 result.received {\"member\":\"f\"}\n26 phase.closed {\"round\":2}" || err != nil {
		t.Errorf("the writer reads\n%s\n%v", got, err)
	}
	if got, err := told(j.From(26)); got != "26 phase.closed {\"round\":2}" || err != nil {
		t.Errorf("from the last: %s %v", got, err)
	}
	n := 0
	for r, err := range j.Lines(0) {
		if err != nil || n != int(r.Seq) {
			t.Fatalf("line %d is record %d: %v", n, r.Seq, err)
		}
		n++
	}
	if n != 27 {
		t.Errorf("%d lines", n)
	}
	for r, err := range j.Records("phase.closed") { // as it stands in the file, though it was opened
		if line := r.Line(); err != nil || !bytes.Contains(line, []byte(`"kind":"sealed"`)) || !bytes.Contains(line, []byte(r.Hash.String())) {
			t.Errorf("line of record %d: %.100s %v", r.Seq, line, err)
		}
	}
	closeJournal(t, j)
}

// A sealed record that is read without its key, with another one, or in another place says so.
func TestSealedRefusals(t *testing.T) {
	dir := t.TempDir()
	sealedJournal(t, dir)
	lost := errors.New("secret.key is missing")
	for _, c := range []struct {
		key  func() ([32]byte, error)
		want string
	}{
		{nil, "journal record 2 is sealed: the journal has sealed records, and there is no key for them"},
		{keyOf(2), "journal record 2 is sealed: the key does not open it: it is another run's, or the record was sealed in another place"},
		{func() ([32]byte, error) { return [32]byte{}, lost }, "journal record 2 is sealed: secret.key is missing"},
	} {
		if _, err := told(journal.Opened(journal.Read(journal.OS(), dir), c.key)); err == nil || err.Error() != c.want {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
	j, err := journal.Open(dir, journal.Options{Run: "r"}) // the chain needs no key
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.AppendAll([]journal.Entry{result("x")}); err == nil || !strings.Contains(err.Error(), "there is no key") {
		t.Errorf("sealed without a key: %v", err)
	}
	if _, err := j.Append("other", 1); err != nil {
		t.Errorf("in the open: %v", err)
	}
	closeJournal(t, j)

	// The body of record 2 in the place of record 1, of another run, and changed.
	var bodies []string
	for r, err := range journal.Read(journal.OS(), dir, journal.KindSealed) {
		if err != nil {
			t.Fatal(err)
		}
		bodies = append(bodies, string(r.Body))
	}
	head := func(run string) string {
		return line(0, "journal.opened", fmt.Sprintf(`{"format":"cohort-journal","version":1,"run":%q}`, run), "")
	}
	next := func(before, kind, body string, seq int) string { return before + line(seq, kind, body, hashOf(before)) }
	flipped := []byte(bodies[0])
	flipped[100] ^= 1
	for name, text := range map[string]string{
		"another place": next(head("r"), journal.KindSealed, bodies[0], 1),
		"another run":   next(next(head("q"), "phase.opened", "1", 1), journal.KindSealed, bodies[0], 2),
		"a changed one": next(next(head("r"), "phase.opened", "1", 1), journal.KindSealed, string(flipped), 2),
		"no text":       next(next(head("r"), "phase.opened", "1", 1), journal.KindSealed, `{}`, 2),
		"a short one":   next(next(head("r"), "phase.opened", "1", 1), journal.KindSealed, `"AAAA"`, 2),
	} {
		dir := t.TempDir()
		writeLines(t, dir, text)
		if got, err := told(journal.Opened(journal.Read(journal.OS(), dir), keyOf(1))); err == nil || !strings.Contains(err.Error(), "is sealed: ") {
			t.Errorf("%s: %s %v", name, got, err)
		}
	}
	if got, err := told(journal.Opened(func(yield func(journal.Record, error) bool) {
		for r, err := range journal.Read(journal.OS(), dir, "journal.opened", "phase.opened", journal.KindSealed) {
			if !yield(r, err) {
				return
			}
		}
	}, keyOf(1))); err != nil || !strings.HasPrefix(got, sealedTale) {
		t.Errorf("the right one: %s %v", got, err)
	}
}

// No two records are sealed alike, even if the same thing is written twice at the same place, as after a restored copy.
func TestSealedTwice(t *testing.T) {
	seen := map[string]bool{}
	for range 3 {
		dir := t.TempDir()
		j := create(t, dir, journal.Options{Run: "r", Now: clock(), Key: keyOf(1)})
		if _, err := j.AppendAll([]journal.Entry{result("a")}); err != nil {
			t.Fatal(err)
		}
		for r, err := range j.Lines(1) {
			if err != nil || seen[string(r.Body[:60])] {
				t.Errorf("sealed alike: %s %v", r.Body, err)
			}
			seen[string(r.Body[:60])] = true
		}
		closeJournal(t, j)
	}
}

// After a crash at any operation what was acknowledged is there, and the journal goes on.
func TestSealedCrash(t *testing.T) {
	work := func(dir string, fsys journal.FS) (acked int, err error) {
		o := journal.Options{FS: fsys, Run: "r", Now: clock(), Key: keyOf(1)}
		j, err := journal.Open(dir, o)
		if err != nil {
			if j, err = journal.Create(dir, o); err != nil {
				return 0, err
			}
		}
		defer func() { err = errors.Join(err, j.Close()) }()
		for _, err := range j.Records("phase.closed") {
			if err != nil {
				return acked, err
			}
			acked++
		}
		for ; acked < 3; acked++ {
			if _, err := j.AppendAll([]journal.Entry{result("a")}); err != nil {
				return acked, err
			}
			if _, err := j.AppendAll([]journal.Entry{end(acked)}); err != nil {
				return acked, err
			}
		}
		return acked, nil
	}
	clean := faultfs.New(journal.OS())
	if _, err := work(t.TempDir(), clean); err != nil {
		t.Fatal(err)
	}
	for i, e := range clean.Events() {
		for _, rule := range []faultfs.Rule{{N: i + 1, Crash: faultfs.PowerLoss}, {N: i + 1, Crash: faultfs.Kill, After: true}, {N: i + 1, Crash: faultfs.Kill, Part: e.Bytes / 2}} {
			dir := t.TempDir()
			f := faultfs.New(journal.OS())
			f.Add(rule)
			acked, err := work(dir, f)
			if err == nil {
				continue
			}
			if n, err := work(dir, faultfs.New(journal.OS())); n != 3 || err != nil {
				t.Fatalf("%+v, after %d: going on: %d %v", rule, acked, n, err)
			}
			sealed := 0
			for _, err := range journal.Read(journal.OS(), dir, journal.KindSealed) {
				if err != nil {
					t.Fatal(err)
				}
				sealed++
			}
			if sealed%8 != 0 {
				t.Errorf("%+v: %d sealed records tell of results", rule, sealed)
			}
		}
	}
}
