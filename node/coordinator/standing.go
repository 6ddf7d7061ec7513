package coordinator

import (
	"slices"
	"time"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/transport"
)

// Standing is how the members of a run stand in the phase under way.
type Standing struct {
	Deadline time.Time // of the phase; zero is none
	Members  map[string]Duty
}

// Duty is what a member has been asked, and whether it has answered. All is zero of one that agreed and was asked nothing yet.
type Duty struct {
	Asked    time.Time // when; zero: not in this phase
	Answered bool      // or failed
	Took     time.Duration
	Slow     bool   // it has not answered for more than twice the median of the phase
	Level    string // of the newest task that was made for it
	Samples  int    // examples that it declared
	Gone     string // why it is not in the run any more
}

// leastSlow is how long a member may take however fast the others are.
const leastSlow = 2 * time.Second

// Standing returns how the members stand that have agreed to the run.
func (r *Run) Standing() Standing {
	s := Standing{Members: map[string]Duty{}}
	r.joining.Lock()
	for name, a := range r.lobby {
		s.Members[name] = Duty{Samples: a.Samples}
	}
	r.joining.Unlock()
	d, now := r.desk, time.Now()
	phase := ""
	if p := r.phase.Load(); p != nil {
		phase = *p
	}
	if end := r.deadline.Load(); end != 0 {
		s.Deadline = now.Add(time.Duration(end) - d.Now())
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	var took []time.Duration
	for _, x := range d.orders {
		if x.dropped || x.Phase != phase {
			continue
		}
		m := s.Members[x.Member.Name]
		m.Asked = x.issued
		switch {
		case x.state >= acceptedState:
			m.Answered, m.Took = true, x.took
		default:
			m.Took = now.Sub(x.issued)
		}
		took = append(took, m.Took)
		s.Members[x.Member.Name] = m
	}
	slices.Sort(took)
	for name, m := range s.Members {
		m.Level, m.Gone = d.levels[name], d.gone[name]
		m.Slow = !m.Answered && !m.Asked.IsZero() && m.Took > max(leastSlow, 2*took[(len(took)-1)/2])
		s.Members[name] = m
	}
	return s
}

// Head returns how far the journal has come.
func (r *Run) Head() journal.Head { return r.rec.Journal().Head() }

// Follow calls f for the records of the journal from a number on. It fails with [journal.ErrClosed] when the run is over: then
// the journal is read in the run's folder.
func (r *Run) Follow(from uint64, f func(journal.Record) error) error {
	r.closing.RLock()
	defer r.closing.RUnlock()
	if r.closed {
		return journal.ErrClosed
	}
	for rec, err := range r.rec.Journal().From(from) {
		if err == nil {
			err = f(rec)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// Metrics returns the run's metrics as its journal has them, for use until done is called; it fails with [journal.ErrClosed] when
// the run is over: then they are read in the run's folder.
func (r *Run) Metrics() (m *record.Metrics, done func(), err error) {
	r.closing.RLock()
	if r.closed {
		r.closing.RUnlock()
		return nil, nil, journal.ErrClosed
	}
	if err := r.rec.Metrics().Update(r.rec.Journal()); err != nil {
		r.closing.RUnlock()
		return nil, nil, err
	}
	return r.rec.Metrics(), r.closing.RUnlock, nil
}

// shut gives the folder of the run back, after those who read in it.
func (r *Run) shut(state record.State, cause error) error {
	r.closing.Lock()
	defer r.closing.Unlock()
	r.closed = true
	return r.rec.Close(state, cause)
}

// moved tells whoever watches that the journal, or what Now and Standing return, may have changed.
func (r *Run) moved() {
	if f := r.spec.Changed; f != nil {
		f()
	}
}

// Counters are what the server has counted since it began, over all runs.
type Counters struct {
	Accepted, Duplicate, Late uint64
	Refused                   map[transport.Code]uint64
	Unfolded                  int // results with blobs that are accepted and wait to be folded, now
	Waiting                   int // members that wait for a permit, now
	Permits                   uint64
	Journals                  journal.Stats
}

// Counters returns what has been counted.
func (s *Server) Counters() Counters {
	c := Counters{Accepted: uint64(s.counters.accepted.Load()), Duplicate: uint64(s.counters.duplicate.Load()), Late: uint64(s.counters.late.Load()),
		Refused: map[transport.Code]uint64{}}
	s.counters.mu.Lock()
	for code, n := range s.counters.refused {
		c.Refused[code] = uint64(n)
	}
	s.counters.mu.Unlock()
	for _, r := range s.Runs() {
		c.Journals.Add(r.rec.Journal().Stats())
		r.desk.mu.Lock()
		c.Unfolded += r.desk.unfolded()
		c.Waiting += len(r.desk.permits.waiting)
		c.Permits += r.desk.permits.given
		r.desk.mu.Unlock()
	}
	return c
}

// verdict counts what became of a result.
func (c *counters) verdict(o transport.Outcome) {
	switch o {
	case transport.Accepted:
		c.accepted.Add(1)
	case transport.Duplicate:
		c.duplicate.Add(1)
	case transport.Late:
		c.late.Add(1)
	}
}

// heard notes that a member has been heard of.
func (s *Server) heard(member string) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if p := s.members[member]; p != nil {
		p.heard.Store(time.Now().UnixNano())
	}
}

// Heard returns when a member was last heard of; zero if not since this process began.
func (s *Server) Heard(member string) time.Time {
	s.mu.RLock()
	defer s.mu.RUnlock()
	if p := s.members[member]; p != nil {
		if n := p.heard.Load(); n != 0 {
			return time.Unix(0, n)
		}
		return p.since
	}
	return time.Time{}
}
