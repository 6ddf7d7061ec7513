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
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// State is everything a run must remember on the server between phases; it is checkpointed whole. Finish returns a new
// State and never changes the tensors of an old one: tasks in flight still refer to them.
type State struct {
	Round   int // the round under way, from 0
	Step    int // the phase under way within the round, from 0
	Version int // how many times the model has changed; tasks carry it as their base
	Sets    map[string]weights.Set
	Meta    json.RawMessage // whatever else the algorithm keeps
}

// With returns a copy of s in which the named set is replaced.
func (s State) With(name string, set weights.Set) State {
	sets := make(map[string]weights.Set, len(s.Sets)+1)
	for k, v := range s.Sets {
		sets[k] = v
	}
	sets[name] = set
	s.Sets = sets
	return s
}

// Phase is one exchange of a round.
type Phase struct {
	Name  string // "train", "stats", "eval", …: what the client is asked to do
	Who   Selection
	Folds []Fold // what the results are added to
	// Collect asks for the scalars of every member in [Roll.Each], besides their sums.
	Collect bool
	// Barrier makes the phase wait for every member asked, whatever the quorum and the staleness of the run: for phases
	// that measure instead of learn.
	Barrier bool
}

// Fold is one sum that the results of a phase are added to.
type Fold struct {
	Name    string      // the key in [Result.Addends]
	Like    weights.Set // names and shapes of the whole
	Indexed bool        // whether addends have the shape of the task's Index and Cover applies
	Counts  bool        // whether the weights that cover each coordinate are counted
}

// Selection says who takes part in a phase.
type Selection struct {
	Everyone bool              // all eligible members
	Fraction float64           // else this part of the eligible members, in (0, 1]; 0 selects nobody
	RoundUp  bool              // ⌈·⌉ instead of ⌊·⌋ members; at least one either way
	Eligible func(Member) bool // nil: everyone is
	// ByExamples draws members with probabilities proportional to their examples, one after the other without putting back,
	// instead of uniformly.
	ByExamples bool
}

// Member is one participant as the server knows it.
type Member struct {
	Index   int    // position in the roster
	Name    string // stable name; random streams are keyed by it
	Samples int    // training examples it declared
}

// Population is the roster: who could be asked. Methods must be safe for concurrent use.
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

	// The driver fills these in.
	Round int
	Phase string
	Base  int // version of the state the task was made from
}

// Bytes returns the bytes of the tensors that are sent down.
func (t Task) Bytes() int64 {
	var n int64
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
	Train  dataset.View
	Test   dataset.View // may be empty
	Skew   dataset.Skew // how the member sees its data: the feature skew of a partition
}

// Rand returns the member's stream for a purpose in a round.
func (l Local) Rand(round int, purpose string) *rng.Stream {
	return rng.New(l.Seed, round, l.Member.Name, purpose)
}

// Server is what the coordinator's side of an algorithm may use.
type Server struct {
	Engine     *train.Engine
	Seed       uint64
	Population Population
	Train      dataset.View // the server's own training data (in a simulation of centralised learning the pooled data); may be empty
	Test       dataset.View // the server's test data; may be empty
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
	// Finish turns the sums of a phase, by group, into the next state. It is not called if nobody's result was folded,
	// unless the phase selects nobody. It may train or evaluate on the server's data.
	Finish(ctx context.Context, srv Server, s State, p Phase, sums map[string]*Sum, roll Roll) (State, Diagnostics, error)
	// Client returns the members' side.
	Client() Client
}

// Sum is the exact sum of the results of one group.
type Sum struct {
	Total   map[string]*weights.Acc // by fold name
	Scalars map[string]float64      // sums of the results' scalars
	Weight  uint64                  // sum of the results' weights
	N       int                     // number of results
}

// Roll is who took part in a phase. The slices hold members by index, ascending; Failed is by name.
type Roll struct {
	Asked     int
	Folded    []Folded
	Abstained []int
	Failed    []Failure
	Each      []Each // if the phase collects
}

// Folded is one result that counted.
type Folded struct {
	Member int `json:"m"`
	Base   int `json:"base"`
}

// Failure says what happened to whom, in words for a person.
type Failure struct {
	Member string `json:"member"`
	Round  int    `json:"round"` // the round in which the task was issued
	Phase  string `json:"phase"`
	Reason string `json:"reason"`
}

// Each holds one member's scalars.
type Each struct {
	Member  int
	Scalars map[string]float64
}

// Metric is one number for people to look at.
type Metric struct {
	Name  string  `json:"name"`          // e.g. "global.accuracy"
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
	d.Add("train.loss", "", loss)
	d.Add("train.steps", "", sum.Scalars["train.steps"])
	return loss
}

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
