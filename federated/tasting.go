package federated

import (
	"fmt"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/recommend"
	"github.com/cohort-learning/cohort/weights"
)

// Tasting is how methods that learn from ratings measure themselves: every member scores its own held-out ratings, and the sums of
// that are added.
type Tasting struct {
	Implicit  bool    // what is predicted is whether an item is liked, not its rating
	Like      float64 // rating from which an item is liked; 0: 0.7 of the greatest there can be
	Catalogue bool    // rankings of the whole catalogue are measured, too
	Ranks     bool    // scores of what is liked are no logits: they rank, and no loss is told of them
	Batch     int     // users whose errors share a root in the batched convention; 0: all
}

// tastes is the phase in which members measure.
const tastes = "eval"

// LikedFrom returns the rating from which an item is liked.
func (t Tasting) LikedFrom(r *dataset.Ratings) float32 {
	if t.Like > 0 {
		return float32(t.Like)
	}
	return 0.7 * r.High
}

// Measure measures the scores of held-out ratings among so many items, by users who have rated others.
func (t Tasting) Measure(s recommend.Scorer, rated, held dataset.View, items int) recommend.Measures {
	test := recommend.Test{Train: recommend.Of(rated), Held: recommend.Of(held), Like: t.LikedFrom(held.Data.Ratings), Implicit: t.Implicit,
		Batch: t.Batch}
	test.Known = test.Train.Rated()
	if t.Catalogue {
		test.Items = items
	}
	return test.Measure(s)
}

// Phase asks all members to measure.
func (t Tasting) Phase() Phase {
	return Phase{Name: tastes, Who: Selection{Everyone: true}, Barrier: true, Folds: []Fold{{Name: "measures", Like: tasted(make([]float64, recommend.Sums))}}}
}

// Tastes reports whether a phase is that of [Tasting.Phase].
func Tastes(phase string) bool { return phase == tastes }

// tasted is the fold of what members measure.
func tasted(v []float64) weights.Set {
	s := weights.NewSet(1)
	s.Put("sums", weights.Of64(v, len(v)))
	return s
}

// Result is a member's answer to [Tasting.Phase].
func (t Tasting) Result(m recommend.Measures) Result {
	scalars := map[string]float64{"examples": m.Ratings}
	if !t.unscaled() {
		scalars["loss"] = m.Squares + m.Entropy
	}
	return Result{Addends: map[string]weights.Set{"measures": tasted(m.Vector())}, Scalars: scalars}
}

// unscaled reports whether scores have no loss.
func (t Tasting) unscaled() bool { return t.Implicit && t.Ranks }

// Report adds what members have measured together.
func (t Tasting) Report(d *Diagnostics, sum *Sum) {
	v := make([]float64, recommend.Sums)
	for i := range v {
		v[i] = sum.Total["measures"].Total("sums", i)
	}
	t.Tell(d, recommend.FromVector(v))
}

// Tell adds measures.
func (t Tasting) Tell(d *Diagnostics, m recommend.Measures) {
	for _, v := range m.Values(t.Implicit) {
		if v.Name == "loss" && t.unscaled() {
			continue
		}
		d.Add(v.Name, "", v.Value)
	}
}

// RatesItems returns an error unless the data are ratings of so many items.
func RatesItems(e *dataset.Examples, items int) error {
	switch {
	case !e.Rated():
		return fmt.Errorf("data set %s is not ratings, which this method learns from", e.Name)
	case len(e.Ratings.Items) != items:
		return fmt.Errorf("data set %s has %d items, the model %d", e.Name, len(e.Ratings.Items), items)
	}
	return nil
}

// SparseRule is why a robust rule does not go with a method whose members have nothing to say of most items.
func SparseRule(rule Rule) error {
	return fmt.Errorf("most members do not have most items, and send no change of them: the %s of such changes is none, or is what the one or two say who have the item; leave out robust", rule)
}
