package train

import (
	"context"
	"errors"
	"fmt"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/rng"
)

// Fit is a number of passes over data.
type Fit struct {
	// Data is what all groups learn from. Splits replaces it where groups learn from different data: the view of each
	// [Group.Split]. Then the groups step in turn, each on a batch of its own, and an epoch is a pass over the largest
	// split in use while smaller ones begin again, reshuffled.
	Data   dataset.View
	Splits map[string]dataset.View
	// Group trains only the group of that name.
	Group string

	Batch  int // examples a step; the last batch of an epoch is what is left. 0: all of them in one batch
	Epochs int // passes over the data
	Steps  int // bound of the steps (of each group); with Epochs 0 the fit goes on until then

	Rate  Schedule            // learning rate, by step of this fit counted from 0
	Rates map[string]Schedule // instead of Rate, by group

	Augment dataset.Augment
	// Random orders the batches, anew in each epoch, and draws augmentation, hidden tokens and dropout. Nil keeps the
	// order of the view, and is refused if anything else is random.
	Random *rng.Stream
	// Ordered keeps the order of the view although there is a Random, for whoever orders the rows itself.
	Ordered bool
	// SkipSmall leaves out a last batch that is too small for the model's batch norm. Otherwise that is an error.
	SkipSmall bool

	// Vary, if not nil, gives the spec of each step, counted from 0: see [Session.Switch].
	Vary func(step int) *Spec
	// Before, if not nil, is told the batch of each step, counted from 0, before the step is made; an error ends the fit. It may
	// use the session to ask, and other sessions in any way.
	Before func(step int, batch dataset.View) error
	// Progress, if not nil, hears the loss of each step, counted from 1.
	Progress func(step int, loss float64)
}

// Report is what a fit did.
type Report struct {
	Steps    int     // of all groups together
	Examples int     // that the steps have seen
	Skipped  int     // batches left out because they were too small
	Loss     float64 // mean over the examples seen, each at its own step
	Last     float64 // loss of the last step
}

// turn is one group, or all, with its own order of batches.
type turn struct {
	group  int
	data   *dataset.Examples
	rows   []int32
	next   int // first row of the next batch
	rate   Schedule
	random *rng.Stream // order of the batches
}

// Fit trains until the data have been seen Epochs times, Steps is reached, ctx is done, or the loss is not finite.
// The report also tells what an unsuccessful fit did.
func (s *Session) Fit(ctx context.Context, f Fit) (Report, error) {
	turns, err := s.turns(f)
	if err != nil {
		return Report{}, fmt.Errorf("fitting %s: %w", s.l.held.Name, err)
	}
	// Batches and what is drawn for them come from streams of their own, so that turning augmentation on leaves the order
	// of the batches as it is.
	var draws *rng.Stream
	if f.Random != nil {
		for i := range turns {
			if !f.Ordered {
				turns[i].random = f.Random.Fork("batches")
			}
		}
		draws = f.Random.Fork("draws")
	}
	longest := 0
	for i := range turns {
		if len(turns[i].rows) > len(turns[longest].rows) {
			longest = i
		}
	}

	var r Report
	var total float64
	finish := func(err error) (Report, error) {
		if r.Examples > 0 {
			r.Loss = total / float64(r.Examples)
		}
		return r, err
	}
	for i := range turns {
		turns[i].shuffle()
	}
	for round, epoch := 0, 0; f.Steps == 0 || round < f.Steps; round++ {
		for i := range turns {
			t := &turns[i]
			if t.next == len(t.rows) {
				t.shuffle()
			}
			rows := t.take(f.Batch)
			if len(rows) < max(1, s.l.spec.Model.MinBatch) {
				r.Skipped++
				continue
			}
			if err := ctx.Err(); err != nil {
				return finish(err)
			}
			if f.Vary != nil {
				if err := s.Switch(f.Vary(round)); err != nil {
					return finish(err)
				}
			}
			if f.Before != nil {
				if err := f.Before(r.Steps, dataset.View{Data: t.data, Rows: rows}); err != nil {
					return finish(err)
				}
			}
			loss, err := s.fitStep(t, rows, f.Augment, draws, t.rate.At(round))
			if err != nil {
				return finish(err)
			}
			r.Steps++
			r.Examples += len(rows)
			r.Last = loss
			total += float64(loss * float64(len(rows)))
			if f.Progress != nil {
				f.Progress(r.Steps, loss)
			}
		}
		if turns[longest].next == len(turns[longest].rows) {
			if epoch++; f.Epochs > 0 && epoch == f.Epochs {
				break
			}
		}
	}
	return finish(nil)
}

// fitStep makes one step on rows of data.
func (s *Session) fitStep(t *turn, rows []int32, aug dataset.Augment, draws *rng.Stream, rate float64) (float64, error) {
	spec := s.l.spec
	at := shape{kind: stepKind, group: t.group, batch: len(rows), tokens: s.rowTokens(t.data), masked: spec.Mask != NoMask}
	l, err := s.trainingLane(at)
	if err != nil {
		return 0, err
	}
	if err := l.checkTargets(spec, t.data); err != nil {
		return 0, err
	}
	l.fill(spec, t.data, rows, aug, draws)
	return s.step(l, t.group, rate)
}

