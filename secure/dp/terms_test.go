package dp_test

import (
	"encoding/json"
	"math"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/secure/dp"
)

func central() dp.Terms {
	return dp.Terms{Mechanism: dp.CentralGaussian, Fraction: 0.1, Noise: 1, Clip: 0.5, Delta: 1e-5, Members: 100, EveryEnrolledCharged: true, Trusts: "clinic"}
}

func distributed() dp.Terms {
	return dp.Terms{Mechanism: dp.DistributedSkellam, Fraction: 0.1, Noise: 1, Clip: 0.5, Delta: 1e-5, Members: 100, Survivors: 7,
		Scale: 1000, Dimension: 50, Beta: math.Exp(-0.5)}
}

func TestTermsValidate(t *testing.T) {
	for _, ok := range []dp.Terms{central(), distributed()} {
		if err := ok.Validate(); err != nil {
			t.Errorf("%s: %v", ok.Mechanism, err)
		}
		text, err := json.Marshal(ok)
		var back dp.Terms
		if err != nil || json.Unmarshal(text, &back) != nil || back != ok {
			t.Errorf("%s becomes %+v, %v", text, back, err)
		}
	}
	for want, change := range map[string]func(*dp.Terms){
		"mechanism":          func(t *dp.Terms) { t.Mechanism = "laplace" },
		"noise multiplier":   func(t *dp.Terms) { t.Noise = 0 },
		"noise multiplier N": func(t *dp.Terms) { t.Noise = math.NaN() },
		"clip bound":         func(t *dp.Terms) { t.Clip = -1 },
		"without a clip":     func(t *dp.Terms) { t.Clip = math.Inf(1) },
		"delta":              func(t *dp.Terms) { t.Delta = 1 },
		"fraction":           func(t *dp.Terms) { t.Fraction = 1.5 },
		"members":            func(t *dp.Terms) { t.Members = 0 },
		"trusts":             func(t *dp.Terms) { t.Trusts = "" },
		"belong to":          func(t *dp.Terms) { t.Survivors = 3 },
		"no amplification":   func(t *dp.Terms) { *t = distributed(); t.EveryEnrolledCharged = true },
		"survivors of":       func(t *dp.Terms) { *t = distributed(); t.Survivors = 101 },
		"0 survivors":        func(t *dp.Terms) { *t = distributed(); t.Survivors = 0 },
		"scale":              func(t *dp.Terms) { *t = distributed(); t.Scale = 0 },
	} {
		terms := central()
		change(&terms)
		if err := terms.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, want one with %q", terms, err, want)
		}
	}
}

// A member that is only charged for rounds that it takes pays the full price of each.
func TestTermsCost(t *testing.T) {
	amplified, full := central(), central()
	full.EveryEnrolledCharged = false
	if a, f := amplified.Release(), full.Release(); a != (dp.Release{Fraction: 0.1, Noise: 1, Rounds: 1}) || f != (dp.Release{Fraction: 1, Noise: 1, Rounds: 1}) {
		t.Errorf("releases %+v and %+v", a, f)
	}
	// The reference of the sampled and the plain Gaussian mechanism: one round at q = 1, z = 1, δ = 1e-5.
	if e, err := full.Epsilon(1e-5, 1); err != nil || math.Abs(e-4.377178) > 1e-3*e {
		t.Errorf("ε = %v, %v, want 4.377178", e, err)
	}
	a, err := amplified.Epsilon(1e-5, 100)
	if want, werr := dp.PLD.Epsilon(1e-5, dp.Release{Fraction: 0.1, Noise: 1, Rounds: 100}); err != nil || werr != nil || a != want {
		t.Errorf("ε = %v, %v, want %v", a, err, want)
	}
	d := distributed()
	if e, err := d.Epsilon(1e-5, 20); err != nil || e != d.Skellam().Curve(20).Epsilon(1e-5) || e != d.Curve(20).Epsilon(1e-5) {
		t.Errorf("ε of distributed noise %v, %v", e, err)
	}
	if d.Amplified() || full.Amplified() || !amplified.Amplified() {
		t.Error("who is amplified?")
	}
	if e, err := amplified.Epsilon(1e-30, 1); err != nil || math.IsInf(e, 1) {
		t.Errorf("a δ that PLD does not resolve: %v, %v", e, err)
	}
}
