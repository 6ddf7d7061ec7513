package reproduce

import (
	"context"
	"fmt"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/alnet"
	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/federated"
)

// networkRounds are those after which errors of a shared network are compared.
var networkRounds = []int{1, 10, 25, 50, 100, 150, 200}

// centred is a draw of Friedman's first problem among two organisations, of which the sponsor has x₁, x₂ and x₄, moved to have mean 0.
func centred(seed uint64, test int) division {
	d := friedman(seed, test, 0, learner.Spec{Name: "linear"})
	d.x.Apply(func(_, _ int, v float64) float64 { return v - 0.5 }, d.x)
	d.columns, d.checkpoint = [][]int{{0, 1, 3}, {2, 4}}, 50
	return d
}

// turns runs Procedure 2 on each draw and returns the mean RMSE after each round.
func (l *Lab) turns(ctx context.Context, what string, inner, draws, test int, divide func(division) division) ([]float64, error) {
	last := networkRounds[len(networkRounds)-1]
	out := make([]float64, last)
	o := alnet.Defaults()
	o.Inner, o.Raw = inner, true
	for k := range uint64(draws) {
		d := divide(centred(l.Seed+k, test))
		r, err := l.assist(ctx, fmt.Sprintf("%s, draw %d", what, d.seed), "al-network", o, last, d, func(rounds int, s *assisted.Sponsor, desks federated.Client) (federated.Algorithm, error) {
			return o.New(rounds, s, desks)
		})
		if err != nil {
			return nil, err
		}
		for i := range out {
			out[i] += r.at("rmse", i+1) / float64(draws)
		}
	}
	return out, nil
}

// alNetwork is Procedure 2: one network of 32 units, whose first layer two organisations have between them, and the same network where one
// party has all columns.
func (l *Lab) alNetwork(ctx context.Context, draws, test int) error {
	for _, c := range []struct {
		inner        int
		joint, turns []float64 // by networkRounds
	}{
		{1, []float64{15.21, 14.47, 12.74, 7.04, 2.68, 2.60, 2.54}, []float64{15.21, 14.53, 12.92, 7.59, 2.79, 2.63, 2.61}},
		{10, []float64{14.47, 2.68, 2.45, 2.22, 1.87, 1.55, 1.49}, []float64{14.52, 2.81, 2.55, 2.25, 1.89, 1.40, 1.20}},
	} {
		what := fmt.Sprintf("one network, %d steps a turn", c.inner)
		joint, err := l.turns(ctx, what+", all columns in one place", c.inner, draws, test, division.pooled)
		if err != nil {
			return err
		}
		turns, err := l.turns(ctx, what, c.inner, draws, test, func(d division) division { return d })
		if err != nil {
			return err
		}
		for i, round := range networkRounds {
			l.report(fmt.Sprintf("%s, all columns in one place: RMSE after round %d", what, round), c.joint[i], alReference, joint[round-1])
			l.report(fmt.Sprintf("%s: RMSE after round %d", what, round), c.turns[i], alReference, turns[round-1])
		}
		if end := len(networkRounds) - 1; c.inner == 10 {
			at := networkRounds[end] - 1
			l.require(fmt.Sprintf("%s: RMSE after round %d, from all columns in one place", what, at+1), c.turns[end]-c.joint[end], alReference, turns[at]-joint[at], "<=", 0.2)
		}
	}
	return nil
}
