// Command heterofl runs a recipe of HeteroFL and prints what it measures, a JSON line a round, so that it can be laid beside
// peer.py, the same method as a plain PyTorch loop that shares no code with this module.
//
//	go run ./bench/heterofl -recipe bench/heterofl/cifar.yaml -seed 1
//
// With -trace it also writes everything that was drawn (partition, members, levels, order of batches, crops) and every
// global model, which is what "peer.py replay" needs to compute the same run again:
//
//	go run ./bench/heterofl -recipe bench/heterofl/trace-cnn.yaml -trace /tmp/trace
//	python3 bench/heterofl/peer.py replay /tmp/trace
//
// With -draws it trains on draws that the peer wrote ("peer.py train --write-draws DIR"): the same data, partition, initial
// weights, selection and levels, with batches in an order of its own.
//
// docs/results/heterofl-pytorch.md holds the results.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"math"
	"os"
	"os/signal"
	"time"

	"github.com/cohort-learning/cohort/federated/heterofl"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/weights"
)

func main() {
	var o options
	flag.StringVar(&o.recipe, "recipe", "", "recipe to run")
	flag.StringVar(&o.data, "data", os.Getenv("COHORT_DATA"), "folder of real data sets")
	flag.StringVar(&o.trace, "trace", "", "new folder to write what was drawn, and every global model, to")
	flag.StringVar(&o.draws, "draws", "", "folder with draws of the peer to use instead of those of the seed")
	flag.StringVar(&o.backend, "backend", "", "engine, instead of the recipe's")
	flag.Int64Var(&o.seed, "seed", -1, "seed, instead of the recipe's")
	flag.IntVar(&o.rounds, "rounds", 0, "rounds, instead of the recipe's")
	flag.StringVar(&o.mode, "mode", "", "mixture of levels, instead of the recipe's")
	flag.StringVar(&o.levels, "levels", "", "fixed or dynamic, instead of the recipe's")
	flag.StringVar(&o.mask, "mask", "", "zero or none, instead of the recipe's")
	flag.StringVar(&o.statistics, "statistics", "", "clients or pooled, instead of the recipe's")
	flag.BoolVar(&o.double, "float64", false, "compute in float64, which leaves no rounding to speak of")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := o.run(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "heterofl:", err)
		os.Exit(1)
	}
}

type options struct {
	recipe, data, trace, backend   string
	draws                          string
	mode, levels, mask, statistics string
	seed                           int64
	rounds                         int
	double                         bool
}

// load reads the recipe and applies the flags.
func (o *options) load() (*recipe.Recipe, error) {
	r, err := recipe.Load(o.recipe)
	if err != nil {
		return nil, err
	}
	h, ok := r.Options.(*heterofl.Options)
	if !ok {
		return nil, fmt.Errorf("%s is a recipe of %s, not of heterofl", o.recipe, r.Method)
	}
	for _, f := range []struct {
		to   *string
		from string
	}{
		{&h.Mode, o.mode}, {&h.Levels, o.levels}, {&h.Mask, o.mask}, {&r.Evaluate.Statistics, o.statistics}, {&r.Run.Engine, o.backend},
	} {
		if f.from != "" {
			*f.to = f.from
		}
	}
	if o.seed >= 0 {
		r.Seed = uint64(o.seed)
	}
	if o.rounds > 0 {
		r.Rounds = o.rounds
	}
	return r, nil
}

func (o *options) run(ctx context.Context) error {
	r, err := o.load()
	if err != nil {
		return err
	}
	plan, err := r.Plan(ctx, o.data)
	if err != nil {
		return err
	}
	if o.double {
		plan.Problem.DType = weights.Float64
	}
	var given *draws
	if o.draws != "" {
		if given, err = readDraws(o.draws); err != nil {
			return err
		}
		if err := given.deal(ctx, plan, o.data); err != nil {
			return err
		}
	}
	engine, info, err := r.Engine()
	if err != nil {
		return err
	}
	defer engine.Close()
	fmt.Fprintln(os.Stderr, "engine:", info)
	job, err := plan.Job(engine)
	if err != nil {
		return err
	}
	if given != nil {
		job.Algorithm = &directed{job.Algorithm, given}
	}
	print := &printer{out: json.NewEncoder(os.Stdout)}
	job.Observer = print
	began := time.Now()
	if o.trace != "" {
		err = trace(ctx, o.trace, o.data, plan, job, engine, print)
	} else {
		_, err = job.Run(ctx)
	}
	if err != nil {
		return err
	}
	return print.out.Encode(map[string]any{"seconds": round(time.Since(began).Seconds(), 2), "train_seconds": round(print.train.Seconds(), 2)})
}

// printer prints the rounds that were measured.
type printer struct {
	out   *json.Encoder
	total time.Duration
	train time.Duration
}

// Progress implements [simulation.Observer].
func (*printer) Progress(int, string, int, int) {}

// Round implements [simulation.Observer].
func (p *printer) Round(r simulation.Round) {
	p.total += r.Took
	for _, phase := range r.Phases {
		if phase.Phase == "train" {
			p.train += phase.Took
		}
	}
	line := map[string]any{"round": r.RoundClosed.Round + 1, "seconds": round(p.total.Seconds(), 2)}
	for name, metric := range map[string]string{"global": "accuracy", "local": "accuracy.local"} {
		if v := r.Metric(metric, ""); !math.IsNaN(v) {
			line[name] = round(100*v, 2)
		}
	}
	if len(line) > 2 {
		_ = p.out.Encode(line) // standard output that is gone ends the run elsewhere
	}
}

func round(x float64, digits int) float64 {
	p := math.Pow10(digits)
	return math.Round(x*p) / p
}
