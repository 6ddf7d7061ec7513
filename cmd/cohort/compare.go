package main

import (
	"slices"
	"time"

	"github.com/cohort-learning/cohort/recipe"
	"github.com/spf13/cobra"
)

func newCompare(io streams, _ <-chan struct{}) *cobra.Command {
	var to string
	var asJSON bool
	c := &cobra.Command{
		Use:   "compare RUN RUN...",
		Short: "Compare runs: mean and standard deviation over seeds",
		Long: `Lay runs side by side. Runs whose recipes differ in nothing but the seed are one setting, of which mean and standard
deviation are told. Leaves a report with the curves of all settings.`,
		Example: `  cohort compare demo-20260131-120000 demo-20260131-120000-weakest
  cohort compare runs/mnist-*`,
		Args:              cobra.MinimumNArgs(1),
		ValidArgsFunction: completeRuns,
		RunE: func(_ *cobra.Command, args []string) error {
			var dirs []string
			for _, name := range args {
				dir, err := findRun(name)
				if err != nil {
					return err
				}
				dirs = append(dirs, dir)
			}
			if to == "" {
				to = newFolder("compare", time.Now())
			}
			return compare(io, dirs, to, asJSON)
		},
	}
	c.Flags().StringVar(&to, "to", "", "folder for the report (default a new one in the folder of runs)")
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return c
}

// compare prints the comparison of runs and writes its report.
func compare(io streams, dirs []string, to string, asJSON bool) error {
	c, err := recipe.Compare(dirs)
	if err != nil {
		return err
	}
	path, err := c.WriteReport(to)
	if err != nil {
		return err
	}
	if asJSON {
		return io.json(struct {
			Schema int `json:"schema"`
			*recipe.Comparison
			Report string `json:"report"`
		}{schema, c, path})
	}
	printComparison(io, c)
	io.say("\nreport  %s", path)
	return nil
}

// printComparison prints a row a setting with the metrics that any of them has.
func printComparison(io streams, c *recipe.Comparison) {
	head := []string{"setting", ">runs", ">rounds"}
	columns := []struct {
		name, words string
		format      func(float64) string
	}{
		{"accuracy", "accuracy", inPercent}, {"accuracy.local", "at clients", inPercent},
		{"accuracy.personal", "own models", inPercent}, {"perplexity", "perplexity", nats},
		{"mse", "mse", nats}, {"loss", "loss", nats}, {"epsilon", "spent", spent}, {"clip", "clip", digits}, {"secure.members", "in a sum", digits},
		{"bytes.up", "sent up", inBytes}, {"bytes.protocol", "for keys and shares", inBytes},
	}
	columns = slices.DeleteFunc(columns, func(col struct {
		name, words string
		format      func(float64) string
	}) bool {
		return !slices.ContainsFunc(c.Settings, func(s recipe.Compared) bool { return s.Metrics[col.name].N > 0 })
	})
	for _, col := range columns {
		head = append(head, ">"+col.words)
	}
	t := newTable(head...)
	for _, s := range c.Settings {
		row := []string{s.Name, count(len(s.Runs)), count(s.Rounds)}
		for _, col := range columns {
			row = append(row, meanCell(s.Metrics[col.name], col.format))
		}
		t.add(row...)
	}
	t.write(io.out)
}

// meanCell writes mean ± standard deviation.
func meanCell(m recipe.Mean, format func(float64) string) string {
	switch m.N {
	case 0:
		return "–"
	case 1:
		return format(m.Mean)
	}
	return format(m.Mean) + " ± " + format(m.SD)
}
