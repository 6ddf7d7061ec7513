package member

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/transport"
)

// errNoAnswer says that the coordinator did not answer in time. It may have handled what it was asked.
var errNoAnswer = errors.New("the coordinator did not answer")

// errAnswer says that an answer is not one.
var errAnswer = errors.New("the coordinator's answer is none")

// seal signs a message of this member.
func (m *Member) seal(run string, round int, step string, body transport.Body, refs []transport.Ref) ([]byte, error) {
	e := transport.Envelope{Fed: m.fed, Run: run, Round: round, Step: step, From: m.name, Refs: refs}
	if err := e.Put(body); err != nil {
		return nil, err
	}
	return transport.Seal(m.o.Folder.Key, e)
}

// ask sends a request and decodes the answer into answer. A [*transport.Failure] of the coordinator is an error.
func (m *Member) ask(ctx context.Context, run string, body, answer transport.Body) error {
	msg, err := m.seal(run, 0, "", body, nil)
	if err != nil {
		return err
	}
	return m.request(ctx, run, msg, answer)
}

func (m *Member) request(ctx context.Context, run string, msg []byte, answer transport.Body) error {
	e, err := m.exchange(ctx, run, msg)
	if err != nil {
		return err
	}
	if err := e.Decode(answer); err != nil {
		return fmt.Errorf("%w: %w", errAnswer, err)
	}
	return nil
}

// exchange sends a request and returns the answer, which is no error.
func (m *Member) exchange(ctx context.Context, run string, msg []byte) (e transport.Envelope, err error) {
	within, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	reply, err := m.link.Request(within, msg)
	switch {
	case err != nil && ctx.Err() != nil:
		return e, ctx.Err()
	case errors.Is(err, context.DeadlineExceeded):
		return e, errNoAnswer
	case err != nil:
		return e, err
	}
	e, err = transport.Open(m.o.Folder.Card.Federation, reply)
	if err == nil {
		err = m.addressed(e)
	} else if re, ok := m.fromRelay(reply); ok {
		e, err = re, nil
	}
	if err == nil && e.Run != run && e.Kind != transport.KindError {
		err = fmt.Errorf("of run %.40q", e.Run)
	}
	if err != nil {
		return e, fmt.Errorf("%w: %w", errAnswer, err)
	}
	if e.Kind == transport.KindError {
		var f transport.Failure
		if err := e.Decode(&f); err != nil {
			return e, fmt.Errorf("%w: %w", errAnswer, err)
		}
		f.Message = oneLine(f.Message, 500)
		return e, &f
	}
	return e, nil
}

// addressed checks that a message of the coordinator is for this member.
func (m *Member) addressed(e transport.Envelope) error {
	switch {
	case e.Fed != m.fed:
		return errors.New("of another federation")
	case e.From != "":
		return errors.New("that is not from the coordinator")
	case e.To != "" && e.To != m.name:
		return errors.New("for another member")
	}
	return nil
}

// final returns an error with which the member cannot go on at all, or nil.
func final(err error) error {
	var f *transport.Failure
	switch {
	case errors.Is(err, transport.ErrDenied):
		return fmt.Errorf("%w: it was revoked, or the coordinator is another one than before", err)
	case errors.Is(err, transport.ErrReplaced):
		return fmt.Errorf("%w: does this member run twice?", err)
	case errors.Is(err, transport.ErrClosed):
		return err
	case !errors.As(err, &f):
		return nil
	}
	switch f.Code {
	case transport.CodeRevoked:
		return &RevokedError{f.Message}
	case transport.CodeVersion:
		return fmt.Errorf("coordinator and member speak different versions of the protocol: %w; update the older one", f)
	case transport.CodeSignature, transport.CodeSender:
		return fmt.Errorf("the coordinator does not recognise this member: %w", f)
	}
	return nil
}

