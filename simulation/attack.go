package simulation

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/weights"
)

// Attack is what lying members do in phases that learn: they compute like everybody and send something else. Who lies
// depends on the seed alone. The zero value is that nobody does.
//
// With x the liar's own honest update and s the strength:
//
//	sign-flip   −s·x
//	scale       s·x                                                 (model replacement)
//	gaussian    noise of mean 0 and standard deviation s·rms(x)
//	label-flip  honest training on labels y ↦ C−1−y of C classes; no strength
//	alie        μ − s·σ    with mean and standard deviation of the liars' honest updates, per coordinate
//	            (a little is enough; Baruch, Baruch, Goldberg, arXiv 1902.06156)
//	ipm         −s·μ       (inner-product manipulation; Xie, Koyejo, Gupta, arXiv 1903.03936)
//
// The last two need what the other liars of the phase have computed, which they tell each other in no time: those whose
// tasks are out when the first of them answers and who hold a part of the model of the same shape. All of them then send the
// same. The tensors that an update consists of, such as weights and control variates, are treated each for itself; claims
// of weight, metrics and what liars keep stay honest.
type Attack struct {
	Kind  string
	Liars float64 // part of the members that lie, in [0, 1), rounded down
	// Strength is s; 0 means 1, for scale 10, and for alie the largest that hides among the honest according to the paper:
	// Φ⁻¹((n−m−k)/(n−m)) with n members, m liars and k = ⌊n/2+1⌋ − m.
	Strength float64
}

// Attacks lists the kinds of attack.
func Attacks() []string {
	return []string{"sign-flip", "gaussian", "label-flip", "scale", "alie", "ipm"}
}

// Validate returns an error that says which field is out of range.
func (a Attack) Validate() error {
	switch known := slices.Contains(Attacks(), a.Kind); {
	case a == Attack{}:
		return nil
	case !(a.Liars >= 0 && a.Liars < 1):
		return fmt.Errorf("liars %g: need a part of the members in [0, 1)", a.Liars)
	case a.Kind == "":
		return fmt.Errorf("attack: liars %g need one of %s", a.Liars, strings.Join(Attacks(), ", "))
	case !known:
		return fmt.Errorf("attack %q is none of %s", a.Kind, strings.Join(Attacks(), ", "))
	case !(a.Strength >= 0) || math.IsInf(a.Strength, 0):
		return fmt.Errorf("strength %g: need 0, for the usual one, or more", a.Strength)
	case a.Kind == "label-flip" && a.Strength != 0:
		return fmt.Errorf("strength %g: labels are flipped or not; leave it out", a.Strength)
	}
	return nil
}

// collusive reports whether liars need each other's updates.
func (a Attack) collusive() bool { return a.Kind == "alie" || a.Kind == "ipm" }

// plot is an attack on a fleet.
type plot struct {
	Attack
	seed  uint64
	liars map[int]bool
	s     float64
}

// plot returns the attack on a job's fleet, nil if nobody lies, and how its clients see their data.
func (j *Job) plot() (*plot, func(federated.Member) federated.Local, error) {
	a := j.Conditions.Attack
	if err := a.Validate(); err != nil {
		return nil, nil, fmt.Errorf("conditions: %w", err)
	}
	n := j.Fleet.Len()
	m := int(math.Floor(float64(a.Liars*float64(n)) + 1e-9))
	if m == 0 {
		return nil, j.Fleet.Local, nil
	}
	if a.collusive() && j.Config.Pace.Staleness > 0 {
		return nil, nil, fmt.Errorf("conditions: attack %s: liars join in rounds that begin together; set the staleness to 0 or choose another attack", a.Kind)
	}
	p := &plot{Attack: a, seed: j.Fleet.Seed, liars: map[int]bool{}, s: a.Strength}
	for _, i := range rng.New(j.Fleet.Seed, 0, "", "liars").Sample(n, m) {
		p.liars[i] = true
	}
	switch {
	case p.s != 0:
	case a.Kind == "scale":
		p.s = 10
	case a.Kind == "alie":
		p.s = hiding(n, m)
	default:
		p.s = 1
	}
	if a.Kind != "label-flip" {
		return p, j.Fleet.Local, nil
	}
	flip, err := j.flipped(p.liars)
	if err != nil {
		return nil, nil, fmt.Errorf("conditions: %w", err)
	}
	return p, func(m federated.Member) federated.Local {
		l := j.Fleet.Local(m)
		if p.liars[m.Index] {
			l.Train.Data = flip[l.Train.Data]
		}
		return l
	}, nil
}

// hiding is how many standard deviations m liars of n may be off so that more than half of all members are closer to the
// mean or with them, if the honest are normally distributed; at least 0.
func hiding(n, m int) float64 {
	k := n/2 + 1 - m
	p := float64(n-m-k) / float64(n-m)
	return max(0, math.Sqrt2*math.Erfinv(min(0.999999, 2*p-1)))
}

