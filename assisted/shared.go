package assisted

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"

	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/weights"
	"gonum.org/v1/gonum/mat"
)

// How the models that an organisation fits in different rounds share all but their last layer, where its learner is a network (Deep
// Model Sharing: Diao, Ding and Tarokh, NeurIPS 2022). Other learners fit a model a round, as without.
const (
	ShareWarm    = "warm"    // each round goes on from where the one before has ended
	ShareRestart = "restart" // each begins anew, as the authors' released code does
)

// Recomputes is the phase in which organisations say again what models of earlier rounds, which have changed since, come to.
const Recomputes = "recompute"

// SharedFitTask is [Table.FitTask] for models that share what they can, in the way that share says; empty: nothing.
func (t *Table) SharedFitTask(r weights.Set, slot Slot, share string) (federated.Task, error) {
	r, err := t.padded(r)
	if err != nil {
		return federated.Task{}, err
	}
	return order{Do: doFit, Rows: digestOf(AppendKeys(nil, t.Sponsor.Keys)), Slot: slot, Share: share}.task(map[string]weights.Set{targetSet: r}, nil)
}

// RecomputePhase asks organisations that have models for their values.
func (t *Table) RecomputePhase(c Course, has func(name string) bool) federated.Phase {
	p := t.FitPhase(c, has)
	p.Name, p.Always = Recomputes, true
	return p
}

// RecomputeTask asks for the values of models on all rows of the run.
func (t *Table) RecomputeTask(slots []Slot) (federated.Task, error) {
	return order{Do: doRecompute, Rows: digestOf(AppendKeys(nil, t.Sponsor.Keys)), Slots: slots}.task(nil, nil)
}

// Recomputed returns what organisations have answered, by slot: answers stand by their places in the course. Slots says which models
// a member was asked for.
func (t *Table) Recomputed(srv federated.Server, s federated.State, c Course, roll federated.Roll, slots func(name string) []Slot) (map[Slot][]Answer, []string) {
	k := t.Sponsor.Outputs()
	answers, notes := t.answers(srv, s, c, roll, func(name string, attached []byte) (Answer, error) { return t.read(attached, k*len(slots(name)), nil) })
	out := map[Slot][]Answer{}
	for _, a := range answers {
		n, _ := a.Values.Dims()
		for i, slot := range slots(a.Name) {
			out[slot] = append(out[slot], Answer{Name: a.Name, Values: mat.DenseCopyOf(a.Values.Slice(0, n, i*k, (i+1)*k)), Mean: slices.Clone(a.Mean[i*k : (i+1)*k]), Absent: a.Absent})
		}
	}
	return out, notes
}

// Unlearned is the state and the course with F⁰ again, and nothing taken.
func (t *Table) Unlearned(s federated.State, c Course) (federated.State, Course) {
	s = WithMatrix(s, "F", Constant(len(t.Sponsor.Keys), c.Ensemble.Start))
	for _, v := range c.Ensemble.Members {
		delete(s.Sets, partName(v.Name)) // of the copy that With has made
	}
	c.Ensemble = Ensemble{Start: c.Ensemble.Start, Strata: c.Ensemble.Strata}
	return s, c
}

// sharedModel is one extractor and a head for each slot, as a desk keeps them.
type sharedModel struct {
	Slots []Slot
	Model []byte

	fitted learner.Model
}

func sharedName(at federated.Local) string         { return at.Scope + "/shared" }
func answerName(at federated.Local, s Slot) string { return at.Scope + "/answer/" + s.String() }
func (m *sharedModel) has(s Slot) bool             { return slices.Contains(m.Slots, s) }
func (m *sharedModel) block(v *mat.Dense, s Slot) *mat.Dense {
	n, columns := v.Dims()
	k, i := columns/len(m.Slots), slices.Index(m.Slots, s)
	return mat.DenseCopyOf(v.Slice(0, n, i*k, (i+1)*k))
}

// shared reads the shared model of a run; it is empty where there is none.
func (d *Desk) shared(at federated.Local) (*sharedModel, error) {
	m := new(sharedModel)
	b, err := d.Store.Get(sharedName(at))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return m, nil
	case err == nil:
		err = json.Unmarshal(b, m)
	}
	if err == nil {
		m.fitted, err = learner.DecodeBy(d.Learner, m.Model)
	}
	if err != nil {
		return nil, fmt.Errorf("the model that rounds share: %w", err)
	}
	return m, nil
}

// fitShared fits a head for the targets of a slot, beside those of earlier ones, and returns its values for all rows. The same slot gets
// the same values again, also after the model has gone on.
func (d *Desk) fitShared(ctx context.Context, at federated.Local, o order, rows roster, r *mat.Dense, l learner.Sharer) (*mat.Dense, error) {
	_, columns := r.Dims()
	if err := d.admit(at, o.Slot, columns, AppendMatrix(nil, r), nil); err != nil {
		return nil, err
	}
	switch b, err := d.Store.Get(answerName(at, o.Slot)); {
	case err == nil:
		return ReadMatrix(b)
	case !errors.Is(err, fs.ErrNotExist):
		return nil, err
	}
	m, err := d.shared(at)
	if err != nil {
		return nil, err
	}
	if !m.has(o.Slot) {
		if m, err = d.grow(ctx, at, o, rows, r, m, l); err != nil {
			return nil, err
		}
	}
	g, err := d.values(rows.at, nil, columns, func(x *mat.Dense) (*mat.Dense, error) {
		v, err := m.fitted.Predict(x)
		if err != nil {
			return nil, err
		}
		return m.block(v, o.Slot), nil
	})
	if err != nil {
		return nil, err
	}
	return g, d.Store.Put(answerName(at, o.Slot), AppendMatrix(nil, g))
}

