package reproduce

import (
	"context"
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/recipe"
)

func secureExperiment() Experiment {
	return Experiment{
		Name:    "secure",
		Summary: "what secure sums change (rounding only) and what differential privacy costs, by epsilon and number of clients",
		Scales: map[Scale]Study{
			Small: {"softmax regression: 20 clients on 6,000 MNIST images with 30 % drop-outs, open, plain and masked; 100 to 1,000 private clients on drawn glyphs, 30 rounds", "a minute on 2 cores", secureSmall},
		},
	}
}

func secureSmall(ctx context.Context, l *Lab) error {
	if err := l.secureSums(ctx); err != nil {
		return err
	}
	return l.privateClients(ctx)
}

// secureSums compares open with secure runs that lose the same clients.
func (l *Lab) secureSums(ctx context.Context) error {
	accuracy := map[string]float64{}
	digest := map[string]string{}
	for _, sums := range []string{"open", "plain", "masked"} {
		r, err := baseline(l.Seed, "fedavg")
		if err != nil {
			return err
		}
		r.Partition = dataset.Scheme{Name: "iid", Clients: 20}
		r.Evaluate = recipe.Evaluate{Every: r.Rounds, Batch: 100, Statistics: "clients"}
		r.Clients.Dropout = 0.3
		if sums != "open" {
			// The threshold of a half keeps rounds open in which more than a third is lost.
			r.Secure = recipe.Secure{Sums: sums, Curious: true}
		}
		o, err := l.run(ctx, "MNIST "+sums, r)
		if err != nil {
			return fmt.Errorf("MNIST %s: %w", sums, err)
		}
		accuracy[sums] = o.last("accuracy")
		digest[sums] = o.digest
		l.report(fmt.Sprintf("MNIST, 20 clients, 30 %% drop-outs, %s: accuracy %%", sums), none, "", accuracy[sums])
	}
	differ := 0.0
	if digest["plain"] != digest["masked"] {
		differ = 1
	}
	l.require("masked and plain sums: digests that differ", 0, "the masks cancel", differ, "<=", 0)
	l.require("secure against open: points of accuracy", 0, "rounding only", math.Abs(accuracy["masked"]-accuracy["open"]), "<=", 0.5)
	return nil
}

// noises is how many runs are averaged: their noise is from secret keys, and so another in each, whatever the seed.
const noises = 3

// privateClients runs DP-FedAvg at several budgets with more and more clients of ten examples each.
func (l *Lab) privateClients(ctx context.Context) error {
	for _, clients := range []int{100, 300, 1000} {
		before := math.Inf(1)
		for _, epsilon := range []float64{math.Inf(1), 8, 4, 2, 1} {
			r, err := recipe.Default("fedavg")
			if err != nil {
				return err
			}
			r.Seed, r.Rounds = l.Seed, 30
			r.Data = dataset.Spec{Name: "glyphs", Size: 12, Train: 10 * clients, Test: 2000}
			r.Partition = dataset.Scheme{Name: "iid", Clients: clients}
			r.Model = recipe.Model{Name: "linear", Config: nn.Config{}}
			r.Train.Epochs, r.Round.Fraction = 2, 0.2
			r.Evaluate = recipe.Evaluate{Every: r.Rounds, Batch: 100, Statistics: "clients"}
			r.Privacy = recipe.Privacy{Epsilon: epsilon, Clip: 0.5}
			name := fmt.Sprintf("glyphs, %d clients, ε = %g", clients, epsilon)
			if math.IsInf(epsilon, 1) { // the same bound, and noise that is none
				r.Privacy = recipe.Privacy{Noise: 1e-3, Clip: 0.5, Accountant: "rdp"}
				name = fmt.Sprintf("glyphs, %d clients, no noise", clients)
			}
			v, cost := 0.0, 0.0
			for i := range noises {
				again := *r
				o, err := l.run(ctx, fmt.Sprintf("%s, noise %d", name, i+1), &again)
				if err != nil {
					return fmt.Errorf("%s: %w", name, err)
				}
				v += o.last("accuracy") / noises
				cost = max(cost, o.last("epsilon"))
			}
			l.report(name+": accuracy %", none, "", v)
			if !math.IsInf(epsilon, 1) {
				l.require(name+": ε spent", epsilon, "what was asked for", cost, "<=", epsilon)
				l.require(name+": points above the larger budget", 0, "less noise learns no worse, within 4 points", v-before, "<=", 4)
			}
			before = v
		}
	}
	return nil
}
