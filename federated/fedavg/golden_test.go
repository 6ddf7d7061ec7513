package fedavg_test

import (
	"context"
	"math"
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/baselines"
	"github.com/cohort-learning/cohort/federated/fedavg"
	"github.com/cohort-learning/cohort/federated/fedtest"
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

// run returns w after each round on the quadratic objectives.
func run(t *testing.T, rounds int, change func(*fedavg.Algorithm)) []float64 {
	t.Helper()
	w, p := fedtest.Quadratics(fedtest.Engine(t, "go"), rounds)
	a := fedavg.New(p)
	change(a)
	r := fedtest.Run{World: w, Algorithm: a, Config: federated.Config{Rounds: rounds}}
	return r.Must(t).Numbers("w")
}

// The values were computed in float64 from the update rules alone, with F_k(w) = ½a_k(w−c_k)², a = (1, 2, 4),
// c = (1, −2, 3), n = (10, 30, 60), w = 0, η = 0.1, 5 full-batch steps and all clients.
func TestGolden(t *testing.T) {
	adaptive := func(kind fedavg.AdaptiveKind, beta1 float64, zero bool) func(*fedavg.Algorithm) {
		return func(a *fedavg.Algorithm) {
			a.Rule = fedavg.Adaptive{Kind: kind, Rate: 0.1, Beta1: beta1, Beta2: 0.99, Tau: 1e-3, FromZero: zero}
		}
	}
	for _, c := range []struct {
		name   string
		change func(*fedavg.Algorithm)
		want   []float64
	}{
		{"FedAvg", func(*fedavg.Algorithm) {}, []float64{1.297591000000, 1.562311242319, 1.616316554234}},
		{"FedSGD", func(a *fedavg.Algorithm) { a.Training.Epochs = 1 }, []float64{0.61}},
		{"FedProx", func(a *fedavg.Algorithm) { a.Proximal.Mu = 1 }, []float64{1.095844000000, 1.462949548312}},
		{"FedAvgM", func(a *fedavg.Algorithm) { a.Rule = fedavg.Momentum{Rate: 1, Beta: 0.9} },
			[]float64{1.297591000000, 2.730143142319, 3.143861700408}},
		{"FedAdam", adaptive(fedavg.Adam, 0.9, false), []float64{0.099232339913, 0.232897249926, 0.388323411590}},
		{"FedAdam from 0", adaptive(fedavg.Adam, 0.9, true), []float64{0.099235234871, 0.232902200770}},
		{"FedYogi", adaptive(fedavg.Yogi, 0.9, false), []float64{0.099232310672, 0.232543581968, 0.387120865664}},
		{"FedAdagrad", adaptive(fedavg.Adagrad, 0, false), []float64{0.099922963810, 0.168325318867, 0.223022674448}},
	} {
		for i, v := range run(t, len(c.want), c.change) {
			near(t, c.name+" after round "+string(rune('1'+i)), v, c.want[i])
		}
	}
	fixed := run(t, 60, func(*fedavg.Algorithm) {})
	near(t, "fixed point of FedAvg", fixed[59], 1.630157878669)
}

// Nesterov's rule by its formula: with v₁ = −Δ₁ the first step is (1+β)Δ₁.
func TestNesterov(t *testing.T) {
	got := run(t, 1, func(a *fedavg.Algorithm) { a.Rule = fedavg.Momentum{Rate: 0.5, Beta: 0.9, Nesterov: true} })
	near(t, "w", got[0], 0.5*1.9*1.297591)
}

func TestLocals(t *testing.T) {
	w, p := fedtest.Quadratics(fedtest.Engine(t, "go"), 1)
	a := fedavg.New(p)
	s, err := a.Init(t.Context(), w.Server())
	if err != nil {
		t.Fatal(err)
	}
	phase, _ := a.Next(s)
	for k, want := range []float64{0.409510, -1.344640, 2.766720} {
		task, err := a.Task(s, phase, w.Member(k))
		if err != nil {
			t.Fatal(err)
		}
		task.Phase = phase.Name
		r, err := a.Client().Run(t.Context(), w.Local(w.Member(k)), task, nil)
		if err != nil {
			t.Fatal(err)
		}
		near(t, w.Members[k].Name, r.Addends["w"].Must("w").At(0), want)
	}
}

// trace runs a problem of blobs.
func trace(t *testing.T, w *fedtest.World, a federated.Algorithm) *fedtest.Trace {
	t.Helper()
	r := fedtest.Run{World: w, Algorithm: a, Config: federated.Config{Rounds: 3}}
	return r.Must(t)
}

// sameWeights compares the sets "w" after each round bit for bit.
func sameWeights(t *testing.T, what string, got, want *fedtest.Trace) {
	t.Helper()
	for i := range want.Snapshots {
		if !got.Snapshots[i].State.Sets["w"].Equal(want.Snapshots[i].State.Sets["w"]) {
			t.Errorf("%s: weights differ after round %d", what, i)
		}
	}
}

func TestDegenerate(t *testing.T) {
	w := fedtest.Blobs(fedtest.Engine(t, "go"), 6, 3, 8, 6, 12, 10, 7)
	p := fedtest.Problem(t, 6, 3)
	with := func(change func(*fedavg.Algorithm)) *fedtest.Trace {
		a := fedavg.New(p)
		change(a)
		return trace(t, w, a)
	}
	plain := with(func(*fedavg.Algorithm) {})
	sameWeights(t, "FedProx with μ = 0", with(func(a *fedavg.Algorithm) { a.Proximal.Mu = 0 }), plain)
	sameWeights(t, "FedAvgM with β = 0, η = 1", with(func(a *fedavg.Algorithm) { a.Rule = fedavg.Momentum{Rate: 1} }), plain)
	sameWeights(t, "FedAvgM with β = 0, η = 1, Nesterov", with(func(a *fedavg.Algorithm) { a.Rule = fedavg.Momentum{Rate: 1, Nesterov: true} }), plain)
	if with(func(a *fedavg.Algorithm) { a.Proximal.Mu = 1 }).Final.Digest() == plain.Final.Digest() {
		t.Error("FedProx with μ = 1 is FedAvg")
	}
}

// One client makes every method centralised learning. The server's stream has the empty name, so the client bears it, too.
func TestOneClient(t *testing.T) {
	w := fedtest.Blobs(fedtest.Engine(t, "go"), 6, 3, 18)
	w.Members[0].Name = ""
	p := fedtest.Problem(t, 6, 3)
	p.Measuring.Members = false
	p.Select = federated.Selection{Everyone: true}
	central := trace(t, w, baselines.NewCentralised(p))
	got := trace(t, w, fedavg.New(p))
	// w + (w_k − w) rounds twice in float32, where training in one place does not.
	closeWeights(t, "one client", got, central, 1e-6)
}

// With one full-batch step a round federated averaging is gradient descent on Σ p_k F_k, whatever the data are.
func TestFedSGD(t *testing.T) {
	e := fedtest.Engine(t, "go")
	w := fedtest.Blobs(e, 6, 3, 8, 6, 12, 10, 7)
	p := fedtest.Problem(t, 6, 3)
	p.Build = linear(t) // without norm layers, whose statistics are of each client's own batch
	p.Select = federated.Selection{Everyone: true}
	p.Training = federated.Training{Epochs: 1, Rate: train.Constant(0.3)}
	closeWeights(t, "FedSGD", trace(t, w, fedavg.New(p)), trace(t, w, baselines.NewCentralised(p)), 1e-6)
}

// closeWeights compares the sets "w" after each round, relative to their norm.
func closeWeights(t *testing.T, what string, got, want *fedtest.Trace, tolerance float64) {
	t.Helper()
	for i := range want.Snapshots {
		a, b := got.Snapshots[i].State.Sets["w"], want.Snapshots[i].State.Sets["w"]
		if d := a.Sub(b).Norm() / b.Norm(); !(d <= tolerance) {
			t.Errorf("%s: weights differ by %g of their norm after round %d", what, d, i)
		}
	}
}

// Running statistics are averaged whatever the rule of the server.
func TestBuffersAreAveraged(t *testing.T) {
	w := fedtest.Blobs(fedtest.Engine(t, "go"), 6, 3, 8, 6, 12, 10, 7)
	p := fedtest.Problem(t, 6, 3)
	p.Build = batchNorm(t)
	a := fedavg.New(p)
	a.Rule = fedavg.Adaptive{Kind: fedavg.Adam, Rate: 0.5, Beta1: 0.9, Beta2: 0.99, Tau: 1e-3}
	r := fedtest.Run{World: w, Algorithm: a, Config: federated.Config{Rounds: 1}}
	adam := r.Must(t).Final.Sets["w"]
	r = fedtest.Run{World: w, Algorithm: fedavg.New(p), Config: federated.Config{Rounds: 1}}
	plain := r.Must(t).Final.Sets["w"]
	for _, name := range []string{"norm1.running_mean", "norm1.running_var"} {
		if !adam.Must(name).Equal(plain.Must(name)) {
			t.Errorf("%s is moved by the rule", name)
		}
	}
	if adam.Must("linear.weight").Equal(plain.Must("linear.weight")) {
		t.Error("the rule does not move the weights")
	}
}

// A member that cannot make a step, since batch norm needs two examples, abstains instead of holding the average back.
func TestNoStep(t *testing.T) {
	w := fedtest.Blobs(fedtest.Engine(t, "go"), 6, 3, 8, 1)
	p := fedtest.Problem(t, 6, 3)
	p.Select, p.Training.SkipSingles = federated.Selection{Everyone: true}, true
	for _, phase := range trace(t, w, fedavg.New(p)).Phase("train") {
		if len(phase.Abstained) != 1 || phase.Abstained[0] != 1 {
			t.Errorf("%v abstain, want member 1", phase.Abstained)
		}
	}
}

func TestAdaptiveMu(t *testing.T) {
	w, p := fedtest.Quadratics(fedtest.Engine(t, "go"), 8)
	a := fedavg.New(p)
	a.Proximal = fedavg.Proximal{Mu: 1, Adaptive: true}
	r := fedtest.Run{World: w, Algorithm: a, Config: federated.Config{Rounds: 8}}
	l := r.Must(t)
	loss := l.Metric("loss.train", "")
	if string(l.Snapshots[4].State.Meta) == string(l.Snapshots[6].State.Meta) {
		t.Errorf("μ does not change though the loss falls: %v, %s", loss, l.Final.Meta)
	}
}

func TestCheck(t *testing.T) {
	w, p := fedtest.Quadratics(fedtest.Engine(t, "go"), 1)
	for name, change := range map[string]func(*fedavg.Algorithm){
		"mu -1 is":          func(a *fedavg.Algorithm) { a.Proximal.Mu = -1 },
		"momentum 1":        func(a *fedavg.Algorithm) { a.Rule = fedavg.Momentum{Rate: 1, Beta: 1} },
		"server rate 0":     func(a *fedavg.Algorithm) { a.Rule = fedavg.Momentum{} },
		"tau 0":             func(a *fedavg.Algorithm) { a.Rule = fedavg.Adaptive{Rate: 1} },
		"beta2 NaN":         func(a *fedavg.Algorithm) { a.Rule = fedavg.Adaptive{Rate: 1, Tau: 1, Beta2: math.NaN()} },
		"no rate":           func(a *fedavg.Algorithm) { a.Training.Rate = nil },
		"a fraction over 1": func(a *fedavg.Algorithm) { a.Select = federated.Selection{Fraction: 1.5} },
		"no members":        func(a *fedavg.Algorithm) { a.Select = federated.Selection{} },
		"no work":           func(a *fedavg.Algorithm) { a.Training.Epochs = 0 },
	} {
		q := federated.Problem{Build: p.Build, DType: weights.Float64, Loss: p.Loss, Rounds: 1, Select: p.Select, Training: p.Training}
		a := fedavg.New(&q)
		change(a)
		if _, err := federated.Run(context.Background(), a, w.Server(), nil, nil, federated.Config{Rounds: 1}, nil); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
