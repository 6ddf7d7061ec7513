package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/secure/dp/ledger"
	"github.com/spf13/cobra"
)

// ledgerRoot is the folder of ledgers that all members on this machine share unless they are given another: $COHORT_LEDGER, or
// one under the user's configuration.
func ledgerRoot() (string, error) {
	if dir := os.Getenv("COHORT_LEDGER"); dir != "" {
		return filepath.Abs(dir)
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("where are the privacy ledgers? Name their folder with --ledger or $COHORT_LEDGER: %w", err)
	}
	return filepath.Join(dir, "cohort", "ledger"), nil
}

type privacyLedger struct {
	data   string
	delta  float64
	budget float64
	json   bool
}

func newPrivacyLedger(io streams) *cobra.Command {
	var o privacyLedger
	c := &cobra.Command{
		Use:   "ledger [DIR]",
		Short: "Show what the privacy of your data was spent on, and set its budget",
		Long: `Show what the privacy of your data was spent on: for every data set, how much epsilon all runs together took, of which budget,
and which coordinator and run took what. A member charges its ledger before anything leaves for a round, and is refused when the
budget does not allow it; nothing is ever given back.

An account belongs to the data, by their content, and not to a member: all members on this machine share the ledgers in one folder
(default $COHORT_LEDGER, or cohort/ledger in the configuration of the user). Data that changed at the same path go on with
what was spent there.

The epsilon of runs do not add up: together they cost less than the sum.`,
		Example: `  cohort privacy ledger
  cohort privacy ledger --data measurements.csv --set-budget 4 --delta 1e-6
  cohort privacy ledger backup/ledger --json`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd.Context(), io, args, cmd.Flags().Changed("delta"), cmd.Flags().Changed("set-budget"))
		},
	}
	f := c.Flags()
	f.StringVar(&o.data, "data", "", "only the ledger of these data")
	f.Float64Var(&o.delta, "delta", ledger.DefaultDelta, "delta to state epsilon at (default that of the budget), or of the new budget")
	f.Lookup("delta").DefValue = "0" // the text says what it is
	f.Float64Var(&o.budget, "set-budget", 0, "epsilon that all runs on the data may cost together; 0 removes the budget")
	f.BoolVar(&o.json, "json", false, "print the result as JSON")
	return c
}

func (o *privacyLedger) run(ctx context.Context, io streams, args []string, delta, set bool) error {
	budget := ledger.Budget{Epsilon: o.budget, Delta: o.delta}
	if o.budget == 0 {
		budget = ledger.Budget{}
	}
	switch err := budget.Validate(); {
	case !(o.delta > 0 && o.delta < 1):
		return usagef("--delta %v: expected a probability between 0 and 1", o.delta)
	case err != nil:
		return usagef("--set-budget %v: expected a positive number, or 0 for no budget", o.budget)
	}
	root := ""
	if len(args) > 0 {
		root = args[0]
		if info, err := os.Stat(root); err != nil || !info.IsDir() {
			return usagef("%s: there is no folder of ledgers", root)
		}
	} else {
		dir, err := ledgerRoot()
		if err != nil {
			return err
		}
		root = dir
	}
	all, err := o.open(ctx, root)
	if err != nil {
		return err
	}
	if set {
		if len(all) != 1 {
			return usagef("--set-budget: of which data? In %s there are ledgers of %d; --data names them", root, len(all))
		}
		if err := all[0].SetBudget(ctx, budget); err != nil {
			return err
		}
	}
	found := make([]ledger.Summary, 0, len(all))
	for _, l := range all {
		b, err := l.Budget()
		if err != nil {
			return err
		}
		at := o.delta
		if !delta && !b.None() {
			at = b.Delta
		}
		s, err := l.Summary(at)
		if err != nil {
			return err
		}
		found = append(found, s)
	}
	if o.json {
		return io.json(ledgerJSON(root, found))
	}
	if len(found) == 0 {
		io.say("nothing was charged yet in %s", root)
	}
	for i, s := range found {
		if i > 0 {
			io.say("")
		}
		sayLedger(io, s)
	}
	return nil
}

// open returns the ledger of the data that were named, or all in the folder.
func (o *privacyLedger) open(ctx context.Context, root string) ([]*ledger.Ledger, error) {
	if o.data == "" {
		return ledger.List(root, ledger.Options{})
	}
	digest, err := ledger.DigestOf(ctx, o.data)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, &recipe.MissingDataError{Err: fmt.Errorf("--data %s: there is nothing", o.data)}
	}
	if err != nil {
		return nil, err
	}
	label, err := filepath.Abs(o.data)
	if err != nil {
		return nil, err
	}
	l, err := ledger.Open(root, digest, label, ledger.Options{})
	return []*ledger.Ledger{l}, err
}

