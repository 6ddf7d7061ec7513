package personalfr

import (
	"context"
	"errors"
	"fmt"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/weights"
)

// Joint trains one ARS model on the ratings of all users at one place: what a federation would reach if nothing had to stay where it
// is. A round is Training.Epochs passes; the state of the optimiser goes on from round to round.
type Joint struct{ *Algorithm }

// NewJoint returns joint training of a problem.
func NewJoint(p *federated.Problem, o Options) (*Joint, error) {
	o.Share, o.Compression = "all", "compute"
	a, err := New(p, o)
	return &Joint{a}, err
}

// Check implements [federated.Algorithm].
func (j *Joint) Check(srv federated.Server) error {
	if err := j.Algorithm.Check(srv); err != nil {
		return err
	}
	if srv.Train.Len() == 0 {
		return errors.New("joint training: the server has no ratings")
	}
	return nil
}

// Next implements [federated.Algorithm].
func (j *Joint) Next(s federated.State) (federated.Phase, bool) {
	switch {
	case s.Step == 0:
		return federated.Phase{Name: trains}, true
	case s.Step == 1 && j.Due(s.Round):
		return federated.Phase{Name: "test"}, true
	}
	return federated.Phase{}, false
}

// Summable returns nil: there is nothing to sum.
func (j *Joint) Summable() error { return nil }

// Unruled returns nil: a rule has nothing to do.
func (j *Joint) Unruled(federated.Rule) error { return nil }

// Task implements [federated.Algorithm]: nobody is asked for anything.
func (j *Joint) Task(federated.State, federated.Phase, federated.Member) (federated.Task, error) {
	return federated.Task{}, errors.New("joint training asks members for nothing")
}

// Finish trains or tests at the server.
func (j *Joint) Finish(ctx context.Context, srv federated.Server, s federated.State, p federated.Phase, _ map[string]*federated.Sum, _ federated.Roll) (federated.State, federated.Diagnostics, error) {
	var d federated.Diagnostics
	m, n, err := j.network()
	if err != nil {
		return s, d, err
	}
	at := federated.Local{Seed: srv.Seed, Train: srv.Train, Test: srv.Test}
	c := client{j.Algorithm}
	if p.Name == "test" {
		if srv.Test.Len() == 0 {
			return s, d, nil
		}
		predict, err := c.predictor(at, m, n, s.Sets["w"], nil)
		if err != nil {
			return s, d, err
		}
		j.tasting().Tell(&d, j.tasting().Measure(predict, srv.Train, srv.Test, n.items))
		return s, d, nil
	}
	var keep *weights.Set
	if kept, ok := s.Sets["kept"]; ok {
		keep = &kept
	}
	t := federated.Task{Phase: trains, Round: s.Round, Sets: map[string]weights.Set{"w": s.Sets["w"]}}
	r, err := c.train(ctx, at, t, keep)
	if err != nil {
		return s, d, fmt.Errorf("training on all ratings: %w", err)
	}
	acc := weights.NewAcc(s.Sets["w"], false)
	if err := acc.Add(r.Addends["w"], nil, nil, 1); err != nil {
		return s, d, err
	}
	s = s.With("w", acc.AddMean(s.Sets["w"])).With("kept", *r.Keep)
	s.Version++
	d.Add("loss.train", "", r.Scalars["train.loss"]/r.Scalars["train.examples"])
	return s, d, nil
}
