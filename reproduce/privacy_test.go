package reproduce

import (
	"context"
	"errors"
	"math"
	"testing"

	"github.com/cohort-learning/cohort/federated"
)

// TestPrivacy plays the attack on membership with fixed seeds. With the noise that the accountant asks for, no guess beats the bound
// of ε, also with what the attack learns from runs of its own; with a quarter of the noise, and with none, the same guess does.
func TestPrivacy(t *testing.T) {
	c, epsilon, err := privacyRun()
	if err != nil {
		t.Fatal(err)
	}
	if math.Abs(c.Noise-3.96) > 0.01 || math.Abs(epsilon-0.614) > 0.001 {
		t.Errorf("noise %v, ε %v at δ = 0.01", c.Noise, epsilon)
	}
	for _, s := range strengths {
		if s.part == 0.5 { // takes more runs to be seen
			continue
		}
		weaker := c
		weaker.Noise *= s.part
		informed, shadow, err := newInference(1, privacyMembers, privacyRounds, weaker).attack(t.Context(), 1, 800, attackDelta, nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, j := range map[string]judged{"informed": informed, "shadow": shadow} {
			excess := j.excess(epsilon, attackDelta)
			t.Logf("%s, %s: right %.4f (at least %.4f), wrong %.4f (at most %.4f), least ε %.2f, above the bound by %.4f",
				s.name, name, j.tpr, j.tprLow, j.fpr, j.fprHigh, j.epsilon(attackDelta), excess)
			if s.holds != (excess <= 0) {
				t.Errorf("%s: the %s attack is above the bound by %v", s.name, name, excess)
			}
			if s.holds && j.tpr <= j.fpr {
				t.Errorf("%s: the %s attack guesses no better than by chance: it tests nothing", s.name, name)
			}
		}
	}
}

// The bounds of Clopper and Pearson where they are known in closed form, and one from tables (3 of 10, 99 % in two sides).
func TestRate(t *testing.T) {
	const a = 1 - confidence
	none, all, some := rate(0, 20, 0, 30), rate(20, 20, 30, 30), rate(3, 10, 3, 10)
	for _, c := range []struct{ got, want float64 }{
		{none.tprLow, 0}, {none.fprHigh, 1 - math.Pow(a, 1.0/30)}, {all.tprLow, math.Pow(a, 1.0/20)}, {all.fprHigh, 1},
		{some.tprLow, 0.0370}, {some.fprHigh, 0.7351},
	} {
		if math.Abs(c.got-c.want) > 5e-4 {
			t.Errorf("%v, want %v", c.got, c.want)
		}
	}
	if e := all.epsilon(0); e != 0 {
		t.Errorf("who always says yes needs ε = %v", e)
	}
	if e := (judged{}).epsilon(0.1); e != 0 {
		t.Errorf("who never says yes needs ε = %v", e)
	}
}

func TestPrivacyStops(t *testing.T) {
	c, _, err := privacyRun()
	if err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	close(stop)
	if _, _, err := newInference(1, privacyMembers, privacyRounds, c).attack(t.Context(), 1, 10, attackDelta, stop); !errors.Is(err, federated.ErrStopped) {
		t.Errorf("stopped: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := newInference(1, privacyMembers, privacyRounds, c).attack(ctx, 1, 10, attackDelta, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
