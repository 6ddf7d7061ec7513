package coordinator

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/transport"
)

// past is what the journal of a run tells when the coordinator starts again.
type past struct {
	checkpoint string                 // digest of the newest snapshot
	under      *federated.PhaseOpened // the phase under way
	folds      *folds                 // the newest checkpoint of its sums
	together   []together             // which of its orders have one message
	results    map[int]*result        // accepted, by order, and not in a phase that has closed
	bundles    map[int]*bundle        // partial sums likewise, by number of the record
	enrolled   int                    // members that had agreed when the run was opened
	clock      time.Duration          // up-time so far
	end        time.Time              // of the last record
	ended      bool
}

type result struct {
	*received
	seq uint64
}

// recall reads the journal of a run: who takes part, what has closed, what was accepted. It fills in the run's lobby, population
// and closes.
func (r *Run) recall() (*past, error) {
	p := &past{results: map[int]*result{}, bundles: map[int]*bundle{}}
	saw := func(d time.Duration) { p.clock = max(p.clock, d) }
	for rec, err := range r.rec.Journal().Records() {
		if err != nil {
			return nil, err
		}
		p.end = rec.Time
		if err := r.recallOne(rec, p, saw); err != nil {
			return nil, fmt.Errorf("journal record %d (%s): %w", rec.Seq, rec.Kind, err)
		}
	}
	return p, nil
}

func (r *Run) recallOne(rec journal.Record, p *past, saw func(time.Duration)) error {
	switch rec.Kind {
	case KindAccepted:
		var a accepted
		if err := rec.Decode(&a); err != nil {
			return err
		}
		r.lobby[a.Name] = a
		if r.schema == nil {
			r.schema = a.Schema
		}
	case KindAdmitted:
		var a admitted
		if err := rec.Decode(&a); err != nil {
			return err
		}
		if m := r.people.add(a.Name, a.Samples); m.Index != a.Index {
			return fmt.Errorf("member %s is number %d, recorded as %d", a.Name, m.Index, a.Index)
		}
	case KindLeft:
		var l left
		if err := rec.Decode(&l); err != nil {
			return err
		}
		if l.Index >= 0 {
			r.people.lose(l.Name)
			r.gone[l.Name] = l.Reason
		}
	case simulation.KindOpened:
		var o openedRecord
		if err := rec.Decode(&o); err != nil {
			return err
		}
		p.checkpoint, p.enrolled = o.Checkpoint, o.Clients
	case simulation.KindPhaseOpened:
		var o federated.PhaseOpened
		if err := rec.Decode(&o); err != nil {
			return err
		}
		p.under, p.folds, p.together = &o, nil, nil
		r.hiding.span(o)
		saw(o.Opened)
	case KindTogether:
		var t together
		if err := rec.Decode(&t); err != nil {
			return err
		}
		p.together = append(p.together, t)
	case KindReceived:
		var x received
		if err := rec.Decode(&x); err != nil {
			return err
		}
		if _, over := r.keeper.closes.of(x.Order); !over { // else it was recorded when it had been given up already
			p.results[x.Order] = &result{&x, rec.Seq}
		}
		saw(x.Clock)
	case KindPartial:
		var x combined
		if err := rec.Decode(&x); err != nil {
			return err
		}
		if _, over := r.keeper.closes.of(x.Leaves[0].Order); !over {
			p.bundles[int(rec.Seq)] = &bundle{combined: &x, seq: rec.Seq}
		}
		saw(x.Clock)
	case KindDelegated:
		var d delegation
		if err := rec.Decode(&d); err != nil {
			return err
		}
		r.delegations[d.Relay] = strings.Join(d.Leaves, " ")
	case KindFold:
		var f folds
		if err := rec.Decode(&f); err != nil {
			return err
		}
		p.folds = &f
	case simulation.KindPhaseClosed:
		return r.recallClosed(rec, p, saw)
	case simulation.KindRoundClosed:
		var c roundRecord
		if err := rec.Decode(&c); err != nil {
			return err
		}
		p.checkpoint = c.Checkpoint
		saw(c.Closed)
	case simulation.KindEnded:
		var e endedRecord
		if err := rec.Decode(&e); err != nil {
			return err
		}
		p.ended = true
		r.keeper.closes.add(closed{round: e.Rounds, closing: closing{State: e.Digest}, head: headOf(rec), last: true})
	}
	return nil
}

