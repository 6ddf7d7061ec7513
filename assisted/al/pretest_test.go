package al

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/assisttest"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"gonum.org/v1/gonum/mat"
)

// TestPretested checks that the test comes before any residual, changes nothing where it only says, leaves out who does not pass, tells
// none, or comes late where it is required, and that a resumed run goes on from it.
func TestPretested(t *testing.T) {
	y, x := friedman(8, 400)
	noise := random(9, 400, 4)
	world := func(x ...*mat.Dense) *assisttest.World {
		w := assisttest.NewWorld(assisttest.OLS(t), x...)
		for _, name := range w.Names[1:] {
			w.Desks[name].Sketch = 3
		}
		return w
	}
	s := sponsor(y)
	method := func(w *assisttest.World, test, require, only bool) federated.Algorithm {
		a, err := Defaults().New(3, s, w.Desks)
		if err != nil {
			t.Fatal(err)
		}
		if !test {
			return a
		}
		u := &Useful{Table: assisted.Table{Sponsor: s, Desks: w.Desks}, Mixtures: 3, Own: x[0]}
		return &Pretested{Learnt: a, Test: u, Require: require, Only: only}
	}
	do := func(w *assisttest.World, test, require, only bool, change func(*fedtest.Run)) *fedtest.Trace {
		l, err := w.Do(method(w, test, require, only), 3, change)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	same := func(what string, a, b *fedtest.Trace) {
		t.Helper()
		if x, y := assisttest.Matrix(t, a.Final, "F"), assisttest.Matrix(t, b.Final, "F"); !mat.Equal(x, y) {
			t.Errorf("%s: other predictions", what)
		}
	}
	three, two := do(world(x[0], x[2], noise), false, false, false, nil), do(world(x[0], x[2]), false, false, false, nil)

	w := world(x[0], x[2], noise)
	says := do(w, true, false, false, nil)
	same("the test only says", says, three)
	if p := says.Metric("useful.p", "org-2"); len(p) != 1 || p[0] > 1e-6 {
		t.Errorf("p of org-2: %v", p)
	}
	if got := says.Phase(assisted.Sketches); len(got) != 1 || got[0].Asked != 2 {
		t.Errorf("%d tests; want one, of the two that assist", len(got))
	}
	if got := []string{says.Phases[0].Phase, says.Phases[1].Phase, says.Phases[2].Phase}; !slices.Equal(got, []string{assisted.Rows, assisted.Sketches, assisted.Fits}) {
		t.Errorf("the first phases are %v: residuals are to come after the test", got)
	}

	requires := do(world(x[0], x[2], noise), true, true, false, nil)
	same("noise is left out", requires, two)
	if c := assisted.MustCourse(requires.Final); !slices.Equal(c.Out, []string{"org-3"}) {
		t.Errorf("left out: %v", c.Out)
	}

	w = world(x[0], x[2], noise)
	w.Desks["org-2"].Sketch = 0
	if c := assisted.MustCourse(do(w, true, true, false, nil).Final); !slices.Equal(c.Out, []string{"org-2", "org-3"}) {
		t.Errorf("left out: %v, want org-2, too, which tells nothing", c.Out)
	}

	late := do(world(x[0], noise, x[2]), true, true, false, func(r *fedtest.Run) {
		r.Members.Tamper = func(a *federated.Answer) {
			if a.Order.Member.Name == "org-3" && a.Order.Round == 0 {
				a.Result, a.Err = federated.Result{}, errors.New("asleep")
			}
		}
	})
	if c := assisted.MustCourse(late.Final); !slices.Equal(c.Out, []string{"org-2", "org-3"}) || !slices.Contains(c.Members, "org-3") {
		t.Errorf("left out: %v of %v, want org-3, too, which came after the test", c.Out, c.Members)
	}

	only := do(world(x[0], x[2], noise), true, false, true, nil)
	if len(only.Phase(assisted.Fits)) > 0 || len(only.Metric("useful.p", "org-3")) != 1 {
		t.Error("only the test: something was fitted, or not tested")
	}

	w = world(x[0], x[2], noise)
	first := do(w, true, true, false, nil)
	again := do(w, true, true, false, func(r *fedtest.Run) { r.From, r.Kept = &first.Snapshots[0], first.Kept[0] })
	same("resumed", again, first)

	if err := (&Pretested{Learnt: method(w, false, false, false).(*Algorithm), Test: &Useful{Table: assisted.Table{Sponsor: s}, Mixtures: 0, Own: x[0]}}).Check(federated.Server{}); err == nil || !strings.Contains(err.Error(), "pretest: 0 mixtures") {
		t.Errorf("no mixtures: %v", err)
	}
}

// TestBlur checks that mixtures carry Laplace noise of the scale that the desk says, and that mixtures are the same when asked for again.
func TestBlur(t *testing.T) {
	_, x := friedman(8, 4000)
	sketch := func(w *assisttest.World) *mat.Dense {
		var out *mat.Dense
		u := &Useful{Table: assisted.Table{Sponsor: sponsor(random(1, 4000, 1)), Desks: w.Desks}, Mixtures: 2, Own: x[0]}
		if _, err := w.Do(u, 1, func(r *fedtest.Run) {
			r.Members.Tamper = func(a *federated.Answer) {
				if a.Order.Phase == assisted.Sketches {
					out, _ = assisted.ReadMatrix(a.Result.Attached)
				}
			}
		}); err != nil {
			t.Fatal(err)
		}
		return out
	}
	w := assisttest.NewWorld(assisttest.OLS(t), x[0], x[2])
	w.Desks["org-2"].Sketch = 2
	plain := sketch(w)
	if !mat.Equal(plain, sketch(w)) {
		t.Error("asked again it tells other mixtures")
	}
	blurred := w.Fresh()
	blurred.Desks["org-2"].Blur = .5
	var d mat.Dense
	d.Sub(sketch(blurred), plain)
	rows, columns := d.Dims()
	if v := mat.Norm(&d, 2) * mat.Norm(&d, 2) / float64(rows*columns); v < .4 || v > .6 {
		t.Errorf("the noise has variance %.3f, want 2·0.5²", v)
	}
}
