package federated_test

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedavg"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/federated/heterofl"
	"github.com/cohort-learning/cohort/federated/scaffold"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/secure/robust"
	"github.com/cohort-learning/cohort/weights"
)

// Members send their index + 1: 1 … 5, in four rounds the first four and in one of them nobody but three.
func TestRule(t *testing.T) {
	for _, c := range []struct {
		method robust.Method
		want   float64
	}{{robust.Mean{}, 3}, {robust.Median{}, 3}, {robust.TrimmedMean{Beta: 0.2}, 3}, {robust.Krum{Liars: 1}, 2},
		{robust.Krum{Liars: 1, Multi: true, Keep: 3}, 3}, {robust.CentredClip{Radius: 0.5}, 0.5}} {
		dir := t.TempDir()
		l := do(t, crowd(5), learn(federated.Selection{Everyone: true}), 1, func(r *fedtest.Run) {
			r.Config.Rule, r.Config.Spool.Dir = robust.Rule{Method: c.method}, dir
		})
		if got := l.Numbers("w")[0]; got != c.want {
			t.Errorf("%s of 1 … 5 is %g, want %g", c.method, got, c.want)
		}
		if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
			t.Errorf("left in the spool's folder: %v, %v", left, err)
		}
	}
}

// A rule that cannot work is refused before anybody is asked, in words that say what to change.
func TestRuleRefused(t *testing.T) {
	everyone := federated.Selection{Everyone: true}
	for want, c := range map[string]struct {
		rule   federated.Rule
		change func(*federated.Config)
	}{
		"needs at least 2f+3 = 9 results, there are 8: ask more members or set liars to 2": {robust.Rule{Method: robust.Krum{Liars: 3}}, nil},
		"a round closes when 4 of 8 have answered: krum (f=1) needs": {robust.Rule{Method: robust.Krum{Liars: 1}},
			func(c *federated.Config) { c.Pace.Quorum = 0.5 }},
		"stale ones cannot weigh less": {robust.Rule{Method: robust.Median{}},
			func(c *federated.Config) { c.Pace = federated.Pace{Quorum: 0.5, Staleness: 2, Discount: 1} }},
		"8 results of 1 numbers, 4 bytes each, are 32 bytes; the spool may hold 31": {robust.Rule{Method: robust.Median{}},
			func(c *federated.Config) { c.Spool.Limit = 31 }},
	} {
		r := &fedtest.Run{World: crowd(8), Algorithm: learn(everyone), Config: federated.Config{Rounds: 1, Rule: c.rule}}
		if c.change != nil {
			c.change(&r.Config)
		}
		l, err := r.Do(t.Context())
		if err == nil || !strings.Contains(err.Error(), want) || len(l.Opened) > 0 {
			t.Errorf("error %v, %d phases opened; want %q", err, len(l.Opened), want)
		}
	}
	world := fedtest.Blobs(fedtest.Engine(t, "go"), 4, 3, 6, 6, 6, 6)
	a, err := heterofl.New(fedtest.Problem(t, 4, 3), heterofl.Config{Mode: heterofl.Mode{{Name: "a", Rate: 1, Share: 1}, {Name: "b", Rate: 0.5, Share: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	r := &fedtest.Run{World: world, Algorithm: a, Config: federated.Config{Rounds: 1, Rule: robust.Rule{Method: robust.GeometricMedian{}}}}
	if _, err := r.Do(t.Context()); err == nil || !strings.Contains(err.Error(), "members of this method train parts of the model") {
		t.Errorf("geometric median of parts: error %v", err)
	}
}

// sealed is a sum of what is attached that tells nothing of its parts.
type sealed struct{}

func (sealed) Add(federated.Task, []byte) error { return nil }
func (sealed) MarshalBinary() ([]byte, error)   { return nil, nil }
func (sealed) UnmarshalBinary([]byte) error     { return nil }

// Sums of which nobody sees a single result exclude a rule that reads them: at start, or when such a phase comes.
func TestRuleAndSecureSums(t *testing.T) {
	everyone := federated.Selection{Everyone: true}
	masked := federated.Phase{Name: "masked", Who: everyone, Attachments: func() federated.Attachments { return sealed{} }}
	for _, phases := range [][]federated.Phase{{masked}, {{Name: "keys", Who: everyone, Barrier: true}, masked}} {
		r := &fedtest.Run{World: crowd(5), Algorithm: &census{phases: phases}, Config: federated.Config{Rounds: 1, Rule: robust.Rule{Method: robust.Median{}}}}
		if _, err := r.Do(t.Context()); err == nil || !strings.Contains(err.Error(), "attach what only their sum tells") {
			t.Errorf("%d phases: error %v", len(phases), err)
		}
	}
}

// Stale results weigh less where the rule weighs results.
func TestRuleDiscounts(t *testing.T) {
	l := do(t, crowd(8), learn(federated.Selection{Fraction: 1}), 6, func(r *fedtest.Run) {
		r.Config.Rule = robust.Rule{Method: robust.Median{Weighted: true}}
		r.Config.Pace = federated.Pace{Quorum: 0.5, Staleness: 3, Discount: 1}
		r.Members.Delay = func(o *federated.Order) time.Duration { return time.Duration(1+o.Member.Index) * time.Second }
	})
	if len(l.Rounds) != 6 || math.IsNaN(l.Numbers("w")[5]) {
		t.Errorf("%d rounds", len(l.Rounds))
	}
}

// A round whose answers are too few for the rule fails: the state stays, nobody's memory is committed, a note says why.
func TestRuleFails(t *testing.T) {
	c := learn(federated.Selection{Everyone: true})
	c.fail = map[string]string{"m1": "broken", "m2": "broken"}
	client := &keeping{client: c.Client()}
	l := do(t, crowd(6), c, 2, func(r *fedtest.Run) {
		r.Config.Rule = robust.Rule{Method: robust.Krum{Liars: 1}}
		r.Members.Client = client
		r.Trace.OnRound = func(federated.RoundClosed) { c.fail = nil }
	})
	first, second := l.Phases[0], l.Phases[1]
	if len(first.Folded) > 0 || first.Everyone || len(first.Lost) != 6 || len(l.Kept[0]) > 0 || l.Snapshots[0].State.Version != 0 {
		t.Errorf("a round of 4 answers: closed as %+v, %d memories, version %d", first, len(l.Kept[0]), l.Snapshots[0].State.Version)
	}
	if notes := strings.Join(first.Notes, "\n"); !strings.Contains(notes, "the round failed: krum (f=1) needs at least 2f+3 = 5 results, there are 4") {
		t.Errorf("notes %q", notes)
	}
	if !second.Everyone || len(l.Kept[1]) != 6 || l.Numbers("w")[1] == 0 {
		t.Errorf("a round of 6 answers: closed as %+v, %d memories, w %v", second, len(l.Kept[1]), l.Numbers("w"))
	}
}

// keeping is a client whose members keep something.
type keeping struct{ client federated.Client }

func (k *keeping) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	r, err := k.client.Run(ctx, at, t, keep)
	s := weights.NewSet(1)
	s.Put("k", weights.Of64([]float64{1}, 1))
	r.Keep = &s
	return r, err
}

// A claim of more weight than a member has examples is not worth more.
func TestRuleCapsWeights(t *testing.T) {
	c := learn(federated.Selection{Everyone: true})
	l := do(t, crowd(6), c, 1, func(r *fedtest.Run) { // member k has k examples, and sends k+1
		r.Config.Rule = robust.Rule{Method: robust.Mean{Weighted: true}}
		r.Members.Client = &claiming{c.Client()}
	})
	want := (1*1. + 1*2 + 2*3 + 3*4 + 4*5 + 1*6) / (1 + 1 + 2 + 3 + 4 + 1)
	if got := l.Numbers("w")[0]; math.Abs(got-want) > 1e-12 {
		t.Errorf("weighted mean %g, want %g", got, want)
	}
}

type claiming struct{ federated.Client }

func (c *claiming) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	r, err := c.Client.Run(ctx, at, t, keep)
	r.Weight = 1 << 40
	if at.Member.Index == 5 {
		r.Weight = 1
	}
	return r, err
}

// The uniform mean and what is the same by another name give the bits of plain federated averaging with uniform weights.
func TestRuleOfAllIsTheMean(t *testing.T) {
	world := fedtest.Blobs(fedtest.Engine(t, "go"), 4, 3, 8, 10, 12, 9, 11)
	run := func(rule federated.Rule) []string {
		a := fedavg.New(fedtest.Problem(t, 4, 3))
		a.Uniform = true
		r := &fedtest.Run{World: world, Algorithm: a, Config: federated.Config{Rounds: 3, Rule: rule}}
		return r.Must(t).Digests()
	}
	want := run(nil)
	for _, m := range []robust.Method{robust.Mean{}, robust.TrimmedMean{}, robust.NormClip{Norm: 1e6}} {
		if got := run(robust.Rule{Method: m}); !slices.Equal(got, want) {
			t.Errorf("%s: other bits than those of averaging", m)
		}
	}
	if got := run(robust.Rule{Method: robust.Median{}}); slices.Equal(got, want) {
		t.Error("the median is the mean: the rule is not used")
	}
}

// One of the members sends what is a thousand times too large. Every method learns with the median, and none of them with the
// mean does as well.
func TestMethodsWithRule(t *testing.T) {
	world := fedtest.Blobs(fedtest.Engine(t, "go"), 6, 3, slices.Repeat([]int{16}, 18)...)
	mode := heterofl.Mode{{Name: "a", Rate: 1, Share: 1}, {Name: "b", Rate: 0.5, Share: 1}}
	for name, build := range map[string]func(*federated.Problem) (federated.Algorithm, error){
		"fedavg":   func(p *federated.Problem) (federated.Algorithm, error) { return fedavg.New(p), nil },
		"scaffold": func(p *federated.Problem) (federated.Algorithm, error) { return scaffold.New(p), nil },
		"heterofl": func(p *federated.Problem) (federated.Algorithm, error) {
			return heterofl.New(p, heterofl.Config{Mode: mode})
		},
	} {
		loss := func(rule federated.Rule) float64 {
			p := fedtest.Problem(t, 6, 3)
			p.Rounds, p.Select = 6, federated.Selection{Fraction: 1}
			a, err := build(p)
			if err != nil {
				t.Fatal(err)
			}
			r := &fedtest.Run{World: world, Algorithm: a, Config: federated.Config{Rounds: 6, Rule: rule}}
			r.Members.Client = &boosting{a.Client()}
			l, err := r.Do(t.Context())
			if err != nil {
				return math.Inf(1) // such a mean may leave the range
			}
			m := l.Metric("loss", "")
			return m[len(m)-1]
		}
		mean, median := loss(nil), loss(robust.Rule{Method: robust.Median{}})
		if !(median < 1) || mean < 2*median {
			t.Errorf("%s: loss %g with the median, %g with the mean", name, median, mean)
		}
	}
}

// boosting lets the first member lie.
type boosting struct{ federated.Client }

func (b *boosting) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	r, err := b.Client.Run(ctx, at, t, keep)
	if err == nil && t.Phase == "train" && at.Member.Index == 0 {
		for _, s := range r.Addends {
			s.Scale(-1000)
		}
	}
	return r, err
}

// A run with a rule is killed at every place there is: it comes to the states of one that was not, though the results of a
// phase have no checkpoint, and what the rule remembers is part of the state.
func TestRuleKilled(t *testing.T) {
	run := func() *fedtest.Run {
		return &fedtest.Run{World: crowd(7), Algorithm: learn(federated.Selection{Fraction: 1}), Config: federated.Config{Rounds: 3, Window: 2,
			Rule: robust.Rule{Method: robust.CentredClip{Radius: 1}, Bucket: 2}}}
	}
	plain := &fedtest.Coordinator{Every: 1}
	if _, err := plain.Live(t.Context(), run(), -1); err != nil {
		t.Fatal(err)
	}
	for at := range plain.Events {
		c := &fedtest.Coordinator{Every: 1, Shuffle: uint64(at)}
		_, err := c.Live(t.Context(), run(), at)
		if !errors.Is(err, fedtest.ErrKilled) {
			t.Fatalf("event %d of %d: error %v", at, plain.Events, err)
		}
		if _, err := c.Live(t.Context(), run(), -1); err != nil {
			t.Fatalf("killed at event %d: %v", at, err)
		}
		if fmt.Sprint(c.Rounds) != fmt.Sprint(plain.Rounds) {
			t.Errorf("killed at event %d: states differ", at)
		}
	}
}

// A spool that cannot be written ends the run with an error of the machine.
func TestRuleWithoutDisk(t *testing.T) {
	r := &fedtest.Run{World: crowd(3), Algorithm: learn(federated.Selection{Everyone: true}),
		Config: federated.Config{Rounds: 1, Rule: robust.Rule{Method: robust.Median{}}, Spool: federated.Spool{Dir: t.TempDir() + "/none"}}}
	if _, err := r.Do(t.Context()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("error %v", err)
	}
	broken := errors.New("broken")
	r.Config.Rule, r.Config.Spool.Dir = failing{robust.Rule{Method: robust.Median{}}, broken}, ""
	if _, err := r.Do(t.Context()); !errors.Is(err, broken) {
		t.Errorf("error %v", err)
	}
}

type failing struct {
	robust.Rule
	err error
}

func (f failing) Combine(context.Context, *robust.Spool, *weights.Set, *rng.Stream) (robust.Centre, error) {
	return robust.Centre{}, f.err
}
