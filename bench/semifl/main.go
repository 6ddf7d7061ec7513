// Command semifl times one round of SemiFL beside peer.py, the same round as a plain PyTorch loop that shares no code with this
// module: statistics of 20 clients and the server, labels, two epochs of five clients on strong and mixed views, five epochs of the
// server, on 28×28 images, with a CNN of 16, 32 and 64 channels. Both sides compute on one thread, and their rounds take turns, so
// that both see the same load.
//
//	go run ./bench/semifl -python PYTHON       # one with torch, numpy and pillow
//
// docs/results/semifl.md holds the result.
package main

import (
	"context"
	_ "embed"
	"flag"
	"fmt"
	"os"
	"os/signal"

	"github.com/cohort-learning/cohort/bench/turns"
	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated/semifl"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/recipe"
)

//go:embed peer.py
var script string

func main() {
	python := flag.String("python", "python3", "Python with torch, numpy and pillow")
	rounds := flag.Int("rounds", 12, "rounds to time; two more come before")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, *python, *rounds); err != nil {
		fmt.Fprintln(os.Stderr, "semifl:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, python string, rounds int) error {
	p, err := turns.Start(ctx, python, script)
	if err != nil {
		return err
	}
	o := semifl.DefaultOptions()
	o.Threshold = 0 // every label is accepted, so that both sides have the same work
	r := &recipe.Recipe{
		Version: recipe.Version, Method: "semifl", Rounds: rounds + turns.Warm,
		Data:      dataset.Spec{Name: "glyphs", Size: 28, Classes: 10, Train: 3100, Test: 10},
		Partition: dataset.Scheme{Name: "iid", Clients: 20, Server: 100},
		Model:     recipe.Model{Name: "cnn", Config: nn.Config{Widths: []int{16, 32, 64}}},
		Train: recipe.Train{Epochs: 2, Batch: 10, Clip: 1, Crop: 2,
			Optimizer: recipe.Optimizer{Name: "sgd", Rate: 0.03, Momentum: 0.9, Nesterov: true, Decay: 5e-4},
			Schedule:  recipe.Schedule{Kind: "constant"}},
		Round:    recipe.Round{Fraction: 0.25},
		Evaluate: recipe.Evaluate{Every: 1000, Batch: 250, Statistics: "clients"},
		Run:      recipe.Run{Checkpoint: 1000, Threads: 1, Workers: 1},
		Options:  o,
	}
	t, err := p.Run(ctx, r, "", "")
	if err != nil {
		return err
	}
	fmt.Printf("%d rounds on one thread, median seconds: cohort (%s) %.2f, PyTorch %.2f, ratio %.2f\n", rounds, t.Engine, t.Ours, t.Theirs[0], t.Theirs[0]/t.Ours)
	return nil
}
