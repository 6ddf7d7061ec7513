package coordinator

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/node/parcel"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/transport"
)

// permitLife is how long a permit lasts: a minute, and what the bytes take at 64 KiB a second.
func permitLife(bytes int64) time.Duration {
	return time.Minute + time.Duration(bytes>>16)*time.Second
}

// ask answers a member's request to upload the blobs of a result, now or when there is room.
func (r *Run) ask(from string, body *transport.Ask, reply func(transport.Body)) {
	x, refused := r.claim(from, body.Order, body.Task)
	if refused != nil {
		reply(refused)
		return
	}
	var total int64
	for _, b := range body.Blobs {
		total += b.Bytes
	}
	limit := r.limit
	if x.Member.Name != from {
		limit = sumLimit(x)
	}
	if total > limit {
		reason := fmt.Sprintf("a result of %d bytes; at most %d are expected", total, limit)
		r.refuse(from, x, transport.Digest{}, transport.CodeResult, reason)
		reply(&transport.Failure{Code: transport.CodeResult, Message: reason})
		return
	}
	life := permitLife(total)
	d := r.desk
	d.mu.Lock()
	defer d.mu.Unlock()
	if wrong := d.claimBlobs(x, body.Blobs); wrong != "" {
		code := transport.CodeConflict
		if x.state == open && x.Member.Name != from { // a relay may let the sum stand by another of the orders inside
			code = transport.CodeFull
		}
		go reply(&transport.Failure{Code: code, Message: wrong})
		return
	}
	if x.state != open { // a result has come already, and its verdict was lost
		r.srv.o.Access.Upload(from, body.Blobs, life)
		go reply(&transport.Permit{Granted: true, Expires: life})
		return
	}
	d.permits.request(ask{order: x.ID, life: life, grant: func(ok bool) {
		if ok {
			r.srv.o.Access.Upload(from, body.Blobs, life)
		}
		// Called with the desk locked.
		go reply(&transport.Permit{Granted: ok, Retry: time.Second, Expires: life})
	}}, d.unfolded())
}

// sumLimit is how large a relay's sum of an order's phase may be: 16 bytes a coordinate and 8 for its count, in a few groups, and
// the messages of the results inside.
func sumLimit(x *order) (n int64) {
	const groups = 4
	for _, f := range x.Folds {
		for name, t := range f.Like.All() {
			n += 24*int64(t.Len()) + int64(len(name)) + 128
		}
	}
	return groups*n + parcel.MaxLeaves*(transport.MaxMessage+8<<10)
}

// maxChanges is how often a member may change its mind about which blobs its result of an order has: a program that is brought
// along may come to other bits when it computes again. Without a bound, one order would let a member fill the disk.
const maxChanges = 8

// claimBlobs notes which blobs a result will have, and keeps them from being deleted. It returns why it may not have them. The
// caller holds the lock.
func (d *desk) claimBlobs(x *order, blobs []transport.Ref) (wrong string) {
	if x.asked && slices.Equal(x.blobs, blobs) {
		return ""
	}
	switch {
	case x.state != open:
		return "another result was accepted for this task"
	case x.changes >= maxChanges:
		return fmt.Sprintf("the result of this task has been other blobs %d times", x.changes)
	}
	if x.asked {
		x.changes++
		d.out.withdraw(x.Member.Name, x.blobs)
		d.pins.release(x.blobs)
	}
	x.asked, x.held, x.blobs = true, true, slices.Clone(blobs)
	d.pins.add(blobs)
	return ""
}

// over is what is said of tasks that nobody waits for.
const over = "the phase of this task is over"

// claim finds the open order that a member speaks of; refused says why it may not.
func (r *Run) claim(from string, id int, task transport.Digest) (x *order, refused *transport.Failure) {
	if r.foreign(from, id) {
		return nil, &transport.Failure{Code: transport.CodeStale, Message: over}
	}
	x, past := r.desk.find(id)
	if x == nil && r.desk.coming(id) {
		if _, over := r.keeper.closes.of(id); !over {
			return nil, &transport.Failure{Code: transport.CodeBusy, Message: "the coordinator was started again, and is not as far as this task yet: ask again"}
		}
	}
	switch {
	case x == nil && past:
		return nil, &transport.Failure{Code: transport.CodeStale, Message: over}
	case x == nil || !r.mayAnswer(from, x):
		return nil, &transport.Failure{Code: transport.CodeUnknown, Message: "there is no such task"}
	}
	if err := r.desk.make(context.Background(), x); err != nil {
		return nil, &transport.Failure{Code: transport.CodeInternal, Message: "the task cannot be made: " + err.Error()}
	}
	if task != x.digest {
		return nil, &transport.Failure{Code: transport.CodeTask, Message: "this answers another task than that of the order"}
	}
	return x, nil
}

