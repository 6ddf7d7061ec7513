package coordinator

import (
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cohort-learning/cohort/transport"
)

func TestAcks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAcks()
		var mu sync.Mutex
		var said []int
		hold := func(order int, asked int64) {
			a.hold(order, asked, func() {
				mu.Lock()
				defer mu.Unlock()
				said = append(said, order)
			})
		}
		expect := func(when string, want ...int) {
			t.Helper()
			synctest.Wait()
			mu.Lock()
			defer mu.Unlock()
			if !slices.Equal(said, want) {
				t.Errorf("%s: said %v, want %v", when, said, want)
			}
			said = nil
		}
		hold(1, 99)
		expect("of few members", 1)
		hold(2, 2000)
		time.Sleep(800 * time.Millisecond)
		hold(3, 2000)
		hold(4, 2000)
		a.forget([]int{4, 99}, nil)
		time.Sleep(time.Second)
		expect("before it is time")
		time.Sleep(200 * time.Millisecond)
		expect("after two seconds", 2)
		time.Sleep(800 * time.Millisecond)
		expect("after two seconds more", 3)
		hold(5, 1e6)
		time.Sleep(10*time.Second - time.Nanosecond)
		expect("just before the longest wait")
		time.Sleep(time.Nanosecond)
		expect("after it", 5)
		hold(6, 2000)
		hold(7, 2000)
		a.forget([]int{6})
		a.flush()
		expect("at the end", 7)
		time.Sleep(time.Minute)
		expect("after the end")
		if len(a.held) > 0 || len(a.line) > 0 {
			t.Errorf("%d and %d are still held", len(a.held), len(a.line))
		}
	})
}

// TestCloseIsVerdict holds all verdicts back: members live on closes alone, and nothing about the run is different. A result that
// comes again meanwhile is known.
func TestCloseIsVerdict(t *testing.T) {
	w := newWorld(t, "scaffold")
	want := w.simulated()
	if err := w.begin(); err != nil {
		t.Fatal(err)
	}
	w.run.acks.each, w.run.acks.most = time.Hour, time.Hour
	w.joinAll()
	w.wait()
	if err := w.run.Err(); err != nil {
		t.Fatal(err)
	}
	w.run.acks.mu.Lock()
	held := len(w.run.acks.held)
	w.run.acks.mu.Unlock()
	if held > 0 {
		t.Errorf("%d verdicts are still held after the last close", held)
	}
	accepted := w.server.Counters().Accepted
	w.end()
	if got := w.digest(); got != want {
		t.Errorf("the run ended in %.16s…, the simulation in %.16s…", got, want)
	}
	if accepted == 0 {
		t.Error("no result was accepted")
	}
	for name, m := range w.members {
		m.mu.Lock()
		if m.verdicts[transport.Accepted] > 0 {
			t.Errorf("%s was sent %d verdicts", name, m.verdicts[transport.Accepted])
		}
		m.mu.Unlock()
	}
}
