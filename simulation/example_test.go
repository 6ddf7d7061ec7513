package simulation_test

import (
	"context"
	"fmt"

	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedavg"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/train"
)

// Twenty clients with two classes each learn to read digits together; a tenth of the tasks is lost.
func Example() {
	check := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	ctx := context.Background()
	split, err := dataset.Load(ctx, dataset.Spec{Name: "glyphs", Size: 8, Train: 1000, Test: 200})
	check(err)
	dealt, err := dataset.Scheme{Name: "classes", Clients: 20, PerClient: 2}.Deal(split.Train, split.Test, 1)
	check(err)
	build, err := nn.New("linear", nn.Config{Input: []int{8, 8, 1}, Classes: 10})
	check(err)
	b, err := backend.New("go", backend.Options{})
	check(err)

	problem := &federated.Problem{
		Build: build, Rounds: 10, Select: federated.Selection{Fraction: 0.5},
		Training:  federated.Training{Epochs: 2, Batch: 10, Rate: train.Constant(0.1)},
		Measuring: federated.Measuring{Every: 5},
	}
	job := &simulation.Job{
		Algorithm:  fedavg.New(problem),
		Fleet:      &simulation.Fleet{Split: split, Dealt: dealt, Engine: train.NewEngine(b), Seed: 1},
		Config:     federated.Config{Rounds: problem.Rounds},
		Conditions: simulation.Conditions{Dropout: 0.1},
		Observer:   narrator{},
	}
	state, err := job.Run(ctx)
	check(err)
	fmt.Println("rounds:", state.Round, "tensors:", state.Sets["w"].Names())
	// Output:
	// round 5: better than guessing: true
	// round 10: better than guessing: true
	// rounds: 10 tensors: [linear.weight linear.bias]
}

// narrator tells how a run goes.
type narrator struct{}

func (narrator) Progress(round int, phase string, answered, asked int) {}

func (narrator) Round(r simulation.Round) {
	if accuracy := r.Metric("accuracy", ""); accuracy == accuracy { // it is NaN in rounds that are not evaluated
		fmt.Printf("round %d: better than guessing: %t\n", r.RoundClosed.Round+1, accuracy > 0.15)
	}
}
