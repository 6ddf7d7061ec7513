package federated

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"time"
)

// busy returns the members that are at work on an earlier task of a learning phase: they are not asked again.
func (d *driver) busy(p Phase) map[int]bool {
	if p.Barrier {
		return nil
	}
	busy := make(map[int]bool, len(d.flying)+len(d.early))
	for _, o := range d.flying {
		busy[o.Member.Index] = true
	}
	for _, a := range d.early {
		busy[a.Order.Member.Index] = true
	}
	return busy
}

// waiting returns how many orders of a phase have been issued and not yet folded.
func (d *driver) waiting(phase string) int {
	n := 0
	for _, o := range d.flying {
		if o.Phase == phase {
			n++
		}
	}
	for _, a := range d.early {
		if a.Order.Phase == phase {
			n++
		}
	}
	return n
}

// pace returns how a phase closes.
func (d *driver) pace(p Phase) Pace {
	if p.Barrier {
		return Pace{}
	}
	return d.cfg.Pace
}

// exchange asks the members of a phase and folds their answers, until the phase may close.
func (d *driver) exchange(ctx context.Context, p Phase, opened PhaseOpened) (*folding, error) {
	pace, who := d.pace(p), opened.cohort()
	f := d.partial
	if f == nil {
		f = newFolding(p, pace.discount())
		f.noting = d.saver != nil
		f.stale = d.dropStale(p, f, pace)
		f.expect(who.n + d.waiting(p.Name) + f.stale)
		if err := d.spool(f); err != nil {
			return nil, err
		}
	} else if d.ruled(p) {
		return nil, errors.New("the checkpoint of the phase under way holds sums, but a robust rule is to read single results")
	}
	d.partial = nil
	awaited := f.asked - f.stale
	quorum := pace.quorum(awaited)
	// When everybody is waited for anyway, tasks go out a window at a time: what is in flight costs memory.
	window := awaited
	if pace.patient() {
		window = d.window()
	}
	var deadline time.Duration
	if pace.Deadline > 0 {
		deadline = opened.Opened + pace.Deadline
	}
	if opened.Apart {
		d.nextID = opened.First + opened.Roster
	}
	from := &base{d.state, p}
	out := d.waiting(p.Name) // orders of this phase that have not been folded
	for sent := 0; ; {
		for ; sent < who.n && out < window; sent++ {
			id := opened.order(who.at(sent), d.nextID)
			d.nextID = max(d.nextID, id+1)
			if d.inside[id] {
				continue
			}
			if err := d.send(ctx, from, id, who.at(sent), opened.Opened); err != nil {
				return nil, err
			}
			out++
		}
		if out == 0 || f.answered() >= quorum {
			break
		}
		a, err := d.next(ctx, p.Name, deadline)
		if err != nil {
			return nil, err
		}
		if a == nil {
			break
		}
		out -= a.orders()
		if err := d.fold(f, a, pace); err != nil {
			return nil, err
		}
		if r, ok := d.members.(Recycler); ok {
			r.Recycle(a)
		}
		if err := d.save(f, opened); err != nil {
			return nil, err
		}
		d.log.Progress(p.Name, f.heard(), f.asked)
	}
	d.inside = nil
	if pace.Staleness == 0 {
		why := fmt.Sprintf("had not answered when %d of %d had", f.answered(), f.asked)
		if f.answered() < quorum {
			why = fmt.Sprintf("had not answered by the deadline of %v", pace.Deadline)
		}
		d.abandon(f, why, func(o *Order) bool { return o.Phase == p.Name })
	}
	return f, nil
}

// dropStale gives up orders whose answers could not count any more, answered early or not, and returns how many there were.
func (d *driver) dropStale(p Phase, f *folding, pace Pace) int {
	why := fmt.Sprintf("not folded before the model changed more than %d times", pace.Staleness)
	stale := func(o *Order) bool { return o.Phase == p.Name && d.state.Version-o.Base > pace.Staleness }
	d.abandon(f, why, stale)
	d.early = slices.DeleteFunc(d.early, func(a *Answer) bool {
		if stale(a.Order) {
			f.abandon(a.Order, why)
			return true
		}
		return false
	})
	return len(f.failed)
}

// abandon gives up the orders in flight that match.
func (d *driver) abandon(f *folding, why string, match func(*Order) bool) {
	for _, id := range slices.Sorted(maps.Keys(d.flying)) {
		if o := d.flying[id]; match(o) {
			delete(d.flying, id)
			d.members.Drop(o)
			f.abandon(o, why)
		}
	}
}

// next returns an answer of the phase: one that came early, or the next to come. It is nil at the deadline.
func (d *driver) next(ctx context.Context, phase string, deadline time.Duration) (*Answer, error) {
	if i := slices.IndexFunc(d.early, func(a *Answer) bool { return a.Order.Phase == phase }); i >= 0 {
		a := d.early[i]
		d.early = slices.Delete(d.early, i, i+1)
		return a, nil
	}
	for {
		a, err := d.members.Next(ctx, deadline)
		if err != nil || a == nil {
			return nil, err
		}
		delete(d.flying, a.Order.ID)
		if a.Partial != nil {
			for _, part := range a.Partial.Parts {
				delete(d.flying, part.Order.ID)
			}
			return a, d.summable(a.Partial, phase)
		}
		if a.Order.Phase == phase {
			return a, nil
		}
		d.early = append(d.early, a)
	}
}

// fold adds one answer to the sums of the phase and commits what the member keeps.
func (d *driver) fold(f *folding, a *Answer, pace Pace) error {
	if a.Partial != nil {
		f.addPartial(a.Partial)
		return nil
	}
	keep := f.add(a, d.state.Version-a.Order.Base, pace.Staleness)
	if f.ruling != nil && f.ruling.err != nil {
		return fmt.Errorf("robust aggregation: %w", f.ruling.err)
	}
	if keep == nil {
		return nil
	}
	if err := d.members.Keep(a.Order.Member.Index, keep); err != nil {
		return fmt.Errorf("memory of %s: %w", a.Order.Member.Name, err)
	}
	return nil
}

// save makes a checkpoint of the sums, if one is due. It waits for answers that came early, so that all those that the
// members have given are inside.
func (d *driver) save(f *folding, opened PhaseOpened) error {
	f.unsaved++
	if f.ruling != nil { // a resumed run asks for the results again
		return nil
	}
	if d.saver == nil || d.holds(opened.Phase) || !d.saver.FoldDue(f.unsaved) {
		return nil
	}
	if err := d.saver.SaveFold(opened, func(w io.Writer) error { return f.encode(w, opened) }); err != nil {
		return fmt.Errorf("saving the sums so far: %w", err)
	}
	f.unsaved = 0
	return nil
}

// holds reports whether answers of a phase are waiting to be folded.
func (d *driver) holds(phase string) bool {
	return slices.ContainsFunc(d.early, func(a *Answer) bool { return a.Order.Phase == phase })
}

func (d *driver) window() int {
	if d.cfg.Window > 0 {
		return d.cfg.Window
	}
	return 256
}
