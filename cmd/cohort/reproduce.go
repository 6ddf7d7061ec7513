package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/reproduce"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/train"
	"github.com/spf13/cobra"
)

func newReproduce(io streams, stop <-chan struct{}) *cobra.Command {
	var o struct {
		engineOptions
		seed        uint64
		json, quiet bool
	}
	var scale, dir, only string
	c := &cobra.Command{
		Annotations: map[string]string{finishesRounds: roundUnderWay},
		Use:         "reproduce NAME",
		Short:       "Run published experiments again and compare, claim by claim",
		Long:        reproduceHelp(),
		Args:        cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			e, err := reproduce.Find(args[0])
			if err != nil {
				return usageError{err}
			}
			s := reproduce.Scale(scale)
			if !slices.Contains(reproduce.Scales(), s) {
				return usagef("--scale %s: expected small, medium or paper", scale)
			}
			if dir == "" && s != reproduce.Small {
				dir = fmt.Sprintf("%s/reproduce-%s-%s-seed%d", runsRoot(), e.Name, s, o.seed)
			}
			if only != "" && dir == "" && !e.Parts {
				return usagef("--only computes one run of an experiment; name the folder of its runs with --dir")
			}
			if o.dataDir() == "" && !e.Synthetic {
				return &recipe.MissingDataError{Err: errors.New("experiments need real data; name its folder with --data or $COHORT_DATA")}
			}
			b, err := backend.New(o.backend, backend.Options{Threads: o.threads})
			if err != nil {
				return usageError{err}
			}
			engine := train.NewEngine(b)
			defer engine.Close()
			info := backend.Describe(b)
			lab := &reproduce.Lab{Engine: engine, Data: o.dataDir(), Dir: dir, Only: only, Seed: uint64(o.seed), Stop: stop,
				Meta: record.Meta{Engine: info.Engine, Kernels: info.Path, Threads: info.Threads, Cohort: version(), Command: commandLine()}}
			if !o.quiet {
				fmt.Fprintf(io.err, "%s, scale %s (%s); %s\n", e.Name, s, e.Scales[s].Summary, info)
				p := newProgress(io, 0, !io.tty)
				defer p.wipe()
				lab.Say = func(name string) { p.wipe(); io.note("running %s", name) }
				lab.Watch = func(string) simulation.Observer { return quietProgress{p} }
			}
			result, err := e.Run(cmd.Context(), s, lab)
			if err != nil {
				return err
			}
			switch {
			case only != "" && !e.Parts:
				io.note("%s is computed; with all runs of the experiment in %s, leave out --only to compare", only, dir)
			case o.json:
				err = io.json(result)
			default:
				err = printRows(io, result)
			}
			if err == nil && !result.Passed() {
				return errGate
			}
			return err
		},
	}
	o.flags(c)
	c.Flags().StringVar(&only, "only", "", "compute this one run, by the name that is shown when it runs, to share out an experiment among machines")
	c.Flags().Uint64Var(&o.seed, "seed", 0, "seed of the experiment")
	c.Flags().BoolVar(&o.json, "json", false, "print the rows as JSON")
	c.Flags().BoolVarP(&o.quiet, "quiet", "q", false, "show no progress")
	c.Flags().StringVar(&scale, "scale", "small", "small, medium or paper")
	c.Flags().StringVar(&dir, "dir", "", "folder for the runs; an interrupted experiment goes on there (default under the runs, none for small)")
	return c
}

// errGate says that a result that had to be reached was not; the rows have said which.
var errGate = fmt.Errorf("a required result was not reached")

// quietProgress shows where a run is but no line a round.
type quietProgress struct{ *progress }

// Round implements [simulation.Observer].
func (quietProgress) Round(simulation.Round) {}

func reproduceHelp() string {
	var b strings.Builder
	b.WriteString("Run published experiments again and compare, claim by claim. Experiments:\n")
	for _, e := range reproduce.All() {
		b.WriteString("\n" + beside(2, 12, e.Name, e.Summary) + "\n")
		for _, s := range reproduce.Scales() {
			if study, ok := e.Scales[s]; ok {
				b.WriteString(beside(4, 10, string(s), fmt.Sprintf("%s (%s)", study.Summary, study.Minutes)) + "\n")
			}
		}
	}
	return b.String()
}

func printRows(io streams, r reproduce.Result) error {
	w := tabwriter.NewWriter(io.out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "claim\treference\tmeasured\trequired\t")
	for _, row := range r.Rows {
		verdict := ""
		if row.Pass != nil {
			verdict = "pass"
			if !*row.Pass {
				verdict = "FAIL"
			}
		}
		required := ""
		if row.Required != nil {
			required = *row.Required
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", row.Claim, cell(row.Reference, row.ReferenceDeviation), cell(row.Measured, row.Deviation), required, verdict)
	}
	return w.Flush()
}

// cell is a figure, with its standard deviation in brackets where that is known.
func cell(v, deviation *float64) string {
	if v == nil {
		return "–"
	}
	text := strings.TrimSuffix(strings.TrimRight(fmt.Sprintf("%.2f", *v), "0"), ".")
	if deviation != nil {
		text += fmt.Sprintf(" (%.1f)", *deviation)
	}
	return text
}
