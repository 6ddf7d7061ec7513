package selffl

import (
	"errors"
	"math"
	"slices"
	"testing"

	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
	"pgregory.net/rapid"
)

// The example that all reference values are of: four clients' estimates, their variances, and σ_0². The values were computed
// in double precision from the formulas alone.
var (
	theta   = []float64{1, 2, -1, 0.5}
	within  = []float64{0.04, 0.25, 1, 0.09}
	between = 0.5
)

// near compares to a reference value given with 12 digits after the point.
func near(t *testing.T, what string, got, want float64) {
	t.Helper()
	if !(math.Abs(got-want) < 6e-13) {
		t.Errorf("%s = %.12f, want %.12f", what, got, want)
	}
}

func TestReferenceTable(t *testing.T) {
	w, total := Precisions(between, within)
	g := Global(theta, w)
	near(t, "G", g, 0.847215934812)
	near(t, "v_G", 1/total, 0.180285196922)
	for m, want := range []struct {
		weight, lambda, others, variance, beta, mean, spread, exact, rate, pairwise float64
		steps                                                                       int
	}{
		{.333861475781, .074074074074, .770642201835, .270642201835, .049343594387, .988682661838, .038026256225, 28.558585751070, .098555501699, .975798024741, 29},
		{.240380262562, .333333333333, .482419547080, .237336114422, .253206579146, 1.615738644937, .186698355214, 13.036663654171, .093451444102, 1.398384777077, 14},
		{.120190131281, .666666666667, 1.099562644713, .204913815282, .586539912479, .231477289875, .413460087521, 5.063704917397, .085080406514, .549135830888, 6},
		{.305568130376, .152542372881, 1.000000000000, .259615384615, .105930285197, .552965142598, .080466274332, 21.307546513471, .097010430642, .569602454301, 22},
	} {
		near(t, "w_m/W", w[m]/total, want.weight)
		near(t, "λ_m", Pull(within[m], between, 0), want.lambda)
		others, variance := LeaveOneOut(g, total, theta[m], w[m])
		near(t, "G_{−m}", others, want.others)
		near(t, "v_{G−m}", variance, want.variance)
		beta := Pull(within[m], between, variance)
		near(t, "β_m", beta, want.beta)
		mean, spread := Posterior(theta[m], within[m], between, g, 1/total)
		near(t, "E from G", mean, want.mean)
		near(t, "E from G_{−m}", (1-beta)*theta[m]+beta*others, want.mean)
		near(t, "Var", spread, want.spread)
		near(t, "ℓ*", math.Log(beta)/math.Log(1-0.1), want.exact)
		d := Plan(beta, 1, 0.1, 1, 100)
		near(t, "η_m", d.Rate, want.rate)
		if d.Steps != want.steps {
			t.Errorf("%d steps, want %d", d.Steps, want.steps)
		}
		near(t, "pairwise", Pairwise(m, theta, within, between), want.pairwise)

		// So many steps of gradient descent on ½(θ − θ_m^L)², from the others' estimate, land on the posterior.
		x := others
		for range d.Steps {
			x -= d.Rate * (x - theta[m])
		}
		near(t, "gradient descent", x, want.mean)
	}
}

func TestLimits(t *testing.T) {
	w, total := Precisions(0, within)
	g := Global(theta, w)
	near(t, "G with σ_0² = 0", g, .913513513514)
	for m, want := range []float64{.608108108108, .097297297297, .024324324324, .270270270270} {
		near(t, "weight with σ_0² = 0", w[m]/total, want)
		mean, _ := Posterior(theta[m], within[m], 0, g, 1/total)
		near(t, "posterior with σ_0² = 0", mean, .913513513514)
	}
	w, total = Precisions(1e9, within)
	g = Global(theta, w)
	for m := range theta {
		mean, _ := Posterior(theta[m], within[m], 1e9, g, 1/total)
		if d := math.Abs(mean - theta[m]); d > 2e-9 {
			t.Errorf("with σ_0² = 1e9 client %d's posterior is %g from its own estimate", m, d)
		}
	}
	if d := math.Abs(g - (1+2-1+0.5)/4); d > 1e-8 {
		t.Errorf("with σ_0² = 1e9 G is %g from the plain mean", d)
	}
}

