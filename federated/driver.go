package federated

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"time"

	"github.com/cohort-learning/cohort/rng"
)

// Config is how a run is driven.
type Config struct {
	Rounds int
	Pace   Pace
	// Window bounds how many members of a Barrier phase are at work at a time; 0 means 256.
	Window int
	// Stop, when closed, ends the run after the round under way.
	Stop <-chan struct{}
}

// ErrStopped is returned by Run when Config.Stop ended it before its last round; the last snapshot resumes it.
var ErrStopped = errors.New("stopped before the last round")

// Run drives an algorithm from its beginning, or from a snapshot, to its last round and returns the last state.
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
	d := &driver{alg: alg, srv: srv, members: members, log: log, cfg: cfg, bases: map[int]base{}}
	if err := d.begin(ctx, from); err != nil {
		return State{}, err
	}
	for d.state.Round < cfg.Rounds {
		if stopped(cfg.Stop) {
			return d.state, ErrStopped
		}
		if err := d.round(ctx); err != nil {
			return d.state, err
		}
	}
	return d.state, nil
}

func stopped(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

type driver struct {
	alg     Algorithm
	srv     Server
	members Members
	log     Log
	cfg     Config

	state  State
	nextID int
	flying []*Order     // in flight, by ID
	early  []*Answer    // learning answers that came during a barrier phase
	bases  map[int]base // states that orders in flight were made from
}

// base is a state that tasks in flight refer to, with the phase they belong to.
type base struct {
	state State
	phase Phase
}

func (d *driver) begin(ctx context.Context, from *Snapshot) error {
	if from == nil {
		s, err := d.alg.Init(ctx, d.srv)
		if err != nil {
			return fmt.Errorf("initial state: %w", err)
		}
		d.state = s
		return nil
	}
	d.state, d.nextID = from.State, from.NextID
	for _, f := range from.Flights {
		s, ok := from.Bases[f.Base]
		if !ok {
			return fmt.Errorf("snapshot: the state of version %d, which order %d refers to, is missing", f.Base, f.ID)
		}
		s.Round, s.Step = f.Round, f.Step
		p, ok := d.alg.Next(s)
		if !ok {
			return fmt.Errorf("snapshot: order %d refers to phase %d of round %d, which does not exist", f.ID, f.Step, f.Round)
		}
		o := d.order(s, p, f.Member)
		o.ID, o.Issued = f.ID, f.Issued
		if err := d.send(ctx, o, base{s, p}); err != nil {
			return err
		}
	}
	return nil
}

// order prepares a task of the phase p for one member.
func (d *driver) order(s State, p Phase, member int) *Order {
	m := d.srv.Population.Member(member)
	o := &Order{Member: m, Round: s.Round, Phase: p.Name, Base: s.Version}
	o.Make = func() (Task, error) {
		t, err := d.alg.Task(s, p, m)
		t.Round, t.Phase, t.Base = s.Round, p.Name, s.Version
		return t, err
	}
	return o
}

func (d *driver) send(ctx context.Context, o *Order, b base) error {
	d.flying = append(d.flying, o)
	d.bases[o.Base] = b
	return d.members.Issue(ctx, o)
}

func (d *driver) land(o *Order) {
	if i := slices.Index(d.flying, o); i >= 0 {
		d.flying = slices.Delete(d.flying, i, i+1)
	}
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
		d.state.Step++
	}
	d.state.Round, d.state.Step = round+1, 0
	snap := d.snapshot()
	return d.log.RoundClosed(RoundClosed{
		Round: round, Version: d.state.Version, Digest: d.state.Digest(), Closed: snap.Clock,
	}, snap)
}

func (d *driver) snapshot() Snapshot {
	s := Snapshot{State: d.state, Clock: d.members.Now(), NextID: d.nextID, Bases: map[int]State{}}
	add := func(o *Order) {
		b := d.bases[o.Base]
		s.Flights = append(s.Flights, Flight{o.ID, o.Member.Index, o.Round, b.state.Step, o.Base, o.Issued})
		s.Bases[o.Base] = b.state
	}
	for _, a := range d.early {
		add(a.Order)
	}
	for _, o := range d.flying {
		add(o)
	}
	slices.SortFunc(s.Flights, func(a, b Flight) int { return cmp.Compare(a.ID, b.ID) })
	for v := range d.bases {
		if _, used := s.Bases[v]; !used {
			delete(d.bases, v)
		}
	}
	return s
}

