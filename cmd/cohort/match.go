package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"strings"

	"github.com/cohort-learning/cohort/assisted/mismatch"
	"github.com/cohort-learning/cohort/assisted/mismatch/linkage"
	"github.com/cohort-learning/cohort/assisted/mismatch/pairing"
	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/train"
	"github.com/spf13/cobra"
)

type matchCommand struct {
	engineOptions
	pairing.Spec
	alpha float64
	out   string
	force bool
	json  bool
}

func newMatch(io streams, _ <-chan struct{}) *cobra.Command {
	var o matchCommand
	c := &cobra.Command{
		Use:   "match FEATURES [LABELS] --target COLUMN",
		Short: "Find out which label belongs to which row when the key is unreliable",
		Long: `Find out which label belongs to which row when the key is unreliable, or only a block (a postcode, a day) is known.

FEATURES and LABELS are tables (CSV, TSV, gzipped or Parquet). Rows of the two that share a key are linked, but the link may be wrong;
a row and its label agree in their blocks. With one file its rows are the links in doubt. A model of the target on the features and a
plan between rows and labels are fitted together, so that what the features say about the target decides. Columns that both files have,
such as names and dates of birth, help where they agree more or less (--compare): how much each level of agreement is worth is estimated
(Fellegi and Sunter 1969).

Written is, by row of FEATURES, the probability that its link is right, the label that it has in expectation, and a hard pairing. Hard
pairings overstate what is known: keep the probabilities. Where one side of a block has more rows than the other, the rest stays
unmatched. After Xian, Hong, Ding (2022); formulation reconstructed.`,
		Example: `  cohort match visits.csv --target cost --block postcode
  cohort match people.csv incomes.csv --target income --key name --out matched.csv
  cohort match people.csv incomes.csv --target income --key id --compare name,birth --block town
  cohort match sensors.csv yields.parquet --target yield --block day --block plant --model boosted --json`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			o.Features = args[0]
			if len(args) > 1 {
				o.Labels = args[1]
			}
			if cmd.Flags().Changed("alpha") {
				o.Alpha = &o.alpha
			}
			if err := o.check(); err != nil {
				return err
			}
			return o.run(cmd.Context(), io)
		},
	}
	f := c.Flags()
	f.StringVar(&o.Target, "target", "", "column to match: numbers or classes")
	f.StringVar(&o.Key, "key", "", "column of both files that links their rows, even if it is wrong for some")
	f.StringArrayVar(&o.Blocks, "block", nil, "column of both files in which a row and its label agree; may be given again")
	f.StringSliceVar(&o.Compare, "compare", nil, "columns of both files that agree more or less where rows belong together, such as names and dates of birth")
	f.StringVar(&o.Certain, "certain", "", "column of the features that says which links are surely right")
	f.StringArrayVar(&o.Drop, "drop", nil, "column of the features to leave out; may be given again")
	f.StringVar(&o.Task, "task", "", "regression or classification; found out from the target if left out")
	f.StringVar(&o.Model, "model", "linear", "what explains the target: "+strings.Join(pairing.Models(), ", "))
	f.IntVar(&o.Folds, "folds", 5, "folds of cross-fitting, for models other than linear")
	f.Float64Var(&o.alpha, "alpha", 0, "share of wrong links, if it is known (default: estimated)")
	f.Float64Var(&o.Bound, "at-most", 0.95, "bound of the share of wrong links")
	f.Float64Var(&o.Unmatched, "unmatched", 0, "share of the rows of every block that may have no label, beside its surplus")
	f.Uint64Var(&o.Seed, "seed", 0, "seed of what is random in models")
	f.StringVar(&o.backend, "backend", "", "engine of networks, see \"cohort doctor\" (default the best of this binary)")
	f.IntVar(&o.threads, "threads", 0, "threads that networks compute on (default all)")
	f.StringVarP(&o.out, "out", "o", "", "file for the rows (CSV)")
	f.BoolVar(&o.force, "force", false, "write over an existing file")
	f.BoolVar(&o.json, "json", false, "print the result as JSON")
	f.Lookup("alpha").DefValue = "0" // the text says what it is
	return c
}

