package learner

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

// architecture is the form of a network, in float64 and plain Go so that a model needs no engine to predict.
type architecture struct {
	kind    string // mlp, cnn or lstm
	shape   []int  // of an example: [features], [height, width, channels] or [steps, features]
	widths  []int
	outputs int
}

// columns returns how many features an example has.
func (a architecture) columns() int {
	n := 1
	for _, s := range a.shape {
		n *= s
	}
	return n
}

// sizes returns the number of parameters and of running statistics, as floats since they may be absurd.
func (a architecture) sizes() (values, stats float64) {
	in := float64(a.shape[len(a.shape)-1])
	for _, width := range a.widths {
		w := float64(width)
		switch a.kind {
		case "mlp":
			values += (in + 1) * w
		case "cnn":
			values += (9*in+1)*w + 2*w
			stats += 2 * w
		case "lstm":
			values += (in + w + 1) * 4 * w
		}
		in = w
	}
	return values + (in+1)*float64(a.outputs), stats
}

// build returns the layers on parameters from s:
//
//   - mlp: dense and ReLU for every width, dense
//   - cnn: GAL's, convolution, batch norm, ReLU and, except for the last, pooling for every width; mean over positions, dense
//   - lstm: one layer, dense on its last state
func (a architecture) build(s *slab) []layer {
	var layers []layer
	in := a.shape[0]
	switch a.kind {
	case "mlp":
		for _, width := range a.widths {
			layers = append(layers, newDense(s, in, width), new(relu))
			in = width
		}
	case "cnn":
		at := image{a.shape[0], a.shape[1], a.shape[2]}
		for i, width := range a.widths {
			layers = append(layers, newConv(s, at, width), newBatchNorm(s, width), new(relu))
			at.channels = width
			if i < len(a.widths)-1 {
				layers = append(layers, &pool{image: at})
				at.height, at.width = at.height/2, at.width/2
			}
		}
		layers = append(layers, average{at})
		in = at.channels
	case "lstm":
		layers = append(layers, newLSTM(s, a.shape[0], a.shape[1], a.widths[0]))
		in = a.widths[0]
	}
	return append(layers, newDense(s, in, a.outputs))
}

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
	case a.kind == "lstm" && len(a.widths) != 1:
		return fmt.Errorf("hidden: %v, expected one number", a.widths)
	case a.kind == "cnn" && len(a.widths) == 0:
		return fmt.Errorf("hidden: an empty list, expected the channels of at least one convolution")
	case a.kind == "cnn" && min(a.shape[0], a.shape[1])>>(len(a.widths)-1) == 0:
		return fmt.Errorf("hidden: %d convolutions halve an image of %d×%d to nothing; leave some out", len(a.widths), a.shape[0], a.shape[1])
	}
	return nil
}

// networks fits a network to standardised features by steps on minibatches of
//
//	ℓ_q = 1/(B·k) Σ_i Σ_c w_i |y_ic − f_c(z_i)|^q,   y centred and divided by its root mean square, w of mean 1,
//
// or on the cross-entropy of classes. Mlp and lstm step by Adam (Kingma and Ba 2015), cnn as GAL does by gradients with
// momentum; gradients are clipped to norm 1, weight decay is added to them after that.
type networks struct {
	architecture
	power, rate, momentum, decay float64
	batch, epochs                int
	adam                         bool
}

func newMLP(s Spec) (Learner, error) {
	return newNetwork(s, networks{architecture: architecture{kind: "mlp", shape: []int{1}, widths: []int{64}}, rate: 1e-3, batch: 32, epochs: 100, adam: true})
}

func newCNN(s Spec) (Learner, error) {
	return newNetwork(s, networks{architecture: architecture{kind: "cnn", shape: s.Shape, widths: []int{64, 128, 256, 512}}, rate: 0.1, momentum: 0.9, decay: 5e-4, batch: 512, epochs: 10})
}

func newLSTMs(s Spec) (Learner, error) {
	return newNetwork(s, networks{architecture: architecture{kind: "lstm", shape: s.Shape, widths: []int{128}}, rate: 1e-3, decay: 5e-4, batch: 8, epochs: 10, adam: true})
}

