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

var none = math.NaN()

func heteroflExperiment() Experiment {
	return Experiment{
		Name:    "heterofl",
		Summary: "HeteroFL (arXiv 2010.01264): mixtures of levels, static batch norm, masked loss, exclusion",
		Scales: map[Scale]Study{
			Small: {"MNIST, 4,000 training images, 20 clients, 15 rounds, widths 16 to 128", "2 minutes on 2 cores",
				heteroflSmall},
			Medium: {"MNIST, all images, 100 clients, 200 rounds, widths 16 to 128", "an hour on 2 cores", heteroflMedium},
			Paper: {"MNIST and CIFAR-10 at the published settings (arXiv 2010.01264, section 4)", "days on 2 cores; resumable",
				heteroflPaper},
		},
	}
}

// heteroflRecipe is what all the experiments share.
func heteroflRecipe(seed uint64, mode, levels string) (*recipe.Recipe, *heterofl.Options, error) {
	r, err := recipe.Default("heterofl")
	if err != nil {
		return nil, nil, err
	}
	o, ok := r.Options.(*heterofl.Options)
	if !ok {
		return nil, nil, fmt.Errorf("heterofl has options of type %T", r.Options)
	}
	o.Mode, o.Levels = mode, levels
	r.Seed = seed
	r.Model.Config = nn.Config{Widths: []int{16, 32, 64, 128}}
	r.Data = dataset.Spec{Name: "mnist"}
	r.Train.Clip = 1
	r.Train.Optimizer = recipe.Optimizer{Name: "sgd", Rate: 0.01, Momentum: 0.9, Decay: 5e-4}
	r.Round.Up = true
	return r, o, nil
}

// smallHeteroFL is the setting in which the thresholds were calibrated.
func smallHeteroFL(seed uint64, mode, levels string) (*recipe.Recipe, *heterofl.Options, error) {
	r, o, err := heteroflRecipe(seed, mode, levels)
	if err != nil {
		return nil, nil, err
	}
	r.Data.Train, r.Data.Test = 4000, 2000
	r.Partition = dataset.Scheme{Name: "iid", Clients: 20}
	r.Rounds = 15
	r.Round.Fraction = 0.25
	r.Train.Epochs = 2
	r.Train.Schedule = recipe.Schedule{Kind: "multistep", At: []int{7}, Factor: 0.1}
	r.Evaluate.Every = 15
	r.Evaluate.Clients = false
	return r, o, nil
}

func heteroflSmall(ctx context.Context, l *Lab) error {
	const source = "independent implementation of the method, seed 0"
	accuracy := func(name, mode, levels string, change func(*recipe.Recipe, *heterofl.Options)) (outcome, error) {
		r, o, err := smallHeteroFL(l.Seed, mode, levels)
		if err != nil {
			return outcome{}, err
		}
		if change != nil {
			change(r, o)
		}
		return l.run(ctx, name, r)
	}
	got := map[string]float64{}
	for _, s := range []struct {
		name, mode, levels string
		change             func(*recipe.Recipe, *heterofl.Options)
	}{
		{"a1", "a1", "fixed", nil},
		{"e1", "e1", "fixed", nil},
		{"a1-e1 dynamic", "a1-e1", "dynamic", nil},
		{"a1-e1 fixed", "a1-e1", "fixed", nil},
		{"a1-b1-c1-d1-e1 dynamic", "a1-b1-c1-d1-e1", "dynamic", nil},
		{"a1-e1 excluding e", "a1-e1", "fixed", func(_ *recipe.Recipe, o *heterofl.Options) { o.FullOnly = true }},
		{"a1-e4 fixed", "a1-e4", "fixed", nil},
		{"a1-e4 excluding e", "a1-e4", "fixed", func(_ *recipe.Recipe, o *heterofl.Options) { o.FullOnly = true }},
		{"a1-e1 no norm, Scaler", "a1-e1", "dynamic", withoutNorm(true)},
		{"a1-e1 no norm, no Scaler", "a1-e1", "dynamic", withoutNorm(false)},
	} {
		o, err := accuracy(s.name, s.mode, s.levels, s.change)
		if err != nil {
			return err
		}
		got[s.name] = o.last("accuracy")
	}
	a, e := got["a1"], got["e1"]
	l.require("a1 (FedAvg), IID: global accuracy %", 95.10, source, a, ">=", 92)
	l.report("e1, IID: global accuracy %", 53.80, source, e)
	for _, name := range []string{"a1-e1 dynamic", "a1-e1 fixed"} {
		l.require(name+", IID: points below a1", rounded(95.10-95.50), source, a-got[name], "<=", 2)
		l.require(name+", IID: points above e1", 95.50-53.80, source, got[name]-e, ">=", 15)
	}
	five := got["a1-b1-c1-d1-e1 dynamic"]
	l.require("a1-b1-c1-d1-e1 dynamic, IID: points above e1", 93.75-53.80, source, five-e, ">=", 15)
	l.report("a1-b1-c1-d1-e1 dynamic, IID: global accuracy %", 93.75, source, five)
	l.report("a1-e1 fixed, e excluded: global accuracy % (within noise of a1-e1 at this scale)", 94.90, source, got["a1-e1 excluding e"])
	l.report("a1-e4 fixed: global accuracy %", 94.05, source, got["a1-e4 fixed"])
	l.report("a1-e4 fixed, e excluded: global accuracy %", 93.65, source, got["a1-e4 excluding e"])
	l.report("a1-e1, no norm, Scaler on: global accuracy % (no visible effect at this scale)", 85.90, source, got["a1-e1 no norm, Scaler"])
	l.report("a1-e1, no norm, Scaler off: global accuracy %", 86.10, source, got["a1-e1 no norm, no Scaler"])

	var local [2]float64
	for i, mask := range []string{"zero", "none"} {
		o, err := accuracy("a1-e1 dynamic, 2 classes a client, mask "+mask, "a1-e1", "dynamic", func(r *recipe.Recipe, o *heterofl.Options) {
			r.Partition = dataset.Scheme{Name: "classes", Clients: 20, PerClient: 2}
			r.Evaluate.Clients = true
			o.Mask = mask
		})
		if err != nil {
			return err
		}
		local[i] = o.last("accuracy.local")
		word, ref := "on", [2]float64{93.68, 59.30}
		if mask == "none" {
			word, ref = "off", [2]float64{55.94, 56.55}
		}
		l.report("a1-e1 dynamic, 2 classes a client, mask "+word+": local accuracy %", ref[0], source, local[i])
		l.report("a1-e1 dynamic, 2 classes a client, mask "+word+": global accuracy %", ref[1], source, o.last("accuracy"))
	}
	l.require("2 classes a client: points of local accuracy that the mask gains", 93.68-55.94, source, local[0]-local[1], ">=", 25)
	return l.relatives(ctx)
}

