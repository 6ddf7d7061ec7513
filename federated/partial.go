package federated

import (
	"errors"
	"fmt"
	"iter"
	"maps"
	"slices"

	"github.com/cohort-learning/cohort/weights"
)

// Partial is what became of several orders of one phase, whose results somebody between the members and the coordinator, a
// relay, has added: the sums and, of every order, all but the tensors. Sums are exact, so that it makes no difference how the
// results of a phase are grouped, or whether they are.
//
// A partial is folded as a whole or, if its sums do not fit what its parts say, not at all.
type Partial struct {
	Parts []Part
	// Sums are those of the results among the parts, by group and fold. Groups of which no part has a result are left out.
	Sums map[string]map[string]*weights.Acc
}

// Part is one order of a [Partial].
type Part struct {
	Order  *Order
	Task   Task
	Result Result // without addends, cover and memory
	Bytes  int64  // of the tensors that were added
	Err    error  // why there is no result, or why it could not be added
}

// counts reports whether the part's result is in the sums.
func (p Part) counts() bool { return p.Err == nil && p.Result.Status == Done }

// Summable returns why results of a run of this pace cannot be added before they reach the coordinator, or nil.
func (p Pace) Summable() error {
	if p.Staleness > 0 {
		return fmt.Errorf("answers may be up to %d versions of the model late, and each is discounted by itself when it is folded; a relay's sum is "+
			"of one version: set staleness to 0, or let all members join the coordinator itself", p.Staleness)
	}
	return nil
}

// Summable returns why the results of a run cannot be added before they reach the coordinator, or nil. The state is that before
// the first round.
func (c Config) Summable(alg Algorithm, s State) error {
	if err := c.Pace.Summable(); err != nil {
		return err
	}
	if c.Rule != nil {
		return errors.New("its robust rule reads every result by itself, and a relay's sum hides what it is made of: run it without a rule, or let all " +
			"members join the coordinator itself")
	}
	for p := range phases(alg, s) {
		if err := p.Summable(); err != nil {
			return fmt.Errorf("phase %s: %w", p.Name, err)
		}
	}
	return nil
}

// DrawsInSecret reports whether members of a run are drawn by secret coins, so that nobody but the coordinator is to know who
// takes part in a round. The state is that before the first round.
func DrawsInSecret(alg Algorithm, s State) bool {
	for p := range phases(alg, s) {
		if p.Who.Coins {
			return true
		}
	}
	return false
}

// phases are those of a round, as far as its first state tells.
func phases(alg Algorithm, s State) iter.Seq[Phase] {
	return func(yield func(Phase) bool) {
		const most = 1000
		for s.Step = 0; s.Step < most; s.Step++ {
			if p, ok := alg.Next(s); !ok || !yield(p) {
				return
			}
		}
	}
}

// Summable returns why the results of a phase cannot be added before they reach the coordinator, or nil.
func (p Phase) Summable() error {
	switch {
	case p.Gather || p.Attachments != nil:
		return errors.New("what members attach to their results, such as keys and masked numbers of a secure sum, concerns each of them by itself: let all " +
			"members join the coordinator itself")
	case p.Who.Coins:
		return errors.New("members are drawn by secret coins and protected by noise that is accounted for member by member: let all members join the " +
			"coordinator itself")
	}
	return nil
}

// Combiner adds results of one phase as the coordinator would, for a [Partial].
type Combiner struct {
	phase  Phase
	groups map[string]*groupSum
}

// NewCombiner returns empty sums of a phase, of which name and folds are needed.
func NewCombiner(p Phase) *Combiner {
	return &Combiner{phase: p, groups: map[string]*groupSum{}}
}

// Add adds a result to the sums of its task's group, or refuses it for the reason for which the coordinator would. Of the
// task, Group and Index are needed.
func (c *Combiner) Add(t Task, r Result) error {
	g := c.groups[t.Group]
	if g == nil {
		g = newGroupSum(c.phase)
	}
	if err := g.add(c.phase, t, r, 1, true); err != nil {
		return err
	}
	c.groups[t.Group] = g
	return nil
}

// Sums returns [Partial.Sums]. They must not be changed.
func (c *Combiner) Sums() map[string]map[string]*weights.Acc {
	out := make(map[string]map[string]*weights.Acc, len(c.groups))
	for name, g := range c.groups {
		out[name] = g.total
	}
	return out
}

