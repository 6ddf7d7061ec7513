package reproduce

import (
	"context"
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/dataset/augment"
	"github.com/cohort-learning/cohort/federated/semifl"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/recipe"
)

func semiflExperiment() Experiment {
	return Experiment{
		Name:    "semifl",
		Summary: "SemiFL against its ablations: labels at the server, none at the clients",
		Scales: map[Scale]Study{
			Small:  {"CNN on 3,100 MNIST images of which 100 have labels, 20 clients, 30 rounds, two seeds", "10 minutes on 2 cores", semiflSmall},
			Medium: {"CNN on MNIST, 100 labels, 100 clients of 599 images, 100 rounds: IID, two classes a client, and what either half is worth", "2 hours on 2 cores", semiflMedium},
			Paper:  {"WRN-28-2 on CIFAR-10 with 250 and 4,000 labels, 100 clients, 800 rounds, four partitions: the published settings", "weeks on 2 cores, days on a GPU", semiflPaper},
		},
	}
}

// semi is one way of learning of the tables: SemiFL, changed.
type semi struct {
	title  string
	change func(o *semifl.Options)
}

var (
	serverOnly = semi{"server only", func(o *semifl.Options) { o.Threshold = 2 }} // nobody is ever so sure
	whole      = semi{"SemiFL", func(*semifl.Options) {}}
	unmixed    = semi{"no mix", func(o *semifl.Options) { o.Loss = string(semifl.Fix) }}
	tuneOnly   = semi{"fine-tuning, labels per batch", func(o *semifl.Options) { o.Loss = string(semifl.FixBatch) }}
	labelOnly  = semi{"labels once, in parallel", func(o *semifl.Options) { o.Server = string(semifl.Parallel) }}
	labelOld   = semi{"labels once, in parallel, reference step", func(o *semifl.Options) { o.Server = string(semifl.ParallelReference) }}
	neither    = semi{"FedAvg+FixMatch", func(o *semifl.Options) {
		o.Loss, o.Server = string(semifl.FixBatch), string(semifl.Parallel)
	}}
	neitherOld = semi{"FedAvg+FixMatch, reference step", func(o *semifl.Options) {
		o.Loss, o.Server = string(semifl.FixBatch), string(semifl.ParallelReference)
	}}
)

// semiMNIST is SemiFL's setting on MNIST with a hundred labels.
func semiMNIST(seed uint64, clients, rounds int) *recipe.Recipe {
	return &recipe.Recipe{
		Version: recipe.Version, Method: "semifl", Seed: seed, Rounds: rounds,
		Data:      dataset.Spec{Name: "mnist"},
		Partition: dataset.Scheme{Name: "iid", Clients: clients, Server: 100},
		Model:     recipe.Model{Name: "cnn", Config: nn.Config{Widths: []int{16, 32, 64}}},
		Train: recipe.Train{Epochs: 2, Batch: 10, Clip: 1, Crop: 2,
			Optimizer: recipe.Optimizer{Name: "sgd", Rate: 0.03, Momentum: 0.9, Nesterov: true, Decay: 5e-4},
			Schedule:  recipe.Schedule{Kind: "cosine"}},
		Evaluate: recipe.Evaluate{Every: rounds, Batch: 250, Statistics: "clients"},
		Run:      recipe.Run{Checkpoint: 10},
	}
}

// semifl runs one way of learning.
func (l *Lab) semifl(ctx context.Context, name string, r *recipe.Recipe, s semi) (outcome, error) {
	o := semifl.DefaultOptions()
	s.change(o)
	r.Options = o
	out, err := l.run(ctx, name, r)
	if err != nil {
		return out, fmt.Errorf("%s: %w", name, err)
	}
	return out, nil
}

