package worker

import (
	"crypto/sha256"
	"encoding/json"
	"slices"
	"sync"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/weights"
)

// offers are the contents that a worker may ask for, and how each is made. They are made when they are asked for, which of
// most happens once a worker; so the host holds no second copy of its data.
type offers map[blob.Hash]func() ([]byte, error)

// catalogue names contents. It remembers the names of what is sent again and again, so that a model is hashed once for all
// clients of a round and a client's examples once in a run.
type catalogue struct {
	mu     sync.Mutex
	sets   []*named // those used last, the last in front
	shares map[place]share
}

// named is a set and its name. It is recognised by its memory, which does not change as long as it is held here.
type named struct {
	set  weights.Set
	used int // round
	once sync.Once
	hash blob.Hash
	err  error
}

// place is where a client's examples are.
type place struct {
	client int
	test   bool
}

// remembered is how many sets a catalogue holds at most. It forgets those that were not used for a whole round.
const remembered = 8

func newCatalogue() *catalogue { return &catalogue{shares: map[place]share{}} }

// set names a set that many tasks of a round share, and offers it.
func (c *catalogue) set(s weights.Set, round int, o offers) (blob.Hash, error) {
	n := c.recall(s, round)
	n.once.Do(func() {
		sum := sha256.New()
		n.err = weights.Write(sum, s, nil)
		n.hash = blob.Hash(sum.Sum(nil))
	})
	if n.err == nil {
		o[n.hash] = func() ([]byte, error) { return encodeSet(s) }
	}
	return n.hash, n.err
}

func (c *catalogue) recall(s weights.Set, round int) *named {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := slices.IndexFunc(c.sets, func(n *named) bool { return same(n.set, s) })
	n := &named{set: s}
	if at >= 0 {
		n = c.sets[at]
		c.sets = slices.Delete(c.sets, at, at+1)
	}
	n.used = max(n.used, round)
	c.sets = slices.DeleteFunc(slices.Insert(c.sets, 0, n), func(n *named) bool { return n.used < round-1 })
	if len(c.sets) > remembered {
		c.sets = slices.Delete(c.sets, remembered, len(c.sets))
	}
	return n
}

// same reports whether two sets are the same tensors in the same memory.
func same(a, b weights.Set) bool {
	if !slices.Equal(a.Names(), b.Names()) {
		return false
	}
	for name, t := range a.All() {
		u := b.Must(name)
		if !slices.Equal(t.Shape, u.Shape) || len(t.F32) != len(u.F32) || len(t.F64) != len(u.F64) ||
			len(t.F32) > 0 && &t.F32[0] != &u.F32[0] || len(t.F64) > 0 && &t.F64[0] != &u.F64[0] {
			return false
		}
	}
	return true
}

// once names bytes that belong to one task.
func once(b []byte, o offers) *blob.Hash {
	h := blob.Sum(b)
	o[h] = func() ([]byte, error) { return b, nil }
	return &h
}

// share names a client's examples; nil if it has none and there is nothing to say of them.
func (c *catalogue) share(at place, v dataset.View, skew dataset.Skew, o offers) (*share, error) {
	if v.Data == nil {
		return nil, nil
	}
	c.mu.Lock()
	s, known := c.shares[at]
	c.mu.Unlock()
	form := func() ([]byte, error) {
		return formOf(dataset.View{Data: v.Data}.Seen(skew)).encode() // noise makes numbers of bytes
	}
	content := func() ([]byte, error) { return encodeRows(v.Seen(skew), s.Form), nil }
	if !known {
		b, err := form()
		if err != nil {
			return nil, err
		}
		s.Form = blob.Sum(b)
		if b, err = content(); err != nil {
			return nil, err
		}
		s.Rows = blob.Sum(b)
		c.mu.Lock()
		c.shares[at] = s
		c.mu.Unlock()
	}
	o[s.Form], o[s.Rows] = form, content
	return &s, nil
}

// task describes an order to a worker, and offers what it is made of.
func (c *catalogue) task(id uint64, at federated.Local, o *federated.Order, t federated.Task, keep *weights.Set) (task, offers, error) {
	from := offers{}
	m := o.Member
	out := task{ID: id, Member: member{m.Index, []byte(m.Name), m.Samples}, Round: t.Round, Phase: t.Phase, Base: t.Base, Group: t.Group, Tag: t.Tag,
		Params: t.Params, Sets: map[string]blob.Hash{}, Scope: at.Scope, Vault: at.Vault != nil, Peers: at.Peers != nil}
	var err error
	for name, s := range t.Sets {
		if out.Sets[name], err = c.set(s, t.Round, from); err != nil {
			return out, nil, err
		}
	}
	if t.Index != nil {
		b, err := json.Marshal(t.Index)
		if err != nil {
			return out, nil, err
		}
		out.Index = once(b, from)
	}
	if t.Attached != nil {
		out.Attached = once(t.Attached, from)
	}
	if keep != nil {
		b, err := encodeSet(*keep)
		if err != nil {
			return out, nil, err
		}
		out.Keep = once(b, from)
	}
	if out.Train, err = c.share(place{m.Index, false}, at.Train, at.Skew, from); err != nil {
		return out, nil, err
	}
	out.Test, err = c.share(place{m.Index, true}, at.Test, at.Skew, from)
	return out, from, err
}
