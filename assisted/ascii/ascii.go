package ascii

import (
	"context"
	"encoding/json"
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

// What a run keeps beside F, for the rows to fit.
const (
	ignorance = "w" // n×1
	votes     = "g" // n×K: Σ α g of the round under way
)

// round is what is kept of the round under way.
type round struct {
	Voted  bool `json:"voted"`  // somebody has answered
	Helped bool `json:"helped"` // somebody was better than guessing
}

// Check implements [federated.Algorithm].
func (a *Algorithm) Check(srv federated.Server) error {
	if err := a.Table.Check(srv); err != nil {
		return err
	}
	if o := a.Sponsor.Objective; o.Loss != assisted.CrossEntropy {
		return fmt.Errorf("ascii is for classes, with the loss cross-entropy, and the loss is %s: take al or gal", o.Loss)
	}
	return a.Gate(func() (float64, error) { return a.Shown(srv) })
}

// labels are those of the rows to fit that the run computes with.
func (a *Algorithm) labels(s federated.State) ([]int, error) {
	y, err := a.Labels(s)
	if err != nil {
		return nil, err
	}
	out := make([]int, a.Sponsor.Fit)
	for i := range out {
		out[i] = int(y.At(i, 0))
	}
	return out, nil
}

// Init implements [federated.Algorithm].
func (a *Algorithm) Init(_ context.Context, srv federated.Server) (federated.State, error) {
	s, err := a.Begin(srv, true)
	if err != nil {
		return s, err
	}
	s = assisted.WithMatrix(s, ignorance, assisted.Constant(a.Sponsor.Fit, []float64{1}))
	return a.fresh(s, assisted.MustCourse(s))
}

// fresh returns s at the beginning of a round.
func (a *Algorithm) fresh(s federated.State, c assisted.Course) (federated.State, error) {
	s = assisted.WithMatrix(s, votes, mat.NewDense(a.Sponsor.Fit, a.Sponsor.Outputs(), nil))
	return c.Keep(s, round{})
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
	y, err := a.Labels(s)
	if err != nil {
		return federated.Task{}, err
	}
	w, err := assisted.Matrix(s, ignorance)
	if err != nil {
		return federated.Task{}, err
	}
	var r mat.Dense
	r.Augment(a.Sponsor.Fitted().Of(y), w)
	_, step, _ := a.Table.Next(s, c)
	return a.VoteTask(assisted.Targets(&r), a.Sponsor.Outputs(), assisted.Slot{Round: s.Round, Step: step})
}

// Finish implements [federated.Algorithm].
func (a *Algorithm) Finish(_ context.Context, srv federated.Server, s federated.State, p federated.Phase, _ map[string]*federated.Sum, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	return a.FinishTurn(srv, s, p, roll, a.take)
}

// take weighs what an organisation has voted, and closes the round with the last.
func (a *Algorithm) take(srv federated.Server, s federated.State, c assisted.Course, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	var d federated.Diagnostics
	_, step, _ := a.Table.Next(s, c)
	var r round
	if err := json.Unmarshal(c.Own, &r); err != nil {
		return s, d, fmt.Errorf("what the run keeps of its round: %w", err)
	}
	answers, notes := a.Answers(srv, s, c, roll)
	d.Notes = append(append(d.Notes, notes...), assisted.Lost(roll, "has no vote")...)
	c = c.Without(srv, roll, answers)
	for _, answer := range answers {
		if err := ballots(answer); err != nil {
			d.Notes = append(d.Notes, fmt.Sprintf("%s has no vote in round %d: %v", answer.Name, s.Round+1, err))
			continue
		}
		var err error
		if s, c, err = a.weigh(s, c, &r, &d, answer, assisted.Slot{Round: s.Round, Step: step}); err != nil {
			return s, d, err
		}
	}
	s.Version++
	if !c.LastTurn(step) && !c.Stop.Over {
		s, err := c.Keep(s, r)
		return s, d, err
	}
	return a.end(srv, s, c, r, d)
}

// weigh adds an organisation's votes with their weight.
func (a *Algorithm) weigh(s federated.State, c assisted.Course, r *round, d *federated.Diagnostics, answer assisted.Answer, slot assisted.Slot) (federated.State, assisted.Course, error) {
	labels, err := a.labels(s)
	if err != nil {
		return s, c, err
	}
	w, err := assisted.Matrix(s, ignorance)
	if err != nil {
		return s, c, err
	}
	before, err := assisted.Matrix(s, votes)
	if err != nil {
		return s, c, err
	}
	g := a.Sponsor.Fitted().Of(answer.Values)
	hits := right(labels, g)
	given := before
	if a.Weights == "simple" {
		given = mat.NewDense(len(labels), a.Sponsor.Outputs(), nil)
	}
	weight := alpha(labels, w.RawMatrix().Data, hits, given)
	first := !r.Voted
	r.Voted = true
	if !(weight > 0) {
		d.Add("weight", answer.Name, 0)
		d.Notes = append(d.Notes, fmt.Sprintf("%s is no better than guessing on what is left in round %d, and its votes do not count", answer.Name, s.Round+1))
		if first && a.Stop == "first" {
			c.Stop.Over = true
			d.Notes = append(d.Notes, "the run is over, as the paper has it when the first in a round is no better than guessing; with stop: nobody the others would go on")
		}
		return s, c, nil
	}
	r.Helped = true
	d.Add("weight", answer.Name, weight)
	var sum mat.Dense
	sum.Scale(weight, g)
	sum.Add(before, &sum)
	s = assisted.WithMatrix(s, votes, &sum)
	s = assisted.WithMatrix(s, ignorance, mat.NewDense(len(labels), 1, passed(w.RawMatrix().Data, hits, weight)))
	k := float64(a.Sponsor.Outputs())
	return a.Take(s, c, answer, slot, weight*(k-1)/k, nil)
}

// end closes a round.
func (a *Algorithm) end(srv federated.Server, s federated.State, c assisted.Course, r round, d federated.Diagnostics) (federated.State, federated.Diagnostics, error) {
	over := c.Stop.Over
	if r.Voted && !r.Helped && !over {
		over = true
		d.Notes = append(d.Notes, "the run is over: nobody is better than guessing on what is left")
	}
	planned := a.Rounds
	if over {
		planned = s.Round + 1
	}
	c, err := a.Close(srv, s, c, &d, planned, a.Patience)
	if err != nil {
		return s, d, err
	}
	c.Stop.Over = c.Stop.Over || over
	s, err = a.fresh(s, c)
	return s, d, err
}

// ballots returns an error unless an answer is votes, or means of votes, as they stand for entities that are not known or only by block: values
// of −1/(K−1) to 1 that add up to 0.
func ballots(a assisted.Answer) error {
	const slack = 1e-9
	rows, k := a.Values.Dims()
	none := 0
	for i := range rows {
		sum, off := 0.0, false
		for _, v := range a.Values.RawRowView(i) {
			sum += v
			off = off || v > 1+slack || v < -1/float64(k-1)-slack
		}
		if off || math.Abs(sum) > slack*float64(k) {
			none++
		}
	}
	if none > 0 {
		return fmt.Errorf("%d rows of its answer are no votes", none)
	}
	return nil
}

// Client implements [federated.Algorithm].
func (a *Algorithm) Client() federated.Client { return a.Desks }

// Ensemble returns what a run has come to: after its best round where held-out rows tell which, else after its last. Its F are logits: (K−1)/K
// Σ α g, which the exponential loss that votes are chosen by would have tend to log p but for a constant.
func (a *Algorithm) Ensemble(s federated.State) (assisted.Ensemble, error) {
	return assisted.Outcome(s, a.steps())
}

var _ federated.Algorithm = (*Algorithm)(nil)