// grow returns the shared model with one more head, and keeps it in place of the one before.
func (d *Desk) grow(ctx context.Context, at federated.Local, o order, rows roster, r *mat.Dense, m *sharedModel, l learner.Sharer) (*sharedModel, error) {
	x, have := d.features(rows.at[:rows.fit], nil)
	if x == nil {
		return nil, errors.New("of the entities that targets came for, this organisation has none")
	}
	var targets []*mat.Dense
	for _, s := range m.Slots {
		b, err := d.Store.Get(targetName(at, s))
		if err != nil {
			return nil, fmt.Errorf("targets of model %v: %w", s, err)
		}
		before, err := ReadMatrix(b)
		if err != nil {
			return nil, fmt.Errorf("targets of model %v: %w", s, err)
		}
		targets = append(targets, Pick(before, have))
	}
	next := &sharedModel{Slots: append(slices.Clone(m.Slots), o.Slot)}
	start := m.fitted
	if o.Share != ShareWarm {
		start = nil
	}
	var err error
	if next.fitted, err = l.FitShared(ctx, x, append(targets, Pick(r, have)), start, at.Rand(o.Slot.Round, fmt.Sprintf("fit/%d", o.Slot.Step))); err != nil {
		return nil, fmt.Errorf("fitting model %v: %w", o.Slot, err)
	}
	if next.Model, err = next.fitted.MarshalBinary(); err != nil {
		return nil, err
	}
	b, err := json.Marshal(next)
	if err == nil {
		err = d.Store.Put(sharedName(at), b)
	}
	return next, err
}

// recall returns the predictions of models for features, one after the other; what they share is computed once. Models of strata
// need that of each row before its features.
func (d *Desk) recall(at federated.Local, slots []Slot, x *mat.Dense, byStratum bool) ([]*mat.Dense, error) {
	m, err := d.shared(at)
	if err != nil {
		return nil, err
	}
	var all *mat.Dense
	out := make([]*mat.Dense, len(slots))
	for i, s := range slots {
		if !m.has(s) {
			one, err := d.load(at, s)
			if err != nil {
				return nil, err
			}
			if learner.Stratified(one) != byStratum {
				return nil, fmt.Errorf("model %v: either it is of strata of rows, and the task does not say in which each is, or it is not", s)
			}
			if out[i], err = one.Predict(x); err != nil {
				return nil, err
			}
			continue
		}
		if all == nil {
			if all, err = m.fitted.Predict(x); err != nil {
				return nil, err
			}
		}
		out[i] = m.block(all, s)
	}
	return out, nil
}

// recalled is [Desk.recall] for rows, NaN for those that the desk does not have.
func (d *Desk) recalled(at federated.Local, slots []Slot, where, strata []int) ([]*mat.Dense, error) {
	all, err := d.recall(at, slots, d.featuresOr(where, strata), strata != nil)
	if err != nil {
		return nil, err
	}
	for i, v := range all {
		if all[i], err = d.placed(where, strata, v); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// featuresOr are the features of those rows that the desk has. If it has none, any one tells how many outputs a model has.
func (d *Desk) featuresOr(where, strata []int) *mat.Dense {
	if x, _ := d.features(where, strata); x != nil {
		return x
	}
	return mat.NewDense(1, d.Features.RawMatrix().Cols+b2i(strata != nil), nil)
}

// placed puts the values for rows that the desk has where they belong, NaN for others.
func (d *Desk) placed(where, strata []int, v *mat.Dense) (*mat.Dense, error) {
	_, columns := v.Dims()
	return d.values(where, strata, columns, func(*mat.Dense) (*mat.Dense, error) { return v, nil })
}

// summed returns the weighted sum of models for rows, from one model that is the sum of all where that is the same function, so that
// many rounds predict as fast as one; nil where it is not, and models have to predict one by one.
func (d *Desk) summed(at federated.Local, o order, where, strata []int) (*mat.Dense, error) {
	if o.Coefficients == nil || o.Shares != nil || d.Noise > 0 {
		return nil, nil
	}
	var models []learner.Model
	for _, s := range o.Slots {
		m, err := d.load(at, s)
		if errors.Is(err, fs.ErrNotExist) {
			return nil, nil // it is shared, or not there
		}
		if err != nil {
			return nil, err
		}
		models = append(models, m)
		if _, ok := learner.Sum(models[:1], o.Coefficients); !ok || learner.Stratified(m) != (strata != nil) {
			return nil, nil
		}
	}
	sum, ok := learner.Sum(models, o.Coefficients)
	if !ok {
		return nil, nil
	}
	v, err := sum.Predict(d.featuresOr(where, strata))
	if err != nil {
		return nil, err
	}
	return d.placed(where, strata, v)
}

// recompute answers with the values that models have by now for the rows of the run, side by side.
func (d *Desk) recompute(at federated.Local, o order) (federated.Result, error) {
	if len(o.Slots) == 0 {
		return federated.Result{}, errors.New("no model is asked for")
	}
	rows, err := d.roster(at)
	if err != nil {
		return federated.Result{}, err
	}
	if rows.digest != o.Rows {
		return federated.Result{}, fmt.Errorf("asked for rows %.12s…; the run has %.12s…", o.Rows, rows.digest)
	}
	all, err := d.recalled(at, o.Slots, rows.at, nil)
	if err != nil {
		return federated.Result{}, err
	}
	var out mat.Dense
	for i, v := range all {
		d.disturb(at, v, "recompute/"+o.Slots[i].String())
		beside(&out, v)
	}
	return federated.Result{Attached: AppendMatrix(nil, &out)}, nil
}
