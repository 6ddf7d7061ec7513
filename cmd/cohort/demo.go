package main

import (
	"context"
	"fmt"
	"time"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated/heterofl"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/spf13/cobra"
)

func newDemo(io streams, stop <-chan struct{}) *cobra.Command {
	var o runOptions
	c := &cobra.Command{
		Annotations: map[string]string{finishesRounds: roundUnderWay},
		Use:         "demo",
		Short:       "Watch a hundred unequal clients learn one model",
		Long: `Run HeteroFL on this machine: a hundred virtual clients of five levels of strength, the weakest with a sixteenth
of the width, learn to read characters that the program draws. Then run the same with the weakest level alone, to show
what learning together adds. It needs no files and no network, and leaves two runs with reports.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			return demo(cmd.Context(), io, stop, &o)
		},
	}
	o.flags(c)
	return c
}

// demoResult is what the two runs came to.
type demoResult struct {
	Schema   int     `json:"schema"`
	Together result  `json:"together"`
	Weakest  result  `json:"weakest"`
	Gain     float64 `json:"gain"` // of accuracy by learning together, a fraction of 1
}

func demo(ctx context.Context, io streams, stop <-chan struct{}, o *runOptions) error {
	if !o.json {
		io.tell(`A hundred simulated devices hold 100 images of characters each and share them with nobody. Twenty at a time
train what they can carry: a network (level a), or its leading half, quarter, eighth or sixteenth (b to e). The server
averages what comes back into one network for all. Then the same once more, as if all were as weak as the weakest.
`)
	}
	dir := newFolder("demo", time.Now())
	var out demoResult
	for _, part := range []struct {
		mode, dir string
		into      *result
	}{{"a1-b1-c1-d1-e1", dir, &out.Together}, {"e1", dir + "-weakest", &out.Weakest}} {
		r, err := demoRecipe(part.mode)
		if err != nil {
			return err
		}
		if r, err = recipe.Parse("demo", r.YAML(), o.set...); err != nil {
			return err
		}
		if err := o.apply(r); err != nil {
			return err
		}
		plan, engine, info, err := o.prepare(ctx, r)
		if err != nil {
			return err
		}
		x := &execution{io: io, stop: stop, plan: plan, engine: engine, info: info, dir: part.dir, quiet: o.quiet, data: o.data}
		if !o.quiet {
			io.note("levels %s, %d rounds, on %s", part.mode, r.Rounds, info)
		}
		*part.into, err = x.do(ctx)
		engine.Close()
		if err != nil {
			return err
		}
	}
	out.Schema, out.Gain = schema, out.Together.Metrics["accuracy"]-out.Weakest.Metrics["accuracy"]
	if o.json {
		return io.json(out)
	}
	out.print(io)
	return nil
}

func (d demoResult) print(io streams) {
	plotCurves(io, accuracyPlot, d.Together.curves["accuracy"].as("together"), d.Weakest.curves["accuracy"].as("weakest alone"))
	d.Together.printLevels(io)
	io.say("")
	io.tell(`Together they read %s of new characters right; if all had the weakest device's network, %s: learning together
gains %.0f points. The largest network has %.0f times the parameters of the smallest, and no image left its device.`,
		inPercent(d.Together.Metrics["accuracy"]), inPercent(d.Weakest.Metrics["accuracy"]), 100*d.Gain, d.Together.spread())
	io.say("\nreport   %s\nweakest  %s", d.Together.Report, d.Weakest.Report)
	io.say("\nGo on with\n  cohort init heterofl my.yaml   a recipe to play with, every field explained\n  cohort run my.yaml")
}

// spread is how many times larger the largest model is than the smallest.
func (r result) spread() float64 {
	first, last := r.Levels[0], r.Levels[len(r.Levels)-1]
	return float64(first.Params) / float64(last.Params)
}

// demoRecipe is the main job on built-in data.
func demoRecipe(mode string) (*recipe.Recipe, error) {
	r, err := recipe.Default("heterofl")
	if err != nil {
		return nil, err
	}
	options, ok := r.Options.(*heterofl.Options)
	if !ok {
		return nil, fmt.Errorf("unexpected options %T", r.Options)
	}
	options.Mode = mode
	r.Name = "demo"
	r.Rounds = 30
	r.Data = dataset.Spec{Name: "glyphs", Size: 16, Train: 10000, Test: 2000}
	r.Round.Fraction = 0.2
	r.Train.Optimizer.Rate = 0.1
	r.Train.Schedule = recipe.Schedule{Kind: "cosine", Min: 0.005}
	r.Evaluate.Every = 2
	return r, nil
}
