// Package recipe reads what a user wants from a YAML file: data, partition, model, training, method. Every field is typed,
// defaulted and documented here; a wrong file is refused with file, line, column, what was expected and the nearest valid
// word, before anything is computed.
//
//	r, err := recipe.Load("mnist.yaml")   // or recipe.Default("heterofl")
//	fmt.Print(r.YAML())                   // resolved: every field with its value
//
// [Recipe.Plan] turns a recipe into what a simulation runs.
package recipe

import (
	"errors"
	"fmt"
	"math"
	"reflect"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/semifl"
	"github.com/cohort-learning/cohort/methods"
	"github.com/cohort-learning/cohort/nn"
)

// Version is the version of the recipe format. A recipe of a later one is refused.
const Version = 1

// Recipe is one run, completely described.
type Recipe struct {
	Version   int            `yaml:"version" doc:"Version of this format."`
	Name      string         `yaml:"name,omitempty" doc:"Your name for the run; shown in lists and reports."`
	Method    string         `yaml:"method" doc:"What learns together, see \"cohort methods\"."`
	Seed      uint64         `yaml:"seed" doc:"Seed of every random choice: data, partition, initial weights, selection, batches."`
	Rounds    int            `yaml:"rounds" doc:"Rounds of the run."`
	Data      dataset.Spec   `yaml:"data" doc:"What is learned from, see \"cohort datasets\"."`
	Partition dataset.Scheme `yaml:"partition" doc:"How the data is dealt to the clients."`
	Model     Model          `yaml:"model" doc:"The architecture."`
	Train     Train          `yaml:"train" doc:"How a client trains."`
	Round     Round          `yaml:"round" doc:"Who takes part in a round and when it closes."`
	Evaluate  Evaluate       `yaml:"evaluate" doc:"What is measured, and when."`
	Secure    Secure         `yaml:"secure,omitempty" doc:"Secure aggregation: the server learns sums only; leave out to show it single updates."`
	Privacy   Privacy        `yaml:"privacy,omitempty" doc:"Differential privacy: clipped updates and noise; leave out for none."`
	Robust    Robust         `yaml:"robust,omitempty" doc:"What takes the place of the mean where some clients may lie; leave out to trust them all."`
	Clients   Conditions     `yaml:"clients,omitempty" doc:"How slow, unreliable and dishonest the simulated clients are; leave out for perfect ones."`
	Run       Run            `yaml:"run" doc:"Where and how the run is computed; changes no result except as said."`
	Options   any            `yaml:"options,omitempty" doc:"The method's own options."`

	origin []*document // what it was read from, for errors; nil if it was made otherwise
}

// Model names an architecture; the fields beside its name are those of [nn.Config].
type Model struct {
	Name      string `yaml:"name" doc:"Architecture."`
	nn.Config `yaml:",inline"`
	From      string `yaml:"from,omitempty" doc:"Safetensors file or run folder to start from instead of random weights."`
}

// Train is the local training of a client.
type Train struct {
	Epochs      int       `yaml:"epochs,omitempty" doc:"Passes over the client's data in a round."`
	Steps       int       `yaml:"steps,omitempty" doc:"Steps in a round instead of epochs."`
	Batch       int       `yaml:"batch" doc:"Examples of a step; 0 is all of them (FedSGD)."`
	Optimizer   Optimizer `yaml:"optimizer" doc:"Local optimiser; it starts afresh every round."`
	Schedule    Schedule  `yaml:"schedule" doc:"How the learning rate changes from round to round."`
	Clip        float64   `yaml:"clip,omitempty" doc:"Bound of the gradient's global L2 norm; 0 is none."`
	Crop        int       `yaml:"crop,omitempty" doc:"Augmentation: pad images by this many pixels and crop at random."`
	Reflect     bool      `yaml:"reflect,omitempty" doc:"Augmentation: pad by mirroring at the edge instead of by black."`
	Flip        bool      `yaml:"flip,omitempty" doc:"Augmentation: mirror half of the images."`
	SkipSingles bool      `yaml:"skip_singles,omitempty" doc:"Skip a last batch that is too small for batch norm instead of failing."`
}

