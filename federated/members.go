package federated

import (
	"context"
	"fmt"
	"time"

	"github.com/cohort-learning/cohort/weights"
)

// Members carry tasks to members and answers back, and tell the time. A simulation runs them on a worker pool under a
// virtual clock; a network sends them over the wire.
type Members interface {
	// Now returns the time since the run began, not counting time during which the run was stopped.
	Now() time.Duration
	// Issue sends an order and returns without waiting for its answer.
	Issue(ctx context.Context, o *Order) error
	// Next waits for the next answer, or until the clock reaches the deadline, in which case the answer is nil. A zero
	// deadline is no deadline. It must not be called with nothing in flight. Every order is answered at most once. When ctx
	// is done, Next returns its error and no answer: work that was cut short is not a member's failure.
	Next(ctx context.Context, deadline time.Duration) (*Answer, error)
	// Drop says that an order's answer is no longer wanted; it will not be returned by Next.
	Drop(o *Order)
	// Keep replaces a member's memory: what it gets back at its next visit. It becomes durable with the next snapshot.
	Keep(member int, memory *weights.Set) error
}

// Order is one task on its way.
type Order struct {
	ID     int
	Member Member
	Round  int
	Phase  string
	Base   int           // version of the state that the task is made from
	Issued time.Duration // on the members' clock
	// Barrier says that the phase waits for the answer whatever happens; it must come, be it an error.
	Barrier bool
	// Make builds the task, when the member is ready for it. It is pure and safe for concurrent use.
	Make func() (Task, error)

	from *base
}

// Answer is what became of an order: a result or an error that says in words why there is none.
type Answer struct {
	Order  *Order
	Task   Task
	Result Result
	Err    error
}

// Perform carries out an order where the member is: it makes the task and runs the client. A panic of the client is an
// error of the answer.
func Perform(ctx context.Context, c Client, at Local, o *Order, keep *weights.Set) (a *Answer) {
	a = &Answer{Order: o}
	defer func() {
		if r := recover(); r != nil {
			a.Result, a.Err = Result{}, fmt.Errorf("the client broke: %v", r)
		}
	}()
	if a.Task, a.Err = o.Make(); a.Err == nil {
		a.Result, a.Err = c.Run(ctx, at, a.Task, keep)
	}
	return a
}

// Traffic is what was moved for one tag in one phase.
type Traffic struct {
	Tag     string `json:"tag,omitempty"`
	Members int    `json:"members"`
	Down    int64  `json:"down"` // bytes of tensors sent to members
	Up      int64  `json:"up"`   // bytes of tensors received from them
}

// Log is told what happens, in order. Its methods are called by the driver's goroutine; an error ends the run.
type Log interface {
	// PhaseOpened is called before the first task of a phase is sent.
	PhaseOpened(PhaseOpened) error
	// PhaseClosed is called when the state after the phase is known.
	PhaseClosed(PhaseClosed) error
	// RoundClosed is called with a snapshot from which the run can go on. The run is only then past this round.
	RoundClosed(RoundClosed, Snapshot) error
	// Progress is called for every answer; it must be quick.
	Progress(phase string, answered, asked int)
}
