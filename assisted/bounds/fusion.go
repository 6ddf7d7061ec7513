package bounds

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/gomlx/core/graph"
	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/stat"
)

// How networks of organisations become one, by [Fusion.How].
const (
	// Late trains a network for each organisation, heads and all, on the sum of their losses; predictions are averaged.
	Late = "late"
	// Interm is intermediate fusion: F = W·(1/M) Σ_m φ_m(x_m) + b, one dense layer on the mean of the organisations' features.
	Interm = "interm"
	// VFL is vertical federated learning by a split network (SplitNN; Vepakomma et al., arXiv 1812.00564): F = W·[φ_1 … φ_M] + b, one
	// dense layer on all features side by side. In each step only a of the M organisations are there, and the others' features are 0. In
	// prediction all are there, and their features are multiplied by a/M, so that the layer adds up as much as it was trained to (as
	// after dropout; the released code of gradient assisted learning leaves that out, which classes hardly notice and quantities do).
	VFL = "vfl"
)

// Fusion is networks φ_m of M organisations that are trained as one, end to end, on the sponsor's loss. Unlike in assistance,
// gradients pass from the sponsor into every organisation's network in every step, so that all run the same program at the
// same time; what is compared with it is what that buys. The settings are those of the authors of gradient assisted learning
// where they are left at 0: stochastic gradient descent at rate 0.1, ten times less after half of 100 epochs, momentum 0.9, weight decay
// 5·10⁻⁴, batches of 1024, gradients of all networks together clipped to norm 1.
type Fusion struct {
	How    string // Late, Interm or VFL
	Hidden []int  // widths of the ReLU layers of each organisation's network; none: features are the columns themselves
	Epochs int
	Batch  int
	Rate   float64
	Active float64 // of VFL, the part of the organisations that is there in a step, ⌈Active·M⌉ of them: 0.1 if left at 0
	// Raw fits quantities as they are, as the released code does. Else they are standardised first.
	Raw bool
}

// Validate returns an error that says which setting cannot be.
func (f Fusion) Validate() error {
	switch {
	case f.How != Late && f.How != Interm && f.How != VFL:
		return fmt.Errorf("networks are fused by %q: expected %s, %s or %s", f.How, Late, Interm, VFL)
	case slices.ContainsFunc(f.Hidden, func(n int) bool { return n < 1 }):
		return fmt.Errorf("hidden layers of widths %v: each needs at least 1", f.Hidden)
	case f.Epochs < 0 || f.Batch < 0 || !(f.Rate >= 0) || math.IsInf(f.Rate, 0):
		return fmt.Errorf("%d epochs, batches of %d, rate %g: none may be negative", f.Epochs, f.Batch, f.Rate)
	case !(f.Active >= 0 && f.Active <= 1):
		return fmt.Errorf("%g of the organisations are there in a step: expected a part of them, at most 1", f.Active)
	}
	return nil
}

func (f Fusion) withDefaults() Fusion {
	for _, v := range []struct {
		at  *float64
		def float64
	}{{&f.Rate, 0.1}, {&f.Active, 0.1}} {
		if *v.at == 0 {
			*v.at = v.def
		}
	}
	if f.Epochs == 0 {
		f.Epochs = 100
	}
	if f.Batch == 0 {
		f.Batch = 1024
	}
	return f
}

// Fuse trains the organisations' networks as one on the rows to fit and returns predictions F, n×K for all rows.
func (p Problem) Fuse(ctx context.Context, e *train.Engine, f Fusion) (*mat.Dense, error) {
	if err := f.Validate(); err != nil {
		return nil, err
	}
	if len(p.Parts) == 0 {
		return nil, errors.New("there is no organisation")
	}
	f = f.withDefaults()
	t := p.targets(f)
	n := newNetwork(f, p.Parts, t)
	if t.fit = slices.DeleteFunc(t.fit, func(i int32) bool { return assisted.Masked(p.Sponsor.Labels, int(i)) }); len(t.fit) == 0 {
		return nil, errors.New("of the rows to fit none has a label")
	}
	x := n.inputs(p.Parts, t.fit)
	s, err := e.Begin(n.spec(t), n.model.Initial(weights.Float32, rng.New(p.Seed, 0, "", "start")), train.Options{})
	if err != nil {
		return nil, err
	}
	defer s.Close()
	if err := n.train(ctx, s, x, t, rng.New(p.Seed, 0, "", "steps")); err != nil {
		return nil, err
	}
	z, err := s.Predict(ctx, x.All(), train.EvalOptions{})
	if err != nil {
		return nil, err
	}
	return t.values(z, f.How == Late, len(p.Parts)), nil
}

