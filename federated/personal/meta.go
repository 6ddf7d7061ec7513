package personal

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// Curvature is how Per-FedAvg treats the second derivative in the gradient of its objective.
type Curvature string

// The ways.
const (
	FirstOrder Curvature = "first-order" // leave it out: FO
	Difference Curvature = "difference"  // the difference of two gradients: HF
	Exact      Curvature = "exact"       // differentiate twice; not through convolutions and pooling
)

// PerFedAvg (Fallah, Mokhtari, Ozdaglar, arXiv 2002.07948, algorithm 1 and section 5) looks for a model that one step of gradient
// descent makes good for each member: the minimum of Σ p_k F_k(w − α∇F_k(w)). A local step takes independent batches D, D', D”:
//
//	w̃ = w − α g(w; D)        d = g(w̃; D')        w ← w − β·G
//
//	G = d                                                              FirstOrder (FO)
//	G = d − α [g(w + δd; D'') − g(w − δd; D'')] / 2δ                   Difference (HF)
//	G = d − α ∇²F_k(w; D'')·d                                          Exact
//
// where δ is divided by ‖d‖ if that is above 1. Results are averaged as in FedAvg; β is the learning rate of the problem. A
// member's own model is w after one step of rate α on a batch of its data, or Epochs passes over them; nothing is kept.
//
// The three batches of a step follow each other in the member's passes, and a round makes as many steps as one of FedAvg: it
// goes two or three times over the data. Gradients are clipped as G, not one by one.
type PerFedAvg struct {
	around
	Alpha     float64 // α ≥ 0
	Curvature Curvature
	Delta     float64 // δ of Difference; 0: 1e-3
	Epochs    int     // passes that make a member's own model; 0: one step
}

// NewPerFedAvg returns Per-FedAvg on a problem.
func NewPerFedAvg(p *federated.Problem, alpha float64, c Curvature) *PerFedAvg {
	a := &PerFedAvg{around: newAround(p), Alpha: alpha, Curvature: c}
	a.avg.Personal = a.adapted
	return a
}

// Check implements [federated.Algorithm].
func (a *PerFedAvg) Check(srv federated.Server) error {
	if err := a.avg.Check(srv); err != nil {
		return err
	}
	switch {
	case !(a.Alpha >= 0) || math.IsInf(a.Alpha, 0):
		return fmt.Errorf("per-fedavg: alpha %g: need 0 or more", a.Alpha)
	case !(a.Delta >= 0) || math.IsInf(a.Delta, 0):
		return fmt.Errorf("per-fedavg: delta %g: need more than 0, or 0 for 1e-3", a.Delta)
	case a.Epochs < 0:
		return fmt.Errorf("per-fedavg: %d epochs make a model personal: need 0, for one step, or more", a.Epochs)
	case a.Curvature != FirstOrder && a.Curvature != Difference && a.Curvature != Exact:
		return fmt.Errorf("per-fedavg: curvature %q: need %s, %s or %s", a.Curvature, FirstOrder, Difference, Exact)
	}
	return errors.Join(a.plain("per-fedavg"), a.unbuffered("per-fedavg"))
}

// inner returns the step of w̃: plain, of the loss alone.
func (a *PerFedAvg) inner() (*train.Spec, error) {
	return a.avg.Spec("inner", a.avg.Rate, func(s *train.Spec) { s.Optimizer, s.Clip = train.SGD{}, 0 })
}

// adapted is the personal model.
func (a *PerFedAvg) adapted(ctx context.Context, at federated.Local, t federated.Task, _ *weights.Set) (federated.Own, error) {
	w := t.Sets["w"]
	if at.Train.Len() == 0 {
		return federated.Own{Weights: w}, nil
	}
	spec, err := a.inner()
	if err != nil {
		return federated.Own{}, err
	}
	f := a.avg.Fit(at, t.Round)
	f.Random, f.Rate, f.SkipSmall = at.Rand(t.Round, "personal"), train.Constant(a.Alpha), true
	f.Epochs, f.Steps = a.Epochs, 0
	if a.Epochs == 0 {
		f.Steps = 1
	}
	w, _, err = fit(ctx, at.Engine, spec, train.Options{}, w, f)
	return federated.Own{Weights: w}, err
}

// Client implements [federated.Algorithm].
func (a *PerFedAvg) Client() federated.Client { return metaClient{a, a.avg.Client()} }

type metaClient struct {
	*PerFedAvg
	global federated.Client
}

