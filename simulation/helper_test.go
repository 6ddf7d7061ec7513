package simulation_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedavg"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/federated/heterofl"
	"github.com/cohort-learning/cohort/federated/scaffold"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/secure/robust"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/train"
)

const rounds = 3

// fleet deals small blobs to clients.
func fleet(t testing.TB, e *train.Engine, sizes ...int) *simulation.Fleet {
	t.Helper()
	split, dealt := fedtest.Blobs(e, 6, 3, sizes...).Deal(t)
	return &simulation.Fleet{Split: split, Dealt: dealt, Engine: e, Seed: 11}
}

// jobs are the runs that crashes are tried on.
var jobs = map[string]func(p *federated.Problem, j *simulation.Job) (federated.Algorithm, error){
	"fedavg": func(p *federated.Problem, _ *simulation.Job) (federated.Algorithm, error) { return fedavg.New(p), nil },
	"scaffold": func(p *federated.Problem, _ *simulation.Job) (federated.Algorithm, error) {
		p.Measuring.Members = false
		return scaffold.New(p), nil
	},
	"asynchronous": func(p *federated.Problem, j *simulation.Job) (federated.Algorithm, error) {
		p.Measuring.Members = false
		j.Config.Pace = federated.Pace{Quorum: 0.5, Staleness: 2, Discount: 0.5}
		j.Conditions = simulation.Conditions{Latency: time.Minute, Spread: 1, Jitter: 0.5, Dropout: 0.1}
		return scaffold.New(p), nil
	},
	// Two of six lie together, some are slow or lost, and a rule that remembers stands them.
	"attacked": func(p *federated.Problem, j *simulation.Job) (federated.Algorithm, error) {
		p.Measuring.Members, p.Select.Fraction = false, 1
		j.Config.Rule = robust.Rule{Method: robust.CentredClip{}, Bucket: 2}
		j.Conditions = simulation.Conditions{Latency: time.Minute, Spread: 1, Dropout: 0.1,
			Attack: simulation.Attack{Kind: "alie", Liars: 0.4, Strength: 1}}
		return scaffold.New(p), nil
	},
	"heterofl": func(p *federated.Problem, _ *simulation.Job) (federated.Algorithm, error) {
		m, err := heterofl.ParseMode("a1-b2-c2", nil)
		if err != nil {
			return nil, err
		}
		return heterofl.New(p, heterofl.Config{Mode: m, Dynamic: true})
	},
}

func job(t testing.TB, e *train.Engine, name string) *simulation.Job {
	t.Helper()
	j := &simulation.Job{Fleet: fleet(t, e, 8, 6, 12, 10, 7, 6), Workers: 2, Config: federated.Config{Rounds: rounds}}
	p := fedtest.Problem(t, 6, 3)
	p.Rounds = rounds
	a, err := jobs[name](p, j)
	if err != nil {
		t.Fatal(err)
	}
	j.Algorithm = a
	return j
}

// work runs a job in a folder, from its beginning or from where it was left.
func work(j *simulation.Job, dir string, fsys journal.FS, every int) (s federated.State, err error) {
	o := record.Options{FS: fsys}
	run, err := record.Resume(dir, o)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, journal.ErrEmpty) {
		run, err = record.Create(dir, record.Meta{Method: "test"}, []byte("recipe\n"), o)
	}
	if err != nil {
		return s, fmt.Errorf("opening: %w", err)
	}
	s, err = j.RunIn(context.Background(), run, fsys, every)
	state := record.Finished
	if err != nil {
		state = record.Failed
	}
	if cerr := run.Close(state, err); err == nil {
		err = cerr
	}
	return s, err
}

// outcome is what a run in a folder has left: the digests of its rounds, some metrics, and the files of its best and its last model.
type outcome struct {
	digests string
	metrics string
	files   string
}

func look(t testing.TB, dir string) outcome {
	t.Helper()
	var o outcome
	digests := map[int]string{}
	for r, err := range journal.Decode[federated.RoundClosed](journal.Read(journal.OS(), dir, simulation.KindRoundClosed)) {
		if err != nil {
			t.Fatal(err)
		}
		if old, ok := digests[r.Body.Round]; ok && old != r.Body.Digest {
			t.Errorf("round %d was closed twice, with different digests", r.Body.Round)
		}
		digests[r.Body.Round] = r.Body.Digest
	}
	o.digests = fmt.Sprint(digests)
	m, err := record.ReadMetrics(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	for _, name := range []string{"accuracy", "loss.train", "bytes.up"} {
		s, err := m.Series(name, "")
		if err != nil {
			t.Fatal(err)
		}
		o.metrics += fmt.Sprint(name, s)
	}
	for _, name := range []string{"best", "final"} { // an older one may be left besides if a removal was lost
		c, ok, _, err := record.Checkpoints{FS: journal.OS(), Dir: filepath.Join(dir, "checkpoints")}.Named(name)
		if err != nil || !ok {
			t.Fatalf("%s: no checkpoint %q: %v", dir, name, err)
		}
		o.files += filepath.Base(c.Path) + " "
	}
	return o
}
