package mismatch

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/gomlx/core/graph"
	"gonum.org/v1/gonum/mat"
)

// Training says how a network learns in one fit. Zero fields take the defaults.
type Training struct {
	Epochs int     // passes over the rows a fit; 0: 1
	Batch  int     // 0: 100
	Rate   float64 // of Adam; 0: 0.005
	Decay  float64 // weight decay; 0: 0.001, negative: none
	// Total is the number of epochs of all fits together, after 60 % of which the rate falls to a fifth; 0: it stays.
	Total int
	// Fresh begins every fit with new weights.
	Fresh bool
}

// Neural is a network as f_θ: a fit is some epochs of Adam from where it stands, on soft labels or soft classes, rows weighted.
type Neural struct {
	engine  *train.Engine
	spec    *train.Spec
	session *train.Session
	data    *dataset.Examples
	o       Training
	random  *rng.Stream
	k       int
	classes bool

	center, scale []float64 // of the first numbers that were fitted: what the network sees is standardised
	epochs        int
}

// NewNeural returns a network of architecture m on the rows of data, for k numbers or, with classes, k classes. M has k outputs. It
// draws initial weights and the order of rows from r. Close frees what it holds on the engine.
func NewNeural(e *train.Engine, m *nn.Model, data *dataset.Examples, classes bool, o Training, r *rng.Stream) (*Neural, error) {
	if o.Epochs < 0 || o.Batch < 0 || !(o.Rate >= 0) || o.Total < 0 {
		return nil, badInput("training %+v: epochs, batch, rate and total may not be negative", o)
	}
	if data.Tok != nil {
		return nil, badInput("%s holds tokens: a network here takes numbers or images", data.Name)
	}
	if slices.Index(data.Shape, 0) >= 0 || !slices.Equal(data.Shape, m.Input) {
		return nil, badInput("rows of %s have shape %v, %s takes %v", data.Name, data.Shape, m.Name, m.Input)
	}
	o.Epochs, o.Batch = orElse(o.Epochs, 1), orElse(o.Batch, 100)
	o.Rate, o.Decay = orElse64(o.Rate, 0.005), max(0, orElse64(o.Decay, 0.001))
	n := &Neural{engine: e, data: data, o: o, random: r, k: m.Classes, classes: classes}
	n.spec = &train.Spec{Model: weighted(m), DType: weights.Float32, Loss: train.MeanSquares, Custom: n.loss, Optimizer: train.Adam{Decay: o.Decay}}
	return n, n.begin()
}

// weighted is m with one more output, always 0, whose target is the weight of the row.
func weighted(m *nn.Model) *nn.Model {
	wide := *m
	wide.Classes = m.Classes + 1
	wide.Forward = func(p *nn.Pass, x *graph.Node) *graph.Node {
		z := m.Forward(p, x)
		return graph.Concatenate([]*graph.Node{z, graph.Zeros(z.Graph(), columns(z, 0, 1).Shape())}, -1)
	}
	return &wide
}

func columns(x *graph.Node, from, to int) *graph.Node {
	return graph.Slice(x, graph.AxisRange(), graph.AxisRange(from, to))
}

// loss is w·mean(z − t)² of numbers, −w·Σ_c t_c log softmax(z)_c of classes.
func (n *Neural) loss(output, target *graph.Node) *graph.Node {
	z, t := columns(output, 0, n.k), columns(target, 0, n.k)
	w := graph.Reshape(columns(target, n.k, n.k+1), z.Shape().Dimensions[0])
	if !n.classes {
		d := graph.Sub(z, t)
		return graph.Mul(w, graph.ReduceMean(graph.Mul(d, d), -1))
	}
	s := graph.Sub(z, graph.StopGradient(graph.ReduceAndKeep(z, graph.ReduceMax, -1)))
	logs := graph.Sub(s, graph.Log(graph.ReduceAndKeep(graph.Exp(s), graph.ReduceSum, -1)))
	return graph.Neg(graph.Mul(w, graph.ReduceSum(graph.Mul(t, logs), -1)))
}

// begin starts with new weights.
func (n *Neural) begin() error {
	n.Close()
	s, err := n.engine.Begin(n.spec, n.spec.Model.Initial(weights.Float32, n.random.Fork("weights")), train.Options{})
	if err != nil {
		return fmt.Errorf("mismatch: a network of %s: %w", n.spec.Model.Name, err)
	}
	n.session = s
	return nil
}

// Close frees the network. It may be closed twice.
func (n *Neural) Close() {
	if n.session != nil {
		n.session.Close()
		n.session = nil
	}
}

// Params returns the weights.
func (n *Neural) Params() (weights.Set, error) { return n.session.Params() }

// rate is that of the coming epoch.
func (n *Neural) rate() float64 {
	if n.o.Total > 0 && 5*n.epochs >= 3*n.o.Total {
		return n.o.Rate / 5
	}
	return n.o.Rate
}

