package recipe_test

import (
	"context"
	"fmt"
	"log"

	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/gomlx/gomlx/core/graph"
)

// A recipe is read, or made from the defaults of a method, and written with every field.
func Example() {
	r, err := recipe.Parse("my.yaml", []byte("method: fedavg\nrounds: 5\ntrain: {batch: 20}\n"))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(r.Method, r.Rounds, r.Train.Batch, r.Train.Optimizer.Rate)

	_, err = recipe.Parse("my.yaml", []byte("method: fedavg\ntrain:\n  bacth: 20\n"))
	fmt.Println(err)
	// Output:
	// fedavg 5 20 0.05
	// my.yaml:3:3: train.bacth: there is no such field (did you mean "batch"?); the fields here are batch, clip, crop, epochs, flip, optimizer, reflect, schedule, skip_singles, steps
}

// twoLayers is a network of one's own: a hidden layer, which clients of lower levels have fewer units of, and an output
// layer. Parameters have the names and shapes of torch.nn.Linear.
func twoLayers(rate float64) (*nn.Model, error) {
	pixels := nn.Dim{Name: "pixels", Size: 12 * 12}
	hidden := nn.Dim{Name: "hidden", Size: 32, Scaled: true}
	digits := nn.Dim{Name: "digits", Size: 10}
	like := nn.Init{Kind: nn.Uniform, FanIn: true} // PyTorch's: U(−1/√fan, 1/√fan)
	return &nn.Model{
		Name: "two-layers", Rate: rate, Input: []int{12, 12, 1}, Classes: 10, MinBatch: 1,
		Params: []nn.Param{
			{Name: "first.weight", Dims: []nn.Dim{hidden, pixels}, Role: nn.Kernel, Init: like},
			{Name: "first.bias", Dims: []nn.Dim{hidden}, Role: nn.Bias},
			{Name: "last.weight", Dims: []nn.Dim{digits, hidden}, Role: nn.Kernel, Init: like, Labels: true, Head: true},
			{Name: "last.bias", Dims: []nn.Dim{digits}, Role: nn.Bias, Labels: true, Head: true},
		},
		Forward: func(p *nn.Pass, x *graph.Node) *graph.Node {
			x = graph.Reshape(x, x.Shape().Dim(0), -1)
			x = nn.ReLU(linear(p, "first", x))
			return linear(p, "last", x)
		},
	}, nil
}

// linear is x·Wᵀ + b.
func linear(p *nn.Pass, name string, x *graph.Node) *graph.Node {
	y := graph.DotGeneral(x, []int{1}, nil, p.Params[name+".weight"], []int{1}, nil)
	return graph.Add(y, graph.ExpandLeftToRank(p.Params[name+".bias"], 2))
}

// A model of one's own takes the place of the recipe's; everything else stays.
func ExamplePlan() {
	r, err := recipe.Parse("own model", []byte(`
method: heterofl
rounds: 30
data: {name: glyphs, size: 12, train: 1000, test: 300}
partition: {name: iid, clients: 10}
model: {name: linear}
round: {fraction: 0.5}
train: {optimizer: {name: sgd, rate: 0.1, momentum: 0.9}}
`))
	if err != nil {
		log.Fatal(err)
	}
	ctx := context.Background()
	plan, err := r.Plan(ctx, "")
	if err != nil {
		log.Fatal(err)
	}
	plan.Problem.Build = twoLayers

	engine, _, err := r.Engine()
	if err != nil {
		log.Fatal(err)
	}
	defer engine.Close()
	job, err := plan.Job(engine)
	if err != nil {
		log.Fatal(err)
	}
	last := &lastAccuracy{}
	job.Observer = last
	state, err := job.Run(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(state.Sets["w"].Names())
	fmt.Println("learned:", last.accuracy > 0.5) // a guess is right in 0.1
	// Output:
	// [first.weight first.bias last.weight last.bias]
	// learned: true
}
