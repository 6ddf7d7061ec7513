package simulation

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/weights"
)

// Conditions is how unreliable and how slow the simulated members are. The zero value is perfect: everybody answers, in no
// time.
type Conditions struct {
	// Latency is the median time, on the virtual clock, from a task to its answer.
	Latency time.Duration
	// Spread is the standard deviation of the logarithm of a member's own speed, and Jitter that of every single answer.
	Spread, Jitter float64
	// Dropout is the probability that a member that is asked fails to answer; Stall that it never answers nor fails, so
	// that only a deadline ends the wait.
	Dropout, Stall float64
}

// Validate returns an error that says which field is out of range.
func (c Conditions) Validate() error {
	switch {
	case c.Latency < 0:
		return fmt.Errorf("latency %v is negative", c.Latency)
	case !(c.Spread >= 0) || !(c.Jitter >= 0):
		return fmt.Errorf("spread %g or jitter %g is negative", c.Spread, c.Jitter)
	case !(c.Dropout >= 0 && c.Dropout < 1):
		return fmt.Errorf("dropout %g is outside [0, 1)", c.Dropout)
	case !(c.Stall >= 0 && c.Stall < 1):
		return fmt.Errorf("stall %g is outside [0, 1)", c.Stall)
	}
	return nil
}

// never is the arrival time of an answer that does not come.
const never = time.Duration(math.MaxInt64)

// arrival returns when the answer to o comes on the virtual clock, and the failure that it is, if any. It depends on the
// seed, the member's name and the round alone.
func (c Conditions) arrival(seed uint64, o *federated.Order) (time.Duration, error) {
	r := rng.New(seed, o.Round, o.Member.Name, o.Phase+"/conditions")
	drop, stall, jitter := r.Float64(), r.Float64(), r.NormFloat64()
	at := o.Issued
	if c.Latency > 0 {
		speed := rng.New(seed, 0, o.Member.Name, "speed").NormFloat64()
		at += time.Duration(float64(c.Latency) * math.Exp(float64(c.Spread*speed)+float64(c.Jitter*jitter)))
	}
	switch {
	case stall < c.Stall:
		return never, nil
	case drop < c.Dropout:
		return at, errors.New("the connection was lost")
	}
	return at, nil
}

// Memory keeps what members keep between their visits.
type Memory interface {
	Load(member int) (*weights.Set, error)
	Store(member int, s *weights.Set) error
}

// Pool is the members of a simulation: [federated.Members] on a fixed number of workers under a virtual clock. Answers come
// in the order of their arrival on that clock, ties in the order of the orders, whatever the workers' speed; tasks are made
// when a worker takes them up, and workers do not run further ahead of the driver than twice their number.
type Pool struct {
	client     federated.Client
	local      func(federated.Member) federated.Local
	conditions Conditions
	seed       uint64
	memory     Memory

	mu      sync.Mutex
	work    *sync.Cond // signals workers
	done    *sync.Cond // signals Next
	clock   time.Duration
	flights flights // all that is not yet returned, by arrival
	byOrder map[*federated.Order]*flight
	ready   int     // computed and not yet returned
	ahead   int     // bound of ready, unless the driver waits for the very flight
	wanted  *flight // what Next waits for
	closed  bool
	wg      sync.WaitGroup
}

type flight struct {
	order   *federated.Order
	at      time.Duration
	fault   error
	started bool
	answer  *federated.Answer
	dropped bool
}

// flights is a heap by arrival, then by order.
type flights []*flight

func (f flights) Len() int { return len(f) }
func (f flights) Less(i, j int) bool {
	if f[i].at != f[j].at {
		return f[i].at < f[j].at
	}
	return f[i].order.ID < f[j].order.ID
}
func (f flights) Swap(i, j int) { f[i], f[j] = f[j], f[i] }
func (f *flights) Push(x any)   { *f = append(*f, x.(*flight)) }
func (f *flights) Pop() any {
	old := *f
	x := old[len(old)-1]
	old[len(old)-1] = nil
	*f = old[:len(old)-1]
	return x
}

// NewPool starts workers goroutines that run the client for the members that local describes. Close ends them. The clock
// starts at the given time: that of the snapshot for a run that is resumed.
func NewPool(ctx context.Context, client federated.Client, local func(federated.Member) federated.Local, memory Memory,
	c Conditions, seed uint64, workers int, clock time.Duration) *Pool {
	p := &Pool{client: client, local: local, conditions: c, seed: seed, memory: memory,
		clock: clock, byOrder: map[*federated.Order]*flight{}, ahead: 2 * workers}
	p.work, p.done = sync.NewCond(&p.mu), sync.NewCond(&p.mu)
	for range workers {
		p.wg.Go(func() { p.run(ctx) })
	}
	context.AfterFunc(ctx, func() {
		p.mu.Lock()
		p.work.Broadcast()
		p.mu.Unlock()
	})
	return p
}