// Optimizer is a local optimiser as PyTorch defines it.
type Optimizer struct {
	Name     string  `yaml:"name" doc:"sgd, adam or adamw."`
	Rate     float64 `yaml:"rate" doc:"Learning rate of round 0."`
	Momentum float64 `yaml:"momentum,omitempty" doc:"sgd: momentum."`
	Nesterov bool    `yaml:"nesterov,omitempty" doc:"sgd: Nesterov momentum."`
	Decay    float64 `yaml:"decay,omitempty" doc:"Weight decay (L2 added to the gradient; decoupled in adamw)."`
	Beta1    float64 `yaml:"beta1,omitempty" doc:"adam, adamw: decay of the first moment; 0 means 0.9."`
	Beta2    float64 `yaml:"beta2,omitempty" doc:"adam, adamw: decay of the second moment; 0 means 0.999."`
	Epsilon  float64 `yaml:"epsilon,omitempty" doc:"adam, adamw: added to the denominator; 0 means 1e-8."`
}

// Schedule says how the learning rate changes, one step a round.
type Schedule struct {
	Kind   string  `yaml:"kind" doc:"constant, step, multistep or cosine."`
	At     []int   `yaml:"at,omitempty" doc:"multistep: rounds at which the rate is multiplied by factor."`
	Every  int     `yaml:"every,omitempty" doc:"step: rounds between two multiplications."`
	Factor float64 `yaml:"factor,omitempty" doc:"step, multistep: the factor."`
	Min    float64 `yaml:"min,omitempty" doc:"cosine: rate of the last round."`
}

// Round says who takes part and when a round closes.
type Round struct {
	Fraction  float64       `yaml:"fraction" doc:"Part of the clients that is asked in a round, in (0, 1]."`
	Up        bool          `yaml:"up,omitempty" doc:"Round the number of clients up instead of down."`
	Quorum    float64       `yaml:"quorum,omitempty" doc:"Part of those asked whose answers close the round; 0 means all."`
	Deadline  time.Duration `yaml:"deadline,omitempty" doc:"Close the round after this time with whatever has come, e.g. 30s; 0 means never."`
	Staleness int           `yaml:"staleness,omitempty" doc:"Versions that an answer may be behind and still count; 0 is synchronous."`
	Discount  float64       `yaml:"discount,omitempty" doc:"An answer s versions behind weighs (1+s)^-discount."`
}

// Evaluate says what is measured.
type Evaluate struct {
	Every      int    `yaml:"every" doc:"Rounds between evaluations; the last round is always evaluated."`
	Batch      int    `yaml:"batch" doc:"Examples of an evaluation batch; changes speed only."`
	Clients    bool   `yaml:"clients" doc:"Evaluate at the clients, on their own test data and labels, too."`
	Statistics string `yaml:"statistics" doc:"Who computes static batch norm statistics: clients (one after the other) or pooled (the server, on all data)."`
}

// Conditions are those of a simulation's clients.
type Conditions struct {
	Latency  time.Duration `yaml:"latency,omitempty" doc:"Median virtual time from task to answer, e.g. 10s."`
	Spread   float64       `yaml:"spread,omitempty" doc:"Standard deviation of the logarithm of a client's speed."`
	Jitter   float64       `yaml:"jitter,omitempty" doc:"Standard deviation of the logarithm of a single answer's time."`
	Dropout  float64       `yaml:"dropout,omitempty" doc:"Probability that a client that is asked fails."`
	Stall    float64       `yaml:"stall,omitempty" doc:"Probability that it never answers (needs a deadline)."`
	Liars    float64       `yaml:"liars,omitempty" doc:"Part of the clients that send something else than what they computed, in [0, 1)."`
	Attack   string        `yaml:"attack,omitempty" doc:"What liars send: sign-flip, gaussian, label-flip, scale, alie or ipm."`
	Strength float64       `yaml:"strength,omitempty" doc:"How strong the attack is; 0 means 1, for scale 10, for alie the strongest that hides."`
}

// Run says how a run is computed.
type Run struct {
	Engine     string `yaml:"engine,omitempty" doc:"Engine, see \"cohort doctor\"; empty is the best of this binary."`
	Threads    int    `yaml:"threads,omitempty" doc:"Threads to compute on; 0 is all."`
	Workers    int    `yaml:"workers,omitempty" doc:"Clients simulated at a time; 0 is one a thread."`
	Checkpoint int    `yaml:"checkpoint" doc:"Rounds between checkpoints."`
}

