package methods

import (
	"fmt"
	"strings"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/aeal"
	"github.com/cohort-learning/cohort/assisted/al"
	"github.com/cohort-learning/cohort/assisted/alnet"
	"github.com/cohort-learning/cohort/assisted/ascii"
	"github.com/cohort-learning/cohort/assisted/gal"
	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/assisted/mismatch"
	"github.com/cohort-learning/cohort/federated"
)

// Assistance is a way in which organisations with different columns of the same entities learn together.
type Assistance interface {
	federated.Algorithm
	// Ensemble returns what a run has come to.
	Ensemble(federated.State) (assisted.Ensemble, error)
}

// AssistedOptions are a method's own part of a recipe: a struct whose fields have yaml names and doc texts.
type AssistedOptions interface {
	// New returns the method for a sponsor. Desks is the organisations' side where it is in this process, else nil.
	New(rounds int, sponsor *assisted.Sponsor, desks federated.Client) (Assistance, error)
	// Recomputes reports whether organisations are asked for the values of all rounds once more, after the last one.
	Recomputes() bool
	// Leads reports whether the sponsor's own model is the first to explain anything.
	Leads() bool
}

// Stratifier is options of a method whose assistors may fit a model for each value of a column of the sponsor's.
type Stratifier interface {
	// StrataColumn names the column; empty: they fit one for all rows.
	StrataColumn() string
}

// Objector is options of a method that makes something else of a sponsor's objective, or has none for it.
type Objector interface {
	Objective(assisted.Objective) (assisted.Objective, error)
}

// Labeller is options of a method that tells organisations more than residuals.
type Labeller interface {
	// Columns is how many columns of targets an organisation is sent in a round, for so many outputs.
	Columns(outputs int) int
}

// Refitter is options of a method that may run its best rounds again.
type Refitter interface {
	// Most is how many rounds a run may have for which so many are planned.
	Most(rounds int) int
}

// Divider is options of a method whose organisations have parts of the first layer of one network, and no models of their own kind: each
// tells what its part makes of its columns.
type Divider interface {
	// Validate returns an error that says which option cannot be.
	Validate() error
	// Activations is how many units the layer has.
	Activations() int
}

// Assisted is one entry of the registry of such methods.
type Assisted struct {
	Name    string // as a recipe calls it
	Title   string
	Summary string                 // one line: when to use it
	Paper   string                 // where it is published
	Options func() AssistedOptions // its options at their defaults
	Solves  bool                   // it finds weights or rates, which is better done on rows whose residuals nobody was sent
	Rounds  int                    // how many a recipe has that names none; 0: 10
}

type galOptions struct {
	gal.Options `yaml:",inline"`
}

func (o *galOptions) New(rounds int, s *assisted.Sponsor, desks federated.Client) (Assistance, error) {
	return o.Options.New(rounds, s, desks)
}

func (o *galOptions) Recomputes() bool { return o.DMS != "" }

func (o *galOptions) Leads() bool { return o.Lead }

type alOptions struct {
	al.Options `yaml:",inline"`
}

func (o *alOptions) New(rounds int, s *assisted.Sponsor, desks federated.Client) (Assistance, error) {
	return o.Options.New(rounds, s, desks)
}

func (o *alOptions) Recomputes() bool { return false }

// StrataColumn implements [Stratifier].
func (o *alOptions) StrataColumn() string { return o.Strata }

// NewAligner returns the first stage of a run for an organisation whose links by key are in doubt, after mismatched supervised
// learning: what explains residuals is linear or another learner, which is cross-fitted. An empty name is no such stage.
func NewAligner(name string) (assisted.Aligner, error) {
	switch name {
	case "":
		return nil, nil
	case "linear":
		return mismatch.Aligner{}, nil
	}
	l, err := learner.Spec{Name: name}.New()
	if err != nil {
		return nil, err
	}
	return mismatch.Aligner{Learner: l}, nil
}

// Leads: whoever is first gets what the sponsor's own model leaves.
func (o *alOptions) Leads() bool { return true }

