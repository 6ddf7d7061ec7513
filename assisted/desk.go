package assisted

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"
	"sync"

	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/weights"
	"gonum.org/v1/gonum/mat"
)

// Desk is an organisation's side of every method: it owns the organisation's columns, its kind of model and the models that it
// has fitted, and answers with fitted values and nothing else. The fields must not change once it is in use.
//
// A task names the model it asks for by round and step, and the rows by the digest of their ordered keys. The same task gets
// the same answer again, also after the desk was started again on the same store; other targets for a model that was
// fitted are refused. Rows whose key the desk does not have are NaN in its answers, and are not fitted.
type Desk struct {
	Keys     []string   // of the rows of Features; none twice
	Features *mat.Dense // n×d; NaN is a missing value
	Learner  learner.Learner
	Store    Store
	// Limit is how many columns of targets are answered, and of activations told, over all runs on the store: what is known of the
	// features grows with each. 0: no limit.
	Limit int
	// Most bounds the size of targets; 0 means 1e100. What is larger is refused.
	Most float64
	// Sketch is how many random mixtures of features are told, once, to whoever asks whether assistance is worth while
	// (package al): 0 tells none. The sponsor's own desk has [Open], and tells its features themselves.
	Sketch int
	// Blur is the scale of Laplace noise on every number of these mixtures, of columns scaled to [0, 1].
	Blur float64
	// Aligner, if not nil, finds out by the first targets of a run whose rows are whose: the keys that tell are in doubt or missing.
	Aligner Aligner
	// Blocks names the block of each row, for an aligner that looks for a partner within one; nil: there are none.
	Blocks []string
	// Compared has of each row values, such as names, that agree more or less with the sponsor's, for an aligner; nil: there are none.
	Compared [][]string
	// Noise is the standard deviation of normal noise on every fitted value that is sent: for studies of organisations that
	// are of no use.
	Noise float64

	once  sync.Once
	fault error
	index map[string]int
	mu    sync.Mutex // held while something is fitted or counted
}

// Open is the Sketch of a desk whose organisation asks itself.
const Open = -1

// Desks are clients of members in one process, by name.
type Desks map[string]*Desk

// Run implements [federated.Client].
func (d Desks) Run(ctx context.Context, at federated.Local, task federated.Task, keep *weights.Set) (federated.Result, error) {
	desk, ok := d[at.Member.Name]
	if !ok {
		return federated.Result{}, fmt.Errorf("there is no desk of %q", at.Member.Name)
	}
	return desk.Run(ctx, at, task, keep)
}

// Validate returns an error that says what the desk lacks.
func (d *Desk) Validate() error {
	switch {
	case d.Features == nil:
		return errors.New("a desk has no features")
	case d.Learner == nil:
		return errors.New("a desk has no learner")
	case d.Store == nil:
		return errors.New("a desk has no store for its models")
	case d.Sketch < Open || d.Limit < 0 || d.Most < 0 || d.Noise < 0 || !(d.Blur >= 0):
		return fmt.Errorf("sketch %d, blur %g, limit %d, largest target %g, noise %g: none may be negative", d.Sketch, d.Blur, d.Limit, d.Most, d.Noise)
	}
	if rows, _ := d.Features.Dims(); rows != len(d.Keys) {
		return fmt.Errorf("%d keys for %d rows of features", len(d.Keys), rows)
	}
	if d.Blocks != nil && len(d.Blocks) != len(d.Keys) {
		return fmt.Errorf("%d blocks for %d rows of features", len(d.Blocks), len(d.Keys))
	}
	if d.Compared != nil && len(d.Compared) != len(d.Keys) {
		return fmt.Errorf("values to compare of %d rows for %d rows of features", len(d.Compared), len(d.Keys))
	}
	for i := range d.Keys {
		for j, v := range d.Features.RawRowView(i) {
			if math.IsInf(v, 0) {
				return fmt.Errorf("feature %d of %q is infinite", j, d.Keys[i])
			}
		}
	}
	return nil
}

// open checks the desk and finds its rows by key, once.
func (d *Desk) open() error {
	d.once.Do(func() {
		if d.fault = d.Validate(); d.fault != nil {
			return
		}
		d.index = make(map[string]int, len(d.Keys))
		for i, k := range d.Keys {
			if j, twice := d.index[k]; twice {
				d.fault = fmt.Errorf("key %q is there twice, in rows %d and %d", k, j, i)
				return
			}
			d.index[k] = i
		}
	})
	return d.fault
}

