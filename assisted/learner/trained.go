package learner

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

// engine is what networks are trained on and predict with unless [On] says otherwise; the process has one.
var engine = sync.OnceValues(newEngine)

// On returns a learner whose networks, and those that [DecodeBy] reads by it, compute on e. Other learners come back as they are.
func On(l Learner, e *train.Engine) Learner {
	if n, ok := l.(networks); ok {
		n.engine = e
		return n
	}
	return l
}

// orDefault returns e, or the engine that the process has.
func orDefault(e *train.Engine) (*train.Engine, error) {
	if e != nil {
		return e, nil
	}
	return engine()
}

func newEngine() (*train.Engine, error) {
	b, err := backend.New(backend.Default(), backend.Options{})
	if err != nil {
		return nil, err
	}
	return train.NewEngine(b), nil
}

// Engine says what networks compute on where nothing else is said: equal data and an equal stream give equal bits where it is the same.
func Engine() (backend.Info, error) {
	e, err := engine()
	if err != nil {
		return backend.Info{}, err
	}
	return backend.Describe(e.Backend()), nil
}

// spec is what a step is. Equal networks share its programs.
func (l networks) spec(m *nn.Model, classes bool) *train.Spec {
	var optimizer train.Optimizer = train.SGD{Momentum: l.momentum, Decay: l.decay}
	if l.adam {
		optimizer = train.Adam{Decay: l.decay}
	}
	return &train.Spec{
		Key:   fmt.Sprintf("learner %+v %v %v %v", l.architecture, l.power, l.drop, classes),
		Model: m, DType: weights.Float32, Loss: train.MeanSquares, Custom: l.loss(l.power, classes), Clip: 1, Optimizer: optimizer,
	}
}

// target is what one head is fitted to: values of mean 0 and root mean square 1, or shares of classes.
type target struct {
	values *mat.Dense
	weight []float64 // of mean 1 over the rows that count
	head
}

// head turns a head's outputs f into predictions, bias + unit·f.
type head struct {
	bias []float64
	unit float64
}

// regression returns the target of numbers y under weights w. Unit 0 tells that y is constant.
func regression(y *mat.Dense, w []float64) target {
	n, k := y.Dims()
	t := target{values: mat.NewDense(n, k, nil), weight: level(w), head: head{bias: columnMeans(y, w)}}
	var square float64
	for i := range n {
		floats.SubTo(t.values.RawRowView(i), y.RawRowView(i), t.bias)
		square += float64(w[i] * floats.Dot(t.values.RawRowView(i), t.values.RawRowView(i)))
	}
	if t.unit = math.Sqrt(square / floats.Sum(w) / float64(k)); t.unit > 0 {
		t.values.Scale(1/t.unit, t.values)
	}
	return t
}

// level divides weights by their mean over the rows that have any.
func level(w []float64) []float64 {
	v := slices.Clone(w)
	floats.Scale(float64(len(heavy(w)))/floats.Sum(w), v)
	return v
}

func (l networks) Fit(ctx context.Context, x, y *mat.Dense, w []float64, r *rng.Stream) (Model, error) {
	_, d, k, w, err := checkFit(x, y, w)
	if err != nil {
		return nil, err
	}
	t := regression(y, w)
	if d == 0 || t.unit == 0 {
		return &Linear{Bias: t.bias}, nil
	}
	l.outputs, l.heads = k, 1
	return l.fit(ctx, x, []target{t}, w, false, nil, r)
}

// FitClasses minimises the cross-entropy; scores are logits.
func (l networks) FitClasses(ctx context.Context, x *mat.Dense, labels []int, k int, w []float64, r *rng.Stream) (Model, error) {
	d, w, err := checkLabels(x, labels, k, w)
	if err != nil {
		return nil, err
	}
	if d == 0 {
		return &Linear{Bias: logPrior(labels, k, w)}, nil
	}
	t := target{values: mat.NewDense(len(labels), k, nil), weight: level(w), head: head{make([]float64, k), 1}}
	for i, c := range labels {
		t.values.Set(i, c, 1)
	}
	l.outputs, l.heads = k, 1
	return l.fit(ctx, x, []target{t}, w, true, nil, r)
}

