// Package peak measures how many float32 operations a second this machine can do: the rate of a
// loop of independent fused multiply-adds in registers.
//
//	flops := peak.Measure(2, 100*time.Millisecond) // two threads
package peak

import (
	"sync"
	"time"
)

// stretch is short enough to fit between the interruptions of other processes and long enough for
// the start of the threads not to count.
const stretch = 2 * time.Millisecond

// Measure runs the loop on the given number of threads for about the given time and returns their
// joint rate in operations a second, a fused multiply-add being two. It takes the best of many
// short stretches, because other processes can only slow the loop down.
func Measure(threads int, d time.Duration) float64 {
	n := 1000
	for { // turns of the loop that fill a stretch on one thread
		start := time.Now()
		fmaLoop(n)
		if time.Since(start) >= stretch {
			break
		}
		n *= 2
	}
	var best float64
	for end := time.Now().Add(d); best == 0 || time.Now().Before(end); {
		var wg sync.WaitGroup
		start := time.Now()
		for range threads {
			wg.Go(func() { fmaLoop(n) })
		}
		wg.Wait()
		best = max(best, float64(threads)*float64(n)*flopsPerTurn/time.Since(start).Seconds())
	}
	return best
}
