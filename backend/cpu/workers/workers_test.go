package workers_test

import (
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
