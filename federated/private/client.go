package private

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/secure/secagg"
	"github.com/cohort-learning/cohort/weights"
)

// client does a member's part of secure sums around the method's own client.
type client struct {
	*Secure
	method federated.Client
}

// Run implements [federated.Client].
func (c *client) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	var o order
	if err := json.Unmarshal(t.Params, &o); err != nil {
		return federated.Result{}, fmt.Errorf("secure aggregation: %w: task parameters: %w", secagg.ErrMalformed, err)
	}
	if o.Step == "" {
		return federated.Result{}, fmt.Errorf("secure aggregation: %w: the task is none of a session, and nothing leaves in the open", secagg.ErrMalformed)
	}
	if want := o.name(); t.Phase != want { // what a member pays for, and what it tells its owner, goes by the phase
		return federated.Result{}, fmt.Errorf("secure aggregation: %w: a task of phase %.80q asks for %.80q", secagg.ErrMalformed, t.Phase, want)
	}
	if o.Step == plain {
		return c.sum(ctx, at, t, keep, o)
	}
	if at.Vault == nil || at.Peers == nil {
		return federated.Result{}, errors.New("secure sums need a place for secrets, and to know the other members")
	}
	s := &answers{c: c, at: at, prefix: fmt.Sprintf("secure/%d.%s/", t.Round, strings.TrimSuffix(o.name(), "."+o.Step))}
	switch o.Step {
	case keys:
		return s.keys(t, o)
	case shares:
		return s.shares(t)
	case masked:
		return s.masked(ctx, t, keep, o)
	case confirm:
		return s.confirm(t)
	case unmask:
		return s.unmask(t)
	}
	return federated.Result{}, fmt.Errorf("secure aggregation: %w: step %.80q is unknown to this client", secagg.ErrMalformed, o.Step)
}

// vector does the method's task and makes the vector of its result.
// Of the shells beyond the first shown ones it says nothing.
func (c *client) vector(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set, o order, l *terms, holding, shown int) (*secagg.Vector, *weights.Set, error) {
	own := t
	own.Params, own.Phase, own.Group, own.Attached = o.Params, o.Phase, "", nil
	p := c.o.params(l)
	if o.Rows {
		r, ok := c.Algorithm.(Rows)
		if !ok {
			return nil, nil, errors.New("the method has no rows to count")
		}
		cover, err := r.Covers(at, own)
		if err != nil {
			return nil, nil, err
		}
		v, err := l.Layout.encode(p, holding, shown, federated.Result{Cover: cover}, nil, nil, nil)
		return v, nil, err
	}
	if n := len(l.Layout.Holdings) * l.Layout.Rows; len(o.Allowed) != n {
		return nil, nil, fmt.Errorf("secure aggregation: %w: it is told of %d rows whether enough members cover them, expected %d", secagg.ErrMalformed, len(o.Allowed), n)
	}
	before := settle(keep, o.Counted)
	r, err := c.method.Run(ctx, at, own, before)
	if err != nil {
		return nil, nil, err
	}
	if rows, ok := c.Algorithm.(Rows); ok && r.Cover == nil && l.Layout.Rows > 0 {
		if r.Cover, err = rows.Covers(at, own); err != nil {
			return nil, nil, err
		}
	}
	v, err := l.Layout.encode(p, holding, shown, r, o.Allowed, at.Rand(t.Round, o.Phase+"/rounding"), c.hides(l))
	switch {
	case o.Counted == nil || r.Keep == nil && before == keep: // one memory, or the same as before
		return v, r.Keep, err
	case r.Keep == nil:
		return v, unsettled(sessionMark(t.Round, o.Phase), before, before), err
	}
	return v, unsettled(sessionMark(t.Round, o.Phase), before, r.Keep), err
}

