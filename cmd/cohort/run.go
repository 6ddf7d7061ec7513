package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/train"
	"github.com/spf13/cobra"
)

// engineOptions are the flags of commands that compute.
type engineOptions struct {
	data    string
	backend string
	threads int
}

func (o *engineOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.data, "data", "", "folder of real data sets (default $COHORT_DATA)")
	f.StringVar(&o.backend, "backend", "", "engine, see \"cohort doctor\" (default the recipe's, or the best of this binary)")
	f.IntVar(&o.threads, "threads", 0, "threads to compute on (default the recipe's, or all)")
}

// dataDir is the folder of real data sets.
func (o *engineOptions) dataDir() string { return cmp.Or(o.data, os.Getenv("COHORT_DATA")) }

func (o *engineOptions) check() error {
	if o.threads < 0 {
		return usagef("--threads %d: expected 1 or more", o.threads)
	}
	if o.backend == "" {
		return nil
	}
	names := backend.Names()
	for _, n := range names {
		if n == o.backend {
			return nil
		}
	}
	_, err := backend.New(o.backend, backend.Options{})
	return usageError{fmt.Errorf("--backend: %w", err)}
}

func (o *engineOptions) apply(r *recipe.Recipe) {
	if o.backend != "" {
		r.Run.Engine = o.backend
	}
	if o.threads > 0 {
		r.Run.Threads = o.threads
	}
}

// runOptions are the flags of commands that run a recipe.
type runOptions struct {
	engineOptions
	set     []string
	seed    int64
	rounds  int
	workers int
	json    bool
	quiet   bool
}

func (o *runOptions) flags(c *cobra.Command) {
	o.engineOptions.flags(c)
	f := c.Flags()
	f.Int64Var(&o.seed, "seed", -1, "seed, instead of the recipe's")
	f.Lookup("seed").DefValue = "0" // shown as no default
	f.IntVar(&o.rounds, "rounds", 0, "rounds, instead of the recipe's")
	f.IntVar(&o.workers, "workers", 0, "clients simulated at a time (default one a thread)")
	f.StringArrayVar(&o.set, "set", nil, "change a field of the recipe, such as train.batch=20; may be repeated")
	f.BoolVar(&o.json, "json", false, "print the result as JSON")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "show no progress")
}

func (o *runOptions) check() error {
	switch {
	case o.rounds < 0:
		return usagef("--rounds %d: expected 1 or more", o.rounds)
	case o.workers < 0:
		return usagef("--workers %d: expected 1 or more", o.workers)
	}
	return o.engineOptions.check()
}

// apply lets the flags override a recipe that has been read with the changes of --set.
func (o *runOptions) apply(r *recipe.Recipe) error {
	o.engineOptions.apply(r)
	if o.workers > 0 {
		r.Run.Workers = o.workers
	}
	if o.seed >= 0 {
		r.Seed = uint64(o.seed)
	}
	if o.rounds > 0 {
		r.Rounds = o.rounds
	}
	return r.Validate()
}

type runCommand struct {
	runOptions
	lend         lendOptions
	name, dir    string
	resume       bool
	fromLastGood bool
	dryRun       bool
}

func newRun(io streams, stop <-chan struct{}) *cobra.Command {
	var o runCommand
	c := &cobra.Command{
		Annotations: map[string]string{finishesRounds: roundUnderWay},
		Use:         "run RECIPE | run --resume [RUN]",
		Short:       "Run a recipe on this machine",
		Long: `Run a recipe on this machine and keep everything about the run in one folder: the resolved recipe, a journal,
metrics, checkpoints and a report. The folder lies in $COHORT_RUNS, or in "runs" here.

An interrupt (Ctrl-C) finishes the round under way and saves; a second one aborts. Whatever stopped a run, even a power
failure, --resume goes on to the same bits. Without a name it takes up the newest run that has not finished.

With --workers-listen other machines may lend themselves to the run: it prints the command, "cohort worker URL", that they
give. The run comes out to the same bits with any workers and without.`,
		Example: `  cohort run mnist.yaml
  cohort run mnist.yaml --seed 1 --set train.batch=20 --set partition.name=iid
  cohort run mnist.yaml --dry-run
  cohort run --resume`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(args); err != nil {
				return err
			}
			if o.resume {
				return o.takeUp(cmd.Context(), io, stop, args)
			}
			return o.begin(cmd.Context(), io, stop, args[0])
		},
		ValidArgsFunction: completeRecipes,
	}
	o.flags(c)
	o.lend.flags(c)
	f := c.Flags()
	f.StringVar(&o.name, "name", "", "name of the run and of its folder (default the recipe's name or method, and the time)")
	f.StringVar(&o.dir, "dir", "", "folder of the run itself, instead of one in the folder of runs")
	f.BoolVar(&o.resume, "resume", false, "go on with a run that was stopped")
	f.BoolVar(&o.fromLastGood, "from-last-good", false, "with --resume: pass over a damaged end of the journal")
	f.BoolVar(&o.dryRun, "dry-run", false, "only say what the run would be and cost")
	return c
}

