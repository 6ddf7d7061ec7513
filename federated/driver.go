package federated

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"time"

	"github.com/cohort-learning/cohort/rng"
)

// Config is how a run is driven.
type Config struct {
	Rounds int
	Pace   Pace
	// Window bounds how many members are at work at a time in phases that wait for everybody anyway; 0 means 256.
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
	d := &driver{alg: alg, srv: srv, members: members, log: log, cfg: cfg, flying: map[int]*Order{}}
	if err := d.begin(ctx, from); err != nil {
		return State{}, err
	}
	for d.state.Round < cfg.Rounds {
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
	cfg     Config

	state  State
	nextID int
	done   bool           // stopped
	flying map[int]*Order // in flight, by ID
	early  []*Answer      // answers that came during another phase, in their order
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

func (d *driver) begin(ctx context.Context, from *Snapshot) error {
	if from == nil {
		s, err := d.alg.Init(ctx, d.srv)
		if err != nil {
			return fmt.Errorf("initial state: %w", err)
		}
		d.state = s
		return d.state.canonical()
	}
	d.state, d.nextID = from.State, from.NextID
	bases := make([]*base, len(from.Bases))
	for i, s := range from.Bases {
		p, ok := d.alg.Next(s)
		if !ok {
			return fmt.Errorf("snapshot: there is no phase %d in round %d, to which orders in flight belong", s.Step, s.Round)
		}
		bases[i] = &base{s, p}
	}
	for _, f := range from.Flights {
		if f.Base < 0 || f.Base >= len(bases) || f.Member < 0 || f.Member >= d.srv.Population.Len() {
			return fmt.Errorf("snapshot: order %d refers to member %d and base %d, which do not exist", f.ID, f.Member, f.Base)
		}
		if err := d.send(ctx, bases[f.Base], f.ID, f.Member, f.Issued); err != nil {
			return err
		}
	}
	return nil
}

// send issues an order for one member.
func (d *driver) send(ctx context.Context, from *base, id, member int, issued time.Duration) error {
	m := d.srv.Population.Member(member)
	s, p := from.state, from.phase
	o := &Order{ID: id, Member: m, Round: s.Round, Phase: p.Name, Base: s.Version, Issued: issued, Barrier: p.Barrier, from: from}
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
		d.state.Step++
	}
	d.state.Round, d.state.Step = round+1, 0
	d.done = d.state.Round < d.cfg.Rounds && d.stopped()
	snap := d.snapshot()
	return d.log.RoundClosed(RoundClosed{
		Round: round, Version: d.state.Version, Digest: d.state.Digest(), Closed: snap.Clock,
		Last: d.done || d.state.Round >= d.cfg.Rounds,
	}, snap)
}

func (d *driver) snapshot() Snapshot {
	s := Snapshot{State: d.state, Clock: d.members.Now(), NextID: d.nextID}
	orders := slices.Collect(maps.Values(d.flying))
	for _, a := range d.early {
		orders = append(orders, a.Order)
	}
	slices.SortFunc(orders, func(a, b *Order) int { return cmp.Compare(a.ID, b.ID) })
	place := map[*base]int{}
	for _, o := range orders {
		if _, ok := place[o.from]; !ok {
			place[o.from] = len(s.Bases)
			s.Bases = append(s.Bases, o.from.state)
		}
		s.Flights = append(s.Flights, Flight{o.ID, o.Member.Index, place[o.from], o.Issued})
	}
	return s
}

// phase runs one phase and moves d.state to what Finish returns.
func (d *driver) phase(ctx context.Context, p Phase) error {
	if err := p.Who.Validate(); err != nil {
		return err
	}
	who := p.Who.draw(d.srv.Population, d.busy(p), func() *rng.Stream { return d.srv.Rand(d.state.Round, p.Name+"/selection") })
	opened := d.members.Now()
	if err := d.log.PhaseOpened(PhaseOpened{
		Round: d.state.Round, Phase: p.Name, Base: d.state.Version, Everyone: who.all, Selected: who.list,
		InFlight: d.waiting(p.Name), Opened: opened,
	}); err != nil {
		return err
	}
	f, err := d.exchange(ctx, p, who, opened)
	if err != nil {
		return err
	}
	roll := f.roll()
	var diag Diagnostics
	if len(roll.Folded) > 0 || p.Who.nobody() {
		next, di, err := d.alg.Finish(ctx, d.srv, d.state, p, f.sums(), roll)
		if err != nil {
			return err
		}
		next.Round, next.Step = d.state.Round, d.state.Step
		if err := next.canonical(); err != nil {
			return err
		}
		d.state, diag = next, di
	} else {
		diag.Notes = append(diag.Notes, "nobody's result was folded: the model stays as it is")
	}
	closed := PhaseClosed{Round: d.state.Round, Phase: p.Name, Traffic: f.traffic(), Metrics: diag.Metrics, Notes: diag.Notes,
		Closed: d.members.Now()}
	roll.closed(&closed, d.srv.Population.Len())
	return d.log.PhaseClosed(closed)
}

// busy returns the members that are at work on an earlier task of a learning phase: they are not asked again.
func (d *driver) busy(p Phase) map[int]bool {
	if p.Barrier {
		return nil
	}
	busy := make(map[int]bool, len(d.flying)+len(d.early))
	for _, o := range d.flying {
		busy[o.Member.Index] = true
	}
	for _, a := range d.early {
		busy[a.Order.Member.Index] = true
	}
	return busy
}

// waiting returns how many orders of a phase have been issued and not yet folded.
func (d *driver) waiting(phase string) int {
	n := 0
	for _, o := range d.flying {
		if o.Phase == phase {
			n++
		}
	}
	for _, a := range d.early {
		if a.Order.Phase == phase {
			n++
		}
	}
	return n
}

// exchange asks the members of a phase and folds their answers, until the phase may close.
func (d *driver) exchange(ctx context.Context, p Phase, who cohort, opened time.Duration) (*folding, error) {
	pace := d.cfg.Pace
	if p.Barrier {
		pace = Pace{}
	}
	f := newFolding(p, pace.discount())
	tooLate := d.dropStale(p, f, pace)
	before := d.waiting(p.Name)
	f.expect(who.n + before + tooLate)
	quorum := pace.quorum(who.n + before)
	// When everybody is waited for anyway, tasks go out a window at a time: what is in flight costs memory.
	window := who.n + before
	if pace.patient() {
		window = d.window()
	}
	var deadline time.Duration
	if pace.Deadline > 0 {
		deadline = opened + pace.Deadline
	}
	from := &base{d.state, p}
	out := before // orders of this phase that have not been folded
	for sent := 0; ; {
		for ; sent < who.n && out < window; sent, out = sent+1, out+1 {
			if err := d.send(ctx, from, d.nextID, who.at(sent), opened); err != nil {
				return nil, err
			}
			d.nextID++
		}
		if out == 0 || f.answered() >= quorum {
			break
		}
		a, err := d.next(ctx, p.Name, deadline)
		if err != nil {
			return nil, err
		}
		if a == nil {
			break
		}
		out--
		if err := d.fold(f, a, pace); err != nil {
			return nil, err
		}
		d.log.Progress(p.Name, f.heard(), f.asked)
	}
	if pace.Staleness == 0 {
		why := fmt.Sprintf("had not answered when %d of %d had", f.answered(), f.asked)
		if f.answered() < quorum {
			why = fmt.Sprintf("had not answered by the deadline of %v", pace.Deadline)
		}
		d.abandon(f, why, func(o *Order) bool { return o.Phase == p.Name })
	}
	return f, nil
}

// dropStale gives up orders whose answers could not count any more, and returns how many there were.
func (d *driver) dropStale(p Phase, f *folding, pace Pace) int {
	d.abandon(f, fmt.Sprintf("still at work after the model changed more than %d times", pace.Staleness), func(o *Order) bool {
		return o.Phase == p.Name && d.state.Version-o.Base > pace.Staleness
	})
	return len(f.failed)
}

// abandon gives up the orders in flight that match.
func (d *driver) abandon(f *folding, why string, match func(*Order) bool) {
	for _, id := range slices.Sorted(maps.Keys(d.flying)) {
		if o := d.flying[id]; match(o) {
			delete(d.flying, id)
			d.members.Drop(o)
			f.abandon(o, why)
		}
	}
}

// next returns an answer of the phase: one that came early, or the next to come. It is nil at the deadline.
func (d *driver) next(ctx context.Context, phase string, deadline time.Duration) (*Answer, error) {
	if i := slices.IndexFunc(d.early, func(a *Answer) bool { return a.Order.Phase == phase }); i >= 0 {
		a := d.early[i]
		d.early = slices.Delete(d.early, i, i+1)
		return a, nil
	}
	for {
		a, err := d.members.Next(ctx, deadline)
		if err != nil || a == nil {
			return nil, err
		}
		delete(d.flying, a.Order.ID)
		if a.Order.Phase == phase {
			return a, nil
		}
		d.early = append(d.early, a)
	}
}

// fold adds one answer to the sums of the phase and commits what the member keeps.
func (d *driver) fold(f *folding, a *Answer, pace Pace) error {
	keep := f.add(a, d.state.Version-a.Order.Base, pace.Staleness)
	if keep == nil {
		return nil
	}
	if err := d.members.Keep(a.Order.Member.Index, keep); err != nil {
		return fmt.Errorf("memory of %s: %w", a.Order.Member.Name, err)
	}
	return nil
}

func (d *driver) window() int {
	if d.cfg.Window > 0 {
		return d.cfg.Window
	}
	return 256
}

// patient reports whether every round waits for everybody it asked.
func (p Pace) patient() bool {
	return (p.Quorum == 0 || p.Quorum == 1) && p.Deadline == 0 && p.Staleness == 0
}

// quorum is how many answers of n end the wait.
func (p Pace) quorum(n int) int {
	if p.Quorum == 0 {
		return n
	}
	return max(1, int(math.Ceil(p.Quorum*float64(n)-1e-9)))
}

// discount is the exponent by which results of this pace are discounted: 0 where none can be stale.
func (p Pace) discount() float64 {
	if p.Staleness == 0 {
		return 0
	}
	return p.Discount
}