// Default returns the recipe of a method with every field at its default: the built-in glyphs, a hundred clients, a small
// convolutional network.
func Default(method string) (*Recipe, error) {
	m, err := methods.Find(method)
	if err != nil {
		return nil, err
	}
	r := &Recipe{
		Version:   Version,
		Method:    m.Name,
		Rounds:    30,
		Data:      dataset.Spec{Name: "glyphs"},
		Partition: dataset.Scheme{Name: "iid", Clients: 100},
		Model:     Model{Name: "cnn", Config: nn.Config{Widths: []int{8, 16, 32, 64}}},
		Train: Train{Epochs: 2, Batch: 10, Clip: 1,
			Optimizer: Optimizer{Name: "sgd", Rate: 0.05, Momentum: 0.9, Decay: 5e-4},
			Schedule:  Schedule{Kind: "constant"}},
		Round:    Round{Fraction: 0.1},
		Evaluate: Evaluate{Every: 1, Batch: 100, Clients: true, Statistics: "clients"},
		Run:      Run{Checkpoint: 1},
		Options:  m.Options(),
	}
	switch m.Name {
	case "scaffold", "per-fedavg": // what they compute is of plain SGD
		r.Train.Optimizer.Momentum = 0
	case "personalfr", "joint-ars", "fcf", "joint-als", "item-mean", "popularity":
		r.recommends()
	case "pfedme": // the rate of the authors: times lambda it must stay below 1
		r.Train.Optimizer.Momentum, r.Train.Optimizer.Rate = 0, 0.005
	case "selffl": // what it computes of steps and their noise is of plain SGD, too
		r.Train = Train{Epochs: 1, Batch: 20, Optimizer: Optimizer{Name: "sgd", Rate: 0.05}, Schedule: r.Train.Schedule}
	}
	if _, ok := r.Options.(*semifl.Options); ok {
		r.semiSupervised()
	}
	return r, nil
}

// Remote makes the choices that a method's options leave open as they are best made where members are apart, or hide in sums.
func (r *Recipe) Remote() {
	if o, ok := r.Options.(interface{ Remote() }); ok {
		o.Remote()
	}
}

// recommends sets the fields of a method that learns from ratings as PersonalFR's authors do.
func (r *Recipe) recommends() {
	r.Data, r.Partition = dataset.Spec{Name: "tastes"}, dataset.Scheme{Name: "users", Clients: 30}
	r.Model = Model{Name: "ars"}
	r.Train.Epochs, r.Train.Schedule.Kind = 5, "cosine"
	r.Train.Optimizer = Optimizer{Name: "sgd", Rate: 0.1, Momentum: 0.9, Nesterov: true, Decay: 5e-4}
	r.Rounds, r.Evaluate.Every = 100, 10
	if _, ok := r.Options.(interface{ Factors() int }); ok { // a pass over the ratings a round, without an optimiser at clients
		r.Model = Model{Name: "linear"}
		r.Train.Epochs, r.Train.Schedule.Kind, r.Train.Optimizer = 1, "constant", Optimizer{Name: "sgd", Rate: 1}
	}
	switch r.Method {
	case "joint-ars":
		r.Train.Epochs, r.Train.Batch, r.Train.Schedule.Kind = 1, 100, "constant"
		r.Train.Optimizer = Optimizer{Name: "adam", Rate: 0.001, Decay: 5e-4}
	case "joint-als":
		r.Rounds, r.Evaluate.Every = 20, 5
	case "item-mean", "popularity": // everybody says once what it has
		r.Rounds, r.Evaluate.Every, r.Round.Fraction = 1, 1, 1
	}
}

// SameRun reports whether two recipes describe the same run: they differ at most in name and in how it is computed.
func (r *Recipe) SameRun(other *Recipe) bool {
	a, b := *r, *other
	a.Name, b.Name = "", ""
	a.Run, b.Run = Run{}, Run{}
	return string(a.YAML()) == string(b.YAML())
}

// FieldError is a value that a field cannot have.
type FieldError struct {
	Field string // path from the top, e.g. "train.batch"
	Err   error
	With  string // field that it does not go with; a file that leaves Field at its default is blamed there
}

func (e *FieldError) Error() string { return e.Field + ": " + e.Err.Error() }
func (e *FieldError) Unwrap() error { return e.Err }

func fieldf(field, format string, args ...any) error {
	return &FieldError{Field: field, Err: fmt.Errorf(format, args...)}
}

// clashf is fieldf for a value that does not go with another field.
func clashf(field, with, format string, args ...any) error {
	return &FieldError{field, fmt.Errorf(format, args...), with}
}

