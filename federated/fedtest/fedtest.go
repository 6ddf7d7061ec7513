// Package fedtest is the contract that every federated method keeps, as a test: [TestAlgorithm].
//
//	func TestContract(t *testing.T) {
//		fedtest.TestAlgorithm(t, fedtest.Options{New: func(p *federated.Problem) (federated.Algorithm, error) {
//			return mymethod.New(p), nil
//		}})
//	}
//
// It runs the method for a few rounds in a [World] of five members on every engine of the binary, over and over under
// conditions that must not matter — threads, order of arrival, a resume after any round, a coordinator that is killed
// anywhere, members that fail, panic or send nonsense — and compares the states bit for bit. In short mode one engine is enough.
//
// World, [Run], [Members] and [Trace] are there for a method's own tests, too.
package fedtest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// Options say what is tested. New is required.
type Options struct {
	// New returns the method on a problem.
	New func(*federated.Problem) (federated.Algorithm, error)
	// Adapt changes the problem before it is used, if the method is not for all: of [Problem], with 6 features and 3 classes.
	Adapt func(*federated.Problem)
	// World, if not nil, makes the world in place of [Blobs], for methods that learn from other data; Adapt makes the problem fit.
	World func(e *train.Engine, sizes ...int) *World
	// Guess is what the training loss must come below; 0 is that of guessing among 3 classes.
	Guess float64
	// Server says that the method trains at the server alone, so that members cannot fail at it.
	Server bool
	// Teaches says that the server trains besides, so that a round in which nobody comes is not without effect.
	Teaches bool
	// Spared says that the coordinator is not killed, which takes long: for a variant of a method of which another one stands it.
	Spared bool
	// Session names the first of the phases that are a session in place of "train", such as "train.keys": members answer with what
	// is made at random once and kept, and no single answer can be looked at. Then ten members take part, and not five.
	Session string
	// Hidden says that noise hides the members: they tell nothing but their updates, and who came makes no difference to whether
	// there is a next model.
	Hidden bool
}

// overlap reports whether rounds of the method may overlap.
func (o Options) overlap() bool { return o.Session == "" && !o.Hidden }

// learning is the phase that members are asked first.
func (o Options) learning() string { return cmp.Or(o.Session, "train") }

// sizes are how many examples the members have.
func (o Options) sizes() []int {
	if o.Session != "" {
		return []int{8, 6, 12, 10, 7, 14, 11, 6, 8, 6}
	}
	return []int{8, 6, 12, 10, 7}
}

func (o Options) world(e *train.Engine) *World {
	if o.World != nil {
		return o.World(e, o.sizes()...)
	}
	return Blobs(e, 6, 3, o.sizes()...)
}

// rounds is how long every run of the contract is.
const rounds = 3

// contract is the method on one engine.
type contract struct {
	Options
	world   *World
	problem *federated.Problem
	plain   *Trace // the run that all others are compared to
}

// TestAlgorithm tests that a method keeps the contract.
func TestAlgorithm(t *testing.T, o Options) {
	for i, name := range slices.DeleteFunc(backend.Names(), func(n string) bool { return n != "go" && n != "cpu" }) {
		if i > 0 && testing.Short() {
			break
		}
		t.Run(name, func(t *testing.T) {
			c := &contract{Options: o, world: o.world(Engine(t, name))}
			c.problem = c.fresh(t)
			c.plain = c.run(t, nil)
			if len(c.plain.Rounds) != rounds {
				t.Fatalf("%d rounds were closed, want %d", len(c.plain.Rounds), rounds)
			}
			t.Run("learns", c.learns)
			t.Run("threads and arrival", c.arrival)
			t.Run("resume", c.resume)
			t.Run("cancel", c.cancel)
			if i == 0 && !c.Spared { // it is all the same to the engine
				t.Run("killed", c.killed)
			}
			if o.Server {
				return
			}
			t.Run("bytes", c.bytes)
			t.Run("failures", c.failures)
			if o.Session == "" { // there, only the session knows
				t.Run("nonsense", c.nonsense)
			}
			if !o.Hidden {
				t.Run("nobody", c.nobody)
			}
			if o.overlap() {
				t.Run("asynchronous", c.asynchronous)
				t.Run("crash in a buffer", c.buffer)
			}
		})
	}
}

