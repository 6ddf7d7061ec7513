package federated

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"sort"

	"github.com/cohort-learning/cohort/weights"
)

// discountUnit is the denominator of staleness discounts: weights are integers, so a discount is rounded to 1/1024.
const discountUnit = 1024

// maxWeight bounds the weight that a member may claim.
const maxWeight = 1 << 48

// folding adds the results of one phase.
type folding struct {
	phase     Phase
	discount  float64 // exponent of the staleness discount
	unit      uint64  // what a weight of 1 counts
	groups    map[string]*groupSum
	moved     map[string]*Traffic
	asked     int
	stale     int // of them, those given up at the opening
	folded    []Folded
	abstained []int
	failed    []Failure
	each      eachTable
	gathered  []Gathered

	noting  bool  // whether orders are noted, for checkpoints
	orders  []int // by ID, those of which it is known what became of them
	unsaved int   // answers since the last checkpoint

	ruling *ruling // where results wait for a rule instead of being added; nil where they are added
}

type groupSum struct {
	total   map[string]*weights.Acc
	scalars map[string]*weights.Acc
	weight  uint64
	n       int
	attach  Attachments // nil: the phase adds none
}

func newFolding(p Phase, discount float64) *folding {
	f := &folding{phase: p, discount: discount, unit: 1, groups: map[string]*groupSum{}, moved: map[string]*Traffic{}}
	if discount > 0 {
		f.unit = discountUnit
	}
	f.each = newEachTable(p.Collect)
	return f
}

// expect makes room for the results of n members.
func (f *folding) expect(n int) {
	f.asked = n
	f.folded = make([]Folded, 0, n)
	f.each.expect(n)
}

// answered is how many of those asked count towards the quorum.
func (f *folding) answered() int { return len(f.folded) + len(f.abstained) }

// heard is of how many members it is known what became of them.
func (f *folding) heard() int { return f.answered() + len(f.failed) }

func (f *folding) fail(o *Order, reason string) {
	const most = 500
	if r := []rune(reason); len(r) > most {
		reason = string(r[:most]) + "…"
	}
	f.failed = append(f.failed, Failure{o.Member.Name, o.Member.Index, o.Round, o.Phase, reason})
}

// abandon records that an order's answer is no longer waited for. Its task was sent nevertheless.
func (f *folding) abandon(o *Order, reason string) {
	if t, err := o.Make(); err == nil {
		f.sent(t)
	}
	f.note(o)
	f.fail(o, reason)
}

// note keeps in mind that it is known what became of an order.
func (f *folding) note(o *Order) {
	if f.noting {
		f.orders = append(f.orders, o.ID)
	}
}

func (f *folding) sent(t Task) *Traffic {
	m, ok := f.moved[t.Tag]
	if !ok {
		m = &Traffic{Tag: t.Tag}
		f.moved[t.Tag] = m
	}
	m.Members++
	m.Down += t.Bytes()
	return m
}

// add folds an answer made from a state that is behind versions old, of which at most limit count. It returns the
// member's new memory, to be committed, or nil.
func (f *folding) add(a *Answer, behind, limit int) *weights.Set {
	o, r := a.Order, a.Result
	f.note(o)
	moved := f.sent(a.Task)
	if a.Err != nil {
		f.fail(o, a.Err.Error())
		return nil
	}
	moved.Up += int64(len(r.Attached))
	for _, s := range r.Addends {
		moved.Up += s.Bytes()
	}
	switch {
	case behind > limit:
		f.fail(o, fmt.Sprintf("answered %d versions late, at most %d count", behind, limit))
		return nil
	case r.Status == Abstained:
		f.abstained = append(f.abstained, o.Member.Index)
		return nil
	}
	if f.ruling != nil { // a claim of more is not worth more
		r.Weight = min(r.Weight, uint64(max(1, o.Member.Samples)))
	}
	share := f.unit
	if f.unit > 1 {
		share = max(1, uint64(math.Round(float64(f.unit)*math.Pow(1+float64(behind), -f.discount))))
	}
	if err := f.group(a.Task.Group).add(f.phase, a.Task, r, share, f.ruling == nil); err != nil {
		f.fail(o, "refused: "+err.Error())
		return nil
	}
	f.folded = append(f.folded, Folded{o.Member.Index, o.Base})
	f.each.add(o.Member.Index, r.Scalars)
	if f.phase.Gather {
		f.gathered = append(f.gathered, Gathered{o.Member.Index, r.Attached})
	}
	if f.ruling != nil {
		f.ruling.add(f.phase, o, a.Task, r, share)
		return nil // until the rule has spoken
	}
	return r.Keep
}

