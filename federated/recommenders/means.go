package recommenders

import (
	"context"
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/recommend"
	"github.com/cohort-learning/cohort/weights"
)

// Means predicts the same for every user: the mean of an item's ratings, or the logit of how many of all users like it,
//
//	(Σ r + d·μ)/(n + d)        d ratings at the mean of all, μ, besides
//	log((likes + ½)/(users − likes + ½))
//
// from sums that members tell in every round that they take part in. When everybody takes part, one round gives the plain figure;
// when some are drawn, a member weighs by how often it was.
type Means struct {
	*federated.Problem
	tasting federated.Tasting
	popular bool
	damping float64
}

// The sums: of an item's ratings and their number, or of likes and the number of users.
const (
	itemSums   = "sums"
	itemCounts = "counts"
)

// Check implements [federated.Algorithm].
func (a *Means) Check(federated.Server) error {
	if err := a.Validate(); err != nil {
		return err
	}
	_, err := sized(a.Problem, 1)
	return err
}

// empty are sums of nothing.
func (a *Means) empty(items int) weights.Set {
	counts := items
	if a.popular {
		counts = 1
	}
	s := weights.NewSet(2)
	s.Put(itemSums, weights.NewTensor(weights.Float64, items))
	s.Put(itemCounts, weights.NewTensor(weights.Float64, counts))
	return s
}

// Init implements [federated.Algorithm].
func (a *Means) Init(_ context.Context, srv federated.Server) (federated.State, error) {
	w, err := a.Initial(srv.Seed, 1)
	if err != nil {
		return federated.State{}, err
	}
	w = w.Zeros()
	return federated.State{Sets: map[string]weights.Set{"w": w, "told": a.empty(w.Must(itemLevels).Len())}}, nil
}

// Next implements [federated.Algorithm].
func (a *Means) Next(s federated.State) (federated.Phase, bool) {
	switch {
	case s.Step == 0:
		return federated.Phase{Name: trains, Who: a.Select, Folds: []federated.Fold{{Name: "told", Like: s.Sets["told"].Zeros()}}}, true
	case s.Step == 1 && a.Due(s.Round) && a.Measuring.Members:
		return a.tasting.Phase(), true
	}
	return federated.Phase{}, false
}

// Task implements [federated.Algorithm].
func (a *Means) Task(s federated.State, _ federated.Phase, _ federated.Member) (federated.Task, error) {
	w := s.Sets["w"].Filter(func(name string) bool { return name == itemLevels })
	return federated.Task{Sets: map[string]weights.Set{"w": w}}, nil
}

// Unruled returns why the method does not go with a robust rule.
func (a *Means) Unruled(rule federated.Rule) error { return federated.SparseRule(rule) }

// Client implements [federated.Algorithm].
func (a *Means) Client() federated.Client { return teller{a} }

type teller struct{ *Means }

// Run does a member's part.
func (c teller) Run(_ context.Context, at federated.Local, t federated.Task, _ *weights.Set) (federated.Result, error) {
	items, err := sized(c.Problem, 1)
	if err != nil {
		return federated.Result{}, err
	}
	of := at.Train
	if federated.Tastes(t.Phase) {
		of = at.Test
	}
	if of.Len() == 0 {
		return federated.Result{Status: federated.Abstained}, nil
	}
	if err := federated.RatesItems(of.Data, items); err != nil {
		return federated.Result{}, err
	}
	s, err := scoresOf(t.Sets["w"], items)
	switch {
	case err != nil:
		return federated.Result{}, err
	case federated.Tastes(t.Phase):
		return c.tasting.Result(c.tasting.Measure(s, at.Train, at.Test, items)), nil
	case t.Phase == trains:
		return c.tell(recommend.Of(at.Train), at.Train.Data.Ratings, s), nil
	}
	return federated.Result{}, fmt.Errorf("phase %q is unknown to this client", t.Phase)
}