func (c *contract) fresh(t *testing.T) *federated.Problem {
	p := Problem(t, 6, 3)
	if c.Adapt != nil {
		c.Adapt(p)
	}
	return p
}

func (c *contract) algorithm(t *testing.T, p *federated.Problem) federated.Algorithm {
	t.Helper()
	a, err := c.New(p)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// run runs the method, after change has changed how.
func (c *contract) run(t *testing.T, change func(*Run)) *Trace {
	t.Helper()
	c.world.Vaults.Reset()
	r := &Run{World: c.world, Algorithm: c.algorithm(t, c.problem), Config: federated.Config{Rounds: rounds}}
	if change != nil {
		change(r)
	}
	return r.Must(t)
}

// same fails the test unless two runs came to the same states and memories.
func same(t *testing.T, what string, got, want *Trace) {
	t.Helper()
	g, w := got.Digests(), want.Digests()
	if n := len(w) - len(g); n > 0 {
		w = w[n:] // got began later
	}
	if !slices.Equal(g, w) {
		t.Errorf("%s: states differ:\n got %.16q\nwant %.16q", what, g, w)
	}
	if !maps.EqualFunc(got.Members.Kept(), want.Members.Kept(), func(a, b *weights.Set) bool { return a.Equal(*b) }) {
		t.Errorf("%s: what members keep differs", what)
	}
}

// learns checks that the rounds change the state, that the state is finite and that what was measured is a number.
func (c *contract) learns(t *testing.T) {
	digests := map[string]bool{}
	for i, r := range c.plain.Rounds {
		digests[r.Digest] = true
		if r.Round != i {
			t.Errorf("round %d is recorded as %d", i, r.Round)
		}
		if got := c.plain.Snapshots[i].State.Digest(); got != r.Digest {
			t.Errorf("round %d: the snapshot's digest is %.16s, the record says %.16s", i, got, r.Digest)
		}
	}
	if len(digests) != rounds && !c.memoryOnly() {
		t.Errorf("%d rounds came to %d states", rounds, len(digests))
	}
	for name, s := range c.plain.Final.Sets {
		if err := s.Finite(); err != nil {
			t.Errorf("set %q: %v", name, err)
		}
	}
	seen := false
	for _, p := range c.plain.Phases {
		for _, f := range p.Failed {
			t.Errorf("round %d: %s failed in %s: %s", p.Round, f.Member, f.Phase, f.Reason)
		}
		for _, m := range p.Metrics {
			seen = true
			if math.IsNaN(m.Value) || math.IsInf(m.Value, 0) {
				t.Errorf("round %d: %s %s is %v", p.Round, m.Name, m.Key, m.Value)
			}
		}
	}
	if !seen {
		t.Error("nothing was measured")
	}
	loss := c.plain.Metric("loss.train", "")
	if c.Hidden {
		loss = c.plain.Metric("loss", "")
	}
	if guess := cmp.Or(c.Guess, math.Log(3)); len(loss) != rounds || !(loss[rounds-1] < guess) {
		t.Errorf("training loss %v: want one for each of %d rounds, the last below %.3f, that of guessing", loss, rounds, guess)
	}
}

// memoryOnly reports whether the method keeps all that it learns at the members.
func (c *contract) memoryOnly() bool {
	n := 0
	for _, s := range c.plain.Final.Sets {
		n += s.Size()
	}
	return n == 0
}

func (c *contract) arrival(t *testing.T) {
	for i, threads := range []int{1, 2, 8} {
		got := c.run(t, func(r *Run) {
			r.Members.Threads, r.Members.Shuffle = threads, uint64(i)
			if i == 1 {
				r.Config.Window = 2
			}
			if i == 2 {
				r.Members.Delay = delay(3)
			}
		})
		same(t, fmt.Sprintf("%d threads", threads), got, c.plain)
	}
}

// delay draws an order's delay from its name.
func delay(seed uint64) func(*federated.Order) time.Duration {
	return func(o *federated.Order) time.Duration {
		return time.Duration(rng.New(seed, o.Round, o.Member.Name, o.Phase).IntN(1000)) * time.Millisecond
	}
}

// resume goes on after every round, with another instance of the method and of the problem.
func (c *contract) resume(t *testing.T) {
	for i := range rounds - 1 {
		p := c.problem
		if i == 0 {
			p = c.fresh(t)
		}
		got := c.run(t, func(r *Run) {
			r.Algorithm = c.algorithm(t, p)
			r.From, r.Kept = &c.plain.Snapshots[i], c.plain.Kept[i]
		})
		same(t, fmt.Sprintf("resumed after round %d", i), got, c.plain)
	}
}

// cancel ends a run in the middle: no round is closed with what was cut short.
func (c *contract) cancel(t *testing.T) {
	c.world.Vaults.Reset()
	ctx, cancel := context.WithCancel(context.Background())
	r := &Run{World: c.world, Algorithm: c.algorithm(t, c.problem), Config: federated.Config{Rounds: rounds}}
	r.Members.Client = clientFunc(func(_ context.Context, at federated.Local, task federated.Task, keep *weights.Set) (federated.Result, error) {
		if task.Round == 1 {
			cancel()
		}
		return r.Algorithm.Client().Run(ctx, at, task, keep)
	})
	if c.Server {
		r.Trace.OnRound = func(federated.RoundClosed) { cancel() }
	}
	l, err := r.Do(ctx)
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error %v, want %v", err, context.Canceled)
	}
	if !slices.Equal(l.Digests(), c.plain.Digests()[:1]) {
		t.Errorf("%d rounds were closed, want the first only", len(l.Rounds))
	}
}

