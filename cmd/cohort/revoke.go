package main

import (
	"errors"

	"github.com/cohort-learning/cohort/node"
	"github.com/spf13/cobra"
)

func newRevoke(io streams, _ <-chan struct{}) *cobra.Command {
	var o serverDir
	var reason string
	c := &cobra.Command{
		Use:   "revoke NAME",
		Short: "Take a member out of a federation",
		Long: `Take a member out of the federation: its connections end at once, its results that have not been folded do not count, and its
key is not admitted again. The name cannot be used by another.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			err := node.NewAdmin(o.path()).Revoke(cmd.Context(), args[0], reason)
			if errors.Is(err, node.ErrNotServing) {
				var b *node.Book
				if b, err = node.OpenBook(o.path()); err != nil {
					return noFederation(err)
				}
				err = errors.Join(b.Roster.Revoke(args[0], reason), b.Close())
			}
			if err != nil {
				return err
			}
			io.note("%s is not a member any more", args[0])
			return nil
		},
	}
	o.flags(c)
	c.Flags().StringVar(&reason, "reason", "", "why, for the record")
	return c
}
