package main

import (
	"context"
	"errors"
	"time"

	"github.com/cohort-learning/cohort/node"
	"github.com/spf13/cobra"
)

func newInvite(io streams, _ <-chan struct{}) *cobra.Command {
	var o serverDir
	var expires time.Duration
	var relay string
	var asJSON bool
	c := &cobra.Command{
		Use:   "invite NAME…",
		Short: "Invite members and print what they join with",
		Long: `Invite members to the federation of this coordinator and print a token for each. A token lets one member join once, until it
expires; give it to the member over a channel that you trust. Inviting a name again that has not joined makes its earlier
token void. It works while the coordinator serves, and while it does not.

With --relay, members join at a relay (see "cohort relay"), which brings their messages here and adds their results. The
relay must have been started once.`,
		Example: `  cohort invite north south
  cohort invite device-{001..100} --expires 24h --json
  cohort invite --relay region-north alice bob`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, names []string) error {
			if expires < time.Minute {
				return usagef("--expires %v: expected a minute or more", expires)
			}
			list, err := invite(cmd.Context(), o.path(), relay, expires, names)
			if err != nil {
				return err
			}
			if asJSON {
				return io.json(struct {
					Schema int               `json:"schema"`
					Tokens []node.Invitation `json:"tokens"`
				}{schema, list})
			}
			for _, i := range list {
				io.say("%s joins until %s with:\n  cohort join %s --data PATH", i.Name, i.Expires.Local().Format("2 Jan 15:04"), i.Token)
			}
			return nil
		},
	}
	o.flags(c)
	c.Flags().DurationVar(&expires, "expires", 7*24*time.Hour, "how long the tokens are valid")
	c.Flags().StringVar(&relay, "relay", "", "relay that the members will be behind")
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return c
}

// invite asks the coordinator at work or, if there is none, writes the roster itself.
func invite(ctx context.Context, dir, relay string, expires time.Duration, names []string) ([]node.Invitation, error) {
	list, err := node.NewAdmin(dir).Invite(ctx, relay, expires, names...)
	if !errors.Is(err, node.ErrNotServing) {
		return list, err
	}
	b, err := node.OpenBook(dir)
	if err != nil {
		return nil, noFederation(err)
	}
	defer b.Close()
	if relay != "" {
		return node.Invitations(b.TokensBehind(relay, expires, names...))
	}
	return node.Invitations(b.Tokens(expires, names...))
}

// noFederation adds what to do where there is no coordinator.
func noFederation(err error) error {
	if errors.Is(err, node.ErrNoFederation) {
		return usageError{errors.Join(err, errors.New("\"cohort serve RECIPE\" founds one; --dir names another folder"))}
	}
	return err
}
