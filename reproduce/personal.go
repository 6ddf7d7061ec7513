package reproduce

import (
	"context"
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated/personal"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/recipe"
)

func personalExperiment() Experiment {
	return Experiment{
		Name:    "personal",
		Summary: "models of its own for every client, against the global model, fine-tuning and training alone",
		Scales: map[Scale]Study{
			Small: {"a small MLP on 6,000 MNIST images, 20 clients of 2 classes, 30 rounds", "a minute on 2 cores", personalSmall},
			Medium: {"an MLP on 30,000 Fashion-MNIST images, 100 clients of 2 classes, 10 of them a round, 100 rounds",
				"a quarter of an hour on 2 cores", personalMedium},
			Paper: {"CIFAR-10, 100 clients of 2 classes, the convolutional network of FedRep's code, 100 rounds (arXiv 2102.07078)",
				"days on 2 cores; resumable", personalPaper},
		},
	}
}

// personalMethods are those that are compared: what a client uses is its own model, but with fedavg.
var personalMethods = []string{"fedavg", "local", "finetune", "ditto", "per-fedavg", "pfedme", "apfl", "fedrep", "fedper", "lg-fedavg"}

// contest runs the methods on what setting returns and returns the accuracy, in percent, of what clients use, beside references.
func (l *Lab) contest(ctx context.Context, references map[string]float64, setting func(method string) (*recipe.Recipe, error)) (map[string]float64, error) {
	used := map[string]float64{}
	for _, m := range personalMethods {
		r, err := setting(m)
		if err != nil {
			return nil, err
		}
		o, err := l.run(ctx, m, r)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", m, err)
		}
		of := "accuracy.personal"
		if m == "fedavg" {
			of = "accuracy.local"
		}
		used[m] = o.last(of)
		reference, source := none, ""
		if v, ok := references[m]; ok {
			reference, source = v, publishedIn
		}
		l.report(m+": accuracy of what clients use %, all test examples", reference, source, used[m])
		l.report(m+": mean over clients %", none, "", o.last(of+".mean"))
		l.report(m+": mean over the worst tenth of the clients %", none, "", o.last(of+".worst"))
		if global := o.last("accuracy.local"); m != "fedavg" && !math.IsNaN(global) {
			l.report(m+": accuracy of its global model at the clients %", none, "", global)
		}
	}
	return used, nil
}

// published are the accuracies of FedRep's paper on CIFAR-10 with 100 clients of two classes, in percent.
var published = map[string]float64{"local": 89.8, "fedavg": 42.7, "finetune": 87.7, "per-fedavg": 82.3, "lg-fedavg": 84.1, "apfl": 83.8,
	"ditto": 85.4, "fedper": 87.1, "fedrep": 87.7}

const publishedIn = "arXiv 2102.07078, CIFAR-10, 100 clients of 2 classes (from memory)"

// above requires that methods are so many points above FedAvg.
func (l *Lab) above(used map[string]float64, points float64, source string, methods ...string) {
	for _, m := range methods {
		l.require(m+": points above FedAvg", none, source, used[m]-used["fedavg"], ">=", points)
	}
}

// tune sets what all studies share of the methods' options: with alpha and the rates of pFedMe those of the training rate.
func tune(r *recipe.Recipe, epochs int) {
	r.Train.Epochs = epochs
	switch o := r.Options.(type) {
	case *personal.FedRepOptions:
		o.HeadEpochs, o.BodyEpochs, o.Final = 10, 1, 10
	case *personal.FineTuneOptions:
		o.Epochs = 10
	case *personal.PerFedAvgOptions:
		o.Alpha, o.Epochs = r.Train.Optimizer.Rate, 1
		r.Train.Optimizer.Momentum = 0
	case *personal.PFedMeOptions:
		o.Lambda, o.OwnRate = 15, 0.05
		r.Train.Optimizer.Momentum = 0
		r.Train.Epochs, r.Train.Steps, r.Train.Batch = 0, 20, 20
	}
}

func personalSmall(ctx context.Context, l *Lab) error {
	const source = "federated baselines, small setting; thresholds are targets"
	used, err := l.contest(ctx, nil, func(m string) (*recipe.Recipe, error) {
		r, err := baseline(l.Seed, m)
		if err != nil {
			return nil, err
		}
		r.Model = recipe.Model{Name: "mlp", Config: nn.Config{Hidden: []int{32}}}
		r.Evaluate.Every = 10
		tune(r, r.Train.Epochs)
		if m == "pfedme" { // a softmax regression's rate is too low for what little of it passes to the server
			r.Train.Optimizer.Rate = 0.05
		}
		return r, nil
	})
	if err != nil {
		return err
	}
	l.require("local only: accuracy of what clients use %", none, source, used["local"], ">=", 95)
	l.above(used, 3, source, "ditto", "fedrep", "fedper", "finetune")
	return nil
}

func personalMedium(ctx context.Context, l *Lab) error {
	const source = "federated baselines, medium setting, on other data"
	used, err := l.contest(ctx, nil, func(m string) (*recipe.Recipe, error) {
		r, err := fewClasses(l.Seed, m, dataset.Spec{Name: "fashion-mnist", Train: 30000})
		if err != nil {
			return nil, err
		}
		r.Model = recipe.Model{Name: "mlp", Config: nn.Config{Hidden: []int{100}}}
		return r, nil
	})
	if err != nil {
		return err
	}
	l.above(used, 3, source, "finetune", "ditto", "per-fedavg", "pfedme", "apfl", "fedrep", "fedper")
	l.closeTogether(used, source)
	return nil
}

func personalPaper(ctx context.Context, l *Lab) error {
	const source = "arXiv 2102.07078, table 1"
	used, err := l.contest(ctx, published, func(m string) (*recipe.Recipe, error) {
		r, err := fewClasses(l.Seed, m, dataset.Spec{Name: "cifar10"})
		if err != nil {
			return nil, err
		}
		r.Model = recipe.Model{Name: "lenet", Config: nn.Config{Widths: []int{64, 64}, Hidden: []int{120, 64}}}
		return r, nil
	})
	if err != nil {
		return err
	}
	l.above(used, 30, source, "finetune", "ditto", "per-fedavg", "apfl", "fedrep", "fedper", "local")
	l.closeTogether(used, source)
	return nil
}

// fewClasses is the setting of FedRep's code: 100 clients of two classes, a tenth of them a round for 100 rounds, batches of 10, SGD at
// 0.01 with momentum 0.5.
func fewClasses(seed uint64, method string, data dataset.Spec) (*recipe.Recipe, error) {
	r, err := recipe.Default(method)
	if err != nil {
		return nil, err
	}
	r.Seed = seed
	r.Data = data
	r.Partition = dataset.Scheme{Name: "classes", Clients: 100, PerClient: 2}
	r.Rounds = 100
	r.Train = recipe.Train{Batch: 10, Optimizer: recipe.Optimizer{Name: "sgd", Rate: 0.01, Momentum: 0.5},
		Schedule: recipe.Schedule{Kind: "constant"}}
	r.Round.Fraction = 0.1
	r.Evaluate.Every = 50
	tune(r, 5)
	return r, nil
}

// closeTogether requires that the methods with an own head, and fine-tuning, are alike.
func (l *Lab) closeTogether(used map[string]float64, source string) {
	a, b, c := used["fedrep"], used["fedper"], used["finetune"]
	l.require("FedRep, FedPer and fine-tuning: points between the best and the worst", none, source,
		math.Max(a, math.Max(b, c))-math.Min(a, math.Min(b, c)), "<=", 2)
}
