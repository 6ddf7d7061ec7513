package train

import (
	"fmt"
	"sync"
	"testing"

	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/weights"
)

// TestEviction keeps an engine at two programs while sessions of several goroutines use five: programs in use stay, and
// what comes back is compiled again to the same bits.
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
	if got := e.Compiled(); got <= 5 {
		t.Errorf("%d programs compiled, want some more than once", got)
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
