package federated

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/cohort-learning/cohort/weights"
)

// Members carry tasks to members and answers back, and tell the time. A simulation runs them on a worker pool under a
// virtual clock; a network sends them over the wire.
type Members interface {
	// Now returns the time since the run began, not counting time during which the run was stopped.
	Now() time.Duration
	// Issue sends an order and returns without waiting for its answer. A resumed run issues orders that were unanswered at
	// its snapshot once more, with their old IDs; members that remember an answer to such an ID give it again.
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

// Recycler is what [Members] may be besides: they are told when an answer has had its effect, and the driver and the sums
// do not use the tensors of its result any more.
type Recycler interface {
	Recycle(*Answer)
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
	// Folds are the sums of the order's phase.
	Folds []Fold

	from *base
}

// Fits returns an error unless a result to the task has the names and shapes that the order's phase sums. A client of this
// program answers so, whatever the values are; an answer that does not fit is no client's.
func (o *Order) Fits(t Task, r Result) error {
	switch {
	case r.Status == Abstained || o.from == nil:
		return nil
	case r.Status != Done:
		return fmt.Errorf("status %d", r.Status)
	}
	for _, fold := range o.from.phase.Folds {
		x, ok := r.Addends[fold.Name]
		if !ok {
			return fmt.Errorf("no %q", fold.Name)
		}
		at, cover := scope(fold, t, r)
		if err := at.Fits(x, fold.Like, cover); err != nil {
			return fmt.Errorf("%s: %w", fold.Name, err)
		}
	}
	if p := o.from.phase; len(r.Attached) > 0 && !p.Gather && p.Attachments == nil {
		return fmt.Errorf("%d attached bytes, for which phase %s has no use", len(r.Attached), p.Name)
	}
	if len(r.Addends) != len(o.from.phase.Folds) {
		return fmt.Errorf("%d sets for %d sums", len(r.Addends), len(o.from.phase.Folds))
	}
	return nil
}

// Answer is what became of an order: a result or an error that says in words why there is none. With a Partial it is what
// became of several orders at once, of which Order is the first, and Task, Result and Err are empty.
type Answer struct {
	Order   *Order
	Task    Task
	Result  Result
	Err     error
	Partial *Partial
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
	// PhaseClosed is called when the state after the phase is known. The function takes a snapshot from which the run goes on
	// with the next phase, or with the end of the round; it may be called as long as PhaseClosed has not returned. Answers
	// that [Members.Next] has returned for orders among the snapshot's flights are not yet used, and will be asked for again
	// where the run goes on from it; all others have had their effect.
	PhaseClosed(PhaseClosed, func() Snapshot) error
	// RoundClosed is called with a snapshot from which the run can go on. The run is only then past this round.
	RoundClosed(RoundClosed, Snapshot) error
	// Progress is called for every answer; it must be quick.
	Progress(phase string, answered, asked int)
}

// FoldSaver is implemented by a [Log] that saves the sums of a phase while it is under way, so that a run resumed in the
// middle of it does not need the answers again that are inside.
type FoldSaver interface {
	// FoldDue reports whether to save now, given how many answers have come since it was saved last; it must be quick.
	FoldDue(unsaved int) bool
	// SaveFold makes durable what write writes, beside the phase that was opened: the next [Underway.Fold]. When it has
	// returned, all answers to orders of this phase that [Members.Next] has returned so far are inside.
	SaveFold(opened PhaseOpened, write func(io.Writer) error) error
}
