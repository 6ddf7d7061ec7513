package reproduce

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"sync"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/selffl"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/weights"
	"gonum.org/v1/gonum/stat"
)

func selfflExperiment() Experiment {
	return Experiment{
		Name:      "self-fl",
		Summary:   "Self-FL: personal models whose distance from the others' follows from measured uncertainty",
		Synthetic: true,
		Scales: map[Scale]Study{
			Small: {"the location model in closed form, and softmax clients from alike to unlike, without tuning", "3 minutes on 2 cores", selfflSmall},
			Medium: {"MNIST, 20 clients of 2 classes; Fashion-MNIST, 50 clients, from unlike to alike and of unequal sizes; against tuned rivals",
				"half an hour on 2 cores", selfflMedium},
			Paper: {"MNIST, 20 clients of 2 classes, 5 of them in each of 800 rounds; CIFAR-10, 100 clients of 2 classes", "a day on 2 cores; resumable", selfflPaper},
		},
	}
}

const selfflSource = "closed form of the model of arXiv 2204.08069"

// selfflSmall checks the closed forms by drawing, and what the whole method makes of softmax clients.
func selfflSmall(ctx context.Context, l *Lab) error {
	if l.Only == "" {
		l.plugIn(200)
	}
	return l.softmaxClients(ctx)
}

// plugIn draws federations of fifty clients of 5 to 200 examples in twenty dimensions and compares the posterior means with
// estimated variances to what is best, to staying alone and to one model.
func (l *Lab) plugIn(draws int) {
	y := dataset.TwoLevel{Clients: 50, Features: 20, Sizes: []int{5, 200}}
	v := make([]float64, y.Clients)
	var total, squares, alone float64
	for m := range v {
		n := float64(y.Size(m))
		v[m] = 1 / n
		total += n
		squares += n * n
		alone += v[m] / float64(y.Clients)
	}
	for _, c := range []struct{ between, oracle, sim float64 }{{.01, .00752727, .00757}, {.1, .02906503, .02919}, {1, .04940047, .04947}, {10, .05390594, .05400}} {
		one := c.between*(1+squares/total/total) + 1/total
		for m := range v {
			one -= c.between * 2 * float64(y.Size(m)) / total / float64(y.Clients)
		}
		var plug, naive, ratio float64
		for i := range draws {
			d := drawLocation(rng.New(l.Seed, i, "", "self-fl"), y, c.between)
			s := must(selffl.Estimate(selffl.DerSimonianLaird, d.estimates, d.variances))
			ratio += s / c.between / float64(draws)
			plug += d.personal(s) / float64(draws)
			naive += d.personal(must(selffl.Estimate(selffl.Naive, d.estimates, d.variances))) / float64(draws)
		}
		at := fmt.Sprintf("location model, σ_0² = %g: ", c.between)
		l.report(at+"error alone", .05447517, selfflSource, alone)
		l.report(at+"error of one model for all", none, selfflSource, one)
		l.require(at+"error with estimated variances over the least possible", c.sim/c.oracle, selfflSource, plug/c.oracle, "<=", 1.02)
		l.require(at+"error with estimated variances over staying alone", none, selfflSource, plug/alone, "<=", 1)
		l.require(at+"error with estimated variances over one model for all", none, selfflSource, plug/one, "<=", 1)
		l.require(at+"estimated σ_0² over the true one, off 1", none, selfflSource, math.Abs(ratio-1), "<=", 0.04)
		if c.between == .01 {
			l.require(at+"error if the clients' own variances are not taken off, over one model for all", .01426/.01036636, selfflSource, naive/one, ">=", 1)
		}
	}
}

// located is a drawn federation of the location model.
type located struct {
	estimates, truth [][]float64
	variances        []float64
}

func drawLocation(r *rng.Stream, y dataset.TwoLevel, between float64) (d located) {
	common := make([]float64, y.Features)
	for j := range common {
		common[j] = r.NormFloat64()
	}
	for m := range y.Clients {
		n := y.Size(m)
		mean, own := make([]float64, y.Features), make([]float64, y.Features)
		var within float64
		for j := range mean {
			own[j] = common[j] + math.Sqrt(between)*r.NormFloat64()
			var w, sum float64 // sum of squares around the mean, and sum
			for i := range n {
				x := own[j] + r.NormFloat64()
				off := x - sum/math.Max(1, float64(i))
				if i > 0 {
					w += off * off * float64(i) / float64(i+1)
				}
				sum += x
			}
			mean[j] = sum / float64(n)
			within += w / float64(n-1) / float64(n) / float64(y.Features)
		}
		d.estimates, d.truth, d.variances = append(d.estimates, mean), append(d.truth, own), append(d.variances, within)
	}
	return d
}

