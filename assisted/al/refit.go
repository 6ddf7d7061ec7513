package al

import (
	"fmt"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/weights"
)

// Again is the metric that says, in the round after which it is known, how many rounds are run again.
const Again = "refit"

// again is the second stage of a run that refits: as many rounds as held-out rows were predicted best after, on all rows but those to test
// on. Nothing of the first stage is in what it comes to.
type again struct {
	From   int               `json:"from"`   // its first round
	Rounds int               `json:"rounds"` // how many it has
	Before assisted.Ensemble `json:"before"` // what the first stage came to
}

// stage is the method as it is in the stage that a run is in: in the second, rows to solve on and those held out are to fit, and nothing
// stops it before its last round.
func (a *Algorithm) stage(o own) *Algorithm {
	if o.Again == nil {
		return a
	}
	second, sponsor := *a, *a.Sponsor
	sponsor.Fit, sponsor.Solve, sponsor.Held = sponsor.Fit+sponsor.Solve+sponsor.Held, 0, 0
	second.Sponsor, second.Patience, second.Rounds = &sponsor, 0, o.Again.From+o.Again.Rounds
	return &second
}

// close ends the second stage with its last round, and begins it where the first has ended.
func (a *Algorithm) close(s federated.State, c assisted.Course, o *own, d *federated.Diagnostics) (federated.State, assisted.Course, error) {
	last := c.Stop.Over || s.Round+1 == a.Rounds
	switch {
	case !a.Refit || !last:
		return s, c, nil
	case o.Again != nil:
		c.Stop.Over = true
		return s, c, nil
	case c.Stop.Best < 1:
		d.Notes = append(d.Notes, "nothing is run again on all rows: held-out rows were predicted best before the first round")
		c.Stop.Over = true
		return s, c, nil
	}
	o.Again = &again{From: s.Round + 1, Rounds: c.Stop.Best, Before: c.Ensemble.Until(c.Stop.Best)}
	a = a.stage(*o)
	d.Notes = append(d.Notes, fmt.Sprintf("%d rounds are run again, from round %d on, on all %d rows but those to test on: held-out rows were predicted best after so many", o.Again.Rounds, o.Again.From+1, a.Sponsor.Fit))
	d.Add(Again, "", float64(o.Again.Rounds))
	c.Stop.Over = false
	if a.Start == "initial" {
		y, err := a.Labels(s)
		if err != nil {
			return s, c, err
		}
		if c.Ensemble.Start, err = a.Sponsor.Objective.Initial(a.Sponsor.Fitted().Of(y)); err != nil {
			return s, c, err
		}
	}
	s, c = a.Unlearned(s, c)
	sets := map[string]weights.Set{}
	for name, set := range s.Sets {
		if !isStream(name) {
			sets[name] = set
		}
	}
	s.Sets = sets
	s, err := a.residual(s)
	return s, c, err
}
