package private_test

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedavg"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/federated/heterofl"
	"github.com/cohort-learning/cohort/federated/private"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/secure/dp"
	"github.com/cohort-learning/cohort/train"
)

// problem is one whose members are asked for training only.
func problem(t *testing.T) *federated.Problem {
	t.Helper()
	p := fedtest.Problem(t, 6, 3)
	build, err := nn.New("mlp", nn.Config{Input: []int{6}, Classes: 3, Hidden: []int{16}, Norm: nn.NoNorm})
	if err != nil {
		t.Fatal(err)
	}
	p.Build, p.Measuring.Members = build, false
	p.Training.Rate = train.Constant(0.1)
	p.Select = federated.Selection{Everyone: true}
	return p
}

func uniform(p *federated.Problem) *fedavg.Algorithm {
	a := fedavg.New(p)
	a.Uniform = true
	return a
}

func guard(t *testing.T, w *fedtest.World, a federated.Algorithm, change func(*fedtest.Run)) *fedtest.Trace {
	t.Helper()
	w.Vaults.Reset()
	r := &fedtest.Run{World: w, Algorithm: a, Config: federated.Config{Rounds: 3}}
	if change != nil {
		change(r)
	}
	return r.Must(t)
}

// TestGuardOfNothing checks that without noise, bound and coins differential privacy is uniform averaging, to the bit.
func TestGuardOfNothing(t *testing.T) {
	w := world(t)
	plain := guard(t, w, uniform(problem(t)), nil)
	dp := guard(t, w, private.NewGuard(fedavg.New(problem(t)), private.GuardOptions{Clip: math.Inf(1), Fraction: 1}), nil)
	if a, b := plain.Final.Sets["w"], dp.Final.Sets["w"]; !a.Equal(b) {
		t.Errorf("weights differ by %g", a.Sub(b).Norm())
	}
}

// TestGuardBounds checks that no update is longer than the bound, that nothing but the update leaves, and that the divisor does
// not depend on who came.
func TestGuardBounds(t *testing.T) {
	w := world(t)
	const clip = 0.05
	seen := 0
	look := func(r *fedtest.Run) {
		r.Members.Tamper = func(a *federated.Answer) {
			if a.Order.Phase != "train" {
				t.Errorf("phase %s asks members", a.Order.Phase)
			}
			seen++
			if n := a.Result.Addends["w"].Norm(); !(n <= clip*(1+1e-6)) {
				t.Errorf("%s sent an update of norm %g", a.Order.Member.Name, n)
			}
			if r := a.Result; r.Weight != 1 || r.Cover != nil || len(r.Scalars) > 0 || len(r.Addends) != 1 {
				t.Errorf("%s sent more than its update: %+v", a.Order.Member.Name, r)
			}
		}
	}
	guard(t, w, private.NewGuard(fedavg.New(problem(t)), private.GuardOptions{Clip: clip, Fraction: 1}), look)
	if seen != 30 {
		t.Errorf("%d answers, want 30", seen)
	}
	// With all but one lost, the others count as zero.
	one := guard(t, w, private.NewGuard(fedavg.New(problem(t)), private.GuardOptions{Clip: clip, Fraction: 1}), func(r *fedtest.Run) {
		r.Config.Rounds = 1
		r.Members.Tamper = func(a *federated.Answer) {
			if a.Order.Member.Index != 3 {
				a.Err = errors.New("lost")
			}
		}
	})
	start, err := uniform(problem(t)).Init(t.Context(), w.Server())
	if err != nil {
		t.Fatal(err)
	}
	if d := one.Final.Sets["w"].Sub(start.Sets["w"]).Norm(); !(d <= clip/10*(1+1e-5)) || d < clip/100 {
		t.Errorf("one member of ten moved the model by %g, at most a tenth of the bound %g is right", d, clip)
	}
}

// TestGuardNoise checks the noise's size, that it is added when nobody came, and that coins draw the fraction.
func TestGuardNoise(t *testing.T) {
	w := world(t)
	const z, clip = 3, 0.01
	r := func(r *fedtest.Run) {
		r.Config.Rounds = 1
		r.Members.Tamper = func(a *federated.Answer) { a.Err = errors.New("lost") }
	}
	got := guard(t, w, private.NewGuard(fedavg.New(problem(t)), private.GuardOptions{Clip: clip, Noise: z, Fraction: 1}), r)
	start, err := uniform(problem(t)).Init(t.Context(), w.Server())
	if err != nil {
		t.Fatal(err)
	}
	d := got.Final.Sets["w"].Sub(start.Sets["w"])
	want := z * clip / 10 * math.Sqrt(float64(d.Size()))
	if n := d.Norm(); math.Abs(n/want-1) > 0.25 {
		t.Errorf("noise of norm %g, expected about %g", n, want)
	}
	epsilon, err := dp.PLD.Epsilon(1e-5, dp.Release{Fraction: 1, Noise: z, Rounds: 1})
	if err != nil {
		t.Fatal(err)
	}
	if e := got.Metric("epsilon", ""); len(e) != 1 || e[0] != epsilon {
		t.Errorf("epsilon %v, want %v", e, epsilon)
	}
	drawn, rounds := 0, 200
	coins := guard(t, w, private.NewGuard(fedavg.New(problem(t)), private.GuardOptions{Clip: clip, Noise: 0, Fraction: 0.3}), func(r *fedtest.Run) {
		r.Config.Rounds = rounds
		r.Members.Tamper = func(a *federated.Answer) { drawn++ }
	})
	if n := float64(rounds * 10); math.Abs(float64(drawn)-0.3*n) > 4*math.Sqrt(n*0.21) {
		t.Errorf("%d of %g coins showed, expected about %g", drawn, n, 0.3*n)
	}
	asked := map[int]bool{}
	for _, p := range coins.Phase("train") {
		asked[p.Asked] = true
	}
	if len(asked) < 3 {
		t.Errorf("cohorts of sizes %v: coins are not a fixed size", asked)
	}
}

