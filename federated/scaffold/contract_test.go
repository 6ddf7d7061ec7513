package scaffold_test

import (
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/federated/scaffold"
)

func TestContract(t *testing.T) {
	for name, change := range map[string]func(*scaffold.Algorithm){
		"option II": func(a *scaffold.Algorithm) {},
		"option I":  func(a *scaffold.Algorithm) { a.FullGrad, a.Weighted = true, true },
	} {
		t.Run(name, func(t *testing.T) {
			fedtest.TestAlgorithm(t, fedtest.Options{New: func(p *federated.Problem) (federated.Algorithm, error) {
				a := scaffold.New(p)
				change(a)
				return a, nil
			}})
		})
	}
}
