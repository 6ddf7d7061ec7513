package selffl

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/heterofl"
)

// Choices of a [Config].
const (
	Warm = "warm" // start: (1 − ρ)·own + ρ·others
	Cold = "cold" // start: the others' model
	Here = "here" // start: the global model, with λ_m for β_m

	ByPrecision = "precision" // aggregate: 1/(σ_0² + v_m)
	Uniform     = "uniform"
	BySamples   = "samples"

	Keep = "keep" // stale: absent clients keep their last upload
	Drop = "drop" // stale: they are left out; the server sees sums only

	Secants = "secant" // curvature: measured
	One     = "one"    // curvature: 1

	Scalar = "scalar" // granularity: one variance for the whole model
	Tensor = "tensor" // granularity: one for every tensor
	Head   = "head"   // granularity: that of the last layer for the whole model

	Exact         = "exact"    // posterior: exact
	PairwiseOther = "pairwise" // posterior: others taken as independent
)

// Config is what Self-FL adds to a problem.
type Config struct {
	Within      Within
	Between     Between
	Curvature   string
	Unshrink    bool
	Aggregate   string
	Start       string
	Rho         float64 // of a warm start
	Stale       string
	Granularity string
	Posterior   string
	Least, Most int // steps of a round; Most 0: ten passes
	Steps       int // steps of every round, fixed; 0: as many as the variances say
	// Levels, if not nil, gives clients slices of the model by their strength, as HeteroFL does.
	Levels *heterofl.Config
}

// Recommended returns the defaults.
func Recommended() Config {
	return Config{Within: Calibrated, Between: Moment, Curvature: Secants, Unshrink: true, Aggregate: ByPrecision, Start: Warm, Rho: 0.3,
		Stale: Keep, Granularity: Scalar, Posterior: Exact, Least: 1}
}

// Published returns what the publications say, taken literally.
func Published() Config {
	c := Recommended()
	c.Within, c.Between, c.Curvature, c.Unshrink, c.Start, c.Rho = Trajectory, Naive, One, false, Cold, 1
	return c
}

// Validate returns an error that begins with the option that cannot be.
func (c Config) Validate() error {
	if err := c.Within.Validate(); err != nil {
		return err
	}
	if err := c.Between.Validate(); err != nil {
		return err
	}
	for _, f := range []struct {
		field, value string
		known        []string
	}{
		{"curvature", c.Curvature, []string{Secants, One}},
		{"aggregate", c.Aggregate, []string{ByPrecision, Uniform, BySamples}},
		{"start", c.Start, []string{Warm, Cold, Here}},
		{"stale", c.Stale, []string{Keep, Drop}},
		{"granularity", c.Granularity, []string{Scalar, Tensor, Head}},
		{"posterior", c.Posterior, []string{Exact, PairwiseOther}},
	} {
		if !slices.Contains(f.known, f.value) {
			return fmt.Errorf("%s: %q, expected %s", f.field, f.value, strings.Join(f.known, ", "))
		}
	}
	switch {
	case c.Start == Warm && !(c.Rho > 0 && c.Rho <= 1):
		return fmt.Errorf("rho: %g, expected a number in (0, 1]", c.Rho)
	case c.Least < 1:
		return fmt.Errorf("least_steps: %d, expected at least 1", c.Least)
	case c.Most < 0 || c.Most > 0 && c.Most < c.Least:
		return fmt.Errorf("most_steps: %d, expected at least least_steps, which is %d, or 0 for ten passes", c.Most, c.Least)
	case c.Steps < 0:
		return fmt.Errorf("steps: %d, expected at least 1, or 0 for as many as the variances say", c.Steps)
	case c.Stale == Drop && c.Between != Naive && c.Between != Moment:
		return fmt.Errorf("between: %s needs every client's upload, and with stale drop the server sees sums only; use moment or naive, or stale keep", c.Between)
	case c.Stale == Drop && c.Granularity == Tensor:
		return fmt.Errorf("granularity: tensor weighs clients tensor by tensor, and with stale drop a client has one weight; use scalar or head, or stale keep")
	case c.Posterior == PairwiseOther && c.Start == Here:
		return fmt.Errorf("posterior: pairwise is about the others' models, so start must be cold or warm, not %s", c.Start)
	case c.Levels != nil && c.Stale == Keep:
		return fmt.Errorf("levels: clients with parts of the model are added up coordinate by coordinate, which needs stale drop")
	case c.Levels != nil && c.Levels.Scheme != heterofl.Leading && c.Levels.Scheme != "":
		return fmt.Errorf("levels: clients keep their parts of the model, so these must be the leading channels, not %s", c.Levels.Scheme)
	}
	return nil
}

