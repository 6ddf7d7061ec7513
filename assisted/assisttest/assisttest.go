// Package assisttest is a small world of organisations, for the tests of methods among them.
package assisttest

import (
	"context"
	"fmt"
	"testing"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"gonum.org/v1/gonum/mat"
)

// Keys returns n keys of entities.
func Keys(n int) []string {
	keys := make([]string, n)
	for i := range keys {
		keys[i] = fmt.Sprintf("id-%d", i)
	}
	return keys
}

// Column returns an n×1 matrix.
func Column(v ...float64) *mat.Dense { return mat.NewDense(len(v), 1, v) }

// OLS fits by least squares with an intercept.
func OLS(t testing.TB) learner.Learner {
	t.Helper()
	l, err := learner.Spec{Name: "linear"}.New()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// World is organisations in one process.
type World struct {
	Names []string // in the order of the roster
	Desks assisted.Desks
}

// NewWorld returns one organisation, "org-1" …, for each matrix of features; their rows are of [Keys].
func NewWorld(l learner.Learner, features ...*mat.Dense) *World {
	w := &World{Desks: assisted.Desks{}}
	for m, x := range features {
		rows, _ := x.Dims()
		name := fmt.Sprintf("org-%d", m+1)
		w.Names = append(w.Names, name)
		w.Desks[name] = &assisted.Desk{Keys: Keys(rows), Features: x, Learner: l, Store: assisted.NewStore()}
	}
	return w
}

// Fresh returns the same organisations with empty stores.
func (w *World) Fresh() *World {
	out := &World{Names: w.Names, Desks: assisted.Desks{}}
	for name, d := range w.Desks {
		out.Desks[name] = &assisted.Desk{Keys: d.Keys, Features: d.Features, Learner: d.Learner, Store: assisted.NewStore(),
			Sketch: d.Sketch, Blur: d.Blur, Limit: d.Limit, Most: d.Most, Noise: d.Noise, Aligner: d.Aligner, Blocks: d.Blocks}
	}
	return out
}

// Do runs a method for some rounds among the organisations; change, if not nil, changes how.
func (w *World) Do(a federated.Algorithm, rounds int, change func(*fedtest.Run)) (*fedtest.Trace, error) {
	world := &fedtest.World{Seed: 7}
	for _, name := range w.Names {
		world.Members = append(world.Members, fedtest.Holder{Name: name})
	}
	r := &fedtest.Run{World: world, Algorithm: a, Config: federated.Config{Rounds: rounds}}
	if change != nil {
		change(r)
	}
	return r.Do(context.Background())
}

// Must is Do for runs that cannot fail, and of which every phase has to be without a failure.
func (w *World) Must(t testing.TB, a federated.Algorithm, rounds int) *fedtest.Trace {
	t.Helper()
	l, err := w.Do(a, rounds, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range l.Phases {
		for _, f := range p.Failed {
			t.Fatalf("round %d: %s failed: %s", f.Round, f.Member, f.Reason)
		}
	}
	return l
}

// Matrix returns a matrix of a state.
func Matrix(t testing.TB, s federated.State, name string) *mat.Dense {
	t.Helper()
	x, err := assisted.Matrix(s, name)
	if err != nil {
		t.Fatal(err)
	}
	return x
}

// Predict asks the organisations for an ensemble's predictions; those named away do not answer.
func (w *World) Predict(t testing.TB, e assisted.Ensemble, keys []string, away ...string) (*mat.Dense, *fedtest.Trace) {
	t.Helper()
	l, err := w.Do(&assisted.Prediction{Ensemble: e, Keys: keys, Desks: w.Desks}, 1, func(r *fedtest.Run) {
		r.Members.Tamper = func(a *federated.Answer) {
			for _, name := range away {
				if a.Order.Member.Name == name {
					a.Result, a.Err = federated.Result{}, fmt.Errorf("%s is away", name)
				}
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return Matrix(t, l.Final, "F"), l
}

// Near fails the test unless two matrices agree within a tolerance relative to the size of the second.
func Near(t testing.TB, what string, got, want *mat.Dense, tolerance float64) {
	t.Helper()
	var d mat.Dense
	d.Sub(got, want)
	if off := mat.Norm(&d, 2); !(off <= tolerance*max(1, mat.Norm(want, 2))) {
		t.Errorf("%s: off by %g\n got %v\nwant %v", what, off, mat.Formatted(got), mat.Formatted(want))
	}
}
