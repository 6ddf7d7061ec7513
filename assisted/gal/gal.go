package gal

import (
	"context"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/federated"
	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
	"gonum.org/v1/gonum/stat"
)

// Algorithm is the method, as [Options.New] makes it.
type Algorithm struct {
	Options
	assisted.Table
	Rounds int // how many are planned
}

// residuals is the set of what is sent.
const residuals = "r"

// Check implements [federated.Algorithm].
func (a *Algorithm) Check(srv federated.Server) error {
	if err := a.Table.Check(srv); err != nil {
		return err
	}
	s := a.Sponsor
	if a.Lead && s.Own == "" {
		return fmt.Errorf("lead: the first round is the sponsor's alone, and the sponsor does not say which member that is")
	}
	if a.Weights == "own" && s.Own == "" {
		return fmt.Errorf("weights: own is the sponsor's organisation alone, and the sponsor does not say which member that is")
	}
	return a.Gate(func() (float64, error) { return a.Recovery(srv) })
}

// Recovery returns the part of labels that an organisation can read off what it is sent in all planned rounds.
func (a *Algorithm) Recovery(srv federated.Server) (float64, error) {
	s, err := a.Begin(srv, false)
	if err != nil {
		return 0, err
	}
	r, err := a.left(s)
	if err != nil {
		return 0, err
	}
	received := make([]*mat.Dense, a.Rounds)
	for t := range received {
		stream := srv.Rand(t, "attack")
		received[t] = a.disturb(rand.New(rand.NewPCG(stream.Uint64(), stream.Uint64())), a.drawn(srv, r, t))
	}
	start := assisted.MustCourse(s).Ensemble.Start
	return a.Sponsor.Objective.Recover(a.Sponsor.Fitted().Of(a.Sponsor.Labels), start, received, a.likelihood(r)), nil
}

// left is the pseudo-residuals of the rows to fit.
func (a *Algorithm) left(s federated.State) (*mat.Dense, error) {
	f, err := assisted.Matrix(s, "F")
	if err != nil {
		return nil, err
	}
	y, err := a.Labels(s)
	if err != nil {
		return nil, err
	}
	p := a.Sponsor.Fitted()
	return a.Sponsor.Objective.Residual(p.Of(y), p.Of(f)), nil
}

// Init implements [federated.Algorithm].
func (a *Algorithm) Init(_ context.Context, srv federated.Server) (federated.State, error) {
	s, err := a.Begin(srv, false)
	if err != nil {
		return s, err
	}
	return a.residuals(srv, s, 0)
}

// drawn is the residuals of the rows that are drawn in a round, ⌈share·n⌉ of n without putting back (stochastic gradient boosting;
// Friedman 2002). Others are masked, so that nothing of them is sent and they are not fitted: it shows which rows were drawn, which
// tells nothing of labels, where residuals of weight 0 would have told the labels themselves.
func (a *Algorithm) drawn(srv federated.Server, r *mat.Dense, round int) *mat.Dense {
	if a.Subsample == 0 || a.Subsample == 1 {
		return r
	}
	rows, columns := r.Dims()
	out := mat.DenseCopyOf(r)
	nothing := slices.Repeat([]float64{math.NaN()}, columns)
	keep := max(2, int(math.Ceil(float64(a.Subsample*float64(rows))-1e-9)))
	for _, i := range srv.Rand(round, "subsample").Perm(rows)[min(keep, rows):] {
		out.SetRow(i, nothing)
	}
	return out
}

// residuals puts into s what is sent in a round: the pseudo-residuals of the rows to fit that are drawn, behind the noise of the
// options.
func (a *Algorithm) residuals(srv federated.Server, s federated.State, round int) (federated.State, error) {
	r, err := a.left(s)
	if err == nil {
		r, err = a.protect(srv, a.drawn(srv, r, round), round)
	}
	if err != nil {
		return s, err
	}
	return s.With(residuals, assisted.Targets(r)), nil
}

// Next implements [federated.Algorithm].
func (a *Algorithm) Next(s federated.State) (federated.Phase, bool) {
	c := assisted.MustCourse(s)
	p, step, rows := a.Table.Next(s, c)
	switch {
	case a.DMS != "" && !rows && step == 1 && a.last(s, c):
		return a.recompute(c), true
	case c.Stop.Over:
		return federated.Phase{}, false
	case rows:
		return p, true
	}
	return a.FitPhase(c, func(name string) bool { return a.asked(name, s.Round) }), step == 0
}

