package learner

import (
	"cmp"
	"fmt"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/train"
	"github.com/gomlx/gomlx/core/graph"
	"gonum.org/v1/gonum/mat"
)

// architecture is the form of a network of package nn. Its last layer is a number of heads side by side, each of which has the outputs
// of one fit: one head, or one a round where organisations share deep models.
type architecture struct {
	kind     string // mlp, cnn or lstm
	shape    []int  // of an example: [features], [height, width, channels] or [steps, features]
	widths   []int
	codes    int  // of lstm: how many values the last feature of a step has; 0: it is a number
	embedded int  // width of their embedding
	each     bool // of lstm: outputs are dealt to the steps
	outputs  int  // of a head
	heads    int
}

// columns returns how many features an example has.
func (a architecture) columns() int {
	n := 1
	for _, s := range a.shape {
		n *= s
	}
	return n
}

// last returns the length of the axis that runs fastest, whose positions are features in every place of an example.
func (a architecture) last() int { return a.shape[len(a.shape)-1] }

// check returns what is wrong with the form.
func (a architecture) check() error {
	rank := map[string]int{"mlp": 1, "cnn": 3, "lstm": 2}[a.kind]
	if len(a.shape) != rank {
		want := map[string]string{"cnn": "[height, width, channels]", "lstm": "[steps, features]"}[a.kind]
		return fmt.Errorf("shape: %v, expected %s, whose product is the number of columns", a.shape, want)
	}
	for _, v := range a.shape {
		if v < 1 {
			return fmt.Errorf("shape: %v, expected numbers above 0", a.shape)
		}
	}
	for _, v := range a.widths {
		if v < 1 {
			return fmt.Errorf("hidden: %v, expected numbers above 0", a.widths)
		}
	}
	switch {
	case a.codes < 0:
		return fmt.Errorf("codes: %d, expected 1 or more", a.codes)
	case a.embedded < 0:
		return fmt.Errorf("embedding: %d, expected 1 or more", a.embedded)
	case a.embedded > 0 && a.codes == 0:
		return fmt.Errorf("embedding: %d, but codes does not say how many codes there are", a.embedded)
	case a.kind == "lstm" && len(a.widths) != 1:
		return fmt.Errorf("hidden: %v, expected one number", a.widths)
	case a.kind == "cnn" && len(a.widths) == 0:
		return fmt.Errorf("hidden: an empty list, expected the channels of at least one convolution")
	case a.kind == "cnn" && min(a.shape[0], a.shape[1])>>(len(a.widths)-1) == 0:
		return fmt.Errorf("hidden: %d convolutions halve an image of %d×%d to nothing; leave some out", len(a.widths), a.shape[0], a.shape[1])
	}
	return nil
}

// model makes the network, whose output [rows, heads·outputs + heads] is that of every head, and as many zeros: they stand where
// targets hold the weight of a row for each head.
func (a architecture) model(drop float64) (*nn.Model, error) {
	width := a.heads * a.outputs
	steps := 1
	if a.each {
		steps = a.shape[0]
		if a.outputs%steps != 0 {
			return nil, &ShapeError{"targets", 0, a.outputs, fmt.Sprintf("a multiple of %d columns, so that every step has as many", steps)}
		}
	}
	name, c := a.kind, nn.Config{Input: a.shape, Classes: width / steps}
	switch a.kind {
	case "mlp":
		if c.Hidden = a.widths; len(a.widths) == 0 {
			name = "linear"
		}
	case "cnn":
		name, c.Widths = "galcnn", a.widths
	case "lstm":
		c.Hidden, c.Vocabulary, c.Embedding, c.EachStep, c.Dropout = a.widths, a.codes, a.embedded, a.each, &drop
	}
	build, err := nn.New(name, c)
	if err != nil {
		return nil, err
	}
	inner, err := build(1)
	if err != nil {
		return nil, err
	}
	m := *inner
	m.Classes = width + a.heads
	m.Forward = func(p *nn.Pass, x *graph.Node) *graph.Node {
		z, rows := inner.Forward(p, x), x.Shape().Dimensions[0]
		if a.each { // steps run before heads in the network, and after them here
			z = graph.TransposeAllAxes(graph.Reshape(z, rows, steps, a.heads, a.outputs/steps), 0, 2, 1, 3)
		}
		z = graph.Reshape(z, rows, width)
		weights := graph.SliceAxis(z, 1, graph.AxisRange(0, a.heads)) // any values of that shape
		return graph.Concatenate([]*graph.Node{z, graph.ZerosLike(weights)}, 1)
	}
	return &m, nil
}

