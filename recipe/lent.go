package recipe

import (
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/simulation/worker"
)

// Lent says what a worker must know of the plan's run to make the same clients.
func (p *Plan) Lent() worker.Run {
	return worker.Run{Seed: p.Recipe.Seed, Recipe: p.Recipe.YAML(), Like: p.Split.Train, Start: p.Problem.Start}
}

// LentClients makes the clients of a run on a machine that is lent to it. The files that the recipe names lie with the
// simulation and are not read.
func LentClients(run worker.Run) (federated.Client, error) {
	r, err := Parse("recipe of the simulation", run.Recipe)
	if err != nil {
		return nil, err
	}
	if _, err := r.method(); err != nil {
		return nil, err
	}
	r.Seed, r.Model.From = run.Seed, ""
	p, err := r.problem(run.Like)
	if err != nil {
		return nil, r.place(err)
	}
	p.Start = run.Start
	a, err := r.algorithm(p)
	if err != nil {
		return nil, r.place(err)
	}
	return a.Client(), nil
}
