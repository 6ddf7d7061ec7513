package federated

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/secure/robust"
	"github.com/cohort-learning/cohort/weights"
)

// Rule finds the centre of results some of which may be lies; the driver takes it in place of their mean. [robust.Rule] is
// one. Results are kept in a spool until their phase closes, and no method notices: the [Sum] that it is given has the
// centre for its mean, and for its total the centre times the weights of those who hold a coordinate. Every fold has a
// centre of its own: where a method adds bookkeeping beside what is learned, as SCAFFOLD does with control variates, the
// two no longer add up to the same members.
//
// A result weighs at most the examples that its member declared, whatever it claims. What a rule remembers is a set of the
// [State], "robust.PHASE.FOLD". If a rule cannot combine what came — too few have answered — the round fails: nobody's
// result counts, members take back what they kept, and a note says why. The results of a phase under way have no checkpoint:
// a run that is resumed in the middle of it asks for them again.
type Rule interface {
	fmt.Stringer
	// Check returns an error that says why n results cannot be combined, and what to change.
	Check(n int) error
	// Weighs reports whether the weights of results count.
	Weighs() bool
	// Parts reports whether members may hold different parts of the model.
	Parts() bool
	// Combine returns the centre of the results. Before is what the rule remembered of the round before, nil at first;
	// random draws what is to be drawn. An [*robust.UnfitError] says that these results have no centre: the round fails and the
	// state stays. Other errors end the run.
	Combine(ctx context.Context, rows *robust.Spool, before *weights.Set, random *rng.Stream) (robust.Centre, error)
}

var _ Rule = robust.Rule{}

// Unruled is an [Algorithm] whose results have no centre that is worth anything under some rules.
type Unruled interface {
	// Unruled returns why the method does not go with a rule, and what to do, or nil.
	Unruled(Rule) error
}

// Spool is where the results lie that a [Rule] reads.
type Spool struct {
	Dir   string // a folder that exists; "" is the one for temporary files
	Limit int64  // bytes; 0 means 8 GiB
}

const defaultSpool = 8 << 30

func (s Spool) limit() int64 {
	if s.Limit > 0 {
		return s.Limit
	}
	return defaultSpool
}

// learns reports whether a phase is one in which a rule takes the place of sums: its results are tensors, and it is not one
// that measures. Sums of attachments have no centre, so that a phase that makes them is refused where there is a rule.
func (p Phase) learns() bool { return (len(p.Folds) > 0 || p.Attachments != nil) && !p.Barrier }

// ruled reports whether the results of a phase go to the rule of the run.
func (d *driver) ruled(p Phase) bool { return d.cfg.Rule != nil && p.learns() }

// Fits returns an error that says why the rule of c, if there is one, can never work in the first phase of an algorithm from
// a state on.
func (c Config) Fits(alg Algorithm, s State, srv Server) error {
	if c.Rule == nil {
		return nil
	}
	if u, ok := alg.(Unruled); ok {
		if err := u.Unruled(c.Rule); err != nil {
			return err
		}
	}
	p, ok := alg.Next(s)
	if !ok || !p.learns() || p.Who.nobody() {
		return nil
	}
	n := srv.Population.Len() // of those drawn by secret coins it is only known that they are no more
	if !p.Who.Coins {
		n = p.Who.pick(srv.Population, n, nil, func() *rng.Stream { return srv.Rand(s.Round, p.Name+"/selection") }).n
	}
	if err := c.ruleFits(p, n); err != nil {
		return fmt.Errorf("phase %s: %w", p.Name, err)
	}
	return nil
}

var errSums = errors.New("robust aggregation reads single results, and members of this phase attach what only their sum tells: leave out one of the two")

// ruleFits returns an error that says why the rule cannot work in a phase of n members.
func (c Config) ruleFits(p Phase, n int) error {
	if p.Attachments != nil {
		return errSums
	}
	for _, f := range p.Folds {
		if f.Exact {
			return errors.New("members of this method send numbers beside their updates that only make sense as sums: leave robust aggregation out, or use another method")
		}
		if f.Indexed && !c.Rule.Parts() {
			return fmt.Errorf("%s compares whole updates, and members of this method train parts of the model: use median, trimmed, clip or centred",
				c.Rule)
		}
	}
	if c.Pace.discount() > 0 && !c.Rule.Weighs() {
		return fmt.Errorf("%s lets every result count alike, so stale ones cannot weigh less: set the discount to 0, the staleness to 0, or use a rule that weighs results",
			c.Rule)
	}
	if err := c.Rule.Check(c.Pace.quorum(n)); err != nil {
		if c.Pace.quorum(n) < n {
			return fmt.Errorf("a round closes when %d of %d have answered: %w", c.Pace.quorum(n), n, err)
		}
		return err
	}
	return c.Spool.holds(p, n)
}

