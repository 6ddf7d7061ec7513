package recipe

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/methods"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// Plan is a recipe with its data loaded and dealt and its model chosen: everything but an engine.
type Plan struct {
	Recipe  *Recipe
	Split   *dataset.Split
	Dealt   *dataset.Dealt
	Problem *federated.Problem
	Method  methods.Method
}

// Plan loads the data from the folder of real data sets (it may be empty), deals it and checks that model and method fit it.
// Errors are of the recipe, as those of [Recipe.Validate], or of the world.
func (r *Recipe) Plan(ctx context.Context, dataDir string) (*Plan, error) {
	p, err := r.plan(ctx, dataDir)
	return p, r.place(err)
}

func (r *Recipe) plan(ctx context.Context, dataDir string) (*Plan, error) {
	if err := r.Validate(); err != nil {
		return nil, err
	}
	m, err := methods.Find(r.Method)
	if err != nil {
		return nil, err
	}
	p := &Plan{Recipe: r, Method: m}
	if p.Split, p.Dealt, err = r.deal(ctx, dataDir); err != nil {
		return nil, err
	}
	if p.Problem, err = r.problem(p.Split.Train); err != nil {
		return nil, err
	}
	bare, err := r.bare(p.Problem)
	if err != nil {
		return nil, err
	}
	if err := r.labels(bare); err != nil {
		return nil, err
	}
	a, err := r.wrapped(bare)
	if err != nil {
		return nil, err
	}
	fleet := &simulation.Fleet{Split: p.Split, Dealt: p.Dealt, Seed: r.Seed}
	if err := a.Check(fleet.Server()); err != nil {
		return nil, unsuited(err)
	}
	return p, r.fits(ctx, a, fleet.Server())
}

// Deal loads the recipe's data and deals it to the clients.
func (r *Recipe) Deal(ctx context.Context, dataDir string) (*dataset.Split, *dataset.Dealt, error) {
	split, dealt, err := r.deal(ctx, dataDir)
	return split, dealt, r.place(err)
}

func (r *Recipe) deal(ctx context.Context, dataDir string) (*dataset.Split, *dataset.Dealt, error) {
	split, err := load(ctx, r.spec(dataDir))
	if err != nil {
		return nil, nil, err
	}
	dealt, err := r.Partition.Deal(split.Train, split.Test, r.Seed)
	if err != nil {
		return nil, nil, within("partition", r.Partition, err)
	}
	return split, dealt, nil
}

// MissingDataError tells that data is not where it is looked for.
type MissingDataError struct{ Err error }

func (e *MissingDataError) Error() string { return e.Err.Error() }
func (e *MissingDataError) Unwrap() error { return e.Err }

// load loads data; its errors are a [FieldError], or a [MissingDataError] within one.
func load(ctx context.Context, s dataset.Spec) (*dataset.Split, error) {
	split, err := dataset.Load(ctx, s)
	switch {
	case err == nil:
		return split, nil
	case ctx.Err() != nil:
		return nil, err
	case errors.Is(err, fs.ErrNotExist), !dataset.Drawn(s.Name) && s.Root == "" && s.Path == "":
		err = &MissingDataError{err}
	}
	return nil, &FieldError{Field: "data", Err: err}
}

// spec is the recipe's data in a folder of real data sets.
func (r *Recipe) spec(dataDir string) dataset.Spec {
	s := r.Data
	s.Root = dataDir
	if s.Seed == 0 {
		s.Seed = r.Seed
	}
	return s
}

// Algorithm returns the method on the plan's problem.
func (p *Plan) Algorithm() (federated.Algorithm, error) { return p.Recipe.algorithm(p.Problem) }

// Job returns the run of the plan on an engine.
func (p *Plan) Job(e *train.Engine) (*simulation.Job, error) {
	a, err := p.Algorithm()
	if err != nil {
		return nil, err
	}
	r := p.Recipe
	return &simulation.Job{
		Algorithm:  a,
		Fleet:      &simulation.Fleet{Split: p.Split, Dealt: p.Dealt, Engine: e, Seed: r.Seed},
		Config:     r.driven(),
		Conditions: r.Clients.simulation(),
		Workers:    r.Run.Workers,
	}, nil
}

// Engine makes the engine that the recipe asks for.
func (r *Recipe) Engine() (*train.Engine, backend.Info, error) {
	b, err := backend.New(r.Run.Engine, backend.Options{Threads: r.Run.Threads})
	if err != nil {
		return nil, backend.Info{}, r.place(&FieldError{Field: "run.engine", Err: err})
	}
	return train.NewEngine(b), backend.Describe(b), nil
}

