package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/methods"
	"github.com/cohort-learning/cohort/node/member"
	"github.com/cohort-learning/cohort/node/program"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/secure/dp"
	"github.com/cohort-learning/cohort/secure/dp/ledger"
	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"
)

// unsaid is a number that was not given.
const unsaid = -1

// membersRoot is the folder in which members live unless they are given another.
const membersRoot = "cohort-member"

type joinOptions struct {
	engineOptions
	dir, exec string
	limits    member.Limits
	examples  int
	parallel  int
	table     member.Table
	learner   string
	dryRun    bool
	accept    bool
	withdraw  bool
	stay      bool
	items     bool
	enrolOnly bool
	rotate    bool
	direct    bool
	showKey   bool
	peers     string
	ledger    string
	budget    ledger.Budget
	quiet     bool
	json      bool
	wait      time.Duration
}

func newJoin(io streams, stop <-chan struct{}) *cobra.Command {
	var o joinOptions
	c := &cobra.Command{
		Annotations: map[string]string{finishesRounds: "stopping: a result that is being sent may still get through; interrupt again to stop at once"},
		Use:         "join TOKEN --data PATH | join [--dir DIR]",
		Short:       "Take part in a federation with your own data",
		Long: `Take part in a federation with your own data, which stay here. The token is what "cohort invite" printed at the
coordinator; it is used once. Everything about this member is kept in one folder: its key, its journal, and policy.yaml,
in which you say what you take part in. Without a token, join goes on with the member that lives in --dir.

Connections only go out, to the one HTTPS port of the coordinator; proxies of the environment (HTTPS_PROXY) are respected.

The data are a folder of "cohort partition --export", a table (.csv), a folder of pictures or of IDX files, or a text file.
With --exec a program of your own trains instead; docs/bring-your-own-trainer.md says what it gets and gives.

An interrupt (Ctrl-C) stops; the same command goes on where it was. Nothing that was computed is lost.`,
		Example: `  cohort join cohort1_… --data measurements.csv
  cohort join cohort1_… --enrol
  cohort join --dir cohort-member/clinic-a
  cohort join --dir cohort-member/clinic-a --dry-run
  cohort join cohort1_… --data pictures/ --exec "python train.py"`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.check(args); err != nil {
				return err
			}
			return o.run(cmd.Context(), io, stop, args)
		},
	}
	f := c.Flags()
	f.StringVar(&o.data, "data", "", "your data (default those of the last time)")
	f.StringVar(&o.dir, "dir", "", "folder of this member (default "+membersRoot+"/NAME)")
	f.StringVar(&o.exec, "exec", "", "program and arguments that train instead; policy.yaml must allow it")
	f.StringSliceVar(&o.limits.Env, "exec-env", nil, "with --exec: names of variables of the environment that the program gets")
	f.StringVar(&o.limits.User, "exec-user", "", "with --exec: user that the program runs as (needs root)")
	f.DurationVar(&o.limits.Time, "exec-time", 0, "with --exec: time that one task may take (default as long as the round)")
	f.Int64Var(&o.limits.Memory, "exec-memory", 0, "with --exec: bytes of memory that the program may have (default no limit)")
	f.Int64Var(&o.limits.Disk, "exec-disk", 0, "with --exec: bytes that its work folder may grow to (default 1 GiB and more)")
	f.IntVar(&o.examples, "examples", 0, "with --exec: how many examples there are, if only that program can read the data")
	f.StringVar(&o.table.Key, "key", "", "where parties have other columns of the same rows: the column of --data that names a row")
	f.StringVar(&o.learner, "learner", "", "with --key: your model, one of "+strings.Join(learner.Names(), ", ")+", or a YAML file with its options (default ridge); --exec takes a program")
	f.StringSliceVar(&o.table.Columns, "columns", nil, "with --key: columns to learn from (default all)")
	f.StringSliceVar(&o.table.Drop, "drop", nil, "with --key: columns to leave out")
	f.StringVar(&o.table.Align, "align", "", "where keys are wrong for some rows, or there is --block alone, align your rows to the sponsor's first; linear, or another learner that explains what you are sent while that is done")
	f.StringSliceVar(&o.table.Compare, "compare", nil, "with --align: columns, such as names and dates of birth, that are compared with those that the sponsor names, in the same order; your values are not sent")
	f.StringArrayVar(&o.table.Blocks, "block", nil, "with --align: column in which your rows and the sponsor's agree, such as a postcode; may be given again")
	f.StringVar(&o.table.Secret, "key-secret", "", "with --key: file with the secret that keys are hashed with, the same at all parties")
	f.IntVar(&o.parallel, "parallel", 1, "tasks to compute at a time")
	f.StringVar(&o.backend, "backend", "", "engine, see \"cohort doctor\" (default the best of this binary)")
	f.IntVar(&o.threads, "threads", 0, "threads to compute on (default all)")
	f.StringVar(&o.ledger, "ledger", "", "folder of the privacy ledgers that all members on this machine share (default that of \"cohort privacy ledger\")")
	f.Float64Var(&o.budget.Epsilon, "budget-epsilon", unsaid, "what all private runs on the data may cost together; 0: as policy.yaml says (default that of the last time)")
	f.Float64Var(&o.budget.Delta, "budget-delta", unsaid, "with which probability they may cost more; 0: as policy.yaml says (default that of the last time)")
	f.Lookup("budget-epsilon").DefValue, f.Lookup("budget-delta").DefValue = "0", "0" // the texts say what they are
	f.BoolVar(&o.dryRun, "dry-run", false, "only show what would leave this machine")
	f.BoolVar(&o.accept, "accept-rollback", false, "accept a coordinator that was put back to an earlier state, once")
	f.BoolVar(&o.items, "disclose-items", false, "let a coordinator of recommenders learn which items the users here have rated, as \"items: true\" in policy.yaml does")
	f.BoolVar(&o.enrolOnly, "enrol", false, "only take up the invitation and write policy.yaml; agree to nothing yet")
	f.DurationVar(&o.wait, "wait", 10*time.Minute, "with a token: for how long to try again while the coordinator cannot be reached")
	f.BoolVar(&o.rotate, "rotate-key", false, "replace the member's key by a new one, and end")
	f.BoolVar(&o.direct, "direct", false, "leave the relay: connect to the coordinator itself from now on")
	f.StringVar(&o.peers, "peers", "", "keys of other members, exchanged without the coordinator: lines as their --show-key prints them")
	f.BoolVar(&o.showKey, "show-key", false, "print this member's name and public key, for the --peers of others, and end")
	f.BoolVar(&o.stay, "stay", false, "stay when all runs are over, for those that come, such as requests for predictions")
	f.BoolVar(&o.withdraw, "withdraw", false, "leave the federation for good")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "tell only what is wrong")
	f.BoolVar(&o.json, "json", false, "print what happens as JSON, a line each")
	return c
}

