package relay

import (
	"context"
	"fmt"
	"time"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/transport"
)

// take answers a message of a leaf: what concerns a result here, everything else by the coordinator.
func (r *Relay) take(req transport.Request) {
	r.mu.Lock()
	busy := r.inLine[req.From] >= relayed || r.root.Err() != nil
	if !busy {
		r.inLine[req.From]++
	}
	r.mu.Unlock()
	if busy {
		r.answer(req, transport.Envelope{}, &transport.Failure{Code: transport.CodeBusy, Message: "too many requests at once: ask again later"})
		return
	}
	r.tasks.Go(func() {
		defer func() {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.inLine[req.From]--; r.inLine[req.From] <= 0 {
				delete(r.inLine, req.From)
			}
		}()
		r.handle(r.root, req)
	})
}

// answer signs an answer of the relay's own.
func (r *Relay) answer(req transport.Request, e transport.Envelope, body transport.Body) {
	e.To = req.From
	msg, err := r.seal(transport.Envelope{Run: e.Run, Round: e.Round, Step: e.Step, To: req.From}, body)
	if err != nil {
		r.log.Error("a message cannot be sent", "kind", body.Kind(), "error", err)
		return
	}
	req.Reply(msg)
}

func (r *Relay) handle(ctx context.Context, req transport.Request) {
	e, err := transport.Peek(req.Msg)
	if err == nil && e.From == req.From && (e.Kind == transport.KindAsk || e.Kind == transport.KindResult) {
		r.handleResult(ctx, req)
		return
	}
	if err == nil && e.Kind == transport.KindProgress {
		r.mu.Lock()
		link := r.link
		r.mu.Unlock()
		if link != nil {
			_ = link.Send(req.Msg) // it may be lost
		}
		return
	}
	r.forward(ctx, req)
}

// forward passes a request on, and the coordinator's answer back, after what it tells has been taken in.
func (r *Relay) forward(ctx context.Context, req transport.Request) {
	reply, err := r.pass(ctx, req.Msg)
	if err != nil {
		if ctx.Err() == nil {
			r.answer(req, transport.Envelope{}, &transport.Failure{Code: transport.CodeBusy, Message: "the relay cannot reach the coordinator at the moment"})
		}
		return
	}
	if e, err := transport.Open(r.fed, reply); err == nil {
		r.learn(e, reply)
	}
	req.Reply(reply)
}

// handleResult answers a leaf that has a result.
func (r *Relay) handleResult(ctx context.Context, req transport.Request) {
	refuse := func(code transport.Code, format string, args ...any) {
		r.answer(req, transport.Envelope{}, &transport.Failure{Code: code, Message: fmt.Sprintf(format, args...)})
	}
	leafKey, ok := r.ledger.keyOf(req.From)
	if !ok {
		refuse(transport.CodeBusy, "the coordinator has not delegated %s to this relay", req.From)
		return
	}
	e, err := transport.Open(leafKey, req.Msg)
	if err != nil || e.Fed != r.fed.String() || e.To != "" {
		refuse(transport.CodeMalformed, "not a message of %s to its coordinator", req.From)
		return
	}
	switch e.Kind {
	case transport.KindAsk:
		var b transport.Ask
		if err := e.Decode(&b); err != nil {
			refuse(transport.CodeMalformed, "%v", err)
			return
		}
		if x, ok := r.jobOf(ctx, req, e, b.Order, b.Task, refuse); ok {
			r.ask(req, x, &b, refuse)
		}
	case transport.KindResult:
		var b transport.Result
		if err := e.Decode(&b); err != nil {
			refuse(transport.CodeMalformed, "%v", err)
			return
		}
		if x, ok := r.jobOf(ctx, req, e, b.Order, b.Task, refuse); ok {
			r.result(ctx, req, e, x, &b, refuse)
		}
	}
}

type refusing func(code transport.Code, format string, args ...any)

