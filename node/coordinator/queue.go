package coordinator

import (
	"slices"
	"time"
)

// queue hands out the permits to upload results: at most size of them are out or lie unfolded at a time, so that the disk of
// the coordinator holds a window of results and not a whole cohort's. Who asks in vain waits in line.
type queue struct {
	size    int
	out     map[int]time.Time // orders that have a permit, and when it ends
	waiting []ask
	given   uint64
}

type ask struct {
	order int
	life  time.Duration // of the permit
	grant func(bool)
}

// request asks for a permit; grant is called now or later, once.
func (q *queue) request(a ask, unfolded int) {
	if _, ok := q.out[a.order]; ok { // asked again: the same permit, for longer
		q.give(a)
		return
	}
	if i := slices.IndexFunc(q.waiting, func(w ask) bool { return w.order == a.order }); i >= 0 {
		q.waiting[i].grant(false)
		q.waiting[i] = a
		return
	}
	q.waiting = append(q.waiting, a)
	q.fill(unfolded)
}

func (q *queue) give(a ask) {
	if q.out == nil {
		q.out = map[int]time.Time{}
	}
	q.out[a.order] = time.Now().Add(a.life)
	q.given++
	a.grant(true)
}

// fill gives permits to those in front while there is room.
func (q *queue) fill(unfolded int) {
	if len(q.waiting) == 0 {
		return
	}
	if len(q.out)+unfolded >= q.size {
		now := time.Now()
		for order, end := range q.out {
			if now.After(end) {
				delete(q.out, order)
			}
		}
	}
	for len(q.waiting) > 0 && len(q.out)+unfolded < q.size {
		a := q.waiting[0]
		q.waiting = q.waiting[1:]
		q.give(a)
	}
}

// drop ends the permit or the waiting of an order.
func (q *queue) drop(order int) {
	delete(q.out, order)
	if i := slices.IndexFunc(q.waiting, func(w ask) bool { return w.order == order }); i >= 0 {
		q.waiting[i].grant(false)
		q.waiting = slices.Delete(q.waiting, i, i+1)
	}
}

// refuseAll sends everybody away.
func (q *queue) refuseAll() {
	for _, a := range q.waiting {
		a.grant(false)
	}
	q.waiting = nil
}