// personal is the mean squared error of the posterior means.
func (d located) personal(between float64) float64 {
	w, _ := selffl.Precisions(between, d.variances)
	column := make([]float64, len(w))
	var sum float64
	for j := range d.truth[0] {
		for m := range column {
			column[m] = d.estimates[m][j]
		}
		g := selffl.Global(column, w)
		for m := range column {
			e, _ := selffl.Posterior(column[m], d.variances[m], between, g, 0)
			sum += (e - d.truth[m][j]) * (e - d.truth[m][j])
		}
	}
	return sum / float64(len(w)*len(d.truth[0]))
}

func must(v float64, err error) float64 {
	if err != nil {
		panic(fmt.Sprintf("reproduce: %v", err)) // of drawn numbers
	}
	return v
}

// softmaxRecipe is twenty clients of 20 to 400 examples whose softmax models differ with variance s² an entry.
func softmaxRecipe(seed uint64, method string, s float64) (*recipe.Recipe, error) {
	r, err := recipe.Default(method)
	if err != nil {
		return nil, err
	}
	r.Seed = seed
	r.Data = dataset.Spec{Name: "two-level-softmax", Between: s * s}
	if s == 0 {
		r.Data.Between = -1
	}
	r.Partition = dataset.Scheme{Name: "natural"}
	r.Model = recipe.Model{Name: "linear"}
	r.Rounds = 30
	r.Round.Fraction = 1
	r.Train = recipe.Train{Steps: 150, Batch: 20, Optimizer: recipe.Optimizer{Name: "sgd", Rate: 0.1}, Schedule: recipe.Schedule{Kind: "constant"}}
	r.Evaluate = recipe.Evaluate{Every: 10, Batch: 200, Clients: true, Statistics: "clients"}
	return r, nil
}

// softmaxClients runs the same setting of Self-FL on clients from alike to unlike, beside its rivals.
func (l *Lab) softmaxClients(ctx context.Context) error {
	const source = "simulation of the same setting, 2 seeds; accuracies % of clients' own models"
	type reference struct{ s, local, fedavg, warm, cold, bare, literal float64 }
	for _, ref := range []reference{
		{0, 60.4, 79.2, 74.5, 77.4, 58.6, 68.5}, {.5, 59.2, 60.2, 69.9, 68.1, 47.9, 60.0},
		{1, 57.5, 41.7, 62.6, 58.9, 36.2, 50.4}, {3, 58.0, 20.3, 56.9, 50.8, 22.8, 43.5},
	} {
		got := map[string]float64{}
		for _, m := range []struct {
			name, method, metric string
			options              selffl.Options
			reference            float64
		}{
			{"local only", "local", "accuracy.personal.mean", selffl.Options{}, ref.local},
			{"FedAvg", "fedavg", "accuracy.local.mean", selffl.Options{}, ref.fedavg},
			{"warm", "selffl", "accuracy.personal.mean", selffl.Options{}, ref.warm},
			{"cold", "selffl", "accuracy.personal.mean", selffl.Options{Start: selffl.Cold}, ref.cold},
			{"cold, without un-shrinking", "selffl", "accuracy.personal.mean", selffl.Options{Start: selffl.Cold, Unshrink: "off"}, ref.bare},
			{"selffl-paper", "selffl", "accuracy.personal.mean", selffl.Options{Preset: "selffl-paper"}, ref.literal},
		} {
			var sum, steps, end float64
			const seeds = 2
			for seed := range uint64(seeds) {
				r, err := softmaxRecipe(l.Seed+seed, m.method, ref.s)
				if err != nil {
					return err
				}
				if o, ok := r.Options.(*selffl.Options); ok {
					*o = m.options
					o.Preset, o.Most = nonempty(o.Preset, "selffl"), 600
				}
				o, err := l.run(ctx, fmt.Sprintf("softmax %g %s %d", ref.s, m.name, seed), r)
				if err != nil {
					return err
				}
				sum += o.last(m.metric) / seeds
				steps += o.average("steps.mean") / seeds
				end += o.last("steps.mean") / seeds
			}
			got[m.name], got[m.name+" end"] = sum, end
			l.report(fmt.Sprintf("softmax clients, s = %g, %s: accuracy %%", ref.s, m.name), m.reference, source, sum)
			if m.method == "selffl" {
				l.report(fmt.Sprintf("softmax clients, s = %g, %s: steps a round, over all rounds", ref.s, m.name), none, source, steps)
			}
		}
		best := math.Max(got["local only"], got["FedAvg"])
		ahead := map[float64]float64{0: -5, .5: 7, 1: 3, 3: -5}[ref.s]
		const tolerance = 1.5
		at := fmt.Sprintf("softmax clients, s = %g: ", ref.s)
		l.require(at+"Self-FL ahead of the better of FedAvg and local only, points", ahead, source, got["warm"]-best, ">=", ahead-tolerance)
		if ref.s == 0 {
			l.require(at+"with a cold start, points", -3, source, got["cold"]-best, ">=", -3-tolerance)
		}
		l.require(at+"what un-shrinking is worth, points", ref.cold-ref.bare, source, got["cold"]-got["cold, without un-shrinking"], ">=", 5-tolerance)
		l.require(at+"steps of the last round without un-shrinking", none, source, got["cold, without un-shrinking end"], "<=", 15)
	}
	return nil
}

