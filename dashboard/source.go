package dashboard

import (
	"errors"
	"io"
	"time"

	"github.com/cohort-learning/cohort/record"
)

// A Source is what the page shows: a coordinator and its runs. All methods are called concurrently, some of them several times
// a second while somebody looks: they must be quick, must not wait for a round, and what they return is never changed
// afterwards by either side.
type Source interface {
	// About says whose page this is.
	About() About
	// Runs returns all runs, in any order.
	Runs() []Run
	// Run returns the run as it stands now; false if there is none of that ID.
	Run(id string) (Run, bool)
	// Members returns the members of a run, in any order. A run that has ended may have none to show.
	Members(id string) []Member
	// History returns what the run's records say. It holds everything that was told to the run's Feed before the call: a
	// coordinator updates its record.Metrics from the journal and returns them. Done is called when the page has read what
	// it needs; it is where metrics opened for this call are closed.
	History(id string) (h History, done func(), err error)
	// Feed returns the live feed of a run, always the same while the run lives; nil for a run of which nothing more will
	// be told.
	Feed(id string) *Feed
	// Open opens something to take away; the error is fs.ErrNotExist if there is none.
	Open(id string, what Artifact) (*Download, error)
	// Counters returns what the process has counted since it started, for /metrics.
	Counters() Counters
}

// History is what the page reads of a run's records; *[record.Metrics] is one. Rounds count from 0, as in the records; the page
// shows them from 1.
type History interface {
	Names() ([]string, error)
	Keys(name string) ([]string, error)
	Series(name, key string) ([]record.Point, error)
	Events(levels ...record.Level) ([]record.Event, error)
	Failures() ([]record.Failure, error)
}

var _ History = (*record.Metrics)(nil)

// eachMetric visits the metrics whose names are wanted, by name, key and time.
func eachMetric(h History, wanted func(name string) bool, visit func(record.Metric)) error {
	names, err := h.Names()
	if err != nil {
		return err
	}
	for _, name := range names {
		if !wanted(name) {
			continue
		}
		keys, err := h.Keys(name)
		if err != nil {
			return err
		}
		for _, key := range keys {
			points, err := h.Series(name, key)
			if err != nil {
				return err
			}
			for _, p := range points {
				visit(record.Metric{Name: name, Key: key, Round: p.Round, Step: p.Step, Value: p.Value})
			}
		}
	}
	return nil
}

// About is the coordinator itself.
type About struct {
	Federation string    // its name
	Version    string    // of the program
	Started    time.Time // when this process began
}

// A State is how far a run has come.
type State string

// The states of a run. Waiting and Paused are a living run's; the others are those of the records.
const (
	Waiting     State = "waiting" // for members to join, or for its turn
	Running     State = "running"
	Paused      State = "paused"
	Finished    State = "finished"
	Interrupted State = "interrupted" // can be resumed
	Failed      State = "failed"
)

// Ended reports whether nothing more happens in a run of this state.
func (s State) Ended() bool { return s == Finished || s == Interrupted || s == Failed }

// A Run is a run as it stands at one instant.
type Run struct {
	ID     string
	Title  string // the ID if empty
	Method string // such as "heterofl"
	State  State
	Error  string // what ended a run that failed, in words
	Reason string // what a run waits for, or why it is paused; may be empty

	Created time.Time
	Ended   time.Time // zero while it lives

	Round  int // under way, counted from 1; 0 before the first; of a run that ended, the last one closed
	Rounds int // planned; 0 is unknown

	Phase    string // under way, such as "train"; empty between phases
	Answered int    // members of those asked in this phase who have answered or failed
	Asked    int
	Deadline time.Time // of the phase; zero is none

	Up, Down int64 // bytes of all rounds so far: from members, to members

	// Among says that the run is one of organisations with columns of their own: they have models, and there is no global one.
	Among bool

	Facts  []Fact // settings worth showing, in the recipe's words
	Report bool   // Open(id, Report) has something
	Model  bool   // Open(id, Model) has something
	Digest string // of the newest state, hexadecimal; may be empty
}

// A Fact is a label and what it says.
type Fact struct{ Label, Value string }

// A Presence says where a member is.
type Presence string

// The presences of a member.
const (
	Invited Presence = "invited" // has not joined yet
	Here    Presence = "here"    // connected, with nothing to do
	Working Presence = "working" // connected and asked in this phase
	Slow    Presence = "slow"    // asked, and takes longer than most
	Gone    Presence = "gone"    // admitted, but not connected
	Left    Presence = "left"    // has withdrawn
	Revoked Presence = "revoked"
)

// presences in the order in which people want to know.
var presences = []Presence{Working, Here, Slow, Gone, Invited, Left, Revoked}

// A Member is one member as it stands at one instant. Everything but the name may be zero; then the page shows a dash.
type Member struct {
	Name     string
	Presence Presence
	Note     string    // a few words more: "asked 40 s ago", "wrong clock"
	Seen     time.Time // when it was last heard of
	Level    string    // of its model, where the method has levels
	Kernels  string    // kernel family that its results come from, such as "avx2"
	Samples  int64     // examples that it declared
	Folded   int       // rounds in which its result was folded
}

// An Artifact is something to take away from a run.
type Artifact string

// The artifacts.
const (
	Report Artifact = "report" // report.html
	Model  Artifact = "model"  // safetensors
)

// A Download is an opened artifact; the page closes it.
type Download struct {
	Name    string // file name that is proposed: "mnist-1.safetensors"
	Changed time.Time
	Content io.ReadSeekCloser
}

// Counters are what a coordinator's process has counted. Numbers only grow, except those that say "now".
type Counters struct {
	Verdicts []VerdictCount // results by what became of them
	Unfolded int            // results accepted and not yet folded, now
	Waiting  int            // members that wait for a permit, now
	Permits  uint64         // permits given

	Appends  uint64        // records appended to journals
	Syncs    uint64        // syncs of journals; several appends may share one
	SyncTime time.Duration // spent in them

	Refused     map[string]uint64 // connections refused at the gate, by reason: "tls", "rate", "cap", "admission", …
	Connections int               // open now
}

// A VerdictCount is how many results had one outcome.
type VerdictCount struct {
	Verdict string // accepted, duplicate, late, refused
	Code    string // why refused; a stable code, or empty
	Count   uint64
}

// ErrNoHistory may be returned by History for a run that has no records yet: the page shows it without curves.
var ErrNoHistory = errors.New("the run has no records yet")