func sayLedger(io streams, s ledger.Summary) {
	t := newTable("", "")
	t.add("data", strings.Join(s.Labels, ", "))
	t.add("digest", s.Data.String())
	t.add("spent", fmt.Sprintf("epsilon %s at delta %v, by %s", inEpsilon(s.Epsilon), s.Delta, s.By))
	t.add("rounds", count(s.Rounds))
	if s.Budget.None() {
		t.add("budget", "none; --set-budget sets one")
	} else {
		t.add("budget", fmt.Sprintf("epsilon %s at delta %v", inEpsilon(s.Budget.Epsilon), s.Budget.Delta))
		if s.Budget.Delta == s.Delta {
			t.add("left", "epsilon "+inEpsilon(left(s)))
		}
	}
	for _, r := range s.Relatives {
		t.add("with", fmt.Sprintf("%s rounds on the same data before or after a change (%.12s…)", count(r.Rounds), r.Data))
	}
	t.body(io.out)
	if len(s.Runs) == 0 {
		return
	}
	io.say("")
	t = newTable("coordinator", "run", "member", ">rounds", ">epsilon", "noise", "last")
	for _, r := range s.Runs {
		t.add(r.Coordinator.Name, r.Run, strings.Join(r.Members, ", "), count(r.Rounds), inEpsilon(r.Epsilon), noiseOf(r), r.Last.Local().Format(time.DateTime))
	}
	t.write(io.out)
}

// noiseOf says how members are hidden in a run, and on whose word.
func noiseOf(r ledger.Run) string {
	var words []string
	for _, m := range r.Mechanisms {
		words = append(words, string(m))
	}
	switch r.Amplified {
	case 0:
	case r.Rounds:
		words = append(words, "by chance of being asked")
	default:
		words = append(words, fmt.Sprintf("%s rounds by chance of being asked", count(r.Amplified)))
	}
	for _, name := range r.Trusts {
		words = append(words, "trusts "+name+" for the noise")
	}
	return strings.Join(words, ", ")
}

func inEpsilon(e float64) string {
	if math.IsInf(e, 1) {
		return "unbounded"
	}
	return digits(e)
}

func left(s ledger.Summary) float64 { return max(0, s.Budget.Epsilon-s.Epsilon) }

// ledgerResult is the JSON form of what the command finds. An epsilon that nothing bounds is null.
type ledgerResult struct {
	Schema int         `json:"schema"`
	Dir    string      `json:"dir"`
	Data   []dataSpent `json:"data"`
}

type dataSpent struct {
	Digest     string         `json:"digest"`
	Labels     []string       `json:"labels"`
	File       string         `json:"file"`
	Head       string         `json:"head"`
	Delta      float64        `json:"delta"`
	Epsilon    *float64       `json:"epsilon"`
	Accountant string         `json:"accountant"`
	Rounds     int            `json:"rounds"`
	Budget     *ledger.Budget `json:"budget"`
	Left       *float64       `json:"left"` // at the budget's delta, if that is delta
	Runs       []runSpent     `json:"runs"`
	Relatives  []string       `json:"relatives"`
}

type runSpent struct {
	Coordinator ledger.Coordinator `json:"coordinator"`
	Run         string             `json:"run"`
	Members     []string           `json:"members"`
	Mechanisms  []string           `json:"mechanisms"`
	Trusts      []string           `json:"trusts"`
	Rounds      int                `json:"rounds"`
	Amplified   int                `json:"amplified"`
	Epsilon     *float64           `json:"epsilon"`
	First       time.Time          `json:"first"`
	Last        time.Time          `json:"last"`
}

func ledgerJSON(root string, found []ledger.Summary) ledgerResult {
	finite := func(e float64) *float64 {
		if math.IsInf(e, 1) {
			return nil
		}
		return &e
	}
	out := ledgerResult{Schema: schema, Dir: root, Data: []dataSpent{}}
	for _, s := range found {
		d := dataSpent{Digest: s.Data.String(), Labels: s.Labels, File: s.Path, Head: s.Head.Hash.String(), Delta: s.Delta, Epsilon: finite(s.Epsilon),
			Accountant: s.By.String(), Rounds: s.Rounds, Runs: []runSpent{}, Relatives: []string{}}
		if !s.Budget.None() {
			d.Budget = &s.Budget
			if s.Budget.Delta == s.Delta {
				d.Left = finite(left(s))
			}
		}
		for _, r := range s.Runs {
			one := runSpent{Coordinator: r.Coordinator, Run: r.Run, Members: r.Members, Mechanisms: []string{}, Trusts: append([]string{}, r.Trusts...),
				Rounds: r.Rounds, Amplified: r.Amplified, Epsilon: finite(r.Epsilon), First: r.First, Last: r.Last}
			for _, m := range r.Mechanisms {
				one.Mechanisms = append(one.Mechanisms, string(m))
			}
			d.Runs = append(d.Runs, one)
		}
		for _, r := range s.Relatives {
			d.Relatives = append(d.Relatives, r.Data.String())
		}
		out.Data = append(out.Data, d)
	}
	return out
}
