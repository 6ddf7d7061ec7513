package semifl_test

import (
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/federated/heterofl"
	"github.com/cohort-learning/cohort/federated/semifl"
	"github.com/cohort-learning/cohort/train"
)

// features is SemiFL for data that are no images: nothing is augmented, and some labels are always sure enough.
func features(change func(*semifl.Config)) semifl.Config {
	c := semifl.Defaults()
	c.Strong.Draws, c.Threshold, c.Lambda, c.ServerEpochs, c.StatBatch = 0, 0.4, 0.1, 4, 8
	if change != nil {
		change(&c)
	}
	return c
}

func mode(t testing.TB, s string) heterofl.Mode {
	t.Helper()
	m, err := heterofl.ParseMode(s, nil)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// trained is a problem whose optimiser keeps a momentum.
func trained(p *federated.Problem) {
	p.Training.Optimizer = train.SGD{Momentum: 0.9, Nesterov: true, Decay: 5e-4}
	p.Training.Rate = train.Cosine{Rate: 0.05, Period: 6}
	p.Training.SkipSingles, p.Training.Batch = true, 8
}

func TestContract(t *testing.T) {
	for name, v := range map[string]struct {
		killed bool
		change func(*semifl.Config)
	}{
		"semifl":       {true, func(c *semifl.Config) { c.First = true }},
		"fix, weighed": {false, func(c *semifl.Config) { c.First, c.Loss, c.WeighKept, c.Momentum = true, semifl.Fix, true, 0 }},
		"fixmatch":     {true, func(c *semifl.Config) { c.Loss, c.Server, c.Threshold = semifl.FixBatch, semifl.Parallel, 0.3 }},
		"reference":    {false, func(c *semifl.Config) { c.Server, c.Threshold = semifl.ParallelReference, 0.3 }},
		"supervised":   {false, func(c *semifl.Config) { c.Loss, c.ServerEpochs = semifl.Labelled, 0 }},
		"groups": {false, func(c *semifl.Config) {
			c.Loss, c.Server, c.Threshold, c.Groups = semifl.FixBatch, semifl.Parallel, 0.3, true
		}},
		"decomposed": {false, func(c *semifl.Config) {
			c.Loss, c.Server, c.Threshold, c.Decomposed = semifl.FixBatch, semifl.Parallel, 0.3, true
		}},
		"levels": {false, func(c *semifl.Config) { c.First, c.Mode = true, mode(t, "a1-b2") }},
	} {
		t.Run(name, func(t *testing.T) {
			fedtest.TestAlgorithm(t, fedtest.Options{Teaches: name != "supervised", Spared: !v.killed, Adapt: trained,
				New: func(p *federated.Problem) (federated.Algorithm, error) { return semifl.New(p, features(v.change)) }})
		})
	}
}
