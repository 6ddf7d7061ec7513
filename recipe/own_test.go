package recipe

import (
	"math"
	"path/filepath"
	"testing"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/record"
)

// The models that clients have of their own, read from a run's folder one by one, are right as often as the run says.
func TestOwnModels(t *testing.T) {
	for _, method := range []string{"ditto", "fedrep", "per-fedavg", "apfl", "finetune", "local"} {
		t.Run(method, func(t *testing.T) {
			r := tried(t, method)
			r.Round.Fraction = 0.5 // so that some have kept nothing
			p, err := r.Plan(t.Context(), "")
			check(t, err)
			e, _, err := r.Engine()
			check(t, err)
			defer e.Close()
			job, err := p.Job(e)
			check(t, err)
			dir := filepath.Join(t.TempDir(), "run")
			run, err := p.Create(dir, record.Meta{Engine: "any"}, record.Options{})
			check(t, err)
			_, err = job.RunIn(t.Context(), run, journal.OS(), 1)
			check(t, err)
			check(t, run.Close(record.Finished, nil))
			said, _, err := LastMetrics(dir)
			check(t, err)
			correct, n, loss := 0, 0, 0.0
			for k := range p.Dealt.Train.Clients() {
				m, err := OwnInRun(t.Context(), e, dir, job.Fleet.Member(k).Name, "")
				check(t, err)
				got, err := m.EvaluateOwn(t.Context(), e)
				check(t, err)
				correct, n, loss = correct+got.Correct, n+got.N, loss+got.Loss*float64(got.N)
			}
			if got := float64(correct) / float64(n); got != said["accuracy.personal"] || n != 80 {
				t.Errorf("the clients' models are right in %g of %d examples, the run says %g", got, n, said["accuracy.personal"])
			}
			if got := loss / float64(n); math.Abs(got-said["loss.personal"]) > 1e-12 {
				t.Errorf("the clients' models have a loss of %.15g, the run says %.15g", got, said["loss.personal"])
			}
		})
	}
}
