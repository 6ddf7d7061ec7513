package personalfr_test

import (
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/federated/personalfr"
	"github.com/cohort-learning/cohort/federated/private"
	"github.com/cohort-learning/cohort/train"
)

// options of the contract for ratings; new makes the method.
func contract(t *testing.T, new func(*federated.Problem) (federated.Algorithm, error)) fedtest.Options {
	return fedtest.Options{
		New:   new,
		World: func(e *train.Engine, sizes ...int) *fedtest.World { return fedtest.Tastes(e, len(sizes)) },
		Adapt: func(p *federated.Problem) { *p = *fedtest.RatingProblem(t) },
		Guess: 14, // the mean square of a rating is 14.6: predicting 0, as at the start
	}
}

func method(change func(*personalfr.Options)) func(*federated.Problem) (federated.Algorithm, error) {
	o := personalfr.Defaults()
	if change != nil {
		change(o)
	}
	return o.New
}

func TestContract(t *testing.T) {
	for name, change := range map[string]func(*personalfr.Options){
		"personalfr": nil,
		"all rows":   func(o *personalfr.Options) { o.Compression = "compute" },
		"implicit":   func(o *personalfr.Options) { o.Feedback = "implicit" },
		"fedavg":     func(o *personalfr.Options) { o.Share, o.Compression, o.ReferenceDecay = "all", "none", true },
		"counted":    func(o *personalfr.Options) { o.Share, o.Count = "all", true },
		"encoder":    func(o *personalfr.Options) { o.Share = "encoder" },
		"alone":      func(o *personalfr.Options) { o.Share = "nothing" },
	} {
		t.Run(name, func(t *testing.T) { fedtest.TestAlgorithm(t, contract(t, method(change))) })
	}
	t.Run("joint", func(t *testing.T) {
		o := contract(t, personalfr.JointDefaults().New)
		o.Server = true
		fedtest.TestAlgorithm(t, o)
	})
	t.Run("secure sums", func(t *testing.T) {
		o := contract(t, func(p *federated.Problem) (federated.Algorithm, error) {
			a, err := method(func(o *personalfr.Options) { o.Compression = "compute" })(p)
			if err != nil {
				return nil, err
			}
			return private.NewSecure(a, private.SecureOptions{Threshold: 0.7}), nil
		})
		o.Session = "train.rows.keys"
		fedtest.TestAlgorithm(t, o)
	})
}
