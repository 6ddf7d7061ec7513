package coordinator

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/node/parcel"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/weights"
)

// bundle is several orders whose results came as one partial sum.
type bundle struct {
	*combined
	seq    uint64
	orders []*order // the first has the blob
}

// partial takes in a relay's partial sum: the results inside are accepted when its record is durable.
func (r *Run) partial(from string, e transport.Envelope, body *transport.Partial, msg []byte, reply func(transport.Body)) {
	refuse := func(code transport.Code, err error) {
		r.refuse(from, nil, transport.DigestOf(msg), code, err.Error())
		r.srv.counters.verdict(transport.Refused)
		reply(&transport.Inclusion{Outcome: transport.Refused, Code: code, Reason: err.Error()})
	}
	ref := e.Refs[body.Sums-1]
	if code, err := r.whole(from, ref); err != nil {
		if code == transport.CodeBlob { // it uploads again
			reply(&transport.Inclusion{Outcome: transport.Refused, Code: code, Reason: err.Error()})
			return
		}
		refuse(code, err)
		return
	}
	p, err := parcel.ReadPartial(context.Background(), r.desk.store, ref)
	if err != nil {
		refuse(transport.CodeResult, err)
		return
	}
	b, out, code, err := r.checkPartial(from, e, p)
	if err == nil && body.Orders != orderText(b, out) {
		code, err = transport.CodeMalformed, fmt.Errorf("it says that orders %s are inside, not %s", body.Orders, orderText(b, out))
	}
	if err != nil && code == transport.CodeBusy {
		reply(&transport.Inclusion{Outcome: transport.Refused, Code: code, Reason: err.Error()})
		return
	}
	if err != nil {
		refuse(code, err)
		return
	}
	b.Relay, b.Round, b.Phase, b.Message, b.Ref, b.Clock = from, e.Round, e.Step, transport.DigestOf(msg), ref, r.desk.Now()
	if answer := r.desk.admit(b, ref, out); answer != nil {
		reply(answer)
		return
	}
	r.delegated(from)
	r.appender.addPartial(b.combined, func(seq uint64, err error) {
		if err != nil {
			for _, x := range b.orders {
				r.reopen(x)
			}
			reply(&transport.Inclusion{Outcome: transport.Refused, Code: transport.CodeFull, Reason: "the sum cannot be recorded: " + err.Error()})
			return
		}
		b.seq = seq
		for range b.orders {
			r.srv.counters.verdict(transport.Accepted)
		}
		r.desk.acceptBundle(b)
		reply(&transport.Inclusion{Outcome: transport.Accepted})
	})
}

// checkPartial checks each result that a relay says is in its sum as if its member had sent it. Orders that are over are
// returned apart; whatever cannot have come from an honest relay is an error that names it.
func (r *Run) checkPartial(from string, e transport.Envelope, p *parcel.Partial) (b *bundle, out []int, code transport.Code, err error) {
	b = &bundle{combined: &combined{}}
	seen := map[int]bool{}
	for _, l := range p.Leaves {
		peeked, err := transport.Peek(l.Message)
		if err != nil {
			return nil, nil, codeOf(err), err
		}
		leaf := peeked.From
		if relay, ok := r.srv.o.Relays.Behind(leaf); !ok || relay != from {
			return nil, nil, transport.CodeSender, fmt.Errorf("%.64q is not among those behind %s", leaf, from)
		}
		m, _ := r.srv.o.Roster.ByName(leaf)
		le, wrong := verify(m.Key, leaf, r.srv.fed, l.Message)
		if wrong != nil {
			return nil, nil, wrong.Code, fmt.Errorf("result of %s: %s", leaf, wrong.Message)
		}
		var res transport.Result
		if err := le.Decode(&res); err != nil {
			return nil, nil, codeOf(err), fmt.Errorf("result of %s: %w", leaf, err)
		}
		if le.Run != r.spec.ID || le.Round != e.Round || le.Step != e.Step {
			return nil, nil, transport.CodeTask, fmt.Errorf("the result of %s is of %q, round %d, %q; the sum is of %q, round %d, %q",
				leaf, le.Run, le.Round, le.Step, r.spec.ID, e.Round, e.Step)
		}
		if seen[res.Order] {
			return nil, nil, transport.CodeConflict, fmt.Errorf("the result of order %d (%s) is in it twice", res.Order, leaf)
		}
		seen[res.Order] = true
		if l.Bytes > r.limit {
			return nil, nil, transport.CodeResult, fmt.Errorf("the result of %s is said to have %d bytes; at most %d are expected", leaf, l.Bytes, r.limit)
		}
		x, refused := r.claim(leaf, res.Order, res.Task)
		switch {
		case refused != nil && refused.Code == transport.CodeStale:
			out = append(out, res.Order)
			continue
		case refused != nil:
			return nil, nil, refused.Code, fmt.Errorf("order %d of %s: %s", res.Order, leaf, refused.Message)
		case x.Round != e.Round || x.Phase != e.Step:
			return nil, nil, transport.CodeTask, fmt.Errorf("order %d of %s is of round %d, %q", res.Order, leaf, x.Round, x.Phase)
		}
		b.Base = x.Base
		b.orders = append(b.orders, x)
		b.Leaves = append(b.Leaves, included{Order: x.ID, Member: leaf, Message: transport.DigestOf(l.Message), Kernels: res.Kernels, Memory: res.Memory})
	}
	if len(seen) == 0 {
		return nil, nil, transport.CodeMalformed, fmt.Errorf("nobody's result is in it")
	}
	return b, out, "", nil
}

