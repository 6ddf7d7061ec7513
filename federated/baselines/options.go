package baselines

import (
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/nn"
)

// PartialOptions are those of FedBN, LG-FedAvg and local-only in a recipe.
type PartialOptions struct {
	Weighting string `yaml:"weighting" doc:"How clients weigh in the average of what is shared: examples or uniform."`
	shared    func(nn.Param) bool
}

// PartialDefaults returns the options of a method that shares what shared accepts.
func PartialDefaults(weighting string, shared func(nn.Param) bool) *PartialOptions {
	return &PartialOptions{Weighting: weighting, shared: shared}
}

// New returns the method on a problem.
func (o *PartialOptions) New(p *federated.Problem) (federated.Algorithm, error) {
	a := NewPartial(p, o.shared)
	var err error
	if a.Uniform, err = federated.UniformWeighting(o.Weighting); err != nil {
		return nil, err
	}
	return a, nil
}

// CentralisedOptions are those of centralised learning in a recipe: none.
type CentralisedOptions struct{}

// New returns centralised learning of a problem.
func (*CentralisedOptions) New(p *federated.Problem) (federated.Algorithm, error) {
	return NewCentralised(p), nil
}