// asked reports whether a member takes part in fitting in a round.
func (a *Algorithm) asked(name string, round int) bool {
	return a.Weights != "own" && (!a.Lead || round > 0) || name == a.Sponsor.Own
}

// Task implements [federated.Algorithm].
func (a *Algorithm) Task(s federated.State, p federated.Phase, m federated.Member) (federated.Task, error) {
	switch p.Name {
	case assisted.Rows:
		return a.RowsTask()
	case assisted.Recomputes:
		c, err := assisted.CourseOf(s)
		if err != nil {
			return federated.Task{}, err
		}
		all, err := readAnswered(c)
		if err != nil {
			return federated.Task{}, err
		}
		return a.RecomputeTask(all.slots(m.Name))
	}
	return a.SharedFitTask(s.Sets[residuals], assisted.Slot{Round: s.Round}, a.DMS)
}

// Finish implements [federated.Algorithm].
func (a *Algorithm) Finish(_ context.Context, srv federated.Server, s federated.State, p federated.Phase, _ map[string]*federated.Sum, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	c, err := assisted.CourseOf(s)
	if err != nil {
		return s, federated.Diagnostics{}, err
	}
	if p.Name == assisted.Rows {
		s, _, d, err := a.Told(srv, s, c, roll)
		if err == nil && s.Round == 0 {
			a.tellEpsilon(&d)
			a.tellMedians(&d)
			err = a.Tell(&d, func() (float64, error) { return a.Recovery(srv) })
		}
		return s, d, err
	}
	if p.Name == assisted.Recomputes {
		return a.settle(srv, s, c, roll)
	}
	return a.assist(srv, s, c, roll)
}

// tellEpsilon puts on record what the noise on residuals is worth.
func (a *Algorithm) tellEpsilon(d *federated.Diagnostics) {
	if a.Privacy != "laplace" {
		return
	}
	const delta = 1e-6
	e := a.Epsilon(delta)
	d.Add("epsilon", "", e.Basic)
	d.Add("epsilon", "advanced", e.Advanced)
	note := fmt.Sprintf("residuals cost epsilon %g a number, %g a row in all rounds, %g with advanced composition at delta %g", e.Number, e.Basic, e.Advanced, delta)
	if !e.Holds {
		note += "; since they are clipped where the data say, this guarantees nothing: set bound"
	}
	d.Notes = append(d.Notes, note)
}

// tellMedians warns of weights that minimise absolute errors of the residuals of classes. Most of these are near 0, those of four and
// more classes by more than half, so that the best fit is about 0, and the rate that makes up for it is any number.
func (a *Algorithm) tellMedians(d *federated.Diagnostics) {
	if a.Exponent < 1.5 && a.Sponsor.Objective.Classifies() {
		d.Notes = append(d.Notes, fmt.Sprintf("exponent %g fits about the medians of residuals, which for classes are near 0: expect small steps in odd directions; 2 is right for classes", a.Exponent))
	}
}

// assist closes a round: weights, rate, and the step of F.
func (a *Algorithm) assist(srv federated.Server, s federated.State, c assisted.Course, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	var d federated.Diagnostics
	answers, notes := a.Answers(srv, s, c, roll)
	d.Notes = append(d.Notes, notes...)
	d.Notes = append(d.Notes, assisted.Lost(roll, "has weight 0")...)
	a.Aligned(srv, roll, &d)
	if len(answers) == 0 {
		d.Notes = append(d.Notes, "nobody's answer could be used: the predictions stay as they are")
		return s, d, nil
	}
	c = c.Without(srv, roll, answers)
	f, err := assisted.Matrix(s, "F")
	if err != nil {
		return s, d, err
	}
	y, err := a.Labels(s)
	if err != nil {
		return s, d, err
	}
	s, c, taken, err := a.advance(s, c, assisted.Slot{Round: s.Round}, y, f, answers)
	if err != nil {
		return s, d, err
	}
	if c, err = a.note(c, s.Round, answers); err != nil {
		return s, d, err
	}
	step := taken.step
	for m, answer := range answers {
		d.Add("weight", answer.Name, stat.Mean(taken.weights[m], nil))
	}
	d.Add("rate", "", a.Shrink*step.Rate)
	if step.Capped {
		d.Add("rate.capped", "", 1)
		d.Notes = append(d.Notes, fmt.Sprintf("the rate of round %d stopped at its cap of %g, and the loss falls still: are classes separable?", s.Round+1, a.Cap))
	}
	if step.Flat {
		d.Notes = append(d.Notes, fmt.Sprintf("round %d leads nowhere: what organisations fitted is 0 or points uphill, and the rate is 0", s.Round+1))
	}
	planned := a.Rounds
	if a.DMS != "" {
		planned++ // what organisations have contributed is said once models are what they remain
	}
	if c, err = a.Close(srv, s, c, &d, planned, a.Patience); err != nil {
		return s, d, err
	}
	s.Version++
	if s, err = c.Into(s); err != nil {
		return s, d, err
	}
	s, err = a.residuals(srv, s, s.Round+1)
	return s, d, err
}