// orderText writes the orders of a bundle and others as ranges.
func orderText(b *bundle, more []int) string {
	ids := federated.Indices(slices.Clone(more))
	for _, x := range b.orders {
		ids = append(ids, x.ID)
	}
	return rangesOf(ids)
}

func rangesOf(ids federated.Indices) string {
	slices.Sort(ids)
	text, _ := ids.MarshalText() // cannot fail
	return string(text)
}

// admit makes the orders of a bundle pending. It returns the answer if they are not all open: which of them have been counted
// already, and which are not waited for.
func (d *desk) admit(b *bundle, ref transport.Ref, out federated.Indices) *transport.Inclusion {
	d.mu.Lock()
	defer d.mu.Unlock()
	var counted federated.Indices
	busy, lead := false, -1
	for i, x := range b.orders {
		same := x.pending == b.Leaves[i].Message
		switch {
		case x.state == open && !x.dropped:
			if slices.ContainsFunc(x.blobs, func(r transport.Ref) bool { return r.Hash == ref.Hash }) && lead < 0 {
				lead = i
			}
		case x.state == pendingState && same:
			busy = true
		case !x.dropped && same && x.result != nil:
			counted = append(counted, x.ID)
		default:
			out = append(out, x.ID)
		}
	}
	switch {
	case len(counted) == len(b.orders) && len(out) == 0:
		return &transport.Inclusion{Outcome: transport.Duplicate}
	case len(counted)+len(out) > 0:
		return &transport.Inclusion{Outcome: transport.Refused, Code: transport.CodeConflict, Reason: "some of its results are not waited for any more",
			Counted: rangesOf(counted), Out: rangesOf(out)}
	case busy:
		return &transport.Inclusion{Outcome: transport.Refused, Code: transport.CodeBusy, Reason: "it is being recorded"}
	case lead < 0:
		return &transport.Inclusion{Outcome: transport.Refused, Code: transport.CodeBlob, Reason: "the blob was not asked for"}
	}
	for i, x := range b.orders {
		x.state, x.pending = pendingState, b.Leaves[i].Message
	}
	b.orders[0], b.orders[lead] = b.orders[lead], b.orders[0]
	b.Leaves[0], b.Leaves[lead] = b.Leaves[lead], b.Leaves[0]
	return nil
}

// acceptBundle makes a bundle available to the driver, as one answer.
func (d *desk) acceptBundle(b *bundle) {
	d.mu.Lock()
	var waiters []func(transport.Verdict)
	verdicts := []int{}
	for i, x := range b.orders {
		x.bundle = b
		for _, w := range x.waiters {
			waiters, verdicts = append(waiters, w), append(verdicts, x.ID)
		}
		x.waiters = nil
		rec := &received{Order: x.ID, Member: x.Member.Name, Message: b.Leaves[i].Message}
		if i == 0 {
			rec.Refs = []transport.Ref{b.Ref}
			continue // the last, for it wakes the driver
		}
		x.state, x.result, x.took = acceptedState, rec, time.Since(x.issued)
		if x.overdue != nil {
			x.overdue.Stop()
		}
		d.permits.drop(x.ID)
	}
	lead := b.orders[0]
	d.accept(lead, &received{Order: lead.ID, Member: lead.Member.Name, Message: b.Leaves[0].Message, Refs: []transport.Ref{b.Ref}}, b.seq)
	d.mu.Unlock()
	for i, w := range waiters {
		w(transport.Verdict{Order: verdicts[i], Outcome: transport.Duplicate})
	}
}