func (r *Run) recallClosed(rec journal.Record, p *past, saw func(time.Duration)) error {
	var c struct {
		federated.PhaseClosed
		closing
	}
	if err := json.Unmarshal(rec.Body, &c.closing); err != nil {
		return err
	}
	var phase struct {
		Round int    `json:"round"`
		Phase string `json:"phase"`
	}
	if err := json.Unmarshal(rec.Body, &phase); err != nil {
		return err
	}
	p.checkpoint, p.under, p.folds, p.together = c.Checkpoint, nil, nil, nil
	saw(c.Clock)
	for _, ids := range []federated.Indices{c.Orders, c.Given} {
		for _, id := range ids {
			delete(p.results, id)
		}
		maps.DeleteFunc(p.bundles, func(_ int, b *bundle) bool { return has(ids, b.Leaves[0].Order) })
	}
	r.keeper.saves++
	r.keeper.closes.add(closed{round: phase.Round, phase: phase.Phase, closing: c.closing, head: headOf(rec)})
	return nil
}

// restore prepares the desk and the driver to go on where the journal ends.
func (k *keeper) restore(p *past) error {
	r := k.r
	var used []transport.Ref
	for _, x := range p.results {
		used = append(used, x.Refs...)
		r.desk.recorded[x.Order] = x
		r.spool.hold(x.Spool)
		r.desk.highest = max(r.desk.highest, x.Order)
	}
	r.desk.pins.add(used)
	r.desk.reserve(r.hiding.end())
	k.restoreBundles(p)
	r.desk.restoreTogether(p.together)
	if err := r.spool.sweep(); err != nil {
		return err
	}
	for name, why := range r.gone {
		r.desk.gone[name] = why
	}
	if p.checkpoint == "" {
		return nil
	}
	var h journal.Hash
	if err := h.UnmarshalText([]byte(p.checkpoint)); err != nil {
		return fmt.Errorf("checkpoint: %w", err)
	}
	c, ok, _, err := r.rec.Checkpoints().Find(h)
	if err != nil {
		return err
	}
	if !ok {
		return fmt.Errorf("the checkpoint %.16s… that the journal names is missing: restore it, or the whole folder, from a backup", p.checkpoint)
	}
	if k.from, err = k.load(c); err != nil {
		return err
	}
	r.desk.behind = !p.ended
	if p.under != nil {
		k.opened = *p.under
		k.from.Under = &federated.Underway{Opened: *p.under}
		if p.folds != nil {
			if err := k.restoreFold(*p.folds); err != nil {
				return err
			}
		}
		r.round.Store(int64(p.under.Round))
		k.asked(*p.under)
	}
	return k.told(p)
}

// restoreFold takes up the newest checkpoint of the sums of the phase under way.
func (k *keeper) restoreFold(f folds) error {
	inside, rest, ok, err := k.readFold(f)
	if err != nil {
		return err
	}
	if !ok { // results are only deleted after the record, so the file must be there
		return fmt.Errorf("the checkpoint of sums %s that the journal names is missing: restore it from a backup", f.File)
	}
	k.from.Under.Fold = rest
	k.inside = map[int]seat{}
	for _, s := range inside {
		k.inside[s.Order] = s
		k.r.desk.settleBundle(s.Order)
		if x := k.r.desk.recorded[s.Order]; x != nil {
			k.r.desk.settled[s.Order] = x.Message
			delete(k.r.desk.recorded, s.Order)
			k.r.desk.pins.release(x.Refs)
			k.r.spool.release(x.Spool)
		}
	}
	return nil
}

// told records that the run goes on, and by how much deadlines were put off.
func (k *keeper) told(p *past) error {
	measured, err := k.r.rec.Metrics().Series("accuracy", "")
	if err != nil {
		return err
	}
	for _, m := range measured {
		k.best = max(k.best, m.Value)
	}
	if p.ended {
		return nil
	}
	entries := []journal.Entry{{Kind: simulation.KindResumed, Body: struct {
		Round int `json:"from"`
	}{k.from.State.Round}}}
	if p.under != nil && k.r.spec.Config.Pace.Deadline > 0 {
		away := time.Since(p.end).Round(time.Millisecond)
		entries = append(entries, journal.Entry{Kind: KindExtended, Body: extended{Away: away, Round: p.under.Round, Events: []record.Event{{
			Level: record.Info, Message: fmt.Sprintf("the coordinator was away for %v; the deadline is put off by as much", away)}}}})
	}
	_, err = k.r.rec.Journal().AppendAll(entries)
	return err
}
