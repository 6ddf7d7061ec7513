package selffl

import (
	"github.com/cohort-learning/cohort/weights"
)

// standing is where a client stands before a round: its last model, and its part in G.
type standing struct {
	theta weights.Set // empty if there is none
	in    bool        // whether its last upload is in G
	mass  []float64   // its weight a_m there, of each block
	v     []float64   // its v_m, of each block
	cover weights.Set // levels: 1 at the coordinates that it sent; empty: everywhere
}

// dominant is the part of G from which on a client does not take itself out: what is left would say too little.
const dominant = 0.9

// begin returns where a client begins a round, and for each block which part of the way from there to its own optimum should be
// left at its end; nil if that is not known yet. A client that is new begins at the global model, one that has been alone so
// far at its own.
func (a *Algorithm) begin(g, n weights.Set, own standing, t task) (weights.Set, []float64) {
	switch {
	case t.Between == nil && own.theta.Len() > 0 && t.Formed >= 0:
		return own.theta, nil
	case t.Between == nil || own.theta.Len() == 0:
		return g, nil
	}
	return a.start(g, n, own, t)
}

// start returns the same for a client that knows v_m, in a round of known σ_0²: where it begins, and for each block which part of the way from there to its own optimum should
// be left at its end. Running statistics begin at the global model's. G is the global model (of a level, the client's slice
// of it, and n the weights of those who hold each of its coordinates).
func (a *Algorithm) start(g, n weights.Set, own standing, t task) (weights.Set, []float64) {
	init := weights.NewSet(g.Len())
	for name, x := range g.All() {
		init.Put(name, x)
	}
	left := make([]float64, len(a.blocks))
	for i, b := range a.blocks {
		between, v := t.Between[i], 0.0
		if own.v != nil {
			v = own.v[i]
		}
		if a.Start == Here {
			left[i] = Pull(v, between, 0)
			continue
		}
		var others float64 // v_{G−m}
		if n.Len() > 0 {
			others = a.withoutEach(&init, g, n, own, t, i)
		} else {
			others = a.without(&init, g, own, t, i)
		}
		if a.Posterior == PairwiseOther {
			between = 0 // it is in the others' variances
		}
		left[i] = Pull(v, between, others)
		if a.Start == Warm {
			left[i] = WarmPull(left[i], a.Rho)
			for _, name := range b.governed {
				init.Put(name, mix(own.theta.Must(name), init.Must(name), a.Rho))
			}
		}
	}
	return init, left
}

// without takes a client out of a block of G, and returns the variance of what is left:
//
//	G_{−m} = (A·G − a_m θ_m)/(A − a_m)   v_{G−m} = (σ_0² Σ' a_k² + Σ' a_k² v_k)/(A − a_m)²   sums without m
//
// Where it is nearly all of G itself it starts from G, with λ_m, which is β_m for v_{G−m} = 0.
func (a *Algorithm) without(init *weights.Set, g weights.Set, own standing, t task, i int) float64 {
	in, between := t.In[i], a.shared(t.Between[i])
	switch {
	case !own.in:
		return in.variance(between)
	case own.mass[i] >= dominant*in.A:
		return 0
	}
	w := own.mass[i]
	for _, name := range a.blocks[i].governed {
		init.Put(name, combine(g.Must(name), own.theta.Must(name), func(_ int, g, theta float64) float64 {
			return (in.A*g - w*theta) / (in.A - w)
		}))
	}
	return in.without(w, own.v[i]).variance(between)
}

// withoutEach is [Algorithm.without] where every coordinate j has holders of its own, with the weight n_j together. With
// weights by precision a_k(σ_0² + v_k) is the same for all, c, so that the variance at j is c/(n_j − a_m); c is taken from all
// who are in G, and the mean over the coordinates is returned.
func (a *Algorithm) withoutEach(init *weights.Set, g, n weights.Set, own standing, t task, i int) float64 {
	in := t.In[i]
	c := in.variance(a.shared(t.Between[i])) * in.A
	var sum, size float64
	for _, name := range a.blocks[i].governed {
		held := n.Must(name)
		var cover weights.Tensor
		if own.cover.Len() > 0 {
			cover = own.cover.Must(name)
		}
		x := g.Must(name)
		init.Put(name, combine(x, own.theta.Must(name), func(j int, g, theta float64) float64 {
			all, w := held.At(j), 0.0
			if own.in && (cover.Len() == 0 || cover.At(j) > 0) {
				w = own.mass[i]
			}
			size++
			switch {
			case all == 0: // nobody has said anything about it yet
				sum += in.variance(a.shared(t.Between[i]))
				return g
			case w >= dominant*all:
				return g
			}
			sum += c / (all - w)
			if w == 0 {
				return g
			}
			return (all*g - w*theta) / (all - w)
		}))
	}
	return sum / size
}

// combine returns f of two tensors, element by element.
func combine(x, y weights.Tensor, f func(i int, x, y float64) float64) weights.Tensor {
	out := weights.NewTensor(x.DType(), x.Shape...)
	for i := range x.Len() {
		out.SetAt(i, f(i, x.At(i), y.At(i)))
	}
	return out
}

// mix returns (1 − ρ)x + ρy.
func mix(x, y weights.Tensor, rho float64) weights.Tensor {
	return combine(x, y, func(_ int, x, y float64) float64 { return x + rho*(y-x) })
}
