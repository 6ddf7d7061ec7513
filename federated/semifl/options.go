package semifl

import (
	"fmt"

	"github.com/cohort-learning/cohort/dataset/augment"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/heterofl"
)

// Options are those of SemiFL and its relatives in a recipe.
type Options struct {
	Loss         string         `yaml:"loss" doc:"What clients learn from: fix-mix (SemiFL), fix (no mix loss), fix-batch (FixMatch) or sup (their own labels)."`
	Threshold    float64        `yaml:"threshold" doc:"Least probability of a pseudo-label that is learned from."`
	Lambda       float64        `yaml:"lambda" doc:"Weight of the mix loss."`
	Beta         float64        `yaml:"beta" doc:"Parts of a mixture are drawn from Beta(beta, beta)."`
	Momentum     float64        `yaml:"momentum" doc:"Momentum of the server's step, in [0, 1)."`
	Server       string         `yaml:"server" doc:"How the server learns from its labels: alternate (after the clients), parallel, or parallel-reference (with the momentum of the authors' code)."`
	ServerFirst  bool           `yaml:"server_first,omitempty" doc:"The server trains at the beginning of a round instead of at its end."`
	ServerEpochs float64        `yaml:"server_epochs" doc:"Passes of the server over its labels in a round; below 1 a part of one; 0 is none."`
	ServerBatch  int            `yaml:"server_batch,omitempty" doc:"Examples of a server's step; 0 is 250 if it has more than 1000, else 10."`
	Epochs       float64        `yaml:"epochs,omitempty" doc:"Passes of a client instead of train.epochs, to have a part of one, such as 0.1."`
	Clean        bool           `yaml:"clean,omitempty" doc:"Label images as they are instead of weakly augmented."`
	Forget       bool           `yaml:"forget,omitempty" doc:"Clients' optimisers start afresh every round instead of keeping their momentum."`
	WeighKept    bool           `yaml:"weigh_kept,omitempty" doc:"Clients weigh by the examples that they learned from, instead of alike."`
	DropSingle   bool           `yaml:"drop_single,omitempty" doc:"Leave out batches of one example, whose batch norm is poor."`
	StatBatch    int            `yaml:"statistics_batch" doc:"Examples of a batch of batch norm statistics."`
	StatSamples  int            `yaml:"statistics_samples,omitempty" doc:"Most examples of a client for batch norm statistics; 0 is all."`
	Groups       bool           `yaml:"groups,omitempty" doc:"FedRGD: average two groups of clients, each with the server's model."`
	Decomposed   bool           `yaml:"decomposed,omitempty" doc:"FedMatch: the server trains one part of each convolution, the clients another."`
	Strong       augment.Policy `yaml:"strong" doc:"Strong augmentation."`
	Mode         string         `yaml:"mode,omitempty" doc:"HeteroFL's levels, such as a1-e1; empty is one model for all."`
	Levels       string         `yaml:"levels,omitempty" doc:"mode: dynamic redraws every client's level each round; fixed does not."`
}

// DefaultOptions returns SemiFL as published.
func DefaultOptions() *Options { return options(Defaults()) }

// FixMatchOptions returns FedAvg with FixMatch at clients, and a server that trains at the same time: the naive combination.
func FixMatchOptions() *Options {
	c := Defaults()
	c.Loss, c.Server = FixBatch, Parallel
	return options(c)
}

// FedSGDOptions returns FixMatchOptions with one step a round.
func FedSGDOptions() *Options {
	o := FixMatchOptions()
	o.Epochs, o.ServerEpochs = 1e-3, 1e-3
	return o
}

// RGDOptions returns FedRGD.
func RGDOptions() *Options {
	o := FixMatchOptions()
	o.Groups = true
	return o
}

// MatchOptions returns the simplified FedMatch.
func MatchOptions() *Options {
	o := FixMatchOptions()
	o.Decomposed, o.Momentum = true, 0
	return o
}

func options(c Config) *Options {
	return &Options{Loss: string(c.Loss), Threshold: c.Threshold, Lambda: c.Lambda, Beta: c.Beta, Momentum: c.Momentum,
		Server: string(c.Server), ServerEpochs: c.ServerEpochs, StatBatch: c.StatBatch, Strong: c.Strong}
}

// Unlabelled reports whether clients need no labels.
func (o *Options) Unlabelled() bool { return o.Loss != string(Labelled) }

// New returns the method on a problem.
func (o *Options) New(p *federated.Problem) (federated.Algorithm, error) {
	c := Config{Loss: Loss(o.Loss), Threshold: o.Threshold, Lambda: o.Lambda, Beta: o.Beta, Momentum: o.Momentum, Strong: o.Strong,
		Clean: o.Clean, Server: Teaching(o.Server), First: o.ServerFirst, ServerEpochs: o.ServerEpochs, ServerBatch: o.ServerBatch,
		Epochs: o.Epochs, Forget: o.Forget, WeighKept: o.WeighKept, DropSingle: o.DropSingle, StatBatch: o.StatBatch,
		StatSamples: o.StatSamples, Groups: o.Groups, Decomposed: o.Decomposed}
	switch {
	case o.Mode == "" && o.Levels != "":
		return nil, fmt.Errorf("levels: %q, which needs a mode", o.Levels)
	case o.Levels != "" && o.Levels != "dynamic" && o.Levels != "fixed":
		return nil, fmt.Errorf("levels: %q, expected dynamic or fixed", o.Levels)
	case o.Mode != "":
		var err error
		if c.Mode, err = heterofl.ParseMode(o.Mode, nil); err != nil {
			return nil, err
		}
		c.Dynamic = o.Levels != "fixed"
	}
	return New(p, c)
}
