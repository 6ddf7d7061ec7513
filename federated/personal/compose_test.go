package personal_test

import (
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/federated/personal"
	"github.com/cohort-learning/cohort/federated/private"
	"github.com/cohort-learning/cohort/nn"
)

// composed are the methods that are held to the contract with secure sums and with differential privacy around them.
var composed = map[string]func(*federated.Problem) federated.Algorithm{
	"ditto":  func(p *federated.Problem) federated.Algorithm { return personal.NewDitto(p, 1) },
	"fedrep": func(p *federated.Problem) federated.Algorithm { return few(personal.NewFedRep(p)) },
}

// TestSecureContract checks that the methods keep the contract with secure sums, as they do without.
func TestSecureContract(t *testing.T) {
	for name, method := range composed {
		t.Run(name, func(t *testing.T) {
			fedtest.TestAlgorithm(t, fedtest.Options{Session: "train.keys", New: func(p *federated.Problem) (federated.Algorithm, error) {
				return private.NewSecure(method(p), private.SecureOptions{}), nil
			}})
		})
	}
}

// TestGuardContract checks the same of differential privacy. FedRep has no global model whose loss the server could tell: its
// members keep what they learn, and the noise is in what they share.
func TestGuardContract(t *testing.T) {
	fedtest.TestAlgorithm(t, fedtest.Options{
		Hidden: true, Adapt: normless(t),
		New: func(p *federated.Problem) (federated.Algorithm, error) {
			return private.NewGuard(personal.NewDitto(p, 1), private.GuardOptions{Clip: 1, Noise: 0.05, Fraction: 1}), nil
		},
	})
}

// normless has the problem as differential privacy takes it: no statistics, no evaluation at members.
func normless(t *testing.T) func(*federated.Problem) {
	return func(p *federated.Problem) { p.Build, p.Measuring.Members = perceptron(t, nn.NoNorm), false }
}

// What members of a private run share is noisy; what they keep is that of a run without noise, in the first round.
func TestGuardedMembersKeepTheirOwn(t *testing.T) {
	for name, method := range composed {
		w := world(t)
		everybody := func(p *federated.Problem) {
			normless(t)(p)
			everyone(p)
		}
		open := run(t, w, everybody, method)
		noisy := run(t, w, everybody, func(p *federated.Problem) federated.Algorithm {
			return private.NewGuard(method(p), private.GuardOptions{Clip: 1, Noise: 0.05, Fraction: 1})
		})
		again := run(t, w, everybody, func(p *federated.Problem) federated.Algorithm {
			return private.NewGuard(method(p), private.GuardOptions{Clip: 1, Noise: 0.05, Fraction: 1})
		})
		if len(open.Kept[0]) != w.Len() {
			t.Errorf("%s: %d members keep something", name, len(open.Kept[0]))
		}
		for k, v := range open.Kept[0] {
			if !noisy.Kept[0][k].Equal(*v) {
				t.Errorf("%s: member %d keeps something else where what it shares is protected", name, k)
			}
		}
		if noisy.Final.Sets["w"].Equal(open.Final.Sets["w"]) || noisy.Final.Digest() != again.Final.Digest() {
			t.Errorf("%s: the shared model has no noise, or another each time", name)
		}
		if begun := noisy.Metric("personal.begun", ""); begun != nil {
			t.Errorf("%s: members tell how many began, %v, which no noise hides", name, begun)
		}
	}
}