// taken is what a round has come to.
type taken struct {
	weights [][]float64 // of those who have answered: one each, or one for each output
	step    assisted.Step
}

// advance takes a round's answers: F ← F + η Σ_m w_m g_m.
func (a *Algorithm) advance(s federated.State, c assisted.Course, slot assisted.Slot, y, f *mat.Dense, answers []assisted.Answer) (federated.State, assisted.Course, taken, error) {
	w, step := a.solve(y, f, answers)
	rate := a.Shrink * step.Rate
	for m, answer := range answers {
		coefficient, share := float64(rate*w[m][0]), []float64(nil)
		if len(w[m]) > 1 {
			coefficient, share = rate, w[m]
		}
		if coefficient == 0 || share != nil && floats.Max(share) == 0 {
			continue
		}
		var err error
		if s, c, err = a.Take(s, c, answer, slot, coefficient, share); err != nil {
			return s, c, taken{}, err
		}
	}
	return s, c, taken{w, step}, nil
}

// solve returns the weights of each organisation, one or one for each output, and the rate: on the rows that are for it, with residuals
// as they are and not as they were sent.
func (a *Algorithm) solve(y, f *mat.Dense, answers []assisted.Answer) ([][]float64, assisted.Step) {
	p := a.Sponsor.Solved()
	y, at := p.Of(y), p.Of(f)
	g := make([]*mat.Dense, len(answers))
	for m := range g {
		g[m] = p.Of(answers[m].Values)
	}
	w := a.weigh(a.Sponsor.Objective.Residual(y, at), g)
	rows, columns := at.Dims()
	all := mat.NewDense(rows, columns, nil)
	for m := range g {
		var x mat.Dense
		x.Apply(func(_, k int, v float64) float64 { return float64(w[m][min(k, len(w[m])-1)] * v) }, g[m])
		all.Add(all, &x)
	}
	switch a.Rate {
	case "lbfgs":
		return w, a.Sponsor.Objective.SearchReleased(y, at, all, a.Cap)
	case "fixed":
		return w, assisted.Step{Rate: 1, Flat: mat.Norm(all, 1) == 0}
	}
	return w, a.Sponsor.Objective.Search(y, at, all, a.Cap)
}

// weigh returns the weights of the organisations that have answered: one each, or one for each output.
func (a *Algorithm) weigh(r *mat.Dense, g []*mat.Dense) [][]float64 {
	out := make([][]float64, len(g))
	add := func(w []float64) {
		for m, v := range w {
			out[m] = append(out[m], v)
		}
	}
	switch a.Weights {
	case "exact":
		add(newStack(r, g).exact(a.Exponent))
	case "softmax-adam":
		add(newStack(r, g).softmaxAdam(a.Exponent))
	case "nnls":
		add(newStack(r, g).nonNegative())
	case "per-class":
		_, columns := r.Dims()
		for k := range columns {
			one := make([]*mat.Dense, len(g))
			for m := range g {
				one[m] = assisted.Columns(g[m], []int{k})
			}
			add(newStack(assisted.Columns(r, []int{k}), one).exact(a.Exponent))
		}
	default: // own asks nobody else
		add(slices.Repeat([]float64{1 / float64(len(g))}, len(g)))
	}
	return out
}

// Client implements [federated.Algorithm].
func (a *Algorithm) Client() federated.Client { return a.Desks }

// Ensemble returns what a run has come to: after its best round where held-out rows tell which, else after its last.
func (a *Algorithm) Ensemble(s federated.State) (assisted.Ensemble, error) {
	return assisted.Outcome(s, a.Steps)
}

var _ federated.Algorithm = (*Algorithm)(nil)
