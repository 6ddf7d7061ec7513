package al

import (
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/assisttest"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"gonum.org/v1/gonum/mat"
)

// interaction is y = x_b (2x_a − 1) + noise of deviation 0.1: a sponsor that has x_a, which is 0 or 1, and an assistor with x_b. Either
// alone knows nothing of y, and neither does any sum of a function of the one and a function of the other.
func interaction(t *testing.T) (*assisted.Sponsor, *assisttest.World) {
	t.Helper()
	const n, fit = 500, 300
	noise, b := random(1, n, 1), random(2, n, 1)
	a, y, values := mat.NewDense(n, 1, nil), mat.NewDense(n, 1, nil), make([]string, n)
	for i := range n {
		a.Set(i, 0, float64(i*i%3))
		values[i] = fmt.Sprint(i * i % 3)
		y.Set(i, 0, b.At(i, 0)*(2*a.At(i, 0)-1)+.1*noise.At(i, 0))
	}
	s := sponsor(y)
	s.Fit, s.Test = fit, n-fit
	strata, err := assisted.NewStrata("x", values[:fit])
	if err != nil {
		t.Fatal(err)
	}
	s.Strata, s.Stratum = strata, strata.Of(values)
	return s, assisttest.NewWorld(assisttest.OLS(t), a, b)
}

// oracle is the loss on the rows to test on of least squares on x_a, x_b and their product.
func oracle(t *testing.T, s *assisted.Sponsor, w *assisttest.World) float64 {
	t.Helper()
	x := mat.NewDense(len(s.Keys), 3, nil)
	for i := range s.Keys {
		a, b := w.Desks["org-1"].Features.At(i, 0), w.Desks["org-2"].Features.At(i, 0)
		x.SetRow(i, []float64{a, b, a * b})
	}
	m, err := assisttest.OLS(t).Fit(t.Context(), s.Fitted().Of(x), s.Fitted().Of(s.Labels), nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	f, err := m.Predict(s.Tested().Of(x))
	if err != nil {
		t.Fatal(err)
	}
	return s.Objective.Value(s.Tested().Of(s.Labels), f)
}

func last(l *fedtest.Trace, metric string) float64 {
	v := l.Metric(metric, "")
	return v[len(v)-1]
}

// TestStrata checks that with a model for each stratum assistance comes near the noise where without it cannot help, that predictions
// are what training came to, and what stands for an assistor that is away.
func TestStrata(t *testing.T) {
	s, w := interaction(t)
	_, plain, _ := watch(t, Defaults(), 3, s, w.Fresh(), nil)
	o := Defaults()
	o.Strata = "x"
	a, l, _ := watch(t, o, 3, s, w, nil)
	best := oracle(t, s, w)
	if without, with := last(plain, "loss"), last(l, "loss"); without < 50*best || with > best+.001 {
		t.Errorf("the loss is %g without strata and %g with them; all columns and their product come to %g", without, with, best)
	}
	e, err := a.Ensemble(l.Final)
	if err != nil {
		t.Fatal(err)
	}
	ask := func(away ...string) *mat.Dense {
		p := &assisted.Prediction{Ensemble: e, Keys: s.Keys, Strata: s.Stratum, Desks: w.Desks}
		l, err := w.Do(p, 1, func(r *fedtest.Run) {
			r.Members.Tamper = func(a *federated.Answer) {
				if slices.Contains(away, a.Order.Member.Name) {
					a.Result, a.Err = federated.Result{}, fmt.Errorf("away")
				}
			}
		})
		if err != nil {
			t.Fatal(err)
		}
		return assisttest.Matrix(t, l.Final, "F")
	}
	assisttest.Near(t, "prediction", ask(), assisttest.Matrix(t, l.Final, "F"), 1e-12)
	voice := e.Voice("org-2")
	if means := voice.Terms[0].Means; len(means) != 2 || len(e.Voice("org-1").Terms[0].Means) != 0 {
		t.Fatalf("means by stratum: %v, and the sponsor's own %v", means, e.Voice("org-1").Terms[0].Means)
	}
	own := e
	own.Members = slices.DeleteFunc(slices.Clone(e.Members), func(v assisted.Voice) bool { return v.Name == "org-2" })
	without := ask("org-2")
	e = own
	alone := ask()
	for i, got := range without.RawMatrix().Data {
		want := alone.At(i, 0) + voice.Mean(1, s.Stratum[i])[0]
		if off := got - want; off > 1e-12 || off < -1e-12 {
			t.Fatalf("row %d without org-2 is %g, want %g: the mean of its stratum", i, got, want)
		}
	}
	var notes []string
	for _, p := range l.Phases {
		notes = append(notes, p.Notes...)
	}
	if want := `assistors fit a model for each of 2 strata of x: "1" (200 rows), "0" (100 rows)`; !slices.Contains(notes, want) {
		t.Errorf("want the note %q, got %q", want, notes)
	}
}

// TestStrataBits checks that threads and a resume change no bit, and that an organisation that lacks a stratum takes nothing off it.
func TestStrataBits(t *testing.T) {
	s, w := interaction(t)
	d := w.Desks["org-2"]
	for i := range d.Keys {
		if s.Stratum[i] == 1 && i%20 != 0 && i < s.Fit {
			d.Keys[i] = fmt.Sprintf("stranger-%d", i)
		}
	}
	o := Defaults()
	o.Strata = "x"
	a, plain, _ := watch(t, o, 3, s, w, nil)
	fresh := w.Fresh()
	again, err := o.New(3, s, fresh.Desks)
	if err != nil {
		t.Fatal(err)
	}
	got, err := fresh.Do(again, 3, func(r *fedtest.Run) { r.Members.Threads, r.Members.Shuffle = 3, 5 })
	if err != nil || !slices.Equal(got.Digests(), plain.Digests()) {
		t.Errorf("with three threads it comes to another state, %v", err)
	}
	got, err = w.Do(a, 3, func(r *fedtest.Run) { r.From, r.Kept = &plain.Snapshots[0], plain.Kept[0] })
	if err != nil || !slices.Equal(got.Digests(), plain.Digests()[1:]) {
		t.Errorf("resumed after a round it comes to another state, %v", err)
	}
}

// TestStrataThatCannotBe checks what is said of them.
func TestStrataThatCannotBe(t *testing.T) {
	s, w := interaction(t)
	o := Defaults()
	o.Strata = "x"
	for want, change := range map[string]func(*assisted.Sponsor){
		`it is not said which value of "x"`:      func(s *assisted.Sponsor) { s.Strata, s.Stratum = nil, nil },
		"say which member it is":                 func(s *assisted.Sponsor) { s.Own = "" },
		"the strata of 3 rows":                   func(s *assisted.Sponsor) { s.Stratum = s.Stratum[:3] },
		"rows are in strata 0 to 1: there are 1": func(s *assisted.Sponsor) { s.Strata = &assisted.Strata{Count: 1} },
	} {
		other := *s
		change(&other)
		a, err := o.New(3, &other, w.Desks)
		if err != nil {
			t.Fatal(err)
		}
		if err := a.Check(federated.Server{}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
}
