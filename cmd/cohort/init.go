package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"

	"github.com/cohort-learning/cohort/methods"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/spf13/cobra"
)

func newInit(io streams, _ <-chan struct{}) *cobra.Command {
	c := &cobra.Command{
		Use:   "init METHOD [FILE]",
		Short: "Write a commented recipe to start from",
		Long: `Write a recipe of a method with every field at its default and its meaning beside it, to FILE or to standard output.
"cohort methods" lists the methods. A file that exists is left alone.`,
		Example: `  cohort init heterofl my.yaml
  cohort init fedavg`,
		Args:              cobra.RangeArgs(1, 2),
		ValidArgsFunction: completeMethods,
		RunE: func(_ *cobra.Command, args []string) error {
			r, err := recipe.Default(args[0])
			if err != nil {
				return unknownMethod(args[0])
			}
			text := r.Commented()
			if len(args) == 1 {
				_, err := io.out.Write(text)
				return err
			}
			f, err := os.OpenFile(args[1], os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
			if errors.Is(err, fs.ErrExist) {
				return usagef("%s exists already; choose another name", args[1])
			}
			if err != nil {
				return err
			}
			_, err = f.Write(text)
			if err = errors.Join(err, f.Close()); err != nil {
				return err
			}
			io.say("%s: change it, then \"cohort run %s\"", args[1], quote(args[1]))
			return nil
		},
	}
	return c
}

func unknownMethod(name string) error {
	hint := "the methods are " + strings.Join(methods.Names(), ", ")
	if near := recipe.Nearest(name, methods.Names()); near != "" {
		hint = fmt.Sprintf("did you mean %s? %s", near, hint)
	}
	return usagef("there is no method %q; %s", name, hint)
}
