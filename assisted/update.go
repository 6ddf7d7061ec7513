package assisted

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"

	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/weights"
	"gonum.org/v1/gonum/mat"
)

// The matrices of a task by which an organisation updates a network that it shares with others.
const (
	labelSet  = "y"    // of the rows to fit
	othersSet = "z"    // Σ X_i w_i over all others, of the rows to fit
	headSet   = "head" // the layers above, with the state of their optimiser ([learner.Layers])
)

// Update is one turn of an organisation at a network whose first layer is divided among organisations ([learner.Head], [learner.Block]).
type Update struct {
	Slot   Slot  // of the turn
	From   *Slot // the organisation's last turn that counted; nil: it has had none
	Labels *mat.Dense
	Others *mat.Dense
	Head   learner.Layers
	Descent
}

// Descent is how the organisation makes its steps.
type Descent struct {
	Loss    string  `json:"loss"`
	Classes int     `json:"classes,omitempty"`
	Widths  []int   `json:"widths"` // of the head
	Taken   int     `json:"taken"`  // steps of Adam that were made at the head before this turn
	Steps   int     `json:"steps"`
	Rate    float64 `json:"rate"`
	Plain   bool    `json:"plain,omitempty"` // along the gradient instead of Adam's
	Raw     bool    `json:"raw,omitempty"`   // columns are taken as they are instead of standardised
	// Own says that the organisation is the sponsor's: the bias of the first layer is updated, too, and its part of that layer begins at
	// random. Those of others begin at 0, so that nobody can tell their columns from what weights that he knows make of them.
	Own bool `json:"own,omitempty"`
}

// MostSteps bounds the steps of a turn, and so what one turn costs an organisation.
const MostSteps = 10_000

// check returns an error that says what cannot be done.
func (d Descent) check() error {
	if d.Steps < 1 || d.Steps > MostSteps || !(d.Rate > 0) || math.IsInf(d.Rate, 1) {
		return fmt.Errorf("asked for %d steps at rate %v; expected 1 to %d steps at a positive rate", d.Steps, d.Rate, MostSteps)
	}
	return d.objective().Validate()
}

func (d Descent) objective() Objective { return Objective{Loss: d.Loss, Classes: d.Classes} }

// UpdateTask asks an organisation for its turn.
func (t *Table) UpdateTask(u Update) (federated.Task, error) {
	o := order{Do: doUpdate, Rows: digestOf(AppendKeys(nil, t.Sponsor.Keys)), Slot: u.Slot, From: u.From, Descent: &u.Descent}
	return o.task(map[string]weights.Set{labelSet: setOf(labelSet, u.Labels), othersSet: setOf(othersSet, u.Others),
		headSet: setOf(headSet, u.Head.Matrix())}, nil)
}

// readUpdate reads what [Table.UpdateTask] wrote, for so many rows to fit, and checks that it can be done.
func readUpdate(o order, task federated.Task, fit int) (u Update, err error) {
	if o.Descent == nil {
		return u, errors.New("asked for a turn without being told how")
	}
	u = Update{Slot: o.Slot, From: o.From, Descent: *o.Descent}
	if err := u.check(); err != nil {
		return u, err
	}
	var theta *mat.Dense
	for name, to := range map[string]**mat.Dense{labelSet: &u.Labels, othersSet: &u.Others, headSet: &theta} {
		if *to, err = matrixIn(task.Sets[name], name); err != nil {
			return u, err
		}
	}
	u.Head = learner.LayersOf(theta, u.Taken)
	if err := u.Head.Check(u.Widths); err != nil {
		return u, fmt.Errorf("layers above the first: %w", err)
	}
	n, k := u.Others.Dims()
	if rows, _ := u.Labels.Dims(); rows != fit || n != fit || k != u.Widths[0] {
		return u, fmt.Errorf("%d labels and %d×%d activations for %d rows and %d units", rows, n, k, fit, u.Widths[0])
	}
	if err := u.objective().Check(u.Labels); err != nil {
		return u, err
	}
	if k, outputs := u.objective().Outputs(u.Labels), u.Widths[len(u.Widths)-1]; k != outputs {
		return u, fmt.Errorf("a network of %d outputs for labels of %d", outputs, k)
	}
	if err := finite(u.Others); err != nil {
		return u, fmt.Errorf("activations of others: %w", err)
	}
	return u, nil
}

// bytes is all that a turn is about, to tell whether it is asked for anew.
func (u Update) bytes() []byte {
	return AppendMatrix(AppendMatrix(AppendMatrix(nil, u.Others), u.Labels), u.Head.Matrix())
}

// slope is the gradient of the mean loss over rows of the labels with respect to F.
func (u Update) slope(y *mat.Dense) func(f *mat.Dense) *mat.Dense {
	n, _ := y.Dims()
	o := u.objective()
	return func(f *mat.Dense) *mat.Dense {
		g := o.Residual(y, f)
		g.Scale(-1/float64(n), g)
		return g
	}
}

