package backend_test

import (
	"sync"
	"testing"

	"github.com/cohort-learning/cohort/backend"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"
)

// TestThreads runs a graph of convolutions, products and reductions that do not depend on each other from several
// goroutines at once, with every number of threads: an engine whose operations lend each other workers must not stop
// for ever, and the result is always the same.
func TestThreads(t *testing.T) {
	for _, name := range backend.Names() {
		var first float32
		for threads := 1; threads <= 3; threads++ {
			b, err := backend.New(name, backend.Options{Threads: threads})
			if err != nil {
				t.Logf("%s left out: %v", name, err)
				continue
			}
			if got := backend.Describe(b).Threads; name != "xla" && got != threads {
				t.Errorf("%s runs on %d threads, asked for %d", name, got, threads)
			}
			e := graph.MustNewExec(b, func(x, kernel *graph.Node) *graph.Node {
				total := graph.ScalarZero(x.Graph(), x.DType())
				for i := range 6 {
					y := graph.Convolve(graph.MulScalar(x, float64(i+1)), kernel).PadSame().Done()
					y = graph.Exp(graph.MulScalar(graph.Reshape(y, 4, -1), 0.01))
					total = graph.Add(total, graph.ReduceAllSum(graph.Dot(y, graph.Transpose(y, 0, 1)).Product()))
				}
				return total
			})
			results := make([]float32, 6)
			var wg sync.WaitGroup
			for i := range results {
				wg.Go(func() {
					x := tensors.FromScalarAndDimensions(float32(0.5), 4, 12, 12, 2)
					kernel := tensors.FromScalarAndDimensions(float32(0.25), 3, 3, 2, 4)
					for range 10 {
						results[i] = e.MustCall1(x, kernel).Value().(float32)
					}
				})
			}
			wg.Wait()
			if first == 0 {
				first = results[0]
			}
			for _, r := range results {
				if r != first || r == 0 {
					t.Errorf("%s on %d threads: %v, want %v every time", name, threads, results, first)
					break
				}
			}
		}
	}
}
