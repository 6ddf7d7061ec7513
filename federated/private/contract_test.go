package private_test

import (
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedavg"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/federated/private"
	"github.com/cohort-learning/cohort/nn"
)

// TestSecureContract checks that a method keeps the contract of methods with secure sums, as it does without.
func TestSecureContract(t *testing.T) {
	fedtest.TestAlgorithm(t, fedtest.Options{Session: "train.keys", New: func(p *federated.Problem) (federated.Algorithm, error) {
		return private.NewSecure(fedavg.New(p), private.SecureOptions{}), nil
	}})
}

// TestGuardContract checks the same of differential privacy. The noise is the same each time: it follows from a secret of the run.
func TestGuardContract(t *testing.T) {
	fedtest.TestAlgorithm(t, fedtest.Options{
		Hidden: true,
		Adapt: func(p *federated.Problem) {
			build, err := nn.New("mlp", nn.Config{Input: []int{6}, Classes: 3, Hidden: []int{16}, Norm: nn.NoNorm})
			if err != nil {
				t.Fatal(err)
			}
			p.Build, p.Measuring.Members = build, false
		},
		New: func(p *federated.Problem) (federated.Algorithm, error) {
			return private.NewGuard(fedavg.New(p), private.GuardOptions{Clip: 1, Noise: 0.05, Fraction: 1}), nil
		},
	})
}