// checkPlace checks the name and the folder that a run is given.
func checkPlace(name, dir string) error {
	switch {
	case name != "" && dir != "":
		return usagef("give --name or --dir, not both")
	case name != slug(name) && name != "":
		return usagef("--name %q: expected letters, digits, \".\", \"_\" and \"-\"", name)
	}
	return nil
}

// place is the folder of a new run: the one it is given, that of its name among the runs, or a new one called after what it is.
func place(dir, name, what string) string {
	switch {
	case dir != "":
		return dir
	case name != "":
		return filepath.Join(runsRoot(), name)
	}
	return newFolder(what, time.Now())
}

func (o *runCommand) check(args []string) error {
	switch {
	case !o.resume && len(args) == 0:
		return usagef("which recipe? \"cohort init METHOD FILE\" writes one to start from")
	case o.fromLastGood && !o.resume:
		return usagef("--from-last-good is for --resume")
	case o.resume && (o.seed >= 0 || o.rounds > 0 || len(o.set) > 0 || o.backend != ""):
		return usagef("a run is resumed as it was begun; leave out --seed, --rounds, --set and --backend")
	case o.resume && (o.name != "" || o.dir != "" || o.dryRun):
		return usagef("--resume goes with none of --name, --dir and --dry-run")
	}
	if err := checkPlace(o.name, o.dir); err != nil {
		return err
	}
	if err := o.lend.check(); err != nil {
		return err
	}
	return o.runOptions.check()
}

// begin runs a recipe in a new folder.
func (o *runCommand) begin(ctx context.Context, io streams, stop <-chan struct{}, file string) error {
	r, err := loadRecipe(file, o.set)
	if err != nil {
		return err
	}
	if err := o.apply(r); err != nil {
		return err
	}
	if o.name != "" {
		r.Name = o.name
	}
	dir := place(o.dir, o.name, cmp.Or(r.Name, r.Method))
	if !o.dryRun && isRun(dir) {
		return folderError(dir, journal.ErrExists)
	}
	plan, engine, info, err := o.prepare(ctx, r)
	if err != nil {
		return err
	}
	defer engine.Close()
	if o.dryRun {
		return dryRun(ctx, io, plan, engine, o.json)
	}
	x := &execution{io: io, stop: stop, plan: plan, engine: engine, info: info, dir: dir, quiet: o.quiet, data: o.data}
	return o.lendAndShow(ctx, x)
}

// takeUp goes on with a run.
func (o *runCommand) takeUp(ctx context.Context, io streams, stop <-chan struct{}, args []string) error {
	find := latestUnfinished
	if len(args) == 1 {
		find = func() (string, error) { return findRun(args[0]) }
	}
	at, err := find()
	if err != nil {
		return err
	}
	meta, err := record.ReadMeta(at)
	if err != nil {
		return err
	}
	if meta.State == record.Finished {
		return o.finished(io, at)
	}
	r, err := recipe.OfRun(at)
	if err != nil {
		return err
	}
	if r.Run.Engine == "" {
		r.Run.Engine = meta.Engine // the default may have changed since
	}
	if err := o.apply(r); err != nil {
		return err
	}
	plan, engine, info, err := o.prepare(ctx, r)
	if err != nil {
		return err
	}
	defer engine.Close()
	if info.Path != meta.Kernels {
		io.note("the run was begun with the kernels %s and goes on with %s: the rest will differ in the last bits from what it would have been", meta.Kernels, info.Path)
	}
	x := &execution{io: io, stop: stop, plan: plan, engine: engine, info: info, dir: at, quiet: o.quiet, data: o.data,
		resume: true, fromLastGood: o.fromLastGood}
	return o.lendAndShow(ctx, x)
}

// lendAndShow is show with the machines that are lent to the run.
func (o *runCommand) lendAndShow(ctx context.Context, x *execution) (err error) {
	if o.lend.listen != "" {
		if x.lending, err = o.lend.open(x.io, x.plan, x.info, x.quiet); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, x.lending.Close()) }() // if it was not settled
	}
	return o.show(ctx, x)
}

// finished shows a run that has nothing left to do.
func (o *runCommand) finished(io streams, dir string) error {
	io.note("%s has finished; there is nothing to resume", dir)
	res, err := summarise(dir)
	if err != nil {
		return err
	}
	if res.Report, err = recipe.WriteReport(dir); err != nil {
		return err
	}
	if o.json {
		return io.json(res)
	}
	res.print(io)
	return nil
}

// show runs and prints what came out.
func (o *runOptions) show(ctx context.Context, x *execution) error {
	if !o.quiet {
		x.introduce()
	}
	res, err := x.do(ctx)
	if err != nil && !errors.Is(err, federated.ErrStopped) {
		return err
	}
	if o.json {
		return errors.Join(x.io.json(res), err)
	}
	if err == nil {
		res.print(x.io)
	}
	return err
}

// prepare loads and deals the data and starts the engine.
func (o *engineOptions) prepare(ctx context.Context, r *recipe.Recipe) (*recipe.Plan, *train.Engine, backend.Info, error) {
	plan, err := r.Plan(ctx, o.dataDir())
	if err != nil {
		return nil, nil, backend.Info{}, err
	}
	engine, info, err := r.Engine()
	return plan, engine, info, err
}
