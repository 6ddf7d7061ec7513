package alnet

import (
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/federated"
)

// Options are the settings of the method. The zero value is not valid; see [Defaults].
type Options struct {
	Hidden     []int               `yaml:"hidden" doc:"widths of the hidden layers: that of the first, which is divided among organisations, then those of layers above it, which the sponsor holds"`
	Inner      int                 `yaml:"inner" doc:"steps of one turn, each on all rows to fit"`
	Rate       float64             `yaml:"rate" doc:"learning rate"`
	Optimizer  string              `yaml:"optimizer" doc:"steps: adam, or gradient (plain descent)"`
	Start      string              `yaml:"start" doc:"what the network begins with: initial (quantities of the squared or absolute loss are centred and divided by their deviation, others begin at the mean or the logarithms of shares) or zero (labels are fitted as they are)"`
	Raw        bool                `yaml:"raw,omitempty" doc:"columns are taken as they are, instead of being standardised by each organisation"`
	Patience   int                 `yaml:"patience" doc:"stop when the loss on held-out rows has not improved for so many rounds, and keep the best; 0: never"`
	Best       bool                `yaml:"best,omitempty" doc:"keep the network as it was after the round in which held-out rows were predicted best, also where patience does not stop the run"`
	Disclosure assisted.Disclosure `yaml:",inline"`
}

// Defaults are a network of 32 units and ten steps of Adam at rate 0.01 a turn; the paper has no numbers.
func Defaults() Options {
	return Options{Hidden: []int{32}, Inner: 10, Rate: 0.01, Optimizer: "adam", Start: "zero"}
}

// mostUnits bounds the width of a layer.
const mostUnits = 1 << 14

// Validate returns an error that says which option cannot be.
func (o Options) Validate() error {
	switch {
	case len(o.Hidden) == 0:
		return errors.New("hidden: name the width of at least one hidden layer, the one that organisations share, such as [32]")
	case slices.ContainsFunc(o.Hidden, func(n int) bool { return n < 1 || n > mostUnits }):
		return fmt.Errorf("hidden: %v, expected widths of 1 to %d", o.Hidden, mostUnits)
	case o.Inner < 1 || o.Inner > assisted.MostSteps:
		return fmt.Errorf("inner: %d, expected 1 to %d", o.Inner, assisted.MostSteps)
	case !(o.Rate > 0) || math.IsInf(o.Rate, 1):
		return fmt.Errorf("rate: %g must be positive", o.Rate)
	case o.Optimizer != "adam" && o.Optimizer != "gradient":
		return fmt.Errorf("optimizer: %q, expected adam or gradient", o.Optimizer)
	case o.Start != "initial" && o.Start != "zero":
		return fmt.Errorf("start: %q, expected initial or zero", o.Start)
	}
	return o.steps().Validate()
}

// steps are the settings that all methods have, of which this one has the end and what may be told.
func (o Options) steps() assisted.Steps {
	s := assisted.DefaultSteps()
	s.Patience, s.Best, s.Disclosure = o.Patience, o.Best, o.Disclosure
	return s
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
	a := &Algorithm{Options: o, Rounds: rounds}
	a.Table = assisted.Table{Sponsor: sponsor, Disclosure: o.Disclosure, Desks: desks, Head: a.head}
	return a, nil
}
