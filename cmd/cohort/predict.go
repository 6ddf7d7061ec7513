package main

import (
	"cmp"
	"context"
	"encoding/csv"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/cohort-learning/cohort/recipe"
	"github.com/spf13/cobra"
)

type predictCommand struct {
	modelOptions
	input []string
	csv   bool
}

func newPredict(io streams, _ <-chan struct{}) *cobra.Command {
	var o predictCommand
	c := &cobra.Command{
		Use:   "predict RUN | FILE.safetensors | --member DIR [RUN] --input PATH",
		Short: "Ask a trained model about your own files",
		Long: `Ask the global model of a run, or an exported model, about your own files: a PNG or JPEG file, a folder of them (and of
folders), or a CSV file with the columns that the model was trained on. Pictures are resized to what the model sees.

A run of "cohort assist" is asked about rows of the sponsor's table; the other organisations are asked for the same entities, of their
tables of the recipe or of new ones: --input NAME=FILE for each that has a new one. Where an organisation lacks an entity, its mean
stands for it, and that is said.`,
		Example: `  cohort predict demo-20260131-120000 --input letter.png
  cohort predict model.safetensors --input patients.csv --csv > answers.csv
  cohort predict loans --input bank=new.csv --input payroll=payroll-june.tsv`,
		Args:              runOrMember(&o.member),
		ValidArgsFunction: completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(o.input) == 0 || slices.Contains(o.input, ""):
				return usagef("--input is missing: a PNG or JPEG file, a folder of them, or a CSV file")
			case o.csv && o.json:
				return usagef("give --csv or --json, not both")
			}
			if err := o.check(); err != nil {
				return err
			}
			return o.run(cmd.Context(), io, optional(args))
		},
	}
	o.flags(c)
	f := c.Flags()
	f.StringArrayVarP(&o.input, "input", "i", nil, "file or folder to predict on; of organisations NAME=FILE, repeated")
	f.BoolVar(&o.csv, "csv", false, "print the predictions as CSV")
	return c
}

func (o *predictCommand) run(ctx context.Context, io streams, name string) error {
	if o.member == "" {
		if dir, err := findRun(name); err == nil && recipe.AmongOrganisations(dir) {
			return o.ask(ctx, io, name, dir)
		}
	}
	if len(o.input) > 1 {
		return usagef("--input is given %d times: only runs of \"cohort assist\" take more than one", len(o.input))
	}
	m, engine, err := o.open(ctx, name)
	if err != nil {
		return err
	}
	defer engine.Close()
	data, names, err := m.Card.Read(ctx, o.input[0])
	if err != nil {
		return err
	}
	predictions, err := m.Predict(ctx, engine, data, names)
	if err != nil {
		return err
	}
	return o.print(io, cmp.Or(name, m.Card.Source.Run), predictions, m.Card.Task == recipe.Regression, nil)
}

// ask asks the organisations of a run.
func (o *predictCommand) ask(ctx context.Context, io streams, name, dir string) error {
	if o.level != "" || o.client != "" || o.checkpoint != "final" {
		return usagef("--level, --client and --checkpoint are not for runs of organisations")
	}
	inputs := map[string]string{}
	for _, in := range o.input {
		who, path, ok := strings.Cut(in, "=")
		if !ok || who == "" || path == "" || inputs[who] != "" {
			return usagef("--input %s: expected NAME=FILE, once for an organisation", in)
		}
		inputs[who] = path
	}
	a, err := recipe.Ask(ctx, dir, inputs)
	if err != nil {
		return err
	}
	for _, who := range slices.Sorted(maps.Keys(a.Degraded)) {
		io.note("%s does not know %d of %d entities: its mean stands for it there", who, a.Degraded[who], len(a.Predictions))
	}
	return o.print(io, name, a.Predictions, a.Regression, a.Degraded)
}

// print prints predictions; lacked is what organisations lacked.
func (o *predictCommand) print(io streams, name string, predictions []recipe.Prediction, regression bool, lacked map[string]int) error {
	switch {
	case o.json:
		return io.json(struct {
			Schema      int                 `json:"schema"`
			Model       string              `json:"model"`
			Predictions []recipe.Prediction `json:"predictions"`
			Degraded    map[string]int      `json:"degraded,omitempty"` // by organisation: for how many rows its mean stands
		}{schema, name, predictions, lacked})
	case o.csv:
		return writeCSV(io, predictions, regression)
	}
	t := newTable("input", "class", ">probability")
	if regression {
		t = newTable("input", ">value")
	}
	for _, p := range predictions {
		if regression {
			t.add(p.Input, strconv.FormatFloat(*p.Value, 'g', 6, 64))
		} else {
			t.add(p.Input, p.Class, fmt.Sprintf("%.1f %%", 100*p.Probability))
		}
	}
	t.write(io.out)
	return nil
}

func writeCSV(io streams, predictions []recipe.Prediction, regression bool) error {
	w := csv.NewWriter(io.out)
	head := []string{"input", "class", "probability"}
	if regression {
		head = []string{"input", "value"}
	}
	if err := w.Write(head); err != nil {
		return err
	}
	for _, p := range predictions {
		row := []string{p.Input, p.Class, strconv.FormatFloat(p.Probability, 'g', 6, 64)}
		if regression {
			row = []string{p.Input, strconv.FormatFloat(*p.Value, 'g', -1, 64)}
		}
		if err := w.Write(row); err != nil {
			return err
		}
	}
	w.Flush()
	return w.Error()
}
