package dataset

import (
	"context"
	"runtime"
	"sync"
)

// parallel runs f(0) … f(n−1) on all cores and returns the error of the lowest index that failed. It starts nothing more
// once one has failed or ctx is done.
func parallel(ctx context.Context, n int, f func(int) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	errs := make([]error, n)
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), n) {
		wg.Go(func() {
			for i := range next {
				if errs[i] = f(i); errs[i] != nil {
					cancel()
				}
			}
		})
	}
	var stopped error
	for i := range n {
		select {
		case next <- i:
			continue
		case <-ctx.Done():
			stopped = context.Cause(ctx)
		}
		break
	}
	close(next)
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return stopped
}