// Validate returns an error for the first field that cannot be right, whatever the data turns out to be: a [FieldError], or
// an [*Error] that knows the place if the recipe was read from a file.
func (r *Recipe) Validate() error { return r.place(r.validate()) }

func (r *Recipe) validate() error {
	m, err := methods.Find(r.Method)
	if err != nil {
		return &FieldError{Field: "method", Err: err}
	}
	if r.Version != Version {
		return fieldf("version", "%d is unknown; this program reads version %d", r.Version, Version)
	}
	if r.Rounds < 1 {
		return fieldf("rounds", "%d, expected at least 1", r.Rounds)
	}
	spec := r.Data
	spec.Root = "." // where data lies is known when it is loaded
	if err := spec.Validate(); err != nil {
		return within("data", spec, err)
	}
	if err := r.Partition.Validate(); err != nil {
		return within("partition", r.Partition, err)
	}
	if !slices.Contains(nn.Names(), r.Model.Name) {
		return fieldf("model.name", "there is no architecture %q%s; expected one of %s", r.Model.Name,
			didYouMean(r.Model.Name, nn.Names()), strings.Join(nn.Names(), ", "))
	}
	for _, check := range []func() error{r.Train.validate, r.Round.validate, r.Evaluate.validate, r.Robust.validate, r.Run.validate, r.validatePrivacy} {
		if err := check(); err != nil {
			return err
		}
	}
	if err := r.Clients.simulation().Validate(); err != nil {
		return within("clients", r.Clients, err)
	}
	if (r.Clients.Attack == "alie" || r.Clients.Attack == "ipm") && r.Round.Staleness > 0 {
		return fieldf("clients.attack", "liars of %s join in rounds that begin together; set round.staleness to 0 or choose another attack", r.Clients.Attack)
	}
	if r.Clients.Stall > 0 && r.Round.Deadline == 0 {
		return fieldf("clients.stall", "clients that never answer need a round.deadline")
	}
	options, ok := r.Options.(methods.Options)
	if !ok {
		return fieldf("options", "these are not the options of %s", m.Name)
	}
	trial, err := nn.New("mlp", nn.Config{Input: []int{16}, Classes: 2, Hidden: []int{16}}) // has a body and a head
	if err != nil {
		return err
	}
	a, err := options.New(&federated.Problem{Build: trial, Rounds: r.Rounds,
		Select:    federated.Selection{Fraction: r.Round.Fraction, RoundUp: r.Round.Up},
		Measuring: federated.Measuring{Every: r.Evaluate.Every, Members: r.Evaluate.Clients}})
	if err != nil {
		return r.optionError(err)
	}
	return r.suits(a)
}

// optionError names the option that a method's error begins with, as "mode: …" does, or else the first that it speaks of.
func (r *Recipe) optionError(err error) error {
	if err == nil {
		return nil
	}
	if field, rest, ok := strings.Cut(err.Error(), ": "); ok && !strings.ContainsAny(field, " \"") {
		return &FieldError{Field: "options." + field, Err: errors.New(rest)}
	}
	return within("options", r.Options, err)
}

// within blames the first field of a section that an error of another package speaks of, the name if it says that something
// is unknown, or else the section.
func within(section string, fields any, err error) error {
	t := reflect.TypeOf(fields)
	if t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	known := fieldsOf(t)
	for word := range strings.FieldsFuncSeq(err.Error(), func(r rune) bool { return !unicode.IsLetter(r) && r != '_' }) {
		if word == "unknown" {
			word = "name"
		} else if word == "name" {
			continue
		}
		if _, ok := known[word]; ok {
			return &FieldError{Field: section + "." + word, Err: err}
		}
	}
	return &FieldError{Field: section, Err: err}
}