// targets is what networks are fitted to, and how their outputs become F.
type targets struct {
	loss    string
	outputs int       // of one network
	labels  []int32   // of classes, by row
	numbers []float32 // of quantities, by row and output
	centre  []float64 // F = centre + scale·z, by output
	scale   []float64
	fit     []int32 // the rows to fit
}

func (p Problem) targets(f Fusion) *targets {
	s := p.Sponsor
	rows, columns := s.Labels.Dims()
	t := &targets{loss: s.Objective.Loss, outputs: s.Outputs()}
	for i := range s.Fit {
		t.fit = append(t.fit, int32(i))
	}
	if s.Objective.Classifies() {
		t.outputs = max(2, t.outputs)
		t.labels = make([]int32, rows)
		for i := range rows {
			t.labels[i] = int32(s.Labels.At(i, 0))
		}
		return t
	}
	t.numbers = make([]float32, rows*columns)
	for k := range columns {
		centre, scale := 0.0, 1.0
		if !f.Raw {
			centre, scale = centreAndScale(mat.Col(nil, k, s.Fitted().Of(s.Labels)))
		}
		t.centre, t.scale = append(t.centre, centre), append(t.scale, scale)
		for i := range rows {
			t.numbers[i*columns+k] = float32((s.Labels.At(i, k) - centre) / scale)
		}
	}
	return t
}

// centreAndScale returns the mean and the sample standard deviation of what is not NaN; 0 and 1 where there are none.
func centreAndScale(v []float64) (centre, scale float64) {
	v = slices.DeleteFunc(v, math.IsNaN)
	centre, scale = stat.MeanStdDev(v, nil)
	if len(v) == 0 {
		centre = 0
	}
	if !(scale > 0) {
		scale = 1
	}
	return centre, scale
}

// values turns outputs into F: of late fusion the mean over the M networks.
func (t *targets) values(z weights.Tensor, late bool, networks int) *mat.Dense {
	if !late {
		networks = 1
	}
	rows := z.Shape[0]
	out := mat.NewDense(rows, t.outputs, nil)
	for i := range rows {
		for k := range t.outputs {
			sum := 0.0
			for m := range networks {
				sum += z.At((i*networks+m)*t.outputs + k)
			}
			v := sum / float64(networks)
			if t.centre != nil {
				v = t.centre[k] + float64(t.scale[k]*v)
			}
			out.Set(i, k, v)
		}
	}
	if t.loss == assisted.Logistic {
		one := mat.NewDense(rows, 1, nil)
		for i := range rows {
			one.Set(i, 0, out.At(i, 1)-out.At(i, 0))
		}
		return one
	}
	return out
}

// network is the organisations' networks as one model. Its input is all their columns side by side and, behind them, what each
// organisation's features are multiplied with: 0 if it is not there.
type network struct {
	Fusion
	widths []int // columns of each organisation
	model  *nn.Model
}

