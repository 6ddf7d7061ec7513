package alnet

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/assisttest"
	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// seed is that of the runs of assisttest.
const seed = 7

func normal(name string, rows, columns int) *mat.Dense {
	r := rng.New(seed, 0, "", name)
	x := mat.NewDense(rows, columns, nil)
	x.Apply(func(_, _ int, _ float64) float64 { return r.NormFloat64() }, x)
	return x
}

func sponsor(y *mat.Dense, o assisted.Objective) *assisted.Sponsor {
	n, _ := y.Dims()
	return &assisted.Sponsor{Objective: o, Keys: assisttest.Keys(n), Labels: y, Fit: n, Own: "org-1"}
}

func world(t *testing.T, parts ...*mat.Dense) *assisttest.World {
	t.Helper()
	return assisttest.NewWorld(assisttest.OLS(t), parts...)
}

func run(t *testing.T, o Options, rounds int, s *assisted.Sponsor, w *assisttest.World, change func(*fedtest.Run)) (*Algorithm, *fedtest.Trace) {
	t.Helper()
	a, err := o.New(rounds, s, w.Desks)
	if err != nil {
		t.Fatal(err)
	}
	l, err := w.Do(a, rounds, change)
	if err != nil {
		t.Fatal(err)
	}
	return a, l
}

// pooled is the network of one party that has all columns: a hidden layer of ReLU units whose weights are in blocks, one an organisation, and
// outputs. Sums over columns are made block by block, sums over rows in their order.
type pooled struct {
	x       []*mat.Dense
	w       []*mat.Dense // d_j×h
	b       []float64
	v       *mat.Dense // h×K
	c       []float64
	residue func(f *mat.Dense) *mat.Dense // −n ∂L/∂F
}

// step moves block j, the outputs and, with the first block, the bias against the gradient of the loss.
func (p *pooled) step(j int, rate float64) {
	n, _ := p.x[0].Dims()
	h, k := p.v.Dims()
	z, f := mat.NewDense(n, h, nil), mat.NewDense(n, k, nil)
	for i := range n {
		for u := range h {
			var sum float64
			for m, x := range p.x {
				own := 0.0
				for q, v := range x.RawRowView(i) {
					own += float64(v * p.w[m].At(q, u))
				}
				sum += own
			}
			z.Set(i, u, math.Max(0, sum+p.b[u]))
		}
		for o := range k {
			sum := 0.0
			for u := range h {
				sum += float64(z.At(i, u) * p.v.At(u, o))
			}
			f.Set(i, o, sum+p.c[o])
		}
	}
	r := p.residue(f)
	r.Scale(-1/float64(n), r)
	back := mat.NewDense(n, h, nil)
	for i := range n {
		for u := range h {
			if z.At(i, u) <= 0 {
				continue
			}
			sum := 0.0
			for o := range k {
				sum += float64(r.At(i, o) * p.v.At(u, o))
			}
			back.Set(i, u, sum)
		}
	}
	column := func(left func(i int) float64, right func(i int) float64) float64 {
		sum := 0.0
		for i := range n {
			sum += float64(left(i) * right(i))
		}
		return float64(rate * sum)
	}
	for u := range h {
		for o := range k {
			p.v.Set(u, o, p.v.At(u, o)-column(func(i int) float64 { return z.At(i, u) }, func(i int) float64 { return r.At(i, o) }))
		}
		d, _ := p.w[j].Dims()
		for q := range d {
			p.w[j].Set(q, u, p.w[j].At(q, u)-column(func(i int) float64 { return p.x[j].At(i, q) }, func(i int) float64 { return back.At(i, u) }))
		}
		if j == 0 {
			p.b[u] -= column(func(int) float64 { return 1 }, func(i int) float64 { return back.At(i, u) })
		}
	}
	for o := range k {
		p.c[o] -= column(func(int) float64 { return 1 }, func(i int) float64 { return r.At(i, o) })
	}
}

// theta is b and the outputs as a run keeps them.
func (p *pooled) theta() []float64 {
	return slices.Concat(p.b, p.v.RawMatrix().Data, p.c)
}