// holds returns an error if the results of n members need more space than the spool may have.
func (s Spool) holds(p Phase, n int) error {
	var bytes int64
	size := 0
	for _, f := range p.Folds {
		bytes += robust.Bytes(f.Like, n)
		size += f.Like.Size()
	}
	if bytes > s.limit() {
		return fmt.Errorf("%d results of %d numbers, 4 bytes each, are %d bytes; the spool may hold %d: ask fewer members or let it have more",
			n, size, bytes, s.limit())
	}
	return nil
}

// ruling is the results of a phase that wait for a rule.
type ruling struct {
	dir    string
	rows   map[string]map[string]*robust.Spool // by group and fold
	orders []*Order                            // whose results they are
	keeps  []keeping
	err    error // of the machine
}

// keeping is what a member keeps if its result counts in the end.
type keeping struct {
	member Member
	memory *weights.Set
}

// spool makes the folding of a phase one for the rule of the run.
func (d *driver) spool(f *folding) error {
	if !d.ruled(f.phase) {
		return nil
	}
	if f.phase.Attachments != nil {
		return errSums
	}
	if err := d.cfg.Spool.holds(f.phase, f.asked); err != nil {
		return fmt.Errorf("robust aggregation: %w", err)
	}
	f.ruling = &ruling{dir: d.cfg.Spool.Dir, rows: map[string]map[string]*robust.Spool{}}
	d.rows = f.ruling
	return nil
}

// unspool gives the files of the phase up. That they cannot be closed harms nothing: nobody reads them any more.
func (d *driver) unspool() {
	if d.rows != nil {
		_ = d.rows.close()
		d.rows = nil
	}
}

// add keeps a result that was found good, and what its member keeps.
func (r *ruling) add(p Phase, o *Order, t Task, x Result, share uint64) {
	if r.err != nil {
		return
	}
	rows, ok := r.rows[t.Group]
	if !ok {
		rows = map[string]*robust.Spool{}
		r.rows[t.Group] = rows
	}
	for _, fold := range p.Folds {
		s, ok := rows[fold.Name]
		if !ok {
			if s, r.err = robust.NewSpool(fold.Like, r.dir); r.err != nil {
				return
			}
			rows[fold.Name] = s
		}
		weight := max(1, x.Weight)
		if !fold.Undiscounted {
			weight *= share
		}
		at, cover := scope(fold, t, x)
		if r.err = s.Append(o.Member.Index, o.Member.Name, o.ID, x.Addends[fold.Name], at, cover, weight); r.err != nil {
			return
		}
	}
	r.orders = append(r.orders, o)
	if x.Keep != nil {
		r.keeps = append(r.keeps, keeping{o.Member, x.Keep})
	}
}

// close gives the files up.
func (r *ruling) close() error {
	var errs []error
	for _, rows := range r.rows {
		for _, s := range rows {
			errs = append(errs, s.Close())
		}
	}
	return errors.Join(errs...)
}

// centre puts the centres of the results of a phase in place of their sums and commits what members keep. It returns what the
// rule wants to remember, by name of the state's set, and a note if the round failed: then no result counts.
func (d *driver) centre(ctx context.Context, f *folding) (memory map[string]weights.Set, notes []string, err error) {
	r := f.ruling
	if r == nil {
		return nil, nil, nil
	}
	defer d.unspool()
	memory = map[string]weights.Set{}
	for _, group := range slices.Sorted(maps.Keys(r.rows)) {
		for _, fold := range f.phase.Folds {
			name := "robust." + f.phase.Name + "." + fold.Name
			if group != "" {
				name += "." + group
			}
			var before *weights.Set
			if s, ok := d.state.Sets[name]; ok {
				before = &s
			}
			random := d.srv.Rand(d.state.Round, f.phase.Name+"/buckets") // the same for all folds
			c, err := d.cfg.Rule.Combine(ctx, r.rows[group][fold.Name], before, random)
			var unfit *robust.UnfitError
			if errors.As(err, &unfit) {
				return nil, []string{f.void(unfit.Error())}, nil
			}
			if err != nil {
				return nil, nil, fmt.Errorf("robust aggregation: %w", err)
			}
			if err := f.groups[group].total[fold.Name].AddEach(c.Value, c.Counts, c.Weight); err != nil {
				return nil, []string{f.void(fmt.Sprintf("%s: %v", d.cfg.Rule, err))}, nil
			}
			if c.Memory != nil {
				memory[name] = *c.Memory
			}
		}
	}
	for _, k := range r.keeps {
		if err := d.members.Keep(k.member.Index, k.memory); err != nil {
			return nil, nil, fmt.Errorf("memory of %s: %w", k.member.Name, err)
		}
	}
	return memory, nil, nil
}

// void makes failures of all results of the phase and says so in a note.
func (f *folding) void(reason string) string {
	for _, o := range f.ruling.orders {
		f.fail(o, "the round failed: "+reason)
	}
	f.folded, f.gathered, f.groups, f.each = nil, nil, map[string]*groupSum{}, newEachTable(f.phase.Collect)
	return "the round failed: " + reason
}
