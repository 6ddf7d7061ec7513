package recommenders

import (
	"context"
	"encoding/json"
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/recommend"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/weights"
)

// The model is a linear layer from a user's factors to scores of items: Y and β.
const (
	itemFactors = "linear.weight" // [items, factors]
	itemLevels  = "linear.bias"   // [items]
	trains      = "train"
)

// sized checks that the model is a linear layer, and returns how many items it scores.
func sized(p *federated.Problem, factors int) (items int, err error) {
	m, err := p.Build(1)
	if err != nil {
		return 0, err
	}
	w, ok := m.Param(itemFactors)
	b, ok2 := m.Param(itemLevels)
	if !ok || !ok2 || len(m.Params) != 2 {
		return 0, fmt.Errorf("the model is %q; this method's is linear, from the factors of a user to scores of items", m.Name)
	}
	if s := w.Shape(1); s[1] != factors {
		return 0, fmt.Errorf("the model reads %d factors, the method has %d", s[1], factors)
	}
	return b.Shape(1)[0], nil
}

// shared is what federated and joint factorisation share.
type shared struct {
	*federated.Problem
	o       Factorisation
	tasting federated.Tasting
}

func newShared(p *federated.Problem, o Factorisation) *shared {
	return &shared{Problem: p, o: o, tasting: o.tasting(p)}
}

// Check implements [federated.Algorithm].
func (a *shared) Check(federated.Server) error {
	if err := a.Validate(); err != nil {
		return err
	}
	_, err := sized(a.Problem, a.o.Width)
	return err
}

// initial returns the weights of round 0: those given, or factors from N(0, 0.1²/k) and levels 0, which those of implicit feedback
// always are.
func (a *shared) initial(seed uint64) (weights.Set, error) {
	w, err := a.Initial(seed, 1)
	if err != nil || a.Start != nil && !a.o.implicit() {
		return w, err
	}
	w = w.Clone()
	w.Put(itemLevels, weights.NewTensor(a.DType, w.Must(itemLevels).Len()))
	if a.Start != nil {
		return w, nil
	}
	r := rng.New(seed, 0, "", "factors")
	y := w.Must(itemFactors)
	for i := range y.Len() {
		y.SetAt(i, 0.1/math.Sqrt(float64(a.o.Width))*r.NormFloat64())
	}
	return w, nil
}

// tally is the mean of the ratings that members have told of.
type tally struct {
	Sum   float64 `json:"sum"`
	Count float64 `json:"count"`
}

func (t tally) mean() float64 {
	if t.Count == 0 {
		return 0
	}
	return t.Sum / t.Count
}

func tallyOf(s federated.State) (t tally, err error) {
	if err := json.Unmarshal(s.Meta, &t); err != nil {
		return t, fmt.Errorf("state: %w", err)
	}
	return t, nil
}

// read returns the factorisation of tensors, of which those of implicit feedback may lack levels.
func (a *shared) read(w weights.Set, mean float64, r *dataset.Ratings) (*factors, error) {
	y, ok := w.Get(itemFactors)
	if !ok || len(y.Shape) != 2 || y.Shape[1] != a.o.Width || y.Shape[0] != len(r.Items) {
		return nil, fmt.Errorf("the task has no factors of %d items", len(r.Items))
	}
	f := &factors{taste: a.o.taste(r, a.tasting), k: a.o.Width, mean: mean, y: make([]float64, y.Len()), level: make([]float64, len(r.Items))}
	for i := range f.y {
		f.y[i] = y.At(i)
	}
	if b, ok := w.Get(itemLevels); ok {
		if b.Len() != len(f.level) {
			return nil, fmt.Errorf("the task has %d levels for %d items", b.Len(), len(f.level))
		}
		for i := range f.level {
			f.level[i] = b.At(i)
		}
	} else if !f.implicit {
		return nil, fmt.Errorf("the task has no levels of items")
	}
	return f, nil
}

// setOf returns tensors with these values, in the layout of like.
func setOf(like weights.Set, y, level []float64) weights.Set {
	out := weights.NewSet(like.Len())
	for name, t := range like.All() {
		x := weights.NewTensor(t.DType(), t.Shape...)
		from := y
		if name == itemLevels {
			from = level
		}
		for i, v := range from {
			x.SetAt(i, v)
		}
		out.Put(name, x)
	}
	return out
}

