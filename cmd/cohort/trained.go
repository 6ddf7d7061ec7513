package main

import (
	"context"
	"os"
	"slices"

	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/train"
	"github.com/spf13/cobra"
)

// modelOptions are the flags of commands that use a trained model.
type modelOptions struct {
	engineOptions
	checkpoint string
	level      string
	json       bool
}

func (o *modelOptions) flags(c *cobra.Command) {
	o.engineOptions.flags(c)
	f := c.Flags()
	f.StringVar(&o.checkpoint, "checkpoint", "final", "which model of a run: final or best")
	f.StringVar(&o.level, "level", "", "the thin sub-network of this level, with statistics of its own")
	f.BoolVar(&o.json, "json", false, "print the result as JSON")
}

func (o *modelOptions) check() error {
	if which := []string{"final", "best"}; !slices.Contains(which, o.checkpoint) {
		return usagef("--checkpoint %s: expected final or best", o.checkpoint)
	}
	return o.engineOptions.check()
}

// open reads the model of a run or of an exported file, and thins it if a level is asked for.
func (o *modelOptions) open(ctx context.Context, name string) (*recipe.Trained, *train.Engine, error) {
	m, used, err := o.read(name)
	if err != nil {
		return nil, nil, err
	}
	if o.backend != "" {
		used = o.backend
	}
	b, err := backend.New(used, backend.Options{Threads: o.threads})
	if err != nil {
		return nil, nil, err
	}
	engine := train.NewEngine(b)
	if o.level != "" {
		if m, err = o.thin(ctx, m, engine); err != nil {
			engine.Close()
			return nil, nil, err
		}
	}
	return m, engine, nil
}

// read returns a model and the engine of its run.
func (o *modelOptions) read(name string) (*recipe.Trained, string, error) {
	if st, err := os.Stat(name); err == nil && st.Mode().IsRegular() {
		m, err := recipe.ReadTrained(name)
		return m, "", err
	}
	dir, err := findRun(name)
	if err != nil {
		return nil, "", err
	}
	meta, err := record.ReadMeta(dir)
	if err != nil {
		return nil, "", err
	}
	m, err := recipe.TrainedInRun(dir, o.checkpoint)
	if !slices.Contains(backend.Names(), meta.Engine) {
		meta.Engine = ""
	}
	return m, meta.Engine, err
}

func (o *modelOptions) thin(ctx context.Context, m *recipe.Trained, e *train.Engine) (*recipe.Trained, error) {
	if err := m.HasLevel(o.level); err != nil {
		return nil, usageError{err}
	}
	data, err := m.Card.Data(ctx, o.dataDir())
	if err != nil {
		return nil, err
	}
	return m.Thin(ctx, e, data.Train, o.level)
}
