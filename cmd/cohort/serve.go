package main

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/node"
	"github.com/cohort-learning/cohort/node/coordinator"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/spf13/cobra"
)

// serveOptions are the flags of serve.
type serveOptions struct {
	runOptions
	serverDir
	host    node.Options
	name    string
	members int
	invite  []string
	expires time.Duration
	schema  string
	nats    string
	noData  bool
	stay    bool

	keySecret string
	verbose   bool
	repair    bool
}

// serverDir is the folder of a coordinator.
type serverDir struct{ dir string }

func (o *serverDir) flags(c *cobra.Command) {
	c.Flags().StringVar(&o.dir, "dir", "", "folder of the coordinator (default $COHORT_SERVER, or \"cohort-server\" here)")
}

func (o *serverDir) path() string {
	if o.dir != "" {
		return o.dir
	}
	if dir := os.Getenv("COHORT_SERVER"); dir != "" {
		return dir
	}
	return "cohort-server"
}

func newServe(io streams, stop <-chan struct{}) *cobra.Command {
	var o serveOptions
	c := &cobra.Command{
		Annotations: map[string]string{finishesRounds: roundUnderWay},
		Use:         "serve [RECIPE…]",
		Short:       "Coordinate members over the network",
		Args:        cobra.ArbitraryArgs,
		Long: `Coordinate members over the network: found a federation in a folder, or take up the one there, and run recipes with the
members that have agreed to them. Everything goes over one port (HTTPS); members connect to it and need none themselves.

Members are invited with --invite or "cohort invite", and join with "cohort join". A run begins when as many as
--members says have agreed to its terms (default: the recipe's number of clients). Whatever stopped the coordinator,
the same command goes on within the round that was under way; without a recipe it takes up all unfinished runs of the
folder. An interrupt (Ctrl-C) finishes the round under way; a second one stops at once. Nothing received is lost.`,
		Example: `  cohort serve mnist.yaml --url https://learn.example.org:8443 --invite north,south
  cohort serve mnist.yaml --members 20
  cohort serve                                  # take up what was begun`,
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(args); err != nil {
				return err
			}
			return o.run(cmd.Context(), io, stop, args)
		},
		ValidArgsFunction: completeRecipes,
	}
	o.runOptions.flags(c)
	o.serverDir.flags(c)
	f := c.Flags()
	f.StringVar(&o.host.Listen, "listen", "", "address of the port (default \":8443\")")
	f.StringVar(&o.host.URL, "url", "", "how members reach this machine, https://HOST[:PORT] (default its host name)")
	f.StringSliceVar(&o.host.Hosts, "host", nil, "another name or address of this machine, for its certificate; may be repeated")
	f.StringVar(&o.host.Name, "federation", "", "name of the federation, for people")
	f.StringVar(&o.host.Cert, "cert", "", "own certificate (PEM) instead of the federation's; with --key")
	f.StringVar(&o.host.Key, "key", "", "key of the own certificate (PEM)")
	f.StringVar(&o.host.Blobs, "blobs", "", "URL of a bucket (S3) for results and models, in programs built with the tag bucket")
	f.Int64Var(&o.host.Cap, "cap", 0, "bytes that results and models may take at most (default as much as there is)")
	f.StringVar(&o.nats, "nats", "", "file that describes NATS servers which carry the messages, see docs/network.md")
	f.StringVar(&o.name, "name", "", "name of the run (default the recipe's name or method)")
	f.IntVar(&o.members, "members", 0, "members that must have agreed before the first round (default the recipe's clients)")
	f.StringSliceVar(&o.invite, "invite", nil, "invite these members and print their tokens")
	f.DurationVar(&o.expires, "expires", 7*24*time.Hour, "how long tokens of --invite are valid")
	f.StringVar(&o.schema, "schema", "", "file that describes the members' data, instead of data of the coordinator's own")
	f.BoolVar(&o.noData, "no-data", false, "read no data here, so that only members evaluate; needs --schema")
	f.StringVar(&o.keySecret, "key-secret", "", "organisations: file with the secret that keys are hashed with, the same at all parties")
	f.BoolVar(&o.stay, "stay", false, "go on serving when all runs are over")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "tell everything that happens")
	f.BoolVar(&o.repair, "from-last-good", false, "pass over a damaged end of a journal")
	f.Lookup("workers").Hidden = true
	return c
}