// labels reports what became of pseudo-labels: the part that is accepted at the beginning and at the end, and how many of the
// accepted ones are right at the end.
func (o outcome) labels() (first, last, accuracy float64) {
	first = math.NaN()
	if p := o.series["pseudo.accepted"]; len(p) > 0 {
		first = p[0].Value
	}
	return first, o.last("pseudo.accepted"), o.last("pseudo.accepted.accuracy")
}

func semiflSmall(ctx context.Context, l *Lab) error {
	const spec = "specification of SemiFL, small experiment: a PyTorch loop of the same rules"
	small := func(seed uint64) *recipe.Recipe {
		r := semiMNIST(seed, 20, 30)
		r.Data.Train, r.Data.Test, r.Data.Seed = 3100, 2000, seed+1
		r.Round = recipe.Round{Fraction: 0.25, Up: true}
		return r
	}
	means := map[string]float64{}
	var first, last, right float64
	for i, c := range []struct {
		semi
		reference [2]float64
	}{
		{serverOnly, [2]float64{85.20, 88.35}}, {whole, [2]float64{89.60, 91.25}}, {neither, [2]float64{85.50, 87.65}},
		{neitherOld, [2]float64{12.10, none}},
	} {
		for k := range uint64(2) {
			name := fmt.Sprintf("%s, seed %d", c.title, l.Seed+k)
			out, err := l.semifl(ctx, name, small(l.Seed+k), c.semi)
			if err != nil {
				return err
			}
			v := out.last("accuracy")
			means[c.title] += v / 2
			l.report(name+": accuracy %", c.reference[k], spec, v)
			a, b, right1 := out.labels()
			if i == 1 {
				first, last, right = first+a/2, last+b/2, right+right1/2
			}
			if i > 0 {
				l.report(name+": labels accepted in the last round", none, "", b)
				l.report(name+": accepted labels that are right", none, "", right1)
			}
		}
	}
	for _, c := range []struct {
		semi
		perClient int
		reference float64
	}{{whole, 2, 89.15}, {unmixed, 0, 88.95}, {tuneOnly, 0, 88.25}, {labelOnly, 0, 87.20}, {labelOld, 0, 10.55}} {
		r := small(l.Seed)
		name := c.title
		if c.perClient > 0 {
			r.Partition.Name, r.Partition.PerClient, r.Partition.KeepDuplicates = "classes", c.perClient, true
			name += fmt.Sprintf(", %d classes a client", c.perClient)
		}
		out, err := l.semifl(ctx, name, r, c.semi)
		if err != nil {
			return err
		}
		l.report(name+": accuracy %", c.reference, spec, out.last("accuracy"))
		_, b, right1 := out.labels()
		l.report(name+": labels accepted in the last round", none, "", b)
		l.report(name+": accepted labels that are right", none, "", right1)
	}
	ours := means[whole.title]
	l.require("SemiFL over the server alone, points", none, spec, ours-means[serverOnly.title], ">=", 2)
	l.require("SemiFL over FedAvg+FixMatch, points", none, spec, ours-means[neither.title], ">=", 1.5)
	l.require("FedAvg+FixMatch with the reference step collapses: accuracy %", none, spec, means[neitherOld.title], "<=", 30)
	l.require("SemiFL: accepted labels that are right", none, spec, right, ">=", 0.97)
	l.require("SemiFL: labels accepted in round 1", none, spec, first, "<=", 0.05)
	l.require("SemiFL: labels accepted in the last round", none, spec, last, ">=", 0.35)
	return nil
}

