package main

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"

	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// newRunner builds a case on the engine.
func newRunner(b compute.Backend, c Case) (*runner, error) {
	switch c.Kind {
	case "gemm":
		return graphRunner(b, c.Name, [][]int{axes(c.M, c.K, c.TA), axes(c.K, c.N, c.TB)}, func(in []*graph.Node) []*graph.Node {
			ca, cb := 1, 0
			if c.TA {
				ca = 0
			}
			if c.TB {
				cb = 1
			}
			return []*graph.Node{graph.EinsumAxes(in[0], in[1], [][2]int{{ca, cb}}, nil)}
		})
	case "conv":
		x, w := []int{c.N, c.H, c.W, c.Cin}, []int{c.Cout, c.Cin / c.Groups, c.KH, c.KW}
		y := []int{c.N, c.out(c.H, c.KH), c.out(c.W, c.KW), c.Cout}
		if !c.Backward {
			return graphRunner(b, c.Name, [][]int{x, w}, func(in []*graph.Node) []*graph.Node {
				return []*graph.Node{convolve(c, in[0], in[1])}
			})
		}
		return graphRunner(b, c.Name, [][]int{x, w, y}, func(in []*graph.Node) []*graph.Node {
			y := convolve(c, in[0], in[1])
			return append(graph.Gradient(graph.ReduceAllSum(graph.Mul(y, in[2])), in[0], in[1]), y)
		})
	case "train":
		return trainRunner(b, c)
	}
	return nil, fmt.Errorf("unknown kind of case %q", c.Kind)
}

// axes returns the shape in memory of a rows×cols matrix.
func axes(rows, cols int, transposed bool) []int {
	if transposed {
		return []int{cols, rows}
	}
	return []int{rows, cols}
}

// nhwcOIHW convolves images [batch, height, width, channels] with kernels [out, in, height, width].
var nhwcOIHW = graph.ConvolveAxesConfig{
	InputBatch: 0, InputSpatial: []int{1, 2}, InputChannels: 3,
	KernelOutputChannels: 0, KernelInputChannels: 1, KernelSpatial: []int{2, 3},
	OutputBatch: 0, OutputSpatial: []int{1, 2}, OutputChannels: 3,
}

func convolve(c Case, x, w *graph.Node) *graph.Node {
	pad := [2]int{c.Pad, c.Pad}
	return graph.ConvGeneral(x, w, nhwcOIHW, []int{c.Stride, c.Stride}, [][2]int{pad, pad}, nil,
		[]int{c.Dil, c.Dil}, c.Groups, 1)
}

// graphRunner compiles a graph of float32 parameters of the given shapes, filled with noise.
func graphRunner(b compute.Backend, name string, dims [][]int, build func(in []*graph.Node) []*graph.Node) (*runner, error) {
	g := graph.NewGraph(b, name)
	var in []*graph.Node
	var buffers []compute.Buffer
	r := rand.New(rand.NewPCG(1, 2))
	for i, d := range dims {
		s := shapes.Make(dtypes.Float32, d...)
		in = append(in, graph.Parameter(g, fmt.Sprint("p", i), s))
		flat := make([]float32, s.Size())
		for j := range flat {
			flat[j] = float32(r.NormFloat64())
		}
		buf, err := b.BufferFromFlatData(0, flat, s)
		if err != nil {
			return nil, err
		}
		buffers = append(buffers, buf)
	}
	if err := g.Compile(build(in)...); err != nil {
		return nil, err
	}
	exec := g.Executable()
	return &runner{
		step: func() error {
			out, err := exec.Execute(buffers, nil, 0)
			for _, o := range out {
				_ = o.Finalize()
			}
			return err
		},
		close: func() {
			for _, buf := range buffers {
				_ = buf.Finalize()
			}
			g.Finalize()
		},
	}, nil
}

// trainRunner sets up a session of package train: steps with clipping and SGD with momentum.
func trainRunner(b compute.Backend, c Case) (*runner, error) {
	start := time.Now()
	m, batch, err := trainCase(c)
	if err != nil {
		return nil, err
	}
	initial := m.Initial(weights.Float32, rng.New(1, 0, "bench", "initial weights"))
	drawn := time.Since(start)
	scale := c.Rate
	if scale == 1 {
		scale = 0
	}
	spec := &train.Spec{Model: m, Clip: 1, Scale: scale, Optimizer: train.SGD{Momentum: 0.9, Decay: 5e-4}}
	e := train.NewEngine(b)
	s, err := e.Begin(spec, initial, train.Options{})
	if err != nil {
		return nil, err
	}
	return &runner{
		step: func() error {
			_, err := s.Step(batch, 0.01)
			return err
		},
		params: int(m.Cost().Params),
		drawn:  drawn,
		close: func() {
			s.Close()
			e.Close()
		},
	}, nil
}

// trainCase returns the model of a case and a batch of noise for it.
func trainCase(c Case) (*nn.Model, train.Batch, error) {
	r := rand.New(rand.NewPCG(3, 4))
	batch := train.Batch{N: c.Batch}
	var m *nn.Model
	var err error
	switch c.Model {
	case "mlp":
		m, err = build("mlp", nn.Config{Input: []int{784}, Classes: 10, Hidden: []int{200}}, c.Rate)
	case "cnn":
		m, err = build("cnn", nn.Config{Input: []int{28, 28, 1}, Classes: 10}, c.Rate)
	case "resnet":
		m, err = build("resnet", nn.Config{Input: []int{32, 32, 3}, Classes: 10, Blocks: []int{1, 1, 1, 2}}, c.Rate)
	case "wrn":
		m = wideResNet()
	case "lstm":
		m = lstm()
	default:
		err = fmt.Errorf("unknown model %q", c.Model)
	}
	if err != nil {
		return nil, batch, err
	}
	labels := c.Batch
	if m.Tokens {
		labels *= m.Input[0]
		batch.Tokens = make([]int32, labels)
		for i := range batch.Tokens {
			batch.Tokens[i] = int32(r.IntN(m.Classes))
		}
	} else {
		size := c.Batch
		for _, n := range m.Input {
			size *= n
		}
		batch.X = make([]float32, size)
		for i := range batch.X {
			batch.X[i] = float32(r.NormFloat64())
		}
	}
	batch.Labels = make([]int32, labels)
	for i := range batch.Labels {
		batch.Labels[i] = int32(r.IntN(m.Classes))
	}
	return m, batch, nil
}

func build(name string, c nn.Config, rate float64) (*nn.Model, error) {
	b, err := nn.New(name, c)
	if err != nil {
		return nil, err
	}
	return b(rate)
}
