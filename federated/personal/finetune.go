package personal

import (
	"context"
	"fmt"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// FineTune is federated averaging whose members train the global model on for themselves before they use it:
//
//	w_k ← s epochs or steps of SGD on F_k from w
//
// on all layers, or on the last one while the others stay as they are. Nothing is kept and nothing more is sent; it is the yardstick
// of every method that gives members models of their own. The work comes at every test, and for all members: test seldom.
type FineTune struct {
	around
	Work Work
	Head bool // the last layer only
}

// NewFineTune returns FedAvg with fine-tuning for so many epochs.
func NewFineTune(p *federated.Problem, epochs int) *FineTune {
	a := &FineTune{around: newAround(p), Work: Work{Epochs: epochs}}
	a.avg.Personal = a.tuned
	return a
}

// Check implements [federated.Algorithm].
func (a *FineTune) Check(srv federated.Server) error {
	if err := a.avg.Check(srv); err != nil {
		return err
	}
	if err := a.Work.Validate(); err != nil {
		return fmt.Errorf("fine-tuning: %w", err)
	}
	return nil
}

// tuned is the personal model.
func (a *FineTune) tuned(ctx context.Context, at federated.Local, t federated.Task, _ *weights.Set) (federated.Own, error) {
	w := t.Sets["w"]
	if at.Train.Len() == 0 {
		return federated.Own{Weights: w}, nil
	}
	spec, err := a.avg.Spec("tune", a.avg.Rate, func(s *train.Spec) {
		if a.Head {
			s.Groups = []train.Group{{Match: func(p nn.Param) bool { return p.Head }, Optimizer: s.Optimizer}}
			s.Optimizer = nil
		}
	})
	if err != nil {
		return federated.Own{}, err
	}
	f := a.Work.fit(a.avg.Problem, at, t.Round)
	f.Random = at.Rand(t.Round, "personal")
	w, _, err = fit(ctx, at.Engine, spec, train.Options{}, w, f)
	if err != nil {
		return federated.Own{}, fmt.Errorf("fine-tuning the member's model: %w", err)
	}
	return federated.Own{Weights: w}, nil
}
