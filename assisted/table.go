package assisted

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/url"
	"slices"

	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/weights"
	"gonum.org/v1/gonum/mat"
)

// The phases that methods of this kind have.
const (
	Rows     = "rows"    // everybody who does not know them yet is told the keys of the rows
	Fits     = "train"   // organisations fit models to residuals; where they take turns, [federated.Turn] of it
	Sketches = "sketch"  // organisations answer with a few mixtures of their features
	Tells    = "predict" // organisations answer with predictions of their models
)

// targetSet is the name of the targets of a task.
const targetSet = "r"

// Course is what a method of this kind keeps of a run beside its matrices.
type Course struct {
	Members []string `json:"members"`         // who knows the rows: the sponsor's own desk, then the others by place in the roster
	Indices []int    `json:"indices"`         // their places in the roster
	Asked   int      `json:"asked"`           // the round in which rows were told last
	Again   bool     `json:"again,omitempty"` // somebody does not know them yet
	// Out are members that are asked for nothing: they have not passed a test of usefulness that was required.
	Out      []string `json:"out,omitempty"`
	Ensemble Ensemble `json:"ensemble"`
	Stop     Stopping `json:"stop"`
	Missed   []string `json:"missed,omitempty"` // who was asked in the round under way and gave nothing that could be used
	// Away is for how many rounds in a row organisations have had weight 0 because they gave nothing.
	Away map[string]int `json:"away,omitempty"`
	// ByHeart says that models have been found to learn rows by heart, which is said once.
	ByHeart bool `json:"by_heart,omitempty"`
	// Own is whatever else the method keeps.
	Own json.RawMessage `json:"own,omitempty"`
}

// Stopping is how a run decides on held-out rows that it has come far enough.
type Stopping struct {
	Begun bool    `json:"begun,omitempty"`
	Best  int     `json:"best"`  // the number of rounds after which the loss was least
	Loss  float64 `json:"loss"`  // the least loss
	Since int     `json:"since"` // rounds that have passed since
	Over  bool    `json:"over"`  // the run has ended
}

// Heard takes the loss on held-out rows after a number of rounds, and returns whether the run is to end: when no loss of the
// last patience rounds was below the least one by more than 1e-4 of it. Patience 0 never ends.
func (s Stopping) Heard(loss float64, rounds, patience int) Stopping {
	if !s.Begun || loss < s.Loss-1e-4*math.Abs(s.Loss) {
		return Stopping{Begun: true, Best: rounds, Loss: loss}
	}
	s.Since++
	s.Over = patience > 0 && s.Since >= patience
	return s
}

// CourseOf reads what [Course.Into] wrote.
func CourseOf(s federated.State) (c Course, err error) {
	if err := json.Unmarshal(s.Meta, &c); err != nil {
		return c, fmt.Errorf("what the run keeps beside its matrices cannot be read: %w", err)
	}
	return c, nil
}

// MustCourse is [CourseOf] for states that the method wrote itself.
func MustCourse(s federated.State) Course {
	c, err := CourseOf(s)
	if err != nil {
		panic("assisted: " + err.Error())
	}
	return c
}

// Into returns s with the course in it.
func (c Course) Into(s federated.State) (federated.State, error) {
	b, err := json.Marshal(c)
	s.Meta = b
	return s, err
}

// Taking are the members that take part: those that are asked for models: all but those that are out.
func (c Course) Taking() []string {
	return slices.DeleteFunc(slices.Clone(c.Members), func(name string) bool { return slices.Contains(c.Out, name) })
}

// Place returns where a member stands among those that take part, −1 if it does not.
func (c Course) Place(name string) int { return slices.Index(c.Members, name) }

