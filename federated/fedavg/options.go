package fedavg

import (
	"fmt"

	"github.com/cohort-learning/cohort/federated"
)

// Options are those of FedAvg in a recipe.
type Options struct {
	Weighting string `yaml:"weighting" doc:"How clients weigh in the average: examples or uniform."`
}

// Defaults returns FedAvg as published: clients weigh by their examples.
func Defaults() *Options { return &Options{Weighting: "examples"} }

// New returns FedAvg on a problem.
func (o *Options) New(p *federated.Problem) (federated.Algorithm, error) {
	a, err := o.base(p)
	return a, err
}

func (o *Options) base(p *federated.Problem) (*Algorithm, error) {
	a := New(p)
	var err error
	if a.Uniform, err = federated.UniformWeighting(o.Weighting); err != nil {
		return nil, err
	}
	return a, nil
}

// ProxOptions are those of FedProx in a recipe.
type ProxOptions struct {
	Options  `yaml:",inline"`
	Mu       float64 `yaml:"mu" doc:"Weight of the proximal term; the paper tries 0.001, 0.01, 0.1 and 1."`
	Adaptive bool    `yaml:"adaptive,omitempty" doc:"Raise mu by 0.1 when the loss rises, lower it after five falls in a row."`
	Sampling string  `yaml:"sampling" doc:"uniform; or prob: clients drawn in proportion to their examples and averaged alike, as in the paper."`
}

// ProxDefaults returns FedProx with μ = 0.01.
func ProxDefaults() *ProxOptions {
	return &ProxOptions{Options: *Defaults(), Mu: 0.01, Sampling: "uniform"}
}

// New returns FedProx on a problem.
func (o *ProxOptions) New(p *federated.Problem) (federated.Algorithm, error) {
	a, err := o.base(p)
	if err != nil {
		return nil, err
	}
	if !(o.Mu >= 0) {
		return nil, fmt.Errorf("mu: %g, expected 0 or more", o.Mu)
	}
	switch o.Sampling {
	case "uniform":
	case "prob":
		a.ByExamples = true
	default:
		return nil, fmt.Errorf("sampling: %q, expected uniform or prob", o.Sampling)
	}
	a.Proximal = Proximal{Mu: o.Mu, Adaptive: o.Adaptive}
	return a, nil
}

// MomentumOptions are those of FedAvgM in a recipe.
type MomentumOptions struct {
	Options    `yaml:",inline"`
	ServerRate float64 `yaml:"server_rate" doc:"Step of the server."`
	Momentum   float64 `yaml:"momentum" doc:"Server momentum in [0, 1)."`
	Nesterov   bool    `yaml:"nesterov,omitempty" doc:"Nesterov momentum."`
}

// MomentumDefaults returns FedAvgM with β = 0.9 and η = 1.
func MomentumDefaults() *MomentumOptions {
	return &MomentumOptions{Options: *Defaults(), ServerRate: 1, Momentum: 0.9}
}

// New returns FedAvgM on a problem.
func (o *MomentumOptions) New(p *federated.Problem) (federated.Algorithm, error) {
	return withRule(o.Options, p, Momentum{Rate: o.ServerRate, Beta: o.Momentum, Nesterov: o.Nesterov})
}

// AdaptiveOptions are those of FedAdagrad, FedYogi and FedAdam in a recipe.
type AdaptiveOptions struct {
	Options    `yaml:",inline"`
	ServerRate float64 `yaml:"server_rate" doc:"Step of the server."`
	Beta1      float64 `yaml:"beta1" doc:"Decay of the first moment, in [0, 1)."`
	Beta2      float64 `yaml:"beta2" doc:"Decay of the second moment, in [0, 1); unused by FedAdagrad."`
	Tau        float64 `yaml:"tau" doc:"Degree of adaptivity: added to the root of the second moment."`
	FromZero   bool    `yaml:"from_zero,omitempty" doc:"Start the second moment at 0 instead of tau squared."`
	kind       AdaptiveKind
}

// AdaptiveDefaults returns the options of a kind with β₁ = 0.9 (0 for Adagrad), β₂ = 0.99, τ = 1e-3 and a server rate that
// suits the built-in data.
func AdaptiveDefaults(kind AdaptiveKind) *AdaptiveOptions {
	o := &AdaptiveOptions{Options: *Defaults(), ServerRate: 0.01, Beta1: 0.9, Beta2: 0.99, Tau: 1e-3, kind: kind}
	if kind == Adagrad {
		o.Beta1, o.ServerRate = 0, 0.03
	}
	return o
}

// New returns the adaptive method on a problem.
func (o *AdaptiveOptions) New(p *federated.Problem) (federated.Algorithm, error) {
	return withRule(o.Options, p, Adaptive{Kind: o.kind, Rate: o.ServerRate, Beta1: o.Beta1, Beta2: o.Beta2, Tau: o.Tau, FromZero: o.FromZero})
}

func withRule(o Options, p *federated.Problem, r Rule) (federated.Algorithm, error) {
	a, err := o.base(p)
	if err != nil {
		return nil, err
	}
	a.Rule = r
	return a, r.Validate()
}

// SetMu sets μ.
func (o *ProxOptions) SetMu(mu float64) { o.Mu = mu }
