package recipe

import (
	"context"
	"errors"
	"fmt"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// Joined is what a member of a run over a network has of it in a folder of its own, when the run is over.
type Joined struct {
	Run    string
	Member string
	Recipe *Recipe        // as the coordinator announced it
	Schema dataset.Schema // that was agreed on
	Data   string         // path of the member's data
	Model  weights.Set    // the final model as all have it, statistics of batch norm besides
	Kept   *weights.Set   // what the member kept; nil: nothing
}

// side is the member's half of the run, and the state in which the run ended, as far as members know it.
func (j *Joined) side(ctx context.Context, e *train.Engine) (p *MemberPlan, a federated.Algorithm, at federated.Local, s federated.State, err error) {
	if j.Data == "" {
		return nil, nil, at, s, errors.New("the folder does not say where the member's data are")
	}
	mine, err := j.Recipe.LoadMember(ctx, j.Data, j.Schema)
	if err != nil {
		return nil, nil, at, s, fmt.Errorf("the member's data: %w", err)
	}
	if p, err = j.Recipe.PlanMember(j.Schema, mine, nil); err != nil {
		return nil, nil, at, s, err
	}
	if a, err = p.Bare(); err != nil {
		return nil, nil, at, s, err
	}
	at = p.Local(e, federated.Member{Name: j.Member, Samples: p.Samples()})
	m, err := p.Problem.Build(1)
	if err != nil {
		return nil, nil, at, s, err
	}
	stats := map[string]bool{}
	for _, name := range m.StatNames() {
		stats[name] = true
	}
	s = federated.State{Round: j.Recipe.Rounds, Sets: map[string]weights.Set{"w": j.Model.Filter(func(n string) bool { return !stats[n] })}}
	if len(stats) > 0 {
		s.Sets["stats"] = j.Model.Filter(func(n string) bool { return stats[n] })
	}
	return p, a, at, s, nil
}

// Recommend asks the member's model for the n best items that a user of the member has not rated.
func (j *Joined) Recommend(ctx context.Context, user string, n int) (*Recommendations, error) {
	_, a, at, s, err := j.side(ctx, nil)
	if err != nil {
		return nil, err
	}
	u, err := userOf(j.Recipe, a, at, user)
	if err != nil {
		return nil, err
	}
	return recommended(a, at, s, j.Kept, u, n)
}

// Own returns the model that the member uses of its own.
func (j *Joined) Own(ctx context.Context, e *train.Engine) (*Trained, error) {
	p, a, at, s, err := j.side(ctx, e)
	if err != nil {
		return nil, err
	}
	card, err := p.Card()
	if err != nil {
		return nil, err
	}
	card.Source.Run = j.Run
	return own(ctx, a, at, s, j.Kept, card, j.Recipe.Method)
}

// own makes the model that a client uses of its own, with a card like that of the global one.
func own(ctx context.Context, a federated.Algorithm, at federated.Local, s federated.State, keep *weights.Set, card *Card, method string) (*Trained, error) {
	owner, ok := a.(federated.Owner)
	if !ok {
		return nil, fmt.Errorf("clients of %s have no models of their own", method)
	}
	made, err := owner.OwnModel(ctx, at, s, keep)
	if err != nil {
		return nil, fmt.Errorf("the model of %s: %w", at.Member.Name, err)
	}
	card.Source.Rounds, card.Source.Client = s.Round, at.Member.Name
	m := &Trained{Card: card, Weights: made.Weights, Stats: made.Options.Stats.Convert(weights.Float32), test: &at.Test, skew: at.Skew}
	return m, m.fits()
}