func nonempty(s, other string) string {
	if s == "" {
		return other
	}
	return s
}

// average returns the mean of a metric over the rounds.
func (o outcome) average(name string) float64 {
	p := o.series[name]
	var sum float64
	for _, x := range p {
		sum += x.Value
	}
	return sum / float64(len(p))
}

// mnistPersonal is twenty clients of two digits each.
func mnistPersonal(seed uint64, method string, model recipe.Model) (*recipe.Recipe, error) {
	r, err := recipe.Default(method)
	if err != nil {
		return nil, err
	}
	r.Seed = seed
	r.Data = dataset.Spec{Name: "mnist", Train: 6000}
	r.Partition = dataset.Scheme{Name: "classes", Clients: 20, PerClient: 2}
	r.Model = model
	r.Rounds = 100
	r.Round.Fraction = 1
	r.Train = recipe.Train{Steps: 20, Batch: 20, Optimizer: recipe.Optimizer{Name: "sgd", Rate: 0.02}, Schedule: recipe.Schedule{Kind: "constant"}}
	r.Evaluate = recipe.Evaluate{Every: 20, Batch: 250, Clients: true, Statistics: "clients"}
	return r, nil
}

// rivals are the methods that Self-FL is compared with; those without a model of the clients' own use the global one.
var rivals = []struct {
	name, method, metric string
	set                  []string
}{
	{"FedAvg", "fedavg", "accuracy.local", nil},
	{"local only", "local", "accuracy.personal", nil},
	{"FedAvg + fine-tuning", "finetune", "accuracy.personal", nil},
	{"Ditto 0.1", "ditto", "accuracy.personal", []string{"options.lambda=0.1"}},
	{"Ditto 1", "ditto", "accuracy.personal", []string{"options.lambda=1"}},
}

// changed returns a recipe with fields set as --set does.
func changed(r *recipe.Recipe, set []string) (*recipe.Recipe, error) {
	return recipe.Parse("study", r.YAML(), set...)
}

func selfflMedium(ctx context.Context, l *Lab) error {
	if err := l.twoDigits(ctx); err != nil {
		return err
	}
	if err := l.clothes(ctx); err != nil {
		return err
	}
	return l.gains(ctx)
}

