package table

import (
	"errors"
	"fmt"
	"slices"
)

// Spec says which file, and what its columns are for.
type Spec struct {
	Path       string   `yaml:"path" json:"path" doc:"CSV, TSV (also gzipped) or Parquet file."`
	Key        string   `yaml:"key,omitempty" json:"key,omitempty" doc:"Column that names each row, the same in the tables of all parties; without one, rows are numbered."`
	Duplicates string   `yaml:"duplicates,omitempty" json:"duplicates,omitempty" doc:"What rows of one key are: error (the default), first (later ones are left out)."`
	Blocks     []string `yaml:"blocks,omitempty" json:"blocks,omitempty" doc:"Columns in which a row and what belongs to it elsewhere agree, such as a postcode or a day, where keys are in doubt or missing; they are not learned from."`
	Compare    []string `yaml:"compare,omitempty" json:"compare,omitempty" doc:"Columns, such as names and dates of birth, that agree more or less with those of what belongs to a row elsewhere, where keys are in doubt; they are not learned from."`
	Target     string   `yaml:"target,omitempty" json:"target,omitempty" doc:"Column to predict."`
	Task       string   `yaml:"task,omitempty" json:"task,omitempty" doc:"classification or regression; found out from the target if left out."`
	Test       string   `yaml:"test,omitempty" json:"test,omitempty" doc:"Column that says which rows are for testing: 1, true, yes or test."`
	Columns    []string `yaml:"columns,omitempty" json:"columns,omitempty" doc:"Columns to learn from; left out: all that are nothing else."`
	Drop       []string `yaml:"drop,omitempty" json:"drop,omitempty" doc:"Columns to leave out."`
	Header     string   `yaml:"header,omitempty" json:"header,omitempty" doc:"present or none; found out if left out."`
	// Strata is the column that strata are made of, whose values are kept beside the features ([Table.Strata]); empty: none.
	Strata string `yaml:"-" json:"-"`
}

// The tasks.
const (
	Classification = "classification"
	Regression     = "regression"
)

// Validate returns an error that says what cannot be.
func (s Spec) Validate() error {
	switch {
	case s.Path == "":
		return errors.New("path: which file?")
	case !slices.Contains([]string{"", "error", "first"}, s.Duplicates):
		return fmt.Errorf("duplicates: %q, expected error or first", s.Duplicates)
	case !slices.Contains([]string{"", Classification, Regression}, s.Task):
		return fmt.Errorf("task: %q, expected classification or regression", s.Task)
	case s.Task != "" && s.Target == "":
		return errors.New("task: there is no target that it could be about")
	case !slices.Contains([]string{"", "present", "none"}, s.Header):
		return fmt.Errorf("header: %q, expected present or none", s.Header)
	case len(s.Columns) > 0 && len(s.Drop) > 0:
		return errors.New("columns and drop exclude each other: name what to learn from, or what not")
	}
	return nil
}
