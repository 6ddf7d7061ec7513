package kernel

import (
	"math"
	"math/rand/v2"
	"sync"
)

// random draws test data.
type random struct{ *rand.Rand }

func newRandom(seed uint64) random { return random{rand.New(rand.NewPCG(seed, 17))} }

// slice returns n values in [-1, 1), at an address that is no multiple of a cache line.
func (r random) slice(n int) []float32 {
	s := make([]float32, n+1)[1:]
	for i := range s {
		s[i] = r.Float32()*2 - 1
	}
	return s
}

// failer is a test of one of the kinds.
type failer interface {
	Helper()
	Fatalf(format string, args ...any)
}

// guard surrounds a slice by values that must survive; the slice itself begins as NaN.
type guard struct{ all, mid []float32 }

const guardLen, guardValue = 37, 12345

func guarded(n int) guard {
	all := make([]float32, n+2*guardLen)
	for i := range all {
		all[i] = guardValue
	}
	mid := all[guardLen : guardLen+n : guardLen+n]
	for i := range mid {
		mid[i] = float32(math.NaN())
	}
	return guard{all, mid}
}

// values returns the slice after checking that nothing was written around it.
func (g guard) values(t failer) []float32 {
	t.Helper()
	for i, v := range g.all {
		if (i < guardLen || i >= len(g.all)-guardLen) && v != guardValue {
			t.Fatalf("value %d of %d around the result was overwritten with %g", i-guardLen, len(g.mid), v)
		}
	}
	return g.mid
}

// runChecked gives the call a workspace full of NaN between guards, runs it on a
// scratch of exactly the size that the plan asks for, full of NaN as well, and checks the guards.
func runChecked(t failer, c Call) {
	t.Helper()
	work, scratch := giveWork(c)
	Run(c, scratch)
	work.values(t)
}

// giveWork sets the workspace of a call, and returns it and a scratch for one worker.
func giveWork(c Call) (guard, *Scratch) {
	var work guard
	var n int
	switch c := c.(type) {
	case *GemmCall:
		work, n = guarded(c.Plan.WorkspaceLen()), c.Plan.ScratchLen()
		c.Work = work.mid
	case *ConvCall:
		work, n = guarded(c.Plan.WorkspaceLen()), c.Plan.ScratchLen()
		c.Work = work.mid
	}
	return work, newScratch(n)
}

// newScratch returns a scratch with n values, all NaN.
func newScratch(n int) *Scratch {
	s := new(Scratch)
	s.Grow(n)
	for i := range s.buf {
		s.buf[i] = float32(math.NaN())
	}
	return s
}

// runParallel runs the call on several goroutines, tasks last first.
func runParallel(c Call, workers, scratchLen int) {
	for i := range c.Phases() {
		job := c.Phase(i)
		tasks := make(chan int, job.Tasks())
		for t := range job.Tasks() {
			tasks <- job.Tasks() - 1 - t
		}
		close(tasks)
		var wg sync.WaitGroup
		for range workers {
			wg.Go(func() {
				s := newScratch(scratchLen)
				for t := range tasks {
					job.Do(t, s)
				}
			})
		}
		wg.Wait()
	}
}
