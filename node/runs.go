package node

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/node/coordinator"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/transport"
)

// hosted is a run of a host, with what it needs. Of one of organisations with columns of their own there is the run only.
type hosted struct {
	*coordinator.Run
	recipe *recipe.Recipe // nil: see among
	among  *sponsored
	plan   *recipe.ServerPlan
	engine *train.Engine
	info   backend.Info
}

// RunOptions say how a recipe is run over a network.
type RunOptions struct {
	ID      string // of the run and its folder; default the recipe's name or method
	Members int    // that must have agreed before the first round; default the recipe's number of clients
	Data    recipe.ServerData
	Command []string
	// Observer, if not nil, is told what happens.
	Observer simulation.Observer
	// FromLastGood passes over a damaged end of the journal.
	FromLastGood bool
}

// Runs is the folder of the host's runs.
func (b *Book) Runs() string { return b.path(runsName) }

// Start begins a run of a recipe, or goes on with the one in the folder of that name, which must be of the same recipe. Choices
// that the recipe leaves to where it runs are made in it.
func (h *Host) Start(ctx context.Context, r *recipe.Recipe, o RunOptions) (*coordinator.Run, error) {
	id := cmp.Or(o.ID, r.Name, r.Method)
	if err := checkRunName(id); err != nil {
		return nil, err
	}
	r.Remote()
	dir := filepath.Join(h.Runs(), id)
	resumed := false
	if _, err := os.Stat(filepath.Join(dir, record.MetaName)); err == nil {
		begun, err := recipe.OfRun(dir)
		if err != nil {
			return nil, err
		}
		if !begun.SameRun(r) {
			return nil, fmt.Errorf("run %s was begun with another recipe; --name gives this one another name", id)
		}
		resumed = true
	}
	plan, err := r.PlanServer(ctx, o.Data)
	if err != nil {
		return nil, err
	}
	alg, err := plan.Algorithm()
	if err != nil {
		return nil, err
	}
	engine, info, err := r.Engine()
	if err != nil {
		return nil, err
	}
	members := cmp.Or(o.Members, r.Partition.Clients)
	if err := plan.CheckMembers(ctx, members); err != nil {
		return nil, err
	}
	meta := record.Meta{ID: id, Engine: info.Engine, Kernels: info.Path, Threads: info.Threads, Cohort: h.o.Program, Command: o.Command}
	ro := record.Options{FromLastGood: o.FromLastGood}
	open := plan.Create
	if resumed {
		open = plan.Resume
	}
	rec, err := open(dir, meta, ro, members, 0)
	if err != nil {
		engine.Close()
		return nil, err
	}
	schema, err := json.Marshal(plan.Schema)
	if err != nil {
		engine.Close()
		return nil, errors.Join(err, rec.Close(record.Failed, err))
	}
	shown := newLiving(false)
	run, err := h.Server.Start(coordinator.Spec{
		ID: id, Recipe: r.YAML(), Schema: schema, Members: members, Algorithm: alg, Server: plan.Server(engine, nil),
		Config: plan.Config(), Metrics: federated.MeasuredBy(alg), Check: checkDeclaration, Observer: o.Observer,
		Changed: shown.poke,
	}, rec)
	if err != nil {
		engine.Close()
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.plans[id] = &hosted{Run: run, recipe: r, plan: plan, engine: engine, info: info}
	h.page.follow(shown, h.plans[id])
	return run, nil
}

// checkDeclaration compares what a member says of its data with the schema of the run.
func checkDeclaration(agreed json.RawMessage, c *transport.Consent) (json.RawMessage, error) {
	mine, err := dataset.ParseSchema(c.Schema)
	if err != nil {
		return nil, fmt.Errorf("the declaration of the data: %w", err)
	}
	if agreed == nil {
		return c.Schema, nil
	}
	theirs, err := dataset.ParseSchema(agreed)
	if err != nil {
		return nil, err
	}
	return agreed, theirs.Check(mine)
}
