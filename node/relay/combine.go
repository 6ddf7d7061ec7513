package relay

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/node/parcel"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/weights"
)

// phase is a phase of a run in which leaves of this relay have tasks, as long as it is at work on it.
type phase struct {
	key   phaseKey
	wake  chan struct{} // something has come
	last  time.Time     // when
	folds []federated.Fold
	alone bool // results are handed in one by one: a sum was refused, and the coordinator has not said for which of them
	lead  int  // which of a batch stands for it when the coordinator is asked for a permit
	stop  context.CancelFunc
}

// touch notes that a task or a result has come.
func (r *Relay) touch(k phaseKey) {
	p := r.kick(k)
	r.mu.Lock()
	p.last = time.Now()
	r.mu.Unlock()
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// kick begins, or goes on with, handing in the results of a phase.
func (r *Relay) kick(k phaseKey) *phase {
	r.mu.Lock()
	defer r.mu.Unlock()
	p := r.phases[k]
	if p == nil {
		ctx, cancel := context.WithCancel(r.root)
		p = &phase{key: k, wake: make(chan struct{}, 1), last: time.Now(), stop: cancel}
		r.phases[k] = p
		r.tasks.Go(func() {
			defer cancel()
			r.combine(ctx, p)
		})
	}
	return p
}

// forget ends what is done for the phases that are over.
func (r *Relay) forget(run string) {
	open := r.ledger.phases()
	r.mu.Lock()
	defer r.mu.Unlock()
	for k, p := range r.phases {
		if k.run == run && !open[k] {
			p.stop()
			delete(r.phases, k)
		}
	}
}

// combine hands in the results of one phase, sum after sum, until it is over.
func (r *Relay) combine(ctx context.Context, p *phase) {
	fails := 0
	for ctx.Err() == nil {
		batch := r.gathered(ctx, p)
		if len(batch) == 0 {
			continue
		}
		err := r.handIn(ctx, p, batch)
		if err == nil {
			fails = 0
			continue
		}
		if ctx.Err() != nil {
			return
		}
		fails++
		if fails == 1 || fails%20 == 0 {
			r.log.Warn("a sum cannot be handed in; trying again", "run", p.key.run, "round", p.key.round+1, "phase", p.key.step, "error", err)
		}
		r.sleep(ctx, backoff(fails))
	}
}

// most is how many results go into one sum.
func (p *phase) most() int {
	if p.alone {
		return 1
	}
	return parcel.MaxLeaves
}

// gathered waits for results and returns those to be handed in: when every leaf that has a task has answered, or when the first
// has waited for a while.
func (r *Relay) gathered(ctx context.Context, p *phase) []job {
	var since time.Time
	for {
		var batch []job
		waiting := false
		for _, x := range r.ledger.open(p.key) {
			switch {
			case x.have:
			case x.result == nil:
				waiting = true
			default:
				batch = append(batch, x)
			}
		}
		r.mu.Lock()
		quiet := time.Since(p.last)
		r.mu.Unlock()
		wait := time.Duration(1 << 62)
		if len(batch) > 0 {
			if since.IsZero() {
				since = time.Now()
			}
			wait = r.o.Linger - time.Since(since)
			if !waiting {
				wait = min(wait, r.o.Linger/gather-quiet)
			}
			if wait <= 0 {
				return batch[:min(len(batch), p.most())]
			}
		}
		timer := time.NewTimer(wait)
		select {
		case <-timer.C:
		case <-p.wake:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
		timer.Stop()
	}
}

// handIn adds results and brings the sum to the coordinator. Without an error it is known what became of them, or what is to be
// left out of the next try.
func (r *Relay) handIn(ctx context.Context, p *phase, batch []job) error {
	if err := r.online(ctx); err != nil {
		return err
	}
	if p.folds == nil {
		folds, err := r.layout(ctx, batch[0])
		if r.gone(p, batch[0], err) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("what to add: %w", err)
		}
		p.folds = folds
	}
	ref, msg, err := r.add(ctx, p, batch)
	if err != nil {
		return err
	}
	for n := 0; ; n++ {
		lead := batch[p.lead%len(batch)]
		granted, err := r.permit(ctx, lead, ref)
		if r.gone(p, lead, err) {
			return nil
		}
		if err != nil {
			p.lead++ // there are only so many sums for which one order may stand
			return fmt.Errorf("permit: %w", err)
		}
		if granted {
			break
		}
		r.sleep(ctx, backoff(n))
		if ctx.Err() != nil {
			return ctx.Err()
		}
	}
	if err := r.courier.Upload(ctx, r.store, blob.Hash(ref.Hash)); err != nil {
		return fmt.Errorf("sending the sum: %w", err)
	}
	reply, err := r.pass(ctx, msg)
	if err != nil {
		return err
	}
	return r.included(p, batch, reply)
}

// gone reports whether an error says that nobody waits for an order, or that its result has come another way, and takes it out.
func (r *Relay) gone(p *phase, x job, err error) bool {
	var f *transport.Failure
	if !errors.As(err, &f) {
		return false
	}
	s := settled{Run: p.key.run, Reason: f.Message}
	switch f.Code {
	case transport.CodeStale, transport.CodeUnknown, transport.CodeTask:
		s.Out = []int{x.order}
	case transport.CodeConflict:
		s.Have = []int{x.order}
	default:
		return false
	}
	return r.note(KindSettled, s) == nil
}

// layout asks what the results of a phase are added to.
func (r *Relay) layout(ctx context.Context, x job) ([]federated.Fold, error) {
	e, _, err := r.request(ctx, transport.Envelope{Run: x.run}, &transport.Layout{Order: x.order, Task: x.digest})
	if err != nil {
		return nil, err
	}
	var b transport.Folds
	if err := e.Decode(&b); err != nil {
		return nil, err
	}
	for _, ref := range e.Refs {
		if err := r.fetch(ctx, ref); err != nil {
			return nil, err
		}
	}
	list, err := parcel.Folds(ctx, r.store, &b, e.Refs)
	if err != nil {
		return nil, err
	}
	folds := []federated.Fold{}
	for _, f := range list {
		like := weights.NewSet(len(f.Like))
		for _, s := range f.Like {
			like.Put(s.Name, weights.Tensor{Shape: s.Shape}) // elements are not read, so that there need be none
		}
		folds = append(folds, federated.Fold{Name: f.Name, Like: like, Indexed: f.Indexed, Counts: f.Counts})
	}
	return folds, nil
}

// add makes the partial sum of a batch: its blob, and the message that hands it in.
func (r *Relay) add(ctx context.Context, p *phase, batch []job) (ref transport.Ref, msg []byte, err error) {
	c := federated.NewCombiner(federated.Phase{Name: p.key.step, Folds: p.folds})
	out := &parcel.Partial{}
	rec := sum{Run: p.key.run, Round: p.key.round, Step: p.key.step}
	for _, x := range batch {
		leaf := parcel.Leaf{Message: x.result}
		if leaf.Bytes, err = r.addOne(ctx, c, x); err != nil {
			var local *localError
			if errors.As(err, &local) || ctx.Err() != nil {
				return ref, nil, err
			}
			leaf.Refused = clip(err.Error())
		}
		out.Leaves = append(out.Leaves, leaf)
		rec.Orders, rec.Results = append(rec.Orders, x.order), append(rec.Results, x.kept)
	}
	out.Sums = c.Sums()
	r.making.RLock()
	defer r.making.RUnlock()
	if ref, err = parcel.StorePartial(ctx, r.store, out); err != nil {
		return ref, nil, err
	}
	text, err := federated.Indices(rec.Orders).MarshalText()
	if err != nil {
		return ref, nil, err
	}
	if msg, err = r.seal(transport.Envelope{Run: p.key.run, Round: p.key.round, Step: p.key.step, Refs: []transport.Ref{ref}},
		&transport.Partial{Sums: 1, Orders: string(text)}); err != nil {
		return ref, nil, err
	}
	rec.Ref = ref
	return ref, msg, r.note(KindSum, rec)
}

// localError is a fault of this machine: no leaf is blamed for it.
type localError struct{ error }

func (e *localError) Unwrap() error { return e.error }

// clip shortens a reason as the coordinator would.
func clip(reason string) string {
	const most = 500
	if r := []rune(reason); len(r) > most {
		reason = string(r[:most]) + "…"
	}
	return reason
}

// addOne adds one result and returns the bytes of its tensors. Its error is why the result is refused.
func (r *Relay) addOne(ctx context.Context, c *federated.Combiner, x job) (n int64, err error) {
	var task transport.Task
	var body transport.Result
	te, err := transport.Peek(x.task) // both were verified before they were kept
	if err == nil {
		err = te.Decode(&task)
	}
	if err != nil {
		return 0, &localError{err}
	}
	e, err := transport.Peek(x.result)
	if err == nil {
		err = e.Decode(&body)
	}
	if err != nil {
		return 0, &localError{err}
	}
	if body.Failed != "" || body.Abstained {
		return 0, nil
	}
	t := federated.Task{Group: task.Group}
	if t.Index, err = parcel.Index(ctx, r.store, task.Slice, te.Refs); err != nil {
		return 0, &localError{err}
	}
	for _, ref := range e.Refs { // what is damaged here is not the leaf's fault
		if err := r.intact(ctx, ref); err != nil {
			return 0, &localError{err}
		}
	}
	res := federated.Result{Weight: body.Weight, Scalars: body.Scalars, Addends: map[string]weights.Set{}}
	for _, in := range body.Addends {
		s, err := parcel.Set(ctx, r.store, in, e.Refs)
		if err != nil {
			return n, err
		}
		res.Addends[in.Name] = s
		n += s.Bytes()
	}
	if res.Cover, err = parcel.Index(ctx, r.store, body.Cover, e.Refs); err != nil {
		return n, err
	}
	if res.Attached, err = parcel.Attached(ctx, r.store, body.Attached, e.Refs); err != nil {
		return n, err
	}
	return n, c.Add(t, res)
}

// intact checks that a blob can be read.
func (r *Relay) intact(ctx context.Context, ref transport.Ref) error {
	m, err := blob.ReadManifest(ctx, r.store, blob.Hash(ref.Hash))
	if err != nil {
		return err
	}
	missing, err := blob.Missing(ctx, r.store, m)
	if err == nil && len(missing) > 0 {
		err = fmt.Errorf("%d chunks of blob %.12s… are gone", len(missing), ref.Hash)
	}
	return err
}

// permit asks whether the sum may be sent now.
func (r *Relay) permit(ctx context.Context, x job, ref transport.Ref) (bool, error) {
	e, _, err := r.request(ctx, transport.Envelope{Run: x.run}, &transport.Ask{Order: x.order, Task: x.digest, Blobs: []transport.Ref{ref}})
	if err != nil {
		return false, err
	}
	var p transport.Permit
	err = e.Decode(&p)
	return p.Granted, err
}

// passing reports whether what is refused with a code may be accepted later.
func passing(c transport.Code) bool {
	switch c {
	case transport.CodeBlob, transport.CodeBusy, transport.CodeFull, transport.CodeInternal, transport.CodePaused:
		return true
	}
	return false
}

// included takes in what the coordinator says of a sum.
func (r *Relay) included(p *phase, batch []job, reply []byte) error {
	e, err := transport.Open(r.fed, reply)
	if err != nil {
		return err
	}
	if e.Kind == transport.KindError {
		var f transport.Failure
		if err := e.Decode(&f); err != nil {
			return err
		}
		return &f
	}
	var in transport.Inclusion
	if err := e.Decode(&in); err != nil {
		return err
	}
	s := settled{Run: p.key.run, Reason: in.Reason}
	switch {
	case in.Outcome == transport.Accepted || in.Outcome == transport.Duplicate:
		for _, x := range batch {
			s.Have = append(s.Have, x.order)
		}
	case in.Counted != "" || in.Out != "":
		var counted, out federated.Indices
		if err := errors.Join(counted.UnmarshalText([]byte(in.Counted)), out.UnmarshalText([]byte(in.Out))); err != nil {
			return err
		}
		for _, x := range batch {
			if slices.Contains(counted, x.order) {
				s.Have = append(s.Have, x.order)
			} else if slices.Contains(out, x.order) {
				s.Out = append(s.Out, x.order)
			}
		}
		if len(s.Have)+len(s.Out) == 0 {
			return fmt.Errorf("the coordinator refuses a sum for orders that are not in it: %s, %s", in.Counted, in.Out)
		}
	case passing(in.Code):
		return fmt.Errorf("refused: %s (%s)", in.Reason, in.Code)
	case len(batch) > 1: // whosever fault it is, the others' results are not to wait for it
		p.alone = true
		return fmt.Errorf("refused, and now tried one by one: %s (%s)", in.Reason, in.Code)
	default:
		r.log.Warn("a result is refused", "run", p.key.run, "round", p.key.round+1, "phase", p.key.step, "member", batch[0].leaf, "code", in.Code, "reason", in.Reason)
		s.Out = []int{batch[0].order}
	}
	if err := r.note(KindSettled, s); err != nil {
		return err
	}
	r.sweep()
	return nil
}
