// Package semifl is SemiFL: a server with a few labelled examples and members with none learn one classifier together
// (Diao, Ding, Tarokh, NeurIPS 2022, arXiv 2106.01432).
//
// Pseudo-labels that a drifting local model makes anew for every batch spoil themselves. SemiFL alternates instead. In a round
//
//	(μ, σ²) ← batch norm statistics of W over all data, as they are             [phase "prepare", "stats"]
//	members m of the cohort, with W, μ, σ² as they received them:               [phase "train"]
//	    p_i = softmax f(α(x_i); W);  ŷ_i = argmax p_i;  i is kept if max p_i ≥ τ    once for the whole round
//	    nothing kept: m abstains
//	    fix: the kept examples.  mix: as many draws, with replacement, from all examples of m with their ŷ
//	    for every epoch, batches of both side by side, λ' ~ Beta(a, a) a batch:
//	        L = CE(f(A(x_fix)), ŷ_fix) + λ·[λ'·CE(f(x̃), ŷ_fix) + (1−λ')·CE(f(x̃), ŷ_mix)],  x̃ = λ'·α(x_fix) + (1−λ')·α(x_mix)
//	server: g = W − mean of the W_m;  v ← β·v + g;  W ← W − v                   momentum of the server, v = 0 at first
//	server: E_s epochs of SGD on its labelled examples, weakly augmented        [phase "server"]
//
// α is the weak augmentation of the problem (crops, mirroring), A the same and then [augment.Policy] on bytes. The three passes of a
// step have batch statistics of their own. Every member, and the server, keeps its optimiser's momentum from round to round.
//
// Members' own labels, if they have any, are counted and never learned from: see [Config.Measures].
//
// The same package holds what SemiFL is compared to ([Config.Loss], [Config.Server], [Config.Groups], [Config.Decomposed]): its
// ablations, FedAvg+FixMatch, FedSGD+FixMatch, supervised federated learning, FedRGD (group averaging, in the simple form of the
// authors' code) and FedMatch (decomposed weights only: without helpers and consistency between members).
//
// Where this differs from the paper and its code: sums are exact, so that they depend neither on the order of members nor on
// threads; statistics are sums over members' batches, in the order of each member's examples, and only then divided; FedRGD's
// groups are drawn for all members of the roster at once, since the server does not know who will be active, and each group is
// normalised by its own size, also if the two differ. With levels ([Config.Mode]) members train HeteroFL's leading slices with its
// Scaler, and label with the statistics of members of their own level and of the server.
package semifl

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/dataset/augment"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/heterofl"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/weights"
)

// Loss is what members learn from.
type Loss string

// The losses.
const (
	FixMix   Loss = "fix-mix"   // SemiFL: labels made once a round, fix and mix loss
	Fix      Loss = "fix"       // labels made once a round, without the mix loss
	FixBatch Loss = "fix-batch" // FixMatch: labels made for every batch by the model under training
	Labelled Loss = "sup"       // the members' own labels: supervised federated learning
)

// Teaching is what the server does with its labels.
type Teaching string

// The ways of teaching.
const (
	Alternate Teaching = "alternate" // SemiFL: it trains the aggregated model
	// Parallel has it train the model that it sends out, at the same time as the members: W̄ = ½W_s + ½·mean of the active W_m, or
	// W_s if nobody was active, and the momentum step goes from the old model: g = W − W̄.
	Parallel Teaching = "parallel"
	// ParallelReference is Parallel with the momentum step of the authors' code, which goes from the server's own model: g = W_s − W̄,
	// W ← W_s − v. Momentum then takes back what the server has learned; it is there to reproduce published curves.
	ParallelReference Teaching = "parallel-reference"
)

