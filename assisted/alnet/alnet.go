package alnet

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/federated"
	"gonum.org/v1/gonum/mat"
)

// Algorithm is Procedure 2, as [Options.New] makes it.
type Algorithm struct {
	Options
	assisted.Table
	Rounds int // how many are planned
}

// What a run keeps beside F and the activations of each organisation.
const (
	layers = "head" // b and w̃ as one row, their moments as two more
	best   = "best" // the same after the best round so far
)

// own is what the method keeps beside the course.
type own struct {
	// F = Offset + Scale · network, by output.
	Offset []float64 `json:"offset"`
	Scale  []float64 `json:"scale"`
	// Initial is F⁰, which is all that there is to say if no round makes held-out rows any better.
	Initial []float64 `json:"initial"`
	// Widths are those of the layers, the outputs' besides.
	Widths []int `json:"widths"`
	// Taken is how many steps of Adam have been made.
	Taken int `json:"taken"`
	// Best is whose parts the network has after the best round by held-out rows; nil: there are no such rows.
	Best []assisted.Voice `json:"best,omitempty"`
}

// Check implements [federated.Algorithm].
func (a *Algorithm) Check(srv federated.Server) error {
	if err := a.Table.Check(srv); err != nil {
		return err
	}
	if a.Sponsor.Own == "" {
		return errors.New("al-network begins with the sponsor's organisation, and the sponsor does not say which member that is")
	}
	return a.Gate(func() (float64, error) { return a.labelsTold(srv) })
}

// labelsTold returns the part of labels that assistors are told: all, unless labels are exchanged at random before.
func (a *Algorithm) labelsTold(srv federated.Server) (float64, error) {
	s, err := a.Begin(srv, true)
	if err != nil {
		return 0, err
	}
	y, err := a.Labels(s)
	if err != nil {
		return 0, err
	}
	same, all := 0, 0
	for i := range a.Sponsor.Fit {
		if assisted.Masked(y, i) {
			continue
		}
		all++
		if mat.Equal(y.RowView(i), a.Sponsor.Labels.RowView(i)) {
			same++
		}
	}
	return float64(same) / float64(all), nil
}

// Init implements [federated.Algorithm].
func (a *Algorithm) Init(_ context.Context, srv federated.Server) (federated.State, error) {
	s, err := a.Begin(srv, a.Start == "zero")
	if err != nil {
		return s, err
	}
	y, err := a.Labels(s)
	if err != nil {
		return s, err
	}
	c := assisted.MustCourse(s)
	o := own{Widths: append(append([]int{}, a.Hidden...), a.Sponsor.Outputs()), Initial: c.Ensemble.Start}
	h := learner.NewHead(o.Widths, srv.Rand(0, "layers"))
	o.Offset, o.Scale = a.scale(y, c.Ensemble.Start)
	if !a.scales() {
		h.Begin(c.Ensemble.Start)
	}
	c.Ensemble.Start = make([]float64, a.Hidden[0])
	return c.Keep(assisted.WithMatrix(s, layers, learner.NewLayers(h).Matrix()), o)
}

// scales reports whether labels can be fitted in other units than their own, so that the loss is the same but for a factor.
func (a *Algorithm) scales() bool {
	loss := a.Sponsor.Objective.Loss
	return loss == assisted.Squared || loss == assisted.Absolute
}

// scale returns what the network's outputs are multiplied with and what is added: quantities are fitted in units of their deviation
// from F⁰, if the run starts with that.
func (a *Algorithm) scale(y *mat.Dense, start []float64) (offset, scale []float64) {
	offset, scale = make([]float64, len(start)), make([]float64, len(start))
	for k := range scale {
		scale[k] = 1
		if a.Start == "zero" || !a.scales() {
			continue
		}
		offset[k] = start[k]
		sum, n := 0.0, 0
		for i := range a.Sponsor.Fit {
			if e := y.At(i, k) - start[k]; !math.IsNaN(e) {
				sum += float64(e * e)
				n++
			}
		}
		if sum > 0 {
			scale[k] = math.Sqrt(sum / float64(n))
		}
	}
	return offset, scale
}

func ownOf(c assisted.Course) (o own) {
	if err := json.Unmarshal(c.Own, &o); err != nil {
		panic(fmt.Sprintf("alnet: what the run keeps cannot be read: %v", err)) // it was written here
	}
	return o
}

// head is what makes F of pre-activations, by [layers] or [best].
func (o own) head(s federated.State, name string) (learner.Head, error) {
	x, err := assisted.Matrix(s, name)
	if err != nil {
		return learner.Head{}, err
	}
	return learner.Head{Widths: o.Widths, Theta: x.RawRowView(0)}.Scaled(o.Offset, o.Scale), nil
}

// head is what makes F of pre-activations by now.
func (a *Algorithm) head(s federated.State) (learner.Head, error) {
	return ownOf(assisted.MustCourse(s)).head(s, layers)
}

// Next implements [federated.Algorithm].
func (a *Algorithm) Next(s federated.State) (federated.Phase, bool) {
	c := assisted.MustCourse(s)
	if c.Stop.Over {
		return federated.Phase{}, false
	}
	p, step, rows := a.Table.Next(s, c)
	if rows {
		return p, true
	}
	who := turn(c, s.Round)
	p = a.FitPhase(c, func(name string) bool { return name == who })
	p.Always = true // whoever is lost, the round goes on
	return p, step == 0
}

