package main

import (
	"fmt"
	"strings"

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
			var among []entry // organisations with different columns
			for _, m := range methods.AllAssisted() {
				among = append(among, entry{m.Name, m.Title, m.Summary, m.Paper})
			}
			if asJSON {
				return io.json(struct {
					Schema   int     `json:"schema"`
					Methods  []entry `json:"methods"`
					Assisted []entry `json:"assisted"`
				}{schema, list, among})
			}
			show := func(list []entry) {
				for _, m := range list {
					text := m.Summary
					if m.Paper != "" {
						text += " (" + m.Paper + ")"
					}
					io.entry(m.Name, text)
				}
			}
			show(list)
			io.say("\n\"cohort init METHOD\" writes a recipe with every option explained.\n")
			io.say("Among organisations with different columns of the same entities (\"cohort assist\")\n")
			show(among)
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
				io.entry(d.Name, d.Summary+"; "+wanted(d.Files))
			}
			io.say("\nPartitions among the clients (partition.name in a recipe)\n")
			for _, s := range schemes {
				io.entry(s.Name, s.Summary)
			}
			io.say("")
			io.tell(`Real data sets lie in the folder that $COHORT_DATA or --data names, each in a folder of its name; "cohort doctor"
says which are there. Nothing is downloaded.`)
			return nil
		},
	}
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return c
}

// wanted says what files a data set wants.
func wanted(files string) string {
	if files == "none" {
		return "no files"
	}
	return "files: " + files
}

// entry writes a name and what it means.
func (s streams) entry(name, text string) { s.say("%s", beside(2, 18, name, text)) }

// beside returns a name, indented, and a text that is folded to its right, the name taking up width columns.
func beside(indent, width int, name, text string) string {
	var out []string
	for line := range strings.SplitSeq(fold(text, columns-indent-width), "\n") {
		out = append(out, fmt.Sprintf("%*s%-*s%s", indent, "", width, name, line))
		name = ""
	}
	return strings.Join(out, "\n")
}
