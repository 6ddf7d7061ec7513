package reproduce

import (
	"context"
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated/personalfr"
	"github.com/cohort-learning/cohort/federated/recommenders"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/recommend"
)

func personalfrExperiment() Experiment {
	return Experiment{
		Name:    "personalfr",
		Summary: "PersonalFR against FedAvg, joint training and standing alone, on MovieLens",
		Scales: map[Scale]Study{
			Small:  {"MovieLens 100K, 100 clients, 100 rounds, two seeds, explicit and implicit", "5 minutes on 2 cores", personalfrSmall},
			Medium: {"MovieLens 100K, 100 clients, 400 rounds, explicit and implicit", "10 minutes on 2 cores", personalfrMedium},
			Paper:  {"MovieLens 1M, 100 and 300 clients and one user a client, 800 rounds", "half a day on 2 cores; resumable", personalfrPaper},
		},
	}
}

// Where the references come from: the authors' figures could not be read, so that the numbers to compare with are those of a dense
// re-implementation in PyTorch on the same data and settings, with their weight decay of all rows.
const (
	films       = "movielens-100k"
	calibration = "dense re-implementation of the authors' code on the same data, other random numbers"
	targets     = "targets of the small setting"
)

// tasting returns the recipe that all runs share: the settings of the authors' code.
func tasting(seed uint64, method, data string, rounds, clients int) (*recipe.Recipe, error) {
	r, err := recipe.Default(method)
	if err != nil {
		return nil, err
	}
	r.Seed, r.Rounds = seed, rounds
	r.Data = dataset.Spec{Name: data}
	r.Partition = dataset.Scheme{Name: "users", Clients: clients}
	r.Run.Checkpoint = 20
	return r, nil
}

// shared runs PersonalFR, or what it is compared with, by what is shared.
func (l *Lab) shared(ctx context.Context, name, share, feedback, data string, seed uint64, rounds, clients, every int) (outcome, error) {
	r, err := tasting(seed, "personalfr", data, rounds, clients)
	if err != nil {
		return outcome{}, err
	}
	o := personalfr.Defaults()
	o.Share, o.Feedback, o.Catalogue = share, feedback, false
	switch share {
	case "all": // FedAvg computes and sends everything, and decays it
		o.Compression, o.ReferenceDecay = "none", true
	case "nothing":
		o.Compression = "compute"
	}
	r.Options, r.Evaluate.Every = o, every
	out, err := l.run(ctx, name, r)
	if err != nil {
		return out, fmt.Errorf("%s: %w", name, err)
	}
	return out, nil
}

func (l *Lab) joint(ctx context.Context, feedback, data string, epochs int) (outcome, error) {
	r, err := tasting(l.Seed, "joint-ars", data, epochs, 1)
	if err != nil {
		return outcome{}, err
	}
	o := personalfr.JointDefaults()
	o.Feedback, o.Catalogue = feedback, false
	r.Options, r.Evaluate.Every = o, 10
	return l.run(ctx, "joint "+feedback, r)
}

// least and most are over all rounds that were evaluated.
func (o outcome) least(name string) float64 {
	best := math.NaN()
	for _, p := range o.series[name] {
		if !(p.Value >= best) {
			best = p.Value
		}
	}
	return best
}

func (o outcome) most(name string) float64 {
	best := math.NaN()
	for _, p := range o.series[name] {
		if !(p.Value <= best) {
			best = p.Value
		}
	}
	return best
}

// at returns a metric in a round, counted from 1; NaN if it was not measured then.
func (o outcome) at(name string, round int) float64 {
	for _, p := range o.series[name] {
		if p.Round+1 == round {
			return p.Value
		}
	}
	return math.NaN()
}

// below returns the first round, counted from 1, in which a metric was at most a value; NaN if it never was.
func (o outcome) below(name string, atMost float64) float64 {
	for _, p := range o.series[name] {
		if p.Value <= atMost {
			return float64(p.Round + 1)
		}
	}
	return math.NaN()
}

// trained returns the bytes sent both ways to train in the first so many rounds.
func (o outcome) trained(rounds int) float64 {
	var sum float64
	for _, name := range []string{"bytes.up", "bytes.down"} {
		for _, p := range o.series[name] {
			if p.Round < rounds {
				sum += p.Value
			}
		}
	}
	return sum
}

// means measures the simplest predictions on the data of a seed: the mean of an item's ratings, and the mean of all.
func (l *Lab) means(ctx context.Context, seed uint64, implicit bool) (items, all recommend.Measures, err error) {
	s, err := dataset.Load(ctx, dataset.Spec{Name: films, Root: l.Data, Seed: seed})
	if err != nil {
		return items, all, err
	}
	t := recommend.Test{Train: recommend.Of(s.Train.All()), Held: recommend.Of(s.Test.All()), Like: 3.5, Batch: 10, Implicit: implicit}
	mean := recommend.MeansOf(t.Train, len(s.Train.Ratings.Items))
	return t.Measure(mean), t.Measure(mean.Overall()), nil
}