// Table is the sponsor's end of the exchange with organisations: phases, tasks, and what is made of answers.
type Table struct {
	Sponsor *Sponsor
	Disclosure
	// Desks is the organisations' side, where they are in this process; at the coordinator of a network it is not used.
	Desks federated.Client
	// Judge is what has to be small on held-out rows for the run to go on; nil is the sponsor's loss.
	Judge func(y, f *mat.Dense) float64
	// All says that in the end residuals will be sent of all rows but those to test on. Organisations are then told from the beginning that
	// these are to fit, and before the end get none for those to solve on and those held out.
	All bool
	// ByStratum has assistors fit a model for each of the sponsor's strata.
	ByStratum bool
	// Head is what makes F of the sum of what organisations say, where they share a network; nil: the sum is F.
	Head func(s federated.State) (learner.Head, error)

	recovery *float64 // what residuals tell, as it was when it was last checked; nil: it was not asked
}

// judge returns how bad predictions are on held-out rows.
func (t *Table) judge(y, f *mat.Dense) float64 {
	p := t.Sponsor.HeldOut()
	if t.Judge != nil {
		return t.Judge(p.Of(y), p.Of(f))
	}
	return t.Sponsor.Objective.Value(p.Of(y), p.Of(f))
}

// Check returns an error that says what a run lacks.
func (t *Table) Check(srv federated.Server) error {
	if t.Sponsor == nil {
		return errors.New("this method needs a sponsor: labels, and the objective that they are for")
	}
	if err := t.Sponsor.Validate(); err != nil {
		return fmt.Errorf("sponsor: %w", err)
	}
	if t.Response > 0 && !t.Sponsor.Objective.Classifies() {
		return fmt.Errorf("label_epsilon: randomised response is for classes, and the loss is %s", t.Sponsor.Objective.Loss)
	}
	if _, err := t.Sponsor.Objective.Initial(t.Sponsor.Fitted().Of(t.Sponsor.Labels)); err != nil {
		return fmt.Errorf("sponsor: %w", err)
	}
	return t.Validate()
}

// Begin returns the state before the first round: F⁰ for all rows, which is what the objective begins with, or 0.
func (t *Table) Begin(srv federated.Server, zero bool) (federated.State, error) {
	s := federated.State{Sets: map[string]weights.Set{}}
	y := t.Sponsor.Labels
	if t.Response > 0 {
		var err error
		if y, err = t.exchange(srv); err != nil {
			return s, err
		}
		s = WithMatrix(s, told, y)
	}
	start := make([]float64, t.Sponsor.Outputs())
	if !zero {
		var err error
		if start, err = t.Sponsor.Objective.Initial(t.Sponsor.Fitted().Of(y)); err != nil {
			return s, err
		}
	}
	f := Constant(len(t.Sponsor.Keys), start)
	c := Course{Asked: -1, Again: true, Ensemble: Ensemble{Start: start}}
	if t.ByStratum {
		c.Ensemble.Strata = t.Sponsor.Strata
	}
	if p := t.Sponsor.HeldOut(); p.Len() > 0 {
		c.Stop = c.Stop.Heard(t.judge(y, f), 0, 0)
	}
	return c.Into(WithMatrix(s, "F", f))
}

// Keep returns s with the course, and with what else the method keeps.
func (c Course) Keep(s federated.State, own any) (federated.State, error) {
	var err error
	if c.Own, err = json.Marshal(own); err != nil {
		return s, err
	}
	return c.Into(s)
}

// Matrix returns a matrix of the state, which must not be changed.
func Matrix(s federated.State, name string) (*mat.Dense, error) { return matrixIn(s.Sets[name], name) }

// WithMatrix returns s in which a matrix is replaced.
func WithMatrix(s federated.State, name string, x *mat.Dense) federated.State {
	return s.With(name, setOf(name, x))
}

// Next returns the phase in which the rows are told, if the round begins with one, and otherwise the step of the round that the
// method itself is at.
func (t *Table) Next(s federated.State, c Course) (p federated.Phase, step int, rows bool) {
	step = s.Step
	if c.Asked != s.Round && !(c.Again && step == 0) {
		return p, step, false
	}
	if step > 0 {
		return p, step - 1, false
	}
	return federated.Phase{Name: Rows, Always: true, Collect: []string{"rows", "rows.fit"}, Who: federated.Selection{Everyone: true,
		Eligible: func(m federated.Member) bool { return c.Place(m.Name) < 0 }}}, 0, true
}

