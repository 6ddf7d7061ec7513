package workers

import (
	"runtime"
	"testing"
	"time"
)

func TestPatience(t *testing.T) {
	for _, c := range []struct {
		free    int32
		threads int
		want    time.Duration
	}{
		{0, 2, 0}, {-1, 2, 0}, // whoever computes has all slots
		{1, 2, busyWait}, {3, 4, busyWait},
		{2, 2, idleWait}, {4, 4, idleWait},
	} {
		if got := patience(c.free, c.threads); got != c.want {
			t.Errorf("with %d of %d slots free a helper waits awake for %v, want %v", c.free, c.threads, got, c.want)
		}
	}
}

// eventually runs ready until it is true.
func eventually(t *testing.T, what string, ready func() bool) {
	t.Helper()
	for giveUp := time.Now().Add(time.Minute); !ready(); runtime.Gosched() {
		if time.Now().After(giveUp) {
			t.Fatalf("never saw that %s", what)
		}
	}
}

func TestHelpersSleepWhenThereIsNothingToJoin(t *testing.T) {
	p := New(3)
	defer p.Close()
	sleeping := func() bool { return p.asleep.Load() == 2 }
	eventually(t, "helpers of an idle pool sleep", sleeping)
	var sessions []*Session
	for range 3 {
		sessions = append(sessions, p.Enter())
	}
	sessions[0].Run(rendezvous(1))
	if !sleeping() {
		t.Error("a helper woke up although all slots are taken")
	}
	for _, s := range sessions {
		s.Leave()
	}
	if got := p.free.Load(); got != 3 {
		t.Errorf("%d of 3 slots are free in the end", got)
	}
}

// meeting is a job whose tasks end when all of them have begun.
type meeting struct {
	tasks int
	begun chan struct{} // closed when all have
	count chan int
}

func rendezvous(tasks int) *meeting {
	m := &meeting{tasks, make(chan struct{}), make(chan int, 1)}
	m.count <- 0
	return m
}

func (m *meeting) Tasks() int { return m.tasks }

func (m *meeting) Do(int, *Worker) {
	n := <-m.count + 1
	m.count <- n
	if n == m.tasks {
		close(m.begun)
	}
	select {
	case <-m.begun:
	case <-time.After(time.Minute):
		panic("the other tasks never began")
	}
}

// A job of as many tasks as threads never has to do without one of them, however
// soon it follows another.
func TestEveryJobGetsAllThreads(t *testing.T) {
	for _, threads := range []int{2, 4} {
		p := New(threads)
		defer p.Close()
		for range 200 {
			s := p.Enter()
			for range 5 {
				s.Run(quick(2))
				s.Run(rendezvous(threads))
			}
			s.Leave()
		}
	}
}

// quick is a job that is over before a helper can come.
type quick int

func (q quick) Tasks() int { return int(q) }

func (quick) Do(int, *Worker) {}

func TestClosedPoolHasNoHelpers(t *testing.T) {
	before := runtime.NumGoroutine()
	p := New(4)
	s := p.Enter()
	s.Run(quick(9))
	p.Close()
	p.Close()
	s.Run(quick(9))
	s.Leave()
	eventually(t, "the helpers have ended", func() bool { return runtime.NumGoroutine() <= before })
}