type clientFunc func(context.Context, federated.Local, federated.Task, *weights.Set) (federated.Result, error)

func (f clientFunc) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	return f(ctx, at, t, keep)
}

// bytes compares the traffic on record to what clients saw.
func (c *contract) bytes(t *testing.T) {
	type key struct {
		round int
		phase string
		tag   string
	}
	var mu sync.Mutex
	want := map[key]federated.Traffic{}
	l := c.run(t, func(r *Run) {
		client := r.Algorithm.Client()
		r.Members.Client = clientFunc(func(ctx context.Context, at federated.Local, task federated.Task, keep *weights.Set) (federated.Result, error) {
			res, err := client.Run(ctx, at, task, keep)
			mu.Lock()
			defer mu.Unlock()
			k := key{task.Round, task.Phase, task.Tag}
			m := want[k]
			m.Tag = task.Tag
			m.Members++
			m.Down += int64(len(task.Attached))
			m.Up += int64(len(res.Attached))
			for _, s := range task.Sets {
				m.Down += elementBytes(s)
			}
			for _, s := range res.Addends {
				m.Up += elementBytes(s)
			}
			want[k] = m
			return res, err
		})
	})
	same(t, "watched", l, c.plain)
	seen := 0
	for _, p := range l.Phases {
		for _, m := range p.Traffic {
			seen++
			if w := want[key{p.Round, p.Phase, m.Tag}]; m != w {
				t.Errorf("round %d, %s: recorded %+v, clients saw %+v", p.Round, p.Phase, m, w)
			}
		}
	}
	if seen != len(want) {
		t.Errorf("%d records of traffic, want %d", seen, len(want))
	}
}

func elementBytes(s weights.Set) int64 {
	var n int64
	for _, x := range s.All() {
		n += int64(4*len(x.F32) + 8*len(x.F64))
	}
	return n
}

// learning returns the orders of the plain run's learning phases in a round, by member, as far as they were folded.
func (c *contract) learners(round int) []int {
	for _, p := range c.plain.Phases {
		if p.Round == round && p.Phase == c.learning() {
			if p.Everyone {
				all := make([]int, c.world.Len())
				for i := range all {
					all[i] = i
				}
				return all
			}
			for _, s := range p.Folded {
				return s.Members
			}
		}
	}
	return nil
}

