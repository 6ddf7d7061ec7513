package aeal

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/federated"
	"gonum.org/v1/gonum/mat"
)

// Algorithm is the method, as [Options.New] makes it.
type Algorithm struct {
	Options
	assisted.Table
	Rounds int // how many are planned
}

// own is what the method keeps beside the course.
type own struct {
	Loss    float64 `json:"loss"`    // on the rows to fit, after the round before
	Answers int     `json:"answers"` // so far in the round under way
}

// Check implements [federated.Algorithm].
func (a *Algorithm) Check(srv federated.Server) error {
	if err := a.Table.Check(srv); err != nil {
		return err
	}
	if o, err := a.Objective(a.Sponsor.Objective); err != nil || o != a.Sponsor.Objective {
		return errors.Join(err, fmt.Errorf("the loss %s is of no family of generalised linear models", a.Sponsor.Objective.Loss))
	}
	if a.Sponsor.Outputs() != 1 {
		return fmt.Errorf("%d outputs: ae-al predicts one", a.Sponsor.Outputs())
	}
	return a.Gate(func() (float64, error) { return a.Shown(srv) })
}

// Init implements [federated.Algorithm].
func (a *Algorithm) Init(_ context.Context, srv federated.Server) (federated.State, error) {
	s, err := a.Begin(srv, false)
	if err != nil {
		return s, err
	}
	loss, err := a.loss(s)
	if err != nil {
		return s, err
	}
	return assisted.MustCourse(s).Keep(s, own{Loss: loss})
}

// loss is the mean deviance of the rows to fit.
func (a *Algorithm) loss(s federated.State) (float64, error) {
	y, f, err := a.fitted(s)
	if err != nil {
		return 0, err
	}
	return a.Sponsor.Objective.Value(y, f), nil
}

// fitted returns labels and linear predictors of the rows to fit.
func (a *Algorithm) fitted(s federated.State) (y, f *mat.Dense, err error) {
	if y, err = a.Labels(s); err != nil {
		return nil, nil, err
	}
	if f, err = assisted.Matrix(s, "F"); err != nil {
		return nil, nil, err
	}
	p := a.Sponsor.Fitted()
	return p.Of(y), p.Of(f), nil
}

// Next implements [federated.Algorithm].
func (a *Algorithm) Next(s federated.State) (federated.Phase, bool) { return a.Turn(s) }

// Task implements [federated.Algorithm].
func (a *Algorithm) Task(s federated.State, p federated.Phase, _ federated.Member) (federated.Task, error) {
	if p.Name == assisted.Rows {
		return a.RowsTask()
	}
	c, err := assisted.CourseOf(s)
	if err != nil {
		return federated.Task{}, err
	}
	y, f, err := a.fitted(s)
	if err != nil {
		return federated.Task{}, err
	}
	var r mat.Dense
	r.Augment(y, f)
	for i := range a.Sponsor.Fit {
		if assisted.Masked(y, i) {
			r.Set(i, 1, math.NaN())
		}
	}
	_, step, _ := a.Table.Next(s, c)
	return a.GLMTask(assisted.Targets(&r), a.Sponsor.Objective.Loss, assisted.Slot{Round: s.Round, Step: step})
}

// Finish implements [federated.Algorithm].
func (a *Algorithm) Finish(_ context.Context, srv federated.Server, s federated.State, p federated.Phase, _ map[string]*federated.Sum, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	return a.FinishTurn(srv, s, p, roll, a.take)
}

// take adds an organisation's part to the linear predictor, and closes the round with the last.
func (a *Algorithm) take(srv federated.Server, s federated.State, c assisted.Course, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	var d federated.Diagnostics
	_, step, _ := a.Table.Next(s, c)
	var o own
	if err := json.Unmarshal(c.Own, &o); err != nil {
		return s, d, fmt.Errorf("what the run keeps of its round: %w", err)
	}
	answers, notes := a.Answers(srv, s, c, roll)
	d.Notes = append(append(d.Notes, notes...), assisted.Lost(roll, "adds nothing to the linear predictor")...)
	c = c.Without(srv, roll, answers)
	for _, answer := range answers {
		var err error
		if s, c, err = a.Take(s, c, answer, assisted.Slot{Round: s.Round, Step: step}, 1, nil); err != nil {
			return s, d, err
		}
	}
	o.Answers += len(answers)
	s.Version++
	if !c.LastTurn(step) {
		s, err := c.Keep(s, o)
		return s, d, err
	}
	return a.end(srv, s, c, o, d)
}

// end closes a round. The run is over when it has hardly changed anything, though all were there.
func (a *Algorithm) end(srv federated.Server, s federated.State, c assisted.Course, o own, d federated.Diagnostics) (federated.State, federated.Diagnostics, error) {
	loss, err := a.loss(s)
	if err != nil {
		return s, d, err
	}
	all := len(c.Taking()) > 0 && o.Answers == len(c.Taking()) && !c.Again
	over := all && a.Tolerance > 0 && o.Loss-loss <= float64(a.Tolerance*math.Abs(o.Loss))
	if over {
		d.Notes = append(d.Notes, fmt.Sprintf("the run is over: the round lowered the deviance by no more than %g of it", a.Tolerance))
	}
	planned := a.Rounds
	if over {
		planned = s.Round + 1
	}
	if c, err = a.Close(srv, s, c, &d, planned, a.Patience); err != nil {
		return s, d, err
	}
	c.Stop.Over = c.Stop.Over || over
	s, err = c.Keep(s, own{Loss: loss})
	return s, d, err
}

// Client implements [federated.Algorithm].
func (a *Algorithm) Client() federated.Client { return a.Desks }

// Ensemble returns what a run has come to: after its best round where held-out rows tell which, else after its last. Its F are linear
// predictors.
func (a *Algorithm) Ensemble(s federated.State) (assisted.Ensemble, error) {
	return assisted.Outcome(s, a.steps())
}

var _ federated.Algorithm = (*Algorithm)(nil)