// result takes in a member's result: it is accepted when its record is durable.
func (r *Run) result(from string, e transport.Envelope, body *transport.Result, msg []byte, reply func(transport.Body)) {
	digest := transport.DigestOf(msg)
	verdict := func(o transport.Outcome, code transport.Code, reason string) {
		r.srv.counters.verdict(o)
		reply(&transport.Verdict{Order: body.Order, Outcome: o, Code: code, Reason: reason})
	}
	if rec, ok := r.desk.awaits(body.Order); ok && rec.Member == from { // accepted, and its order is not here again yet
		if rec.Message == digest {
			verdict(transport.Duplicate, "", "")
			return
		}
		why := "another result was accepted for this task"
		r.refuse(from, nil, digest, transport.CodeConflict, why)
		verdict(transport.Refused, transport.CodeConflict, why)
		return
	}
	x, refused := r.claim(from, body.Order, body.Task)
	if refused != nil {
		if refused.Code == transport.CodeBusy {
			verdict(transport.Refused, refused.Code, refused.Message)
			return
		}
		if refused.Code == transport.CodeStale {
			if !r.foreign(from, body.Order) && r.counted(body.Order, digest) {
				verdict(transport.Duplicate, "", "")
			} else {
				verdict(transport.Late, refused.Code, refused.Message)
			}
			return
		}
		r.refuse(from, nil, digest, refused.Code, refused.Message)
		verdict(transport.Refused, refused.Code, refused.Message)
		return
	}
	if x.Member.Name != from { // a relay hands in sums only
		why := "there is no such task of this member"
		r.refuse(from, nil, digest, transport.CodeUnknown, why)
		verdict(transport.Refused, transport.CodeUnknown, why)
		return
	}
	d := r.desk
	d.mu.Lock()
	switch {
	case x.dropped || x.state >= acceptedState && x.result == nil:
		d.mu.Unlock()
		verdict(transport.Late, transport.CodeStale, "the result comes too late")
		return
	case x.state != open && x.pending != digest:
		d.mu.Unlock()
		why := "another result was accepted for this task"
		r.refuse(from, x, digest, transport.CodeConflict, why)
		verdict(transport.Refused, transport.CodeConflict, why)
		return
	case x.state == pendingState:
		x.waiters = append(x.waiters, func(v transport.Verdict) { reply(&v) })
		d.mu.Unlock()
		return
	case x.state != open:
		d.mu.Unlock()
		verdict(transport.Duplicate, "", "")
		return
	}
	x.state, x.pending = pendingState, digest
	d.mu.Unlock()

	if code, err := r.examine(e, x); err != nil {
		r.reopen(x)
		r.refuse(from, x, digest, code, err.Error())
		verdict(transport.Refused, code, err.Error())
		return
	}
	rec := &received{Order: x.ID, Member: from, Round: x.Round, Phase: x.Phase, Base: x.Base, Message: digest, Refs: e.Refs,
		Kernels: body.Kernels, Memory: body.Memory, Clock: d.Now()}
	if len(msg) <= smallResult {
		rec.body = body
	}
	r.appender.addResult(rec, msg, func(jr journal.Record, err error) {
		if err != nil {
			r.reopen(x)
			verdict(transport.Refused, transport.CodeFull, "the result cannot be recorded: "+err.Error())
			return
		}
		d.mu.Lock()
		d.accept(x, rec, jr.Seq)
		waiters := x.waiters
		x.waiters = nil
		d.mu.Unlock()
		r.srv.counters.verdict(transport.Accepted)
		r.acks.hold(x.ID, r.asked.Load(), func() { reply(&transport.Verdict{Order: x.ID, Outcome: transport.Accepted}) })
		for _, w := range waiters {
			r.srv.counters.verdict(transport.Duplicate)
			w(transport.Verdict{Order: x.ID, Outcome: transport.Duplicate})
		}
	})
}

