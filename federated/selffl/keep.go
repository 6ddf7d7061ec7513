package selffl

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/weights"
)

// The sets that the server keeps uploads in: tensors named client/tensor. Uploads themselves, and where un-shrinking is on
// those taken back to where the clients' own estimates would be, of what is measured.
const (
	uploads  = "uploads"
	compared = "compared"
)

func uploadName(client, tensor string) string { return client + "/" + tensor }

// uploaded returns what a client sent last, of the named tensors; empty if there is nothing.
func uploaded(s federated.State, set, client string, names []string) weights.Set {
	out := weights.NewSet(len(names))
	for _, n := range names {
		t, ok := s.Sets[set].Get(uploadName(client, n))
		if !ok {
			return weights.Set{}
		}
		out.Put(n, t)
	}
	return out
}

// keep makes the next state of every client's last upload. An upload that was made from an older model counts as if its change
// had been made from the present one.
func (a *Algorithm) keep(srv federated.Server, s federated.State, at *meta, sums map[string]*federated.Sum, roll federated.Roll, d *federated.Diagnostics) (federated.State, error) {
	total := &federated.Sum{Scalars: map[string]float64{}}
	fresh, back := weights.NewSet(0), weights.NewSet(0)
	if at.Seen == nil {
		at.Seen = map[string]*seen{}
	}
	tooFast := 0.0
	known := maps.Clone(at.Seen)
	for _, f := range roll.Folded {
		name := srv.Population.Member(f.Member).Name
		sum := sums[name]
		if sum == nil {
			return s, fmt.Errorf("nothing of %s was added", name)
		}
		for k, v := range sum.Scalars {
			total.Scalars[k] += v
		}
		numbers := sum.Total["uq"].Mean(weights.Float64).Must("uq").F64
		b := len(a.blocks)
		now := &seen{V: numbers[:b]}
		tooFast += numbers[2*b]
		theta := sum.Total["w"].AddMean(s.Sets["w"])
		for n, t := range theta.All() {
			fresh.Put(uploadName(name, n), t)
		}
		if a.Unshrink {
			own := standing{}
			if k := at.Seen[name]; k != nil {
				own = standing{theta: uploaded(s, uploads, name, theta.Names()), mass: k.A, v: k.V, in: k.A != nil}
			}
			init, _ := a.begin(s.Sets["w"], weights.Set{}, own, task{Between: at.Between, In: at.In, Formed: at.Formed})
			for i, bl := range a.blocks {
				for n, t := range unshrunk(pick(init, bl.measured), pick(theta, bl.measured), numbers[b+i]).All() {
					back.Put(uploadName(name, n), t)
				}
			}
		}
		known[name] = now
	}
	d.Training(total)
	if n := float64(len(roll.Folded)); n > 0 {
		d.Add("steps.mean", "", total.Scalars["train.steps"]/n)
		capped(d, tooFast/n)
	}
	at.Seen = known
	s = s.With(uploads, merged(s.Sets[uploads], fresh))
	if a.Unshrink {
		s = s.With(compared, merged(s.Sets[compared], back))
	}
	names := slices.Sorted(maps.Keys(known))
	err := a.between(s, at, names)
	if err != nil && !errors.Is(err, ErrAlone) {
		return s, err
	}
	a.weigh(srv, at, names)
	for _, name := range names {
		if due := a.Due(s.Round); due && len(names) <= mostShown && len(a.blocks) == 1 {
			d.Add("variance.within", name, known[name].V[0])
		}
	}
	mean := 0.0
	for _, name := range names {
		mean += known[name].V[0] / float64(len(names))
	}
	d.Add("variance.within", "", mean)
	at.Formed = s.Round
	return s.With("w", a.average(s, at, names)), err
}

// mostShown is of how many clients the variances are recorded one by one.
const mostShown = 64

// merged returns old with the tensors of fresh in it.
func merged(old, fresh weights.Set) weights.Set {
	out := weights.NewSet(old.Len() + fresh.Len())
	for n, t := range old.All() {
		if f, ok := fresh.Get(n); ok {
			t = f
		}
		out.Put(n, t)
	}
	for n, t := range fresh.All() {
		if _, ok := old.Get(n); !ok {
			out.Put(n, t)
		}
	}
	return out
}

// unshrunk returns init + (θ − init)·[Unshrink](b).
func unshrunk(init, theta weights.Set, b float64) weights.Set {
	k := Unshrink(b)
	return init.Map(theta, func(init, theta float64) float64 { return init + k*(theta-init) })
}

// between estimates σ_0² of every block anew.
func (a *Algorithm) between(s federated.State, at *meta, names []string) error {
	set := uploads
	if a.Unshrink {
		set = compared
	}
	out := make([]float64, len(a.blocks))
	for i, b := range a.blocks {
		v := make([]float64, len(names))
		rows32, rows64 := make([][]float32, len(names)), make([][]float64, len(names))
		wide := false
		for m, name := range names {
			v[m] = at.Seen[name].V[i]
			for _, t := range uploaded(s, set, name, b.measured).All() {
				rows32[m], rows64[m] = append(rows32[m], t.F32...), append(rows64[m], t.F64...)
				wide = t.F64 != nil
			}
		}
		var err error
		if wide {
			out[i], err = Estimate(a.Between, rows64, v)
		} else {
			out[i], err = Estimate(a.Between, rows32, v)
		}
		if err != nil {
			return fmt.Errorf("variance between clients of %s: %w", strings.Join(b.measured, ", "), err)
		}
	}
	at.Between = out
	return nil
}

// weigh gives every client its weight in G.
func (a *Algorithm) weigh(srv federated.Server, at *meta, names []string) {
	samples := map[string]int{}
	if a.Aggregate == BySamples {
		for i := range srv.Population.Len() {
			m := srv.Population.Member(i)
			samples[m.Name] = m.Samples
		}
	}
	at.In = make([]mass, len(a.blocks))
	for _, name := range names {
		c := &seen{V: at.Seen[name].V, A: make([]float64, len(a.blocks))}
		for i := range a.blocks {
			w := 1.0
			switch {
			case a.Aggregate == BySamples:
				w = float64(max(1, samples[name]))
			case a.Aggregate == ByPrecision && at.Between != nil:
				w = Precision(a.shared(at.Between[i]), c.V[i])
			}
			c.A[i] = w
			at.In[i].A += w
			at.In[i].AA += w * w
			at.In[i].AAV += w * w * c.V[i]
		}
		at.Seen[name] = c
	}
}

// average returns G = Σ a_m θ_m/A of all kept uploads; running statistics have the weights of the first block.
func (a *Algorithm) average(s federated.State, at *meta, names []string) weights.Set {
	of := map[string]int{}
	for i, b := range a.blocks {
		for _, n := range b.governed {
			of[n] = i
		}
	}
	out := weights.NewSet(s.Sets["w"].Len())
	for tensor, old := range s.Sets["w"].All() {
		sum := make([]float64, old.Len())
		for _, name := range names {
			w := at.Seen[name].A[of[tensor]]
			x := s.Sets[uploads].Must(uploadName(name, tensor))
			for j := range sum {
				sum[j] += float64(w * x.At(j))
			}
		}
		t := weights.NewTensor(old.DType(), old.Shape...)
		for j := range sum {
			t.SetAt(j, sum[j]/at.In[of[tensor]].A)
		}
		out.Put(tensor, t)
	}
	return out
}
