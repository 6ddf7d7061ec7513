package federated

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"time"
)

// Config is how a run is driven.
type Config struct {
	Rounds int
	Pace   Pace
	// Window bounds how many members are at work at a time in phases that wait for everybody anyway; 0 means 256.
	Window int
	// Stop, when closed, ends the run after the round under way.
	Stop <-chan struct{}
	// Rule, if not nil, takes the place of the mean in phases that learn, and Spool is where their results wait for it.
	Rule  Rule
	Spool Spool
	// Recorded, if not nil, says how the phases of a run on record were opened, and the run repeats them: nobody is drawn.
	Recorded func(round int, phase string) (PhaseOpened, error)
	// Apart numbers the orders of a phase by the members' places in the roster instead of one after the other, so that from the
	// number of its own order no member can tell who else was asked, nor how many.
	Apart bool
}

// ErrStopped is returned by Run when Config.Stop ended it before its last round; the last snapshot resumes it.
var ErrStopped = errors.New("stopped before the last round")

// Run drives an algorithm from its beginning, or from a snapshot, to its last round and returns the last state: the last that is
// planned, or the one after which an [Ender] says that the run is over. A snapshot may have been taken after a round or after
// any phase, and may say which phase is under way.
//
// For each phase it selects members with the stream (seed, round, phase, "selection"), sends them their tasks, folds what
// comes back and closes the phase when the quorum has answered, the deadline has passed or nobody is left to wait for. A
// result that cannot be folded — NaN or infinity, a wrong name or shape, a value out of range — is refused as a whole and
// its member named. If nobody's result was folded the state stays as it is and the log says so.
func Run(ctx context.Context, alg Algorithm, srv Server, members Members, log Log, cfg Config, from *Snapshot) (State, error) {
	if err := cfg.Pace.Validate(); err != nil {
		return State{}, err
	}
	if srv.Population.Len() == 0 {
		return State{}, errors.New("nobody to ask: the population is empty")
	}
	if err := alg.Check(srv); err != nil {
		return State{}, err
	}
	d := &driver{alg: alg, srv: srv, members: members, log: log, cfg: cfg, flying: map[int]*Order{}}
	d.saver, _ = log.(FoldSaver)
	defer d.unspool()
	if err := d.begin(ctx, from); err != nil {
		return State{}, err
	}
	if cfg.Recorded == nil { // else it was found to fit when the run began
		if err := cfg.Fits(alg, d.state, srv); err != nil {
			return State{}, fmt.Errorf("robust aggregation: %w", err)
		}
	}
	for d.state.Round < cfg.Rounds && !(d.state.Step == 0 && Over(alg, d.state)) {
		if d.stopped() {
			return d.state, ErrStopped
		}
		if err := d.round(ctx); err != nil {
			return d.state, err
		}
		if d.done {
			return d.state, ErrStopped
		}
	}
	return d.state, nil
}

type driver struct {
	alg     Algorithm
	srv     Server
	members Members
	log     Log
	saver   FoldSaver // nil: phases have no checkpoints
	cfg     Config

	state  State
	nextID int
	done   bool           // stopped
	rows   *ruling        // results of the phase under way that wait for a rule
	flying map[int]*Order // in flight, by ID
	early  []*Answer      // answers that came during another phase, in their order
	roster int            // length of the population in the phase under way or, at the beginning, coming; 0: to be read

	// Of the phase under way when the run was resumed:
	under   *PhaseOpened
	partial *folding     // its sums
	inside  map[int]bool // orders that are inside
}

// base is what an order was made from: a phase and the state at its beginning.
type base struct {
	state State
	phase Phase
}

func (d *driver) stopped() bool {
	select {
	case <-d.cfg.Stop:
		return true
	default:
		return false
	}
}

// server returns the coordinator's side, with the roster of the phase under way.
func (d *driver) server() Server {
	s := d.srv
	s.Population = head{s.Population, d.roster}
	return s
}

