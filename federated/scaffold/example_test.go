package scaffold_test

import (
	"context"
	"fmt"

	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/federated/scaffold"
	"github.com/cohort-learning/cohort/train"
)

// Three members with the objectives ½a_k(w−c_k)²: the control variates lead to the optimum of their mean, 9/7, though everybody
// makes five steps of its own a round.
func Example() {
	b, err := backend.New("go", backend.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	world, problem := fedtest.Quadratics(train.NewEngine(b), 150)
	run := fedtest.Run{World: world, Algorithm: scaffold.New(problem), Config: federated.Config{Rounds: problem.Rounds}}
	trace, err := run.Do(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	w := trace.Numbers("w")
	fmt.Printf("%.4f %.4f … %.4f\n", w[0], w[1], w[149])
	// Output: 0.6105 0.9748 … 1.2857
}
