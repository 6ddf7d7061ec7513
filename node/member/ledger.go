package member

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/transport"
)

// Kinds of records in the journal of a member.
const (
	KindConsented = "consented"       // what the terms of a run were answered
	KindTaken     = "task.taken"      // a task that the member works on
	KindKept      = "result.kept"     // a result, before any of it is sent
	KindSent      = "result.sent"     // the coordinator has it
	KindRefused   = "result.refused"  // the coordinator does not want it
	KindCommitted = "state.committed" // the result was counted, and its memory is the member's now
	KindDropped   = "state.dropped"   // the result was not counted, and its memory is given up
	KindCharged   = "privacy.charged" // a round of a private run, to the ledger of the data
	KindHead      = "head.seen"       // the end of a phase, or of the coordinator's journal when the member came back
	KindLeft      = "left"            // the member has withdrawn
)

// consented says what the member was asked and answered. Terms is the coordinator's message, signature and all.
type consented struct {
	Run      string           `json:"run"`
	Digest   transport.Digest `json:"digest"`
	Terms    string           `json:"terms"`
	Declined string           `json:"declined,omitempty"`
	Schema   json.RawMessage  `json:"schema,omitempty"`
	Samples  int              `json:"samples"`
	Tests    int              `json:"tests"`
}

// taken holds the coordinator's message, so that the task can be computed again whatever happens.
type taken struct {
	Run   string           `json:"run"`
	Order int              `json:"order"`
	Round int              `json:"round"`
	Step  string           `json:"step"`
	Task  transport.Digest `json:"task"`
	Text  string           `json:"message"`
	Seat  *transport.Seat  `json:"seat,omitempty"` // of this member, where the message has the tasks of many
}

// kept holds the member's message: what is sent is sent in these bytes, however often.
type kept struct {
	Run    string           `json:"run"`
	Order  int              `json:"order"`
	Task   transport.Digest `json:"task"`
	Text   string           `json:"message"`
	Bytes  int64            `json:"bytes"`            // that leave with it
	Memory *memo            `json:"memory,omitempty"` // the new memory, in a file of its own
}

// memo names the file of a memory.
type memo struct {
	Digest transport.Digest `json:"digest"`
	Bytes  int64            `json:"bytes"`
}

type sent struct {
	Run     string            `json:"run"`
	Order   int               `json:"order"`
	Outcome transport.Outcome `json:"outcome"`
}

type refused struct {
	Run     string            `json:"run"`
	Order   int               `json:"order"`
	Outcome transport.Outcome `json:"outcome"` // late or refused
	Code    transport.Code    `json:"code,omitempty"`
	Reason  string            `json:"reason,omitempty"`
}

type committed struct {
	Run    string           `json:"run"`
	Order  int              `json:"order"`
	Round  int              `json:"round"`
	Memory *memo            `json:"memory,omitempty"` // nil: the result had none, and the old one stays
	Close  transport.Digest `json:"close"`
}

type dropped struct {
	Run    string           `json:"run"`
	Order  int              `json:"order"`
	Reason string           `json:"reason"`
	Close  transport.Digest `json:"close,omitzero"`
}

// seen is a head of the coordinator's journal, with the close that brought it, if one did.
type seen struct {
	Run      string           `json:"run"`
	Head     transport.Head   `json:"head"`
	Round    int              `json:"round"`
	Step     string           `json:"step,omitempty"`
	State    transport.Digest `json:"state,omitzero"`
	Close    transport.Digest `json:"close,omitzero"` // of the message
	Last     bool             `json:"last,omitempty"`
	Final    *transport.Ref   `json:"final,omitempty"`    // the final model
	Rollback bool             `json:"rollback,omitempty"` // accepted although it does not continue what was seen before
}

type withdrawn struct {
	Run    string `json:"run,omitempty"` // empty: the whole federation
	Reason string `json:"reason,omitempty"`
}

// status is how far an order has come.
type status uint8

