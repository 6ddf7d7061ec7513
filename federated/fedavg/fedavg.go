// Package fedavg is federated averaging and the methods that differ from it by one line at the client or at the server.
//
// In every round the server sends its weights w to a sample S of the clients; client k makes E passes of stochastic
// gradient descent over its n_k examples and sends Δ_k = w_k − w; with p_k = n_k/Σ_{j∈S} n_j the server forms
//
//	Δ = Σ_{k∈S} p_k Δ_k
//
// and moves w by a rule:
//
//	FedAvg     w ← w + Δ                                                       (McMahan et al., arXiv 1602.05629, alg. 1)
//	FedProx    the same, clients minimise F_k(w) + μ/2·‖w − w_received‖²      (Li et al., arXiv 1812.06127, alg. 2)
//	FedAvgM    v ← βv − Δ;  w ← w − η v                                        (Hsu et al., arXiv 1909.06335, section 4.3)
//	FedAdagrad, FedYogi, FedAdam                                               (Reddi et al., arXiv 2003.00295, alg. 2)
//
// The results of clients that did not answer are left out of S. Deltas are added exactly, so the order of arrival does not
// matter; the division and w + Δ are computed in float64 and rounded once.
//
// Where this differs from the papers: clients are drawn uniformly and averaged by their examples also for FedProx, whose
// paper draws them in proportion to their examples and averages them alike ([Algorithm.ByExamples]); running statistics of
// batch norm layers are averaged whatever the rule, and no rule corrects its moments for their start at 0.
package fedavg

import (
	"context"
	"encoding/json"
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/weights"
)

// Algorithm is federated averaging. The zero values of its fields beside the problem give FedAvg itself.
type Algorithm struct {
	federated.Cycle
	// Uniform weighs every client alike instead of by its number of examples.
	Uniform bool
	// ByExamples selects clients with probabilities proportional to their examples and averages them alike, as the FedProx
	// paper does.
	ByExamples bool
	// Proximal is FedProx.
	Proximal Proximal
	// Rule moves the global weights; nil is [Average].
	Rule Rule
}

// Proximal is the proximal term μ/2·‖w − w_received‖² of FedProx; Mu 0 has none. With Adaptive, μ grows by 0.1 when the
// training loss rose and falls by 0.1 after five falls in a row, never below 0.
//
// The rule of Adaptive is the heuristic of the paper's experiments; it starts from Mu (the paper: 1 for IID clients, else 0).
type Proximal struct {
	Mu       float64
	Adaptive bool
}

// New returns federated averaging on a problem.
func New(p *federated.Problem) *Algorithm {
	return &Algorithm{Cycle: federated.Cycle{Problem: p, Rate: 1}}
}

// meta is what the algorithm keeps beside tensors.
type meta struct {
	Mu    float64 `json:"mu"`
	Loss  float64 `json:"loss,omitempty"` // training loss of the last round
	Falls int     `json:"falls,omitempty"`
}

// task is a client's part of the parameters.
type task struct {
	Mu float64 `json:"mu,omitempty"`
}

// Check implements [federated.Algorithm].
func (a *Algorithm) Check(srv federated.Server) error {
	if err := a.Cycle.Check(srv); err != nil {
		return err
	}
	if !(a.Proximal.Mu >= 0) || math.IsInf(a.Proximal.Mu, 0) {
		return fmt.Errorf("fedprox: mu %g: need 0 or more", a.Proximal.Mu)
	}
	return a.rule().Validate()
}

func (a *Algorithm) rule() Rule {
	if a.Rule == nil {
		return Average{}
	}
	return a.Rule
}

// Init implements [federated.Algorithm].
func (a *Algorithm) Init(_ context.Context, srv federated.Server) (federated.State, error) {
	w, err := a.Initial(srv.Seed, a.Rate)
	if err != nil {
		return federated.State{}, err
	}
	m, err := json.Marshal(meta{Mu: a.Proximal.Mu})
	if err != nil {
		return federated.State{}, err
	}
	s := federated.State{Sets: map[string]weights.Set{"w": w}, Meta: m}
	for name, set := range a.rule().Init(w) {
		s = s.With(name, set)
	}
	return s, nil
}

// Next implements [federated.Algorithm].
func (a *Algorithm) Next(s federated.State) (federated.Phase, bool) {
	if s.Step > 0 {
		return a.After(s, s.Step-1)
	}
	who := a.Select
	who.ByExamples = who.ByExamples || a.ByExamples
	return federated.Phase{Name: "train", Who: who, Folds: []federated.Fold{{Name: "w", Like: s.Sets["w"]}}}, true
}

