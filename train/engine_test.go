package train

import (
	"fmt"
	"math"
	"sync"
	"testing"

	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/compute"
	"github.com/gomlx/compute/shapes"
)

// TestEviction keeps an engine at two programs while sessions use five, one after the other and on several goroutines:
// programs in use stay, and what comes back is compiled again to the same bits.
func TestEviction(t *testing.T) {
	be, err := backend.New("go", backend.Options{})
	if err != nil {
		t.Fatal(err)
	}
	build, err := nn.New("linear", nn.Config{Input: []int{3}, Classes: 2})
	if err != nil {
		t.Fatal(err)
	}
	m, err := build(1)
	if err != nil {
		t.Fatal(err)
	}
	spec := &Spec{Model: m, Optimizer: SGD{Momentum: 0.9}}
	run := func(e *Engine, client int) (weights.Set, error) {
		s, err := e.Begin(spec, m.Initial(weights.Float32, rng.New(1, 0, fmt.Sprint(client), "w")), Options{})
		if err != nil {
			return weights.Set{}, err
		}
		defer s.Close()
		for n := 1; n <= 5; n++ {
			b := Batch{N: n, X: make([]float32, 3*n), Labels: make([]int32, n)}
			for i := range b.X {
				b.X[i] = float32(i + client)
			}
			if _, err := s.Step(b, 0.01); err != nil {
				return weights.Set{}, err
			}
			s.giveBack() // as if a new session went on
		}
		return s.Params()
	}
	e := NewEngine(be)
	e.limit = 2
	roomy := NewEngine(be)
	for range 2 {
		if _, err := run(e, 0); err != nil {
			t.Fatal(err)
		}
	}
	if got := e.Compiled(); got != 10 {
		t.Errorf("%d programs compiled, want each of 5 anew in both runs", got)
	}
	var wg sync.WaitGroup
	for client := range 6 {
		wg.Go(func() {
			small, err := run(e, client)
			if err != nil {
				t.Error(err)
				return
			}
			large, err := run(roomy, client)
			if err != nil {
				t.Error(err)
				return
			}
			if !small.Equal(large) {
				t.Errorf("client %d: evicted programs give other bits", client)
			}
		})
	}
	wg.Wait()
	if got := len(e.programs); got > 2 {
		t.Errorf("%d programs kept, want at most 2", got)
	}
	if got := roomy.Compiled(); got != 5 {
		t.Errorf("%d programs compiled without eviction, want 5", got)
	}
	for _, en := range roomy.programs {
		if en.uses != 0 {
			t.Errorf("a program is still used %d times", en.uses)
		}
	}
	e.Close()
	roomy.Close()
	if len(e.programs) != 0 {
		t.Error("a closed engine keeps programs")
	}
}

// TestDropMasks: neighbouring elements of a dropout mask are independent, and 0 with the probability asked for.
func TestDropMasks(t *testing.T) {
	const n, p = 100_000, 0.3
	l := &lane{noise: [][]float32{make([]float32, n)}}
	l.drop(&nn.Model{Noise: []nn.Noise{{Drop: p}}}, rng.New(1, 0, "", "masks"))
	mask := l.noise[0]
	var zeros, pairs float64
	for i, v := range mask {
		switch v {
		case 0:
			zeros++
			if i > 0 && mask[i-1] == 0 {
				pairs++
			}
		case float32(1 / (1 - p)):
		default:
			t.Fatalf("element %d is %v", i, v)
		}
	}
	// Five standard deviations of a share of n draws.
	if d := zeros/n - p; math.Abs(d) > 5*math.Sqrt(p*(1-p)/n) {
		t.Errorf("share of zeros %v, want %v", zeros/n, p)
	}
	if d := pairs/n - p*p; math.Abs(d) > 0.01 {
		t.Errorf("share of zeros after zeros %v, want %v", pairs/n, p*p)
	}
}

// remote is an engine that shares no memory with the host, as on a GPU: inputs travel with every run.
type remote struct{ compute.Backend }

func (remote) HasSharedBuffers() bool { return false }

func (remote) NewSharedBuffer(compute.DeviceNum, shapes.Shape) (compute.Buffer, any, error) {
	panic("asked for shared memory")
}

// TestRemote: an engine without shared memory gives the same bits.
func TestRemote(t *testing.T) {
	be, err := backend.New("", backend.Options{})
	if err != nil {
		t.Fatal(err)
	}
	build, err := nn.New("mlp", nn.Config{Input: []int{5}, Classes: 3, Hidden: []int{4}})
	if err != nil {
		t.Fatal(err)
	}
	m, err := build(1)
	if err != nil {
		t.Fatal(err)
	}
	r := rng.New(1, 0, "", "data")
	data := &dataset.Examples{Name: "noise", Shape: []int{5}, Classes: make([]string, 3)}
	for i := range 23 {
		for range 5 {
			data.F32 = append(data.F32, float32(r.NormFloat64()))
		}
		data.Labels = append(data.Labels, int32(i%3))
	}
	spec := &Spec{Model: m, Optimizer: Adam{}, Clip: 1, Mask: ZeroMask}
	var sets []weights.Set
	var losses []float64
	for _, b := range []compute.Backend{be, remote{be}} {
		e := NewEngine(b)
		s, err := e.Begin(spec, m.Initial(weights.Float32, rng.New(1, 0, "", "w")), Options{LabelMask: []float32{1, 1, 0}})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Fit(t.Context(), Fit{Data: data.All(), Batch: 4, Epochs: 2, Rate: Constant(0.1), Random: rng.New(1, 0, "", "x")}); err != nil {
			t.Fatal(err)
		}
		w, err := s.Params()
		if err != nil {
			t.Fatal(err)
		}
		met, err := s.Evaluate(t.Context(), data.All(), EvalOptions{LabelMask: []float32{1, 0, 1}})
		if err != nil {
			t.Fatal(err)
		}
		sets, losses = append(sets, w), append(losses, met.Loss)
		s.Close()
		e.Close()
	}
	if !sets[0].Equal(sets[1]) || losses[0] != losses[1] {
		t.Errorf("without shared memory the weights or the loss %v differ from %v", losses[1], losses[0])
	}
}
