package coordinator

import (
	"sync"
	"time"
)

// acks holds verdicts back that accept a result. A close that names the order says as much and more: with thousands of members
// it comes, signed once for all of them, soon after the last of the results, and a verdict for each is then as much work as
// the tasks were. A phase of few members, or one that closes late, has its verdicts as before: each waits no longer than the
// others take to answer.
type acks struct {
	each time.Duration // for each member that was asked; of so few that this is less than leastHeld nobody waits
	most time.Duration // less than members wait for an answer

	mu    sync.Mutex
	held  map[int]func() // by order
	line  []ack          // in the order in which they are due; those that are not held any more are passed over
	timer *time.Timer
}

// ack is a verdict that waits.
type ack struct {
	order int
	due   time.Time
}

const leastHeld = 100 * time.Millisecond

func newAcks() *acks {
	return &acks{each: time.Millisecond, most: 10 * time.Second, held: map[int]func(){}}
}

// hold calls say, in the course of time, unless the order is forgotten before.
func (a *acks) hold(order int, asked int64, say func()) {
	wait := min(time.Duration(asked)*a.each, a.most)
	if wait < leastHeld {
		say()
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.held[order] = say
	a.line = append(a.line, ack{order, time.Now().Add(wait)})
	if a.timer == nil {
		a.timer = time.AfterFunc(wait, a.expire)
	}
}

// expire says what is due.
func (a *acks) expire() {
	a.mu.Lock()
	var due []func()
	now := time.Now()
	for len(a.line) > 0 {
		x := a.line[0]
		say := a.held[x.order]
		if say != nil && x.due.After(now) {
			break
		}
		a.line = a.line[1:]
		if say != nil {
			due = append(due, say)
			delete(a.held, x.order)
		}
	}
	a.timer = nil
	if len(a.line) > 0 {
		a.timer = time.AfterFunc(a.line[0].due.Sub(now), a.expire)
	}
	a.mu.Unlock()
	for _, say := range due {
		say()
	}
}

// forget drops the verdicts of orders of which the members have been told.
func (a *acks) forget(orders ...[]int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, ids := range orders {
		for _, id := range ids {
			delete(a.held, id)
		}
	}
}

// flush says whatever is held.
func (a *acks) flush() {
	a.mu.Lock()
	if a.timer != nil {
		a.timer.Stop()
		a.timer = nil
	}
	var all []func()
	for _, x := range a.line {
		if say := a.held[x.order]; say != nil {
			all = append(all, say)
			delete(a.held, x.order)
		}
	}
	a.line = nil
	a.mu.Unlock()
	for _, say := range all {
		say()
	}
}
