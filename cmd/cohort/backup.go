package main

import (
	"bufio"
	"errors"
	"os"

	"github.com/cohort-learning/cohort/node"
	"github.com/spf13/cobra"
)

func newBackup(io streams, _ <-chan struct{}) *cobra.Command {
	var o serverDir
	c := &cobra.Command{
		Use:   "backup FILE.tar",
		Short: "Copy a coordinator, keys and all, into one file",
		Long: `Copy everything a coordinator has into one tar archive: keys, roster, runs, results. It works while the coordinator serves.
The archive holds the federation's secret keys: keep it as safe as the coordinator itself.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			f, err := os.OpenFile(args[0], os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
			if err != nil {
				return err
			}
			w := bufio.NewWriterSize(f, 1<<20)
			err = node.NewAdmin(o.path()).Backup(cmd.Context(), w)
			if errors.Is(err, node.ErrNotServing) {
				var b *node.Book
				if b, err = node.OpenBook(o.path()); err == nil {
					err = errors.Join(b.Backup(w), b.Close())
				} else {
					err = noFederation(err)
				}
			}
			err = errors.Join(err, w.Flush(), f.Sync(), f.Close())
			if err != nil {
				return errors.Join(err, os.Remove(args[0]))
			}
			io.note("%s holds the coordinator of %s; keep it secret", args[0], o.path())
			return nil
		},
	}
	o.flags(c)
	return c
}

func newRestore(io streams, _ <-chan struct{}) *cobra.Command {
	var o serverDir
	c := &cobra.Command{
		Use:   "restore FILE.tar",
		Short: "Unpack a coordinator from a backup",
		Long: `Unpack a coordinator from what "cohort backup" wrote into a folder that is empty or does not exist. Members that have seen the
coordinator come further than the backup will not go on with it by themselves, since whoever turns back a journal could
hide what was in it: they join again with --accept-rollback.`,
		Args: cobra.ExactArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			f, err := os.Open(args[0])
			if err != nil {
				return err
			}
			defer f.Close()
			if err := node.Restore(bufio.NewReaderSize(f, 1<<20), o.path()); err != nil {
				return err
			}
			io.note("%s is a coordinator again; \"cohort serve\" goes on with it", o.path())
			return nil
		},
	}
	o.flags(c)
	return c
}
