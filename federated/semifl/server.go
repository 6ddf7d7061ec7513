package semifl

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
	"github.com/gomlx/gomlx/core/graph"
)

// aggregate moves the model by what the active members have learned, where the server does not train at the same time.
func (a *Algorithm) aggregate(srv federated.Server, s federated.State, sums map[string]*federated.Sum, roll federated.Roll) (federated.State, federated.Diagnostics, error) {
	d, at, err := a.diagnose(srv, s, sums, roll)
	if err != nil {
		return s, d, err
	}
	switch {
	case a.Server == Alternate:
		sum := sums[""]
		came := sum != nil && sum.N > 0
		if came {
			s = a.momentum(s, sum.Total["w"])
		}
		if came || a.NeedsLabels() { // the model changes
			s.Version++
		}
	default:
		part, mean := a.cohort(s, sums)
		at.Part = part
		s = s.With("cohort", mean)
		s.Version++
	}
	s.Meta, err = json.Marshal(at)
	return s, d, err
}

// momentum makes the step v ← β·v + g, W ← W − v with g = W − W̄ = −total/count, for every coordinate that somebody trained.
func (a *Algorithm) momentum(s federated.State, total *weights.Acc) federated.State {
	w := s.Sets["w"]
	if a.Momentum == 0 {
		return s.With("w", total.AddMean(w))
	}
	v := total.Apply(s.Sets["v"], func(v, total, count float64) float64 { return float64(a.Momentum*v) - total/count })
	w = w.Clone()
	for name, t := range w.All() {
		x := v.Must(name)
		for i := range t.Len() {
			if total.Count(name, i) > 0 {
				t.SetAt(i, t.At(i)-x.At(i))
			}
		}
	}
	return s.With("v", v).With("w", w)
}

// cohort returns the members' part of the mean that the server's own model is part of, as a change of the model, and the server's
// part: with n active members ½ of their mean and ½; the server's model alone if there are none. In two groups of n₁ and n₂
// active members it is ½·Σ_g (Σ_m Δ_m)/(n_g + 1), and the server's part ½·Σ_g 1/(n_g + 1).
func (a *Algorithm) cohort(s federated.State, sums map[string]*federated.Sum) (part float64, change weights.Set) {
	change = a.held(s).Zeros()
	groups := []string{""}
	if a.Groups {
		groups = []string{"0", "1"}
	}
	for _, name := range groups {
		sum := sums[name]
		share := 1 / float64(len(groups)) // of the group
		if sum == nil || sum.N == 0 {
			part += share
			continue
		}
		own := 0.5 // the server's part in the group
		if a.Groups {
			own = 1 / (float64(sum.N) + 1)
		}
		part += share * own
		scale := share * (1 - own)
		change = sum.Total["w"].Apply(change, func(c, total, count float64) float64 { return c + scale*(total/count) })
	}
	return part, change
}

// group returns the half of the roster that a member belongs to in a round: a coin tells of two neighbours who goes where.
func (a *Algorithm) group(at meta, round int, m federated.Member) string {
	coin := rng.New(at.Seed, round, "", fmt.Sprintf("groups/%d", m.Index/2)).IntN(2)
	return fmt.Sprint((m.Index + coin) % 2)
}

// teach trains on the server's labelled examples, from the aggregated model or, in parallel, from the one that was sent out.
func (a *Algorithm) teach(ctx context.Context, srv federated.Server, s federated.State) (federated.State, federated.Diagnostics, error) {
	var d federated.Diagnostics
	from := s.Sets["w"]
	if a.Decomposed {
		from = a.mine(s)
	}
	taught := from
	if a.NeedsLabels() {
		var state weights.Set
		var err error
		if taught, state, err = a.fine(ctx, srv, s, from, &d); err != nil {
			return s, d, fmt.Errorf("training on the server's labels: %w", err)
		}
		s = s.With("server", state)
	}
	if a.Server == Alternate {
		return s.With("w", taught), d, nil
	}
	at, err := a.meta(s)
	if err != nil {
		return s, d, err
	}
	if _, ok := s.Sets["cohort"]; !ok { // what the members did could not be summed
		at.Part, s = 1, s.With("cohort", a.held(s).Zeros())
	}
	if a.Decomposed {
		s = a.recompose(s, taught.Sub(from), at.Part)
	} else {
		s = a.meet(s, taught, at.Part)
	}
	s.Sets = maps.Clone(s.Sets)
	delete(s.Sets, "cohort")
	return s, d, nil
}

// fine makes E_s epochs of weakly augmented batches and returns the weights and the optimiser's state, which the next round goes on with.
func (a *Algorithm) fine(ctx context.Context, srv federated.Server, s federated.State, from weights.Set, d *federated.Diagnostics) (w, state weights.Set, err error) {
	spec, err := a.Spec("server", a.Rate, a.decompose)
	if err != nil {
		return w, state, err
	}
	o := train.Options{OptimizerState: s.Sets["server"]}
	if a.Decomposed {
		o.Extras = map[string]weights.Set{"other": a.theirs(s)}
	}
	session, err := srv.Engine.Begin(spec, from, o)
	if err != nil {
		return w, state, err
	}
	defer session.Close()
	batch := cmp.Or(a.ServerBatch, ServerBatch(srv.Train.Len()))
	fit := train.Fit{Data: srv.Train, Batch: batch, Rate: train.Constant(a.Training.Rate.At(s.Round)),
		Augment: a.Training.Augment, Random: srv.Rand(s.Round, "server"), SkipSmall: a.Training.SkipSingles}
	fit.Epochs, fit.Steps = extent(a.ServerEpochs, srv.Train.Len(), batch)
	report, err := session.Fit(ctx, fit)
	if err != nil {
		return w, state, err
	}
	d.Add("loss.server", "", report.Loss)
	if w, err = session.Params(); err != nil {
		return w, state, err
	}
	state, err = session.OptimizerState()
	return w, state, err
}