// session greets the coordinator after every connection and keeps in step with it, until all runs are over (nil) or the
// member cannot go on.
func (m *Member) session(ctx context.Context) error {
	told := ""
	for fails := 0; ; {
		states, err := m.connection(ctx)
		if err != nil {
			return err
		}
		if states == 0 { // none
			continue
		}
		err = m.attend(ctx, &fails)
		if err == nil || ctx.Err() != nil {
			return err
		}
		var broken *RollbackError
		if f := final(err); f != nil {
			return f
		} else if !retriable(err) || errors.As(err, &broken) {
			return err
		}
		if errors.Is(err, transport.ErrDisconnected) {
			continue
		}
		fails++
		if text := oneLine(err.Error(), 300); text != told || fails%50 == 0 { // once, not for ever
			told = text
			m.tell(Event{Kind: EventWarning}, "%s; trying again", text)
		}
		if err := m.sleep(ctx, m.backoff(fails)); err != nil {
			return err
		}
	}
}

// retriable reports whether an error may pass by itself.
func retriable(err error) bool {
	var f *transport.Failure
	return errors.Is(err, transport.ErrDisconnected) || errors.Is(err, errNoAnswer) || errors.Is(err, errAnswer) || errors.As(err, &f)
}

// connection waits for a connection. Without one it finds out whether there will ever be one, and waits for a change.
func (m *Member) connection(ctx context.Context) (states uint64, err error) {
	m.mu.Lock()
	up, states := m.up, m.states
	m.mu.Unlock()
	if up {
		return max(1, states), nil
	}
	if states > 0 {
		if err := final(m.refused(ctx, states)); err != nil {
			return 0, err
		}
	}
	within, cancel := context.WithTimeout(ctx, m.spread(interval/2))
	defer cancel()
	_ = m.until(within, func() bool { return m.states != states }) // or asks once more
	return 0, ctx.Err()
}

// refused asks, while there is no connection, whether there will be one. A connection that comes meanwhile ends the question:
// a server that is just going, or coming, may leave it without an answer for long.
func (m *Member) refused(ctx context.Context, states uint64) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	m.walks.Go(func() {
		_ = m.until(ctx, func() bool { return m.states != states }) // or until there is an answer
		cancel()
	})
	err := m.ask(ctx, "", m.hello(), &transport.Welcome{})
	if final(err) == nil && m.o.Probe != nil {
		err = m.o.Probe(ctx)
	}
	return err
}

func (m *Member) hello() *transport.Hello {
	h := &transport.Hello{Versions: []int{transport.Version}, Program: m.o.Program, Kernels: m.o.Kernels, Can: m.o.Can, Heads: map[string]transport.Head{}}
	if h.Can == nil {
		h.Can = []string{"train"}
	}
	h.Can = append(slices.Clip(h.Can), transport.CanTasks)
	m.mu.Lock()
	defer m.mu.Unlock()
	for id, r := range m.ledger.runs {
		if r.head != nil && r.last == nil && len(h.Heads) < 256 {
			h.Heads[id] = *r.head
		}
	}
	return h
}

// attend greets the coordinator on the present connection and syncs, again and again, until the connection is lost or all
// runs are over.
func (m *Member) attend(ctx context.Context, fails *int) error {
	m.mu.Lock()
	conn := m.conn
	m.mu.Unlock()
	if err := m.between(ctx); err != nil {
		return err
	}
	offered, err := m.greet(ctx, conn)
	if err != nil {
		return err
	}
	for {
		for _, id := range m.interesting(offered) {
			if err := m.sync(ctx, conn, id); err != nil {
				return err
			}
		}
		*fails = 0
		if over, err := m.finished(ctx, offered); over {
			return err
		}
		if again, err := m.idle(ctx, conn); err != nil {
			return err
		} else if again && !m.engaged() { // nothing to do: is there a new run?
			if offered, err = m.greet(ctx, conn); err != nil {
				return err
			}
		}
	}
}

