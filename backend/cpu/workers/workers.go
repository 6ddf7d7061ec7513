// Package workers runs the tasks of a job on a fixed number of threads that
// all executions of a backend share.
//
// A [Pool] owns a number of slots, one per thread. Whoever wants to compute
// enters the pool and holds one slot until it leaves; while it runs a job with
// several tasks, helpers join it only for as long as slots are free. So ten
// executions at once on two slots take turns instead of starting twenty
// threads, and one execution alone gets the whole machine.
//
// The cut of a job into tasks is the job's own and does not depend on the
// number of threads, and neither does anything else that a task can see.
//
// A task that panics ends its job: no further task begins, and once the others
// have ended, the panic goes on in the goroutine that runs the job. The pool
// and the session remain usable.
package workers

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"

	"github.com/cohort-learning/cohort/backend/cpu/kernel"
)

// A Job is work cut into independent tasks, which may run in any order and at
// the same time.
type Job interface {
	Tasks() int
	Do(task int, w *Worker)
}

// Worker is the private memory of one thread.
type Worker struct {
	Kernel kernel.Scratch
	mem    []byte
}

const cacheLine = 64

// Bytes returns n bytes of scratch memory that begin at a cache line. Their
// contents are undefined, and they are valid until the next call.
func (w *Worker) Bytes(n int) unsafe.Pointer {
	if n+cacheLine > len(w.mem) {
		w.mem = make([]byte, n+n/2+cacheLine)
	}
	p := unsafe.Pointer(unsafe.SliceData(w.mem))
	return unsafe.Add(p, -uintptr(p)&(cacheLine-1))
}

// Pool is a set of slots and the goroutines that help on them.
type Pool struct {
	threads int
	free    atomic.Int32  // slots nobody holds
	waiting atomic.Int32  // callers of Enter that wait for a slot
	asleep  atomic.Int32  // helpers that wait asleep
	calls   chan *Session // invitations to helpers: whoever takes one holds a slot
	mu      sync.Mutex
	room    sync.Cond // signalled when a slot becomes free
	idle    []*Session
	closed  bool
}

// New starts a pool with the given number of threads (at least one), the
// callers of Enter included.
func New(threads int) *Pool {
	p := &Pool{threads: max(threads, 1)}
	p.room.L = &p.mu
	p.free.Store(int32(p.threads))
	p.calls = make(chan *Session, p.threads)
	for range p.threads - 1 {
		go p.help()
	}
	return p
}

// Threads is the number of slots.
func (p *Pool) Threads() int { return p.threads }

// Close ends the helpers. Sessions that are still entered go on alone.
func (p *Pool) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.closed {
		p.closed = true
		close(p.calls)
	}
}

// Session is one computation in the pool. It belongs to one goroutine.
type Session struct {
	pool   *Pool
	own    Worker
	job    Job
	tasks  int32
	next   atomic.Int32
	state  atomic.Uint32 // open | asleep | helpers inside
	wake   chan struct{} // the last helper out wakes the session
	failed atomic.Pointer[Panic]
	kernel kernelJob
}

// Panic is what [Session.Run] panics with when a task of the job did.
type Panic struct {
	Value any    // what the task panicked with
	Stack []byte // of the goroutine that ran the task
}

// Error returns the value as text.
func (p *Panic) Error() string { return fmt.Sprint(p.Value) }

// Format writes the text, and for %+v the stack, too.
func (p *Panic) Format(s fmt.State, verb rune) {
	fmt.Fprint(s, p.Value)
	if verb == 'v' && s.Flag('+') {
		fmt.Fprintf(s, "\n%s", p.Stack)
	}
}

// Unwrap returns the value if it is an error.
func (p *Panic) Unwrap() error {
	err, _ := p.Value.(error)
	return err
}

const (
	open    = 1 << 15 // helpers may come in
	asleep  = 1 << 14 // the session waits for the last helper
	helpers = asleep - 1
)

