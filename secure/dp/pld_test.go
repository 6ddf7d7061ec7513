package dp

import (
	"math"
	"testing"
)

// The loss of the neighbour with the member added is that of exchanged distributions. In one round, with Q(A) = (1−q)·N_0(A) +
// q·N_1(A) and x₁ where −f(x₁) = ε: δ(ε) = N_0(x < x₁) − e^ε·Q(x < x₁).
func TestMemberAdded(t *testing.T) {
	cdf := func(x float64) float64 { return math.Erfc(-x/math.Sqrt2) / 2 }
	for _, q := range []float64{.01, .3, .9} {
		for _, z := range []float64{.4, 1, 6} {
			r := Release{Fraction: q, Noise: z, Rounds: 1}
			all, err := compose([]Release{r})
			if err != nil || len(all) != 2 {
				t.Fatal(len(all), err)
			}
			for _, eps := range []float64{-1, -.1, 0, .002, .1, .5, 2} {
				want := 0.0
				if x := newRound(r, true).inverse(-eps); !math.IsInf(x, 0) {
					want = cdf(x/z) - math.Exp(eps)*((1-q)*cdf(x/z)+q*cdf((x-1)/z))
				}
				if got := all[1].delta(eps); got < want*(1-1e-13)-1e-14 || got > want*1.015+1e-9 {
					t.Errorf("q %v, z %v: δ(%v) = %g, exact %g", q, z, eps, got, want)
				}
			}
			// Both are distributions, and E_P[e^{−L}] is the mass of Q where P is not 0, at most 1.
			for i, l := range all {
				mass, other := l.infinite, 0.0
				for k, p := range l.p {
					mass += p
					other += p * math.Exp(-l.h*float64(l.low+k))
				}
				if math.Abs(mass-1) > 1e-8 || other > 1+1e-8 {
					t.Errorf("q %v, z %v, neighbour %d: mass %v under P, %v under Q", q, z, i, mass, other)
				}
			}
		}
	}
}

func TestInverse(t *testing.T) {
	for _, q := range []float64{1e-6, .01, .5, 1 - 1e-12, 1} {
		for _, z := range []float64{.01, .5, 1, 50} {
			r := newRound(Release{Fraction: q, Noise: z}, false)
			for _, u := range []float64{-3, -.5, 0, .2, 2, 8} {
				x := z * u
				y := r.f(x)
				if back := r.f(r.inverse(y)); !(math.Abs(back-y) <= 1e-12*(1+math.Abs(y))+1e-6*math.Exp(-math.Abs(y)*2)*(1-q)) {
					t.Errorf("q %v, z %v, x %v: f = %v, f of its inverse %v", q, z, x, y, back)
				}
			}
		}
	}
}

func TestLogPoisson(t *testing.T) {
	for _, rate := range []float64{10, 33, 400, 20_000} {
		for _, u := range []float64{-6, -3, -1, 0, .5, 2, 5, 9} {
			k := math.Max(0, math.Floor(rate+u*math.Sqrt(rate)))
			l, _ := math.Lgamma(k + 1)
			if got, want := logPoisson(k, rate), k*math.Log(rate)-rate-l; math.Abs(got-want) > 1e-14*rate*math.Log(rate)+1e-12 {
				t.Errorf("ln P(%v) at rate %v: %.15g, directly %.15g", k, rate, got, want)
			}
		}
	}
	// Where the formula has lost its digits, neighbours still have the ratio rate/(k+1).
	for _, k := range []float64{1e9 - 60000, 1e9, 1e9 + 40000} {
		if got, want := logPoisson(k+1, 1e9)-logPoisson(k, 1e9), math.Log(1e9/(k+1)); math.Abs(got-want) > 1e-14 {
			t.Errorf("ratio at %v: %g, want %g", k, got, want)
		}
	}
}