// failures lets one learner of the second round fail, and another abstain.
func (c *contract) failures(t *testing.T) {
	who := c.learners(1)
	if len(who) < 3 {
		t.Fatalf("members %v learned in round 1, want at least 3", who)
	}
	tampered := func(as func(a *federated.Answer)) *Trace {
		return c.run(t, func(r *Run) {
			r.Members.Tamper = func(a *federated.Answer) {
				if a.Order.Round != 1 || a.Order.Barrier {
					return
				}
				switch a.Order.Member.Index {
				case who[0]:
					as(a)
				case who[1]:
					a.Result = federated.Result{Status: federated.Abstained}
				}
			}
		})
	}
	lost := tampered(func(a *federated.Answer) { a.Result, a.Err = federated.Result{}, errors.New("the battery is empty") })
	if lost.Digests()[0] != c.plain.Digests()[0] {
		t.Error("failures in round 1 changed round 0")
	}
	if lost.Digests()[1] == c.plain.Digests()[1] && !c.memoryOnly() {
		t.Error("a member more or less makes no difference")
	}
	named := false
	for _, p := range lost.Phases {
		if p.Round != 1 || p.Phase != c.learning() {
			continue
		}
		named = len(p.Failed) == 1 && p.Failed[0].Member == c.world.Members[who[0]].Name && p.Failed[0].Reason == "the battery is empty"
		if !slices.Equal(p.Abstained, federated.Indices{who[1]}) || !slices.Equal(p.Lost, federated.Indices{who[0]}) {
			t.Errorf("abstained %v, lost %v; want [%d] and [%d]", p.Abstained, p.Lost, who[1], who[0])
		}
	}
	if !named {
		t.Errorf("member %d's failure is not told", who[0])
	}
	broken := c.run(t, func(r *Run) {
		client := r.Algorithm.Client()
		r.Members.Client = clientFunc(func(ctx context.Context, at federated.Local, task federated.Task, keep *weights.Set) (federated.Result, error) {
			if task.Round == 1 && task.Phase == c.learning() && at.Member.Index == who[0] {
				panic("index out of range")
			}
			return client.Run(ctx, at, task, keep)
		})
		r.Members.Tamper = func(a *federated.Answer) {
			if a.Order.Round == 1 && !a.Order.Barrier && a.Order.Member.Index == who[1] {
				a.Result = federated.Result{Status: federated.Abstained}
			}
		}
	})
	same(t, "a client that panics", broken, lost)
}

// nonsense lets a learner send what cannot be folded: it must be as if it had failed.
func (c *contract) nonsense(t *testing.T) {
	who := c.learners(1)
	run := func(as func(a *federated.Answer)) *Trace {
		return c.run(t, func(r *Run) {
			r.Members.Tamper = func(a *federated.Answer) {
				if a.Order.Round == 1 && !a.Order.Barrier && a.Order.Member.Index == who[len(who)-1] && a.Err == nil {
					as(a)
				}
			}
		})
	}
	lost := run(func(a *federated.Answer) { a.Err = errors.New("gone") })
	addend := func(a *federated.Answer) (name string, s weights.Set) {
		for _, name := range slices.Sorted(maps.Keys(a.Result.Addends)) {
			if s := a.Result.Addends[name]; s.Len() > 0 {
				return name, s.Clone()
			}
		}
		return "", weights.Set{}
	}
	last := func(s weights.Set) weights.Tensor { return s.Must(s.Names()[s.Len()-1]) }
	put := func(a *federated.Answer, name string, s weights.Set) {
		a.Result.Addends = maps.Clone(a.Result.Addends)
		a.Result.Addends[name] = s
	}
	for what, as := range map[string]func(a *federated.Answer){
		"NaN": func(a *federated.Answer) {
			if name, s := addend(a); name != "" {
				x := last(s)
				x.SetAt(x.Len()-1, math.NaN())
				put(a, name, s)
			} else {
				a.Result.Scalars = map[string]float64{"train.loss": math.NaN()}
			}
		},
		"infinity": func(a *federated.Answer) {
			a.Result.Scalars = map[string]float64{"train.loss": math.Inf(1)}
		},
		"a value too large": func(a *federated.Answer) {
			a.Result.Scalars = map[string]float64{"train.loss": 1e30}
		},
		"a tensor too few": func(a *federated.Answer) {
			if name, s := addend(a); name != "" {
				put(a, name, s.Filter(func(n string) bool { return n != s.Names()[0] }))
			} else {
				a.Result.Addends = nil
			}
		},
		"another shape": func(a *federated.Answer) {
			if name, s := addend(a); name != "" {
				n := s.Names()[s.Len()-1]
				s.Put(n, weights.NewTensor(weights.Float32, 1, 2, 3))
				put(a, name, s)
			} else {
				a.Result.Addends = nil
			}
		},
		"nothing":            func(a *federated.Answer) { a.Result.Addends = nil },
		"something else":     func(a *federated.Answer) { put(a, "surprise", weights.Set{}) },
		"too great a weight": func(a *federated.Answer) { a.Result.Weight = math.MaxUint64 },
		"a broken memory": func(a *federated.Answer) {
			s := weights.NewSet(1)
			s.Put("x", weights.Of32([]float32{float32(math.NaN())}, 1))
			a.Result.Keep = &s
		},
	} {
		got := run(as)
		same(t, what, got, lost)
		for _, p := range got.Phases {
			if p.Round == 1 && p.Phase == "train" && (len(p.Failed) != 1 || p.Failed[0].Member != c.world.Members[who[len(who)-1]].Name) {
				t.Errorf("%s: failed %v", what, p.Failed)
			}
		}
	}
}

