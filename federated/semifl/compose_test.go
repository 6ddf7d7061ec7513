package semifl

import (
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/federated/heterofl"
	"github.com/cohort-learning/cohort/federated/private"
	"github.com/cohort-learning/cohort/secure/robust"
)

// composed runs SemiFL with something around it or in the place of the mean.
func composed(t *testing.T, c Config, wrap func(federated.Algorithm) federated.Algorithm, rule federated.Rule) *fedtest.Trace {
	t.Helper()
	w, p := bars(t, 9, 6), problem(t)
	p.Rounds, p.Select.Fraction = 3, 1
	a, err := New(p, c)
	if err != nil {
		t.Fatal(err)
	}
	var alg federated.Algorithm = a
	if wrap != nil {
		alg = wrap(a)
	}
	r := &fedtest.Run{World: w, Algorithm: alg, Config: federated.Config{Rounds: p.Rounds, Rule: rule, Spool: federated.Spool{Dir: t.TempDir()}}}
	l := r.Must(t)
	for _, p := range l.Phases {
		for _, f := range p.Failed {
			t.Errorf("round %d: %s failed in %s: %s", p.Round, f.Member, f.Phase, f.Reason)
		}
		for _, n := range p.Notes {
			if strings.Contains(n, "no secure sum") || strings.Contains(n, "the round failed") {
				t.Errorf("round %d, %s: %s", p.Round, p.Phase, n)
			}
		}
	}
	return l
}

// sure is a configuration in which some labels are accepted from the first round on.
func sure(c *Config) { c.First, c.Threshold = true, 0.4 }

// TestSecureSums runs SemiFL with secure sums: sums of masked vectors are those of plain ones to the bit, members that are not
// active are not told from others, and what became of pseudo-labels is known as a sum.
func TestSecureSums(t *testing.T) {
	secure := func(plain bool) func(federated.Algorithm) federated.Algorithm {
		return func(a federated.Algorithm) federated.Algorithm {
			return private.NewSecure(a, private.SecureOptions{Plain: plain})
		}
	}
	masked := composed(t, small(sure), secure(false), nil)
	plain := composed(t, small(sure), secure(true), nil)
	open := composed(t, small(sure), nil, nil)
	if got, want := masked.Final.Sets["w"], plain.Final.Sets["w"]; !got.Equal(want) {
		t.Errorf("masked sums differ from plain ones by %g", got.Sub(want).Norm())
	}
	if a, b := masked.Metric("pseudo.accepted.accuracy", ""), open.Metric("pseudo.accepted.accuracy", ""); len(a) != 3 || len(b) != 3 || a[0] != b[0] {
		t.Errorf("accuracy of accepted labels: %v masked, %v in the open; want the same in the first round", a, b)
	}
	for _, p := range masked.Phases {
		if len(p.Abstained) > 0 {
			t.Errorf("%s tells who abstained: %v", p.Phase, p.Abstained)
		}
	}
	if d := masked.Final.Sets["w"].Sub(open.Final.Sets["w"]).Norm() / open.Final.Sets["w"].Norm(); d > 0.2 {
		t.Errorf("the model with secure sums is %g of its norm away from the one without: rounding is less", d)
	}
}

// TestSecureLevels: parts of the statistics, in float64, have no secure sum, and it is said before anything is computed.
func TestSecureLevels(t *testing.T) {
	c := small(sure)
	c.Mode = heterofl.Mode{{Name: "a", Rate: 1, Share: 1}, {Name: "b", Rate: 0.5, Share: 2}}
	a, err := New(problem(t), c)
	if err != nil {
		t.Fatal(err)
	}
	err = private.NewSecure(a, private.SecureOptions{}).Check(bars(t, 9, 6).Server())
	if err == nil || !strings.Contains(err.Error(), "float64 have no secure sum") {
		t.Errorf("error %v", err)
	}
}

// TestRobust takes medians and trimmed means over those who hold a coordinate, of one model and of HeteroFL's levels.
func TestRobust(t *testing.T) {
	levels := heterofl.Mode{{Name: "a", Rate: 1, Share: 1}, {Name: "b", Rate: 0.5, Share: 2}}
	for _, mode := range []heterofl.Mode{nil, levels} {
		c := small(sure)
		c.Mode = mode
		mean := composed(t, c, nil, nil)
		for _, m := range []robust.Method{robust.Median{}, robust.TrimmedMean{Beta: 0.2}} {
			l := composed(t, c, nil, robust.Rule{Method: m})
			if err := l.Final.Sets["w"].Finite(); err != nil {
				t.Error(err)
			}
			if l.Final.Sets["w"].Equal(mean.Final.Sets["w"]) {
				t.Errorf("%T in the place of the mean makes no difference", m)
			}
		}
	}
	// Krum compares whole updates, and is for one size of model.
	w, p := bars(t, 9, 6), problem(t)
	c := small(sure)
	c.Mode = levels
	a, err := New(p, c)
	if err != nil {
		t.Fatal(err)
	}
	s, err := a.Init(t.Context(), w.Server())
	if err != nil {
		t.Fatal(err)
	}
	s.Step = 2 // training
	err = federated.Config{Rule: robust.Rule{Method: robust.Krum{Liars: 1}}}.Fits(a, s, w.Server())
	if err == nil || !strings.Contains(err.Error(), "train parts of the model") {
		t.Errorf("Krum with levels: error %v", err)
	}
}

// TestCollapse checks that a run whose accepted labels become many and wrong is told of.
func TestCollapse(t *testing.T) {
	a, err := New(problem(t), small(nil))
	if err != nil {
		t.Fatal(err)
	}
	w := bars(t, 2, 6)
	s, err := a.Init(t.Context(), w.Server())
	if err != nil {
		t.Fatal(err)
	}
	for i, c := range []struct {
		accepted, right float64
		warns           bool
	}{{60, 58, false}, {95, 90, false}, {97, 70, true}, {50, 20, false}} {
		sum := &federated.Sum{N: 2, Scalars: map[string]float64{labelled: 100, kept: c.accepted, known: 100, right: c.right, keptKnown: c.accepted, keptRight: c.right}}
		next, d, err := a.aggregate(w.Server(), s, map[string]*federated.Sum{"": sumOf(a, s, sum)}, federated.Roll{})
		if err != nil {
			t.Fatal(err)
		}
		s = next
		if warned := len(d.Notes) == 1 && strings.Contains(d.Notes[0], "may be collapsing"); warned != c.warns {
			t.Errorf("round %d: notes %q", i, d.Notes)
		}
	}
}

// sumOf gives a sum of scalars tensors that change nothing.
func sumOf(a *Algorithm, s federated.State, sum *federated.Sum) *federated.Sum {
	sum.Total = emptyTotal(a.held(s))
	return sum
}