// Config is what SemiFL adds to a problem.
type Config struct {
	Loss      Loss           // "" is FixMix
	Threshold float64        // τ; above 1 nobody is ever sure
	Lambda    float64        // λ, the weight of the mix loss
	Beta      float64        // a of Beta(a, a)
	Momentum  float64        // β of the server's momentum step
	Strong    augment.Policy // completed for the images, see [augment.Policy.For]
	Clean     bool           // label images as they are, not weakly augmented

	Server       Teaching // "" is Alternate
	First        bool     // the server trains at the beginning of a round instead of at its end
	ServerEpochs float64  // E_s; below 1 that part of one epoch's batches; 0 is no training
	ServerBatch  int      // 0: 250 if the server has more than 1,000 examples, else 10
	Epochs       float64  // of members; below 1 that part of one epoch's batches; 0 is the problem's

	Forget     bool // members' optimisers start afresh every round
	WeighKept  bool // members weigh by the examples that they kept, instead of alike
	DropSingle bool // leave out batches of one example

	StatBatch   int // batch of statistics; 0: 250
	StatSamples int // most examples of a member, the first ones, that statistics are computed on; 0: all

	Groups     bool // FedRGD: average within two groups, each with the server's model, and then both
	Decomposed bool // FedMatch: kernels of convolutions are σ + φ; the server trains σ, members φ

	Mode    heterofl.Mode // levels of members; nil: everybody trains the whole model
	Dynamic bool          // redraw levels every round
}

// Defaults returns SemiFL as published.
func Defaults() Config {
	return Config{Loss: FixMix, Threshold: 0.95, Lambda: 1, Beta: 0.75, Momentum: 0.5, Strong: augment.Policy{Draws: 2}, Server: Alternate,
		ServerEpochs: 5, StatBatch: 250}
}

// Validate returns an error that begins with the option that cannot be.
func (c Config) Validate() error {
	switch {
	case c.Loss != FixMix && c.Loss != Fix && c.Loss != FixBatch && c.Loss != Labelled:
		return fmt.Errorf("loss: %q, expected fix-mix, fix, fix-batch or sup", c.Loss)
	case !(c.Threshold >= 0) || math.IsInf(c.Threshold, 0):
		return fmt.Errorf("threshold: %g, expected a number of 0 or more", c.Threshold)
	case !(c.Lambda >= 0) || math.IsInf(c.Lambda, 0):
		return fmt.Errorf("lambda: %g, expected a number of 0 or more", c.Lambda)
	case !(c.Beta > 0) || math.IsInf(c.Beta, 0):
		return fmt.Errorf("beta: %g, expected a number above 0", c.Beta)
	case !(c.Momentum >= 0 && c.Momentum < 1):
		return fmt.Errorf("momentum: %g, expected a number in [0, 1)", c.Momentum)
	case c.Server != Alternate && c.Server != Parallel && c.Server != ParallelReference:
		return fmt.Errorf("server: %q, expected alternate, parallel or parallel-reference", c.Server)
	case c.First && c.Server != Alternate:
		return fmt.Errorf("server_first: true, and a server that trains in parallel is neither first nor last")
	case !(c.ServerEpochs >= 0) || math.IsInf(c.ServerEpochs, 0):
		return fmt.Errorf("server_epochs: %g, expected 0 or more", c.ServerEpochs)
	case c.ServerBatch < 0:
		return fmt.Errorf("server_batch: %d, expected 0 or more", c.ServerBatch)
	case !(c.Epochs >= 0) || math.IsInf(c.Epochs, 0):
		return fmt.Errorf("epochs: %g, expected 0 or more", c.Epochs)
	case c.StatBatch < 0:
		return fmt.Errorf("statistics_batch: %d, expected 0 or more", c.StatBatch)
	case c.StatSamples < 0:
		return fmt.Errorf("statistics_samples: %d, expected 0 or more", c.StatSamples)
	case c.Groups && c.Server == Alternate:
		return errors.New("groups: true, and both groups are averaged with the server's model, which needs server: parallel")
	case c.Decomposed && (c.Server == Alternate || c.Loss != FixBatch || c.Groups || c.Mode != nil):
		return errors.New("decomposed: true, which needs server: parallel, loss: fix-batch and neither groups nor mode")
	}
	if err := c.Strong.Validate(); err != nil {
		return fmt.Errorf("strong: %w", err)
	}
	return nil
}

// Algorithm is SemiFL and its relatives.
type Algorithm struct {
	federated.Cycle
	Config
	global *nn.Model
}

