package assisted

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/federated"
	"gonum.org/v1/gonum/mat"
)

// Seen is what has passed between a desk and the sponsor of a run.
type Seen struct {
	Columns  int // columns of targets that were answered in the run
	All      int // the same over all runs on the store
	Received int // numerical rank of the targets: of how many directions the desk has learned something
	Answered int // numerical rank of the answers on the rows to fit: how much of the span of its features the sponsor knows by now
	Span     int // numerical rank of the features on these rows, with a column of ones: the most that there is to know by linear models; in each stratum anew
}

// Seen reports what has passed in a run. Answers are computed again from the models.
func (d *Desk) Seen(at federated.Local) (Seen, error) {
	if err := d.open(); err != nil {
		return Seen{}, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	a, err := d.answered()
	if err != nil {
		return Seen{}, err
	}
	slots, err := d.noted(at)
	if err != nil {
		return Seen{}, err
	}
	out := Seen{All: a.Columns}
	if len(slots) == 0 {
		return out, nil
	}
	rows, err := d.roster(at)
	if err != nil {
		return out, err
	}
	x, have := d.features(rows.at[:rows.fit], nil)
	if x == nil {
		return out, errors.New("the desk has none of the rows of this run")
	}
	var received, answers mat.Dense
	var strata []int // of the rows that it has
	for _, s := range slots {
		b, err := d.Store.Get(targetName(at, s))
		if err != nil {
			return out, fmt.Errorf("targets of model %v: %w", s, err)
		}
		sent, err := ReadMatrices(b) // of a turn at a shared network labels and layers follow the activations
		if err != nil {
			return out, fmt.Errorf("targets of model %v: %w", s, err)
		}
		all, err := d.keptStrata(at, s)
		if err != nil {
			return out, err
		}
		of := x
		if all != nil {
			of, _ = d.features(rows.at[:rows.fit], all)
			strata = make([]int, len(have))
			for i, row := range have {
				strata[i] = all[row]
			}
		}
		g, err := d.recall(at, []Slot{s}, of, all != nil)
		if errors.Is(err, fs.ErrNotExist) {
			continue // it was asked for and never fitted
		}
		if err != nil {
			return out, err
		}
		beside(&received, numbers(sent[0], have))
		beside(&answers, apart(g[0], strata))
	}
	ones := mat.NewDense(len(have), 1, slices.Repeat([]float64{1}, len(have)))
	span := numbers(x, nil)
	beside(span, ones)
	_, out.Columns = received.Dims()
	out.Received, out.Answered, out.Span = Rank(&received), Rank(&answers), Rank(apart(span, strata))
	return out, nil
}

// beside puts more columns beside those of x, which may be empty.
func beside(x, more *mat.Dense) {
	if x.IsEmpty() {
		x.CloneFrom(more)
		return
	}
	var both mat.Dense
	both.Augment(x, more)
	*x = both
}

// numbers returns some rows of x, or all for nil, with 0 in place of NaN.
func numbers(x *mat.Dense, which []int) *mat.Dense {
	out := mat.DenseCopyOf(x)
	if which != nil {
		out = Pick(x, which)
	}
	out.Apply(func(_, _ int, v float64) float64 {
		if math.IsNaN(v) {
			return 0
		}
		return v
	}, out)
	return out
}

// Rank is the number of singular values above 1e-8 of the largest.
func Rank(x *mat.Dense) int {
	var svd mat.SVD
	if x.IsEmpty() || !svd.Factorize(x, mat.SVDNone) {
		return 0
	}
	v := svd.Values(nil)
	n := 0
	for _, s := range v {
		if s > 1e-8*v[0] {
			n++
		}
	}
	return n
}

func slotsName(at federated.Local) string { return at.Scope + "/slots" }

// noted are the models that were asked for in a run.
func (d *Desk) noted(at federated.Local) (slots []Slot, err error) {
	b, err := d.Store.Get(slotsName(at))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err == nil:
		err = json.Unmarshal(b, &slots)
	}
	return slots, err
}

// note keeps in mind that a model was asked for.
func (d *Desk) note(at federated.Local, s Slot) error {
	slots, err := d.noted(at)
	if err != nil {
		return err
	}
	b, err := json.Marshal(append(slots, s))
	if err != nil {
		return err
	}
	return d.Store.Put(slotsName(at), b)
}