// orders is how many orders an answer answers.
func (a *Answer) orders() int {
	if a.Partial != nil {
		return len(a.Partial.Parts)
	}
	return 1
}

// summable returns an error if a partial is given where there can be none: that is the mistake of whoever carries it.
func (d *driver) summable(p *Partial, phase string) error {
	next, _ := d.alg.Next(d.state)
	if err := errors.Join(d.cfg.Pace.Summable(), next.Summable()); err != nil || d.ruled(next) {
		return errors.Join(errors.New("a partial sum of results that have to come one by one"), err)
	}
	for _, part := range p.Parts {
		if part.Order.Phase != phase || part.Order.Base != d.state.Version {
			return fmt.Errorf("a partial sum of phase %s from version %d, in %s of version %d", part.Order.Phase, part.Order.Base, phase, d.state.Version)
		}
	}
	return nil
}

// addPartial folds what became of several orders.
func (f *folding) addPartial(p *Partial) {
	for _, part := range p.Parts {
		f.note(part.Order)
		f.sent(part.Task).Up += part.Bytes
	}
	groups, err := f.combined(p)
	for _, part := range p.Parts {
		o := part.Order
		switch {
		case part.Err != nil:
			f.fail(o, part.Err.Error())
		case part.Result.Status == Abstained:
			f.abstained = append(f.abstained, o.Member.Index)
		case err != nil:
			f.fail(o, "refused with the sum that it is part of: "+err.Error())
		default:
			f.folded = append(f.folded, Folded{o.Member.Index, o.Base})
			f.each.add(o.Member.Index, part.Result.Scalars)
		}
	}
	if err != nil {
		return
	}
	for name, g := range groups {
		f.group(name).merge(g)
	}
}

// combined returns the sums of a partial by group, as far as they fit its parts and what was folded before.
func (f *folding) combined(p *Partial) (map[string]*groupSum, error) {
	groups := map[string]*groupSum{}
	for _, part := range p.Parts {
		if !part.counts() {
			continue
		}
		total, ok := p.Sums[part.Task.Group]
		if !ok {
			return nil, fmt.Errorf("there is no sum of group %q", part.Task.Group)
		}
		g := groups[part.Task.Group]
		if g == nil {
			g = &groupSum{total: total, scalars: map[string]*weights.Acc{}}
			groups[part.Task.Group] = g
		}
		if err := g.count(part.Result); err != nil {
			return nil, fmt.Errorf("%s: %w", part.Order.Member.Name, err)
		}
	}
	if len(groups) != len(p.Sums) {
		return nil, fmt.Errorf("sums of %d groups, results of %d", len(p.Sums), len(groups))
	}
	for _, name := range slices.Sorted(maps.Keys(groups)) {
		if err := f.group(name).checkMerge(groups[name]); err != nil {
			return nil, err
		}
	}
	return groups, nil
}

// count adds everything of a result but its tensors.
func (g *groupSum) count(r Result) error {
	if err := checkWeight(r.Weight); err != nil {
		return err
	}
	if err := checkScalars(g, r.Scalars); err != nil {
		return err
	}
	for name, v := range r.Scalars {
		g.scalar(name).MustAdd(number(v), nil, nil, 1)
	}
	g.weight += max(1, r.Weight)
	g.n++
	return nil
}

// checkMerge returns why merge must not be called.
func (g *groupSum) checkMerge(o *groupSum) error {
	if len(o.total) != len(g.total) {
		return fmt.Errorf("%d sums where there are %d", len(o.total), len(g.total))
	}
	for name, a := range g.total {
		b, ok := o.total[name]
		switch {
		case !ok:
			return fmt.Errorf("there is no sum of %q", name)
		case b.Weight() != o.weight:
			return fmt.Errorf("the sum of %q has the weight %d, the results that are said to be in it have %d together", name, b.Weight(), o.weight)
		}
		if err := a.CheckMerge(b); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	for name, b := range o.scalars {
		if err := g.scalar(name).CheckMerge(b); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// merge adds sums for which checkMerge returned nil.
func (g *groupSum) merge(o *groupSum) {
	for name, b := range o.total {
		must(g.total[name].Merge(b))
	}
	for name, b := range o.scalars {
		must(g.scalar(name).Merge(b))
	}
	g.weight += o.weight
	g.n += o.n
}

func must(err error) {
	if err != nil {
		panic(errors.Join(errors.New("federated: sums that had been checked"), err))
	}
}
