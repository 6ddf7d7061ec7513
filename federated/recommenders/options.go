package recommenders

import (
	"cmp"
	"errors"
	"fmt"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedavg"
)

// Factorisation are the options of matrix factorisation, federated or joint.
type Factorisation struct {
	Width          int     `yaml:"factors" doc:"Numbers that describe an item, and a user."`
	Feedback       string  `yaml:"feedback" doc:"explicit: predict ratings; implicit: predict what is liked."`
	Regularisation float64 `yaml:"regularisation,omitempty" doc:"Pull of factors towards 0, lambda; 0 means 0.12 a rating of explicit, 10 of implicit feedback."`
	Confidence     float64 `yaml:"confidence,omitempty" doc:"Of implicit feedback: how much more a rating weighs than none, alpha; 0 means 1."`
	Like           float64 `yaml:"like,omitempty" doc:"Rating from which an item is liked; 0 means 0.7 of the greatest."`
	Catalogue      bool    `yaml:"catalogue,omitempty" doc:"Measure rankings of the whole catalogue, too."`
}

// Options are those of federated collaborative filtering in a recipe.
type Options struct {
	Factorisation `yaml:",inline"`
	ServerRate    float64 `yaml:"server_rate" doc:"Step of the server, of Adam."`
	Beta1         float64 `yaml:"beta1" doc:"Decay of the first moment, in [0, 1)."`
	Beta2         float64 `yaml:"beta2" doc:"Decay of the second moment, in [0, 1)."`
	Tau           float64 `yaml:"tau" doc:"Degree of adaptivity: added to the root of the second moment."`
}

// JointOptions are those of joint alternating least squares in a recipe.
type JointOptions struct {
	Factorisation `yaml:",inline"`
}

func factorisation() Factorisation {
	return Factorisation{Width: 10, Feedback: "explicit", Catalogue: true}
}

// Defaults returns the options of FCF.
func Defaults() *Options {
	return &Options{Factorisation: factorisation(), ServerRate: 0.02, Beta1: 0.9, Beta2: 0.99, Tau: 1e-3}
}

// JointDefaults returns the options of joint alternating least squares.
func JointDefaults() *JointOptions { return &JointOptions{factorisation()} }

// Ratings marks the options of methods that learn from ratings.
func (*Factorisation) Ratings() {}

// Factors is how many numbers of a user the model reads.
func (f *Factorisation) Factors() int { return f.Width }

// DisclosesItems reports whether single updates tell which items a member's users have rated: of implicit feedback every item
// has a gradient, but those of rated ones are of another size.
func (*Options) DisclosesItems() bool { return true }

// Validate returns an error that begins with the option that cannot be.
func (f *Factorisation) Validate() error {
	switch {
	case f.Width < 1 || f.Width > 4096:
		return fmt.Errorf("factors: %d, expected 1 to 4096", f.Width)
	case f.Feedback != "explicit" && f.Feedback != "implicit":
		return fmt.Errorf("feedback: %q, expected explicit, implicit", f.Feedback)
	case !(f.Regularisation >= 0) || f.Regularisation > 1e12:
		return fmt.Errorf("regularisation: %g, expected more than 0, or 0 for the default", f.Regularisation)
	case !(f.Confidence >= 0) || f.Confidence > 1e12:
		return fmt.Errorf("confidence: %g, expected more than 0, or 0 for the default", f.Confidence)
	case f.Confidence != 0 && f.Feedback != "implicit":
		return errors.New("confidence: it is for implicit feedback")
	case !(f.Like >= 0):
		return fmt.Errorf("like: %g, expected a rating, or 0", f.Like)
	}
	return nil
}

func (f *Factorisation) implicit() bool { return f.Feedback == "implicit" }

// taste is what is minimised where ratings are on the scale of r.
func (f *Factorisation) taste(r *dataset.Ratings, t federated.Tasting) taste {
	out := taste{implicit: f.implicit(), lambda: f.lambda(), like: t.LikedFrom(r)}
	if out.implicit {
		out.alpha = cmp.Or(f.Confidence, 1)
	}
	return out
}