// rounded keeps a difference of two published percentages readable.
func rounded(v float64) float64 { return math.Round(v*100) / 100 }

func withoutNorm(scaler bool) func(*recipe.Recipe, *heterofl.Options) {
	return func(r *recipe.Recipe, o *heterofl.Options) {
		r.Model.Norm = nn.NoNorm
		r.Train.Optimizer.Rate = 0.02
		o.Scaler = scaler
	}
}

// relatives reports the methods that differ from HeteroFL in the choice of channels.
func (l *Lab) relatives(ctx context.Context) error {
	for _, s := range []heterofl.Scheme{heterofl.Rolling, heterofl.Random, heterofl.Ordered} {
		r, o, err := smallHeteroFL(l.Seed, "a1-b1-c1-d1-e1", "dynamic")
		if err != nil {
			return err
		}
		o.Scheme = s
		out, err := l.run(ctx, "a1-b1-c1-d1-e1 "+string(s), r)
		if err != nil {
			return err
		}
		l.report(fmt.Sprintf("a1-b1-c1-d1-e1 dynamic, %s channels: global accuracy %%", s), none, "", out.last("accuracy"))
	}
	return nil
}

// heteroflMedium is 6c of the specification: targets are for one local epoch and were not measured by its authors.
func heteroflMedium(ctx context.Context, l *Lab) error {
	setting := func(mode string) (*recipe.Recipe, *heterofl.Options, error) {
		r, o, err := heteroflRecipe(l.Seed, mode, "dynamic")
		if err != nil {
			return nil, nil, err
		}
		r.Model.Config = nn.Config{Widths: []int{64, 128, 256, 512}}
		r.Partition = dataset.Scheme{Name: "iid", Clients: 100}
		r.Rounds = 200
		r.Round.Fraction = 0.1
		r.Train.Epochs = 1
		r.Train.Schedule = recipe.Schedule{Kind: "multistep", At: []int{100}, Factor: 0.1}
		r.Evaluate.Every = 20
		r.Run.Checkpoint = 10
		return r, o, nil
	}
	names := []struct {
		mode      string
		published float64
	}{{"c1", 99.35}, {"c1-e1", 99.16}, {"c1-d1-e1", 99.28}, {"e1", 98.46}}
	got := map[string]float64{}
	for _, n := range names {
		r, _, err := setting(n.mode)
		if err != nil {
			return err
		}
		r.Evaluate.Clients = false
		o, err := l.run(ctx, "mnist iid "+n.mode, r)
		if err != nil {
			return err
		}
		got[n.mode] = o.last("accuracy")
	}
	const source = "published with 5 local epochs (Flower baseline, MNIST IID); thresholds are targets for 1 epoch"
	l.require("c1: global accuracy %", 99.35, source, got["c1"], ">=", 98.8)
	l.require("c1-e1 dynamic: points below c1", 99.35-99.16, source, got["c1"]-got["c1-e1"], "<=", 0.4)
	l.require("c1-d1-e1 dynamic: points below c1", 99.35-99.28, source, got["c1"]-got["c1-d1-e1"], "<=", 0.4)
	l.require("e1: points below c1-e1", 99.16-98.46, source, got["c1-e1"]-got["e1"], ">=", 0.5)
	for _, n := range names {
		l.report(n.mode+": global accuracy %", n.published, source, got[n.mode])
	}
	for _, mask := range []string{"zero", "none"} {
		r, o, err := setting("c1-e1")
		if err != nil {
			return err
		}
		r.Partition = dataset.Scheme{Name: "classes", Clients: 100, PerClient: 2}
		o.Mask = mask
		out, err := l.run(ctx, "mnist 2 classes c1-e1 mask "+mask, r)
		if err != nil {
			return err
		}
		claim := "c1-e1 dynamic, 2 classes a client, mask " + map[string]string{"zero": "on", "none": "off"}[mask]
		if mask == "zero" {
			l.require(claim+": local accuracy %", 99.72, source, out.last("accuracy.local"), ">=", 99)
		} else {
			l.report(claim+": local accuracy %", 99.2, "published, a-e, sBN", out.last("accuracy.local"))
		}
		l.report(claim+": global accuracy %", map[string]float64{"zero": 97.68, "none": 99.2}[mask], "published", out.last("accuracy"))
	}
	return nil
}

