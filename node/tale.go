package node

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/node/coordinator"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/simulation"
)

// tale is what the page takes from the journal of a run beside its metrics: who took part, how often each was counted, what was
// moved, and a line for whatever a person wants to know that is no failure.
type tale struct {
	next     uint64 // number of the first record that is not in it
	rounds   int    // closed
	digest   string // of the newest state
	up, down int64
	among    bool     // members are organisations with columns of their own
	names    []string // of the run's members, by index
	people   map[string]*person
	events   []record.Event

	phase struct{ counted, asked int } // of training in the round under way
}

// person is a member as a run's journal knows it.
type person struct {
	samples int
	counted int    // rounds in which its result was folded
	out     string // why it takes no part, or no more
	kernels string
}

func newTale(among bool) *tale { return &tale{people: map[string]*person{}, among: among} }

func (t *tale) person(name string) *person {
	p := t.people[name]
	if p == nil {
		p = &person{}
		t.people[name] = p
	}
	return p
}

// add takes in the next record and returns what it tells: metrics, and events with those that the journal does not spell out.
func (t *tale) add(rec journal.Record) (record.Body, error) {
	var body record.Body
	if err := rec.Decode(&body); err != nil {
		return body, err
	}
	t.next = rec.Seq + 1
	for _, m := range body.Metrics {
		switch {
		case strings.HasPrefix(m.Name, "bytes.up"):
			t.up += int64(m.Value)
		case strings.HasPrefix(m.Name, "bytes.down"):
			t.down += int64(m.Value)
		}
	}
	e, err := t.read(rec)
	if e.Message == "" || err != nil {
		return body, err
	}
	// Lines about a round name it in words; a number would stand there twice.
	e.Round, e.Time, e.Level = -1, rec.Time, record.Info
	t.events = append(t.events, e)
	body.Events = append(body.Events, e)
	return body, nil
}

// read takes in what a record means and puts it into words, if it has to be.
func (t *tale) read(rec journal.Record) (e record.Event, err error) {
	var b struct {
		Name, Member, Phase, State, Reason, Kernels, Digest string
		Index, Samples, Round, Rounds, Clients, Asked, From int
		Everyone                                            bool
		Relay                                               string
		Leaves                                              json.RawMessage
		Folded                                              []federated.Share
	}
	switch rec.Kind {
	case coordinator.KindAccepted, coordinator.KindAdmitted, coordinator.KindLeft, coordinator.KindReceived, coordinator.KindPartial,
		coordinator.KindDelegated, simulation.KindOpened,
		simulation.KindResumed, simulation.KindPhaseClosed, simulation.KindRoundClosed, simulation.KindEnded:
		if err := rec.Decode(&b); err != nil {
			return e, err
		}
	}
	switch rec.Kind {
	case coordinator.KindAccepted:
		p := t.person(b.Name)
		p.samples, p.out = b.Samples, ""
		what := "example"
		if t.among {
			what = "row"
		}
		e = record.Event{Client: b.Name, Message: "agreed to the terms, with " + plural(b.Samples, what)}
	case coordinator.KindAdmitted:
		t.names = append(t.names, b.Name)
		t.person(b.Name).samples = b.Samples
	case coordinator.KindLeft:
		t.person(b.Name).out = b.Reason
	case coordinator.KindReceived:
		if b.Kernels != "" {
			t.person(b.Member).kernels = b.Kernels
		}
	case coordinator.KindPartial:
		var leaves []struct{ Member, Kernels string }
		if err := json.Unmarshal(b.Leaves, &leaves); err != nil {
			return e, err
		}
		for _, l := range leaves {
			if l.Kernels != "" {
				t.person(l.Member).kernels = l.Kernels
			}
		}
	case coordinator.KindDelegated:
		var leaves []string
		if err := json.Unmarshal(b.Leaves, &leaves); err != nil {
			return e, err
		}
		e = record.Event{Client: b.Relay, Message: "brings the results of " + plural(len(leaves), "member")}
	case simulation.KindOpened:
		what := "member"
		if t.among {
			what = "organisation"
		}
		e.Message = "the run begins with " + plural(b.Clients, what)
	case simulation.KindResumed:
		e.Message = fmt.Sprintf("the coordinator was started again and goes on in round %d", b.From+1)
	case simulation.KindPhaseClosed:
		t.digest = cmp.Or(b.State, t.digest)
		if federated.Learns(b.Phase) {
			t.phase.asked, t.phase.counted = b.Asked, t.count(b.Everyone, b.Folded)
		}
	case simulation.KindRoundClosed:
		t.rounds, t.digest = b.Round+1, b.Digest
		if t.phase.asked > 0 {
			e.Message = fmt.Sprintf("round %d closed: %d of %d results counted", b.Round+1, t.phase.counted, t.phase.asked)
		}
		t.phase.asked, t.phase.counted = 0, 0
	case simulation.KindEnded:
		t.digest = b.Digest
		e.Message = "the run has ended after " + plural(b.Rounds, "round")
	}
	return e, nil
}

// count counts the members that were folded.
func (t *tale) count(everyone bool, shares []federated.Share) (n int) {
	if everyone {
		for _, name := range t.names {
			t.person(name).counted++
		}
		return len(t.names)
	}
	for _, s := range shares {
		for _, i := range s.Members {
			if i < len(t.names) {
				t.person(t.names[i]).counted++
			}
			n++
		}
	}
	return n
}

func plural(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// told is a run's history with the lines of its tale.
type told struct {
	*record.Metrics
	extra []record.Event
}

// Events returns those of the journal and those of the tale in the order in which they happened.
func (t told) Events(levels ...record.Level) ([]record.Event, error) {
	list, err := t.Metrics.Events(levels...)
	if len(levels) == 0 || slices.Contains(levels, record.Info) {
		list = append(list, t.extra...)
		slices.SortStableFunc(list, func(a, b record.Event) int { return a.Time.Compare(b.Time) })
	}
	return list, err
}
