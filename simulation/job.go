package simulation

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"path/filepath"
	"runtime"

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
	Workers    int // clients at work at a time; 0: one a thread
	// Observer, if not nil, is told what happens while it happens.
	Observer Observer
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
	Phases []federated.PhaseClosed
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

// Kinds of journal records of a run.
const (
	KindOpened      = "run.opened"
	KindResumed     = "run.resumed"
	KindPhaseOpened = "phase.opened"
	KindPhaseClosed = "phase.closed"
	KindRoundClosed = "round.closed"
	KindEnded       = "run.ended"
)

// opened is the body of run.opened.
type opened struct {
	Clients int    `json:"clients"`
	Rounds  int    `json:"rounds"`
	Engine  string `json:"engine"`
}

// phaseRecord is the body of phase.closed: what the driver says of the phase, with its metrics, traffic and failures in
// the form in which records of runs take them.
type phaseRecord struct {
	phase federated.PhaseClosed
	body  record.Body
}

// MarshalJSON writes the members of both parts side by side.
func (p phaseRecord) MarshalJSON() ([]byte, error) {
	type plain federated.PhaseClosed
	phase := plain(p.phase)
	phase.Metrics = nil
	return json.Marshal(struct {
		plain
		Metrics []record.Metric `json:"metrics,omitempty"` // in place of the plain ones
		Events  []record.Event  `json:"events,omitempty"`
	}{phase, p.body.Metrics, p.body.Events})
}

// closedRecord is the body of round.closed.
type closedRecord struct {
	federated.RoundClosed
	Checkpoint string `json:"checkpoint,omitempty"` // digest of the checkpoint taken after the round
}

// Run runs the job in memory, without leaving anything behind, and returns the last state.
func (j *Job) Run(ctx context.Context) (federated.State, error) {
	return j.drive(ctx, &log{job: j, recall: NewRecall()}, nil)
}

// RunIn runs the job in the folder of a run, from its beginning or from where it was left, with a checkpoint every so many
// rounds. A run that was left resumes at its newest checkpoint; rounds that it had closed since are computed again and must
// come out the same.
func (j *Job) RunIn(ctx context.Context, run *record.Run, fsys journal.FS, every int) (federated.State, error) {
	l := &log{job: j, recall: NewRecall(), run: run, fs: fsys, every: max(1, every), expect: map[int]string{}, best: math.Inf(-1)}
	from, err := l.resume()
	if err != nil {
		return federated.State{}, err
	}
	s, err := j.drive(ctx, l, from)
	if err != nil {
		return s, err
	}
	return s, l.finish(s)
}

// Verify computes the run in a folder again, from its beginning, and compares the digest of every round that it closed. It
// returns how many rounds agreed and an error for the first that does not.
func (j *Job) Verify(ctx context.Context, dir string) (rounds int, err error) {
	l := &log{job: j, recall: NewRecall(), expect: map[int]string{}, strict: true}
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
	_, err = c.drive(ctx, l, nil)
	return l.agreed, err
}