func newNetwork(f Fusion, parts []*mat.Dense, t *targets) *network {
	n := &network{Fusion: f}
	columns := 0
	for _, x := range parts {
		_, d := x.Dims()
		n.widths = append(n.widths, d)
		columns += d
	}
	m := &nn.Model{Name: "fusion " + f.How, Rate: 1, Input: []int{columns + len(parts)}, Classes: t.outputs, MinBatch: 1}
	if f.How == Late {
		m.Classes *= len(parts)
	}
	n.model = m
	dense := func(name string, in, out int) {
		m.Params = append(m.Params,
			nn.Param{Name: name + ".weight", Dims: []nn.Dim{{Size: out}, {Size: in}}, Role: nn.Kernel, Init: nn.Init{Kind: nn.Uniform, FanIn: true}},
			nn.Param{Name: name + ".bias", Dims: []nn.Dim{{Size: out}}, Role: nn.Bias, Init: nn.Init{Kind: nn.Uniform, FanIn: true, Of: name + ".weight"}})
	}
	side := 0 // features of all organisations side by side
	for k, d := range n.widths {
		for i, h := range f.Hidden {
			dense(layerName(k, i), d, h)
			d = h
		}
		side += d
		if f.How == Late {
			dense(headName(k), d, t.outputs)
		}
	}
	switch {
	case f.How == Interm && len(f.Hidden) > 0:
		dense("linear", f.Hidden[len(f.Hidden)-1], t.outputs)
	case f.How != Late:
		dense("linear", side, t.outputs)
	}
	m.Forward = n.forward
	return n
}

func layerName(organisation, i int) string {
	return fmt.Sprintf("organisation%d.linear%d", organisation+1, i+1)
}
func headName(organisation int) string { return fmt.Sprintf("organisation%d.linear", organisation+1) }

// affine is x·Wᵀ + b.
func affine(p *nn.Pass, name string, x *graph.Node) *graph.Node {
	y := graph.DotGeneral(x, []int{1}, nil, p.Params[name+".weight"], []int{1}, nil)
	return graph.Add(y, graph.ExpandLeftToRank(p.Params[name+".bias"], 2))
}

func (n *network) forward(p *nn.Pass, x *graph.Node) *graph.Node {
	organisations := len(n.widths)
	columns := x.Shape().Dimensions[1] - organisations
	features := make([]*graph.Node, organisations)
	at := 0
	for m, d := range n.widths {
		z := graph.SliceAxis(x, 1, graph.AxisRange(at, at+d))
		at += d
		for i := range n.Hidden {
			z = graph.Max(affine(p, layerName(m, i), z), graph.ScalarZero(z.Graph(), z.DType()))
		}
		if n.How == VFL {
			factor := graph.SliceAxis(x, 1, graph.AxisRange(columns+m, columns+m+1))
			z = graph.Mul(z, graph.BroadcastToShape(factor, z.Shape()))
		}
		if n.How == Late {
			z = affine(p, headName(m), z)
		}
		features[m] = z
	}
	switch {
	case n.How == Late:
		return graph.Concatenate(features, 1)
	case n.How == Interm && len(n.Hidden) > 0:
		sum := features[0]
		for _, z := range features[1:] {
			sum = graph.Add(sum, z)
		}
		return affine(p, "linear", graph.DivScalar(sum, float64(organisations)))
	case n.How == Interm: // columns at their places among all, 0 elsewhere: the mean is all of them divided by M
		return affine(p, "linear", graph.DivScalar(graph.Concatenate(features, 1), float64(organisations)))
	}
	return affine(p, "linear", graph.Concatenate(features, 1))
}

// spec is a step: the sponsor's loss, of late fusion the sum over the organisations' networks.
func (n *network) spec(t *targets) *train.Spec {
	s := &train.Spec{Key: fmt.Sprintf("assisted/bounds %s %s %v %v %d", n.How, t.loss, n.widths, n.Hidden, t.outputs),
		Model: n.model, DType: weights.Float32, Clip: 1, Optimizer: train.SGD{Momentum: 0.9, Decay: 5e-4}, Loss: train.MeanSquares}
	switch {
	case t.labels != nil:
		s.Loss = train.CrossEntropy
		if n.How == Late {
			s.Custom = func(z, y *graph.Node) *graph.Node { return lateCrossEntropy(z, y, len(n.widths), t.outputs) }
		}
	case t.loss == assisted.Absolute:
		s.Custom = func(z, y *graph.Node) *graph.Node { return graph.ReduceSum(graph.Abs(graph.Sub(z, y)), 1) }
	default:
		s.Custom = func(z, y *graph.Node) *graph.Node { return graph.ReduceSum(graph.Square(graph.Sub(z, y)), 1) }
	}
	return s
}

