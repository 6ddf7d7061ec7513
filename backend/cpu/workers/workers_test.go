package workers_test

import (
	"errors"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cohort-learning/cohort/backend/cpu/workers"
)

// count counts how often each task ran and how many ran at once.
type count struct {
	runs    []atomic.Int32
	at, max *atomic.Int32
}

func (c *count) Tasks() int { return len(c.runs) }

func (c *count) Do(task int, w *workers.Worker) {
	now := c.at.Add(1)
	for m := c.max.Load(); now > m && !c.max.CompareAndSwap(m, now); m = c.max.Load() {
	}
	p := w.Bytes(100)
	*(*int)(p) = task
	c.runs[task].Add(1)
	c.at.Add(-1)
}

func TestEveryTaskOnceAndNeverMoreThreadsThanSlots(t *testing.T) {
	const threads, sessions = 3, 8
	pool := workers.New(threads)
	defer pool.Close()
	var at, most atomic.Int32
	var wg sync.WaitGroup
	for range sessions {
		wg.Go(func() {
			for n := range 200 {
				s := pool.Enter()
				c := &count{runs: make([]atomic.Int32, n%17), at: &at, max: &most}
				s.Run(c)
				s.Run(c)
				s.Leave()
				for i := range c.runs {
					if got := c.runs[i].Load(); got != 2 {
						t.Errorf("task %d of %d ran %d times in two runs", i, n%17, got)
					}
				}
			}
		})
	}
	wg.Wait()
	if m := most.Load(); m > threads {
		t.Errorf("%d tasks ran at once on %d slots", m, threads)
	}
}

func TestRunAfterCloseAndWithoutAllocation(t *testing.T) {
	pool := workers.New(2)
	var at, most atomic.Int32
	c := &count{runs: make([]atomic.Int32, 5), at: &at, max: &most}
	s := pool.Enter()
	s.Run(c)
	s.Leave()
	if n := testing.AllocsPerRun(100, func() { s := pool.Enter(); s.Run(c); s.Leave() }); n != 0 {
		t.Errorf("a run allocates %v times", n)
	}
	pool.Close()
	s = pool.Enter()
	s.Run(c)
	s.Leave()
}

// failing panics in the tasks from the first bad one on.
type failing struct {
	tasks, bad int
	err        error
}

func (f failing) Tasks() int { return f.tasks }

func (f failing) Do(task int, _ *workers.Worker) {
	if task >= f.bad {
		panic(f.err)
	}
}

func TestPanicOfATaskComesOutOfRunAndLeavesThePoolWhole(t *testing.T) {
	for _, threads := range []int{1, 3} {
		pool := workers.New(threads)
		defer pool.Close()
		cause := errors.New("out of cheese")
		run := func(f failing) (got any) {
			s := pool.Enter()
			defer s.Leave()
			defer func() { got = recover() }()
			s.Run(f)
			return nil
		}
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				for n := range 200 {
					p, ok := run(failing{1 + n%40, n % 40, cause}).(*workers.Panic)
					if !ok || !errors.Is(p, cause) || len(p.Stack) == 0 {
						t.Errorf("%d threads: Run of a failing job panicked with %v, want a Panic of %v", threads, p, cause)
					}
					if got := run(failing{40, 40, cause}); got != nil {
						t.Errorf("%d threads: Run of a good job after a failing one panicked with %v", threads, got)
					}
				}
			})
		}
		wg.Wait()
		var at, most atomic.Int32
		c := &count{runs: make([]atomic.Int32, 500), at: &at, max: &most}
		s := pool.Enter()
		s.Run(c)
		s.Leave()
		for i := range c.runs {
			if got := c.runs[i].Load(); got != 1 {
				t.Errorf("%d threads: task %d ran %d times after panics", threads, i, got)
			}
		}
	}
}
