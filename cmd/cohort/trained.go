package main

import (
	"context"
	"fmt"
	"os"
	"slices"

	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/node/coordinator"
	"github.com/cohort-learning/cohort/node/member"
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
	client     string
	member     string
	json       bool
}

func (o *modelOptions) flags(c *cobra.Command) {
	o.engineOptions.flags(c)
	f := c.Flags()
	f.StringVar(&o.checkpoint, "checkpoint", "final", "which model of a run: final or best")
	f.StringVar(&o.level, "level", "", "the thin sub-network of this level, with statistics of its own")
	f.StringVar(&o.client, "client", "", "of a simulated run, this client's own model instead of the global one, such as client-000")
	f.StringVar(&o.member, "member", "", "folder of a member of a run over a network: the model that the member uses of its own")
	f.BoolVar(&o.json, "json", false, "print the result as JSON")
}

func (o *modelOptions) check() error {
	if which := []string{"final", "best"}; !slices.Contains(which, o.checkpoint) {
		return usagef("--checkpoint %s: expected final or best", o.checkpoint)
	}
	if o.client != "" && o.level != "" {
		return usagef("give --client or --level, not both: a client's own model is as wide as it is")
	}
	if o.client != "" && o.checkpoint != "final" {
		return usagef("--checkpoint %s holds the global model alone: leave it out to have the client's own of the last round", o.checkpoint)
	}
	if o.member != "" && (o.client != "" || o.level != "" || o.checkpoint != "final") {
		return usagef("--member asks for a member's own model of the last round: leave out --client, --level and --checkpoint")
	}
	return o.engineOptions.check()
}

// open reads the model of a run or of an exported file, and thins it if a level is asked for.
func (o *modelOptions) open(ctx context.Context, name string) (*recipe.Trained, *train.Engine, error) {
	if o.member != "" {
		return o.joined(ctx, name)
	}
	read := o.read
	if o.client != "" {
		read = o.runOf
	}
	m, used, err := read(name)
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
	if o.client != "" {
		dir, err := findRun(name)
		if err == nil {
			m, err = recipe.OwnInRun(ctx, engine, dir, o.client, o.dataDir())
		}
		if err != nil {
			engine.Close()
			return nil, nil, err
		}
	}
	if o.level != "" {
		if m, err = o.thin(ctx, m, engine); err != nil {
			engine.Close()
			return nil, nil, err
		}
	}
	return m, engine, nil
}

// joined makes the model that a member of a run over a network uses of its own.
func (o *modelOptions) joined(ctx context.Context, name string) (*recipe.Trained, *train.Engine, error) {
	j, err := member.ReadJoined(ctx, o.member, name)
	if err != nil {
		return nil, nil, err
	}
	b, err := backend.New(o.backend, backend.Options{Threads: o.threads})
	if err != nil {
		return nil, nil, err
	}
	engine := train.NewEngine(b)
	m, err := j.Own(ctx, engine)
	if err != nil {
		engine.Close()
		return nil, nil, err
	}
	return m, engine, nil
}

// runOf returns the engine of a run whose client's model is to be read, which needs one. Clients of a run over a network keep theirs.
func (o *modelOptions) runOf(name string) (*recipe.Trained, string, error) {
	dir, err := findRun(name)
	if err != nil {
		return nil, "", err
	}
	attendance, err := coordinator.ReadAttendance(dir)
	if err != nil {
		return nil, "", err
	}
	if len(attendance.Names) > 0 {
		return nil, "", fmt.Errorf("%s is a run over a network: %s and the others have their own models in their own folders, and nobody else has them; there, --member asks for it",
			name, attendance.Names[0])
	}
	meta, err := record.ReadMeta(dir)
	if !slices.Contains(backend.Names(), meta.Engine) {
		meta.Engine = ""
	}
	return nil, meta.Engine, err
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