// sum is the whole session where nobody is to be hidden from.
func (c *client) sum(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set, o order) (federated.Result, error) {
	if !c.o.Plain {
		return federated.Result{}, fmt.Errorf("secure aggregation: %w: the task wants a result in the open", secagg.ErrMalformed)
	}
	l, err := readTerms(t.Attached)
	if err != nil {
		return federated.Result{}, err
	}
	v, kept, err := c.vector(ctx, at, t, keep, o, l, o.Holding, len(l.Layout.Holdings))
	if err != nil {
		return federated.Result{}, err
	}
	b, err := v.MarshalBinary()
	return federated.Result{Attached: b, Keep: kept}, err
}

// answers are the five steps of a session at a member. What each has answered, and the state after it, is one value of the vault.
type answers struct {
	c      *client
	at     federated.Local
	prefix string
}

// kept is the value of a step.
type kept struct {
	asked   [sha256.Size]byte // digest of what the server sent
	said    []byte            // what later steps need of it: the terms, the list of survivors
	state   []byte
	message []byte
	memory  []byte // of the method
}

func (k kept) marshal() []byte {
	b := append([]byte(nil), k.asked[:]...)
	for _, part := range [][]byte{k.said, k.state, k.message, k.memory} {
		b = binary.LittleEndian.AppendUint64(b, uint64(len(part)))
		b = append(b, part...)
	}
	return b
}

func readKept(b []byte) (k kept, err error) {
	damaged := errors.New("what this member kept of a session is damaged")
	if len(b) < len(k.asked) {
		return k, damaged
	}
	b = b[copy(k.asked[:], b):]
	for _, part := range []*[]byte{&k.said, &k.state, &k.message, &k.memory} {
		if len(b) < 8 || binary.LittleEndian.Uint64(b) > uint64(len(b)-8) {
			return k, damaged
		}
		n := binary.LittleEndian.Uint64(b)
		*part, b = b[8:8+n], b[8+n:]
	}
	if len(b) > 0 {
		return k, damaged
	}
	return k, nil
}

// once answers a step, or gives the answer that it was given before; a step that is asked for with something else is refused.
func (s *answers) once(step string, t federated.Task, answer func() (kept, error)) (r federated.Result, err error) {
	asked := sha256.New()
	for _, part := range [][]byte{t.Params, t.Attached} {
		_ = binary.Write(asked, binary.LittleEndian, uint64(len(part))) // cannot fail
		asked.Write(part)
	}
	now := [sha256.Size]byte(asked.Sum(nil))
	b, err := s.at.Vault.Once(s.prefix+step, func() ([]byte, error) {
		k, err := answer()
		if err != nil {
			return nil, err
		}
		k.asked = now
		return k.marshal(), nil
	})
	if err != nil {
		return r, err
	}
	k, err := readKept(b)
	if err != nil {
		return r, err
	}
	if k.asked != now {
		return r, fmt.Errorf("secure aggregation: %w: step %q of this session was asked for before, with something else: one session, one answer",
			secagg.ErrConflict, step)
	}
	r.Attached = k.message
	if len(k.memory) > 0 {
		memory, _, err := weights.Read(bytes.NewReader(k.memory))
		if err != nil {
			return r, err
		}
		r.Keep = &memory
	}
	return r, nil
}

// read returns what was kept of a step.
func (s *answers) read(step string) (kept, error) {
	b, err := s.at.Vault.Once(s.prefix+step, func() ([]byte, error) {
		return nil, fmt.Errorf("secure aggregation: %w: this member has not answered step %q of the session", secagg.ErrOrder, step)
	})
	if err != nil {
		return kept{}, err
	}
	return readKept(b)
}

// before returns the terms of the session and the member as it was after a step.
func (s *answers) before(step string) (*terms, *secagg.Member, error) {
	first, err := s.read(keys)
	if err != nil {
		return nil, nil, err
	}
	l, err := readTerms(first.said)
	if err != nil {
		return nil, nil, err
	}
	k, err := s.read(step)
	if err != nil {
		return nil, nil, err
	}
	m, err := secagg.RestoreMember(s.c.o.params(l), s.trust(), k.state)
	return l, m, err
}

