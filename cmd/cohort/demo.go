package main

import (
	"fmt"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated/heterofl"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/spf13/cobra"
)

func newDemo(io streams, stop <-chan struct{}) *cobra.Command {
	var o runOptions
	c := &cobra.Command{
		Use:   "demo",
		Short: "Watch a hundred unequal clients learn one model",
		Long: `Run HeteroFL on this machine: a hundred virtual clients of five levels of strength, the weakest
with a sixteenth of the width, learn to read characters that the program draws. It needs no files and
no network, and leaves a report.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			r, err := demoRecipe()
			if err != nil {
				return err
			}
			return o.run(cmd.Context(), io, stop, r, "demo")
		},
	}
	o.flags(c)
	return c
}

// demoRecipe is the main job on built-in data.
func demoRecipe() (*recipe.Recipe, error) {
	r, err := recipe.Default("heterofl")
	if err != nil {
		return nil, err
	}
	r.Name = "demo"
	r.Rounds = 30
	r.Data = dataset.Spec{Name: "glyphs", Size: 16, Train: 10000, Test: 2000}
	r.Round.Fraction = 0.2
	r.Train.Optimizer.Rate = 0.1
	r.Train.Schedule = recipe.Schedule{Kind: "cosine", Min: 0.005}
	options, ok := r.Options.(*heterofl.Options)
	if !ok {
		return nil, fmt.Errorf("unexpected options %T", r.Options)
	}
	options.Mode = "a1-b1-c1-d1-e1"
	r.Evaluate.Every = 2
	return r, nil
}
