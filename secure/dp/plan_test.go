package dp_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/cohort-learning/cohort/secure/dp"
)

func ExamplePlan() {
	p := dp.Plan{Epsilon: 8, Delta: 1e-5, Fraction: 0.1}
	z, err := p.Noise(100)
	fmt.Printf("%.2f %v\n", z, err)
	n, err := p.Rounds(1)
	fmt.Println(n > 100, err)
	// Output:
	// 0.94 <nil>
	// true <nil>
}

func TestPlan(t *testing.T) {
	for _, a := range []dp.Accountant{dp.RDP, dp.PLD} {
		for _, tt := range []struct {
			eps, delta, q float64
			rounds        int
		}{{8, 1e-5, .1, 100}, {1, 1e-6, .01, 1000}, {.1, 1e-5, 1, 10}, {100, 1e-3, .5, 3}, {.001, 1e-5, .01, 1}, {2, .3, 1e-3, 10}} {
			p := dp.Plan{Epsilon: tt.eps, Delta: tt.delta, Fraction: tt.q, Accountant: a}
			z, err := p.Noise(tt.rounds)
			if a == dp.RDP && tt.eps < .01 {
				if err == nil {
					t.Errorf("%v %+v: %v is below what its orders reach", a, tt, z)
				}
				continue
			}
			if err != nil {
				t.Errorf("%v %+v: %v", a, tt, err)
				continue
			}
			at := func(z float64) float64 {
				return epsilon(t, a, tt.delta, dp.Release{Fraction: tt.q, Noise: z, Rounds: tt.rounds})
			}
			if e, less := at(z), at(z*.998); e > tt.eps || less <= tt.eps && z > 1e-3 {
				t.Errorf("%v %+v: z = %v costs %v, a little less %v", a, tt, z, e, less)
			}
			if n, err := p.Rounds(z); err != nil || n < tt.rounds {
				t.Errorf("%v %+v: z = %v allows %d rounds, %v", a, tt, z, n, err)
			}
		}
	}
	p := dp.Plan{Epsilon: 1, Delta: 1e-5, Fraction: .1, Accountant: dp.RDP}
	if n, err := p.Rounds(0); n != 0 || err != nil {
		t.Errorf("%d rounds without noise, %v", n, err)
	}
	if z, err := p.Noise(0); z != 0 || err != nil {
		t.Errorf("no rounds want noise %v, %v", z, err)
	}
	for _, bad := range []dp.Plan{{}, {Epsilon: math.NaN(), Delta: .1, Fraction: .1}, {Epsilon: 1, Delta: 1, Fraction: .1}, {Epsilon: 1, Delta: .1, Fraction: 2}} {
		if _, err := bad.Noise(1); err == nil {
			t.Errorf("%+v: no error", bad)
		}
		if _, err := bad.Rounds(1); err == nil {
			t.Errorf("%+v: no error", bad)
		}
	}
	if _, err := p.Noise(-1); err == nil {
		t.Error("negative rounds: no error")
	}
	if _, err := (dp.Plan{Epsilon: 1e-12, Delta: 1e-12, Fraction: 1, Accountant: dp.RDP}).Noise(1_000_000); err == nil {
		t.Error("endless noise: no error")
	}
}
