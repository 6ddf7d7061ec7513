package train_test

import (
	"context"
	"fmt"

	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

func Example() {
	b, err := backend.New("go", backend.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	e := train.NewEngine(b)
	m := linear(8, 4) // softmax regression from 8 features to 4 classes
	spec := &train.Spec{Model: m, Optimizer: train.SGD{Momentum: 0.9}, Clip: 1}
	data := blobs(200, 8, 4, 7)

	s, err := e.Begin(spec, m.Initial(weights.Float32, rng.New(1, 0, "", "weights")), train.Options{})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer s.Close()
	report, err := s.Fit(context.Background(), train.Fit{Data: data, Epochs: 10, Batch: 20,
		Rate: train.Constant(0.1), Random: rng.New(1, 0, "", "batches")})
	if err != nil {
		fmt.Println(err)
		return
	}
	measured, err := s.Evaluate(context.Background(), data, train.EvalOptions{})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Printf("%d steps, %d rows, accuracy above 0.9: %t\n", report.Steps, measured.N, measured.Accuracy > 0.9)
	// Output: 100 steps, 200 rows, accuracy above 0.9: true
}
