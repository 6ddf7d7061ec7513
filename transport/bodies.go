package transport

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"
)

// Kind is what a message is.
type Kind string

// The kinds of messages. A member asks with hello, consent, sync, permit, result and leave and gets what stands behind the
// arrow, or an error; the coordinator pushes terms, task, tasks, close and control. The names exchange, query and answer are taken by
// the messages of secure sums and of assisted learning.
const (
	KindHello    Kind = "hello"    // → welcome
	KindWelcome  Kind = "welcome"  //
	KindTerms    Kind = "terms"    // what a run is
	KindConsent  Kind = "consent"  // → duties
	KindSync     Kind = "sync"     // → duties
	KindDuties   Kind = "duties"   // messages that the member may have missed
	KindTask     Kind = "task"     // work of one phase
	KindTasks    Kind = "tasks"    // the same for many members, see tasks.go
	KindSeat     Kind = "seat"     // a member's place in a run
	KindProgress Kind = "progress" // no answer
	KindAsk      Kind = "ask"      // → permit
	KindPermit   Kind = "permit"   //
	KindResult   Kind = "result"   // → verdict
	KindVerdict  Kind = "verdict"  //
	KindClose    Kind = "close"    // the end of a phase
	KindControl  Kind = "control"  // sync, stop, revoked
	KindLeave    Kind = "leave"    // → verdict
	KindError    Kind = "error"    // instead of any other answer

	// Between a relay and the coordinator, and its leaves; see relay.go.
	KindRelay      Kind = "relay"      // → delegation
	KindDelegation Kind = "delegation" // who is behind a relay
	KindLayout     Kind = "layout"     // → folds
	KindFolds      Kind = "folds"      // what the results of a phase are added to
	KindPartial    Kind = "partial"    // → inclusion
	KindInclusion  Kind = "inclusion"  // what became of a partial sum
	KindReceipt    Kind = "receipt"    // a relay has a result
)

var kinds = map[Kind]bool{KindHello: true, KindWelcome: true, KindTerms: true, KindConsent: true, KindSync: true, KindDuties: true,
	KindTask: true, KindTasks: true, KindSeat: true, KindProgress: true, KindAsk: true, KindPermit: true, KindResult: true, KindVerdict: true, KindClose: true,
	KindControl: true, KindLeave: true, KindError: true, KindRelay: true, KindDelegation: true, KindLayout: true, KindFolds: true, KindPartial: true,
	KindInclusion: true, KindReceipt: true}

// Kinds returns all kinds of messages, sorted.
func Kinds() []Kind { return slices.Sorted(maps.Keys(kinds)) }

// Body is the content of a message: a pointer to one of the structs below.
type Body interface {
	Kind() Kind
	// Validate returns what is wrong with the body of a message that refers to so many blobs.
	Validate(refs int) error
}

// Head is how far a journal has come; see package journal.
type Head struct {
	Seq  uint64 `json:"seq"`
	Hash Digest `json:"hash"`
}

// Hello is a member's first word on a connection.
type Hello struct {
	Versions []int           `json:"versions"` // of the protocol that the member speaks
	Program  string          `json:"program"`  // version of the program
	Kernels  string          `json:"kernels"`  // engine and kernel path it computes with, e.g. "cpu/avx2"
	Can      []string        `json:"can"`      // capabilities: "train", "exec", "tasks", …
	Heads    map[string]Head `json:"heads"`    // of the runs it takes part in: the newest it has seen
}

// Welcome answers a Hello.
type Welcome struct {
	Version    int      `json:"version"` // that both will speak
	You        string   `json:"you"`     // the member's name, as the coordinator knows it
	Federation string   `json:"federation"`
	Program    string   `json:"program"`
	Runs       []string `json:"runs"` // that are under way
}

// Terms say what a run is, before anything is computed for it. A member signs them ([Consent]) or declines.
type Terms struct {
	Recipe  string          `json:"recipe"` // resolved, YAML; where Assist is set: what is asked of organisations with columns of their own
	Assist  bool            `json:"assist,omitempty"`
	Schema  json.RawMessage `json:"schema"`  // of the data, see package dataset; null: the members' declarations decide
	Members int             `json:"members"` // that the run waits for before its first round
	Metrics []string        `json:"metrics"` // scalars that may be asked of a member, beside tensors
	// Pages of recipes that are too long are blobs.
	Ref int `json:"ref,omitempty"` // 1 + position of a blob with the recipe, if Recipe is empty
}

// Consent is a member's answer to Terms.
type Consent struct {
	Terms    Digest          `json:"terms"` // of the message
	Declined string          `json:"declined,omitempty"`
	Schema   json.RawMessage `json:"schema"`  // of the member's data
	Samples  int             `json:"samples"` // training examples
	Tests    int             `json:"tests"`   // test examples
}

// Sync asks for what the member may have missed in a run.
type Sync struct {
	Holding []Holding `json:"holding"`
	Head    *Head     `json:"head"` // newest that the member has seen; null at first
}