// turn is whose turn it is in a round; empty: nobody takes part.
func turn(c assisted.Course, round int) string {
	taking := c.Taking()
	if len(taking) == 0 {
		return ""
	}
	return taking[round%len(taking)]
}

// Task implements [federated.Algorithm].
func (a *Algorithm) Task(s federated.State, p federated.Phase, m federated.Member) (federated.Task, error) {
	if p.Name == assisted.Rows {
		return a.RowsTask()
	}
	c, err := assisted.CourseOf(s)
	if err != nil {
		return federated.Task{}, err
	}
	o := ownOf(c)
	y, err := a.Labels(s)
	if err != nil {
		return federated.Task{}, err
	}
	z, err := a.Activations(s, c, m.Name)
	if err != nil {
		return federated.Task{}, err
	}
	h, err := assisted.Matrix(s, layers)
	if err != nil {
		return federated.Task{}, err
	}
	objective, fit := a.Sponsor.Objective, a.Sponsor.Fitted()
	u := assisted.Update{Slot: assisted.Slot{Round: s.Round}, Labels: a.units(fit.Of(y), o), Others: fit.Of(z), Head: learner.LayersOf(h, o.Taken),
		Descent: assisted.Descent{Loss: objective.Loss, Classes: objective.Classes, Widths: o.Widths, Taken: o.Taken, Steps: a.Inner, Rate: a.Rate,
			Plain: a.Optimizer == "gradient", Raw: a.Raw, Own: m.Name == a.Sponsor.Own}}
	if before := c.Ensemble.Voice(m.Name).Terms; len(before) > 0 {
		u.From = &before[0].Slot
	}
	return a.UpdateTask(u)
}

// units are labels as the network is fitted to them: as they are where no others will do.
func (a *Algorithm) units(y *mat.Dense, o own) *mat.Dense {
	out := mat.DenseCopyOf(y)
	if !a.scales() {
		return out
	}
	out.Apply(func(_, k int, v float64) float64 { return (v - o.Offset[k]) / o.Scale[k] }, out)
	return out
}

// Finish implements [federated.Algorithm].
func (a *Algorithm) Finish(_ context.Context, srv federated.Server, s federated.State, p federated.Phase, _ map[string]*federated.Sum, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	c, err := assisted.CourseOf(s)
	if err != nil {
		return s, federated.Diagnostics{}, err
	}
	if p.Name != assisted.Rows {
		return a.take(srv, s, c, roll)
	}
	s, _, d, err := a.Table.Told(srv, s, c, roll)
	if err == nil && s.Round == 0 {
		d.Notes = append(d.Notes, "labels are told to every organisation that takes part, and each shows what the first layer makes of its columns")
		err = a.Tell(&d, func() (float64, error) { return a.labelsTold(srv) })
	}
	return s, d, err
}

// take puts what an organisation's turn came to in the place of what it had, and closes the round.
func (a *Algorithm) take(srv federated.Server, s federated.State, c assisted.Course, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	var d federated.Diagnostics
	o := ownOf(c)
	taken := o.Taken
	if a.Optimizer == "adam" {
		taken += a.Inner
	}
	updates, notes := a.Updates(srv, s, c, roll, o.Widths, taken)
	d.Notes = append(append(d.Notes, notes...), assisted.Lost(roll, "leaves its part of the network as it was")...)
	var answers []assisted.Answer
	for _, u := range updates {
		answers = append(answers, u.Answer)
		s, c = a.Replace(s, c, u.Answer, assisted.Slot{Round: s.Round})
		s, o.Taken = assisted.WithMatrix(s, layers, u.Head.Matrix()), taken
	}
	c = c.Without(srv, roll, answers)
	s, err := a.predict(s, c)
	if err != nil {
		return s, d, err
	}
	s.Version++
	before := c.Stop
	if c, err = a.Close(srv, s, c, &d, a.Rounds, a.Patience); err != nil {
		return s, d, err
	}
	if c.Stop.Best != before.Best { // the best round so far
		h, err := assisted.Matrix(s, layers)
		if err != nil {
			return s, d, err
		}
		s, o.Best = assisted.WithMatrix(s, best, h), c.Ensemble.Members
	}
	s, err = c.Keep(s, o)
	return s, d, err
}

// predict puts F of all rows into s.
func (a *Algorithm) predict(s federated.State, c assisted.Course) (federated.State, error) {
	z, err := a.Activations(s, c, "")
	if err != nil {
		return s, err
	}
	h, err := a.head(s)
	if err != nil {
		return s, err
	}
	return assisted.WithMatrix(s, "F", h.Values(z)), nil
}

// Client implements [federated.Algorithm].
func (a *Algorithm) Client() federated.Client { return a.Desks }

// Ensemble returns what a run has come to: after its best round where held-out rows were to tell which, else after its last.
func (a *Algorithm) Ensemble(s federated.State) (assisted.Ensemble, error) {
	c, err := assisted.CourseOf(s)
	if err != nil {
		return assisted.Ensemble{}, err
	}
	o, name, e := ownOf(c), layers, c.Ensemble
	if (a.Patience > 0 || a.Best) && c.Stop.Begun {
		if c.Stop.Best == 0 {
			return assisted.Ensemble{Start: o.Initial}, nil
		}
		name, e.Members = best, o.Best
	}
	h, err := o.head(s, name)
	if err != nil {
		return assisted.Ensemble{}, err
	}
	e.Head = &h
	return e, nil
}

var _ federated.Algorithm = (*Algorithm)(nil)
