package main

import (
	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/methods"
	"github.com/spf13/cobra"
)

func newMethods(io streams, _ <-chan struct{}) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "methods",
		Short: "List the ways of learning together",
		RunE: func(*cobra.Command, []string) error {
			type entry struct {
				Name    string `json:"name"`
				Title   string `json:"title"`
				Summary string `json:"summary"`
				Paper   string `json:"paper,omitempty"`
			}
			var list []entry
			for _, m := range methods.All() {
				list = append(list, entry{m.Name, m.Title, m.Summary, m.Paper})
			}
			if asJSON {
				return io.json(struct {
					Schema  int     `json:"schema"`
					Methods []entry `json:"methods"`
				}{schema, list})
			}
			for _, m := range list {
				io.say("%-12s%s", m.Name, m.Summary)
				if m.Paper != "" {
					io.say("%-12s%s", "", m.Paper)
				}
			}
			io.say("\n\"cohort init METHOD\" writes a recipe with every option explained.")
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return c
}

func newDatasets(io streams, _ <-chan struct{}) *cobra.Command {
	var asJSON bool
	c := &cobra.Command{
		Use:   "datasets",
		Short: "List data sets, formats of your own files, and partitions",
		RunE: func(*cobra.Command, []string) error {
			type data struct {
				Name    string `json:"name"`
				Summary string `json:"summary"`
				Example string `json:"example"`
				Classes string `json:"classes"`
				Files   string `json:"files"`
				Source  string `json:"source,omitempty"`
			}
			type scheme struct {
				Name    string   `json:"name"`
				Summary string   `json:"summary"`
				Fields  []string `json:"fields,omitempty"`
				Source  string   `json:"source,omitempty"`
			}
			var sets []data
			for _, d := range dataset.Catalogue() {
				sets = append(sets, data{d.Name, d.Summary, d.Shape, d.Classes, d.Files, d.Source})
			}
			var schemes []scheme
			for _, s := range dataset.Schemes() {
				schemes = append(schemes, scheme{s.Name, s.Summary, s.Fields, s.Source})
			}
			if asJSON {
				return io.json(struct {
					Schema     int      `json:"schema"`
					Datasets   []data   `json:"datasets"`
					Partitions []scheme `json:"partitions"`
				}{schema, sets, schemes})
			}
			io.say("Data sets and formats (data.name in a recipe)\n")
			for _, d := range sets {
				io.say("  %-18s%s", d.Name, d.Summary)
				io.say("  %-18s%s", "", wrapFiles(d.Files))
			}
			io.say("\nPartitions among the clients (partition.name in a recipe)\n")
			for _, s := range schemes {
				io.say("  %-18s%s", s.Name, s.Summary)
			}
			io.say("\nReal data sets lie in the folder that $COHORT_DATA or --data names, each in a folder of its name;\n\"cohort doctor\" says which are there. Nothing is downloaded.")
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return c
}

// wrapFiles says what files a data set wants.
func wrapFiles(files string) string {
	if files == "none" {
		return "needs no files"
	}
	return "files: " + files
}
