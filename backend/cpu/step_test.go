package cpu_test

import (
	"math"
	"testing"

	"github.com/gomlx/compute"
	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/gomlx/core/graph"

	"github.com/cohort-learning/cohort/backend/cpu"
)

func floatsOf(t testing.TB, b compute.Buffer) []float32 {
	t.Helper()
	s, err := b.Shape()
	if err != nil {
		t.Fatal(err)
	}
	flat := make([]float32, s.Size())
	if err := b.ToFlatData(flat); err != nil {
		t.Fatal(err)
	}
	return flat
}

// runSteps runs the step n times, feeding parameters and momenta back, and
// returns the final outputs.
func runSteps(t testing.TB, b compute.Backend, m model, n int) [][]float32 {
	t.Helper()
	exec := compileModel(t, b, m)
	bufs := m.inputs(t, b, 7)
	state := 2 * len(m.params)
	donate := make([]bool, len(bufs))
	for i := range state {
		donate[i] = true
	}
	var out []compute.Buffer
	for range n {
		var err error
		out, err = exec.Execute(bufs, donate, 0)
		if err != nil {
			t.Fatal(err)
		}
		copy(bufs, out[:state])
	}
	var flats [][]float32
	for _, o := range out {
		flats = append(flats, floatsOf(t, o))
	}
	return flats
}

var small = []model{
	cnn(3, 8, 3, 5, 4, 6, 8),
	mlp(4, 20, 16, 5),
	lstm(3, 4, 11, 8, 2),
	transformer(2, 5, 13, 16, 2, 2),
}

// compareOutputs fails if a value of got is further than tolerance from want,
// relative to 1 + |want|.
func compareOutputs(t testing.TB, got, want [][]float32, tolerance float64) {
	t.Helper()
	for i := range want {
		for j, w := range want[i] {
			if d := math.Abs(float64(got[i][j] - w)); !(d <= tolerance*(1+math.Abs(float64(w)))) {
				t.Fatalf("output %d[%d] is %g, want %g", i, j, got[i][j], w)
			}
		}
	}
}

func TestTrainingStepsEqualGoEngine(t *testing.T) {
	if raceEnabled {
		t.Skip("the go engine fails under the race detector")
	}
	reference, err := gobackend.New("")
	if err != nil {
		t.Fatal(err)
	}
	b := newBackend(t, cpu.Options{})
	for _, m := range small {
		t.Run(m.name, func(t *testing.T) {
			compareOutputs(t, runSteps(t, b, m, 3), runSteps(t, reference, m, 3), 1e-4)
		})
	}
	for _, m := range medium {
		t.Run("medium "+m.name, func(t *testing.T) {
			compareOutputs(t, runSteps(t, b, m, 1), runSteps(t, reference, m, 1), 1e-4)
		})
	}
}

func benchmarkStep(b *testing.B, backend compute.Backend, m model) {
	step := stepper(b, backend, m)
	step()
	b.ReportAllocs()
	for b.Loop() {
		step()
	}
}

func BenchmarkStep(b *testing.B) {
	backend := newBackend(b, cpu.Options{})
	for _, c := range []struct {
		name string
		m    model
	}{
		{"mlp784-200-10/10", mlp(10, 784, 200, 10)},
		{"cnn16-128/10", cnn(10, 28, 1, 10, 16, 32, 64, 128)},
		{"cnn64-512/10", cnn(10, 28, 1, 10, 64, 128, 256, 512)},
		{"transformer256/100x64", transformer(10, 64, 1000, 256, 8, 2)},
		{"lstm200/20x35", lstm(20, 35, 1000, 200, 2)},
	} {
		b.Run(c.name, func(b *testing.B) { benchmarkStep(b, backend, c.m) })
	}
}

// BenchmarkClients runs one compiled step for eight clients at once.
func BenchmarkClients(b *testing.B) {
	m := cnn(10, 28, 1, 10, 16, 32, 64, 128)
	backend := newBackend(b, cpu.Options{})
	exec := compileModel(b, backend, m)
	b.SetParallelism(4)
	b.RunParallel(func(pb *testing.PB) {
		bufs := m.inputs(b, backend, 7)
		donate := make([]bool, len(bufs))
		state := 2 * len(m.params)
		for i := range state {
			donate[i] = true
		}
		for pb.Next() {
			out, err := exec.Execute(bufs, donate, 0)
			if err != nil {
				b.Error(err)
				return
			}
			copy(bufs, out[:state])
		}
	})
}

// BenchmarkCompile measures Builder.Compile alone.
func BenchmarkCompile(b *testing.B) {
	backend := newBackend(b, cpu.Options{})
	for _, c := range []struct {
		name string
		m    model
	}{
		{"cnn", cnn(10, 28, 1, 10, 16, 32, 64, 128)},
		{"lstm200/20x35", lstm(20, 35, 1000, 200, 2)},
	} {
		b.Run(c.name, func(b *testing.B) {
			for b.Loop() {
				b.StopTimer()
				s := &spy{Backend: backend}
				g := graph.NewGraph(s, c.m.name)
				outs := c.m.step(g)
				b.StartTimer()
				if err := g.Compile(outs...); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
