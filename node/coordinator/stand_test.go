package coordinator

import (
	"bytes"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/node/parcel"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/weights"
)

// stand is a relay that does what the protocol says, in the simplest way. It lives on when the coordinator crashes.
type stand struct {
	w      *world
	name   string
	key    identity.Key
	leaves []string
	store  blob.Store
	lie    func(p *parcel.Partial, e *transport.Envelope) // changes what is handed in

	mu      sync.Mutex
	link    transport.Link
	stop    context.CancelFunc
	held    map[int]*given
	answers []transport.Inclusion
}

// given is a leaf's result.
type given struct {
	leaf  *puppet
	p     *parcelled
	round int
	step  string
}

// behind puts members behind a new relay.
func (w *world) behind(relay string, members ...string) *stand {
	k, err := identity.NewKey()
	if err != nil {
		w.t.Fatal(err)
	}
	s := &stand{w: w, name: relay, key: k, leaves: members, store: blob.NewMemory(), held: map[int]*given{}}
	w.roster[relay] = identity.Member{Index: 100 + len(w.stands), Name: relay, Key: k.Public(), State: identity.Admitted}
	w.stands[relay] = s
	for _, name := range members {
		w.members[name].behind = s
	}
	return s
}

// Is, Behind, Delegation and Announce implement Relays.
func (w *world) Is(member string) bool { return w.stands[member] != nil }

func (w *world) Leaves() (n int) {
	for _, s := range w.stands {
		n += len(s.leaves)
	}
	return n
}

func (w *world) Behind(member string) (string, bool) {
	for _, s := range w.stands {
		if slices.Contains(s.leaves, member) {
			return s.name, true
		}
	}
	return "", false
}

func (w *world) Delegation(relay string) (*transport.Delegation, bool) {
	s := w.stands[relay]
	if s == nil {
		return nil, false
	}
	d := &transport.Delegation{Number: 1, Relay: relay, Key: s.key.Public().String(), URL: "https://127.0.0.1:1"}
	for _, name := range s.leaves {
		d.Leaves = append(d.Leaves, transport.Leaf{Name: name, Key: w.roster[name].Key.String()})
	}
	return d, true
}

func (w *world) Announce(string, string, identity.Fingerprint) error { return nil }

// line is the relay's connection.
func (s *stand) line() transport.Link {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.link
}

// join connects to the coordinator, once for all leaves.
func (s *stand) join() {
	s.mu.Lock()
	if s.link != nil {
		s.mu.Unlock()
		return
	}
	link := s.w.bus.Dial(s.name)
	ctx, cancel := context.WithCancel(context.Background())
	s.link, s.stop = link, cancel
	s.mu.Unlock()
	link.Receive(func(msg []byte) {
		e, err := transport.Peek(msg)
		if err != nil {
			panic(err)
		}
		for _, name := range s.leaves {
			if m := s.w.members[name]; (e.To == "" || e.To == name) && m.behind == s && m.active() {
				m.receive(msg)
			}
		}
	})
	link.OnState(func(up bool) {
		if up {
			go func() {
				_, _ = s.request(transport.Envelope{}, &transport.Relay{URL: "https://127.0.0.1:1", Here: s.leaves})
				for _, name := range s.leaves {
					if m := s.w.members[name]; m.behind == s && m.active() {
						m.sync()
					}
				}
			}()
		}
	})
	go func() {
		for ctx.Err() == nil {
			time.Sleep(2 * time.Millisecond)
			s.handIn()
		}
	}()
}

func (s *stand) quit() {
	s.mu.Lock()
	link, stop := s.link, s.stop
	s.link = nil
	s.mu.Unlock()
	if link != nil {
		stop()
		_ = link.Close()
	}
}