func (r Round) pace() federated.Pace {
	return federated.Pace{Quorum: r.Quorum, Deadline: r.Deadline, Staleness: r.Staleness, Discount: r.Discount}
}

func (c Conditions) simulation() simulation.Conditions {
	return simulation.Conditions{Latency: c.Latency, Spread: c.Spread, Jitter: c.Jitter, Dropout: c.Dropout, Stall: c.Stall,
		Attack: simulation.Attack{Kind: c.Attack, Liars: c.Liars, Strength: c.Strength}}
}

// problem is what the recipe wants to be learned from data.
func (r *Recipe) problem(data *dataset.Examples) (*federated.Problem, error) {
	build, err := r.architecture(data)
	if err != nil {
		return nil, err
	}
	t := r.Train
	if t.Reflect && len(data.Shape) == 3 && t.Crop >= min(data.Shape[0], data.Shape[1]) {
		return nil, fieldf("train.crop", "%d, and images of %d×%d have no so many pixels to mirror at an edge", t.Crop, data.Shape[0], data.Shape[1])
	}
	p := &federated.Problem{
		Build: build, DType: weights.Float32, Rounds: r.Rounds,
		Select: federated.Selection{Fraction: r.Round.Fraction, RoundUp: r.Round.Up},
		Training: federated.Training{Epochs: t.Epochs, Steps: t.Steps, Batch: t.Batch, Optimizer: t.Optimizer.train(),
			Rate: t.rate(r.Rounds), Clip: t.Clip, Augment: dataset.Augment{CropPad: t.Crop, Reflect: t.Reflect, FlipH: t.Flip}, SkipSingles: t.SkipSingles},
		Measuring: federated.Measuring{Every: r.Evaluate.Every, Batch: r.Evaluate.Batch, Members: r.Evaluate.Clients,
			Pooled: r.Evaluate.Statistics == "pooled"},
	}
	if data.Labels == nil && !data.IsText() {
		p.Loss = train.MeanSquares
	}
	if r.Model.Name == "location" { // a row is its own target
		p.Loss, p.Target = train.MeanSquares, train.FromInput
	}
	if data.IsText() { // a masked language model: predict every token of a row of which some are hidden
		p.Target = train.FromInput
		p.Hide = hide(len(data.Classes))
	}
	if r.Model.From != "" {
		if p.Start, err = startFrom(r.Model.From); err != nil {
			return nil, &FieldError{Field: "model.from", Err: err}
		}
	}
	return p, nil
}

// architecture builds the recipe's model for the data.
func (r *Recipe) architecture(data *dataset.Examples) (nn.Builder, error) {
	c, err := r.config(data)
	if err != nil {
		return nil, err
	}
	build, err := nn.New(r.Model.Name, c)
	if err != nil {
		return nil, within("model", r.Model, err)
	}
	return build, nil
}

// config describes the recipe's model with inputs and outputs as the data has them.
func (r *Recipe) config(data *dataset.Examples) (nn.Config, error) {
	c := r.Model.Config
	if data.Rated() || r.Model.Name == "ars" {
		return r.recommender(c, data)
	}
	if r.Model.Name == "transformer" {
		if !data.IsText() {
			return c, fieldf("model.name", "a transformer reads text; data set %s has none", data.Name)
		}
		if c.Vocabulary == 0 {
			c.Vocabulary = len(data.Classes)
		}
		if c.Tokens == 0 {
			c.Tokens = data.Shape[0]
		}
		return c, nil
	}
	if data.IsText() {
		return c, fieldf("model.name", "data set %s is text, which takes a transformer, not a %s", data.Name, r.Model.Name)
	}
	if c.Input != nil && !slices.Equal(c.Input, data.Shape) {
		return c, fieldf("model.input", "%v, but examples of %s are %v", c.Input, data.Name, data.Shape)
	}
	c.Input = data.Shape
	if r.Model.Name == "location" {
		return c, nil
	}
	if data.Labels == nil && data.Targets == nil {
		return c, fieldf("model.name", "data set %s has neither labels nor numbers to predict, which a %s learns from; a model of such rows is location", data.Name, r.Model.Name)
	}
	switch {
	case c.Classes == 0 && data.Labels == nil:
		c.Classes = 1 // the rows have numbers to predict
	case c.Classes == 0:
		c.Classes = data.NumClasses()
	case c.Classes < data.NumClasses():
		return c, fieldf("model.classes", "%d, but data set %s has %d classes", c.Classes, data.Name, data.NumClasses())
	}
	return c, nil
}

