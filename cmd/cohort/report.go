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
			path, err := recipe.WriteReport(dir)
			if err != nil {
				return err
			}
			return tell(io, dir, path, asJSON)
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return c
}

// tell tells what the run in dir has come to, of which a report lies at a path.
func tell(io streams, dir, path string, asJSON bool) error {
	if recipe.AmongOrganisations(dir) {
		r, err := recipe.AssistOfRun(dir)
		if err != nil {
			return err
		}
		a, err := cameTo(dir)
		if err != nil {
			return err
		}
		if a.Report = path; asJSON {
			return io.json(a)
		}
		a.print(io, r)
		return nil
	}
	res, err := summarise(dir)
	if err != nil {
		return err
	}
	if res.Report = path; asJSON {
		return io.json(res)
	}
	res.print(io)
	return nil
}
