package federated_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/weights"
	"pgregory.net/rapid"
)

// census is a method without learning: every member of a phase sends its index (modulo 1000) + 1, and the state is the sum of the means.
// It has one phase for every entry of phases.
type census struct {
	phases []federated.Phase
	fail   map[string]string // by member: why it fails in learning phases
}

func (c *census) Check(federated.Server) error { return nil }
func (c *census) Init(context.Context, federated.Server) (federated.State, error) {
	w := weights.NewSet(1)
	w.Put("x", weights.Of64([]float64{0}, 1))
	return federated.State{Sets: map[string]weights.Set{"w": w}, Meta: json.RawMessage(` { "a" : 1 } `)}, nil
}
func (c *census) Next(s federated.State) (federated.Phase, bool) {
	if s.Step >= len(c.phases) {
		return federated.Phase{}, false
	}
	p := c.phases[s.Step]
	p.Folds = []federated.Fold{{Name: "w", Like: s.Sets["w"]}}
	return p, true
}
func (c *census) Task(s federated.State, p federated.Phase, m federated.Member) (federated.Task, error) {
	return federated.Task{Sets: s.Sets}, nil
}
func (c *census) Client() federated.Client { return counter{c} }
func (c *census) Finish(_ context.Context, _ federated.Server, s federated.State, p federated.Phase, sums map[string]*federated.Sum, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	if p.Who.Fraction > 0 || p.Who.Everyone {
		if sums[""] == nil || sums[""].N != len(roll.Folded) || len(roll.Folded) == 0 {
			return s, federated.Diagnostics{}, fmt.Errorf("Finish without results: %v", roll)
		}
		s = s.With("w", sums[""].Total["w"].AddMean(s.Sets["w"]))
	}
	s.Version++
	return s, federated.Diagnostics{}, nil
}

type counter struct{ c *census }

func (k counter) Run(_ context.Context, at federated.Local, t federated.Task, _ *weights.Set) (federated.Result, error) {
	if why := k.c.fail[at.Member.Name]; why != "" {
		return federated.Result{}, errors.New(why)
	}
	x := weights.NewSet(1)
	x.Put("x", weights.Of64([]float64{float64(at.Member.Index%1000 + 1)}, 1))
	return federated.Result{Addends: map[string]weights.Set{"w": x}, Scalars: map[string]float64{"index": float64(at.Member.Index % 1000)}}, nil
}

// crowd has n members; member k has k mod 7 examples.
func crowd(n int) *fedtest.World {
	data := &dataset.Examples{Name: "nothing", Shape: []int{1}, F32: make([]float32, 10)}
	w := &fedtest.World{Seed: 5}
	for k := range n {
		w.Members = append(w.Members, fedtest.Holder{Name: fmt.Sprintf("m%d", k), Train: dataset.View{Data: data, Rows: make([]int32, k%7)}})
	}
	return w
}

func learn(who federated.Selection) *census {
	return &census{phases: []federated.Phase{{Name: "train", Who: who}}}
}

func do(t testing.TB, w *fedtest.World, c *census, rounds int, change func(*fedtest.Run)) *fedtest.Trace {
	t.Helper()
	r := &fedtest.Run{World: w, Algorithm: c, Config: federated.Config{Rounds: rounds}}
	if change != nil {
		change(r)
	}
	return r.Must(t)
}

// asked returns who was asked in each round of "train".
func asked(l *fedtest.Trace) (who [][]int) {
	for _, o := range l.Opened {
		if o.Phase == "train" {
			who = append(who, o.Selected)
		}
	}
	return who
}

func TestSelectionSizes(t *testing.T) {
	w := crowd(70) // of whom 60 have examples
	for _, c := range []struct {
		fraction float64
		up       bool
		want     int
	}{{0.1, false, 6}, {0.11, false, 6}, {0.11, true, 7}, {0.001, false, 1}, {1, false, 60}, {0.35, true, 21}} {
		l := do(t, w, learn(federated.Selection{Fraction: c.fraction, RoundUp: c.up}), 5, nil)
		seen := map[string]bool{}
		for _, who := range asked(l) {
			if len(who) != c.want || !slices.IsSorted(who) {
				t.Errorf("fraction %g, up %t: %v asked, want %d in order", c.fraction, c.up, who, c.want)
			}
			for _, m := range who {
				if m%7 == 0 {
					t.Errorf("member %d has no examples and is asked", m)
				}
			}
			seen[fmt.Sprint(who)] = true
		}
		if c.want < 60 && len(seen) < 3 {
			t.Errorf("fraction %g: the same members again and again: %v", c.fraction, seen)
		}
	}
}