// Run implements [federated.Client]. It may be called for several tasks at once; models are fitted one after the other.
func (d *Desk) Run(ctx context.Context, at federated.Local, task federated.Task, _ *weights.Set) (federated.Result, error) {
	if err := d.open(); err != nil {
		return federated.Result{}, err
	}
	o, err := orderOf(task)
	if err != nil {
		return federated.Result{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	switch o.Do {
	case doRows:
		return d.learnRows(at, o, task)
	case doFit, doVote, doGLM:
		return d.fit(ctx, at, o, task)
	case doUpdate:
		return d.update(ctx, at, o, task)
	case doSketch:
		return d.sketch(at, o, at.Rand(0, "mixtures"))
	case doPredict:
		return d.predict(at, o, task)
	case doRecompute:
		return d.recompute(at, o)
	}
	return federated.Result{}, fmt.Errorf("asked to do %q, which nobody here does", o.Do)
}

// roster is the rows of a run as a desk knows them.
type roster struct {
	digest    string
	fit       int
	at        []int // where each is among the desk's own; −1 if it has no such entity
	strata    []int // of each, where every stratum is fitted apart; nil: there are none
	alongside       // what the sponsor says of each
}

// features returns the features of a part of the rows that the desk has, and which rows these are. Where rows are in strata, that
// stands before the features of each.
func (d *Desk) features(at, strata []int) (*mat.Dense, []int) {
	var have []int
	for i, own := range at {
		if own >= 0 {
			have = append(have, i)
		}
	}
	if len(have) == 0 {
		return nil, nil
	}
	_, columns := d.Features.Dims()
	first := b2i(strata != nil)
	x := mat.NewDense(len(have), first+columns, nil)
	for i, row := range have {
		to := x.RawRowView(i)
		to[0] = float64(stratum(strata, row))
		copy(to[first:], d.Features.RawRowView(at[row]))
	}
	return x, have
}

func (d *Desk) find(keys []string) []int {
	at := make([]int, len(keys))
	for i, k := range keys {
		own, ok := d.index[k]
		if !ok {
			own = -1
		}
		at[i] = own
	}
	return at
}

func rowsName(at federated.Local) string          { return at.Scope + "/rows" }
func modelName(at federated.Local, s Slot) string { return at.Scope + "/model/" + s.String() }
func targetName(at federated.Local, s Slot) string {
	return at.Scope + "/target/" + s.String()
}

// learnRows keeps the keys of a run, and says how many of them the desk has.
func (d *Desk) learnRows(at federated.Local, o order, task federated.Task) (federated.Result, error) {
	named, keys, more, err := readRows(task.Attached)
	if err != nil {
		return federated.Result{}, err
	}
	if digest := digestOf(named); digest != o.Rows {
		return federated.Result{}, fmt.Errorf("the keys are not those that the task names: %.12s… instead of %.12s…", digest, o.Rows)
	}
	if o.Fit < 1 || o.Fit > len(keys) {
		return federated.Result{}, fmt.Errorf("%d rows to fit of %d", o.Fit, len(keys))
	}
	if old, err := d.roster(at); err == nil && (old.digest != o.Rows || old.fit != o.Fit) {
		return federated.Result{}, errors.New("the run has other rows than it began with")
	}
	kept, err := json.Marshal(keptRows{o.Fit, task.Attached})
	if err == nil {
		err = d.Store.Put(rowsName(at), kept)
	}
	if err != nil {
		return federated.Result{}, err
	}
	if err := d.comparable(more); err != nil {
		return federated.Result{}, err
	}
	have, fit := d.known(roster{digest: o.Rows, fit: o.Fit, at: d.find(keys), alongside: more})
	if fit < 2 {
		return federated.Result{}, fmt.Errorf("of the %d entities to fit, this organisation has %d: nothing can be learned; are keys written alike?", o.Fit, fit)
	}
	return federated.Result{Scalars: map[string]float64{"rows": float64(have), "rows.fit": float64(fit)}}, nil
}

type keptRows struct {
	Fit  int
	Keys []byte
}

// roster reads the rows of the run.
func (d *Desk) roster(at federated.Local) (roster, error) {
	b, err := d.Store.Get(rowsName(at))
	if err != nil {
		return roster{}, fmt.Errorf("the rows of this run: %w", err)
	}
	var k keptRows
	if err := json.Unmarshal(b, &k); err != nil {
		return roster{}, fmt.Errorf("the rows of this run: %w", err)
	}
	named, keys, more, err := readRows(k.Keys)
	if err != nil {
		return roster{}, fmt.Errorf("the rows of this run: %w", err)
	}
	return roster{digest: digestOf(named), fit: k.Fit, at: d.find(keys), alongside: more}, nil
}

// fit fits a model to the targets, or takes that which it fitted to them before, and answers with its values for all rows.
func (d *Desk) fit(ctx context.Context, at federated.Local, o order, task federated.Task) (federated.Result, error) {
	r, err := d.targets(o, task)
	if err != nil {
		return federated.Result{}, err
	}
	rows, err := d.roster(at)
	if err != nil {
		return federated.Result{}, err
	}
	if n, _ := r.Dims(); rows.digest != o.Rows || n != rows.fit {
		return federated.Result{}, fmt.Errorf("%d targets for rows %.12s…; the run has %d for %.12s…", n, o.Rows, rows.fit, rows.digest)
	}
	if rows.strata, err = strataIn(task, len(rows.at)); err != nil {
		return federated.Result{}, err
	}
	if rows.strata != nil && (o.Do != doFit || o.Share != "") {
		return federated.Result{}, errors.New("strata of rows are for models of residuals that share nothing, and for no others")
	}
	if d.Aligner != nil && o.Do == doGLM {
		return federated.Result{}, errors.New("this organisation aligns its rows by residuals, and what it is sent is labels: let it join without aligning, or take al or gal")
	}
	rows, told, err := d.align(ctx, at, o.Slot, rows, r)
	if err != nil {
		return federated.Result{}, err
	}
	g, err := d.answer(ctx, at, o, rows, r)
	if err != nil {
		return federated.Result{}, err
	}
	d.disturb(at, g, "noise/"+o.Slot.String())
	return federated.Result{Attached: AppendMatrix(nil, g), Scalars: told}, nil
}

// answer fits what targets are to be fitted with, and returns its values for all rows.
func (d *Desk) answer(ctx context.Context, at federated.Local, o order, rows roster, r *mat.Dense) (*mat.Dense, error) {
	switch o.Share {
	case "":
	case ShareWarm, ShareRestart:
		if l, ok := d.Learner.(learner.Sharer); ok {
			if d.blockMembers(rows) != nil {
				return nil, errors.New("this organisation aligns its rows by blocks, which cannot be done with models that share parts (dms)")
			}
			return d.fitShared(ctx, at, o, rows, r, l)
		}
	default:
		return nil, fmt.Errorf("asked to share models by %.40q, which nobody here knows", o.Share)
	}
	m, err := d.model(ctx, at, o, rows, r)
	if err != nil {
		return nil, err
	}
	_, columns := r.Dims()
	switch o.Do {
	case doVote:
		columns = o.Classes
	case doGLM:
		columns = 1
	}
	g, err := d.values(rows.at, rows.strata, columns, m.Predict)
	if err != nil {
		return nil, err
	}
	return g, d.expect(rows, g, m.Predict)
}

// targets returns what a model is asked to be fitted to: finite values, or rows that are NaN throughout, which are left out.
func (d *Desk) targets(o order, task federated.Task) (*mat.Dense, error) {
	r, err := matrixIn(task.Sets[targetSet], targetSet)
	if err != nil {
		return nil, fmt.Errorf("targets: %w", err)
	}
	most := d.Most
	if most == 0 {
		most = 1e100
	}
	rows, _ := r.Dims()
	for i := range rows {
		masked := Masked(r, i)
		for j, v := range r.RawRowView(i) {
			if math.IsNaN(v) != masked || math.Abs(v) > most {
				return nil, fmt.Errorf("target %d, column %d of round %d is %v: it must be a number of at most %g, or the row be left out as a whole",
					i, j, o.Slot.Round+1, v, most)
			}
		}
	}
	_, columns := r.Dims()
	switch {
	case o.Do == doVote:
		return r, o.checkVotes(r)
	case o.Do == doGLM && columns != 2:
		return nil, fmt.Errorf("%d columns for a generalised linear model: a label and its offset are expected", columns)
	}
	return r, nil
}

// admit keeps what a model of a slot is fitted to, of so many columns, and the strata of the rows if there are any; anything else than before
// is refused.
func (d *Desk) admit(at federated.Local, s Slot, columns int, target []byte, strata []int) error {
	switch before, err := d.Store.Get(targetName(at, s)); {
	case errors.Is(err, fs.ErrNotExist):
		if err := d.count(columns); err != nil {
			return err
		}
		if strata != nil {
			if err := d.Store.Put(strataName(at, s), AppendMatrix(nil, strataMatrix(strata))); err != nil {
				return err
			}
		}
		if err := d.Store.Put(targetName(at, s), target); err != nil {
			return err
		}
		if err := d.note(at, s); err != nil {
			return err
		}
	case err != nil:
		return err
	case !bytes.Equal(before, target):
		return fmt.Errorf("model %v was fitted to other targets", s)
	}
	before, err := d.keptStrata(at, s)
	if err == nil && !slices.Equal(before, strata) {
		err = fmt.Errorf("model %v was fitted to other strata", s)
	}
	return err
}

// model returns the model of a slot, fitted to the targets.
func (d *Desk) model(ctx context.Context, at federated.Local, o order, rows roster, r *mat.Dense) (learner.Model, error) {
	s := o.Slot
	_, columns := r.Dims()
	if err := d.admit(at, s, columns, AppendMatrix(nil, r), rows.strata); err != nil {
		return nil, err
	}
	m, err := d.load(at, s)
	if !errors.Is(err, fs.ErrNotExist) {
		return m, err
	}
	fit := make([]int, rows.fit)
	for i := range fit {
		fit[i] = rows.at[i]
		if Masked(r, i) {
			fit[i] = -1
		}
	}
	x, have := d.features(fit, rows.strata)
	if x == nil {
		return nil, errors.New("of the entities that targets came for, this organisation has none")
	}
	if m, err = d.learn(ctx, o, x, Pick(r, have), strataOf(rows.strata), at.Rand(s.Round, fmt.Sprintf("fit/%d", s.Step))); err != nil {
		return nil, fmt.Errorf("fitting model %v: %w", s, err)
	}
	b, err := m.MarshalBinary()
	if err == nil {
		err = d.Store.Put(modelName(at, s), b)
	}
	return m, err
}

// learn fits what is asked for: values, apart in so many strata if there are any, labels beside an offset, or votes for classes with weights.
func (d *Desk) learn(ctx context.Context, o order, x, y *mat.Dense, strata int, r *rng.Stream) (learner.Model, error) {
	switch {
	case strata > 0:
		return learner.FitStrata(ctx, d.Learner, x, y, strata, r)
	case o.Do == doFit:
		return d.Learner.Fit(ctx, x, y, nil, r)
	case o.Do == doGLM:
		l, ok := d.Learner.(learner.Generalised)
		if !ok {
			return nil, errors.New("the run is one of generalised linear models, and this organisation's is another: take linear or ridge for this run, or let the sponsor take al or gal")
		}
		return l.FitGLM(ctx, x, Columns(y, []int{0}), Columns(y, []int{1}), o.Family)
	}
	n, _ := y.Dims()
	labels, w := make([]int, n), make([]float64, n)
	for i := range n {
		labels[i], w[i] = int(y.At(i, 0)), y.At(i, 1)
	}
	return learner.FitVotes(ctx, d.Learner, x, labels, o.Classes, w, r)
}

func (d *Desk) load(at federated.Local, s Slot) (learner.Model, error) {
	b, err := d.Store.Get(modelName(at, s))
	if err != nil {
		return nil, fmt.Errorf("model %v: %w", s, err)
	}
	return learner.DecodeBy(d.Learner, b)
}

// values returns predictions for rows, NaN for those that the desk does not have.
func (d *Desk) values(at, strata []int, columns int, predict func(*mat.Dense) (*mat.Dense, error)) (*mat.Dense, error) {
	out := mat.NewDense(len(at), columns, nil)
	for i := range at {
		row := out.RawRowView(i)
		for k := range row {
			row[k] = math.NaN()
		}
	}
	x, have := d.features(at, strata)
	if x == nil {
		return out, nil
	}
	v, err := predict(x)
	if err != nil {
		return nil, err
	}
	if n, k := v.Dims(); n != len(have) || k != columns {
		return nil, fmt.Errorf("the model predicts %d×%d values for %d rows and %d outputs", n, k, len(have), columns)
	}
	if err := finite(v); err != nil {
		return nil, fmt.Errorf("the model's prediction: %w", err)
	}
	for i, row := range have {
		out.SetRow(row, v.RawRowView(i))
	}
	return out, nil
}

// disturb adds the desk's noise to values that are sent.
func (d *Desk) disturb(at federated.Local, g *mat.Dense, purpose string) {
	if d.Noise == 0 {
		return
	}
	r := at.Rand(0, purpose)
	rows, _ := g.Dims()
	for i := range rows {
		row := g.RawRowView(i)
		for k := range row {
			row[k] += float64(d.Noise * r.NormFloat64())
		}
	}
}

// predict answers with the values of models for the entities that are asked for: their weighted sum, or each beside the others.
func (d *Desk) predict(at federated.Local, o order, task federated.Task) (federated.Result, error) {
	if len(o.Slots) == 0 {
		return federated.Result{}, errors.New("no model is asked for")
	}
	if o.Coefficients != nil && len(o.Coefficients) != len(o.Slots) {
		return federated.Result{}, fmt.Errorf("%d coefficients for %d models", len(o.Coefficients), len(o.Slots))
	}
	if o.Shares != nil && (o.Coefficients == nil || len(o.Shares) != len(o.Slots)) {
		return federated.Result{}, fmt.Errorf("shares of %d coefficients, for %d models with %d", len(o.Shares), len(o.Slots), len(o.Coefficients))
	}
	keys, err := ReadKeys(task.Attached)
	if err != nil {
		return federated.Result{}, err
	}
	where := d.find(keys)
	if len(where) == 0 {
		return federated.Result{}, errors.New("no entity is asked for")
	}
	strata, err := strataIn(task, len(keys))
	if err != nil {
		return federated.Result{}, err
	}
	switch sum, err := d.summed(at, o, where, strata); {
	case err != nil:
		return federated.Result{}, err
	case sum != nil:
		return federated.Result{Attached: AppendMatrix(nil, sum)}, nil
	}
	all, err := d.recalled(at, o.Slots, where, strata)
	if err != nil {
		return federated.Result{}, err
	}
	for i, v := range all {
		d.disturb(at, v, "predict/"+o.Slots[i].String()+"/"+o.Rows)
		if o.Coefficients != nil {
			v.Scale(o.Coefficients[i], v)
		}
		if o.Shares != nil && o.Shares[i] != nil {
			if err := scaleColumns(v, o.Shares[i]); err != nil {
				return federated.Result{}, fmt.Errorf("model %v: %w", o.Slots[i], err)
			}
		}
	}
	out := all[0]
	for _, v := range all[1:] {
		if o.Coefficients != nil {
			out.Add(out, v)
			continue
		}
		var both mat.Dense
		both.Augment(out, v)
		out = &both
	}
	return federated.Result{Attached: AppendMatrix(nil, out)}, nil
}

// scaleColumns multiplies each column of v with a number of its own.
func scaleColumns(v *mat.Dense, by []float64) error {
	rows, columns := v.Dims()
	if len(by) != columns {
		return fmt.Errorf("%d shares for %d outputs", len(by), columns)
	}
	for i := range rows {
		row := v.RawRowView(i)
		for k := range row {
			row[k] *= by[k]
		}
	}
	return nil
}

// answered is what a desk remembers of all its runs.
type answered struct{ Columns int }

const answeredName = "answered"

// count notes that so many columns are answered, or refuses to where the limit is reached.
func (d *Desk) count(columns int) error {
	a, err := d.answered()
	if err != nil {
		return err
	}
	if a.Columns += columns; d.Limit > 0 && a.Columns > d.Limit {
		return fmt.Errorf("this organisation answers at most %d columns of targets on this table and has answered %d: its owner must allow more", d.Limit, a.Columns-columns)
	}
	b, err := json.Marshal(a)
	if err != nil {
		return err
	}
	return d.Store.Put(answeredName, b)
}

func (d *Desk) answered() (a answered, err error) {
	b, err := d.Store.Get(answeredName)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return a, nil
	case err == nil:
		err = json.Unmarshal(b, &a)
	}
	return a, err
}