// reopen makes an order open again whose result was not accepted.
func (r *Run) reopen(x *order) {
	d := r.desk
	d.mu.Lock()
	defer d.mu.Unlock()
	if x.state != pendingState {
		return
	}
	x.state, x.pending = open, transport.Digest{}
	waiters := x.waiters
	x.waiters = nil
	for _, w := range waiters {
		go w(transport.Verdict{Order: x.ID, Outcome: transport.Refused, Code: transport.CodeFull, Reason: "try again"})
	}
	if why, ok := d.gone[x.Member.Name]; ok {
		d.fail(x, fmt.Errorf("%s", why))
	}
}

// counted reports whether the result of an order that is not at the desk any more counts.
func (r *Run) counted(order int, message transport.Digest) bool {
	if m, ok := r.desk.settles(order); ok {
		return m == message
	}
	c, ok := r.keeper.closes.of(order)
	return ok && has(c.Orders, order)
}

// examine checks that a result is of its task, and that all its blobs are here, whole, and of the declared sizes.
func (r *Run) examine(e transport.Envelope, x *order) (transport.Code, error) {
	if e.Round != x.Round || e.Step != x.Phase {
		return transport.CodeTask, fmt.Errorf("it says that it is of round %d, %q; the task is of round %d, %q", e.Round, e.Step, x.Round, x.Phase)
	}
	for _, ref := range e.Refs {
		if !r.askedFor(x, ref) {
			return transport.CodeBlob, fmt.Errorf("blob %.12s… was not asked for", ref.Hash)
		}
		if code, err := r.whole(x.Member.Name, ref); err != nil {
			return code, err
		}
	}
	return "", nil
}

// whole checks that a blob was uploaded by a member, is here, and of the declared size.
func (r *Run) whole(member string, ref transport.Ref) (transport.Code, error) {
	ctx := context.Background()
	if !r.srv.o.Access.Uploaded(member, ref) {
		return transport.CodeBlob, fmt.Errorf("blob %.12s… has not been uploaded whole", ref.Hash)
	}
	m, err := blob.ReadManifest(ctx, r.desk.store, blob.Hash(ref.Hash))
	if err != nil {
		return transport.CodeBlob, fmt.Errorf("blob %.12s…: %w", ref.Hash, err)
	}
	if m.Bytes != ref.Bytes {
		return transport.CodeBlob, fmt.Errorf("blob %.12s… has %d bytes, %d were declared", ref.Hash, m.Bytes, ref.Bytes)
	}
	missing, err := blob.Missing(ctx, r.desk.store, m)
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("%d of its %d chunks have not been uploaded", len(missing), len(m.Chunks))
	}
	if err != nil {
		return transport.CodeBlob, fmt.Errorf("blob %.12s…: %w", ref.Hash, err)
	}
	return "", nil
}

func (r *Run) askedFor(x *order, ref transport.Ref) bool {
	r.desk.mu.Lock()
	defer r.desk.mu.Unlock()
	return slices.ContainsFunc(x.blobs, func(b transport.Ref) bool { return b.Hash == ref.Hash })
}

// refuse records a result that was not accepted. So many are recorded and no more: a member cannot fill the disk by lying.
func (r *Run) refuse(from string, x *order, digest transport.Digest, code transport.Code, reason string) {
	r.srv.counters.refuse(code)
	if many, ok := r.srv.counters.worth(from, code); ok {
		r.log.Warn("a result was refused"+many, "member", from, "code", code, "reason", reason)
	}
	if r.refusals.Add(1) > maxRefusals {
		return
	}
	id := -1
	if x != nil {
		id = x.ID
	}
	r.appender.add(KindRefused, refusal{Order: id, Member: from, Code: code, Reason: reason, Digest: digest,
		Events: []record.Event{{Level: record.Warn, Client: from, Message: "refused: " + reason, Round: r.roundNow()}}},
		func(journal.Record, error) { r.moved() })
}

// maxRefusals is how many refusals of a run are recorded.
const maxRefusals = 10000

// verify checks who signed a message and that it is from the member whose connection it came over.
func verify(key identity.Public, from, fed string, msg []byte) (transport.Envelope, *transport.Failure) {
	e, err := transport.Open(key, msg)
	switch {
	case err != nil:
		return e, &transport.Failure{Code: codeOf(err), Message: err.Error()}
	case e.From != from || e.To != "":
		return e, &transport.Failure{Code: transport.CodeSender, Message: fmt.Sprintf("the message is from %q to %q, the connection is %s's", e.From, e.To, from)}
	case e.Fed != fed:
		return e, &transport.Failure{Code: transport.CodeUnknown, Message: "the message is for another federation"}
	}
	return e, nil
}
