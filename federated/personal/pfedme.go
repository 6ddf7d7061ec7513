package personal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedavg"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// PFedMe (Dinh, Tran, Nguyen, arXiv 2006.08848, algorithm 1) minimises Σ p_k min_θ F_k(θ) + λ/2·‖θ − w‖², in which θ_k is the
// member's own model. From y = w and θ = w, R times, each on a fresh batch b:
//
//	K times:  θ ← θ − η_p(g(θ; b) + λ(θ − y))
//	          y ← y − ηλ(y − θ)
//
// R is the local steps, or those of the local epochs, and η the learning rate of the problem. θ goes on where it was. The server
// moves w ← (1 − β)w + β Σ p_k y_k over those that answered. A member keeps θ.
//
// Both steps must shrink: ηλ < 1 and η_p·λ < 2 are checked (η_p(L + λ) < 2 is what is needed for gradients that change at most
// L-fold, which nobody knows beforehand). The authors' code decays weights in the inner loop (here: weight decay of the problem, 0
// where none is asked for) and lets everybody train, also those whose y is not averaged: All.
type PFedMe struct {
	around
	Lambda  float64 // λ > 0
	Rate    float64 // η_p > 0
	Inner   int     // K ≥ 1
	Average float64 // β > 0; 0: 1
	// All has those that were not drawn train θ, too, from the w of the round's beginning; a phase of its own.
	All bool
}

// NewPFedMe returns pFedMe on a problem with the authors' λ = 15, η_p = 0.05 and K = 5.
func NewPFedMe(p *federated.Problem) *PFedMe {
	a := &PFedMe{around: newAround(p), Lambda: 15, Rate: 0.05, Inner: 5}
	a.avg.Personal = own
	a.avg.Rule = relaxed{&a.Average}
	return a
}

// relaxed is the rule w ← w + βΔ.
type relaxed struct{ beta *float64 }

// Init implements [fedavg.Rule].
func (relaxed) Init(weights.Set) map[string]weights.Set { return nil }

// Move implements [fedavg.Rule].
func (r relaxed) Move(sets map[string]weights.Set, averaged, delta weights.Set) map[string]weights.Set {
	if *r.beta == 0 || *r.beta == 1 {
		return map[string]weights.Set{"w": averaged}
	}
	return map[string]weights.Set{"w": sets["w"].Map(delta, func(w, d float64) float64 { return w + float64(*r.beta*d) })}
}

// Validate implements [fedavg.Rule].
func (r relaxed) Validate() error {
	if !(*r.beta >= 0) || math.IsInf(*r.beta, 0) {
		return fmt.Errorf("pfedme: beta %g: need more than 0", *r.beta)
	}
	return nil
}

var _ fedavg.Rule = relaxed{}

// Check implements [federated.Algorithm].
func (a *PFedMe) Check(srv federated.Server) error {
	if err := a.avg.Check(srv); err != nil {
		return err
	}
	switch {
	case !(a.Lambda > 0) || math.IsInf(a.Lambda, 0):
		return fmt.Errorf("pfedme: lambda %g: need more than 0", a.Lambda)
	case !(a.Rate > 0) || math.IsInf(a.Rate, 0):
		return fmt.Errorf("pfedme: learning rate %g of the own model: need more than 0", a.Rate)
	case a.Inner < 1:
		return fmt.Errorf("pfedme: %d steps a batch on the own model: need at least 1", a.Inner)
	case a.Rate*a.Lambda >= 2:
		return fmt.Errorf("pfedme: the own model diverges: its rate %g times lambda %g is %g, need less than 2", a.Rate, a.Lambda, a.Rate*a.Lambda)
	}
	for round := range a.avg.Rounds {
		if eta := a.avg.Training.Rate.At(round); eta*a.Lambda >= 1 {
			return fmt.Errorf("pfedme: the global model diverges: the learning rate %g of round %d times lambda %g is %g, need less than 1",
				eta, round, a.Lambda, eta*a.Lambda)
		}
	}
	return a.plain("pfedme")
}

const (
	others  = "personal"      // the phase in which those train that were not drawn
	drawnAt = "pfedme/drawn"  // State.Attached: who was folded
	before  = "pfedme.before" // State.Sets: w at the round's beginning
)

// drawn is who took part in the training of a round.
type drawn struct {
	Round   int               `json:"round"`
	Members federated.Indices `json:"members"`
}

