// Package scaffold is SCAFFOLD: federated averaging whose clients correct their drift with control variates
// (Karimireddy et al., arXiv 1910.06378, algorithm 1).
//
// The server keeps a control c, every client its own c_k, all 0 at first. In a round a selected client starts from y = w
// and makes τ steps
//
//	y ← y − η(g_k(y) − c_k + c)
//
// then renews its control: option II, the default, c_k⁺ = c_k − c + (w − y)/(τη), which is the mean of the raw gradients
// along the path and is computed as that mean, so that it stays right under clipping and a changing rate; option I,
// c_k⁺ = ∇F_k(w). It sends Δy = y − w and Δc = c_k⁺ − c_k. The server moves
//
//	w ← w + η_g/|S| Σ Δy        c ← c + 1/K Σ Δc      with K all clients, not only the selected ones.
//
// By default clients weigh alike, which is the objective of the paper, (1/K)ΣF_k. Weighted, both sums use p_k = n_k/Σn.
// Clients keep c_k between rounds; one that is lost starts at 0 again. Where rounds overlap, a stale Δy may be discounted,
// but Δc counts in full, so that c stays the mean of the c_k. Running statistics of batch norm have no control.
package scaffold

import (
	"context"
	"errors"
	"fmt"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/gomlx/core/graph"
)

// Algorithm is SCAFFOLD.
type Algorithm struct {
	federated.Cycle
	Rate     float64 // η_g; 0 means 1
	FullGrad bool    // option I
	Weighted bool    // weigh clients by their examples
}

// New returns SCAFFOLD on a problem.
func New(p *federated.Problem) *Algorithm {
	return &Algorithm{Cycle: federated.Cycle{Problem: p, Rate: 1}}
}

// Check implements [federated.Algorithm].
func (a *Algorithm) Check(srv federated.Server) error {
	if err := a.Cycle.Check(srv); err != nil {
		return err
	}
	if !(a.Rate >= 0) {
		return fmt.Errorf("scaffold: server rate %g is negative", a.Rate)
	}
	if a.Training.Optimizer == nil {
		return nil
	}
	o, ok := a.Training.Optimizer.(train.SGD)
	if !ok || o.Momentum != 0 {
		return errors.New("scaffold: control variates are for plain SGD; use optimizer sgd with momentum 0")
	}
	return nil
}

// Init implements [federated.Algorithm].
func (a *Algorithm) Init(_ context.Context, srv federated.Server) (federated.State, error) {
	w, err := a.Initial(srv.Seed, 1)
	if err != nil {
		return federated.State{}, err
	}
	c, err := a.controls(w)
	return federated.State{Sets: map[string]weights.Set{"w": w, "c": c}}, err
}

// controls returns zeros for the trained parameters: running statistics have no control.
func (a *Algorithm) controls(w weights.Set) (weights.Set, error) {
	m, err := a.Build(1)
	if err != nil {
		return weights.Set{}, err
	}
	return w.Filter(func(name string) bool {
		p, ok := m.Param(name)
		return ok && p.Trained()
	}).Zeros(), nil
}

// Next implements [federated.Algorithm].
func (a *Algorithm) Next(s federated.State) (federated.Phase, bool) {
	if s.Step > 0 {
		return a.After(s, s.Step-1)
	}
	return federated.Phase{Name: "train", Who: a.Select, Folds: []federated.Fold{
		{Name: "w", Like: s.Sets["w"]}, {Name: "c", Like: s.Sets["c"], Undiscounted: true},
	}}, true
}

// Task implements [federated.Algorithm].
func (a *Algorithm) Task(s federated.State, p federated.Phase, m federated.Member) (federated.Task, error) {
	if p.Name != "train" {
		return a.Cycle.Task(s, p, m)
	}
	return federated.Task{Sets: map[string]weights.Set{"w": s.Sets["w"], "c": s.Sets["c"]}}, nil
}

// Client implements [federated.Algorithm].
func (a *Algorithm) Client() federated.Client { return client{a} }

type client struct{ *Algorithm }

// Run makes the corrected steps and renews the client's control.
func (c client) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	if t.Phase != "train" {
		return c.Cycle.Run(ctx, at, t, keep)
	}
	if at.Train.Len() == 0 {
		return federated.Result{Status: federated.Abstained}, nil
	}
	w, control := t.Sets["w"], t.Sets["c"]
	own := control.Zeros()
	if keep != nil {
		own = *keep
	}
	spec, err := c.Spec("corrected", 1, func(s *train.Spec) {
		s.Extras, s.GradientSum = []string{"c", "own"}, true
		s.Adjust = func(a *train.Adjust) {
			for _, n := range a.Names {
				a.Grads[n] = graph.Add(graph.Sub(a.Grads[n], a.Extras["own"][n]), a.Extras["c"][n])
			}
		}
	})
	if err != nil {
		return federated.Result{}, err
	}
	s, err := at.Engine.Begin(spec, w, train.Options{Extras: map[string]weights.Set{"c": control, "own": own}})
	if err != nil {
		return federated.Result{}, err
	}
	defer s.Close()
	fit := c.Fit(at, t.Round)
	var renewed weights.Set
	if c.FullGrad {
		pass := train.Pass{Batch: fit.Batch, Augment: fit.Augment, Random: at.Rand(t.Round, "control"), SkipSmall: fit.SkipSmall}
		if _, renewed, err = s.Gradient(ctx, at.Train, pass); err != nil {
			return federated.Result{}, err
		}
	}
	report, err := s.Fit(ctx, fit)
	if err != nil {
		return federated.Result{}, err
	}
	if report.Steps == 0 {
		return federated.Result{Status: federated.Abstained}, nil
	}
	if !c.FullGrad {
		var steps int
		if renewed, steps, err = s.GradientSum(); err != nil {
			return federated.Result{}, err
		}
		renewed = renewed.Clone()
		renewed.Scale(1 / float64(steps))
	}
	trained, err := s.Params()
	if err != nil {
		return federated.Result{}, err
	}
	weight := uint64(1)
	if c.Weighted {
		weight = uint64(at.Train.Len())
	}
	return federated.Result{
		Weight: weight, Keep: &renewed, Scalars: federated.FitScalars(report),
		Addends: map[string]weights.Set{"w": trained.Sub(w), "c": renewed.Sub(own)},
	}, nil
}

// Finish implements [federated.Algorithm].
func (a *Algorithm) Finish(ctx context.Context, srv federated.Server, s federated.State, p federated.Phase, sums map[string]*federated.Sum, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	if p.Name != "train" {
		return a.Cycle.Finish(ctx, srv, s, p, sums, roll)
	}
	sum := sums[""]
	rate := a.Rate
	if rate == 0 {
		rate = 1
	}
	everyone := float64(srv.Population.Len())
	if a.Weighted {
		everyone = 0
		for i := range srv.Population.Len() {
			everyone += float64(srv.Population.Member(i).Samples)
		}
	}
	w := sum.Total["w"].Apply(s.Sets["w"], func(w, total, weight float64) float64 { return w + float64(rate*(total/weight)) })
	c := sum.Total["c"].Apply(s.Sets["c"], func(c, total, _ float64) float64 { return c + total/everyone })
	s = s.With("w", w).With("c", c)
	s.Version++
	var d federated.Diagnostics
	d.Training(sum)
	return s, d, nil
}
