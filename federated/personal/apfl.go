package personal

import (
	"context"
	"errors"
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/gomlx/core/graph"
)

// APFL (Deng, Kamani, Mahdavi, arXiv 2003.13461, algorithm 1) mixes a model v of every member's own with the global one. In every
// local step, all at the old values, with the member's copy w_k of the global model:
//
//	v̄ = αv + (1 − α)w_k        w_k ← w_k − η g(w_k)        v ← v − ηα g(v̄)
//
// and with Adaptive, at the first batch of a round, α ← clip(α − η⟨v − w_k, g(v̄)⟩, 0, 1). w_k is sent, to the bit what FedAvg
// sends; v and α are kept. A member uses v̄ with the newest global model in w_k's place. With α = 0 that is the global model, with
// α = 1 members learn alone.
//
// With Outputs the mixture is one of outputs, αf(v) + (1 − α)f(w_k), as the authors' code has it: v descends the loss of that. There,
// w_k is new already and a small multiple of α is added to its gradient; here all is at the old values, and α stays. The paper
// starts v from the initial weights; here it starts from the w of the member's first visit.
type APFL struct {
	around
	Alpha    float64 // α in [0, 1], at first
	Adaptive bool    // α follows its gradient
	Outputs  bool    // mix outputs instead of parameters
}

// NewAPFL returns APFL on a problem.
func NewAPFL(p *federated.Problem, alpha float64) *APFL {
	a := &APFL{around: newAround(p), Alpha: alpha}
	a.avg.Personal = a.mixed
	return a
}

// Check implements [federated.Algorithm].
func (a *APFL) Check(srv federated.Server) error {
	if err := a.avg.Check(srv); err != nil {
		return err
	}
	switch {
	case !(a.Alpha >= 0 && a.Alpha <= 1):
		return fmt.Errorf("apfl: alpha %g: need a number in [0, 1]", a.Alpha)
	case a.Adaptive && a.Outputs:
		return errors.New("apfl: alpha follows its gradient where parameters are mixed; turn adaptive off, or mix parameters")
	case !a.Outputs:
		return nil
	}
	m, err := a.avg.Build(a.avg.Rate)
	if err != nil {
		return err
	}
	for _, p := range m.Params {
		if p.BatchStats {
			return errors.New("apfl: two networks whose outputs are mixed have no common statistics of batch norm; choose another norm (gn, ln, in or none), or mix parameters")
		}
	}
	return nil
}

const (
	globalSet = "global"     // extra set: w_k
	alphaName = "apfl/alpha" // of what a member keeps, and the scalar of a step
)

// kept parts what a member keeps into v and α.
func (a *APFL) kept(keep *weights.Set, t federated.Task) (v weights.Set, alpha float64) {
	if keep == nil {
		return t.Sets["w"], a.Alpha
	}
	alpha = a.Alpha
	if x, ok := keep.Get(alphaName); ok {
		alpha = x.At(0)
	}
	return keep.Filter(func(name string) bool { return name != alphaName }), alpha
}

// mixed is the personal model.
func (a *APFL) mixed(_ context.Context, _ federated.Local, t federated.Task, keep *weights.Set) (federated.Own, error) {
	w := t.Sets["w"]
	v, alpha := a.kept(keep, t)
	if !a.Outputs {
		v, err := a.mixture(v, w, alpha)
		return federated.Own{Weights: v}, err
	}
	spec, err := a.step()
	return federated.Own{Weights: v, Spec: spec, Options: train.Options{
		Extras: map[string]weights.Set{globalSet: w}, Scalars: map[string]float64{alphaName: alpha}}}, err
}

// mixture returns αv + (1 − α)w; running statistics are those of v.
func (a *APFL) mixture(v, w weights.Set, alpha float64) (weights.Set, error) {
	m, err := a.avg.Build(a.avg.Rate)
	if err != nil {
		return v, err
	}
	mixed := v.Map(w, func(v, w float64) float64 { return float64(alpha*v) + float64((1-alpha)*w) })
	for _, p := range m.Params {
		if !p.Trained() {
			mixed.Put(p.Name, v.Must(p.Name))
		}
	}
	return mixed, nil
}

// step returns the training step of v, for an extra set w_k and the scalar α.
func (a *APFL) step() (*train.Spec, error) {
	return a.avg.Spec("mixture", a.avg.Rate, func(s *train.Spec) {
		s.Holds = s.Model
		s.Extras, s.Scalars = []string{globalSet}, []string{alphaName}
		if a.Outputs {
			s.Model, s.Derive = mixOutputs(s.Model), bothModels
		} else {
			s.Derive = mixParameters
		}
	})
}

// mixParameters builds v̄.
func mixParameters(a *train.Adjust) map[string]*graph.Node {
	alpha, mixed := a.Scalars[alphaName], map[string]*graph.Node{}
	for name, v := range a.Params {
		mixed[name] = v
		if w, ok := a.Extras[globalSet][name]; ok {
			mixed[name] = graph.Add(graph.Mul(v, alpha), graph.Mul(w, graph.OneMinus(alpha)))
		}
	}
	return mixed
}