func (f *folding) group(name string) *groupSum {
	g, ok := f.groups[name]
	if !ok {
		g = newGroupSum(f.phase)
		f.groups[name] = g
	}
	return g
}

func newGroupSum(p Phase) *groupSum {
	g := &groupSum{total: map[string]*weights.Acc{}, scalars: map[string]*weights.Acc{}}
	for _, fold := range p.Folds {
		g.total[fold.Name] = weights.NewAcc(fold.Like, fold.Counts)
	}
	if p.Attachments != nil {
		g.attach = p.Attachments()
	}
	return g
}

func checkWeight(w uint64) error {
	if w > maxWeight {
		return fmt.Errorf("claims a weight of %d, at most %d count", w, uint64(maxWeight))
	}
	return nil
}

// checkScalars returns why scalars must not be added.
func checkScalars(g *groupSum, scalars map[string]float64) error {
	for name, v := range scalars {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Errorf("%s is %v", name, v)
		}
		if err := g.scalar(name).Check(number(v), nil, nil, 1); err != nil {
			return fmt.Errorf("%s is %v, too large to be summed", name, v)
		}
	}
	return nil
}

// add adds a result to every fold of its group, or to none. A weight of 1 counts share. Tensors are only checked unless they
// are to be summed.
func (g *groupSum) add(p Phase, t Task, r Result, share uint64, sum bool) error {
	if err := checkWeight(r.Weight); err != nil {
		return err
	}
	full := max(1, r.Weight)
	for name := range r.Addends {
		if _, ok := g.total[name]; !ok {
			return fmt.Errorf("sent %q, which phase %s does not sum", name, p.Name)
		}
	}
	weight := func(fold Fold) uint64 {
		if fold.Undiscounted {
			return full
		}
		return full * share
	}
	for _, fold := range p.Folds {
		x, ok := r.Addends[fold.Name]
		if !ok {
			return fmt.Errorf("sent no %q", fold.Name)
		}
		at, cover := scope(fold, t, r)
		if err := g.total[fold.Name].Check(x, at, cover, weight(fold)); err != nil {
			return fmt.Errorf("%s: %w", fold.Name, err)
		}
	}
	if err := checkScalars(g, r.Scalars); err != nil {
		return err
	}
	if r.Keep != nil {
		if err := r.Keep.Finite(); err != nil {
			return fmt.Errorf("its memory: %w", err)
		}
	}
	if len(r.Attached) > 0 && g.attach == nil && !p.Gather {
		return fmt.Errorf("attached %d bytes, for which phase %s has no use", len(r.Attached), p.Name)
	}
	if g.attach != nil {
		if err := g.attach.Add(t, r.Attached); err != nil {
			return fmt.Errorf("what it attached: %w", err)
		}
	}
	for _, fold := range p.Folds {
		if sum {
			at, cover := scope(fold, t, r)
			g.total[fold.Name].MustAdd(r.Addends[fold.Name], at, cover, weight(fold))
		}
	}
	for name, v := range r.Scalars {
		g.scalar(name).MustAdd(number(v), nil, nil, 1)
	}
	g.weight += full * share
	g.n++
	return nil
}

func scope(f Fold, t Task, r Result) (at, cover weights.Index) {
	if f.Indexed {
		return t.Index, r.Cover
	}
	return nil, nil
}

func number(v float64) weights.Set {
	s := weights.NewSet(1)
	s.Put("x", weights.Of64([]float64{v}, 1))
	return s
}

func (g *groupSum) scalar(name string) *weights.Acc {
	a, ok := g.scalars[name]
	if !ok {
		a = weights.NewAcc(number(0), false)
		g.scalars[name] = a
	}
	return a
}

