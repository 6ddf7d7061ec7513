package federated

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/weights"
	"pgregory.net/rapid"
)

// partialOf combines answers as a relay does: what cannot be added is passed on with the reason.
func partialOf(t interface{ Fatal(...any) }, all []*Answer) *Answer {
	c := NewCombiner(foldPhase())
	p := &Partial{}
	for _, a := range all {
		part := Part{Order: a.Order, Task: a.Task, Result: Result{Status: a.Result.Status, Weight: a.Result.Weight, Scalars: a.Result.Scalars}, Err: a.Err}
		if a.Err == nil {
			for _, s := range a.Result.Addends {
				part.Bytes += s.Bytes()
			}
		}
		if a.Err == nil && a.Result.Status == Done {
			if err := c.Add(a.Task, a.Result); err != nil {
				part.Err = fmt.Errorf("refused: %w", err)
			}
		}
		p.Parts = append(p.Parts, part)
	}
	p.Sums = map[string]map[string]*weights.Acc{}
	for group, sums := range c.Sums() { // over the wire
		p.Sums[group] = map[string]*weights.Acc{}
		for name, a := range sums {
			b, err := a.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			p.Sums[group][name] = new(weights.Acc)
			if err := p.Sums[group][name].UnmarshalBinary(b); err != nil {
				t.Fatal(err)
			}
		}
	}
	return &Answer{Order: all[0].Order, Partial: p}
}

// sortedFold orders what was folded, as the end of the phase does, and leaves out sums in which nothing is.
func sortedFold(f *folding) *folding {
	f.roll()
	maps.DeleteFunc(f.groups, func(_ string, g *groupSum) bool { return g.n == 0 })
	for _, g := range f.groups {
		maps.DeleteFunc(g.scalars, func(_ string, a *weights.Acc) bool { return a.Weight() == 0 })
	}
	slices.Sort(f.orders)
	return f
}

// However the results of a phase are grouped into partial sums, in whatever order these come and whatever else comes one by one:
// the sums, the roll and the traffic are to the bit those of folding every result by itself.
func TestPartialIsFlat(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		all := answers(rt)
		for _, a := range all {
			a.Order.Base = foldOpened.Base
		}
		want := encoded(rt, sortedFold(foldOf(all, 0)))
		relays := map[int][]*Answer{}
		for _, a := range rapid.Permutation(all).Draw(rt, "arrival") {
			relay := rapid.IntRange(0, 3).Draw(rt, "relay")
			relays[relay] = append(relays[relay], a)
		}
		f := newFolding(foldPhase(), 0)
		f.noting = true
		f.expect(9)
		for relay, mine := range relays {
			if relay == 0 { // joined the coordinator itself
				for _, a := range mine {
					f.add(a, 0, 0)
				}
				continue
			}
			f.addPartial(partialOf(rt, mine).Partial)
		}
		if got := encoded(rt, sortedFold(f)); !bytes.Equal(got, want) {
			rt.Fatalf("grouped by relays: %d bytes that differ from %d", len(got), len(want))
		}
	})
}

// What can be seen of a wrong partial is refused as a whole, every result by name, and changes no sum.
func TestFalsePartials(t *testing.T) {
	x := func(v float32) weights.Set {
		s := weights.NewSet(2)
		s.Put("a.weight", weights.Of32([]float32{v, v, v, v}, 2, 2))
		s.Put("b", weights.Of64([]float64{1}))
		return s
	}
	two := func() *Partial {
		var all []*Answer
		for i := range 2 {
			all = append(all, &Answer{Order: &Order{ID: i, Member: Member{Index: i, Name: fmt.Sprint("m", i)}, Phase: "train", Base: foldOpened.Base},
				Result: Result{Weight: 3, Addends: map[string]weights.Set{"w": x(1), "c": x(2)}, Scalars: map[string]float64{"loss": 1}}})
		}
		return partialOf(t, all).Partial
	}
	for _, c := range []struct {
		name  string
		spoil func(p *Partial)
		want  string
	}{
		{"a result left out of the parts", func(p *Partial) { p.Parts = p.Parts[:1] }, "have 3 together"},
		{"another weight", func(p *Partial) { p.Parts[0].Result.Weight = 4 }, "have 7 together"},
		{"a huge weight", func(p *Partial) { p.Parts[0].Result.Weight = maxWeight + 1 }, "claims a weight"},
		{"a failed result inside", func(p *Partial) { p.Parts[0].Err = errors.New("no") }, "have 3 together"},
		{"no sum", func(p *Partial) { p.Sums = nil }, "no sum of group"},
		{"a sum of nobody", func(p *Partial) { p.Sums["y"] = p.Sums[""] }, "2 groups"},
		{"a sum missing", func(p *Partial) { delete(p.Sums[""], "c") }, "1 sums where there are 2"},
		{"another sum", func(p *Partial) { p.Sums[""]["d"] = p.Sums[""]["c"]; delete(p.Sums[""], "c") }, `no sum of "c"`},
		{"sums exchanged", func(p *Partial) { p.Sums[""]["w"], p.Sums[""]["c"] = p.Sums[""]["c"], p.Sums[""]["w"] }, "counts"},
		{"a number that is none", func(p *Partial) { p.Parts[0].Result.Scalars = map[string]float64{"loss": 1e300} }, "too large"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFolding(foldPhase(), 0)
			f.expect(9)
			p := two()
			c.spoil(p)
			f.addPartial(p)
			if len(f.folded) > 0 || len(f.failed) != len(p.Parts) {
				t.Fatalf("folded %v, failed %v", f.folded, f.failed)
			}
			if last := f.failed[len(f.failed)-1]; !strings.Contains(last.Reason, c.want) {
				t.Errorf("says %q, not %q", last.Reason, c.want)
			}
			if len(f.sums()) > 0 {
				t.Error("it is in the sums")
			}
			f.addPartial(two())
			if len(f.folded) != 2 {
				t.Errorf("a right one after it: %v", f.failed)
			}
		})
	}
}

// script is a method of given phases.
type script struct {
	Algorithm
	phases []Phase
}

func (s script) Next(at State) (Phase, bool) {
	if at.Step >= len(s.phases) {
		return Phase{}, false
	}
	return s.phases[at.Step], true
}

type noRule struct{ Rule }

// Whatever needs results one by one says so before a run begins.
func TestSummable(t *testing.T) {
	plain := []Phase{{Name: "train", Who: Selection{Fraction: 1}}, {Name: "eval", Barrier: true}}
	for _, c := range []struct {
		name   string
		config Config
		last   Phase
		says   string // empty: they can be added
	}{
		{"plain", Config{Pace: Pace{Quorum: 0.5, Deadline: 1}}, Phase{Name: "test"}, ""},
		{"late answers", Config{Pace: Pace{Staleness: 1}}, Phase{Name: "test"}, "staleness"},
		{"a rule", Config{Rule: noRule{}}, Phase{Name: "test"}, "robust rule"},
		{"keys", Config{}, Phase{Name: "keys", Gather: true}, "phase keys: what members attach"},
		{"masks", Config{}, Phase{Name: "masked", Attachments: func() Attachments { return nil }}, "phase masked: what members attach"},
		{"coins", Config{}, Phase{Name: "train2", Who: Selection{Coins: true}}, "phase train2: members are drawn by secret coins"},
	} {
		err := c.config.Summable(script{phases: append(slices.Clone(plain), c.last)}, State{})
		if (err == nil) != (c.says == "") || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
