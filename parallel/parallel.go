// Package parallel shares a loop out among processors. What the body computes must depend on its index alone: then the result is the
// same for any number of threads.
package parallel

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// Threads is how many goroutines work at once where 0 is asked for: one a processor.
func Threads() int { return runtime.GOMAXPROCS(0) }

// Do runs f(0) … f(n−1) on up to threads goroutines, 0: one a processor.
func Do(n, threads int, f func(i int)) {
	_ = Try(n, threads, func(i int) error {
		f(i)
		return nil
	})
}

// Try runs f(0) … f(n−1) on up to threads goroutines, 0: one a processor, and returns the error of the least index that failed, so that
// what is reported does not depend on timing. After an error no further calls begin.
func Try(n, threads int, f func(i int) error) error {
	if threads <= 0 {
		threads = Threads()
	}
	if threads = min(threads, n); threads <= 1 {
		for i := range n {
			if err := f(i); err != nil {
				return err
			}
		}
		return nil
	}
	var (
		next   atomic.Int64
		failed atomic.Bool
		mu     sync.Mutex
		first  = n
		err    error
		wg     sync.WaitGroup
	)
	for range threads {
		wg.Go(func() {
			for !failed.Load() {
				i := int(next.Add(1)) - 1
				if i >= n {
					return
				}
				if e := f(i); e != nil {
					failed.Store(true)
					mu.Lock()
					if i < first {
						first, err = i, e
					}
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	return err
}

// Chunks runs f on consecutive ranges of at most size of 0 … n−1; at counts them. The ranges do not depend on threads.
func Chunks(n, size, threads int, f func(at, lo, hi int)) {
	Do((n+size-1)/size, threads, func(at int) { f(at, at*size, min(n, (at+1)*size)) })
}