// phase runs one phase and moves d.state to what Finish returns.
func (d *driver) phase(ctx context.Context, p Phase) error {
	f := newFolding(p)
	selected := d.selected(p)
	opened := d.members.Now()
	if err := d.log.PhaseOpened(PhaseOpened{
		Round: d.state.Round, Phase: p.Name, Base: d.state.Version, Everyone: p.Who.Everyone && p.Who.Eligible == nil,
		Selected: unlessEveryone(p, selected), InFlight: len(d.flying), Opened: opened,
	}); err != nil {
		return err
	}
	var err error
	if p.Barrier {
		err = d.measure(ctx, p, f, selected)
	} else {
		err = d.learn(ctx, p, f, selected, opened)
	}
	if err != nil {
		return err
	}
	roll := f.roll()
	var diag Diagnostics
	if len(roll.Folded) > 0 || len(selected) == 0 {
		next, di, err := d.alg.Finish(ctx, d.srv, d.state, p, f.sums(), roll)
		if err != nil {
			return err
		}
		next.Round, next.Step = d.state.Round, d.state.Step
		d.state, diag = next, di
	} else {
		diag.Notes = append(diag.Notes, "nobody's result was folded: the model stays as it is")
	}
	closed := PhaseClosed{
		Round: d.state.Round, Phase: p.Name, Asked: roll.Asked, Folded: roll.Folded, Abstained: roll.Abstained,
		Failed: roll.Failed, Traffic: f.traffic(), Metrics: diag.Metrics, Notes: diag.Notes, Closed: d.members.Now(),
	}
	if p.Who.Everyone && len(roll.Folded) == roll.Asked {
		closed.Everyone, closed.Folded = true, nil
	}
	return d.log.PhaseClosed(closed)
}

func unlessEveryone(p Phase, selected []int) []int {
	if p.Who.Everyone && p.Who.Eligible == nil {
		return nil
	}
	return selected
}

// selected draws the members of a phase: the head of a random permutation of the eligible ones. Members that are still at
// work are not asked again; they take up places of the cohort.
func (d *driver) selected(p Phase) []int {
	n := d.srv.Population.Len()
	busy := map[int]bool{}
	if !p.Barrier {
		for _, o := range d.flying {
			busy[o.Member.Index] = true
		}
		for _, a := range d.early {
			busy[a.Order.Member.Index] = true
		}
	}
	var pool []int
	for i := range n {
		if p.Who.Eligible == nil || p.Who.Eligible(d.srv.Population.Member(i)) {
			pool = append(pool, i)
		}
	}
	if p.Who.Everyone || len(pool) == 0 || p.Who.Fraction == 0 {
		if !p.Who.Everyone {
			return nil
		}
		return slices.DeleteFunc(pool, func(i int) bool { return busy[i] })
	}
	size := p.Who.size(len(pool))
	r := d.srv.Rand(d.state.Round, p.Name+"/selection")
	var order []int
	if draws := min(len(pool), size+len(busy)); p.Who.ByExamples {
		order = d.byExamples(pool, draws, r)
	} else {
		order = r.Sample(len(pool), draws)
	}
	chosen := make([]int, 0, size)
	for _, k := range order {
		if len(chosen)+len(busy) >= size {
			break
		}
		if i := pool[k]; !busy[i] {
			chosen = append(chosen, i)
		}
	}
	slices.Sort(chosen)
	return chosen
}

// byExamples draws positions of pool with probabilities proportional to examples, without putting back.
func (d *driver) byExamples(pool []int, draws int, r *rng.Stream) []int {
	w := make([]float64, len(pool))
	for k, i := range pool {
		w[k] = float64(d.srv.Population.Member(i).Samples)
	}
	var order []int
	for len(order) < draws && slices.ContainsFunc(w, func(v float64) bool { return v > 0 }) {
		k := r.Categorical(w)
		order = append(order, k)
		w[k] = 0
	}
	return order
}

// size is how many of n eligible members a phase asks: ⌊Fraction·n⌋ or ⌈Fraction·n⌉, at least one.
func (s Selection) size(n int) int {
	x := s.Fraction * float64(n)
	if s.RoundUp {
		return min(n, max(1, int(math.Ceil(x-1e-9))))
	}
	return min(n, max(1, int(math.Floor(x+1e-9))))
}

