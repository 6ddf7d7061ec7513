package simulation

import (
	"encoding/json"
	"fmt"
	"io"
	"path/filepath"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/record"
)

// Kinds of journal records of a run.
const (
	KindOpened      = "run.opened"
	KindResumed     = "run.resumed"
	KindPhaseOpened = "phase.opened"
	KindPhaseClosed = "phase.closed"
	KindRoundClosed = "round.closed"
	KindSealed      = record.KindSecret // before anything is made with the run's secrets
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

func newPhaseRecord(p federated.PhaseClosed) phaseRecord {
	body := record.Body{Round: p.Round}
	add := func(name, key string, v float64) {
		body.Metrics = append(body.Metrics, record.Metric{Name: name, Key: key, Value: v})
	}
	for _, m := range p.Metrics {
		add(m.Name, m.Key, m.Value)
	}
	of := "" // phases other than training are part of the metrics' names
	switch method, step := federated.SplitPhase(p.Phase); {
	case federated.Learns(p.Phase):
	case federated.Works(step):
		of = "." + method
	default:
		of = "." + p.Phase
	}
	for _, t := range p.Traffic {
		add("clients"+of, t.Tag, float64(t.Members))
		add("bytes.down"+of, t.Tag, float64(t.Down))
		add("bytes.up"+of, t.Tag, float64(t.Up))
	}
	for _, f := range p.Failed {
		body.Events = append(body.Events, record.Event{Level: record.Warn, Client: f.Member, Message: f.Phase + ": " + f.Reason})
	}
	for _, n := range p.Notes {
		body.Events = append(body.Events, record.Event{Level: record.Info, Message: p.Phase + ": " + n})
	}
	return phaseRecord{p, body}
}

// MarshalJSON writes the members of both parts side by side.
func (p phaseRecord) MarshalJSON() ([]byte, error) {
	type plain federated.PhaseClosed
	phase := plain(p.phase)
	phase.Metrics, phase.Failed, phase.Notes = nil, nil, nil // the body has them
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

// MismatchError tells that a round that was computed again did not come out as it is recorded: another program, engine,
// kernel path, recipe or data set than that of the run.
type MismatchError struct {
	Round            int
	Digest, Recorded string // of the state after the round, if that differs
	Phase, What      string // else what differs in which phase
}

func (e *MismatchError) Error() string {
	if e.What != "" {
		return fmt.Sprintf("round %d came out differently: %s: %s", e.Round, e.Phase, e.What)
	}
	return fmt.Sprintf("round %d came out differently: digest %.16s…, recorded %.16s…", e.Round, e.Digest, e.Recorded)
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

	secrets func(round int, purpose string) ([32]byte, error) // nil: of no folder

	round  int
	phases []Phase
	began  time.Time // of the phase or round under way
	took   time.Duration
}

func (l *log) now() time.Time {
	if l.job.Clock != nil {
		return l.job.Clock()
	}
	return time.Now()
}

// lap returns the time since the last lap.
func (l *log) lap() time.Duration {
	t := l.now()
	d := t.Sub(l.began)
	l.began = t
	l.took += d
	return d
}

// replayed reports whether the round was journalled by an earlier life of the run.
func (l *log) replayed(round int) bool { return l.expect[round] != "" }

// append journals what happened in a round, unless an earlier life of the run did.
func (l *log) append(kind string, round int, body any) error {
	if l.run == nil || l.replayed(round) {
		return nil
	}
	if _, err := l.run.Journal().Append(kind, body); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}

// PhaseOpened implements [federated.Log].
func (l *log) PhaseOpened(p federated.PhaseOpened) error {
	l.round = p.Round
	return l.append(KindPhaseOpened, p.Round, p)
}

// PhaseClosed implements [federated.Log]. A simulation goes on at rounds, so it takes no snapshot of a phase.
func (l *log) PhaseClosed(p federated.PhaseClosed, _ func() federated.Snapshot) error {
	l.phases = append(l.phases, Phase{p, l.lap()})
	if err := l.append(KindPhaseClosed, p.Round, newPhaseRecord(p)); err != nil {
		return err
	}
	return l.hopeless(p)
}

// hopeless returns an error if every one of several clients, or the only client there is, failed although conditions are
// perfect: something is wrong with the run, and going on would waste its rounds.
func (l *log) hopeless(p federated.PhaseClosed) error {
	c := l.job.Conditions
	perfect := c.Dropout == 0 && c.Stall == 0 && c.Attack == Attack{} && l.job.Config.Pace.Deadline == 0
	if !perfect || p.Asked == 0 || len(p.Lost) < p.Asked || p.Asked == 1 && l.job.Fleet.Len() > 1 {
		return nil
	}
	return fmt.Errorf("all %d clients failed; the first, %s: %s", p.Asked, p.Failed[0].Member, p.Failed[0].Reason)
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
			return &MismatchError{Round: r.Round, Digest: r.Digest, Recorded: want}
		}
		l.agreed++
	} else if l.strict {
		return fmt.Errorf("round %d is not recorded", r.Round)
	}
	round := Round{RoundClosed: r, Phases: l.phases, Again: l.replayed(r.Round)}
	if l.run != nil {
		if err := l.write(round, snap); err != nil {
			return err
		}
	}
	l.lap()
	round.Took = l.took
	l.phases, l.took = nil, 0
	if l.job.Observer != nil {
		l.job.Observer.Round(round)
	}
	return nil
}