// TestPooledGradient is identity 6a.7: with one plain step a turn, in every round (w_j, w̃) is bit for bit what a step on this block of
// the pooled network comes to, so that turns are block coordinate descent. Of three organisations sums are associated in another order.
func TestPooledGradient(t *testing.T) {
	const n, h, rate = 30, 5, .05
	classes := mat.NewDense(n, 1, nil)
	classes.Apply(func(i, _ int, _ float64) float64 { return float64(i % 3) }, classes)
	two := mat.NewDense(n, 1, nil)
	two.Apply(func(i, _ int, _ float64) float64 { return float64(i % 2) }, two)
	for _, c := range []struct {
		objective assisted.Objective
		y         *mat.Dense
		parts     int
	}{
		{assisted.Objective{Loss: assisted.Squared}, normal("labels", n, 2), 2},
		{assisted.Objective{Loss: assisted.CrossEntropy, Classes: 3}, classes, 2},
		{assisted.Objective{Loss: assisted.Logistic}, two, 2},
		{assisted.Objective{Loss: assisted.Squared}, normal("labels", n, 1), 3},
	} {
		s := sponsor(c.y, c.objective)
		k := s.Outputs()
		p := &pooled{b: make([]float64, h), c: make([]float64, k), residue: func(f *mat.Dense) *mat.Dense { return c.objective.Residual(c.y, f) }}
		for m := range c.parts {
			x := normal("columns "+string(rune('a'+m)), n, m+2)
			p.x, p.w = append(p.x, x), append(p.w, mat.NewDense(m+2, h, nil))
		}
		first := rng.New(seed, 0, "org-1", "first layer")
		p.w[0].Apply(func(_, _ int, _ float64) float64 { return first.Uniform(-math.Sqrt(3), math.Sqrt(3)) }, p.w[0])
		head := learner.NewHead([]int{h, k}, rng.New(seed, 0, "", "layers"))
		copy(p.b, head.Theta)
		p.v = mat.NewDense(h, k, slices.Clone(head.Theta[h:h+h*k]))
		copy(p.c, head.Theta[h+h*k:])

		o := Defaults()
		o.Hidden, o.Inner, o.Rate, o.Optimizer, o.Raw = []int{h}, 1, rate, "gradient", true
		const rounds = 7
		w := world(t, p.x...)
		_, l := run(t, o, rounds, s, w, nil)
		for round := range rounds {
			j := round % c.parts
			p.step(j, rate)
			at := l.Snapshots[round].State
			got, want := assisttest.Matrix(t, at, layers).RawRowView(0), p.theta()
			var z mat.Dense
			z.Mul(p.x[j], p.w[j])
			part := assisttest.Matrix(t, at, assisted.SetName("part", w.Names[j]))
			if c.parts == 2 && !slices.Equal(got, want) {
				t.Fatalf("%s, round %d: w̃ is\n%v, of the pooled network\n%v", c.objective.Loss, round+1, got, want)
			}
			assisttest.Near(t, "w̃", mat.NewDense(1, len(got), got), mat.NewDense(1, len(want), want), 1e-12)
			assisttest.Near(t, "activations", part, &z, 1e-12)
		}
	}
}

// shared is a problem of which two organisations with two columns each know a half: y = |x₁ + x₃| + x₂ x₄, and some noise.
func shared(n int) (y *mat.Dense, parts []*mat.Dense) {
	a, b, e := normal("a", n, 2), normal("b", n, 2), normal("noise", n, 1)
	y = mat.NewDense(n, 1, nil)
	for i := range n {
		y.Set(i, 0, 50+10*(math.Abs(a.At(i, 0)+b.At(i, 0))+a.At(i, 1)*b.At(i, 1)+.1*e.At(i, 0)))
	}
	return y, []*mat.Dense{a, b}
}

// recipe is options as recipes have them.
func recipe() Options {
	o := Defaults()
	o.Hidden, o.Start = []int{16}, "initial"
	return o
}

// TestAssistanceHelps: two organisations learn an interaction of their columns, of which neither has a part alone; held-out rows end the
// run, and the outcome is the network after the best round.
func TestAssistanceHelps(t *testing.T) {
	y, parts := shared(700)
	s := sponsor(y, assisted.Objective{Loss: assisted.Squared})
	s.Fit, s.Held, s.Test = 400, 100, 200
	o := recipe()
	o.Patience = 10
	_, alone := run(t, o, 60, s, world(t, parts[0]), nil)
	w := world(t, parts...)
	a, both := run(t, o, 80, s, w, nil)
	rmse := func(l *fedtest.Trace) float64 { return slices.Min(l.Metric("rmse", "")) }
	if rmse(both) > .5*rmse(alone) {
		t.Errorf("RMSE %.3g alone, %.3g assisted", rmse(alone), rmse(both))
	}
	e, err := a.Ensemble(both.Final)
	if err != nil {
		t.Fatal(err)
	}
	held := both.Metric("loss.held", "")
	best := slices.Index(held, slices.Min(held))
	f, _ := w.Predict(t, e, s.Keys)
	assisttest.Near(t, "prediction", f, assisttest.Matrix(t, both.Snapshots[best].State, "F"), 1e-12)
	if len(both.Metric("contribution", "org-2")) == 0 || both.Metric("shapley", "org-2")[0] <= 0 {
		t.Errorf("the second organisation has contributions %v, Shapley value %v", both.Metric("contribution", "org-2"), both.Metric("shapley", "org-2"))
	}
}

