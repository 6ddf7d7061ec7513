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

// thinCNN is the CNN of the HeteroFL paper at its smallest level e, widths 4 to 32, as a spec with everything that the
// paper's training uses, and 1000 images for it.
func thinCNN(b *testing.B) (*Spec, dataset.View) {
	build, err := nn.New("cnn", nn.Config{Input: []int{28, 28, 1}, Classes: 10})
	if err != nil {
		b.Fatal(err)
	}
	m, err := build(1.0 / 16)
	if err != nil {
		b.Fatal(err)
	}
	r := rng.New(1, 0, "", "images")
	data := &dataset.Examples{Shape: []int{28, 28, 1}, U8: make([]uint8, 784*1000), Labels: make([]int32, 1000),
		Classes: make([]string, 10), Mean: []float32{0.5}, Std: []float32{0.5}}
	for i := range data.U8 {
		data.U8[i] = uint8(r.Uint32())
	}
	return &Spec{Model: m, Optimizer: SGD{Momentum: 0.9, Decay: 5e-4}, Clip: 1, Mask: ZeroMask, Scale: 1.0 / 16}, data.All()
}

// BenchmarkStep measures a step of a thin network on batches of 10, and how much of it is the loop's: filling the batch,
// the scalars, and reading the loss, beside the engine's own time.
func BenchmarkStep(b *testing.B) {
	for _, name := range []string{"cpu", "go"} {
		b.Run(name, func(b *testing.B) {
			be, err := backend.New(name, backend.Options{})
			if err != nil {
				b.Fatal(err)
			}
			e := NewEngine(be)
			defer e.Close()
			spec, data := thinCNN(b)
			s, err := e.Begin(spec, spec.Model.Initial(weights.Float32, rng.New(1, 0, "", "w")),
				Options{LabelMask: []float32{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}})
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
			fit := Fit{Data: data, Batch: 10, Rate: Constant(0.01), Steps: b.N, Random: rng.New(1, 0, "", "fit")}
			b.ReportAllocs()
			b.ResetTimer()
			if _, err := s.Fit(b.Context(), fit); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(float64(b.Elapsed()-x.spent)/float64(b.N), "ns-loop/op")
		})
	}
}

// BenchmarkClient measures what a virtual client costs beside its steps: beginning a session, one step, reading the
// weights, closing.
func BenchmarkClient(b *testing.B) {
	be, err := backend.New("", backend.Options{})
	if err != nil {
		b.Fatal(err)
	}
	e := NewEngine(be)
	defer e.Close()
	spec, data := thinCNN(b)
	w := spec.Model.Initial(weights.Float32, rng.New(1, 0, "", "w"))
	fit := Fit{Data: data, Batch: 10, Rate: Constant(0.01), Steps: 1}
	b.ReportAllocs()
	for b.Loop() {
		s, err := e.Begin(spec, w, Options{LabelMask: []float32{1, 1, 1, 1, 1, 1, 1, 1, 1, 1}})
		if err != nil {
			b.Fatal(err)
		}
		if _, err := s.Fit(b.Context(), fit); err != nil {
			b.Fatal(err)
		}
		if _, err := s.Params(); err != nil {
			b.Fatal(err)
		}
		s.Close()
	}
}