func (o *serveOptions) check(args []string) error {
	switch {
	case o.members < 0:
		return usagef("--members %d: expected 1 or more", o.members)
	case o.name != "" && len(args) != 1:
		return usagef("--name is for one recipe; there are %d", len(args))
	case o.name != slug(o.name) && o.name != "":
		return usagef("--name %q: expected letters, digits, \".\", \"_\" and \"-\"", o.name)
	case o.noData && o.schema == "":
		return usagef("--no-data needs --schema")
	case o.expires < time.Minute:
		return usagef("--expires %v: expected a minute or more", o.expires)
	case len(args) == 0 && (len(o.set) > 0 || o.seed >= 0 || o.rounds > 0 || o.members > 0):
		return usagef("what was begun goes on as it was begun; leave out --set, --seed, --rounds and --members, or name the recipe")
	}
	return o.runOptions.check()
}

func (o *serveOptions) run(ctx context.Context, io streams, stop <-chan struct{}, args []string) error {
	recipes, err := o.recipes(args)
	if err != nil {
		return err
	}
	data, err := o.data()
	if err != nil {
		return err
	}
	o.host.Dir, o.host.Program, o.host.Log = o.path(), version(), slog.New(&lines{io: io, verbose: o.verbose, quiet: o.quiet || o.json})
	if o.nats != "" {
		if o.host.NATS, err = node.ReadNATS(o.nats); err != nil {
			return usageError{err}
		}
	}
	host, err := node.Open(o.host)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(ctx)
	served := make(chan error, 1)
	serve := sync.OnceFunc(func() { go func() { served <- host.Serve(ctx) }() })
	defer func() { cancel(); serve(); <-served }()
	io.note("federation %q at %s, key %s", host.Name, host.URL, host.Book.Key.Public().Short())
	if err := o.invitations(io, host); err != nil {
		return err
	}
	// Members that come back wait at the port until their runs are taken up: before, they would be told that there are none.
	runs, err := o.start(ctx, io, host, recipes, data)
	if err != nil {
		return err
	}
	serve()
	return o.attend(ctx, io, stop, host, runs, served)
}

// serveRecipe is a recipe to serve; dir is set if it was begun.
type serveRecipe struct {
	*recipe.Recipe
	assist *recipe.Assist // of organisations with columns of their own, in place of Recipe
	id     string
}

// recipes reads those that are named, or those of the runs that were begun and have not finished.
func (o *serveOptions) recipes(args []string) ([]serveRecipe, error) {
	var out []serveRecipe
	for _, file := range args {
		if text, err := os.ReadFile(file); err == nil && recipe.IsAssist(text) {
			r, err := recipe.LoadAssist(file, o.set...)
			if err != nil {
				return nil, err
			}
			if o.seed >= 0 {
				r.Seed = uint64(o.seed)
			}
			out = append(out, serveRecipe{assist: r, id: cmp.Or(o.name, r.Name, r.Method)})
			continue
		}
		r, err := loadRecipe(file, o.set)
		if err != nil {
			return nil, err
		}
		if err := o.apply(r); err != nil {
			return nil, err
		}
		out = append(out, serveRecipe{Recipe: r, id: o.name})
	}
	if len(args) > 0 {
		return out, nil
	}
	book, err := record.List(filepath.Join(o.path(), "runs"))
	if err != nil {
		return nil, err
	}
	for _, e := range book {
		if e.Err != nil || e.State == record.Finished {
			continue
		}
		if recipe.AmongOrganisations(e.Dir) {
			r, err := recipe.AssistOfRun(e.Dir)
			if err != nil {
				return nil, err
			}
			out = append(out, serveRecipe{assist: r, id: filepath.Base(e.Dir)})
			continue
		}
		r, err := recipe.OfRun(e.Dir)
		if err != nil {
			return nil, err
		}
		if r.Run.Engine == "" {
			r.Run.Engine = e.Meta.Engine
		}
		o.engineOptions.apply(r)
		out = append(out, serveRecipe{Recipe: r, id: filepath.Base(e.Dir)})
	}
	return out, nil
}

