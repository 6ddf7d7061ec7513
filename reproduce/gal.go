package reproduce

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/al"
	"github.com/cohort-learning/cohort/assisted/bounds"
	"github.com/cohort-learning/cohort/assisted/gal"
	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/stat"
)

func galExperiment() Experiment {
	return Experiment{
		Name:    "gal",
		Summary: "GAL against Alone, Joint, late fusion and assisted learning, with useless organisations and behind noise",
		Scales: map[Scale]Study{
			Small:  {"digits in 8 patches and four tables, 10 rounds, 4 seeds", "2 minutes on 2 cores", galSmall},
			Medium: {"the seven tables of the paper with four kinds of models, beside its figures, and what each part of the method does", "half an hour on 2 cores; resumable", galMedium},
		},
	}
}

const (
	galReference = "independent re-implementation in Python of the authors' code, other random numbers"
	galPaper     = "Diao, Ding, Tarokh 2022, table for 8 organisations"
	galRounds    = 10
	galSeeds     = 4
)

// galVariant is one way of learning together that is compared.
type galVariant struct {
	name    string
	options gal.Options
	change  func(division) division // nil: as it is
}

func galOptions(change func(*gal.Options)) gal.Options {
	o := gal.Defaults()
	change(&o)
	return o
}

// galRun runs a variant on each seed, and returns what a metric came to.
func (l *Lab) galRun(ctx context.Context, v galVariant, divide func(seed uint64) (division, error)) ([]outcome, error) {
	var out []outcome
	for k := range uint64(galSeeds) {
		d, err := divide(l.Seed + k)
		if err != nil {
			return nil, err
		}
		if v.change != nil {
			d = v.change(d)
		}
		name := fmt.Sprintf("%s, %s, seed %d", d.name, v.name, d.seed)
		o, err := l.assist(ctx, name, "gal", v.options, galRounds, d, func(rounds int, s *assisted.Sponsor, desks federated.Client) (federated.Algorithm, error) {
			return v.options.New(rounds, s, desks)
		})
		if err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, nil
}

// boosted runs sequential assistance with line searches on each seed.
func (l *Lab) boosted(ctx context.Context, what string, change func(division) division, divide func(seed uint64) (division, error)) ([]outcome, error) {
	var out []outcome
	for k := range uint64(galSeeds) {
		d, err := divide(l.Seed + k)
		if err != nil {
			return nil, err
		}
		if change != nil {
			d = change(d)
		}
		options := al.Boosting()
		o, err := l.assist(ctx, fmt.Sprintf("%s, %s, seed %d", d.name, what, d.seed), "al", options, galRounds, d,
			func(rounds int, s *assisted.Sponsor, desks federated.Client) (federated.Algorithm, error) {
				return options.New(rounds, s, desks)
			})
		if err != nil {
			return nil, err
		}
		out = append(out, o)
	}
	return out, nil
}

// late is late fusion of logistic models on each seed: what the first metric came to.
func (l *Lab) late(ctx context.Context, divide func(seed uint64) (division, error)) ([]float64, error) {
	fit, err := learner.Spec{Name: "logistic"}.New()
	if err != nil {
		return nil, err
	}
	return l.bound(divide, func(p bounds.Problem) (*mat.Dense, error) {
		p.Learner = fit
		return p.Late(ctx)
	})
}

// fused is networks of all organisations that are trained as one, on each seed: what the first metric came to.
func (l *Lab) fused(ctx context.Context, f bounds.Fusion, divide func(seed uint64) (division, error)) ([]float64, error) {
	return l.bound(divide, func(p bounds.Problem) (*mat.Dense, error) { return p.Fuse(ctx, l.Engine, f) })
}

// bound measures on each seed what is predicted where all columns are in one place.
func (l *Lab) bound(divide func(seed uint64) (division, error), predict func(bounds.Problem) (*mat.Dense, error)) ([]float64, error) {
	if l.Only != "" { // it is none of the runs that are shared out
		return nil, nil
	}
	var out []float64
	for k := range uint64(galSeeds) {
		d, err := divide(l.Seed + k)
		if err != nil {
			return nil, err
		}
		s, err := d.sponsor()
		if err != nil {
			return nil, err
		}
		p := bounds.Problem{Sponsor: s, Seed: d.seed}
		for _, columns := range d.columns {
			p.Parts = append(p.Parts, arranged(assisted.Columns(d.x, columns), s))
		}
		f, err := predict(p)
		if err != nil {
			return nil, err
		}
		test := s.Tested()
		m := s.Objective.Measure(test.Of(s.Labels), test.Of(f))[0]
		out = append(out, percent(m.Name, m.Value))
	}
	return out, nil
}

// arranged returns rows in the order of the sponsor's.
func arranged(x *mat.Dense, s *assisted.Sponsor) *mat.Dense {
	out := mat.DenseCopyOf(x)
	for i, k := range s.Keys {
		var row int
		if _, err := fmt.Sscan(k, &row); err != nil {
			panic("reproduce: key " + k + " is no row") // they were made so
		}
		out.SetRow(i, x.RawRowView(row))
	}
	return out
}

// lasts are the last values of a metric; accuracies in percent.
func lasts(runs []outcome, metric string) []float64 {
	var out []float64
	for _, o := range runs {
		out = append(out, o.last(metric))
	}
	return out
}

// mean is that of [lasts].
func mean(runs []outcome, metric string) float64 { return stat.Mean(lasts(runs, metric), nil) }

// firsts is the mean of the first values of a metric.
func firsts(runs []outcome, metric string) float64 {
	sum := 0.0
	for _, o := range runs {
		v := math.NaN()
		if p := o.series[metric]; len(p) > 0 {
			v = p[0].Value
		}
		sum += v
	}
	return sum / float64(len(runs))
}

// digits are 8×8 pixels in 8 patches of 4×2, and linear models by stochastic gradient descent.
func (l *Lab) digits() (func(seed uint64) (division, error), error) {
	s, err := l.readSheet("digits", "digits.csv.gz", 0, 10)
	if err != nil {
		return nil, err
	}
	columns, err := assisted.Patches(8, 8, 1, 8)
	if err != nil {
		return nil, err
	}
	return func(seed uint64) (division, error) {
		return division{sheet: s, columns: columns, shares: assisted.Shares{Test: 0.2}, seed: seed, learner: learner.Spec{Name: "linear-sgd"}}, nil
	}, nil
}

// table divides a table's columns among so many organisations, at random.
func galTable(s sheet, organisations int, spec learner.Spec) func(seed uint64) (division, error) {
	_, columns := s.x.Dims()
	return func(seed uint64) (division, error) {
		blocks, err := assisted.Blocks(columns, organisations, rng.New(seed, 0, "", "columns"))
		return division{sheet: s, columns: blocks, shares: assisted.Shares{Test: 0.2}, seed: seed, learner: spec}, err
	}
}

// disturbed has noise on the fitted values of the second half of the organisations.
func disturbed(sigma float64) func(division) division {
	return func(d division) division {
		d.noise = map[int]float64{}
		for m := len(d.columns) / 2; m < len(d.columns); m++ {
			d.noise[m] = sigma
		}
		return d
	}
}

func alone(d division) division  { return d.only(0) }
func pooled(d division) division { return d.pooled() }

// galSmall checks every gate on the digits and the tables.
func galSmall(ctx context.Context, l *Lab) error {
	if err := l.galDigits(ctx); err != nil {
		return err
	}
	return l.galTables(ctx, []string{"diabetes", "blobs", "wine", "breast cancer"})
}

func (l *Lab) galDigits(ctx context.Context) error {
	divide, err := l.digits()
	if err != nil {
		return err
	}
	plain, equal := gal.Defaults(), galOptions(func(o *gal.Options) { o.Weights = "equal" })
	runs := map[string][]outcome{}
	for _, v := range []galVariant{
		{name: "GAL", options: plain},
		{name: "GAL, rate 1", options: galOptions(func(o *gal.Options) { o.Rate = "fixed" })},
		{name: "GAL, equal weights", options: equal},
		{name: "alone", options: plain, change: alone},
		{name: "joint", options: plain, change: pooled},
		{name: "GAL, noise 1 at half of them", options: plain, change: disturbed(1)},
		{name: "GAL, noise 1 at half of them, equal weights", options: equal, change: disturbed(1)},
		{name: "GAL, noise 5 at half of them", options: plain, change: disturbed(5)},
		{name: "GAL, noise 5 at half of them, equal weights", options: equal, change: disturbed(5)},
		{name: "GAL, Laplace noise on residuals", options: galOptions(func(o *gal.Options) { o.Privacy = "laplace" })},
		{name: "GAL, residuals by intervals", options: galOptions(func(o *gal.Options) { o.Privacy = "interval" })},
	} {
		if runs[v.name], err = l.galRun(ctx, v, divide); err != nil {
			return err
		}
	}
	if runs["AL"], err = l.boosted(ctx, "AL", nil, divide); err != nil {
		return err
	}
	if runs["AL as released"], err = l.boosted(ctx, "AL as released", func(d division) division { return d.only(len(d.columns) - 1) }, divide); err != nil {
		return err
	}
	late, err := l.late(ctx, divide)
	if err != nil {
		return err
	}
	accuracy := func(name string) float64 { return mean(runs[name], "accuracy") }
	whole := accuracy("GAL")
	l.report("digits: accuracy alone", 33.7, galReference, accuracy("alone"))
	l.require("digits: accuracy of GAL", 95.1, galReference, whole, ">=", 93.5)
	l.require("digits: accuracy that the rate adds, over rate 1", 95.1-91.4, galReference, whole-accuracy("GAL, rate 1"), ">=", 0.0001)
	l.report("digits: accuracy of GAL with equal weights", 95.5, galReference, accuracy("GAL, equal weights"))
	l.report("digits: accuracy of joint training", 94.3, galReference, accuracy("joint"))
	l.report("digits: accuracy of late fusion", 92.3, galReference, stat.Mean(late, nil))
	l.report("digits: accuracy of sequential assistance", 95.0, galReference, accuracy("AL"))
	l.report("digits: accuracy of AL as released, which is the last organisation alone", 40.9, galReference, accuracy("AL as released"))
	for _, n := range []struct {
		sigma              string
		weighted, averaged float64
		gap                float64
	}{{"1", 77.5, 48.4, 20}, {"5", 69.3, 20.1, 35}} {
		name := fmt.Sprintf("GAL, noise %s at half of them", n.sigma)
		w, e := accuracy(name), accuracy(name+", equal weights")
		l.report(fmt.Sprintf("digits: accuracy with noise %s at half of them", n.sigma), n.weighted, galReference, w)
		l.report(fmt.Sprintf("digits: accuracy with noise %s and equal weights", n.sigma), n.averaged, galReference, e)
		l.require(fmt.Sprintf("digits: accuracy that weights add with noise %s", n.sigma), n.weighted-n.averaged, galReference, w-e, ">=", n.gap)
	}
	l.report("digits: accuracy with Laplace noise on residuals, budget 1 a number", 90.3, galReference, accuracy("GAL, Laplace noise on residuals"))
	l.report("digits: accuracy with residuals told by one interval", 94.4, galReference, accuracy("GAL, residuals by intervals"))
	l.galWeights(runs["GAL"])
	return nil
}

// galWeights compares the weights of patches in the first round.
func (l *Lab) galWeights(runs []outcome) {
	reference := []float64{.036, .136, .226, .041, .035, .211, .263, .052}
	var central, border []float64
	for m, want := range reference {
		w := firsts(runs, "weight "+organisation(m))
		l.report(fmt.Sprintf("digits: weight of patch %d in round 1", m+1), want, galReference, w)
		if slices.Contains([]int{1, 2, 5, 6}, m) {
			central = append(central, w)
		} else {
			border = append(border, w)
		}
	}
	l.require("digits: least weight of a central patch, less the largest of one at the border", .136-.052, galReference,
		slices.Min(central)-slices.Max(border), ">=", 0.0001)
	if o := runs[0].series["rate"]; len(o) > 0 {
		lo := slices.MinFunc(o, byValue).Value
		hi := slices.MaxFunc(o, byValue).Value
		l.report("digits: least rate of the first seed", 35, galReference, lo)
		l.report("digits: largest rate of the first seed", 65, galReference, hi)
	}
}

func byValue(a, b record.Point) int {
	switch {
	case a.Value < b.Value:
		return -1
	case a.Value > b.Value:
		return 1
	}
	return 0
}

// galReferences are what the independent implementation measured: alone, GAL and joint.
var galReferences = map[string][3]float64{
	"diabetes": {57.4, 44.9, 45.3}, "blobs": {28.8, 100, 98.8}, "wine": {52.8, 97.9, 98.6}, "breast cancer": {91.2, 98, 96.5},
}

func (l *Lab) galSheet(name string) (sheet, int, error) {
	var s sheet
	var err error
	organisations := 8
	switch name {
	case "diabetes":
		s, err = l.diabetes()
	case "boston":
		s, err = l.readSheet(name, "boston_house_prices.csv", 2, 0)
	case "wine":
		s, err = l.readSheet(name, "wine_data.csv", 1, 3)
	case "breast cancer":
		s, err = l.readSheet(name, "breast_cancer.csv", 1, 2)
	case "iris":
		organisations = 4
		s, err = l.readSheet(name, "iris.csv", 1, 3)
	case "qsar":
		s, err = l.qsar()
	case "blobs":
		s = sheet{name: name, objective: assisted.Objective{Loss: assisted.CrossEntropy, Classes: 10}}
		s.x, s.y = assisted.Blobs(100, 10, 10, rng.New(l.Seed, 0, "", "blobs"))
	}
	return s, organisations, err
}

// galLinear is the settings of linear models on a table, and how its outcome is measured.
func galLinear(s sheet) (spec learner.Spec, options gal.Options, metric string) {
	spec, options = learner.Spec{Name: "linear-sgd"}, gal.Defaults()
	if s.objective.Classifies() {
		return spec, options, "accuracy"
	}
	one := 1.0 // absolute loss: organisations fit it, too
	spec.Power, options.Exponent = &one, 1
	return spec, options, "mad"
}

// galTables compares GAL with alone and joint on tables.
func (l *Lab) galTables(ctx context.Context, names []string) error {
	for _, name := range names {
		s, organisations, err := l.galSheet(name)
		if err != nil {
			return err
		}
		spec, options, metric := galLinear(s)
		divide := galTable(s, organisations, spec)
		var got [3]float64
		for i, v := range []galVariant{{"alone", options, alone}, {"GAL", options, nil}, {"joint", options, pooled}} {
			runs, err := l.galRun(ctx, v, divide)
			if err != nil {
				return err
			}
			got[i] = mean(runs, metric)
		}
		reference, known := galReferences[name]
		if !known {
			reference = [3]float64{math.NaN(), math.NaN(), math.NaN()}
		}
		l.galRows(name, metric, got, reference, known)
	}
	return nil
}

func (l *Lab) galRows(name, metric string, got, reference [3]float64, gated bool) {
	word, sign, gain := "accuracy", 1.0, 3.0
	if metric == "mad" {
		word, sign, gain = "mean absolute deviation", -1, 8
	}
	for i, what := range []string{"alone", "of GAL", "of joint training"} {
		l.report(fmt.Sprintf("%s: %s %s", name, word, what), reference[i], galReference, got[i])
	}
	if !gated {
		return
	}
	l.require(fmt.Sprintf("%s: %s that GAL is better than alone", name, word), sign*(reference[1]-reference[0]), galReference, sign*(got[1]-got[0]), ">=", gain)
	l.require(fmt.Sprintf("%s: %s that GAL is behind joint training", name, word), sign*(reference[2]-reference[1]), galReference, sign*(got[2]-got[1]), "<=", 3)
}