// Run makes the member's steps.
func (c metaClient) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	if t.Phase != "train" {
		return c.global.Run(ctx, at, t, keep)
	}
	if at.Train.Len() == 0 {
		return federated.Result{Status: federated.Abstained}, nil
	}
	m, err := c.begin(at, t)
	if err != nil {
		return federated.Result{}, err
	}
	defer m.close()
	var report train.Report
	for range m.hand.steps() {
		loss, n, err := m.step(ctx)
		if errors.Is(err, errNoBatch) {
			return federated.Result{Status: federated.Abstained}, nil
		}
		if err != nil {
			return federated.Result{}, err
		}
		report.Steps++
		report.Examples += n
		report.Loss += loss * float64(n)
		report.Last = loss
	}
	report.Loss /= float64(report.Examples)
	w, err := m.outer.Params()
	if err != nil {
		return federated.Result{}, err
	}
	return c.avg.Reply(t, federated.Trained{Weights: w, Examples: uint64(at.Train.Len()), Report: report})
}

// meta is a member at work on Per-FedAvg's steps.
type meta struct {
	*PerFedAvg
	hand  *hand
	rate  float64        // β
	outer *train.Session // at w
	inner *train.Session // anywhere else
}

func (c metaClient) begin(at federated.Local, t federated.Task) (*meta, error) {
	spec, err := c.avg.Spec("train", c.avg.Rate, nil)
	if err != nil {
		return nil, err
	}
	inner, err := c.PerFedAvg.inner()
	if err != nil {
		return nil, err
	}
	f := c.avg.Fit(at, t.Round)
	m := &meta{PerFedAvg: c.PerFedAvg, hand: deal(spec, f), rate: f.Rate.At(0)}
	if m.outer, err = at.Engine.Begin(spec, t.Sets["w"], train.Options{}); err != nil {
		return nil, err
	}
	if m.inner, err = at.Engine.Begin(inner, t.Sets["w"], train.Options{}); err != nil {
		m.outer.Close()
		return nil, err
	}
	return m, nil
}

func (m *meta) close() {
	m.outer.Close()
	m.inner.Close()
}

// step makes one step and returns the loss at w̃ and how many examples it is of.
func (m *meta) step(ctx context.Context) (loss float64, examples int, err error) {
	w, err := m.outer.Params()
	if err != nil {
		return 0, 0, err
	}
	if err := m.inner.SetParams(w); err != nil {
		return 0, 0, err
	}
	batch, err := m.hand.next()
	if err != nil {
		return 0, 0, err
	}
	batch.Rate = train.Constant(m.Alpha)
	if _, err := m.inner.Fit(ctx, batch); err != nil { // w̃
		return 0, 0, err
	}
	if batch, err = m.hand.next(); err != nil {
		return 0, 0, err
	}
	loss, d, err := gradient(ctx, m.inner, batch)
	if err != nil {
		return 0, 0, err
	}
	if loss-loss != 0 {
		return 0, 0, &train.NonFiniteError{Model: "per-fedavg", Step: m.outer.Steps() + 1, Loss: loss}
	}
	g := d
	if m.Curvature != FirstOrder && m.Alpha > 0 {
		h, err := m.curve(ctx, w, d)
		if err != nil {
			return 0, 0, err
		}
		g = d.Clone()
		g.AddScaled(-m.Alpha, h)
	}
	return loss, batch.Data.Len(), m.outer.Descend(g, m.rate)
}

// curve returns ∇²F_k(w; D”)·d for the next batch D”.
func (m *meta) curve(ctx context.Context, w, d weights.Set) (weights.Set, error) {
	batch, err := m.hand.next()
	if err != nil {
		return d, err
	}
	if m.Curvature == Exact {
		if err := m.inner.SetParams(w); err != nil {
			return d, err
		}
		return m.inner.Curvature(ctx, batch.Data, train.Pass{Augment: batch.Augment, Random: batch.Random}, d)
	}
	delta := m.Delta
	if delta == 0 {
		delta = 1e-3
	}
	delta /= max(1, d.Norm())
	var ends [2]weights.Set
	for i, sign := range []float64{1, -1} {
		x := w.Clone()
		x.AddScaled(sign*delta, d)
		if err := m.inner.SetParams(x); err != nil {
			return d, err
		}
		again := batch
		if batch.Random != nil { // the same draws on both sides
			again.Random = batch.Random.Fork("difference")
		}
		if _, ends[i], err = gradient(ctx, m.inner, again); err != nil {
			return d, err
		}
	}
	h := ends[0].Sub(ends[1])
	h.Scale(1 / (2 * delta))
	return h, nil
}