// classics runs what PersonalFR should be compared with: federated matrix factorisation, and the same by alternating least squares on
// all ratings at one place. Their settings were chosen on these data, rates and regularisation among a few.
func (l *Lab) classics(ctx context.Context, data string, seed uint64, rounds, clients int) error {
	for _, feedback := range []string{"explicit", "implicit"} {
		for _, method := range []string{"fcf", "joint-als"} {
			r, err := tasting(seed, method, data, rounds, clients)
			if err != nil {
				return err
			}
			title := "FCF"
			switch o := r.Options.(type) {
			case *recommenders.Options:
				o.Feedback = feedback
			case *recommenders.JointOptions:
				o.Feedback, r.Rounds = feedback, 20
				title = "joint least squares"
			}
			r.Evaluate.Every = r.Rounds
			out, err := l.run(ctx, fmt.Sprintf("%s %s seed %d", method, feedback, seed), r)
			if err != nil {
				return err
			}
			title = fmt.Sprintf("%s, %s, seed %d, after %d rounds: ", title, feedback, seed, r.Rounds)
			if feedback == "explicit" {
				l.report(title+"RMSE", none, "", out.last("rmse"))
				l.report(title+"RMSE as the authors of PersonalFR average it", none, "", out.last("rmse.batched"))
			}
			l.report(title+"NDCG@10, mean over users", none, "", out.last("ndcg"))
			l.report(title+"NDCG@10 of the whole catalogue", none, "", out.last("catalogue.ndcg"))
		}
	}
	return l.told(ctx, data, seed, clients)
}

// told runs item means and popularity as methods: members tell sums, once.
func (l *Lab) told(ctx context.Context, data string, seed uint64, clients int) error {
	for _, method := range []string{"item-mean", "popularity"} {
		r, err := tasting(seed, method, data, 1, clients)
		if err != nil {
			return err
		}
		out, err := l.run(ctx, fmt.Sprintf("%s seed %d", method, seed), r)
		if err != nil {
			return err
		}
		title := fmt.Sprintf("method %s, seed %d: ", method, seed)
		if method == "item-mean" {
			l.report(title+"RMSE", none, "", out.last("rmse"))
		}
		l.report(title+"NDCG@10, mean over users", none, "", out.last("ndcg"))
		l.report(title+"NDCG@10 of the whole catalogue", none, "", out.last("catalogue.ndcg"))
	}
	return nil
}

func rmse(m recommend.Measures) float64 { return math.Sqrt(m.Squares / m.Ratings) }

