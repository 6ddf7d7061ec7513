package worker

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/baselines"
	"github.com/cohort-learning/cohort/federated/fedavg"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/federated/heterofl"
	"github.com/cohort-learning/cohort/federated/private"
	"github.com/cohort-learning/cohort/federated/scaffold"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

const rounds = 3

// fleet deals small blobs to clients.
func fleet(t testing.TB, e *train.Engine) *simulation.Fleet {
	t.Helper()
	split, dealt := fedtest.Blobs(e, 6, 3, 8, 6, 12, 10, 7, 6).Deal(t)
	return &simulation.Fleet{Split: split, Dealt: dealt, Engine: e, Seed: 11}
}

// pictures deals noisy or turned pictures, which are cropped and mirrored in training.
func pictures(t testing.TB, e *train.Engine, scheme string) *simulation.Fleet {
	t.Helper()
	split, err := dataset.Load(t.Context(), dataset.Spec{Name: "glyphs", Size: 8, Train: 60, Test: 30})
	if err != nil {
		t.Fatal(err)
	}
	s := dataset.Scheme{Name: scheme, Clients: 5}
	if scheme == "noise" {
		s.Sigma = 0.1
	}
	dealt, err := s.Deal(split.Train, split.Test, 1)
	if err != nil {
		t.Fatal(err)
	}
	return &simulation.Fleet{Split: split, Dealt: dealt, Engine: e, Seed: 11}
}

func problem(t testing.TB) *federated.Problem {
	p := fedtest.Problem(t, 6, 3)
	p.Rounds = rounds
	return p
}

func picturesProblem(t testing.TB) *federated.Problem {
	t.Helper()
	build, err := nn.New("linear", nn.Config{Input: []int{8, 8, 1}, Classes: 10})
	if err != nil {
		t.Fatal(err)
	}
	p := problem(t)
	p.Build, p.Training.Augment = build, dataset.Augment{CropPad: 1, FlipH: true}
	return p
}

// kinds of runs that are lent machines to.
var kinds = map[string]struct {
	fleet func(testing.TB, *train.Engine) *simulation.Fleet
	make  func(testing.TB) (federated.Algorithm, error)
	setup func(*simulation.Job)
}{
	"fedavg":   {make: func(t testing.TB) (federated.Algorithm, error) { return fedavg.New(problem(t)), nil }},
	"scaffold": {make: func(t testing.TB) (federated.Algorithm, error) { return scaffold.New(problem(t)), nil }},
	"fedbn": {make: func(t testing.TB) (federated.Algorithm, error) {
		return baselines.NewPartial(problem(t), baselines.AllButBatchNorm), nil
	}},
	"heterofl": {make: func(t testing.TB) (federated.Algorithm, error) {
		m, err := heterofl.ParseMode("a1-b2-c2", nil)
		if err != nil {
			return nil, err
		}
		return heterofl.New(problem(t), heterofl.Config{Mode: m, Dynamic: true})
	}},
	"secure": {make: func(t testing.TB) (federated.Algorithm, error) {
		p := problem(t)
		p.Select.Fraction = 1
		return private.NewSecure(scaffold.New(p), private.SecureOptions{Bits: 64, Holders: 3}), nil
	}},
	"asynchronous": {
		make: func(t testing.TB) (federated.Algorithm, error) { return scaffold.New(problem(t)), nil },
		setup: func(j *simulation.Job) {
			j.Config.Pace = federated.Pace{Quorum: 0.5, Staleness: 2, Discount: 0.5}
			j.Conditions = simulation.Conditions{Latency: time.Minute, Spread: 1, Jitter: 0.5, Dropout: 0.1}
		},
	},
	"noise": {
		fleet: func(t testing.TB, e *train.Engine) *simulation.Fleet { return pictures(t, e, "noise") },
		make:  func(t testing.TB) (federated.Algorithm, error) { return fedavg.New(picturesProblem(t)), nil },
	},
	"rotation": {
		fleet: func(t testing.TB, e *train.Engine) *simulation.Fleet { return pictures(t, e, "rotation") },
		make:  func(t testing.TB) (federated.Algorithm, error) { return fedavg.New(picturesProblem(t)), nil },
	},
}