// write makes a round durable: first what its record names, then the record.
func (l *log) write(r Round, snap federated.Snapshot) error {
	closed := closedRecord{RoundClosed: r.RoundClosed}
	if (r.Round+1)%l.every == 0 || r.Last {
		digest, err := l.checkpoint(r.Round, snap)
		if err != nil {
			return err
		}
		closed.Checkpoint = digest
	}
	if err := l.keepBest(r, snap); err != nil {
		return err
	}
	if err := l.append(KindRoundClosed, r.Round, closed); err != nil {
		return err
	}
	if err := l.run.Metrics().Update(l.run.Journal()); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}

func (l *log) keepsDir() string { return filepath.Join(l.run.Dir(), keepsName) }

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
	acc := r.Metric("accuracy", "")
	if !(acc > l.best) {
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
	measured, err := l.run.Metrics().Series("accuracy", "")
	if err != nil {
		return nil, err
	}
	for _, p := range measured {
		if p.Round < round { // later ones come again
			l.best = max(l.best, p.Value)
		}
	}
	for r := range l.expect {
		if r < round {
			delete(l.expect, r)
		}
	}
	if snap != nil && l.ended(snap.State) {
		return snap, nil
	}
	_, err = j.Append(KindResumed, struct {
		Round int `json:"from"`
	}{round})
	return snap, err
}

// endedRecord is the body of run.ended.
type endedRecord struct {
	Rounds     int    `json:"rounds"`
	Digest     string `json:"digest"`
	Checkpoint string `json:"checkpoint"`
}

// ended reports whether the journal says that the run ended in a state, and there is no round after it.
func (l *log) ended(s federated.State) bool {
	last := -1
	for r, err := range journal.Decode[endedRecord](l.run.Journal().Records(KindEnded)) {
		if err != nil {
			return false
		}
		last = r.Body.Rounds
	}
	return last == s.Round && (last == l.job.Config.Rounds || federated.Over(l.job.Algorithm, s))
}

// finish keeps the last state under the name "final" and records the end of the run, unless that has been done.
func (l *log) finish(s federated.State) error {
	if l.ended(s) {
		return nil
	}
	c, err := l.run.Checkpoints().SaveNamed("final", s.Round, func(w io.Writer) error {
		return writeSnapshot(w, federated.Snapshot{State: s}, nil)
	})
	if err != nil {
		return fmt.Errorf("final checkpoint: %w", err)
	}
	if _, err := l.run.Journal().Append(KindEnded, endedRecord{s.Round, s.Digest(), c.Digest.String()}); err != nil {
		return fmt.Errorf("journal: %w", err)
	}
	return nil
}
