package fedavg_test

import (
	"context"
	"fmt"

	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedavg"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/train"
)

// Three members with the objectives ½a_k(w−c_k)² and different numbers of examples: averaging settles between them, but
// not at their joint optimum 1.9677, since everybody makes five steps of its own a round.
func Example() {
	b, err := backend.New("go", backend.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	world, problem := fedtest.Quadratics(train.NewEngine(b), 20)
	run := fedtest.Run{World: world, Algorithm: fedavg.New(problem), Config: federated.Config{Rounds: problem.Rounds}}
	trace, err := run.Do(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	w := trace.Numbers("w")
	fmt.Printf("%.4f %.4f … %.4f\n", w[0], w[1], w[19])
	// Output: 1.2976 1.5623 … 1.6302
}