func algorithm(t testing.TB, kind string) federated.Algorithm {
	t.Helper()
	a, err := kinds[kind].make(t)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func job(t testing.TB, e *train.Engine, kind string) *simulation.Job {
	t.Helper()
	k := kinds[kind]
	if k.fleet == nil {
		k.fleet = fleet
	}
	j := &simulation.Job{Algorithm: algorithm(t, kind), Fleet: k.fleet(t, e), Workers: 2, Config: federated.Config{Rounds: rounds}}
	if k.setup != nil {
		k.setup(j)
	}
	return j
}

// digest runs a job.
func digest(t testing.TB, j *simulation.Job) string {
	t.Helper()
	s, err := j.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return s.Digest()
}

var machine = Machine{Version: "1", Engine: "go", Kernels: "portable"}

// lines collects what is told.
type lines struct {
	mu   sync.Mutex
	all  []string
	more chan struct{}
}

func newLines() *lines { return &lines{more: make(chan struct{}, 1000)} }

func (l *lines) tell(s string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.all = append(l.all, s)
	l.more <- struct{}{}
}

func (l *lines) has(part string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Contains(strings.Join(l.all, "\n"), part)
}

// await waits for a line that holds part.
func (l *lines) await(t testing.TB, part string) {
	t.Helper()
	late := time.After(20 * time.Second)
	for !l.has(part) {
		select {
		case <-l.more:
		case <-late:
			t.Fatalf("%q was not told, but %q", part, l.all)
		}
	}
}

// host opens a host for a job, and lends it.
func host(t testing.TB, j *simulation.Job, silence time.Duration) (*Host, *lines) {
	t.Helper()
	said := newLines()
	h, err := Listen(Options{Listen: "127.0.0.1:0", Machine: machine, Silence: silence, Tell: said.tell,
		Run: Run{Seed: j.Fleet.Seed, Recipe: []byte("recipe\n"), Like: j.Fleet.Split.Train}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close() })
	j.Elsewhere = h.Lend
	return h, said
}

// lent returns a machine with clients of a kind.
func lent(t testing.TB, e *train.Engine, kind, name string, threads int) Lent {
	return Lent{Machine: machine, Name: name, Threads: threads, Engine: e, Patience: -1,
		Build: func(r Run) (federated.Client, error) {
			if string(r.Recipe) != "recipe\n" || r.Seed != 11 || r.Like.Len() != 0 {
				return nil, fmt.Errorf("another run: %+v", r)
			}
			return algorithm(t, kind).Client(), nil
		}}
}

// start lends a machine until the test ends, or stop is called. What Work returned comes from the channel.
func start(t testing.TB, h *Host, l Lent) (stop func(), ended <-chan error) {
	ctx, cancel := context.WithCancel(t.Context())
	c := make(chan error, 1)
	var wg sync.WaitGroup
	wg.Go(func() { c <- Work(ctx, h.Address(), l) })
	t.Cleanup(func() { cancel(); wg.Wait() })
	return cancel, c
}

func result1(t testing.TB, ended <-chan error) error {
	t.Helper()
	select {
	case err := <-ended:
		return err
	case <-time.After(20 * time.Second):
		t.Fatal("the worker did not end")
		return nil
	}
}

// clientFunc makes a client of a function.
type clientFunc func(ctx context.Context, at federated.Local, task federated.Task, keep *weights.Set) (federated.Result, error)

func (f clientFunc) Run(ctx context.Context, at federated.Local, task federated.Task, keep *weights.Set) (federated.Result, error) {
	return f(ctx, at, task, keep)
}

var errTest = errors.New("no such thing")

// withClient is an algorithm with another client.
type withClient struct {
	federated.Algorithm
	of func(federated.Client) federated.Client
}

func (a withClient) Client() federated.Client { return a.of(a.Algorithm.Client()) }

// failures is an observer that notes them.
type failures struct{ text []string }

func (f *failures) Progress(int, string, int, int) {}
func (f *failures) Round(r simulation.Round) {
	for _, p := range r.Phases {
		f.text = append(f.text, fmt.Sprintf("%d %s lost %v: %v", p.Round, p.PhaseClosed.Phase, p.Lost, p.Failed))
	}
}
func (f *failures) String() string { return strings.Join(f.text, "\n") }