// send issues an order for one member.
func (d *driver) send(ctx context.Context, from *base, id, member int, issued time.Duration) error {
	m := d.srv.Population.Member(member)
	s, p := from.state, from.phase
	o := &Order{ID: id, Member: m, Round: s.Round, Phase: p.Name, Base: s.Version, Issued: issued, Barrier: p.Barrier, Folds: p.Folds, from: from}
	o.Make = func() (Task, error) {
		t, err := d.alg.Task(s, p, m)
		t.Round, t.Phase, t.Base = s.Round, p.Name, s.Version
		return t, err
	}
	d.flying[id] = o
	if err := d.members.Issue(ctx, o); err != nil {
		return fmt.Errorf("sending a task to %s: %w", m.Name, err)
	}
	return nil
}

func (d *driver) round(ctx context.Context) error {
	round := d.state.Round
	for {
		p, ok := d.alg.Next(d.state)
		if !ok {
			break
		}
		if err := d.phase(ctx, p); err != nil {
			return fmt.Errorf("round %d, %s: %w", round, p.Name, err)
		}
	}
	d.state.Round, d.state.Step = round+1, 0
	last := d.state.Round >= d.cfg.Rounds || Over(d.alg, d.state)
	d.done = !last && d.stopped()
	snap := d.snapshot()
	return d.log.RoundClosed(RoundClosed{
		Round: round, Version: d.state.Version, Digest: d.state.Digest(), Closed: snap.Clock,
		Last: d.done || last,
	}, snap)
}

// phase runs one phase and moves d.state to what Finish returns, and past the phase.
func (d *driver) phase(ctx context.Context, p Phase) error {
	if err := p.Who.Validate(); err != nil {
		return err
	}
	opened, err := d.open(p)
	if err != nil {
		return err
	}
	f, err := d.exchange(ctx, p, opened)
	if err != nil {
		return err
	}
	memory, notes, err := d.centre(ctx, f)
	if err != nil {
		return err
	}
	roll := f.roll()
	var diag Diagnostics
	if len(roll.Folded) > 0 || p.Who.nobody() || p.Always {
		next, di, err := d.alg.Finish(ctx, d.server(), d.state, p, f.sums(), roll)
		if err != nil {
			return err
		}
		next.Round, next.Step = d.state.Round, d.state.Step
		if err := next.canonical(); err != nil {
			return err
		}
		for name, set := range memory {
			next = next.With(name, set)
		}
		d.state, diag = next, di
	} else {
		diag.Notes = append(diag.Notes, "nobody's result was folded: the model stays as it is")
	}
	diag.Notes = append(notes, diag.Notes...)
	d.state.Step++
	d.roster = 0
	closed := PhaseClosed{Round: opened.Round, Phase: p.Name, Traffic: f.traffic(), Metrics: diag.Metrics, Notes: diag.Notes,
		Closed: d.members.Now()}
	roll.closed(&closed, opened)
	return d.log.PhaseClosed(closed, d.snapshot)
}

// open selects the members of a phase and logs it, or takes it up as it was opened before.
func (d *driver) open(p Phase) (PhaseOpened, error) {
	if d.under != nil {
		o := *d.under
		d.under = nil
		return o, nil
	}
	if d.roster == 0 {
		d.roster = d.srv.Population.Len()
	}
	round := d.state.Round
	o := PhaseOpened{Round: round, Phase: p.Name, Base: d.state.Version, Roster: d.roster, InFlight: d.waiting(p.Name), Opened: d.members.Now()}
	if d.cfg.Apart {
		o.Apart, o.First = true, d.nextID
	}
	if d.cfg.Recorded == nil {
		who, err := p.Who.draw(d.srv, d.roster, d.busy(p), round, cmp.Or(p.Who.Stream, p.Name)+"/selection")
		if err != nil {
			return o, err
		}
		o.Everyone, o.Selected = who.all, who.list
		return o, d.log.PhaseOpened(o)
	}
	past, err := d.cfg.Recorded(round, p.Name)
	if err != nil {
		return o, err
	}
	o.Everyone, o.Selected, o.Roster = past.Everyone, past.Selected, past.Roster
	if n := d.srv.Population.Len(); o.Roster < 1 || o.Roster > n || !o.cohort().within(o.Roster) {
		return o, fmt.Errorf("the record asks members of a roster of %d; the population has %d members", o.Roster, n)
	}
	d.roster = o.Roster
	return o, d.log.PhaseOpened(o)
}