func TestEstimators(t *testing.T) {
	var rows [][]float64
	for _, x := range theta {
		rows = append(rows, []float64{x})
	}
	a := make([]float64, len(within))
	for m, v := range within {
		a[m] = 1 / v
	}
	near(t, "Q", SpreadOf(rows, a, within).Q, 10.470270270270)
	for by, want := range map[Between]float64{Naive: 1.5625, Moment: 1.2175, DerSimonianLaird: .332131699111, PauleMandel: .944185391817} {
		got, err := Estimate(by, rows, within)
		if err != nil {
			t.Fatal(err)
		}
		near(t, string(by), got, want)
	}
	// Q − (M − 1) over Σa − Σa²/Σa, as DerSimonian and Laird wrote it.
	s := SpreadOf(rows, a, within)
	near(t, "DerSimonian and Laird's formula", (s.Q-3)/(s.A-s.AA/s.A), .332131699111)

	if got, err := Estimate(Moment, [][]float64{{1}, {1.0001}}, []float64{1, 1}); err != nil || got != LeastBetween {
		t.Errorf("clients that are alike: %v, %v, want the least variance %v", got, err, LeastBetween)
	}
	for _, by := range Betweens() {
		if _, err := Estimate(by, rows[:1], within[:1]); !errors.Is(err, ErrAlone) {
			t.Errorf("%s of one client: %v", by, err)
		}
		for _, v := range []float64{-1, math.NaN()} {
			if _, err := Estimate(by, rows, []float64{1, v, 1, 1}); err == nil {
				t.Errorf("%s of variance %v is not refused", by, v)
			}
		}
		if _, err := Estimate(by, rows, make([]float64, 4)); err != nil {
			t.Errorf("%s of certain clients: %v", by, err)
		}
	}
	if _, err := Estimate("median", rows, within); err == nil {
		t.Error("an unknown estimator is not refused")
	}
}

// drawn draws a federation of one coordinate.
func drawn(t *rapid.T, least int) (x, v []float64, s float64) {
	m := rapid.IntRange(least, 12).Draw(t, "clients")
	for range m {
		x = append(x, rapid.Float64Range(-5, 5).Draw(t, "θ"))
		v = append(v, rapid.Float64Range(1e-3, 4).Draw(t, "v"))
	}
	return x, v, rapid.Float64Range(1e-3, 4).Draw(t, "σ_0²")
}

func TestPosteriorProperties(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, v, s := drawn(t, 2)
		w, total := Precisions(s, v)
		g := Global(x, w)
		sum := 0.0
		order := rng.New(rapid.Uint64().Draw(t, "order"), 0, "", "").Perm(len(x))
		var px, pv []float64
		for _, m := range order {
			px, pv = append(px, x[m]), append(pv, v[m])
		}
		pw, ptotal := Precisions(s, pv)
		pg := Global(px, pw)
		if math.Abs(pg-g) > 1e-12 {
			t.Fatalf("another order of clients changes G from %v to %v", g, pg)
		}
		for m := range x {
			if !(w[m] > 0) {
				t.Fatalf("weight %v", w[m])
			}
			sum += w[m] / total
			lambda := Pull(v[m], s, 0)
			others, variance := LeaveOneOut(g, total, x[m], w[m])
			beta := Pull(v[m], s, variance)
			if !(beta <= lambda) {
				t.Fatalf("β %v above λ %v", beta, lambda)
			}
			mean, _ := Posterior(x[m], v[m], s, g, 1/total)
			if other := (1-beta)*x[m] + beta*others; math.Abs(mean-other) > 1e-11*(1+math.Abs(others)) {
				t.Fatalf("the posterior is %v from G and %v from G_{−m}", mean, other)
			}
			if lo, hi := min(x[m], g), max(x[m], g); mean < lo-1e-12 || mean > hi+1e-12 {
				t.Fatalf("the posterior %v is not between %v and %v", mean, lo, hi)
			}
			k := slices.Index(order, m)
			if p, _ := Posterior(px[k], pv[k], s, pg, 1/ptotal); math.Abs(p-mean) > 1e-12 {
				t.Fatalf("another order of clients changes client %d's posterior from %v to %v", m, mean, p)
			}
		}
		if math.Abs(sum-1) > 1e-12 {
			t.Fatalf("weights sum to %v", sum)
		}
	})
}