func (o *joinOptions) check(args []string) error {
	switch {
	case o.wait < 0:
		return usagef("--wait %v: expected 0 or more", o.wait)
	case o.parallel < 1:
		return usagef("--parallel %d: expected 1 or more", o.parallel)
	case o.examples < 0:
		return usagef("--examples %d: expected 1 or more", o.examples)
	case o.enrolOnly && (o.dryRun || o.withdraw || len(args) == 0):
		return usagef("--enrol needs a token, and goes with neither --dry-run nor --withdraw")
	case o.showKey && (o.dryRun || o.withdraw || o.rotate || len(args) > 0):
		return usagef("--show-key goes with --dir only")
	case o.withdraw && (o.dryRun || len(args) > 0 || o.accept):
		return usagef("--withdraw goes with --dir only")
	case o.rotate && (o.dryRun || len(args) > 0 || o.withdraw):
		return usagef("--rotate-key goes with --dir only")
	case o.direct && (len(args) > 0 || o.withdraw):
		return usagef("--direct goes with --dir only")
	case o.budget.Epsilon != unsaid && (!(o.budget.Epsilon >= 0) || math.IsInf(o.budget.Epsilon, 1)):
		return usagef("--budget-epsilon %v: expected a positive number", o.budget.Epsilon)
	case o.budget.Delta != unsaid && !(o.budget.Delta >= 0 && o.budget.Delta < 1):
		return usagef("--budget-delta %v: expected a probability between 0 and 1", o.budget.Delta)
	case len(args) == 1 && args[0] == "":
		return usagef("the token is empty")
	}
	return o.engineOptions.check()
}

