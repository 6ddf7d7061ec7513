package federated

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// Problem is what is to be learned and how a member trains: the same for every method, and for server and members.
type Problem struct {
	Build     nn.Builder // the architecture at a rate
	DType     weights.DType
	Loss      train.Loss
	Target    train.Target
	Hide      train.Hide
	Start     *weights.Set // initial weights at rate 1; nil draws them
	Rounds    int
	Select    Selection // who trains in a round
	Training  Training
	Measuring Measuring

	mu    sync.Mutex
	specs map[string]*train.Spec
}

// Training is a member's work in a round: Epochs passes, or Steps steps, over its data.
type Training struct {
	Epochs, Steps int
	Batch         int // 0: all examples at once
	Optimizer     train.Optimizer
	Rate          train.Schedule // one tick a round
	Clip          float64
	Augment       dataset.Augment
	SkipSingles   bool
}

// Measuring says what is evaluated and when.
type Measuring struct {
	Every   int  // rounds between evaluations; the last round is always evaluated
	Batch   int  // of evaluation and of statistics
	Members bool // evaluate at the members, too
	Pooled  bool // the server computes static batch norm statistics on its training data, instead of the members
}

// Due reports whether the round is evaluated.
func (p *Problem) Due(round int) bool {
	return (round+1)%max(1, p.Measuring.Every) == 0 || round+1 == p.Rounds
}

// Initial returns the weights of round 0 of the architecture at a rate: those of Start, or drawn from the run's stream.
func (p *Problem) Initial(srv Server, rate float64) (weights.Set, error) {
	m, err := p.Build(rate)
	if err != nil {
		return weights.Set{}, err
	}
	if p.Start == nil {
		return m.Initial(p.DType, srv.Rand(0, "weights")), nil
	}
	// An exported model may carry evaluation statistics besides.
	s := p.Start.Convert(p.DType).Filter(func(name string) bool { _, ok := m.Param(name); return ok })
	if err := s.Match(m.Zeros(p.DType)); err != nil {
		return weights.Set{}, fmt.Errorf("initial weights do not fit the model: %w", err)
	}
	return s, nil
}

// Spec returns the training step of the architecture at a rate, the same one at every call with the same variant; change,
// which may be nil, adapts a new one. Sharing specs lets all members share compiled programs.
func (p *Problem) Spec(variant string, rate float64, change func(*train.Spec)) (*train.Spec, error) {
	key := fmt.Sprintf("%s@%g", variant, rate)
	p.mu.Lock()
	defer p.mu.Unlock()
	if s, ok := p.specs[key]; ok {
		return s, nil
	}
	m, err := p.Build(rate)
	if err != nil {
		return nil, err
	}
	s := &train.Spec{Model: m, DType: p.DType, Loss: p.Loss, Target: p.Target, Hide: p.Hide,
		Clip: p.Training.Clip, Optimizer: p.Training.Optimizer}
	if change != nil {
		change(s)
	}
	if err := s.Validate(); err != nil {
		return nil, err
	}
	if p.specs == nil {
		p.specs = map[string]*train.Spec{}
	}
	p.specs[key] = s
	return s, nil
}

// Fit returns what a member's pass over its data in a round is, with its own batch order.
func (p *Problem) Fit(at Local, round int) train.Fit {
	t := p.Training
	return train.Fit{
		Data: at.Train, Epochs: t.Epochs, Steps: t.Steps, Batch: t.Batch, Rate: train.Constant(t.Rate.At(round)),
		Augment: at.augment(t.Augment), Random: at.Rand(round, "batches"), SkipSmall: t.SkipSingles,
	}
}

func (l Local) augment(a dataset.Augment) dataset.Augment {
	a.Skew = l.Skew
	return a
}

// Labels returns the label mask of a member: 1 for classes in its training data, else 0; and the sorted classes.
func (l Local) Labels(classes int) (mask []float32, present []int32) {
	mask = make([]float32, classes)
	if l.Train.Data.Labels != nil {
		present = l.Train.LabelSet()
	} else {
		present = tokens(l.Train)
	}
	for _, c := range present {
		mask[c] = 1
	}
	return mask, present
}

// tokens returns the sorted distinct tokens of a view of text.
func tokens(v dataset.View) []int32 {
	if v.Data.Tok == nil {
		return nil
	}
	size := v.Data.Size()
	seen := map[int32]bool{}
	for _, r := range v.Rows {
		for _, t := range v.Data.Tok[int(r)*size : (int(r)+1)*size] {
			seen[t] = true
		}
	}
	out := make([]int32, 0, len(seen))
	for t := range seen {
		out = append(out, t)
	}
	slices.Sort(out)
	return out
}

