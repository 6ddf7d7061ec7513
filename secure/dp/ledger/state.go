package ledger

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cohort-learning/cohort/journal"
)

// Kinds of records in a ledger.
const (
	KindNamed   = "data.named"      // a label of the data
	KindBudget  = "budget.set"      // a new budget
	KindCharged = "privacy.charged" // an [Entry]
)

type named struct {
	Data  Digest `json:"data"`
	Label string `json:"label"`
}

// state is what the records of a ledger say, up to a head.
type state struct {
	data   Digest
	labels []string
	hashes []journal.Hash // of all records
	budget Budget
	set    time.Time // when the budget was set
	keys   map[Key]bool
	own    []Entry
	spent  *cost
}

func newState(data Digest) *state {
	return &state{data: data, keys: map[Key]bool{}, spent: newCost()}
}

func (s *state) head() (h journal.Head, ok bool) {
	if len(s.hashes) == 0 {
		return h, false
	}
	n := len(s.hashes) - 1
	return journal.Head{Seq: uint64(n), Hash: s.hashes[n]}, true
}

// holds reports whether a record is among those that were read.
func (s *state) holds(h journal.Head) bool {
	return h.Seq < uint64(len(s.hashes)) && s.hashes[h.Seq] == h.Hash
}

// apply takes in the next record.
func (s *state) apply(r journal.Record) error {
	if err := s.replay(r); err != nil {
		return err
	}
	s.hashes = append(s.hashes, r.Hash)
	return nil
}

func (s *state) replay(r journal.Record) error {
	switch r.Kind {
	case journal.KindOpened:
		var h journal.Header
		if err := json.Unmarshal(r.Body, &h); err != nil {
			return err
		}
		if want := identity(s.data); h.Run != want {
			return fmt.Errorf("it is of %q, and expected was %q: it stands in the wrong folder", h.Run, want)
		}
		return nil
	case KindNamed:
		n, err := decode[named](r.Body)
		if err == nil && n.Data != s.data {
			err = fmt.Errorf("it names the data %s", n.Data)
		}
		if err != nil {
			return err
		}
		s.labels = with(s.labels, n.Label)
		return nil
	case KindBudget:
		b, err := decode[Budget](r.Body)
		if err == nil {
			err = b.Validate()
		}
		if err != nil {
			return err
		}
		s.budget, s.set = b, r.Time
		return nil
	case KindCharged:
		e, err := decode[Entry](r.Body)
		if err == nil {
			err = e.Validate()
		}
		if err != nil {
			return err
		}
		if s.keys[e.Key()] {
			return nil
		}
		e.Time = r.Time
		s.keys[e.Key()] = true
		s.own = append(s.own, e)
		s.spent.add(e)
		return nil
	}
	return fmt.Errorf("records of kind %q are not known to this program: use the one that wrote it", r.Kind)
}

// fresh returns the entries that are not charged yet, each once, and what they cost.
func (s *state) fresh(entries []Entry) (out []Entry, c *cost) {
	c = newCost()
	seen := map[Key]bool{}
	for _, e := range entries {
		if k := e.Key(); !s.keys[k] && !seen[k] {
			seen[k] = true
			out = append(out, e)
			c.add(e)
		}
	}
	return out, c
}

// decode reads the body of a record. Fields that are unknown are an error: what they mean for the cost is unknown too.
func decode[T any](body []byte) (v T, err error) {
	d := json.NewDecoder(bytes.NewReader(body))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		return v, err
	}
	if _, err := d.Token(); !errors.Is(err, io.EOF) {
		return v, errors.New("more than one value")
	}
	return v, nil
}