// loss is that of every row, Σ_h w_h · mean_k |f − t|^q over heads h and their outputs k, or with classes the cross-entropy of shares t.
func (a architecture) loss(power float64, classes bool) func(output, target *graph.Node) *graph.Node {
	width := a.heads * a.outputs
	return func(output, target *graph.Node) *graph.Node {
		rows := output.Shape().Dimensions[0]
		part := func(x *graph.Node) *graph.Node {
			return graph.Reshape(graph.SliceAxis(x, 1, graph.AxisRange(0, width)), rows, a.heads, a.outputs)
		}
		z, t, w := part(output), part(target), graph.SliceAxis(target, 1, graph.AxisRange(width, width+a.heads))
		var each *graph.Node
		if classes {
			s := graph.Sub(z, graph.StopGradient(graph.ReduceAndKeep(z, graph.ReduceMax, -1)))
			logs := graph.Sub(s, graph.Log(graph.ReduceAndKeep(graph.Exp(s), graph.ReduceSum, -1)))
			each = graph.Neg(graph.ReduceSum(graph.Mul(t, logs), -1))
		} else {
			each = graph.ReduceMean(raise(graph.Sub(z, t), power), -1)
		}
		return graph.ReduceSum(graph.Mul(w, each), -1)
	}
}

// raise is |x|^q, with derivative 0 at 0.
func raise(x *graph.Node, q float64) *graph.Node {
	switch q {
	case 2:
		return graph.Mul(x, x)
	case 4:
		x = graph.Mul(x, x)
		return graph.Mul(x, x)
	}
	zero := graph.ZerosLike(x)
	some := graph.NotEqual(x, zero)
	a := graph.Abs(graph.Where(some, x, graph.OnesLike(x)))
	switch q {
	case 1:
	case 1.5:
		a = graph.Mul(a, graph.Sqrt(a))
	default:
		a = graph.Pow(a, graph.ConstAs(a, q))
	}
	return graph.Where(some, a, zero)
}

// networks fits a network to standardised features by steps on minibatches of
//
//	ℓ_q = 1/(B·k) Σ_i Σ_c w_i |y_ic − f_c(z_i)|^q,   y centred and divided by its root mean square, w of mean 1,
//
// or on the cross-entropy of classes. Mlp and lstm step by Adam (Kingma and Ba 2015), cnn as GAL does by gradients with
// momentum; gradients are clipped to norm 1, weight decay is added to them after that. Networks compute in float32, on the engine
// that [On] says, or the default one of this program.
//
// Pixels are standardised by channel, and the steps of a sequence by feature, since a network sees all places alike. Batch norm uses
// the batch in training and running statistics afterwards, also for the rows that were fitted (Diao, Ding and Tarokh, NeurIPS 2022). A last
// batch that is too small for it is left out of its pass.
type networks struct {
	architecture
	power, rate, momentum, decay, drop float64
	batch, epochs                      int
	adam                               bool
	engine                             *train.Engine // nil: that of the process
}

func newMLP(s Spec) (Learner, error) {
	return newNetwork(s, networks{architecture: architecture{kind: "mlp", shape: []int{1}, widths: []int{64}}, rate: 1e-3, batch: 32, epochs: 100, adam: true})
}

func newCNN(s Spec) (Learner, error) {
	return newNetwork(s, networks{architecture: architecture{kind: "cnn", shape: s.Shape, widths: []int{64, 128, 256, 512}}, rate: 0.1, momentum: 0.9, decay: 5e-4, batch: 512, epochs: 10})
}

func newLSTMs(s Spec) (Learner, error) {
	l := networks{architecture: architecture{kind: "lstm", shape: s.Shape, widths: []int{128}}, rate: 1e-3, decay: 5e-4, batch: 8, epochs: 10, adam: true}
	if s.Codes > 0 {
		l.embedded = 64
	}
	return newNetwork(s, l)
}

// newNetwork replaces the defaults by what the spec says.
func newNetwork(s Spec, l networks) (Learner, error) {
	if s.Hidden != nil {
		l.widths = slices.Clone(s.Hidden)
	}
	l.shape = slices.Clone(l.shape)
	l.power, l.rate, l.momentum, l.decay, l.drop = or(s.Power, 2), or(s.Rate, l.rate), or(s.Momentum, l.momentum), or(s.Decay, l.decay), or(s.Dropout, 0)
	l.batch, l.epochs = cmp.Or(s.Batch, l.batch), cmp.Or(s.Epochs, l.epochs)
	l.codes, l.embedded, l.each = s.Codes, cmp.Or(s.Embedding, l.embedded), s.EachStep
	if err := checkDescent(l.power, l.momentum); err != nil {
		return nil, err
	}
	if err := checkSteps(l.rate, l.decay, l.batch, l.epochs); err != nil {
		return nil, err
	}
	if !(l.drop >= 0 && l.drop < 1) {
		return nil, fmt.Errorf("dropout: %g, expected 0 or more, below 1", l.drop)
	}
	return l, l.check()
}

// scale returns how features become what the network sees. Of codes only the missing ones change, to what is no code.
func (a architecture) scale(x *mat.Dense, w []float64) scaling {
	if a.kind == "mlp" {
		return standardise(x, w, true)
	}
	features := a.last()
	s := standardiseAlike(x, w, features)
	if a.codes > 0 {
		for j := features - 1; j < len(s.fill); j += features {
			s.fill[j], s.center[j], s.scale[j] = -1, 0, 1
		}
	}
	return s
}

// absent reports whether no feature of a step is known.
func absent(step []float64) bool {
	return !slices.ContainsFunc(step, func(v float64) bool { return !math.IsNaN(v) })
}