// nobody lets everybody fail in the second round: the run goes on, and unless the server trains by itself the model stays.
func (c *contract) nobody(t *testing.T) {
	l := c.run(t, func(r *Run) {
		r.Members.Tamper = func(a *federated.Answer) {
			if a.Order.Round == 1 && !a.Order.Barrier {
				a.Result, a.Err = federated.Result{}, errors.New("no network")
			}
		}
	})
	if len(l.Rounds) != rounds {
		t.Fatalf("%d rounds were closed, want %d", len(l.Rounds), rounds)
	}
	if c.Teaches {
		return
	}
	before, after := l.Snapshots[0].State, l.Snapshots[1].State
	for name, s := range before.Sets {
		if got, ok := after.Sets[name]; name != "stats" && (!ok || !got.Equal(s)) {
			t.Errorf("set %q changed in a round in which nobody's result was folded", name)
		}
	}
	if after.Version != before.Version {
		t.Errorf("version %d became %d", before.Version, after.Version)
	}
}

// asynchronous compares buffered rounds in which nobody is late to synchronous ones.
func (c *contract) asynchronous(t *testing.T) {
	got := c.run(t, func(r *Run) { r.Config.Pace = federated.Pace{Staleness: 2, Quorum: 1} })
	same(t, "asynchronous without delay", got, c.plain)
	// With a discount all weights are multiplied by the same power of two.
	got = c.run(t, func(r *Run) { r.Config.Pace = federated.Pace{Staleness: 1, Discount: 0.5} })
	same(t, "asynchronous without delay, discounted", got, c.plain)
}

// buffer runs with members that are late, and resumes after every round while tasks are in flight.
func (c *contract) buffer(t *testing.T) {
	late := func(r *Run) {
		r.Config.Rounds = 5
		r.Config.Pace = federated.Pace{Staleness: 2, Quorum: 0.5, Discount: 0.5}
		r.Members.Delay = delay(11)
	}
	whole := c.run(t, late)
	flights, stale := 0, 0
	for _, s := range whole.Snapshots {
		flights += len(s.Flights)
	}
	for i, p := range whole.Phases {
		for _, f := range p.Folded {
			if f.Base < whole.Opened[i].Base {
				stale += len(f.Members)
			}
		}
	}
	if flights == 0 || stale == 0 {
		t.Errorf("%d tasks in flight at the end of rounds, %d stale results: the test tests nothing", flights, stale)
	}
	for i, s := range whole.Snapshots[:len(whole.Snapshots)-1] {
		got := c.run(t, func(r *Run) {
			late(r)
			r.Members.Shuffle, r.Members.Threads = 5, 3
			r.From, r.Kept = &s, whole.Kept[i]
		})
		same(t, fmt.Sprintf("resumed after round %d", i), got, whole)
	}
}