// Data in another unit scale all variances alike, and leave the steps as they are.
func TestScaling(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, v, _ := drawn(t, 3)
		c := rapid.Float64Range(0.1, 10).Draw(t, "c")
		rows, scaledRows := make([][]float64, len(x)), make([][]float64, len(x))
		scaled := make([]float64, len(x))
		for m := range x {
			rows[m], scaledRows[m], scaled[m] = []float64{x[m]}, []float64{c * x[m]}, c*c*v[m]
		}
		for _, by := range Betweens() {
			s, err := Estimate(by, rows, v)
			if err != nil {
				t.Fatal(err)
			}
			u, err := Estimate(by, scaledRows, scaled)
			if err != nil {
				t.Fatal(err)
			}
			if s == LeastBetween || u == LeastBetween { // the floor does not scale
				continue
			}
			if math.Abs(u-c*c*s) > 1e-9*u {
				t.Fatalf("%s: %v times c² is %v, not %v", by, s, c*c*s, u)
			}
			for m := range x {
				a, b := Plan(Pull(v[m], s, 0), 1, 0.1, 1, 1000), Plan(Pull(scaled[m], u, 0), 1, 0.1, 1, 1000)
				if d := a.Steps - b.Steps; d < -1 || d > 1 || d != 0 && math.Abs(math.Remainder(math.Log(Pull(v[m], s, 0))/math.Log(0.9), 1)) > 1e-6 {
					t.Fatalf("%d steps become %d", a.Steps, b.Steps)
				}
			}
		}
	})
}

// If clients send their posterior means and the server averages them alike, rounds converge to (1) and (2). With weights by
// precision they converge to G ∝ Σ θ_m/(σ_0² + v_m)² instead.
func TestFixedPoints(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, v, s := drawn(t, 2)
		for m := range v { // λ ≤ 0.9
			v[m] = min(v[m], 9*s)
		}
		w, total := Precisions(s, v)
		want := Global(x, w)
		ones := slices.Repeat([]float64{1}, len(x))
		squares := make([]float64, len(w))
		for m := range w {
			squares[m] = w[m] * w[m]
		}
		iterate := func(weights []float64) float64 {
			g := 0.0
			for range 300 {
				up := make([]float64, len(x))
				for m := range x {
					up[m], _ = Posterior(x[m], v[m], s, g, 1/total)
				}
				g = Global(up, weights)
			}
			return g
		}
		if got := iterate(ones); math.Abs(got-want) > 1e-12*(1+math.Abs(want)) {
			t.Fatalf("averaged alike the uploads come to %v, not %v", got, want)
		}
		if got, other := iterate(w), Global(x, squares); math.Abs(got-other) > 1e-11*(1+math.Abs(other)) {
			t.Fatalf("averaged by precision the uploads come to %v, not %v", got, other)
		}
	})
}

// Where all are alike and equally certain, everybody takes the plain mean: β = (M−1)/M.
func TestAlike(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, v, _ := drawn(t, 2)
		for m := range v {
			v[m] = v[0]
		}
		w, total := Precisions(0, v)
		g := Global(x, w)
		mean := 0.0
		for _, e := range x {
			mean += e / float64(len(x))
		}
		for m := range x {
			others, variance := LeaveOneOut(g, total, x[m], w[m])
			beta := Pull(v[m], 0, variance)
			if want := float64(len(x)-1) / float64(len(x)); math.Abs(beta-want) > 1e-12 {
				t.Fatalf("β = %v, want %v", beta, want)
			}
			if got := (1-beta)*x[m] + beta*others; math.Abs(got-mean) > 1e-11 {
				t.Fatalf("posterior %v, want the mean %v", got, mean)
			}
		}
	})
}

