package member

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/transport"
)

// opened is a message of the coordinator whose signature holds.
type opened struct {
	envelope transport.Envelope
	text     []byte
	digest   transport.Digest
}

// handle handles one message that the coordinator signed, pushed or among duties. Whatever is not for this member is counted
// and ignored. Terms are returned: they want an answer, which only the session gives. An error ends the member.
func (m *Member) handle(ctx context.Context, msg []byte) (*opened, error) {
	e, err := transport.Open(m.o.Folder.Card.Federation, msg)
	switch {
	case errors.Is(err, transport.ErrSignature):
		m.ignore("that the federation did not sign", err)
		return nil, nil
	case err != nil:
		m.ignore("that is malformed", err)
		return nil, nil
	}
	if err := m.addressed(e); err != nil {
		m.ignore(err.Error(), nil)
		return nil, nil
	}
	o := &opened{e, msg, transport.DigestOf(msg)}
	switch e.Kind {
	case transport.KindTerms:
		m.invite(e.Run)
		return o, nil
	case transport.KindTask:
		return nil, m.handleTask(o)
	case transport.KindTasks:
		return nil, m.handleTasks(o)
	case transport.KindSeat:
		m.handleSeat(o)
		return nil, nil
	case transport.KindClose:
		return nil, m.handleClose(ctx, o)
	case transport.KindControl:
		return nil, m.handleControl(o)
	}
	m.ignore("of a kind that a coordinator does not push", errors.New(string(e.Kind)))
	return nil, nil
}

// invite has the session sync a run that it may not know yet.
func (m *Member) invite(id string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.ledger.runs[id]; id == "" || r != nil && (r.consent != nil || r.ended != nil) || m.invited[id] || len(m.invited) >= 1024 {
		return
	}
	m.invited[id] = true
	m.nudge()
}

// lookup returns the run of a message if the member takes part in it and has checked the coordinator's journal on this
// connection. The caller holds the lock.
func (m *Member) lookup(o *opened) (r *run, why string) {
	r = m.ledger.runs[o.envelope.Run]
	switch {
	case r == nil || !r.agreed():
		return nil, "of a run that this member has not agreed to"
	case r.ended != nil, r.checked != m.conn, r.part == nil:
		return nil, "" // what is still needed comes with a sync
	}
	return r, ""
}

// handleTask takes a task.
func (m *Member) handleTask(o *opened) error {
	var t transport.Task
	if err := o.envelope.Decode(&t); err != nil {
		m.ignore("that is malformed", err)
		return nil
	}
	return m.takeOne(o, func(r *run) (*transport.Task, string) {
		if o.envelope.To != m.name {
			return nil, "with a task that is for nobody in particular"
		}
		r.seat = &transport.Seat{Index: t.Index, Samples: t.Samples}
		return &t, ""
	})
}

// handleTasks takes the task of this member, if it is among those of many. Its place in the run it knows from an earlier task, or
// from a sync.
func (m *Member) handleTasks(o *opened) error {
	var b transport.Tasks
	if err := o.envelope.Decode(&b); err != nil {
		m.ignore("that is malformed", err)
		return nil
	}
	return m.takeOne(o, func(r *run) (*transport.Task, string) {
		switch {
		case o.envelope.To != "":
			return nil, "with the tasks of many that are for one"
		case r.seat == nil:
			m.nudge()
			return nil, ""
		}
		if t, asked := b.For(*r.seat); asked {
			return &t, ""
		}
		return nil, ""
	})
}

