package federated_test

import (
	"testing"

	"github.com/cohort-learning/cohort/federated"
)

func TestPhaseWord(t *testing.T) {
	for name, want := range map[string]string{
		"train": "training", "train.3": "training, turn 3", "train.sum": "training", "train.keys": "exchanging keys for training", "polish": "polish",
		"stats.unmask": "opening the sum for statistics", "train.rows.masked": "counting labels before training",
		"train.rows.shares": "sharing secrets for counting labels before training", "eval.dance": "dance for evaluation",
	} {
		if got := federated.PhaseWord(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

func TestSplitPhase(t *testing.T) {
	for name, want := range map[string]struct {
		method, step  string
		works, learns bool
	}{
		"train.masked":             {"train", "masked", true, true},
		"train.sum":                {"train", "sum", true, true},
		"train.keys":               {"train", "keys", false, false},
		federated.Turn("train", 0): {"train", "", true, true},
		federated.Turn("train", 2): {"train", "3", true, true},
		"train.rows.keys":          {"train", "rows.keys", false, false},
		"train.rows.masked":        {"train", "rows.masked", false, false},
		"train.rows.sum":           {"train", "rows.sum", false, false},
		"stats":                    {"stats", "", true, false},
		"eval.masked":              {"eval", "masked", true, false},
		"eval.unmask":              {"eval", "unmask", false, false},
	} {
		method, step := federated.SplitPhase(name)
		if method != want.method || step != want.step || federated.Works(step) != want.works || federated.Learns(name) != want.learns {
			t.Errorf("%s: %q, %q, works %v, learns %v; want %+v", name, method, step, federated.Works(step), federated.Learns(name), want)
		}
	}
}
