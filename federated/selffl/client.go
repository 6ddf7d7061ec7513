package selffl

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/gomlx/core/graph"
)

// Client implements [federated.Algorithm].
func (a *Algorithm) Client() federated.Client { return client{a} }

type client struct{ *Algorithm }

// visit is one client's training in one round.
type visit struct {
	*Algorithm
	at     federated.Local
	t      federated.Task
	task   task
	level  federated.Task // the level's own task, with its parameters
	w      weights.Set    // what it received
	before memory
	known  bool // whether there is a before
}

// Run implements [federated.Client].
func (c client) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	if t.Phase != "train" {
		return c.Cycle.Run(ctx, at, t, keep)
	}
	if at.Train.Len() == 0 {
		return federated.Result{Status: federated.Abstained}, nil
	}
	told, err := c.readTask(t.Params)
	if err != nil {
		return federated.Result{}, err
	}
	v := &visit{Algorithm: c.Algorithm, at: at, t: t, task: told, w: t.Sets["w"]}
	v.level = t
	v.level.Params = v.task.Level
	if keep != nil {
		m, err := recall(keep, len(c.blocks))
		if err != nil {
			return federated.Result{}, err
		}
		if m.theta.Match(v.w) == nil { // else its level has changed
			v.before, v.known = m, true
		}
	}
	return v.run(ctx)
}

// setting is how the client trains: from where, how long, how fast.
type setting struct {
	init   weights.Set
	steps  int
	rates  []float64 // of each block, as plain SGD counts them
	capped bool
}

// setting decides it.
func (v *visit) setting() setting {
	rate := v.effective(v.Training.Rate.At(v.t.Round))
	fixed := func(init weights.Set, steps int) setting {
		return setting{init: init, steps: steps, rates: slices.Repeat([]float64{rate}, len(v.blocks))}
	}
	passes := (v.at.Train.Len() + v.batch() - 1) / v.batch()
	init, left := v.begin(v.w, v.t.Sets["n"], v.standing(), v.task)
	switch {
	case v.Steps > 0:
		return fixed(init, v.Steps)
	case left == nil:
		return fixed(init, passes)
	}
	most := v.Most
	if most == 0 {
		most = max(v.Least, 10*passes)
	}
	s := setting{init: init}
	for i, b := range left {
		d := Plan(b, v.before.h[i], rate, v.Least, most)
		s.steps, s.capped, s.rates = max(s.steps, d.Steps), s.capped || d.Capped, append(s.rates, d.Rate)
	}
	if len(s.rates) > 1 { // all take as many steps; those that need fewer go slower
		for i, b := range left {
			s.rates[i] = min(s.rates[i], -math.Expm1(math.Log(b)/float64(s.steps))/v.before.h[i])
		}
	}
	return s
}

// standing is where the client stands in what it received.
func (v *visit) standing() standing {
	s := standing{theta: v.before.theta, v: v.before.v, mass: v.before.mass, cover: v.before.cover}
	if v.Stale == Keep {
		s.mass, s.in = v.task.Own, v.task.Own != nil
	} else {
		s.in = v.known && v.before.round == v.task.Formed
	}
	return s
}

// batch is the number of examples of a step.
func (v *visit) batch() int {
	if b := v.Training.Batch; b > 0 {
		return min(b, v.at.Train.Len())
	}
	return v.at.Train.Len()
}

// curvature is h_m of a block as the round was planned with it: what was measured last, 1 at first.
func (v *visit) curvature(block int) float64 {
	if !v.known {
		return 1
	}
	return v.before.h[block]
}

// effective is the rate of plain SGD that moves as far as heavy-ball momentum does; factor is what the optimiser is given for it.
func (a *Algorithm) effective(rate float64) float64 { return rate / a.factor() }

func (a *Algorithm) factor() float64 {
	if o, ok := a.Training.Optimizer.(train.SGD); ok {
		return 1 - o.Momentum
	}
	return 1
}

// decay is the weight decay, which adds to the curvature.
func (a *Algorithm) decay() float64 {
	if o, ok := a.Training.Optimizer.(train.SGD); ok {
		return o.Decay
	}
	return 0
}

// spec returns the client's training step, with a factor for the gradient of every block where they differ.
func (v *visit) spec() (*train.Spec, federated.Assignment, error) {
	as := federated.Assignment{Rate: v.Rate, Scale: 0, Mask: train.NoMask}
	if v.levels != nil {
		var err error
		if as, err = v.levels.Assignment(v.level); err != nil {
			return nil, as, err
		}
	}
	spec, err := v.Spec("train", as.Rate, func(s *train.Spec) {
		s.Mask = as.Mask
		if v.levels != nil {
			s.Scale = as.Scale
		}
		if len(v.blocks) < 2 {
			return
		}
		decay := v.decay()
		for i := range v.blocks {
			s.Scalars = append(s.Scalars, scalarName(i))
		}
		s.Adjust = func(g *train.Adjust) {
			for i, b := range v.blocks {
				for _, n := range b.governed { // the optimiser adds the decay after this
					whole := graph.Add(g.Grads[n], graph.MulScalar(g.Params[n], decay))
					g.Grads[n] = graph.Sub(graph.Mul(whole, g.Scalars[scalarName(i)]), graph.MulScalar(g.Params[n], decay))
				}
			}
		}
	})
	return spec, as, err
}