// Any selection is a set of eligible members of the right size, the same for the same seed.
func TestSelectionProperties(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		w := crowd(rapid.IntRange(1, 40).Draw(rt, "members"))
		w.Seed = rapid.Uint64().Draw(rt, "seed")
		odd := rapid.Bool().Draw(rt, "odd members only")
		who := federated.Selection{Fraction: rapid.Float64Range(0.01, 1).Draw(rt, "fraction"), RoundUp: rapid.Bool().Draw(rt, "up"),
			ByExamples: rapid.Bool().Draw(rt, "by examples")}
		if odd {
			who.Eligible = func(m federated.Member) bool { return m.Index%2 == 1 }
		}
		pool := 0
		for i := range w.Len() {
			if m := w.Member(i); m.Samples > 0 && (!odd || i%2 == 1) {
				pool++
			}
		}
		l := do(t, w, learn(who), 3, nil)
		again := do(t, w, learn(who), 3, nil)
		if !slices.Equal(l.Digests(), again.Digests()) {
			rt.Fatal("the same run differs")
		}
		for _, chosen := range asked(l) {
			if (len(chosen) == 0) != (pool == 0) || len(chosen) > pool || len(slices.Compact(slices.Clone(chosen))) != len(chosen) {
				rt.Fatalf("%v asked of %d", chosen, pool)
			}
			for _, i := range chosen {
				if w.Member(i).Samples == 0 || odd && i%2 == 0 {
					rt.Fatalf("member %d is asked", i)
				}
			}
		}
	})
}

// Members are drawn in proportion to their examples.
func TestByExamples(t *testing.T) {
	w := crowd(7) // 0 to 6 examples
	times := make([]int, 7)
	for _, who := range asked(do(t, w, learn(federated.Selection{Fraction: 0.01, ByExamples: true}), 2100, nil)) {
		times[who[0]]++
	}
	for k, n := range times {
		if want := 100 * k; n < want-6*10 || n > want+6*10 || k == 0 && n > 0 {
			t.Errorf("member with %d examples of 21 was drawn %d times of 2100, want about %d", k, n, want)
		}
	}
}

// If nobody can be asked, or nobody's result counts, the state stays as it is and the run says so.
func TestNobody(t *testing.T) {
	for what, c := range map[string]*census{
		"nobody is eligible": learn(federated.Selection{Fraction: 1, Eligible: func(federated.Member) bool { return false }}),
		"everybody fails":    {phases: []federated.Phase{{Name: "train", Who: federated.Selection{Everyone: true}}}, fail: map[string]string{"m0": "x", "m1": "x"}},
	} {
		l := do(t, crowd(2), c, 2, nil)
		for _, p := range l.Phases {
			if len(p.Notes) != 1 || !strings.Contains(p.Notes[0], "the model stays as it is") {
				t.Errorf("%s: notes %q", what, p.Notes)
			}
		}
		if l.Final.Version != 0 || l.Final.Sets["w"].Must("x").At(0) != 0 {
			t.Errorf("%s: the state has changed", what)
		}
	}
	if _, err := (&fedtest.Run{World: crowd(0), Algorithm: learn(federated.Selection{Everyone: true})}).Do(t.Context()); err == nil {
		t.Error("an empty population: no error")
	}
	if _, err := (&fedtest.Run{World: crowd(2), Algorithm: learn(federated.Selection{Fraction: 2}), Config: federated.Config{Rounds: 1}}).Do(t.Context()); err == nil {
		t.Error("fraction 2: no error")
	}
	// A phase that asks nobody is finished all the same. What a method keeps beside tensors is brought into one form, so that
	// digests are those of what comes back from a file.
	l := do(t, crowd(2), &census{phases: []federated.Phase{{Name: "test"}}}, 2, nil)
	if l.Final.Version != 2 {
		t.Errorf("a phase of the server alone was finished %d times, want 2", l.Final.Version)
	}
	if got := string(l.Final.Meta); got != `{"a":1}` {
		t.Errorf("meta data %q, want it without spaces", got)
	}
}

// after lets member k answer after k+1 minutes.
func after(o *federated.Order) time.Duration { return time.Duration(o.Member.Index+1) * time.Minute }