// RowsTask tells a member the keys of the rows.
func (t *Table) RowsTask() (federated.Task, error) {
	rows, err := appendRows(nil, t.Sponsor.Keys, alongside{t.Sponsor.Blocks, t.Sponsor.Compared})
	if err != nil {
		return federated.Task{}, err
	}
	return order{Do: doRows, Rows: digestOf(AppendKeys(nil, t.Sponsor.Keys)), Fit: t.sent()}.task(nil, rows)
}

// sent is how many rows, the first ones, residuals are sent for in the whole run.
func (t *Table) sent() int {
	if t.All {
		return t.Sponsor.Fit + t.Sponsor.Solve + t.Sponsor.Held
	}
	return t.Sponsor.Fit
}

// padded are targets with rows that have none, up to as many as organisations know of.
func (t *Table) padded(r weights.Set) (weights.Set, error) {
	if !t.All {
		return r, nil
	}
	x, err := matrixIn(r, targetSet)
	if err != nil {
		return r, err
	}
	rows, columns := x.Dims()
	out := Constant(t.sent(), slices.Repeat([]float64{math.NaN()}, columns))
	out.Slice(0, rows, 0, columns).(*mat.Dense).Copy(x)
	return Targets(out), nil
}

// Told notes who knows the rows now.
func (t *Table) Told(srv federated.Server, s federated.State, c Course, roll federated.Roll) (federated.State, Course, federated.Diagnostics, error) {
	var d federated.Diagnostics
	for i, member := range roll.Each.Members {
		name := srv.Population.Member(int(member)).Name
		have, fit := roll.Each.Values["rows"][i], roll.Each.Values["rows.fit"][i]
		if !(fit >= 2) {
			d.Notes = append(d.Notes, fmt.Sprintf("%s said that it has %v of the rows to fit, and takes no part until it says otherwise", name, fit))
			continue
		}
		c.Members, c.Indices = append(c.Members, name), append(c.Indices, int(member))
		if missing := float64(len(t.Sponsor.Keys)) - have; missing > 0 {
			d.Notes = append(d.Notes, fmt.Sprintf("%s does not have %g of %d rows: its mean stands for it there", name, missing, len(t.Sponsor.Keys)))
		}
		d.Add("rows", name, have)
	}
	c.sort(t.Sponsor.Own)
	c.Asked, c.Again = s.Round, false
	for i := range srv.Population.Len() {
		if m := srv.Population.Member(i); !m.Gone && c.Place(m.Name) < 0 {
			c.Again = true
		}
	}
	s, err := c.Into(s)
	return s, c, d, err
}

// sort orders members by their place in the roster, the sponsor's own first.
func (c *Course) sort(own string) {
	order := make([]int, len(c.Members))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int {
		if ours := c.Members[a] == own; ours != (c.Members[b] == own) {
			return cmp.Compare(b2i(!ours), b2i(ours))
		}
		return cmp.Compare(c.Indices[a], c.Indices[b])
	})
	members, indices := make([]string, len(order)), make([]int, len(order))
	for i, k := range order {
		members[i], indices[i] = c.Members[k], c.Indices[k]
	}
	c.Members, c.Indices = members, indices
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// FitPhase asks organisations to fit models: those that know the rows and that may says yes to; nil is everybody.
func (t *Table) FitPhase(c Course, may func(name string) bool) federated.Phase {
	return federated.Phase{Name: Fits, Gather: true, Collect: LinkScalars(), Who: federated.Selection{Everyone: true,
		Eligible: func(m federated.Member) bool {
			return c.Place(m.Name) >= 0 && !slices.Contains(c.Out, m.Name) && (may == nil || may(m.Name))
		}}}
}

// FitTask asks for a model of targets, which are r of the rows to fit.
func (t *Table) FitTask(r weights.Set, slot Slot) (federated.Task, error) {
	return t.SharedFitTask(r, slot, "")
}

