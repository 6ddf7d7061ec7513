package reproduce

import (
	"context"
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/recipe"
)

func baselinesExperiment() Experiment {
	return Experiment{
		Name:    "baselines",
		Summary: "FedAvg and the methods around it; every partition",
		Scales: map[Scale]Study{
			Small: {"softmax regression on 6,000 MNIST images, 20 clients of 2 classes, 30 rounds", "2 minutes on 2 cores", baselinesSmall},
			Medium: {"Synthetic(1, 1): FedProx and stragglers; Dirichlet partitions of MNIST", "half an hour on 2 cores",
				baselinesMedium},
			Paper: {"FedAvg on MNIST, CNN, 100 clients: rounds to 99 % (arXiv 1602.05629)", "a day on 2 cores; resumable", baselinesPaper},
		},
	}
}

// baseline returns the recipe that all methods share in the small study.
func baseline(seed uint64, method string) (*recipe.Recipe, error) {
	r, err := recipe.Default(method)
	if err != nil {
		return nil, err
	}
	r.Seed = seed
	r.Data = dataset.Spec{Name: "mnist", Train: 6000, Test: 2000}
	r.Partition = dataset.Scheme{Name: "classes", Clients: 20, PerClient: 2}
	r.Model = recipe.Model{Name: "linear"}
	r.Rounds = 30
	r.Round.Fraction = 1
	r.Train = recipe.Train{Epochs: 1, Batch: 10, Optimizer: recipe.Optimizer{Name: "sgd", Rate: 0.01},
		Schedule: recipe.Schedule{Kind: "constant"}}
	r.Evaluate.Clients = true
	return r, nil
}

func baselinesSmall(ctx context.Context, l *Lab) error {
	const source = "federated baselines, small setting; thresholds are targets"
	got := map[string]outcome{}
	for _, m := range []string{"fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "fedadagrad", "scaffold", "fedbn", "lg-fedavg", "local", "centralised"} {
		r, err := baseline(l.Seed, m)
		if err != nil {
			return err
		}
		switch m {
		case "fedbn": // it is about batch norm: a small network that has some
			r.Model = recipe.Model{Name: "mlp", Config: nn.Config{Hidden: []int{32}, Norm: nn.BatchNorm}}
		case "lg-fedavg":
			r.Model = recipe.Model{Name: "mlp", Config: nn.Config{Hidden: []int{32}}}
		}
		o, err := l.run(ctx, m, r)
		if err != nil {
			return fmt.Errorf("%s: %w", m, err)
		}
		got[m] = o
	}
	rounds := func(m string) float64 { return got[m].first("accuracy", 80) }
	for _, m := range []string{"fedavg", "fedprox", "fedavgm", "fedadam", "fedyogi", "fedadagrad", "scaffold", "centralised"} {
		l.report(m+": rounds to 80 % global accuracy", none, source, rounds(m))
		l.report(m+": global accuracy %", none, source, got[m].last("accuracy"))
	}
	reached := func(m string) float64 { // never is after the last round
		if r := rounds(m); !math.IsNaN(r) {
			return r
		}
		return 31
	}
	l.require("SCAFFOLD: rounds to 80 % minus FedAvg's", none, source, reached("scaffold")-reached("fedavg"), "<=", 0)
	l.require("FedAdam: rounds to 80 % minus FedAvg's", none, source, reached("fedadam")-reached("fedavg"), "<=", 0)
	l.require("local only: local accuracy %", none, source, got["local"].last("accuracy.personal"), ">=", 95)
	l.require("FedAvg: global accuracy %", none, source, got["fedavg"].last("accuracy"), "<=", 90)
	for _, m := range []string{"fedavg", "fedbn", "lg-fedavg", "local"} {
		used := "accuracy.personal" // of the model that a client uses
		if m == "fedavg" {
			used = "accuracy.local"
		}
		l.report(m+": local accuracy %", none, source, got[m].last(used))
		l.report(m+": local accuracy %, mean of the worst tenth of the clients", none, source, got[m].last(used+".worst"))
	}
	return l.partitions(ctx)
}

