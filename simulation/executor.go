package simulation

import (
	"context"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/weights"
)

// Executor is a place where the work of members is done: this process, or a machine that was lent to the run. What is
// computed must not depend on the place.
type Executor interface {
	// Perform carries out an order as [federated.Perform] does, for a member that kept keep. As many goroutines as the place
	// has slots call it at once. An error says that the place can do no more work: the order goes to another place. That a
	// member failed is an error of the answer. When ctx is done nobody waits for the answer any more.
	Perform(ctx context.Context, at federated.Local, o *federated.Order, keep *weights.Set) (*federated.Answer, error)
}

// here is this process.
type here struct{ client federated.Client }

// Perform implements [Executor].
func (h here) Perform(ctx context.Context, at federated.Local, o *federated.Order, keep *weights.Set) (*federated.Answer, error) {
	return federated.Perform(ctx, h.client, at, o, keep), nil
}

// Add lets a place take up so many orders at a time, beside those that work already, until its Perform returns an error or
// the pool ends. It reports whether the pool was still open.
func (p *Pool) Add(x Executor, slots int) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed || p.ctx.Err() != nil {
		return false
	}
	p.slots += slots
	for range slots {
		p.wg.Go(func() { p.run(x) })
	}
	p.work.Broadcast() // with more slots, all may run further ahead
	return true
}

// giveBack puts an order whose place was lost back into the queue. The caller holds the lock.
func (p *Pool) giveBack(f *flight) {
	f.started, f.cancel = false, nil
	p.slots--
	if !f.gone {
		p.queue(f)
	}
}
