package federated

import (
	"context"
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
	// deadline is no deadline. It must not be called with nothing in flight.
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
	Base   int
	Issued time.Duration
	// Make builds the task; it is called once, by whoever carries the order, when the member is ready for it.
	Make func() (Task, error)

	task Task // what Make returned, for folding
}

// Answer is what became of an order: a result or an error that says in words why there is none.
type Answer struct {
	Order  *Order
	Task   Task
	Result Result
	Err    error
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

// PhaseOpened is the record of a phase's beginning.
type PhaseOpened struct {
	Round    int           `json:"round"`
	Phase    string        `json:"phase"`
	Base     int           `json:"base"`
	Everyone bool          `json:"everyone,omitempty"`
	Selected []int         `json:"selected,omitempty"` // members asked now, unless everyone is
	InFlight int           `json:"inflight,omitempty"` // members still at work from earlier rounds
	Opened   time.Duration `json:"opened"`
}

// PhaseClosed is the record of a phase's end.
type PhaseClosed struct {
	Round     int           `json:"round"`
	Phase     string        `json:"phase"`
	Asked     int           `json:"asked"`
	Everyone  bool          `json:"everyone,omitempty"` // all asked members were folded: Folded is left out
	Folded    []Folded      `json:"folded,omitempty"`
	Abstained []int         `json:"abstained,omitempty"`
	Failed    []Failure     `json:"failed,omitempty"`
	Traffic   []Traffic     `json:"traffic,omitempty"`
	Metrics   []Metric      `json:"metrics,omitempty"`
	Notes     []string      `json:"notes,omitempty"`
	Closed    time.Duration `json:"closed"`
}

// RoundClosed is the record of a round's end.
type RoundClosed struct {
	Round   int           `json:"round"`
	Version int           `json:"version"`
	Digest  string        `json:"digest"` // of the state after the round
	Closed  time.Duration `json:"closed"`
}

// Snapshot is everything the driver needs to go on after a round, besides the members' memories.
type Snapshot struct {
	State  State
	Clock  time.Duration
	NextID int
	// Flights are the orders that were in flight, and Bases the states that they were made from, by version.
	Flights []Flight
	Bases   map[int]State
}

// Flight is an order that was in flight when a snapshot was taken.
type Flight struct {
	ID     int           `json:"id"`
	Member int           `json:"member"`
	Round  int           `json:"round"`
	Step   int           `json:"step"`
	Base   int           `json:"base"`
	Issued time.Duration `json:"issued"`
}