// unbundle reads the answer to the orders of a bundle.
func (d *desk) unbundle(ctx context.Context, b *bundle) *federated.Answer {
	a := &federated.Answer{Order: b.orders[0].Order, Partial: &federated.Partial{}}
	p, err := parcel.ReadPartial(ctx, d.store, b.Ref)
	byOrder := map[int]*order{}
	for _, x := range b.orders {
		byOrder[x.ID] = x
	}
	if err == nil {
		a.Partial.Sums = p.Sums
		for _, l := range p.Leaves {
			part, x, wrong := d.part(l, byOrder)
			if wrong != nil {
				err = wrong
				break
			}
			delete(byOrder, x.ID)
			a.Partial.Parts = append(a.Partial.Parts, part)
		}
	}
	if err == nil {
		return a
	}
	a.Partial = &federated.Partial{Sums: map[string]map[string]*weights.Acc{}}
	for _, x := range b.orders {
		t, _ := x.Make() // it was made before
		a.Partial.Parts = append(a.Partial.Parts, federated.Part{Order: x.Order, Task: t, Err: fmt.Errorf("the sum that it is part of: %w", err)})
	}
	return a
}

// part reads what became of one order of a bundle.
func (d *desk) part(l parcel.Leaf, byOrder map[int]*order) (p federated.Part, x *order, err error) {
	e, err := transport.Peek(l.Message) // it was verified before it was accepted
	var body transport.Result
	if err == nil {
		err = e.Decode(&body)
	}
	if err != nil {
		return p, nil, err
	}
	if x = byOrder[body.Order]; x == nil {
		return p, nil, fmt.Errorf("order %d is in it, and was not when it was recorded", body.Order)
	}
	p = federated.Part{Order: x.Order, Bytes: l.Bytes, Result: federated.Result{Weight: body.Weight, Scalars: body.Scalars}}
	if p.Task, err = x.Make(); err != nil {
		return p, nil, err
	}
	switch {
	case body.Failed != "":
		p.Err = fmt.Errorf("%s", body.Failed)
	case body.Abstained:
		p.Result.Status = federated.Abstained
	case l.Refused != "":
		p.Err = fmt.Errorf("refused: %s", l.Refused)
	}
	return p, x, nil
}

// issueRecorded puts an order at its place in a bundle that was accepted before the coordinator was restarted. The bundle is
// accepted when it is whole. The caller holds the lock, and calls acceptBundle without it if that is returned.
func (d *desk) issueRecorded(x *order) (whole *bundle, ok bool) {
	b := d.bundles[x.ID]
	if b == nil {
		return nil, false
	}
	delete(d.bundles, x.ID)
	missing := false
	for i, l := range b.Leaves {
		if l.Order == x.ID {
			b.orders[i] = x
			x.state, x.pending = pendingState, l.Message
			if i == 0 {
				x.blobs, x.asked, x.held = []transport.Ref{b.Ref}, true, true
			}
		}
		missing = missing || b.orders[i] == nil
	}
	if missing {
		return nil, true
	}
	return b, true
}

// restoreBundles takes up partial sums that were accepted before the coordinator was restarted.
func (k *keeper) restoreBundles(p *past) {
	d := k.r.desk
	for _, b := range p.bundles {
		d.pins.add([]transport.Ref{b.Ref})
		b.orders = make([]*order, len(b.Leaves))
		for _, l := range b.Leaves {
			d.bundles[l.Order] = b
			d.highest = max(d.highest, l.Order)
		}
	}
}

// settleBundle takes out of what is to come a partial sum that is inside the checkpoint of the sums.
func (d *desk) settleBundle(order int) {
	b := d.bundles[order]
	if b == nil {
		return
	}
	for _, l := range b.Leaves {
		d.settled[l.Order] = l.Message
	}
	maps.DeleteFunc(d.bundles, func(_ int, x *bundle) bool { return x == b })
	d.pins.release([]transport.Ref{b.Ref})
}