// TestClasses: classes that depend on both organisations' columns, with deeper layers at the sponsor.
func TestClasses(t *testing.T) {
	y, parts := shared(600)
	y.Apply(func(_, _ int, v float64) float64 { return map[bool]float64{true: 1}[v > 60] }, y)
	for _, objective := range []assisted.Objective{{Loss: assisted.CrossEntropy, Classes: 2}, {Loss: assisted.Logistic}} {
		s := sponsor(y, objective)
		s.Fit, s.Test = 400, 200
		o := recipe()
		o.Hidden = []int{16, 8}
		_, l := run(t, o, 40, s, world(t, parts...), nil)
		if acc := l.Metric("accuracy", ""); acc[len(acc)-1] < .8 {
			t.Errorf("%s: accuracies %v", objective.Loss, acc)
		}
	}
}

// TestCounts: counts, and the loss log-cosh, whose labels are fitted in their own units.
func TestCounts(t *testing.T) {
	y, parts := shared(400)
	y.Apply(func(_, _ int, v float64) float64 { return math.Max(0, math.Round((v-40)/10)) }, y)
	for _, loss := range []string{assisted.Poisson, assisted.LogCosh} {
		s := sponsor(y, assisted.Objective{Loss: loss})
		s.Fit, s.Test = 300, 100
		_, l := run(t, recipe(), 30, s, world(t, parts...), nil)
		values := l.Metric("loss", "")
		start, err := s.Objective.Initial(s.Fitted().Of(y))
		if err != nil {
			t.Fatal(err)
		}
		mean := s.Objective.Value(s.Tested().Of(y), assisted.Constant(100, start))
		if last := values[len(values)-1]; last > .6*mean {
			t.Errorf("%s: the loss of the mean is %.3g, after the last round %.3g", loss, mean, last)
		}
	}
}

// TestNothingElseMatters checks that threads, arrival and a resume change no bit, that predictions in stage II are those of training, also of
// entities that an organisation lacks, and that who is lost or answers nonsense leaves the network as it was.
func TestNothingElseMatters(t *testing.T) {
	y, parts := shared(90)
	y.Set(5, 0, math.NaN()) // a label that is missing
	w := world(t, parts...)
	d := w.Desks["org-2"]
	d.Keys, d.Features = d.Keys[:70], mat.DenseCopyOf(d.Features.Slice(0, 70, 0, 2))
	d.Features.Set(3, 1, math.NaN())
	s := sponsor(y, assisted.Objective{Loss: assisted.Squared})
	s.Fit, s.Test = 60, 30
	a, plain := run(t, recipe(), 6, s, w, nil)
	_, got := run(t, recipe(), 6, s, w.Fresh(), func(r *fedtest.Run) { r.Members.Threads, r.Members.Shuffle = 3, 5 })
	if !slices.Equal(got.Digests(), plain.Digests()) {
		t.Error("with three threads it comes to another state")
	}
	if got, err := w.Do(a, 6, func(r *fedtest.Run) { r.From, r.Kept = &plain.Snapshots[2], plain.Kept[2] }); err != nil || !slices.Equal(got.Digests(), plain.Digests()[3:]) {
		t.Errorf("resumed after three rounds it comes to another state, %v", err)
	}
	e, err := a.Ensemble(plain.Final)
	if err != nil {
		t.Fatal(err)
	}
	f, l := w.Predict(t, e, s.Keys)
	if want := assisttest.Matrix(t, plain.Final, "F"); !mat.Equal(f, want) {
		t.Errorf("predictions in stage II are\n%v, in training they were\n%v", mat.Formatted(f), mat.Formatted(want))
	}
	if n := l.Metric("degraded", "org-2"); len(n) != 1 || n[0] != 20 {
		t.Errorf("org-2 lacks 20 entities, degraded says %v", n)
	}
	for what, change := range map[string]func(*federated.Answer){
		"org-2 leaves its part of the network as it was in round 2": func(a *federated.Answer) { a.Result, a.Err = federated.Result{}, gone("away") },
		"org-2 is left out of round 2: its answer is 1 matrices": func(a *federated.Answer) {
			a.Result.Attached = assisted.AppendMatrix(nil, assisted.Constant(90, make([]float64, 16)))
		},
		"layers above the first: 0 parameters": func(a *federated.Answer) {
			a.Result.Attached = assisted.AppendMatrix(assisted.AppendMatrix(nil, assisted.Constant(90, make([]float64, 16))), assisted.Constant(1, []float64{1, 2, 3}))
		},
		"layers above the first: parameter 0 is NaN": func(a *federated.Answer) {
			a.Result.Attached = assisted.AppendMatrix(assisted.AppendMatrix(nil, assisted.Constant(90, make([]float64, 16))), assisted.Constant(3, slices.Repeat([]float64{math.NaN()}, learner.Parameters([]int{16, 1}))))
		},
	} {
		_, lost := run(t, recipe(), 2, s, w.Fresh(), func(r *fedtest.Run) {
			r.Members.Tamper = func(a *federated.Answer) {
				if a.Order.Member.Name == "org-2" && a.Order.Phase == assisted.Fits {
					change(a)
				}
			}
		})
		if all := notes(lost); !strings.Contains(all, what) {
			t.Errorf("the notes do not say %q:\n%s", what, all)
		}
		if !mat.Equal(assisttest.Matrix(t, lost.Final, "F"), assisttest.Matrix(t, lost.Snapshots[0].State, "F")) {
			t.Errorf("%s: F has changed", what)
		}
		if away := lost.Metric("away", "org-2"); len(away) != 1 || away[0] != 0 {
			t.Errorf("%s: away is %v", what, away)
		}
	}
}