// missed returns the members that took no part in the round's training. Where nobody did, nothing says who was drawn.
func missed(s federated.State) (eligible func(federated.Member) bool, w weights.Set) {
	var d drawn
	if err := json.Unmarshal(s.Attached[drawnAt], &d); err != nil || d.Round != s.Round {
		return nil, s.Sets["w"]
	}
	return func(m federated.Member) bool {
		_, was := slices.BinarySearch(d.Members, m.Index)
		return !was
	}, s.Sets[before]
}

// Next implements [federated.Algorithm].
func (a *PFedMe) Next(s federated.State) (federated.Phase, bool) {
	if a.All && s.Step == 1 {
		eligible, _ := missed(s)
		return federated.Phase{Name: others, Who: federated.Selection{Everyone: true, Eligible: eligible}, Barrier: true}, true
	}
	if a.All && s.Step > 1 {
		s.Step--
	}
	return a.avg.Next(s)
}

// Task implements [federated.Algorithm].
func (a *PFedMe) Task(s federated.State, p federated.Phase, m federated.Member) (federated.Task, error) {
	if p.Name == others {
		_, w := missed(s)
		return federated.Task{Sets: map[string]weights.Set{"w": w}}, nil
	}
	return a.avg.Task(s, p, m)
}

// Finish implements [federated.Algorithm].
func (a *PFedMe) Finish(ctx context.Context, srv federated.Server, s federated.State, p federated.Phase, sums map[string]*federated.Sum, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	if p.Name == others {
		var d federated.Diagnostics
		d.Begun(sums[""])
		return s, d, nil
	}
	old := s.Sets["w"]
	s, d, err := a.around.Finish(ctx, srv, s, p, sums, roll)
	if err != nil || !a.All || p.Name != "train" {
		return s, d, err
	}
	now := drawn{Round: s.Round}
	for _, f := range roll.Folded {
		now.Members = append(now.Members, f.Member)
	}
	b, err := json.Marshal(now)
	return s.With(before, old).Attach(drawnAt, b), d, err
}

// Client implements [federated.Algorithm].
func (a *PFedMe) Client() federated.Client { return pfedmeClient{a, a.avg.Client()} }

type pfedmeClient struct {
	*PFedMe
	global federated.Client
}

// Run moves θ and y. In the phase of the others it only keeps θ.
func (c pfedmeClient) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	if t.Phase != "train" && t.Phase != others {
		return c.global.Run(ctx, at, t, keep)
	}
	if at.Train.Len() == 0 {
		return federated.Result{Status: federated.Abstained}, nil
	}
	y, theta, report, err := c.move(ctx, at, t)
	if errors.Is(err, errNoBatch) {
		return federated.Result{Status: federated.Abstained}, nil
	}
	if err != nil {
		return federated.Result{}, err
	}
	r := federated.Result{Scalars: federated.FitScalars(report)}
	if t.Phase == "train" {
		if r, err = c.avg.Reply(t, federated.Trained{Weights: y, Examples: uint64(at.Train.Len()), Report: report}); err != nil {
			return r, err
		}
	}
	r.Keep = &theta
	r.Begun(keep)
	return r, nil
}

// move returns y and θ at the end of a round.
func (c pfedmeClient) move(ctx context.Context, at federated.Local, t federated.Task) (y, theta weights.Set, total train.Report, err error) {
	y = t.Sets["w"].Clone()
	spec, o, err := c.avg.Pulled(y, c.Lambda)
	if err != nil {
		return y, theta, total, err
	}
	s, err := at.Engine.Begin(spec, y, o)
	if err != nil {
		return y, theta, total, err
	}
	defer s.Close()
	f := c.avg.Fit(at, t.Round)
	h, eta := deal(spec, f), f.Rate.At(0)
	for range h.steps() {
		batch, err := h.next()
		if err != nil {
			return y, theta, total, err
		}
		batch.Epochs, batch.Rate = c.Inner, train.Constant(c.Rate)
		report, err := s.Fit(ctx, batch)
		if err != nil {
			return y, theta, total, err
		}
		total.Steps += report.Steps
		total.Examples += report.Examples
		total.Loss += report.Loss * float64(report.Examples)
		total.Last = report.Last
		if theta, err = s.Params(); err != nil {
			return y, theta, total, err
		}
		y = y.Map(theta, func(y, th float64) float64 { return y - float64(eta*c.Lambda*(y-th)) })
		if err := s.SetExtra(federated.Anchor, y); err != nil {
			return y, theta, total, err
		}
	}
	total.Loss /= float64(total.Examples)
	for _, p := range spec.Model.Params { // running statistics are not pulled
		if !p.Trained() {
			y.Put(p.Name, theta.Must(p.Name))
		}
	}
	return y, theta, total, nil
}
