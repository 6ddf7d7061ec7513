package federated

import (
	"errors"
	"fmt"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/gomlx/core/graph"
)

// Problem is what is to be learned and how a member trains: the same for every method, and for server and members.
type Problem struct {
	Build     nn.Builder // the architecture at a rate
	DType     weights.DType
	Loss      train.Loss
	Custom    func(output, target *graph.Node) *graph.Node // loss of every example in place of Loss's formula, see [train.Spec]; nil: Loss
	Target    train.Target
	Hide      train.Hide
	Start     *weights.Set // initial weights at rate 1; nil draws them
	Rounds    int
	Select    Selection // who trains in a round
	Training  Training
	Measuring Measuring
}

// Validate reports the first setting that cannot work, whatever the method.
func (p *Problem) Validate() error {
	t := p.Training
	switch {
	case p.Build == nil:
		return errors.New("there is no model to train")
	case t.Rate == nil:
		return errors.New("there is no learning rate")
	case t.Epochs < 0 || t.Steps < 0 || t.Batch < 0:
		return fmt.Errorf("epochs %d, steps %d, batch %d: none may be negative", t.Epochs, t.Steps, t.Batch)
	case t.Epochs == 0 && t.Steps == 0:
		return errors.New("neither local epochs nor local steps are given")
	case !(t.Clip >= 0):
		return fmt.Errorf("gradients are clipped at %g: need 0 (not at all) or more", t.Clip)
	case p.Measuring.Every < 0 || p.Measuring.Batch < 0:
		return fmt.Errorf("evaluation every %d rounds in batches of %d: neither may be negative", p.Measuring.Every, p.Measuring.Batch)
	case !p.Select.Everyone && p.Select.Fraction == 0:
		return errors.New("the fraction of members that train in a round is 0: need more than 0, at most 1")
	}
	if err := p.Select.Validate(); err != nil {
		return err
	}
	if err := t.Rate.Validate(); err != nil {
		return fmt.Errorf("learning rate: %w", err)
	}
	if t.Optimizer != nil {
		if err := t.Optimizer.Validate(); err != nil {
			return fmt.Errorf("optimiser: %w", err)
		}
	}
	return nil
}

// Training is a member's work in a round: Epochs passes, or Steps steps, over its data.
type Training struct {
	Epochs, Steps int
	Batch         int // 0: all examples at once
	Optimizer     train.Optimizer
	Rate          train.Schedule // one tick a round
	Clip          float64
	Augment       dataset.Augment
	SkipSingles   bool
}

// Measuring says what is evaluated and when.
type Measuring struct {
	Every   int  // rounds between evaluations; the last round is always evaluated
	Batch   int  // of evaluation and of statistics
	Members bool // evaluate at the members, too
	Pooled  bool // the server computes static batch norm statistics on its training data, instead of the members
}

// Due reports whether the round is evaluated.
func (p *Problem) Due(round int) bool {
	return (round+1)%max(1, p.Measuring.Every) == 0 || round+1 == p.Rounds
}

// Initial returns the weights of round 0 of the architecture at a rate: those of Start, or drawn from the stream of the
// run's seed, the same at the server and at every member.
func (p *Problem) Initial(seed uint64, rate float64) (weights.Set, error) {
	m, err := p.Build(rate)
	if err != nil {
		return weights.Set{}, err
	}
	if p.Start == nil {
		return m.Initial(p.DType, rng.New(seed, 0, "", "weights")), nil
	}
	// An exported model may carry evaluation statistics besides.
	s := p.Start.Convert(p.DType).Filter(func(name string) bool { _, ok := m.Param(name); return ok })
	if err := s.Match(m.Zeros(p.DType)); err != nil {
		return weights.Set{}, fmt.Errorf("initial weights do not fit the model: %w", err)
	}
	return s, nil
}

// Fit returns what a member's pass over its data in a round is, with its own batch order.
func (p *Problem) Fit(at Local, round int) train.Fit {
	t := p.Training
	return train.Fit{
		Data: at.Train, Epochs: t.Epochs, Steps: t.Steps, Batch: t.Batch, Rate: train.Constant(t.Rate.At(round)),
		Augment: at.augment(t.Augment), Random: at.Rand(round, "batches"), SkipSmall: t.SkipSingles,
	}
}

func (l Local) augment(a dataset.Augment) dataset.Augment {
	a.Skew = l.Skew
	return a
}

// Labels returns the label mask of a member: 1 for classes (of text: tokens) in its training data, else 0; and those
// classes, sorted.
func (l Local) Labels(classes int) (mask []float32, present []int32) {
	present = l.Train.LabelSet()
	if l.Train.Data.Tok != nil {
		present = l.Train.TokenSet()
	}
	mask = make([]float32, classes)
	for _, c := range present {
		if int(c) >= classes {
			panic(fmt.Sprintf("federated: label %d of %s in a model of %d classes", c, l.Member.Name, classes))
		}
		mask[c] = 1
	}
	return mask, present
}

// UniformWeighting reads the option "weighting" of a method: whether members weigh alike instead of by their examples.
func UniformWeighting(option string) (uniform bool, err error) {
	if option != "examples" && option != "uniform" {
		return false, fmt.Errorf("weighting: %q, expected examples or uniform", option)
	}
	return option == "uniform", nil
}
