package train_test

import (
	"testing"

	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

func TestFitLearns(t *testing.T) {
	engines(t, func(t *testing.T, e *train.Engine) {
		m := linear(8, 4)
		spec := &train.Spec{Model: m, Optimizer: train.SGD{Momentum: 0.9}, Clip: 1}
		data := blobs(203, 8, 4, 1)
		s := must[*train.Session](t)(e.Begin(spec, m.Initial(weights.Float32, rng.New(1, 0, "", "w")), train.Options{}))
		defer s.Close()
		r := must[train.Report](t)(s.Fit(t.Context(), train.Fit{Data: data, Epochs: 5, Batch: 10, Rate: train.Constant(0.1),
			Random: rng.New(1, 0, "", "fit")}))
		if r.Steps != 5*21 || r.Examples != 5*203 {
			t.Errorf("report %+v, want 105 steps on 1015 examples", r)
		}
		met := must[train.Metrics](t)(s.Evaluate(t.Context(), data, train.EvalOptions{}))
		if met.Accuracy < 0.9 || met.N != 203 {
			t.Errorf("metrics %+v, want accuracy above 0.9", met)
		}
		if got := e.Compiled(); got != 3 {
			t.Errorf("%d programs compiled, want 3 (batches of 10 and 3, evaluation)", got)
		}
	})
}
