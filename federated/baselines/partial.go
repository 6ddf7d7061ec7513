// Package baselines holds the yardsticks that every method is measured against: members who share a part of the model
// (FedBN, LG-FedAvg) or nothing (local-only), and one learner who has all the data (centralised).
package baselines

import (
	"context"
	"fmt"
	"sync"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// Partial is federated averaging of a part of the model. Each member keeps the rest to itself, from the common initial
// weights on, and tests its own mixture of both:
//
//   - FedBN (Li et al., arXiv 2102.07623) shares everything but the layers with batch statistics: [AllButBatchNorm].
//   - LG-FedAvg (Liang et al., arXiv 2001.01523) shares the last layers and keeps the representation: [LastLayer].
//   - Local-only shares nothing: [Nothing].
//
// Members train the whole model, starting from the initial weights, which they draw themselves from the run's seed; one
// whose memory is lost starts there again. There is no global model to test: members test their own mixtures, with
// statistics of their own data where layers need them. The authors of FedBN and of LG-FedAvg average alike; by default
// members weigh by their examples here, as in FedAvg (Uniform).
type Partial struct {
	federated.Cycle
	Shared  func(nn.Param) bool
	Uniform bool // weigh members alike instead of by their examples
	// Step returns what a member trains with, and Train trains it in a round. Those of NewPartial train all parameters together,
	// as the problem says.
	Step  func() (*train.Spec, error)
	Train func(ctx context.Context, at federated.Local, s *train.Session, round int) (train.Report, error)

	mu    sync.Mutex
	drawn bool // first is that of seed
	seed  uint64
	first weights.Set
}

// AllButBatchNorm shares all parameters except those of layers with batch statistics: γ, β and running values.
func AllButBatchNorm(p nn.Param) bool { return !p.BatchStats }

// LastLayer shares the last dense layer only.
func LastLayer(p nn.Param) bool { return p.Head }

// Nothing shares nothing.
func Nothing(nn.Param) bool { return false }

// NewPartial returns federated averaging of the parameters that shared accepts.
func NewPartial(p *federated.Problem, shared func(nn.Param) bool) *Partial {
	a := &Partial{Cycle: federated.Cycle{Problem: p, Rate: 1, Serverless: true}, Shared: shared}
	a.Step = func() (*train.Spec, error) { return a.Spec("train", a.Rate, nil) }
	a.Train = func(ctx context.Context, at federated.Local, s *train.Session, round int) (train.Report, error) {
		return s.Fit(ctx, a.Fit(at, round))
	}
	a.Personal = func(_ context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Own, error) {
		w, err := a.Mixture(at, t.Sets, keep)
		return federated.Own{Weights: w}, err
	}
	return a
}

// Init implements [federated.Algorithm].
func (a *Partial) Init(_ context.Context, srv federated.Server) (federated.State, error) {
	w, err := a.Initial(srv.Seed, a.Rate)
	if err != nil {
		return federated.State{}, err
	}
	shared, _, err := a.split(w)
	return federated.State{Sets: map[string]weights.Set{"w": shared}}, err
}

// split parts the weights of a whole model into what is shared and what is not.
func (a *Partial) split(w weights.Set) (shared, rest weights.Set, err error) {
	m, err := a.Build(a.Rate)
	if err != nil {
		return shared, rest, err
	}
	is := func(name string) bool {
		p, ok := m.Param(name)
		return ok && a.Shared(p)
	}
	return w.Filter(is), w.Filter(func(n string) bool { return !is(n) }), nil
}

// rest returns the initial values of what is not shared, the same at every member.
func (a *Partial) rest(seed uint64) (weights.Set, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.drawn && a.seed == seed {
		return a.first, nil
	}
	w, err := a.Initial(seed, a.Rate)
	if err != nil {
		return weights.Set{}, err
	}
	_, a.first, err = a.split(w)
	a.drawn, a.seed = err == nil, seed
	return a.first, err
}

// Mixture joins the shared part with a member's own, or with the initial rest at its first visit.
func (a *Partial) Mixture(at federated.Local, sets map[string]weights.Set, keep *weights.Set) (weights.Set, error) {
	m, err := a.Build(a.Rate)
	if err != nil {
		return weights.Set{}, err
	}
	var own weights.Set
	if keep != nil {
		own = *keep
	} else if own, err = a.rest(at.Seed); err != nil {
		return weights.Set{}, err
	}
	w := weights.NewSet(len(m.Params))
	for _, p := range m.Params {
		from := own
		if a.Shared(p) {
			from = sets["w"]
		}
		t, ok := from.Get(p.Name)
		if !ok {
			return w, fmt.Errorf("tensor %q is neither shared nor kept", p.Name)
		}
		w.Put(p.Name, t)
	}
	return w, nil
}

// Next implements [federated.Algorithm].
func (a *Partial) Next(s federated.State) (federated.Phase, bool) {
	if s.Step > 0 {
		return a.After(s, s.Step-1)
	}
	return federated.Phase{Name: "train", Who: a.Select, Folds: []federated.Fold{{Name: "w", Like: s.Sets["w"]}}}, true
}

// Task implements [federated.Algorithm]: only the shared part is sent.
func (a *Partial) Task(s federated.State, p federated.Phase, m federated.Member) (federated.Task, error) {
	if p.Name != "train" {
		return a.Cycle.Task(s, p, m)
	}
	return federated.Task{Sets: map[string]weights.Set{"w": s.Sets["w"]}}, nil
}

// Client implements [federated.Algorithm].
func (a *Partial) Client() federated.Client { return partialClient{a} }

type partialClient struct{ *Partial }

// Run trains the member's mixture, sends the change of the shared part and keeps the rest.
func (c partialClient) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	if t.Phase != "train" {
		return c.Cycle.Run(ctx, at, t, keep)
	}
	if at.Train.Len() == 0 {
		return federated.Result{Status: federated.Abstained}, nil
	}
	w, err := c.Mixture(at, t.Sets, keep)
	if err != nil {
		return federated.Result{}, err
	}
	spec, err := c.Step()
	if err != nil {
		return federated.Result{}, err
	}
	s, err := at.Engine.Begin(spec, w, train.Options{})
	if err != nil {
		return federated.Result{}, err
	}
	defer s.Close()
	report, err := c.Train(ctx, at, s, t.Round)
	if err != nil {
		return federated.Result{}, err
	}
	if report.Steps == 0 { // every batch was too small
		return federated.Result{Status: federated.Abstained}, nil
	}
	trained, err := s.Params()
	if err != nil {
		return federated.Result{}, err
	}
	shared, rest, err := c.split(trained)
	if err != nil {
		return federated.Result{}, err
	}
	weight := uint64(at.Train.Len())
	if c.Uniform {
		weight = 1
	}
	r := federated.Result{Weight: weight, Scalars: federated.FitScalars(report),
		Addends: map[string]weights.Set{"w": shared.Sub(t.Sets["w"])}}
	if rest.Len() > 0 {
		r.Keep = &rest
		r.Begun(keep)
	}
	return r, nil
}

// Finish implements [federated.Algorithm].
func (a *Partial) Finish(ctx context.Context, srv federated.Server, s federated.State, p federated.Phase, sums map[string]*federated.Sum, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	if p.Name != "train" {
		return a.Cycle.Finish(ctx, srv, s, p, sums, roll)
	}
	sum := sums[""]
	var d federated.Diagnostics
	d.Training(sum)
	d.Begun(sum)
	s = s.With("w", sum.Total["w"].AddMean(s.Sets["w"]))
	s.Version++
	return s, d, nil
}