// learn runs a phase at the run's pace.
func (d *driver) learn(ctx context.Context, p Phase, f *folding, selected []int, opened time.Duration) error {
	now := base{d.state, p}
	for _, o := range slices.Clone(d.flying) {
		if behind := d.state.Version - o.Base; behind > d.cfg.Pace.Staleness {
			d.members.Drop(o)
			d.land(o)
			f.fail(o, fmt.Sprintf("still at work %d versions later, at most %d count", behind, d.cfg.Pace.Staleness))
		}
	}
	for _, m := range selected {
		o := d.order(d.state, p, m)
		o.ID, o.Issued = d.nextID, opened
		d.nextID++
		if err := d.send(ctx, o, now); err != nil {
			return err
		}
	}
	asked := len(d.flying) + len(d.early)
	f.asked = asked
	quorum := asked
	if q := d.cfg.Pace.Quorum; q > 0 {
		quorum = max(1, int(math.Ceil(q*float64(asked)-1e-9)))
	}
	var deadline time.Duration
	if d.cfg.Pace.Deadline > 0 {
		deadline = opened + d.cfg.Pace.Deadline
	}
	for f.answered() < quorum && len(d.flying)+len(d.early) > 0 {
		a, err := d.next(ctx, deadline)
		if err != nil {
			return err
		}
		if a == nil {
			break
		}
		d.fold(f, a)
		d.log.Progress(p.Name, f.answered()+len(f.failed), asked)
	}
	if d.cfg.Pace.Staleness > 0 {
		return f.err
	}
	why := fmt.Sprintf("had not answered when %d of %d had", f.answered(), asked)
	if f.answered() < quorum {
		why = fmt.Sprintf("had not answered by the deadline of %v", d.cfg.Pace.Deadline)
	}
	for _, o := range slices.Clone(d.flying) {
		d.members.Drop(o)
		d.land(o)
		f.fail(o, why)
	}
	return f.err
}

// next returns an answer that came early, or waits for one.
func (d *driver) next(ctx context.Context, deadline time.Duration) (*Answer, error) {
	if len(d.early) > 0 {
		a := d.early[0]
		d.early = d.early[1:]
		return a, nil
	}
	a, err := d.members.Next(ctx, deadline)
	if a != nil {
		d.land(a.Order)
	}
	return a, err
}

// fold adds one answer to the sums of the phase.
func (d *driver) fold(f *folding, a *Answer) {
	behind := d.state.Version - a.Order.Base
	if behind > d.cfg.Pace.Staleness {
		f.fail(a.Order, fmt.Sprintf("answered %d versions late, at most %d count", behind, d.cfg.Pace.Staleness))
		return
	}
	f.add(a, behind, d.cfg.Pace.Discount)
	if f.kept != nil {
		if err := d.members.Keep(a.Order.Member.Index, f.kept); err != nil && f.err == nil {
			f.err = fmt.Errorf("memory of %s: %w", a.Order.Member.Name, err)
		}
		f.kept = nil
	}
}

// measure runs a barrier phase: everybody asked is waited for, a window at a time.
func (d *driver) measure(ctx context.Context, p Phase, f *folding, selected []int) error {
	window := d.cfg.Window
	if window <= 0 {
		window = 256
	}
	f.asked = len(selected)
	opened := d.members.Now()
	working := map[*Order]bool{}
	for sent := 0; sent < len(selected) || len(working) > 0; {
		for len(working) < window && sent < len(selected) {
			o := d.order(d.state, p, selected[sent])
			o.ID, o.Issued = d.nextID, opened
			d.nextID++
			sent++
			working[o] = true
			if err := d.members.Issue(ctx, o); err != nil {
				return err
			}
		}
		a, err := d.members.Next(ctx, 0)
		if err != nil {
			return err
		}
		if !working[a.Order] {
			d.land(a.Order)
			d.early = append(d.early, a)
			continue
		}
		delete(working, a.Order)
		f.add(a, 0, 0)
		if f.kept != nil {
			if err := d.members.Keep(a.Order.Member.Index, f.kept); err != nil {
				return fmt.Errorf("memory of %s: %w", a.Order.Member.Name, err)
			}
			f.kept = nil
		}
		d.log.Progress(p.Name, f.answered()+len(f.failed), f.asked)
	}
	return f.err
}
