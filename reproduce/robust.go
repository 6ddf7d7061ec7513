package reproduce

import (
	"context"
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated/heterofl"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/recipe"
)

func robustExperiment() Experiment {
	return Experiment{
		Name:    "robust",
		Summary: "rules that stand lying clients, against four attacks",
		Scales: map[Scale]Study{
			Small: {"softmax regression on 6,000 MNIST images, 20 clients, 0 to 30 % of them lying, 30 rounds", "2 minutes on 2 cores", robustSmall},
		},
	}
}

// lie is an attack at a strength that was chosen before anything was measured.
type lie struct {
	title, kind string
	strength    float64
}

var lies = []lie{{"sign flip ×5", "sign-flip", 5}, {"noise ×10", "gaussian", 10}, {"ALIE", "alie", 0}, {"IPM ×1", "ipm", 1}}

// defence is a rule of the table; liars is how many of a round's results lie.
type defence struct {
	title string
	rule  func(liars int) recipe.Robust
}

var defences = []defence{
	{"mean", func(int) recipe.Robust { return recipe.Robust{} }},
	{"median", func(int) recipe.Robust { return recipe.Robust{Rule: "median"} }},
	{"trimmed 0.3", func(int) recipe.Robust { return recipe.Robust{Rule: "trimmed", Trim: 0.3} }},
	{"Krum", func(f int) recipe.Robust { return recipe.Robust{Rule: "krum", Liars: f} }},
	{"multi-Krum", func(f int) recipe.Robust { return recipe.Robust{Rule: "multi-krum", Liars: f} }},
	{"RFA", func(int) recipe.Robust { return recipe.Robust{Rule: "rfa"} }},
	{"norm clip", func(int) recipe.Robust { return recipe.Robust{Rule: "clip"} }},
	{"centred clip", func(int) recipe.Robust { return recipe.Robust{Rule: "centred"} }},
	{"Bulyan", func(f int) recipe.Robust { return recipe.Robust{Rule: "bulyan", Liars: f} }},
}

const robustClients = 20

// robustRun returns the accuracy in percent after the last round; NaN if the rule cannot stand that many liars.
func (l *Lab) robustRun(ctx context.Context, setting string, deal dataset.Scheme, d defence, part float64, attack lie, bucket int) (float64, error) {
	f := int(math.Round(part * robustClients))
	r, err := baseline(l.Seed, "fedavg")
	if err != nil {
		return 0, err
	}
	r.Partition = deal
	r.Evaluate = recipe.Evaluate{Every: r.Rounds, Batch: 100, Statistics: "clients"}
	r.Robust = d.rule(f)
	r.Robust.Bucket = bucket
	if r.Robust.Rule == "bulyan" && robustClients < 4*f+3 {
		return math.NaN(), nil
	}
	name := fmt.Sprintf("%s %s honest", setting, d.title)
	if f > 0 {
		r.Clients = recipe.Conditions{Liars: part, Attack: attack.kind, Strength: attack.strength}
		name = fmt.Sprintf("%s %s %s %d", setting, d.title, attack.title, f)
	}
	if bucket > 0 {
		name += fmt.Sprintf(" buckets of %d", bucket)
	}
	o, err := l.run(ctx, name, r)
	if err != nil {
		return 0, fmt.Errorf("%s: %w", name, err)
	}
	if v := o.last("accuracy"); !math.IsNaN(v) {
		return v, nil
	}
	return 0, fmt.Errorf("%s: no accuracy was measured", name)
}

func robustSmall(ctx context.Context, l *Lab) error {
	const source = "federated baselines, small setting; thresholds are targets"
	for _, s := range []struct {
		title string
		deal  dataset.Scheme
		parts []float64
	}{
		{"2 classes a client", dataset.Scheme{Name: "classes", Clients: robustClients, PerClient: 2}, []float64{0.1, 0.2, 0.3}},
		{"IID", dataset.Scheme{Name: "iid", Clients: robustClients}, []float64{0.3}},
	} {
		flipped := map[string]float64{} // accuracy under 30 % that flip signs
		clean := 0.0
		for _, d := range defences {
			honest, err := l.robustRun(ctx, s.title, s.deal, d, 0, lie{}, 0)
			if err != nil {
				return err
			}
			if d.title == "mean" {
				clean = honest
			}
			l.report(fmt.Sprintf("%s, nobody lies, %s: accuracy %%", s.title, d.title), none, "", honest)
			for _, part := range s.parts {
				for _, a := range lies {
					v, err := l.robustRun(ctx, s.title, s.deal, d, part, a, 0)
					if err != nil {
						return err
					}
					if a.kind == "sign-flip" && part == 0.3 {
						flipped[d.title] = v
					}
					l.report(fmt.Sprintf("%s, %.0f %% %s, %s: accuracy %%", s.title, 100*part, a.title, d.title), none, "", v)
				}
			}
		}
		l.require(s.title+", 30 % sign flip ×5, mean: accuracy %", none, source, flipped["mean"], "<=", 30)
		for _, name := range []string{"median", "trimmed 0.3", "RFA", "Krum"} {
			l.require(fmt.Sprintf("%s, 30 %% sign flip ×5, %s: points below the mean when nobody lies", s.title, name), none, source,
				clean-flipped[name], "<=", 10)
		}
		if err := l.robustBuckets(ctx, s.title, s.deal); err != nil {
			return err
		}
	}
	return l.robustHolders(ctx)
}

// robustBuckets averages pairs before the rule, which stands fewer liars for it: 10 %.
func (l *Lab) robustBuckets(ctx context.Context, setting string, deal dataset.Scheme) error {
	for _, d := range defences {
		if d.title == "mean" || d.title == "Bulyan" { // the same, and too few
			continue
		}
		v, err := l.robustRun(ctx, setting, deal, d, 0.1, lies[0], 2)
		if err != nil {
			return err
		}
		l.report(fmt.Sprintf("%s, 10 %% sign flip ×5, %s after buckets of 2: accuracy %%", setting, d.title), none, "", v)
	}
	return nil
}

// robustHolders trains HeteroFL with some liars: medians over those who hold a coordinate.
func (l *Lab) robustHolders(ctx context.Context) error {
	for _, d := range defences[:2] {
		for _, part := range []float64{0, 0.2} {
			r, err := baseline(l.Seed, "heterofl")
			if err != nil {
				return err
			}
			o, ok := r.Options.(*heterofl.Options)
			if !ok {
				return fmt.Errorf("the options of heterofl are a %T", r.Options)
			}
			o.Mode, o.Levels = "a1-b1-c2", "dynamic"
			r.Partition = dataset.Scheme{Name: "iid", Clients: robustClients}
			r.Model = recipe.Model{Name: "mlp", Config: nn.Config{Hidden: []int{64}}}
			r.Train.Optimizer.Rate = 0.05
			r.Evaluate = recipe.Evaluate{Every: r.Rounds, Batch: 100, Statistics: "clients"}
			r.Robust = d.rule(0)
			name := fmt.Sprintf("HeteroFL a1-b1-c2 dynamic, IID, %.0f %% sign flip ×5, %s", 100*part, d.title)
			if part > 0 {
				r.Clients = recipe.Conditions{Liars: part, Attack: "sign-flip", Strength: 5}
			}
			out, err := l.run(ctx, name, r)
			if err != nil {
				return fmt.Errorf("%s: %w", name, err)
			}
			l.report(name+": accuracy %", none, "", out.last("accuracy"))
		}
	}
	return nil
}