// The warm start has the posterior as its fixed point, whatever ρ.
func TestWarmFixedPoint(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		beta := rapid.Float64Range(0, 1).Draw(t, "β")
		rho := rapid.Float64Range(0.01, 1).Draw(t, "ρ")
		own, others := rapid.Float64Range(-5, 5).Draw(t, "own"), rapid.Float64Range(-5, 5).Draw(t, "others")
		b := WarmPull(beta, rho)
		e := (1-beta)*own + beta*others
		if got := b*((1-rho)*e+rho*others) + (1-b)*own; math.Abs(got-e) > 1e-12 {
			t.Fatalf("a round moves the posterior from %v to %v", e, got)
		}
		if !(b >= beta) || WarmPull(beta, 1) != beta && math.Abs(WarmPull(beta, 1)-beta) > 1e-15 {
			t.Fatalf("b = %v for β = %v, ρ = %v", b, beta, rho)
		}
	})
}

// Steps of any plan within its bounds land where they should, at no more than the rate asked for.
func TestPlanLands(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.Float64Range(1e-6, 0.999).Draw(t, "b")
		h := rapid.Float64Range(0.01, 20).Draw(t, "h")
		rate := rapid.Float64Range(1e-3, 1).Draw(t, "η")
		d := Plan(b, h, rate, 1, 1<<30)
		if d.Capped != (rate*h >= 1) {
			t.Fatalf("η·h = %v: %+v", rate*h, d)
		}
		if !(d.Rate <= rate*(1+1e-9)) {
			t.Fatalf("rate %v above %v", d.Rate, rate)
		}
		if got := Contraction(d.Rate, h, d.Steps); math.Abs(got-b) > 1e-9 {
			t.Fatalf("%d steps of rate %v leave %v, want %v", d.Steps, d.Rate, got, b)
		}
	})
	for _, c := range []struct {
		b    float64
		want Descent
	}{
		{0, Descent{Steps: 50, Rate: 0.1}}, {math.NaN(), Descent{Steps: 50, Rate: 0.1}}, {1, Descent{Steps: 2, Rate: 0.1}},
		{1 - 1e-13, Descent{Steps: 2, Rate: 0.1}}, {1e-9, Descent{Steps: 50, Rate: 0.1}}, {0.95, Descent{Steps: 2, Rate: 0.1}},
	} {
		if got := Plan(c.b, 1, 0.1, 2, 50); got != c.want {
			t.Errorf("b = %v: %+v, want %+v", c.b, got, c.want)
		}
	}
}

func TestUnshrink(t *testing.T) {
	for b, want := range map[float64]float64{0: 1, 0.5: 2, 0.8: 5, 0.99: 5, 1: 5} {
		if got := Unshrink(b); math.Abs(got-want) > 1e-12 {
			t.Errorf("Unshrink(%v) = %v, want %v", b, got, want)
		}
	}
	// Until four fifths of the way is left it takes an upload back to the client's own estimate.
	rapid.Check(t, func(t *rapid.T) {
		b := rapid.Float64Range(0, 0.8).Draw(t, "b")
		init, own := rapid.Float64Range(-5, 5).Draw(t, "init"), rapid.Float64Range(-5, 5).Draw(t, "own")
		up := own + b*(init-own)
		if got := init + (up-init)*Unshrink(b); math.Abs(got-own) > 1e-12 {
			t.Fatalf("%v, want %v", got, own)
		}
	})
}

