package selffl_test

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedavg"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/federated/private"
	"github.com/cohort-learning/cohort/federated/selffl"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/secure/robust"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
)

func made(t testing.TB, p *federated.Problem, change func(*selffl.Config)) *selffl.Algorithm {
	t.Helper()
	c := selffl.Recommended()
	if change != nil {
		change(&c)
	}
	a, err := selffl.New(p, c)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func ran(t testing.TB, w *fedtest.World, p *federated.Problem, a federated.Algorithm) *fedtest.Trace {
	t.Helper()
	w.Vaults.Reset()
	r := fedtest.Run{World: w, Algorithm: a, Config: federated.Config{Rounds: p.Rounds}}
	l := r.Must(t)
	for _, phase := range l.Phases {
		for _, f := range phase.Failed {
			t.Fatalf("round %d: %s failed in %s: %s", f.Round, f.Member, f.Phase, f.Reason)
		}
	}
	return l
}

func last(l *fedtest.Trace, metric string) float64 {
	v := l.Metric(metric, "")
	if len(v) == 0 {
		return math.NaN()
	}
	return v[len(v)-1]
}

// With a fixed number of steps from the global model and weights by examples it is federated averaging, bit for bit.
func TestFederatedAveraging(t *testing.T) {
	w := fedtest.Blobs(fedtest.Engine(t, "go"), 6, 3, 8, 6, 12, 10, 7)
	problem := func() *federated.Problem {
		p := fedtest.Problem(t, 6, 3)
		p.Training.Epochs, p.Training.Steps = 0, 5
		return p
	}
	want := ran(t, w, problem(), fedavg.New(problem())).Final.Sets["w"]
	got := ran(t, w, problem(), made(t, problem(), func(c *selffl.Config) {
		c.Stale, c.Start, c.Aggregate, c.Steps = selffl.Drop, selffl.Here, selffl.BySamples, 5
	})).Final.Sets["w"]
	if !got.Equal(want) {
		t.Errorf("weights differ by %g", got.Sub(want).Norm())
	}
}

// Where everybody takes part in every round and weighs alike, keeping uploads and seeing sums only come to the same.
func TestKeepIsDrop(t *testing.T) {
	w := fedtest.Blobs(fedtest.Engine(t, "go"), 6, 3, 8, 16, 12, 10, 24)
	traces := map[string]*fedtest.Trace{}
	for _, stale := range []string{selffl.Keep, selffl.Drop} {
		p := fedtest.Problem(t, 6, 3)
		p.Select, p.Rounds = federated.Selection{Everyone: true}, 5
		traces[stale] = ran(t, w, p, made(t, p, func(c *selffl.Config) { c.Stale, c.Aggregate = stale, selffl.Uniform }))
	}
	keep, drop := traces[selffl.Keep], traces[selffl.Drop]
	for _, metric := range []string{"variance.between", "variance.within", "steps.mean"} {
		a, b := keep.Metric(metric, ""), drop.Metric(metric, "")
		if len(a) != 5 || len(b) != 5 {
			t.Fatalf("%s: %v and %v", metric, a, b)
		}
		for i := range a {
			if math.Abs(a[i]-b[i]) > 1e-3*a[i] {
				t.Errorf("%s in round %d is %v with uploads, %v of sums", metric, i, a[i], b[i])
			}
		}
	}
	if d := keep.Final.Sets["w"].Sub(drop.Final.Sets["w"]).Norm(); !(d < 1e-3*keep.Final.Sets["w"].Norm()) {
		t.Errorf("models differ by %g", d)
	}
}

// Secure sums change nothing but the rounding: masked or not it is the same to the bit, and near the same run in the open, with
// the same weights. What members send is masked, tasks are the same for all, and no number travels beside.
func TestOnlySums(t *testing.T) {
	w := fedtest.Blobs(fedtest.Engine(t, "go"), 6, 3, 8, 6, 12, 10, 7, 14, 11, 6, 8, 6)
	secured := func(o *private.SecureOptions, tamper func(*federated.Answer)) *fedtest.Trace {
		p := fedtest.Problem(t, 6, 3)
		p.Select = federated.Selection{Everyone: true}
		var a federated.Algorithm = made(t, p, func(c *selffl.Config) { c.Stale = selffl.Drop })
		if o != nil {
			a = private.NewSecure(a, *o)
		}
		w.Vaults.Reset()
		r := fedtest.Run{World: w, Algorithm: a, Config: federated.Config{Rounds: p.Rounds}}
		r.Members.Tamper = tamper
		return r.Must(t)
	}
	learned, params := 0, map[int]string{}
	masked := secured(&private.SecureOptions{}, func(a *federated.Answer) {
		if !federated.Learns(a.Order.Phase) {
			return
		}
		learned++
		if len(a.Result.Addends)+len(a.Result.Scalars) > 0 || len(a.Result.Attached) == 0 {
			t.Errorf("%s sends %d sets and %d numbers in the open", a.Order.Member.Name, len(a.Result.Addends), len(a.Result.Scalars))
		}
		if was, ok := params[a.Order.Round]; ok && was != string(a.Task.Params) {
			t.Errorf("%s is told something of its own: %s, not %s", a.Order.Member.Name, a.Task.Params, was)
		}
		params[a.Order.Round] = string(a.Task.Params)
	})
	if learned != 3*10 {
		t.Errorf("%d members answered, want 30", learned)
	}
	plain := secured(&private.SecureOptions{Plain: true}, nil)
	if got, want := masked.Digests(), plain.Digests(); len(got) != 3 || masked.Final.Sets["w"].Sub(plain.Final.Sets["w"]).Norm() != 0 {
		t.Errorf("masked sums differ from plain ones: %.12q, %.12q", got, want)
	}
	open := secured(nil, nil)
	if d := open.Final.Sets["w"].Sub(masked.Final.Sets["w"]).Norm(); !(d < 2e-3*open.Final.Sets["w"].Norm()) {
		t.Errorf("secure sums move the model by %g of %g", d, open.Final.Sets["w"].Norm())
	}
	for _, metric := range []string{"variance.between", "variance.within"} {
		if a, b := last(open, metric), last(masked, metric); !(math.Abs(a-b) < 0.02*a) {
			t.Errorf("%s is %v in the open, %v of secure sums", metric, a, b)
		}
	}
}

// location is a federation of the location model, drawn with known variances, in float64.
func location(t testing.TB, y dataset.TwoLevel) (*fedtest.World, *federated.Problem) {
	t.Helper()
	split, err := y.Load(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	w := &fedtest.World{Engine: fedtest.Engine(t, "go"), Seed: 3, Test: split.Test.All()}
	for m, at := 0, 0; m < y.Clients; m++ {
		h := fedtest.Holder{Name: y.Key(m), Train: dataset.View{Data: split.Train}, Test: dataset.View{Data: split.Test}}
		for range y.Size(m) {
			h.Train.Rows = append(h.Train.Rows, int32(at))
			at++
		}
		for i := range y.Tests {
			h.Test.Rows = append(h.Test.Rows, int32(m*y.Tests+i))
		}
		w.Members = append(w.Members, h)
	}
	build, err := nn.New("location", nn.Config{Input: []int{y.Features}})
	if err != nil {
		t.Fatal(err)
	}
	return w, &federated.Problem{
		Build: build, DType: weights.Float64, Loss: train.MeanSquares, Target: train.FromInput, Rounds: 15,
		Select:    federated.Selection{Everyone: true},
		Training:  federated.Training{Epochs: 1, Batch: 5, Rate: train.Constant(0.05 * float64(y.Features) / 2)},
		Measuring: federated.Measuring{Every: 5, Batch: 64, Members: true},
	}
}

// distances returns the mean squared distance from the truth of members' own models and of the global one.
func distances(y dataset.TwoLevel, l *fedtest.Trace) (own, global float64) {
	g := l.Final.Sets["w"].Must("location")
	for m := range y.Clients {
		theta := l.Members.Kept()[m].Must("location")
		for j, x := range y.Truth(m) {
			own += (theta.At(j) - x) * (theta.At(j) - x) / float64(y.Clients*y.Features)
			global += (g.At(j) - x) * (g.At(j) - x) / float64(y.Clients*y.Features)
		}
	}
	return own, global
}

// On the model that it is made for, untuned, it is close to the best that anybody could do who knew both variances, however
// much clients differ: far better than staying alone where they are alike, far better than one model where they are not. The
// clients' variances must be measured well for that; a trajectory of few steps shows too little of them, and then clients that
// are alike lean on the others less than they could.
func TestLocationModel(t *testing.T) {
	for _, between := range []float64{0.01, 0.3, 5} {
		for _, uq := range []selffl.Within{selffl.Sandwich, selffl.Calibrated} {
			y := dataset.TwoLevel{Clients: 14, Features: 8, Between: between, Sizes: []int{10, 60}, Tests: 1, Seed: 4}
			w, p := location(t, y)
			p.Training.Batch, p.Rounds = 5, 10
			if between < 0.1 { // nearly alike, they take few steps a round
				p.Rounds = 100
			}
			l := ran(t, w, p, made(t, p, func(c *selffl.Config) { c.Most, c.Within = 400, uq }))
			own, global := distances(y, l)
			var v []float64
			alone := 0.0
			for m := range y.Clients {
				v = append(v, 1/float64(y.Size(m)))
				alone += v[m] / float64(y.Clients)
			}
			_, total := selffl.Precisions(between, v)
			oracle := 0.0
			for m := range v {
				_, x := selffl.Posterior(0, v[m], between, 0, 1/total)
				oracle += x / float64(y.Clients)
			}
			t.Logf("σ_0² = %v, %s: own %.4f, global %.4f, alone %.4f, oracle %.4f; σ_0² estimated %.3f, steps %.1f",
				between, uq, own, global, alone, oracle, last(l, "variance.between"), last(l, "steps.mean"))
			if !(own < 1.3*alone) || between > 1 && !(own < global/20) {
				t.Errorf("σ_0² = %v, %s: error %.4f; alone %.4f, one model %.4f", between, uq, own, alone, global)
			}
			if uq == selffl.Sandwich && !(own < 1.15*oracle+0.005) {
				t.Errorf("σ_0² = %v: error %.4f; the oracle's is %.4f", between, own, oracle)
			}
		}
	}
}

// Every way to measure the clients' own variances sees that 80 examples say more than 5; the sandwich of the location model is
// s²/n itself.
func TestWithin(t *testing.T) {
	y := dataset.TwoLevel{Clients: 4, Features: 3, Between: 1, Sizes: []int{6, 6, 80, 80}, Tests: 1, Seed: 2}
	for _, uq := range selffl.Withins() {
		w, p := location(t, y)
		p.Rounds = 4
		l := ran(t, w, p, made(t, p, func(c *selffl.Config) { c.Within = uq }))
		var v [4]float64
		for m := range v {
			x := l.Metric("variance.within", y.Key(m))
			v[m] = x[len(x)-1]
		}
		t.Logf("%s: %.4g", uq, v)
		few, many := v[0]+v[1], v[2]+v[3]
		if uq != selffl.Trajectory && uq != selffl.Rounds && !(few > 2*many) {
			t.Errorf("%s: variances %v do not tell few examples from many", uq, v)
		}
		if uq != selffl.Sandwich {
			continue
		}
		for m := range v {
			h := w.Members[m].Train
			want, n := 0.0, float64(h.Len())
			for j := range 3 {
				var sum, squares float64
				for _, r := range h.Rows {
					x := float64(h.Data.F32[int(r)*3+j])
					sum += x
					squares += x * x
				}
				want += (squares/n - sum/n*sum/n) / n / 3
			}
			if math.Abs(v[m]/want-1) > 0.1 {
				t.Errorf("sandwich of client %d is %v, want %v", m, v[m], want)
			}
		}
	}
}

// Every setting runs, also with one client, two clients and single examples.
func TestSettings(t *testing.T) {
	for name, change := range map[string]func(*selffl.Config, *federated.Problem){
		"cold":         func(c *selffl.Config, _ *federated.Problem) { c.Start = selffl.Cold },
		"here":         func(c *selffl.Config, _ *federated.Problem) { c.Start = selffl.Here },
		"tensor":       func(c *selffl.Config, _ *federated.Problem) { c.Granularity = selffl.Tensor },
		"head":         func(c *selffl.Config, _ *federated.Problem) { c.Granularity = selffl.Head },
		"head, drop":   func(c *selffl.Config, _ *federated.Problem) { c.Granularity, c.Stale = selffl.Head, selffl.Drop },
		"pairwise":     func(c *selffl.Config, _ *federated.Problem) { c.Posterior = selffl.PairwiseOther },
		"dl":           func(c *selffl.Config, _ *federated.Problem) { c.Between = selffl.DerSimonianLaird },
		"pm":           func(c *selffl.Config, _ *federated.Problem) { c.Between = selffl.PauleMandel },
		"samples":      func(c *selffl.Config, _ *federated.Problem) { c.Aggregate = selffl.BySamples },
		"samples drop": func(c *selffl.Config, _ *federated.Problem) { c.Aggregate, c.Stale = selffl.BySamples, selffl.Drop },
		"naive, drop":  func(c *selffl.Config, _ *federated.Problem) { c.Between, c.Stale = selffl.Naive, selffl.Drop },
		"no unshrink":  func(c *selffl.Config, _ *federated.Problem) { c.Unshrink, c.Stale = false, selffl.Drop },
		"momentum": func(_ *selffl.Config, p *federated.Problem) {
			p.Training.Optimizer = train.SGD{Momentum: 0.5, Decay: 1e-3}
		},
		"adam": func(c *selffl.Config, p *federated.Problem) {
			c.Within, p.Training.Optimizer = selffl.Trajectory, train.Adam{}
		},
		"tensor, decay": func(c *selffl.Config, p *federated.Problem) {
			c.Granularity, p.Training.Optimizer = selffl.Tensor, train.SGD{Decay: 1e-3}
		},
	} {
		for _, sizes := range [][]int{{9, 1, 14, 6}, {9, 5}, {7}} {
			w := fedtest.Blobs(fedtest.Engine(t, "go"), 6, 3, sizes...)
			p := fedtest.Problem(t, 6, 3)
			p.Select, p.Training.SkipSingles = federated.Selection{Everyone: true}, true
			build, err := nn.New("mlp", nn.Config{Input: []int{6}, Classes: 3, Hidden: []int{8}, Norm: nn.NoNorm})
			if err != nil {
				t.Fatal(err)
			}
			p.Build = build
			var c selffl.Config
			a := made(t, p, func(x *selffl.Config) { change(x, p); c = *x })
			l := ran(t, w, p, a)
			for _, phase := range l.Phases {
				for _, m := range phase.Metrics {
					if math.IsNaN(m.Value) || math.IsInf(m.Value, 0) {
						t.Errorf("%s of %v: %s is %v in round %d", name, sizes, m.Name, m.Value, phase.Round)
					}
				}
			}
			if len(sizes) > 1 && c.Steps == 0 && !(last(l, "variance.between") > 0) {
				t.Errorf("%s of %v: σ_0² = %v", name, sizes, last(l, "variance.between"))
			}
			said := false
			for _, phase := range l.Phase("train") {
				for _, n := range phase.Notes {
					said = said || strings.Contains(n, "only one client")
				}
			}
			if said != (len(sizes) == 1) {
				t.Errorf("%s of %v: that a client is alone is said: %t", name, sizes, said)
			}
		}
	}
}

// What cannot be is refused, by the name of the setting.
func TestRefusals(t *testing.T) {
	w := fedtest.Blobs(fedtest.Engine(t, "go"), 6, 3, 8, 6, 12, 10)
	p := fedtest.Problem(t, 6, 3)
	p.Training.Optimizer = train.Adam{}
	if err := made(t, p, nil).Check(w.Server()); err == nil || !strings.Contains(err.Error(), "uq") || !strings.Contains(err.Error(), "optimizer") {
		t.Errorf("Adam with a calibrated trajectory: %v", err)
	}
	p = fedtest.Problem(t, 6, 3)
	wide, err := nn.New("mlp", nn.Config{Input: []int{6}, Classes: 3, Hidden: []int{200}})
	if err != nil {
		t.Fatal(err)
	}
	p.Build = wide
	if err := made(t, p, func(c *selffl.Config) { c.Within = selffl.Fisher }).Check(w.Server()); err == nil || !strings.Contains(err.Error(), "uq") {
		t.Errorf("the matrix of a large model: %v", err)
	}
	p = fedtest.Problem(t, 6, 3)
	for _, stale := range []string{selffl.Keep, selffl.Drop} {
		a := made(t, p, func(c *selffl.Config) { c.Stale = stale })
		s, err := a.Init(context.Background(), w.Server())
		if err != nil {
			t.Fatal(err)
		}
		if err := (federated.Config{Rule: robust.Rule{Method: robust.Median{}}}).Fits(a, s, w.Server()); err == nil {
			t.Errorf("%s: the median of variances is not refused", stale)
		}
		var unfit *private.UnfitError
		if err := private.NewGuard(a, private.GuardOptions{Clip: 1, Noise: 1, Fraction: 1}).Fits(w.Server()); !errors.As(err, &unfit) {
			t.Errorf("%s: differential privacy: %v", stale, err)
		}
		if err := private.NewSecure(a, private.SecureOptions{}).Fits(w.Server()); errors.As(err, &unfit) != (stale == selffl.Keep) {
			t.Errorf("%s: secure sums: %v", stale, err)
		}
	}
	for want, o := range map[string]selffl.Options{
		"preset: ":       {Preset: "best"},
		"uq: ":           {UQ: "guess"},
		"between: ":      {Between: "median"},
		"curvature: ":    {Curvature: "two"},
		"unshrink: ":     {Unshrink: "yes"},
		"aggregate: ":    {Aggregate: "size"},
		"start: ":        {Start: "hot"},
		"rho: ":          {Rho: 2},
		"stale: ":        {Stale: "old"},
		"granularity: ":  {Granularity: "layer"},
		"posterior: ":    {Posterior: "loose"},
		"least_steps: ":  {Least: -1},
		"most_steps: ":   {Least: 5, Most: 2},
		"steps: ":        {Steps: -1},
		"between: dl":    {Between: "dl", Stale: "drop"},
		"granularity: t": {Granularity: "tensor", Stale: "drop"},
		"posterior: p":   {Posterior: "pairwise", Start: "here"},
		"mode: ":         {Mode: "q7", Stale: "drop"},
		"levels: ":       {Mode: "a1-b1", Stale: "keep"},
		"dynamic: ":      {Dynamic: true},
	} {
		if o.Preset == "" {
			o.Preset = "selffl"
		}
		if _, err := o.New(p); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%+v: error %v, want one that begins with %q", o, err, want)
		}
	}
}

// Whatever a coordinator says, a client answers or says what is wrong; it does not break.
func FuzzTask(f *testing.F) {
	w := fedtest.Blobs(fedtest.Engine(f, "go"), 6, 3, 8, 6)
	build, err := nn.New("linear", nn.Config{Input: []int{6}, Classes: 3})
	if err != nil {
		f.Fatal(err)
	}
	p := &federated.Problem{Build: build, Rounds: 1, Select: federated.Selection{Everyone: true},
		Training: federated.Training{Epochs: 1, Batch: 4, Rate: train.Constant(0.1)}}
	a := made(f, p, func(c *selffl.Config) { c.Stale, c.Most = selffl.Drop, 20 })
	s, err := a.Init(context.Background(), w.Server())
	if err != nil {
		f.Fatal(err)
	}
	phase, _ := a.Next(s)
	m := w.Member(0)
	task, err := a.Task(s, phase, m)
	if err != nil {
		f.Fatal(err)
	}
	task.Phase = "train"
	first, err := a.Client().Run(context.Background(), w.Local(m), task, nil)
	if err != nil {
		f.Fatal(err)
	}
	for _, seed := range []string{
		`{"scale":1,"formed":-1}`, `{"between":[0.1],"in":[{"a":3,"aa":3,"aav":1}],"scale":1,"formed":0}`,
		`{"between":[0],"in":[{"a":1e-300,"aa":0,"aav":0}],"scale":1e300,"formed":0}`, `{"between":[],"scale":0}`, `{`,
		`{"between":[1,2],"in":[],"scale":1}`, `{"between":[1e308],"in":[{"a":1e308,"aa":1e308,"aav":1e308}],"scale":1e-308,"formed":0}`,
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, params string) {
		task.Params = []byte(params)
		r, err := a.Client().Run(context.Background(), w.Local(m), task, first.Keep)
		if err == nil && r.Status == federated.Done && r.Weight == 0 {
			t.Errorf("%s: a result without a weight", params)
		}
	})
}
