package fedtest

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/weights"
)

// Coordinator carries a run through one life after another, as a process does that is killed again and again and goes on
// from what it had made durable: the newest snapshot of a phase or a round, the phase opened since with its last checkpoint,
// and the answers that it had accepted and that are inside neither. It is both [federated.Members], around those of the
// life, and [federated.FoldSaver].
type Coordinator struct {
	// Every is how many answers come between two checkpoints of a phase; 0: there are none.
	Every int
	// Shuffle orders the accepted answers that a new life is given first, as far as they were folded already: another number,
	// another order. Those that came before it was their phase's turn keep theirs, for there may be more of them than the
	// quorum.
	Shuffle uint64
	Rounds  []federated.RoundClosed // in all lives
	Events  int                     // in this life: what happens before and after which it may be killed

	members *Members // of this life
	life    int
	left    int // events until it is killed; negative: it is not

	// What is durable.
	from     federated.Snapshot
	kept     map[int]*weights.Set
	accepted []*federated.Answer // in their order
	used     map[int]bool        // orders whose answers it has forgotten, because they are inside
	folding  bool                // an answer of the phase under way came since it was opened: all of that phase are folded
	clock    time.Duration

	again []*federated.Answer // accepted answers to orders that were issued once more
}

// ErrKilled is the error of a run that was killed.
var ErrKilled = errors.New("killed")

// Live runs r until its end or until it is killed after so many events; negative: not at all.
func (c *Coordinator) Live(ctx context.Context, r *Run, events int) (federated.State, error) {
	c.life++
	c.left, c.Events, c.again = events, 0, nil
	r.prepare()
	c.members = &r.Members
	c.members.Restore(c.clock, c.kept)
	var from *federated.Snapshot
	if c.from.Under != nil || c.from.State.Round > 0 || c.from.State.Step > 0 {
		s := c.from
		from = &s
	}
	return federated.Run(ctx, r.Algorithm, r.World.Server(), c, c, r.Config, from)
}

// Kept returns what members keep, by index.
func (c *Coordinator) Kept() map[int]*weights.Set { return c.members.Kept() }

func (c *Coordinator) event() error {
	if c.left == 0 {
		return ErrKilled
	}
	c.left--
	c.Events++
	return nil
}

// durable does something that is durable when it is done, and may be killed before and after.
func (c *Coordinator) durable(do func() error) error {
	if err := c.event(); err != nil {
		return err
	}
	if err := do(); err != nil {
		return err
	}
	return c.event()
}

// Now implements [federated.Members].
func (c *Coordinator) Now() time.Duration { return c.members.Now() }

// Issue implements [federated.Members].
func (c *Coordinator) Issue(ctx context.Context, o *federated.Order) error {
	if c.used[o.ID] {
		return fmt.Errorf("order %d, of %s in %s of round %d, was answered, and its answer used up", o.ID, o.Member.Name, o.Phase, o.Round)
	}
	if i := slices.IndexFunc(c.accepted, func(a *federated.Answer) bool { return a.Order.ID == o.ID }); i >= 0 {
		a := c.accepted[i]
		if p := a.Order; p.Member != o.Member || p.Round != o.Round || p.Phase != o.Phase || p.Base != o.Base || p.Issued != o.Issued {
			return fmt.Errorf("order %d, of %s in %s of round %d, was %+v in an earlier life", o.ID, o.Member.Name, o.Phase, o.Round, p)
		}
		c.accepted[i] = &federated.Answer{Order: o, Task: a.Task, Result: a.Result, Err: a.Err}
		c.again = append(c.again, c.accepted[i])
		slices.SortFunc(c.again, func(a, b *federated.Answer) int {
			return slices.Index(c.accepted, a) - slices.Index(c.accepted, b)
		})
		return nil
	}
	return c.members.Issue(ctx, o)
}

// Next implements [federated.Members].
func (c *Coordinator) Next(ctx context.Context, deadline time.Duration) (a *federated.Answer, err error) {
	if err := c.event(); err != nil {
		return nil, err
	}
	if n := len(c.again); n > 0 {
		i := rng.New(c.Shuffle, c.life, "", fmt.Sprint(c.Events)).IntN(n)
		if !c.folded(c.again[i]) {
			i = slices.IndexFunc(c.again, func(a *federated.Answer) bool { return !c.folded(a) })
		}
		a = c.again[i]
		c.again = slices.Delete(c.again, i, i+1)
		return a, nil
	}
	if a, err = c.members.Next(ctx, deadline); a != nil {
		c.accepted = append(c.accepted, a)
		c.folding = c.folding || a.Order.Phase == c.from.Under.Opened.Phase
	}
	c.clock = c.members.Now()
	return a, err
}

// folded reports whether an answer had been folded in the life in which it came.
func (c *Coordinator) folded(a *federated.Answer) bool {
	return c.folding && a.Order.Phase == c.from.Under.Opened.Phase
}

// Drop implements [federated.Members].
func (c *Coordinator) Drop(o *federated.Order) {
	c.again = slices.DeleteFunc(c.again, func(a *federated.Answer) bool { return a.Order == o })
	c.members.Drop(o)
}

// Keep implements [federated.Members].
func (c *Coordinator) Keep(member int, s *weights.Set) error { return c.members.Keep(member, s) }

// PhaseOpened implements [federated.Log].
func (c *Coordinator) PhaseOpened(p federated.PhaseOpened) error {
	return c.durable(func() error {
		c.folding = false
		b, err := json.Marshal(p)
		c.from.Under = &federated.Underway{}
		return errors.Join(err, json.Unmarshal(b, &c.from.Under.Opened))
	})
}

// FoldDue implements [federated.FoldSaver].
func (c *Coordinator) FoldDue(unsaved int) bool { return c.Every > 0 && unsaved >= c.Every }

// SaveFold implements [federated.FoldSaver]. It forgets about the answers that are inside.
func (c *Coordinator) SaveFold(opened federated.PhaseOpened, write func(io.Writer) error) error {
	return c.durable(func() error {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			return err
		}
		c.from.Under.Fold, c.kept = b.Bytes(), c.members.Kept()
		c.forget(func(o *federated.Order) bool {
			return o.Phase == opened.Phase && !slices.ContainsFunc(c.again, func(a *federated.Answer) bool { return a.Order.ID == o.ID })
		})
		return nil
	})
}

// PhaseClosed implements [federated.Log].
func (c *Coordinator) PhaseClosed(_ federated.PhaseClosed, snapshot func() federated.Snapshot) error {
	return c.durable(func() error {
		c.save(snapshot())
		return nil
	})
}

// RoundClosed implements [federated.Log].
func (c *Coordinator) RoundClosed(r federated.RoundClosed, s federated.Snapshot) error {
	return c.durable(func() error {
		c.save(s)
		c.Rounds = append(c.Rounds, r)
		return nil
	})
}

// Progress implements [federated.Log].
func (c *Coordinator) Progress(string, int, int) {}

// save makes a snapshot durable. It forgets about the answers that have had their effect.
func (c *Coordinator) save(s federated.Snapshot) {
	c.from, c.kept = s, c.members.Kept()
	c.forget(func(o *federated.Order) bool {
		return !slices.ContainsFunc(s.Flights, func(f federated.Flight) bool { return f.ID == o.ID })
	})
}

func (c *Coordinator) forget(inside func(*federated.Order) bool) {
	c.accepted = slices.DeleteFunc(c.accepted, func(a *federated.Answer) bool {
		if !inside(a.Order) {
			return false
		}
		if c.used == nil {
			c.used = map[int]bool{}
		}
		c.used[a.Order.ID] = true
		return true
	})
}