// Enter waits for a free slot and takes it.
func (p *Pool) Enter() *Session {
	if p.take() {
		p.mu.Lock()
	} else {
		p.mu.Lock()
		p.waiting.Add(1)
		for !p.take() {
			p.room.Wait()
		}
		p.waiting.Add(-1)
	}
	var s *Session
	if n := len(p.idle); n > 0 {
		s = p.idle[n-1]
		p.idle = p.idle[:n-1]
	} else {
		s = &Session{pool: p, wake: make(chan struct{}, 1)}
	}
	p.mu.Unlock()
	return s
}

// Leave gives the slot back. The session must not be used afterwards.
func (s *Session) Leave() {
	p := s.pool
	p.mu.Lock()
	p.idle = append(p.idle, s)
	p.mu.Unlock()
	p.release()
}

func (p *Pool) take() bool {
	for {
		n := p.free.Load()
		if n <= 0 {
			return false
		}
		if p.free.CompareAndSwap(n, n-1) {
			return true
		}
	}
}

// release gives a slot back. Whoever begins to wait for one after waiting was
// read finds this one.
func (p *Pool) release() {
	p.free.Add(1)
	if p.waiting.Load() > 0 {
		p.mu.Lock()
		p.room.Signal()
		p.mu.Unlock()
	}
}

// spare takes a slot for a helper, if nobody waits for it: a computation of its
// own is worth more than a helper.
func (p *Pool) spare() bool {
	if !p.take() {
		return false
	}
	if p.waiting.Load() > 0 {
		p.release()
		return false
	}
	return true
}

// invite asks one helper to join, if a slot is free for it.
func (p *Pool) invite(s *Session) bool {
	if !p.spare() {
		return false
	}
	p.mu.Lock()
	sent := !p.closed
	if sent {
		p.calls <- s // does not block: there are no more slots than room
	}
	p.mu.Unlock()
	if !sent {
		p.release()
	}
	return sent
}

// Worker is the scratch memory of the session's own goroutine.
func (s *Session) Worker() *Worker { return &s.own }

// Run executes all tasks of the job and returns when they have ended. If one
// panics, Run panics with a [*Panic].
func (s *Session) Run(job Job) {
	n := job.Tasks()
	if n <= 1 || s.pool.threads == 1 {
		s.alone(job, n)
		s.rethrow()
		return
	}
	s.job, s.tasks = job, int32(n)
	s.next.Store(0)
	s.state.Store(open)
	s.lead()
	s.finish()
	s.job = nil
	s.rethrow()
}

// alone runs all tasks in the session's own goroutine.
func (s *Session) alone(job Job, n int) {
	defer s.catch()
	for t := range n {
		job.Do(t, &s.own)
	}
}

// catch, deferred, keeps a panic for rethrow and leaves no task to begin.
func (s *Session) catch() {
	v := recover()
	if v == nil {
		return
	}
	s.next.Store(s.tasks)
	s.failed.CompareAndSwap(nil, &Panic{v, debug.Stack()}) // the first one counts
}

// rethrow panics if a task of the last job did.
func (s *Session) rethrow() {
	if s.failed.Load() != nil {
		panic(s.failed.Swap(nil))
	}
}

// finish closes the region and waits until all helpers have left: awake as
// long as their last tasks are short, then asleep.
func (s *Session) finish() {
	for {
		v := s.state.Load()
		if s.state.CompareAndSwap(v, v&^open) {
			break
		}
	}
	for w := (watch{}); w.waited < longTask; w.round() {
		if s.state.Load()&helpers == 0 {
			return
		}
	}
	for {
		v := s.state.Load()
		if v&helpers == 0 {
			return
		}
		if s.state.CompareAndSwap(v, v|asleep) {
			<-s.wake
			return
		}
	}
}

// leave is the way out of a helper.
func (s *Session) leave() {
	if v := s.state.Add(^uint32(0)); v&helpers == 0 && v&asleep != 0 {
		s.wake <- struct{}{}
	}
}

