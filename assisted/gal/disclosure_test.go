package gal

import (
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/assisttest"
	"github.com/cohort-learning/cohort/federated"
	"github.com/goccy/go-yaml"
	"gonum.org/v1/gonum/mat"
)

// tenClasses is a sponsor with ten classes, alike, for those who only want to know what is disclosed.
func tenClasses(n int) *assisted.Sponsor {
	y := mat.NewDense(n, 1, nil)
	for i := range n {
		y.Set(i, 0, float64(i%10))
	}
	return sponsor(assisted.Objective{Loss: assisted.CrossEntropy, Classes: 10}, y)
}

func server() federated.Server {
	return federated.Server{Seed: 5, Secret: federated.Secrets([32]byte{9})}
}

// TestRecovery checks what residuals tell: unprotected, every label in the first round; behind noise fewer, and more with every round;
// after randomised response no more than it keeps, however many rounds there are.
func TestRecovery(t *testing.T) {
	const n = 4000
	s := tenClasses(n)
	for _, c := range []struct {
		what   string
		change func(*Options)
		want   map[int]float64 // by rounds
	}{
		{"unprotected", func(*Options) {}, map[int]float64{1: 1, 10: 1}},
		{"intervals", func(o *Options) { o.Privacy = "interval" }, map[int]float64{1: .59, 3: .96, 10: 1}},
		{"Laplace noise", func(o *Options) { o.Privacy = "laplace" }, map[int]float64{1: .25, 3: .53, 10: .87}},
		{"randomised response", func(o *Options) { o.Disclosure.Response = 2 }, map[int]float64{1: math.Exp(2) / (math.Exp(2) + 9), 10: math.Exp(2) / (math.Exp(2) + 9)}},
	} {
		for rounds, want := range c.want {
			o := Defaults()
			c.change(&o)
			a, err := o.New(rounds, s, nil)
			if err != nil {
				t.Fatal(err)
			}
			got, err := a.Recovery(server())
			if err != nil {
				t.Fatal(err)
			}
			if math.Abs(got-want) > .06 || want == 1 && got < .99 {
				t.Errorf("%s: in %d rounds %.2f of the labels are recovered, about %.2f were expected", c.what, rounds, got, want)
			}
		}
	}
}

// TestRefuses checks that a run whose organisations are elsewhere does not begin where residuals tell too much, and does where it
// may.
func TestRefuses(t *testing.T) {
	s := tenClasses(200)
	check := func(desks federated.Client, change func(*Options)) error {
		o := Defaults()
		change(&o)
		a, err := o.New(3, s, desks)
		if err != nil {
			t.Fatal(err)
		}
		return a.Check(server())
	}
	for what, c := range map[string]struct {
		change func(*Options)
		admit  bool
	}{
		"as it is":                       {func(*Options) {}, false},
		"disclosed":                      {func(o *Options) { o.Disclosure.Disclose = "labels" }, true},
		"noise and a low limit":          {func(o *Options) { o.Privacy, o.Disclosure.Most = "laplace", .2 }, false},
		"exchanged, and the limit above": {func(o *Options) { o.Disclosure.Response, o.Disclosure.Most = .5, .3 }, true},
	} {
		err := check(nil, c.change)
		if c.admit != (err == nil) {
			t.Errorf("%s: %v", what, err)
		}
		if err != nil && !strings.Contains(err.Error(), "disclose: labels") {
			t.Errorf("%s: the error does not say what to do: %v", what, err)
		}
		if err := check(assisted.Desks{}, c.change); err != nil {
			t.Errorf("%s, with all organisations in this process: %v", what, err)
		}
	}
}

// TestRecoveryIsOnRecord checks that what is disclosed is recorded before anything is sent that does.
func TestRecoveryIsOnRecord(t *testing.T) {
	c := newTrial(t)
	l := c.run(t, false, nil)
	rows := l.Phase(assisted.Rows)[0]
	for _, m := range rows.Metrics {
		if m.Name == "label-recovery" && m.Value == 1 {
			return
		}
	}
	t.Errorf("the record of telling rows has %v", rows.Metrics)
}

// TestResponse checks that with randomised response nothing that is sent depends on a label but through the exchanged ones: two
// sponsors whose labels differ, and are exchanged to the same, send the same.
func TestResponse(t *testing.T) {
	c := newTrial(t)
	o := Defaults()
	o.Disclosure.Response = 1
	w := c.world.Fresh()
	a := algorithm(t, o, c.rounds, c.sponsor, w)
	l := w.Must(t, a, c.rounds)
	exchanged := assisttest.Matrix(t, l.Final, "labels")
	differ := 0
	for i := range 60 {
		if exchanged.At(i, 0) != c.sponsor.Labels.At(i, 0) {
			differ++
			if i >= c.sponsor.Tested().From {
				t.Errorf("label %d, which is only for the test, is exchanged", i)
			}
		}
	}
	if differ == 0 || differ > 45 {
		t.Errorf("%d labels of 60 are exchanged", differ)
	}
	other := *c.sponsor // as if the exchanged labels were its own
	other.Labels = exchanged
	fresh := c.world.Fresh()
	again := fresh.Must(t, algorithm(t, Defaults(), c.rounds, &other, fresh), c.rounds)
	assisttest.Near(t, "F", assisttest.Matrix(t, again.Final, "F"), assisttest.Matrix(t, l.Final, "F"), 1e-12)
}

