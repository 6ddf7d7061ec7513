package fedtest

import (
	"context"
	"fmt"
	"maps"
	"testing"

	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// World is a small federation: members with data of their own, an engine and a seed.
type World struct {
	Engine  *train.Engine
	Seed    uint64
	Members []Holder
	Pooled  dataset.View // the server's training data
	Test    dataset.View // the server's test data
	Vaults  federated.Vaults
}

// Holder is one member and its data.
type Holder struct {
	Name        string
	Train, Test dataset.View
	Gone        bool
}

// Len implements [federated.Population].
func (w *World) Len() int { return len(w.Members) }

// Member implements [federated.Population].
func (w *World) Member(i int) federated.Member {
	return federated.Member{Index: i, Name: w.Members[i].Name, Samples: w.Members[i].Train.Len(), Gone: w.Members[i].Gone}
}

// Local returns where a member works.
func (w *World) Local(m federated.Member) federated.Local {
	h := w.Members[m.Index]
	return federated.Local{Member: m, Engine: w.Engine, Seed: w.Seed, Scope: "world", Train: h.Train, Test: h.Test,
		Vault: w.Vaults.Of(m.Index), Peers: federated.Acquainted(m.Name)}
}

// Server returns the coordinator's side.
func (w *World) Server() federated.Server {
	return federated.Server{Engine: w.Engine, Seed: w.Seed, Scope: "world", Population: w, Train: w.Pooled, Test: w.Test,
		Secret: federated.Secrets([32]byte{byte(w.Seed)}), Verify: federated.Acquainted("").Verify}
}

// Engine returns the engine of that name, which ends with the test.
func Engine(t testing.TB, name string) *train.Engine {
	t.Helper()
	b, err := backend.New(name, backend.Options{})
	if err != nil {
		t.Fatal(err)
	}
	e := train.NewEngine(b)
	t.Cleanup(func() { e.Close(); b.Finalize() })
	return e
}

// Blobs deals points around one centre a class to members of the given sizes. Member k lacks class k mod classes, if there
// are more than two. A third of each share is for tests.
func Blobs(e *train.Engine, features, classes int, sizes ...int) *World {
	w := &World{Engine: e, Seed: 7}
	data := &dataset.Examples{Name: "blobs", Shape: []int{features}, Classes: make([]string, classes)}
	for c := range data.Classes {
		data.Classes[c] = fmt.Sprint(c)
	}
	r := rng.New(1, 0, "", "blobs")
	draw := func(class int) int32 {
		for j := range features {
			x := 0.5 * r.NormFloat64()
			if j%classes == class {
				x++
			}
			data.F32 = append(data.F32, float32(x))
		}
		data.Labels = append(data.Labels, int32(class))
		return int32(len(data.Labels) - 1)
	}
	for k, n := range sizes {
		h := Holder{Name: fmt.Sprintf("member-%d", k)}
		h.Train.Data, h.Test.Data = data, data
		for i := range n + (n+2)/3 {
			class := i % classes
			if classes > 2 {
				class = (k + 1 + i%(classes-1)) % classes
			}
			if row := draw(class); i < n {
				h.Train.Rows = append(h.Train.Rows, row)
			} else {
				h.Test.Rows = append(h.Test.Rows, row)
			}
		}
		w.Pooled.Rows = append(w.Pooled.Rows, h.Train.Rows...)
		w.Test.Rows = append(w.Test.Rows, h.Test.Rows...)
		w.Members = append(w.Members, h)
	}
	w.Pooled.Data, w.Test.Data = data, data
	return w
}

// Deal returns the world's data as a simulation takes them: one set, and who holds which rows of it.
func (w *World) Deal(t testing.TB) (*dataset.Split, *dataset.Dealt) {
	t.Helper()
	data := w.Pooled.Data
	var train, test [][]int32
	for _, m := range w.Members {
		train, test = append(train, m.Train.Rows), append(test, m.Test.Rows)
	}
	part := func(rows [][]int32) *dataset.Partition {
		p, err := dataset.NewPartition(rows, data.Len(), nil)
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
	return &dataset.Split{Train: data, Test: data}, &dataset.Dealt{Train: part(train), Test: part(test)}
}

// Problem returns a small one on blobs: a perceptron with one normalised hidden layer that can be thinned, 4 of 5 members
// in each of 3 rounds, evaluated every round by server and members.
func Problem(t testing.TB, features, classes int) *federated.Problem {
	t.Helper()
	build, err := nn.New("mlp", nn.Config{Input: []int{features}, Classes: classes, Hidden: []int{16}, Norm: nn.StaticBatchNorm})
	if err != nil {
		t.Fatal(err)
	}
	return &federated.Problem{
		Build: build, Rounds: 3, Select: federated.Selection{Fraction: 0.8},
		Training:  federated.Training{Epochs: 2, Batch: 4, Rate: train.StepDecay{Rate: 0.1, Factor: 0.5, Every: 2}, Clip: 1},
		Measuring: federated.Measuring{Every: 1, Batch: 16, Members: true},
	}
}

// Trace is what happened in a run: a [federated.Log].
type Trace struct {
	Members   *Members
	Opened    []federated.PhaseOpened
	Phases    []federated.PhaseClosed
	Rounds    []federated.RoundClosed
	Snapshots []federated.Snapshot           // after each round
	Kept      []map[int]*weights.Set         // what members kept then
	Final     federated.State                // of a run that came to its end
	OnRound   func(federated.RoundClosed)    // if not nil, is called after each round
	OnPhase   func(federated.PhaseClosed)    // if not nil, is called after each phase
	Heard     func(phase string, n, all int) // if not nil, is called for every answer
}

// PhaseOpened implements [federated.Log].
func (l *Trace) PhaseOpened(p federated.PhaseOpened) error {
	l.Opened = append(l.Opened, p)
	return nil
}

// PhaseClosed implements [federated.Log].
func (l *Trace) PhaseClosed(p federated.PhaseClosed, _ func() federated.Snapshot) error {
	l.Phases = append(l.Phases, p)
	if l.OnPhase != nil {
		l.OnPhase(p)
	}
	return nil
}

// RoundClosed implements [federated.Log].
func (l *Trace) RoundClosed(r federated.RoundClosed, s federated.Snapshot) error {
	l.Rounds = append(l.Rounds, r)
	l.Snapshots = append(l.Snapshots, s)
	l.Kept = append(l.Kept, l.Members.Kept())
	if l.OnRound != nil {
		l.OnRound(r)
	}
	return nil
}

// Progress implements [federated.Log].
func (l *Trace) Progress(phase string, answered, asked int) {
	if l.Heard != nil {
		l.Heard(phase, answered, asked)
	}
}

// Digests returns the digests of the states after each round.
func (l *Trace) Digests() []string {
	var d []string
	for _, r := range l.Rounds {
		d = append(d, r.Digest)
	}
	return d
}

// Metric returns the values of a metric, in the order of the phases that measured it.
func (l *Trace) Metric(name, key string) []float64 {
	var v []float64
	for _, p := range l.Phases {
		for _, m := range p.Metrics {
			if m.Name == name && m.Key == key {
				v = append(v, m.Value)
			}
		}
	}
	return v
}

// Phase returns the records of the phases of that name.
func (l *Trace) Phase(name string) []federated.PhaseClosed {
	var out []federated.PhaseClosed
	for _, p := range l.Phases {
		if p.Phase == name {
			out = append(out, p)
		}
	}
	return out
}

// Run is one run of an algorithm in a world. The zero value of all but the first two fields is a run from the beginning
// with members that answer at once.
type Run struct {
	World     *World
	Algorithm federated.Algorithm
	Config    federated.Config
	Members   Members // Client and Local are filled in; Client only if it is nil
	From      *federated.Snapshot
	Kept      map[int]*weights.Set // what members kept at From
	Trace     Trace
}

// prepare fills in what the members need.
func (r *Run) prepare() {
	if r.Members.Client == nil {
		r.Members.Client = r.Algorithm.Client()
	}
	r.Members.Local = r.World.Local
}

// Do runs to the end, or until an error.
func (r *Run) Do(ctx context.Context) (*Trace, error) {
	r.prepare()
	if r.From != nil {
		r.Members.Restore(r.From.Clock, maps.Clone(r.Kept))
	}
	r.Trace.Members = &r.Members
	s, err := federated.Run(ctx, r.Algorithm, r.World.Server(), &r.Members, &r.Trace, r.Config, r.From)
	r.Trace.Final = s
	return &r.Trace, err
}

// Must is Do for runs that cannot fail.
func (r *Run) Must(t testing.TB) *Trace {
	t.Helper()
	l, err := r.Do(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	return l
}