// test measures a member's held-out ratings with the items' factors.
func (a *shared) test(at federated.Local, t federated.Task) (federated.Result, error) {
	if at.Test.Len() == 0 {
		return federated.Result{Status: federated.Abstained}, nil
	}
	s, err := a.scorer(at.Test.Data.Ratings, t.Sets["w"])
	if err != nil {
		return federated.Result{}, err
	}
	return a.tasting.Result(a.tasting.Measure(s, at.Train, at.Test, len(at.Test.Data.Ratings.Items))), nil
}

func (a *shared) scorer(r *dataset.Ratings, w weights.Set) (recommend.Scorer, error) {
	if r == nil {
		return nil, fmt.Errorf("the data are not ratings, which this method learns from")
	}
	f, err := a.read(w, 0, r)
	if err != nil {
		return nil, err
	}
	return newPredictor(f), nil
}

// Recommender scores items for the users of a member, with the items as a state has them; members keep nothing.
func (a *shared) Recommender(at federated.Local, s federated.State, _ *weights.Set) (recommend.Scorer, error) {
	return a.scorer(at.Train.Data.Ratings, s.Sets["w"])
}

// Joint is alternating least squares on the ratings of all users at one place. A round is a sweep over users and items.
type Joint struct{ *shared }

// Check implements [federated.Algorithm].
func (j *Joint) Check(srv federated.Server) error {
	if err := j.shared.Check(srv); err != nil {
		return err
	}
	if srv.Train.Len() == 0 {
		return fmt.Errorf("joint least squares: the server has no ratings")
	}
	return nil
}

// Init implements [federated.Algorithm].
func (j *Joint) Init(_ context.Context, srv federated.Server) (federated.State, error) {
	w, err := j.initial(srv.Seed)
	return federated.State{Sets: map[string]weights.Set{"w": w}}, err
}

// Next implements [federated.Algorithm].
func (j *Joint) Next(s federated.State) (federated.Phase, bool) {
	switch {
	case s.Step == 0:
		return federated.Phase{Name: trains}, true
	case s.Step == 1 && j.Due(s.Round):
		return federated.Phase{Name: "test"}, true
	}
	return federated.Phase{}, false
}

// Task implements [federated.Algorithm]: nobody is asked for anything.
func (j *Joint) Task(federated.State, federated.Phase, federated.Member) (federated.Task, error) {
	return federated.Task{}, fmt.Errorf("joint least squares asks members for nothing")
}

// Client implements [federated.Algorithm].
func (j *Joint) Client() federated.Client { return idle{} }

type idle struct{}

// Run has nothing to do.
func (idle) Run(_ context.Context, _ federated.Local, t federated.Task, _ *weights.Set) (federated.Result, error) {
	return federated.Result{}, fmt.Errorf("phase %q is unknown to this client: the server learns alone", t.Phase)
}

// Finish sweeps or tests at the server.
func (j *Joint) Finish(ctx context.Context, srv federated.Server, s federated.State, p federated.Phase, _ map[string]*federated.Sum, _ federated.Roll) (federated.State, federated.Diagnostics, error) {
	var d federated.Diagnostics
	items, err := sized(j.Problem, j.o.Width)
	if err == nil {
		err = federated.RatesItems(srv.Train.Data, items)
	}
	if err != nil {
		return s, d, err
	}
	f, err := j.read(s.Sets["w"], 0, srv.Train.Data.Ratings)
	if err != nil {
		return s, d, err
	}
	if p.Name == "test" {
		if srv.Test.Len() > 0 {
			j.tasting.Tell(&d, j.tasting.Measure(newPredictor(f), srv.Train, srv.Test, items))
		}
		return s, d, nil
	}
	loss, terms, err := f.sweep(ctx, recommend.Of(srv.Train))
	if err != nil {
		return s, d, err
	}
	s = s.With("w", setOf(s.Sets["w"], f.y, f.level))
	s.Version++
	d.Add("loss.train", "", loss/float64(terms))
	return s, d, nil
}

// Try sweeps once, for its time; nothing comes of it.
func (j *Joint) Try(ctx context.Context, at federated.Local) error {
	w, err := j.initial(at.Seed)
	if err != nil {
		return err
	}
	f, err := j.read(w, 0, at.Train.Data.Ratings)
	if err != nil {
		return err
	}
	_, _, err = f.sweep(ctx, recommend.Of(at.Train))
	return err
}