// twoDigits compares on clients of two digits each.
func (l *Lab) twoDigits(ctx context.Context) error {
	for _, model := range []recipe.Model{{Name: "linear"}, {Name: "mlp", Config: nn.Config{Hidden: []int{100}}}} {
		best, fedavg := 0.0, 0.0
		one := func(name, method, metric string, set []string) (float64, error) {
			r, err := mnistPersonal(l.Seed, method, model)
			if err != nil {
				return 0, err
			}
			if r, err = changed(r, set); err != nil {
				return 0, err
			}
			o, err := l.run(ctx, fmt.Sprintf("mnist %s %s", model.Name, name), r)
			acc := o.last(metric)
			l.report(fmt.Sprintf("MNIST, 20 clients of 2 digits, %s, 100 rounds, %s: accuracy %%", model.Name, name), none, "", acc)
			return acc, err
		}
		for _, m := range rivals {
			acc, err := one(m.name, m.method, m.metric, m.set)
			if err != nil {
				return err
			}
			if m.method == "fedavg" {
				fedavg = acc
			}
			best = math.Max(best, acc)
		}
		own, err := one("Self-FL", "selffl", "accuracy.personal", nil)
		if err != nil {
			return err
		}
		if _, err := one("Self-FL as published", "selffl", "accuracy.personal", []string{"options.preset=selffl-paper"}); err != nil {
			return err
		}
		at := fmt.Sprintf("MNIST, 2 digits a client, %s: Self-FL, untuned, ahead of ", model.Name)
		l.require(at+"the best of the others, points", none, "target", own-best, ">=", -0.5)
		l.require(at+"FedAvg, points", none, "target", own-fedavg, ">=", 3)
	}
	return nil
}

// clothes looks at how steps follow from how much clients differ.
func (l *Lab) clothes(ctx context.Context) error {
	previous := math.Inf(1)
	for _, alpha := range []float64{0.1, 0.5, 100} {
		run := func(method string) (outcome, error) {
			r, err := mnistPersonal(l.Seed, method, recipe.Model{Name: "linear"})
			if err != nil {
				return outcome{}, err
			}
			r.Data = dataset.Spec{Name: "fashion-mnist", Train: 10000}
			r.Partition = dataset.Scheme{Name: "dirichlet", Clients: 50, Alpha: alpha, MinSize: 10}
			r.Rounds, r.Evaluate.Every = 50, 25
			return l.run(ctx, fmt.Sprintf("fashion-mnist dirichlet %g %s", alpha, method), r)
		}
		own, err := run("selffl")
		if err != nil {
			return err
		}
		at := fmt.Sprintf("Fashion-MNIST, 50 clients, Dirichlet %g: ", alpha)
		for _, m := range rivals[:3] {
			o, err := run(m.method)
			if err != nil {
				return err
			}
			l.report(at+m.name+": accuracy %", none, "", o.last(m.metric))
		}
		l.report(at+"Self-FL: accuracy %", none, "", own.last("accuracy.personal"))
		l.report(at+"σ_0² in units of the mean v_m", none, "", own.last("variance.between")/own.last("variance.within"))
		steps := own.average("steps.mean")
		l.require(at+"Self-FL: steps a round, less than where clients differ more", none, "target", steps, "<=", math.Min(previous, 1e9))
		previous = steps
	}
	return nil
}

// gains compares Self-FL with training alone, client by client, where clients have unequal amounts of the same data: those with
// little should gain more.
func (l *Lab) gains(ctx context.Context) error {
	perClient := func(method string) (map[string]float64, *dataset.Dealt, error) {
		r, err := mnistPersonal(l.Seed, method, recipe.Model{Name: "linear"})
		if err != nil {
			return nil, nil, err
		}
		r.Data = dataset.Spec{Name: "fashion-mnist", Train: 10000}
		r.Partition = dataset.Scheme{Name: "quantity", Clients: 50, Law: "lognormal", Sigma: 1, MinSize: 10}
		r.Rounds, r.Evaluate.Every = 50, 50
		return l.perClient(ctx, "fashion-mnist quantity "+method, r)
	}
	own, dealt, err := perClient("selffl")
	if err != nil {
		return err
	}
	alone, _, err := perClient("local")
	if err != nil || l.Only != "" {
		return err
	}
	var sizes, gain []float64
	var mean float64
	for k := range dealt.Train.Clients() {
		name := dealt.Train.Name(k)
		if a, ok := alone[name]; ok {
			sizes, gain = append(sizes, float64(dealt.Train.Size(k))), append(gain, own[name]-a)
			mean += own[name] - a
		}
	}
	const at = "Fashion-MNIST, 50 clients of unequal sizes: "
	l.report(at+"Self-FL's mean gain over local only, points", none, "", 100*mean/float64(len(gain)))
	l.require(at+"rank correlation of a client's examples and its gain over local only", none, "target", spearman(sizes, gain), "<=", -0.3)
	return nil
}

