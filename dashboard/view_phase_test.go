package dashboard

import "testing"

func TestPhaseWord(t *testing.T) {
	for phase, want := range map[string]string{
		"train": "training", "train.masked": "training", "eval.sum": "measuring at members", "train.keys": "exchanging keys",
		"stats.unmask": "opening the sum", "train.rows.masked": "counting labels", "train.rows.shares": "sharing secrets, should a member be lost",
		"polish": "polish", "polish.dance": "polish.dance",
	} {
		if got := (Run{Phase: phase}).PhaseWord(); got != want {
			t.Errorf("%s: %q, want %q", phase, got, want)
		}
	}
}
