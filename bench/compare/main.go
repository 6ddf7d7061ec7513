// Command compare runs Cohort's CPU engine and a peer, PyTorch, on the same work in the same
// minutes and prints how they compare.
//
//	go run ./bench/compare                         # every row
//	go run ./bench/compare -quick                  # a selection, in under 50 seconds on two quiet cores
//	go run ./bench/compare -only 'conv.*bwd' -json
//	go run ./bench/compare -shapes random -seed 7  # thirty shapes that nobody has tuned for
//	go run ./bench/compare -memory                 # resident memory over a hundred training steps
//	go run ./bench/compare -into docs/results/engine.md  # also writes the table at its place there
//
// Each side is a process of its own with the same number of threads. For each row they take turns,
// at least five times; a row gives the median of each side and the median of the ratios, in which
// more than 1 means that ours is faster (or smaller). The column "best" is the ratio of the fastest
// single steps, which a busy machine disturbs least. The peer runs every convolution and
// convolutional network in both memory formats and keeps the faster one; its optimiser uses the
// multi-tensor form. Both sides go through their public interface: our products and convolutions are
// compiled graphs, our training steps are those of package train. A "first step" begins with weights
// and data in memory: it contains the engine's start, tracing, compiling and the step.
//
// A busy machine spoils the comparison, more so for the side whose threads wait for each other by
// spinning: the load before the start is printed with the results, with a warning if there was any.
//
// Exit status: 0 if every row was measured, 1 otherwise. With -quick, rows for which no time is left
// are listed and do not count as failures.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"regexp"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/bench"
	"github.com/cohort-learning/cohort/bench/peak"
)

// options are the command line.
type options struct {
	json    bool
	quick   bool
	only    *regexp.Regexp
	shapes  string
	seed    uint64
	threads int
	rounds  int
	python  string
	list    bool
	serve   bool
	memory  bool
	profile string
	into    string
}

func parse(args []string) (options, error) {
	var o options
	var only string
	f := flag.NewFlagSet("compare", flag.ContinueOnError)
	f.BoolVar(&o.json, "json", false, "print JSON instead of a table")
	f.BoolVar(&o.quick, "quick", false, "a selection of rows, measured for a shorter time")
	f.StringVar(&only, "only", "", "only rows whose name matches this regular `pattern`")
	f.StringVar(&o.shapes, "shapes", "standard", "standard or random")
	f.Uint64Var(&o.seed, "seed", 1, "draws the random shapes")
	f.IntVar(&o.threads, "threads", 2, "threads of each side")
	f.IntVar(&o.rounds, "rounds", 5, "how often the sides take turns in a row")
	f.StringVar(&o.python, "python", "python3", "the `interpreter` that has PyTorch")
	f.BoolVar(&o.list, "list", false, "print the names of the rows and end")
	f.BoolVar(&o.memory, "memory", false, "instead of times, resident memory over a hundred training steps")
	f.StringVar(&o.into, "into", "", "also put the table into this `document`, at the place with a comment that names the other flags")
	f.StringVar(&o.profile, "cpuprofile", "", "write a CPU profile of our side to this `file`")
	f.BoolVar(&o.serve, "serve", false, "serve our side on standard input and output (used by the command itself)")
	if err := f.Parse(args); err != nil {
		return o, err
	}
	if f.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", f.Arg(0))
	}
	if o.shapes != "standard" && o.shapes != "random" {
		return o, fmt.Errorf("-shapes %q: use standard or random", o.shapes)
	}
	if o.threads < 1 || o.rounds < 5 {
		return o, fmt.Errorf("-threads %d -rounds %d: need at least 1 and 5", o.threads, o.rounds)
	}
	if o.json && o.into != "" {
		return o, fmt.Errorf("-into wants the table, not -json")
	}
	var err error
	if o.only, err = regexp.Compile(only); err != nil {
		return o, fmt.Errorf("-only: %w", err)
	}
	return o, nil
}

// cases returns the rows that the options select.
func (o options) cases() []Case {
	all := standardCases()
	switch {
	case o.shapes == "random":
		all = randomCases(30, o.seed)
	case o.quick:
		all = quickCases()
	}
	var cs []Case
	for _, c := range all {
		if o.only.MatchString(c.Name) && (!o.memory || c.Kind == "train") {
			cs = append(cs, c)
		}
	}
	return cs
}

// window is how long a side runs in one turn, in seconds; it makes at least one step.
func (o options) window() float64 {
	if o.quick {
		return 0.03
	}
	return 0.2
}

// quickBudget is when a quick comparison stops to begin new rows.
const quickBudget = 40 * time.Second