// Cycle is the part of an algorithm that most methods share: after training, in rounds that are due, static batch norm
// statistics are collected, the global model is tested on the server's data, and members test what they would use. Methods
// embed it and add their training phase; its model is the set "w" at Rate.
type Cycle struct {
	*Problem
	Rate float64 // of the global model
	// Personal returns the weights that a member uses, from the global ones (by set name) and its memory. Nil: the global.
	Personal func(sets map[string]weights.Set, keep *weights.Set) (weights.Set, error)
	// Mask is how members treat classes that they do not have when they test: with the label mask of their own data.
	Mask train.Mask
	// Serverless says that there is no global model worth testing (every member has its own).
	Serverless bool
	// SendTest names the sets that members need to test, beside "stats"; nil: "w".
	SendTest []string
}

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
	if len(m.Norms) > 0 && !c.Measuring.Pooled && c.Personal == nil {
		phases = append(phases, Phase{Name: "stats", Who: Selection{Everyone: true}, Barrier: true,
			Folds: []Fold{{Name: "stats", Like: statsLike(m)}}})
	}
	if !c.Serverless {
		phases = append(phases, Phase{Name: "test"})
	}
	if c.Measuring.Members {
		phases = append(phases, Phase{Name: "eval", Who: Selection{Everyone: true}, Barrier: true, Collect: true})
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

func (c *Cycle) evalMember(ctx context.Context, at Local, spec *train.Spec, t Task, keep *weights.Set) (Result, error) {
	if at.Test.Len() == 0 {
		return Result{Status: Abstained}, nil
	}
	w, stats := t.Sets["w"], t.Sets["stats"]
	if c.Personal != nil {
		own, err := c.Personal(t.Sets, keep)
		if err != nil {
			return Result{}, err
		}
		w = own
		if len(spec.Model.Norms) > 0 {
			sum, n, err := c.statistics(ctx, at.Engine, spec, w, at.Train, at.augment(c.Training.Augment), at.Rand(t.Round, "stats"))
			if err != nil {
				return Result{}, err
			}
			stats = mean(sum, n)
		}
	}
	var mask []float32
	if spec.Mask != train.NoMask {
		mask, _ = at.Labels(spec.Model.Classes)
	}
	m, err := c.evaluate(ctx, at.Engine, spec, w, stats, mask, at.Test, at.Skew, at.Rand(t.Round, "hidden"))
	if err != nil {
		return Result{}, err
	}
	return Result{Scalars: map[string]float64{
		"examples": float64(m.N), "correct": float64(m.Correct), "loss": m.Loss * float64(m.N),
	}}, nil
}

// mean returns sum/n, an empty set if n is 0.
func mean(sum weights.Set, n int) weights.Set {
	if n == 0 {
		return weights.Set{}
	}
	return train.Statistics{Sum: sum, Batches: n}.Mean()
}

func (c *Cycle) evaluate(ctx context.Context, e *train.Engine, spec *train.Spec, w, stats weights.Set, mask []float32,
	data dataset.View, skew dataset.Skew, r *rng.Stream) (train.Metrics, error) {
	s, err := e.Begin(spec, w, train.Options{Stats: stats})
	if err != nil {
		return train.Metrics{}, err
	}
	defer s.Close()
	return s.Evaluate(ctx, data, train.EvalOptions{Batch: c.Measuring.Batch, LabelMask: mask, Skew: skew, Random: r})
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
		measureMembers(&d, sums[""], roll)
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
	if len(spec.Model.Norms) > 0 && c.Measuring.Pooled {
		sum, n, err := c.statistics(ctx, srv.Engine, spec, s.Sets["w"], srv.Train, c.Training.Augment, srv.Rand(s.Round, "stats"))
		if err != nil {
			return s, d, fmt.Errorf("pooled statistics: %w", err)
		}
		s = s.With("stats", mean(sum, n))
	}
	if srv.Test.Len() == 0 {
		return s, d, nil
	}
	m, err := c.evaluate(ctx, srv.Engine, spec, s.Sets["w"], s.Sets["stats"], nil, srv.Test, dataset.Skew{}, srv.Rand(s.Round, "hidden"))
	if err != nil {
		return s, d, fmt.Errorf("testing the global model: %w", err)
	}
	d.Add("global.accuracy", "", m.Accuracy)
	d.Add("global.loss", "", m.Loss)
	if spec.Target != train.FromData {
		d.Add("global.perplexity", "", m.Perplexity)
	}
	return s, d, nil
}

// measureMembers adds the members' accuracy: of all their test examples together, the mean over members, and the mean over
// the worst tenth of the members.
func measureMembers(d *Diagnostics, sum *Sum, roll Roll) {
	if sum == nil || sum.Scalars["examples"] == 0 {
		return
	}
	n := sum.Scalars["examples"]
	d.Add("local.accuracy", "", sum.Scalars["correct"]/n)
	d.Add("local.loss", "", sum.Scalars["loss"]/n)
	acc := make([]float64, len(roll.Each))
	var mean float64
	for i, e := range roll.Each {
		acc[i] = e.Scalars["correct"] / e.Scalars["examples"]
		mean += acc[i]
	}
	d.Add("local.accuracy.mean", "", mean/float64(len(acc)))
	slices.Sort(acc)
	worst := acc[:max(1, int(math.Ceil(float64(len(acc))/10)))]
	var w float64
	for _, a := range worst {
		w += a
	}
	d.Add("local.accuracy.worst", "", w/float64(len(worst)))
}