func personalfrSmall(ctx context.Context, l *Lab) error {
	items, all, err := l.means(ctx, l.Seed, false)
	if err != nil {
		return err
	}
	l.report("global mean: RMSE", 1.1335, calibration, rmse(all))
	l.report("item mean: RMSE", 1.0335, calibration, rmse(items))
	l.report("item mean: NDCG@10, mean over users", 0.8094, calibration, items.NDCG/items.Users)
	l.report("item mean: NDCG@10, mean over ratings", 0.7926, calibration, items.NDCGBy/items.Ratings)
	joint, err := l.joint(ctx, "explicit", films, 100)
	if err != nil {
		return err
	}
	l.require("joint training: best RMSE of 100 epochs", 0.9435, targets, joint.least("rmse"), "<=", 0.96)
	references := [][2]float64{{0.9993, 1.0168}, {0.9755, 1.0017}}
	var own, fed float64
	for k := range 2 {
		seed := l.Seed + uint64(k)
		p, err := l.shared(ctx, fmt.Sprintf("personalfr seed %d", seed), "decoder", "explicit", films, seed, 100, 100, 20)
		if err != nil {
			return err
		}
		f, err := l.shared(ctx, fmt.Sprintf("fedavg seed %d", seed), "all", "explicit", films, seed, 100, 100, 20)
		if err != nil {
			return err
		}
		own, fed = own+p.last("rmse")/2, fed+f.last("rmse")/2
		l.require(fmt.Sprintf("PersonalFR, seed %d: RMSE", seed), references[k][0], targets, p.last("rmse"), "<=", 1.015)
		l.report(fmt.Sprintf("FedAvg, seed %d: RMSE", seed), references[k][1], calibration, f.last("rmse"))
		l.report(fmt.Sprintf("PersonalFR, seed %d: RMSE as the authors average it", seed), none, "", p.last("rmse.batched"))
		if k > 0 {
			continue
		}
		for i, round := range []int{20, 40, 60, 80, 100} {
			l.report(fmt.Sprintf("PersonalFR after %d rounds: RMSE", round), []float64{1.161, 1.066, 1.019, 1.005, .999}[i], calibration, p.at("rmse", round))
			l.report(fmt.Sprintf("FedAvg after %d rounds: RMSE", round), []float64{1.119, 1.095, 1.052, 1.027, 1.017}[i], calibration, f.at("rmse", round))
		}
		l.require("PersonalFR: RMSE less than that of item means", none, targets, rmse(items)-p.last("rmse"), ">=", 0)
		ratio := f.trained(100) / p.trained(100)
		l.require("bytes of FedAvg to those of PersonalFR, measured", 5.48, targets, ratio, ">=", 5.3)
		l.require("bytes of FedAvg to those of PersonalFR, measured", 5.48, targets, ratio, "<=", 5.7)
	}
	l.require("PersonalFR, mean of two seeds: RMSE less than FedAvg's by", 0.0218, targets, fed-own, ">=", 0.005)
	alone, err := l.shared(ctx, "alone", "nothing", "explicit", films, l.Seed, 100, 100, 100)
	if err != nil {
		return err
	}
	l.report("every client for itself: RMSE", 2.4422, calibration, alone.last("rmse"))
	l.report("every client for itself: RMSE of items that it has", none, "", alone.last("rmse.known"))
	for _, share := range []string{"decoder", "all"} {
		o, err := l.shared(ctx, "implicit "+share, share, "implicit", films, l.Seed, 100, 100, 20)
		if err != nil {
			return err
		}
		if share == "decoder" {
			l.require("PersonalFR, implicit: NDCG@10, mean over users", 0.8087, targets, o.last("ndcg"), ">=", 0.80)
			l.report("PersonalFR, implicit: NDCG@10, mean over ratings", 0.7922, calibration, o.last("ndcg.rating"))
			continue
		}
		l.report("FedAvg, implicit: NDCG@10, mean over users", 0.8156, calibration, o.last("ndcg"))
		l.report("FedAvg, implicit: NDCG@10, mean over ratings", 0.8045, calibration, o.last("ndcg.rating"))
	}
	one, err := l.shared(ctx, "one user a client", "decoder", "explicit", films, l.Seed, 40, 0, 40)
	if err != nil {
		return err
	}
	words := 40 * 94.0 // ⌊0.1·943⌋ clients a round, whole models both ways
	ratio := words * 2 * 4 * 930322 / one.trained(40)
	l.require("one user a client: bytes of FedAvg to those of PersonalFR", 15.9, targets, ratio, ">=", 15.5)
	l.require("one user a client: bytes of FedAvg to those of PersonalFR", 15.9, targets, ratio, "<=", 16.3)
	l.report("one user a client, 40 rounds: RMSE", 1.51, calibration, one.last("rmse"))
	return l.classics(ctx, films, l.Seed, 100, 100)
}

