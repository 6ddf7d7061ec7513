package personal

import (
	"context"
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/weights"
)

// Ditto (Li, Hu, Beirami, Smith, arXiv 2012.04221, algorithm 1) is federated averaging beside which every member trains a model
// v_k of its own, near the global one:
//
//	v_k ≈ argmin_v F_k(v) + λ/2·‖v − w‖²       s steps a round: v_k ← v_k − η_p(g(v_k) + λ(v_k − w))
//
// for the w that the member received, which stays the same in the round. The global part is FedAvg to the bit. With λ = 0
// members learn alone; the larger λ, the closer they keep to w, which also makes them robust to what others send.
//
// The paper starts v_k from the initial weights; here it starts from the w of the member's first visit, which is the same for
// those that take part in the first round. The authors' code lets both parts step on the same batch in turn; here the part of
// v_k follows, on the same batches in the same order.
type Ditto struct {
	around
	Lambda float64 // λ ≥ 0
	Work   Work    // on v_k
}

// NewDitto returns Ditto on a problem.
func NewDitto(p *federated.Problem, lambda float64) *Ditto {
	a := &Ditto{around: newAround(p), Lambda: lambda}
	a.avg.Personal = own
	return a
}

// Check implements [federated.Algorithm].
func (a *Ditto) Check(srv federated.Server) error {
	if err := a.avg.Check(srv); err != nil {
		return err
	}
	if !(a.Lambda >= 0) || math.IsInf(a.Lambda, 0) {
		return fmt.Errorf("ditto: lambda %g: need 0 or more", a.Lambda)
	}
	if err := a.Work.Validate(); err != nil {
		return fmt.Errorf("ditto: %w", err)
	}
	return nil
}

// Client implements [federated.Algorithm].
func (a *Ditto) Client() federated.Client { return dittoClient{a, a.avg.Client()} }

type dittoClient struct {
	*Ditto
	global federated.Client
}

// Run does the member's part of FedAvg and then moves its own model.
func (c dittoClient) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	r, err := c.global.Run(ctx, at, t, keep)
	if err != nil || t.Phase != "train" || r.Status != federated.Done {
		return r, err
	}
	spec, o, err := c.avg.Pulled(t.Sets["w"], c.Lambda)
	if err != nil {
		return r, err
	}
	v, _, err := fit(ctx, at.Engine, spec, o, started(keep, t), c.Work.fit(c.avg.Problem, at, t.Round))
	if err != nil {
		return r, fmt.Errorf("the member's own model: %w", err)
	}
	r.Keep = &v
	r.Begun(keep)
	return r, nil
}
