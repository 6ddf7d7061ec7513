package record

import (
	"bytes"
	"encoding/json"
	"fmt"
	"math"
	"time"

	"github.com/cohort-learning/cohort/journal"
)

// A Body is what the metrics take from a journal record. A record of any kind
// may carry it: embed a Body into the struct that is appended. The members
// "round", "metrics" and "events" of a record's body are reserved for it.
//
//	{"round":7,"metrics":[{"name":"accuracy","key":"a","value":0.91}],
//	 "events":[{"level":"warn","client":"client-12","message":"missed the deadline"}]}
type Body struct {
	Round   int      `json:"round"`
	Metrics []Metric `json:"metrics,omitempty"`
	Events  []Event  `json:"events,omitempty"`
}

// A Metric is one measured number. Round, Step, Name and Key identify it: if
// the same is measured again, as after a crash, the later value stands.
type Metric struct {
	Round int     // 0 in a Body means the Body's round
	Step  int     // within the round; 0 if there is only one
	Name  string  // what was measured, such as "accuracy" or "bytes.up"
	Key   string  // of what: a level, a client; "" for the whole
	Value float64 // NaN and infinities are kept as they are
}

// An Event is something that a person may want to know.
type Event struct {
	Round   int       `json:"round,omitempty"` // 0 in a Body means the Body's round
	Time    time.Time `json:"time,omitzero"`   // zero in a Body means the record's time
	Level   Level     `json:"level"`
	Message string    `json:"message"`
	Client  string    `json:"client,omitempty"` // whom it is about, if anybody
}

// A Level is the weight of an event.
type Level string

// The levels.
const (
	Info  Level = "info"
	Warn  Level = "warn"
	Error Level = "error"
)

// number is a float64 that JSON can carry whatever it is: a training run that
// diverges reports NaN, and has to be able to.
type number float64

func (n number) MarshalJSON() ([]byte, error) {
	switch f := float64(n); {
	case math.IsNaN(f):
		return []byte(`"NaN"`), nil
	case math.IsInf(f, 1):
		return []byte(`"+Inf"`), nil
	case math.IsInf(f, -1):
		return []byte(`"-Inf"`), nil
	default:
		return json.Marshal(f)
	}
}

func (n *number) UnmarshalJSON(b []byte) error {
	switch string(b) {
	case `"NaN"`:
		*n = number(math.NaN())
	case `"+Inf"`:
		*n = number(math.Inf(1))
	case `"-Inf"`:
		*n = number(math.Inf(-1))
	default:
		return json.Unmarshal(b, (*float64)(n))
	}
	return nil
}

type metricJSON struct {
	Round int    `json:"round,omitempty"`
	Step  int    `json:"step,omitempty"`
	Name  string `json:"name"`
	Key   string `json:"key,omitempty"`
	Value number `json:"value"`
}

// MarshalJSON writes values that are not finite as "NaN", "+Inf" and "-Inf".
func (m Metric) MarshalJSON() ([]byte, error) {
	return json.Marshal(metricJSON{m.Round, m.Step, m.Name, m.Key, number(m.Value)})
}

// UnmarshalJSON reads what MarshalJSON writes.
func (m *Metric) UnmarshalJSON(b []byte) error {
	var v metricJSON
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	*m = Metric{v.Round, v.Step, v.Name, v.Key, float64(v.Value)}
	return nil
}

// readBody takes metrics and events from a record, with round and time filled
// in. A body without them is no error; one with the wrong shape is.
func readBody(r journal.Record) (Body, error) {
	var b Body
	if !bytes.HasPrefix(r.Body, []byte("{")) ||
		!bytes.Contains(r.Body, []byte(`"metrics"`)) && !bytes.Contains(r.Body, []byte(`"events"`)) {
		return b, nil
	}
	if err := r.Decode(&b); err != nil {
		return b, err
	}
	for i := range b.Metrics {
		m := &b.Metrics[i]
		if m.Name == "" {
			return b, fmt.Errorf("journal record %d (%s): metric %d has no name", r.Seq, r.Kind, i)
		}
		if m.Round == 0 {
			m.Round = b.Round
		}
	}
	for i := range b.Events {
		e := &b.Events[i]
		if e.Round == 0 {
			e.Round = b.Round
		}
		if e.Time.IsZero() {
			e.Time = r.Time
		}
		if e.Level == "" {
			e.Level = Info
		}
	}
	return b, nil
}
