package simulation

import (
	"fmt"
	"math"
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/weights"
)

func answer(member int, x ...float64) *federated.Answer {
	s := weights.NewSet(1)
	s.Put("x", weights.Of64(x, len(x)))
	o := &federated.Order{ID: member, Member: federated.Member{Index: member, Name: fmt.Sprint("m", member)}, Phase: "train"}
	return &federated.Answer{Order: o, Result: federated.Result{Weight: 3, Addends: map[string]weights.Set{"w": s}}}
}

func sent(a *federated.Answer) []float64 { return a.Result.Addends["w"].Must("x").F64 }

// What liars send, by the formulas.
func TestLies(t *testing.T) {
	for kind, want := range map[string][]float64{"sign-flip": {-5, 10}, "scale": {5, -10}} {
		a := answer(1, 1, -2)
		honest := sent(a)
		(&plot{Attack: Attack{Kind: kind}, s: 5}).alone(a)
		if got := sent(a); got[0] != want[0] || got[1] != want[1] || honest[0] != 1 {
			t.Errorf("%s of (1, −2) is %v, want %v; the honest update is %v", kind, got, want, honest)
		}
	}
	x := make([]float64, 10000)
	for i := range x {
		x[i] = 3
	}
	a := answer(1, x...)
	(&plot{Attack: Attack{Kind: "gaussian"}, s: 2}).alone(a)
	var mean, squares float64
	for _, v := range sent(a) {
		mean += v / 10000
		squares += v * v / 10000
	}
	if math.Abs(mean) > 0.3 || math.Abs(math.Sqrt(squares)-6) > 0.2 {
		t.Errorf("noise of mean %g and deviation %g, want 0 and 6", mean, math.Sqrt(squares))
	}
	for kind, want := range map[string]float64{"alie": 3 - 0.5*2, "ipm": -0.5 * 3} {
		failed := answer(5, 7)
		failed.Err = fmt.Errorf("lost")
		three := []*federated.Answer{answer(1, 1), answer(2, 5), failed, answer(3, 1, 2)} // one holds another part
		(&plot{Attack: Attack{Kind: kind}, s: 0.5}).together(three)
		if got := sent(three[0]); got[0] != want || sent(three[1])[0] != want || sent(failed)[0] != 7 {
			t.Errorf("%s of 1 and 5 is %v and %v, want %g", kind, got, sent(three[1]), want)
		}
	}
}

// The strength that the paper computes for 24 liars of 50: Φ⁻¹(12/13).
func TestHiding(t *testing.T) {
	if z := hiding(50, 24); math.Abs(z-1.426076872272850) > 1e-9 {
		t.Errorf("z = %.12f", z)
	}
	if z := hiding(20, 19); z < 0 || math.IsInf(z, 0) || math.IsNaN(z) {
		t.Errorf("z = %g for a majority of liars", z)
	}
}
