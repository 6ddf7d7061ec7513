package federated

import (
	"context"
	"errors"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// Own is a model that a member uses of its own.
type Own struct {
	Weights weights.Set
	// Spec, if not nil, runs the weights where they are not the method's architecture alone, such as a thinner one, or two networks
	// whose outputs are mixed; Options holds what it needs beside. With a Derive the statistics of norm layers are to be in it.
	Spec    *train.Spec
	Options train.Options
}

// What members tell when they test: of the global model, and of their own under names with this prefix.
const (
	tellCorrect  = "correct"
	tellLoss     = "loss"
	tellExamples = "examples"
	ofOwn        = "personal."
	tellBegun    = ofOwn + "begun"
)

// Begun adds to what a member tells of its training whether it began a model of its own, having kept none: at its first visit, or
// when what it kept was lost.
func (r *Result) Begun(keep *weights.Set) {
	begun := 0.0
	if keep == nil {
		begun = 1
	}
	r.Scalars[tellBegun] = begun
}

// Begun adds how many members began a model of their own, if they told.
func (d *Diagnostics) Begun(sum *Sum) {
	if sum == nil {
		return
	}
	if n, told := sum.Scalars[tellBegun]; told {
		d.Add(tellBegun, "", n)
	}
}

// models returns the prefixes of the models that members test: the global one if there is one, and their own.
func (c *Cycle) models() (prefixes []string) {
	if !c.Serverless {
		prefixes = append(prefixes, "")
	}
	if c.Personal != nil {
		prefixes = append(prefixes, ofOwn)
	}
	return prefixes
}

// collected are the scalars that are wanted of every member by itself.
func (c *Cycle) collected() []string {
	names := []string{tellExamples}
	for _, prefix := range c.models() {
		names = append(names, prefix+tellCorrect)
	}
	return names
}

// evalMember tests the global model and the member's own on the member's test data.
func (c *Cycle) evalMember(ctx context.Context, at Local, spec *train.Spec, t Task, keep *weights.Set) (Result, error) {
	if at.Test.Len() == 0 {
		return Result{Status: Abstained}, nil
	}
	told := map[string]float64{}
	for _, prefix := range c.models() {
		m := Own{Weights: t.Sets["w"], Spec: spec, Options: train.Options{Stats: t.Sets["stats"]}}
		if prefix == ofOwn {
			var err error
			if m, err = c.own(ctx, at, spec, t, keep); err != nil {
				return Result{}, err
			}
		}
		o := train.EvalOptions{Skew: at.Skew, Random: at.Rand(t.Round, "hidden")}
		if m.Spec.Mask != train.NoMask {
			o.LabelMask, _ = at.Labels(spec.Model.Classes)
		}
		got, err := c.evaluate(ctx, at.Engine, m.Spec, m.Weights, m.Options, o, at.Test)
		if err != nil {
			return Result{}, err
		}
		told[tellExamples] = float64(got.N)
		told[prefix+tellCorrect] = float64(got.Correct)
		told[prefix+tellLoss] = got.Loss * float64(got.N)
	}
	return Result{Scalars: told}, nil
}

// own returns the member's own model, with the step that runs it and statistics of the member's own data where layers need them.
func (c *Cycle) own(ctx context.Context, at Local, spec *train.Spec, t Task, keep *weights.Set) (Own, error) {
	m, err := c.Personal(ctx, at, t, keep)
	if err != nil || m.Spec != nil && m.Spec.Derive != nil {
		return m, err
	}
	if m.Spec == nil {
		m.Spec = spec
	}
	if len(m.Spec.Model.Norms) == 0 {
		return m, nil
	}
	sum, n, err := c.statistics(ctx, at.Engine, m.Spec, m.Weights, at.Train, at.augment(c.Training.Augment), at.Rand(t.Round, "stats"))
	m.Options.Stats = mean(sum, n)
	return m, err
}

// OwnModel returns the model that a member uses of its own after the last round of a state, as it was tested then: statistics of batch
// norm are in the options. Methods whose members use the global model have none.
func (c *Cycle) OwnModel(ctx context.Context, at Local, s State, keep *weights.Set) (Own, error) {
	if c.Personal == nil {
		return Own{}, errors.New("the clients of this method use the global model: they have none of their own")
	}
	spec, err := c.Spec("measure", c.Rate, func(s *train.Spec) { s.Mask = c.Mask })
	if err != nil {
		return Own{}, err
	}
	s.Round-- // the round that came last
	t, err := c.Task(s, Phase{Name: "eval"}, at.Member)
	if err != nil {
		return Own{}, err
	}
	t.Round, t.Phase = s.Round, "eval"
	own, err := c.own(ctx, at, spec, t, keep)
	if err == nil && own.Spec != spec {
		err = errors.New("what a client of this run uses is a mixture of the outputs of two networks, and no model by itself")
	}
	return own, err
}

// Owner is implemented by methods whose members may have models of their own.
type Owner interface {
	OwnModel(ctx context.Context, at Local, s State, keep *weights.Set) (Own, error)
}

func (c *Cycle) evaluate(ctx context.Context, e *train.Engine, spec *train.Spec, w weights.Set, with train.Options, o train.EvalOptions,
	data dataset.View) (train.Metrics, error) {
	s, err := e.Begin(spec, w, with)
	if err != nil {
		return train.Metrics{}, err
	}
	defer s.Close()
	o.Batch = c.Measuring.Batch
	return s.Evaluate(ctx, data, o)
}

// measured adds what members told: "loss.local" and, if they classify, "accuracy.local" of the global model on their test data;
// "loss.personal" and "accuracy.personal" of their own models. Accuracies are those of all test examples together; beside
// them stand the mean over members, ".mean", and the mean over the worst tenth of the members, ".worst".
func (c *Cycle) measured(d *Diagnostics, sum *Sum, roll Roll) {
	if sum == nil || sum.Scalars[tellExamples] == 0 {
		return
	}
	n := sum.Scalars[tellExamples]
	for _, prefix := range c.models() {
		of := ".local"
		if prefix == ofOwn {
			of = ".personal"
		}
		d.Add("loss"+of, "", sum.Scalars[prefix+tellLoss]/n)
		if c.Loss != train.CrossEntropy {
			continue
		}
		d.Add("accuracy"+of, "", sum.Scalars[prefix+tellCorrect]/n)
		if correct := roll.Each.Values[prefix+tellCorrect]; len(correct) > 0 { // else only sums are known
			mean, worst := spread(correct, roll.Each.Values[tellExamples])
			d.Add("accuracy"+of+".mean", "", mean)
			d.Add("accuracy"+of+".worst", "", worst)
		}
	}
}

// spread returns the mean over members of correct/examples, and the mean over the worst tenth of them.
func spread(correct, examples []float64) (mean, worst float64) {
	acc := make([]float64, len(correct))
	for i := range acc {
		acc[i] = correct[i] / examples[i]
		mean += acc[i]
	}
	slices.Sort(acc)
	tail := acc[:max(1, int(math.Ceil(float64(len(acc))/10)))]
	for _, a := range tail {
		worst += a
	}
	return mean / float64(len(acc)), worst / float64(len(tail))
}