func (s *answers) trust() secagg.Trust {
	return secagg.Trust{
		Sign:     func(msg []byte) ([]byte, error) { return s.at.Peers.Sign(msg), nil },
		Verifier: s.at.Peers, RequirePinned: s.at.Peers.Insists(),
	}
}

// after returns the value of a step that changed the member and made a message.
func after(m *secagg.Member, message interface{ MarshalBinary() ([]byte, error) }) (k kept, err error) {
	if k.message, err = message.MarshalBinary(); err != nil {
		return k, err
	}
	k.state, err = m.MarshalBinary()
	return k, err
}

func (s *answers) keys(t federated.Task, o order) (federated.Result, error) {
	l, err := readTerms(t.Attached)
	if err != nil {
		return federated.Result{}, err
	}
	if again, err := l.marshal(); err != nil || !bytes.Equal(again, t.Attached) { // no two readers may take them otherwise
		return federated.Result{}, fmt.Errorf("secure aggregation: %w: the terms are not in the form in which this version writes them", secagg.ErrMalformed)
	}
	if want := sessionName(s.at.Scope, t.Round, o.Phase, o.Rows); l.Session != want {
		return federated.Result{}, fmt.Errorf("secure aggregation: %w: the terms are of session %q, not of %q", secagg.ErrMalformed, l.Session, want)
	}
	if err := s.c.acceptable(l); err != nil {
		return federated.Result{}, err
	}
	if err := s.c.counted(l, o); err != nil {
		return federated.Result{}, err
	}
	r, err := s.once(keys, t, func() (kept, error) {
		m, advert, err := secagg.NewMember(s.c.o.params(l), s.at.Member.Name, o.Holding, s.trust())
		if err != nil {
			return kept{}, err
		}
		k, err := after(m, advert)
		k.said = t.Attached
		return k, err
	})
	if err != nil { // a session that is refused ends no other
		return r, err
	}
	return r, s.forgetOthers()
}

// acceptable refuses terms that are weaker than those that were agreed to.
func (a *Secure) acceptable(l *terms) error {
	p := a.o.params(l)
	if err := p.Validate(); err != nil {
		return fmt.Errorf("terms of the session: %w: %w", secagg.ErrMalformed, err)
	}
	m := p.Neighbourhood()
	switch {
	case l.Members < a.o.least():
		return fmt.Errorf("secure aggregation: %w: a session of %d members, and at least %d were agreed", secagg.ErrMalformed, l.Members, a.o.least())
	case l.Threshold < a.threshold(m):
		return fmt.Errorf("secure aggregation: %w: a threshold of %d of %d, and at least %d was agreed", secagg.ErrMalformed, l.Threshold, m, a.threshold(m))
	case a.fits(l) != nil:
		return a.fits(l)
	case l.Neighbours > 0 && !a.o.Sparse:
		return fmt.Errorf("secure aggregation: %w: a sparse graph, which was not agreed", secagg.ErrMalformed)
	}
	if l.Neighbours == 0 {
		return nil
	}
	neighbours, threshold, err := a.graph(l.Members, len(l.Layout.Holdings))
	switch {
	case err != nil:
		return err
	case neighbours == 0 || l.Neighbours < neighbours || l.Threshold < threshold:
		return fmt.Errorf("secure aggregation: %w: a graph of %d neighbours with threshold %d among %d members; what was agreed takes %d with %d (0: everybody)",
			secagg.ErrMalformed, l.Neighbours, l.Threshold, l.Members, neighbours, threshold)
	}
	return nil
}

// counted refuses terms by which rows would be sent without it being known how many members cover them.
func (a *Secure) counted(l *terms, o order) error {
	var tensors []string
	labels := 0
	if r, ok := a.Algorithm.(Rows); ok {
		tensors, labels = r.Rows(federated.Phase{Name: o.Phase})
	}
	if !slices.Equal(l.Layout.Scalars, a.scalars()) {
		return fmt.Errorf("secure aggregation: %w: the session sums the numbers %q beside tensors, and the method has %q", secagg.ErrMalformed, l.Layout.Scalars, a.scalars())
	}
	if l.Layout.Rows != labels || !slices.Equal(l.Layout.RowsOf, tensors) || o.Rows && labels == 0 {
		return fmt.Errorf("secure aggregation: %w: the session counts %d rows of %q, and the method has %d of %q", secagg.ErrMalformed, l.Layout.Rows,
			l.Layout.RowsOf, labels, tensors)
	}
	return nil
}