// Close ends the workers after the tasks that they are at.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	p.work.Broadcast()
	p.mu.Unlock()
	p.wg.Wait()
}

// Now returns the virtual time.
func (p *Pool) Now() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.clock
}

// Issue puts an order into the queue.
func (p *Pool) Issue(_ context.Context, o *federated.Order) error {
	f := &flight{order: o}
	f.at, f.fault = p.conditions.arrival(p.seed, o)
	p.mu.Lock()
	defer p.mu.Unlock()
	p.byOrder[o] = f
	heap.Push(&p.flights, f)
	p.work.Signal()
	return nil
}

// Next returns the answer that arrives next, or nil at the deadline.
func (p *Pool) Next(ctx context.Context, deadline time.Duration) (*federated.Answer, error) {
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		p.done.Broadcast()
		p.mu.Unlock()
	})
	defer stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.flights[0]
	if deadline > 0 && f.at > deadline {
		p.clock = max(p.clock, deadline)
		return nil, nil
	}
	if f.at == never {
		f.answer = &federated.Answer{Order: f.order, Err: errors.New("stalled, and the run has no deadline")}
		f.started = true
		p.ready++
	}
	p.wanted = f
	p.work.Broadcast()
	for f.answer == nil {
		if err := context.Cause(ctx); err != nil {
			return nil, err
		}
		p.done.Wait()
	}
	p.wanted = nil
	heap.Pop(&p.flights)
	delete(p.byOrder, f.order)
	p.ready--
	p.work.Broadcast()
	if f.at != never {
		p.clock = max(p.clock, f.at)
	}
	return f.answer, nil
}

// Drop forgets an order.
func (p *Pool) Drop(o *federated.Order) {
	p.mu.Lock()
	defer p.mu.Unlock()
	f, ok := p.byOrder[o]
	if !ok {
		return
	}
	delete(p.byOrder, o)
	f.dropped = true
	for i, g := range p.flights {
		if g == f {
			heap.Remove(&p.flights, i)
			break
		}
	}
	if f.answer != nil {
		p.ready--
		p.work.Broadcast()
	}
}

// Keep replaces a member's memory.
func (p *Pool) Keep(member int, s *weights.Set) error { return p.memory.Store(member, s) }

// run is one worker.
func (p *Pool) run(ctx context.Context) {
	for {
		f := p.take(ctx)
		if f == nil {
			return
		}
		a := p.answer(ctx, f)
		p.mu.Lock()
		f.answer = a
		if !f.dropped {
			p.ready++
		}
		p.done.Broadcast()
		p.mu.Unlock()
	}
}

// take waits for the earliest flight that nobody has started; nil means that the pool is closed.
func (p *Pool) take(ctx context.Context) *flight {
	p.mu.Lock()
	defer p.mu.Unlock()
	for {
		if p.closed || ctx.Err() != nil {
			return nil
		}
		if w := p.wanted; w != nil && !w.started {
			w.started = true
			return w
		}
		if p.ready < p.ahead {
			if f := p.earliest(); f != nil {
				f.started = true
				return f
			}
		}
		p.work.Wait()
	}
}

func (p *Pool) earliest() *flight {
	var best *flight
	for _, f := range p.flights {
		if f.started || f.at == never {
			continue
		}
		if best == nil || f.at < best.at || f.at == best.at && f.order.ID < best.order.ID {
			best = f
		}
	}
	return best
}

func (p *Pool) answer(ctx context.Context, f *flight) (a *federated.Answer) {
	a = &federated.Answer{Order: f.order}
	defer func() {
		if r := recover(); r != nil {
			a.Err = fmt.Errorf("the client broke: %v", r)
		}
	}()
	if a.Task, a.Err = f.order.Make(); a.Err != nil {
		return a
	}
	if f.fault != nil {
		a.Err = f.fault
		return a
	}
	keep, err := p.memory.Load(f.order.Member.Index)
	if err != nil {
		a.Err = fmt.Errorf("memory: %w", err)
		return a
	}
	a.Result, a.Err = p.client.Run(ctx, p.local(f.order.Member), a.Task, keep)
	return a
}
