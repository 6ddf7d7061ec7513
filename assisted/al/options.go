package al

import (
	"errors"
	"fmt"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/federated"
)

// Options are the settings of the method. The zero value is not valid; see [Defaults].
type Options struct {
	Order          string `yaml:"order" doc:"how residuals go: chain (one after the other, as in the roster), random (assistors in a new order every round), greedy (all are asked, whoever lowers the loss most counts), star-average (a stream for each assistor, averaged; for study)"`
	Rate           string `yaml:"rate" doc:"what fitted values are multiplied with: one (as in the paper) or exact (a line search for each organisation)"`
	Start          string `yaml:"start" doc:"predictions before the first round: zero (as in the paper) or initial (the mean, or the logarithm of the classes' shares)"`
	Strata         string `yaml:"strata,omitempty" doc:"a column of the sponsor's with few values: every assistor fits one model for the rows of each, which takes in what that column and its own do together; values of fewer than 30 rows to fit are taken together. Assistors see which rows have the same value, and not which"`
	Refit          bool   `yaml:"refit,omitempty" doc:"once held-out rows have said how many rounds are best, run so many again on all rows but those to test on, and keep these; a run may then have twice as many rounds"`
	assisted.Steps `yaml:",inline"`
}

// Defaults are Procedure 1 of the paper; it stops by held-out rows if there are any and patience is set, for which 3 is a good number.
func Defaults() Options {
	return Options{Order: "chain", Rate: "one", Start: "zero", Steps: assisted.DefaultSteps()}
}

// Boosting are the settings of sequential assistance as gradient assisted learning is compared with: any loss, residuals computed
// afresh before each organisation, and a rate of its own by line search.
func Boosting() Options {
	o := Defaults()
	o.Rate, o.Start = "exact", "initial"
	return o
}

// Validate returns an error that says which option cannot be.
func (o Options) Validate() error {
	switch o.Order {
	case "chain", "random", "greedy", "star-average":
	default:
		return fmt.Errorf("order: %q, expected chain, random, greedy or star-average", o.Order)
	}
	switch {
	case o.Rate != "one" && o.Rate != "exact":
		return fmt.Errorf("rate: %q, expected one or exact", o.Rate)
	case o.Start != "zero" && o.Start != "initial":
		return fmt.Errorf("start: %q, expected zero or initial", o.Start)
	case o.Order == "star-average" && (o.Rate != "one" || o.Start != "zero"):
		return errors.New("order: star-average is the printed procedure, with rate one and start zero")
	}
	return o.Steps.Validate()
}

// Most is how many rounds a run may have for which so many are planned.
func (o Options) Most(rounds int) int {
	if o.Refit {
		return 2 * rounds
	}
	return rounds
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
	if o.Refit && sponsor != nil {
		switch {
		case sponsor.Held == 0:
			return nil, errors.New("refit: how many rounds to run again is for held-out rows to say: set some apart")
		case sponsor.Solve > 0 && o.Rate == "exact":
			return nil, errors.New("refit: in the end residuals of all rows are sent, also of those that rates are solved on, which were set apart so that nobody is sent any: set rows.solve to 0, or rate to one")
		}
	}
	return &Algorithm{Options: o, Table: assisted.Table{Sponsor: sponsor, Disclosure: o.Disclosure, Desks: desks, ByStratum: o.Strata != "", All: o.Refit}, Rounds: rounds}, nil
}
