package fedavg_test

import (
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedavg"
	"github.com/cohort-learning/cohort/federated/fedtest"
)

func TestContract(t *testing.T) {
	for name, change := range map[string]func(*fedavg.Algorithm){
		"fedavg":     func(a *fedavg.Algorithm) {},
		"fedprox":    func(a *fedavg.Algorithm) { a.Proximal = fedavg.Proximal{Mu: 0.1, Adaptive: true}; a.ByExamples = true },
		"fedavgm":    func(a *fedavg.Algorithm) { a.Rule = fedavg.Momentum{Rate: 1, Beta: 0.9, Nesterov: true} },
		"fedadagrad": func(a *fedavg.Algorithm) { a.Rule = fedavg.Adaptive{Kind: fedavg.Adagrad, Rate: 0.05, Tau: 1e-3} },
		"fedyogi": func(a *fedavg.Algorithm) {
			a.Rule = fedavg.Adaptive{Kind: fedavg.Yogi, Rate: 0.02, Beta1: 0.9, Beta2: 0.99, Tau: 1e-3}
		},
		"fedadam": func(a *fedavg.Algorithm) {
			a.Rule = fedavg.Adaptive{Kind: fedavg.Adam, Rate: 0.02, Beta1: 0.9, Beta2: 0.99, Tau: 1e-3}
		},
	} {
		t.Run(name, func(t *testing.T) {
			fedtest.TestAlgorithm(t, fedtest.Options{New: func(p *federated.Problem) (federated.Algorithm, error) {
				a := fedavg.New(p)
				change(a)
				return a, nil
			}})
		})
	}
}