func TestQuorumAndDeadline(t *testing.T) {
	everyone := federated.Selection{Everyone: true}
	for _, c := range []struct {
		pace   federated.Pace
		folded string
		reason string
		closed time.Duration
	}{
		{federated.Pace{}, "0-9", "", 10 * time.Minute},
		{federated.Pace{Quorum: 0.45}, "0-4", "had not answered when 5 of 10 had", 5 * time.Minute},
		{federated.Pace{Deadline: 3 * time.Minute}, "0-2", "had not answered by the deadline of 3m0s", 3 * time.Minute},
		{federated.Pace{Deadline: time.Hour}, "0-9", "", 10 * time.Minute},
		{federated.Pace{Quorum: 0.2, Deadline: time.Hour}, "0-1", "had not answered when 2 of 10 had", 2 * time.Minute},
		{federated.Pace{Deadline: time.Second}, "", "had not answered by the deadline of 1s", time.Second},
	} {
		l := do(t, crowd(10), learn(everyone), 1, func(r *fedtest.Run) { r.Config.Pace, r.Members.Delay = c.pace, after })
		p := l.Phases[0]
		var folded []byte
		for _, f := range p.Folded {
			folded, _ = f.Members.MarshalText()
		}
		if p.Everyone {
			folded = []byte("0-9")
		}
		if string(folded) != c.folded || p.Closed != c.closed || p.Asked != 10 {
			t.Errorf("%+v: folded %s of %d, closed after %v; want %s and %v", c.pace, folded, p.Asked, p.Closed, c.folded, c.closed)
		}
		for _, f := range p.Failed {
			if f.Reason != c.reason {
				t.Errorf("%+v: %s %q, want %q", c.pace, f.Member, f.Reason, c.reason)
			}
		}
		if p.Traffic[0].Members != 10 || p.Traffic[0].Down != 80 {
			t.Errorf("%+v: traffic %+v; tasks went to 10 members, whoever answered", c.pace, p.Traffic)
		}
	}
}

// In a barrier phase everybody is waited for, at most a window at a time.
func TestBarrier(t *testing.T) {
	c := &census{phases: []federated.Phase{{Name: "eval", Who: federated.Selection{Everyone: true}, Barrier: true, Collect: []string{"index", "other"}}}}
	working, most := 0, 0
	var each federated.Each
	l := do(t, crowd(30), c, 1, func(r *fedtest.Run) {
		r.Algorithm = &watcher{census: c, roll: func(x federated.Roll) { each = x.Each }}
		r.Members.Shuffle = 3
		r.Config.Pace = federated.Pace{Quorum: 0.1, Deadline: time.Second, Staleness: 1, Discount: 1}
		r.Config.Window = 4
		r.Members.Delay = after
		r.Trace.Heard = func(string, int, int) { working-- }
		r.Members.Tamper = func(*federated.Answer) { working++; most = max(most, working) }
	})
	if !l.Phases[0].Everyone || most != 4 {
		t.Errorf("everyone %t, at most %d at a time; want true and 4", l.Phases[0].Everyone, most)
	}
	for i := range 30 {
		if len(each.Members) != 30 || int(each.Members[i]) != i || each.Values["index"][i] != float64(i) || !math.IsNaN(each.Values["other"][i]) {
			t.Fatalf("collected %+v", each)
		}
	}
	if got := l.Final.Sets["w"].Must("x").At(0); got != 15.5 {
		t.Errorf("mean %v, want 15.5", got)
	}
}

// slow lets member 1 take as long as 2½ answers of member 0.
func slow(o *federated.Order) time.Duration {
	return time.Minute + time.Duration(o.Member.Index)*90*time.Second
}

// Late answers count with their staleness, and not at all beyond it.
func TestStaleness(t *testing.T) {
	// One of two answers closes a round.
	for staleness, want := range map[int][]string{
		1: {"0:0", "0:1", "1 lost", "0:3"},
		2: {"0:0", "0:1", "1:0", "0:2"},
	} {
		l := do(t, crowd(2), &census{phases: []federated.Phase{{Name: "train", Who: federated.Selection{Everyone: true}}}}, 4, func(r *fedtest.Run) {
			r.Config.Pace = federated.Pace{Quorum: 0.5, Staleness: staleness}
			r.Members.Delay = slow
		})
		for i, p := range l.Phases {
			got := ""
			for _, f := range p.Folded {
				got += fmt.Sprintf("%d:%d ", f.Members[0], f.Base)
			}
			for _, f := range p.Failed {
				got += strings.TrimPrefix(f.Member, "m") + " lost "
				if !strings.Contains(f.Reason, "not folded before the model changed more than 1 times") {
					t.Errorf("staleness %d: reason %q", staleness, f.Reason)
				}
			}
			if !strings.Contains(got, want[i]) {
				t.Errorf("staleness %d, round %d: %q, want %q in it", staleness, i, got, want[i])
			}
		}
	}
}

