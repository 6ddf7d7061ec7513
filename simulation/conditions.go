package simulation

import (
	"errors"
	"fmt"
	"math"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/rng"
)

// Conditions is how unreliable and how slow the simulated members are. The zero value is perfect: everybody answers, in no
// time.
type Conditions struct {
	// Latency is the median time, on the virtual clock, from a task to its answer.
	Latency time.Duration
	// Spread is the standard deviation of the logarithm of a member's own speed, and Jitter that of every single answer.
	Spread, Jitter float64
	// Dropout is the probability that a member that is asked fails to answer; Stall that it never answers nor fails, so
	// that only a deadline ends the wait. Phases that measure have no deadline: there a stall is a failure like others.
	Dropout, Stall float64
	// Attack is what some members send in place of what they were asked for.
	Attack Attack
}

// Validate returns an error that says which field is out of range.
func (c Conditions) Validate() error {
	switch {
	case c.Latency < 0:
		return fmt.Errorf("latency %v is negative", c.Latency)
	case !(c.Spread >= 0) || !(c.Jitter >= 0):
		return fmt.Errorf("spread %g or jitter %g is negative", c.Spread, c.Jitter)
	case !(c.Dropout >= 0 && c.Dropout < 1):
		return fmt.Errorf("dropout %g is outside [0, 1)", c.Dropout)
	case !(c.Stall >= 0 && c.Stall < 1):
		return fmt.Errorf("stall %g is outside [0, 1)", c.Stall)
	}
	return c.Attack.Validate()
}

// never is the arrival time of an answer that does not come.
const never = time.Duration(math.MaxInt64)

// arrival returns when the answer to o comes on the virtual clock, and the failure that it is, if any. It depends on the
// seed, the member's name and the round alone.
func (c Conditions) arrival(seed uint64, o *federated.Order) (time.Duration, error) {
	r := rng.New(seed, o.Round, o.Member.Name, o.Phase+"/conditions")
	drop, stall, jitter := r.Float64(), r.Float64(), r.NormFloat64()
	at := o.Issued
	if c.Latency > 0 {
		speed := rng.New(seed, 0, o.Member.Name, "speed").NormFloat64()
		at += time.Duration(float64(c.Latency) * math.Exp(float64(c.Spread*speed)+float64(c.Jitter*jitter)))
	}
	switch {
	case stall < c.Stall && o.Barrier:
		return at, errors.New("stalled")
	case stall < c.Stall:
		return never, nil
	case drop < c.Dropout:
		return at, errors.New("the connection was lost")
	}
	return at, nil
}
