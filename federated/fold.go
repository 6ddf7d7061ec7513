package federated

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/weights"
)

// discountUnit is the denominator of staleness discounts: weights are integers, so a discount is rounded to 1/1024.
const discountUnit = 1024

// folding adds the results of one phase.
type folding struct {
	phase     Phase
	groups    map[string]*groupSum
	moved     map[string]*Traffic
	asked     int
	folded    []Folded
	abstained []int
	failed    []Failure
	each      []Each
	kept      *weights.Set // memory of the result added last, to be committed
	err       error
}

type groupSum struct {
	total   map[string]*weights.Acc
	scalars map[string]*weights.Acc
	weight  uint64
	n       int
}

func newFolding(p Phase) *folding {
	return &folding{phase: p, groups: map[string]*groupSum{}, moved: map[string]*Traffic{}}
}

// answered is how many of those asked count towards the quorum.
func (f *folding) answered() int { return len(f.folded) + len(f.abstained) }

func (f *folding) fail(o *Order, reason string) {
	f.failed = append(f.failed, Failure{o.Member.Name, o.Round, o.Phase, reason})
}

// add folds an answer that is behind versions old.
func (f *folding) add(a *Answer, behind int, discount float64) {
	o, r := a.Order, a.Result
	t := f.traffic1(a.Task.Tag)
	t.Members++
	t.Down += a.Task.Bytes()
	if a.Err != nil {
		f.fail(o, a.Err.Error())
		return
	}
	for _, s := range r.Addends {
		t.Up += s.Bytes()
	}
	if r.Status == Abstained {
		f.abstained = append(f.abstained, o.Member.Index)
		return
	}
	weight := max(1, r.Weight)
	if discount > 0 {
		weight *= max(1, uint64(math.Round(discountUnit*math.Pow(1+float64(behind), -discount))))
	}
	g := f.group(a.Task.Group)
	if err := g.add(f.phase, a.Task, r, weight); err != nil {
		f.fail(o, "refused: "+err.Error())
		return
	}
	f.folded = append(f.folded, Folded{o.Member.Index, o.Base})
	if f.phase.Collect {
		f.each = append(f.each, Each{o.Member.Index, r.Scalars})
	}
	f.kept = r.Keep
}

func (f *folding) group(name string) *groupSum {
	g, ok := f.groups[name]
	if !ok {
		g = &groupSum{total: map[string]*weights.Acc{}, scalars: map[string]*weights.Acc{}}
		for _, fold := range f.phase.Folds {
			g.total[fold.Name] = weights.NewAcc(fold.Like, fold.Counts)
		}
		f.groups[name] = g
	}
	return g
}

// add adds a result to every fold of its group, or to none.
func (g *groupSum) add(p Phase, t Task, r Result, weight uint64) error {
	for name := range r.Addends {
		if _, ok := g.total[name]; !ok {
			return fmt.Errorf("sent %q, which phase %s does not sum", name, p.Name)
		}
	}
	for _, fold := range p.Folds {
		x, ok := r.Addends[fold.Name]
		if !ok {
			return fmt.Errorf("sent no %q", fold.Name)
		}
		at, cover := scope(fold, t, r)
		if err := g.total[fold.Name].Check(x, at, cover, weight); err != nil {
			return fmt.Errorf("%s: %w", fold.Name, err)
		}
	}
	for name, v := range r.Scalars {
		if err := g.scalar(name).Check(number(v), nil, nil, 1); err != nil {
			return fmt.Errorf("%s is %v", name, v)
		}
	}
	for _, fold := range p.Folds {
		at, cover := scope(fold, t, r)
		g.total[fold.Name].MustAdd(r.Addends[fold.Name], at, cover, weight)
	}
	for name, v := range r.Scalars {
		g.scalar(name).MustAdd(number(v), nil, nil, 1)
	}
	g.weight += weight
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
		s := &Sum{Total: g.total, Scalars: map[string]float64{}, Weight: g.weight, N: g.n}
		for k, a := range g.scalars {
			s.Scalars[k] = a.Total("x", 0)
		}
		out[name] = s
	}
	return out
}

func (f *folding) roll() Roll {
	slices.SortFunc(f.folded, func(a, b Folded) int { return cmp.Or(cmp.Compare(a.Member, b.Member), cmp.Compare(a.Base, b.Base)) })
	slices.Sort(f.abstained)
	slices.SortFunc(f.failed, func(a, b Failure) int { return cmp.Or(cmp.Compare(a.Member, b.Member), cmp.Compare(a.Round, b.Round)) })
	slices.SortFunc(f.each, func(a, b Each) int { return cmp.Compare(a.Member, b.Member) })
	return Roll{f.asked, f.folded, f.abstained, f.failed, f.each}
}

func (f *folding) traffic1(tag string) *Traffic {
	t, ok := f.moved[tag]
	if !ok {
		t = &Traffic{Tag: tag}
		f.moved[tag] = t
	}
	return t
}

func (f *folding) traffic() []Traffic {
	var out []Traffic
	for _, t := range f.moved {
		out = append(out, *t)
	}
	slices.SortFunc(out, func(a, b Traffic) int { return cmp.Compare(a.Tag, b.Tag) })
	return out
}

// Digest returns the SHA-256 of everything in s, as hexadecimal: equal digests mean equal bits.
func (s State) Digest() string {
	h := sha256.New()
	var b [8]byte
	word := func(v int) {
		binary.LittleEndian.PutUint64(b[:], uint64(v))
		h.Write(b[:])
	}
	word(s.Round)
	word(s.Version)
	names := make([]string, 0, len(s.Sets))
	for n := range s.Sets {
		names = append(names, n)
	}
	slices.Sort(names)
	for _, n := range names {
		word(len(n))
		h.Write([]byte(n))
		d := weights.Digest(s.Sets[n])
		h.Write(d[:])
	}
	h.Write(s.Meta)
	return hex.EncodeToString(h.Sum(nil))
}
