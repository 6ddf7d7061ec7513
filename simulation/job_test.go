package simulation_test

import (
	"context"
	"errors"
	"io/fs"
	"math"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedavg"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/journal/faultfs"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// observer notes what it is told.
type observer struct {
	answers int
	rounds  []simulation.Round
	on      func(simulation.Round)
}

func (o *observer) Progress(int, string, int, int) { o.answers++ }
func (o *observer) Round(r simulation.Round) {
	o.rounds = append(o.rounds, r)
	if o.on != nil {
		o.on(r)
	}
}

func TestObserver(t *testing.T) {
	j := job(t, fedtest.Engine(t, "go"), "heterofl")
	o := &observer{}
	now := time.Time{}
	j.Observer, j.Clock = o, func() time.Time { now = now.Add(time.Second); return now }
	s, err := j.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(o.rounds) != rounds || o.rounds[2].Digest != s.Digest() || !o.rounds[2].Last || o.answers == 0 {
		t.Errorf("%d rounds, %d answers", len(o.rounds), o.answers)
	}
	for _, r := range o.rounds {
		if v := r.Metric("accuracy", ""); !(v > 0 && v <= 1) || !math.IsNaN(r.Metric("nothing", "")) {
			t.Errorf("accuracy %v", v)
		}
		if len(r.Phases) != 4 || r.Took != 5*time.Second || r.Phases[1].Took != time.Second || r.Again {
			t.Errorf("round of %d phases took %v", len(r.Phases), r.Took)
		}
	}
}

// A run that is stopped in a folder is checkpointed and goes on there.
func TestStopAndGoOn(t *testing.T) {
	e := fedtest.Engine(t, "go")
	want, digest, _ := reference(t, e, "scaffold", 100)
	dir := t.TempDir()
	j := job(t, e, "scaffold")
	stop := make(chan struct{})
	o := &observer{on: func(r simulation.Round) {
		if r.RoundClosed.Round == 0 {
			close(stop)
		}
	}}
	j.Config.Stop, j.Observer = stop, o
	if _, err := work(j, dir, faultfs.New(journal.OS()), 1); !errors.Is(err, federated.ErrStopped) || len(o.rounds) != 1 {
		t.Fatalf("error %v after %d rounds", err, len(o.rounds))
	}
	j = job(t, e, "scaffold")
	o = &observer{}
	j.Observer = o
	s, err := work(j, dir, faultfs.New(journal.OS()), 1)
	if err != nil || s.Digest() != digest || look(t, dir) != want {
		t.Errorf("error %v; another end than that of an uninterrupted run", err)
	}
	if len(o.rounds) != 2 || o.rounds[0].Again {
		t.Errorf("%d rounds after the stop, want 2", len(o.rounds))
	}
}

// Rounds that are computed again after a resume must come out as they are recorded.
func TestResumeDiffers(t *testing.T) {
	e := fedtest.Engine(t, "go")
	dir, f := t.TempDir(), faultfs.New(journal.OS())
	f.Add(faultfs.Rule{Op: faultfs.Create, Name: "checkpoint.tmp", N: 3, Crash: faultfs.Kill})
	if _, err := work(job(t, e, "fedavg"), dir, f, 100); err == nil { // no checkpoint of a round but the last
		t.Fatal("no crash")
	}
	j := job(t, e, "fedavg")
	j.Fleet.Seed++
	var differs *simulation.MismatchError
	if _, err := work(j, dir, faultfs.New(journal.OS()), 100); !errors.As(err, &differs) {
		t.Errorf("resumed with another seed: error %v", err)
	}
	o := &observer{}
	j = job(t, e, "fedavg")
	j.Observer = o
	if _, err := work(j, dir, faultfs.New(journal.OS()), 100); err != nil {
		t.Fatal(err)
	}
	if !o.rounds[0].Again || o.rounds[rounds-1].Again {
		t.Error("rounds that come again do not say so")
	}
}

// When every client fails though nothing is wrong with the conditions, the run ends and says why.
func TestHopeless(t *testing.T) {
	e := fedtest.Engine(t, "go")
	j := job(t, e, "fedavg")
	p := fedtest.Problem(t, 6, 3)
	p.Training.Rate, p.Training.Clip = train.Constant(1e30), 0
	j.Algorithm = fedavg.New(p)
	_, err := j.Run(t.Context())
	if err == nil || !strings.Contains(err.Error(), "all 4 clients failed; the first, client-0") || !strings.Contains(err.Error(), "lower the learning rate") {
		t.Errorf("error %v", err)
	}
	p.Select.Fraction = 0.2 // a single client may be bad
	if _, err := j.Run(t.Context()); err != nil {
		t.Errorf("one client of one that was asked fails, and ends the run: %v", err)
	}
	p.Select.Fraction, j.Conditions.Dropout = 0.8, 0.01 // now failures are expected
	if _, err := j.Run(t.Context()); err != nil {
		t.Errorf("failures are expected, and end the run: %v", err)
	}
}

func TestCancelledJob(t *testing.T) {
	e := fedtest.Engine(t, "go")
	ctx, cancel := context.WithCancel(t.Context())
	j := job(t, e, "heterofl")
	j.Observer = &observer{on: func(simulation.Round) { cancel() }}
	dir := t.TempDir()
	run, err := record.Create(dir, record.Meta{Method: "test"}, nil, record.Options{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := j.RunIn(ctx, run, journal.OS(), 1); !errors.Is(err, context.Canceled) {
		t.Errorf("error %v", err)
	}
	if err := run.Close(record.Interrupted, nil); err != nil {
		t.Fatal(err)
	}
	_, digest, _ := reference(t, e, "heterofl", 1)
	if s, err := work(job(t, e, "heterofl"), dir, faultfs.New(journal.OS()), 1); err != nil || s.Digest() != digest {
		t.Errorf("gone on after it was cancelled: error %v, or another end", err)
	}
	if _, err := j.Verify(t.Context(), t.TempDir()); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("verifying a folder without a run: %v", err)
	}
	j.Conditions.Dropout = 2
	if _, err := j.Run(t.Context()); err == nil {
		t.Error("dropout 2: no error")
	}
}

func TestModel(t *testing.T) {
	e := fedtest.Engine(t, "go")
	dir := t.TempDir()
	j := job(t, e, "heterofl")
	s, err := work(j, dir, journal.OS(), 1)
	if err != nil {
		t.Fatal(err)
	}
	m, err := simulation.Model(dir, "final")
	if err != nil {
		t.Fatal(err)
	}
	if m.Round != rounds || !m.Weights.Equal(s.Sets["w"]) || !m.Stats.Equal(s.Sets["stats"]) {
		t.Error("the final model is not the last state")
	}
	if _, ok := m.Export().Get("norm1.running_mean"); !ok {
		t.Error("the exported model lacks statistics")
	}
	if b, err := simulation.Model(dir, "best"); err != nil || b.Round > rounds || b.Weights.Len() == 0 {
		t.Errorf("best model of round %d: %v", b.Round, err)
	}
	if _, err := simulation.Model(t.TempDir(), "final"); err == nil {
		t.Error("a folder without checkpoints: no error")
	}
}

// idle is a method that measures and learns nothing: it shows what members cost the driver.
type idle struct{ *fedavg.Algorithm }

func (idle) Client() federated.Client { return idleClient{} }

type idleClient struct{}

func (idleClient) Run(_ context.Context, _ federated.Local, t federated.Task, _ *weights.Set) (federated.Result, error) {
	if t.Phase == "train" {
		return federated.Result{Addends: map[string]weights.Set{"w": t.Sets["w"].Zeros()}}, nil
	}
	return federated.Result{Scalars: map[string]float64{"examples": 1, "correct": 1, "loss": 1}}, nil
}

// A client costs its rows and little more: what is alive at the worst moment of a round in which all of 100,000 take part
// and are evaluated stays within 128 bytes a client and 8 bytes a sample of what it is with 1,000.
func TestMemory(t *testing.T) {
	e := fedtest.Engine(t, "go")
	const samples = 200_000
	alive := func(clients int) uint64 {
		data := &dataset.Examples{Name: "zeros", Shape: []int{1}, F32: make([]float32, samples), Labels: make([]int32, samples), Classes: []string{"0", "1", "2"}}
		d, err := dataset.Scheme{Name: "iid", Clients: clients}.Deal(data, nil, 1)
		if err != nil {
			t.Fatal(err)
		}
		d.Test = d.Train
		p := fedtest.Problem(t, 1, 3)
		if p.Build, err = nn.New("linear", nn.Config{Input: []int{1}, Classes: 3}); err != nil {
			t.Fatal(err)
		}
		p.Select, p.Rounds, p.Measuring.Batch = federated.Selection{Fraction: 1}, 1, 1000
		j := &simulation.Job{Algorithm: idle{fedavg.New(p)}, Config: federated.Config{Rounds: 1},
			Fleet: &simulation.Fleet{Split: &dataset.Split{Train: data, Test: data}, Dealt: d, Engine: e}}
		w := &weigher{every: clients / 4}
		j.Observer = w
		if _, err := j.Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		return w.most
	}
	alive(1000) // compiles what is shared
	few, many := alive(1000), alive(100_000)
	t.Logf("alive: %d KiB with 1,000 clients, %d KiB with 100,000", few>>10, many>>10)
	if many > few+8*samples+128*99_000 {
		t.Errorf("alive: %d bytes with 1,000 clients, %d with 100,000", few, many)
	}
}

// weigher measures what is alive.
type weigher struct {
	n, every int
	most     uint64
}

func (w *weigher) Progress(int, string, int, int) {
	if w.n++; w.n%w.every == 0 {
		w.weigh()
	}
}
func (w *weigher) Round(simulation.Round) { w.weigh() }
func (w *weigher) weigh() {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	w.most = max(w.most, m.HeapAlloc)
}

// brief is a method that finds that it is over after two rounds.
type brief struct{ federated.Algorithm }

func (brief) Over(s federated.State) bool { return s.Round >= 2 }

// A run that was over before its last planned round has ended: the journal says so, and to resume it adds nothing.
func TestOverInFolder(t *testing.T) {
	e := fedtest.Engine(t, "go")
	dir := t.TempDir()
	records := func() (n, ended int) {
		for r, err := range journal.Read(journal.OS(), dir) {
			if err != nil {
				t.Fatal(err)
			}
			n++
			if r.Kind == simulation.KindEnded {
				ended++
			}
		}
		return n, ended
	}
	var digest string
	var before int
	for range 2 {
		j := job(t, e, "fedavg")
		j.Algorithm = brief{j.Algorithm}
		s, err := work(j, dir, faultfs.New(journal.OS()), 1)
		if err != nil {
			t.Fatal(err)
		}
		n, ended := records()
		if ended != 1 || s.Round != 2 || digest != "" && (s.Digest() != digest || n != before) {
			t.Errorf("the run ended after %d rounds, which stands in %d of %d records; before there were %d", s.Round, ended, n, before)
		}
		digest, before = s.Digest(), n
	}
	j := job(t, e, "fedavg")
	j.Algorithm = brief{j.Algorithm}
	if rounds, err := j.Verify(t.Context(), dir); rounds != 2 || err != nil {
		t.Errorf("%d rounds verified, error %v", rounds, err)
	}
}
