package assisted

import (
	"github.com/cohort-learning/cohort/federated"
)

// Turn is the phase of whose turn it is, in rounds in which all that take part have theirs one after the other; the step of the round says
// which. It is of nobody where nobody takes part.
func (t *Table) Turn(s federated.State) (federated.Phase, bool) {
	c := MustCourse(s)
	if c.Stop.Over {
		return federated.Phase{}, false
	}
	p, step, rows := t.Next(s, c)
	if rows {
		return p, true
	}
	who := c.Taking()
	p = t.FitPhase(c, func(name string) bool { return step < len(who) && who[step] == name })
	p.Name, p.Always = federated.Turn(p.Name, step), true // whoever is lost, the round goes on
	return p, step < max(1, len(who))
}

// LastTurn reports whether a step is the last of its round.
func (c Course) LastTurn(step int) bool { return step+1 >= len(c.Taking()) }

// FinishTurn closes a phase of a method that tells labels: that of a turn, which take does, or that in which rows are told. Before the first round
// it is said what part of the labels is.
func (t *Table) FinishTurn(srv federated.Server, s federated.State, p federated.Phase, roll federated.Roll,
	take func(federated.Server, federated.State, Course, federated.Roll) (federated.State, federated.Diagnostics, error)) (federated.State, federated.Diagnostics, error) {
	c, err := CourseOf(s)
	if err != nil {
		return s, federated.Diagnostics{}, err
	}
	if p.Name != Rows {
		return take(srv, s, c, roll)
	}
	s, _, d, err := t.Told(srv, s, c, roll)
	if err == nil && s.Round == 0 {
		d.Notes = append(d.Notes, "labels are told to every organisation that takes part")
		err = t.Tell(&d, func() (float64, error) { return t.Shown(srv) })
	}
	return s, d, err
}

// Shown is the part of the labels of the rows to fit that are as they are where the run's labels are told to all: 1, unless they are exchanged at
// random before.
func (t *Table) Shown(srv federated.Server) (float64, error) {
	s, err := t.Begin(srv, true)
	if err != nil {
		return 0, err
	}
	y, err := t.Labels(s)
	if err != nil {
		return 0, err
	}
	same, all := 0, 0
	for i := range t.Sponsor.Fit {
		if !Masked(t.Sponsor.Labels, i) {
			all++
			same += b2i(y.At(i, 0) == t.Sponsor.Labels.At(i, 0))
		}
	}
	return float64(same) / float64(all), nil
}
