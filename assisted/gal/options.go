package gal

import (
	"fmt"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/federated"
)

// Options are the settings of the method. The zero value is not valid; see [Defaults].
type Options struct {
	Weights        string  `yaml:"weights" doc:"how organisations are weighted: exact, softmax-adam (as released), per-class (exact, for each output by itself), nnls (exact, not negative, with any sum), equal, or own (the sponsor's organisation alone)"`
	Exponent       float64 `yaml:"exponent" doc:"q of the loss |r − Σ w g|^q that weights minimise: 1, 1.5, 2 or 4"`
	Rate           string  `yaml:"rate" doc:"how the learning rate of a round is found: exact, lbfgs (as released) or fixed (1)"`
	Lead           bool    `yaml:"lead,omitempty" doc:"the first round is the sponsor's alone, so that others are sent what its own columns leave: for organisations that align their rows by it"`
	Privacy        string  `yaml:"privacy" doc:"what is done to residuals before they are sent: none, laplace or interval"`
	Budget         float64 `yaml:"budget" doc:"of laplace, epsilon of a number and round; of interval, how many intervals a number is told by"`
	Bound          float64 `yaml:"bound" doc:"residuals are clipped to ± this much before noise; 0: to the middle 95 % of them, which depends on the data and so guarantees nothing"`
	DMS            string  `yaml:"dms,omitempty" doc:"deep model sharing: organisations whose learner is a network keep one, with a head a round; warm goes on from the round before, restart begins anew (as released)"`
	Subsample      float64 `yaml:"subsample,omitempty" doc:"part of the rows to fit that is drawn in every round, in (0, 1]; the residuals of the others are not sent; 0: all"`
	assisted.Steps `yaml:",inline"`
}

// Defaults are the exact variants of the paper's steps.
func Defaults() Options {
	return Options{Weights: "exact", Exponent: 2, Rate: "exact", Privacy: "none", Budget: 1, Steps: assisted.DefaultSteps()}
}

// Released are the settings of the authors' released code.
func Released() Options {
	o := Defaults()
	o.Weights, o.Rate = "softmax-adam", "lbfgs"
	return o
}

// Validate returns an error that says which option cannot be.
func (o Options) Validate() error {
	switch o.Weights {
	case "exact", "softmax-adam", "per-class", "equal", "own":
	case "nnls":
		if o.Exponent != 2 {
			return fmt.Errorf("weights: nnls are those of least squares: set exponent to 2, it is %g", o.Exponent)
		}
	default:
		return fmt.Errorf("weights: %q, expected exact, softmax-adam, per-class, nnls, equal or own", o.Weights)
	}
	switch o.Rate {
	case "exact", "lbfgs", "fixed":
	default:
		return fmt.Errorf("rate: %q, expected exact, lbfgs or fixed", o.Rate)
	}
	switch o.Privacy {
	case "none", "laplace":
	case "interval":
		if o.Budget != float64(int(o.Budget)) {
			return fmt.Errorf("budget: %g intervals, expected a whole number", o.Budget)
		}
	default:
		return fmt.Errorf("privacy: %q, expected none, laplace or interval", o.Privacy)
	}
	if err := checkSharing(o.DMS); err != nil {
		return err
	}
	switch {
	case !(o.Exponent >= 1 && o.Exponent <= 4):
		return fmt.Errorf("exponent: %g is outside [1, 4]", o.Exponent)
	case !(o.Budget > 0):
		return fmt.Errorf("budget: %g must be positive", o.Budget)
	case !(o.Bound >= 0):
		return fmt.Errorf("bound: %g is negative", o.Bound)
	case !(o.Subsample >= 0 && o.Subsample <= 1):
		return fmt.Errorf("subsample: %g is outside (0, 1]", o.Subsample)
	}
	return o.Steps.Validate()
}

// New returns the method for a sponsor. Desks is the organisations' side, where they are in this process, or the one that is
// here; it may be nil at a coordinator of a network.
func (o Options) New(rounds int, sponsor *assisted.Sponsor, desks federated.Client) (*Algorithm, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	if err := o.Fits(rounds, sponsor); err != nil {
		return nil, err
	}
	return &Algorithm{Options: o, Table: assisted.Table{Sponsor: sponsor, Disclosure: o.Disclosure, Desks: desks}, Rounds: rounds}, nil
}