func (f *Factorisation) lambda() float64 {
	if f.implicit() {
		return cmp.Or(f.Regularisation, 10)
	}
	return cmp.Or(f.Regularisation, 0.12)
}

func (f *Factorisation) tasting(p *federated.Problem) federated.Tasting {
	return federated.Tasting{Implicit: f.implicit(), Ranks: true, Like: f.Like, Catalogue: f.Catalogue, Batch: p.Training.Batch}
}

// New returns FCF on a problem.
func (o *Options) New(p *federated.Problem) (federated.Algorithm, error) {
	if err := o.Factorisation.Validate(); err != nil {
		return nil, err
	}
	a := &FCF{shared: newShared(p, o.Factorisation), rule: fedavg.Adaptive{Kind: fedavg.Adam, Rate: o.ServerRate, Beta1: o.Beta1, Beta2: o.Beta2, Tau: o.Tau}}
	if err := a.rule.Validate(); err != nil {
		return nil, err
	}
	return a, nil
}

// New returns joint alternating least squares on a problem.
func (o *JointOptions) New(p *federated.Problem) (federated.Algorithm, error) {
	if err := o.Factorisation.Validate(); err != nil {
		return nil, err
	}
	return &Joint{newShared(p, o.Factorisation)}, nil
}

// MeansOptions are those of the means of items in a recipe.
type MeansOptions struct {
	Damping   float64 `yaml:"damping,omitempty" doc:"Ratings at the mean of all that every item is given besides; 0 is the plain mean."`
	Catalogue bool    `yaml:"catalogue,omitempty" doc:"Measure rankings of the whole catalogue, too."`
}

// PopularityOptions are those of popularity in a recipe.
type PopularityOptions struct {
	Like      float64 `yaml:"like,omitempty" doc:"Rating from which an item is liked; 0 means 0.7 of the greatest."`
	Catalogue bool    `yaml:"catalogue,omitempty" doc:"Measure rankings of the whole catalogue, too."`
}

// MeansDefaults returns the options of item means.
func MeansDefaults() *MeansOptions { return &MeansOptions{Catalogue: true} }

// PopularityDefaults returns the options of popularity.
func PopularityDefaults() *PopularityOptions { return &PopularityOptions{Catalogue: true} }

// Ratings marks the options of methods that learn from ratings.
func (*MeansOptions) Ratings() {}

// Ratings marks the options of methods that learn from ratings.
func (*PopularityOptions) Ratings() {}

// Factors is how many numbers of a user the model reads: one, which makes no difference.
func (*MeansOptions) Factors() int { return 1 }

// Factors is how many numbers of a user the model reads: one, which makes no difference.
func (*PopularityOptions) Factors() int { return 1 }

// DisclosesItems reports that single results tell which items a member's users have rated.
func (*MeansOptions) DisclosesItems() bool { return true }

// DisclosesItems reports that single results tell which items a member's users like.
func (*PopularityOptions) DisclosesItems() bool { return true }

// New returns item means on a problem.
func (o *MeansOptions) New(p *federated.Problem) (federated.Algorithm, error) {
	if !(o.Damping >= 0) || o.Damping > 1e12 {
		return nil, fmt.Errorf("damping: %g, expected 0 or more", o.Damping)
	}
	return &Means{Problem: p, damping: o.Damping, tasting: federated.Tasting{Catalogue: o.Catalogue, Batch: p.Training.Batch}}, nil
}

// New returns popularity on a problem.
func (o *PopularityOptions) New(p *federated.Problem) (federated.Algorithm, error) {
	if !(o.Like >= 0) {
		return nil, fmt.Errorf("like: %g, expected a rating, or 0", o.Like)
	}
	return &Means{Problem: p, popular: true,
		tasting: federated.Tasting{Implicit: true, Like: o.Like, Catalogue: o.Catalogue, Batch: p.Training.Batch}}, nil
}