func (f *folding) sums() map[string]*Sum {
	out := make(map[string]*Sum, len(f.groups))
	for name, g := range f.groups {
		if g.n == 0 {
			continue
		}
		s := &Sum{Total: g.total, Scalars: map[string]float64{}, Weight: g.weight, N: g.n, Unit: f.unit, Attached: g.attach}
		for k, a := range g.scalars {
			if a.Weight() > 0 {
				s.Scalars[k] = a.Total("x", 0)
			}
		}
		out[name] = s
	}
	return out
}

func (f *folding) roll() Roll {
	slices.SortFunc(f.folded, func(a, b Folded) int { return cmp.Or(cmp.Compare(a.Member, b.Member), cmp.Compare(a.Base, b.Base)) })
	slices.Sort(f.abstained)
	slices.SortFunc(f.failed, func(a, b Failure) int {
		return cmp.Or(cmp.Compare(a.Member, b.Member), cmp.Compare(a.Round, b.Round), cmp.Compare(a.Reason, b.Reason))
	})
	slices.SortFunc(f.gathered, func(a, b Gathered) int { return cmp.Compare(a.Member, b.Member) })
	return Roll{f.asked, f.folded, f.abstained, f.failed, f.each.sorted(), f.gathered}
}

func (f *folding) traffic() []Traffic {
	var out []Traffic
	for _, t := range f.moved {
		out = append(out, *t)
	}
	slices.SortFunc(out, func(a, b Traffic) int { return cmp.Compare(a.Tag, b.Tag) })
	return out
}

// closed fills in the record of the phase who took part.
func (r Roll) closed(c *PhaseClosed, opened PhaseOpened) {
	c.Asked, c.Abstained = r.Asked, r.Abstained
	for _, f := range r.Failed {
		c.Lost = append(c.Lost, f.Index)
	}
	slices.Sort(c.Lost)
	c.Lost = slices.Compact(c.Lost)
	c.Failed = r.Failed[:min(len(r.Failed), MaxTold)]
	if rest := len(r.Failed) - len(c.Failed); rest > 0 {
		c.Notes = append(c.Notes, fmt.Sprintf("%d more members failed", rest))
	}
	shares := map[int]Indices{}
	for _, f := range r.Folded {
		shares[f.Base] = append(shares[f.Base], f.Member)
	}
	if len(shares[opened.Base]) == opened.Roster {
		c.Everyone = true
		return
	}
	for base, members := range shares {
		c.Folded = append(c.Folded, Share{base, members})
	}
	slices.SortFunc(c.Folded, func(a, b Share) int { return cmp.Compare(a.Base, b.Base) })
}

// eachTable holds the collected scalars: a row a member, stored by column.
type eachTable struct {
	names   []string
	members []int32
	columns [][]float64
}

func newEachTable(names []string) eachTable {
	return eachTable{names: names, columns: make([][]float64, len(names))}
}

// expect makes room for n members.
func (e *eachTable) expect(n int) {
	if len(e.names) == 0 {
		return
	}
	e.members = make([]int32, 0, n)
	for k := range e.columns {
		e.columns[k] = make([]float64, 0, n)
	}
}

func (e *eachTable) add(member int, scalars map[string]float64) {
	if len(e.names) == 0 {
		return
	}
	e.members = append(e.members, int32(member))
	for k, n := range e.names {
		v, ok := scalars[n]
		if !ok {
			v = math.NaN()
		}
		e.columns[k] = append(e.columns[k], v)
	}
}

// sorted returns the table ordered by member.
func (e *eachTable) sorted() Each {
	if len(e.names) == 0 {
		return Each{}
	}
	sort.Sort(e)
	out := Each{Members: e.members, Values: make(map[string][]float64, len(e.names))}
	for k, name := range e.names {
		out.Values[name] = e.columns[k]
	}
	return out
}

func (e *eachTable) Len() int           { return len(e.members) }
func (e *eachTable) Less(i, j int) bool { return e.members[i] < e.members[j] }
func (e *eachTable) Swap(i, j int) {
	e.members[i], e.members[j] = e.members[j], e.members[i]
	for _, c := range e.columns {
		c[i], c[j] = c[j], c[i]
	}
}