func main() {
	if err := run(os.Args[1:]); err != nil && !errors.Is(err, flag.ErrHelp) {
		fmt.Fprintln(os.Stderr, "compare:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	o, err := parse(args)
	if err != nil {
		return err
	}
	if o.serve {
		return serve(os.Stdin, os.Stdout, o.profile)
	}
	cs := o.cases()
	if o.list {
		for _, c := range cs {
			fmt.Println(c.Name)
		}
		return nil
	}
	if len(cs) == 0 {
		return fmt.Errorf("no row matches %q: see -list", o.only)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt)
	defer cancel()
	var out io.Writer = os.Stdout
	var kept strings.Builder
	if o.into != "" {
		out = io.MultiWriter(out, &kept)
	}
	rep, err := measure(ctx, o, cs, out)
	if err != nil {
		return err
	}
	if o.json {
		enc := json.NewEncoder(os.Stdout)
		enc.SetIndent("", "  ")
		if err := enc.Encode(rep); err != nil {
			return err
		}
	} else {
		rep.summary(out)
	}
	if n := len(rep.Failed); n > 0 {
		return fmt.Errorf("%d of %d rows could not be measured; the first: %s", n, len(cs), rep.Failed[0])
	}
	if o.into != "" {
		return fillFile(o.into, o.marker(), kept.String())
	}
	return nil
}

// measure starts both sides, runs all cases, and prints their rows to out unless the report goes out as JSON.
func measure(ctx context.Context, o options, cs []Case, out io.Writer) (*report, error) {
	begin := time.Now()
	rep := &report{Schema: 1, Load: load(), Busy: busy(), CPU: cpuModel()}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	rep.PeakGFLOPS = peak.Measure(o.threads, 200*time.Millisecond) / 1e9
	ours, err := startSide(self, "-serve", "-cpuprofile", o.profile)
	if err != nil {
		return nil, err
	}
	defer ours.stop()
	peer, err := startSide(o.python, "-u", "-c", bench.Peer)
	if err != nil {
		return nil, fmt.Errorf("the peer needs Python with PyTorch (-python names the interpreter): %w", err)
	}
	defer peer.stop()
	for _, s := range []struct {
		side *side
		into *engine
	}{{ours, &rep.Ours}, {peer, &rep.Peer}} {
		r, err := s.side.ask(request{Op: "hello", Threads: o.threads})
		if err != nil {
			return nil, err
		}
		*s.into = engine{r.Name, r.Details}
	}
	if !o.json {
		rep.header(out)
	}
	for _, c := range cs {
		if ctx.Err() != nil {
			return nil, ctx.Err()
		}
		if o.quick && time.Since(begin) > quickBudget {
			rep.LeftOut = append(rep.LeftOut, c.Name)
			continue
		}
		contest := duel
		if o.memory {
			contest = memory
		}
		rows, err := contest(ours, peer, c, o)
		if err != nil {
			rep.Failed = append(rep.Failed, fmt.Sprintf("%s: %v", c.Name, err))
			fmt.Fprintln(os.Stderr, "compare:", rep.Failed[len(rep.Failed)-1])
			continue
		}
		rep.add(rows)
		if !o.json {
			rep.print(out, rows)
		}
	}
	return rep, nil
}

// calm is the pause between turns, in which waiting threads of the other side stop spinning.
const calm = 5 * time.Millisecond

// duel measures one case on both sides, in alternation.
func duel(ours, peer *side, c Case, o options) ([]row, error) {
	sides := []*side{ours, peer}
	var start [2]reply
	defer func() {
		for _, s := range sides {
			_, _ = s.ask(request{Op: "drop"}) // a side that is gone fails the next row
		}
	}()
	for i, s := range sides {
		var err error
		if start[i], err = s.ask(request{Op: "setup", Case: &c, Seconds: o.window()}); err != nil {
			return nil, err
		}
		time.Sleep(calm)
	}
	if start[0].Params != start[1].Params {
		return nil, fmt.Errorf("the models differ: %d parameters here, %d in the peer", start[0].Params, start[1].Params)
	}
	var times, best [2][]float64 // seconds a step: mean and fastest of each turn
	for round := range o.rounds {
		for turn := range 2 {
			i := (round + turn) % 2
			r, err := sides[i].ask(request{Op: "run", Seconds: o.window()})
			if err != nil {
				return nil, err
			}
			times[i] = append(times[i], r.Spent/float64(r.Steps))
			best[i] = append(best[i], r.Best)
			time.Sleep(calm)
		}
	}
	var end [2]reply
	for i, s := range sides {
		var err error
		if end[i], err = s.ask(request{Op: "memory"}); err != nil {
			return nil, err
		}
	}
	return rowsOf(c, times, best, start, end), nil
}

// memory runs a hundred steps on both sides, one after the other, and compares resident memory.
func memory(ours, peer *side, c Case, o options) ([]row, error) {
	const early, late = 10, 100
	var at10, at100 [2]reply
	for i, s := range []*side{ours, peer} {
		if _, err := s.ask(request{Op: "setup", Case: &c}); err != nil {
			return nil, err
		}
		for step := range late {
			if _, err := s.ask(request{Op: "run"}); err != nil {
				return nil, err
			}
			var err error
			switch step + 1 {
			case early:
				at10[i], err = s.ask(request{Op: "memory"})
			case late:
				at100[i], err = s.ask(request{Op: "memory"})
			}
			if err != nil {
				return nil, err
			}
		}
		if _, err := s.ask(request{Op: "drop"}); err != nil {
			return nil, err
		}
	}
	return []row{
		less(c, fmt.Sprintf("after %d steps", early), "MiB", at10[0].RSSMiB, at10[1].RSSMiB),
		less(c, fmt.Sprintf("after %d steps", late), "MiB", at100[0].RSSMiB, at100[1].RSSMiB),
		less(c, "peak", "MiB", at100[0].PeakMiB, at100[1].PeakMiB),
	}, nil
}
