// Package federated is learning together with the same features: the driver of rounds and what a method must say.
//
// A method is an [Algorithm]: functions over an explicit [State], as small as a paper's pseudocode. A round is one or more
// phases ("train", "stats", "eval"); in each the driver asks the algorithm for one [Task] a selected member, sends it, adds
// the [Result]s exactly as they arrive, and hands the sums to Finish, which returns the next state. The driver owns
// everything else: selection, quorum, deadline, staleness, failures, adding, the log and checkpoints ([Run]).
//
// The same driver, algorithm and client run in a simulation and over a network; only the [Members] that carry tasks and the
// clock differ. Nothing goes back up: a client never calls the server, randomness comes from named streams, and the
// result of a round depends on who took part, never on the order of arrival or the number of threads.
package federated

import (
	"context"
	"encoding"
	"encoding/json"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// Phase is one exchange of a round.
type Phase struct {
	Name  string // "train", "stats", "eval", …: what the client is asked to do
	Who   Selection
	Folds []Fold // what the results are added to
	// Collect names scalars that are wanted of every single member, in [Roll.Each], besides their sums.
	Collect []string
	// Barrier makes the phase wait for every member asked, whatever the quorum and the staleness of the run: for phases
	// that measure instead of learn. Their results are never discounted.
	Barrier bool
	// Gather asks for what members attach to their results, in [Roll.Gathered], each by itself.
	Gather bool
	// Attachments, if not nil, returns a fresh sum of what the members of one group attach to their results.
	Attachments func() Attachments
	// Always has Finish called even if nobody's result was folded: that nobody came must not show in what is published.
	Always bool
}

// Attachments is a sum of what members attach to their results, such as masked integers. The order of adding must not matter.
type Attachments interface {
	// Add adds what the member with this task attached, or nothing if it returns an error.
	Add(t Task, attached []byte) error
	encoding.BinaryMarshaler
	encoding.BinaryUnmarshaler
}

// Fold is one sum that the results of a phase are added to.
type Fold struct {
	Name    string      // the key in [Result.Addends]
	Like    weights.Set // names and shapes of the whole
	Indexed bool        // whether addends have the shape of the task's Index and Cover applies
	Counts  bool        // whether the weights that cover each coordinate are counted
	// Undiscounted addends count in full however stale they are: for bookkeeping that must stay consistent with what members
	// keep, such as control variates.
	Undiscounted bool
	// Exact addends are numbers that must be added and nothing else, such as variances: no robust rule takes the place of the sum.
	Exact bool
}

// Selection says who takes part in a phase.
type Selection struct {
	Everyone bool              // all eligible members that are not gone
	Fraction float64           // else this part of those of them that have examples, in (0, 1]; 0 selects nobody
	RoundUp  bool              // ⌈·⌉ instead of ⌊·⌋ members; at least one either way
	Eligible func(Member) bool // nil: everyone is
	// ByExamples draws members with probabilities proportional to their examples, one after the other without putting back,
	// instead of uniformly.
	ByExamples bool
	// Coins draws every eligible member by a coin of its own that shows with probability Fraction, whether it has examples or
	// not: Poisson sampling. The coins are secret, see [Server.Secret]; nobody may be drawn.
	Coins bool
	// Stream, if not empty, names the stream that members are drawn with, in place of the phase's name.
	Stream string
}

// Member is one participant as the server knows it.
type Member struct {
	Index   int    // position in the roster
	Name    string // stable name; random streams are keyed by it
	Samples int    // training examples it declared
	Gone    bool   // it has left or was put out, and is not asked any more
}

// Population is the roster: who could be asked. It may grow at its end, and members may go, but an index, name and number
// of samples stay a member's for ever. The driver reads its length at the opening of each phase; what comes later takes
// part from the next phase on. Methods must be safe for concurrent use.
type Population interface {
	Len() int
	Member(i int) Member
}

// Task is what one member is asked to do in one phase.
type Task struct {
	Group  string                 // the sums its result is added to
	Tag    string                 // for accounting, e.g. the level; bytes are reported a tag
	Sets   map[string]weights.Set // what is sent down, by name: "w", "c", "stats"
	Index  weights.Index          // which coordinates of the whole the indexed folds' addends are; nil: all
	Params json.RawMessage        // the method's own parameters
	// Attached is whatever else is sent, such as keys of other members.
	Attached []byte

	// The driver fills these in.
	Round int
	Phase string
	Base  int // version of the state the task was made from
}

// Bytes returns the bytes of the tensors that are sent down, and of what is attached.
func (t Task) Bytes() int64 {
	n := int64(len(t.Attached))
	for _, s := range t.Sets {
		n += s.Bytes()
	}
	return n
}

// Status is how a member answered.
type Status uint8

// The ways to answer. Abstaining is neither a failure nor a loss of quorum.
const (
	Done Status = iota
	Abstained
)

// Result is what a member answers.
type Result struct {
	Status  Status
	Weight  uint64                 // integer weight of the addends, e.g. the number of samples; 0 counts as 1
	Addends map[string]weights.Set // by fold name; deltas to the task's weights for what is learned
	Cover   weights.Index          // the coordinates of indexed addends that count; nil: all of the task's Index
	Scalars map[string]float64     // sums, e.g. "loss" (Σ over examples), "correct", "examples"
	Keep    *weights.Set           // the member's new memory; committed only if the result is folded
	// Attached is whatever else is sent, if the phase takes it; see [Phase.Gather] and [Phase.Attachments].
	Attached []byte
}

// Client does a member's part. Run may be called for many members at once; everything that differs between them is in the
// arguments. Keep is the member's committed memory, nil at its first visit.
type Client interface {
	Run(ctx context.Context, at Local, task Task, keep *weights.Set) (Result, error)
}

// Local is where a client runs: its name, its data and its tools.
type Local struct {
	Member Member
	Engine *train.Engine
	Seed   uint64 // of the run
	Scope  string // names the run, unlike any other anywhere
	Train  dataset.View
	Test   dataset.View // may be empty
	Skew   dataset.Skew // how the member sees its data: the feature skew of a partition
	Vault  Vault        // what it must do only once
	Peers  Peers        // the other members, as it knows them
}

// Rand returns the member's stream for a purpose in a round.
func (l Local) Rand(round int, purpose string) *rng.Stream {
	return rng.New(l.Seed, round, l.Member.Name, purpose)
}

// Server is what the coordinator's side of an algorithm may use.
type Server struct {
	Engine     *train.Engine
	Seed       uint64
	Scope      string // names the run, as [Local.Scope] does
	Population Population
	Train      dataset.View // the server's own training data (in a simulation of centralised learning the pooled data); may be empty
	Test       dataset.View // the server's test data; may be empty
	// Secret returns 32 bytes that nobody can predict, for a purpose in a round: the same ones if it is asked again, also after
	// a restart. Members see only what is made with them. Nil: whoever runs this cannot keep secrets.
	Secret func(round int, purpose string) ([32]byte, error)
	// Verify returns nil if a message carries the signature of the member of that name, as [Peers.Verify] does for members. Nil:
	// signatures are left to the members.
	Verify func(name string, msg, sig []byte) error
}

// Rand returns the server's stream for a purpose in a round.
func (s Server) Rand(round int, purpose string) *rng.Stream {
	return rng.New(s.Seed, round, "", purpose)
}

// Algorithm is a method. Its functions are called by one goroutine at a time, except Task, which must be pure and safe for
// concurrent use.
type Algorithm interface {
	// Check returns an error that says what this run lacks (server data, momentum where it must be zero, …). It is called
	// once, before anything is computed.
	Check(Server) error
	// Init returns the state before round 0.
	Init(context.Context, Server) (State, error)
	// Next returns the phase at s.Round and s.Step, or false when the round has no further phase.
	Next(s State) (Phase, bool)
	// Task returns what one selected member is asked to do.
	Task(s State, p Phase, m Member) (Task, error)
	// Finish turns the sums of a phase, by group, into the next state. If the phase asks members (its Selection is for
	// everyone or has a Fraction) it is only called when somebody's result was folded. It may train or evaluate on the
	// server's data.
	Finish(ctx context.Context, srv Server, s State, p Phase, sums map[string]*Sum, roll Roll) (State, Diagnostics, error)
	// Client returns the members' side.
	Client() Client
}

// Ender is an [Algorithm] that may find that a run is over before its last planned round.
type Ender interface {
	// Over reports whether no further round is to be opened. S is a state between rounds; the answer depends on nothing else.
	Over(s State) bool
}

// Over reports whether an algorithm says that a run is over in a state between rounds.
func Over(a Algorithm, s State) bool {
	e, ok := a.(Ender)
	return ok && e.Over(s)
}

// Sum is the exact sum of the results of one group.
type Sum struct {
	Total   map[string]*weights.Acc // by fold name
	Scalars map[string]float64      // sums of the results' scalars; never discounted
	Weight  uint64                  // sum of the results' weights, in units of 1/Unit
	N       int                     // number of results
	// Attached is the sum of the attachments, if the phase adds them.
	Attached Attachments
	// Unit is what a weight of 1 counts in Weight and in the sums and counts of folds that are not Undiscounted: 1, or 1024
	// where stale results are discounted. It cancels in means.
	Unit uint64
}

// Roll is who took part in a phase. The slices hold members by index, ascending; Failed is by name.
type Roll struct {
	Asked     int
	Folded    []Folded
	Abstained []int
	Failed    []Failure
	Each      Each // if the phase collects
	Gathered  []Gathered
}

// Gathered is what one member attached to its result, if the phase gathers; by member, ascending.
type Gathered struct {
	Member   int
	Attached []byte
}

// Folded is one result that counted.
type Folded struct {
	Member int
	Base   int // version of the state that the task was made from
}

// Failure says what happened to whom, in words for a person.
type Failure struct {
	Member string `json:"member"`
	Index  int    `json:"-"`     // the member's position in the roster
	Round  int    `json:"round"` // the round in which the task was issued
	Phase  string `json:"phase"`
	Reason string `json:"reason"`
}

// Each holds the scalars of single members that a phase collects.
type Each struct {
	Members []int32              // by index, ascending
	Values  map[string][]float64 // by scalar, then as in Members; NaN for a member that did not send it
}

// Metric is one number for people to look at.
type Metric struct {
	Name  string  `json:"name"`          // e.g. "accuracy"
	Key   string  `json:"key,omitempty"` // e.g. a level; empty for the whole
	Value float64 `json:"value"`
}

// Diagnostics is what an algorithm wants recorded about a phase.
type Diagnostics struct {
	Metrics []Metric
	Notes   []string // one line each, for the log
}

// Add appends a metric.
func (d *Diagnostics) Add(name, key string, v float64) {
	d.Metrics = append(d.Metrics, Metric{name, key, v})
}

// FitScalars returns the sums that describe a member's training.
func FitScalars(r train.Report) map[string]float64 {
	return map[string]float64{
		"train.loss": r.Loss * float64(r.Examples), "train.examples": float64(r.Examples), "train.steps": float64(r.Steps),
	}
}

// Training adds what [FitScalars] collected: the mean loss over the examples that members trained on, each at its own
// step, which it returns.
func (d *Diagnostics) Training(sum *Sum) float64 {
	n := sum.Scalars["train.examples"]
	if n == 0 {
		return 0
	}
	loss := sum.Scalars["train.loss"] / n
	d.Add("loss.train", "", loss)
	d.Add("train.steps", "", sum.Scalars["train.steps"])
	return loss
}