// recommender describes a model of ratings: it reads and scores all items.
func (r *Recipe) recommender(c nn.Config, data *dataset.Examples) (nn.Config, error) {
	m, err := methods.Find(r.Method)
	switch {
	case err != nil:
		return c, &FieldError{Field: "method", Err: err}
	case data.Rated() && !m.Ratings():
		return c, clashf("method", "data.name", "data set %s is ratings, from which %s does not learn; use %s", data.Name, m.Name, strings.Join(onRatings(), " or "))
	case !data.Rated() && m.Ratings():
		return c, clashf("data.name", "method", "%s learns from ratings, and data set %s has none; use movielens-100k, movielens-1m, ratings or tastes", m.Name, data.Name)
	case !data.Rated():
		return c, fieldf("model.name", "ars is for ratings, and data set %s has none", data.Name)
	}
	n := len(data.Ratings.Items)
	if f, ok := r.Options.(interface{ Factors() int }); ok {
		if r.Model.Name != "linear" {
			return c, fieldf("model.name", "the model of %s is linear, from the factors of a user to scores of items, not %s", r.Method, r.Model.Name)
		}
		if c.Input != nil && !slices.Equal(c.Input, []int{f.Factors()}) || c.Classes != 0 && c.Classes != n {
			return c, fieldf("model.input", "%v, with %d outputs, but users have %d factors and data set %s has %d items; leave both out", c.Input, c.Classes, f.Factors(), data.Name, n)
		}
		c.Input, c.Classes = []int{f.Factors()}, n
		return c, nil
	}
	if r.Model.Name != "ars" {
		return c, fieldf("model.name", "data set %s is ratings, which take ars, not %s", data.Name, r.Model.Name)
	}
	if c.Input != nil && !slices.Equal(c.Input, []int{n}) || c.Classes != 0 && c.Classes != n {
		return c, fieldf("model.input", "%v, with %d outputs, but data set %s has %d items; leave both out", c.Input, c.Classes, data.Name, n)
	}
	c.Input, c.Classes = []int{n}, n
	return c, nil
}

// onRatings lists the methods that learn from ratings.
func onRatings() (names []string) {
	for _, m := range methods.All() {
		if m.Ratings() {
			names = append(names, m.Name)
		}
	}
	return names
}

// hide is what a masked language model does not see of a row; the mask follows the vocabulary.
func hide(vocabulary int) train.Hide { return train.Hide{Prob: 0.15, ID: int32(vocabulary)} }

// startFrom reads initial weights from a safetensors file, or the final model of a run.
func startFrom(path string) (*weights.Set, error) {
	st, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if st.IsDir() {
		m, err := simulation.Model(path, "final")
		if err != nil {
			return nil, err
		}
		return &m.Weights, nil
	}
	s, _, err := weights.ReadFile(path)
	if err != nil {
		return nil, err
	}
	if s.Len() == 0 {
		return nil, errors.New("the file holds no tensors")
	}
	return &s, nil
}

func (o Optimizer) train() train.Optimizer {
	betas := [2]float64{o.Beta1, o.Beta2}
	if o.Beta1 == 0 {
		betas[0] = 0.9
	}
	if o.Beta2 == 0 {
		betas[1] = 0.999
	}
	switch o.Name {
	case "adam":
		return train.Adam{Betas: betas, Eps: o.Epsilon, Decay: o.Decay}
	case "adamw":
		return train.AdamW{Betas: betas, Eps: o.Epsilon, Decay: o.Decay}
	}
	return train.SGD{Momentum: o.Momentum, Nesterov: o.Nesterov, Decay: o.Decay}
}

// rate is the learning rate by round.
func (t Train) rate(rounds int) train.Schedule {
	s, rate := t.Schedule, t.Optimizer.Rate
	switch s.Kind {
	case "step":
		return train.StepDecay{Rate: rate, Factor: s.Factor, Every: s.Every}
	case "multistep":
		return train.MultiStep{Rate: rate, Factor: s.Factor, Milestones: s.At}
	case "cosine":
		return train.Cosine{Rate: rate, Floor: s.Min, Period: max(1, rounds)}
	}
	return train.Constant(rate)
}
