package coordinator

import (
	"encoding/json"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/transport"
)

// Kinds of journal records of a networked run, beside those of every run (run.opened, run.resumed, phase.opened, phase.closed,
// round.closed, run.ended; see package simulation).
const (
	KindAccepted = "terms.accepted"
	KindAdmitted = "member.admitted"
	KindLeft     = "member.left"
	KindReceived = "result.received"
	KindRefused  = "result.refused"
	// KindPartial is result.received of several members at once, whose results a relay has added.
	KindPartial   = "partial.received"
	KindDelegated = "relay.delegated"
	KindFold      = "fold.checkpoint"
	KindExtended  = "deadline.extended"
	KindTogether  = "tasks.issued" // which orders of a phase have one message
)

// accepted is a member that agreed to the run's terms.
type accepted struct {
	Name    string           `json:"name"`
	Key     string           `json:"key"`
	Samples int              `json:"samples"`
	Tests   int              `json:"tests"`
	Terms   transport.Digest `json:"terms"`
	Consent transport.Digest `json:"consent"`          // of the signed message, which lies in the folder "consents"
	Schema  json.RawMessage  `json:"schema,omitempty"` // of the data, if the run's was not known before
}

// admitted is a member's place in the run. Members are counted in the order of these records.
type admitted struct {
	Index   int    `json:"index"`
	Name    string `json:"name"`
	Samples int    `json:"samples"`
	Tests   int    `json:"tests"`
}

// left is a member that withdrew or was revoked.
type left struct {
	Index  int            `json:"index"`
	Name   string         `json:"name"`
	Reason string         `json:"reason"`
	Events []record.Event `json:"events,omitempty"`
}

// received is a result that is accepted. Its message, signature and all, lies in the spool until its phase has closed: the journal
// is shown to members, and what one member computed is not for the others.
type received struct {
	Order   int              `json:"order"`
	Member  string           `json:"member"`
	Round   int              `json:"at"` // "round" belongs to metrics and events
	Phase   string           `json:"phase"`
	Base    int              `json:"base"`
	Message transport.Digest `json:"message"`
	Spool   place            `json:"spool"`
	Refs    []transport.Ref  `json:"refs,omitempty"`
	Kernels string           `json:"kernels,omitempty"`
	Memory  string           `json:"memory,omitempty"`
	Clock   time.Duration    `json:"clock"`

	// body is what the message says, of small ones that came since the coordinator was started: it need not be read again.
	body *transport.Result
}

// combined is a relay's sum of results that are accepted. The blob has their messages, signatures and all.
type combined struct {
	Relay   string           `json:"relay"`
	Round   int              `json:"at"`
	Phase   string           `json:"phase"`
	Base    int              `json:"base"`
	Message transport.Digest `json:"message"`
	Ref     transport.Ref    `json:"ref"`
	Leaves  []included       `json:"leaves"`
	Clock   time.Duration    `json:"clock"`
}

// included is one result inside a relay's sum.
type included struct {
	Order   int              `json:"order"`
	Member  string           `json:"member"`
	Message transport.Digest `json:"message"`
	Kernels string           `json:"kernels,omitempty"`
	Memory  string           `json:"memory,omitempty"`
}

// delegation is who is behind a relay from now on.
type delegation struct {
	Relay   string           `json:"relay"`
	Number  int              `json:"number"`
	Leaves  []string         `json:"leaves"`
	Message transport.Digest `json:"message"` // that the coordinator signed
}

// smallResult is the greatest length of a message that is kept in memory as well.
const smallResult = 2 << 10

// refusal is a result that was not accepted.
type refusal struct {
	Order  int              `json:"order"`
	Member string           `json:"member"`
	Code   transport.Code   `json:"code"`
	Reason string           `json:"reason"`
	Events []record.Event   `json:"events,omitempty"`
	Digest transport.Digest `json:"message"`
}

// folds is a checkpoint of the sums of the phase under way. The file begins with a line that lists the orders inside.
type folds struct {
	Round  int              `json:"at"`
	Phase  string           `json:"phase"`
	File   string           `json:"file"`
	Digest transport.Digest `json:"digest"`
	Inside int              `json:"inside"`
}

// extended tells that the clock of a deadline stood still while the coordinator was away.
type extended struct {
	Away   time.Duration  `json:"away"` // by the wall clock
	Round  int            `json:"round"`
	Events []record.Event `json:"events,omitempty"`
}

// closing is what phase.closed says beside the phase: what members are told, and the snapshot after it.
type closing struct {
	Orders     federated.Indices `json:"orders"`               // folded or abstained
	Given      federated.Indices `json:"given_up"`             // refused, failed or given up
	Step       int               `json:"step"`                 // of the round
	State      string            `json:"state"`                // digest of the state after the phase
	Checkpoint string            `json:"checkpoint,omitempty"` // digest of the snapshot's file
	Clock      time.Duration     `json:"clock"`
	Apart      bool              `json:"apart,omitempty"` // orders are First and the member's place in the run
	First      int               `json:"first,omitempty"`
}
