package simulation

import (
	"container/heap"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/weights"
)

// Memory keeps what members keep between their visits. Its methods are safe for concurrent use.
type Memory interface {
	Load(member int) (*weights.Set, error)
	Store(member int, s *weights.Set) error
}

// Pool is the members of a simulation: [federated.Members] on a number of workers under a virtual clock. Answers come in the
// order of their arrival on that clock, ties in the order of the orders, whatever the workers' number, speed and place; tasks
// are made when a worker takes them up, and workers do not run further ahead of the driver than twice their number.
type Pool struct {
	local      func(federated.Member) federated.Local
	conditions Conditions
	seed       uint64
	memory     Memory
	plot       *plot // of lying members; nil: there are none
	ctx        context.Context
	stop       func() bool // forgets about ctx

	mu      sync.Mutex
	work    *sync.Cond // signals workers
	done    *sync.Cond // signals Next
	clock   time.Duration
	coming  flights // all that is not yet returned
	todo    flights // those that no worker has taken up
	byOrder map[*federated.Order]*flight
	until   time.Duration // workers take up what arrives by then; 0: everything
	ready   int           // computed and not yet returned
	slots   int           // orders that can be worked on at once; twice as many bound ready, unless the driver waits for the very flight
	wanted  *flight       // what Next waits for
	closed  bool
	wg      sync.WaitGroup
}

// flight is an order on its way.
type flight struct {
	order   *federated.Order
	at      time.Duration // when the answer arrives
	fault   error         // what the answer is instead of a result
	started bool
	gone    bool // returned or dropped
	answer  *federated.Answer
	agreed  bool               // the answer is what liars have agreed on
	cancel  context.CancelFunc // of the work, once started
}

// flights is a heap by arrival, then by order. Flights that are gone, or started in todo, are taken out when they come up.
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

// first returns the earliest flight that is still wanted, nil if there is none.
func (f *flights) first(skip func(*flight) bool) *flight {
	for len(*f) > 0 {
		if !skip((*f)[0]) {
			return (*f)[0]
		}
		heap.Pop(f)
	}
	return nil
}

// NewPool starts workers goroutines that run the client for the members that local describes, until ctx is done or the
// pool is closed; there may be none, if other places are added ([Pool.Add]). The clock starts at the given time: that of the
// snapshot for a run that is resumed.
func NewPool(ctx context.Context, client federated.Client, local func(federated.Member) federated.Local, memory Memory,
	c Conditions, seed uint64, workers int, clock time.Duration) *Pool {
	p := &Pool{local: local, conditions: c, seed: seed, memory: memory, ctx: ctx, clock: clock, byOrder: map[*federated.Order]*flight{}}
	p.work, p.done = sync.NewCond(&p.mu), sync.NewCond(&p.mu)
	p.stop = context.AfterFunc(ctx, func() {
		p.mu.Lock()
		p.work.Broadcast()
		p.mu.Unlock()
	})
	p.Add(here{client}, workers)
	return p
}

// Close ends the work and waits for the workers. What is in flight is forgotten.
func (p *Pool) Close() {
	p.mu.Lock()
	p.closed = true
	for _, f := range p.byOrder {
		if f.cancel != nil {
			f.cancel()
		}
	}
	p.work.Broadcast()
	p.mu.Unlock()
	p.wg.Wait()
	p.stop()
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
	heap.Push(&p.coming, f)
	if f.at != never {
		p.queue(f)
	}
	return nil
}

// queue puts a flight among those that wait for a worker. The caller holds the lock.
func (p *Pool) queue(f *flight) {
	heap.Push(&p.todo, f)
	p.work.Signal()
}