// ServerBatch is the batch of a server with n labelled examples: 250 if there are more than 1,000, else 10.
func ServerBatch(n int) int {
	if n > 1000 {
		return 250
	}
	return 10
}

// meet averages the server's model with the members' and makes the momentum step: from the model that both began with, or, as the
// authors' code does, from the server's. W̄ = W + part·(W_s − W) + what the members changed.
func (a *Algorithm) meet(s federated.State, taught weights.Set, part float64) federated.State {
	w, v, cohort := s.Sets["w"], s.Sets["v"], s.Sets["cohort"]
	next, moved := w.Clone(), w.Zeros()
	for name, t := range next.All() {
		own, change, old := taught.Must(name), cohort.Must(name), weights.Tensor{}
		if a.Momentum > 0 {
			old = v.Must(name)
		}
		m := moved.Must(name)
		for i := range t.Len() {
			mean := t.At(i) + float64(part*(own.At(i)-t.At(i))) + change.At(i)
			start := t.At(i)
			if a.Server == ParallelReference {
				start = own.At(i)
			}
			g := start - mean
			if a.Momentum > 0 {
				g += float64(a.Momentum * old.At(i))
			}
			m.SetAt(i, g)
			t.SetAt(i, start-g)
		}
	}
	if a.Momentum > 0 {
		s = s.With("v", moved)
	}
	return s.With("w", next)
}

// FedMatch (Jeong et al., arXiv 2006.12097, section 3.2) as SemiFL's authors simplify it: the kernel of every convolution is σ + φ, both
// half of it at first. Members train φ and the server σ; whatever else there is, norms and the classifier, both train. φ moves to the
// members' mean, σ to the server's, the rest to the mean of the two. There is no momentum of the server.

// kernel reports whether a parameter is decomposed.
func (a *Algorithm) kernel(name string) bool {
	p, ok := a.global.Param(name)
	return ok && p.Role == nn.Kernel && len(p.Dims) == 4
}

// halves returns φ and σ of the first weights. Parameters that are not decomposed stand in φ, and are 0 in σ.
func (a *Algorithm) halves(w weights.Set) (phi, sigma weights.Set) {
	phi, sigma = w.Clone(), w.Zeros()
	for name, t := range phi.All() {
		if a.kernel(name) {
			half := sigma.Must(name)
			for i := range t.Len() {
				t.SetAt(i, t.At(i)/2)
				half.SetAt(i, t.At(i))
			}
		}
	}
	return phi, sigma
}

// mine is what the server trains: σ and what is not decomposed.
func (a *Algorithm) mine(s federated.State) weights.Set {
	return a.pick(s.Sets["sigma"], s.Sets["phi"])
}

// theirs is what the server adds to it: φ.
func (a *Algorithm) theirs(s federated.State) weights.Set {
	return a.pick(s.Sets["phi"], s.Sets["phi"].Zeros())
}

// pick takes kernels from one set and everything else from another.
func (a *Algorithm) pick(kernels, rest weights.Set) weights.Set {
	out := weights.NewSet(rest.Len())
	for name, t := range rest.All() {
		if a.kernel(name) {
			t = kernels.Must(name)
		}
		out.Put(name, t.Clone())
	}
	return out
}

// decompose makes a step one of a part of the kernels, to which the other part is added.
func (a *Algorithm) decompose(s *train.Spec) {
	if !a.Decomposed {
		return
	}
	s.Extras = []string{"other"}
	s.Derive = func(at *train.Adjust) map[string]*graph.Node {
		out := maps.Clone(at.Params)
		for name := range out {
			if a.kernel(name) {
				out[name] = graph.Add(out[name], at.Extras["other"][name])
			}
		}
		return out
	}
	s.Holds = s.Model
}

// recompose puts the two parts together.
func (a *Algorithm) recompose(s federated.State, taught weights.Set, part float64) federated.State {
	phi, sigma := s.Sets["phi"].Clone(), s.Sets["sigma"].Clone()
	w := phi.Clone()
	cohort := s.Sets["cohort"] // (1 − part)·mean
	for name, f := range phi.All() {
		own, change, g, x := taught.Must(name), cohort.Must(name), sigma.Must(name), w.Must(name)
		for i := range f.Len() {
			if !a.kernel(name) {
				f.SetAt(i, f.At(i)+float64(part*own.At(i))+change.At(i))
				x.SetAt(i, f.At(i))
				continue
			}
			g.SetAt(i, g.At(i)+own.At(i))
			if part < 1 {
				f.SetAt(i, f.At(i)+change.At(i)/(1-part))
			}
			x.SetAt(i, g.At(i)+f.At(i))
		}
	}
	return s.With("phi", phi).With("sigma", sigma).With("w", w)
}
