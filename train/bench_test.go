package train

import (
	"testing"
	"time"

	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/compute"
	"github.com/gomlx/gomlx/core/graph"
)

// timed counts the time that an executable takes.
type timed struct {
	compute.Executable
	spent time.Duration
}

func (x *timed) Execute(in []compute.Buffer, donate []bool, d compute.DeviceNum) ([]compute.Buffer, error) {
	start := time.Now()
	out, err := x.Executable.Execute(in, donate, d)
	x.spent += time.Since(start)
	return out, err
}

// BenchmarkStepOverhead measures what the loop adds to the engine's own time in a step of a thin network (16 parameter
// tensors with momentum, batches of 10 images of 28×28).
func BenchmarkStepOverhead(b *testing.B) {
	be, err := backend.New("go", backend.Options{})
	if err != nil {
		b.Fatal(err)
	}
	e := NewEngine(be)
	w := nn.Dim{Name: "w", Size: 4}
	in := nn.Dim{Name: "in", Size: 784}
	m := &nn.Model{Name: "thin", Rate: 1, Input: []int{28, 28, 1}, Classes: 4}
	for i := range 16 {
		p := nn.Param{Name: string(rune('a' + i)), Dims: []nn.Dim{w, w}}
		if i == 0 {
			p.Dims = []nn.Dim{in, w}
		}
		m.Params = append(m.Params, p)
	}
	m.Forward = func(p *nn.Pass, x *graph.Node) *graph.Node {
		x = graph.Reshape(x, x.Shape().Dimensions[0], 784)
		for _, q := range m.Params {
			x = graph.Dot(x, p.Params[q.Name]).Product()
		}
		return x
	}
	spec := &Spec{Model: m, Optimizer: SGD{Momentum: 0.9, Decay: 5e-4}, Clip: 1, Mask: ZeroMask}
	data := &dataset.Examples{Shape: []int{28, 28, 1}, U8: make([]uint8, 784*1000), Labels: make([]int32, 1000),
		Classes: make([]string, 4)}
	s, err := e.Begin(spec, m.Zeros(weights.Float32), Options{LabelMask: []float32{1, 1, 1, 1}})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	l, err := s.trainingLane(shape{kind: stepKind, group: everyGroup, batch: 10, masked: true})
	if err != nil {
		b.Fatal(err)
	}
	x := &timed{Executable: l.p.exec}
	l.p.exec = x
	fit := Fit{Data: data.All(), Batch: 10, Rate: Constant(0.01), Steps: b.N, Random: rng.New(1, 0, "", "fit")}
	b.ReportAllocs()
	b.ResetTimer()
	if _, err := s.Fit(b.Context(), fit); err != nil {
		b.Fatal(err)
	}
	b.ReportMetric(float64(b.Elapsed()-x.spent)/float64(b.N), "ns-overhead/op")
}
