package al

import (
	"context"
	"errors"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/assisttest"
	"github.com/cohort-learning/cohort/assisted/gal"
	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/weights"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"gonum.org/v1/gonum/mat"
	"pgregory.net/rapid"
)

var squared = assisted.Objective{Loss: assisted.Squared}

func near(tolerance float64) cmp.Option { return cmpopts.EquateApprox(0, tolerance) }

func sponsor(y *mat.Dense) *assisted.Sponsor {
	n, _ := y.Dims()
	return &assisted.Sponsor{Objective: squared, Keys: assisttest.Keys(n), Labels: y, Fit: n, Own: "org-1"}
}

// sent is the targets that organisations got, in the order of sending.
type sent []*mat.Dense

// note is [fedtest.Members.Tamper] that notes targets.
func (s *sent) note(a *federated.Answer) {
	if x, ok := a.Task.Sets["r"].Get("r"); ok {
		*s = append(*s, mat.NewDense(x.Shape[0], x.Shape[1], x.F64))
	}
}

// watch is a run of Procedure 1, and what was sent. Answers, if not nil, gets every answer.
func watch(t testing.TB, o Options, rounds int, s *assisted.Sponsor, w *assisttest.World, answers func(*federated.Answer)) (*Algorithm, *fedtest.Trace, sent) {
	t.Helper()
	a, err := o.New(rounds, s, w.Desks)
	if err != nil {
		t.Fatal(err)
	}
	var log sent
	l, err := w.Do(a, rounds, func(r *fedtest.Run) {
		r.Members.Tamper = func(a *federated.Answer) {
			log.note(a)
			if answers != nil {
				answers(a)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return a, l, log
}

func through(t testing.TB) learner.Learner { // no intercept
	t.Helper()
	l, err := learner.Spec{Name: "linear", NoIntercept: true}.New()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// TestAngle checks two columns at 60°: what is left of what they explain falls by cos² 60° = ¼ a round.
func TestAngle(t *testing.T) {
	w := assisttest.NewWorld(through(t), assisttest.Column(1, 0, 0), assisttest.Column(.5, math.Sqrt(3)/2, 0))
	_, l, e := watch(t, Defaults(), 4, sponsor(assisttest.Column(1, 1, 1)), w, nil)
	if diff := cmp.Diff([]float64{0, 1, 1}, e[1].RawMatrix().Data, near(1e-12)); diff != "" {
		t.Error("the residual that the sponsor sends first:", diff)
	}
	want := [][]float64{{-0.433013, .25, 1}, {-0.108253, .0625, 1}, {-0.027063, .015625, 1}, {-0.006766, .003906, 1}}
	for k, want := range want {
		got := mat.NewDense(3, 1, nil)
		got.Sub(assisttest.Column(1, 1, 1), assisttest.Matrix(t, l.Snapshots[k].State, "F"))
		if diff := cmp.Diff(want, got.RawMatrix().Data, near(1e-6)); diff != "" {
			t.Errorf("the residual after round %d: %s", k+1, diff)
		}
		got.Sub(got, assisttest.Column(0, 0, 1))
		if off := mat.Norm(got, 2); math.Abs(off-.5*math.Pow(.25, float64(k))) > 1e-12 {
			t.Errorf("after round %d it is off by %g", k+1, off)
		}
	}
}

// eight are two organisations with one direction in common; the sponsor's has a column of ones.
func eight() (a, b, y *mat.Dense) {
	a = mat.NewDense(8, 2, nil)
	for i := range 8 {
		a.SetRow(i, []float64{1, float64(i)})
	}
	b = mat.NewDense(8, 2, []float64{0, 1, 1, 0, 0, 2, 1, 1, 0, 3, 1, 2, 0, 4, 1, 3})
	return a, b, assisttest.Column(1, 3, 2, 5, 4, 8, 5, 11)
}

// TestEight checks the sums of squares half-step by half-step, the rate of convergence and its limit.
func TestEight(t *testing.T) {
	a, b, y := eight()
	w := assisttest.NewWorld(through(t), a, b)
	_, l, e := watch(t, Defaults(), 5, sponsor(y), w, nil)
	rss := func(x *mat.Dense) float64 { return math.Pow(mat.Norm(x, 2), 2) }
	var got []float64
	for k := range 3 {
		got = append(got, rss(e[2*k+1]), rss(e[2*k+2]))
	}
	want := []float64{18.869048, 5.206090, 4.741364, 4.725557, 4.725019, 4.725001}
	if diff := cmp.Diff(want, got, near(1e-6)); diff != "" {
		t.Error("sums of squares:", diff)
	}
	var pooled mat.Dense
	pooled.Augment(a, b)
	m, err := through(t).Fit(t.Context(), &pooled, y, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	oracle, err := m.Predict(&pooled)
	if err != nil {
		t.Fatal(err)
	}
	off := []float64{6.936066e-1, 2.359206e-2, 8.024510e-4, 2.729425e-5}
	for k, want := range off {
		var d mat.Dense
		d.Sub(oracle, assisttest.Matrix(t, l.Snapshots[k].State, "F"))
		if got := mat.Norm(&d, 2); math.Abs(got-want) > 1e-6*want {
			t.Errorf("after round %d it is off by %.7g, want %.7g", k+1, got, want)
		}
	}
	var left mat.Dense
	left.Sub(y, oracle)
	if got := rss(&left); math.Abs(got-4.725) > 1e-9 {
		t.Errorf("least squares on all columns leave %g, want 4.725", got)
	}
}

func random(seed uint64, rows, columns int) *mat.Dense {
	r := rand.New(rand.NewPCG(seed, 1))
	x := mat.NewDense(rows, columns, nil)
	x.Apply(func(_, _ int, _ float64) float64 { return r.NormFloat64() }, x)
	return x
}

// TestConservation checks on random problems that y = e + Σ of all that was fitted, at every moment and for every order, and that
// predictions of the ensemble are y − e.
func TestConservation(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		seed, m := rapid.Uint64().Draw(rt, "seed"), rapid.IntRange(2, 4).Draw(rt, "organisations")
		o := Defaults()
		o.Order = rapid.SampledFrom([]string{"chain", "random"}).Draw(rt, "order")
		n := rapid.IntRange(3, 12).Draw(rt, "rows")
		y := random(seed, n, 1)
		var x []*mat.Dense
		for j := range m {
			x = append(x, random(seed+uint64(j)+1, n, 1))
		}
		w := assisttest.NewWorld(assisttest.OLS(t), x...)
		fitted := mat.NewDense(n, 1, nil)
		step := 0
		a, l, _ := watch(t, o, 3, sponsor(y), w, func(answer *federated.Answer) {
			if !federated.Learns(answer.Order.Phase) {
				return
			}
			e := answer.Task.Sets["r"].Must("r").F64
			for i := range n {
				if off := y.At(i, 0) - fitted.At(i, 0) - e[i]; math.Abs(off) > 1e-12*(1+math.Abs(y.At(i, 0))) {
					rt.Errorf("step %d: labels, residual and fits do not add up in row %d: %g", step, i, off)
				}
			}
			g, err := assisted.ReadMatrix(answer.Result.Attached)
			if err != nil {
				rt.Fatal(err)
			}
			fitted.Add(fitted, g)
			step++
		})
		if step != 3*m {
			rt.Fatalf("%d steps, want %d", step, 3*m)
		}
		e, err := a.Ensemble(l.Final)
		if err != nil {
			rt.Fatal(err)
		}
		f, _ := w.Predict(t, e, a.Sponsor.Keys)
		assisttest.Near(t, "prediction", f, fitted, 1e-12)
	})
}

// TestLimit checks what does not change least squares in the limit: the order of organisations, a copy of one, one that knows
// nothing.
func TestLimit(t *testing.T) {
	y := random(1, 30, 1)
	a, b, c := random(2, 30, 2), random(3, 30, 1), random(4, 30, 2)
	run := func(x ...*mat.Dense) *mat.Dense {
		w := assisttest.NewWorld(assisttest.OLS(t), x...)
		_, l, _ := watch(t, Defaults(), 60, sponsor(y), w, nil)
		return assisttest.Matrix(t, l.Final, "F")
	}
	want := run(a, b, c)
	assisttest.Near(t, "in another order", run(c, a, b), want, 1e-9)
	assisttest.Near(t, "with a copy", run(a, b, c, b), want, 1e-9)
	assisttest.Near(t, "with one that knows nothing", run(a, b, mat.NewDense(30, 1, nil), c), want, 1e-9)

	w := assisttest.NewWorld(assisttest.OLS(t), a, mat.NewDense(30, 1, nil))
	_, l, _ := watch(t, Defaults(), 3, sponsor(y), w, nil)
	first := assisttest.Matrix(t, l.Snapshots[0].State, "F")
	assisttest.Near(t, "beside one that knows nothing, the sponsor's first fit", assisttest.Matrix(t, l.Final, "F"), first, 1e-12)
}

// TestOrthogonal checks that organisations at right angles come to least squares on all columns in one round.
func TestOrthogonal(t *testing.T) {
	x := mat.NewDense(4, 2, []float64{1, 1, 1, -1, -1, 1, -1, -1})
	y := assisttest.Column(3, 1, -2, 5)
	one := func(j int) *mat.Dense { return mat.DenseCopyOf(x.Slice(0, 4, j, j+1)) }
	w := assisttest.NewWorld(assisttest.OLS(t), one(0), one(1))
	_, l, _ := watch(t, Defaults(), 1, sponsor(y), w, nil)
	m, err := assisttest.OLS(t).Fit(t.Context(), x, y, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	want, err := m.Predict(x)
	if err != nil {
		t.Fatal(err)
	}
	assisttest.Near(t, "after one round", assisttest.Matrix(t, l.Final, "F"), want, 1e-12)
}

// TestLikeGradientAssistance checks that with one organisation, the squared loss, steps of one and F⁰ = 0 on centred labels this
// is gradient assisted learning but for the factor of the gradient.
func TestLikeGradientAssistance(t *testing.T) {
	x, y := random(5, 20, 2), random(6, 20, 1)
	mean := mat.Sum(y) / 20
	for i := range 20 {
		y.Set(i, 0, y.At(i, 0)-mean)
	}
	w := assisttest.NewWorld(assisttest.OLS(t), x)
	_, l, _ := watch(t, Defaults(), 2, sponsor(y), w, nil)
	fresh := w.Fresh()
	a, err := gal.Defaults().New(2, sponsor(y), fresh.Desks)
	if err != nil {
		t.Fatal(err)
	}
	assisttest.Near(t, "F", assisttest.Matrix(t, l.Final, "F"), assisttest.Matrix(t, fresh.Must(t, a, 2).Final, "F"), 1e-12)
}

// friedman draws the first problem of Friedman (1991), with its columns at three organisations.
func friedman(seed uint64, n int) (y *mat.Dense, x []*mat.Dense) {
	r := rand.New(rand.NewPCG(seed, 1))
	y, x = mat.NewDense(n, 1, nil), []*mat.Dense{mat.NewDense(n, 3, nil), mat.NewDense(n, 1, nil), mat.NewDense(n, 1, nil)}
	for i := range n {
		var u [5]float64
		for j := range u {
			u[j] = r.Float64()
		}
		y.Set(i, 0, 10*math.Sin(math.Pi*u[0]*u[1])+20*math.Pow(u[2]-.5, 2)+10*u[3]+5*u[4]+r.NormFloat64())
		x[0].SetRow(i, []float64{u[0], u[1], u[3]})
		x[1].Set(i, 0, u[2])
		x[2].Set(i, 0, u[4])
	}
	return y, x
}

// TestOrders checks every order on the same problem: all but the averaged streams come to the same least squares, and those stay
// behind, which is why they are not the default.
func TestOrders(t *testing.T) {
	y, x := friedman(1, 160)
	x[1].Apply(func(i, _ int, v float64) float64 { return v + x[2].At(i, 0) }, x[1]) // so that assistors have something in common
	final := map[string]float64{}
	for _, order := range []string{"chain", "random", "greedy", "star-average"} {
		o := Defaults()
		o.Order = order
		rounds := 12
		if order == "greedy" {
			rounds = 40
		}
		s := sponsor(y)
		w := assisttest.NewWorld(assisttest.OLS(t), x...)
		a, l, _ := watch(t, o, rounds, s, w, nil)
		loss := l.Metric("loss.train", "")
		final[order] = loss[len(loss)-1]
		e, err := a.Ensemble(l.Final)
		if err != nil {
			t.Fatal(err)
		}
		f, _ := w.Predict(t, e, s.Keys)
		assisttest.Near(t, order+": prediction", f, assisttest.Matrix(t, l.Final, "F"), 1e-10)
	}
	for _, order := range []string{"random", "greedy"} {
		if math.Abs(final[order]-final["chain"]) > 1e-3 {
			t.Errorf("training losses %v: want %s to come to that of the chain", final, order)
		}
	}
	if final["star-average"] < final["chain"]+.05 {
		t.Errorf("training losses %v: want averaged streams to stay behind the chain", final)
	}
}

// TestStops checks that held-out rows end the run at their best round.
func TestStops(t *testing.T) {
	y, x := friedman(2, 120)
	s := sponsor(y)
	s.Fit, s.Held = 90, 30
	o := Defaults()
	o.Patience = 3
	w := assisttest.NewWorld(assisttest.OLS(t), x...)
	a, l, _ := watch(t, o, 50, s, w, nil)
	loss := l.Metric("loss.held", "")
	if len(loss) == 50 {
		t.Fatal("it did not stop")
	}
	e, err := a.Ensemble(l.Final)
	if err != nil || e.Last()+1 != len(loss)-3 {
		t.Errorf("of losses %v, the ensemble has %d rounds, %v", loss, e.Last()+1, err)
	}
	if alone := l.Metric("alone.loss.train", "org-1"); len(alone) != 1 || alone[0] < l.Metric("loss.train", "")[0] {
		t.Errorf("the sponsor's first fit has loss %v", alone)
	}
}

// TestLostOnTheWay checks that whoever is lost takes nothing off the residual, and the next gets it as it was.
func TestLostOnTheWay(t *testing.T) {
	y, x := friedman(3, 60)
	w := assisttest.NewWorld(assisttest.OLS(t), x...)
	a, l, _ := watch(t, Defaults(), 3, sponsor(y), w, func(answer *federated.Answer) {
		if answer.Order.Member.Name == "org-2" && answer.Order.Round == 1 {
			answer.Result, answer.Err = federated.Result{}, errors.New("asleep")
		}
	})
	e, err := a.Ensemble(l.Final)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(e.Voice("org-2").Terms); n != 2 {
		t.Errorf("org-2 has %d models in the ensemble, want 2", n)
	}
	var notes []string
	for _, p := range l.Phases {
		notes = append(notes, p.Notes...)
	}
	if all := strings.Join(notes, "\n"); !strings.Contains(all, "org-2 takes nothing off the residual in round 2: asleep") {
		t.Errorf("the notes do not say who was lost: %q", all)
	}
	f, _ := w.Predict(t, e, a.Sponsor.Keys)
	assisttest.Near(t, "prediction", f, assisttest.Matrix(t, l.Final, "F"), 1e-12)
}

// TestNothingElseMatters checks that threads and a resume after any round change no bit.
func TestNothingElseMatters(t *testing.T) {
	y, x := friedman(4, 50)
	for _, order := range []string{"chain", "random", "greedy", "star-average"} {
		o := Defaults()
		o.Order = order
		w := assisttest.NewWorld(assisttest.OLS(t), x...)
		a, plain, _ := watch(t, o, 3, sponsor(y), w, nil)
		fresh := w.Fresh()
		again, err := o.New(3, a.Sponsor, fresh.Desks)
		if err != nil {
			t.Fatal(err)
		}
		got, err := fresh.Do(again, 3, func(r *fedtest.Run) { r.Members.Threads, r.Members.Shuffle = 3, 5 })
		if err != nil || !slices.Equal(got.Digests(), plain.Digests()) {
			t.Errorf("%s: with three threads it comes to another state, %v", order, err)
		}
		got, err = w.Do(a, 3, func(r *fedtest.Run) { r.From, r.Kept = &plain.Snapshots[0], plain.Kept[0] })
		if err != nil || !slices.Equal(got.Digests(), plain.Digests()[1:]) {
			t.Errorf("%s: resumed after a round it comes to another state, %v", order, err)
		}
	}
}

// TestOptionsThatCannotBe checks what is said of them.
func TestOptionsThatCannotBe(t *testing.T) {
	for want, change := range map[string]func(*Options){
		"order: \"ring\"":   func(o *Options) { o.Order = "ring" },
		"rate: \"two\"":     func(o *Options) { o.Rate = "two" },
		"shrink: 0":         func(o *Options) { o.Shrink = 0 },
		"takes held-out":    func(o *Options) { o.Patience = 3 },
		"printed procedure": func(o *Options) { o.Order, o.Rate = "star-average", "exact" },
	} {
		o := Defaults()
		change(&o)
		if _, err := o.New(3, sponsor(assisttest.Column(1, 2)), nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
	s := sponsor(assisttest.Column(0, 1))
	s.Objective = assisted.Objective{Loss: assisted.CrossEntropy, Classes: 2}
	a, err := Defaults().New(1, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Check(federated.Server{}); err == nil || !strings.Contains(err.Error(), "for regression") {
		t.Errorf("classes with unit steps: %v", err)
	}
}

// asked notes who is asked to fit.
type asked struct {
	federated.Client
	mu  sync.Mutex
	who []string
}

func (a *asked) Run(ctx context.Context, at federated.Local, t federated.Task, keep *weights.Set) (federated.Result, error) {
	if federated.Learns(t.Phase) {
		a.mu.Lock()
		a.who = append(a.who, at.Member.Name)
		a.mu.Unlock()
		if at.Member.Name == "org-1" && t.Round == 0 {
			return federated.Result{}, errors.New("away")
		}
	}
	return a.Client.Run(ctx, at, t, keep)
}

// Labels themselves leave for nobody: as long as the sponsor's own model has taken nothing off them, no other is asked.
func TestNoLabels(t *testing.T) {
	for _, order := range []string{"chain", "random", "greedy"} {
		w := assisttest.NewWorld(assisttest.OLS(t), assisttest.Column(1, 2, 3, 4, 6), assisttest.Column(1, -1, 2, 0, -2))
		s := &assisted.Sponsor{Objective: assisted.Objective{Loss: assisted.Squared}, Keys: assisttest.Keys(5), Labels: assisttest.Column(3, 1, 4, 1, 5), Fit: 5, Own: "org-1"}
		spy := &asked{Client: w.Desks}
		o := Defaults()
		o.Order, o.Disclosure.Disclose = order, "labels"
		a, err := o.New(2, s, spy)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Do(a, 2, nil); err != nil {
			t.Fatal(err)
		}
		if len(spy.who) < 2 || spy.who[0] != "org-1" || spy.who[1] != "org-1" {
			t.Errorf("%s: asked were %v, though the sponsor's own model failed in the first round", order, spy.who)
		}
		s.Own = ""
		if _, err := w.Fresh().Do(a, 1, nil); err == nil || !strings.Contains(err.Error(), "labels themselves") {
			t.Errorf("%s: without an organisation of the sponsor: %v", order, err)
		}
	}
}
