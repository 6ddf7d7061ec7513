package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/weights"
)

// content is what came under a hash. It is decoded when it is first used as what it is used as, and kept in that form.
type content struct {
	mu    sync.Mutex
	raw   []byte
	value any
}

// use returns a content as decode makes it of the bytes.
func use[T any](c *content, decode func([]byte) (T, error)) (v T, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.value != nil {
		v, ok := c.value.(T)
		if !ok {
			return v, fmt.Errorf("a content is used as %T and as %T", c.value, v)
		}
		return v, nil
	}
	if v, err = decode(c.raw); err == nil {
		c.value, c.raw = v, nil
	}
	return v, err
}

// needs are the contents that a task uses.
type needs struct {
	v       *visit
	task    uint64
	held    map[blob.Hash]*entry
	missing []blob.Hash
}

func (v *visit) needs(task uint64) *needs {
	return &needs{v: v, task: task, held: map[blob.Hash]*entry{}}
}

func (n *needs) add(h blob.Hash) {
	if n.held[h] != nil {
		return
	}
	e, mine := n.v.cache.claim(h)
	n.held[h] = e
	if mine {
		n.missing = append(n.missing, h)
	}
}

func (n *needs) release() {
	for _, e := range n.held {
		n.v.cache.release(e)
	}
}

// fetch asks for what is missing and waits until everything is here.
func (n *needs) fetch(ctx context.Context) error {
	if len(n.missing) > 0 { // also if ctx is done: other tasks may wait for it by now
		b := encodeWant(want{n.task, n.missing})
		if err := n.v.link.send(kindWant, b); err != nil {
			return errLost
		}
	}
	for _, e := range n.held {
		select {
		case <-e.here:
			if e.err != nil {
				return e.err
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
	return nil
}

func (n *needs) content(h blob.Hash) *content { return n.held[h].value.(*content) }

func (n *needs) set(h blob.Hash) (weights.Set, error) { return use(n.content(h), decodeSet) }

func (n *needs) share(s *share) (dataset.View, error) {
	if s == nil {
		return dataset.View{}, nil
	}
	f, err := use(n.content(s.Form), decodeForm)
	if err != nil {
		return dataset.View{}, err
	}
	e, err := use(n.content(s.Rows), func(b []byte) (*dataset.Examples, error) { return decodeRows(b, s.Form, f) })
	if err != nil {
		return dataset.View{}, err
	}
	return e.All(), nil
}

// answer does a client's work and sends the result. Its error is that of a task that no host sends, or errLost.
func (v *visit) answer(visit, ctx context.Context, t task) error {
	n := v.needs(t.ID)
	defer n.release()
	a, err := v.compute(visit, ctx, n, t)
	if visit.Err() != nil { // what was cut short is no answer
		return errLost
	}
	if ctx.Err() != nil {
		a, err = &federated.Answer{Err: context.Cause(ctx)}, nil
	}
	if err != nil {
		return err
	}
	frame, keep, err := encodeResult(t.ID, a)
	if err != nil { // a name that cannot be written: the client's fault
		frame, keep, err = encodeResult(t.ID, &federated.Answer{Err: err})
	}
	if err != nil {
		return err
	}
	if keep != nil { // it may come back
		v.cache.put(blob.Sum(keep), &content{value: *a.Result.Keep}, int64(len(keep)))
	}
	if v.link.send(kindResult, frame...) != nil {
		return errLost
	}
	return nil
}

// compute runs the client.
func (v *visit) compute(visit, ctx context.Context, n *needs, t task) (*federated.Answer, error) {
	for _, h := range t.Sets {
		n.add(h)
	}
	for _, h := range []*blob.Hash{t.Index, t.Keep, t.Attached} {
		if h != nil {
			n.add(*h)
		}
	}
	for _, s := range []*share{t.Train, t.Test} {
		if s != nil {
			n.add(s.Form)
			n.add(s.Rows)
		}
	}
	if err := n.fetch(ctx); err != nil {
		return nil, err
	}
	m := federated.Member{Index: t.Member.Index, Name: string(t.Member.Name), Samples: t.Member.Samples}
	at := federated.Local{Member: m, Engine: v.Engine, Seed: v.run.Seed, Scope: t.Scope}
	if t.Vault {
		at.Vault = far{v, visit, t.ID}
	}
	if t.Peers {
		at.Peers = federated.Acquainted(m.Name)
	}
	do := federated.Task{Group: t.Group, Tag: t.Tag, Params: t.Params, Round: t.Round, Phase: t.Phase, Base: t.Base, Sets: map[string]weights.Set{}}
	var errs []error
	var err error
	for name, h := range t.Sets {
		do.Sets[name], err = n.set(h)
		errs = append(errs, err)
	}
	if t.Index != nil {
		do.Index, err = use(n.content(*t.Index), decodeIndex)
		errs = append(errs, err)
	}
	if t.Attached != nil {
		do.Attached, err = use(n.content(*t.Attached), func(b []byte) ([]byte, error) { return b, nil })
		errs = append(errs, err)
	}
	var keep *weights.Set
	if t.Keep != nil {
		s, err := n.set(*t.Keep)
		keep, errs = &s, append(errs, err)
	}
	at.Train, err = n.share(t.Train)
	errs = append(errs, err)
	at.Test, err = n.share(t.Test)
	if err := errors.Join(append(errs, err)...); err != nil {
		return nil, fmt.Errorf("the task for %s: %w", m.Name, err)
	}
	o := &federated.Order{Member: m, Round: t.Round, Phase: t.Phase, Base: t.Base, Make: func() (federated.Task, error) { return do, nil }}
	return federated.Perform(ctx, v.client, at, o, keep), nil
}
