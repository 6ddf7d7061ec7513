package main

import (
	"cmp"
	"context"
	"encoding/csv"
	"fmt"
	"strconv"

	"github.com/cohort-learning/cohort/recipe"
	"github.com/spf13/cobra"
)

type predictCommand struct {
	modelOptions
	input string
	csv   bool
}

func newPredict(io streams, _ <-chan struct{}) *cobra.Command {
	var o predictCommand
	c := &cobra.Command{
		Use:   "predict RUN | FILE.safetensors | --member DIR [RUN] --input PATH",
		Short: "Ask a trained model about your own files",
		Long: `Ask the global model of a run, or an exported model, about your own files: a PNG or JPEG file, a folder of them (and of
folders), or a CSV file with the columns that the model was trained on. Pictures are resized to what the model sees.`,
		Example: `  cohort predict demo-20260131-120000 --input letter.png
  cohort predict model.safetensors --input patients.csv --csv > answers.csv`,
		Args:              runOrMember(&o.member),
		ValidArgsFunction: completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case o.input == "":
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
	f.StringVarP(&o.input, "input", "i", "", "file or folder to predict on")
	f.BoolVar(&o.csv, "csv", false, "print the predictions as CSV")
	return c
}

func (o *predictCommand) run(ctx context.Context, io streams, name string) error {
	m, engine, err := o.open(ctx, name)
	if err != nil {
		return err
	}
	defer engine.Close()
	data, names, err := m.Card.Read(ctx, o.input)
	if err != nil {
		return err
	}
	predictions, err := m.Predict(ctx, engine, data, names)
	if err != nil {
		return err
	}
	regression := m.Card.Task == recipe.Regression
	switch {
	case o.json:
		return io.json(struct {
			Schema      int                 `json:"schema"`
			Model       string              `json:"model"`
			Predictions []recipe.Prediction `json:"predictions"`
		}{schema, cmp.Or(name, m.Card.Source.Run), predictions})
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