func (j *Job) drive(ctx context.Context, l *log, from *federated.Snapshot) (federated.State, error) {
	if err := j.Conditions.Validate(); err != nil {
		return federated.State{}, fmt.Errorf("conditions: %w", err)
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	workers := j.Workers
	if workers < 1 {
		workers = runtime.GOMAXPROCS(0)
	}
	clock := clockOf(from)
	pool := NewPool(ctx, j.Algorithm.Client(), j.Fleet.Local, l.recall, j.Conditions, j.Fleet.Seed, workers, clock)
	defer pool.Close()
	defer cancel()
	return federated.Run(ctx, j.Algorithm, j.Fleet.Server(), pool, l, j.Config, from)
}

// log is the federated.Log of a job.
type log struct {
	job    *Job
	recall *Recall

	run    *record.Run // nil: nothing is written
	fs     journal.FS
	every  int
	expect map[int]string // digests of rounds that were closed before
	strict bool           // every round must be expected
	agreed int
	keeps  map[int]int // manifest of the checkpoint before
	best   float64     // global accuracy of the best checkpoint

	round  int
	phases []federated.PhaseClosed
}

// replayed reports whether the round was journalled by an earlier life of the run.
func (l *log) replayed(round int) bool { return l.expect[round] != "" }

func (l *log) append(kind string, round int, body any) error {
	if l.run == nil || l.replayed(round) {
		return nil
	}
	_, err := l.run.Journal().Append(kind, body)
	if err != nil {
		err = fmt.Errorf("journal: %w", err)
		if journal.IsFull(err) {
			err = fmt.Errorf("%w; free some space and resume the run: nothing that was closed is lost", err)
		}
	}
	return err
}

// PhaseOpened implements [federated.Log].
func (l *log) PhaseOpened(p federated.PhaseOpened) error {
	l.round = p.Round
	return l.append(KindPhaseOpened, p.Round, p)
}

// PhaseClosed implements [federated.Log].
func (l *log) PhaseClosed(p federated.PhaseClosed) error {
	l.phases = append(l.phases, p)
	body := record.Body{Round: p.Round}
	add := func(name, key string, v float64) {
		body.Metrics = append(body.Metrics, record.Metric{Name: name, Key: key, Value: v})
	}
	for _, m := range p.Metrics {
		add(m.Name, m.Key, m.Value)
	}
	for _, t := range p.Traffic {
		add(p.Phase+".members", t.Tag, float64(t.Members))
		add(p.Phase+".bytes.down", t.Tag, float64(t.Down))
		add(p.Phase+".bytes.up", t.Tag, float64(t.Up))
	}
	for _, f := range p.Failed {
		body.Events = append(body.Events, record.Event{Level: record.Warn, Client: f.Member, Message: f.Phase + ": " + f.Reason})
	}
	for _, n := range p.Notes {
		body.Events = append(body.Events, record.Event{Level: record.Info, Message: p.Phase + ": " + n})
	}
	if err := l.append(KindPhaseClosed, p.Round, phaseRecord{p, body}); err != nil {
		return err
	}
	if c := l.job.Conditions; p.Asked > 0 && len(p.Failed) == p.Asked && c.Dropout == 0 && c.Stall == 0 && l.job.Config.Pace.Deadline == 0 {
		return fmt.Errorf("all %d clients failed; the first, %s: %s", p.Asked, p.Failed[0].Member, p.Failed[0].Reason)
	}
	return nil
}

// Progress implements [federated.Log].
func (l *log) Progress(phase string, answered, asked int) {
	if l.job.Observer != nil {
		l.job.Observer.Progress(l.round, phase, answered, asked)
	}
}

// RoundClosed implements [federated.Log]: first the checkpoint is durable, then the record that names it.
func (l *log) RoundClosed(r federated.RoundClosed, snap federated.Snapshot) error {
	if want, ok := l.expect[r.Round]; ok {
		if want != r.Digest {
			return fmt.Errorf("round %d came out differently: digest %.16s…, recorded %.16s…", r.Round, r.Digest, want)
		}
		l.agreed++
	} else if l.strict {
		return fmt.Errorf("round %d is not recorded", r.Round)
	}
	phases := l.phases
	l.phases = nil
	closed := closedRecord{RoundClosed: r}
	if l.run != nil {
		if (r.Round+1)%l.every == 0 || r.Round+1 == l.job.Config.Rounds || stopping(l.job.Config.Stop) {
			digest, err := l.checkpoint(r.Round, snap)
			if err != nil {
				return err
			}
			closed.Checkpoint = digest
		}
		if err := l.append(KindRoundClosed, r.Round, closed); err != nil {
			return err
		}
		if err := l.run.Metrics().Update(l.run.Journal()); err != nil {
			return fmt.Errorf("metrics: %w", err)
		}
	}
	round := Round{r, phases}
	if err := l.keepBest(round, snap); err != nil {
		return err
	}
	if l.job.Observer != nil {
		l.job.Observer.Round(round)
	}
	return nil
}

func stopping(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

func (l *log) keepsDir() string { return filepath.Join(l.run.Dir(), "clients") }

func (l *log) checkpoint(round int, snap federated.Snapshot) (string, error) {
	keeps, err := l.recall.save(l.fs, l.keepsDir(), round)
	if err != nil {
		return "", err
	}
	c, err := l.run.Checkpoints().Save(round, func(w io.Writer) error { return writeSnapshot(w, snap, keeps) })
	if err != nil {
		return "", fmt.Errorf("checkpoint of round %d: %w", round, err)
	}
	if err := sweep(l.fs, l.keepsDir(), keeps, l.keeps); err != nil {
		return "", fmt.Errorf("removing old client memories: %w", err)
	}
	l.keeps = keeps
	return c.Digest.String(), nil
}

// keepBest saves the model whenever its accuracy on the server's test data is the best so far.
func (l *log) keepBest(r Round, snap federated.Snapshot) error {
	acc := r.Metric("global.accuracy", "")
	if l.run == nil || !(acc > l.best) {
		return nil
	}
	l.best = acc
	_, err := l.run.Checkpoints().SaveNamed("best", r.Round, func(w io.Writer) error {
		return writeSnapshot(w, federated.Snapshot{State: snap.State, Clock: snap.Clock}, nil)
	})
	if err != nil {
		return fmt.Errorf("best checkpoint: %w", err)
	}
	return nil
}

// resume finds where to go on: nil for a new run.
func (l *log) resume() (*federated.Snapshot, error) {
	j := l.run.Journal()
	begun := false
	for _, err := range j.Records(KindOpened) {
		if err != nil {
			return nil, err
		}
		begun = true
	}
	if !begun {
		_, err := j.Append(KindOpened, opened{l.job.Fleet.Len(), l.job.Config.Rounds, l.run.Meta().Engine})
		return nil, err
	}
	var from *record.Checkpoint
	for r, err := range journal.Decode[closedRecord](j.Records(KindRoundClosed)) {
		if err != nil {
			return nil, err
		}
		l.expect[r.Body.Round] = r.Body.Digest
		if r.Body.Checkpoint == "" {
			continue
		}
		var h journal.Hash
		if err := h.UnmarshalText([]byte(r.Body.Checkpoint)); err != nil {
			return nil, fmt.Errorf("journal record %d: checkpoint: %w", r.Seq, err)
		}
		c, ok, _, err := l.run.Checkpoints().Find(h)
		if err != nil {
			return nil, err
		}
		if ok {
			from = &c
		}
	}
	measured, err := l.run.Metrics().Series("global.accuracy", "")
	if err != nil {
		return nil, err
	}
	for _, p := range measured {
		l.best = max(l.best, p.Value)
	}
	round := 0
	var snap *federated.Snapshot
	if from != nil {
		if err := l.run.Checkpoints().Load(from, func(r io.Reader) error {
			s, keeps, err := readSnapshot(r)
			if err != nil {
				return err
			}
			snap, l.keeps, round = &s, keeps, s.State.Round
			return l.recall.load(l.fs, l.keepsDir(), keeps)
		}); err != nil {
			return nil, fmt.Errorf("checkpoint %s: %w", from.Path, err)
		}
	}
	for r := range l.expect {
		if r < round {
			delete(l.expect, r)
		}
	}
	_, err = j.Append(KindResumed, struct {
		Round int `json:"from"`
	}{round})
	return snap, err
}

// finish records the end of the run and keeps its last state under the name "final".
func (l *log) finish(s federated.State) error {
	c, err := l.run.Checkpoints().SaveNamed("final", s.Round, func(w io.Writer) error {
		return writeSnapshot(w, federated.Snapshot{State: s}, nil)
	})
	if err != nil {
		return fmt.Errorf("final checkpoint: %w", err)
	}
	_, err = l.run.Journal().Append(KindEnded, struct {
		Rounds     int    `json:"rounds"`
		Digest     string `json:"digest"`
		Checkpoint string `json:"checkpoint"`
	}{s.Round, s.Digest(), c.Digest.String()})
	return err
}
