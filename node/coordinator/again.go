package coordinator

import "github.com/cohort-learning/cohort/transport"

// awaits returns the result that was accepted for an order before the coordinator was restarted, by itself or in a relay's sum, if
// the driver has not issued that order again yet.
func (d *desk) awaits(id int) (rec *received, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if r := d.recorded[id]; r != nil {
		return r.received, true
	}
	if b := d.bundles[id]; b != nil {
		for _, l := range b.Leaves {
			if l.Order == id {
				return &received{Order: id, Member: l.Member, Message: l.Message}, true
			}
		}
	}
	return nil, false
}

// coming reports whether an order that is not here may be issued again soon, as the run was resumed a moment ago. Of orders with
// lower numbers than recorded ones that is true as well: the driver issues them in their order.
func (d *desk) coming(id int) bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	_, inside := d.settled[id]
	return d.behind && d.orders[id] == nil && (id > d.issued || id < d.reserved) && !inside
}

// reserve takes up the numbers below next, whether there are orders of all of them or not.
func (d *desk) reserve(next int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.reserved = max(d.reserved, next)
	d.highest = max(d.highest, next-1)
}

// caughtUp says that all orders of before the run was resumed have been issued again.
func (d *desk) caughtUp() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.behind = false
}

// settles reports whether a result is inside the sums with which the run was resumed.
func (d *desk) settles(id int) (message transport.Digest, ok bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	message, ok = d.settled[id]
	return message, ok
}