// VoteTask asks for a model of classes, of so many: r, for the rows to fit, is a label and its weight. The answer is votes
// ([learner.FitVotes]).
func (t *Table) VoteTask(r weights.Set, classes int, slot Slot) (federated.Task, error) {
	return order{Do: doVote, Rows: digestOf(AppendKeys(nil, t.Sponsor.Keys)), Slot: slot, Classes: classes}.task(map[string]weights.Set{targetSet: r}, nil)
}

// GLMTask asks for a generalised linear model of labels beside an offset: r, for the rows to fit, is a label and its offset. The answer is
// the model's part of the linear predictor ([learner.Generalised]).
func (t *Table) GLMTask(r weights.Set, family string, slot Slot) (federated.Task, error) {
	return order{Do: doGLM, Rows: digestOf(AppendKeys(nil, t.Sponsor.Keys)), Slot: slot, Family: family}.task(map[string]weights.Set{targetSet: r}, nil)
}

// Targets is the matrix r as it is sent.
func Targets(r *mat.Dense) weights.Set { return setOf(targetSet, r) }

// Over implements [federated.Ender]: held-out rows have said that further rounds make nothing better.
func (t *Table) Over(s federated.State) bool { return MustCourse(s).Stop.Over }

// Answer is what one organisation's model says.
type Answer struct {
	Name   string
	Values *mat.Dense // n×K, for all rows; where it does not have the entity, the mean
	Mean   []float64  // over the rows to fit that it has
	Absent int        // rows that it does not have
	// Means are those of each stratum, where it has fitted a model for each.
	Means [][]float64
}

// mean is what stands for the organisation in a row of a stratum.
func (a Answer) mean(stratum int) []float64 {
	if a.Means == nil {
		return a.Mean
	}
	return a.Means[stratum]
}

// Answers returns what organisations have answered to tasks of the state s, by their places in the course. Who answered
// nonsense, or too late, is dropped by name: the notes say why.
func (t *Table) Answers(srv federated.Server, s federated.State, c Course, roll federated.Roll) (answers []Answer, notes []string) {
	return t.answers(srv, s, c, roll, func(name string, attached []byte) (Answer, error) {
		return t.read(attached, t.Sponsor.Outputs(), t.strata(name))
	})
}

// answers is [Table.Answers] for whatever members were asked for.
func (t *Table) answers(srv federated.Server, s federated.State, c Course, roll federated.Roll, read func(name string, attached []byte) (Answer, error)) (answers []Answer, notes []string) {
	late := map[int]bool{}
	for _, f := range roll.Folded {
		if f.Base != s.Version {
			late[f.Member] = true
		}
	}
	for _, g := range roll.Gathered {
		name := srv.Population.Member(g.Member).Name
		if late[g.Member] {
			notes = append(notes, fmt.Sprintf("%s answered to residuals of an earlier round, and has weight 0 in this one", name))
			continue
		}
		a, err := read(name, g.Attached)
		if err != nil {
			notes = append(notes, fmt.Sprintf("%s is left out of round %d: its answer is %v", name, s.Round+1, err))
			continue
		}
		a.Name = name
		answers = append(answers, a)
	}
	slices.SortFunc(answers, func(a, b Answer) int { return cmp.Compare(c.Place(a.Name), c.Place(b.Name)) })
	return answers, notes
}

// largestAnswer bounds fitted values, so that their squares can be added.
const largestAnswer = 1e100

// checkRow returns an error unless the values are all numbers of a sensible size, or all NaN.
func checkRow(row []float64) error {
	absent := math.IsNaN(row[0])
	for _, x := range row {
		switch {
		case math.IsNaN(x) != absent:
			return errors.New("not a number here and there")
		case math.Abs(x) > largestAnswer:
			return fmt.Errorf("%v", x)
		}
	}
	return nil
}