// New returns SemiFL on a problem.
func New(p *federated.Problem, c Config) (*Algorithm, error) {
	if err := c.Validate(); err != nil {
		return nil, err
	}
	rate := 1.0
	if c.Mode != nil {
		rate = c.Mode.Global().Rate
	}
	a := &Algorithm{Cycle: federated.Cycle{Problem: p, Rate: rate}, Config: c}
	for _, l := range append(heterofl.Mode{{Name: "", Rate: rate}}, c.Mode...) {
		m, err := p.Build(l.Rate)
		switch {
		case err != nil:
			return nil, fmt.Errorf("mode: level %s: %w", l.Name, err)
		case a.global == nil:
			a.global = m
		}
	}
	if in := a.global.Input; len(in) == 3 {
		a.Strong = a.Strong.For(in[2])
	}
	switch {
	case a.global.Tokens || len(a.global.Noise) > 0:
		return nil, fmt.Errorf("semifl: %s reads text or drops activations, and pseudo-labels are for images and features", a.global.Name)
	case a.global.Classes < 2:
		return nil, errors.New("semifl: the model predicts a number, and pseudo-labels are for classes")
	}
	return a, nil
}

// NeedsLabels reports whether the server must have labelled examples that no member has.
func (a *Algorithm) NeedsLabels() bool { return a.ServerEpochs > 0 }

// Measures implements [federated.Measurer]: how many examples the active members labelled and kept, and, if they have labels to
// compare with, how many of either are right.
func (a *Algorithm) Measures() []string {
	if a.Loss == Labelled {
		return nil
	}
	return []string{labelled, kept, known, right, keptKnown, keptRight}
}

// Check implements [federated.Algorithm].
func (a *Algorithm) Check(srv federated.Server) error {
	if err := a.Cycle.Check(srv); err != nil {
		return err
	}
	if n := srv.Population.Len(); a.Mode != nil && !a.Dynamic && n < shares(a.Mode) {
		return fmt.Errorf("semifl: mode %s deals %d shares to %d members; use at least so many members or dynamic levels", a.Mode, shares(a.Mode), n)
	}
	d := srv.Train.Data
	switch {
	case a.NeedsLabels() && srv.Train.Len() == 0:
		return errors.New("semifl: the server has no labelled examples: give it some (partition.server in a simulation, data of the coordinator's own in a network), or set server_epochs to 0")
	case a.NeedsLabels() && d.Labels == nil:
		return fmt.Errorf("semifl: the server's data %s have no labels", d.Name)
	case a.Loss != Labelled && d != nil && a.Strong.Draws > 0 && !d.HasBytes(dataset.Skew{}):
		return fmt.Errorf("semifl: strong augmentation is for images of bytes, and data %s have shape %v: set strong.draws to 0", d.Name, d.Shape)
	}
	return nil
}

func shares(m heterofl.Mode) (n int) {
	for _, l := range m {
		n += l.Share
	}
	return n
}

// meta is what is kept beside tensors.
type meta struct {
	Seed    uint64  `json:"seed"`
	Members int     `json:"members"`
	Part    float64 `json:"part,omitempty"`  // of the server's model in the next mean, while it trains in parallel
	Best    float64 `json:"best,omitempty"`  // greatest accuracy of accepted labels so far
	Ratio   float64 `json:"ratio,omitempty"` // of labels accepted in the last round
}

func (a *Algorithm) meta(s federated.State) (m meta, err error) {
	if err := json.Unmarshal(s.Meta, &m); err != nil {
		return m, fmt.Errorf("state: %w", err)
	}
	return m, nil
}

// Init implements [federated.Algorithm].
func (a *Algorithm) Init(_ context.Context, srv federated.Server) (federated.State, error) {
	w, err := a.Initial(srv.Seed, a.Rate)
	if err != nil {
		return federated.State{}, err
	}
	m, err := json.Marshal(meta{Seed: srv.Seed, Members: srv.Population.Len()})
	s := federated.State{Sets: map[string]weights.Set{"w": w}, Meta: m}
	if a.Momentum > 0 && !a.Decomposed {
		s.Sets["v"] = w.Zeros()
	}
	if a.Decomposed {
		s.Sets["phi"], s.Sets["sigma"] = a.halves(w)
	}
	return s, err
}

// relabels reports whether members label with the global model, which takes statistics where there is static batch norm.
func (a *Algorithm) relabels() bool { return a.Loss == Fix || a.Loss == FixMix }

// Next implements [federated.Algorithm].
func (a *Algorithm) Next(s federated.State) (federated.Phase, bool) {
	phases := a.phases(s)
	if s.Step >= len(phases) {
		return federated.Phase{}, false
	}
	return phases[s.Step], true
}

