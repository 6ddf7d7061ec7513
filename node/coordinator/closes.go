package coordinator

import (
	"slices"
	"sync"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/transport"
)

// closed is a phase that has closed, as members are told of it.
type closed struct {
	round int
	phase string
	closing
	head  transport.Head
	last  bool           // the run is over
	final *transport.Ref // the final model, if the run is over and has one
}

// closes are the phases of a run that have closed. What a member has missed is found here.
type closes struct {
	mu   sync.Mutex
	list []closed
}

func (c *closes) add(x closed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list = append(c.list, x)
}

// last returns the newest.
func (c *closes) last() closed {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.list[len(c.list)-1]
}

// of returns the phase that an order was closed with. Most members ask for recent ones.
func (c *closes) of(order int) (closed, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, x := range slices.Backward(c.list) {
		if has(x.Orders, order) || has(x.Given, order) {
			return x, true
		}
	}
	return closed{}, false
}

// conclude sets the final model of a run that is over.
func (c *closes) conclude(ref transport.Ref) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.list[len(c.list)-1].final = &ref
}

// final returns the end of the run.
func (c *closes) final() (closed, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.list); n > 0 && c.list[n-1].last {
		return c.list[n-1], true
	}
	return closed{}, false
}

func has(sorted []int, x int) bool {
	_, ok := slices.BinarySearch(sorted, x)
	return ok
}

// everybody is who a close is for that names all orders.
const everybody = -1

// body returns the message body, for the member in a place of the run. Where orders are numbered by place, which are in it
// would tell who took part: there each member is told of its own.
func (c closed) body(place int) (*transport.Close, error) {
	orders, lost := c.Orders, c.Given
	if c.Apart {
		orders, lost = only(orders, c.First+place), only(lost, c.First+place)
	}
	counted, err := orders.MarshalText()
	if err != nil {
		return nil, err
	}
	given, err := lost.MarshalText()
	if err != nil {
		return nil, err
	}
	b := &transport.Close{Folded: string(counted), Lost: string(given), Head: c.head, Last: c.last}
	if c.final != nil {
		b.Final = 1
	}
	return b, b.State.UnmarshalText([]byte(c.State))
}

// only returns the set of one number, if it is in another set.
func only(sorted federated.Indices, x int) federated.Indices {
	if has(sorted, x) {
		return federated.Indices{x}
	}
	return nil
}

// head returns how far the journal had come when the newest phase closed.
func (c *closes) head() (transport.Head, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.list) == 0 {
		return transport.Head{}, false
	}
	return c.list[len(c.list)-1].head, true
}