func semiflMedium(ctx context.Context, l *Lab) error {
	const spec = "specification of SemiFL, section 6c"
	accuracy := map[string]float64{}
	right := none
	for _, part := range []struct {
		title     string
		perClient int
	}{{"IID", 0}, {"2 classes a client", 2}} {
		for _, s := range []semi{serverOnly, whole, tuneOnly, labelOnly, neither} {
			if part.perClient > 0 && s.title != whole.title { // the halves are compared where clients are alike
				continue
			}
			r := semiMNIST(l.Seed, 100, 100)
			r.Round = recipe.Round{Fraction: 0.1, Up: true}
			r.Evaluate.Every = 10
			if part.perClient > 0 {
				r.Partition.Name, r.Partition.PerClient, r.Partition.KeepDuplicates = "classes", part.perClient, true
			}
			name := part.title + ", " + s.title
			sampled := s // of each client 50 examples for statistics, 5,000 together
			sampled.change = func(o *semifl.Options) { s.change(o); o.StatSamples = 50 }
			out, err := l.semifl(ctx, name, r, sampled)
			if err != nil {
				return err
			}
			accuracy[name] = out.last("accuracy")
			l.report(name+": accuracy %", none, "", accuracy[name])
			_, last, r1 := out.labels()
			l.report(name+": labels accepted in the last round", none, "", last)
			l.report(name+": accepted labels that are right", none, "", r1)
			if name == "IID, SemiFL" {
				right = r1
			}
		}
	}
	at := func(s semi) float64 { return accuracy["IID, "+s.title] }
	l.require("SemiFL over fine-tuning alone, points", none, spec, at(whole)-at(tuneOnly), ">=", 0)
	l.require("fine-tuning alone over the server alone, points", none, spec, at(tuneOnly)-at(serverOnly), ">=", 0)
	l.require("the server alone over labels once alone, points", none, spec, at(serverOnly)-at(labelOnly), ">=", 0)
	l.require("the server alone over FedAvg+FixMatch, points", none, spec, at(serverOnly)-at(neither), ">=", 0)
	l.require("SemiFL over the server alone, points", none, spec, at(whole)-at(serverOnly), ">=", 5)
	l.require("SemiFL: accepted labels that are right", none, spec, right, ">=", 0.97)
	return nil
}

func semiflPaper(ctx context.Context, l *Lab) error {
	const table = "Diao et al., table 1, mean of four seeds"
	for _, c := range []struct {
		labels    int
		partition dataset.Scheme
		title     string
		reference float64
	}{
		{250, dataset.Scheme{Name: "classes", PerClient: 2, KeepDuplicates: true}, "2 classes a client", 60.0},
		{250, dataset.Scheme{Name: "dirichlet", Alpha: 0.1, Balance: true}, "Dirichlet 0.1", 63.0},
		{250, dataset.Scheme{Name: "dirichlet", Alpha: 0.3, Balance: true}, "Dirichlet 0.3", 71.9},
		{250, dataset.Scheme{Name: "iid"}, "IID", 88.2},
		{4000, dataset.Scheme{Name: "classes", PerClient: 2, KeepDuplicates: true}, "2 classes a client", 85.3},
		{4000, dataset.Scheme{Name: "dirichlet", Alpha: 0.1, Balance: true}, "Dirichlet 0.1", 84.5},
		{4000, dataset.Scheme{Name: "dirichlet", Alpha: 0.3, Balance: true}, "Dirichlet 0.3", 88.9},
		{4000, dataset.Scheme{Name: "iid"}, "IID", 93.1},
	} {
		r := semiMNIST(l.Seed, 100, 800)
		r.Data.Name = "cifar10"
		r.Partition = c.partition
		r.Partition.Clients, r.Partition.Server = 100, c.labels
		r.Model = recipe.Model{Name: "wresnet", Config: nn.Config{Depth: 28, Widen: 2}}
		r.Train.Epochs, r.Train.Crop, r.Train.Reflect, r.Train.Flip = 5, 4, true, true
		r.Round = recipe.Round{Fraction: 0.1, Up: true}
		r.Evaluate.Every, r.Evaluate.Batch = 10, 500
		name := fmt.Sprintf("%d labels, %s", c.labels, c.title)
		published := semi{whole.title, func(o *semifl.Options) { o.Strong = augment.Default() }}
		out, err := l.semifl(ctx, name, r, published)
		if err != nil {
			return err
		}
		l.report(name+": accuracy %", c.reference, table, out.last("accuracy"))
	}
	return nil
}
