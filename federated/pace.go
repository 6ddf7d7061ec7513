package federated

import (
	"fmt"
	"math"
	"time"
)

// Pace says when a round closes. The zero value is synchronous: every selected member is waited for.
type Pace struct {
	// Quorum is the part of the members in flight, in (0, 1], whose answers close a round; 0 means 1.
	Quorum float64
	// Deadline closes a round that long after it opened, with whatever has come; 0 means never.
	Deadline time.Duration
	// Staleness is how many versions behind the model an answer may be and still count; older ones are refused as late.
	// With 0 every round starts afresh; with more, members still at work when a round closes stay in flight and only the
	// free places are filled: buffered asynchronous aggregation (FedBuff, arXiv 2106.06639).
	Staleness int
	// Discount multiplies the weight of an answer that is s versions behind by (1+s)^(−Discount), rounded to 1/1024.
	Discount float64
}

// Validate returns an error that says which field is out of range.
func (p Pace) Validate() error {
	switch {
	case p.Quorum < 0 || p.Quorum > 1 || math.IsNaN(p.Quorum):
		return fmt.Errorf("quorum %g is outside (0, 1]", p.Quorum)
	case p.Deadline < 0:
		return fmt.Errorf("deadline %v is negative", p.Deadline)
	case p.Staleness < 0:
		return fmt.Errorf("staleness %d is negative", p.Staleness)
	case p.Discount < 0 || math.IsNaN(p.Discount):
		return fmt.Errorf("discount %g is negative", p.Discount)
	}
	return nil
}

// patient reports whether every round waits for everybody it asked.
func (p Pace) patient() bool {
	return (p.Quorum == 0 || p.Quorum == 1) && p.Deadline == 0 && p.Staleness == 0
}

// quorum is how many answers of n end the wait.
func (p Pace) quorum(n int) int {
	if p.Quorum == 0 {
		return n
	}
	return max(1, int(math.Ceil(p.Quorum*float64(n)-1e-9)))
}

// discount is the exponent by which results of this pace are discounted: 0 where none can be stale.
func (p Pace) discount() float64 {
	if p.Staleness == 0 {
		return 0
	}
	return p.Discount
}
