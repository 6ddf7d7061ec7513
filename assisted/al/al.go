package al

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/weights"
	"gonum.org/v1/gonum/mat"
)

// Algorithm is Procedure 1, as [Options.New] makes it.
type Algorithm struct {
	Options
	assisted.Table
	Rounds int // how many are planned
}

// own is what the method keeps beside the course.
type own struct {
	Order []string `json:"order"` // who is asked one after the other in the round under way
	First float64  `json:"first"` // loss after the sponsor's first fit: alone
	Begun bool     `json:"begun"`
	Again *again   `json:"again,omitempty"` // rounds are run again, on all rows but those to test on
}

// residual is the set of what is sent: e, which the next organisation fits.
const residual = "e"

// Check implements [federated.Algorithm].
func (a *Algorithm) Check(srv federated.Server) error {
	if err := a.Table.Check(srv); err != nil {
		return err
	}
	s := a.Sponsor
	if logs := s.Objective.Classifies() || s.Objective.Loss == assisted.Poisson; logs && (a.Rate == "one" || a.Start == "zero") {
		return errors.New("assisted learning with unit steps is for regression of quantities: set rate to exact and start to initial for classes and counts, or take gal")
	}
	if a.ByStratum && s.Strata == nil {
		return fmt.Errorf("strata: of the sponsor's rows it is not said which value of %q they have", a.Strata)
	}
	if a.ByStratum && s.Own == "" {
		return errors.New("strata: the sponsor's own model has the column and needs none; say which member it is")
	}
	if a.Order == "star-average" && s.Own == "" {
		return errors.New("order: star-average begins every stream with the sponsor's organisation, and the sponsor does not say which member that is")
	}
	if a.Start == "zero" && s.Own == "" && !a.Here() {
		return errors.New("the first residuals would be the labels themselves: say which member is the sponsor's own, so that its model takes something off before others are asked")
	}
	return a.Gate(func() (float64, error) { return a.Recovery(srv) })
}

// Recovery returns the part of labels that an organisation can read off a residual before anything was taken off it. The first that
// the sponsor sends is that of its own fit, which tells less.
func (a *Algorithm) Recovery(srv federated.Server) (float64, error) {
	s, err := a.Begin(srv, a.Start == "zero")
	if err != nil {
		return 0, err
	}
	f, err := assisted.Matrix(s, "F")
	if err != nil {
		return 0, err
	}
	y, err := a.Labels(s)
	if err != nil {
		return 0, err
	}
	e := a.left(y, f)
	if a.Sponsor.Objective.Loss == assisted.Squared {
		e.Scale(2, e)
	}
	start := assisted.MustCourse(s).Ensemble.Start
	return a.Sponsor.Objective.Recover(a.Sponsor.Fitted().Of(a.Sponsor.Labels), start, []*mat.Dense{e}, nil), nil
}

// Init implements [federated.Algorithm].
func (a *Algorithm) Init(_ context.Context, srv federated.Server) (federated.State, error) {
	s, err := a.Begin(srv, a.Start == "zero")
	if err == nil {
		s, err = assisted.MustCourse(s).Keep(s, own{})
	}
	if err != nil {
		return s, err
	}
	return a.residual(s)
}

// residual puts e into s: what is left of the labels, or the pseudo-residuals of another loss than the squared one.
func (a *Algorithm) residual(s federated.State) (federated.State, error) {
	f, err := assisted.Matrix(s, "F")
	if err != nil {
		return s, err
	}
	y, err := a.Labels(s)
	if err != nil {
		return s, err
	}
	return s.With(residual, assisted.Targets(a.left(y, f))), nil
}

// left is the residuals of predictions on the rows to fit: y − F for the squared loss, the negative gradient for others.
func (a *Algorithm) left(y, f *mat.Dense) *mat.Dense {
	p := a.Sponsor.Fitted()
	e := a.Sponsor.Objective.Residual(p.Of(y), p.Of(f))
	if a.Sponsor.Objective.Loss == assisted.Squared {
		e.Scale(0.5, e)
	}
	return e
}

// Next implements [federated.Algorithm].
func (a *Algorithm) Next(s federated.State) (federated.Phase, bool) {
	c := assisted.MustCourse(s)
	if c.Stop.Over {
		return federated.Phase{}, false
	}
	a = a.stage(ownOf(c))
	p, step, rows := a.Table.Next(s, c)
	if rows {
		return p, true
	}
	who, last := a.turn(c, ownOf(c), step)
	p = a.FitPhase(c, func(name string) bool { return slices.Contains(who, name) && a.may(c, name) })
	p.Name, p.Always = federated.Turn(p.Name, step), true // whoever is lost, the round goes on
	return p, step <= last
}