// heteroflPaper is the published setting, dynamic uniform shares.
func heteroflPaper(ctx context.Context, l *Lab) error {
	type cell struct {
		data, mode string
		nonIID     bool
		local      float64 // published, non-IID
		global     float64 // published
	}
	for _, c := range []cell{
		{"mnist", "a1", false, none, 99.53}, {"mnist", "a1-e1", false, none, none}, {"mnist", "e1", false, none, none},
		{"mnist", "a1", true, 99.9, 98.6}, {"mnist", "a1-e1", true, 99.8, 98.2}, {"mnist", "e1", true, 99.3, 94.2},
		{"cifar10", "a1", false, none, 91.19}, {"cifar10", "a1-e1", false, none, 90.29},
		{"cifar10", "a1-b1-c1-d1-e1", false, none, 88.83}, {"cifar10", "e1", false, none, 77.09},
		{"cifar10", "a1", true, 92.38, 56.88}, {"cifar10", "a1-e1", true, 92.10, 59.11}, {"cifar10", "e1", true, 89.62, 54.16},
	} {
		r, _, err := heteroflRecipe(l.Seed, c.mode, "dynamic")
		if err != nil {
			return err
		}
		r.Data.Name = c.data
		r.Partition = dataset.Scheme{Name: "iid", Clients: 100}
		r.Round.Fraction = 0.1
		r.Train.Epochs = 5
		r.Evaluate.Every = 20
		r.Run.Checkpoint = 5
		rounds, drops := 200, []int{100}
		r.Model.Config = nn.Config{Widths: []int{64, 128, 256, 512}}
		if c.data == "cifar10" {
			rounds, drops = 400, []int{150, 250}
			r.Model.Name = "resnet"
			r.Model.Blocks = []int{1, 1, 1, 2}
			r.Train.Optimizer.Rate = 0.1
			r.Train.Crop, r.Train.Flip = 4, true
		}
		split := "IID"
		if c.nonIID {
			split = "2 classes a client"
			r.Partition = dataset.Scheme{Name: "classes", Clients: 100, PerClient: 2}
			rounds *= 2
			for i := range drops {
				drops[i] *= 2
			}
		}
		r.Rounds = rounds
		r.Train.Schedule = recipe.Schedule{Kind: "multistep", At: drops, Factor: 0.1}
		r.Evaluate.Clients = c.nonIID
		o, err := l.run(ctx, fmt.Sprintf("%s %s %s", c.data, c.mode, split), r)
		if err != nil {
			return err
		}
		claim := fmt.Sprintf("%s, %s, %s: ", c.data, c.mode, split)
		const source = "arXiv 2010.01264, tables and figures"
		l.report(claim+"global accuracy %", c.global, source, o.last("accuracy"))
		if c.nonIID {
			l.report(claim+"local accuracy %", c.local, source, o.last("accuracy.local"))
		}
	}
	return nil
}
