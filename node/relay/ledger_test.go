package relay

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/transport"
)

func message(t testing.TB, k identity.Key, from string, body transport.Body, refs ...transport.Ref) string {
	t.Helper()
	e := transport.Envelope{Fed: k.Public().String(), Run: "run", Step: "train", From: from, Refs: refs}
	if err := e.Put(body); err != nil {
		t.Fatal(err)
	}
	msg, err := transport.Seal(k, e)
	if err != nil {
		t.Fatal(err)
	}
	return string(msg)
}

// describe writes what a ledger says.
func (l *ledger) describe() string {
	text := fmt.Sprint("through ", l.through, "; leaves ", l.leaves, "; ")
	for _, k := range slices.SortedFunc(maps.Keys(l.jobs), func(a, b key) int { return a.order - b.order }) {
		x := l.jobs[k]
		text += fmt.Sprintf("order %d of %s in %v: result %v, handed in %v; ", k.order, x.leaf, x.phase, x.result != nil, x.have)
	}
	return text
}

// A ledger that is opened again says what it said, after every record; what is over is forgotten and not begun anew, and the
// blobs of all that is not are needed.
func TestLedger(t *testing.T) {
	k, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	l, err := openLedger(dir, "region", k.Public(), journal.Options{})
	if err != nil {
		t.Fatal(err)
	}
	ref := func(s string) transport.Ref {
		return transport.Ref{Hash: transport.DigestOf([]byte(s)), Bytes: 1, Media: "x"}
	}
	task := func(order int) passed {
		return passed{"run", order, fmt.Sprint("leaf-", order%2), 0, "train", message(t, k, "", &transport.Task{Order: order}, ref("model"))}
	}
	steps := []struct {
		kind string
		body any
		want string // ends of what is known afterwards
	}{
		{KindDelegated, delegated{message(t, k, "", &transport.Delegation{Number: 1, Relay: "region", Key: k.Public().String(), URL: "https://a.example.org",
			Leaves: []transport.Leaf{{Name: "leaf-0", Key: k.Public().String()}, {Name: "leaf-1"}}})}, "leaf-1:]; "},
		{KindPassed, task(4), "order 4 of leaf-0 in {run 0 train}: result false, handed in false; "},
		{KindPassed, task(5), "order 5 of leaf-1 in {run 0 train}: result false, handed in false; "},
		{KindKept, kept{"run", 4, message(t, k, "leaf-0", &transport.Result{Order: 4}, ref("result"))}, "train}: result false, handed in false; "},
		{KindSum, sum{Run: "run", Orders: []int{4}, Ref: ref("sum")}, "train}: result false, handed in false; "},
		{KindSettled, settled{Run: "run", Have: []int{4}}, "result true, handed in true; order 5 of leaf-1 in {run 0 train}: result false, handed in false; "},
		{KindSettled, settled{Run: "run", Out: []int{5}}, "result true, handed in true; "},
		{KindClosed, closed{"run", 5}, "leaf-1:]; "},
		{KindPassed, task(6), "order 6 of leaf-0 in {run 0 train}: result false, handed in false; "},
		{KindClosed, closed{"run", 6}, "leaf-1:]; "},
		{"of.a.later.version", struct{}{}, "leaf-1:]; "},
	}
	for i, s := range steps {
		if err := l.note(s.kind, s.body); err != nil {
			t.Fatal(err)
		}
		said := l.describe()
		if len(said) < len(s.want) || said[len(said)-len(s.want):] != s.want {
			t.Errorf("after %s %d: %s\nwant … %s", s.kind, i, said, s.want)
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if l, err = openLedger(dir, "region", k.Public(), journal.Options{}); err != nil {
			t.Fatal(err)
		}
		if again := l.describe(); again != said {
			t.Errorf("opened again after %s: %s\nwas %s", s.kind, again, said)
		}
		needed := l.needed()
		if want := len(l.jobs) > 0; needed[ref("model").Hash] != want {
			t.Errorf("after %s %d: the model is needed: %v", s.kind, i, !want)
		}
	}
	if who, ok := l.who(k.Public()); !ok || who != "leaf-0" {
		t.Errorf("the key is %q's", who)
	}
	if _, ok := l.keyOf("leaf-1"); ok {
		t.Error("a leaf that is not admitted has a key")
	}
	if _, known, over := l.find("run", 5); known || !over {
		t.Error("order 5 is not over")
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

// counting is a courier that counts, and fails at first.
type counting struct {
	downloads atomic.Int64
	fails     int64
}

func (c *counting) Download(_ context.Context, to blob.Store, h blob.Hash) error {
	if c.downloads.Add(1) <= c.fails {
		return errors.New("the line is bad")
	}
	return nil
}

func (c *counting) Upload(context.Context, blob.Store, blob.Hash) error { return nil }

// What many leaves need comes down once.
func TestFetchOnce(t *testing.T) {
	c := &counting{fails: 1}
	r := &Relay{courier: c, up: true, changed: make(chan struct{}), fetching: map[transport.Digest]*fetch{}}
	var all sync.WaitGroup
	for range 20 {
		all.Go(func() {
			if err := r.fetch(t.Context(), transport.Ref{Hash: transport.DigestOf([]byte("model"))}); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := c.downloads.Load(); n < 2 || n > 10 { // one that fails, one that does not; a leaf may come long after that
		t.Errorf("%d downloads for 20 leaves", n)
	}
}