// may reports whether an organisation may be sent what is left of the labels: an assistor only after the sponsor's own model has taken
// something off, since before that the residuals are the labels themselves.
func (a *Algorithm) may(c assisted.Course, name string) bool {
	own := a.Sponsor.Own
	return a.Start != "zero" || own == "" || name == own || len(c.Ensemble.Voice(own).Terms) > 0
}

// turn returns who is asked at a step of a round, and the last step.
func (a *Algorithm) turn(c assisted.Course, o own, step int) (who []string, last int) {
	order := in(c, o)
	switch a.Order {
	case "greedy":
		return c.Taking(), 0
	case "star-average": // the sponsor for each stream, then all assistors at once
		assistors := a.assistors(order)
		if step < len(assistors) {
			return []string{a.Sponsor.Own}, len(assistors)
		}
		return assistors, len(assistors)
	}
	if step < len(order) {
		who = order[step : step+1]
	}
	return who, len(order) - 1
}

// in is the order of a round without those that are out.
func in(c assisted.Course, o own) []string {
	return slices.DeleteFunc(slices.Clone(o.Order), func(name string) bool { return slices.Contains(c.Out, name) })
}

func (a *Algorithm) assistors(members []string) []string {
	return slices.DeleteFunc(slices.Clone(members), func(name string) bool { return name == a.Sponsor.Own })
}

func ownOf(c assisted.Course) (o own) {
	if err := json.Unmarshal(c.Own, &o); err != nil {
		panic(fmt.Sprintf("al: what the run keeps cannot be read: %v", err)) // it was written here
	}
	return o
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
	a = a.stage(ownOf(c))
	_, step, _ := a.Table.Next(s, c)
	r := s.Sets[residual]
	if a.Order == "star-average" {
		if r, err = a.stream(s, a.whose(c, step, m.Name)); err != nil {
			return federated.Task{}, err
		}
	}
	t, err := a.FitTask(r, assisted.Slot{Round: s.Round, Step: step})
	return a.Stratify(m.Name, t), err
}

// whose is the assistor whose stream a member fits at a step: the sponsor each in turn, an assistor its own.
func (a *Algorithm) whose(c assisted.Course, step int, member string) string {
	if assistors := a.assistors(in(c, ownOf(c))); step < len(assistors) {
		return assistors[step]
	}
	return member
}

func streamName(assistor string) string { return assisted.SetName("stream", assistor) }

func isStream(set string) bool { return strings.HasPrefix(set, streamName("")) }

// predicted is the sum of fits in the stream of an assistor.
func (a *Algorithm) predicted(s federated.State, assistor string) (*mat.Dense, error) {
	if _, ok := s.Sets[streamName(assistor)]; !ok {
		return mat.NewDense(len(a.Sponsor.Keys), a.Sponsor.Outputs(), nil), nil
	}
	return assisted.Matrix(s, streamName(assistor))
}

func (a *Algorithm) stream(s federated.State, assistor string) (weights.Set, error) {
	f, err := a.predicted(s, assistor)
	if err != nil {
		return weights.Set{}, err
	}
	y, err := a.Labels(s)
	if err != nil {
		return weights.Set{}, err
	}
	return assisted.Targets(a.left(y, f)), nil
}

// Finish implements [federated.Algorithm].
func (a *Algorithm) Finish(_ context.Context, srv federated.Server, s federated.State, p federated.Phase, _ map[string]*federated.Sum, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	c, err := assisted.CourseOf(s)
	if err != nil {
		return s, federated.Diagnostics{}, err
	}
	a = a.stage(ownOf(c))
	_, step, _ := a.Table.Next(s, c)
	if p.Name == assisted.Rows {
		s, c, d, err := a.Told(srv, s, c, roll)
		if err != nil {
			return s, d, err
		}
		if s.Round == 0 {
			if err := a.Tell(&d, func() (float64, error) { return a.Recovery(srv) }); err != nil {
				return s, d, err
			}
			if a.ByStratum {
				d.Notes = append(d.Notes, fmt.Sprintf("assistors fit a model for each of %d strata of %s: %s", a.Sponsor.Strata.Count, a.Strata,
					a.Sponsor.Strata.Text(a.Sponsor.Stratum[:a.Sponsor.Fit])))
			}
		}
		o := ownOf(c)
		o.Order = a.order(srv, c, s.Round)
		s, err = c.Keep(s, o)
		return s, d, err
	}
	return a.take(srv, s, c, step, roll)
}

// order is who is asked in a round, one after the other: the sponsor's organisation first.
func (a *Algorithm) order(srv federated.Server, c assisted.Course, round int) []string {
	order := slices.Clone(c.Members)
	if a.Order == "random" {
		rest := order
		if len(order) > 0 && order[0] == a.Sponsor.Own {
			rest = order[1:]
		}
		srv.Rand(round, "order").Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	}
	return order
}