// Next returns the answer that arrives next, or nil at the deadline. If there is no deadline and only members are left that
// stall, their answers are errors that say so.
func (p *Pool) Next(ctx context.Context, deadline time.Duration) (*federated.Answer, error) {
	stop := context.AfterFunc(ctx, func() {
		p.mu.Lock()
		p.done.Broadcast()
		p.mu.Unlock()
	})
	defer stop()
	p.mu.Lock()
	defer p.mu.Unlock()
	f := p.coming.first(func(f *flight) bool { return f.gone })
	if f == nil {
		panic("simulation: Next with nothing in flight")
	}
	p.until = deadline
	if deadline > 0 && f.at > deadline {
		p.clock = max(p.clock, deadline)
		return nil, context.Cause(ctx)
	}
	if f.at == never {
		p.forget(f)
		return &federated.Answer{Order: f.order, Err: errors.New("stalled, and there is no deadline to wait for")}, context.Cause(ctx)
	}
	p.await(ctx, f)
	if p.plot != nil && p.plot.collusive() && f.fault == nil && p.plot.lies(f.order) && !f.agreed {
		p.collude(ctx, f)
	}
	if ctx.Err() != nil { // also if there is an answer: it may tell of work that was cut short
		return nil, context.Cause(ctx)
	}
	p.forget(f)
	p.clock = max(p.clock, f.at)
	return f.answer, nil
}

// await returns the answer of a flight when it is there, nil when ctx is done. The caller holds the lock.
func (p *Pool) await(ctx context.Context, f *flight) *federated.Answer {
	p.wanted = f
	p.work.Broadcast()
	for f.answer == nil && ctx.Err() == nil {
		p.done.Wait()
	}
	p.wanted = nil
	if ctx.Err() != nil {
		return nil
	}
	return f.answer
}

// Drop forgets an order.
func (p *Pool) Drop(o *federated.Order) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if f, ok := p.byOrder[o]; ok {
		p.forget(f)
	}
}

// forget takes a flight out of the books and ends the work on it. The caller holds the lock.
func (p *Pool) forget(f *flight) {
	f.gone = true
	delete(p.byOrder, f.order)
	if f.cancel != nil {
		f.cancel()
	}
	if f.answer != nil {
		p.ready--
		p.work.Broadcast()
	}
}

// Keep replaces a member's memory.
func (p *Pool) Keep(member int, s *weights.Set) error { return p.memory.Store(member, s) }

// run is one worker, at the place x.
func (p *Pool) run(x Executor) {
	for {
		f, ctx := p.take()
		if f == nil {
			return
		}
		a, err := p.answer(ctx, x, f)
		p.mu.Lock()
		f.cancel()
		if err != nil {
			p.giveBack(f)
			p.mu.Unlock()
			return
		}
		if !f.gone {
			f.answer = a
			p.ready++
		}
		p.done.Broadcast()
		p.mu.Unlock()
	}
}

// take waits for the earliest flight that nobody has started; nil means that the pool is closed.
func (p *Pool) take() (*flight, context.Context) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for !p.closed && p.ctx.Err() == nil {
		f := p.wanted
		if f == nil || f.started {
			f = nil
			if p.ready < 2*p.slots {
				f = p.todo.first(func(f *flight) bool { return f.started || f.gone })
			}
			if f != nil && p.until > 0 && f.at > p.until {
				f = nil
			}
		}
		if f != nil {
			f.started = true
			ctx, cancel := context.WithCancel(p.ctx)
			f.cancel = cancel
			return f, ctx
		}
		p.work.Wait()
	}
	return nil, nil
}

// answer does a member's work at the place x. An error says that the place is lost.
func (p *Pool) answer(ctx context.Context, x Executor, f *flight) (*federated.Answer, error) {
	if f.fault != nil { // the task was sent nevertheless
		a := &federated.Answer{Order: f.order, Err: f.fault}
		if t, err := f.order.Make(); err == nil {
			a.Task = t
		}
		return a, nil
	}
	keep, err := p.memory.Load(f.order.Member.Index)
	if err != nil {
		return &federated.Answer{Order: f.order, Err: fmt.Errorf("memory: %w", err)}, nil
	}
	a, err := x.Perform(ctx, p.local(f.order.Member), f.order, keep)
	if err == nil && a.Err == nil && p.plot.lies(f.order) && !p.plot.collusive() {
		p.plot.alone(a)
	}
	return a, err
}