const (
	atWork   status = iota // taken; to be computed
	ready                  // a result is kept and waits for its verdict
	accepted               // the coordinator has it; the phase has not closed
	over                   // counted, given up, late or refused
)

func (s status) String() string { return [...]string{"taken", "kept", "accepted", "over"}[s] }

// order is a task of a run, from its arrival to the end of its phase.
type order struct {
	id      int
	round   int
	step    string
	task    transport.Digest
	message []byte // the task; nil when over
	seat    *transport.Seat
	status  status
	folded  bool // if over: whether it was counted
	closed  bool // if over: whether by a close

	result []byte // the message; nil until kept, and when over
	bytes  int64
	memory *memo

	receipt bool            // a relay has the result, and the coordinator has not said so yet
	since   uint64          // syncs asked when it was taken
	stop    func(why error) // ends what is being done for it; nil when nothing is
}

// read returns the message of a task, and the task.
func (o *order) read() (e transport.Envelope, t transport.Task, err error) {
	if e, err = transport.Peek(o.message); err != nil { // it was verified before it was taken
		return e, t, err
	}
	if e.Kind == transport.KindTask {
		return e, t, e.Decode(&t)
	}
	var all transport.Tasks
	if err := e.Decode(&all); err != nil {
		return e, t, err
	}
	if o.seat == nil {
		return e, t, errors.New("the tasks of many, and no place")
	}
	t, ok := all.For(*o.seat)
	if !ok || t.Order != o.id {
		return e, t, fmt.Errorf("the tasks of many, and none for place %d", o.seat.Index)
	}
	return e, t, nil
}

// phase is a close that has been seen.
type phase struct {
	close, state transport.Digest
}

type phaseKey struct {
	round int
	step  string
}

// run is what a member knows of a run.
type run struct {
	id      string
	consent *consented // nil: not asked yet
	orders  map[int]*order
	head    *transport.Head
	phases  map[phaseKey]phase
	last    *seen // the close that ended it

	memory  *memo // committed
	version string
	order   int // whose memory it is

	paid    map[phaseKey][]transport.Digest // tasks that rounds were charged for, by attempt
	receipt *journal.Head                   // newest of the ledger of the data

	// Of this process:
	part    *Part           // nil until prepared
	spent   bool            // the budget was found too small, and this was told
	checked uint64          // connection on which the coordinator's head was last found to continue ours
	caught  uint64          // connection on which everything missed was last told
	proofs  int             // of the chain that did not come, one after the other
	synced  uint64          // number of the newest sync whose answer has been handled
	lastAt  uint64          // syncs asked when the run was over
	seat    *transport.Seat // nil: not told yet
	paused  bool
	ended   error // not nil: nothing more is done for it here
}

func newRun(id string) *run {
	return &run{id: id, orders: map[int]*order{}, phases: map[phaseKey]phase{}, paid: map[phaseKey][]transport.Digest{}, order: -1}
}

// agreed reports whether tasks may be taken.
func (r *run) agreed() bool { return r.consent != nil && r.consent.Declined == "" }

// holds reports whether there are orders whose end is not known.
func (r *run) holds() bool {
	for _, o := range r.orders {
		if o.status != over {
			return true
		}
	}
	return false
}

// ledger is the journal of a member and what it says.
type ledger struct {
	*journal.Journal
	runs  map[string]*run
	left  bool
	spent map[string]int64 // bytes that left, by day
}

// dayOf is the day that a byte counts for.
func dayOf(t time.Time) string { return t.Local().Format(time.DateOnly) }

// openLedger opens the journal in a folder, or makes it, and reads what it says.
func openLedger(dir, name string, federation identity.Public, o journal.Options) (*ledger, error) {
	o.Run = name + "@" + federation.String()
	j, err := journal.OpenOrCreate(dir, o)
	var locked *journal.LockedError
	if errors.As(err, &locked) {
		return nil, fmt.Errorf("this member is at work already: %w", locked)
	}
	if err != nil {
		return nil, fmt.Errorf("journal of the member: %w", err)
	}
	l := &ledger{Journal: j, runs: map[string]*run{}, spent: map[string]int64{}}
	for r, err := range j.Records() {
		if err == nil {
			err = l.replay(r)
		}
		if err != nil {
			return nil, errors.Join(fmt.Errorf("journal of the member: %w", err), j.Close())
		}
	}
	return l, nil
}

