package main

import (
	"cmp"
	"context"
	"fmt"
	"os"

	"github.com/cohort-learning/cohort/recipe"
	"github.com/spf13/cobra"
)

type recommendCommand struct {
	data string
	user string
	top  int
	json bool
}

func newRecommend(io streams, _ <-chan struct{}) *cobra.Command {
	var o recommendCommand
	c := &cobra.Command{
		Use:   "recommend RUN --user NAME",
		Short: "What a user would like, by the model of the user's own client",
		Long: `Ask a run whose method learns from ratings what to show a user: the items with the best scores by the model of the client that
the user belongs to, which only that client has. Items that the user has rated, also those held out for testing, are left out.
A score is the rating that is predicted, or, where the run learned from implicit feedback, a number that grows with the
probability that the user likes the item.`,
		Example: `  cohort recommend films --user 196
  cohort recommend films --user 196 --top 20 --json`,
		Args:              cobra.ExactArgs(1),
		ValidArgsFunction: completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case o.user == "":
				return usagef("--user is missing: the name of a user as the data have it")
			case o.top < 1:
				return usagef("--top %d: expected at least 1", o.top)
			}
			return o.run(cmd.Context(), io, args[0])
		},
	}
	f := c.Flags()
	f.StringVar(&o.data, "data", "", "folder of real data sets (default $COHORT_DATA)")
	f.StringVarP(&o.user, "user", "u", "", "whom to recommend to, as the data name users")
	f.IntVarP(&o.top, "top", "n", 10, "how many items")
	f.BoolVar(&o.json, "json", false, "print the result as JSON")
	return c
}

func (o *recommendCommand) run(ctx context.Context, io streams, name string) error {
	dir, err := findRun(name)
	if err != nil {
		return err
	}
	r, err := recipe.Recommend(ctx, dir, cmp.Or(o.data, os.Getenv("COHORT_DATA")), o.user, o.top)
	if err != nil {
		return err
	}
	if o.json {
		return io.json(struct {
			Schema int    `json:"schema"`
			Run    string `json:"run"`
			*recipe.Recommendations
		}{schema, name, r})
	}
	who := "user " + r.User
	if r.Profile != "" {
		who += " (" + r.Profile + ")"
	}
	io.say("%s, %d rated, by the model of %s", who, r.Rated, r.Client)
	if !r.Trained {
		io.say("that client has not trained yet: its encoder is as all began")
	}
	t := newTable("item", "title", ">score", "tags")
	for _, x := range r.Items {
		t.add(x.Item, x.Title, fmt.Sprintf("%.2f", x.Score), x.Tags)
	}
	t.write(io.out)
	return nil
}
