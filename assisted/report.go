package assisted

import (
	"math/bits"

	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/federated"
	"gonum.org/v1/gonum/mat"
)

// exactPlayers is up to how many organisations the Shapley value is a sum over all coalitions; of more, it is a mean over as
// many random orders as are drawn.
const (
	exactPlayers = 10
	randomOrders = 200
)

// Compare adds what each organisation contributes, measured by the loss on the rows that they are compared on, without
// training anything again: "contribution" is by how much the loss rises if the organisation's part of F is replaced by its training
// mean, and "shapley", in the last round, its Shapley value in the game whose coalitions are predicted with, the mean standing for
// everybody else.
func (t *Table) Compare(srv federated.Server, s federated.State, c Course, d *federated.Diagnostics, last bool) error {
	g, err := t.game(s, c)
	if err != nil {
		return err
	}
	all := make([]bool, len(g.names))
	for m := range all {
		all[m] = true
	}
	whole := g.loss(all)
	for m, name := range g.names {
		all[m] = false
		d.Add("contribution", name, g.loss(all)-whole)
		all[m] = true
	}
	if !last {
		return nil
	}
	var values []float64
	if len(g.names) <= exactPlayers {
		values = g.shapley()
	} else {
		values = g.sampled(srv.Rand(s.Round, "shapley").Perm)
	}
	for m, name := range g.names {
		d.Add("shapley", name, values[m])
	}
	return nil
}

// game is the prediction of some rows with the parts of some organisations.
type game struct {
	objective Objective
	y         *mat.Dense
	base      *mat.Dense // F⁰
	names     []string
	parts     []*mat.Dense
	means     []*mat.Dense  // what stands for them
	head      *learner.Head // what makes F of the sum of parts, nil: it is F
}

func (t *Table) game(s federated.State, c Course) (game, error) {
	rows := t.Sponsor.Scored()
	y, err := t.Labels(s)
	if err != nil {
		return game{}, err
	}
	g := game{objective: t.Sponsor.Objective, y: rows.Of(y), base: Constant(rows.Len(), c.Ensemble.Start)}
	var strata []int
	if c.Ensemble.Strata != nil {
		strata = t.Sponsor.Stratum
	}
	if t.Head != nil {
		h, err := t.Head(s)
		if err != nil {
			return g, err
		}
		g.head = &h
	}
	for _, v := range c.Ensemble.sorted() {
		part, err := Matrix(s, partName(v.Name))
		if err != nil {
			return g, err
		}
		if t.Head != nil { // parts are kept of all rows
			part = rows.Of(part)
		}
		g.names = append(g.names, v.Name)
		means, mean := v.means(len(c.Ensemble.Start), c.Ensemble.Strata), mat.NewDense(rows.Len(), len(c.Ensemble.Start), nil)
		for i := range rows.Len() {
			mean.SetRow(i, means[stratum(strata, rows.From+i)])
		}
		g.parts, g.means = append(g.parts, part), append(g.means, mean)
	}
	return g, nil
}

// loss is that of predictions with the parts of those who are in.
func (g game) loss(in []bool) float64 {
	f := mat.DenseCopyOf(g.base)
	for m, part := range g.parts {
		if !in[m] {
			part = g.means[m]
		}
		f.Add(f, part)
	}
	if g.head != nil {
		f = g.head.Values(f)
	}
	return g.objective.Value(g.y, f)
}

// shapley is Σ over coalitions S without m of |S|!(M−|S|−1)!/M! times by how much m lowers the loss of S.
func (g game) shapley() []float64 {
	n := len(g.names)
	loss := make([]float64, 1<<n)
	in := make([]bool, n)
	for s := range loss {
		for m := range in {
			in[m] = s>>m&1 == 1
		}
		loss[s] = g.loss(in)
	}
	share := make([]float64, n) // by |S|
	for k := range share {
		share[k] = 1 / float64(n)
		for i := range k { // 1/(n · C(n−1, k))
			share[k] *= float64(i+1) / float64(n-1-i)
		}
	}
	out := make([]float64, n)
	for m := range out {
		for s := range loss {
			if s>>m&1 == 0 {
				out[m] += float64(share[bits.OnesCount(uint(s))] * (loss[s] - loss[s|1<<m]))
			}
		}
	}
	return out
}

// sampled is the mean over random orders of by how much each lowers the loss of those before it.
func (g game) sampled(perm func(int) []int) []float64 {
	n := len(g.names)
	out := make([]float64, n)
	for range randomOrders {
		in := make([]bool, n)
		before := g.loss(in)
		for _, m := range perm(n) {
			in[m] = true
			after := g.loss(in)
			out[m] += (before - after) / randomOrders
			before = after
		}
	}
	return out
}
