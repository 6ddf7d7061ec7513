package main

import (
	"errors"
	"time"

	"github.com/cohort-learning/cohort/node"
	"github.com/spf13/cobra"
)

func newRotate(io streams, _ <-chan struct{}) *cobra.Command {
	var o serverDir
	var overlap time.Duration
	c := &cobra.Command{
		Use:   "rotate",
		Short: "Replace the authority of a coordinator's certificate",
		Long: `Replace the authority that signs the coordinator's certificate. The coordinator must not be serving meanwhile; members find
it again by themselves: for the time of --overlap they recognise it by the old authority, too, and learn the new one from a
list that the federation's key signs. Tokens that have not been used stay valid as long. If the authority's key has
leaked, --overlap 0 makes it worthless at once. Members replace their own keys with "cohort join --rotate-key".`,
		Args: cobra.NoArgs,
		RunE: func(*cobra.Command, []string) (err error) {
			if overlap < 0 {
				return usagef("--overlap %v: expected 0 or more", overlap)
			}
			b, err := node.OpenBook(o.path())
			if err != nil {
				return noFederation(err)
			}
			defer func() { err = errors.Join(err, b.Close()) }()
			if err := b.RotateCA(overlap); err != nil {
				return err
			}
			io.note("the new authority is %s; \"cohort serve\" goes on with it", b.CA.Fingerprint())
			return nil
		},
	}
	o.flags(c)
	c.Flags().DurationVar(&overlap, "overlap", 30*24*time.Hour, "how long the old authority is recognised, too")
	return c
}
