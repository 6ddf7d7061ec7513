package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/record"
	"github.com/spf13/cobra"
)

func newRuns(io streams, _ <-chan struct{}) *cobra.Command {
	var asJSON bool
	list := func(*cobra.Command, []string) error { return listRuns(io, asJSON) }
	c := &cobra.Command{
		Use:   "runs",
		Short: "List runs, say where they lie, remove them",
		Long: `List the runs in $COHORT_RUNS, or in "runs" here, oldest first: what they are, how far they have come, and whether a
process is at work on them.`,
		Args: cobra.NoArgs,
		RunE: list,
	}
	c.PersistentFlags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	c.AddCommand(
		&cobra.Command{Use: "list", Short: "List runs", Args: cobra.NoArgs, RunE: list},
		newRunsPath(io, &asJSON),
		newRunsRemove(io, &asJSON),
	)
	return c
}

// runEntry is one run as "runs" prints it with --json.
type runEntry struct {
	record.Entry
	Name     string   `json:"name"`
	Rounds   int      `json:"rounds"`
	Accuracy *float64 `json:"accuracy"` // last of the global model; null if it was not measured
	Problem  string   `json:"problem,omitempty"`
}

func listRuns(io streams, asJSON bool) error {
	entries, err := record.List(runsRoot())
	if err != nil {
		return err
	}
	out := []runEntry{}
	for _, e := range entries {
		r := runEntry{Entry: e, Name: filepath.Base(e.Dir)}
		if e.Err != nil {
			r.Problem = e.Err.Error()
		} else if err := r.read(); err != nil {
			r.Problem = err.Error()
		}
		out = append(out, r)
	}
	if asJSON {
		return io.json(struct {
			Schema int        `json:"schema"`
			Root   string     `json:"root"`
			Runs   []runEntry `json:"runs"`
		}{schema, runsRoot(), out})
	}
	if len(out) == 0 {
		io.say("there are no runs in %s yet; \"cohort demo\" makes some", runsRoot())
		return nil
	}
	t := newTable("run", "method", ">seed", "state", ">rounds", ">accuracy", "begun", "")
	for _, r := range out {
		accuracy := "–"
		if r.Accuracy != nil {
			accuracy = inPercent(*r.Accuracy)
		}
		remark := r.Problem
		if r.Locked {
			remark = "locked"
			if r.Holder != "" {
				remark += " by " + r.Holder
			}
		}
		t.add(r.Name, r.Meta.Method, strconv.FormatUint(r.Meta.Seed, 10), string(r.State), count(r.Rounds), accuracy,
			r.Meta.Created.Local().Format("2006-01-02 15:04"), remark)
	}
	t.write(io.out)
	return nil
}

// read fills in what the metrics of the run say.
func (r *runEntry) read() error {
	m, err := record.ReadMetrics(r.Dir)
	if errors.Is(err, journal.ErrEmpty) {
		return nil
	}
	if err != nil {
		return err
	}
	defer m.Close()
	if loss, ok, err := m.Latest("loss.train", ""); err != nil {
		return err
	} else if ok {
		r.Rounds = loss.Round + 1
	}
	acc, ok, err := m.Latest("accuracy", "")
	if ok {
		r.Accuracy = finite(acc.Value)
		r.Rounds = max(r.Rounds, acc.Round+1)
	}
	return err
}

func newRunsPath(io streams, asJSON *bool) *cobra.Command {
	return &cobra.Command{
		Use:               "path [RUN]",
		Short:             "Print the folder of a run, or of all runs",
		Args:              cobra.MaximumNArgs(1),
		ValidArgsFunction: completeRuns,
		RunE: func(_ *cobra.Command, args []string) error {
			dir := runsRoot()
			if len(args) == 1 {
				var err error
				if dir, err = findRun(args[0]); err != nil {
					return err
				}
			}
			dir, err := filepath.Abs(dir)
			if err != nil {
				return err
			}
			if *asJSON {
				return io.json(struct {
					Schema int    `json:"schema"`
					Path   string `json:"path"`
				}{schema, dir})
			}
			io.say("%s", dir)
			return nil
		},
	}
}

func newRunsRemove(io streams, asJSON *bool) *cobra.Command {
	return &cobra.Command{
		Use:               "rm RUN...",
		Short:             "Remove runs with all that is in their folders",
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeRuns,
		RunE: func(_ *cobra.Command, args []string) error {
			var dirs []string
			for _, name := range args { // all names first: nothing is removed if one is wrong
				dir, err := findRun(name)
				if err != nil {
					return err
				}
				dirs = append(dirs, dir)
			}
			for _, dir := range dirs {
				if err := removeRun(dir); err != nil {
					return err
				}
				if !*asJSON {
					io.say("removed %s", dir)
				}
			}
			if !*asJSON {
				return nil
			}
			return io.json(struct {
				Schema  int      `json:"schema"`
				Removed []string `json:"removed"`
			}{schema, dirs})
		},
	}
}

func removeRun(dir string) error {
	err := record.Remove(dir)
	var locked *journal.LockedError
	switch {
	case errors.As(err, &locked):
		return fmt.Errorf("%s stays: a process is at work on it (%w); stop that first", dir, err)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("%s stays: %w", dir, err)
	}
	return err
}