// Options are those of Self-FL in a recipe.
type Options struct {
	Preset      string  `yaml:"preset" doc:"selffl, or selffl-paper for what the publications say taken literally; what is left out below is the preset's."`
	UQ          string  `yaml:"uq,omitempty" doc:"How a client measures how uncertain its own fit is: trajectory-calibrated, trajectory, rounds, sandwich or fisher."`
	Between     string  `yaml:"between,omitempty" doc:"How the server estimates how much clients differ: moment, naive, dl (DerSimonian-Laird) or pm (Paule-Mandel)."`
	Curvature   string  `yaml:"curvature,omitempty" doc:"Curvature of a client's loss: secant (measured each round) or one."`
	Unshrink    string  `yaml:"unshrink,omitempty" doc:"on or off: undo, where clients are compared, that uploads were pulled towards their start."`
	Aggregate   string  `yaml:"aggregate,omitempty" doc:"How clients weigh: precision (uncertain ones less), uniform or samples."`
	Start       string  `yaml:"start,omitempty" doc:"Where a client starts: warm (its own model mixed with the others'), cold (the others') or here (the global model)."`
	Rho         float64 `yaml:"rho,omitempty" doc:"warm: the others' part of the start, in (0, 1]."`
	Stale       string  `yaml:"stale,omitempty" doc:"Clients that are not in a round: keep (their last upload counts) or drop (the server keeps and sees sums only). Empty: keep in a simulation; drop over a network and under secure sums."`
	Granularity string  `yaml:"granularity,omitempty" doc:"What has a variance of its own: scalar (the whole model), tensor or head (the last layer speaks for all)."`
	Posterior   string  `yaml:"posterior,omitempty" doc:"exact, or pairwise to compare with: the others' estimates taken as independent."`
	Least       int     `yaml:"least_steps,omitempty" doc:"Fewest steps of a client in a round."`
	Most        int     `yaml:"most_steps,omitempty" doc:"Most steps; 0 is ten passes over the client's data."`
	Steps       int     `yaml:"steps,omitempty" doc:"Steps of everybody in every round, instead of as many as the variances say; 0 leaves it to them."`
	Mode        string  `yaml:"mode,omitempty" doc:"Levels of HeteroFL, such as a1-e1: clients of unequal strength train slices of the model. Needs stale drop."`
	Dynamic     bool    `yaml:"dynamic,omitempty" doc:"mode: redraw levels every round."`
}

// Defaults returns the recommended setting.
func Defaults() *Options { return &Options{Preset: "selffl"} }

// Remote makes choices that were left open for a run over a network, where the server does better to keep and see sums only.
func (o *Options) Remote() { o.Stale = cmp.Or(o.Stale, Drop) }

// Config returns what the options say together with their preset.
func (o *Options) Config() (Config, error) {
	var c Config
	switch o.Preset {
	case "selffl":
		c = Recommended()
	case "selffl-paper":
		c = Published()
	default:
		return c, fmt.Errorf("preset: %q, expected selffl or selffl-paper", o.Preset)
	}
	switch o.Unshrink {
	case "":
	case "on", "off":
		c.Unshrink = o.Unshrink == "on"
	default:
		return c, fmt.Errorf("unshrink: %q, expected on or off", o.Unshrink)
	}
	c.Within, c.Between = cmp.Or(Within(o.UQ), c.Within), cmp.Or(Between(o.Between), c.Between)
	c.Curvature, c.Aggregate, c.Start = cmp.Or(o.Curvature, c.Curvature), cmp.Or(o.Aggregate, c.Aggregate), cmp.Or(o.Start, c.Start)
	c.Rho, c.Stale = cmp.Or(o.Rho, c.Rho), cmp.Or(o.Stale, c.Stale)
	c.Granularity, c.Posterior = cmp.Or(o.Granularity, c.Granularity), cmp.Or(o.Posterior, c.Posterior)
	c.Least, c.Most, c.Steps = cmp.Or(o.Least, c.Least), cmp.Or(o.Most, c.Most), o.Steps
	if o.Mode != "" {
		mode, err := heterofl.ParseMode(o.Mode, heterofl.DefaultRates())
		if err != nil {
			return c, fmt.Errorf("mode: %w", err)
		}
		c.Levels = &heterofl.Config{Mode: mode, Dynamic: o.Dynamic}
	} else if o.Dynamic {
		return c, fmt.Errorf("dynamic: there are no levels to redraw without a mode")
	}
	return c, c.Validate()
}

// New returns Self-FL on a problem.
func (o *Options) New(p *federated.Problem) (federated.Algorithm, error) {
	c, err := o.Config()
	if err != nil {
		return nil, err
	}
	return New(p, c)
}
