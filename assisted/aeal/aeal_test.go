package aeal

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/al"
	"github.com/cohort-learning/cohort/assisted/assisttest"
	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"gonum.org/v1/gonum/mat"
)

// problem draws columns of so many organisations, which are correlated, and labels of a family.
func problem(t testing.TB, family string, organisations int) (*assisted.Sponsor, *assisttest.World) {
	t.Helper()
	const n = 120
	r := rand.New(rand.NewPCG(uint64(organisations), 7))
	x := make([]*mat.Dense, organisations)
	y := mat.NewDense(n, 1, nil)
	for m := range x {
		x[m] = mat.NewDense(n, 2, nil)
	}
	for i := range n {
		common, eta := r.NormFloat64(), .3
		for m := range x {
			for k := range 2 {
				x[m].Set(i, k, r.NormFloat64()+.4*common)
			}
			eta += .5*x[m].At(i, 0) - .3*x[m].At(i, 1)*float64(m)
		}
		switch u := r.Float64(); family {
		case assisted.Logistic:
			if u < 1/(1+math.Exp(-eta)) {
				y.Set(i, 0, 1)
			}
		case assisted.Poisson:
			p := math.Exp(-math.Exp(eta))
			for k, sum := 0., p; sum < u; sum += p {
				k++
				p *= math.Exp(eta) / k
				y.Set(i, 0, k)
			}
		default:
			y.Set(i, 0, eta+r.NormFloat64())
		}
	}
	s := &assisted.Sponsor{Objective: assisted.Objective{Loss: family}, Keys: assisttest.Keys(n), Labels: y, Fit: 100, Test: 20, Own: "org-1"}
	return s, assisttest.NewWorld(assisttest.OLS(t), x...)
}

// pooled is the maximum likelihood with all columns in one place: its linear predictors for all rows.
func pooled(t testing.TB, s *assisted.Sponsor, w *assisttest.World) *mat.Dense {
	t.Helper()
	var all mat.Dense
	for m, name := range w.Names {
		if m == 0 {
			all.CloneFrom(w.Desks[name].Features)
			continue
		}
		var both mat.Dense
		both.Augment(&all, w.Desks[name].Features)
		all.CloneFrom(&both)
	}
	p := s.Fitted()
	m, err := assisttest.OLS(t).(learner.Generalised).FitGLM(t.Context(), p.Of(&all), p.Of(s.Labels), mat.NewDense(s.Fit, 1, nil), s.Objective.Loss)
	if err != nil {
		t.Fatal(err)
	}
	eta, err := m.Predict(&all)
	if err != nil {
		t.Fatal(err)
	}
	return eta
}

