package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/simulation/worker"
	"github.com/cohort-learning/cohort/train"
	"github.com/spf13/cobra"
)

type workerOptions struct {
	engineOptions
	name     string
	cache    int64
	patience time.Duration
	quiet    bool
}

func newWorker(io streams, _ <-chan struct{}) *cobra.Command {
	var o workerOptions
	c := &cobra.Command{
		Use:   "worker URL",
		Short: "Lend this machine to a run of another machine",
		Long: `Lend this machine to a simulation that runs on another: clients of its rounds are computed here. The URL is what
"cohort run RECIPE --workers-listen ADDR" printed there; it holds a secret, so it is passed on like a password, and serves until
that run ends. The run comes out to the same bits, whatever workers take part.

Both must be the same cohort, and compute with the same engine and kernels. The clients' examples, their models and what they
keep come here, are held in memory, and are gone when the command ends. It ends when the run is over; a connection that breaks
is made again. An interrupt (Ctrl-C) ends it at once, and its clients are given to others.`,
		Example: `  cohort worker worker://192.0.2.7:7443/Ad…
  cohort worker worker://192.0.2.7:7443/Ad… --threads 4`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(); err != nil {
				return err
			}
			return o.run(cmd.Context(), io, args[0])
		},
	}
	f := c.Flags()
	f.StringVar(&o.backend, "backend", "", "engine, see \"cohort doctor\"; it must be that of the run (default the best of this binary)")
	f.IntVar(&o.threads, "threads", 0, "clients to compute at a time, on as many threads (default all)")
	f.StringVar(&o.name, "name", "", "name of this machine in the run's report (default its host name)")
	f.Int64Var(&o.cache, "cache", 1<<30, "bytes of memory for examples and models; what does not fit is sent again")
	f.DurationVar(&o.patience, "patience", 2*time.Minute, "how long to try again when the run cannot be reached")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "tell only what is wrong")
	return c
}

func (o *workerOptions) check() error {
	switch {
	case o.cache < 1:
		return usagef("--cache %d: expected 1 or more", o.cache)
	case o.patience < 0:
		return usagef("--patience %v: expected 0 or more", o.patience)
	}
	return o.engineOptions.check()
}

func (o *workerOptions) run(ctx context.Context, io streams, text string) error {
	address, err := worker.ParseAddress(text)
	if err != nil {
		return usagef("the URL of a worker: %w", err)
	}
	b, err := backend.New(o.backend, backend.Options{Threads: o.threads})
	if err != nil {
		return err
	}
	engine := train.NewEngine(b)
	defer engine.Close()
	host, err := os.Hostname()
	if err != nil {
		host = "worker"
	}
	l := worker.Lent{Machine: machineOf(backend.Describe(b)), Name: cmp.Or(o.name, host), Engine: engine,
		Threads: cmp.Or(o.threads, runtime.GOMAXPROCS(0)), Build: recipe.LentClients, Cache: o.cache, Patience: cmp.Or(o.patience, -1)}
	if !o.quiet {
		l.Tell = func(line string) { io.note("%s", line) }
	}
	err = worker.Work(ctx, address, l)
	if err == nil && !o.quiet {
		io.note("the run is over")
	}
	return err
}

// machineOf says what must be the same at a simulation and its workers.
func machineOf(i backend.Info) worker.Machine {
	return worker.Machine{Version: version(), Engine: i.Engine, Kernels: i.Path}
}

// lendOptions are the flags of a run that other machines are lent to.
type lendOptions struct {
	listen string
	local  int
}

// localAsEver is the value of --local that leaves --workers as it is.
const localAsEver = -1

func (o *lendOptions) flags(c *cobra.Command) {
	f := c.Flags()
	f.StringVar(&o.listen, "workers-listen", "", "address, such as :7443, at which other machines may lend themselves (\"cohort worker\")")
	f.IntVar(&o.local, "local", localAsEver, "with --workers-listen: clients at a time on this machine; 0 leaves all to workers (default as --workers)")
	f.Lookup("local").DefValue = "0" // shown as no default
}

func (o *lendOptions) check() error {
	switch {
	case o.local < localAsEver:
		return usagef("--local %d: expected 0 or more", o.local)
	case o.local != localAsEver && o.listen == "":
		return usagef("--local is for --workers-listen; --workers says how many clients are simulated at a time")
	}
	return nil
}

// lending is a host for workers of an execution.
type lending struct {
	*worker.Host
	local int
}

// open waits for workers for a plan. The command that they give is told even if quiet.
func (o *lendOptions) open(io streams, plan *recipe.Plan, info backend.Info, quiet bool) (*lending, error) {
	h, err := worker.Listen(worker.Options{Listen: o.listen, Machine: machineOf(info), Run: plan.Lent(), Tell: func(line string) {
		switch {
		case quiet:
		case io.tty: // over the line of the progress
			io.note("\r\x1b[K%s", line)
		default:
			io.note("%s", line)
		}
	}})
	if err != nil {
		return nil, err
	}
	io.note("cohort worker %s", h.Address())
	if o.local == 0 && !quiet {
		io.note("nothing is computed until a worker comes")
	}
	return &lending{h, o.local}, nil
}

// furnish gives a job the workers' places, and its own.
func (l *lending) furnish(j *simulation.Job) {
	if l == nil {
		return
	}
	j.Elsewhere = l.Lend
	switch {
	case l.local == 0:
		j.Workers = -1
	case l.local > 0:
		j.Workers = l.local
	}
}

// settle ends the lending and writes down beside the run who took part.
func (l *lending) settle(dir string) error {
	if l == nil {
		return nil
	}
	err := l.Close()
	if e := recipe.AddWorkers(dir, l.Tallies()); e != nil {
		err = errors.Join(err, fmt.Errorf("writing down which workers took part: %w", e))
	}
	return err
}