// newNetwork replaces the defaults by what the spec says.
func newNetwork(s Spec, l networks) (Learner, error) {
	if s.Hidden != nil {
		l.widths = slices.Clone(s.Hidden)
	}
	l.shape = slices.Clone(l.shape)
	l.power, l.rate, l.momentum, l.decay = or(s.Power, 2), or(s.Rate, l.rate), or(s.Momentum, l.momentum), or(s.Decay, l.decay)
	l.batch, l.epochs = cmp.Or(s.Batch, l.batch), cmp.Or(s.Epochs, l.epochs)
	if err := checkDescent(l.power, l.momentum); err != nil {
		return nil, err
	}
	if err := checkSteps(l.rate, l.decay, l.batch, l.epochs); err != nil {
		return nil, err
	}
	return l, l.check()
}

func (l networks) Fit(ctx context.Context, x, y *mat.Dense, w []float64, r *rng.Stream) (Model, error) {
	n, d, k, w, err := checkFit(x, y, w)
	if err != nil {
		return nil, err
	}
	means := columnMeans(y, w)
	if d == 0 {
		return &Linear{Bias: means}, nil
	}
	t := mat.NewDense(n, k, nil)
	var square float64
	for i := range n {
		floats.SubTo(t.RawRowView(i), y.RawRowView(i), means)
		square += float64(w[i] * floats.Dot(t.RawRowView(i), t.RawRowView(i)))
	}
	unit := math.Sqrt(square / floats.Sum(w) / float64(k))
	if unit == 0 {
		return &Linear{Bias: means}, nil
	}
	t.Scale(1/unit, t)
	return l.fit(ctx, x, k, w, r, means, unit, func(out []float64, i int, scale float64) {
		slope(l.power, out, t.RawRowView(i), scale/float64(k))
	})
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
	return l.fit(ctx, x, k, w, r, make([]float64, k), 1, func(out []float64, i int, scale float64) {
		log := floats.LogSumExp(out)
		for c, v := range out {
			out[c] = scale * math.Exp(v-log)
		}
		out[labels[i]] -= scale
	})
}

// fit trains; slope turns the outputs of row i into scale times the gradient of its loss.
func (l networks) fit(ctx context.Context, x *mat.Dense, k int, w []float64, r *rng.Stream, bias []float64, unit float64, slope func(out []float64, i int, scale float64)) (Model, error) {
	_, d := x.Dims()
	a := l.architecture
	if a.outputs = k; a.kind == "mlp" {
		a.shape = []int{d}
	}
	if columns := a.columns(); columns != d {
		rows, _ := x.Dims()
		return nil, &ShapeError{"features", rows, d, fmt.Sprintf("%d columns, as the shape %v says", columns, a.shape)}
	}
	m := &network{architecture: a, scaling: standardise(x, w, true), bias: bias, unit: unit}
	values, stats := a.sizes()
	m.values, m.stats = make([]float64, int(values)), make([]float64, int(stats))
	g := make([]float64, len(m.values))
	layers := a.build(&slab{m.values, g, m.stats})
	for _, layer := range layers {
		layer.start(r)
	}
	rows := heavy(w)
	mean := floats.Sum(w) / float64(len(rows))
	step := stepper{networks: l, first: make([]float64, len(g)), second: make([]float64, len(g))}
	for range l.epochs {
		r.Shuffle(len(rows), func(i, j int) { rows[i], rows[j] = rows[j], rows[i] })
		for at := 0; at < len(rows); at += l.batch {
			if err := ctx.Err(); err != nil {
				return nil, err
			}
			batch := rows[at:min(at+l.batch, len(rows))]
			out := run(layers, m.examples(x, batch), true)
			for j, i := range batch {
				slope(out.RawRowView(j), i, w[i]/mean/float64(len(batch)))
			}
			for j := len(layers) - 1; j >= 0; j-- {
				out = layers[j].backward(out)
			}
			step.update(m.values, g)
		}
	}
	if v := floats.Sum(m.values); math.IsNaN(v) || math.IsInf(v, 0) {
		return nil, errDiverged
	}
	return m, nil
}

