package coordinator

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/node/parcel"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/weights"
)

// desk has a run's orders on their way: it is the [federated.Members] of a network. The driver issues orders and takes answers;
// members get tasks and hand in results. An order is
//
//	open       issued; the member has its task or will get it when it is here
//	pending    a result has come and is being made durable
//	accepted   its record is durable, and the driver can have it
//	delivered  the driver has taken it
//
// and leaves the desk when its phase closes or the driver gives it up.
type desk struct {
	out    outbox
	store  blob.Store
	pins   *pins
	spool  *spool
	window int
	absent time.Duration
	log    *slog.Logger

	mu       sync.Mutex
	changed  chan struct{} // closed and replaced whenever Next may have something new
	orders   map[int]*order
	of       map[string]map[int]*order // the same by member
	ready    []*order                  // answers for the driver: accepted, or failed; sorted by rank
	waiting  int                       // of them, results with blobs
	due      int                       // orders that the driver still waits for
	burdens  map[string]int            // results with blobs that the driver has taken and that are still kept, by phase
	bundles  map[int]*bundle           // the same of partial sums, by each order inside
	recorded map[int]*result           // accepted before the coordinator was restarted, whose orders have not been issued yet
	settled  map[int]transport.Digest  // results inside the sums with which the run was resumed
	offers   chan *order
	offering sync.WaitGroup
	highest  int               // order issued so far
	issued   int               // of them in this process
	reserved int               // numbers of orders below are taken: which of them there are is not to be seen
	behind   bool              // the run was resumed, and orders of before may be issued again
	gone     map[string]string // why members are gone
	levels   map[string]string // of members, as their newest tasks say
	permits  queue
	scrap    scrap
	began    time.Time
	offset   time.Duration // up-time before
	failures uint64        // rank of the next failure
	closed   bool

	// See together.go:
	least     int             // orders that are worth one message for all
	gathering int             // orders of the phase that wait for one another; 0: none do
	gathered  []*order        // of them
	grouped   bool            // the newest phase had such a message
	shared    map[int]*group  // on record when this process began, by order
	seated    map[string]bool // members that have been told their places
}

// order is one order at the desk.
type order struct {
	*federated.Order
	state    orderState
	once     sync.Once // makes the task
	group    *group    // whose message it is; nil: its own
	single   bool      // it has a task of its own
	task     []byte    // the signed message
	digest   transport.Digest
	pinned   []transport.Ref // of the task
	asked    bool            // to send the blobs of the result:
	blobs    []transport.Ref // these
	held     bool            // they are pinned
	changes  int             // how often they were others
	err      error           // why there is no task, or no result
	result   *received
	bundle   *bundle // with others' results; nil: by itself
	rank     uint64  // journal sequence of the result
	pending  transport.Digest
	waiters  []func(transport.Verdict) // of results that came again while the first was being made durable
	overdue  *time.Timer
	issued   time.Time
	took     time.Duration // until it was answered
	dropped  bool
	spared   bool // what it needed is given up
	progress float64
}

type orderState uint8

const (
	open orderState = iota
	pendingState
	acceptedState
	delivered
)

// outbox is how the desk reaches members.
type outbox interface {
	// seal signs a task and lets its member read its blobs.
	seal(o *federated.Order, t *transport.Task, refs []transport.Ref) ([]byte, error)
	// sealAll signs a task of many, and admit lets a member read blobs.
	sealAll(o *federated.Order, t *transport.Tasks, refs []transport.Ref) ([]byte, error)
	admit(member string, refs []transport.Ref)
	// shares reports whether a member is here and understands the tasks of many; record makes durable which orders have one.
	shares(member string) bool
	record(together) error
	// tell sends a message to everybody, and part what has been put off until then.
	tell(msg []byte)
	part()
	// push sends a message to a member if it is here.
	push(member string, msg []byte)
	// withdraw takes the access to the blobs of an order away.
	withdraw(member string, refs []transport.Ref)
	// here reports whether a member is connected.
	here(member string) bool
}