// forgetOthers erases the secrets of earlier sessions: whatever became of them, nobody needs them now.
func (s *answers) forgetOthers() error {
	names, err := s.at.Vault.Names()
	if err != nil {
		return err
	}
	for _, n := range names {
		prefix := n[:strings.LastIndex(n, "/")+1]
		if prefix == s.prefix || !strings.HasPrefix(prefix, "secure/") {
			continue
		}
		if err := s.at.Vault.Erase(prefix); err != nil {
			return err
		}
	}
	return nil
}

func (s *answers) shares(t federated.Task) (federated.Result, error) {
	_, m, err := s.before(keys)
	if err != nil {
		return federated.Result{}, err
	}
	return s.once(shares, t, func() (kept, error) {
		var adverts secagg.Adverts
		if err := adverts.UnmarshalBinary(t.Attached); err != nil {
			return kept{}, err
		}
		shared, err := m.Share(adverts)
		if err != nil {
			return kept{}, err
		}
		return after(m, shared.Boxes)
	})
}

func (s *answers) masked(ctx context.Context, t federated.Task, keep *weights.Set, o order) (federated.Result, error) {
	l, m, err := s.before(shares)
	if err != nil {
		return federated.Result{}, err
	}
	holding := m.Advert().Holding
	if err := l.agreed(o, holding, t); err != nil {
		return federated.Result{}, err
	}
	return s.once(masked, t, func() (kept, error) {
		var boxes secagg.Boxes
		if err := boxes.UnmarshalBinary(t.Attached); err != nil {
			return kept{}, err
		}
		shown := l.Layout.shown(m.Holders(nil), s.c.o.params(l).Holders)
		v, memory, err := s.c.vector(ctx, s.at, t, keep, o, l, holding, shown)
		if err != nil {
			return kept{}, err
		}
		y, err := m.Mask(boxes, v)
		if err != nil {
			return kept{}, err
		}
		k, err := after(m, y)
		if memory != nil && err == nil {
			var b bytes.Buffer
			err = weights.Write(&b, *memory, nil)
			k.memory = b.Bytes()
		}
		return k, err
	})
}

func (s *answers) confirm(t federated.Task) (federated.Result, error) {
	l, m, err := s.before(masked)
	if err != nil {
		return federated.Result{}, err
	}
	return s.once(confirm, t, func() (kept, error) {
		var list secagg.Survivors
		if err := list.UnmarshalBinary(t.Attached); err != nil {
			return kept{}, err
		}
		least := s.c.o.params(l).Holders
		if l.Layout.shown(m.Holders(list), least) < l.Layout.shown(m.Holders(nil), least) {
			return kept{}, fmt.Errorf("secure aggregation: %w: of those who hold a part of the model fewer than %d are left", secagg.ErrTooFew, least)
		}
		c, err := m.Confirm(list)
		if err != nil {
			return kept{}, err
		}
		k, err := after(m, c)
		k.said = t.Attached
		return k, err
	})
}

func (s *answers) unmask(t federated.Task) (federated.Result, error) {
	_, m, err := s.before(confirm)
	if err != nil {
		return federated.Result{}, err
	}
	agreed, err := s.read(confirm)
	if err != nil {
		return federated.Result{}, err
	}
	return s.once(unmask, t, func() (kept, error) {
		var list secagg.Survivors
		if err := list.UnmarshalBinary(agreed.said); err != nil {
			return kept{}, err
		}
		var confirmations secagg.Confirmations
		if err := confirmations.UnmarshalBinary(t.Attached); err != nil {
			return kept{}, err
		}
		v, err := m.Unmask(list, confirmations)
		if err != nil {
			return kept{}, err
		}
		return after(m, v)
	})
}
