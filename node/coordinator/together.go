package coordinator

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/transport"
)

// Where a phase asks the same of many members, their tasks are one message ([transport.Tasks]): made and signed once, and
// broadcast. A member finds its order by its place in the run, which its first task of this process, or a seat, has told it.
// Whoever does not understand such messages, is behind a relay or has not been told its place gets a task of its own.
//
// An order has the same bytes for ever, so which of them go together is on record before anybody is told.

// leastTogether is how many orders are worth a message of their own.
const leastTogether = 16

// shared is one message for many orders; together, those of a phase, is the body of its record.
type shared struct {
	Orders  federated.Indices `json:"orders"`
	Places  federated.Indices `json:"places"`
	Message transport.Digest  `json:"message"`
}

type together struct {
	Round  int      `json:"at"`
	Phase  string   `json:"phase"`
	Groups []shared `json:"groups"`
}

// group is a message for many orders, to be made or made.
type group struct {
	shared
	ready  chan struct{} // closed when it is on record; nil: it was when this process began
	orders []*order      // of a new one
	body   *transport.Task
	refs   []transport.Ref

	once sync.Once
	msg  []byte
	err  error
}

// seal signs the message of a group, of which x is one. Of one on record it must come out as it was.
func (g *group) seal(out outbox, x *order, body *transport.Task, refs []transport.Ref) error {
	g.once.Do(func() {
		all := *body
		all.Order, all.Index, all.Samples = 0, 0, 0
		b := &transport.Tasks{Task: all}
		orders, err := g.Orders.MarshalText()
		if err == nil {
			b.Orders = string(orders)
			orders, err = g.Places.MarshalText()
			b.Places = string(orders)
		}
		if err == nil {
			g.msg, err = out.sealAll(x.Order, b, refs)
		}
		switch digest := transport.DigestOf(g.msg); {
		case err != nil:
			g.err = err
		case g.Message == transport.Digest{}:
			g.Message = digest
		case g.Message != digest:
			g.err = fmt.Errorf("the tasks of orders %s come out as %.12s, and were sent as %.12s", b.Orders, digest, g.Message)
		}
	})
	return g.err
}

// gather has the orders of the phase that begins, so many, wait for the last of them.
func (d *desk) gather(n int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gathering, d.gathered, d.grouped = n, make([]*order, 0, n), false
}

// gathers takes in an order of a phase whose orders wait for one another, and returns all of them with the last. The caller holds
// the lock.
func (d *desk) gathers(x *order) (waits bool, all []*order) {
	if d.gathering == 0 {
		return false, nil
	}
	d.gathered = append(d.gathered, x)
	if len(d.gathered) == d.gathering {
		all, d.gathered, d.gathering = d.gathered, nil, 0
	}
	return true, all
}

// tellsAll reports whether tasks of the newest phase were broadcast.
func (d *desk) tellsAll() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.grouped
}

// dispatch sends the tasks of all orders of a phase: one message for those that ask the same, and else one for each.
func (d *desk) dispatch(ctx context.Context, all []*order) error {
	groups, err := d.group(ctx, all)
	if err != nil {
		return err
	}
	d.mu.Lock()
	d.grouped = len(groups) > 0
	d.mu.Unlock()
	d.out.part() // with the end of the phase before, if it has not been told
	for _, g := range groups {
		if g.err == nil {
			for _, x := range g.orders {
				_ = d.make(ctx, x) // its message is made
			}
			d.out.tell(g.msg)
		}
	}
	for _, x := range all {
		d.mu.Lock()
		apart := x.group == nil || x.group.err != nil
		apart = apart && x.state == open && !x.dropped
		d.mu.Unlock()
		if !apart || !d.out.here(x.Member.Name) {
			continue
		}
		if err := d.offerSoon(ctx, x); err != nil {
			return err
		}
	}
	return nil
}

// group finds the orders that go together, makes their messages, and puts that on record.
func (d *desk) group(ctx context.Context, all []*order) ([]*group, error) {
	same := map[transport.Digest]*group{}
	var groups []*group
	seen := 0
	var g *group // that the last order belongs to
	for _, x := range all {
		d.mu.Lock()
		fit := x.state == open && !x.dropped && !x.single && d.seated[x.Member.Name]
		d.mu.Unlock()
		if !fit || !d.out.shares(x.Member.Name) {
			continue
		}
		body, refs, err := d.body(ctx, x)
		if err != nil {
			continue // whoever offers it finds out
		}
		if g == nil || !g.asks(body, refs) {
			key, err := alike(body, refs)
			if err != nil {
				return nil, err
			}
			if g = same[key]; g == nil {
				g = &group{ready: make(chan struct{}), body: body, refs: refs}
				same[key], groups = g, append(groups, g)
			}
		}
		if seen++; len(groups) > 16 && 2*len(groups) > seen { // each is asked something else, as in secure sums
			return nil, nil
		}
		g.orders = append(g.orders, x)
	}
	rec := together{}
	var made []*group
	for _, g := range groups {
		if !d.join(g) {
			continue
		}
		made = append(made, g)
		x := g.orders[0]
		if g.seal(d.out, x, g.body, g.refs) == nil {
			rec.Round, rec.Phase = x.Round, x.Phase
			rec.Groups = append(rec.Groups, g.shared)
		} else {
			d.log.Debug("the tasks of a phase do not fit one message", "error", g.err)
		}
		g.body, g.refs = nil, nil
	}
	var err error
	if len(rec.Groups) > 0 {
		err = d.out.record(rec)
	}
	for _, g := range made {
		if err != nil {
			g.err = err
		}
		close(g.ready)
	}
	return made, err
}

