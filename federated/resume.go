package federated

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
)

// begin makes the first state, or takes up a snapshot: it sends again what was in flight.
func (d *driver) begin(ctx context.Context, from *Snapshot) error {
	if from == nil {
		from = &Snapshot{}
	}
	d.state, d.nextID = from.State, from.NextID
	if d.state.Round == 0 && d.state.Step == 0 {
		d.roster = d.srv.Population.Len()
		if from.Under != nil {
			d.roster = min(d.roster, from.Under.Opened.Roster)
		}
		s, err := d.alg.Init(ctx, d.server())
		if err != nil {
			return fmt.Errorf("initial state: %w", err)
		}
		if err := s.canonical(); err != nil {
			return err
		}
		d.state = s
	}
	if err := d.reopen(from.Under); err != nil {
		return fmt.Errorf("snapshot: %w", err)
	}
	bases := make([]*base, len(from.Bases))
	for i, s := range from.Bases {
		p, ok := d.alg.Next(s)
		if !ok {
			return fmt.Errorf("snapshot: there is no phase %d in round %d, to which orders in flight belong", s.Step, s.Round)
		}
		bases[i] = &base{s, p}
	}
	for _, f := range from.Flights {
		if f.Base < 0 || f.Base >= len(bases) || f.Member < 0 || f.Member >= d.srv.Population.Len() {
			return fmt.Errorf("snapshot: order %d refers to member %d and base %d, which do not exist", f.ID, f.Member, f.Base)
		}
		if d.inside[f.ID] {
			continue
		}
		if err := d.send(ctx, bases[f.Base], f.ID, f.Member, f.Issued); err != nil {
			return err
		}
	}
	return nil
}

// reopen prepares the first phase to be what it was: u, if that is not nil.
func (d *driver) reopen(u *Underway) error {
	if u == nil {
		return nil
	}
	o := u.Opened
	p, ok := d.alg.Next(d.state)
	if !ok || o.Round != d.state.Round || o.Phase != p.Name || o.Base != d.state.Version {
		return fmt.Errorf("the phase under way, %q of round %d from version %d, is not the next one after the snapshot: %q of round %d from version %d",
			o.Phase, o.Round, o.Base, p.Name, d.state.Round, d.state.Version)
	}
	who, n := o.cohort(), d.srv.Population.Len()
	if o.Roster < 1 || o.Roster > n || !who.within(o.Roster) {
		return fmt.Errorf("the phase under way asked members of a roster of %d; the population has %d members", o.Roster, n)
	}
	if len(u.Fold) > 0 {
		f, err := decodeFold(u.Fold, o, p, d.pace(p).discount())
		if err != nil {
			return fmt.Errorf("checkpoint of the phase under way: %w", err)
		}
		d.partial, d.inside = f, make(map[int]bool, len(f.orders))
		for _, id := range f.orders {
			d.inside[id] = true
		}
	}
	d.under, d.roster = &o, o.Roster
	return nil
}

// snapshot returns where the run can go on from now.
func (d *driver) snapshot() Snapshot {
	s := Snapshot{State: d.state, Clock: d.members.Now(), NextID: d.nextID}
	orders := slices.Collect(maps.Values(d.flying))
	for _, a := range d.early {
		orders = append(orders, a.Order)
	}
	slices.SortFunc(orders, func(a, b *Order) int { return cmp.Compare(a.ID, b.ID) })
	place := map[*base]int{}
	for _, o := range orders {
		if _, ok := place[o.from]; !ok {
			place[o.from] = len(s.Bases)
			s.Bases = append(s.Bases, o.from.state)
		}
		s.Flights = append(s.Flights, Flight{o.ID, o.Member.Index, place[o.from], o.Issued})
	}
	return s
}
