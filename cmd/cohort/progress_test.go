package main

import (
	"bytes"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/simulation"
)

// TestFailedOnce: a member that is lost in several phases of a round has failed once.
func TestFailedOnce(t *testing.T) {
	var out bytes.Buffer
	p := newProgress(streams{err: &out}, 3, false)
	r := simulation.Round{RoundClosed: federated.RoundClosed{Round: 1}}
	for _, lost := range []federated.Indices{{1, 4}, {4}, {1, 2}} {
		r.Phases = append(r.Phases, simulation.Phase{PhaseClosed: federated.PhaseClosed{Round: 1, Phase: "train.keys", Lost: lost}})
	}
	p.Round(r)
	if got := out.String(); !strings.Contains(got, "round 2/3  3 failed") {
		t.Errorf("%q", got)
	}
}
