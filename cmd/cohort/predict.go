package main

import (
	"cmp"
	"context"
	"encoding/csv"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/node"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/spf13/cobra"
)

type predictCommand struct {
	modelOptions
	serverDir
	input     []string
	csv       bool
	keySecret string
	wait      time.Duration
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
stands for it, and that is said.

A run among organisations of "cohort serve" is asked from the coordinator's folder: --input has the sponsor's new rows, and every
organisation, the sponsor's own member among them, looks up their keys in the table that it has now (docs/assist.md). They answer while
"cohort join --stay" is at work there.`,
		Example: `  cohort predict demo-20260131-120000 --input letter.png
  cohort predict model.safetensors --input patients.csv --csv > answers.csv
  cohort predict loans --input bank=new.csv --input payroll=payroll-june.tsv
  cohort predict loans --dir cohort-server --input new.csv --csv`,
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
			if o.wait <= 0 {
				return usagef("--wait %v: expected more than 0", o.wait)
			}
			return o.run(cmd.Context(), io, optional(args))
		},
	}
	o.modelOptions.flags(c)
	o.serverDir.flags(c)
	f := c.Flags()
	f.StringArrayVarP(&o.input, "input", "i", nil, "file or folder to predict on; of organisations NAME=FILE, repeated")
	f.BoolVar(&o.csv, "csv", false, "print the predictions as CSV")
	f.StringVar(&o.keySecret, "key-secret", "", "organisations over a network: file with the secret that keys are hashed with")
	f.DurationVar(&o.wait, "wait", 2*time.Minute, "organisations over a network: how long to wait until they agree, and for answers")
	return c
}

func (o *predictCommand) run(ctx context.Context, io streams, name string) error {
	if o.member == "" {
		switch dir := o.find(name); {
		case dir != "" && recipe.Networked(dir):
			return o.consult(ctx, io, name, dir)
		case dir != "" && recipe.AmongOrganisations(dir):
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

// find returns the folder of a run, also of one in the folder of a coordinator; empty if there is none.
func (o *predictCommand) find(name string) string {
	if dir, err := findRun(name); err == nil && o.serverDir.dir == "" {
		return dir
	}
	if dir := filepath.Join(o.path(), "runs", name); filepath.Base(name) == name && isRun(dir) {
		return dir
	}
	return ""
}

// organisations checks that flags are those for runs of organisations.
func (o *predictCommand) organisations() error {
	if o.level != "" || o.client != "" || o.checkpoint != "final" {
		return usagef("--level, --client and --checkpoint are not for runs of organisations")
	}
	return nil
}

// ask asks the organisations of a run on this machine.
func (o *predictCommand) ask(ctx context.Context, io streams, name, dir string) error {
	if err := o.organisations(); err != nil {
		return err
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
	return o.tell(io, name, a)
}

// consult asks the organisations of a run over a network: through the coordinator that is at work in the folder of the run, or as it.
func (o *predictCommand) consult(ctx context.Context, io streams, name, dir string) error {
	if err := o.organisations(); err != nil {
		return err
	}
	if len(o.input) > 1 {
		return usagef("--input is given %d times; here it is the sponsor's new rows: the others name tables of theirs with \"cohort join --data\"", len(o.input))
	}
	c, err := recipe.Consult(dir)
	if err != nil {
		return err
	}
	rows, err := c.Rows(strings.TrimPrefix(o.input[0], c.Recipe.Sponsor+"="))
	if err != nil {
		return err
	}
	secret, err := keySecret(o.keySecret, c.Recipe.Keys)
	if err != nil {
		return err
	}
	keys, err := c.Keys(rows, secret)
	if err != nil {
		return err
	}
	reply, err := o.reply(ctx, io, filepath.Dir(filepath.Dir(dir)), node.Question{Run: c.Run, Keys: keys, Strata: c.Strata(rows), Wait: o.wait})
	if err != nil {
		return err
	}
	f, err := reply.Matrix()
	if err != nil {
		return err
	}
	a, err := c.Read(rows, f, reply.Away)
	if err != nil {
		return err
	}
	for _, note := range a.Away.Notes {
		io.note("%s", note)
	}
	return o.tell(io, name, a)
}

// reply asks the coordinator in a folder.
func (o *predictCommand) reply(ctx context.Context, io streams, server string, q node.Question) (node.Reply, error) {
	reply, err := node.NewAdmin(server).Predict(ctx, q)
	if !errors.Is(err, node.ErrNotServing) {
		return reply, err
	}
	host, err := node.Open(node.Options{Dir: server, Program: version(), Log: slog.New(&lines{io: io, quiet: o.json || o.csv})})
	if err != nil {
		return reply, err
	}
	io.note("no coordinator is at work in %s: this command is it, at %s, until it has its answers", server, host.URL)
	ctx, cancel := context.WithCancel(ctx)
	served := make(chan error, 1)
	go func() { served <- host.Serve(ctx) }()
	if reply, err = host.Predict(ctx, q); err == nil {
		host.Farewell(ctx, 2*time.Second)
	}
	cancel()
	return reply, cmp.Or(err, <-served)
}

// tell tells what organisations predict, and what there was to do without.
func (o *predictCommand) tell(io streams, name string, a *recipe.Asked) error {
	for _, who := range slices.Sorted(maps.Keys(a.Away.Degraded)) {
		price := ""
		if v, ok := a.Away.Cost[who]; ok {
			price = fmt.Sprintf("; on rows set apart in training the loss rose by %.3g without it", v)
		}
		io.note("degraded: %s gives no value for %d of %d entities: its mean stands for it there%s", who, a.Away.Degraded[who], len(a.Predictions), price)
	}
	return o.print(io, name, a.Predictions, a.Regression, &a.Away)
}

// print prints predictions; away is what organisations were missed for.
func (o *predictCommand) print(io streams, name string, predictions []recipe.Prediction, regression bool, away *recipe.Away) error {
	switch {
	case o.json:
		return io.json(struct {
			Schema      int                 `json:"schema"`
			Model       string              `json:"model"`
			Predictions []recipe.Prediction `json:"predictions"`
			*recipe.Away
		}{schema, name, predictions, away})
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