// tell adds up a member's ratings.
func (a *Means) tell(t recommend.Table, r *dataset.Ratings, now scores) federated.Result {
	told := a.empty(len(now))
	sums, counts := told.Must(itemSums).F64, told.Must(itemCounts).F64
	var loss float64
	terms := len(t.Items)
	if a.popular {
		t = t.Like(a.tasting.LikedFrom(r))
		counts[0] = float64(t.Len())
		terms = t.Len() * len(now)
		for _, z := range now { // as if nobody liked anything
			loss += recommend.Entropy(float64(z), 0) * float64(t.Len())
		}
	}
	for n, i := range t.Items {
		v, z := float64(t.Values[n]), float64(now[i])
		sums[i] += v
		if a.popular {
			loss += recommend.Entropy(z, v) - recommend.Entropy(z, 0)
			continue
		}
		counts[i]++
		loss += float64((z - v) * (z - v))
	}
	return federated.Result{Weight: 1, Addends: map[string]weights.Set{"told": told},
		Scalars: map[string]float64{"train.loss": loss, "train.examples": float64(terms), "train.steps": 1}}
}

// Finish implements [federated.Algorithm].
func (a *Means) Finish(_ context.Context, _ federated.Server, s federated.State, p federated.Phase, sums map[string]*federated.Sum, _ federated.Roll) (federated.State, federated.Diagnostics, error) {
	var d federated.Diagnostics
	switch {
	case federated.Tastes(p.Name):
		a.tasting.Report(&d, sums[""])
		return s, d, nil
	case p.Name != trains:
		return s, d, fmt.Errorf("phase %q is unknown", p.Name)
	}
	d.Training(sums[""])
	unit := float64(max(1, sums[""].Unit))
	told := sums[""].Total["told"].Apply(s.Sets["told"], func(base, total, _ float64) float64 { return base + total/unit })
	w := s.Sets["w"].Clone()
	copy32(w.Must(itemLevels), a.levels(told))
	s = s.With("w", w).With("told", told)
	s.Version++
	return s, d, nil
}

func copy32(to weights.Tensor, from []float64) {
	for i, v := range from {
		to.SetAt(i, v)
	}
}

// levels are the scores of items by the sums. With noise in them counts may be of any sign; an item without a count has the mean of all.
func (a *Means) levels(told weights.Set) []float64 {
	sums, counts := told.Must(itemSums).F64, told.Must(itemCounts).F64
	out := make([]float64, len(sums))
	if a.popular {
		users := max(0, counts[0])
		for i, likes := range sums {
			likes = min(max(0, likes), users)
			out[i] = math.Log((likes + 0.5) / (users - likes + 0.5))
		}
		return out
	}
	var sum, count float64
	for i, n := range counts {
		sum, count = sum+sums[i], count+n
	}
	mean := 0.0
	if count > 0 {
		mean = sum / count
	}
	for i, n := range counts {
		out[i] = mean
		if n > 0 {
			out[i] = (sums[i] + a.damping*mean) / (n + a.damping)
		}
	}
	return out
}

// scores are the same for everybody.
type scores []float32

// scoresOf reads them.
func scoresOf(w weights.Set, items int) (scores, error) {
	b, ok := w.Get(itemLevels)
	if !ok || len(b.F32) != items {
		return nil, fmt.Errorf("the task has no scores of %d items", items)
	}
	return b.F32, nil
}

// Score implements [recommend.Scorer].
func (s scores) Score(_ int, _ []int32, _ []float32, items []int32, dst []float32) {
	for n, i := range items {
		dst[n] = s[i]
	}
}

// Recommender scores items for the users of a member: for all alike.
func (a *Means) Recommender(at federated.Local, s federated.State, _ *weights.Set) (recommend.Scorer, error) {
	if at.Train.Data == nil || !at.Train.Data.Rated() {
		return nil, fmt.Errorf("the data are not ratings, which this method learns from")
	}
	return scoresOf(s.Sets["w"], len(at.Train.Data.Ratings.Items))
}

// Try does a member's part of the first round, for its time; nothing comes of it.
func (a *Means) Try(ctx context.Context, at federated.Local) error {
	w, err := a.Initial(at.Seed, 1)
	if err != nil {
		return err
	}
	_, err = a.Client().Run(ctx, at, federated.Task{Phase: trains, Sets: map[string]weights.Set{"w": w}}, nil)
	return err
}
