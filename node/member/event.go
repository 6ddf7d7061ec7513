package member

import (
	"fmt"
	"time"

	"github.com/cohort-learning/cohort/transport"
)

// EventKind says what happened.
type EventKind string

// The kinds of events.
const (
	EventConnecting   EventKind = "connecting"   // the first connection has not come about yet
	EventConnected    EventKind = "connected"    // also again
	EventDisconnected EventKind = "disconnected" //
	EventTerms        EventKind = "terms"        // of a run have come
	EventAgreed       EventKind = "agreed"       //
	EventDeclined     EventKind = "declined"     // by this member
	EventRefused      EventKind = "refused"      // by the coordinator: a member, a consent or a result
	EventTraining     EventKind = "training"     // a task is begun
	EventWaiting      EventKind = "waiting"      // for the hours of the policy, or while the run is paused
	EventSent         EventKind = "sent"         // a result, and the coordinator has it
	EventFailed       EventKind = "failed"       // a task, here
	EventCounted      EventKind = "counted"      // a result
	EventPredicted    EventKind = "predicted"    // a request for predictions is answered
	EventCharged      EventKind = "charged"      // a round, to the privacy of the data
	EventSpent        EventKind = "spent"        // the privacy budget: a round is declined
	EventLate         EventKind = "late"         // a result came too late, or was not needed any more
	EventMemory       EventKind = "memory"       // of the member is lost
	EventPaused       EventKind = "paused"       // the run, by its coordinator
	EventResumed      EventKind = "resumed"      //
	EventStopped      EventKind = "stopped"      // the run, by its coordinator
	EventRollback     EventKind = "rollback"     // a head that does not continue what was seen was accepted
	EventModel        EventKind = "model"        // the final model is here
	EventOver         EventKind = "over"         // the run
	EventIgnored      EventKind = "ignored"      // a message that does not belong here
	EventWarning      EventKind = "warning"      //
)

// Event is one thing that happened. Its JSON is what "cohort join --json" prints, a line each.
type Event struct {
	Time  time.Time `json:"time"`
	Kind  EventKind `json:"event"`
	Run   string    `json:"run,omitempty"`
	Order int       `json:"order,omitempty"`
	Round int       `json:"round,omitempty"` // from 1, for people; 0: none
	Step  string    `json:"step,omitempty"`
	Bytes int64     `json:"bytes,omitempty"` // that left
	Count int       `json:"count,omitempty"` // of messages that were ignored for the same reason
	Text  string    `json:"text"`            // the whole in one line for a person
	Terms *Agreed   `json:"terms,omitempty"`
}

// Agreed is what a run is, in a few words.
type Agreed struct {
	Method  string           `json:"method"`
	Model   string           `json:"model"`
	Rounds  int              `json:"rounds"`
	Metrics []string         `json:"metrics"`
	Digest  transport.Digest `json:"digest"`
	Schema  string           `json:"schema,omitempty"`
	Samples int              `json:"samples"`
	Tests   int              `json:"tests"`
}

// tell hands an event to who listens. Calls come one at a time.
func (m *Member) tell(e Event, format string, args ...any) {
	if m.o.Events == nil {
		return
	}
	e.Text = fmt.Sprintf(format, args...)
	e.Time = m.now()
	m.telling.Lock()
	defer m.telling.Unlock()
	m.o.Events(e)
}

// of returns the event of that kind about an order.
func (o *order) of(kind EventKind, r *run) Event {
	return Event{Kind: kind, Run: r.id, Order: o.id, Round: o.round + 1, Step: o.step}
}

// ignore counts a message that does not belong here, and tells of the first, the tenth, the hundredth … of its kind.
func (m *Member) ignore(why string, detail error) {
	m.mu.Lock()
	m.ignored[why]++
	n := m.ignored[why]
	m.mu.Unlock()
	for ten := 1; ten <= n; ten *= 10 {
		if n != ten {
			continue
		}
		text := ""
		if detail != nil {
			text = ": " + oneLine(detail.Error(), 200)
		}
		if n == 1 {
			m.tell(Event{Kind: EventIgnored, Count: n}, "ignored a message %s%s", why, text)
		} else {
			m.tell(Event{Kind: EventIgnored, Count: n}, "ignored %d messages %s so far", n, why)
		}
	}
}

// oneLine shortens a text to one line of at most n bytes without control characters.
func oneLine(s string, n int) string {
	b := make([]rune, 0, len(s))
	for _, r := range s {
		if r == '\n' || r == '\t' {
			r = ' '
		}
		if r < ' ' || r == 0x7f || r >= 0x80 && r < 0xa0 || r == 0x2028 || r == 0x2029 || r >= 0x202a && r <= 0x202e || r >= 0x2066 && r <= 0x2069 {
			continue
		}
		if len(string(b))+len(string(r)) > n {
			return string(b) + "…"
		}
		b = append(b, r)
	}
	return string(b)
}

// inBytes writes a number of bytes for people.
func inBytes(n int64) string {
	const unit = 1000
	switch {
	case n < unit:
		return fmt.Sprintf("%d B", n)
	case n < unit*unit:
		return fmt.Sprintf("%.1f kB", float64(n)/unit)
	case n < unit*unit*unit:
		return fmt.Sprintf("%.1f MB", float64(n)/(unit*unit))
	}
	return fmt.Sprintf("%.2f GB", float64(n)/(unit*unit*unit))
}
