package aeal

import (
	"fmt"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/federated"
)

// Options are the settings of the method. The zero value goes on to the last planned round; see [Defaults].
type Options struct {
	Tolerance float64 `yaml:"tolerance" doc:"the run is over when a round lowers the deviance of the rows to fit by no more than this part of it; 0: never"`
	Patience  int     `yaml:"patience" doc:"stop when the loss on held-out rows has not improved for so many rounds, and keep the best; 0: never"`
	Best      bool    `yaml:"best,omitempty" doc:"keep the rounds up to the one after which held-out rows were predicted best, also where patience does not stop the run"`

	Disclosure assisted.Disclosure `yaml:",inline"`
}

// Defaults end a run when it has come to the maximum likelihood but for a hundred millionth.
func Defaults() Options { return Options{Tolerance: 1e-8} }

// Validate returns an error that says which option cannot be.
func (o Options) Validate() error {
	if !(o.Tolerance >= 0 && o.Tolerance < 1) {
		return fmt.Errorf("tolerance: %g is outside [0, 1)", o.Tolerance)
	}
	return o.steps().Validate()
}

// steps are the settings that all methods have, of which this one has the end and what may be told.
func (o Options) steps() assisted.Steps {
	s := assisted.DefaultSteps()
	s.Patience, s.Best, s.Disclosure = o.Patience, o.Best, o.Disclosure
	return s
}

// Objective is what the method makes of a sponsor's objective: of two classes it is the logistic loss.
func (Options) Objective(o assisted.Objective) (assisted.Objective, error) {
	switch {
	case o.Loss == assisted.CrossEntropy && o.Classes == 2:
		o.Loss = assisted.Logistic
	case o.Loss == assisted.CrossEntropy:
		return o, fmt.Errorf("ae-al is for two classes, a quantity or counts, and there are %d classes: take gal or ascii", o.Classes)
	case o.Loss == assisted.Absolute:
		return o, fmt.Errorf("ae-al has no absolute loss: log-cosh is about the same for large errors")
	}
	return o, nil
}

// New returns the method for a sponsor. Desks is the organisations' side, where they are in this process, or the one that is
// here; it may be nil at a coordinator of a network.
func (o Options) New(rounds int, sponsor *assisted.Sponsor, desks federated.Client) (*Algorithm, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if err := o.steps().Fits(rounds, sponsor); err != nil {
		return nil, err
	}
	return &Algorithm{Options: o, Rounds: rounds, Table: assisted.Table{Sponsor: sponsor, Disclosure: o.Disclosure, Desks: desks}}, nil
}