// TestGuardAdapts checks that the bound follows a quantile of the norms.
func TestGuardAdapts(t *testing.T) {
	w := world(t)
	a := private.NewGuard(fedavg.New(problem(t)), private.GuardOptions{Clip: 100, Noise: 0, Fraction: 1, Quantile: 0.5, Rate: 1, CountNoise: 1e-3})
	got := guard(t, w, a, func(r *fedtest.Run) { r.Config.Rounds = 20 }).Metric("clip", "")
	if got[0] != 100 || got[19] > 5 || got[19] < 0.01 {
		t.Errorf("bounds %.3v", got)
	}
	for k := 1; k < 5; k++ {
		if f := got[k] / got[k-1]; math.Abs(f-math.Exp(-0.5)) > 1e-3 { // everything fits
			t.Errorf("bound %d is %g of the one before, want %g", k, f, math.Exp(-0.5))
		}
	}
}

// TestGuardHolders checks that coordinates that few members hold are divided by how many of the enrolled hold them.
func TestGuardHolders(t *testing.T) {
	w := world(t)
	mode, err := heterofl.ParseMode("a1-c1", nil)
	if err != nil {
		t.Fatal(err)
	}
	build := func() federated.Algorithm {
		a, err := heterofl.New(problem(t), heterofl.Config{Mode: mode, Unmasked: true})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	for k := range w.Members { // everybody has all labels: the label rule changes nothing
		w.Members[k].Train.Rows = append(slices.Clone(w.Members[k].Train.Rows), w.Members[(k+1)%10].Train.Rows...)
	}
	plain := guard(t, w, build(), nil)
	hidden := guard(t, w, private.NewGuard(build(), private.GuardOptions{Clip: math.Inf(1), Fraction: 1}), nil)
	a, b := plain.Final.Sets["w"], hidden.Final.Sets["w"]
	if d := a.Sub(b).Norm() / a.Norm(); d > 1e-6 {
		t.Errorf("weights differ by %g of their norm", d)
	}
}

// TestGuardDistributed checks noise that members add under secure sums: it is as large as the server's would be, and a sum of too
// few is not opened.
func TestGuardDistributed(t *testing.T) {
	w := world(t)
	o := private.GuardOptions{Clip: 0.5, Noise: 1e-5, Fraction: 1, Distributed: true}
	quiet := guard(t, w, private.NewSecure(private.NewGuard(fedavg.New(problem(t)), o), private.SecureOptions{}), nil)
	o.Noise, o.Distributed = 0, false
	plain := guard(t, w, private.NewGuard(fedavg.New(problem(t)), o), nil)
	if d := quiet.Final.Sets["w"].Sub(plain.Final.Sets["w"]).Norm(); d > 1e-3 {
		t.Errorf("with next to no noise, weights differ by %g", d)
	}
	o.Noise, o.Distributed, o.Scale = 2, true, 1<<16
	loud := guard(t, w, private.NewSecure(private.NewGuard(fedavg.New(problem(t)), o), private.SecureOptions{}), func(r *fedtest.Run) { r.Config.Rounds = 1 })
	start, err := uniform(problem(t)).Init(t.Context(), w.Server())
	if err != nil {
		t.Fatal(err)
	}
	d := loud.Final.Sets["w"].Sub(start.Sets["w"])
	want := 2 * 0.5 / 10 * math.Sqrt(float64(d.Size())) * math.Sqrt(10./7) // ten shares, of which seven would have been enough
	if n := d.Norm(); math.Abs(n/want-1) > 0.3 {
		t.Errorf("noise of norm %g, expected about %g", n, want)
	}
	few := guard(t, w, private.NewSecure(private.NewGuard(fedavg.New(problem(t)), o), private.SecureOptions{}), func(r *fedtest.Run) {
		r.Members.Tamper = func(a *federated.Answer) {
			if strings.HasSuffix(a.Order.Phase, ".masked") && a.Order.Member.Index > 5 {
				a.Err = errors.New("lost")
			}
		}
	})
	if few.Final.Version != 0 {
		t.Errorf("a sum of six was opened, and its noise is for seven")
	}
}

// TestGuardRefuses checks that what cannot be hidden is refused before anything is computed.
func TestGuardRefuses(t *testing.T) {
	w := world(t)
	o := private.GuardOptions{Clip: 1, Noise: 1, Fraction: 0.5}
	evaluating := problem(t)
	evaluating.Measuring.Members = true
	for want, a := range map[string]federated.Algorithm{
		`phase "eval" would ask members`:     private.NewGuard(fedavg.New(evaluating), o),
		`phase "stats" would ask members`:    private.NewGuard(fedavg.New(normed(t)), o),
		"a session of secure sums needs to":  private.NewSecure(private.NewGuard(fedavg.New(problem(t)), o), private.SecureOptions{}),
		"members send \"c\" beside":          private.NewGuard(methods["scaffold"](t, problem(t)), o),
		"clip 0: expected a positive number": private.NewGuard(fedavg.New(problem(t)), private.GuardOptions{Noise: 1, Fraction: 1}),
	} {
		if err := a.Check(w.Server()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q expected, got %v", want, err)
		}
	}
}

// normed is a problem whose model has batch norm.
func normed(t *testing.T) *federated.Problem {
	p := fedtest.Problem(t, 6, 3)
	p.Measuring.Members = false
	return p
}
