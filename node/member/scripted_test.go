package member_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/node/parcel"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/weights"
)

// coordinator is a scripted one: it drives a study with the real driver over the twin of a transport, and lets tests lie.
type coordinator struct {
	t     testing.TB
	study *study
	net   *transport.Memory
	hub   transport.Hub
	key   identity.Key
	fed   string
	store blob.Store
	chain *journal.Journal
	disk  *memFS
	now   time.Time

	mu       sync.Mutex
	terms    []byte
	agreed   bool
	declined string
	orders   map[int]*assignment
	answers  chan *federated.Answer
	closes   []closing
	refuse   int  // asks that get no permit
	lose     int  // verdicts of accepted results that are lost; who asks for a permit then hears that the phase is over
	stale    int  // that were told so
	hush     bool // once a phase has ended, syncs have no answer before that
	last     []byte
	heads    func(transport.Head) transport.Head // lies
	onResult func(o *assignment, msg []byte) *transport.Verdict
	onTask   func(o *assignment) [][]byte // what is pushed instead of its task
	onClose  func(msg []byte) [][]byte    // what is broadcast instead
	left     string
	lenient  bool                // whether rounds may fail
	sent     []*transport.Result // that were received, all of them
	all      *fedtest.Members    // of a study with colleagues, in virtual time; nil: there is but the member
}

type assignment struct {
	*federated.Order
	made    federated.Task
	task    []byte
	seat    []byte // what a sync gets before the task
	results map[transport.Digest]int
	memory  []string
	done    bool // nobody waits for a result
	dropped bool // by the driver
	told    bool // a close has named it
	failed  string
	answer  chan *federated.Answer
}

type closing struct {
	orders []int
	msg    []byte
}

func newCoordinator(t testing.TB, s *study, key identity.Key) *coordinator {
	t.Helper()
	c := &coordinator{t: t, study: s, key: key, fed: key.Public().String(), store: blob.NewMemory(), disk: newMemFS(), orders: map[int]*assignment{}}
	var err error
	if c.chain, err = journal.Create("/chain", journal.Options{FS: c.disk, Run: theRun}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.chain.Close() })
	r, err := recipe.Default("fedavg")
	if err != nil {
		t.Fatal(err)
	}
	if s.secure() {
		r.Secure.Sums = "masked"
	}
	c.terms = c.seal(transport.Envelope{Run: theRun}, &transport.Terms{Recipe: string(r.YAML()), Metrics: metrics, Members: 1})
	return c
}

// open opens the coordinator for members; in a bubble of synctest, it is called inside.
func (c *coordinator) open() {
	c.net, c.answers = transport.NewMemory(), make(chan *federated.Answer, 64)
	c.hub = c.net.Hub()
	c.hub.Handle(c.request)
}

func (c *coordinator) seal(e transport.Envelope, body transport.Body) []byte {
	e.Fed = c.fed
	if err := e.Put(body); err != nil {
		c.t.Error(err)
	}
	msg, err := transport.Seal(c.key, e)
	if err != nil {
		c.t.Error(err)
	}
	return msg
}

func (c *coordinator) head() transport.Head {
	h := c.chain.Head()
	head := transport.Head{Seq: h.Seq, Hash: transport.Digest(h.Hash)}
	if c.heads != nil {
		return c.heads(head)
	}
	return head
}

