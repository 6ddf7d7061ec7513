package main

import (
	"context"
	"fmt"
	"time"

	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/train"
)

// dryRun says what a run would be and cost.
func dryRun(ctx context.Context, io streams, plan *recipe.Plan, engine *train.Engine, asJSON bool) error {
	e, err := plan.Estimate(ctx, engine)
	if err != nil {
		return err
	}
	if asJSON {
		return io.json(struct {
			Schema int    `json:"schema"`
			Method string `json:"method"`
			*recipe.Estimate
			Settings []recipe.Setting `json:"settings"`
		}{schema, plan.Recipe.Method, e, plan.Recipe.Settings()})
	}
	settings := newTable("", "")
	for _, s := range plan.Recipe.Settings() {
		settings.add(s.Field, s.Value)
	}
	settings.body(io.out)
	io.say("")
	t := newTable("level", ">width", ">parameters", ">a round", ">FLOPs", ">up", ">down", ">a step")
	for _, l := range e.Levels {
		name := l.Name
		if name == "" {
			name = "all"
		}
		t.add(name, fmt.Sprintf("%g", l.Rate), count(l.Params), fmt.Sprintf("%.3g", l.Expected),
			inFLOPs(l.FLOPs), inBytes(l.Up), inBytes(l.Down), seconds(l.Step))
	}
	t.write(io.out)
	io.say("")
	sum := newTable("", ">")
	sum.add("clients a round", count(e.Cohort))
	sum.add("training, a round", inFLOPs(e.FLOPs))
	sum.add("sent up, a round", inBytes(e.Up))
	sum.add("sent down, a round", inBytes(e.Down))
	sum.add("an evaluation, both ways", inBytes(e.Measured))
	if e.Protocol > 0 {
		sum.add("keys, shares and lists, a round", inBytes(e.Protocol))
		sum.add("masking, a round, about", seconds(e.Masking))
	}
	sum.add("memory, about", inBytes(float64(e.Memory)))
	sum.add("a round, about", seconds(e.Round))
	sum.add(fmt.Sprintf("%d rounds, about", e.Rounds), seconds(e.Seconds))
	sum.body(io.out)
	return nil
}

// seconds writes a time with the unit that suits it.
func seconds(s float64) string {
	d := time.Duration(s * float64(time.Second))
	switch {
	case d >= time.Minute:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(10 * time.Microsecond).String()
	}
	return d.Round(100 * time.Nanosecond).String()
}