// shuffle begins a pass over the rows.
func (t *turn) shuffle() {
	t.next = 0
	if t.random == nil {
		return
	}
	t.random.Shuffle(len(t.rows), func(i, j int) { t.rows[i], t.rows[j] = t.rows[j], t.rows[i] })
}

// take returns the rows of the next batch.
func (t *turn) take(batch int) []int32 {
	n := len(t.rows) - t.next
	if batch > 0 {
		n = min(n, batch)
	}
	rows := t.rows[t.next : t.next+n]
	t.next += n
	return rows
}

// turns checks f and says who steps on what.
func (s *Session) turns(f Fit) ([]turn, error) {
	switch {
	case f.Batch < 0 || f.Epochs < 0 || f.Steps < 0:
		return nil, fmt.Errorf("batch %d, epochs %d, steps %d: none may be negative", f.Batch, f.Epochs, f.Steps)
	case f.Epochs == 0 && f.Steps == 0:
		return nil, errors.New("neither epochs nor steps are given")
	}
	var turns []turn
	add := func(group int, split, name string) error {
		view := f.Data
		if f.Splits != nil {
			var ok bool
			if view, ok = f.Splits[split]; !ok {
				return fmt.Errorf("group %q learns from split %q, which is missing", name, split)
			}
		}
		rate := f.Rate
		if r, ok := f.Rates[name]; ok && group >= 0 {
			rate = r
		}
		if rate == nil {
			return errors.New("no learning rate")
		}
		if err := rate.Validate(); err != nil {
			return err
		}
		if err := s.checkView(view, f.Batch, f.SkipSmall, true); err != nil {
			return err
		}
		if err := s.checkRandom(f.Augment, f.Random, true); err != nil {
			return err
		}
		turns = append(turns, turn{group: group, data: view.Data, rows: append([]int32(nil), view.Rows...), rate: rate})
		return nil
	}
	if f.Group != "" {
		g, err := s.l.groupIndex(f.Group)
		if err != nil {
			return nil, err
		}
		err = add(g, s.l.groups[g].Split, f.Group)
		return turns, err
	}
	together := len(f.Rates) == 0
	for _, g := range s.l.groups {
		together = together && (f.Splits == nil || g.Split == s.l.groups[0].Split)
	}
	if together {
		err := add(everyGroup, s.l.groups[0].Split, "")
		return turns, err
	}
	for j, g := range s.l.groups {
		if err := add(j, g.Split, g.Name); err != nil {
			return nil, err
		}
	}
	return turns, nil
}

// checkView returns an error unless the model can run over v in training mode in batches of the given size.
func (s *Session) checkView(v dataset.View, batch int, skipSmall, targets bool) error {
	if v.Data == nil || v.Len() == 0 {
		return errors.New("no examples")
	}
	if err := s.checkData(v.Data, targets); err != nil {
		return err
	}
	if batch == 0 || batch > v.Len() {
		batch = v.Len()
	}
	least := max(1, s.l.spec.Model.MinBatch)
	if skipSmall {
		return nil
	}
	if batch < least {
		return &BatchSizeError{Model: s.l.spec.Model.Name, Size: batch, Min: least}
	}
	if rest := v.Len() % batch; rest > 0 && rest < least {
		return fmt.Errorf("%d examples in batches of %d: %w", v.Len(), batch,
			&BatchSizeError{Model: s.l.spec.Model.Name, Size: rest, Min: least})
	}
	return nil
}

// checkData returns an error unless rows of d are what the model takes, and with targets hold what the loss compares to.
func (s *Session) checkData(d *dataset.Examples, targets bool) error {
	spec, m := s.l.spec, s.l.spec.Model
	size := 1
	for _, n := range m.Input {
		size *= n
	}
	switch {
	case m.Tokens != (d.Tok != nil):
		return fmt.Errorf("data set %s: %s takes tokens: %t, the data are tokens: %t", d.Name, m.Name, m.Tokens, d.Tok != nil)
	case m.Tokens && (s.rowTokens(d) < 1 || s.rowTokens(d) > size):
		return fmt.Errorf("data set %s: rows of %d tokens, %s reads 1 to %d", d.Name, s.rowTokens(d), m.Name, size)
	case !m.Tokens && d.Size() != size:
		return fmt.Errorf("data set %s: examples of shape %v, %s takes %v", d.Name, d.Shape, m.Name, m.Input)
	case !targets || spec.Target != FromData:
		return nil
	case spec.Loss == CrossEntropy && d.Labels == nil:
		return fmt.Errorf("data set %s has no labels", d.Name)
	case spec.Loss == MeanSquares && d.Targets == nil:
		return fmt.Errorf("data set %s has no regression targets", d.Name)
	}
	return nil
}

// checkRandom returns an error if random numbers are needed and there is no stream.
func (s *Session) checkRandom(aug dataset.Augment, r *rng.Stream, train bool) error {
	spec := s.l.spec
	if r == nil && (aug.Random() || spec.Hide.Prob > 0 || train && len(spec.Model.Noise) > 0) {
		return errors.New("augmentation, hidden tokens and dropout need a random stream")
	}
	return nil
}

// rowTokens returns how many tokens of a row the model reads.
func (s *Session) rowTokens(d *dataset.Examples) int {
	switch {
	case !s.l.spec.Model.Tokens:
		return 0
	case s.l.spec.Target == NextToken:
		return d.Size() - 1
	}
	return d.Size()
}