// A discount weighs an answer that is s versions behind by (1+s)^−d.
func TestDiscount(t *testing.T) {
	var sums []federated.Sum
	c := &watcher{census: learn(federated.Selection{Everyone: true}), seen: func(s *federated.Sum) { sums = append(sums, *s) }}
	r := &fedtest.Run{World: crowd(2), Algorithm: c, Config: federated.Config{Rounds: 4, Pace: federated.Pace{Quorum: 0.5, Staleness: 2, Discount: 0.5}}}
	r.Members.Delay = slow
	r.Must(t)
	var got []uint64
	for _, s := range sums {
		if s.Unit != 1024 {
			t.Errorf("unit %d, want 1024", s.Unit)
		}
		got = append(got, s.Weight)
	}
	// Member 1 comes two versions late, 1024/√3 = 591.2, and member 0 one version late after it, 1024/√2 = 724.1.
	if want := []uint64{1024, 1024, 591, 724}; !slices.Equal(got, want) {
		t.Errorf("weights %v, want %v", got, want)
	}
}

type watcher struct {
	*census
	seen func(*federated.Sum)
	roll func(federated.Roll)
}

func (w *watcher) Finish(ctx context.Context, srv federated.Server, s federated.State, p federated.Phase, sums map[string]*federated.Sum, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	if w.seen != nil {
		w.seen(sums[""])
	}
	if w.roll != nil {
		w.roll(roll)
	}
	return w.census.Finish(ctx, srv, s, p, sums, roll)
}

// With two learning phases, an answer that comes while the other one is under way waits for its own.
func TestTwoLearningPhases(t *testing.T) {
	everyone := federated.Selection{Everyone: true}
	c := &census{phases: []federated.Phase{{Name: "one", Who: everyone}, {Name: "eval", Who: everyone, Barrier: true}, {Name: "two", Who: everyone}}}
	l := do(t, crowd(6), c, 6, func(r *fedtest.Run) {
		r.Config.Pace = federated.Pace{Quorum: 0.5, Staleness: 20}
		r.Members.Delay = after
	})
	for i, o := range l.Opened {
		for _, f := range l.Phases[i].Failed {
			t.Errorf("phase %s of version %d: %s failed: %s", o.Phase, o.Base, f.Member, f.Reason)
		}
		for _, s := range l.Phases[i].Folded {
			if s.Base%3 != o.Base%3 { // the version grows by 1 in every phase
				t.Errorf("phase %s of version %d folded results of version %d", o.Phase, o.Base, s.Base)
			}
		}
	}
	for i, snap := range l.Snapshots[:5] {
		r := &fedtest.Run{World: crowd(6), Algorithm: c, Config: federated.Config{Rounds: 6, Pace: federated.Pace{Quorum: 0.5, Staleness: 20}}, From: &snap}
		r.Members.Delay = after
		if got := r.Must(t).Digests(); !slices.Equal(got, l.Digests()[i+1:]) {
			t.Errorf("resumed after round %d with %d tasks in flight: other states", i, len(snap.Flights))
		}
	}
}

// A stopped run closes the round under way, says that it is the last, and goes on from there.
func TestStop(t *testing.T) {
	c := learn(federated.Selection{Fraction: 0.5})
	want := do(t, crowd(9), c, 4, nil)
	stop := make(chan struct{})
	r := &fedtest.Run{World: crowd(9), Algorithm: c, Config: federated.Config{Rounds: 4, Stop: stop}}
	r.Trace.OnPhase = func(p federated.PhaseClosed) {
		if p.Round == 1 {
			close(stop)
		}
	}
	l, err := r.Do(t.Context())
	if !errors.Is(err, federated.ErrStopped) || len(l.Rounds) != 2 || l.Rounds[0].Last || !l.Rounds[1].Last {
		t.Fatalf("error %v, rounds %+v", err, l.Rounds)
	}
	again := do(t, crowd(9), c, 4, func(r *fedtest.Run) { r.From = &l.Snapshots[1] })
	if !slices.Equal(again.Digests(), want.Digests()[2:]) || !again.Rounds[1].Last {
		t.Error("the rest of a stopped run differs")
	}
	if _, err := r.Do(t.Context()); !errors.Is(err, federated.ErrStopped) {
		t.Errorf("stopped before it began: %v", err)
	}
}

