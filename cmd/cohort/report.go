package main

import (
	"github.com/cohort-learning/cohort/recipe"
	"github.com/spf13/cobra"
)

func newReport(io streams, _ <-chan struct{}) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "report RUN",
		Short: "Write the report of a run: HTML, pictures, tables",
		Long: `Write report.html into the folder of a run: curves, partition map, levels, bytes and operations, in one file that needs
no other; and beside it, in report/, every chart as PNG and CSV and every table as CSV. A run writes it by itself when it
ends; this makes it again, also while the run is at work.`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeRuns,
		RunE: func(_ *cobra.Command, args []string) error {
			dir, err := findRun(args[0])
			if err != nil {
				return err
			}
			res, err := summarise(dir)
			if err != nil {
				return err
			}
			if res.Report, err = recipe.WriteReport(dir); err != nil {
				return err
			}
			if asJSON {
				return io.json(res)
			}
			res.print(io)
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return c
}
