// Package serial runs functions one after another without a goroutine that waits for them.
package serial

import "sync"

// Queue runs functions one at a time, in the order in which they were given to it. A goroutine exists only while there is
// something to run, so that ten thousand idle queues cost their memory alone. The zero value is ready.
type Queue struct {
	mu      sync.Mutex
	waiting []func()
	running bool
	max     int
}

// Limit bounds how many functions may wait; 0 is no bound.
func (q *Queue) Limit(n int) {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.max = n
}

// Do queues f and reports whether there was room.
func (q *Queue) Do(f func()) bool {
	q.mu.Lock()
	defer q.mu.Unlock()
	if q.max > 0 && len(q.waiting) >= q.max {
		return false
	}
	q.waiting = append(q.waiting, f)
	if !q.running {
		q.running = true
		go q.run()
	}
	return true
}

func (q *Queue) run() {
	for {
		q.mu.Lock()
		batch := q.waiting
		if len(batch) == 0 {
			q.running = false
			q.mu.Unlock()
			return
		}
		q.waiting = nil
		q.mu.Unlock()
		for _, f := range batch {
			f()
		}
	}
}