// invitations prints the tokens of those who are to be invited and were not yet.
func (o *serveOptions) invitations(io streams, host *node.Host) error {
	var names []string
	for _, name := range o.invite { // the same command takes up what was begun: who is known stays as it is
		switch m, known := host.Roster.ByName(name); {
		case known && m.State == identity.Invited && time.Now().Before(m.Until):
			io.note("%s was invited before; \"cohort invite %[1]s\" makes another token", name)
		case known && m.State != identity.Invited:
			io.note("%s is not invited again: %s", name, m.State)
		default:
			names = append(names, name)
		}
	}
	if len(names) == 0 {
		return nil
	}
	tokens, err := host.Tokens(o.expires, names...)
	if err != nil {
		return err
	}
	for _, t := range tokens {
		io.note("%s joins with:\n  cohort join %s --data PATH", t.Name, t)
	}
	return nil
}

func (o *serveOptions) data() (recipe.ServerData, error) {
	d := recipe.ServerData{Dir: o.dataDir(), None: o.noData}
	if o.schema == "" {
		return d, nil
	}
	text, err := os.ReadFile(o.schema)
	if err != nil {
		return d, err
	}
	s, err := dataset.ParseSchema(text)
	if err != nil {
		return d, fmt.Errorf("%s: %w", o.schema, err)
	}
	d.Schema = &s
	return d, nil
}

func (o *serveOptions) start(ctx context.Context, io streams, host *node.Host, recipes []serveRecipe, data recipe.ServerData) ([]*coordinator.Run, error) {
	var runs []*coordinator.Run
	for _, r := range recipes {
		var watch simulation.Observer
		if r.assist != nil {
			run, err := o.assist(ctx, io, host, r, len(recipes) == 1)
			if err != nil {
				return nil, err
			}
			runs = append(runs, run)
			continue
		}
		if len(recipes) == 1 {
			watch = newProgress(io, r.Rounds, o.quiet || o.json)
		}
		run, err := host.Start(ctx, r.Recipe, node.RunOptions{ID: r.id, Members: o.members, Data: data, Command: commandLine(), Observer: watch,
			FromLastGood: o.repair})
		if err != nil {
			return nil, err
		}
		node.SaveMemory(run.Model())
		now := run.Now()
		if now.Agreed < now.Members {
			io.note("run %s: %s, %d rounds; it begins when %d members have agreed (so far %d)", now.ID, r.Method, now.Rounds, now.Members, now.Agreed)
		} else {
			io.note("run %s: %s, goes on in round %d of %d", now.ID, r.Method, now.Round, now.Rounds)
		}
		runs = append(runs, run)
	}
	return runs, nil
}

// assist begins a run among organisations, of which this coordinator is the sponsor.
func (o *serveOptions) assist(ctx context.Context, io streams, host *node.Host, r serveRecipe, alone bool) (*coordinator.Run, error) {
	plan, err := r.assist.Plan(false)
	if err != nil {
		return nil, err
	}
	secret, err := keySecret(o.keySecret, r.assist.Keys)
	if err != nil {
		return nil, err
	}
	alg, err := plan.Served(secret)
	if err != nil {
		return nil, err
	}
	members := cmp.Or(o.members, 1+len(r.assist.Organisations))
	var watch simulation.Observer
	if alone {
		watch = newProgress(io, r.assist.Most(), o.quiet || o.json)
	}
	run, err := host.Assist(ctx, node.Assistance{ID: r.id, Method: r.assist.Method, Recipe: r.assist.YAML(), Terms: plan.Terms(), Members: members, Keep: plan.Keep,
		Algorithm: alg, Config: plan.Config()}, node.RunOptions{Command: commandLine(), Observer: watch, FromLastGood: o.repair})
	if err != nil {
		return nil, err
	}
	io.note("%s", plan)
	now := run.Now()
	if now.Agreed < now.Members {
		io.note("run %s: %s, at most %d rounds; it begins when %d organisations have agreed (so far %d), %s among them with the sponsor's own columns",
			now.ID, r.assist.Method, now.Rounds, now.Members, now.Agreed, r.assist.Sponsor)
	} else {
		io.note("run %s: %s, goes on in round %d of %d", now.ID, r.assist.Method, now.Round, now.Rounds)
	}
	return run, nil
}

