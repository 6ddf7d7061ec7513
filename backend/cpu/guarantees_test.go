package cpu_test

import (
	"runtime"
	"slices"
	"sync"
	"testing"

	"github.com/gomlx/compute"

	"github.com/cohort-learning/cohort/backend/cpu"
	"github.com/cohort-learning/cohort/backend/cpu/kernel"
)

// medium models are large enough for several tasks in most steps.
var medium = []model{
	cnn(6, 16, 3, 5, 8, 16, 24),
	mlp(40, 300, 120, 10),
	lstm(8, 6, 60, 48, 2),
	transformer(4, 24, 50, 64, 4, 2),
}

func TestSameBitsForAnyNumberOfThreads(t *testing.T) {
	for _, path := range kernel.Available() {
		one := newBackend(t, cpu.Options{Threads: 1, Path: path.String()})
		four := newBackend(t, cpu.Options{Threads: 4, Path: path.String()})
		for _, m := range medium {
			t.Run(path.String()+"/"+m.name, func(t *testing.T) {
				want, got := runSteps(t, one, m, 2), runSteps(t, four, m, 2)
				for i := range want {
					if !slices.Equal(want[i], got[i]) {
						t.Errorf("output %d differs between 1 and 4 threads", i)
					}
				}
			})
		}
	}
}

func TestPathsAgree(t *testing.T) {
	portable := newBackend(t, cpu.Options{Path: "portable"})
	best := newBackend(t, cpu.Options{Path: kernel.Best().String()})
	for _, m := range medium {
		t.Run(m.name, func(t *testing.T) {
			compareOutputs(t, runSteps(t, best, m, 1), runSteps(t, portable, m, 1), 1e-4)
		})
	}
}

func TestConcurrentExecutions(t *testing.T) {
	b := newBackend(t, cpu.Options{Threads: 2})
	for _, m := range small {
		t.Run(m.name, func(t *testing.T) {
			exec := compileModel(t, b, m)
			run := func(seed uint64) [][]float32 {
				out, err := exec.Execute(m.inputs(t, b, seed), nil, 0)
				if err != nil {
					t.Error(err)
					return nil
				}
				var flats [][]float32
				for _, o := range out {
					flats = append(flats, floatsOf(t, o))
				}
				return flats
			}
			want := [][][]float32{run(0), run(1), run(2), run(3), run(4), run(5)}
			var wg sync.WaitGroup
			for seed := range want {
				wg.Go(func() {
					for range 5 {
						for i, flat := range run(uint64(seed)) {
							if !slices.Equal(flat, want[seed][i]) {
								t.Errorf("client %d: output %d differs from that of an execution alone", seed, i)
							}
						}
					}
				})
			}
			wg.Wait()
		})
	}
}

// stepper runs training steps without keeping anything but the state.
func stepper(t testing.TB, b compute.Backend, m model) func() {
	exec := compileModel(t, b, m)
	bufs := m.inputs(t, b, 7)
	state := 2 * len(m.params)
	donate := make([]bool, len(bufs))
	for i := range state {
		donate[i] = true
	}
	return func() {
		out, err := exec.Execute(bufs, donate, 0)
		if err != nil {
			t.Fatal(err)
		}
		copy(bufs, out[:state])
		for _, o := range out[state:] {
			if err := o.Finalize(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestStepsAllocateOnlyTheResults(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	b := newBackend(t, cpu.Options{Threads: 2})
	for _, m := range append(slices.Clone(small), medium...) {
		t.Run(m.name, func(t *testing.T) {
			step := stepper(t, b, m)
			for range 3 {
				step()
			}
			// The slice of results and the buffers in it.
			if n := testing.AllocsPerRun(20, step); n > 2 {
				t.Errorf("a step allocates %v times, want at most 2", n)
			}
		})
	}
}

// intoStepper is stepper with ExecuteInto, whose results are the buffers that the step before gave away.
func intoStepper(t testing.TB, b compute.Backend, m model) func() {
	exec := compileModel(t, b, m).(*cpu.Executable)
	bufs := m.inputs(t, b, 7)
	state := 2 * len(m.params)
	donate := make([]bool, len(bufs))
	for i := range state {
		donate[i] = true
	}
	out := make([]compute.Buffer, len(exec.Outputs()))
	return func() {
		if err := exec.ExecuteInto(out, bufs, donate); err != nil {
			t.Fatal(err)
		}
		for i := range state {
			bufs[i], out[i] = out[i], bufs[i]
		}
		for _, o := range out[state:] {
			if err := o.Finalize(); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestStepsIntoSpentBuffersAllocateNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	b := newBackend(t, cpu.Options{Threads: 2})
	for _, m := range append(slices.Clone(small), medium...) {
		t.Run(m.name, func(t *testing.T) {
			step := intoStepper(t, b, m)
			for range 3 {
				step()
			}
			// The runtime's own allocations come at any time: one try without any is enough.
			for try := 1; ; try++ {
				n := testing.AllocsPerRun(10, step)
				if n == 0 {
					return
				}
				if try == 3 {
					t.Fatalf("a step allocates %v times", n)
				}
			}
		})
	}
}

func TestExecuteIntoEqualsExecute(t *testing.T) {
	b := newBackend(t, cpu.Options{Threads: 2})
	for _, m := range small {
		t.Run(m.name, func(t *testing.T) {
			want := runSteps(t, b, m, 3)
			exec := compileModel(t, b, m).(*cpu.Executable)
			bufs := m.inputs(t, b, 7)
			state := 2 * len(m.params)
			donate := make([]bool, len(bufs))
			for i := range state {
				donate[i] = true
			}
			out := make([]compute.Buffer, len(exec.Outputs()))
			for range 3 {
				if err := exec.ExecuteInto(out, bufs, donate); err != nil {
					t.Fatal(err)
				}
				for i := range state {
					bufs[i], out[i] = out[i], bufs[i]
				}
			}
			copy(out, bufs[:state])
			for i, o := range out {
				if !slices.Equal(floatsOf(t, o), want[i]) {
					t.Errorf("output %d differs from that of Execute", i)
				}
			}
		})
	}
}

func TestMemoryIsFlat(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector keeps memory")
	}
	b := newBackend(t, cpu.Options{Threads: 2})
	step := stepper(t, b, medium[0])
	inUse := func() uint64 {
		runtime.GC()
		var s runtime.MemStats
		runtime.ReadMemStats(&s)
		return s.HeapAlloc
	}
	for range 5 {
		step()
	}
	before := inUse()
	for range 100 {
		step()
	}
	if after := inUse(); after > before+before/50 {
		t.Errorf("100 steps let the heap grow from %d to %d bytes", before, after)
	}
}

func TestConfiguration(t *testing.T) {
	for config, ok := range map[string]bool{
		"": true, "threads=3": true, "threads=1,path=portable": true,
		"threads=0": false, "threads=x": false, "path=quantum": false, "speed=11": false,
	} {
		b, err := compute.NewWithConfig("cpu:" + config)
		if (err == nil) != ok {
			t.Errorf("configuration %q: error %v", config, err)
		}
		if err == nil {
			b.Finalize()
			if !b.IsFinalized() {
				t.Errorf("configuration %q: not finalized", config)
			}
		}
	}
	b, err := cpu.New(cpu.Options{Threads: 3, Path: "portable"})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Finalize()
	if got, want := b.Description(), "Cohort CPU backend (portable kernels, 3 threads)"; got != want {
		t.Errorf("Description is %q, want %q", got, want)
	}
}