// greet says hello and returns the runs that the coordinator offers.
func (m *Member) greet(ctx context.Context, conn uint64) ([]string, error) {
	var w transport.Welcome
	if err := m.ask(ctx, "", m.hello(), &w); err != nil {
		return nil, err
	}
	switch {
	case w.Version != transport.Version:
		return nil, fmt.Errorf("the coordinator wants to speak version %d of the protocol; this program speaks %d", w.Version, transport.Version)
	case w.You != m.name:
		return nil, fmt.Errorf("the coordinator takes this member for %.80q; its name is %q", w.You, m.name)
	case len(w.Runs) > 1024:
		return nil, fmt.Errorf("%w: it offers %d runs", errAnswer, len(w.Runs))
	}
	m.mu.Lock()
	news := m.welcomed != conn
	m.welcomed = conn
	m.coordinator = oneLine(w.Federation, 100)
	for _, r := range m.ledger.runs {
		r.paused = r.paused && !news
	}
	m.wake()
	m.mu.Unlock()
	if news {
		again := ""
		if conn > 1 {
			again = " again"
		}
		m.tell(Event{Kind: EventConnected}, "connected%s to %s as %s", again, oneLine(w.Federation, 100), m.name)
	}
	return w.Runs, nil
}

// interesting returns the runs to sync: those that are offered, and those that the member takes part in.
func (m *Member) interesting(offered []string) []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	want := maps.Clone(m.invited)
	for _, id := range offered {
		want[id] = true
	}
	for id, r := range m.ledger.runs {
		if r.agreed() {
			want[id] = true
		}
		if r.ended != nil {
			delete(want, id)
		}
	}
	return slices.Sorted(maps.Keys(want))
}

// engaged reports whether the member takes part in a run that is not over.
func (m *Member) engaged() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, r := range m.ledger.runs {
		if r.agreed() && r.last == nil && r.ended == nil {
			return true
		}
	}
	return false
}

// idle waits until it is time to sync again. It reports whether nothing but time led to it.
func (m *Member) idle(ctx context.Context, conn uint64) (byTime bool, err error) {
	timer := time.NewTimer(m.spread(interval))
	defer timer.Stop()
	for {
		m.mu.Lock()
		here, changed := m.up && m.conn == conn, m.changed
		m.mu.Unlock()
		if !here {
			return false, transport.ErrDisconnected
		}
		select {
		case <-timer.C:
			return true, nil
		case <-m.poke:
			return false, nil
		case <-changed:
		case <-ctx.Done():
			return false, ctx.Err()
		}
	}
}

// maxPages bounds how often one sync is answered with "there is more".
const maxPages = 1000

// sync tells the coordinator what the member holds of a run and handles what it is told.
func (m *Member) sync(ctx context.Context, conn uint64, id string) error {
	if err := m.revive(ctx, id); err != nil {
		return err
	}
	for range maxPages {
		m.mu.Lock()
		m.syncs++
		number := m.syncs
		body := m.holding(id)
		m.mu.Unlock()
		var d transport.Duties
		err := m.ask(ctx, id, body, &d)
		if done, err := m.missing(id, err); done {
			return err
		}
		more, err := m.duties(ctx, conn, id, number, body.Head, &d)
		if err != nil || !more {
			return err
		}
	}
	return fmt.Errorf("%w: there is always more", errAnswer)
}

// holding is what a sync says. The caller holds the lock.
func (m *Member) holding(id string) *transport.Sync {
	s := &transport.Sync{Holding: []transport.Holding{}}
	r := m.ledger.runs[id]
	if r == nil {
		return s
	}
	s.Head = r.head
	for _, n := range slices.Sorted(maps.Keys(r.orders)) {
		if o := r.orders[n]; o.status != over && len(s.Holding) < 256 {
			s.Holding = append(s.Holding, transport.Holding{Order: o.id, Task: o.task, State: o.status.String()})
		}
	}
	return s
}