type asciiOptions struct {
	ascii.Options `yaml:",inline"`
}

func (o *asciiOptions) New(rounds int, s *assisted.Sponsor, desks federated.Client) (Assistance, error) {
	return o.Options.New(rounds, s, desks)
}

func (o *asciiOptions) Recomputes() bool { return false }

// Leads: whoever is first gets the labels, as all others do.
func (o *asciiOptions) Leads() bool { return false }

// Columns implements [Labeller]: labels and their scores.
func (o *asciiOptions) Columns(int) int { return 2 }

type aealOptions struct {
	aeal.Options `yaml:",inline"`
}

func (o *aealOptions) New(rounds int, s *assisted.Sponsor, desks federated.Client) (Assistance, error) {
	return o.Options.New(rounds, s, desks)
}

func (o *aealOptions) Recomputes() bool { return false }

// Leads: whoever is first gets the labels, as all others do.
func (o *aealOptions) Leads() bool { return false }

// Columns implements [Labeller]: labels and linear predictors.
func (o *aealOptions) Columns(int) int { return 2 }

type networkOptions struct {
	alnet.Options `yaml:",inline"`
}

func (o *networkOptions) New(rounds int, s *assisted.Sponsor, desks federated.Client) (Assistance, error) {
	return o.Options.New(rounds, s, desks)
}

func (o *networkOptions) Recomputes() bool { return false }

// Leads: there are no residuals that something could be found out by.
func (o *networkOptions) Leads() bool { return false }

// Activations implements [Divider].
func (o *networkOptions) Activations() int {
	if len(o.Hidden) == 0 {
		return 1 // options that are refused
	}
	return o.Hidden[0]
}

// AllAssisted lists the methods of organisations with different columns.
func AllAssisted() []Assisted {
	return []Assisted{
		{Name: "gal", Title: "Gradient Assisted Learning", Paper: "Diao et al., arXiv 2106.01425", Solves: true,
			Summary: "all organisations fit the residuals at the same time; weights and rates are searched for",
			Options: func() AssistedOptions { o := &galOptions{gal.Defaults()}; o.Patience = 3; return o }},
		{Name: "al", Title: "Assisted Learning", Paper: "Xian et al., arXiv 2004.00566", Solves: true,
			Summary: "organisations fit the residuals one after the other, each what the one before has left",
			Options: func() AssistedOptions { o := &alOptions{al.Defaults()}; o.Patience = 3; return o }},
		{Name: "ascii", Title: "Assisted Classification with Ignorance Interchange", Paper: "Zhou et al., arXiv 2010.10747",
			Summary: "classes, which all organisations know: each fits them under the weights of rows that the others get wrong",
			Options: func() AssistedOptions {
				o := &asciiOptions{ascii.Defaults()}
				o.Weights, o.Stop, o.Patience = "simple", "nobody", 10
				return o
			}},
		{Name: "ae-al", Title: "Additive-Effect Assisted Learning", Paper: "Zhang, Yang and Ding",
			Summary: "a generalised linear model on all columns, of a quantity, counts or two classes that all organisations know",
			Options: func() AssistedOptions { o := &aealOptions{aeal.Defaults()}; o.Patience = 3; return o }},
		{Name: "al-network", Title: "Assisted Learning of one network", Paper: "Xian et al., arXiv 2004.00566, procedure 2", Rounds: 60,
			Summary: "one network, whose first layer is divided among organisations, which take turns; all of them know the labels, and show activations",
			Options: func() AssistedOptions {
				o := &networkOptions{alnet.Defaults()}
				o.Hidden, o.Start, o.Patience = []int{16}, "initial", 20
				return o
			}},
	}
}

// FindAssisted returns the method of that name; the error lists those that exist.
func FindAssisted(name string) (Assisted, error) {
	var names []string
	for _, m := range AllAssisted() {
		if m.Name == name {
			return m, nil
		}
		names = append(names, m.Name)
	}
	return Assisted{}, fmt.Errorf("there is no method %q among organisations; the methods are %s", name, strings.Join(names, ", "))
}
