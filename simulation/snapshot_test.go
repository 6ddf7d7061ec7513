package simulation

import (
	"bytes"
	"encoding/json"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/weights"
	"pgregory.net/rapid"
)

// state draws a state of a few small sets.
func state(rt *rapid.T) federated.State {
	s := federated.State{Round: rapid.IntRange(0, 9).Draw(rt, "round"), Step: rapid.IntRange(0, 3).Draw(rt, "step"),
		Version: rapid.IntRange(0, 9).Draw(rt, "version"), Sets: map[string]weights.Set{}}
	for _, name := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"w", "c", "stats", "first"}), 0, 3, rapid.ID).Draw(rt, "sets") {
		var set weights.Set
		for _, tensor := range rapid.SliceOfNDistinct(rapid.SampledFrom([]string{"z.weight", "a.bias", "a/b"}), 0, 3, rapid.ID).Draw(rt, "tensors") {
			v := rapid.SliceOfN(rapid.Float32(), 2, 2).Draw(rt, "values")
			set.Put(tensor, weights.Of32(v, 2))
		}
		s.Sets[name] = set
	}
	if rapid.Bool().Draw(rt, "meta") {
		s.Meta = json.RawMessage(`{"mu":0.1,"text":"a\\u003cb"}`)
	}
	return s
}

// A snapshot comes back from its file as it was.
func TestSnapshotRoundTrip(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		want := federated.Snapshot{State: state(rt), Clock: time.Duration(rapid.Int64Range(0, 1e15).Draw(rt, "clock")), NextID: rapid.IntRange(0, 99).Draw(rt, "next")}
		for i := range rapid.IntRange(0, 3).Draw(rt, "bases") {
			want.Bases = append(want.Bases, state(rt))
			want.Flights = append(want.Flights, federated.Flight{ID: 10 * i, Member: i, Base: i, Issued: time.Duration(i)})
		}
		keeps := map[int]int{3: 1, 70000: 2}
		var b bytes.Buffer
		if err := writeSnapshot(&b, want, keeps); err != nil {
			rt.Fatal(err)
		}
		got, kept, err := readSnapshot(&b)
		if err != nil {
			rt.Fatal(err)
		}
		if got.State.Digest() != want.State.Digest() || got.Clock != want.Clock || got.NextID != want.NextID ||
			!slices.Equal(got.Flights, want.Flights) || !maps.Equal(kept, keeps) || len(got.Bases) != len(want.Bases) {
			rt.Fatalf("%+v became %+v", want, got)
		}
		for i := range want.Bases {
			if got.Bases[i].Digest() != want.Bases[i].Digest() {
				rt.Fatalf("base %d: %+v became %+v", i, want.Bases[i], got.Bases[i])
			}
		}
	})
	for _, name := range []string{"", "a/b", "@0"} { // would be mistaken for another set's tensors
		s := federated.Snapshot{State: federated.State{Sets: map[string]weights.Set{name: {}}}}
		if err := writeSnapshot(&bytes.Buffer{}, s, nil); err == nil {
			t.Errorf("a set called %q: no error", name)
		}
	}
	for what, meta := range map[string]map[string]string{
		"a plain model": nil, "broken": {snapshotKey: "{"}, "of the future": {snapshotKey: `{"schema":9}`},
	} {
		var b bytes.Buffer
		if err := weights.Write(&b, weights.NewSet(0), meta); err != nil {
			t.Fatal(err)
		}
		if _, _, err := readSnapshot(&b); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}

// What clients keep is saved with every change, and comes back; files that no checkpoint needs are removed.
func TestRecall(t *testing.T) {
	set := func(v float32) *weights.Set {
		var s weights.Set
		s.Put("a/b", weights.Of32([]float32{v}, 1))
		return &s
	}
	fsys, dir := journal.OS(), t.TempDir()
	m := NewRecall()
	var manifests []map[int]int
	for round, clients := range [][]int{{0, 1, 2}, {1}, {}, {0, 2}} {
		for _, c := range clients {
			if err := m.Store(c, set(float32(10*round+c))); err != nil {
				t.Fatal(err)
			}
		}
		keeps, err := m.save(fsys, dir, round)
		if err != nil {
			t.Fatal(err)
		}
		manifests = append(manifests, keeps)
	}
	for i, want := range [][]float32{{0, 1, 2}, {0, 11, 2}, {0, 11, 2}, {30, 11, 32}} {
		back := NewRecall()
		if err := back.load(fsys, dir, manifests[i]); err != nil {
			t.Fatal(err)
		}
		for c, v := range want {
			s, err := back.Load(c)
			if err != nil || s == nil || !s.Equal(*set(v)) {
				t.Errorf("after round %d client %d keeps %v, want %v", i, c, s, v)
			}
		}
		if back.Clients() != 3 {
			t.Errorf("%d clients keep something, want 3", back.Clients())
		}
	}
	if err := sweep(fsys, dir, manifests[3]); err != nil {
		t.Fatal(err)
	}
	entries, err := fsys.ReadDir(dir)
	if err != nil || len(entries) != 2 { // rounds 1 and 3
		t.Errorf("files %v, error %v", entries, err)
	}
	if err := NewRecall().load(fsys, dir, manifests[0]); err == nil {
		t.Error("a file that is gone: no error")
	}
	if err := NewRecall().load(fsys, dir, map[int]int{9: 1}); err == nil {
		t.Error("a client that its file does not hold: no error")
	}
	if s, err := m.Load(77); s != nil || err != nil {
		t.Errorf("a client that keeps nothing: %v, %v", s, err)
	}
	if m.Store(1, nil) == nil {
		t.Error("storing nothing: no error")
	}
}
