package baselines

import (
	"context"
	"errors"
	"fmt"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// Centralised trains one model on all data at one place: what a federation would reach if nothing had to stay where it is.
// A round is Training.Epochs passes over the pooled data; nobody is asked for anything but evaluation. The pooled data are
// seen as they are stored, without the feature skew of a partition.
type Centralised struct{ federated.Cycle }

// NewCentralised returns centralised learning of a problem.
func NewCentralised(p *federated.Problem) *Centralised {
	return &Centralised{federated.Cycle{Problem: p, Rate: 1, Pooled: true}}
}

// Check implements [federated.Algorithm].
func (a *Centralised) Check(srv federated.Server) error {
	if err := a.Cycle.Check(srv); err != nil {
		return err
	}
	if srv.Train.Len() == 0 {
		return errors.New("centralised: the server has no training data")
	}
	return nil
}

// Init implements [federated.Algorithm].
func (a *Centralised) Init(_ context.Context, srv federated.Server) (federated.State, error) {
	w, err := a.Initial(srv.Seed, a.Rate)
	return federated.State{Sets: map[string]weights.Set{"w": w}}, err
}

// Next implements [federated.Algorithm].
func (a *Centralised) Next(s federated.State) (federated.Phase, bool) {
	if s.Step > 0 {
		return a.After(s, s.Step-1)
	}
	return federated.Phase{Name: "train"}, true
}

// Client implements [federated.Algorithm].
func (a *Centralised) Client() federated.Client { return centralClient{a} }

type centralClient struct{ *Centralised }

// Run answers the measuring phases.
func (c centralClient) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	return c.Cycle.Run(ctx, at, t, keep)
}

// Finish trains in the training phase.
func (a *Centralised) Finish(ctx context.Context, srv federated.Server, s federated.State, p federated.Phase, sums map[string]*federated.Sum, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	if p.Name != "train" {
		return a.Cycle.Finish(ctx, srv, s, p, sums, roll)
	}
	var d federated.Diagnostics
	spec, err := a.Spec("train", a.Rate, nil)
	if err != nil {
		return s, d, err
	}
	session, err := srv.Engine.Begin(spec, s.Sets["w"], train.Options{})
	if err != nil {
		return s, d, err
	}
	defer session.Close()
	fit := a.Fit(federated.Local{Train: srv.Train, Seed: srv.Seed}, s.Round)
	report, err := session.Fit(ctx, fit)
	if err != nil {
		return s, d, fmt.Errorf("training on the pooled data: %w", err)
	}
	w, err := session.Params()
	if err != nil {
		return s, d, err
	}
	d.Add("loss.train", "", report.Loss)
	s = s.With("w", w)
	s.Version++
	return s, d, nil
}
