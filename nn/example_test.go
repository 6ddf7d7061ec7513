package nn_test

import (
	"fmt"

	"github.com/gomlx/compute/dtypes"
	"github.com/gomlx/compute/gobackend"
	"github.com/gomlx/compute/shapes"
	"github.com/gomlx/gomlx/core/graph"
	"github.com/gomlx/gomlx/core/tensors"

	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/weights"
)

// A wide model, a thin copy of it, and what the copy holds.
func Example() {
	build, err := nn.New("cnn", nn.Config{Input: []int{28, 28, 1}, Classes: 10, Widths: []int{16, 32, 64, 128}})
	if err != nil {
		fmt.Println(err)
		return
	}
	wide, _ := build(1)
	thin, _ := build(0.25)
	w := wide.Initial(weights.Float32, rng.New(1, 0, "", "init"))
	part := nn.Index(wide, thin.Rate, nn.Leading).Slice(w)

	for _, m := range []*nn.Model{wide, thin} {
		c := m.Cost()
		fmt.Printf("rate %v: %d parameters, %d multiply-adds an image\n", m.Rate, c.Params, c.MACs)
	}
	fmt.Println("conv2.weight", w.Must("conv2.weight").Shape, "→", part.Must("conv2.weight").Shape)

	// A forward pass of the thin copy, with its weights as constants of the graph.
	g := graph.NewGraph(gobackend.GetBackend(), "example")
	p := &nn.Pass{Params: make(map[string]*graph.Node)}
	for name, t := range part.All() {
		p.Params[name] = graph.Const(g, tensors.FromFlatDataAndDimensions(t.F32, t.Shape...))
	}
	images := graph.Ones(g, shapes.Make(dtypes.Float32, 2, 28, 28, 1))
	logits := thin.Forward(p, images)
	fmt.Println("images", images.Shape().Dimensions, "→ logits", logits.Shape().Dimensions)
	fmt.Println("batch statistics of", len(p.Batch), "layers")
	// Output:
	// rate 1: 98922 parameters, 2584064 multiply-adds an image
	// rate 0.25: 6594 parameters, 182912 multiply-adds an image
	// conv2.weight [32 16 3 3] → [8 4 3 3]
	// images [2 28 28 1] → logits [2 10]
	// batch statistics of 4 layers
}