// update takes the organisation's turn, or remembers what came of it before, and answers with its activations of all rows and the layers
// above as they have become.
func (d *Desk) update(ctx context.Context, at federated.Local, o order, task federated.Task) (federated.Result, error) {
	if d.Aligner != nil {
		return federated.Result{}, errors.New("this organisation aligns its rows to residuals, and a network that organisations share has none: join without --align")
	}
	rows, err := d.roster(at)
	if err != nil {
		return federated.Result{}, err
	}
	if rows.digest != o.Rows {
		return federated.Result{}, fmt.Errorf("asked for rows %.12s…; the run has %.12s…", o.Rows, rows.digest)
	}
	u, err := readUpdate(o, task, rows.fit)
	if err != nil {
		return federated.Result{}, err
	}
	b, err := d.turn(ctx, at, u, rows)
	if err != nil {
		return federated.Result{}, fmt.Errorf("turn %v: %w", u.Slot, err)
	}
	z, err := d.values(rows.at, nil, u.Widths[0], b.Predict)
	if err != nil {
		return federated.Result{}, err
	}
	d.disturb(at, z, "noise/"+u.Slot.String())
	return federated.Result{Attached: AppendMatrix(AppendMatrix(nil, z), b.Head().Matrix())}, nil
}

// turn returns the organisation's part of the first layer after a turn. What it began the turn with is what it had after the last one that
// counted, so that the outcome depends on what it is asked alone.
func (d *Desk) turn(ctx context.Context, at federated.Local, u Update, rows roster) (*learner.Block, error) {
	if err := d.admit(at, u.Slot, u.Widths[0], u.bytes(), nil); err != nil {
		return nil, err
	}
	b, err := d.block(at, u.Slot)
	if !errors.Is(err, fs.ErrNotExist) {
		return b, err
	}
	fit := make([]int, rows.fit)
	for i := range fit {
		fit[i] = rows.at[i]
		if Masked(u.Labels, i) {
			fit[i] = -1
		}
	}
	x, have := d.features(fit, nil)
	if x == nil {
		return nil, errors.New("of the entities that labels came for, this organisation has none")
	}
	switch {
	case u.From != nil:
		b, err = d.block(at, *u.From)
	case u.Own:
		b, err = learner.NewBlock(x, u.Widths[0], u.Raw, at.Rand(u.Slot.Round, "first layer"))
	default:
		b, err = learner.NewBlock(x, u.Widths[0], u.Raw, nil)
	}
	if err != nil {
		return nil, err
	}
	b, err = b.Update(ctx, learner.Turn{X: x, Others: Pick(u.Others, have), Widths: u.Widths, Head: u.Head, Bias: u.Own, Slope: u.slope(Pick(u.Labels, have)),
		Steps: u.Steps, Rate: u.Rate, Plain: u.Plain})
	if err != nil {
		return nil, err
	}
	kept, err := b.MarshalBinary()
	if err == nil {
		err = d.Store.Put(modelName(at, u.Slot), kept)
	}
	return b, err
}

// block is the organisation's part of the first layer after a turn.
func (d *Desk) block(at federated.Local, s Slot) (*learner.Block, error) {
	m, err := d.load(at, s)
	if err != nil {
		return nil, err
	}
	b, ok := m.(*learner.Block)
	if !ok {
		return nil, fmt.Errorf("model %v is no part of a network", s)
	}
	return b, nil
}

// Updated is what an organisation's turn came to: its activations, n×h, and the layers above.
type Updated struct {
	Answer
	Head learner.Layers
}

// Updates returns what organisations have answered to tasks of [Table.UpdateTask], as [Table.Answers] does: of layers of such widths, after so
// many steps.
func (t *Table) Updates(srv federated.Server, s federated.State, c Course, roll federated.Roll, widths []int, steps int) (updates []Updated, notes []string) {
	heads := map[string]learner.Layers{}
	answers, notes := t.answers(srv, s, c, roll, func(name string, attached []byte) (Answer, error) {
		all, err := ReadMatrices(attached)
		if err == nil && len(all) != 2 {
			err = fmt.Errorf("%d matrices, where activations and the layers above were asked for", len(all))
		}
		if err != nil {
			return Answer{}, err
		}
		h := learner.LayersOf(all[1], steps)
		if err := h.Check(widths); err != nil {
			return Answer{}, fmt.Errorf("layers above the first: %w", err)
		}
		heads[name] = h
		return t.complete(all[0], widths[0], nil)
	})
	for _, a := range answers {
		updates = append(updates, Updated{a, heads[a.Name]})
	}
	return updates, notes
}

// Replace returns the course and the state in which an organisation's activations are those of its last turn.
func (t *Table) Replace(s federated.State, c Course, a Answer, slot Slot) (federated.State, Course) {
	c.Ensemble = c.Ensemble.without(a.Name).with(a.Name, Term{Slot: slot, Coefficient: 1, Mean: a.Mean})
	return WithMatrix(s, partName(a.Name), a.Values), c
}

// Activations are Σ X_m w_m (n×h) over all organisations but one, added up by name; empty: over all. Who has had no turn has none.
func (t *Table) Activations(s federated.State, c Course, but string) (*mat.Dense, error) {
	z := mat.NewDense(len(t.Sponsor.Keys), len(c.Ensemble.Start), nil)
	for _, v := range c.Ensemble.sorted() {
		if v.Name == but {
			continue
		}
		part, err := Matrix(s, partName(v.Name))
		if err != nil {
			return nil, err
		}
		z.Add(z, part)
	}
	return z, nil
}