// Fit implements [Model].
func (n *Neural) Fit(ctx context.Context, rows []int, t *mat.Dense, w []float64) error {
	if n.center == nil {
		n.standardise(rows, t, w)
	}
	if n.o.Fresh && n.epochs > 0 {
		if err := n.begin(); err != nil {
			return err
		}
	}
	var use []int32
	each(rows, n.data.Len(), func(i int) {
		if w == nil || w[i] > 0 {
			use = append(use, int32(i))
		}
	})
	if len(use) == 0 {
		return badInput("every row has weight 0: there is nothing to learn from")
	}
	for range n.o.Epochs {
		if err := n.epoch(ctx, use, t, w); err != nil {
			return err
		}
	}
	return nil
}

func (n *Neural) epoch(ctx context.Context, use []int32, t *mat.Dense, w []float64) error {
	n.random.Shuffle(len(use), func(i, j int) { use[i], use[j] = use[j], use[i] })
	size := n.data.Size()
	for lo := 0; lo < len(use); lo += n.o.Batch {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		rows := use[lo:min(lo+n.o.Batch, len(use))]
		if len(rows) < max(1, n.spec.Model.MinBatch) {
			continue // too few for batch norm: they come in another epoch
		}
		b := train.Batch{N: len(rows), X: make([]float32, len(rows)*size), Targets: make([]float32, 0, len(rows)*(n.k+1)), Random: n.random}
		n.data.Fill(b.X, rows, dataset.Augment{}, nil)
		for _, i := range rows {
			for c, v := range t.RawRowView(int(i)) {
				b.Targets = append(b.Targets, float32((v-n.center[c])/n.scale[c]))
			}
			one := 1.0
			if w != nil {
				one = w[i]
			}
			b.Targets = append(b.Targets, float32(one))
		}
		if _, err := n.session.Step(b, n.rate()); err != nil {
			return err
		}
	}
	n.epochs++
	return nil
}

// standardise fixes the scale of what the network sees; classes stay as they are.
func (n *Neural) standardise(rows []int, t *mat.Dense, w []float64) {
	n.center, n.scale = make([]float64, n.k), slices.Repeat([]float64{1}, n.k)
	if n.classes {
		return
	}
	for c := range n.k {
		sum, square, total := 0.0, 0.0, 0.0
		each(rows, n.data.Len(), func(i int) {
			if w == nil || w[i] > 0 {
				sum += t.At(i, c)
				square += t.At(i, c) * t.At(i, c)
				total++
			}
		})
		n.center[c] = sum / max(1, total)
		if v := square/max(1, total) - n.center[c]*n.center[c]; v > 0 {
			n.scale[c] = math.Sqrt(v)
		}
	}
}

// Predict implements [Model].
func (n *Neural) Predict(ctx context.Context, rows []int, out *mat.Dense) error {
	var view []int32
	each(rows, n.data.Len(), func(i int) { view = append(view, int32(i)) })
	p, err := n.On(ctx, dataset.View{Data: n.data, Rows: view})
	if err != nil {
		return err
	}
	for r, i := range view {
		out.SetRow(int(i), p.RawRowView(r))
	}
	return nil
}

// On predicts for other rows: numbers, or logarithms of class probabilities.
func (n *Neural) On(ctx context.Context, v dataset.View) (*mat.Dense, error) {
	z, err := n.session.Predict(ctx, v, train.EvalOptions{})
	if err != nil {
		return nil, err
	}
	out, wide := mat.NewDense(v.Len(), n.k, nil), n.k+1
	for i := range v.Len() {
		row := out.RawRowView(i)
		for c := range row {
			row[c] = float64(z.F32[i*wide+c])
			if !n.classes && n.center != nil {
				row[c] = row[c]*n.scale[c] + n.center[c]
			}
		}
		if n.classes {
			sum := logSum(n.k, func(c int) float64 { return row[c] })
			for c := range row {
				row[c] -= sum
			}
		}
	}
	return out, nil
}

// Rows returns a matrix of features as rows for networks, standardised by column.
func Rows(name string, x *mat.Dense) *dataset.Examples {
	n, d := x.Dims()
	e := &dataset.Examples{Name: name, Shape: []int{d}, F32: make([]float32, 0, n*d), Mean: make([]float32, d), Std: make([]float32, d)}
	for i := range n {
		for _, v := range x.RawRowView(i) {
			e.F32 = append(e.F32, float32(v))
		}
	}
	for c := range d {
		col := mat.Col(nil, c, x)
		mean, square := 0.0, 0.0
		for _, v := range col {
			mean += v / float64(n)
		}
		for _, v := range col {
			square += (v - mean) * (v - mean) / float64(n)
		}
		e.Mean[c], e.Std[c] = float32(mean), 1
		if square > 0 {
			e.Std[c] = float32(math.Sqrt(square))
		}
	}
	return e
}
