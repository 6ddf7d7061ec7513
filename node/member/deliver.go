package member

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/node/parcel"
	"github.com/cohort-learning/cohort/node/program"
	dpledger "github.com/cohort-learning/cohort/secure/dp/ledger"
	"github.com/cohort-learning/cohort/transport"
)

func modelDir(path string) string { return filepath.Dir(path) }

// keep packs a result, or the failure of its task, and makes it durable before any of it is sent.
func (m *Member) keep(ctx context.Context, r *run, o *order, e transport.Envelope, t *transport.Task, res federated.Result, version string, failed error) error {
	m.making.RLock()
	defer m.making.RUnlock()
	body := &transport.Result{Order: o.id, Task: o.task, Kernels: m.o.Kernels, Memory: version}
	msg, bytes, err := m.pack(ctx, r, o, body, res, failed)
	var full *budgetError
	if errors.As(err, &full) || errors.Is(err, transport.ErrTooLarge) {
		m.tell(o.of(EventFailed, r), "%s: %v", roundOf(r, o), err)
		res, failed = federated.Result{}, err
		msg, bytes, err = m.pack(ctx, r, o, body, res, failed)
	}
	if err != nil {
		return &localError{err}
	}
	k := kept{Run: r.id, Order: o.id, Task: o.task, Text: string(msg), Bytes: bytes}
	if res.Keep != nil {
		if k.Memory, err = writeMemory(m.fs, memoryPath(m.o.Folder.Dir, r.id, o.id), *res.Keep); err != nil {
			return &localError{err}
		}
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if ctx.Err() != nil || o.status != atWork { // its phase has closed meanwhile
		return nil
	}
	if err := m.note(r, KindKept, k); err != nil {
		return &localError{err}
	}
	m.wake()
	return nil
}

// budgetError says that the policy's bytes of the day do not suffice.
type budgetError struct{ want, used, most int64 }

func (e *budgetError) Error() string {
	return fmt.Sprintf("the result has %s; this member's policy allows %s a day, of which %s have left today", inBytes(e.want), inBytes(e.most), inBytes(e.used))
}

// pack makes the message of a result. Only the scalars that the terms name are in it.
func (m *Member) pack(ctx context.Context, r *run, o *order, body *transport.Result, res federated.Result, failed error) (msg []byte, bytes int64, err error) {
	body.Abstained, body.Failed, body.Weight, body.Addends, body.Cover, body.Scalars, body.Attached = false, "", 0, nil, nil, nil, nil
	p := parcel.Packer{Store: m.store}
	switch {
	case failed != nil:
		body.Failed = "the task failed at this member"
		var spent *dpledger.SpentError
		if m.o.Policy.Reasons && (!r.part.hidden || errors.As(failed, &spent)) { // other reasons tell of the data
			body.Failed = oneLine(public(failed), 300)
		}
	default:
		body.Abstained, body.Weight = res.Status == federated.Abstained, res.Weight
		body.Scalars = m.allowed(r, res.Scalars)
		if body.Abstained {
			break
		}
		for _, name := range slices.Sorted(maps.Keys(res.Addends)) {
			in, err := p.Set(ctx, name, res.Addends[name])
			if err != nil {
				return nil, 0, err
			}
			body.Addends = append(body.Addends, in)
		}
		if body.Cover, err = p.Index(ctx, "cover", res.Cover); err != nil {
			return nil, 0, err
		}
		if body.Attached, err = p.Attached(ctx, "attached", res.Attached); err != nil {
			return nil, 0, err
		}
	}
	if msg, err = m.seal(r.id, o.round, o.step, body, p.Refs); err != nil {
		return nil, 0, err
	}
	bytes = int64(len(msg))
	for _, ref := range p.Refs {
		bytes += ref.Bytes
	}
	m.mu.Lock()
	used := m.ledger.spent[dayOf(m.now())]
	m.mu.Unlock()
	if most := int64(m.o.Policy.Upload); most > 0 && failed == nil && used+bytes > most {
		return nil, 0, &budgetError{bytes, used, most}
	}
	return msg, bytes, nil
}

// PrivateError is an error with details of this machine, such as paths. The coordinator is told Public.
type PrivateError struct {
	Err    error
	Public string
}

func (e *PrivateError) Error() string { return e.Err.Error() }
func (e *PrivateError) Unwrap() error { return e.Err }

// public is what may be told of a failure: nothing that a program of the member printed, and no path.
func public(err error) string {
	var f *program.Failure
	var p *PrivateError
	switch {
	case errors.As(err, &f):
		return f.Reason
	case errors.As(err, &p):
		return p.Public
	}
	return err.Error()
}

// allowed returns the scalars that the terms of the run name.
func (m *Member) allowed(r *run, all map[string]float64) map[string]float64 {
	out := map[string]float64{}
	for _, name := range r.part.metrics {
		if v, ok := all[name]; ok && m.o.Policy.Metrics {
			out[name] = v
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// deliver sends a kept result until the coordinator says what becomes of it.
func (m *Member) deliver(ctx context.Context, r *run, o *order) error {
	for fails, again := 0, 0; ; {
		here := func() bool { return m.up && m.welcomed == m.conn && r.checked == m.conn }
		if err := m.until(ctx, here); err != nil {
			return nil
		}
		v, wait, err := m.hand(ctx, r, o)
		switch {
		case ctx.Err() != nil:
			return nil
		case err == nil && v == nil: // no permit yet, or a relay's receipt
			if c, ok := m.o.Blobs.(interface{ Rest() }); ok && wait >= interval/2 {
				c.Rest()
			}
			if m.sleep(ctx, wait) != nil {
				return nil
			}
			continue
		case err == nil && v.Outcome == transport.Refused && (passing(v.Code) || v.Code == transport.CodeBlob && again < maxTries):
			again++
			if m.sleep(ctx, m.backoff(again)) != nil {
				return nil
			}
			continue
		case err == nil:
			if c, ok := m.o.Blobs.(interface{ Rest() }); ok { // the next task may be long in coming
				c.Rest()
			}
			return m.settled(r, o, v)
		case errors.Is(err, errLocalCopy):
			return m.redo(r, o, err)
		}
		if f := final(err); f != nil {
			return f
		}
		fails++
		if v := m.hopeless(r, o, err, fails); v != nil {
			// The result may count nevertheless, if an earlier verdict was lost: the end of the phase, or a sync, comes first.
			if v.Outcome == transport.Late && m.synced(ctx, r) != nil {
				return nil
			}
			return m.settled(r, o, v)
		}
		if m.sleep(ctx, m.backoff(fails)) != nil {
			return nil
		}
	}
}

// synced waits until the coordinator has answered a sync that is asked from now on.
func (m *Member) synced(ctx context.Context, r *run) error {
	m.mu.Lock()
	asked := m.syncs
	m.mu.Unlock()
	m.nudge()
	return m.until(ctx, func() bool { return r.synced > asked })
}

// passing reports whether what is refused with a code may be accepted later.
func passing(c transport.Code) bool {
	return c == transport.CodeFull || c == transport.CodeBusy || c == transport.CodePaused || c == transport.CodeInternal
}

// hopeless turns a failure that will not pass into a verdict.
func (m *Member) hopeless(r *run, o *order, err error, fails int) *transport.Verdict {
	var f *transport.Failure
	if !errors.As(err, &f) {
		if fails == maxTries {
			m.tell(o.of(EventWarning, r), "%s: the result cannot be sent yet: %s", roundOf(r, o), oneLine(err.Error(), 300))
		}
		return nil
	}
	v := &transport.Verdict{Order: o.id, Outcome: transport.Refused, Code: f.Code, Reason: f.Message}
	if passing(f.Code) {
		return nil
	}
	switch f.Code {
	case transport.CodeStale:
		v.Outcome = transport.Late
		return v
	case transport.CodeUnknown, transport.CodeTerms, transport.CodeBlob: // perhaps a sync tells more
		m.nudge()
		if fails < maxTries {
			return nil
		}
	}
	return v
}

// errLocalCopy says that blobs of a kept result are gone or damaged here.
var errLocalCopy = errors.New("the copy of the result on this machine is damaged")

// redo computes a task again whose kept result cannot be sent any more.
func (m *Member) redo(r *run, o *order, err error) error {
	m.tell(o.of(EventWarning, r), "%s: %v; computing it again", roundOf(r, o), err)
	m.mu.Lock()
	defer m.mu.Unlock()
	if o.status == ready {
		o.status, o.result, o.memory = atWork, nil, nil
	}
	return nil
}

// hand tries once to bring a result to the coordinator. Without a permit, the verdict is nil and wait says when to ask again.
func (m *Member) hand(ctx context.Context, r *run, o *order) (v *transport.Verdict, wait time.Duration, err error) {
	m.mu.Lock()
	msg, receipt := o.result, o.receipt
	m.mu.Unlock()
	e, err := transport.Peek(msg)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", errLocalCopy, err)
	}
	if len(e.Refs) > 0 && !receipt {
		var p transport.Permit
		if err := m.ask(ctx, r.id, &transport.Ask{Order: o.id, Task: o.task, Blobs: e.Refs}, &p); err != nil {
			return nil, 0, err
		}
		if !p.Granted {
			return nil, m.spread(min(max(p.Retry, 50*time.Millisecond), time.Minute)), nil
		}
	}
	m.mu.Lock()
	if m.work.Err() != nil { // nothing new is begun while the member stops
		m.mu.Unlock()
		return nil, Grace, nil
	}
	m.sending++
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		m.sending--
		m.wake()
		m.mu.Unlock()
	}()
	for _, ref := range e.Refs {
		if receipt {
			break
		}
		if m.o.Blobs == nil {
			return nil, 0, errors.New("this member has nothing to send blobs with")
		}
		if err := m.o.Blobs.Upload(ctx, m.store, blob.Hash(ref.Hash)); err != nil {
			if here := m.whole(ctx, e.Refs); here != nil && ctx.Err() == nil {
				return nil, 0, fmt.Errorf("%w: %w", errLocalCopy, here)
			}
			return nil, 0, fmt.Errorf("sending the result: %w", err)
		}
	}
	answer, err := m.exchange(ctx, r.id, msg)
	if err != nil {
		m.mu.Lock()
		o.receipt = false // whoever has no answer may not have the blobs either
		m.mu.Unlock()
		return nil, 0, err
	}
	if answer.Kind == transport.KindReceipt {
		var c transport.Receipt
		if err := answer.Decode(&c); err != nil {
			return nil, 0, fmt.Errorf("%w: %w", errAnswer, err)
		}
		wait, err := m.received(r, o, &c, msg)
		return nil, wait, err
	}
	v = &transport.Verdict{}
	if err := answer.Decode(v); err != nil {
		return nil, 0, fmt.Errorf("%w: %w", errAnswer, err)
	}
	if v.Outcome == transport.Refused { // where it is sent next may not have the blobs
		m.mu.Lock()
		o.receipt = false
		m.mu.Unlock()
	}
	if v.Order != o.id {
		return nil, 0, fmt.Errorf("%w: a verdict of order %d instead of %d", errAnswer, v.Order, o.id)
	}
	return v, 0, nil
}

// whole reads the blobs of a result through: what is damaged here is not blamed on the way.
func (m *Member) whole(ctx context.Context, refs []transport.Ref) error {
	for _, ref := range refs {
		r, err := blob.Open(ctx, m.store, blob.Hash(ref.Hash))
		if err != nil {
			return err
		}
		_, err = io.Copy(io.Discard, r)
		r.Close()
		if err != nil {
			return err
		}
	}
	return nil
}

// settled journals what the coordinator said of a result.
func (m *Member) settled(r *run, o *order, v *transport.Verdict) error {
	m.mu.Lock()
	if o.status != ready { // a close was faster
		m.mu.Unlock()
		return nil
	}
	var err error
	got := v.Outcome == transport.Accepted || v.Outcome == transport.Duplicate
	reason := oneLine(v.Reason, 500)
	if got {
		if err = m.note(r, KindSent, sent{r.id, o.id, v.Outcome}); err == nil {
			if !o.receipt { // else it was told then
				ev := o.of(EventSent, r)
				ev.Bytes = o.bytes
				m.tell(ev, "%s: sent %s", roundOf(r, o), inBytes(o.bytes))
			}
		}
	} else {
		err = m.note(r, KindRefused, refused{r.id, o.id, v.Outcome, v.Code, reason})
	}
	m.wake()
	m.mu.Unlock()
	if err != nil || got {
		return err
	}
	m.tidy(r)
	if v.Outcome == transport.Late {
		m.tell(o.of(EventLate, r), "%s: too late%s", roundOf(r, o), because(reason))
	} else {
		m.tell(o.of(EventRefused, r), "%s: the coordinator refuses the result: %s (%s)", roundOf(r, o), reason, v.Code)
	}
	return nil
}

func because(reason string) string {
	if reason == "" {
		return ""
	}
	return ": " + reason
}

// limited is a store that takes so many bytes and no more.
type limited struct {
	blob.Store
	left chan int64 // holds what is left
}

// limit returns a store for one blob of a declared length: its chunks and its manifest.
func limit(s blob.Store, bytes int64) blob.Store {
	l := &limited{s, make(chan int64, 1)}
	l.left <- bytes + blob.ManifestLen(bytes)
	return l
}

// Put implements [blob.Store].
func (l *limited) Put(ctx context.Context, h blob.Hash, data []byte) error {
	if has, err := l.Store.Has(ctx, h); err == nil && has {
		return nil
	}
	left := <-l.left - int64(len(data))
	l.left <- left
	if left < 0 {
		return errOversize
	}
	return l.Store.Put(ctx, h, data)
}
