package heterofl

import (
	"fmt"

	"github.com/cohort-learning/cohort/federated"
)

// Options are those of HeteroFL and its relatives in a recipe.
type Options struct {
	Mode     string             `yaml:"mode" doc:"Mixture of levels: letters a to e (widths 1, 1/2 … 1/16) with shares. The first is the global model's."`
	Levels   string             `yaml:"levels" doc:"dynamic: every client's level is redrawn each round; fixed: it has one for ever."`
	Scheme   Scheme             `yaml:"scheme" doc:"Channels a level holds: leading (HeteroFL), rolling (FedRolex), random (federated dropout) or ordered (FjORD)."`
	Scaler   bool               `yaml:"scaler" doc:"Scale thin networks' activations up while they train."`
	Mask     string             `yaml:"mask" doc:"Outputs of classes that a client does not have: zero (the paper's), exclude (minus infinity) or none."`
	FullOnly bool               `yaml:"full_only,omitempty" doc:"Only clients of the global level take part: the exclusion baseline."`
	Rates    map[string]float64 `yaml:"rates,omitempty" doc:"Your own levels instead of a to e: one letter each and its part of the width."`
	MaskRow  string             `yaml:"mask_row,omitempty" doc:"Language models: reference keeps the mask token's embedding at its initial value, as the authors' code does; empty trains it."`
}

// Defaults returns HeteroFL with the given scheme on all five levels.
func Defaults(s Scheme) *Options {
	return &Options{Mode: "a1-b1-c1-d1-e1", Levels: "dynamic", Scheme: s, Scaler: true, Mask: "zero"}
}

// New returns the method on a problem.
func (o *Options) New(p *federated.Problem) (federated.Algorithm, error) {
	mode, err := ParseMode(o.Mode, o.Rates)
	if err != nil {
		return nil, err
	}
	if o.Levels != "dynamic" && o.Levels != "fixed" {
		return nil, fmt.Errorf("levels: %q, expected dynamic or fixed", o.Levels)
	}
	if o.Mask != "zero" && o.Mask != "exclude" && o.Mask != "none" {
		return nil, fmt.Errorf("mask: %q, expected zero, exclude or none", o.Mask)
	}
	if o.MaskRow != "" && o.MaskRow != "reference" {
		return nil, fmt.Errorf("mask_row: %q, expected reference or nothing", o.MaskRow)
	}
	return New(p, Config{Mode: mode, Dynamic: o.Levels == "dynamic", Scheme: o.Scheme, Unscaled: !o.Scaler,
		Unmasked: o.Mask == "none", Exclusive: o.Mask == "exclude", FullOnly: o.FullOnly, Reference: o.MaskRow == "reference"})
}