// missing handles the error of a sync: a run that the coordinator does not know, or not for this member, ends here.
func (m *Member) missing(id string, err error) (done bool, _ error) {
	var f *transport.Failure
	if err == nil {
		return false, nil
	}
	if !errors.As(err, &f) || f.Code != transport.CodeUnknown && f.Code != transport.CodeTerms {
		return true, err
	}
	m.mu.Lock()
	r := m.ledger.runs[id]
	over := r != nil && r.last != nil
	if over { // it may well be gone at the coordinator
		r.synced = m.syncs
	}
	m.mu.Unlock()
	if over {
		return true, nil
	}
	m.end(id, f)
	m.tell(Event{Kind: EventRefused, Run: id}, "run %s: the coordinator does not have it for this member any more: %v", id, f)
	return true, nil
}

// end stops everything that is done for a run in this process.
func (m *Member) end(id string, why error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.ledger.run(id)
	r.ended = why
	for _, o := range r.orders {
		if o.stop != nil {
			o.stop(why)
		}
	}
	m.wake()
}

// duties handles the answer to a sync or a consent, for which the member had seen the journal up to the head asked.
func (m *Member) duties(ctx context.Context, conn uint64, id string, number uint64, asked *transport.Head, d *transport.Duties) (more bool, err error) {
	if err := m.checkHead(ctx, conn, id, asked, d.Head); err != nil {
		return false, err
	}
	for _, text := range d.Messages {
		terms, err := m.handle(ctx, []byte(text))
		if err != nil {
			return false, err
		}
		if terms == nil {
			continue
		}
		if terms.envelope.Run != id {
			m.ignore("of another run among the duties of this one", nil)
			continue
		}
		if err := m.consider(ctx, conn, number, terms); err != nil {
			return false, err
		}
	}
	if err := m.forget(id, d.Gone); err != nil {
		return false, err
	}
	if d.More {
		return true, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	r := m.ledger.run(id)
	r.synced = max(r.synced, number)
	m.wake()
	if d.Head != nil && r.agreed() && r.caught != conn {
		r.caught = conn
		if r.head == nil || d.Head.Seq > r.head.Seq {
			return false, m.note(r, KindHead, seen{Run: id, Head: *d.Head})
		}
	}
	return false, nil
}

// note writes one record and applies it. The caller holds the lock.
func (m *Member) note(r *run, kind string, body any) error {
	rec, err := m.ledger.Append(kind, body)
	if err != nil {
		return fmt.Errorf("journal of the member: %w", err)
	}
	return m.ledger.replay(rec)
}

// finished reports whether all runs are over, and what Run returns then.
func (m *Member) finished(ctx context.Context, offered []string) (bool, error) {
	m.mu.Lock()
	var last []*run
	for _, r := range m.ledger.runs {
		// Only a sync tells that no earlier close was missed: memories may hang on it.
		if r.last != nil && r.ended == nil && (!r.holds() || r.synced > r.lastAt) {
			last = append(last, r)
		}
	}
	m.mu.Unlock()
	for _, r := range last {
		m.conclude(ctx, r)
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	known, took := map[string]bool{}, false
	var reasons []string
	for _, id := range sorted(m.ledger.runs) {
		r := m.ledger.runs[id]
		var declined *DeclinedError
		switch {
		case r.ended == nil && r.agreed():
			return false, nil
		case r.ended == nil: // not considered yet
			continue
		case errors.Is(r.ended, errOver), errors.Is(r.ended, errStopped):
			took = true
		case errors.As(r.ended, &declined):
			reasons = append(reasons, fmt.Sprintf("run %s: %s", id, strings.Join(declined.Reasons, "; ")))
		case !errors.Is(r.ended, errWithdrawn):
			reasons = append(reasons, fmt.Sprintf("run %s: %v", id, r.ended))
		}
		known[id] = true
	}
	for _, id := range offered {
		if !known[id] {
			return false, nil
		}
	}
	switch {
	case m.o.Stay:
		return false, nil
	case took:
		return true, nil
	case len(reasons) > 0:
		return true, &DeclinedError{reasons}
	}
	return false, nil
}