type gone string

func (c gone) Error() string { return string(c) }

func notes(l *fedtest.Trace) string {
	var all []string
	for _, p := range l.Phases {
		all = append(all, p.Notes...)
	}
	return strings.Join(all, "\n")
}

// TestSeen: what an organisation has told after one turn is all that linear combinations of its columns can tell.
func TestSeen(t *testing.T) {
	y, parts := shared(60)
	w := world(t, parts...)
	_, _ = run(t, recipe(), 4, sponsor(y, assisted.Objective{Loss: assisted.Squared}), w, nil)
	seen, err := w.Desks["org-2"].Seen(federated.Local{Member: federated.Member{Name: "org-2"}, Seed: seed, Scope: "world"})
	if err != nil {
		t.Fatal(err)
	}
	if want := (assisted.Seen{Columns: 32, All: 32, Received: 2, Answered: 2, Span: 3}); seen != want {
		t.Errorf("two turns of 16 units have told %+v, want %+v", seen, want)
	}
}

// elsewhere is an organisations' side that is not in this process.
type elsewhere struct{ federated.Client }

// TestLabelsAreTold checks that a run among others begins only where they may know the labels.
func TestLabelsAreTold(t *testing.T) {
	y, parts := shared(60)
	w := world(t, parts...)
	s := sponsor(y, assisted.Objective{Loss: assisted.Squared})
	for disclose, want := range map[string]string{"": "100.0 % of the labels", "labels": ""} {
		o := recipe()
		o.Disclosure.Disclose = disclose
		a, err := o.New(2, s, elsewhere{w.Desks})
		if err != nil {
			t.Fatal(err)
		}
		err = a.Check(federated.Server{})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("disclose %q: %v, want %q", disclose, err, want)
		}
	}
	for want, change := range map[string]func(*Options, *assisted.Sponsor){
		"hidden: name the width":    func(o *Options, _ *assisted.Sponsor) { o.Hidden = nil },
		"hidden: [0], expected":     func(o *Options, _ *assisted.Sponsor) { o.Hidden = []int{0} },
		"inner: 0, expected":        func(o *Options, _ *assisted.Sponsor) { o.Inner = 0 },
		"rate: 0 must be positive":  func(o *Options, _ *assisted.Sponsor) { o.Rate = 0 },
		`optimizer: "sgd"`:          func(o *Options, _ *assisted.Sponsor) { o.Optimizer = "sgd" },
		`start: "mean"`:             func(o *Options, _ *assisted.Sponsor) { o.Start = "mean" },
		"takes held-out":            func(o *Options, _ *assisted.Sponsor) { o.Patience = 2 },
		"begins with the sponsor's": func(_ *Options, s *assisted.Sponsor) { s.Own = "" },
		"label_epsilon: randomised": func(o *Options, _ *assisted.Sponsor) { o.Disclosure.Response = 1 },
	} {
		o, s := recipe(), sponsor(y, assisted.Objective{Loss: assisted.Squared})
		change(&o, s)
		a, err := o.New(2, s, w.Desks)
		if err == nil {
			err = a.Check(federated.Server{})
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
}