// What is on record of a phase stays a few bytes a member, whatever happens to them.
func TestRecordsStaySmall(t *testing.T) {
	n := 100_000
	if testing.Short() {
		n = 10_000
	}
	w := crowd(n)
	c := &census{phases: []federated.Phase{{Name: "eval", Who: federated.Selection{Everyone: true}, Barrier: true}}, fail: map[string]string{}}
	for k := 0; k < n; k += 2 {
		c.fail[fmt.Sprintf("m%d", k)] = strings.Repeat("the reason is long ", 100)
	}
	l := do(t, w, c, 1, nil)
	p := l.Phases[0]
	b, err := json.Marshal(p)
	if err != nil {
		t.Fatal(err)
	}
	if len(b) > 10*n+700*federated.MaxTold || len(p.Failed) != federated.MaxTold || len(p.Lost) != n/2 || len(p.Folded[0].Members) != n/2 {
		t.Errorf("%d bytes, %d failures told, %d lost, %d folded", len(b), len(p.Failed), len(p.Lost), len(p.Folded[0].Members))
	}
	if len([]rune(p.Failed[0].Reason)) > 501 || len(p.Notes) == 0 || !strings.Contains(p.Notes[0], fmt.Sprintf("%d more members failed", n/2-federated.MaxTold)) {
		t.Errorf("reason of %d letters, notes %q", len(p.Failed[0].Reason), p.Notes)
	}
	clear(c.fail)
	if b, err := json.Marshal(do(t, w, c, 1, nil).Phases[0]); err != nil || len(b) > 500 {
		t.Errorf("%d bytes for a phase of everybody, error %v", len(b), err)
	}
}

func TestIndices(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		m := rapid.MapOf(rapid.IntRange(0, 60), rapid.Bool()).Draw(rt, "members")
		want := federated.Indices(slices.Sorted(maps.Keys(m)))
		b, err := json.Marshal(want)
		if err != nil {
			rt.Fatal(err)
		}
		var got federated.Indices
		if err := json.Unmarshal(b, &got); err != nil || !slices.Equal(got, want) {
			rt.Fatalf("%v became %s and then %v, error %v", want, b, got, err)
		}
	})
	for _, s := range []string{"x", "1-", "3-1", "1,1", "5,2", "-1", "0-99999999999", "0-16777216", "1,,2"} {
		var got federated.Indices
		if err := got.UnmarshalText([]byte(s)); err == nil {
			t.Errorf("%q is read as %d members", s, len(got))
		}
	}
	if b, _ := json.Marshal(federated.Indices{0, 1, 2, 5, 7, 8}); string(b) != `"0-2,5,7-8"` {
		t.Errorf("written as %s", b)
	}
}

func TestPace(t *testing.T) {
	for _, p := range []federated.Pace{{Quorum: -1}, {Quorum: 1.1}, {Deadline: -1}, {Staleness: -1}, {Discount: -1}} {
		if p.Validate() == nil {
			t.Errorf("%+v: no error", p)
		}
	}
}

// A snapshot that does not fit is refused.
func TestBadSnapshot(t *testing.T) {
	c := learn(federated.Selection{Everyone: true})
	s, _ := c.Init(t.Context(), federated.Server{})
	past := s
	past.Step = 7
	for what, snap := range map[string]federated.Snapshot{
		"a member too many": {State: s, Bases: []federated.State{s}, Flights: []federated.Flight{{Member: 2}}},
		"a base too many":   {State: s, Bases: []federated.State{s}, Flights: []federated.Flight{{Base: 1}}},
		"no such phase":     {State: s, Bases: []federated.State{past}},
	} {
		if _, err := (&fedtest.Run{World: crowd(2), Algorithm: c, Config: federated.Config{Rounds: 1}, From: &snap}).Do(t.Context()); err == nil {
			t.Errorf("%s: no error", what)
		}
	}
}
