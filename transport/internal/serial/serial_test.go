package serial

import (
	"sync"
	"testing"
	"testing/synctest"
)

// TestOrder: functions run one at a time, those of one caller in its order, and nothing runs when nothing waits.
func TestOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q Queue
		var wg sync.WaitGroup
		next := [4]int{}
		inside := 0 // not atomic: the race detector sees two at a time
		for caller := range next {
			wg.Go(func() {
				for i := range 200 {
					q.Do(func() {
						inside++
						if inside != 1 || next[caller] != i {
							t.Errorf("%d inside; caller %d: %d, not %d", inside, caller, i, next[caller])
						}
						next[caller]++
						inside--
					})
				}
			})
		}
		wg.Wait()
		synctest.Wait()
		if next != [4]int{200, 200, 200, 200} {
			t.Errorf("ran %v", next)
		}
	}) // which also waits for every goroutine to end
}

func TestLimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q Queue
		q.Limit(2)
		hold := make(chan bool)
		q.Do(func() { <-hold })
		synctest.Wait()
		ran := 0
		for i := range 5 {
			if got := q.Do(func() { ran++ }); got != (i < 2) {
				t.Errorf("function %d taken: %v", i, got)
			}
		}
		close(hold)
		synctest.Wait()
		if ran != 2 {
			t.Errorf("%d ran", ran)
		}
		if !q.Do(func() { ran++ }) {
			t.Error("there is room again")
		}
		synctest.Wait()
	})
}

// TestWithin queues from within a function of the queue.
func TestWithin(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var q Queue
		var got []int
		q.Do(func() {
			q.Do(func() { got = append(got, 2) })
			got = append(got, 1)
		})
		synctest.Wait()
		if len(got) != 2 || got[0] != 1 {
			t.Errorf("%v", got)
		}
	})
}
