package simulation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/weights"
)

// Reset says that a member had lost what it keeps when it worked on the task of a phase, and began anew.
type Reset struct {
	Round  int
	Phase  string
	Member int
}

// Replay computes a run on record again, in memory, and compares the digest of every round. Who was asked, whose answer
// counted, from which version of the state it was made, and who began anew is taken from the record; what they answered
// is computed here, from the fleet's data. So it verifies a run over a network, given the data of its members, at any pace.
// It returns how many rounds agreed, the digest of the last of them, and a [MismatchError] for the first that does not.
//
// Conditions and the draws of members do not matter. What the job's fleet holds in the order of the run's roster may be more
// members than took part.
func (j *Job) Replay(ctx context.Context, h *History, resets []Reset) (rounds int, digest string, err error) {
	l := &log{recall: NewRecall(), expect: maps.Clone(h.rounds), strict: true}
	_, err = j.repeat(ctx, h, resets, l)
	if l.agreed > 0 {
		digest = h.rounds[l.agreed-1]
	}
	return l.agreed, digest, err
}

// Repeat is Replay without comparing digests, for engines or kernel paths other than the run's: it returns the last state.
// That other members' answers count than on record is an error here, too.
func (j *Job) Repeat(ctx context.Context, h *History, resets []Reset) (federated.State, error) {
	return j.repeat(ctx, h, resets, &log{recall: NewRecall()})
}

func (j *Job) repeat(ctx context.Context, h *History, resets []Reset, l *log) (federated.State, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	j.Fleet.vaults.Reset()
	defer j.Fleet.vaults.Reset()
	c := *j
	c.Config.Rounds, c.Conditions = h.last+1, Conditions{}
	l.job = &c
	r := &replay{log: l, phases: slices.Clone(h.phases), resets: map[Reset]bool{},
		visits: map[*federated.Order]*weights.Set{}, visiting: map[int]*federated.Order{}}
	for i := range r.phases {
		if o := &r.phases[i].opened; o.Roster == 0 { // from before rosters were recorded
			o.Roster = j.Fleet.Len()
		}
	}
	for _, x := range resets {
		r.resets[x] = true
	}
	c.Config.Recorded = r.recorded
	r.pool = NewPool(ctx, j.Algorithm.Client(), j.Fleet.Local, r, c.Conditions, j.Fleet.Seed, j.workers(), 0)
	defer r.pool.Close() // after cancel, which ends what is still at work
	defer cancel()
	l.began = l.now()
	srv := j.Fleet.Server()
	srv.Population = pastPopulation{j.Fleet, r}
	srv.Secret = j.secret(l)
	return federated.Run(ctx, j.Algorithm, srv, r, r, c.Config, nil)
}

// replay is the members of a run on record, and its log. In each phase it gives the answers that the record lists, those
// that are lost first, and then none, as if the deadline had passed. An order in flight is worked on when the phase has come
// in which it was folded; what its member kept is that of the time when it was issued.
type replay struct {
	*log
	pool   *Pool
	phases []pastPhase
	at     int         // the phase under way
	base   map[int]int // by member whose answer is folded in it, the version that it was made from
	resets map[Reset]bool

	mu       sync.Mutex
	visits   map[*federated.Order]*weights.Set // orders in flight, and what the member kept
	visiting map[int]*federated.Order          // by member, the order that the pool works on

	lost, abstained []*federated.Order // answers that are due, besides those of the pool
}

// pastPopulation is a fleet of which those are there who were.
type pastPopulation struct {
	*Fleet
	r *replay
}

// Len implements [federated.Population].
func (p pastPopulation) Len() int {
	if len(p.r.phases) == 0 {
		return p.Fleet.Len()
	}
	return min(p.r.phase().opened.Roster, p.Fleet.Len())
}

// phase returns the phase under way, or the last one.
func (r *replay) phase() *pastPhase {
	if len(r.phases) == 0 {
		return &pastPhase{}
	}
	return &r.phases[min(r.at, len(r.phases)-1)]
}

// differs returns an error that says what of a phase came out differently.
func differs(round int, phase, format string, a ...any) error {
	return &MismatchError{Round: round, Phase: phase, What: fmt.Sprintf(format, a...)}
}

// recorded is how a phase was opened.
func (r *replay) recorded(round int, phase string) (federated.PhaseOpened, error) {
	if r.at == len(r.phases) {
		return federated.PhaseOpened{}, differs(round, phase, "there is no such phase on record")
	}
	o := r.phases[r.at].opened
	if o.Round != round || o.Phase != phase {
		return o, differs(round, phase, "the phase on record is %q of round %d", o.Phase, o.Round)
	}
	return o, nil
}

// PhaseOpened implements [federated.Log]. Orders in flight whose time has come are taken up.
func (r *replay) PhaseOpened(o federated.PhaseOpened) error {
	p := r.phase()
	if was := p.opened; o.Base != was.Base || o.InFlight != was.InFlight {
		return differs(o.Round, o.Phase, "it began with version %d and %d tasks in flight, on record with version %d and %d in flight",
			o.Base, o.InFlight, was.Base, was.InFlight)
	}
	r.log.round, r.base = o.Round, p.counted()
	orders := slices.Collect(maps.Keys(r.visits))
	slices.SortFunc(orders, func(a, b *federated.Order) int { return cmp.Compare(a.ID, b.ID) })
	for _, x := range orders {
		if err := r.take(x); err != nil {
			return err
		}
	}
	return nil
}