func (l *ledger) run(id string) *run {
	r := l.runs[id]
	if r == nil {
		r = newRun(id)
		l.runs[id] = r
	}
	return r
}

// replay applies one record. Unknown kinds are of later versions and change nothing here.
func (l *ledger) replay(rec journal.Record) error {
	switch rec.Kind {
	case KindConsented:
		return apply(rec, func(b consented) { l.run(b.Run).consent = &b })
	case KindTaken:
		return apply(rec, func(b taken) { l.run(b.Run).take(b) })
	case KindKept:
		return apply(rec, func(b kept) {
			l.spent[dayOf(rec.Time)] += b.Bytes
			l.run(b.Run).keep(b)
		})
	case KindSent:
		return apply(rec, func(b sent) { l.run(b.Run).have(b) })
	case KindRefused:
		return apply(rec, func(b refused) { l.run(b.Run).finish(b.Order, false, false) })
	case KindCommitted:
		return apply(rec, func(b committed) { l.run(b.Run).commit(b) })
	case KindDropped:
		return apply(rec, func(b dropped) { l.run(b.Run).finish(b.Order, false, b.Close != transport.Digest{}) })
	case KindCharged:
		return apply(rec, func(b charged) {
			if b.Attempt >= 0 && b.Attempt < maxAttempts {
				l.run(b.Run).pay(b)
			}
		})
	case KindHead:
		return apply(rec, func(b seen) { l.run(b.Run).see(b) })
	case KindLeft:
		return apply(rec, func(b withdrawn) {
			if b.Run == "" {
				l.left = true
			} else {
				l.run(b.Run).ended = errWithdrawn
			}
		})
	}
	return nil
}

func apply[T any](rec journal.Record, f func(T)) error {
	var b T
	if err := rec.Decode(&b); err != nil {
		return err
	}
	f(b)
	return nil
}

// errWithdrawn says that the member left a run of its own will.
var errWithdrawn = errors.New("withdrawn from")

func (r *run) take(b taken) *order {
	o := &order{id: b.Order, round: b.Round, step: b.Step, task: b.Task, message: []byte(b.Text), seat: b.Seat}
	r.orders[b.Order] = o
	return o
}

func (r *run) keep(b kept) {
	if o := r.orders[b.Order]; o != nil && o.status < accepted {
		o.status, o.result, o.bytes, o.memory = ready, []byte(b.Text), b.Bytes, b.Memory
	}
}

func (r *run) have(b sent) {
	if o := r.orders[b.Order]; o != nil && o.status < over {
		o.status = accepted
	}
}

func (r *run) commit(b committed) {
	if b.Memory != nil {
		r.memory, r.order, r.version = b.Memory, b.Order, versionText(b.Round, b.Order)
	}
	r.finish(b.Order, true, true)
}

// finish lets go of an order.
func (r *run) finish(id int, folded, closed bool) {
	o := r.orders[id]
	if o == nil {
		return
	}
	o.status, o.folded, o.closed = over, folded, closed
	o.message, o.result = nil, nil
}

func (r *run) see(b seen) {
	if b.Rollback { // what came after that head never happened
		clear(r.orders)
		clear(r.phases)
		r.last = nil
	}
	if r.head == nil || b.Rollback || b.Head.Seq > r.head.Seq {
		r.head = &b.Head
	}
	if b.Close != (transport.Digest{}) {
		r.phases[phaseKey{b.Round, b.Step}] = phase{b.Close, b.State}
	}
	if b.Last {
		r.last = &b
	}
}

// versionText names a memory: the round that made it and the order whose result it came with.
func versionText(round, order int) string { return fmt.Sprintf("%d/%d", round, order) }