// lead runs tasks until none is left or one has panicked, and before each
// invites helpers if there are slots for them: one that was called for an
// earlier job comes late, and slots become free while a long job runs.
func (s *Session) lead() {
	defer s.catch()
	job, n, p := s.job, s.tasks, s.pool
	for {
		t := s.next.Add(1) - 1
		if t >= n {
			return
		}
		for more := n - t - 1; more > 0 && p.free.Load() > 0 && p.invite(s); more-- {
		}
		job.Do(int(t), &s.own)
	}
}

// drain is lead for helpers.
func (s *Session) drain(w *Worker) {
	defer s.catch()
	job, n := s.job, s.tasks
	for {
		t := s.next.Add(1) - 1
		if t >= n {
			return
		}
		job.Do(int(t), w)
	}
}

// join lets a helper in if the session has a job under way, which may be a
// later one than that for which it was called.
func (s *Session) join() bool {
	for {
		v := s.state.Load()
		if v&open == 0 {
			return false
		}
		if s.state.CompareAndSwap(v, v+1) {
			return true
		}
	}
}

func (p *Pool) help() {
	var w Worker
	for s := p.next(); s != nil; s = p.next() {
		p.assist(s, &w)
	}
}

// assist follows an invitation of s, with its slot. The invitation counts for
// any region of s: for the one it was sent for, or for one that has opened since.
//
// The slot is free again before s can go on, so that s finds it for the next
// region. And where it was not free in time, because the helper came between two
// regions, the helper looks again after it has given the slot back: so a region
// that could not invite is found by the helper that was on its way.
func (p *Pool) assist(s *Session, w *Worker) {
	for !s.join() {
		p.release()
		if s.state.Load()&open == 0 || !p.spare() {
			return
		}
	}
	s.drain(w)
	p.release()
	s.leave()
}

// next waits for an invitation; nil means that the pool is closed.
func (p *Pool) next() *Session {
	for w := (watch{}); ; {
		select {
		case s := <-p.calls:
			return s
		default:
		}
		if w.round() && w.waited >= patience(p.free.Load(), p.threads) {
			p.asleep.Add(1)
			s := <-p.calls
			p.asleep.Add(-1)
			return s
		}
	}
}

// Waiting awake is what makes short jobs worth sharing: a sleeping thread
// takes 20 to 100 microseconds to come, as long as a whole job may take, and
// then finds nothing left to do. So a helper stays awake while somebody computes
// whom it could join, and a moment longer, because the next step of a training
// loop follows at once. Nothing is spent while all slots are taken, as they are
// when many executions run side by side.
const (
	busyWait = 2 * time.Millisecond   // for the next job of an execution
	idleWait = 200 * time.Microsecond // for the next execution
	longTask = 10 * time.Millisecond  // for the last task of another
)

// patience is how long a helper of a pool with so many free slots waits awake.
func patience(free int32, threads int) time.Duration {
	switch {
	case free <= 0: // nobody can invite
		return 0
	case int(free) < threads:
		return busyWait
	}
	return idleWait
}

// watch counts the rounds of a loop that waits awake.
type watch struct {
	rounds int
	since  time.Time
	waited time.Duration
}

// round is called once a round. It tells, now and then, that waited is up to
// date; then it also has let other goroutines run, the awaited one perhaps.
func (w *watch) round() bool {
	const often = 4000 // rounds of some nanoseconds
	w.rounds++
	if w.rounds%often != 0 {
		return false
	}
	runtime.Gosched()
	now := time.Now()
	if w.since.IsZero() {
		w.since = now
	}
	w.waited = now.Sub(w.since)
	return true
}

// kernelJob makes a job of the kernel package one of this package.
type kernelJob struct{ job kernel.Job }

func (k *kernelJob) Tasks() int             { return k.job.Tasks() }
func (k *kernelJob) Do(task int, w *Worker) { k.job.Do(task, &w.Kernel) }

// RunCall executes all phases of a kernel call.
func (s *Session) RunCall(c kernel.Call) {
	for i := range c.Phases() {
		s.kernel.job = c.Phase(i)
		s.Run(&s.kernel)
	}
	s.kernel.job = nil
}