// matchResult is what match prints with --json.
type matchResult struct {
	Schema    int        `json:"schema"`
	Features  string     `json:"features"`
	Labels    string     `json:"labels"`
	Task      string     `json:"task"`
	Model     string     `json:"model"`
	N         int        `json:"n"`       // rows of features
	Targets   int        `json:"targets"` // labels that hold a value
	Blocks    int        `json:"blocks"`
	Refused   int        `json:"refused"` // links by key between different blocks
	Alpha     float64    `json:"alpha"`
	Noise     *float64   `json:"noise_variance"` // null for classes
	Explained *float64   `json:"explained"`
	Doubted   int        `json:"doubted"`
	Entropy   float64    `json:"entropy"`
	Margin    float64    `json:"margin_error"`
	Rounds    int        `json:"rounds"`
	Compared  []compared `json:"compared,omitempty"`
	Warnings  []string   `json:"warnings"`
	Rows      []matchRow `json:"rows,omitempty"` // unless they are in a file
	Out       string     `json:"out,omitempty"`
}

// compared is what a column that was compared is worth, by how far it agrees.
type compared struct {
	Column string         `json:"column"`
	Levels []compareLevel `json:"levels"`
}

type compareLevel struct {
	Level    string  `json:"level"`
	Together float64 `json:"m"` // its probability where rows belong together
	Other    float64 `json:"u"` // and where they do not
	Bits     float64 `json:"bits"`
}

type matchRow struct {
	Line     int     `json:"line"`
	Key      string  `json:"key"`
	Block    string  `json:"block,omitempty"`
	Given    string  `json:"given,omitempty"`
	Link     float64 `json:"link_probability"`
	Expected any     `json:"expected"` // a number, or a class
	Sure     float64 `json:"expected_probability,omitempty"`
	Pair     string  `json:"paired,omitempty"`
	From     int     `json:"paired_line,omitempty"`
	Mass     float64 `json:"matched_probability"`
	Bits     float64 `json:"given_bits,omitempty"` // what compared columns say of the given label
}

func (o *matchCommand) run(ctx context.Context, io streams) error {
	if err := o.Validate(); err != nil {
		return usageError{err}
	}
	if o.out != "" && !o.force {
		if _, err := os.Stat(o.out); err == nil {
			return usagef("%s exists; choose another file, or write over it with --force", o.out)
		}
	}
	var engine *train.Engine
	defer func() {
		if engine != nil {
			engine.Close()
		}
	}()
	found, err := pairing.Match(ctx, o.Spec, func() (*train.Engine, error) {
		b, err := backend.New(o.backend, backend.Options{Threads: o.threads})
		if err != nil {
			return nil, usageError{err}
		}
		engine = train.NewEngine(b)
		return engine, nil
	})
	var input *mismatch.InputError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return &recipe.MissingDataError{Err: err}
	case errors.As(err, &input):
		return usageError{err}
	case err != nil:
		return err
	}
	if o.out != "" {
		if err := o.write(found); err != nil {
			return err
		}
	}
	if o.json {
		return io.json(o.result(found))
	}
	for _, w := range found.Warnings {
		io.note("warning: %s", w)
	}
	o.print(io, found)
	return nil
}

func (o *matchCommand) write(found *pairing.Outcome) error {
	f, err := os.Create(o.out)
	if err != nil {
		return err
	}
	return errors.Join(found.Write(f), f.Close())
}