func (s *stand) request(e transport.Envelope, body transport.Body) (transport.Envelope, error) {
	link := s.line()
	if link == nil {
		return e, transport.ErrClosed
	}
	e.Fed, e.From = s.w.key.Public().String(), s.name
	if err := e.Put(body); err != nil {
		panic(err)
	}
	msg, err := transport.Seal(s.key, e)
	if err != nil {
		panic(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	reply, err := link.Request(ctx, msg)
	if err != nil {
		return e, err
	}
	return transport.Open(s.w.key.Public(), reply)
}

// give takes a leaf's result.
func (s *stand) give(m *puppet, p *parcelled) {
	e, err := transport.Peek(p.msg)
	if err != nil {
		panic(err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.held[p.ask.Order] = &given{leaf: m, p: p, round: e.Round, step: e.Step}
}

// handIn hands in what has come of one phase.
func (s *stand) handIn() {
	s.mu.Lock()
	var batch []int
	for _, id := range slices.Sorted(maps.Keys(s.held)) {
		g := s.held[id]
		if g.leaf.ended(id) {
			delete(s.held, id)
			continue
		}
		if len(batch) == 0 || g.step == s.held[batch[0]].step && g.round == s.held[batch[0]].round {
			batch = append(batch, id)
		}
	}
	s.mu.Unlock()
	if len(batch) == 0 {
		return
	}
	in, err := s.combine(batch)
	if err != nil {
		return // the coordinator is away, or the first of them is over
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.answers = append(s.answers, *in)
	var counted, out federated.Indices
	if counted.UnmarshalText([]byte(in.Counted)) != nil || out.UnmarshalText([]byte(in.Out)) != nil {
		panic(fmt.Sprint(in))
	}
	for _, id := range batch {
		if s.held[id] == nil { // another life of this relay was faster
			continue
		}
		if in.Outcome == transport.Accepted || in.Outcome == transport.Duplicate || slices.Contains(counted, id) || slices.Contains(out, id) {
			s.held[id].leaf.settled(id)
			delete(s.held, id)
		}
	}
}

// active reports whether the member has joined and not quit.
func (m *puppet) active() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.busy != nil && !m.left
}

// ended reports whether nothing is to be done for an order any more.
func (m *puppet) ended(order int) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.done[order] || m.kept[order] == nil
}

// settled notes that the coordinator has a result.
func (m *puppet) settled(order int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if p := m.kept[order]; p != nil {
		p.sent = true
	}
}

// combine adds a batch of results and hands the sum in.
func (s *stand) combine(batch []int) (*transport.Inclusion, error) {
	ctx := context.Background()
	s.mu.Lock()
	all := make([]*given, len(batch))
	for i, id := range batch {
		all[i] = s.held[id]
	}
	s.mu.Unlock()
	if slices.Contains(all, nil) {
		return nil, fmt.Errorf("handed in by another life of this relay")
	}
	first := all[0]
	run := transport.Envelope{Run: "run", Round: first.round, Step: first.step}
	e, err := s.request(run, &transport.Layout{Order: batch[0], Task: first.p.ask.Task})
	var folds transport.Folds
	if err == nil {
		err = e.Decode(&folds)
	}
	if err != nil {
		return nil, err
	}
	phase := federated.Phase{Name: first.step}
	for _, f := range folds.Folds {
		like := weights.NewSet(len(f.Like))
		for _, x := range f.Like {
			like.Put(x.Name, weights.Tensor{Shape: x.Shape})
		}
		phase.Folds = append(phase.Folds, federated.Fold{Name: f.Name, Like: like, Indexed: f.Indexed, Counts: f.Counts})
	}
	c := federated.NewCombiner(phase)
	p := &parcel.Partial{}
	for _, g := range all {
		re, err := transport.Peek(g.p.msg)
		if err != nil {
			panic(err)
		}
		var body transport.Result
		if err := re.Decode(&body); err != nil {
			panic(err)
		}
		leaf := parcel.Leaf{Message: g.p.msg}
		if !body.Abstained && body.Failed == "" {
			res := federated.Result{Weight: body.Weight, Scalars: body.Scalars, Addends: map[string]weights.Set{}}
			for _, t := range body.Addends {
				set, err := parcel.Set(ctx, g.leaf.store, t, re.Refs)
				if err != nil {
					panic(err)
				}
				res.Addends[t.Name], leaf.Bytes = set, leaf.Bytes+set.Bytes()
			}
			if res.Cover, err = parcel.Index(ctx, g.leaf.store, body.Cover, re.Refs); err != nil {
				panic(err)
			}
			if err := c.Add(g.p.task, res); err != nil {
				leaf.Refused = err.Error()
			}
		}
		p.Leaves = append(p.Leaves, leaf)
	}
	p.Sums = c.Sums()
	body := &transport.Partial{Sums: 1}
	text, _ := federated.Indices(batch).MarshalText()
	body.Orders = string(text)
	if s.lie != nil {
		s.lie(p, &run)
		if len(p.Leaves) == 0 {
			return nil, fmt.Errorf("nothing to say")
		}
		body.Orders = ordersIn(p)
	}
	ref, err := parcel.StorePartial(ctx, s.store, p)
	if err != nil {
		panic(err)
	}
	run.Refs = []transport.Ref{ref}
	e, err = s.request(run, &transport.Ask{Order: batch[0], Task: first.p.ask.Task, Blobs: run.Refs})
	var no transport.Failure
	if err == nil && e.Kind == transport.KindError && e.Decode(&no) == nil && no.Code == transport.CodeConflict { // it came another way
		return &transport.Inclusion{Outcome: transport.Refused, Code: no.Code, Counted: fmt.Sprint(batch[0])}, nil
	}
	if err != nil || e.Kind != transport.KindPermit {
		return nil, fmt.Errorf("no permit: %s %w", e.Body, err)
	}
	var permit transport.Permit
	if err := e.Decode(&permit); err != nil || !permit.Granted {
		return nil, fmt.Errorf("no permit")
	}
	r, err := blob.Open(ctx, s.store, blob.Hash(ref.Hash))
	if err != nil {
		panic(err)
	}
	_, _, err = blob.Write(ctx, first.leaf.coordinator(), r)
	_ = r.Close()
	if err != nil {
		return nil, err
	}
	if e, err = s.request(run, body); err != nil {
		return nil, err
	}
	in := &transport.Inclusion{}
	return in, e.Decode(in)
}

// ordersIn lists the orders of the results in a partial, as far as they can be read.
func ordersIn(p *parcel.Partial) string {
	var ids federated.Indices
	for _, l := range p.Leaves {
		e, err := transport.Peek(l.Message)
		var body transport.Result
		if err == nil && e.Decode(&body) == nil && !slices.Contains(ids, body.Order) {
			ids = append(ids, body.Order)
		}
	}
	slices.Sort(ids)
	text, _ := ids.MarshalText()
	return string(bytes.TrimSpace(text))
}