// TestMechanisms compares mean and variance of a million draws with the formulas.
func TestMechanisms(t *testing.T) {
	const n = 1_000_000
	r := mat.NewDense(n, 1, nil)
	for i := range n {
		r.Set(i, 0, .3)
	}
	random := rand.New(rand.NewPCG(1, 2))
	for what, c := range map[string]struct {
		got            *mat.Dense
		variance, four float64 // four: of (x − mean)², its variance
	}{
		"interval": {Interval(random, r, -1, 1, 1), 1./3 + .09, 1},
		"Laplace":  {Laplace(random, r, -1, 1, 1), 8, 5 * 64},
	} {
		mean, square := 0., 0.
		for _, v := range c.got.RawMatrix().Data {
			mean += v / n
			square += (v - .3) * (v - .3) / n
		}
		if off := math.Abs(mean - .3); off > 4*math.Sqrt(c.variance/n) {
			t.Errorf("%s: the mean is off by %g", what, off)
		}
		if off := math.Abs(square - c.variance); off > 4*math.Sqrt(c.four/n) {
			t.Errorf("%s: variance %g, want %g", what, square, c.variance)
		}
	}
}

// TestNoiseIsTheRuns checks that noise on residuals comes from the run's secrets: the same run sends the same, another does not.
func TestNoiseIsTheRuns(t *testing.T) {
	for _, privacy := range []string{"laplace", "interval"} {
		o := Defaults()
		o.Privacy, o.Bound = privacy, 1
		a, err := o.New(3, tenClasses(50), nil)
		if err != nil {
			t.Fatal(err)
		}
		send := func(srv federated.Server) *mat.Dense {
			s, err := a.Init(t.Context(), srv)
			if err != nil {
				t.Fatal(err)
			}
			return assisttest.Matrix(t, s, "r")
		}
		one := send(server())
		if !mat.Equal(one, send(server())) {
			t.Errorf("%s: the same run sends something else", privacy)
		}
		other := server()
		other.Secret = federated.Secrets([32]byte{1})
		if mat.Equal(one, send(other)) {
			t.Errorf("%s: noise does not depend on the run's secrets", privacy)
		}
		if _, err := a.Init(t.Context(), federated.Server{}); err == nil || !strings.Contains(err.Error(), "secret") {
			t.Errorf("%s: without secrets: %v", privacy, err)
		}
	}
}

// TestEpsilon checks how what is spent adds up.
func TestEpsilon(t *testing.T) {
	o := Defaults()
	o.Privacy, o.Budget = "laplace", .01
	a, err := o.New(10, tenClasses(50), nil)
	if err != nil {
		t.Fatal(err)
	}
	e := a.Epsilon(1e-6)
	want := math.Sqrt(2*100*math.Log(1e6))*.01 + 100*.01*math.Expm1(.01)
	if e.Basic != 1 || math.Abs(e.Advanced-want) > 1e-12 || e.Holds {
		t.Errorf("%+v, want 1 and %g, and no guarantee", e, want)
	}
}

// TestOptionsInYAML checks that options of disclosure stand beside the others.
func TestOptionsInYAML(t *testing.T) {
	o := Defaults()
	if err := yaml.UnmarshalWithOptions([]byte("weights: equal\ndisclose: labels\nmax_label_recovery: 0.5\n"), &o, yaml.Strict()); err != nil {
		t.Fatal(err)
	}
	if o.Weights != "equal" || o.Disclosure.Disclose != "labels" || o.Disclosure.Most != .5 || o.Rate != "exact" {
		t.Errorf("%+v", o)
	}
	for want, text := range map[string]string{
		"disclose": "disclose: all", "max_label_recovery": "max_label_recovery: 2", "label_epsilon": "label_epsilon: -1", "weights": "weights: best",
		"rate": "rate: slow", "privacy": "privacy: some", "budget": "privacy: interval\nbudget: 1.5", "exponent": "exponent: 9", "shrink": "shrink: 2",
		"subsample": "subsample: -1", "least squares": "weights: nnls\nexponent: 1",
	} {
		o := Defaults()
		if err := yaml.Unmarshal([]byte(text), &o); err != nil {
			t.Fatal(err)
		}
		if err := o.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
	}
}
