package federated_test

import (
	"context"
	"fmt"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
)

// A method that adds up the mean of its members' numbers, half of whom are asked in a round ("census" in driver_test.go).
// One of them fails, and is named.
func Example() {
	method := learn(federated.Selection{Fraction: 0.5})
	method.fail = map[string]string{"m3": "the disk is broken"}
	run := fedtest.Run{World: crowd(12), Algorithm: method, Config: federated.Config{Rounds: 3}}
	trace, err := run.Do(context.Background())
	if err != nil {
		fmt.Println(err)
		return
	}
	for i, p := range trace.Phases {
		fmt.Printf("round %d: asked %v", p.Round, trace.Opened[i].Selected)
		for _, f := range p.Failed {
			fmt.Printf(", %s failed: %s", f.Member, f.Reason)
		}
		fmt.Println()
	}
	// Output:
	// round 0: asked [1 3 4 5 8], m3 failed: the disk is broken
	// round 1: asked [1 3 5 6 9], m3 failed: the disk is broken
	// round 2: asked [4 5 6 8 11]
}
