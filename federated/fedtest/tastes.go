package fedtest

import (
	"context"
	"fmt"
	"testing"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/train"
)

// TasteItems is how many items the users of [Tastes] rate.
const TasteItems = 40

// Tastes deals the ratings of four users to each of n members, a fifth of them held out. The server has them all.
func Tastes(e *train.Engine, n int) *World {
	s, err := dataset.Tastes{Users: 4 * n, Items: TasteItems, TestFraction: 0.2, Seed: 3}.Load(context.Background())
	if err != nil {
		panic(err)
	}
	d, err := dataset.Scheme{Name: "users", Clients: n}.Deal(s.Train, s.Test, 5)
	if err != nil {
		panic(err)
	}
	w := &World{Engine: e, Seed: 7, Pooled: s.Train.All(), Test: s.Test.All()}
	for k := range n {
		w.Members = append(w.Members, Holder{Name: fmt.Sprintf("member-%d", k), Train: d.Train.View(s.Train, k), Test: d.Test.View(s.Test, k)})
	}
	return w
}

// RatingProblem returns a small one on [Tastes]: the recommender ars, 4 of 5 members in each of 3 rounds, members test every round.
func RatingProblem(t testing.TB) *federated.Problem {
	t.Helper()
	build, err := nn.New("ars", nn.Config{Input: []int{TasteItems}, Classes: TasteItems, Hidden: []int{16, 8}})
	if err != nil {
		t.Fatal(err)
	}
	return &federated.Problem{
		Build: build, Rounds: 3, Loss: train.MeanSquares, Select: federated.Selection{Fraction: 0.8},
		Training: federated.Training{Epochs: 2, Batch: 2, Rate: train.Cosine{Rate: 0.1, Period: 3}, Clip: 1,
			Optimizer: train.SGD{Momentum: 0.9, Nesterov: true, Decay: 5e-4}},
		Measuring: federated.Measuring{Every: 1, Batch: 16, Members: true},
	}
}
