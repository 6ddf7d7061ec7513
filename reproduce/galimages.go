package reproduce

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/gal"
	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"gonum.org/v1/gonum/mat"
)

func galImagesExperiment() Experiment {
	return Experiment{
		Name:    "gal-images",
		Summary: "GAL on images in eight patches with convolutional networks, with deep model sharing, and with noisy organisations",
		Scales: map[Scale]Study{
			Small:  {"2,000 images of MNIST, networks of 8-16 channels, 2 passes a round in steps of 64, 3 rounds", "2 minutes on 2 cores", galImagesSmall},
			Medium: {"10,000 images of MNIST, networks of 16-32-64 channels, 3 passes a round, 5 rounds", "a quarter of an hour on 2 cores; resumable", galImagesMedium},
			Paper:  {"all of CIFAR-10 that is there, the paper's network of 64-128-256-512 channels, 10 passes a round, 10 rounds", "days on 2 cores; resumable", galImagesPaper},
		},
	}
}

// galImages is images that are cut into patches, one an organisation.
type galImages struct {
	name     string // of the data
	train    int    // images to fit; 0: all
	channels []int  // of the networks' convolutions
	batch    int    // images of a step; 0: 512, as the paper has
	passes   int    // over the images, in each round
	rounds   int

	x, y  *mat.Dense // the images to fit, then those to test
	tests int
	shape []int
}

const galMNIST, galCIFAR = "Diao, Ding, Tarokh 2022, table, MNIST in 8 patches", "Diao, Ding, Tarokh 2022, table, CIFAR-10 in 8 patches"

func galImagesSmall(ctx context.Context, l *Lab) error {
	g := galImages{name: "mnist", train: 2000, channels: []int{8, 16}, batch: 64, passes: 2, rounds: 3}
	if err := g.read(ctx, l); err != nil {
		return err
	}
	runs, err := g.runs(ctx, l, []string{"alone", "GAL", "GAL, one network for all rounds"})
	if err != nil {
		return err
	}
	accuracy := func(name string) float64 { return runs[name].last("accuracy") }
	l.report("mnist: accuracy alone", 24.2, galMNIST, accuracy("alone"))
	l.report("mnist: accuracy of GAL", 96.3, galMNIST, accuracy("GAL"))
	l.report("mnist: accuracy of GAL, one network for all rounds", 96.3, galMNIST, accuracy("GAL, one network for all rounds"))
	l.require("mnist: accuracy that GAL adds to alone", 96.3-24.2, galMNIST, accuracy("GAL")-accuracy("alone"), ">=", 50)
	return nil
}

func galImagesMedium(ctx context.Context, l *Lab) error {
	g := galImages{name: "mnist", train: 10000, channels: []int{16, 32, 64}, passes: 3, rounds: 5}
	return g.study(ctx, l, galMNIST, map[string]float64{"alone": 24.2, "joint training": 99.4, "GAL": 96.3,
		"GAL, one network for all rounds": 96.3, "GAL, one network, begun anew": 96.3}, 50)
}

func galImagesPaper(ctx context.Context, l *Lab) error {
	g := galImages{name: "cifar10", channels: []int{64, 128, 256, 512}, passes: 10, rounds: 10}
	return g.study(ctx, l, galCIFAR, map[string]float64{"alone": 46.3, "joint training": 80.1, "GAL": 74.3,
		"GAL, one network for all rounds": 67, "GAL, one network, begun anew": 67,
		"GAL, noise 1 at half of them": 61, "GAL, noise 1 at half of them, equal weights": 45}, 72-46.3)
}

// read loads the images as a table with a column a pixel and channel.
func (g *galImages) read(ctx context.Context, l *Lab) error {
	split, err := dataset.Load(ctx, dataset.Spec{Name: g.name, Root: l.Data, Train: g.train, Seed: l.Seed})
	if err != nil {
		return err
	}
	g.shape, g.tests = split.Train.Shape, split.Test.Len()
	n, size := split.Train.Len(), split.Train.Size()
	g.x, g.y = mat.NewDense(n+g.tests, size, nil), mat.NewDense(n+g.tests, 1, nil)
	for from, e := range map[int]*dataset.Examples{0: split.Train, n: split.Test} {
		if e.U8 == nil {
			return fmt.Errorf("%s: images are not of bytes", g.name)
		}
		for i := range e.Len() {
			for j, v := range e.U8[i*size:][:size] {
				g.x.Set(from+i, j, float64(v)/255)
			}
			g.y.Set(from+i, 0, float64(e.Labels[i]))
		}
	}
	return nil
}