func TestMoments(t *testing.T) {
	var w Moments
	for _, x := range [][]float32{{1, 5, 2}, {2, 5, 4}, {6, 5, 9}} {
		Observe(&w, x[:1], x[1:])
	}
	for j, want := range []float64{7, 0, 13} {
		if got, ok := w.Variance(j, j+1); !ok || math.Abs(got-want) > 1e-12 {
			t.Errorf("variance of coordinate %d is %v, want %v", j, got, want)
		}
	}
	if got, ok := w.Variance(0, 3); !ok || math.Abs(got-20.0/3) > 1e-12 {
		t.Errorf("mean variance %v", got)
	}
	var one Moments
	Observe(&one, []float64{1})
	if _, ok := one.Variance(0, 1); ok {
		t.Error("one vector has no variance")
	}
}

func TestSecant(t *testing.T) {
	a, b := [][]float64{{1, 2}, {3}}, [][]float64{{0, 1}, {-1}}
	grad := func(x [][]float64) [][]float64 { // of a quadratic of curvature 2.5
		return [][]float64{{2.5 * (x[0][0] - 7), 2.5 * (x[0][1] + 1)}, {2.5 * x[1][0]}}
	}
	if h, ok := Secant(grad(a), grad(b), a, b); !ok || math.Abs(h-2.5) > 1e-12 {
		t.Errorf("curvature %v, want 2.5", h)
	}
	if _, ok := Secant(grad(b), grad(a), a, b); ok {
		t.Error("a concave loss has a curvature")
	}
	if _, ok := Secant(grad(a), grad(a), a, a); ok {
		t.Error("no way has a curvature")
	}
}

// For the location model H is the unit matrix and C the covariance of the examples; for a mean of two dependent coordinates
// of precision matrix H the sandwich is H⁻¹CH⁻¹/n, here by hand.
func TestSandwich(t *testing.T) {
	one := mat.NewSymDense(2, []float64{1, 0, 0, 1})
	c := mat.NewSymDense(2, []float64{4, 1, 1, 9})
	v, err := SandwichVariance(one, c, 10)
	if err != nil {
		t.Fatal(err)
	}
	for j, want := range []float64{0.4, 0.9} {
		if math.Abs(v[j]-want) > 1e-5 {
			t.Errorf("variance %d is %v, want %v", j, v[j], want)
		}
	}
	h := mat.NewSymDense(2, []float64{2, 1, 1, 1}) // inverse (1, −1; −1, 2)
	if v, err = SandwichVariance(h, c, 1); err != nil {
		t.Fatal(err)
	}
	for j, want := range []float64{11, 36} {
		if math.Abs(v[j]-want) > 1e-3 {
			t.Errorf("variance %d is %v, want %v", j, v[j], want)
		}
	}
	if _, err := SandwichVariance(mat.NewSymDense(2, []float64{1, 0, 0, -1}), c, 1); err == nil {
		t.Error("an indefinite Hessian is not refused")
	}
}

func TestSmooth(t *testing.T) {
	if Smooth(0, 3) != 3 || Smooth(1, 3) != 2 {
		t.Error("0.5 old + 0.5 new, the first as it is")
	}
}

// With noise of single gradients of variance C, SGD of rate η and batch B settles at the variance that the calibration turns
// into C/(nh²), whatever η and B.
func TestCalibration(t *testing.T) {
	const h, c, n = 2.0, 3.0, 500
	for _, o := range []struct {
		rate  float64
		batch int
	}{{0.01, 5}, {0.02, 10}, {0.005, 20}} {
		r := rng.New(1, 0, "", "calibration")
		var w Moments
		x := 0.0
		for i := range 400_000 {
			x -= o.rate * (h*x + math.Sqrt(c/float64(o.batch))*r.NormFloat64())
			if i > 5000 {
				Observe(&w, []float64{x})
			}
		}
		raw, _ := w.Variance(0, 1)
		if got, want := raw*Calibration(o.batch, n, h, o.rate), c/(n*h*h); math.Abs(got/want-1) > 0.08 {
			t.Errorf("η = %v, B = %d: calibrated variance %v, want %v", o.rate, o.batch, got, want)
		}
	}
}