func (t Train) validate() error {
	switch {
	case t.Epochs < 0:
		return fieldf("train.epochs", "%d, expected at least 1", t.Epochs)
	case t.Steps < 0:
		return fieldf("train.steps", "%d, expected at least 1", t.Steps)
	case t.Epochs == 0 && t.Steps == 0:
		return fieldf("train.epochs", "0, expected at least 1 epoch, or train.steps")
	case t.Epochs > 0 && t.Steps > 0:
		return fieldf("train.steps", "give either epochs or steps, not %d and %d", t.Epochs, t.Steps)
	case t.Batch < 0:
		return fieldf("train.batch", "%d, expected at least 1, or 0 for all examples", t.Batch)
	case !(t.Clip >= 0):
		return fieldf("train.clip", "%g, expected 0 or more", t.Clip)
	case t.Crop < 0:
		return fieldf("train.crop", "%d, expected 0 or more", t.Crop)
	case t.Reflect && t.Crop == 0:
		return clashf("train.reflect", "train.crop", "true, and nothing is padded: set train.crop")
	}
	o := t.Optimizer
	names := []string{"sgd", "adam", "adamw"}
	switch {
	case !slices.Contains(names, o.Name):
		return fieldf("train.optimizer.name", "there is no optimiser %q%s; expected sgd, adam or adamw", o.Name, didYouMean(o.Name, names))
	case !(o.Rate > 0) || math.IsInf(o.Rate, 0):
		return fieldf("train.optimizer.rate", "%g, expected more than 0", o.Rate)
	case !(o.Momentum >= 0 && o.Momentum < 1):
		return fieldf("train.optimizer.momentum", "%g, expected a number in [0, 1)", o.Momentum)
	case o.Nesterov && o.Momentum == 0:
		return fieldf("train.optimizer.nesterov", "needs momentum above 0")
	case !(o.Decay >= 0):
		return fieldf("train.optimizer.decay", "%g, expected 0 or more", o.Decay)
	case !(o.Beta1 >= 0 && o.Beta1 < 1):
		return fieldf("train.optimizer.beta1", "%g, expected a number in [0, 1)", o.Beta1)
	case !(o.Beta2 >= 0 && o.Beta2 < 1):
		return fieldf("train.optimizer.beta2", "%g, expected a number in [0, 1)", o.Beta2)
	case !(o.Epsilon >= 0):
		return fieldf("train.optimizer.epsilon", "%g, expected 0 or more", o.Epsilon)
	case o.Name == "sgd" && (o.Beta1 != 0 || o.Beta2 != 0 || o.Epsilon != 0):
		return fieldf("train.optimizer.beta1", "sgd has no betas and no epsilon")
	case o.Name != "sgd" && (o.Momentum != 0 || o.Nesterov):
		return fieldf("train.optimizer.momentum", "%s has betas instead of momentum", o.Name)
	}
	s := t.Schedule
	kinds := []string{"constant", "step", "multistep", "cosine"}
	switch {
	case !slices.Contains(kinds, s.Kind):
		return fieldf("train.schedule.kind", "there is no schedule %q%s; expected constant, step, multistep or cosine", s.Kind, didYouMean(s.Kind, kinds))
	case s.Kind == "step" && s.Every < 1:
		return fieldf("train.schedule.every", "%d, expected at least 1", s.Every)
	case (s.Kind == "step" || s.Kind == "multistep") && !(s.Factor > 0):
		return fieldf("train.schedule.factor", "%g, expected more than 0", s.Factor)
	case s.Kind == "multistep" && (len(s.At) == 0 || !slices.IsSorted(s.At)):
		return fieldf("train.schedule.at", "%v, expected rounds in ascending order", s.At)
	case s.Kind == "cosine" && !(s.Min >= 0 && s.Min <= o.Rate):
		return fieldf("train.schedule.min", "%g, expected a number from 0 to the rate %g", s.Min, o.Rate)
	}
	return nil
}

func (r Round) validate() error {
	if !(r.Fraction > 0 && r.Fraction <= 1) {
		return fieldf("round.fraction", "%g, expected a number in (0, 1]", r.Fraction)
	}
	if err := r.pace().Validate(); err != nil {
		return within("round", r, err)
	}
	return nil
}

func (e Evaluate) validate() error {
	switch {
	case e.Every < 1:
		return fieldf("evaluate.every", "%d, expected at least 1", e.Every)
	case e.Batch < 1:
		return fieldf("evaluate.batch", "%d, expected at least 1", e.Batch)
	case e.Statistics != "clients" && e.Statistics != "pooled":
		return fieldf("evaluate.statistics", "%q, expected clients or pooled", e.Statistics)
	}
	return nil
}

func (r Run) validate() error {
	switch {
	case r.Threads < 0:
		return fieldf("run.threads", "%d, expected 0 or more", r.Threads)
	case r.Workers < 0:
		return fieldf("run.workers", "%d, expected 0 or more", r.Workers)
	case r.Checkpoint < 1:
		return fieldf("run.checkpoint", "%d, expected at least 1", r.Checkpoint)
	}
	return nil
}