// join makes a group of the orders that have no task of their own yet, if that is worth it.
func (d *desk) join(g *group) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	g.orders = slices.DeleteFunc(g.orders, func(x *order) bool { return x.single || x.state != open || x.dropped })
	if len(g.orders) < d.least {
		return false
	}
	for _, x := range g.orders {
		x.group = g
		g.Orders, g.Places = append(g.Orders, x.ID), append(g.Places, x.Member.Index)
	}
	return true
}

// asks reports whether a task is that of the group, but for the member. It may say no of one that alike says yes of.
func (g *group) asks(t *transport.Task, refs []transport.Ref) bool {
	b := g.body
	return b.Base == t.Base && b.Group == t.Group && b.Tag == t.Tag && b.Barrier == t.Barrier && bytes.Equal(b.Params, t.Params) &&
		b.Slice == nil && t.Slice == nil && b.Attached == nil && t.Attached == nil && slices.Equal(g.refs, refs) &&
		slices.EqualFunc(b.Inputs, t.Inputs, func(x, y transport.Tensors) bool {
			return x.Name == y.Name && x.Ref == y.Ref && bytes.Equal(x.Inline, y.Inline)
		})
}

// alike is the same for tasks that differ in nothing but their members.
func alike(body *transport.Task, refs []transport.Ref) (transport.Digest, error) {
	t := *body
	t.Order, t.Index, t.Samples = 0, 0, 0
	text, err := json.Marshal(struct {
		Task *transport.Task
		Refs []transport.Ref
	}{&t, refs})
	return transport.DigestOf(text), err
}

// seal makes and signs the task of one order, or takes the message of its group.
func (d *desk) seal(ctx context.Context, x *order) error {
	d.mu.Lock()
	g := x.group
	x.single = g == nil
	d.mu.Unlock()
	if g != nil && g.ready != nil {
		<-g.ready
		if g.err == nil {
			x.task, x.digest = g.msg, g.Message
			d.out.admit(x.Member.Name, x.pinned)
			return nil
		}
		g = nil // the coordinator fails, or the message would be too long
	}
	body, refs, err := d.body(ctx, x)
	switch {
	case err != nil:
		return err
	case g != nil: // of the process before this one
		if err := g.seal(d.out, x, body, refs); err != nil {
			return err
		}
		x.task, x.digest = g.msg, g.Message
		d.out.admit(x.Member.Name, refs)
		return nil
	}
	if x.task, err = d.out.seal(x.Order, body, refs); err == nil {
		x.digest = transport.DigestOf(x.task)
	}
	return err
}

// restoreTogether takes up the messages for many orders of the phase under way, as they are on record.
func (d *desk) restoreTogether(all []together) {
	for _, t := range all {
		for _, s := range t.Groups {
			g := &group{shared: s}
			for _, id := range s.Orders {
				d.shared[id] = g
			}
		}
	}
}

// seatOf is the message that tells a member its place.
func (r *Run) seatOf(m federated.Member) []byte {
	return r.srv.seal(transport.Envelope{Run: r.spec.ID, To: m.Name}, &transport.Seat{Index: m.Index, Samples: m.Samples})
}

// together returns for how many orders of a phase the first waits; 0: each task goes out as it is made. Where orders last longer than
// their phase, or it is secret who is asked, none go together, nor where a broadcast would reach many more than are asked.
func (r *Run) together(p federated.PhaseOpened) int {
	n := len(p.Selected)
	if p.Everyone {
		n = p.Roster
	}
	if r.hiding.on || p.Apart || r.spec.Config.Pace.Staleness > 0 || n < r.desk.least || 2*n < p.Roster {
		return 0
	}
	return n
}

// sealAll implements outbox.
func (r *Run) sealAll(o *federated.Order, b *transport.Tasks, refs []transport.Ref) ([]byte, error) {
	e := transport.Envelope{Fed: r.srv.fed, Run: r.spec.ID, Round: o.Round, Step: o.Phase, Refs: refs}
	if err := e.Put(b); err != nil {
		return nil, err
	}
	return transport.Seal(r.srv.o.Key, e)
}

// admit implements outbox.
func (r *Run) admit(member string, refs []transport.Ref) {
	if len(refs) > 0 {
		r.srv.download(member, refs)
	}
}

// tell implements outbox.
func (r *Run) tell(msg []byte) {
	if err := r.srv.o.Hub.Broadcast(msg); err != nil { // they will ask
		r.log.Warn("tasks could not be broadcast", "error", err)
	}
}

// record implements outbox.
func (r *Run) record(t together) error {
	_, err := r.rec.Journal().Append(KindTogether, t)
	return err
}

// shares implements outbox.
func (r *Run) shares(member string) bool {
	r.srv.mu.RLock()
	defer r.srv.mu.RUnlock()
	p := r.srv.members[member]
	return p != nil && p.here && p.via == "" && p.together
}

// parting is the end of a phase that is told with the tasks of the next, so that thousands of members get one packet for both.
type parting struct {
	mu    sync.Mutex
	msg   []byte
	timer *time.Timer
}

// leastParting is how long the end of a phase waits for the next to begin.
const leastParting = 100 * time.Millisecond

// leave has a message told soon.
func (r *Run) leave(msg []byte) {
	r.parting.mu.Lock()
	defer r.parting.mu.Unlock()
	r.parting.msg = msg
	r.parting.timer = time.AfterFunc(leastParting, r.part)
}

// part implements outbox.
func (r *Run) part() {
	p := &r.parting
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.msg == nil {
		return
	}
	p.timer.Stop()
	if err := r.srv.o.Hub.Broadcast(p.msg); err != nil { // they will ask
		r.log.Warn("the end of a phase could not be broadcast", "error", err)
	}
	p.msg = nil
}
