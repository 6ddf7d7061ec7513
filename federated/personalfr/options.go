package personalfr

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/federated"
)

// Options are those of PersonalFR in a recipe.
type Options struct {
	Share          string  `yaml:"share" doc:"What the server averages: decoder (PersonalFR), all (FedAvg), encoder, or nothing."`
	Compression    string  `yaml:"compression" doc:"active: compute and send the member's own items; compute: send all; none: compute all, too."`
	Feedback       string  `yaml:"feedback" doc:"explicit: predict ratings; implicit: predict what is liked."`
	Like           float64 `yaml:"like,omitempty" doc:"Rating from which an item is liked; 0 means 0.7 of the greatest."`
	Bias           float64 `yaml:"bias,omitempty" doc:"Initial output of every item, such as the mean rating; 0 is the paper's."`
	ReferenceDecay bool    `yaml:"reference_decay,omitempty" doc:"Weight decay also on items that a member does not have, as in the authors' code; needs compression none."`
	Count          bool    `yaml:"count,omitempty" doc:"Average rows of items over the members that have them, instead of counting the others as unchanged."`
	Catalogue      bool    `yaml:"catalogue,omitempty" doc:"Measure rankings of the whole catalogue, too."`
}

// Defaults returns the options of PersonalFR.
func Defaults() *Options {
	return &Options{Share: "decoder", Compression: "active", Feedback: "explicit", Catalogue: true}
}

// JointOptions are those of joint training in a recipe.
type JointOptions struct {
	Feedback  string  `yaml:"feedback" doc:"explicit: predict ratings; implicit: predict what is liked."`
	Like      float64 `yaml:"like,omitempty" doc:"Rating from which an item is liked; 0 means 0.7 of the greatest."`
	Catalogue bool    `yaml:"catalogue,omitempty" doc:"Measure rankings of the whole catalogue, too."`
}

// JointDefaults returns the options of joint training.
func JointDefaults() *JointOptions { return &JointOptions{Feedback: "explicit", Catalogue: true} }

// New returns joint training on a problem.
func (o *JointOptions) New(p *federated.Problem) (federated.Algorithm, error) {
	c := Options{Share: "all", Compression: "compute", Feedback: o.Feedback, Like: o.Like, Catalogue: o.Catalogue}
	return NewJoint(p, c)
}

// Ratings marks the options of methods that learn from ratings.
func (*Options) Ratings() {}

// Ratings marks the options of methods that learn from ratings.
func (*JointOptions) Ratings() {}

// DisclosesItems reports whether single updates tell which items a member's users have rated.
func (o *Options) DisclosesItems() bool { return o.Share != "nothing" }

func oneOf(field, v string, words ...string) error {
	if slices.Contains(words, v) {
		return nil
	}
	return fmt.Errorf("%s: %q, expected %s", field, v, strings.Join(words, ", "))
}

// Validate returns an error that begins with the option that cannot be.
func (o Options) Validate() error {
	for _, err := range []error{
		oneOf("share", o.Share, "decoder", "all", "encoder", "nothing"),
		oneOf("compression", o.Compression, "active", "compute", "none"),
		oneOf("feedback", o.Feedback, "explicit", "implicit"),
	} {
		if err != nil {
			return err
		}
	}
	switch {
	case !(o.Like >= 0):
		return fmt.Errorf("like: %g, expected a rating, or 0", o.Like)
	case o.Bias-o.Bias != 0:
		return fmt.Errorf("bias: %g", o.Bias)
	case o.ReferenceDecay && o.Compression != "none":
		return errors.New("reference_decay: it changes items that a member does not have, so that nothing is left to compress; set compression to none")
	case o.Count && o.Share == "nothing":
		return errors.New("count: nothing is averaged")
	}
	return nil
}

// New returns the method on a problem.
func (o *Options) New(p *federated.Problem) (federated.Algorithm, error) { return New(p, *o) }
