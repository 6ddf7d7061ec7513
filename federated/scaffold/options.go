package scaffold

import (
	"fmt"

	"github.com/cohort-learning/cohort/federated"
)

// Options are those of SCAFFOLD in a recipe.
type Options struct {
	ServerRate float64 `yaml:"server_rate" doc:"Step of the server."`
	Controls   string  `yaml:"controls" doc:"How clients renew their control: path (the mean gradient of their steps, option II) or full (the full gradient at the received weights, option I)."`
	Weighting  string  `yaml:"weighting" doc:"How clients weigh: uniform, as published, or examples."`
}

// Defaults returns SCAFFOLD as published, with option II.
func Defaults() *Options { return &Options{ServerRate: 1, Controls: "path", Weighting: "uniform"} }

// New returns SCAFFOLD on a problem.
func (o *Options) New(p *federated.Problem) (federated.Algorithm, error) {
	a := New(p)
	if !(o.ServerRate > 0) {
		return nil, fmt.Errorf("server_rate: %g, expected more than 0", o.ServerRate)
	}
	if o.Controls != "path" && o.Controls != "full" {
		return nil, fmt.Errorf("controls: %q, expected path or full", o.Controls)
	}
	if o.Weighting != "uniform" && o.Weighting != "examples" {
		return nil, fmt.Errorf("weighting: %q, expected uniform or examples", o.Weighting)
	}
	a.Rate, a.FullGrad, a.Weighted = o.ServerRate, o.Controls == "full", o.Weighting == "examples"
	return a, nil
}
