package recommenders_test

import (
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/federated/private"
	"github.com/cohort-learning/cohort/federated/recommenders"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/train"
)

// adapt makes the problem of ratings that of a linear layer from so many factors.
func adapt(t *testing.T, factors int) func(*federated.Problem) {
	return func(p *federated.Problem) {
		*p = *fedtest.RatingProblem(t)
		build, err := nn.New("linear", nn.Config{Input: []int{factors}, Classes: fedtest.TasteItems})
		if err != nil {
			t.Fatal(err)
		}
		p.Build = build
	}
}

func tastes(e *train.Engine, sizes ...int) *fedtest.World { return fedtest.Tastes(e, len(sizes)) }

func TestContract(t *testing.T) {
	fcf := func(change func(*recommenders.Options)) func(*federated.Problem) (federated.Algorithm, error) {
		o := recommenders.Defaults()
		o.Width = 4
		if change != nil {
			change(o)
		}
		return o.New
	}
	joint := func(feedback string) func(*federated.Problem) (federated.Algorithm, error) {
		o := recommenders.JointDefaults()
		o.Width, o.Feedback = 4, feedback
		return o.New
	}
	secure := func(inner func(*federated.Problem) (federated.Algorithm, error)) func(*federated.Problem) (federated.Algorithm, error) {
		return func(p *federated.Problem) (federated.Algorithm, error) {
			a, err := inner(p)
			if err != nil {
				return nil, err
			}
			return private.NewSecure(a, private.SecureOptions{Threshold: 0.7}), nil
		}
	}
	likes := func(o *recommenders.Options) { o.Feedback = "implicit" }
	for _, c := range []struct {
		name    string
		factors int
		guess   float64 // the loss of predicting 0, or what is a little less
		new     func(*federated.Problem) (federated.Algorithm, error)
		change  func(*fedtest.Options)
	}{
		{name: "fcf", factors: 4, guess: 2, new: fcf(nil)},
		{name: "fcf implicit", factors: 4, guess: 3, new: fcf(likes), change: func(o *fedtest.Options) { o.Spared = true }},
		{name: "means", factors: 1, guess: 2, new: recommenders.MeansDefaults().New},
		{name: "popularity", factors: 1, guess: 0.69, new: recommenders.PopularityDefaults().New, change: func(o *fedtest.Options) { o.Spared = true }},
		{name: "joint", factors: 4, guess: 2, new: joint("explicit"), change: func(o *fedtest.Options) { o.Server = true }},
		{name: "joint implicit", factors: 4, guess: 3, new: joint("implicit"), change: func(o *fedtest.Options) { o.Server = true }},
		{name: "fcf secure", factors: 4, guess: 2, new: secure(fcf(nil)), change: func(o *fedtest.Options) { o.Session, o.Spared = "train.rows.keys", true }},
		{name: "means secure", factors: 1, guess: 2, new: secure(recommenders.MeansDefaults().New), change: func(o *fedtest.Options) { o.Session, o.Spared = "train.keys", true }},
	} {
		t.Run(c.name, func(t *testing.T) {
			o := fedtest.Options{New: c.new, World: tastes, Adapt: adapt(t, c.factors), Guess: c.guess}
			if c.change != nil {
				c.change(&o)
			}
			fedtest.TestAlgorithm(t, o)
		})
	}
}
