package main

import (
	"cmp"
	"context"
	"fmt"
	"os"

	"github.com/cohort-learning/cohort/node/member"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/spf13/cobra"
)

type recommendCommand struct {
	data   string
	member string
	user   string
	top    int
	json   bool
}

func newRecommend(io streams, _ <-chan struct{}) *cobra.Command {
	var o recommendCommand
	c := &cobra.Command{
		Use:   "recommend RUN | --member DIR [RUN] --user NAME",
		Short: "What a user would like, by the model of the user's own client",
		Long: `Ask a run whose method learns from ratings what to show a user: the items with the best scores by the model of the client that
the user belongs to, which only that client has. Items that the user has rated, also those held out for testing, are left out.
A score is the rating that is predicted, or, where the run learned from implicit feedback, a number that grows with the
probability that the user likes the item.

With --member it is a member of a run over a network that asks, in the folder that "cohort join" made: the final model of the run
and what the member kept of it lie there, and its users are those of its own data.`,
		Example: `  cohort recommend films --user 196
  cohort recommend films --user 196 --top 20 --json
  cohort recommend --member shop-3 --user ann`,
		Args:              runOrMember(&o.member),
		ValidArgsFunction: completeRuns,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case o.user == "":
				return usagef("--user is missing: the name of a user as the data have it")
			case o.top < 1:
				return usagef("--top %d: expected at least 1", o.top)
			}
			return o.run(cmd.Context(), io, optional(args))
		},
	}
	f := c.Flags()
	f.StringVar(&o.data, "data", "", "folder of real data sets (default $COHORT_DATA)")
	f.StringVar(&o.member, "member", "", "folder of a member of a run over a network, which asks for itself")
	f.StringVarP(&o.user, "user", "u", "", "whom to recommend to, as the data name users")
	f.IntVarP(&o.top, "top", "n", 10, "how many items")
	f.BoolVar(&o.json, "json", false, "print the result as JSON")
	return c
}

func (o *recommendCommand) run(ctx context.Context, io streams, name string) error {
	r, name, err := o.ask(ctx, name)
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

// ask asks the model of a run, or that of a member of one, and returns the name of the run.
func (o *recommendCommand) ask(ctx context.Context, name string) (*recipe.Recommendations, string, error) {
	if o.member != "" {
		j, err := member.ReadJoined(ctx, o.member, name)
		if err != nil {
			return nil, name, err
		}
		r, err := j.Recommend(ctx, o.user, o.top)
		return r, j.Run, err
	}
	dir, err := findRun(name)
	if err != nil {
		return nil, name, err
	}
	r, err := recipe.Recommend(ctx, dir, cmp.Or(o.data, os.Getenv("COHORT_DATA")), o.user, o.top)
	return r, name, err
}

// runOrMember wants the name of a run, which may be left out where a member's folder is named.
func runOrMember(folder *string) cobra.PositionalArgs {
	return func(c *cobra.Command, args []string) error {
		if *folder != "" {
			return cobra.MaximumNArgs(1)(c, args)
		}
		return cobra.ExactArgs(1)(c, args)
	}
}

// optional is the first argument, or nothing.
func optional(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