func run(layers []layer, x *mat.Dense, train bool) *mat.Dense {
	for _, l := range layers {
		x = l.forward(x, train)
	}
	return x
}

// stepper moves parameters against clipped gradients.
type stepper struct {
	networks
	first, second []float64
	count         int
}

func (s *stepper) update(p, g []float64) {
	floats.Scale(math.Min(1, 1/(floats.Norm(g, 2)+1e-6)), g)
	floats.AddScaled(g, s.decay, p)
	if !s.adam {
		for i, v := range g {
			s.first[i] = float64(s.momentum*s.first[i]) + v
			p[i] -= float64(s.rate * s.first[i])
		}
		return
	}
	s.count++
	one, two := 1-math.Pow(0.9, float64(s.count)), 1-math.Pow(0.999, float64(s.count))
	for i, v := range g {
		s.first[i] = float64(0.9*s.first[i]) + float64(0.1*v)
		s.second[i] = float64(0.999*s.second[i]) + float64(0.001*v*v)
		p[i] -= s.rate * (s.first[i] / one) / (math.Sqrt(s.second[i]/two) + 1e-8)
	}
}

// network is what was trained: outputs are bias + unit·f(z).
type network struct {
	architecture
	scaling
	bias          []float64
	unit          float64
	values, stats []float64
}

// examples returns the standardised features of rows. Steps of a sequence that are missing as a whole stay NaN.
func (m *network) examples(x *mat.Dense, rows []int) *mat.Dense {
	z := mat.NewDense(len(rows), len(m.fill), nil)
	for at, i := range rows {
		to, from := z.RawRowView(at), x.RawRowView(i)
		m.row(to, from)
		if m.kind != "lstm" {
			continue
		}
		for f := m.shape[1]; len(from) > 0; from, to = from[f:], to[f:] {
			if !slices.ContainsFunc(from[:f], func(v float64) bool { return !math.IsNaN(v) }) {
				copy(to[:f], from[:f])
			}
		}
	}
	return z
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
	out := mat.NewDense(n, m.outputs, nil)
	const block = 64
	parallel((n+block-1)/block, func(b int) {
		rows := make([]int, 0, block)
		for i := b * block; i < min(n, (b+1)*block); i++ {
			rows = append(rows, i)
		}
		y := run(m.build(&slab{m.values, make([]float64, len(m.values)), m.stats}), m.examples(x, rows), false)
		for at, i := range rows {
			floats.AddScaledTo(out.RawRowView(i), m.bias, m.unit, y.RawRowView(at))
		}
	})
	return finite(out)
}

// MarshalBinary implements [Model].
func (m *network) MarshalBinary() ([]byte, error) {
	w := newWriter("network")
	w.text(m.kind)
	w.ints(m.shape)
	w.ints(m.widths)
	m.scaling.write(w)
	w.floats(m.bias)
	w.float(m.unit)
	w.floats(m.values)
	w.floats(m.stats)
	return w.b, nil
}

func readNetwork(r *reader) Model {
	m := &network{architecture: architecture{kind: r.text(), shape: r.ints(), widths: r.ints()}, scaling: readScaling(r), bias: r.floats(), unit: r.float(), values: r.floats(), stats: r.floats()}
	m.outputs = len(m.bias)
	r.check(slices.Contains([]string{"mlp", "cnn", "lstm"}, m.kind), "a network of kind %.20q", m.kind)
	if r.err != nil {
		return m
	}
	if err := m.check(); err != nil {
		r.fail(err)
		return m
	}
	columns := 1.0
	for _, s := range m.shape {
		columns *= float64(s)
	}
	values, stats := m.sizes()
	r.check(m.outputs > 0 && columns == float64(len(m.fill)) && values == float64(len(m.values)) && stats == float64(len(m.stats)),
		"%d parameters and %d statistics for %d columns, expected %g, %g and %g", len(m.values), len(m.stats), len(m.fill), values, stats, columns)
	for _, v := range m.stats {
		r.check(m.kind == "cnn", "statistics of a network that has none: %v", v)
	}
	return m
}
