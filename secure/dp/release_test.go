package dp_test

import (
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/secure/dp"
)

func Example() {
	run := dp.Release{Fraction: 0.1, Noise: 1, Rounds: 100}
	for _, a := range []dp.Accountant{dp.PLD, dp.RDP} {
		eps, err := a.Epsilon(1e-5, run)
		fmt.Printf("%v: ε = %.2f at δ = 1e-5 %v\n", a, eps, err)
	}
	// Output:
	// pld: ε = 7.05 at δ = 1e-5 <nil>
	// rdp: ε = 7.90 at δ = 1e-5 <nil>
}

// tester is what the tests of testing and rapid have in common.
type tester interface {
	Helper()
	Fatalf(string, ...any)
}

func near(got, want, relative float64) bool {
	return got == want || math.Abs(got-want) <= relative*math.Abs(want)
}

func epsilon(t tester, a dp.Accountant, delta float64, rs ...dp.Release) float64 {
	t.Helper()
	e, err := a.Epsilon(delta, rs...)
	if err != nil || math.IsNaN(e) || e < 0 {
		t.Fatalf("%v of %+v at %g: %v, %v", a, rs, delta, e, err)
	}
	return e
}

func deltaOf(t tester, a dp.Accountant, eps float64, rs ...dp.Release) float64 {
	t.Helper()
	d, err := a.Delta(eps, rs...)
	if err != nil || !(d >= 0 && d <= 1) {
		t.Fatalf("%v of %+v at ε = %g: %v, %v", a, rs, eps, d, err)
	}
	return d
}
