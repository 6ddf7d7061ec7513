package recommenders

import (
	"context"
	"encoding/json"
	"fmt"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedavg"
	"github.com/cohort-learning/cohort/recommend"
	"github.com/cohort-learning/cohort/weights"
)

// ratingSum is what members tell besides gradients: the sum of their ratings, for the mean μ of all.
const ratingSum = "rating.sum"

// FCF is federated collaborative filtering.
type FCF struct {
	*shared
	rule fedavg.Adaptive
}

// Measures implements [federated.Measurer].
func (a *FCF) Measures() []string { return []string{ratingSum} }

// Init implements [federated.Algorithm].
func (a *FCF) Init(_ context.Context, srv federated.Server) (federated.State, error) {
	w, err := a.initial(srv.Seed)
	if err != nil {
		return federated.State{}, err
	}
	s := federated.State{Sets: map[string]weights.Set{"w": w}}
	for name, set := range a.rule.Init(w) {
		s.Sets[name] = set
	}
	s.Meta, err = json.Marshal(tally{})
	return s, err
}

// sent is the part of the model that members need, and have gradients of: of implicit feedback there are no levels.
func (a *FCF) sent(w weights.Set) weights.Set {
	return w.Filter(func(name string) bool { return name != itemLevels || !a.o.implicit() })
}

// Next implements [federated.Algorithm].
func (a *FCF) Next(s federated.State) (federated.Phase, bool) {
	switch {
	case s.Step == 0:
		return federated.Phase{Name: trains, Who: a.Select, Folds: []federated.Fold{{Name: "w", Like: a.sent(s.Sets["w"])}}}, true
	case s.Step == 1 && a.Due(s.Round) && a.Measuring.Members:
		return a.tasting.Phase(), true
	}
	return federated.Phase{}, false
}

// asked is what a member is told besides the items' factors.
type asked struct {
	Mean float64 `json:"mean"`
}

// Task implements [federated.Algorithm].
func (a *FCF) Task(s federated.State, _ federated.Phase, _ federated.Member) (federated.Task, error) {
	t, err := tallyOf(s)
	if err != nil {
		return federated.Task{}, err
	}
	params, err := json.Marshal(asked{t.mean()})
	return federated.Task{Sets: map[string]weights.Set{"w": a.sent(s.Sets["w"])}, Params: params}, err
}

// Rows says which tensors have a row for each item: secure sums leave out rows that too few members have. Of implicit feedback
// every member has a gradient of every item.
func (a *FCF) Rows(p federated.Phase) (tensors []string, rows int) {
	n, err := sized(a.Problem, a.o.Width)
	if err != nil || p.Name != trains || a.o.implicit() {
		return nil, 0
	}
	return []string{itemFactors, itemLevels}, n
}

// Covers returns what the result of a training task will cover: the items that the member's users have rated.
func (a *FCF) Covers(at federated.Local, _ federated.Task) (weights.Index, error) {
	axis := weights.List(recommend.Of(at.Train).Rated())
	return weights.Index{itemFactors: {axis, weights.All()}, itemLevels: {axis}}, nil
}

// Unruled returns why the method does not go with a robust rule, or nil.
func (a *FCF) Unruled(rule federated.Rule) error {
	if a.o.implicit() {
		return nil
	}
	return federated.SparseRule(rule)
}

// Client implements [federated.Algorithm].
func (a *FCF) Client() federated.Client { return client{a} }

type client struct{ *FCF }

// Run does a member's part.
func (c client) Run(ctx context.Context, at federated.Local, t federated.Task, _ *weights.Set) (federated.Result, error) {
	switch {
	case federated.Tastes(t.Phase):
		return c.test(at, t)
	case t.Phase != trains:
		return federated.Result{}, fmt.Errorf("phase %q is unknown to this client", t.Phase)
	case at.Train.Len() == 0:
		return federated.Result{Status: federated.Abstained}, nil
	}
	items, err := sized(c.Problem, c.o.Width)
	if err == nil {
		err = federated.RatesItems(at.Train.Data, items)
	}
	if err != nil {
		return federated.Result{}, err
	}
	var p asked
	if err := json.Unmarshal(t.Params, &p); err != nil {
		return federated.Result{}, fmt.Errorf("task parameters: %w", err)
	}
	f, err := c.read(t.Sets["w"], p.Mean, at.Train.Data.Ratings)
	if err != nil {
		return federated.Result{}, err
	}
	g, err := f.gradient(ctx, recommend.Of(at.Train))
	if err != nil {
		return federated.Result{}, err
	}
	for _, x := range [][]float64{g.y, g.level} {
		for i := range x {
			x[i] = -x[i]
		}
	}
	scalars := map[string]float64{"train.loss": g.loss, "train.examples": float64(g.terms), "train.steps": 1}
	if !f.implicit {
		scalars[ratingSum] = g.sum
	}
	return federated.Result{Weight: 1, Addends: map[string]weights.Set{"w": setOf(t.Sets["w"], g.y, g.level)}, Scalars: scalars}, nil
}

// Finish implements [federated.Algorithm].
func (a *FCF) Finish(_ context.Context, srv federated.Server, s federated.State, p federated.Phase, sums map[string]*federated.Sum, _ federated.Roll) (federated.State, federated.Diagnostics, error) {
	var d federated.Diagnostics
	switch {
	case federated.Tastes(p.Name):
		a.tasting.Report(&d, sums[""])
		return s, d, nil
	case p.Name != trains:
		return s, d, fmt.Errorf("phase %q is unknown", p.Name)
	}
	d.Training(sums[""])
	w := s.Sets["w"]
	members := 0.0
	for i := range srv.Population.Len() {
		if m := srv.Population.Member(i); m.Samples > 0 && !m.Gone {
			members++
		}
	}
	delta := sums[""].Total["w"].AddMean(w.Convert(weights.Float64).Zeros())
	delta.Scale(max(1, members)) // from the mean of those who came to the sum over all
	if a.o.implicit() {
		delta.AddScaled(-a.o.lambda(), w.Convert(weights.Float64)) // levels are 0
	}
	for name, set := range a.rule.Move(s.Sets, w, delta) {
		s = s.With(name, set)
	}
	s.Version++
	s, err := a.told(s, sums[""])
	return s, d, err
}

// told moves the mean of all ratings to what members have told, and the levels with it.
func (a *FCF) told(s federated.State, sum *federated.Sum) (federated.State, error) {
	t, err := tallyOf(s)
	if err != nil || a.o.implicit() || sum.Scalars["train.examples"] == 0 { // under differential privacy nothing is told
		return s, err
	}
	before := t.mean()
	t.Sum, t.Count = t.Sum+sum.Scalars[ratingSum], t.Count+sum.Scalars["train.examples"]
	w := s.Sets["w"].Clone()
	level := w.Must(itemLevels)
	for i := range level.Len() {
		level.SetAt(i, level.At(i)+t.mean()-before)
	}
	s = s.With("w", w)
	s.Meta, err = json.Marshal(t)
	return s, err
}

// Try does a member's part of the first round, for its time; nothing comes of it.
func (a *FCF) Try(ctx context.Context, at federated.Local) error {
	w, err := a.initial(at.Seed)
	if err != nil {
		return err
	}
	_, err = client{a}.Run(ctx, at, federated.Task{Phase: trains, Sets: map[string]weights.Set{"w": a.sent(w)}, Params: json.RawMessage("{}")}, nil)
	return err
}