// phases are those of a round. The statistics that members label with are those of the last evaluation, if nothing has changed
// since; before the first round, and where the server trains first, they are computed for the purpose.
func (a *Algorithm) phases(s federated.State) []federated.Phase {
	train := federated.Phase{Name: "train", Who: a.Select, Always: true,
		Folds: []federated.Fold{{Name: "w", Like: a.held(s), Indexed: a.Mode != nil, Counts: a.Mode != nil}}}
	server := federated.Phase{Name: "server"}
	normed := len(a.global.Norms) > 0
	prepare := normed && a.relabels() && (a.First || s.Round == 0)
	var phases []federated.Phase
	add := func(wanted bool, p federated.Phase) {
		if wanted {
			phases = append(phases, p)
		}
	}
	add(a.First && a.NeedsLabels(), server)
	add(prepare, a.statistics("prepare"))
	phases = append(phases, train)
	add(!a.First && (a.NeedsLabels() || a.Server != Alternate), server)
	due := a.Due(s.Round)
	add(normed && (due || a.relabels() && !a.First), a.statistics("stats"))
	for k := 0; due; k++ {
		p, ok := a.After(s, k)
		if !ok {
			break
		}
		add(p.Name != "stats", p)
	}
	return phases
}

// held is the set that members train.
func (a *Algorithm) held(s federated.State) weights.Set {
	if a.Decomposed {
		return s.Sets["phi"]
	}
	return s.Sets["w"]
}

// task tells a member its level.
type task struct {
	Level string  `json:"level,omitempty"`
	Rate  float64 `json:"rate"`
}

// level returns a member's level in a round; it has no name where all have the same.
func (a *Algorithm) level(at meta, round int, m federated.Member) task {
	var l heterofl.Level
	switch {
	case a.Mode == nil:
		return task{Rate: a.Rate}
	case a.Dynamic:
		l = a.Mode[a.Mode.Dynamic(at.Seed, round, m)]
	default:
		l = a.Mode[a.Mode.Fixed(m.Index, at.Members)]
	}
	return task{l.Name, l.Rate}
}

// Task implements [federated.Algorithm].
func (a *Algorithm) Task(s federated.State, p federated.Phase, m federated.Member) (federated.Task, error) {
	if p.Name == "eval" {
		return a.Cycle.Task(s, p, m)
	}
	at, err := a.meta(s)
	if err != nil {
		return federated.Task{}, err
	}
	l := a.level(at, s.Round, m)
	params, err := json.Marshal(l)
	if err != nil {
		return federated.Task{}, err
	}
	t := federated.Task{Tag: l.Level, Params: params, Sets: map[string]weights.Set{"w": a.slice(s.Sets["w"], l.Rate)}}
	if p.Name != "train" {
		if a.Mode != nil {
			t.Group, t.Index = l.Level, a.statIndex(l.Rate)
		}
		return t, nil
	}
	if a.Mode != nil {
		t.Index = a.index(l.Rate)
	}
	if a.Decomposed {
		t.Sets["w"], t.Sets["sigma"] = s.Sets["phi"], s.Sets["sigma"]
	}
	if a.Groups {
		t.Group = a.group(at, s.Round, m)
	}
	if stats, ok := s.Sets[statsOf(l.Level, a.Mode)]; ok && a.relabels() {
		t.Sets["stats"] = stats
	}
	return t, nil
}

// index is the part of the model that a level holds: HeteroFL's leading slice.
func (a *Algorithm) index(rate float64) weights.Index { return nn.Index(a.global, rate, nn.Leading) }

func (a *Algorithm) slice(w weights.Set, rate float64) weights.Set {
	if rate == a.Rate {
		return w
	}
	return a.index(rate).Slice(w)
}

// Client implements [federated.Algorithm].
func (a *Algorithm) Client() federated.Client { return client{a} }

// Finish implements [federated.Algorithm].
func (a *Algorithm) Finish(ctx context.Context, srv federated.Server, s federated.State, p federated.Phase, sums map[string]*federated.Sum, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	switch p.Name {
	case "prepare", "stats":
		return a.gather(ctx, srv, s, sums)
	case "train":
		return a.aggregate(srv, s, sums, roll)
	case "server":
		return a.teach(ctx, srv, s)
	}
	return a.Cycle.Finish(ctx, srv, s, p, sums, roll)
}