func scalarName(block int) string { return fmt.Sprintf("rate%d", block) }

// run trains, measures and answers.
func (v *visit) run(ctx context.Context) (federated.Result, error) {
	set := v.setting()
	spec, as, err := v.spec()
	if err != nil {
		return federated.Result{}, err
	}
	mask, labels := v.at.Labels(v.model.Classes)
	o := train.Options{Scalars: map[string]float64{}}
	if as.Mask != train.NoMask {
		o.LabelMask = mask
	}
	fastest := slices.Max(set.rates)
	for i := range v.blocks {
		o.Scalars[scalarName(i)] = set.rates[i] / fastest
	}
	if len(v.blocks) < 2 {
		o.Scalars = nil
	}
	s, err := v.at.Engine.Begin(spec, set.init, o)
	if err != nil {
		return federated.Result{}, err
	}
	defer s.Close()
	f := &fitting{visit: v, session: s, setting: set, rate: fastest * v.factor()}
	next, err := f.fit(ctx)
	if err != nil || f.report.Steps == 0 { // every batch was too small
		return federated.Result{Status: federated.Abstained}, err
	}
	return v.reply(set, next, f.report, labels)
}

// reply makes the result of what was trained.
func (v *visit) reply(set setting, next memory, report train.Report, labels []int32) (federated.Result, error) {
	left := make([]float64, len(v.blocks))
	for i := range left {
		left[i] = Contraction(min(set.rates[i], largest/v.curvature(i)), v.curvature(i), report.Steps)
	}
	capped := 0.0
	if set.capped {
		capped = 1
	}
	r := federated.Result{Weight: 1, Scalars: federated.FitScalars(report), Addends: map[string]weights.Set{"w": next.theta.Sub(v.w)}}
	if v.Stale == Keep {
		r.Addends["uq"] = v.numbers(append(append(slices.Clone(next.v), left...), capped))
	} else {
		var a float64
		r.Weight, a = v.weight(v.task, next.v[0], v.at.Train.Len())
		next.mass = []float64{a}
		theta := next.theta
		if v.Unshrink {
			theta = pick(set.init, v.measured())
			theta = unshrunk(theta, pick(next.theta, v.measured()), left[0])
		}
		u := pick(theta, v.measured()).Sub(pick(v.w, v.measured()))
		norm := u.Norm()
		scaled := next.v[0] / v.task.Scale
		r.Addends["u"] = u
		r.Addends["uq"] = v.numbers([]float64{norm * norm / float64(u.Size()) / v.task.Scale, scaled, a, a * scaled, capped})
		if v.levels != nil {
			cover, err := v.levels.Covers(v.at, v.level)
			if err != nil {
				return r, err
			}
			r.Cover, next.cover = cover, covers(v.t.Index, cover, v.model)
		}
	}
	r.Keep = next.set()
	return r, nil
}

// covers returns a client's slice of the model with 1 where a cover holds, else 0.
func covers(ix, cover weights.Index, m *nn.Model) weights.Set {
	whole := m.Zeros(weights.Float32)
	ones := cover.Like(whole)
	for _, t := range ones.All() {
		for i := range t.Len() {
			t.SetAt(i, 1)
		}
	}
	cover.Scatter(whole, ones)
	return ix.Slice(whole)
}

// personal is the client's own model: what it trained last. Before it ever took part it is the global one, after a pass over
// the client's data if it has any.
func (a *Algorithm) personal(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Own, error) {
	if keep != nil {
		m, err := recall(keep, len(a.blocks))
		if err != nil || m.rate == a.Rate {
			return federated.Own{Weights: m.theta}, err
		}
		spec, err := a.Spec("own", m.rate, func(s *train.Spec) { s.Mask = a.Mask })
		return federated.Own{Weights: m.theta, Spec: spec}, err
	}
	w := t.Sets["w"]
	if at.Train.Len() == 0 {
		return federated.Own{Weights: w}, nil
	}
	spec, err := a.Spec("first", a.Rate, func(s *train.Spec) { s.Mask = a.Mask })
	if err != nil {
		return federated.Own{}, err
	}
	o := train.Options{}
	if a.Mask != train.NoMask {
		o.LabelMask, _ = at.Labels(a.model.Classes)
	}
	s, err := at.Engine.Begin(spec, w, o)
	if err != nil {
		return federated.Own{}, err
	}
	defer s.Close()
	fit := a.Fit(at, t.Round)
	fit.Epochs, fit.Steps = 1, 0
	if _, err := s.Fit(ctx, fit); err != nil {
		return federated.Own{}, err
	}
	w, err = s.Params()
	return federated.Own{Weights: w}, err
}

// rowsOf is a view of some rows of a client's data.
func (v *visit) rowsOf(rows []int32) dataset.View {
	return dataset.View{Data: v.at.Train.Data, Rows: rows}
}