func newDesk(out outbox, store blob.Store, p *pins, sp *spool, window int, absent, clock time.Duration, log *slog.Logger) *desk {
	d := &desk{out: out, store: store, pins: p, spool: sp, window: window, absent: absent, log: log, changed: make(chan struct{}),
		orders: map[int]*order{}, of: map[string]map[int]*order{}, recorded: map[int]*result{}, bundles: map[int]*bundle{}, settled: map[int]transport.Digest{},
		burdens: map[string]int{}, offers: make(chan *order, 256), highest: -1, issued: -1, gone: map[string]string{}, levels: map[string]string{},
		began: time.Now(), offset: clock, shared: map[int]*group{}, seated: map[string]bool{}}
	d.permits.size = window
	for range runtime.GOMAXPROCS(0) {
		d.offering.Go(func() {
			for x := range d.offers {
				d.offer(context.Background(), x)
			}
		})
	}
	return d
}

// Now implements [federated.Members]: it counts the time during which the coordinator was up.
func (d *desk) Now() time.Duration { return d.offset + time.Since(d.began) }

// Issue implements [federated.Members].
func (d *desk) Issue(ctx context.Context, o *federated.Order) error {
	x := &order{Order: o, issued: time.Now()}
	d.mu.Lock()
	whole, answered := d.enter(x)
	waits, all := d.gathers(x)
	d.mu.Unlock()
	if whole != nil {
		d.acceptBundle(whole)
	}
	switch {
	case all != nil:
		return d.dispatch(ctx, all)
	case answered, waits, !d.out.here(o.Member.Name): // who is not here will ask when it comes
		return nil
	}
	return d.offerSoon(ctx, x)
}

