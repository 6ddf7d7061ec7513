package mismatch

import (
	"runtime"
	"sync"
	"sync/atomic"
)

// split runs f(0) … f(n−1) on up to threads goroutines. What each computes must depend on its index alone.
func split(n, threads int, f func(int)) {
	threads = min(threads, n)
	if threads <= 1 {
		for i := range n {
			f(i)
		}
		return
	}
	var next atomic.Int64
	var wg sync.WaitGroup
	for range threads {
		wg.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	wg.Wait()
}

// chunks runs f on consecutive ranges of at most size of 0 … n−1. The ranges do not depend on threads.
func chunks(n, size, threads int, f func(at, lo, hi int)) {
	split((n+size-1)/size, threads, func(at int) { f(at, at*size, min(n, (at+1)*size)) })
}

func cores() int { return runtime.GOMAXPROCS(0) }