// bothModels hands both models and α to the model of mixOutputs.
func bothModels(a *train.Adjust) map[string]*graph.Node {
	both := map[string]*graph.Node{alphaName: a.Scalars[alphaName]}
	for name, v := range a.Params {
		both[name] = v
		both[globalSet+"/"+name] = v
		if w, ok := a.Extras[globalSet][name]; ok {
			both[globalSet+"/"+name] = w
		}
	}
	return both
}

// mixOutputs is a model whose output is αf(v) + (1 − α)f(w).
func mixOutputs(m *nn.Model) *nn.Model {
	mixed := *m
	mixed.Forward = func(p *nn.Pass, x *graph.Node) *graph.Node {
		global := *p
		global.Params = map[string]*graph.Node{}
		for _, q := range m.Params {
			global.Params[q.Name] = p.Params[globalSet+"/"+q.Name]
		}
		z := m.Forward(p, x)
		alpha := p.Params[alphaName]
		return graph.Add(graph.Mul(z, alpha), graph.Mul(m.Forward(&global, x), graph.OneMinus(alpha)))
	}
	return &mixed
}

// Client implements [federated.Algorithm].
func (a *APFL) Client() federated.Client { return apflClient{a, a.avg.Client()} }

type apflClient struct {
	*APFL
	global federated.Client
}

// Run makes the steps of w_k, and before each of them that of v on the same batch.
func (c apflClient) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	if t.Phase != "train" {
		return c.global.Run(ctx, at, t, keep)
	}
	if at.Train.Len() == 0 {
		return federated.Result{Status: federated.Abstained}, nil
	}
	w := t.Sets["w"]
	v, alpha := c.kept(keep, t)
	spec, err := c.avg.Spec("train", c.avg.Rate, nil)
	if err != nil {
		return federated.Result{}, err
	}
	mixture, err := c.step()
	if err != nil {
		return federated.Result{}, err
	}
	global, err := at.Engine.Begin(spec, w, train.Options{})
	if err != nil {
		return federated.Result{}, err
	}
	defer global.Close()
	own, err := at.Engine.Begin(mixture, v, train.Options{
		Follows: map[string]*train.Session{globalSet: global}, Scalars: map[string]float64{alphaName: alpha}})
	if err != nil {
		return federated.Result{}, err
	}
	defer own.Close()

	pass := c.avg.Fit(at, t.Round)
	one := pass // a step of v
	one.Epochs, one.Steps, one.Batch, one.Random = 1, 0, 0, nil
	pass.Before = func(step int, batch dataset.View) error {
		one.Data = batch
		if draws(spec, pass) {
			one.Random = at.Rand(t.Round, fmt.Sprint("mixture ", step))
		}
		if step == 0 && c.Adaptive {
			next, err := c.adapt(ctx, at, spec, v, w, alpha, one)
			if err != nil {
				return err
			}
			alpha = next
		}
		_, err := own.Fit(ctx, one)
		if step == 0 && err == nil { // the first step was at the old α, too
			err = own.SetScalar(alphaName, alpha)
		}
		return err
	}
	report, err := global.Fit(ctx, pass)
	if err != nil {
		return federated.Result{}, err
	}
	if report.Steps == 0 {
		return federated.Result{Status: federated.Abstained}, nil
	}
	trained, err := global.Params()
	if err != nil {
		return federated.Result{}, err
	}
	if v, err = own.Params(); err != nil {
		return federated.Result{}, err
	}
	r, err := c.avg.Reply(t, federated.Trained{Weights: trained, Examples: uint64(at.Train.Len()), Report: report})
	if err != nil {
		return r, err
	}
	v.Put(alphaName, weights.Of64([]float64{alpha}, 1))
	r.Keep = &v
	r.Begun(keep)
	return r, nil
}

// adapt returns clip(α − η⟨v − w_k, g(v̄)⟩, 0, 1) at a batch.
func (c apflClient) adapt(ctx context.Context, at federated.Local, spec *train.Spec, v, w weights.Set, alpha float64, batch train.Fit) (float64, error) {
	mixed, err := c.mixture(v, w, alpha)
	if err != nil {
		return 0, err
	}
	s, err := at.Engine.Begin(spec, mixed, train.Options{})
	if err != nil {
		return 0, err
	}
	defer s.Close()
	_, g, err := gradient(ctx, s, batch)
	if err != nil {
		return 0, err
	}
	var along float64
	for name, g := range g.All() {
		v, w := v.Must(name), w.Must(name)
		for i := range g.Len() {
			along += float64((v.At(i) - w.At(i)) * g.At(i))
		}
	}
	return math.Min(1, math.Max(0, alpha-float64(batch.Rate.At(0)*along))), nil
}