// offerSoon has an order offered side by side with others.
func (d *desk) offerSoon(ctx context.Context, x *order) error {
	select {
	case d.offers <- x:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

// enter puts an order on the desk, and reports whether it has its answer: it was answered to the process before this one, perhaps
// inside a sum, which is returned when it is whole, or its member is gone. The caller holds the lock.
func (d *desk) enter(x *order) (whole *bundle, answered bool) {
	d.orders[x.ID] = x
	if d.of[x.Member.Name] == nil {
		d.of[x.Member.Name] = map[int]*order{}
	}
	d.of[x.Member.Name][x.ID] = x
	d.highest, d.issued = max(d.highest, x.ID), max(d.issued, x.ID)
	d.due++
	x.group = d.shared[x.ID]
	if rec := d.recorded[x.ID]; rec != nil {
		delete(d.recorded, x.ID)
		x.blobs, x.asked, x.held, x.pending = rec.Refs, len(rec.Refs) > 0, true, rec.Message
		d.accept(x, rec.received, rec.seq)
		return nil, true
	}
	if whole, ok := d.issueRecorded(x); ok {
		return whole, true
	}
	if why, ok := d.gone[x.Member.Name]; ok {
		d.fail(x, errors.New(why))
		return nil, true
	}
	if x.Barrier {
		x.overdue = time.AfterFunc(d.absent, func() { d.overdue(x) })
	}
	return nil, false
}

// overdue gives up the order of a phase that waits for everybody if its member is not here; else it looks again later. It also
// waits on while no other member of the phase is at work or has answered: then it is the coordinator that nobody can reach.
func (d *desk) overdue(x *order) {
	here := d.out.here(x.Member.Name)
	var others []*order
	d.mu.Lock()
	for _, y := range d.orders {
		if y.Phase == x.Phase && y != x {
			others = append(others, y)
		}
	}
	d.mu.Unlock()
	alone := !slices.ContainsFunc(others, func(y *order) bool { return d.out.here(y.Member.Name) })
	d.mu.Lock()
	defer d.mu.Unlock()
	if x.state != open || x.dropped || d.closed {
		return
	}
	answered := slices.ContainsFunc(others, func(y *order) bool { return y.result != nil })
	if here || alone && !answered {
		x.overdue.Reset(d.absent)
		return
	}
	d.fail(x, fmt.Errorf("was not here for %v", d.absent))
}

// offer makes the task of an order and pushes it. The order may be answered, or given up, at any time.
func (d *desk) offer(ctx context.Context, x *order) {
	if err := d.make(ctx, x); err != nil {
		d.mu.Lock()
		d.fail(x, err)
		d.mu.Unlock()
		return
	}
	d.out.push(x.Member.Name, x.task)
	d.mu.Lock()
	defer d.mu.Unlock()
	if x.single {
		d.seated[x.Member.Name] = true
	}
}

// welcome offers a member that has come what it has yet to answer.
func (d *desk) welcome(ctx context.Context, member string) {
	for _, x := range d.openOf(member) {
		d.mu.Lock()
		over := d.closed
		d.mu.Unlock()
		if over || ctx.Err() != nil {
			return
		}
		d.offer(ctx, x)
	}
}

// make makes and signs the task of an order, once.
func (d *desk) make(ctx context.Context, x *order) error {
	x.once.Do(func() { x.err = d.seal(ctx, x) })
	return x.err
}

// body makes the task of an order, and the blobs that it needs.
func (d *desk) body(ctx context.Context, x *order) (*transport.Task, []transport.Ref, error) {
	t, err := x.Make()
	if err != nil {
		return nil, nil, err
	}
	body := &transport.Task{Order: x.ID, Base: x.Base, Index: x.Member.Index, Samples: x.Member.Samples, Group: t.Group, Tag: t.Tag,
		Params: t.Params, Barrier: x.Barrier}
	p := parcel.Packer{Store: d.store, Cache: d.pins.cache}
	if err := d.pins.pack(func() ([]transport.Ref, error) {
		for _, name := range slices.Sorted(maps.Keys(t.Sets)) {
			in, err := p.Set(ctx, name, t.Sets[name])
			if err != nil {
				return nil, err
			}
			body.Inputs = append(body.Inputs, in)
		}
		var err error
		if body.Slice, err = p.Index(ctx, "slice", t.Index); err == nil {
			body.Attached, err = p.Attached(ctx, "attached", t.Attached)
		}
		return p.Refs, err
	}); err != nil {
		return nil, nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	x.pinned = append(x.pinned, p.Refs...)
	if t.Tag != "" {
		d.levels[x.Member.Name] = t.Tag
	}
	return body, p.Refs, nil
}

// fail answers an order with an error. The caller holds the lock.
func (d *desk) fail(x *order, err error) {
	if x.state != open || x.dropped {
		return
	}
	x.state, x.err = acceptedState, err
	// Failures come to the driver before results that have not come yet; a sum does not depend on it.
	x.rank = d.failures
	d.wakeWith(x)
}

// accept makes a result available to the driver. The caller holds the lock.
func (d *desk) accept(x *order, rec *received, seq uint64) {
	x.state, x.result, x.rank = acceptedState, rec, seq
	d.failures = max(d.failures, seq)
	d.wakeWith(x)
}

func (d *desk) wakeWith(x *order) {
	if x.overdue != nil {
		x.overdue.Stop()
	}
	x.took = time.Since(x.issued)
	d.permits.drop(x.ID)
	if x.dropped {
		return
	}
	at, _ := slices.BinarySearchFunc(d.ready, x, func(a, b *order) int { return cmp.Or(cmp.Compare(a.rank, b.rank), cmp.Compare(a.ID, b.ID)) })
	d.ready = slices.Insert(d.ready, at, x)
	if x.heavy() {
		d.waiting++
	}
	close(d.changed)
	d.changed = make(chan struct{})
}

// Next implements [federated.Members].
func (d *desk) Next(ctx context.Context, deadline time.Duration) (*federated.Answer, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, context.Cause(ctx)
		}
		d.mu.Lock()
		d.permits.fill(d.unfolded())
		if len(d.ready) > 0 {
			x := d.ready[0]
			d.ready = d.ready[1:]
			x.state = delivered
			d.due--
			if x.bundle != nil {
				d.due -= len(x.bundle.orders) - 1
				for _, y := range x.bundle.orders {
					y.state = delivered
				}
			}
			if x.heavy() {
				d.waiting--
				d.burdens[x.Phase]++
			}
			d.mu.Unlock()
			return d.answer(ctx, x), nil
		}
		changed := d.changed
		d.mu.Unlock()
		if deadline == 0 {
			select {
			case <-changed:
			case <-ctx.Done():
			}
			continue
		}
		left := deadline - d.Now()
		if left <= 0 {
			return nil, nil
		}
		timer := time.NewTimer(left)
		select {
		case <-changed:
		case <-ctx.Done():
		case <-timer.C:
		}
		timer.Stop()
	}
}

// heavy reports whether the order has a result with blobs.
func (x *order) heavy() bool { return x.result != nil && len(x.result.Refs) > 0 }

// unfolded is how many results with blobs wait for the driver. The caller holds the lock.
func (d *desk) unfolded() int { return d.waiting }

// answer reads an accepted result.
func (d *desk) answer(ctx context.Context, x *order) *federated.Answer {
	if x.bundle != nil {
		return d.unbundle(ctx, x.bundle)
	}
	a := &federated.Answer{Order: x.Order}
	t, err := x.Make()
	a.Task = t
	switch {
	case err != nil:
		a.Err = err
	case x.result == nil:
		a.Err = x.err
	default:
		a.Result, a.Err = d.read(ctx, x.result)
	}
	return a
}

// said returns what the message of a result says.
func (d *desk) said(rec *received) (*transport.Result, []transport.Ref, error) {
	if rec.body != nil {
		return rec.body, rec.Refs, nil
	}
	msg, err := d.spool.read(rec.Spool, rec.Message)
	if err != nil {
		return nil, nil, fmt.Errorf("its message: %w", err)
	}
	var body transport.Result
	e, err := transport.Peek(msg) // it was verified before it was accepted
	if err == nil {
		err = e.Decode(&body)
	}
	return &body, e.Refs, err
}

func (d *desk) read(ctx context.Context, rec *received) (r federated.Result, err error) {
	body, refs, err := d.said(rec)
	if err != nil {
		return r, err
	}
	switch {
	case body.Failed != "":
		return r, errors.New(body.Failed)
	case body.Abstained:
		return federated.Result{Status: federated.Abstained, Scalars: body.Scalars}, nil
	}
	r = federated.Result{Weight: body.Weight, Scalars: body.Scalars, Addends: map[string]weights.Set{}}
	for _, t := range body.Addends {
		if r.Addends[t.Name], err = parcel.SetIn(ctx, d.store, t, refs, d.scrap.take); err != nil {
			return r, fmt.Errorf("refused: %w", err)
		}
	}
	if r.Cover, err = parcel.Index(ctx, d.store, body.Cover, refs); err != nil {
		return r, fmt.Errorf("refused: %w", err)
	}
	if r.Attached, err = parcel.Attached(ctx, d.store, body.Attached, refs); err != nil {
		return r, fmt.Errorf("refused: %w", err)
	}
	return r, nil
}

// Drop implements [federated.Members]: the order's answer comes too late from now on.
func (d *desk) Drop(o *federated.Order) {
	d.mu.Lock()
	defer d.mu.Unlock()
	x := d.orders[o.ID]
	if x == nil {
		return
	}
	if !x.dropped && x.state != delivered {
		d.due--
	}
	x.dropped = true
	if x.overdue != nil {
		x.overdue.Stop()
	}
	d.permits.drop(x.ID)
	if i := slices.Index(d.ready, x); i >= 0 {
		d.ready = slices.Delete(d.ready, i, i+1)
		if x.heavy() {
			d.waiting--
		}
	}
}

// Keep implements [federated.Members]: members keep their own memory, so there is nothing to keep here.
func (d *desk) Keep(int, *weights.Set) error { return nil }

// lose fails all orders of a member that is gone, now and later.
func (d *desk) lose(member, why string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.gone[member] = why
	for _, id := range slices.Sorted(maps.Keys(d.of[member])) {
		d.fail(d.of[member][id], errors.New(why))
	}
}

// openOf returns the orders that a member has yet to answer, by ID.
func (d *desk) openOf(member string) []*order {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []*order
	for _, id := range slices.Sorted(maps.Keys(d.of[member])) {
		if x := d.of[member][id]; x.state == open && !x.dropped {
			out = append(out, x)
		}
	}
	return out
}

// find returns an order; past tells that there was one.
func (d *desk) find(id int) (x *order, past bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.orders[id], id <= d.highest
}

// clear takes the orders of a phase that has closed off the desk, and gives up the blobs that they needed.
func (d *desk) clear(ids []int) {
	d.mu.Lock()
	var free []transport.Ref
	for _, id := range ids {
		x := d.orders[id]
		if x == nil {
			continue
		}
		delete(d.orders, id)
		delete(d.of[x.Member.Name], id)
		if len(d.of[x.Member.Name]) == 0 {
			delete(d.of, x.Member.Name)
		}
		free = append(free, d.give(x)...)
		if x.result != nil && !x.spared {
			d.spool.release(x.result.Spool)
		}
	}
	d.mu.Unlock()
	d.pins.release(free)
	d.scrap.drop()
}

// Recycle implements [federated.Recycler]. After the last result nothing is kept: what the phase comes to needs room itself.
func (d *desk) Recycle(a *federated.Answer) {
	d.mu.Lock()
	over := d.due == 0
	d.mu.Unlock()
	if over {
		d.scrap.drop()
		return
	}
	for _, s := range a.Result.Addends {
		d.scrap.put(s)
	}
}

// give takes from an order the blobs that it needs no more, and returns them. The caller holds the lock.
func (d *desk) give(x *order) []transport.Ref {
	free := x.pinned
	if x.held {
		free = append(free, x.blobs...)
	}
	if x.held && x.state == delivered && x.heavy() {
		d.burdens[x.Phase]--
	}
	x.pinned, x.held = nil, false
	d.out.withdraw(x.Member.Name, free)
	if b := x.bundle; b != nil && x == b.orders[0] {
		d.out.withdraw(b.Relay, []transport.Ref{b.Ref})
	}
	return free
}

// spare gives up the blobs of results that are inside a checkpoint of the sums.
func (d *desk) spare(ids []int) {
	d.mu.Lock()
	var free []transport.Ref
	for _, id := range ids {
		if x := d.orders[id]; x != nil {
			free = append(free, d.give(x)...)
			if x.result != nil && !x.spared {
				d.spool.release(x.result.Spool)
			}
			x.spared = true
		}
	}
	d.mu.Unlock()
	d.pins.release(free)
}

// seats returns the orders of a phase that the driver has taken the answers of or, if all are asked for, given up.
func (d *desk) seats(phase string, all bool) []seat {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []seat
	for _, x := range d.orders {
		if x.Phase == phase && (x.state == delivered && !x.dropped || all && x.dropped) {
			out = append(out, seat{x.ID, x.Member.Index, x.Base})
		}
	}
	return out
}

// burden is how many results of a phase the driver has taken whose blobs are still kept.
func (d *desk) burden(phase string) int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.burdens[phase]
}

// stop ends the desk: nothing is offered any more.
func (d *desk) stop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for _, x := range d.orders {
		if x.overdue != nil {
			x.overdue.Stop()
		}
	}
	d.permits.refuseAll()
	close(d.offers)
}

// note keeps how far a member has come with an order.
func (d *desk) note(from string, id int, part float64) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if x := d.orders[id]; x != nil && x.Member.Name == from {
		x.progress = part
	}
}