func run(t testing.TB, o Options, rounds int, s *assisted.Sponsor, w *assisttest.World, change func(*fedtest.Run)) (*Algorithm, *fedtest.Trace) {
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

// TestLimit checks that every family comes to the maximum likelihood on all columns, of two and of three organisations, and that predictions of the
// ensemble are what training came to.
func TestLimit(t *testing.T) {
	for _, family := range []string{assisted.Squared, assisted.Logistic, assisted.Poisson, assisted.LogCosh} {
		for _, organisations := range []int{2, 3} {
			s, w := problem(t, family, organisations)
			a, l := run(t, Options{}, 40, s, w, nil)
			about := fmt.Sprintf("%s, %d organisations", family, organisations)
			assisttest.Near(t, about, assisttest.Matrix(t, l.Final, "F"), pooled(t, s, w), 1e-6)
			loss := l.Metric("loss.train", "")
			for i := 1; i < len(loss); i++ {
				if loss[i] > loss[i-1]+1e-12 {
					t.Errorf("%s: the deviance rises in round %d: %v", about, i+1, loss)
					break
				}
			}
			e, err := a.Ensemble(l.Final)
			if err != nil {
				t.Fatal(err)
			}
			f, _ := w.Predict(t, e, s.Keys)
			assisttest.Near(t, about+": prediction", f, assisttest.Matrix(t, l.Final, "F"), 1e-10)
		}
	}
}

// TestSquared checks that of least squares every round is that of assisted learning.
func TestSquared(t *testing.T) {
	s, w := problem(t, assisted.Squared, 3)
	_, l := run(t, Options{}, 5, s, w, nil)
	fresh := w.Fresh()
	o, err := al.Defaults().New(5, s, fresh.Desks)
	if err != nil {
		t.Fatal(err)
	}
	want := fresh.Must(t, o, 5)
	for k := range 5 {
		assisttest.Near(t, fmt.Sprintf("round %d", k+1), assisttest.Matrix(t, l.Snapshots[k].State, "F"), assisttest.Matrix(t, want.Snapshots[k].State, "F"), 1e-8)
	}
}

// TestAlone checks that with one organisation the first round is the generalised linear model, and the second ends the run.
func TestAlone(t *testing.T) {
	s, w := problem(t, assisted.Poisson, 1)
	_, l := run(t, Defaults(), 9, s, w, nil)
	if len(l.Snapshots) != 2 {
		t.Errorf("%d rounds, want 2", len(l.Snapshots))
	}
	assisttest.Near(t, "after the first round", assisttest.Matrix(t, l.Snapshots[0].State, "F"), pooled(t, s, w), 1e-7)
}

// TestSent checks that what passes are labels, offsets and parts of the linear predictor, and no more of the rows to test on than these parts.
func TestSent(t *testing.T) {
	s, w := problem(t, assisted.Logistic, 2)
	s.Labels.Set(5, 0, 1)
	var before *mat.Dense
	tasks := 0
	_, l := run(t, Options{}, 3, s, w, func(r *fedtest.Run) {
		r.Members.Tamper = func(a *federated.Answer) {
			if !federated.Learns(a.Order.Phase) {
				return
			}
			tasks++
			x := a.Task.Sets["r"].Must("r")
			if len(a.Task.Sets) != 1 || len(a.Task.Attached) > 0 || !slices.Equal(x.Shape, []int{100, 2}) || !strings.Contains(string(a.Task.Params), `"family":"logistic"`) {
				t.Errorf("a task of %v with %s", x.Shape, a.Task.Params)
			}
			for i := range 100 {
				if x.F64[2*i] != s.Labels.At(i, 0) || before != nil && math.Abs(x.F64[2*i+1]-before.At(i, 0)) > 1e-12 {
					t.Fatalf("row %d: sent are %v", i, x.F64[2*i:2*i+2])
				}
			}
			g, err := assisted.ReadMatrix(a.Result.Attached)
			if err != nil {
				t.Fatal(err)
			}
			if n, k := g.Dims(); n != 120 || k != 1 {
				t.Errorf("an answer of %d×%d", n, k)
			}
			if before == nil {
				before = assisted.Constant(120, []float64{x.F64[1]})
			}
			before.Add(before, g)
		}
	})
	if tasks != 6 {
		t.Errorf("%d tasks, want 6", tasks)
	}
	if v := l.Metric("label-recovery", ""); len(v) != 1 || v[0] != 1 {
		t.Errorf("labels that are told: %v, want all", v)
	}
}

// TestBits checks that threads and a resume change no bit, and that held-out rows pick a round.
func TestBits(t *testing.T) {
	s, w := problem(t, assisted.Logistic, 3)
	s.Fit, s.Held = 80, 20
	o := Options{Patience: 2}
	a, plain := run(t, o, 20, s, w, nil)
	if len(plain.Snapshots) == 20 {
		t.Error("it did not stop")
	}
	fresh := w.Fresh()
	_, got := run(t, o, 20, s, fresh, func(r *fedtest.Run) { r.Members.Threads, r.Members.Shuffle = 3, 5 })
	if !slices.Equal(got.Digests(), plain.Digests()) {
		t.Error("with three threads it comes to another state")
	}
	got, err := w.Do(a, 20, func(r *fedtest.Run) { r.From, r.Kept = &plain.Snapshots[0], plain.Kept[0] })
	if err != nil || !slices.Equal(got.Digests(), plain.Digests()[1:]) {
		t.Errorf("resumed after a round it comes to another state, %v", err)
	}
}

// TestLost checks that whoever is lost adds nothing, and that a round without somebody does not end the run.
func TestLost(t *testing.T) {
	s, w := problem(t, assisted.Squared, 2)
	_, l := run(t, Defaults(), 40, s, w, func(r *fedtest.Run) {
		r.Members.Tamper = func(a *federated.Answer) {
			if a.Order.Member.Name == "org-2" && a.Order.Round < 4 {
				a.Result, a.Err = federated.Result{}, fmt.Errorf("asleep")
			}
		}
	})
	assisttest.Near(t, "F", assisttest.Matrix(t, l.Final, "F"), pooled(t, s, w), 1e-3)
	if n := len(l.Snapshots); n < 6 || n == 40 {
		t.Errorf("%d rounds", n)
	}
}

// TestWhatCannotBe checks what is said of it.
func TestWhatCannotBe(t *testing.T) {
	check := func(change func(*assisted.Sponsor)) error {
		s, w := problem(t, assisted.Poisson, 2)
		change(s)
		a, err := Defaults().New(3, s, w.Desks)
		if err != nil {
			return err
		}
		return a.Check(federated.Server{})
	}
	for want, err := range map[string]error{
		"the loss poisson is for counts": check(func(s *assisted.Sponsor) { s.Labels.Set(3, 0, -1) }),
		"there are 3 classes: take gal": check(func(s *assisted.Sponsor) {
			s.Objective = assisted.Objective{Loss: assisted.CrossEntropy, Classes: 3}
			s.Labels.Apply(func(i, _ int, _ float64) float64 { return float64(i % 3) }, s.Labels)
		}),
		"log-cosh is about the same": check(func(s *assisted.Sponsor) { s.Objective.Loss = assisted.Absolute }),
		"none has a count above 0":   check(func(s *assisted.Sponsor) { s.Labels.Zero() }),
		"tolerance: 1 is outside":    Options{Tolerance: 1}.Validate(),
		"takes held-out rows":        func() error { _, err := Options{Patience: 1}.New(3, &assisted.Sponsor{}, nil); return err }(),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
	// Elsewhere, labels are told to nobody unless that is allowed; and who has another kind of model says so.
	s, w := problem(t, assisted.Logistic, 2)
	a, err := Defaults().New(3, s, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.Check(federated.Server{}); err == nil || !strings.Contains(err.Error(), "100.0 % of the labels") {
		t.Errorf("labels are told: %v", err)
	}
	tree, err := learner.Spec{Name: "tree"}.New()
	if err != nil {
		t.Fatal(err)
	}
	w.Desks["org-2"].Learner = tree
	_, l := run(t, Defaults(), 1, s, w, nil)
	var notes []string
	for _, p := range l.Phases {
		notes = append(notes, p.Notes...)
	}
	if all := strings.Join(notes, "\n"); !strings.Contains(all, "take linear or ridge for this run") {
		t.Errorf("who has trees says nothing of it: %s", all)
	}
}
