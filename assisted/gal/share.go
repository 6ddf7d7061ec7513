package gal

import (
	"encoding/json"
	"fmt"
	"slices"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/federated"
)

// With deep model sharing (section "Deep Model Sharing" of the paper; in the released code the option dl) organisations whose learner is
// a network fit, in round t,
//
//	min_{φ, h_1 … h_t} Σ_{i ≤ t} ℓ(r^i, h_i(φ(x)))
//
// and answer with h_t(φ(x)): one extractor φ and a head a round instead of a network a round. So φ, and with it what earlier heads say,
// changes until the last round. The released code predicts with the last φ and with weights and rates that were found with earlier ones;
// here all heads are asked once more after the last round, and weights and rates are solved again in the order of the rounds, so that
// predictions of training rows are the F that training comes to.

// answered is what the method keeps of a run with shared models: the rounds of which a member has a model that was used.
type answered map[string][]int

func readAnswered(c assisted.Course) (answered, error) {
	a := answered{}
	if len(c.Own) == 0 {
		return a, nil
	}
	if err := json.Unmarshal(c.Own, &a); err != nil {
		return nil, fmt.Errorf("the rounds that organisations have answered in cannot be read: %w", err)
	}
	return a, nil
}

// note keeps that members have answered in a round.
func (a *Algorithm) note(c assisted.Course, round int, answers []assisted.Answer) (assisted.Course, error) {
	if a.DMS == "" {
		return c, nil
	}
	all, err := readAnswered(c)
	if err != nil {
		return c, err
	}
	for _, who := range answers {
		all[who.Name] = append(all[who.Name], round)
	}
	c.Own, err = json.Marshal(all)
	return c, err
}

// slots are the models that a member is asked for.
func (a answered) slots(name string) []assisted.Slot {
	var slots []assisted.Slot
	for _, t := range a[name] {
		slots = append(slots, assisted.Slot{Round: t})
	}
	return slots
}

// last reports whether the round under way is the last one.
func (a *Algorithm) last(s federated.State, c assisted.Course) bool {
	return c.Stop.Over || s.Round+1 == a.Rounds
}

// recompute is the phase after the last round in which all heads are asked.
func (a *Algorithm) recompute(c assisted.Course) federated.Phase {
	all, err := readAnswered(c)
	if err != nil {
		panic("gal: " + err.Error()) // it was written here
	}
	return a.RecomputePhase(c, func(name string) bool { return len(all[name]) > 0 })
}

// settle goes through the rounds again with what models say by now. Whoever does not say it has no part in the outcome.
func (a *Algorithm) settle(srv federated.Server, s federated.State, c assisted.Course, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	var d federated.Diagnostics
	all, err := readAnswered(c)
	if err != nil {
		return s, d, err
	}
	answers, notes := a.Recomputed(srv, s, c, roll, all.slots)
	d.Notes = append(append(d.Notes, notes...), assisted.Lost(roll, "has no part in the outcome, since it did not say what its models come to by now,")...)
	if len(answers) == 0 {
		d.Notes = append(d.Notes, "nobody has said what models come to by now: weights and rates stay those of earlier models")
		return s, d, nil
	}
	y, err := a.Labels(s)
	if err != nil {
		return s, d, err
	}
	s, c = a.Unlearned(s, c)
	held, over := a.Sponsor.HeldOut(), c.Stop.Over
	c.Stop = assisted.Stopping{}
	for round := range s.Round + 1 {
		f, err := assisted.Matrix(s, "F")
		if err != nil {
			return s, d, err
		}
		if held.Len() > 0 {
			c.Stop = c.Stop.Heard(a.Sponsor.Objective.Value(held.Of(y), held.Of(f)), round, 0)
		}
		if now := answers[assisted.Slot{Round: round}]; len(now) > 0 {
			if s, c, _, err = a.advance(s, c, assisted.Slot{Round: round}, y, f, now); err != nil {
				return s, d, err
			}
		}
	}
	f, err := assisted.Matrix(s, "F")
	if err != nil {
		return s, d, err
	}
	if held.Len() > 0 {
		c.Stop = c.Stop.Heard(a.Sponsor.Objective.Value(held.Of(y), held.Of(f)), s.Round+1, 0)
	}
	c.Stop.Over = over
	d.Notes = append(d.Notes, fmt.Sprintf("weights and rates of %d rounds are solved again, with what shared models say by now", s.Round+1))
	a.Measure(&d, y, f)
	if err := a.Compare(srv, s, c, &d, true); err != nil {
		return s, d, err
	}
	s.Version++
	s, err = c.Into(s)
	return s, d, err
}

// sharings are the values of [Options.DMS].
var sharings = []string{"", assisted.ShareWarm, assisted.ShareRestart}

func checkSharing(dms string) error {
	if !slices.Contains(sharings, dms) {
		return fmt.Errorf("dms: %q, expected %s, %s or nothing", dms, assisted.ShareWarm, assisted.ShareRestart)
	}
	return nil
}
