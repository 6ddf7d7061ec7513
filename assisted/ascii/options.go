package ascii

import (
	"fmt"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/federated"
	"gonum.org/v1/gonum/mat"
)

// Options are the settings of the method. The zero value is not valid; see [Defaults].
type Options struct {
	Weights    string              `yaml:"weights" doc:"how models are weighted: joint (as in the paper: by what those before it in the round have got right, too) or simple (each as if it were the first under the scores that it got: SAMME along the chain, which never raises the exponential loss)"`
	Stop       string              `yaml:"stop" doc:"when the run is over: first (as in the paper: when the first in a round, the sponsor, is no better than guessing) or nobody (when nobody in a round is better; whoever is not is passed over)"`
	Patience   int                 `yaml:"patience" doc:"stop when no fewer held-out rows are classified wrongly than some rounds before, which is how many; 0: never"`
	Disclosure assisted.Disclosure `yaml:",inline"`
}

// Defaults are the settings of the paper.
func Defaults() Options { return Options{Weights: "joint", Stop: "first"} }

// Validate returns an error that says which option cannot be.
func (o Options) Validate() error {
	if o.Weights != "joint" && o.Weights != "simple" {
		return fmt.Errorf("weights: %q, expected joint or simple", o.Weights)
	}
	if o.Stop != "first" && o.Stop != "nobody" {
		return fmt.Errorf("stop: %q, expected first or nobody", o.Stop)
	}
	return o.steps().Validate()
}

// steps are the settings that all methods have, of which this one has the end and what may be told.
func (o Options) steps() assisted.Steps {
	s := assisted.DefaultSteps()
	s.Patience, s.Disclosure = o.Patience, o.Disclosure
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
	a.Table = assisted.Table{Sponsor: sponsor, Disclosure: o.Disclosure, Desks: desks, Judge: func(y, f *mat.Dense) float64 { return wrong(sponsor.Objective, y, f) }}
	return a, nil
}

// wrong is the part of rows that are classified wrongly.
func wrong(o assisted.Objective, y, f *mat.Dense) float64 {
	rows, _ := f.Dims()
	n := 0
	for i := range rows {
		if o.Predict(f.RawRowView(i)) != int(y.At(i, 0)) {
			n++
		}
	}
	return float64(n) / float64(rows)
}
