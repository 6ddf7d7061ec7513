package simulation_test

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/al"
	"github.com/cohort-learning/cohort/assisted/assisttest"
	"github.com/cohort-learning/cohort/assisted/gal"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/simulation"
)

// organisations is a run of a method among three organisations whose stores lie in dir, with names that no file could have.
func organisations(t *testing.T, dir, method string) *simulation.Job {
	t.Helper()
	const rounds = 3
	x, y := assisted.Friedman(80, 1, rng.New(1, 0, "", "friedman"))
	s := &assisted.Sponsor{Objective: assisted.Objective{Loss: assisted.Squared}, Keys: assisttest.Keys(80), Labels: y, Fit: 60, Held: 10, Test: 10}
	desks, fleet := assisted.Desks{}, &simulation.Fleet{Seed: 4}
	for m, columns := range [][]int{{0, 1, 3}, {2}, {4}} {
		store, err := journal.OpenValues(nil, filepath.Join(dir, fmt.Sprint("organisation ", m)))
		if err != nil {
			t.Fatal(err)
		}
		name := fmt.Sprintf("a/b %d", m)
		desks[name] = &assisted.Desk{Keys: s.Keys, Features: assisted.Columns(x, columns), Learner: assisttest.OLS(t), Store: store}
		fleet.Own = append(fleet.Own, simulation.Holder{Name: name})
	}
	s.Own = fleet.Own[0].Name
	j := &simulation.Job{Fleet: fleet, Config: federated.Config{Rounds: rounds}}
	var err error
	switch method {
	case "gal":
		o := gal.Defaults()
		o.Privacy = "laplace"
		j.Algorithm, err = o.New(rounds, s, desks)
	default:
		o := al.Defaults()
		o.Order = method
		j.Algorithm, err = o.New(rounds, s, desks)
	}
	if err != nil {
		t.Fatal(err)
	}
	j.Secret = func(round int, purpose string) (key [32]byte, err error) { // so that two runs have the same
		copy(key[:], fmt.Sprint(round, purpose))
		return key, nil
	}
	return j
}

// TestOrganisations runs methods among organisations in a folder: they can be stopped after a round and resumed, to the same bits,
// and verified.
func TestOrganisations(t *testing.T) {
	for _, method := range []string{"gal", "chain", "star-average"} {
		t.Run(method, func(t *testing.T) {
			run := func(dir string) (federated.State, *simulation.Job, error) {
				j := organisations(t, dir, method)
				s, err := work(j, filepath.Join(dir, "run"), journal.OS(), 1)
				return s, j, err
			}
			want, _, err := run(t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			parts, stop := t.TempDir(), make(chan struct{})
			j := organisations(t, parts, method)
			j.Config.Stop, j.Observer = stop, &leaver{stop: stop}
			if _, err := work(j, filepath.Join(parts, "run"), journal.OS(), 1); !errors.Is(err, federated.ErrStopped) {
				t.Fatalf("it was to stop after a round: %v", err)
			}
			got, j, err := run(parts)
			if err != nil {
				t.Fatal(err)
			}
			if got.Digest() != want.Digest() {
				t.Error("a run that was left and resumed comes to other bits")
			}
			if n, err := j.Verify(t.Context(), filepath.Join(parts, "run")); err != nil || n != 3 {
				t.Errorf("%d rounds are verified, %v", n, err)
			}
		})
	}
}

// leaver stops a run after its first round.
type leaver struct {
	stop chan struct{}
	done bool
}

func (*leaver) Progress(int, string, int, int) {}

func (l *leaver) Round(simulation.Round) {
	if !l.done {
		l.done = true
		close(l.stop)
	}
}