// partitions trains FedAvg for a few rounds on every partition of the same data.
func (l *Lab) partitions(ctx context.Context) error {
	for _, s := range []dataset.Scheme{
		{Name: "iid"}, {Name: "classes", PerClient: 2}, {Name: "shards", PerClient: 2}, {Name: "dirichlet", Alpha: 0.3},
		{Name: "dirichlet-client", Alpha: 0.3}, {Name: "pathological", PerClient: 2}, {Name: "quantity", Alpha: 0.5},
		{Name: "quantity", Law: "lognormal", Sigma: 1}, {Name: "noise", Sigma: 0.5}, {Name: "rotation"},
	} {
		r, err := baseline(l.Seed, "fedavg")
		if err != nil {
			return err
		}
		s.Clients = 20
		r.Partition = s
		r.Rounds = 5
		r.Evaluate.Every = 5
		name := s.Name
		if s.Law != "" {
			name += " " + s.Law
		}
		o, err := l.run(ctx, "fedavg on "+name, r)
		if err != nil {
			return err
		}
		l.report("FedAvg, 5 rounds, partition "+name+": global accuracy %", none, "", o.last("accuracy"))
	}
	return nil
}

// baselinesMedium compares FedProx with FedAvg when most clients are late (arXiv 1812.06127), and FedAvg's relatives under
// Dirichlet skew.
func baselinesMedium(ctx context.Context, l *Lab) error {
	for _, m := range []string{"fedavg", "fedprox"} {
		r, err := baseline(l.Seed, m)
		if err != nil {
			return err
		}
		r.Data = dataset.Spec{Name: "synthetic", Clients: 30}
		r.Partition = dataset.Scheme{Name: "natural"}
		r.Rounds = 200
		r.Round.Fraction = 0.34
		r.Train.Epochs = 20
		r.Evaluate.Every = 5
		r.Clients.Dropout = 0.9
		if o, ok := r.Options.(interface{ SetMu(float64) }); ok {
			o.SetMu(1)
		}
		o, err := l.run(ctx, "synthetic 90 % stragglers "+m, r)
		if err != nil {
			return err
		}
		l.report(m+", Synthetic(1,1), 90 % of the clients lost: global accuracy %", none, "arXiv 1812.06127, figure 1", o.last("accuracy"))
		l.report(m+", the same: standard deviation of the loss from one evaluation to the next", none, "", o.swing("loss"))
	}
	for _, m := range []string{"fedavg", "fedavgm", "fedadam", "fedyogi", "fedadagrad", "scaffold"} {
		r, err := baseline(l.Seed, m)
		if err != nil {
			return err
		}
		r.Data = dataset.Spec{Name: "mnist", Train: 20000}
		r.Partition = dataset.Scheme{Name: "dirichlet", Clients: 50, Alpha: 0.1}
		r.Model = recipe.Model{Name: "mlp"}
		r.Rounds = 100
		r.Round.Fraction = 0.2
		r.Evaluate.Every = 5
		o, err := l.run(ctx, "mnist dirichlet 0.1 "+m, r)
		if err != nil {
			return err
		}
		l.report(m+", MNIST, Dirichlet(0.1), MLP, 100 rounds: global accuracy %", none, "", o.last("accuracy"))
	}
	return nil
}

// swing is the standard deviation of the differences of neighbouring values of a metric.
func (o outcome) swing(name string) float64 {
	p := o.series[name]
	if len(p) < 3 {
		return math.NaN()
	}
	var sum, squares float64
	n := float64(len(p) - 1)
	for i := 1; i < len(p); i++ {
		d := p[i].Value - p[i-1].Value
		sum += d
		squares += d * d
	}
	return math.Sqrt(max(0, squares/n-(sum/n)*(sum/n)))
}

func baselinesPaper(ctx context.Context, l *Lab) error {
	for _, c := range []struct {
		split  dataset.Scheme
		rounds float64
		bound  int
	}{
		{dataset.Scheme{Name: "iid", Clients: 100}, 20, 60},
		{dataset.Scheme{Name: "shards", Clients: 100, PerClient: 2}, 350, 700},
	} {
		r, err := baseline(l.Seed, "fedavg")
		if err != nil {
			return err
		}
		r.Data = dataset.Spec{Name: "mnist"}
		r.Partition = c.split
		r.Model = recipe.Model{Name: "lenet"}
		r.Rounds = c.bound
		r.Round.Fraction = 0.1
		r.Train.Epochs = 5
		r.Train.Optimizer.Rate = 0.1
		r.Evaluate.Clients = false
		o, err := l.run(ctx, "mnist lenet "+c.split.Name, r)
		if err != nil {
			return err
		}
		l.report("FedAvg, CNN, MNIST, "+c.split.Name+": rounds to 99 % (E=5, B=10, C=0.1)", c.rounds,
			"arXiv 1602.05629, table 2 (from memory)", o.first("accuracy", 99))
	}
	return nil
}