// request answers what the member asks.
func (c *coordinator) request(r transport.Request) {
	e, err := transport.Peek(r.Msg)
	if err != nil {
		c.t.Errorf("the member sent %q: %v", r.Msg, err)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	back := transport.Envelope{Run: e.Run, To: r.From}
	switch e.Kind {
	case transport.KindHello:
		r.Reply(c.seal(back, &transport.Welcome{Version: 1, You: r.From, Federation: "clinics", Runs: []string{theRun}}))
	case transport.KindSync:
		var s transport.Sync
		if err := e.Decode(&s); err != nil {
			c.t.Error(err)
		}
		if c.hush && len(c.closes) > 0 && c.stale == 0 {
			return
		}
		r.Reply(c.seal(back, c.duties(s)))
	case transport.KindConsent:
		var s transport.Consent
		if err := e.Decode(&s); err != nil {
			c.t.Error(err)
		}
		c.declined = s.Declined
		if s.Declined == "" {
			c.agreed = true
		}
		r.Reply(c.seal(back, c.duties(transport.Sync{})))
	case transport.KindAsk:
		var a transport.Ask
		if err := e.Decode(&a); err != nil {
			c.t.Error(err)
		}
		switch o := c.orders[a.Order]; {
		case c.refuse > 0:
			c.refuse--
			r.Reply(c.seal(back, &transport.Permit{Retry: time.Second}))
			return
		case o != nil && o.done && o.told:
			c.stale++
			r.Reply(c.seal(back, &transport.Failure{Code: transport.CodeStale, Message: "the phase of this task is over"}))
			return
		}
		r.Reply(c.seal(back, &transport.Permit{Granted: true, Expires: time.Minute}))
	case transport.KindResult:
		r.Reply(c.seal(back, c.result(e, r.Msg)))
	case transport.KindLeave:
		c.left = r.From
		r.Reply(c.seal(back, &transport.Verdict{Outcome: transport.Accepted}))
	case transport.KindProgress:
	default:
		c.t.Errorf("the member sent a %s", e.Kind)
	}
}

// duties are what the member may have missed. The caller holds the lock.
func (c *coordinator) duties(s transport.Sync) *transport.Duties {
	head := c.head()
	d := &transport.Duties{Messages: []string{}, Head: &head}
	if !c.agreed {
		d.Messages = append(d.Messages, string(c.terms))
		return d
	}
	for _, cl := range c.closes {
		if slices.ContainsFunc(s.Holding, func(h transport.Holding) bool { return slices.Contains(cl.orders, h.Order) }) {
			d.Messages = append(d.Messages, string(cl.msg))
		}
	}
	for _, id := range slices.Sorted(maps.Keys(c.orders)) {
		if o := c.orders[id]; !o.done && o.task != nil {
			if o.seat != nil {
				d.Messages = append(d.Messages, string(o.seat))
			}
			d.Messages = append(d.Messages, string(o.task))
		}
	}
	if c.last != nil {
		d.Messages = append(d.Messages, string(c.last))
		var gone federated.Indices // asked for when the run ended
		for _, h := range s.Holding {
			if o := c.orders[h.Order]; o != nil && !o.told {
				gone = append(gone, h.Order)
			}
		}
		text, _ := gone.MarshalText()
		d.Gone = string(text)
	}
	return d
}

// result takes a result. The caller holds the lock.
func (c *coordinator) result(e transport.Envelope, msg []byte) *transport.Verdict {
	var body transport.Result
	if err := e.Decode(&body); err != nil {
		c.t.Error(err)
	}
	o := c.orders[body.Order]
	if o == nil {
		c.t.Errorf("a result of order %d, which was never given", body.Order)
		return &transport.Verdict{Order: body.Order, Outcome: transport.Refused, Code: transport.CodeUnknown}
	}
	c.sent = append(c.sent, &body)
	o.results[transport.DigestOf(msg)]++
	o.memory = append(o.memory, body.Memory)
	if c.onResult != nil {
		if v := c.onResult(o, msg); v != nil {
			return v
		}
	}
	if o.done {
		return &transport.Verdict{Order: body.Order, Outcome: transport.Duplicate}
	}
	for _, ref := range e.Refs {
		if _, err := blob.ReadManifest(context.Background(), c.store, blob.Hash(ref.Hash)); err != nil {
			return &transport.Verdict{Order: body.Order, Outcome: transport.Refused, Code: transport.CodeBlob, Reason: err.Error()}
		}
	}
	o.done, o.failed = true, body.Failed
	a := &federated.Answer{Order: o.Order, Task: o.made}
	switch {
	case body.Failed != "":
		a.Err = errors.New(body.Failed)
	case body.Abstained:
		a.Result.Status = federated.Abstained
	default:
		a.Result = federated.Result{Weight: body.Weight, Scalars: body.Scalars, Addends: map[string]weights.Set{}}
		for _, in := range body.Addends {
			s, err := parcel.Set(context.Background(), c.store, in, e.Refs)
			if err != nil {
				c.t.Error(err)
			}
			a.Result.Addends[in.Name] = s
		}
		var err error
		if a.Result.Attached, err = parcel.Attached(context.Background(), c.store, body.Attached, e.Refs); err != nil {
			c.t.Error(err)
		}
	}
	if c.all != nil {
		o.answer <- a
	} else {
		c.answers <- a
	}
	if c.lose > 0 {
		c.lose--
		return &transport.Verdict{Order: body.Order, Outcome: transport.Refused, Code: transport.CodeBusy, Reason: "what comes back instead of the verdict"}
	}
	return &transport.Verdict{Order: body.Order, Outcome: transport.Accepted}
}

// Now implements [federated.Members].
func (c *coordinator) Now() time.Duration {
	if c.all != nil {
		return c.all.Now()
	}
	return time.Since(c.now)
}

// play makes the members of a study with colleagues: answers come in the order of the simulation, and those of the member are its own.
func (c *coordinator) play(ctx context.Context) {
	c.all = &fedtest.Members{Client: c.study.new().Client(), Local: c.study.world.Local, Delay: c.study.delay}
	if c.study.secure() {
		c.all.Client, c.all.Local = others{c.all.Client}, c.locals()
	}
	c.all.Tamper = func(a *federated.Answer) {
		if a.Order.Member.Name != me {
			return
		}
		c.mu.Lock()
		x := c.orders[a.Order.ID]
		c.mu.Unlock()
		select {
		case theirs := <-x.answer:
			*a = *theirs
		case <-ctx.Done():
		}
	}
}

// Issue implements [federated.Members].
func (c *coordinator) Issue(ctx context.Context, o *federated.Order) error {
	if c.all != nil {
		if err := c.all.Issue(ctx, o); err != nil || o.Member.Name != me {
			return err
		}
	}
	t, err := o.Make()
	if err != nil {
		return err
	}
	p := parcel.Packer{Store: c.store}
	body := &transport.Task{Order: o.ID, Base: o.Base, Index: o.Member.Index, Samples: o.Member.Samples, Group: t.Group, Tag: t.Tag, Params: t.Params}
	for _, name := range slices.Sorted(maps.Keys(t.Sets)) {
		in, err := p.Set(ctx, name, t.Sets[name])
		if err != nil {
			return err
		}
		body.Inputs = append(body.Inputs, in)
	}
	if body.Attached, err = p.Attached(ctx, "attached", t.Attached); err != nil {
		return err
	}
	msg := c.seal(transport.Envelope{Run: theRun, Round: o.Round, Step: o.Phase, To: o.Member.Name, Refs: p.Refs}, body)
	c.mu.Lock()
	x := &assignment{Order: o, made: t, task: msg, results: map[transport.Digest]int{}, answer: make(chan *federated.Answer, 1)}
	c.orders[o.ID] = x
	msgs := [][]byte{msg}
	if c.onTask != nil {
		msgs = c.onTask(x)
	}
	c.mu.Unlock()
	for _, m := range msgs {
		if err := c.hub.Push(o.Member.Name, m); err != nil {
			return err
		}
	}
	return nil
}

// Next implements [federated.Members].
func (c *coordinator) Next(ctx context.Context, deadline time.Duration) (*federated.Answer, error) {
	if c.all != nil {
		return c.all.Next(ctx, deadline)
	}
	select {
	case a := <-c.answers:
		return a, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Drop implements [federated.Members].
func (c *coordinator) Drop(o *federated.Order) {
	if c.all == nil {
		return
	}
	c.all.Drop(o)
	c.mu.Lock()
	defer c.mu.Unlock()
	if x := c.orders[o.ID]; x != nil {
		x.done, x.dropped = true, true
	}
}

// Keep implements [federated.Members].
func (c *coordinator) Keep(index int, s *weights.Set) error {
	if c.all != nil && index > 0 {
		return c.all.Keep(index, s)
	}
	return errors.New("memory has left the member")
}

// PhaseOpened implements [federated.Log].
func (c *coordinator) PhaseOpened(federated.PhaseOpened) error { return nil }

// Progress implements [federated.Log].
func (c *coordinator) Progress(string, int, int) {}

// PhaseClosed implements [federated.Log].
func (c *coordinator) PhaseClosed(p federated.PhaseClosed, snap func() federated.Snapshot) error {
	c.mu.Lock()
	var ids []int
	body := &transport.Close{State: transport.DigestOf([]byte(snap().State.Digest()))}
	for id, o := range c.orders {
		if o.told || o.Phase != p.Phase || !o.dropped && !folded(p, o.Order) && (c.all != nil || o.Round != p.Round) {
			continue
		}
		o.told = true
		ids = append(ids, id)
		if !o.dropped && o.failed == "" {
			body.Folded = fmt.Sprint(id)
		} else {
			body.Lost = fmt.Sprint(id)
		}
	}
	c.mu.Unlock()
	if _, err := c.chain.Append("phase.closed", p); err != nil {
		return err
	}
	msg := c.close(p.Round, p.Phase, body, ids)
	msgs := [][]byte{msg}
	if c.onClose != nil {
		msgs = c.onClose(msg)
	}
	for _, m := range msgs {
		if err := c.hub.Broadcast(m); err != nil {
			return err
		}
	}
	return nil
}

// folded reports whether a phase closed with the result of an order.
func folded(p federated.PhaseClosed, o *federated.Order) bool {
	return p.Everyone && o.Round == p.Round || slices.ContainsFunc(p.Folded, func(s federated.Share) bool {
		return s.Base == o.Base && slices.Contains(s.Members, o.Member.Index)
	})
}

// change signs a message anew after a change; an own key is that of a stranger.
func (c *coordinator) change(msg []byte, body transport.Body, f func(*transport.Envelope)) []byte {
	e, err := transport.Peek(msg)
	if err != nil {
		c.t.Error(err)
	}
	if body == nil {
		f(&e)
	} else {
		if err := e.Decode(body); err != nil {
			c.t.Error(err)
		}
		f(&e)
		if err := e.Put(body); err != nil {
			c.t.Error(err)
		}
	}
	out, err := transport.Seal(c.key, e)
	if err != nil {
		c.t.Error(err)
	}
	return out
}

// close signs a close and remembers it for syncs.
func (c *coordinator) close(round int, step string, body *transport.Close, ids []int) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	body.Head = c.head()
	msg := c.seal(transport.Envelope{Run: theRun, Round: round, Step: step}, body)
	if body.Last {
		c.last = msg
	} else {
		c.closes = append(c.closes, closing{ids, msg})
	}
	return msg
}

// RoundClosed implements [federated.Log].
func (c *coordinator) RoundClosed(r federated.RoundClosed, _ federated.Snapshot) error {
	if _, err := c.chain.Append("round.closed", r); err != nil {
		return err
	}
	if r.Last {
		return c.hub.Broadcast(c.close(r.Round, "end", &transport.Close{Last: true}, nil))
	}
	return nil
}

// run drives the study to its end, once the member has agreed.
func (c *coordinator) run(ctx context.Context) (federated.State, error) {
	c.now = time.Now()
	for {
		c.mu.Lock()
		agreed, declined := c.agreed, c.declined
		c.mu.Unlock()
		if declined != "" {
			return federated.State{}, errors.New(declined)
		}
		if agreed {
			break
		}
		select {
		case <-time.After(100 * time.Millisecond):
		case <-ctx.Done():
			return federated.State{}, ctx.Err()
		}
	}
	a := c.study.ours
	if c.study.world.Len() > 1 {
		c.play(ctx)
	}
	srv := c.study.world.Server()
	if c.study.secure() {
		srv.Verify = colleague("").Verify
	}
	srv.Scope = c.fed + "/" + theRun
	return federated.Run(ctx, a, srv, c, c, c.study.config, nil)
}
