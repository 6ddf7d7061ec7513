package main

import (
	"context"
	"path/filepath"

	"github.com/cohort-learning/cohort/recipe"
	"github.com/spf13/cobra"
)

type exportCommand struct {
	modelOptions
	to string
}

func newExport(io streams, _ <-chan struct{}) *cobra.Command {
	var o exportCommand
	c := &cobra.Command{
		Use:   "export RUN | --member DIR [RUN] --to FILE.safetensors",
		Short: "Write a trained model for other programs",
		Long: `Write the global model of a run as a safetensors file with the names and layouts of PyTorch, statistics of batch norm
included, and beside it a JSON file that says what it is: architecture, classes, how inputs are normalised. With --level
the thin sub-network of that level is written, with statistics of its own.`,
		Example: `  cohort export demo-20260131-120000 --to model.safetensors
  cohort export demo-20260131-120000 --level c --to small.safetensors`,
		Args:              runOrMember(&o.member),
		ValidArgsFunction: completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case o.to == "":
				return usagef("--to is missing: the safetensors file to write")
			case filepath.Ext(o.to) != ".safetensors":
				return usagef("--to %s: expected a name that ends in .safetensors", o.to)
			}
			if err := o.check(); err != nil {
				return err
			}
			return o.run(cmd.Context(), io, optional(args))
		},
	}
	o.flags(c)
	c.Flags().StringVar(&o.to, "to", "", "file to write; its description lies beside it and ends in .json")
	return c
}

func (o *exportCommand) run(ctx context.Context, io streams, name string) error {
	m, engine, err := o.open(ctx, name)
	if err != nil {
		return err
	}
	defer engine.Close()
	files, err := m.WriteFile(o.to)
	if err != nil {
		return err
	}
	if o.json {
		return io.json(struct {
			Schema  int          `json:"schema"`
			Tensors string       `json:"tensors"`
			Card    string       `json:"card"`
			Count   int          `json:"parameters"`
			Bytes   int64        `json:"bytes"`
			Model   *recipe.Card `json:"model"`
		}{schema, files[0], files[1], m.Weights.Size(), m.Weights.Bytes() + m.Stats.Bytes(), m.Card})
	}
	io.say("%s: %s with %s parameters, %s", files[0], m.Card.Architecture, count(m.Weights.Size()), inBytes(float64(m.Weights.Bytes()+m.Stats.Bytes())))
	io.say("%s: what it is", files[1])
	return nil
}
