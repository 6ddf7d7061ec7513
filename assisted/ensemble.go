package assisted

import (
	"cmp"
	"slices"

	"github.com/cohort-learning/cohort/assisted/learner"
	"gonum.org/v1/gonum/mat"
)

// Ensemble is what a run has come to:
//
//	F(x) = F⁰ + Σ_m Σ_t c_{m,t} f_{m,t}(x_m)
//
// with a coefficient for each output where the method has weights for each ([Term.Share]). The models f stay with their organisations; the coefficients are the sponsor's.
//
// Where organisations share a network, what they say are pre-activations of its first layer, and the layers above make F of the sum.
type Ensemble struct {
	Start   []float64 `json:"start"` // F⁰, of K outputs; of a network 0, for each unit of the first layer
	Members []Voice   `json:"members"`
	// Strata are those that assistors have fitted a model for each of; nil: they have fitted one for all rows.
	Strata *Strata `json:"strata,omitempty"`
	// Head is the layers above, nil where there is no network.
	Head *learner.Head `json:"head,omitempty"`
}

// Voice is one organisation's part of an ensemble.
type Voice struct {
	Name  string `json:"name"`
	Terms []Term `json:"terms"`
}

// Term is one model in an ensemble.
type Term struct {
	Slot        Slot    `json:"slot"`
	Coefficient float64 `json:"coefficient"`
	// Share is what the coefficient is multiplied with besides, by output; nil: 1.
	Share []float64 `json:"share,omitempty"`
	Mean  []float64 `json:"mean"` // of the model's values over the rows to fit: what stands for it where it is missing
	// Means are those of each stratum, where there is a model for each.
	Means [][]float64 `json:"means,omitempty"`
}

// Of is the coefficient of output k.
func (t Term) Of(k int) float64 {
	if t.Share == nil {
		return t.Coefficient
	}
	return t.Coefficient * t.Share[k]
}

// with returns a copy of e to which the term of an organisation is added.
func (e Ensemble) with(name string, t Term) Ensemble {
	e.Members = slices.Clone(e.Members)
	i := slices.IndexFunc(e.Members, func(v Voice) bool { return v.Name == name })
	if i < 0 {
		e.Members = append(e.Members, Voice{Name: name, Terms: []Term{t}})
		return e
	}
	e.Members[i].Terms = append(slices.Clip(slices.Clone(e.Members[i].Terms)), t)
	return e
}

// without returns a copy of e in which the organisation has no part.
func (e Ensemble) without(name string) Ensemble {
	e.Members = slices.DeleteFunc(slices.Clone(e.Members), func(v Voice) bool { return v.Name == name })
	return e
}

// above returns F of the sum of what organisations say.
func (e Ensemble) above(sum *mat.Dense) *mat.Dense {
	if e.Head == nil {
		return sum
	}
	return e.Head.Values(sum)
}

// Until returns the ensemble of the rounds before the given one.
func (e Ensemble) Until(round int) Ensemble {
	var members []Voice
	for _, v := range e.Members {
		v.Terms = slices.DeleteFunc(slices.Clone(v.Terms), func(t Term) bool { return t.Slot.Round >= round })
		if len(v.Terms) > 0 {
			members = append(members, v)
		}
	}
	e.Members = members
	return e
}

// Last is the newest round, from 0, that has a part in the ensemble; −1 if none has.
func (e Ensemble) Last() int {
	last := -1
	for _, v := range e.Members {
		for _, t := range v.Terms {
			last = max(last, t.Slot.Round)
		}
	}
	return last
}

// Voice returns the part of the organisation of that name; it is empty if it has none.
func (e Ensemble) Voice(name string) Voice {
	for _, v := range e.Members {
		if v.Name == name {
			return v
		}
	}
	return Voice{Name: name}
}

// Mean is what stands for the organisation where it is missing: Σ_t c_t times the mean of f_t over the rows to fit, of the stratum where
// there is a model for each.
func (v Voice) Mean(outputs, stratum int) []float64 {
	sum := make([]float64, outputs)
	for _, t := range v.Terms {
		mean := t.Mean
		if t.Means != nil {
			mean = t.Means[stratum]
		}
		for k, m := range mean {
			sum[k] += float64(t.Of(k) * m)
		}
	}
	return sum
}

// stratified reports whether the organisation has fitted models for strata.
func (v Voice) stratified() bool { return len(v.Terms) > 0 && v.Terms[0].Means != nil }

// means returns [Voice.Mean] for a row of each stratum, or for any where there are none.
func (v Voice) means(outputs int, s *Strata) [][]float64 {
	count := 1
	if s != nil {
		count = s.Count
	}
	out := make([][]float64, count)
	for k := range out {
		out[k] = v.Mean(outputs, k)
	}
	return out
}

// ask returns what the organisation is asked for: the weighted sum of its models.
func (v Voice) ask(rows string) order {
	o := order{Do: doPredict, Rows: rows}
	shared := false
	for _, t := range v.Terms {
		o.Slots = append(o.Slots, t.Slot)
		o.Coefficients = append(o.Coefficients, t.Coefficient)
		o.Shares = append(o.Shares, t.Share)
		shared = shared || t.Share != nil
	}
	if !shared {
		o.Shares = nil
	}
	return o
}

// Combine returns F for n entities from what organisations have answered, by name: Σ_t c_t f_t of each, with NaN rows where
// it does not have an entity; strata are those of the entities, nil if there are none. An organisation that is missing, or lacks an
// entity, is stood for by its mean; it is named in degraded with how many entities that concerns. Weights are not redistributed.
func (e Ensemble) Combine(n int, parts map[string]*mat.Dense, strata []int) (f *mat.Dense, degraded map[string]int) {
	f = Constant(n, e.Start)
	degraded = map[string]int{}
	for _, v := range e.sorted() {
		means := v.means(len(e.Start), e.Strata)
		part := parts[v.Name]
		for i := range n {
			row := means[stratum(strata, i)]
			if part != nil && !Masked(part, i) {
				row = part.RawRowView(i)
			} else {
				degraded[v.Name]++
			}
			for k, x := range row {
				f.Set(i, k, f.At(i, k)+x)
			}
		}
	}
	return e.above(f), degraded
}

// sorted returns the organisations by name, so that sums do not depend on who joined when.
func (e Ensemble) sorted() []Voice {
	return slices.SortedFunc(slices.Values(e.Members), func(a, b Voice) int { return cmp.Compare(a.Name, b.Name) })
}
