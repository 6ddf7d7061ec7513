package ledger_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"

	"github.com/cohort-learning/cohort/secure/dp"
	"github.com/cohort-learning/cohort/secure/dp/ledger"
)

// A member charges a round before anything that it computed leaves, until the budget of its data is spent.
func Example() {
	dir, err := os.MkdirTemp("", "ledger")
	if err != nil {
		log.Fatal(err)
	}
	defer os.RemoveAll(dir)
	l, err := ledger.Open(dir, ledger.Digest{1}, "measurements.csv", ledger.Options{})
	if err != nil {
		log.Fatal(err)
	}
	terms := dp.Terms{Mechanism: dp.CentralGaussian, Fraction: 1, Noise: 4, Clip: 1, Delta: 1e-5, Members: 50, Trusts: "the clinic"}
	limit := ledger.Budget{Epsilon: 2, Delta: 1e-5}
	for round := 0; ; round++ {
		_, err := l.ChargeWithin(context.Background(), limit, ledger.Entry{
			Coordinator: ledger.Coordinator{Name: "clinic", Key: "F1"}, Run: "hearts", Round: round, Phase: "train", Member: "alice", Terms: terms})
		var refused *ledger.SpentError
		if errors.As(err, &refused) {
			fmt.Printf("round %d is not taken: ε would be %.2f\n", round+1, refused.After)
			return
		}
		if err != nil {
			log.Fatal(err)
		}
		spent, _, err := l.Spent(limit.Delta)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("round %d: ε is %.2f\n", round+1, spent)
	}
	// Output:
	// round 1: ε is 0.93
	// round 2: ε is 1.36
	// round 3: ε is 1.70
	// round 4: ε is 1.99
	// round 5 is not taken: ε would be 2.26
}
