package coordinator

import (
	"slices"
	"sync"

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

// body returns the message body.
func (c closed) body() (*transport.Close, error) {
	counted, err := c.Orders.MarshalText()
	if err != nil {
		return nil, err
	}
	given, err := c.Given.MarshalText()
	if err != nil {
		return nil, err
	}
	b := &transport.Close{Folded: string(counted), Lost: string(given), Head: c.head, Last: c.last}
	if c.final != nil {
		b.Final = 1
	}
	return b, b.State.UnmarshalText([]byte(c.State))
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