// Holding is a task that a member has: at work, or with a result that waits for its verdict or for the end of its phase.
type Holding struct {
	Order int    `json:"order"`
	Task  Digest `json:"task"`
	State string `json:"state"` // taken, kept, accepted
}

// Duties are messages of the coordinator, each whole with its signature, that the member is to handle now.
type Duties struct {
	Messages []string `json:"messages"`
	More     bool     `json:"more"` // there are more: sync again
	Gone     string   `json:"gone"` // orders that the member holds and nobody waits for, as ranges: forget them
	Head     *Head    `json:"head"`
}

// Task is the work of one member in one phase. The round and the phase stand in the envelope. The same order always gives the
// same bytes, whenever it is made.
type Task struct {
	Order   int             `json:"order"` // the coordinator's number; unique in the run
	Base    int             `json:"base"`  // version of the state it is made from
	Index   int             `json:"index"` // of the member in the roster
	Samples int             `json:"samples"`
	Group   string          `json:"group,omitempty"`
	Tag     string          `json:"tag,omitempty"`
	Params  json.RawMessage `json:"params,omitempty"` // the method's
	Inputs  []Tensors       `json:"inputs"`
	Slice   *Tensors        `json:"slice,omitempty"` // JSON of the index set; absent: the whole
	// Attached are bytes that the method understands, such as keys of other members.
	Attached *Tensors `json:"attached,omitempty"`
	Barrier  bool     `json:"barrier,omitempty"`
}

// Tensors is a named set of tensors, as the bytes of a safetensors file, or whatever else the field says: here if they are few,
// else in a blob.
type Tensors struct {
	Name   string `json:"name"`
	Inline []byte `json:"inline,omitempty"`
	Ref    int    `json:"ref,omitempty"` // 1 + position of the blob; 0: inline
}

// Progress tells how far a member has come with a task.
type Progress struct {
	Order int     `json:"order"`
	Part  float64 `json:"part"` // 0 to 1
}

// Ask asks to upload the blobs of a result.
type Ask struct {
	Order int    `json:"order"`
	Task  Digest `json:"task"`
	Blobs []Ref  `json:"blobs"`
}

// Permit answers Ask.
type Permit struct {
	Granted bool          `json:"granted"`
	Retry   time.Duration `json:"retry"` // if not granted: ask again after so many nanoseconds
	Expires time.Duration `json:"expires"`
}

// Result is what a member answers a task. Metrics are only those that the terms allow.
type Result struct {
	Order     int                `json:"order"`
	Task      Digest             `json:"task"` // of the message that it answers
	Abstained bool               `json:"abstained,omitempty"`
	Failed    string             `json:"failed,omitempty"` // why there is no result
	Weight    uint64             `json:"weight,omitempty"`
	Addends   []Tensors          `json:"addends,omitempty"`
	Cover     *Tensors           `json:"cover,omitempty"` // JSON of an index set
	Scalars   map[string]float64 `json:"scalars,omitempty"`
	Attached  *Tensors           `json:"attached,omitempty"` // bytes that the method understands, such as masked integers
	Kernels   string             `json:"kernels,omitempty"`
	Memory    string             `json:"memory,omitempty"` // version of the memory it worked from: "" none, "lost", or "round/order"
}

// Outcome is what became of what a member sent.
type Outcome string

// Outcomes.
const (
	Accepted  Outcome = "accepted"
	Duplicate Outcome = "duplicate" // it has been accepted already
	Late      Outcome = "late"      // its phase is over, or the order was given up
	Refused   Outcome = "refused"
)

// Verdict answers Result and Leave.
type Verdict struct {
	Order   int     `json:"order"`
	Outcome Outcome `json:"outcome"`
	Code    Code    `json:"code,omitempty"`
	Reason  string  `json:"reason,omitempty"`
}

// Close is the end of a phase: whose results count.
type Close struct {
	Folded string `json:"folded"` // orders, as ranges "0-41,43"
	Lost   string `json:"lost"`   // orders that were given up or refused
	State  Digest `json:"state"`  // digest of the state after the phase
	Head   Head   `json:"head"`   // of the journal, the record of this close included
	Last   bool   `json:"last"`   // the run is over
	Ref    int    `json:"ref,omitempty"`
	Final  int    `json:"final,omitempty"` // 1 + position of a blob with the final model
}

// Control is an instruction of the coordinator.
type Control struct {
	Action string `json:"action"` // sync (there is something new), stop, revoked
	Reason string `json:"reason,omitempty"`
}

// Leave withdraws the member from a run, or from the federation if the envelope names none.
type Leave struct {
	Reason string `json:"reason,omitempty"`
}

// Failure is the answer to what could not be answered otherwise.
type Failure struct {
	Code    Code   `json:"code"`
	Message string `json:"message"`
}

func (f *Failure) Error() string { return f.Message + " (" + string(f.Code) + ")" }