func (o *joinOptions) run(ctx context.Context, io streams, stop <-chan struct{}, args []string) error {
	if err := o.present(o.data); err != nil {
		return err
	}
	var token *identity.Token
	if len(args) == 1 {
		t, err := identity.ParseToken(args[0])
		if err != nil {
			return usageError{err}
		}
		token = &t
	}
	dir, err := o.folder(token)
	if err != nil {
		return err
	}
	f, err := member.OpenFolder(dir)
	switch {
	case err == nil && f.Card.Enrolled:
	case err != nil && !errors.Is(err, member.ErrNoMember):
		return err
	case token == nil:
		return usagef("no member lives in %s yet: give the token that \"cohort invite\" printed", dir)
	case o.dryRun:
		return o.explain(io, *token, dir)
	default:
		f = nil
	}
	if f == nil {
		if !o.json && !o.quiet {
			warn(io)
		}
		if f, err = o.enrol(ctx, io, stop, dir, *token); err != nil {
			return err
		}
	} else if token != nil && token.Federation != f.Card.Federation {
		return usagef("%s belongs to a member of another federation; --dir takes another folder", dir)
	} else if o.showKey {
		io.say("%s %s", f.Card.Name, f.Key.Public())
		return nil
	} else if o.rotate {
		if err := f.RotateKey(ctx); err != nil {
			return err
		}
		io.note("%s has a new key; the old one is not admitted any more", f.Card.Name)
		return nil
	} else if !o.json && !o.quiet && !o.withdraw {
		warn(io)
	}
	if o.direct {
		if err := f.GoHome(); err != nil {
			return usageError{err}
		}
		io.note("%s connects to the coordinator itself from now on, at %s", f.Card.Name, f.Card.URL)
	}
	if err := o.remember(f); err != nil {
		return err
	}
	if o.enrolOnly {
		if !o.quiet && !o.json {
			io.note("nothing is agreed to yet; go on with:\n  cohort join --dir %s", quote(f.Dir))
		}
		return nil
	}
	return o.participate(ctx, io, stop, f)
}

// warn says what taking part does not protect from, before anything is sent.
func warn(io streams) {
	io.note("%s", fold("What taking part does not protect from: unless a run has secure sums or noise, the coordinator sees every update of this member, "+
		"and can learn about the data from it. The other members see the names of all. A relay, where one stands "+
		"between, sees the updates too. Who watches the line sees when and how much is sent. "+
		"What a run protects is said before it is agreed to; \"secure: true\" and \"noise\" in policy.yaml insist on it.", columns))
}

// folder is the member's: --dir, or one named as the token says, or the only one there is.
func (o *joinOptions) folder(t *identity.Token) (string, error) {
	switch {
	case o.dir != "":
		return o.dir, nil
	case t != nil:
		return filepath.Join(membersRoot, t.Name), nil
	}
	entries, err := os.ReadDir(membersRoot)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	switch len(names) {
	case 0:
		return "", usagef("give the token that \"cohort invite\" printed, or with --dir the folder of a member")
	case 1:
		return filepath.Join(membersRoot, names[0]), nil
	}
	return "", usagef("which member? --dir names its folder; in %s there are %s", membersRoot, strings.Join(names, ", "))
}

// enrol uses up an invitation. While the coordinator cannot be reached it waits, and an interrupt ends that at once.
func (o *joinOptions) enrol(ctx context.Context, io streams, stop <-chan struct{}, dir string, t identity.Token) (*member.Folder, error) {
	if err := t.Check(time.Now()); err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	go func() {
		select {
		case <-stop:
			cancel(federated.ErrStopped)
		case <-ctx.Done():
		}
	}()
	told := ""
	f, err := member.Enrol(ctx, dir, t, member.EnrolOptions{Wait: o.wait, Waiting: func(cause error, until time.Time) {
		if text := root(cause); text != told { // once for each reason
			told = text
			io.note("the coordinator cannot be reached yet: %s; trying again until %s (an interrupt stops)", text, until.Format(time.TimeOnly))
		}
	}})
	if context.Cause(ctx) == federated.ErrStopped && err != nil {
		io.note("stopped; the same command tries again")
		return nil, federated.ErrStopped
	}
	if err != nil {
		return nil, err
	}
	if _, err := member.LoadPolicy(dir); err != nil {
		return nil, err
	}
	if !o.quiet && !o.json {
		io.note("joined as %s; key, journal and policy.yaml are in %s", f.Card.Name, dir)
	}
	return f, nil
}