// lateCrossEntropy is Σ_m −log softmax(z_m)_y for outputs [batch, M·K] and labels [batch].
func lateCrossEntropy(z, y *graph.Node, organisations, classes int) *graph.Node {
	batch := z.Shape().Dimensions[0]
	z = graph.Reshape(z, batch, organisations, classes)
	z = graph.Sub(z, graph.StopGradient(graph.ReduceAndKeep(z, graph.ReduceMax, -1)))
	log := graph.Log(graph.ReduceSum(graph.Exp(z), -1))
	hit := graph.OneHot(y, classes, z.DType())
	own := graph.ReduceSum(graph.Mul(z, graph.BroadcastToShape(graph.ExpandAxes(hit, 1), z.Shape())), -1)
	return graph.ReduceSum(graph.Sub(log, own), -1)
}

// there is how many organisations are there in a step.
func (n *network) there() int {
	if n.How != VFL {
		return len(n.widths)
	}
	return int(math.Ceil(n.Active*float64(len(n.widths)) - 1e-9))
}

// inputs returns all columns as they are fed in prediction: standardised by the rows to fit, and 0 where a value is missing.
func (n *network) inputs(parts []*mat.Dense, fit []int32) *dataset.Examples {
	width := n.model.Input[0]
	rows, _ := parts[0].Dims()
	x := &dataset.Examples{Name: n.model.Name, Shape: []int{width}, F32: make([]float32, rows*width)}
	at := 0
	for _, part := range parts {
		_, d := part.Dims()
		for j := range d {
			fitted := make([]float64, len(fit))
			for i, row := range fit {
				fitted[i] = part.At(int(row), j)
			}
			centre, scale := centreAndScale(fitted)
			for i := range rows {
				if v := part.At(i, j); !math.IsNaN(v) {
					x.F32[i*width+at] = float32((v - centre) / scale)
				}
			}
			at++
		}
	}
	for i := range rows {
		for m := range parts {
			x.F32[i*width+at+m] = float32(n.there()) / float32(len(parts))
		}
	}
	return x
}

// train makes the steps of all epochs.
func (n *network) train(ctx context.Context, s *train.Session, x *dataset.Examples, t *targets, r *rng.Stream) error {
	batches := train.NewBatches(dataset.View{Data: x, Rows: t.fit}, n.Batch, r)
	steps := batches.Steps(n.Epochs)
	rate := train.MultiStep{Rate: n.Rate, Factor: 0.1}
	if half := batches.Steps((n.Epochs + 1) / 2); half < steps {
		rate.Milestones = []int{half}
	}
	there := r.Fork("there")
	for step := range steps {
		if err := ctx.Err(); err != nil {
			return err
		}
		if _, err := s.Step(n.batch(batches.Next().Rows, x, t, there), rate.At(step)); err != nil {
			return fmt.Errorf("step %d: %w", step+1, err)
		}
	}
	return nil
}

// batch gathers some rows, and draws who is there.
func (n *network) batch(rows []int32, x *dataset.Examples, t *targets, r *rng.Stream) train.Batch {
	width, organisations := n.model.Input[0], len(n.widths)
	b := train.Batch{N: len(rows)}
	for _, i := range rows {
		b.X = append(b.X, x.F32[int(i)*width:][:width]...)
		if t.labels != nil {
			b.Labels = append(b.Labels, t.labels[i])
			continue
		}
		for range n.model.Classes / t.outputs { // of late fusion each network's own copy
			b.Targets = append(b.Targets, t.numbers[int(i)*t.outputs:][:t.outputs]...)
		}
	}
	if n.How != VFL {
		return b
	}
	for k, m := range r.Perm(organisations) {
		factor := float32(1)
		if k >= n.there() {
			factor = 0
		}
		for i := range rows {
			b.X[i*width+width-organisations+m] = factor
		}
	}
	return b
}
