package cpu_test

import (
	"fmt"

	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/cohort-learning/cohort/backend/cpu"
)

// A GoMLX function runs on the backend like on any other.
func Example() {
	backend, err := cpu.New(cpu.Options{Threads: 1})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer backend.Finalize()
	softmax, err := graph.NewExec(backend, func(x *graph.Node) *graph.Node { return graph.Softmax(x, -1) })
	if err != nil {
		fmt.Println(err)
		return
	}
	y, err := softmax.Call(tensors.FromValue([][]float32{{0, 0}, {0, 1}}))
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, row := range y[0].Value().([][]float32) {
		fmt.Printf("%.3f\n", row)
	}
	// Output:
	// [0.500 0.500]
	// [0.269 0.731]
}