// Kind implements [Body].
func (*Hello) Kind() Kind    { return KindHello }
func (*Welcome) Kind() Kind  { return KindWelcome }
func (*Terms) Kind() Kind    { return KindTerms }
func (*Consent) Kind() Kind  { return KindConsent }
func (*Sync) Kind() Kind     { return KindSync }
func (*Duties) Kind() Kind   { return KindDuties }
func (*Task) Kind() Kind     { return KindTask }
func (*Progress) Kind() Kind { return KindProgress }
func (*Ask) Kind() Kind      { return KindAsk }
func (*Permit) Kind() Kind   { return KindPermit }
func (*Result) Kind() Kind   { return KindResult }
func (*Verdict) Kind() Kind  { return KindVerdict }
func (*Close) Kind() Kind    { return KindClose }
func (*Control) Kind() Kind  { return KindControl }
func (*Leave) Kind() Kind    { return KindLeave }
func (*Failure) Kind() Kind  { return KindError }

// Validate implements [Body].
func (b *Hello) Validate(int) error {
	if len(b.Versions) == 0 {
		return errors.New("no version")
	}
	return nil
}

// Validate implements [Body].
func (b *Welcome) Validate(int) error { return nil }

// Validate implements [Body].
func (b *Terms) Validate(refs int) error {
	if (b.Recipe == "") == (b.Ref == 0) {
		return errors.New("the recipe stands here or in a blob")
	}
	return position(b.Ref, refs)
}

// Validate implements [Body].
func (b *Consent) Validate(int) error {
	if b.Samples < 0 || b.Tests < 0 || b.Samples > math.MaxInt32 || b.Tests > math.MaxInt32 {
		return fmt.Errorf("%d training and %d test examples", b.Samples, b.Tests)
	}
	return nil
}

// Validate implements [Body].
func (b *Sync) Validate(int) error { return nil }

// Validate implements [Body].
func (b *Duties) Validate(int) error { return nil }

// Validate implements [Body].
func (b *Task) Validate(refs int) error {
	if b.Order < 0 || b.Base < 0 || b.Index < 0 || b.Samples < 0 {
		return fmt.Errorf("order %d, base %d, index %d, %d samples", b.Order, b.Base, b.Index, b.Samples)
	}
	for _, t := range []*Tensors{b.Slice, b.Attached} {
		if t == nil {
			continue
		}
		if err := t.validate(refs); err != nil {
			return err
		}
	}
	return all(b.Inputs, refs)
}

// Validate implements [Body].
func (b *Progress) Validate(int) error {
	if !(b.Part >= 0 && b.Part <= 1) {
		return fmt.Errorf("part %v", b.Part)
	}
	return nil
}

// Validate implements [Body].
func (b *Ask) Validate(int) error {
	if len(b.Blobs) == 0 || len(b.Blobs) > maxRefs {
		return fmt.Errorf("%d blobs", len(b.Blobs))
	}
	for _, r := range b.Blobs {
		if r.Bytes < 0 {
			return fmt.Errorf("a blob of %d bytes", r.Bytes)
		}
	}
	return nil
}

// Validate implements [Body].
func (b *Permit) Validate(int) error {
	if b.Retry < 0 || b.Expires < 0 {
		return fmt.Errorf("retry after %v, expires after %v", b.Retry, b.Expires)
	}
	return nil
}

// Validate implements [Body].
func (b *Result) Validate(refs int) error {
	if b.Order < 0 {
		return fmt.Errorf("order %d", b.Order)
	}
	if b.Abstained && b.Failed != "" || (b.Abstained || b.Failed != "") && (len(b.Addends) > 0 || b.Attached != nil) {
		return errors.New("more than one of a result, an abstention and a failure")
	}
	for _, t := range []*Tensors{b.Cover, b.Attached} {
		if t == nil {
			continue
		}
		if err := t.validate(refs); err != nil {
			return err
		}
	}
	return all(b.Addends, refs)
}

// Validate implements [Body].
func (b *Verdict) Validate(int) error {
	switch b.Outcome {
	case Accepted, Duplicate, Late, Refused:
		return nil
	}
	return fmt.Errorf("outcome %q", b.Outcome)
}

// Validate implements [Body].
func (b *Close) Validate(refs int) error {
	if err := position(b.Ref, refs); err != nil {
		return err
	}
	return position(b.Final, refs)
}

// Validate implements [Body].
func (b *Control) Validate(int) error { return nil }

// Validate implements [Body].
func (b *Leave) Validate(int) error { return nil }

// Validate implements [Body].
func (f *Failure) Validate(int) error { return nil }

func all(sets []Tensors, refs int) error {
	seen := map[string]bool{}
	for _, s := range sets {
		if err := s.validate(refs); err != nil {
			return err
		}
		if seen[s.Name] {
			return fmt.Errorf("tensors %q twice", s.Name)
		}
		seen[s.Name] = true
	}
	return nil
}

func (t Tensors) validate(refs int) error {
	if len(t.Inline) > 0 && t.Ref != 0 {
		return fmt.Errorf("tensors %q stand here and in a blob", t.Name)
	}
	return position(t.Ref, refs)
}

func position(ref, refs int) error {
	if ref < 0 || ref > refs {
		return fmt.Errorf("blob %d of %d", ref, refs)
	}
	return nil
}
