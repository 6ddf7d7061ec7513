package coordinator

import (
	"context"
	"fmt"
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

// puppet is a member that does what the protocol says, in the simplest way.
//
// It is also what it knows of the others: their keys, by the roster.
type puppet struct {
	w      *world
	name   string
	key    identity.Key
	member federated.Member
	store  blob.Store
	link   transport.Link
	behind *stand // nil: no relay

	mu   sync.Mutex
	keep map[int]*weights.Set // memory by order that made it; −1: committed
	kept map[int]*parcelled   // results that wait for the end of their phase
	busy map[int]bool
	done map[int]bool // orders whose phases have closed

	seat  *transport.Seat // w.together: its place, once it has been told
	apart int             // tasks of its own

	verdicts map[transport.Outcome]int
	heard    []transport.Envelope
	theirs   blob.Store // of the coordinator, as it was when the member joined last
	left     bool
	over     chan struct{}
}

type parcelled struct {
	msg  []byte
	ask  *transport.Ask
	task federated.Task
	sent bool
}

func (m *puppet) join() {
	m.mu.Lock()
	m.left = false
	m.over, m.busy = make(chan struct{}), map[int]bool{}
	m.theirs = m.w.store
	if m.behind != nil {
		m.mu.Unlock()
		m.behind.join()
		go m.sync()
		return
	}
	m.link = m.w.bus.Dial(m.name)
	link := m.link
	m.mu.Unlock()
	link.Receive(m.receive)
	link.OnState(func(up bool) {
		if up {
			go m.sync()
		}
	})
}

// coordinator returns the store of the coordinator that the member joined last.
func (m *puppet) coordinator() blob.Store {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.theirs
}

func (m *puppet) quit() {
	m.mu.Lock()
	link := m.link
	m.left = true
	m.mu.Unlock()
	if m.behind != nil {
		m.behind.quit()
		return
	}
	_ = link.Close()
}

func (m *puppet) request(kind transport.Body, e transport.Envelope) (transport.Envelope, []byte, error) {
	e.Fed, e.Run, e.From = m.w.key.Public().String(), "run", m.name
	if err := e.Put(kind); err != nil {
		panic(err)
	}
	msg, err := transport.Seal(m.key, e)
	if err != nil {
		panic(err)
	}
	return m.send(msg)
}

func (m *puppet) send(msg []byte) (transport.Envelope, []byte, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	m.mu.Lock()
	link := m.link
	if m.behind != nil {
		link = m.behind.line()
	}
	m.mu.Unlock()
	if link == nil { // the relay has quit
		return transport.Envelope{}, nil, transport.ErrClosed
	}
	b, err := link.Request(ctx, msg)
	if err != nil {
		return transport.Envelope{}, nil, err
	}
	e, err := transport.Open(m.w.key.Public(), b)
	return e, b, err
}

func (m *puppet) sync() {
	for try := 0; try < 100; try++ {
		m.mu.Lock()
		var holding []transport.Holding
		for order, p := range m.kept {
			holding = append(holding, transport.Holding{Order: order, Task: p.ask.Task, State: "kept"})
		}
		m.mu.Unlock()
		if m.w.together && m.hello() != nil {
			time.Sleep(5 * time.Millisecond)
			continue
		}
		e, _, err := m.request(&transport.Sync{Holding: holding}, transport.Envelope{})
		var d transport.Duties
		if err != nil || e.Kind != transport.KindDuties || e.Decode(&d) != nil {
			time.Sleep(5 * time.Millisecond)
			continue
		}
		for _, msg := range d.Messages {
			m.receive([]byte(msg))
		}
		m.mu.Lock()
		var again []int
		for order, p := range m.kept {
			if !p.sent {
				again = append(again, order)
			}
		}
		m.mu.Unlock()
		for _, order := range again {
			go m.deliver(order)
		}
		if !d.More {
			return
		}
	}
}

// hello says that the member understands the tasks of many.
func (m *puppet) hello() error {
	e := transport.Envelope{Fed: m.w.key.Public().String(), From: m.name}
	if err := e.Put(&transport.Hello{Versions: []int{transport.Version}, Can: []string{"train", transport.CanTasks}}); err != nil {
		return err
	}
	msg, err := transport.Seal(m.key, e)
	if err != nil {
		return err
	}
	_, _, err = m.send(msg)
	return err
}

func (m *puppet) receive(msg []byte) {
	e, err := transport.Open(m.w.key.Public(), msg)
	if err != nil {
		panic(err)
	}
	m.mu.Lock()
	m.heard = append(m.heard, e)
	m.mu.Unlock()
	switch e.Kind {
	case transport.KindTerms:
		_, _, err := m.request(&transport.Consent{Terms: transport.DigestOf(msg), Samples: m.member.Samples}, transport.Envelope{})
		if err == nil {
			m.sync()
		}
	case transport.KindTask:
		var b transport.Task
		if err := e.Decode(&b); err != nil {
			panic(err)
		}
		m.mu.Lock()
		m.seat = &transport.Seat{Index: b.Index, Samples: b.Samples}
		m.apart++
		m.mu.Unlock()
		go m.work(e, &b, msg)
	case transport.KindSeat:
		var b transport.Seat
		if err := e.Decode(&b); err != nil {
			panic(err)
		}
		m.mu.Lock()
		m.seat = &b
		m.mu.Unlock()
	case transport.KindTasks:
		var all transport.Tasks
		if err := e.Decode(&all); err != nil {
			panic(err)
		}
		m.mu.Lock()
		seat := m.seat
		m.mu.Unlock()
		if seat == nil {
			go m.sync()
		} else if b, ok := all.For(*seat); ok {
			go m.work(e, &b, msg)
		}
	case transport.KindClose:
		m.closed(e)
	case transport.KindControl:
		go m.sync()
	}
}

func (m *puppet) work(e transport.Envelope, b *transport.Task, msg []byte) {
	m.mu.Lock()
	if m.busy[b.Order] || m.kept[b.Order] != nil || m.done[b.Order] {
		m.mu.Unlock()
		return
	}
	m.busy[b.Order] = true
	for m.pendingMemory() { // it may have missed the end of the phase that decides what it remembers
		m.mu.Unlock()
		m.sync()
		time.Sleep(5 * time.Millisecond)
		m.mu.Lock()
		if m.left {
			delete(m.busy, b.Order)
			m.mu.Unlock()
			return
		}
	}
	keep := m.keep[-1]
	m.mu.Unlock()
	if m.w.gate != nil {
		<-m.w.gate
	}
	ctx := context.Background()
	task := federated.Task{Group: b.Group, Tag: b.Tag, Params: b.Params, Round: e.Round, Phase: e.Step, Base: b.Base, Sets: map[string]weights.Set{}}
	var err error
	for _, in := range b.Inputs {
		if task.Sets[in.Name], err = parcel.Set(ctx, m.coordinator(), in, e.Refs); err != nil {
			return // the coordinator is gone
		}
	}
	if task.Index, err = parcel.Index(ctx, m.coordinator(), b.Slice, e.Refs); err != nil {
		return
	}
	if task.Attached, err = parcel.Attached(ctx, m.coordinator(), b.Attached, e.Refs); err != nil {
		return
	}
	local := m.w.fleet.Local(m.member)
	local.Scope, local.Peers = m.w.key.Public().String()+"/run", m
	res, err := m.w.alg().Client().Run(ctx, local, task, keep)
	out := &transport.Result{Order: b.Order, Task: transport.DigestOf(msg), Kernels: "test"}
	p := parcel.Packer{Store: m.store}
	if err != nil {
		out.Failed = err.Error()
	} else {
		out.Abstained, out.Weight, out.Scalars = res.Status == federated.Abstained, res.Weight, res.Scalars
		for name, s := range res.Addends {
			t, err := p.Set(ctx, name, s)
			if err != nil {
				panic(err)
			}
			out.Addends = append(out.Addends, t)
		}
		if out.Cover, err = p.Index(ctx, "cover", res.Cover); err != nil {
			panic(err)
		}
		if out.Attached, err = p.Attached(ctx, "attached", res.Attached); err != nil {
			panic(err)
		}
	}
	re := transport.Envelope{Fed: m.w.key.Public().String(), Run: "run", Round: e.Round, Step: e.Step, From: m.name, Refs: p.Refs}
	if err := re.Put(out); err != nil {
		panic(err)
	}
	sealed, err := transport.Seal(m.key, re)
	if err != nil {
		panic(err)
	}
	m.mu.Lock()
	if m.done[b.Order] || m.kept[b.Order] != nil { // computed in another life, too
		m.mu.Unlock()
		return
	}
	m.kept[b.Order] = &parcelled{msg: sealed, task: task, ask: &transport.Ask{Order: b.Order, Task: out.Task, Blobs: p.Refs}}
	if res.Keep != nil {
		m.keep[b.Order] = res.Keep
	}
	delete(m.busy, b.Order)
	m.mu.Unlock()
	m.deliver(b.Order)
}

// pendingMemory reports whether the member has a new memory that is neither committed nor dropped. The caller holds the lock.
func (m *puppet) pendingMemory() bool {
	for order := range m.keep {
		if order >= 0 {
			return true
		}
	}
	return false
}

// deliver hands in a kept result.
func (m *puppet) deliver(order int) {
	m.mu.Lock()
	p := m.kept[order]
	m.mu.Unlock()
	if p == nil {
		return
	}
	if m.behind != nil {
		m.behind.give(m, p)
		return
	}
	for try := 0; try < 50; try++ {
		if len(p.ask.Blobs) > 0 {
			e, _, err := m.request(p.ask, transport.Envelope{})
			var permit transport.Permit
			if err != nil {
				time.Sleep(5 * time.Millisecond)
				continue
			}
			var f transport.Failure
			if e.Kind == transport.KindError && e.Decode(&f) == nil && f.Code == transport.CodeBusy {
				time.Sleep(5 * time.Millisecond)
				continue
			}
			if e.Kind != transport.KindPermit || e.Decode(&permit) != nil {
				return // its phase is over
			}
			if !permit.Granted {
				continue
			}
			if m.upload(p.ask.Blobs) != nil {
				continue
			}
		}
		e, _, err := m.send(p.msg)
		var v transport.Verdict
		if err != nil || e.Kind != transport.KindVerdict || e.Decode(&v) != nil || v.Code == transport.CodeFull || v.Code == transport.CodeBusy {
			time.Sleep(5 * time.Millisecond)
			continue
		}
		m.mu.Lock()
		m.verdicts[v.Outcome]++
		p.sent = true
		if v.Outcome == transport.Late || v.Outcome == transport.Refused {
			delete(m.kept, order)
			delete(m.keep, order)
		}
		m.mu.Unlock()
		return
	}
}

// upload copies blobs into the coordinator's store.
func (m *puppet) upload(refs []transport.Ref) error {
	ctx := context.Background()
	for _, ref := range refs {
		r, err := blob.Open(ctx, m.store, blob.Hash(ref.Hash))
		if err != nil {
			panic(err)
		}
		_, _, err = blob.Write(ctx, m.coordinator(), r)
		_ = r.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

func (m *puppet) closed(e transport.Envelope) {
	var c transport.Close
	if err := e.Decode(&c); err != nil {
		panic(err)
	}
	var folded, lost federated.Indices
	if folded.UnmarshalText([]byte(c.Folded)) != nil || lost.UnmarshalText([]byte(c.Lost)) != nil {
		panic(fmt.Sprint("close ", c))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, order := range append(slices.Clone(folded), lost...) {
		m.done[order] = true
	}
	for _, order := range folded {
		if m.kept[order] == nil {
			continue
		}
		if s := m.keep[order]; s != nil {
			m.keep[-1] = s
		}
		delete(m.keep, order)
		delete(m.kept, order)
	}
	for _, order := range lost {
		delete(m.keep, order)
		delete(m.kept, order)
	}
	if c.Last {
		select {
		case <-m.over:
		default:
			close(m.over)
		}
	}
}

// Sign implements [federated.Peers].
func (m *puppet) Sign(msg []byte) []byte { return m.key.Sign(msg) }

// Verify implements [federated.Peers].
func (m *puppet) Verify(name string, msg, sig []byte) error {
	if !m.w.roster[name].Key.Verify(msg, sig) {
		return fmt.Errorf("the signature is not that of %s", name)
	}
	return nil
}

// Pinned implements [federated.Peers].
func (*puppet) Pinned(string) bool { return false }

// Insists implements [federated.Peers].
func (*puppet) Insists() bool { return false }
