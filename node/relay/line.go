package relay

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/transport"
)

// connect makes the connection to the coordinator, which then renews itself.
func (r *Relay) connect(ctx context.Context) {
	for n := 0; ; n++ {
		link, err := r.network.Dial(ctx)
		if err == nil {
			r.mu.Lock()
			r.link = link
			r.mu.Unlock()
			link.Receive(r.receive)
			link.OnState(r.state)
			if ctx.Err() != nil {
				_ = link.Close()
			}
			return
		}
		if errors.Is(err, transport.ErrDenied) {
			r.cancel(fmt.Errorf("%w: it was revoked, or the coordinator is another one than before", err))
			return
		}
		if ctx.Err() != nil {
			return
		}
		if n == 0 {
			r.log.Warn("no connection to the coordinator yet; trying again", "error", err)
		}
		r.sleep(ctx, backoff(n))
	}
}

func backoff(n int) time.Duration { return min(retryMax, retry<<min(n, 8)) }

func (r *Relay) sleep(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (r *Relay) state(connected bool) {
	r.mu.Lock()
	r.up = connected
	close(r.changed)
	r.changed = make(chan struct{})
	r.mu.Unlock()
	r.announceSoon()
}

func (r *Relay) connected() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.up
}

// online waits until there is a connection to the coordinator.
func (r *Relay) online(ctx context.Context) error {
	for {
		r.mu.Lock()
		up, changed := r.up, r.changed
		r.mu.Unlock()
		if up {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// pass sends a message to the coordinator as it is, and returns the answer.
func (r *Relay) pass(ctx context.Context, msg []byte) ([]byte, error) {
	r.mu.Lock()
	link := r.link
	r.mu.Unlock()
	if link == nil {
		return nil, transport.ErrDisconnected
	}
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	answer, err := link.Request(ctx, msg)
	if errors.Is(err, transport.ErrDenied) || errors.Is(err, transport.ErrReplaced) {
		r.cancel(err)
	}
	return answer, err
}

// request asks the coordinator something of the relay's own. A [*transport.Failure] of the coordinator is an error.
func (r *Relay) request(ctx context.Context, e transport.Envelope, body transport.Body) (transport.Envelope, []byte, error) {
	msg, err := r.seal(e, body)
	if err != nil {
		return e, nil, err
	}
	reply, err := r.pass(ctx, msg)
	if err != nil {
		return e, nil, err
	}
	out, err := transport.Open(r.fed, reply)
	if err == nil && out.Kind == transport.KindError {
		var f transport.Failure
		if err = out.Decode(&f); err == nil {
			err = &f
		}
	}
	return out, reply, err
}

// receive handles what the coordinator pushes, one message after the other.
func (r *Relay) receive(msg []byte) {
	e, err := transport.Open(r.fed, msg)
	if err != nil || e.From != "" {
		r.log.Warn("a message that the coordinator did not sign is not passed on", "error", err)
		return
	}
	msg = append([]byte(nil), msg...)
	switch {
	case e.Kind == transport.KindDelegation && e.To == r.name:
		if err := r.delegated(e, msg); err != nil {
			r.log.Warn("a delegation cannot be taken over", "error", err)
		}
	case e.Kind == transport.KindControl && e.To == r.name:
		var c transport.Control
		if e.Decode(&c) == nil && c.Action == "revoked" {
			r.cancel(fmt.Errorf("the coordinator has revoked this relay: %s", c.Reason))
		}
	case e.To == r.name:
	default: // a task or the final model may be long in coming
		r.tasks.Go(func() {
			r.learn(e, msg)
			if e.To == "" {
				_ = r.hub.Broadcast(msg)
			} else {
				_ = r.hub.Push(e.To, msg) // what is lost is asked for
			}
		})
	}
}

// learn takes in a message of the coordinator before leaves get it: tasks are noted and their blobs fetched, phases are closed.
func (r *Relay) learn(e transport.Envelope, msg []byte) {
	switch e.Kind {
	case transport.KindTask:
		r.learnTask(e, msg)
	case transport.KindClose:
		r.learnClose(e)
	case transport.KindDuties:
		var d transport.Duties
		if e.Decode(&d) != nil {
			return
		}
		for _, text := range d.Messages {
			if inner, err := transport.Open(r.fed, []byte(text)); err == nil && inner.Kind != transport.KindDuties {
				r.learn(inner, []byte(text))
			}
		}
	}
}

func (r *Relay) learnTask(e transport.Envelope, msg []byte) {
	var t transport.Task
	if err := e.Decode(&t); err != nil {
		return
	}
	if _, ok := r.ledger.keyOf(e.To); !ok {
		return
	}
	if x, known, _ := r.ledger.find(e.Run, t.Order); !known || x.digest != transport.DigestOf(msg) {
		if err := r.note(KindPassed, passed{e.Run, t.Order, e.To, e.Round, e.Step, string(msg)}); err != nil {
			return
		}
		r.touch(phaseKey{e.Run, e.Round, e.Step})
	}
	r.supply(e.To, e.Refs)
}

func (r *Relay) learnClose(e transport.Envelope) {
	var c transport.Close
	if err := e.Decode(&c); err != nil {
		return
	}
	through := -1
	for _, text := range []string{c.Folded, c.Lost} {
		var ids federated.Indices
		if ids.UnmarshalText([]byte(text)) == nil && len(ids) > 0 {
			through = max(through, ids[len(ids)-1])
		}
	}
	if r.ledger.ends(e.Run, through) {
		if err := r.note(KindClosed, closed{e.Run, through}); err != nil {
			return
		}
		r.forget(e.Run)
		r.sweep()
	}
	if c.Final > 0 {
		for _, leaf := range r.ledger.behind() {
			r.supply(leaf, e.Refs[c.Final-1:c.Final])
		}
	}
}

// supply fetches blobs and lets a leaf read them.
func (r *Relay) supply(leaf string, refs []transport.Ref) {
	for _, ref := range refs {
		if err := r.fetch(r.root, ref); err != nil {
			if r.root.Err() == nil {
				r.log.Warn("what a task needs cannot be fetched", "blob", ref.Hash.String()[:12], "error", err)
			}
			return // the leaf asks again
		}
		r.permits.Grant(leaf, blob.Hash(ref.Hash), time.Now().Add(grants))
	}
}

// fetch is one download for all who wait for it.
type fetch struct {
	done chan struct{}
	err  error
}

// maxFetches is how often a download is tried.
const maxFetches = 8

// fetch brings a blob into the store, once for all leaves.
func (r *Relay) fetch(ctx context.Context, ref transport.Ref) error {
	r.mu.Lock()
	f := r.fetching[ref.Hash]
	if f == nil {
		f = &fetch{done: make(chan struct{})}
		r.fetching[ref.Hash] = f
		r.mu.Unlock()
		f.err = r.download(ctx, ref)
		r.mu.Lock()
		delete(r.fetching, ref.Hash)
		r.mu.Unlock()
		close(f.done)
		return f.err
	}
	r.mu.Unlock()
	select {
	case <-f.done:
		return f.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (r *Relay) download(ctx context.Context, ref transport.Ref) (err error) {
	r.making.RLock()
	defer r.making.RUnlock()
	for n := range maxFetches {
		if err := r.online(ctx); err != nil {
			return err
		}
		if err = r.courier.Download(ctx, r.store, blob.Hash(ref.Hash)); err == nil || ctx.Err() != nil {
			return err
		}
		r.sleep(ctx, backoff(n))
	}
	return err
}
