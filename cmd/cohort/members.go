package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cohort-learning/cohort/node"
	"github.com/spf13/cobra"
)

func newMembers(io streams, _ <-chan struct{}) *cobra.Command {
	var o serverDir
	var asJSON bool
	c := &cobra.Command{
		Use:   "members",
		Short: "List the members of a federation",
		Long:  "List the members of this coordinator's federation in the order in which they were invited, and who is here.",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			list, err := members(cmd.Context(), o.path())
			if err != nil {
				return err
			}
			if asJSON {
				return io.json(struct {
					Schema  int                 `json:"schema"`
					Members []node.MemberStatus `json:"members"`
				}{schema, list})
			}
			printMembers(io, list)
			return nil
		},
	}
	o.flags(c)
	c.Flags().BoolVar(&asJSON, "json", false, "print the result as JSON")
	return c
}

func members(ctx context.Context, dir string) ([]node.MemberStatus, error) {
	s, err := node.NewAdmin(dir).Status(ctx)
	if !errors.Is(err, node.ErrNotServing) {
		return s.Members, err
	}
	b, err := node.OpenBook(dir)
	if err != nil {
		return nil, noFederation(err)
	}
	defer b.Close()
	return b.Members(nil), nil
}

func printMembers(io streams, list []node.MemberStatus) {
	if len(list) == 0 {
		io.say("nobody has been invited yet; \"cohort invite NAME\" does")
		return
	}
	t := newTable("member", "state", "here", "kernels", "")
	for _, m := range list {
		here, remark := "", m.Why
		switch {
		case m.Here:
			here = "since " + m.Since.Local().Format(time.TimeOnly)
		case m.State == "admitted" && !m.Since.IsZero():
			here = "no, since " + m.Since.Local().Format(time.TimeOnly)
		case m.State == "admitted":
			here = "no"
		case m.State == "invited" && time.Now().After(m.Until):
			remark = "the token has expired"
		}
		if remark == "" && m.Behind != "" {
			remark = "behind " + m.Behind
		}
		if remark == "" && m.Leaves > 0 {
			remark = fmt.Sprintf("relay of %d", m.Leaves)
		}
		t.add(m.Name, m.State, here, m.Kernels, remark)
	}
	t.write(io.out)
}
