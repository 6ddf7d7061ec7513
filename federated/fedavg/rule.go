package fedavg

import (
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/weights"
)

// Rule moves the global weights by the average update. Rules are values; what they remember are sets of the state.
type Rule interface {
	// Init returns the sets that the rule remembers, at their first values.
	Init(w weights.Set) map[string]weights.Set
	// Move returns the new "w" and the new remembered sets. The old ones are in sets; averaged is w + Δ, and delta is Δ in
	// float64.
	Move(sets map[string]weights.Set, averaged, delta weights.Set) map[string]weights.Set
	// Validate reports settings outside their range.
	Validate() error
}

// Average is FedAvg's rule w ← w + Δ.
type Average struct{}

// Momentum is FedAvgM (arXiv 1909.06335): v ← βv − Δ; w ← w − ηv, or with Nesterov w ← w − η(βv − Δ) for the new v. The
// velocity starts at 0.
type Momentum struct {
	Rate     float64 // η, usually 1
	Beta     float64 // β in [0, 1)
	Nesterov bool
}

// Adaptive is FedAdagrad, FedYogi or FedAdam (arXiv 2003.00295, algorithm 2), coordinate by coordinate, without bias
// correction:
//
//	m ← β₁m + (1−β₁)Δ
//	v ← v + Δ²                          Adagrad
//	v ← v − (1−β₂)·Δ²·sign(v − Δ²)      Yogi
//	v ← β₂v + (1−β₂)Δ²                  Adam
//	w ← w + η·m/(√v + τ)
//
// with m = 0 and v = τ² at first. The moments are kept in float64.
type Adaptive struct {
	Kind         AdaptiveKind
	Rate         float64 // η
	Beta1, Beta2 float64 // in [0, 1)
	Tau          float64 // τ > 0: degree of adaptivity
	// FromZero starts v at 0 instead of τ², as some implementations do.
	FromZero bool
}

// AdaptiveKind selects how second moments are formed.
type AdaptiveKind uint8

// The kinds of adaptive rules.
const (
	Adagrad AdaptiveKind = iota
	Yogi
	Adam
)

// Init implements [Rule].
func (Average) Init(weights.Set) map[string]weights.Set { return nil }

// Move implements [Rule].
func (Average) Move(_ map[string]weights.Set, averaged, _ weights.Set) map[string]weights.Set {
	return map[string]weights.Set{"w": averaged}
}

// Validate implements [Rule].
func (Average) Validate() error { return nil }

// Init implements [Rule].
func (Momentum) Init(w weights.Set) map[string]weights.Set {
	return map[string]weights.Set{"velocity": w.Convert(weights.Float64).Zeros()}
}

// Move implements [Rule].
func (r Momentum) Move(sets map[string]weights.Set, averaged, delta weights.Set) map[string]weights.Set {
	v := sets["velocity"].Map(delta, func(v, d float64) float64 { return float64(r.Beta*v) - d })
	if r.Beta == 0 && r.Rate == 1 {
		return map[string]weights.Set{"w": averaged, "velocity": v} // FedAvg, to the bit
	}
	step := v
	if r.Nesterov {
		step = v.Map(delta, func(v, d float64) float64 { return float64(r.Beta*v) - d })
	}
	w := sets["w"].Map(step, func(w, s float64) float64 { return w - float64(r.Rate*s) })
	return map[string]weights.Set{"w": w, "velocity": v}
}

// Validate implements [Rule].
func (r Momentum) Validate() error {
	if !(r.Beta >= 0 && r.Beta < 1) {
		return fmt.Errorf("server momentum %g is outside [0, 1)", r.Beta)
	}
	return positive("server rate", r.Rate)
}

// Init implements [Rule].
func (r Adaptive) Init(w weights.Set) map[string]weights.Set {
	zero := w.Convert(weights.Float64).Zeros()
	v := zero
	if !r.FromZero {
		v = zero.Map(zero, func(float64, float64) float64 { return r.Tau * r.Tau })
	}
	return map[string]weights.Set{"first": zero, "second": v}
}

// Move implements [Rule].
func (r Adaptive) Move(sets map[string]weights.Set, _, delta weights.Set) map[string]weights.Set {
	m := sets["first"].Map(delta, func(m, d float64) float64 { return float64(r.Beta1*m) + float64((1-r.Beta1)*d) })
	v := sets["second"].Map(delta, func(v, d float64) float64 {
		switch r.Kind {
		case Yogi:
			return v - float64((1-r.Beta2)*d*d*sign(v-float64(d*d)))
		case Adam:
			return float64(r.Beta2*v) + float64((1-r.Beta2)*d*d)
		}
		return v + float64(d*d)
	})
	step := m.Map(v, func(m, v float64) float64 { return r.Rate * m / (math.Sqrt(v) + r.Tau) })
	w := sets["w"].Map(step, func(w, s float64) float64 { return w + s })
	return map[string]weights.Set{"w": w, "first": m, "second": v}
}

func sign(x float64) float64 {
	switch {
	case x > 0:
		return 1
	case x < 0:
		return -1
	}
	return 0
}

// Validate implements [Rule].
func (r Adaptive) Validate() error {
	if !(r.Beta1 >= 0 && r.Beta1 < 1) {
		return fmt.Errorf("beta1 %g is outside [0, 1)", r.Beta1)
	}
	if !(r.Beta2 >= 0 && r.Beta2 < 1) {
		return fmt.Errorf("beta2 %g is outside [0, 1)", r.Beta2)
	}
	if err := positive("tau", r.Tau); err != nil {
		return err
	}
	return positive("server rate", r.Rate)
}

func positive(name string, v float64) error {
	if !(v > 0) || math.IsInf(v, 0) {
		return fmt.Errorf("%s %g: expected more than 0", name, v)
	}
	return nil
}