// handleSeat notes the member's place in a run.
func (m *Member) handleSeat(o *opened) {
	var b transport.Seat
	if err := o.envelope.Decode(&b); err != nil {
		m.ignore("that is malformed", err)
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if r := m.ledger.runs[o.envelope.Run]; r != nil && r.agreed() && o.envelope.To == m.name {
		r.seat = &b
	}
}

// takeOne takes the task that pick finds in a message, or says why it is ignored. Pick is called with the lock held.
func (m *Member) takeOne(o *opened, pick func(*run) (t *transport.Task, why string)) error {
	why, detail, err := m.take(o, pick)
	if why != "" {
		m.ignore(why, detail)
	}
	return err
}

func (m *Member) take(o *opened, pick func(*run) (t *transport.Task, why string)) (why string, detail, err error) {
	e := o.envelope
	m.mu.Lock()
	defer m.mu.Unlock()
	r, why := m.lookup(o)
	if r == nil {
		return why, nil, nil
	}
	t, why := pick(r)
	if t == nil {
		return why, nil, nil
	}
	if old := r.orders[t.Order]; old != nil {
		if old.task == o.digest {
			return "", nil, nil
		}
		return "with another task for an order that this member has", fmt.Errorf("run %s, order %d, task %s, not %s", r.id, t.Order, o.digest, old.task), nil
	}
	if r.last != nil || r.paused || m.work.Err() != nil {
		return "", nil, nil
	}
	open := 0
	for _, x := range r.orders {
		if x.status == atWork {
			open++
		}
	}
	if open >= maxOpen {
		return "", nil, nil // it comes again
	}
	b := taken{Run: r.id, Order: t.Order, Round: e.Round, Step: e.Step, Task: o.digest, Text: string(o.text)}
	if e.Kind == transport.KindTasks {
		b.Seat = r.seat
	}
	if err := m.note(r, KindTaken, b); err != nil {
		return "", nil, err
	}
	x := r.orders[t.Order]
	x.since = m.syncs
	m.start(r, x)
	return "", nil, nil
}

// start begins, or takes up, what is to be done for an order. The caller holds the lock.
func (m *Member) start(r *run, o *order) {
	if o.stop != nil || o.status >= accepted {
		return
	}
	ctx, cancel := context.WithCancelCause(m.root)
	o.stop = cancel
	m.walks.Go(func() {
		defer cancel(nil)
		m.walk(ctx, r, o)
	})
}

// handleClose ends a phase: memories are committed or given up.
func (m *Member) handleClose(ctx context.Context, o *opened) error {
	e := o.envelope
	var c transport.Close
	if err := e.Decode(&c); err != nil {
		m.ignore("that is malformed", err)
		return nil
	}
	folded, err := parseRanges(c.Folded)
	if err == nil {
		var gone ranges
		if gone, err = parseRanges(c.Lost); err == nil {
			return m.closePhase(ctx, o, &c, folded, gone)
		}
	}
	m.ignore("that is malformed", err)
	return nil
}

// errGone says that an order's phase is over.
var errGone = errors.New("its phase is over")

// fate is what a close says of an order of this member.
type fate struct {
	order  *order
	folded bool
	event  EventKind
	text   string
	bytes  int64 // of a result of which no verdict said that the coordinator has it
}

func (m *Member) closePhase(ctx context.Context, o *opened, c *transport.Close, folded, gone ranges) error {
	e := o.envelope
	m.mu.Lock()
	r, why := m.lookup(o)
	if r == nil {
		m.mu.Unlock()
		if why != "" {
			m.ignore(why, nil)
		}
		return nil
	}
	if p, ok := r.phases[phaseKey{e.Round, e.Step}]; ok && p.close == o.digest {
		m.mu.Unlock()
		return nil
	}
	fates, err := m.judge(r, o, c, folded, gone)
	if err == nil {
		err = m.apply(r, o, c, fates)
	}
	m.mu.Unlock()
	if err != nil {
		return err
	}
	for _, f := range fates {
		ev := f.order.of(f.event, r)
		ev.Bytes = f.bytes
		m.tell(ev, "%s: %s", roundOf(r, f.order), f.text)
	}
	if len(fates) > 0 {
		m.tidy(r)
		m.sweep(ctx)
	}
	if err := m.ahead(ctx, r, e.Round, e.Step); err != nil && ctx.Err() == nil {
		return err
	}
	if c.Last {
		m.nudge()
	}
	return nil
}

// judge finds what a close says of this member's orders, and whether it contradicts what was said before. The caller holds
// the lock.
func (m *Member) judge(r *run, o *opened, c *transport.Close, folded, gone ranges) ([]fate, error) {
	e := o.envelope
	conflict := func(format string, args ...any) error { return &ConflictError{r.id, fmt.Sprintf(format, args...)} }
	if p, ok := r.phases[phaseKey{e.Round, e.Step}]; ok && p.state != c.State {
		return nil, conflict("%s of round %d ended with state %.16s, and now with %.16s", e.Step, e.Round+1, p.state, c.State)
	}
	if r.head != nil && c.Head.Seq == r.head.Seq && c.Head.Hash != r.head.Hash {
		return nil, continues(r.id, r.head, c.Head)
	}
	var fates []fate
	for _, id := range sorted(r.orders) {
		x := r.orders[id]
		yes, no := folded.has(id), gone.has(id)
		switch {
		case !yes && !no:
		case yes && no:
			return nil, conflict("the result of order %d was counted, and it was not", id)
		case x.closed && x.folded != yes:
			return nil, conflict("it said that the result of order %d was %s, and says now that it was %s", id, counted(x.folded), counted(yes))
		case x.status == over && x.closed:
		case x.status == over: // late or refused before
			if yes {
				m.tell(x.of(EventWarning, r), "%s: the coordinator counts a result that it had not accepted; its memory is lost", roundOf(r, x))
			}
		case x.status == atWork && yes:
			fates = append(fates, fate{order: x, event: EventWarning, text: "the coordinator counts a result that this member has not sent: somebody else has its key, or its folder was put back to an earlier state"})
		case yes && x.status == ready: // the close is the verdict, too
			fates = append(fates, fate{order: x, folded: true, event: EventCounted, text: "sent " + inBytes(x.bytes) + ", counted", bytes: x.bytes})
		case yes:
			fates = append(fates, fate{order: x, folded: true, event: EventCounted, text: "counted"})
		case x.status == atWork:
			fates = append(fates, fate{order: x, event: EventLate, text: "not needed any more"})
		default:
			fates = append(fates, fate{order: x, event: EventLate, text: "did not count"})
		}
	}
	return fates, nil
}

func counted(yes bool) string {
	if yes {
		return "counted"
	}
	return "not counted"
}

// apply journals what a close says, and then lets it happen. The caller holds the lock.
func (m *Member) apply(r *run, o *opened, c *transport.Close, fates []fate) error {
	e := o.envelope
	var entries []journal.Entry
	for _, f := range fates {
		x := f.order
		if f.folded {
			entries = append(entries, journal.Entry{Kind: KindCommitted, Body: committed{r.id, x.id, x.round, x.memory, o.digest}})
		} else {
			entries = append(entries, journal.Entry{Kind: KindDropped, Body: dropped{r.id, x.id, f.text, o.digest}})
		}
	}
	s := seen{Run: r.id, Head: c.Head, Round: e.Round, Step: e.Step, State: c.State, Close: o.digest, Last: c.Last}
	if c.Final > 0 {
		s.Final = &e.Refs[c.Final-1]
	}
	recs, err := m.ledger.AppendAll(append(entries, journal.Entry{Kind: KindHead, Body: s}))
	if err != nil {
		return fmt.Errorf("journal of the member: %w", err)
	}
	for _, rec := range recs {
		if err := m.ledger.replay(rec); err != nil {
			return err
		}
	}
	if c.Last {
		r.lastAt = m.syncs
	}
	for _, f := range fates {
		if f.order.stop != nil {
			f.order.stop(errGone)
		}
	}
	m.wake()
	return nil
}

// forget gives up orders that the coordinator says nobody waits for, as after a rollback.
func (m *Member) forget(id, gone string) error {
	which, err := parseRanges(gone)
	if err != nil {
		m.ignore("that is malformed", err)
		return nil
	}
	m.mu.Lock()
	r := m.ledger.run(id)
	var dead []*order
	for _, n := range sorted(r.orders) {
		o := r.orders[n]
		if o.status == over || !which.has(n) {
			continue
		}
		if err := m.note(r, KindDropped, dropped{Run: id, Order: n, Reason: "the coordinator does not wait for it"}); err != nil {
			m.mu.Unlock()
			return err
		}
		if o.stop != nil {
			o.stop(errGone)
		}
		dead = append(dead, o)
	}
	m.wake()
	m.mu.Unlock()
	for _, o := range dead {
		m.tell(o.of(EventLate, r), "%s: nobody waits for it any more", roundOf(r, o))
	}
	if len(dead) > 0 {
		m.tidy(r)
	}
	return nil
}

// errStopped says that the coordinator has stopped a run.
var errStopped = errors.New("stopped by the coordinator")

// handleControl does what the coordinator says about a run or, if it names none, about all.
func (m *Member) handleControl(o *opened) error {
	e := o.envelope
	var c transport.Control
	if err := e.Decode(&c); err != nil {
		m.ignore("that is malformed", err)
		return nil
	}
	reason := oneLine(c.Reason, 300)
	because := ""
	if reason != "" {
		because = ": " + reason
	}
	if c.Action == "revoked" {
		return &RevokedError{reason}
	}
	if c.Action == "sync" { // a run has come
		m.invite(e.Run)
		return nil
	}
	m.mu.Lock()
	var runs []*run
	for _, id := range sorted(m.ledger.runs) {
		if r := m.ledger.runs[id]; (e.Run == "" || e.Run == id) && r.agreed() && r.ended == nil && r.last == nil {
			runs = append(runs, r)
		}
	}
	m.mu.Unlock()
	for _, r := range runs {
		switch c.Action {
		case "pause", "resume":
			pause := c.Action == "pause"
			m.mu.Lock()
			news := r.paused != pause
			r.paused = pause
			m.wake()
			m.mu.Unlock()
			switch {
			case news && pause:
				m.tell(Event{Kind: EventPaused, Run: r.id}, "run %s is paused by the coordinator%s", r.id, because)
			case news:
				m.tell(Event{Kind: EventResumed, Run: r.id}, "run %s goes on", r.id)
				m.nudge()
			}
		case "stop":
			m.end(r.id, errStopped)
			m.tell(Event{Kind: EventStopped, Run: r.id}, "run %s is stopped by the coordinator%s", r.id, because)
			m.nudge()
		default:
			m.ignore("with an instruction that this program does not know", fmt.Errorf("%.40q", c.Action))
		}
	}
	return nil
}

// checkHead compares the coordinator's journal with the one that was seen, and on a new connection verifies that the way
// between the two is a chain.
//
// The end of a phase may have overtaken the answer: then the journal is compared with the head that was seen when the question
// was asked.
func (m *Member) checkHead(ctx context.Context, conn uint64, id string, asked, offered *transport.Head) error {
	m.mu.Lock()
	r := m.ledger.run(id)
	have, first := r.head, r.checked != conn
	m.mu.Unlock()
	var err error
	switch {
	case have == nil:
	case offered == nil:
		err = &RollbackError{id, *have, transport.Head{}, "it shows none"}
	case offered.Seq < have.Seq && (asked == nil || asked.Seq < have.Seq):
		err = continues(id, asked, *offered)
	default:
		err = continues(id, have, *offered)
		if err == nil && first && m.o.Proof != nil && *have != *offered {
			err = m.prove(ctx, r, *have, *offered)
		}
	}
	var broken *RollbackError
	m.mu.Lock()
	defer m.mu.Unlock()
	if errors.As(err, &broken) && m.o.AcceptRollback && offered != nil && !m.forgiven[id] {
		m.forgiven[id] = true
		for _, o := range r.orders {
			if o.stop != nil {
				o.stop(errGone)
			}
		}
		if err := m.note(r, KindHead, seen{Run: id, Head: *offered, Rollback: true}); err != nil {
			return err
		}
		m.tell(Event{Kind: EventRollback, Run: id}, "run %s: accepted a journal that does not continue the one that was seen: record %d instead of %d", id, offered.Seq, have.Seq)
		err = nil
	}
	if err != nil {
		return err
	}
	r.checked, r.proofs = conn, 0
	m.wake()
	return nil
}

// prove fetches the records between two heads and verifies them.
func (m *Member) prove(ctx context.Context, r *run, have, offered transport.Head) error {
	within, cancel := context.WithTimeout(ctx, 10*patience)
	defer cancel()
	lines, err := m.o.Proof(within, r.id, have.Seq)
	if err != nil {
		return fmt.Errorf("%w: fetching the coordinator's journal: %w", errNoAnswer, err)
	}
	defer lines.Close()
	err = link(lines, have, offered)
	if err == nil {
		return nil
	}
	m.mu.Lock()
	r.proofs++
	tries := r.proofs
	m.mu.Unlock()
	if tries < 3 && (errors.Is(err, io.ErrUnexpectedEOF) || ctx.Err() != nil) { // perhaps the connection broke
		return fmt.Errorf("%w: %w", errNoAnswer, err)
	}
	return &RollbackError{r.id, have, offered, err.Error()}
}

// ranges are sets of numbers, as "0-41,43" writes them.
type ranges [][2]int

func parseRanges(text string) (ranges, error) {
	if text == "" {
		return nil, nil
	}
	var out ranges
	for part := range strings.SplitSeq(text, ",") {
		a, b, ok := strings.Cut(part, "-")
		if !ok {
			b = a
		}
		lo, err1 := strconv.Atoi(a)
		hi, err2 := strconv.Atoi(b)
		if err1 != nil || err2 != nil || lo < 0 || hi < lo {
			return nil, fmt.Errorf("orders %.40q", part)
		}
		out = append(out, [2]int{lo, hi})
	}
	return out, nil
}

func (r ranges) has(n int) bool {
	for _, x := range r {
		if x[0] <= n && n <= x[1] {
			return true
		}
	}
	return false
}
