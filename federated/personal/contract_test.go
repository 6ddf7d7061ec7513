package personal_test

import (
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/federated/personal"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/train"
)

// few makes a member's work on its own model short.
func few(a *personal.Split) *personal.Split {
	a.HeadEpochs, a.Final = 2, 1
	return a
}

func TestContract(t *testing.T) {
	for name, method := range map[string]func(*federated.Problem) federated.Algorithm{
		"ditto": func(p *federated.Problem) federated.Algorithm { return personal.NewDitto(p, 1) },
		"per-fedavg": func(p *federated.Problem) federated.Algorithm {
			return personal.NewPerFedAvg(p, 0.05, personal.Difference)
		},
		"pfedme": func(p *federated.Problem) federated.Algorithm {
			p.Training.Rate = train.Constant(0.05)
			a := personal.NewPFedMe(p)
			a.Lambda, a.Rate, a.Inner, a.All = 2, 0.1, 2, true
			return a
		},
		"apfl": func(p *federated.Problem) federated.Algorithm {
			a := personal.NewAPFL(p, 0.5)
			a.Adaptive = true
			return a
		},
		"apfl of outputs": func(p *federated.Problem) federated.Algorithm {
			a := personal.NewAPFL(p, 0.5)
			a.Outputs = true
			return a
		},
		"fedrep":   func(p *federated.Problem) federated.Algorithm { return few(personal.NewFedRep(p)) },
		"fedper":   func(p *federated.Problem) federated.Algorithm { return few(personal.NewFedPer(p)) },
		"finetune": func(p *federated.Problem) federated.Algorithm { return personal.NewFineTune(p, 1) },
	} {
		t.Run(name, func(t *testing.T) {
			fedtest.TestAlgorithm(t, fedtest.Options{
				New: func(p *federated.Problem) (federated.Algorithm, error) { return method(p), nil },
				Adapt: func(p *federated.Problem) {
					if name == "apfl of outputs" { // which have no statistics of batch norm
						p.Build = perceptron(t, nn.LayerNorm)
					}
				},
			})
		})
	}
}

// perceptron is a small model of 6 features and 3 classes.
func perceptron(t *testing.T, norm nn.NormKind) nn.Builder {
	t.Helper()
	b, err := nn.New("mlp", nn.Config{Input: []int{6}, Classes: 3, Hidden: []int{8}, Norm: norm})
	if err != nil {
		t.Fatal(err)
	}
	return b
}