// take takes what was fitted off the residual, and closes the round at its last step.
func (a *Algorithm) take(srv federated.Server, s federated.State, c assisted.Course, step int, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	var d federated.Diagnostics
	o := ownOf(c)
	answers, notes := a.Answers(srv, s, c, roll)
	d.Notes = append(d.Notes, notes...)
	d.Notes = append(d.Notes, assisted.Lost(roll, "takes nothing off the residual")...)
	c = c.Without(srv, roll, answers)
	a.Aligned(srv, roll, &d)
	y, err := a.Labels(s)
	if err != nil {
		return s, d, err
	}
	if a.Order == "greedy" && len(answers) > 1 {
		if answers, err = a.best(s, y, answers); err != nil {
			return s, d, err
		}
	}
	for _, answer := range answers {
		rate := a.Shrink
		if a.Rate == "exact" {
			f, err := assisted.Matrix(s, "F")
			if err != nil {
				return s, d, err
			}
			found := a.search(y, f, answer)
			rate *= found.Rate
			d.Add("rate", answer.Name, rate)
			if found.Capped {
				d.Add("rate.capped", answer.Name, 1)
			}
		}
		share := 1.0
		if a.Order == "star-average" {
			share = 1 / float64(len(a.assistors(in(c, o))))
			stream := a.whose(c, step, answer.Name)
			f, err := a.predicted(s, stream)
			if err != nil {
				return s, d, err
			}
			var sum mat.Dense
			sum.Scale(rate, answer.Values)
			sum.Add(f, &sum)
			s = assisted.WithMatrix(s, streamName(stream), &sum)
		}
		if rate == 0 {
			continue
		}
		if s, c, err = a.Take(s, c, answer, assisted.Slot{Round: s.Round, Step: step}, float64(share*rate), nil); err != nil {
			return s, d, err
		}
	}
	if s, err = a.residual(s); err != nil {
		return s, d, err
	}
	s.Version++
	if !o.Begun && step == 0 && len(answers) > 0 {
		o.Begun = true
		if err := a.alone(s, y, &d, answers[0].Name); err != nil {
			return s, d, err
		}
	}
	if _, last := a.turn(c, o, step); step < last {
		s, err = c.Keep(s, o)
		return s, d, err
	}
	if c, err = a.Close(srv, s, c, &d, a.Rounds, a.Patience); err != nil {
		return s, d, err
	}
	if s, c, err = a.close(s, c, &o, &d); err != nil {
		return s, d, err
	}
	o.Order = a.order(srv, c, s.Round+1)
	s, err = c.Keep(s, o)
	return s, d, err
}

// search returns the rate of one organisation's fit.
func (a *Algorithm) search(y, f *mat.Dense, answer assisted.Answer) assisted.Step {
	p := a.Sponsor.Solved()
	return a.Sponsor.Objective.Search(p.Of(y), p.Of(f), p.Of(answer.Values), a.Cap)
}

// best is the one of the answers whose step lowers the loss most: on held-out rows, or if there are none, on those to fit.
func (a *Algorithm) best(s federated.State, y *mat.Dense, answers []assisted.Answer) ([]assisted.Answer, error) {
	f, err := assisted.Matrix(s, "F")
	if err != nil {
		return nil, err
	}
	p := a.Sponsor.HeldOut()
	if p.Len() == 0 {
		p = a.Sponsor.Fitted()
	}
	which, least := -1, 0.0
	for i, answer := range answers {
		rate := a.Shrink
		if a.Rate == "exact" {
			rate *= a.search(y, f, answer).Rate
		}
		var at mat.Dense
		at.Scale(rate, p.Of(answer.Values))
		at.Add(p.Of(f), &at)
		if v := a.Sponsor.Objective.Value(p.Of(y), &at); which < 0 || v < least {
			which, least = i, v
		}
	}
	return answers[which : which+1], nil
}

// alone reports how good the first fit is, under "alone.": what whoever is asked first, by default the sponsor, can do alone.
func (a *Algorithm) alone(s federated.State, y *mat.Dense, d *federated.Diagnostics, name string) error {
	f, err := assisted.Matrix(s, "F")
	if err != nil {
		return err
	}
	var m federated.Diagnostics
	a.Measure(&m, y, f)
	for _, v := range m.Metrics {
		d.Add("alone."+v.Name, name, v.Value)
	}
	return nil
}

// Client implements [federated.Algorithm].
func (a *Algorithm) Client() federated.Client { return a.Desks }

// Ensemble returns what a run has come to: after its best round where held-out rows tell which, else after its last; where the best rounds
// are run again, what these come to once they are all done.
func (a *Algorithm) Ensemble(s federated.State) (assisted.Ensemble, error) {
	c, err := assisted.CourseOf(s)
	if err != nil {
		return assisted.Ensemble{}, err
	}
	if o := ownOf(c); o.Again != nil {
		if c.Stop.Over {
			return c.Ensemble, nil
		}
		return o.Again.Before, nil
	}
	return assisted.Outcome(s, a.Steps)
}

var _ federated.Algorithm = (*Algorithm)(nil)