// keySecret reads what the parties share, where keys are hashed with it.
func keySecret(file, keys string) ([]byte, error) {
	switch {
	case keys != assisted.HashedKeys && file != "":
		return nil, usagef("--key-secret is for keys that are hashed, and here they are %s", keys)
	case keys != assisted.HashedKeys:
		return nil, nil
	case file == "":
		return nil, usagef("keys are hashed with a secret that the parties share: --key-secret names a file with it, such as \"openssl rand -hex 32\" writes")
	}
	b, err := os.ReadFile(file)
	return bytes.TrimSpace(b), err
}

// attend waits until all runs are over, somebody stops them, or the port fails.
func (o *serveOptions) attend(ctx context.Context, io streams, stop <-chan struct{}, host *node.Host, runs []*coordinator.Run, served chan error) error {
	over := make(chan struct{})
	var all sync.WaitGroup
	for _, r := range runs {
		all.Go(func() { <-r.Done() })
	}
	if len(runs) > 0 || !o.stay {
		go func() { all.Wait(); close(over) }()
	}
	if len(runs) == 0 {
		io.note("there is nothing to run: name a recipe, or let the federation wait with --stay")
	}
	for stopping := false; ; {
		select {
		case err := <-served:
			served <- nil
			return errors.Join(err, ctx.Err())
		case <-stop:
			if !stopping && len(runs) == 0 {
				return federated.ErrStopped
			}
			stopping, stop = true, nil
			for _, r := range runs {
				r.Stop()
			}
		case <-over:
			if err := o.result(io, runs); err != nil || stopping {
				return err
			}
			if o.stay {
				io.note("all runs are over; still serving")
				over = nil
				runs = nil
				continue
			}
			host.Farewell(ctx, 5*time.Second)
			return nil
		}
	}
}

// result prints what came of the runs.
func (o *serveOptions) result(io streams, runs []*coordinator.Run) error {
	var errs []error
	for _, r := range runs {
		if err := r.Err(); err != nil {
			errs = append(errs, fmt.Errorf("run %s: %w", r.ID(), err))
			if !errors.Is(err, federated.ErrStopped) {
				continue
			}
		}
		path, err := recipe.WriteReport(r.Dir())
		if err == nil {
			err = tell(io, r.Dir(), path, o.json)
		}
		errs = append(errs, err)
	}
	return errors.Join(errs...)
}

// lines is a log for people: a line an event, without a time on terminals' progress.
type lines struct {
	io             streams
	verbose, quiet bool
	with           []slog.Attr
}

// Enabled implements [slog.Handler].
func (l *lines) Enabled(_ context.Context, level slog.Level) bool {
	return level >= slog.LevelWarn || !l.quiet && level >= slog.LevelInfo || l.verbose
}

// Handle implements [slog.Handler].
func (l *lines) Handle(_ context.Context, r slog.Record) error {
	var who, rest []string
	attr := func(a slog.Attr) bool {
		switch a.Key {
		case "run", "member":
			who = append(who, a.Value.String())
		default:
			rest = append(rest, a.Key+" "+a.Value.String())
		}
		return true
	}
	for _, a := range l.with {
		attr(a)
	}
	r.Attrs(attr)
	text := r.Message
	if len(who) > 0 {
		text = strings.Join(who, ", ") + " " + text
	}
	if len(rest) > 0 {
		text += " (" + strings.Join(rest, ", ") + ")"
	}
	if l.io.tty {
		fmt.Fprint(l.io.err, "\r\x1b[K")
	}
	l.io.note("%s  %s", r.Time.Format(time.TimeOnly), text)
	return nil
}

// WithAttrs implements [slog.Handler].
func (l *lines) WithAttrs(as []slog.Attr) slog.Handler {
	c := *l
	c.with = append(append([]slog.Attr{}, l.with...), as...)
	return &c
}

// WithGroup implements [slog.Handler].
func (l *lines) WithGroup(string) slog.Handler { return l }