// flipped returns the data of liars with labels turned round.
func (j *Job) flipped(liars map[int]bool) (map[*dataset.Examples]*dataset.Examples, error) {
	out := map[*dataset.Examples]*dataset.Examples{}
	for i := range liars {
		data := j.Fleet.Local(j.Fleet.Member(i)).Train.Data
		if data == nil || out[data] != nil {
			continue
		}
		if data.Labels == nil {
			return nil, fmt.Errorf("attack label-flip: data set %s has no labels", data.Name)
		}
		lie := *data
		lie.Labels = make([]int32, len(data.Labels))
		for k, y := range data.Labels {
			lie.Labels[k] = int32(data.NumClasses()) - 1 - y
		}
		out[data] = &lie
	}
	return out, nil
}

// lies reports whether what comes back on an order is a lie.
func (p *plot) lies(o *federated.Order) bool {
	return p != nil && !o.Barrier && p.liars[o.Member.Index]
}

// alone turns an honest answer into that of a liar who needs no others.
func (p *plot) alone(a *federated.Answer) {
	var change func(set weights.Set) func(v float64) float64
	switch p.Kind {
	case "sign-flip":
		change = func(weights.Set) func(float64) float64 { return func(v float64) float64 { return -p.s * v } }
	case "scale":
		change = func(weights.Set) func(float64) float64 { return func(v float64) float64 { return p.s * v } }
	case "gaussian":
		o := a.Order
		noise := rng.New(p.seed, o.Round, o.Member.Name, o.Phase+"/attack")
		change = func(set weights.Set) func(float64) float64 {
			std := p.s * set.Norm() / math.Sqrt(float64(max(1, set.Size())))
			return func(float64) float64 { return std * noise.NormFloat64() }
		}
	default:
		return
	}
	lie := make(map[string]weights.Set, len(a.Result.Addends))
	for _, name := range sortedNames(a.Result.Addends) {
		set := a.Result.Addends[name].Clone()
		f := change(set)
		for _, t := range set.All() {
			for i := range t.Len() {
				t.SetAt(i, f(t.At(i)))
			}
		}
		lie[name] = set
	}
	a.Result.Addends = lie
}

func sortedNames(sets map[string]weights.Set) []string {
	var names []string
	for n := range sets {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// together turns the honest answers of liars of one phase into what they agree to send. Those that failed or abstained have
// no part in it.
func (p *plot) together(answers []*federated.Answer) {
	parts := map[string][]*federated.Answer{}
	for _, a := range answers {
		if a.Err == nil && a.Result.Status == federated.Done && len(a.Result.Addends) > 0 {
			parts[layout(a)] = append(parts[layout(a)], a)
		}
	}
	for _, same := range parts {
		lie := map[string]weights.Set{}
		for name := range same[0].Result.Addends {
			lie[name] = p.agreed(same, name)
		}
		for _, a := range same {
			a.Result.Addends = lie
		}
	}
}

// layout tells apart the sums and shapes that answers are for.
func layout(a *federated.Answer) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%q", a.Task.Group)
	for _, name := range sortedNames(a.Result.Addends) {
		fmt.Fprintf(&b, " %q", name)
		for n, t := range a.Result.Addends[name].All() {
			fmt.Fprintf(&b, " %q%v", n, t.Shape)
		}
	}
	return b.String()
}

// agreed returns the tensors that all liars send.
func (p *plot) agreed(answers []*federated.Answer, name string) weights.Set {
	out := answers[0].Result.Addends[name].Clone()
	m := float64(len(answers))
	for tensor, t := range out.All() {
		for i := range t.Len() {
			var sum, squares float64
			for _, a := range answers {
				sum += a.Result.Addends[name].Must(tensor).At(i)
			}
			mean := sum / m
			if p.Kind == "ipm" {
				t.SetAt(i, -p.s*mean)
				continue
			}
			for _, a := range answers {
				d := a.Result.Addends[name].Must(tensor).At(i) - mean
				squares += float64(d * d)
			}
			t.SetAt(i, mean-float64(p.s*math.Sqrt(squares/m)))
		}
	}
	return out
}

// corrupt makes a pool's liars lie. It is called before the first order.
func (p *Pool) corrupt(by *plot) { p.plot = by }

// collude waits for the work of all liars whose tasks of the phase of f are out, and makes of it what they send. The caller
// holds the lock.
func (p *Pool) collude(ctx context.Context, f *flight) {
	var liars []*flight
	for o, x := range p.byOrder {
		if !x.agreed && x.fault == nil && x.at != never && p.plot.lies(o) && o.Round == f.order.Round && o.Phase == f.order.Phase {
			liars = append(liars, x)
		}
	}
	slices.SortFunc(liars, func(a, b *flight) int { return cmp.Compare(a.order.ID, b.order.ID) })
	answers := make([]*federated.Answer, len(liars))
	for i, x := range liars {
		if answers[i] = p.await(ctx, x); answers[i] == nil {
			return
		}
	}
	p.plot.together(answers)
	for _, x := range liars {
		x.agreed = true
	}
}