// jobOf finds the order that a leaf speaks of. What is not known here is passed on: the coordinator knows whether it is over. An
// order that is open and was not passed on by this relay, as when its folder was lost or the leaf came from elsewhere, is asked
// for.
func (r *Relay) jobOf(ctx context.Context, req transport.Request, e transport.Envelope, order int, task transport.Digest, refuse refusing) (job, bool) {
	x, known, over := r.ledger.find(e.Run, order)
	switch {
	case over:
		r.forward(ctx, req)
		return x, false
	case !known:
		_, _, err := r.request(ctx, transport.Envelope{Run: e.Run}, &transport.Layout{Order: order, Task: task, Again: true})
		if f, ok := err.(*transport.Failure); ok {
			refuse(f.Code, "%s", f.Message)
			return x, false
		}
		refuse(transport.CodeBusy, "this relay asks for the task of order %d: once more, later", order)
		return x, false
	case x.leaf != req.From:
		refuse(transport.CodeUnknown, "there is no such task")
		return x, false
	case x.digest != task:
		refuse(transport.CodeTask, "this answers another task than that of the order")
		return x, false
	}
	return x, true
}

// limit is how large a result may be: four times what the task brings, and some.
func (r *Relay) limit(x job) (n int64) {
	e, err := transport.Peek(x.task)
	if err != nil {
		return 0
	}
	for _, ref := range e.Refs {
		n += ref.Bytes
	}
	return 4*n + 16<<20
}

// ask permits a leaf to upload the blobs of a result.
func (r *Relay) ask(req transport.Request, x job, b *transport.Ask, refuse refusing) {
	var total int64
	for _, ref := range b.Blobs {
		total += ref.Bytes
	}
	if most := r.limit(x); total > most {
		refuse(transport.CodeResult, "a result of %d bytes; at most %d are expected", total, most)
		return
	}
	life := time.Minute + time.Duration(total>>16)*time.Second
	for _, ref := range b.Blobs {
		r.permits.Issue(req.From, blob.Hash(ref.Hash), ref.Bytes, time.Now().Add(life))
	}
	r.answer(req, transport.Envelope{Run: x.run}, &transport.Permit{Granted: true, Expires: life})
}

// result keeps a leaf's result and answers with a receipt; or, if the coordinator has it, with the coordinator's verdict.
func (r *Relay) result(ctx context.Context, req transport.Request, e transport.Envelope, x job, b *transport.Result, refuse refusing) {
	digest := transport.DigestOf(req.Msg)
	receipt := func() {
		r.answer(req, transport.Envelope{Run: x.run, Round: e.Round, Step: e.Step}, &transport.Receipt{Order: x.order, Result: digest})
	}
	switch {
	case x.result != nil && x.kept != digest:
		refuse(transport.CodeConflict, "another result was accepted for this task")
		return
	case x.have:
		r.forward(ctx, req)
		return
	case x.result != nil:
		receipt()
		return
	case e.Round != x.phase.round || e.Step != x.phase.step:
		refuse(transport.CodeTask, "it says that it is of round %d, %q; the task is of round %d, %q", e.Round, e.Step, x.phase.round, x.phase.step)
		return
	}
	r.making.RLock() // the record is what keeps the blobs
	err := r.here(ctx, req.From, e.Refs)
	if err == nil {
		if err = r.note(KindKept, kept{x.run, x.order, string(req.Msg)}); err != nil {
			r.making.RUnlock()
			return
		}
	}
	r.making.RUnlock()
	if err != nil {
		refuse(transport.CodeBlob, "%v", err)
		return
	}
	for _, ref := range e.Refs {
		r.permits.Revoke(req.From, blob.Hash(ref.Hash)) // it keeps nothing but the upload
	}
	receipt()
	r.touch(x.phase)
}

// here checks that a leaf has uploaded the blobs of its result, whole and of the declared sizes.
func (r *Relay) here(ctx context.Context, leaf string, refs []transport.Ref) error {
	for _, ref := range refs {
		if !r.permits.Uploaded(leaf, blob.Hash(ref.Hash)) {
			return fmt.Errorf("blob %.12s… has not been uploaded whole", ref.Hash)
		}
		m, err := blob.ReadManifest(ctx, r.store, blob.Hash(ref.Hash))
		if err != nil {
			return fmt.Errorf("blob %.12s…: %w", ref.Hash, err)
		}
		if m.Bytes != ref.Bytes {
			return fmt.Errorf("blob %.12s… has %d bytes, %d were declared", ref.Hash, m.Bytes, ref.Bytes)
		}
	}
	return nil
}