// root is what an error that wraps others ends in: what is wrong, without on the way to what.
func root(err error) string {
	var u *url.Error
	if errors.As(err, &u) {
		err = u.Err
	}
	return err.Error()
}

// remember keeps what was given for the next time, and takes what was given last.
func (o *joinOptions) remember(f *member.Folder) error {
	before, _ := json.Marshal(f.Card)
	if o.data != "" {
		abs, err := filepath.Abs(o.data)
		if err != nil {
			return err
		}
		f.Card.Data = abs
	}
	if o.exec != "" {
		words, err := program.Split(o.exec)
		if err != nil {
			return usagef("--exec: %w", err)
		}
		if len(words) == 0 {
			return usagef("--exec names no program")
		}
		f.Card.Exec, f.Card.Limits = words, o.limits
	}
	f.Card.Examples = cmp.Or(o.examples, f.Card.Examples)
	if err := o.columns(f); err != nil {
		return err
	}
	if o.budget.Epsilon != unsaid {
		f.Card.Budget.Epsilon = o.budget.Epsilon
	}
	if o.budget.Delta != unsaid {
		f.Card.Budget.Delta = o.budget.Delta
	}
	if o.ledger != "" {
		abs, err := filepath.Abs(o.ledger)
		if err != nil {
			return err
		}
		f.Card.Ledger = abs
	}
	if o.peers != "" {
		abs, err := filepath.Abs(o.peers)
		if err != nil {
			return err
		}
		if _, err := member.ReadPeers(abs); err != nil {
			return usagef("--peers: %w", err)
		}
		f.Card.Peers = abs
	}
	if f.Card.Data == "" && !o.withdraw && !o.enrolOnly {
		return usagef("which data? --data names them; they stay on this machine")
	}
	if after, _ := json.Marshal(f.Card); string(after) == string(before) {
		return nil
	}
	return f.Save()
}

// columns takes in how the data are read where they are columns of one's own.
func (o *joinOptions) columns(f *member.Folder) error {
	t := &f.Card.Table
	if o.table.Key != "" {
		t.Key = o.table.Key
	}
	if len(o.table.Columns)+len(o.table.Drop) > 0 {
		t.Columns, t.Drop = o.table.Columns, o.table.Drop
	}
	if o.table.Align != "" {
		if _, err := methods.NewAligner(o.table.Align); err != nil {
			return usagef("--align: %w", err)
		}
		t.Align = o.table.Align
	}
	if len(o.table.Blocks) > 0 {
		t.Blocks = o.table.Blocks
	}
	if len(o.table.Compare) > 0 {
		t.Compare = o.table.Compare
	}
	if o.table.Secret != "" {
		abs, err := filepath.Abs(o.table.Secret)
		if err != nil {
			return err
		}
		t.Secret = abs
	}
	if o.learner != "" {
		t.Learner = learner.Spec{Name: o.learner}
		if text, err := os.ReadFile(o.learner); err == nil {
			t.Learner = learner.Spec{}
			if err := yaml.UnmarshalWithOptions(text, &t.Learner, yaml.Strict()); err != nil {
				return usagef("--learner %s: %w", o.learner, err)
			}
		}
		if _, err := t.Learner.New(); err != nil {
			return usagef("--learner: %w", err)
		}
	}
	if t.Align == "" && len(t.Compare) > 0 {
		return usagef("--compare is for rows whose key is in doubt: say with --align what explains what you are sent while they are aligned, linear for instance")
	}
	if t.Align == "" && len(t.Blocks) > 0 {
		return usagef("--block is for rows whose key is in doubt or missing: say with --align what explains what you are sent while they are aligned, linear for instance")
	}
	if t.ByBlocks() {
		return nil
	}
	if t.Key == "" && t.Align != "" {
		return usagef("--align needs --key, a column that links rows even if it is wrong for some, or --block, one in which rows that belong together agree")
	}
	if t.Key == "" && (o.learner != "" || len(t.Columns)+len(t.Drop) > 0 || t.Secret != "") {
		return usagef("--learner, --columns, --drop and --key-secret are for a table with --key")
	}
	return nil
}

