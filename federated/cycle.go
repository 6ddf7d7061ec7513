package federated

import (
	"context"
	"encoding/json"
	"fmt"
	"sync"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/gomlx/core/graph"
)

// Cycle is the part of an algorithm that most methods share: after training, in rounds that are due, static batch norm
// statistics are collected, the global model is tested on the server's data, and members test what they would use. Methods
// embed it and add their training phase; its model is the set "w" at Rate.
type Cycle struct {
	*Problem
	Rate float64 // of the global model
	// Personal returns the model that a member uses of its own, from what it is sent to test (see SendTest) and its memory, which
	// is nil before it first trained. Nil: members use the global model.
	Personal func(ctx context.Context, at Local, t Task, keep *weights.Set) (Own, error)
	// Mask is how members treat classes that they do not have when they test: with the label mask of their own data.
	Mask train.Mask
	// Serverless says that there is no global model to test: every member has its own.
	Serverless bool
	// SendTest names the sets that members need to test, beside "stats"; nil: "w".
	SendTest []string
	// Pooled says that the server computes evaluation statistics itself, whatever [Measuring.Pooled] says.
	Pooled bool

	mu    sync.Mutex
	specs map[string]*train.Spec // by variant and rate
}

func (c *Cycle) pooled() bool { return c.Pooled || c.Measuring.Pooled }

// Check reports what is wrong with the problem. Methods that check more call it first.
func (c *Cycle) Check(Server) error { return c.Validate() }