func (o *matchCommand) result(found *pairing.Outcome) matchResult {
	r := matchResult{Schema: schema, Features: o.Features, Labels: o.Labels, Task: found.Task, Model: o.Model, N: len(found.Rows),
		Targets: found.Labels, Blocks: found.Blocks, Refused: found.Refused, Alpha: found.Alpha, Doubted: found.Doubted,
		Entropy: found.Entropy, Margin: found.Margin, Rounds: found.Rounds, Warnings: append([]string{}, found.Warnings...), Out: o.out}
	if o.Labels == "" {
		r.Labels = o.Features
	}
	if found.Classes == nil {
		r.Noise, r.Explained = &found.Noise, &found.Explained
	}
	r.Compared = o.compared(found)
	if o.out != "" {
		return r
	}
	for _, row := range found.Rows {
		m := matchRow{Line: row.Line, Key: row.Key, Block: row.Block, Given: row.Given, Link: row.Link, Expected: row.Mean, Pair: row.Pair,
			From: row.From, Mass: row.Mass, Bits: row.Bits}
		if found.Classes != nil {
			m.Expected, m.Sure = row.Best, row.Mean
		}
		r.Rows = append(r.Rows, m)
	}
	return r
}

// compared lists what the compared columns are worth.
func (o *matchCommand) compared(found *pairing.Outcome) (all []compared) {
	if found.Linkage == nil {
		return nil
	}
	for f, name := range o.Compare {
		c := compared{Column: name}
		for _, l := range []struct {
			name  string
			level linkage.Level
		}{{"exact", linkage.Exact}, {"close", linkage.Close}, {"different", linkage.Different}} {
			m, u := found.Linkage.M[f][l.level], found.Linkage.U[f][l.level]
			c.Levels = append(c.Levels, compareLevel{l.name, m, u, math.Log2(m / u)})
		}
		all = append(all, c)
	}
	return all
}

func (o *matchCommand) print(io streams, found *pairing.Outcome) {
	t := newTable("", "")
	t.add("rows", count(len(found.Rows)))
	t.add("labels", count(found.Labels)+andMore(found.Left, "more hold no value"))
	t.add("blocks", count(found.Blocks)+andMore(found.Refused, "links lie between two blocks and do not count"))
	how := "estimated"
	if o.Alpha != nil {
		how = "as told"
	}
	t.add("wrong links", fmt.Sprintf("%.1f %% of those in doubt, %s", 100*found.Alpha, how))
	t.add("doubted", count(found.Doubted)+" links are more likely wrong than right")
	if found.Classes == nil {
		t.add("left unexplained", fmt.Sprintf("±%s (standard deviation); the model explains %.0f %% of the target", digits(math.Sqrt(found.Noise)), 100*found.Explained))
	}
	t.add("spread", fmt.Sprintf("a row's label is spread over %.1f labels in the mean", math.Exp(found.Entropy)))
	t.body(io.out)
	if all := o.compared(found); all != nil {
		io.say("")
		t = newTable("compared", "agrees", ">of right links", ">of others", ">bits")
		for _, c := range all {
			for _, l := range c.Levels {
				t.add(c.Column, l.Level, fmt.Sprintf("%.2f %%", 100*l.Together), fmt.Sprintf("%.2f %%", 100*l.Other), fmt.Sprintf("%+.1f", l.Bits))
			}
		}
		t.write(io.out)
	}
	if o.out != "" {
		io.say("\n%s has every row", o.out)
		return
	}
	io.say("")
	t = newTable("line", "key", "given", ">link", "expected", "paired")
	const most = 20
	for _, r := range found.Rows[:min(most, len(found.Rows))] {
		expected := digits(r.Mean)
		if found.Classes != nil {
			expected = fmt.Sprintf("%s (%.2f)", r.Best, r.Mean)
		}
		t.add(fmt.Sprint(r.Line), r.Key, r.Given, fmt.Sprintf("%.2f", r.Link), expected, r.Pair)
	}
	t.write(io.out)
	if len(found.Rows) > most {
		io.say("… %s more rows; --out FILE writes all", count(len(found.Rows)-most))
	}
}

// andMore returns ", n what" unless n is 0.
func andMore(n int, what string) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprintf(", %s %s", count(n), what)
}
