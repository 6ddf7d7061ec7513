package scaffold_test

import (
	"math"
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedavg"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/federated/scaffold"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

// near compares to a reference value given with 12 digits after the point.
func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if !(math.Abs(got-want) < 6e-13) {
		t.Errorf("%s = %.12f, want %.12f", what, got, want)
	}
}

// quadratics runs SCAFFOLD on the quadratic objectives of fedtest.
func quadratics(t *testing.T, rounds int, change func(*scaffold.Algorithm)) (*fedtest.Trace, *fedtest.World) {
	t.Helper()
	w, p := fedtest.Quadratics(fedtest.Engine(t, "go"), rounds)
	a := scaffold.New(p)
	change(a)
	r := fedtest.Run{World: w, Algorithm: a, Config: federated.Config{Rounds: rounds}}
	return r.Must(t), w
}

// The values were computed in float64 from the update rules alone, with F_k(w) = ½a_k(w−c_k)², a = (1, 2, 4),
// c = (1, −2, 3), w = 0, η = 0.1, η_g = 1, 5 full-batch steps and all clients weighing alike.
func TestGolden(t *testing.T) {
	l, _ := quadratics(t, 2, func(*scaffold.Algorithm) {})
	w, c := l.Numbers("w"), l.Numbers("c")
	near(t, "option II, w after round 1", w[0], 0.610530000000)
	near(t, "option II, w after round 2", w[1], 0.974837368300)
	near(t, "option II, c after round 1", c[0], -1.221060)
	near(t, "option II, c after round 2", c[1], -0.728614736600)

	// A third round in which only clients 0 and 2 take part.
	world, p := fedtest.Quadratics(fedtest.Engine(t, "go"), 3)
	p.Select.Eligible = func(m federated.Member) bool { return m.Index != 1 }
	r := fedtest.Run{World: world, Algorithm: scaffold.New(p), Config: federated.Config{Rounds: 3}, From: &l.Snapshots[1], Kept: l.Kept[1]}
	third := r.Must(t)
	near(t, "w after round 3 of two clients", third.Numbers("w")[0], 1.320628458599)
	near(t, "c after round 3 of two clients", third.Numbers("c")[0], -0.703926365932)

	l, _ = quadratics(t, 2, func(a *scaffold.Algorithm) { a.FullGrad = true })
	w, c = l.Numbers("w"), l.Numbers("c")
	near(t, "option I, w after round 1", w[0], 0.610530000000)
	near(t, "option I, w after round 2", w[1], 1.178911714300)
	near(t, "option I, c after round 1", c[0], -3)
	near(t, "option I, c after round 2", c[1], -1.575430)

	l, _ = quadratics(t, 150, func(*scaffold.Algorithm) {})
	near(t, "limit", l.Numbers("w")[149], 1.285714285714)
}

// Weighted SCAFFOLD tends to the optimum of the weighted objective, Σ n_k a_k c_k / Σ n_k a_k = 610/310.
func TestWeightedLimit(t *testing.T) {
	l, _ := quadratics(t, 150, func(a *scaffold.Algorithm) { a.Weighted = true })
	near(t, "limit", l.Numbers("w")[149], 1.967741935484)
}

// The server's control is the mean of the clients' after every round, also when some are stale and discounted.
func TestConservation(t *testing.T) {
	w := fedtest.Blobs(fedtest.Engine(t, "go"), 6, 3, 8, 6, 12, 10, 7)
	for what, config := range map[string]federated.Config{
		"synchronous":  {Rounds: 4},
		"asynchronous": {Rounds: 4, Pace: federated.Pace{Staleness: 2, Quorum: 0.5, Discount: 1}},
	} {
		p := fedtest.Problem(t, 6, 3)
		p.Rounds, p.Select.Fraction = 4, 0.6
		r := fedtest.Run{World: w, Algorithm: scaffold.New(p), Config: config}
		l := r.Must(t)
		for i, s := range l.Snapshots {
			c := s.State.Sets["c"].Convert(weights.Float64)
			mean := c.Zeros()
			for _, own := range l.Kept[i] {
				mean.AddScaled(1/float64(w.Len()), own.Convert(weights.Float64))
			}
			if d := mean.Sub(c).Norm() / c.Norm(); !(d < 1e-6) {
				t.Errorf("%s: after round %d the mean of the clients' controls differs from the server's by %g of its norm", what, i, d)
			}
		}
	}
}

// All controls are 0 in the first round, which is that of FedAvg with uniform weights: bit for bit but for the server's
// arithmetic.
func TestFirstRound(t *testing.T) {
	w := fedtest.Blobs(fedtest.Engine(t, "go"), 6, 3, 8, 6, 12, 10, 7)
	run := func(a federated.Algorithm) weights.Set {
		r := fedtest.Run{World: w, Algorithm: a, Config: federated.Config{Rounds: 1}}
		return r.Must(t).Final.Sets["w"]
	}
	avg := fedavg.New(fedtest.Problem(t, 6, 3))
	avg.Uniform = true
	if got, want := run(scaffold.New(fedtest.Problem(t, 6, 3))), run(avg); !got.Equal(want) {
		t.Errorf("weights differ by %g", got.Sub(want).Norm())
	}
}

func TestCheck(t *testing.T) {
	w, p := fedtest.Quadratics(fedtest.Engine(t, "go"), 1)
	a := scaffold.New(p)
	if err := a.Check(w.Server()); err != nil {
		t.Errorf("no optimiser: %v", err)
	}
	for _, o := range []train.Optimizer{train.SGD{Momentum: 0.9}, train.Adam{}} {
		p.Training.Optimizer = o
		if a.Check(w.Server()) == nil {
			t.Errorf("%T %+v is not refused", o, o)
		}
	}
}