// Issue implements [federated.Members].
func (r *replay) Issue(_ context.Context, o *federated.Order) error {
	m := o.Member.Index
	if r.resets[Reset{o.Round, o.Phase, m}] {
		r.recall.forget(m)
	}
	keep, err := r.recall.Load(m)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.visits[o] = keep
	r.mu.Unlock()
	return r.take(o)
}

// take makes an order's answer due if it came in the phase under way.
func (r *replay) take(o *federated.Order) error {
	p, m := r.phase(), o.Member.Index
	if o.Phase != p.opened.Phase {
		return nil
	}
	base, folded := r.base[m]
	switch {
	case folded && base == o.Base:
		r.mu.Lock()
		r.visiting[m] = o
		r.mu.Unlock()
		return r.pool.Issue(r.pool.ctx, o)
	case has(p.closed.Abstained, m):
		r.abstained = append(r.abstained, o)
	case has(p.closed.Lost, m):
		r.lost = append(r.lost, o)
	}
	return nil
}

func has(x federated.Indices, m int) bool {
	_, ok := slices.BinarySearch(x, m)
	return ok
}

// Next implements [federated.Members].
func (r *replay) Next(ctx context.Context, _ time.Duration) (*federated.Answer, error) {
	if err := context.Cause(ctx); err != nil {
		return nil, err
	}
	switch {
	case len(r.lost) > 0:
		o := r.lost[0]
		why := r.phase().why[o.Member.Name]
		if why == "" {
			why = "lost; the record does not tell why"
		}
		return r.without(o, errors.New(why)), nil
	case len(r.abstained) > 0:
		return r.without(r.abstained[0], nil), nil
	case len(r.visiting) > 0:
		a, err := r.pool.Next(ctx, 0)
		if err == nil {
			r.settle(a.Order)
		}
		return a, err
	}
	return nil, nil
}

// without returns an answer that nobody has worked for: a failure, or else an abstention.
func (r *replay) without(o *federated.Order, why error) *federated.Answer {
	r.settle(o)
	a := &federated.Answer{Order: o, Err: why, Result: federated.Result{Status: federated.Abstained}}
	t, err := o.Make()
	a.Task = t // it was sent nevertheless
	a.Err = cmp.Or(why, err)
	return a
}

// settle takes an order out of the books.
func (r *replay) settle(o *federated.Order) {
	is := func(x *federated.Order) bool { return x == o }
	r.lost, r.abstained = slices.DeleteFunc(r.lost, is), slices.DeleteFunc(r.abstained, is)
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.visits, o)
	if r.visiting[o.Member.Index] == o {
		delete(r.visiting, o.Member.Index)
	}
}

// Drop implements [federated.Members].
func (r *replay) Drop(o *federated.Order) {
	r.settle(o)
	r.pool.Drop(o)
}

// Now implements [federated.Members]: the time on record.
func (r *replay) Now() time.Duration { return r.phase().closed.Closed }

// Keep implements [federated.Members].
func (r *replay) Keep(member int, s *weights.Set) error { return r.recall.Store(member, s) }

// Load implements [Memory]: what a member kept when it was asked.
func (r *replay) Load(member int) (*weights.Set, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.visits[r.visiting[member]], nil
}

// Store implements [Memory].
func (r *replay) Store(member int, s *weights.Set) error { return r.recall.Store(member, s) }

// PhaseClosed implements [federated.Log]: those who took part must be those on record.
func (r *replay) PhaseClosed(p federated.PhaseClosed, _ func() federated.Snapshot) error {
	was := r.phase()
	now := pastPhase{opened: was.opened, closed: p}
	got, want := now.counted(), r.base
	for _, m := range slices.Sorted(maps.Keys(want)) {
		if base, ok := got[m]; !ok || base != want[m] {
			return differs(p.Round, p.Phase, "the answer of %s, folded on record, is not%s", r.job.Fleet.Member(m).Name, reason(p, r.job.Fleet.Member(m).Name))
		}
	}
	for what, lists := range map[string][2]federated.Indices{
		"folded":    {slices.Sorted(maps.Keys(got)), slices.Sorted(maps.Keys(want))},
		"abstained": {p.Abstained, was.closed.Abstained}, "lost": {p.Lost, was.closed.Lost},
	} {
		if !slices.Equal(lists[0], lists[1]) {
			now, _ := lists[0].MarshalText()
			then, _ := lists[1].MarshalText()
			return differs(p.Round, p.Phase, "%s are members %.200s, on record %.200s", what, now, then)
		}
	}
	r.at++
	r.log.phases = append(r.log.phases, Phase{p, r.log.lap()})
	return nil
}

// reason returns why a member's answer did not count, if that is told.
func reason(p federated.PhaseClosed, name string) string {
	for _, f := range p.Failed {
		if f.Member == name {
			return ": " + f.Reason
		}
	}
	return ""
}