// Spec returns the method's training step of the architecture at a rate, the same one at every call with the same variant;
// change, which may be nil, adapts a new one. Sharing specs lets all members share compiled programs.
func (c *Cycle) Spec(variant string, rate float64, change func(*train.Spec)) (*train.Spec, error) {
	key := fmt.Sprintf("%s@%g", variant, rate)
	c.mu.Lock()
	defer c.mu.Unlock()
	if s, ok := c.specs[key]; ok {
		return s, nil
	}
	m, err := c.Build(rate)
	if err != nil {
		return nil, err
	}
	s := &train.Spec{Model: m, DType: c.DType, Loss: c.Loss, Custom: c.Custom, Target: c.Target, Hide: c.Hide,
		Clip: c.Training.Clip, Optimizer: c.Training.Optimizer}
	if change != nil {
		change(s)
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if c.specs == nil {
		c.specs = map[string]*train.Spec{}
	}
	c.specs[key] = s
	return s, nil
}

// Pulled returns the method's training step with a pull towards an anchor a, and what a session of it needs: the gradient of
// μ/2·‖w − a‖², which is μ(w − a), is added to that of the loss. Without a pull it is the plain training step.
func (c *Cycle) Pulled(anchor weights.Set, mu float64) (*train.Spec, train.Options, error) {
	if mu == 0 {
		spec, err := c.Spec("train", c.Rate, nil)
		return spec, train.Options{}, err
	}
	spec, err := c.Spec("pulled", c.Rate, func(s *train.Spec) {
		s.Extras, s.Scalars = []string{Anchor}, []string{"mu"}
		s.Adjust = func(a *train.Adjust) {
			for _, n := range a.Names {
				pull := graph.Mul(graph.Sub(a.Params[n], a.Extras[Anchor][n]), a.Scalars["mu"])
				a.Grads[n] = graph.Add(a.Grads[n], pull)
			}
		}
	})
	return spec, train.Options{Extras: map[string]weights.Set{Anchor: anchor}, Scalars: map[string]float64{"mu": mu}}, err
}

// Anchor is the extra set of [Cycle.Pulled] that a session is pulled to.
const Anchor = "anchor"

// After returns the phase at step k after training in a round, or false.
func (c *Cycle) After(s State, k int) (Phase, bool) {
	if !c.Due(s.Round) {
		return Phase{}, false
	}
	var phases []Phase
	m, err := c.Build(c.Rate)
	if err != nil {
		panic(fmt.Sprintf("federated: the architecture cannot be built at its own rate %g: %v", c.Rate, err))
	}
	if len(m.Norms) > 0 && !c.pooled() && !c.Serverless {
		phases = append(phases, Phase{Name: "stats", Who: Selection{Everyone: true}, Barrier: true,
			Folds: []Fold{{Name: "stats", Like: statsLike(m)}}})
	}
	if !c.Serverless {
		phases = append(phases, Phase{Name: "test"})
	}
	if c.Measuring.Members {
		phases = append(phases, Phase{Name: "eval", Who: Selection{Everyone: true}, Barrier: true, Collect: c.collected()})
	}
	if k >= len(phases) {
		return Phase{}, false
	}
	return phases[k], true
}

// statsLike has the names and shapes of a model's evaluation statistics. They are summed in float64.
func statsLike(m *nn.Model) weights.Set {
	s := weights.NewSet(2 * len(m.Norms))
	for _, n := range m.Norms {
		s.Put(n.Name+".running_mean", weights.NewTensor(weights.Float64, n.Dim.At(m.Rate)))
		s.Put(n.Name+".running_var", weights.NewTensor(weights.Float64, n.Dim.At(m.Rate)))
	}
	return s
}

type measureTask struct {
	Rate float64 `json:"rate"`
}

// Task returns what a member is asked in the phases of After.
func (c *Cycle) Task(s State, p Phase, m Member) (Task, error) {
	params, err := json.Marshal(measureTask{c.Rate})
	if err != nil {
		return Task{}, err
	}
	t := Task{Sets: map[string]weights.Set{}, Params: params}
	names := c.SendTest
	if names == nil || p.Name == "stats" {
		names = []string{"w"}
	}
	for _, n := range names {
		if set, ok := s.Sets[n]; ok {
			t.Sets[n] = set
		}
	}
	if stats, ok := s.Sets["stats"]; ok && p.Name == "eval" {
		t.Sets["stats"] = stats
	}
	return t, nil
}

// Run does a member's part of the phases of After.
func (c *Cycle) Run(ctx context.Context, at Local, t Task, keep *weights.Set) (Result, error) {
	var params measureTask
	if err := json.Unmarshal(t.Params, &params); err != nil {
		return Result{}, fmt.Errorf("task parameters: %w", err)
	}
	spec, err := c.Spec("measure", params.Rate, func(s *train.Spec) { s.Mask = c.Mask })
	if err != nil {
		return Result{}, err
	}
	switch t.Phase {
	case "stats":
		sum, batches, err := c.statistics(ctx, at.Engine, spec, t.Sets["w"], at.Train, at.augment(c.Training.Augment), at.Rand(t.Round, "stats"))
		if err != nil {
			return Result{}, err
		}
		if batches == 0 {
			return Result{Status: Abstained}, nil
		}
		return Result{Addends: map[string]weights.Set{"stats": sum}, Scalars: map[string]float64{"batches": float64(batches)}}, nil
	case "eval":
		return c.evalMember(ctx, at, spec, t, keep)
	}
	return Result{}, fmt.Errorf("phase %q is unknown to this client", t.Phase)
}

// statistics returns the sums over batches of batch means and unbiased batch variances, and the number of batches.
func (c *Cycle) statistics(ctx context.Context, e *train.Engine, spec *train.Spec, w weights.Set, data dataset.View,
	aug dataset.Augment, r *rng.Stream) (weights.Set, int, error) {
	s, err := e.Begin(spec, w, train.Options{})
	if err != nil {
		return weights.Set{}, 0, err
	}
	defer s.Close()
	batch := c.Training.Batch
	if batch == 0 {
		batch = c.Measuring.Batch
	}
	st, err := s.Statistics(ctx, data, train.Pass{Batch: batch, Augment: aug, Random: r, SkipSmall: true})
	if err != nil {
		return weights.Set{}, 0, err
	}
	return st.Sum, st.Batches, nil
}

// mean returns sum/n, an empty set if n is 0.
func mean(sum weights.Set, n int) weights.Set {
	if n == 0 {
		return weights.Set{}
	}
	return train.Statistics{Sum: sum, Batches: n}.Mean()
}

// Finish ends the phases of After.
func (c *Cycle) Finish(ctx context.Context, srv Server, s State, p Phase, sums map[string]*Sum, roll Roll) (State, Diagnostics, error) {
	var d Diagnostics
	switch p.Name {
	case "stats":
		sum := sums[""]
		return s.With("stats", sum.Total["stats"].Over(sum.Scalars["batches"], weights.Float64)), d, nil
	case "test":
		return c.test(ctx, srv, s)
	case "eval":
		c.measured(&d, sums[""], roll)
		return s, d, nil
	}
	return s, d, fmt.Errorf("phase %q is unknown", p.Name)
}

// test evaluates the global model on the server's test data, after computing pooled statistics where they are asked for.
func (c *Cycle) test(ctx context.Context, srv Server, s State) (State, Diagnostics, error) {
	var d Diagnostics
	spec, err := c.Spec("test", c.Rate, nil)
	if err != nil {
		return s, d, err
	}
	if len(spec.Model.Norms) > 0 && c.pooled() {
		sum, n, err := c.statistics(ctx, srv.Engine, spec, s.Sets["w"], srv.Train, c.Training.Augment, srv.Rand(s.Round, "stats"))
		if err != nil {
			return s, d, fmt.Errorf("pooled statistics: %w", err)
		}
		s = s.With("stats", mean(sum, n))
	}
	if srv.Test.Len() == 0 {
		return s, d, nil
	}
	m, err := c.evaluate(ctx, srv.Engine, spec, s.Sets["w"], train.Options{Stats: s.Sets["stats"]},
		train.EvalOptions{Random: srv.Rand(s.Round, "hidden")}, srv.Test)
	if err != nil {
		return s, d, fmt.Errorf("testing the global model: %w", err)
	}
	if spec.Loss == train.MeanSquares {
		d.Add("r2", "", m.R2)
		d.Add("error.absolute", "", m.MAE)
	} else {
		d.Add("accuracy", "", m.Accuracy)
	}
	d.Add("loss", "", m.Loss)
	if spec.Target != train.FromData && spec.Loss == train.CrossEntropy {
		d.Add("perplexity", "", m.Perplexity)
	}
	return s, d, nil
}