// read reads an answer of so many columns. Strata are those that the organisation was asked for a model each of.
func (t *Table) read(attached []byte, outputs int, strata []int) (Answer, error) {
	v, err := ReadMatrix(attached)
	if err != nil {
		return Answer{}, err
	}
	return t.complete(v, outputs, strata)
}

// complete checks an answer, a row for each that was asked for, finite values of a sensible size or NaN throughout a row, and puts
// means where values are missing.
func (t *Table) complete(v *mat.Dense, outputs int, strata []int) (Answer, error) {
	rows, columns := v.Dims()
	if rows != len(t.Sponsor.Keys) || columns != outputs {
		return Answer{}, fmt.Errorf("%d×%d values, where %d×%d were asked for", rows, columns, len(t.Sponsor.Keys), outputs)
	}
	if err := readable(v); err != nil {
		return Answer{}, err
	}
	a := Answer{Values: v}
	for i := range rows {
		a.Absent += b2i(Masked(v, i))
	}
	fitted := t.Sponsor.Fitted().Of(v)
	var have bool
	if a.Mean, have = meanOf(fitted, func(int) bool { return true }); !have {
		return Answer{}, errors.New("without a value for any of the rows to fit")
	}
	for s := range strataOf(strata) {
		mean, _ := meanOf(fitted, func(i int) bool { return strata[i] == s }) // 0 where it has no row to fit, and has fitted nothing
		a.Means = append(a.Means, mean)
	}
	for i := range rows {
		if Masked(v, i) {
			v.SetRow(i, a.mean(stratum(strata, i)))
		}
	}
	return a, nil
}

// meanOf is the mean of those rows of v that are in and not masked; 0 if there are none.
func meanOf(v *mat.Dense, in func(row int) bool) (mean []float64, have bool) {
	rows, columns := v.Dims()
	mean, n := make([]float64, columns), 0
	for i := range rows {
		if Masked(v, i) || !in(i) {
			continue
		}
		n++
		for k, x := range v.RawRowView(i) {
			mean[k] += x
		}
	}
	for k := range mean {
		mean[k] /= float64(max(1, n))
	}
	return mean, n > 0
}

// Take returns the course and the state after a model's values have been added to F with a coefficient, and where share is not nil
// with one a output ([Term.Share]): to the ensemble, and to what is kept of the organisation's part on the rows that organisations
// are compared on.
func (t *Table) Take(s federated.State, c Course, a Answer, slot Slot, coefficient float64, share []float64) (federated.State, Course, error) {
	c.Ensemble = c.Ensemble.with(a.Name, Term{Slot: slot, Coefficient: coefficient, Share: share, Mean: a.Mean, Means: a.Means})
	f, err := Matrix(s, "F")
	if err != nil {
		return s, c, err
	}
	var sum, part mat.Dense
	sum.Scale(coefficient, a.Values)
	if share != nil {
		if err := scaleColumns(&sum, share); err != nil {
			return s, c, err
		}
	}
	part.CloneFrom(t.Sponsor.Scored().Of(&sum))
	sum.Add(f, &sum)
	name := partName(a.Name)
	if _, ok := s.Sets[name]; ok {
		before, err := Matrix(s, name)
		if err != nil {
			return s, c, err
		}
		part.Add(before, &part)
	}
	return WithMatrix(WithMatrix(s, "F", &sum), name, &part), c, nil
}

func partName(member string) string { return SetName("part", member) }

// SetName names a set of the state that is of one member. Names of sets have no slashes, names of members may.
func SetName(what, member string) string { return what + "." + url.PathEscape(member) }

// Measure adds what F says: the mean loss on the rows to fit as "loss.train", on those held out as "loss.held", and loss and
// metrics on those to test on; y are the labels that the run computes with.
func (t *Table) Measure(d *federated.Diagnostics, y, f *mat.Dense) {
	o := t.Sponsor.Objective
	p := t.Sponsor.Fitted()
	d.Add("loss.train", "", o.Value(p.Of(y), p.Of(f)))
	if p = t.Sponsor.HeldOut(); p.Len() > 0 {
		d.Add("loss.held", "", o.Value(p.Of(y), p.Of(f)))
	}
	if p = t.Sponsor.Tested(); p.Len() > 0 {
		d.Add("loss", "", o.Value(p.Of(y), p.Of(f)))
		for _, m := range o.Measure(p.Of(y), p.Of(f)) {
			if !math.IsNaN(m.Value) {
				d.Metrics = append(d.Metrics, m)
			}
		}
	}
}

