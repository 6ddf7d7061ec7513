package federated

import (
	"fmt"
	"strconv"
	"strings"
	"time"
)

// PhaseOpened is the record of a phase's beginning.
type PhaseOpened struct {
	Round    int           `json:"round"`
	Phase    string        `json:"phase"`
	Base     int           `json:"base"`
	Everyone bool          `json:"everyone,omitempty"`
	Selected Indices       `json:"selected,omitempty"` // members asked now, unless everyone is
	InFlight int           `json:"inflight,omitempty"` // members still at work from earlier rounds
	Roster   int           `json:"roster"`             // how many members the population had, those that are gone included
	Opened   time.Duration `json:"opened"`
	// Apart says that the order of member i is number First+i, whoever else is asked: see [Config.Apart].
	Apart bool `json:"apart,omitempty"`
	First int  `json:"first,omitempty"`
}

// order returns the number of the next order, which is for a member; next is the least that is free where they are counted.
func (o PhaseOpened) order(member, next int) int {
	if o.Apart {
		return o.First + member
	}
	return next
}

// cohort is who is asked according to the record.
func (o PhaseOpened) cohort() cohort {
	if o.Everyone {
		return cohort{all: true, n: o.Roster}
	}
	return cohort{n: len(o.Selected), list: o.Selected}
}

// PhaseClosed is the record of a phase's end. However many members there are, its JSON stays a few bytes a member: lists
// are [Indices], and failures are told in words for the first [MaxTold] members only.
type PhaseClosed struct {
	Round     int           `json:"round"`
	Phase     string        `json:"phase"`
	Asked     int           `json:"asked"`              // now or, where rounds overlap, earlier and still awaited
	Everyone  bool          `json:"everyone,omitempty"` // everybody of the roster was folded, from the version at the opening: Folded is left out
	Folded    []Share       `json:"folded,omitempty"`
	Abstained Indices       `json:"abstained,omitempty"`
	Lost      Indices       `json:"lost,omitempty"`   // members whose answer did not count
	Failed    []Failure     `json:"failed,omitempty"` // why, for the first of them by name
	Traffic   []Traffic     `json:"traffic,omitempty"`
	Metrics   []Metric      `json:"metrics,omitempty"`
	Notes     []string      `json:"notes,omitempty"`
	Closed    time.Duration `json:"closed"`
}

// MaxTold is how many failures of a phase are told in words.
const MaxTold = 1000

// Share is the members whose results from one version of the state were folded.
type Share struct {
	Base    int     `json:"base"`
	Members Indices `json:"members"`
}

// RoundClosed is the record of a round's end.
type RoundClosed struct {
	Round   int           `json:"round"`
	Version int           `json:"version"`
	Digest  string        `json:"digest"` // of the state after the round
	Closed  time.Duration `json:"closed"`
	// Last says that the run ends with this round, because it is the last or because it was stopped.
	Last bool `json:"-"`
}

// Snapshot is everything the driver needs to go on after a phase or a round, besides the members' memories. One that stands
// before round 0, as no snapshot that is taken does, has no need of a state: the first one is computed, as always.
type Snapshot struct {
	State  State
	Clock  time.Duration
	NextID int
	// Flights are the orders that were in flight, by ID, and Bases the states that their tasks are made from: those at the
	// beginning of the phases in which they were issued.
	Flights []Flight
	Bases   []State
	// Under is the phase that had been opened since, and not closed, when the run ended; nil if there was none. The driver
	// takes no snapshot with it: whoever resumes a run puts it there, from what the log was told.
	Under *Underway
}

// Underway is a phase under way. The driver opens it again as it was, with the recorded selection, roster and opening time:
// it does not log PhaseOpened again, and its deadline counts from the first opening on [Members.Now]. Its orders get the
// IDs that they had, so that whoever carries them knows which of them are answered.
type Underway struct {
	Opened PhaseOpened
	// Fold is the phase's last checkpoint ([FoldSaver]), or empty. Orders that are inside are not issued again.
	Fold []byte
}

// Flight is an order that was in flight when a snapshot was taken.
type Flight struct {
	ID     int           `json:"id"`
	Member int           `json:"member"`
	Base   int           `json:"base"` // position in Bases
	Issued time.Duration `json:"issued"`
}

// Indices are members by index, ascending. Their JSON is a text of ranges, "0-41,43".
type Indices []int

// MarshalText writes ranges.
func (x Indices) MarshalText() ([]byte, error) {
	var b []byte
	for i := 0; i < len(x); {
		j := i
		for j+1 < len(x) && x[j+1] <= x[j]+1 {
			j++
		}
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(b, int64(x[i]), 10)
		if x[j] > x[i] {
			b = append(b, '-')
			b = strconv.AppendInt(b, int64(x[j]), 10)
		}
		i = j + 1
	}
	return b, nil
}

// maxIndices bounds what UnmarshalText expands.
const maxIndices = 1 << 24

// UnmarshalText reads ranges.
func (x *Indices) UnmarshalText(text []byte) error {
	*x = nil
	if len(text) == 0 {
		return nil
	}
	next := 0
	for part := range strings.SplitSeq(string(text), ",") {
		first, last, ranged := strings.Cut(part, "-")
		from, err := strconv.Atoi(first)
		to := from
		if err == nil && ranged {
			to, err = strconv.Atoi(last)
		}
		if err != nil || from < next || to < from || to-from >= maxIndices-len(*x) {
			return fmt.Errorf("list of members %q: %q is no ascending range of indices", text, part)
		}
		for i := from; i <= to; i++ {
			*x = append(*x, i)
		}
		next = to + 1
	}
	return nil
}
