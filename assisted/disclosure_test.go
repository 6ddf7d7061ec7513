package assisted_test

import (
	"testing"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/federated"
)

// TestAttackedOnce checks that what residuals tell is computed once in a run: before it begins where organisations are elsewhere,
// which it may refuse, and in the first round where all are here.
func TestAttackedOnce(t *testing.T) {
	for name, c := range map[string]struct {
		desks   federated.Client
		most    float64
		atCheck int
		refused bool
	}{
		"here":                {assisted.Desks{}, 0, 0, false},
		"elsewhere, allowed":  {nil, 1, 1, false},
		"elsewhere, too much": {nil, .5, 1, true},
	} {
		table := &assisted.Table{Desks: c.desks, Disclosure: assisted.Disclosure{Most: c.most}}
		asked := 0
		recovery := func() (float64, error) { asked++; return .8, nil }
		if err := table.Gate(recovery); (err != nil) != c.refused || asked != c.atCheck {
			t.Errorf("%s: asked %d times at the beginning, error %v", name, asked, err)
		}
		var d federated.Diagnostics
		if err := table.Tell(&d, recovery); (err != nil) != c.refused || asked != 1 || len(d.Metrics) != 1 || d.Metrics[0].Value != .8 {
			t.Errorf("%s: asked %d times in all, on record is %v, error %v", name, asked, d.Metrics, err)
		}
	}
}
