package simulation

import (
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/record"
)

// History is what the journal of a run says of its closed rounds: who was asked, who answered, and what came out. The members
// of a network decide that, so it is an input of whoever computes the run again ([Job.Replay]).
type History struct {
	phases []pastPhase
	rounds map[int]string // digests
	last   int            // the last closed round, -1 if there is none
}

// pastPhase is a phase on record.
type pastPhase struct {
	opened federated.PhaseOpened
	closed federated.PhaseClosed
	done   bool              // closed is there
	why    map[string]string // reasons of those lost, as far as they are told, by name
}

// ReadHistory reads a history from the records of a journal, of a simulation or of a coordinator, such as
//
//	ReadHistory(record.Read(journal.OS(), dir))
//
// What a run that went back to a checkpoint has recorded twice counts as it was recorded last.
func ReadHistory(records iter.Seq2[journal.Record, error]) (*History, error) {
	h := &History{rounds: map[int]string{}, last: -1}
	for r, err := range records {
		if err == nil {
			err = h.add(r)
		}
		if err != nil {
			return nil, err
		}
	}
	if h.last < 0 {
		return nil, errors.New("the run has closed no round yet: there is nothing to verify")
	}
	for i := range h.last + 1 {
		if h.rounds[i] == "" {
			return nil, fmt.Errorf("the journal closes round %d, and not round %d", h.last, i)
		}
	}
	h.phases = slices.DeleteFunc(h.phases, func(p pastPhase) bool { return p.opened.Round > h.last })
	if i := slices.IndexFunc(h.phases, func(p pastPhase) bool { return !p.done }); i >= 0 {
		p := h.phases[i].opened
		return nil, fmt.Errorf("the journal closes round %d, and not its phase %q", p.Round, p.Phase)
	}
	return h, nil
}

func (h *History) add(r journal.Record) error {
	switch r.Kind {
	case KindPhaseOpened:
		var o federated.PhaseOpened
		if err := r.Decode(&o); err != nil {
			return err
		}
		h.open(o)
	case KindPhaseClosed:
		p := pastPhase{done: true, why: map[string]string{}}
		if err := decodePhase(r, &p); err != nil {
			return err
		}
		n := len(h.phases) - 1
		if n < 0 || h.phases[n].done || h.phases[n].opened.Round != p.closed.Round || h.phases[n].opened.Phase != p.closed.Phase {
			return fmt.Errorf("journal record %d closes phase %q of round %d, which is not open", r.Seq, p.closed.Phase, p.closed.Round)
		}
		p.opened = h.phases[n].opened
		h.phases[n] = p
	case KindRoundClosed:
		var c federated.RoundClosed
		if err := r.Decode(&c); err != nil {
			return err
		}
		h.rounds[c.Round], h.last = c.Digest, c.Round
	}
	return nil
}

// open adds a phase. If it was opened before, the run has gone back to it, or behind it.
func (h *History) open(o federated.PhaseOpened) {
	again := slices.IndexFunc(h.phases, func(p pastPhase) bool {
		return p.opened.Round > o.Round || p.opened.Round == o.Round && p.opened.Phase == o.Phase
	})
	if again >= 0 {
		h.phases = h.phases[:again]
	}
	h.phases = append(h.phases, pastPhase{opened: o})
}

// decodePhase reads the body of phase.closed, whose metrics and failures have the form of records.
func decodePhase(r journal.Record, p *pastPhase) error {
	var body struct {
		federated.PhaseClosed
		Metrics json.RawMessage `json:"metrics"` // in place of the plain ones
		Events  []record.Event  `json:"events"`
	}
	if err := r.Decode(&body); err != nil {
		return err
	}
	p.closed = body.PhaseClosed
	for _, e := range body.Events {
		if why, ok := strings.CutPrefix(e.Message, p.closed.Phase+": "); ok && e.Client != "" {
			p.why[e.Client] = why
		}
	}
	return nil
}

// counted returns from which version of the state each member's answer came that was folded.
func (p *pastPhase) counted() map[int]int {
	base := map[int]int{}
	if p.closed.Everyone {
		for i := range p.opened.Roster {
			base[i] = p.opened.Base
		}
	}
	for _, s := range p.closed.Folded {
		for _, m := range s.Members {
			base[m] = s.Base
		}
	}
	return base
}
