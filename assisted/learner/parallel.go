package learner

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// parallel calls do(0) … do(n−1), as many at once as there are processors. What it does must not depend on their order.
func parallel(n int, do func(i int)) {
	threads := min(runtime.GOMAXPROCS(0), n)
	if threads < 2 {
		for i := range n {
			do(i)
		}
		return
	}
	var next atomic.Int64
	var wait sync.WaitGroup
	for range threads {
		wait.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				do(i)
			}
		})
	}
	wait.Wait()
}