func mixturesName(at federated.Local) string { return at.Scope + "/mixtures" }

// sketch answers with mixtures of features, n×k: columns are scaled to [0, 1], missing values become the column's mean, and each mixture is
// with weights of length 1 in a random direction, which are not told. An open desk answers with its scaled columns. Rows that
// it does not have are NaN. It is asked once in a run: mixtures that differ would tell the columns. Directions and noise are drawn
// from r.
func (d *Desk) sketch(at federated.Local, o order, r drawing) (federated.Result, error) {
	if d.Sketch == 0 || d.Sketch > 0 && o.Mixtures > d.Sketch || o.Mixtures < 1 {
		return federated.Result{}, fmt.Errorf("asked for %d mixtures of features, this organisation tells at most %d", o.Mixtures, max(0, d.Sketch))
	}
	rows, err := d.roster(at)
	if err != nil {
		return federated.Result{}, err
	}
	if rows.digest != o.Rows {
		return federated.Result{}, errors.New("mixtures are asked for other rows than those of the run")
	}
	kept, err := d.Store.Get(mixturesName(at))
	if err == nil {
		return federated.Result{Attached: kept}, nil
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return federated.Result{}, err
	}
	x, have := d.features(rows.at, nil)
	if x == nil {
		return federated.Result{}, errors.New("this organisation has none of the entities")
	}
	UnitColumns(x)
	mixed := x
	if d.Sketch != Open {
		_, columns := x.Dims()
		directions := mat.NewDense(columns, o.Mixtures, nil)
		directions.Apply(func(_, _ int, _ float64) float64 { return r.NormFloat64() }, directions)
		for k := range o.Mixtures {
			c := directions.Slice(0, columns, k, k+1).(*mat.Dense)
			c.Scale(1/mat.Norm(c, 2), c)
		}
		mixed = new(mat.Dense)
		mixed.Mul(x, directions)
		if d.Blur > 0 {
			mixed.Apply(func(_, _ int, v float64) float64 { return v + float64(d.Blur*laplace(r)) }, mixed)
		}
	}
	_, columns := mixed.Dims()
	out := mat.NewDense(len(rows.at), columns, nil)
	out.Apply(func(_, _ int, _ float64) float64 { return math.NaN() }, out)
	for i, row := range have {
		out.SetRow(row, mixed.RawRowView(i))
	}
	kept = AppendMatrix(nil, out)
	return federated.Result{Attached: kept}, d.Store.Put(mixturesName(at), kept)
}

// drawing is where random numbers come from.
type drawing interface {
	Float64() float64
	NormFloat64() float64
}

// laplace draws from the Laplace distribution of scale 1: the difference of two exponential variables.
func laplace(r drawing) float64 { return math.Log(1-r.Float64()) - math.Log(1-r.Float64()) }

// UnitColumns scales every column of x to [0, 1] and puts the mean where a value is missing.
func UnitColumns(x *mat.Dense) {
	rows, columns := x.Dims()
	for j := range columns {
		lo, hi, sum, n := math.Inf(1), math.Inf(-1), 0.0, 0
		for i := range rows {
			if v := x.At(i, j); !math.IsNaN(v) {
				lo, hi, sum, n = min(lo, v), max(hi, v), sum+v, n+1
			}
		}
		for i := range rows {
			v := x.At(i, j)
			if math.IsNaN(v) && n > 0 {
				v = sum / float64(n)
			}
			if n == 0 || hi == lo {
				x.Set(i, j, 0)
				continue
			}
			x.Set(i, j, (v-lo)/(hi-lo))
		}
	}
}

// SketchPhase asks for mixtures of features from everybody who knows the rows, and that may says yes to; nil is everybody.
func (t *Table) SketchPhase(c Course, may func(name string) bool) federated.Phase {
	p := t.FitPhase(c, may)
	p.Name, p.Always = Sketches, true
	return p
}

// SketchTask asks for so many mixtures of features.
func (t *Table) SketchTask(mixtures int) (federated.Task, error) {
	return order{Do: doSketch, Rows: digestOf(AppendKeys(nil, t.Sponsor.Keys)), Mixtures: mixtures}.task(nil, nil)
}