func personalfrMedium(ctx context.Context, l *Lab) error {
	const rounds = 400
	joint, err := l.joint(ctx, "explicit", films, 100)
	if err != nil {
		return err
	}
	l.report("joint training: best RMSE of 100 epochs", 0.9435, calibration, joint.least("rmse"))
	l.report("joint training: RMSE as the authors average it", 0.9066, calibration, joint.least("rmse.batched"))
	p, err := l.shared(ctx, "personalfr", "decoder", "explicit", films, l.Seed, rounds, 100, 10)
	if err != nil {
		return err
	}
	f, err := l.shared(ctx, "fedavg", "all", "explicit", films, l.Seed, rounds, 100, 10)
	if err != nil {
		return err
	}
	references := [][2]float64{{1.046, 1.077}, {.995, 1.022}, {.973, .994}, {.969, .990}, {.967, .971}, {.959, .955}, {.960, .947}}
	for i, ref := range references {
		round := 50 * (i + 1)
		l.report(fmt.Sprintf("PersonalFR after %d rounds: RMSE", round), ref[0], calibration, p.at("rmse", round))
		l.report(fmt.Sprintf("FedAvg after %d rounds: RMSE", round), ref[1], calibration, f.at("rmse", round))
	}
	own, fed := p.last("rmse"), f.last("rmse")
	l.require("PersonalFR after 400 rounds: RMSE", .9588, "targets of the medium setting", own, "<=", .975)
	l.report("FedAvg after 400 rounds: RMSE", .9482, calibration, fed)
	l.require("PersonalFR: RMSE more than joint training's by", .0153, "targets of the medium setting", own-joint.least("rmse"), "<=", .03)
	l.require("PersonalFR: RMSE more than FedAvg's by", .0106, "targets of the medium setting", own-fed, "<=", .02)
	l.report("PersonalFR after 400 rounds: RMSE as the authors average it", none, "", p.last("rmse.batched"))
	pr, fr := p.below("rmse", 1), f.below("rmse", 1)
	l.report("PersonalFR: rounds to RMSE 1.0, by tens", none, "", pr)
	l.report("FedAvg: rounds to RMSE 1.0, by tens", none, "", fr)
	l.require("FedAvg: rounds to RMSE 1.0 more than PersonalFR by", none, "targets of the medium setting", fr-pr, ">=", 1)
	l.require("bytes to RMSE 1.0, FedAvg to PersonalFR", none, "targets of the medium setting", f.trained(int(fr))/p.trained(int(pr)), ">=", 5)
	budget, equal := f.trained(20), 0
	for round := 10; round <= rounds && p.trained(round) <= budget; round += 10 {
		equal = round
	}
	l.report("PersonalFR: rounds for the bytes of 20 rounds of FedAvg, by tens", none, "", float64(equal))
	l.require("RMSE less than FedAvg's for these bytes by", none, "targets of the medium setting", f.at("rmse", 20)-p.at("rmse", equal), ">=", .05)
	ji, err := l.joint(ctx, "implicit", films, 100)
	if err != nil {
		return err
	}
	l.report("joint training, implicit: best NDCG@10, mean over users", .8250, calibration, ji.most("ndcg"))
	l.report("joint training, implicit: best NDCG@10, mean over ratings", .8158, calibration, ji.most("ndcg.rating"))
	var ndcg [2]float64
	for k, share := range []string{"decoder", "all"} {
		o, err := l.shared(ctx, "implicit "+share, share, "implicit", films, l.Seed, rounds, 100, 50)
		if err != nil {
			return err
		}
		ndcg[k] = o.last("ndcg")
		name := []string{"PersonalFR", "FedAvg"}[k]
		l.report(name+", implicit, after 400 rounds: NDCG@10, mean over users", []float64{.8192, .8176}[k], calibration, ndcg[k])
		l.report(name+", implicit, after 400 rounds: NDCG@10, mean over ratings", []float64{.8071, .8063}[k], calibration, o.last("ndcg.rating"))
		l.report(name+", implicit, after 400 rounds: MAP@10, mean over ratings", none, "", o.last("map.rating"))
	}
	l.require("PersonalFR, implicit: NDCG@10 less than FedAvg's by", none, "targets of the medium setting", ndcg[1]-ndcg[0], "<=", .005)
	return l.classics(ctx, films, l.Seed, rounds, 100)
}

// personalfrPaper runs the settings of the authors' log on MovieLens 1M. Their tables are pictures that could not be read; the
// references are from their log.
func personalfrPaper(ctx context.Context, l *Lab) error {
	const data, source = "movielens-1m", "the authors' log, test RMSE averaged over batches"
	joint, err := l.joint(ctx, "explicit", data, 100)
	if err != nil {
		return err
	}
	l.report("joint training: RMSE", .8713, source, joint.least("rmse.batched"))
	for _, c := range []struct {
		clients  int
		own, fed float64
	}{{100, .8614, .8637}, {300, .8601, .8627}, {0, none, none}} {
		name := fmt.Sprintf("%d clients", c.clients)
		if c.clients == 0 {
			name = "one user a client"
		}
		p, err := l.shared(ctx, "personalfr "+name, "decoder", "explicit", data, l.Seed, 800, c.clients, 20)
		if err != nil {
			return err
		}
		f, err := l.shared(ctx, "fedavg "+name, "all", "explicit", data, l.Seed, 800, c.clients, 20)
		if err != nil {
			return err
		}
		l.report(name+", PersonalFR: RMSE", c.own, source, p.last("rmse.batched"))
		l.report(name+", FedAvg: RMSE", c.fed, source, f.last("rmse.batched"))
		l.report(name+": bytes of FedAvg to those of PersonalFR", none, "", f.trained(800)/p.trained(800))
		if c.clients == 100 {
			l.require("100 clients, PersonalFR: RMSE", .8614, "targets", p.last("rmse.batched"), "<=", .872)
			l.require("100 clients, PersonalFR: RMSE more than FedAvg's by", none, "targets", p.last("rmse.batched")-f.last("rmse.batched"), "<=", .002)
		}
	}
	for _, share := range []string{"decoder", "all"} {
		o, err := l.shared(ctx, "implicit "+share, share, "implicit", data, l.Seed, 800, 100, 20)
		if err != nil {
			return err
		}
		l.report("100 clients, implicit, "+map[string]string{"decoder": "PersonalFR", "all": "FedAvg"}[share]+": MAP@10",
			map[string]float64{"decoder": .8287, "all": .8451}[share], source, o.last("map.rating"))
	}
	return l.classics(ctx, data, l.Seed, 800, 100)
}
