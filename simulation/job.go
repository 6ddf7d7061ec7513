package simulation

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/record"
)

// Job is a run that is ready to go.
type Job struct {
	Algorithm  federated.Algorithm
	Fleet      *Fleet
	Config     federated.Config
	Conditions Conditions
	// Workers is how many clients are at work at a time on this machine; 0: one a thread; less: none, if there is an Elsewhere.
	Workers int
	// Elsewhere, if not nil, is told of the pool of a run when it is open, to add other places to it ([Pool.Add]).
	Elsewhere func(*Pool)
	// Observer, if not nil, is told what happens while it happens.
	Observer Observer
	// Secret, if not nil, is the source of secrets in place of the run's own: to verify a run with what its coordinator kept.
	Secret func(round int, purpose string) ([32]byte, error)
	// Clock times rounds for the Observer; nil means [time.Now]. Nothing else depends on it.
	Clock func() time.Time
}

// Observer watches a run. Its methods are called by the driver's goroutine.
type Observer interface {
	// Progress is called for every answer in a phase.
	Progress(round int, phase string, answered, asked int)
	// Round is called when a round is closed.
	Round(Round)
}

// Round is what became of a round.
type Round struct {
	federated.RoundClosed
	Phases []Phase
	Took   time.Duration // by the wall clock, with what was written about the round
	Again  bool          // it had been closed before and was computed again after the run was resumed
}

// Phase is what became of a phase.
type Phase struct {
	federated.PhaseClosed
	Took time.Duration // by the wall clock
}

// Metric returns the last value of a metric in the round, NaN if it was not measured.
func (r Round) Metric(name, key string) float64 {
	v := math.NaN()
	for _, p := range r.Phases {
		for _, m := range p.Metrics {
			if m.Name == name && m.Key == key {
				v = m.Value
			}
		}
	}
	return v
}

// Run runs the job in memory, without leaving anything behind, and returns the last state.
func (j *Job) Run(ctx context.Context) (federated.State, error) {
	return j.drive(ctx, &log{job: j, recall: NewRecall()}, nil)
}

// RunIn runs the job in the folder of a run, from its beginning or from where it was left, with a checkpoint every so many
// rounds (0: every round), at the last round, and where it is stopped. A run that was left resumes at its newest
// checkpoint; rounds that it had closed since are computed again and must come out the same. Fsys is the file system that
// run was opened with.
func (j *Job) RunIn(ctx context.Context, run *record.Run, fsys journal.FS, every int) (federated.State, error) {
	l := &log{job: j, recall: NewRecall(), run: run, fs: fsys, every: max(1, every), expect: map[int]string{}, best: math.Inf(-1),
		secrets: Secrets(fsys, run)}
	from, err := l.resume()
	if err != nil {
		return federated.State{}, full(err)
	}
	if from != nil {
		l.secrets = KeptSecrets(fsys, run.Dir())
	}
	s, err := j.drive(ctx, l, from)
	if err != nil {
		return s, full(err)
	}
	return s, full(l.finish(s))
}

// full adds to an error of a full disk what to do about it.
func full(err error) error {
	if !journal.IsFull(err) {
		return err
	}
	return fmt.Errorf("%w: free some space and resume the run; nothing that it had closed is lost", err)
}

// Verify computes the run in a folder again, from its beginning, and compares the digest of every round that it closed. It
// returns how many rounds agreed and an error for the first that does not.
func (j *Job) Verify(ctx context.Context, dir string) (rounds int, err error) {
	l := &log{recall: NewRecall(), expect: map[int]string{}, strict: true, secrets: KeptSecrets(journal.OS(), dir)}
	last := -1
	for r, err := range journal.Decode[closedRecord](journal.Read(journal.OS(), dir, KindRoundClosed)) {
		if err != nil {
			return 0, err
		}
		l.expect[r.Body.Round] = r.Body.Digest
		last = max(last, r.Body.Round)
	}
	if last < 0 {
		return 0, errors.New("the run has closed no round yet: there is nothing to verify")
	}
	c := *j
	c.Config.Rounds = last + 1
	l.job = &c
	_, err = c.drive(ctx, l, nil)
	return l.agreed, err
}

// Distance computes the run in a folder again, as far as its newest state on record, and returns for every set of the state
// how far it is from the recorded one, ‖computed − recorded‖ / ‖recorded‖: for runs of another engine or kernel path, whose
// bits cannot be expected to agree.
func (j *Job) Distance(ctx context.Context, dir string) (map[string]float64, error) {
	recorded, err := load(dir, "final")
	if err != nil {
		return nil, err
	}
	c := *j
	c.Config.Rounds = recorded.Round
	if c.Secret == nil {
		c.Secret = KeptSecrets(journal.OS(), dir)
	}
	got, err := c.Run(ctx)
	if err != nil {
		return nil, err
	}
	out := map[string]float64{}
	for name, want := range recorded.Sets {
		s := got.Sets[name]
		if err := s.Match(want); err != nil {
			return nil, fmt.Errorf("set %q is of another model than the recorded one: %w", name, err)
		}
		d, norm := s.Sub(want).Norm(), want.Norm()
		if d > 0 {
			d /= norm
		}
		out[name] = d
	}
	return out, nil
}

// workers returns how many clients are at work at a time on this machine.
func (j *Job) workers() int {
	if j.Workers < 1 {
		return runtime.GOMAXPROCS(0)
	}
	return j.Workers
}

// secret is where the run's secrets come from.
func (j *Job) secret(l *log) func(round int, purpose string) ([32]byte, error) {
	switch {
	case j.Secret != nil:
		return j.Secret
	case l.secrets != nil:
		return l.secrets
	}
	return passing()
}

// open returns the pool of a run, with all places that it has.
func (j *Job) open(ctx context.Context, local func(federated.Member) federated.Local, m Memory, clock time.Duration) *Pool {
	n := j.workers()
	if j.Workers < 0 && j.Elsewhere != nil {
		n = 0
	}
	p := NewPool(ctx, j.Algorithm.Client(), local, m, j.Conditions, j.Fleet.Seed, n, clock)
	if j.Elsewhere != nil {
		j.Elsewhere(p)
	}
	return p
}

func (j *Job) drive(ctx context.Context, l *log, from *federated.Snapshot) (federated.State, error) {
	if err := j.Conditions.Validate(); err != nil {
		return federated.State{}, fmt.Errorf("conditions: %w", err)
	}
	j.Fleet.vaults.Reset()
	defer j.Fleet.vaults.Reset()
	lies, local, err := j.plot()
	if err != nil {
		return federated.State{}, err
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	pool := j.open(ctx, local, l.recall, clockOf(from))
	defer pool.Close() // after cancel, which ends what is still at work
	defer cancel()
	pool.corrupt(lies)
	l.began = l.now()
	srv := j.Fleet.Server()
	srv.Secret = j.secret(l)
	return federated.Run(ctx, j.Algorithm, srv, pool, l, j.Config, from)
}