// network is the learner for images of that height and width.
func (g *galImages) network(height, width int) learner.Spec {
	return learner.Spec{Name: "cnn", Shape: []int{height, width, g.shape[2]}, Hidden: g.channels, Batch: g.batch, Epochs: g.passes}
}

// divided gives patches to eight organisations, on a grid of 2 by 4.
func (g *galImages) divided(seed uint64) (division, error) {
	columns, err := assisted.Patches(g.shape[0], g.shape[1], g.shape[2], 8)
	n, _ := g.y.Dims()
	order := make([]int, n)
	for i := range order {
		order[i] = i
	}
	s := sheet{name: g.name, x: g.x, y: g.y, objective: assisted.Objective{Loss: assisted.CrossEntropy, Classes: 10}}
	return division{sheet: s, columns: columns, shares: assisted.Shares{Test: float64(g.tests) / float64(n)}, seed: seed, order: order,
		learner: g.network(g.shape[0]/2, g.shape[1]/4)}, err
}

// whole is one organisation with the images as they are.
func (g *galImages) whole(d division) division {
	all := make([]int, g.shape[0]*g.shape[1]*g.shape[2])
	for i := range all {
		all[i] = i
	}
	d.columns, d.noise, d.learner = [][]int{all}, nil, g.network(g.shape[0], g.shape[1])
	return d
}

// variants are the ways that are compared.
func (g *galImages) variants() []galVariant {
	equal := galOptions(func(o *gal.Options) { o.Weights = "equal" })
	shared := func(how string) gal.Options { return galOptions(func(o *gal.Options) { o.DMS = how }) }
	return []galVariant{
		{name: "alone", options: gal.Defaults(), change: alone},
		{name: "GAL", options: gal.Defaults()},
		{name: "GAL, one network for all rounds", options: shared(assisted.ShareWarm)},
		{name: "GAL, one network, begun anew", options: shared(assisted.ShareRestart)},
		{name: "GAL, one network, weights on rows set apart", options: shared(assisted.ShareWarm), change: func(d division) division { d.shares.Solve = 0.2; return d }},
		{name: "GAL, noise 1 at half of them", options: gal.Defaults(), change: disturbed(1)},
		{name: "GAL, noise 1 at half of them, equal weights", options: equal, change: disturbed(1)},
		{name: "joint training", options: gal.Defaults(), change: g.whole},
	}
}

// runs computes the variants of these names.
func (g *galImages) runs(ctx context.Context, l *Lab, names []string) (map[string]outcome, error) {
	out := map[string]outcome{}
	for _, v := range g.variants() {
		if !slices.Contains(names, v.name) {
			continue
		}
		d, err := g.divided(l.Seed)
		if err != nil {
			return nil, err
		}
		if v.change != nil {
			d = v.change(d)
		}
		out[v.name], err = l.assist(ctx, fmt.Sprintf("%s, %s", g.name, v.name), "gal", v.options, g.rounds, d,
			func(rounds int, s *assisted.Sponsor, desks federated.Client) (federated.Algorithm, error) {
				return v.options.New(rounds, s, desks)
			})
		if err != nil {
			return nil, err
		}
	}
	return out, nil
}

// study reports all variants beside what was published, and requires what GAL must add to the sponsor alone.
func (g *galImages) study(ctx context.Context, l *Lab, source string, published map[string]float64, adds float64) error {
	if err := g.read(ctx, l); err != nil {
		return err
	}
	var names []string
	for _, v := range g.variants() {
		names = append(names, v.name)
	}
	runs, err := g.runs(ctx, l, names)
	if err != nil {
		return err
	}
	accuracy := func(name string) float64 { return runs[name].last("accuracy") }
	reference := func(name string) float64 {
		if v, ok := published[name]; ok {
			return v
		}
		return math.NaN()
	}
	for _, name := range names {
		of := "of "
		if name == "alone" {
			of = ""
		}
		l.report(g.name+": accuracy "+of+name, reference(name), source, accuracy(name))
	}
	l.require(g.name+": accuracy that GAL adds to alone", reference("GAL")-reference("alone"), source, accuracy("GAL")-accuracy("alone"), ">=", adds)
	l.report(g.name+": accuracy that weights add with noise 1", reference("GAL, noise 1 at half of them")-reference("GAL, noise 1 at half of them, equal weights"), source,
		accuracy("GAL, noise 1 at half of them")-accuracy("GAL, noise 1 at half of them, equal weights"))
	for m := range 8 {
		l.report(fmt.Sprintf("%s: weight of patch %d in round 1", g.name, m+1), math.NaN(), source, firsts([]outcome{runs["GAL"]}, "weight "+organisation(m)))
	}
	return nil
}