// spearman is the rank correlation; ties have their mean rank.
func spearman(x, y []float64) float64 { return stat.Correlation(ranks(x), ranks(y), nil) }

func ranks(x []float64) []float64 {
	order := make([]int, len(x))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(x[a], x[b]) })
	out := make([]float64, len(x))
	for i := 0; i < len(order); {
		j := i
		for j < len(order) && x[order[j]] == x[order[i]] {
			j++
		}
		for k := i; k < j; k++ {
			out[order[k]] = float64(i+j-1) / 2
		}
		i = j
	}
	return out
}

// tally is an algorithm that notes how well every member's own model did when it was tested last.
type tally struct {
	federated.Algorithm
	mu       sync.Mutex
	accuracy map[string]float64
}

func (t *tally) Client() federated.Client { return tallyClient{t.Algorithm.Client(), t} }

type tallyClient struct {
	federated.Client
	to *tally
}

func (c tallyClient) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	r, err := c.Client.Run(ctx, at, t, keep)
	if n := r.Scalars["examples"]; err == nil && t.Phase == "eval" && n > 0 {
		c.to.mu.Lock()
		c.to.accuracy[at.Member.Name] = r.Scalars["personal.correct"] / n
		c.to.mu.Unlock()
	}
	return r, err
}

// perClient runs a recipe in memory and returns the accuracy of every client's own model at its end.
func (l *Lab) perClient(ctx context.Context, name string, r *recipe.Recipe) (map[string]float64, *dataset.Dealt, error) {
	l.names = append(l.names, name)
	if l.Only != "" && l.Only != name {
		return nil, nil, nil
	}
	if l.Say != nil {
		l.Say(name)
	}
	plan, err := r.Plan(ctx, l.Data)
	if err != nil {
		return nil, nil, err
	}
	job, err := plan.Job(l.Engine)
	if err != nil {
		return nil, nil, err
	}
	t := &tally{Algorithm: job.Algorithm, accuracy: map[string]float64{}}
	job.Algorithm, job.Config.Stop = t, l.Stop
	if l.Watch != nil {
		job.Observer = l.Watch(name)
	}
	_, err = job.Run(ctx)
	return t.accuracy, plan.Dealt, err
}

// selfflPaper runs the settings of the methods that the paper compares with.
func selfflPaper(ctx context.Context, l *Lab) error {
	for _, m := range append(rivals, struct {
		name, method, metric string
		set                  []string
	}{"Self-FL", "selffl", "accuracy.personal", nil}) {
		r, err := mnistPersonal(l.Seed, m.method, recipe.Model{Name: "mlp", Config: nn.Config{Hidden: []int{100}}})
		if err != nil {
			return err
		}
		r.Data.Train, r.Rounds, r.Round.Fraction, r.Train.Optimizer.Rate = 0, 800, 0.25, 0.005
		if r, err = changed(r, m.set); err != nil {
			return err
		}
		o, err := l.run(ctx, "mnist 800 rounds "+m.name, r)
		if err != nil {
			return err
		}
		l.report("MNIST, 20 clients of 2 digits, MLP, 800 rounds of 5, "+m.name+": accuracy %", none, "setting of CharlieDinh/pFedMe", o.last(m.metric))
		r.Data = dataset.Spec{Name: "cifar10"}
		r.Partition = dataset.Scheme{Name: "classes", Clients: 100, PerClient: 2}
		r.Model = recipe.Model{Name: "lenet", Config: nn.Config{Widths: []int{64, 64}, Hidden: []int{120, 64}}}
		r.Rounds, r.Round.Fraction, r.Train.Batch, r.Train.Steps, r.Train.Optimizer.Rate = 100, 0.1, 10, 50, 0.01
		if o, err = l.run(ctx, "cifar10 100 rounds "+m.name, r); err != nil {
			return err
		}
		l.report("CIFAR-10, 100 clients of 2 classes, 100 rounds of 10, "+m.name+": accuracy %", none, "setting of lgcollins/FedRep", o.last(m.metric))
	}
	return nil
}
