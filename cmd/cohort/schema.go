package main

import (
	"context"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/spf13/cobra"
)

func newSchema(io streams, _ <-chan struct{}) *cobra.Command {
	var o engineOptions
	var path string
	var words bool
	c := &cobra.Command{
		Use:   "schema RECIPE",
		Short: "Describe data without showing any, for parties to agree on",
		Long: `Describe data without showing any of it: shape, classes, features and their encoding, means and deviations. That is what a
coordinator that has no data of its own needs ("cohort serve --schema FILE --no-data"), and what members' data are
compared with before the first round. With --of, the data are a member's own file or folder, read with the recipe's
options; else they are the recipe's.

A schema tells the names of classes and columns, the categories of columns, and the mean and deviation of numbers: look at
it before you send it to others.`,
		Example: `  cohort schema table.yaml --of patients.csv > schema.json
  cohort serve table.yaml --schema schema.json --no-data`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeRecipes,
		RunE: func(cmd *cobra.Command, args []string) error {
			e, err := described(cmd.Context(), &o, args[0], path)
			if err != nil {
				return err
			}
			s := dataset.SchemaOf(e)
			if words {
				s = s.WithWords(e)
			}
			return io.json(s)
		},
	}
	c.Flags().StringVar(&o.data, "data", "", "folder of real data sets (default $COHORT_DATA)")
	c.Flags().StringVar(&path, "of", "", "file or folder with a member's own data")
	c.Flags().BoolVar(&words, "words", false, "of a text: with the whole vocabulary, so that members can encode texts of their own")
	return c
}

// described loads the training data that are to be described.
func described(ctx context.Context, o *engineOptions, file, path string) (*dataset.Examples, error) {
	r, err := loadRecipe(file, nil)
	if err != nil {
		return nil, err
	}
	if path == "" {
		split, _, err := r.Deal(ctx, o.dataDir())
		if err != nil {
			return nil, err
		}
		return split.Train, nil
	}
	split, err := dataset.LoadMember(ctx, path, r.Data, nil)
	if err != nil {
		return nil, err
	}
	return split.Train, nil
}