// Close ends a round of planned ones: it measures F, compares organisations, and decides whether the run is over.
func (t *Table) Close(srv federated.Server, s federated.State, c Course, d *federated.Diagnostics, planned, patience int) (Course, error) {
	f, err := Matrix(s, "F")
	if err != nil {
		return c, err
	}
	y, err := t.Labels(s)
	if err != nil {
		return c, err
	}
	t.Measure(d, y, f)
	t.suspect(&c, d, y, f)
	if p := t.Sponsor.HeldOut(); p.Len() > 0 {
		c.Stop = c.Stop.Heard(t.judge(y, f), s.Round+1, patience)
		if c.Stop.Over {
			d.Notes = append(d.Notes, fmt.Sprintf("stopped: held-out rows were predicted best after %d rounds", c.Stop.Best))
		}
	}
	last := c.Stop.Over || s.Round+1 == planned
	if err := t.Compare(srv, s, c, d, last); err != nil {
		return c, err
	}
	return t.missing(srv, s, c, d, last)
}

// heartFactor is how many times more residuals may shrink on the rows that models were fitted to than on others.
const heartFactor = 3

// suspect says, once, that models learn rows by heart: the residuals of rows that they were fitted to have shrunk since F⁰ more than
// three times as much as those of rows of which nobody was sent any.
func (t *Table) suspect(c *Course, d *federated.Diagnostics, y, f *mat.Dense) {
	others := t.Sponsor.HeldOut()
	if others.Len() == 0 && t.Sponsor.Solve > 0 {
		others = t.Sponsor.Solved()
	}
	if c.ByHeart || others.Len() == 0 {
		return
	}
	f0 := c.Ensemble.Start
	if t.Head != nil {
		var err error
		if f0, err = t.Sponsor.Objective.Initial(t.Sponsor.Fitted().Of(y)); err != nil {
			return // of classes that nobody of the rows to fit has; it was said at the beginning
		}
	}
	start := Constant(len(t.Sponsor.Keys), f0)
	left := func(p Part) float64 { return t.errors(p.Of(y), p.Of(f)) / t.errors(p.Of(y), p.Of(start)) }
	fitted, other := left(t.Sponsor.Fitted()), left(others)
	if c.ByHeart = other > heartFactor*fitted; c.ByHeart {
		d.Notes = append(d.Notes, fmt.Sprintf("models learn rows by heart: %.2g of the residuals is left on the rows that they were fitted to, %.2g on others; "+
			"take tamer learners, and rows to solve weights on (rows.solve) if there are none", fitted, other))
	}
}

// errors is the root of the sum of squares of y − F, or of the residuals of classes.
func (t *Table) errors(y, f *mat.Dense) float64 {
	o := t.Sponsor.Objective
	if !o.Classifies() && o.Loss != Poisson {
		o = Objective{Loss: Squared}
	}
	return mat.Norm(numbers(o.Residual(y, f), nil), 2)
}

// Outcome returns what a run has come to: after its best round if held-out rows were to stop it or to name that round, else after
// its last.
func Outcome(s federated.State, steps Steps) (Ensemble, error) {
	c, err := CourseOf(s)
	if err == nil && (steps.Patience > 0 || steps.Best) {
		c.Ensemble = c.Ensemble.Until(c.Stop.Best)
	}
	return c.Ensemble, err
}

// Lost says of whom a phase had to do without.
func Lost(roll federated.Roll, what string) (notes []string) {
	for _, f := range roll.Failed {
		notes = append(notes, fmt.Sprintf("%s %s in round %d: %s", f.Member, what, f.Round+1, f.Reason))
	}
	return notes
}
