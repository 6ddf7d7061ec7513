package simulation_test

import (
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/journal/faultfs"
	"github.com/cohort-learning/cohort/secure/robust"
	"github.com/cohort-learning/cohort/simulation"
)

// Every attack changes the run, and in the same way for any number of workers; a run under attack is verified like others.
func TestAttacks(t *testing.T) {
	e := fedtest.Engine(t, "go")
	seen := map[string]string{}
	for _, kind := range append(simulation.Attacks(), "") {
		for name, rule := range map[string]federated.Rule{"mean": nil, "median": robust.Rule{Method: robust.Median{}}} {
			run := func(workers int) string {
				j := job(t, e, "scaffold")
				j.Workers, j.Config.Rule = workers, rule
				j.Conditions = simulation.Conditions{Latency: time.Minute, Spread: 1}
				if kind != "" {
					j.Conditions.Attack = simulation.Attack{Kind: kind, Liars: 0.4}
				}
				if kind == "alie" {
					j.Conditions.Attack.Strength = 1
				}
				s, err := j.Run(t.Context())
				if err != nil {
					t.Fatalf("%s, %s: %v", kind, name, err)
				}
				return s.Digest()
			}
			digest := run(1)
			if other, ok := seen[digest]; ok {
				t.Errorf("%s, %s ends like %s", kind, name, other)
			}
			seen[digest] = kind + ", " + name
			for _, workers := range []int{2, 7} {
				if run(workers) != digest {
					t.Errorf("%s, %s: other bits with %d workers", kind, name, workers)
				}
			}
		}
	}
	j := job(t, e, "attacked")
	dir := t.TempDir()
	if _, err := work(j, dir, faultfs.New(journal.OS()), 1); err != nil {
		t.Fatal(err)
	}
	if n, err := job(t, e, "attacked").Verify(t.Context(), dir); err != nil || n != rounds {
		t.Errorf("%d rounds verified: %v", n, err)
	}
	j = job(t, e, "attacked")
	j.Conditions.Attack.Liars = 0
	if _, err := j.Verify(t.Context(), dir); err == nil {
		t.Error("a run under attack is verified without it")
	}
}

func TestAttackRefused(t *testing.T) {
	e := fedtest.Engine(t, "go")
	for want, c := range map[string]struct {
		attack simulation.Attack
		pace   federated.Pace
	}{
		"liars 1":         {attack: simulation.Attack{Kind: "scale", Liars: 1}},
		"need one of":     {attack: simulation.Attack{Liars: 0.2}},
		`attack "shout"`:  {attack: simulation.Attack{Kind: "shout", Liars: 0.2}},
		"strength -1":     {attack: simulation.Attack{Kind: "scale", Liars: 0.2, Strength: -1}},
		"strength 2":      {attack: simulation.Attack{Kind: "label-flip", Liars: 0.2, Strength: 2}},
		"rounds that beg": {simulation.Attack{Kind: "ipm", Liars: 0.2}, federated.Pace{Quorum: 0.5, Staleness: 1}},
	} {
		j := job(t, e, "fedavg")
		j.Conditions.Attack, j.Config.Pace = c.attack, c.pace
		if _, err := j.Run(t.Context()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}