// fit trains on the rows of weight above 0 in w, from new weights or, where start is not nil, from those.
func (l networks) fit(ctx context.Context, x *mat.Dense, targets []target, w []float64, classes bool, start *network, r *rng.Stream) (Model, error) {
	n, d := x.Dims()
	a := l.architecture
	if a.kind == "mlp" {
		a.shape = []int{d}
	}
	if columns := a.columns(); columns != d {
		return nil, &ShapeError{"features", n, d, fmt.Sprintf("%d columns, as the shape %v says", columns, a.shape)}
	}
	l.architecture = a
	model, err := a.model(l.drop)
	if err != nil {
		return nil, err
	}
	if least := model.MinBatch; l.batch < least || len(heavy(w)) < least {
		return nil, fmt.Errorf("%d rows in batches of %d: batch norm needs at least %d", len(heavy(w)), l.batch, least)
	}
	m := &network{architecture: a, engine: l.engine}
	initial := model.Initial(weights.Float32, r)
	if start != nil {
		m.scaling = start.scaling
		start.lend(initial)
	} else {
		m.scaling = a.scale(x, w)
	}
	for _, t := range targets {
		m.heads = append(m.heads, t.head)
	}
	e, err := orDefault(l.engine)
	if err != nil {
		return nil, err
	}
	session, err := e.Begin(l.spec(model, classes), initial, train.Options{})
	if err != nil {
		return nil, err
	}
	defer session.Close()
	if err := l.steps(ctx, session, model, m.examples(x), targets, heavy(w), r); err != nil {
		return nil, err
	}
	if m.params, err = session.Params(); err != nil {
		return nil, err
	}
	if m.params.Finite() != nil {
		return nil, errDiverged
	}
	return m, nil
}

// steps goes over the rows epoch after epoch.
func (l networks) steps(ctx context.Context, session *train.Session, m *nn.Model, data *dataset.Examples, targets []target, rows []int, r *rng.Stream) error {
	d := data.Size()
	for range l.epochs {
		r.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
		for at := 0; at < len(rows); at += l.batch {
			if err := ctx.Err(); err != nil {
				return err
			}
			batch := rows[at:min(at+l.batch, len(rows))]
			if len(batch) < m.MinBatch {
				continue
			}
			b := train.Batch{N: len(batch), X: make([]float32, 0, len(batch)*d), Targets: make([]float32, 0, len(batch)*m.Classes), Random: r}
			for _, i := range batch {
				b.X = append(b.X, data.F32[i*d:][:d]...)
				for _, t := range targets {
					for _, v := range t.values.RawRowView(i) {
						b.Targets = append(b.Targets, float32(v))
					}
				}
				for _, t := range targets {
					b.Targets = append(b.Targets, float32(t.weight[i]))
				}
			}
			var diverged *train.NonFiniteError
			if _, err := session.Step(b, l.rate); errors.As(err, &diverged) {
				return errDiverged
			} else if err != nil {
				return err
			}
		}
	}
	return nil
}

// network is what was trained: the outputs of every head are bias + unit·f(z).
type network struct {
	architecture
	scaling
	heads  []head
	params weights.Set
	engine *train.Engine // nil: that of the process

	once  sync.Once // makes what follows
	asked *train.Spec
	fault error
}

// examples returns the standardised features. Steps of a sequence that are missing as a whole stay NaN.
func (m *network) examples(x *mat.Dense) *dataset.Examples {
	n, d := x.Dims()
	e := &dataset.Examples{Name: "features", Shape: m.shape, F32: make([]float32, 0, n*d)}
	z := make([]float64, d)
	for i := range n {
		from := x.RawRowView(i)
		m.row(z, from)
		for j, v := range z {
			if m.kind == "lstm" {
				if f := m.last(); absent(from[j/f*f:][:f]) {
					v = math.NaN()
				}
			}
			e.F32 = append(e.F32, float32(v))
		}
	}
	return e
}

// Predict implements [Model].
func (m *network) Predict(x *mat.Dense) (*mat.Dense, error) {
	if err := checkPredict(x, len(m.fill)); err != nil {
		return nil, err
	}
	n, _ := x.Dims()
	if n == 0 {
		return new(mat.Dense), nil
	}
	e, err := orDefault(m.engine)
	if err != nil {
		return nil, err
	}
	m.once.Do(func() {
		var model *nn.Model
		if model, m.fault = m.model(0); m.fault == nil {
			m.asked = networks{architecture: m.architecture}.spec(model, false)
		}
	})
	if m.fault != nil {
		return nil, m.fault
	}
	z, err := e.Predict(context.Background(), m.asked, m.params, weights.Set{}, m.examples(x).All(), train.EvalOptions{})
	if err != nil {
		return nil, err
	}
	k, wide := m.outputs, len(m.heads)*m.outputs+len(m.heads)
	out := mat.NewDense(n, len(m.heads)*k, nil)
	for i := range n {
		row := out.RawRowView(i)
		for h, head := range m.heads {
			for c, b := range head.bias {
				row[h*k+c] = b + float64(head.unit*float64(z.F32[i*wide+h*k+c]))
			}
		}
	}
	return finite(out)
}