// present checks that the data are there before anybody is told anything.
func (o *joinOptions) present(path string) error {
	if path == "" {
		return nil
	}
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return &recipe.MissingDataError{Err: fmt.Errorf("--data %s: there is nothing", path)}
	} else if err != nil {
		return err
	}
	return nil
}

// participate runs the member.
func (o *joinOptions) participate(ctx context.Context, io streams, stop <-chan struct{}, f *member.Folder) error {
	policy, err := member.LoadPolicy(f.Dir)
	policy.Items = policy.Items || o.items
	if err != nil {
		return err
	}
	study := &member.Study{Data: f.Card.Data, Exec: f.Card.Exec, Limits: f.Card.Limits, Samples: f.Card.Examples, Dir: f.Dir, Engine: o.backend, Threads: o.threads,
		Table: f.Card.Table, Policy: policy, Federation: f.Card.Federation.String()}
	defer study.Close()
	can := []string{"train"}
	if len(f.Card.Exec) > 0 {
		can = append(can, "exec")
	}
	show := &memberProgress{io: io, quiet: o.quiet, json: o.json}
	mo := member.Options{Folder: f, Policy: policy, Parallel: o.parallel, Program: version(), Can: can, Prepare: study.Prepare,
		Events: show.event, Stop: stop, Stay: o.stay, AcceptRollback: o.accept}
	if !o.withdraw {
		if mo.Budget, err = account(f, policy); err != nil {
			return err
		}
		mo.Announced = announced(f.Card.URL)
		if f.Card.Peers != "" {
			if mo.Pins, err = member.ReadPeers(f.Card.Peers); err != nil {
				return fmt.Errorf("keys of other members: %w", err)
			}
		}
		if err := o.present(f.Card.Data); err != nil {
			return err
		}
		info, err := study.Open()
		if err != nil {
			return err
		}
		mo.Kernels = info.Engine + "/" + info.Path
	}
	if err := f.Network(&mo); err != nil {
		return err
	}
	m, err := member.New(mo)
	if err != nil {
		return err
	}
	switch {
	case o.withdraw:
		if err := m.Withdraw(ctx, ""); err != nil {
			return err
		}
		io.note("%s has left the federation; its folder %s stays, with the journal of all it did", f.Card.Name, f.Dir)
		return nil
	case o.dryRun:
		previews, err := m.Preview(ctx)
		if err != nil {
			return err
		}
		return o.preview(io, f, previews)
	}
	err = m.Run(ctx)
	show.wipe()
	if (errors.Is(err, federated.ErrStopped) || errors.Is(err, context.Canceled)) && !o.json {
		io.note("stopped; go on with:\n  cohort join --dir %s", quote(f.Dir))
	}
	return err
}

// announced reads what a run of the coordinator at a URL says about its privacy.
func announced(base string) func(member.Proposal) (*dp.Terms, error) {
	return func(p member.Proposal) (*dp.Terms, error) {
		var agreed *dataset.Schema
		if len(p.Terms.Schema) > 0 && string(p.Terms.Schema) != "null" {
			s, err := dataset.ParseSchema(p.Terms.Schema)
			if err != nil {
				return nil, err
			}
			agreed = &s
		}
		server := "the coordinator"
		if u, err := identity.ParseURL(base); err == nil {
			server += " at " + u.Host
		}
		return p.Recipe.PrivacyTerms(agreed, p.Terms.Members, server)
	}
}

// account is what pays for private runs, and nil if there is no place for ledgers: none is then agreed to. What was given to join
// overrides the policy.
func account(f *member.Folder, policy member.Policy) (member.Budget, error) {
	policy.Epsilon = cmp.Or(f.Card.Budget.Epsilon, policy.Epsilon)
	policy.Delta = cmp.Or(f.Card.Budget.Delta, policy.Delta)
	limit, root := policy.Budget(), f.Card.Ledger
	if root == "" {
		dir, err := ledgerRoot()
		if err != nil && limit.None() {
			return nil, nil
		}
		if err != nil {
			return nil, err
		}
		root = dir
	}
	return &member.Account{Root: root, Data: f.Card.Data, Limit: limit}, nil
}
