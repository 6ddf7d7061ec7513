package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/spf13/cobra"
)

// runOptions are the flags of commands that run a recipe.
type runOptions struct {
	data    string
	backend string
	threads int
	seed    int64
	rounds  int
	json    bool
	quiet   bool
}

func (o *runOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.data, "data", os.Getenv("COHORT_DATA"), "folder of real data sets (default $COHORT_DATA)")
	f.StringVar(&o.backend, "backend", "", "engine, see \"cohort doctor\" (default the best of this binary)")
	f.IntVar(&o.threads, "threads", 0, "threads to compute on (default all)")
	f.Int64Var(&o.seed, "seed", -1, "seed, instead of the recipe's")
	f.IntVar(&o.rounds, "rounds", 0, "rounds, instead of the recipe's")
	f.BoolVar(&o.json, "json", false, "print the result as JSON")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "show no progress")
}

func (o *runOptions) apply(r *recipe.Recipe) {
	if o.backend != "" {
		r.Run.Engine = o.backend
	}
	if o.threads > 0 {
		r.Run.Threads = o.threads
	}
	if o.seed >= 0 {
		r.Seed = uint64(o.seed)
	}
	if o.rounds > 0 {
		r.Rounds = o.rounds
	}
}

func newRun(io streams, stop <-chan struct{}) *cobra.Command {
	var o runOptions
	c := &cobra.Command{
		Use:   "run RECIPE",
		Short: "Run a recipe on this machine",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			r, err := recipe.Load(args[0])
			if err != nil {
				return err
			}
			return o.run(cmd.Context(), io, stop, r, r.Method)
		},
	}
	o.flags(c)
	return c
}

// run runs a recipe and prints what came out.
func (o *runOptions) run(ctx context.Context, io streams, stop <-chan struct{}, r *recipe.Recipe, _ string) error {
	o.apply(r)
	plan, err := r.Plan(ctx, o.data)
	if err != nil {
		return err
	}
	engine, info, err := r.Engine()
	if err != nil {
		return err
	}
	defer engine.Close()
	job, err := plan.Job(engine)
	if err != nil {
		return err
	}
	for _, line := range plan.Describe() {
		fmt.Fprintln(io.err, line)
	}
	fmt.Fprintln(io.err, "engine:", info)
	p := newProgress(io, r.Rounds, o.quiet)
	job.Observer = p
	job.Config.Stop = stop
	began := time.Now()
	_, err = job.Run(ctx)
	if err != nil && !errors.Is(err, federated.ErrStopped) {
		return err
	}
	fmt.Fprintln(io.err, "took", time.Since(began).Round(time.Millisecond))
	return err
}