// Task implements [federated.Algorithm].
func (a *Algorithm) Task(s federated.State, p federated.Phase, m federated.Member) (federated.Task, error) {
	if p.Name != "train" {
		return a.Cycle.Task(s, p, m)
	}
	var at meta
	if err := json.Unmarshal(s.Meta, &at); err != nil {
		return federated.Task{}, err
	}
	params, err := json.Marshal(task{Mu: at.Mu})
	return federated.Task{Sets: map[string]weights.Set{"w": s.Sets["w"]}, Params: params}, err
}

// Client implements [federated.Algorithm].
func (a *Algorithm) Client() federated.Client { return client{a} }

type client struct{ *Algorithm }

// Run trains on the client's data and returns Δ_k with weight n_k.
func (c client) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	if t.Phase != "train" {
		return c.Cycle.Run(ctx, at, t, keep)
	}
	var params task
	if err := json.Unmarshal(t.Params, &params); err != nil {
		return federated.Result{}, fmt.Errorf("task parameters: %w", err)
	}
	if at.Train.Len() == 0 {
		return federated.Result{Status: federated.Abstained}, nil
	}
	w := t.Sets["w"]
	spec, o, err := c.Pulled(w, params.Mu)
	if err != nil {
		return federated.Result{}, err
	}
	s, err := at.Engine.Begin(spec, w, o)
	if err != nil {
		return federated.Result{}, err
	}
	defer s.Close()
	report, err := s.Fit(ctx, c.Fit(at, t.Round))
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
	return c.Reply(t, federated.Trained{Weights: trained, Examples: uint64(at.Train.Len()), Report: report})
}

// External implements [federated.External].
func (a *Algorithm) External() error { return nil }

// Assignment implements [federated.External].
func (a *Algorithm) Assignment(t federated.Task) (federated.Assignment, error) {
	var params task
	if err := json.Unmarshal(t.Params, &params); err != nil {
		return federated.Assignment{}, fmt.Errorf("task parameters: %w", err)
	}
	return federated.Assignment{Rate: a.Rate, Scale: 1, Proximal: params.Mu}, nil
}

// Reply implements [federated.External]: Δ_k with weight n_k.
func (a *Algorithm) Reply(t federated.Task, r federated.Trained) (federated.Result, error) {
	weight := r.Examples
	if a.Uniform || a.ByExamples {
		weight = 1
	}
	return federated.Result{Weight: weight, Addends: map[string]weights.Set{"w": r.Weights.Sub(t.Sets["w"])},
		Scalars: federated.FitScalars(r.Report)}, nil
}

// Finish implements [federated.Algorithm].
func (a *Algorithm) Finish(ctx context.Context, srv federated.Server, s federated.State, p federated.Phase, sums map[string]*federated.Sum, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	if p.Name != "train" {
		return a.Cycle.Finish(ctx, srv, s, p, sums, roll)
	}
	sum := sums[""]
	m, err := a.Build(a.Rate)
	if err != nil {
		return s, federated.Diagnostics{}, err
	}
	averaged := sum.Total["w"].AddMean(s.Sets["w"])
	next := a.rule().Move(s.Sets, averaged, sum.Total["w"].Mean(weights.Float64))
	w := next["w"]
	for _, q := range m.Params { // running statistics are averaged, whatever the rule
		if q.Role == nn.Buffer {
			w.Put(q.Name, averaged.Must(q.Name))
		}
	}
	next["w"] = w
	for name, set := range next {
		s = s.With(name, set)
	}
	s.Version++
	var d federated.Diagnostics
	loss := d.Training(sum)
	if a.Proximal.Adaptive {
		if s.Meta, err = adapt(s.Meta, loss); err != nil {
			return s, d, err
		}
	}
	return s, d, nil
}

// adapt returns the meta data with μ for the next round.
func adapt(raw json.RawMessage, loss float64) (json.RawMessage, error) {
	var m meta
	if err := json.Unmarshal(raw, &m); err != nil {
		return nil, err
	}
	switch {
	case m.Loss == 0:
	case loss > m.Loss:
		m.Mu, m.Falls = m.Mu+0.1, 0
	case loss < m.Loss:
		if m.Falls++; m.Falls == 5 {
			m.Mu, m.Falls = max(0, m.Mu-0.1), 0
		}
	default:
		m.Falls = 0
	}
	m.Loss = loss
	return json.Marshal(m)
}
