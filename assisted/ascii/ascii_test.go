package ascii

import (
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/assisttest"
	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"gonum.org/v1/gonum/mat"
	"pgregory.net/rapid"
)

func sponsor(y *mat.Dense, classes int) *assisted.Sponsor {
	n, _ := y.Dims()
	return &assisted.Sponsor{Objective: assisted.Objective{Loss: assisted.CrossEntropy, Classes: classes}, Keys: assisttest.Keys(n), Labels: y, Fit: n, Own: "org-1"}
}

func spec(t testing.TB, s learner.Spec) learner.Learner {
	t.Helper()
	l, err := s.New()
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func stump(t testing.TB) learner.Learner { return spec(t, learner.Spec{Name: "tree", Depth: 1}) }

// rings are classes by the distance from 0 in as many columns as there are: no column tells them alone.
func rings(seed uint64, n, columns, classes int) (y *mat.Dense, x *mat.Dense) {
	r := rand.New(rand.NewPCG(seed, 2))
	x, y = mat.NewDense(n, columns, nil), mat.NewDense(n, 1, nil)
	for i := range n {
		sum := 0.0
		for j := range columns {
			v := r.NormFloat64()
			x.Set(i, j, v)
			sum += v * v
		}
		y.Set(i, 0, min(float64(classes-1), math.Floor(sum/float64(columns)*float64(classes)/1.6)))
	}
	return y, x
}

func column(x *mat.Dense, from, to int) *mat.Dense {
	n, _ := x.Dims()
	return mat.DenseCopyOf(x.Slice(0, n, from, to))
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

// samme is multi-class AdaBoost as Zhu and others (2009) print it, algorithm 2: the weights α and the sum of votes.
func samme(t *testing.T, l learner.Learner, x, y *mat.Dense, classes, rounds int) (weights []float64, sum *mat.Dense) {
	n, _ := x.Dims()
	labels, w := make([]int, n), make([]float64, n)
	for i := range labels {
		labels[i], w[i] = int(y.At(i, 0)), 1/float64(n)
	}
	sum = mat.NewDense(n, classes, nil)
	for range rounds {
		m, err := l.(learner.Classifier).FitClasses(t.Context(), x, labels, classes, w, nil)
		if err != nil {
			t.Fatal(err)
		}
		p, err := m.Predict(x)
		if err != nil {
			t.Fatal(err)
		}
		best := make([]int, n)
		miss, all := 0.0, 0.0
		for i := range n {
			row := p.RawRowView(i)
			for k := range row {
				if row[k] > row[best[i]] {
					best[i] = k
				}
			}
			all += w[i]
			if best[i] != labels[i] {
				miss += w[i]
			}
		}
		miss /= all
		a := math.Log((1-miss)/miss) + math.Log(float64(classes-1))
		weights = append(weights, a)
		for i := range n {
			sum.Set(i, best[i], sum.At(i, best[i])+a)
			if best[i] != labels[i] {
				w[i] *= math.Exp(a)
			}
		}
	}
	return weights, sum
}

// TestOneOrganisationIsSAMME checks identity 6a.8 of one module: weights, and the class of every row.
func TestOneOrganisationIsSAMME(t *testing.T) {
	for _, classes := range []int{2, 3, 4} {
		y, x := rings(uint64(classes), 200, 3, classes)
		w := assisttest.NewWorld(stump(t), x)
		_, l := run(t, Defaults(), 8, sponsor(y, classes), w, nil)
		weights, sum := samme(t, stump(t), x, y, classes, 8)
		got := l.Metric("weight", "org-1")
		if len(got) != 8 {
			t.Fatalf("%d classes: %d rounds, want 8", classes, len(got))
		}
		for k := range got {
			if math.Abs(got[k]-weights[k]) > 1e-9 {
				t.Errorf("%d classes: weight of round %d is %g, SAMME has %g", classes, k, got[k], weights[k])
			}
		}
		f := assisttest.Matrix(t, l.Final, "F")
		for i := range 200 {
			if a, b := argmax(f.RawRowView(i)), argmax(sum.RawRowView(i)); a != b {
				t.Fatalf("%d classes: row %d is of class %d, SAMME says %d", classes, i, a, b)
			}
		}
	}
}

func argmax(v []float64) int {
	best := 0
	for k := range v {
		if v[k] > v[best]+1e-9 {
			best = k
		}
	}
	return best
}

// ballot returns coded votes for classes.
func ballot(k int, classes ...int) *mat.Dense {
	g := mat.NewDense(len(classes), k, nil)
	for i, c := range classes {
		for j := range k {
			g.Set(i, j, -1/float64(k-1))
		}
		g.Set(i, c, 1)
	}
	return g
}

// TestSecondWeight compares α of the second organisation with the equation for two in the paper, by its four sums, and with the first's
// where α of the first is 0.
func TestSecondWeight(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		k := rapid.IntRange(2, 5).Draw(rt, "classes")
		n := rapid.IntRange(4, 12).Draw(rt, "rows")
		class := rapid.SliceOfN(rapid.IntRange(0, k-1), n, n)
		y, one, two := class.Draw(rt, "labels"), class.Draw(rt, "first"), class.Draw(rt, "second")
		w := rapid.SliceOfN(rapid.Float64Range(0.1, 3), n, n).Draw(rt, "scores")
		first := rapid.Float64Range(0, 4).Draw(rt, "weight")
		y[0], two[0], y[1], two[1] = 0, 0, 0, 1 // once right, once wrong
		g := ballot(k, one...)
		rA, rB := right(y, g), right(y, ballot(k, two...))
		var ab, nb, an, nn float64
		for i := range n {
			if want := map[bool]float64{true: 1, false: 0}[one[i] == y[i]]; math.Abs(rA[i]-want) > 1e-12 {
				rt.Fatalf("row %d: r = %g, want %g", i, rA[i], want)
			}
			ab += w[i] * rA[i] * rB[i]
			nb += w[i] * (1 - rA[i]) * rB[i]
			an += w[i] * rA[i] * (1 - rB[i])
			nn += w[i] * (1 - rA[i]) * (1 - rB[i])
		}
		k1 := float64(k - 1)
		up, down := math.Exp(first/(k1*k1)), math.Exp(-first/k1)
		want := min(most, math.Log(k1)+math.Log(up*nb+down*ab)-math.Log(up*nn+down*an))
		var before mat.Dense
		before.Scale(first, g)
		if got := alpha(y, w, rB, &before); math.Abs(got-want) > 1e-9 {
			rt.Errorf("α = %g, the equation for two has %g", got, want)
		}
		none := mat.NewDense(n, k, nil)
		hit, all := 0.0, 0.0
		for i := range n {
			hit, all = hit+w[i]*rB[i], all+w[i]
		}
		alone := min(most, math.Log(hit/(all-hit))+math.Log(k1))
		if got := alpha(y, w, rB, none); math.Abs(got-alone) > 1e-9 {
			rt.Errorf("with 0 before it α = %g, alone %g", got, alone)
		}
		next, sum := passed(w, rB, alone), 0.0
		for i := range n {
			sum += next[i]
			if ratio, want := next[i]/w[i]*(w[0]/next[0]), math.Exp((1-rB[i])*alone); math.Abs(ratio-want) > 1e-9*want {
				rt.Errorf("score of row %d rises by %g, want %g", i, ratio, want)
			}
		}
		if math.Abs(sum-1) > 1e-12 {
			rt.Errorf("scores add up to %g", sum)
		}
	})
}

// TestThree follows three organisations through two rounds by hand, from the votes that they send.
func TestThree(t *testing.T) {
	for _, weights := range []string{"joint", "simple"} {
		t.Run(weights, func(t *testing.T) { three(t, weights) })
	}
}

func three(t *testing.T, weights string) {
	const classes, n = 3, 150
	o := Defaults()
	o.Weights = weights
	y, x := rings(7, n, 3, classes)
	w := assisttest.NewWorld(stump(t), column(x, 0, 1), column(x, 1, 2), column(x, 2, 3))
	var order []string
	var cast []*mat.Dense
	var scores []*mat.Dense
	a, l := run(t, o, 2, sponsor(y, classes), w, func(r *fedtest.Run) {
		r.Members.Tamper = func(answer *federated.Answer) {
			if !federated.Learns(answer.Order.Phase) {
				return
			}
			v, err := assisted.ReadMatrix(answer.Result.Attached)
			if err != nil {
				t.Fatal(err)
			}
			x := answer.Task.Sets["r"].Must("r")
			order, cast, scores = append(order, answer.Order.Member.Name), append(cast, v), append(scores, mat.NewDense(x.Shape[0], x.Shape[1], x.F64))
		}
	})
	if want := []string{"org-1", "org-2", "org-3", "org-1", "org-2", "org-3"}; !slices.Equal(order, want) {
		t.Fatalf("asked %v, want %v", order, want)
	}
	labels := make([]int, n)
	expect := make([]float64, n)
	for i := range n {
		labels[i], expect[i] = int(y.At(i, 0)), 1
	}
	total := mat.NewDense(n, classes, nil)
	for step := range 6 {
		if step%3 == 0 {
			total.Zero()
		}
		for i := range n {
			if scores[step].At(i, 0) != y.At(i, 0) || math.Abs(scores[step].At(i, 1)-expect[i]) > 1e-12 {
				t.Fatalf("step %d: row %d came with label %g and score %g, want %g and %g", step, i, scores[step].At(i, 0), scores[step].At(i, 1), y.At(i, 0), expect[i])
			}
		}
		var yes, no float64
		r := make([]float64, n)
		for i, c := range labels {
			inner := 0.0
			for k := range classes {
				coded := -1. / (classes - 1)
				if k == c {
					coded = 1
				}
				inner += coded * total.At(i, k)
			}
			u := expect[i] * math.Exp(-inner/classes)
			if weights == "simple" {
				u = expect[i]
			}
			if cast[step].At(i, c) == 1 {
				r[i] = 1
				yes += u
			} else {
				no += u
			}
		}
		weight := math.Log(classes-1) + math.Log(yes/no)
		if got := l.Metric("weight", order[step])[step/3]; math.Abs(got-weight) > 1e-9 {
			t.Errorf("step %d: weight %g, want %g", step, got, weight)
		}
		var more mat.Dense
		more.Scale(weight, cast[step])
		total.Add(total, &more)
		sum := 0.0
		for i := range n {
			expect[i] *= math.Exp((1 - r[i]) * weight)
			sum += expect[i]
		}
		for i := range n {
			expect[i] /= sum
		}
	}
	e, err := a.Ensemble(l.Final)
	if err != nil {
		t.Fatal(err)
	}
	f, _ := w.Predict(t, e, a.Sponsor.Keys)
	assisttest.Near(t, "prediction", f, assisttest.Matrix(t, l.Final, "F"), 1e-12)
}

// TestAssistanceHelps checks that what no organisation knows alone is learned together, by kinds of models of which one fits no
// classes, and that held-out rows say when it is enough.
func TestAssistanceHelps(t *testing.T) {
	y, x := rings(3, 600, 4, 3)
	parts := []*mat.Dense{column(x, 0, 2), column(x, 2, 4)}
	for _, kind := range []learner.Spec{{Name: "tree", Depth: 2}, {Name: "svr"}} {
		rate := func(parts ...*mat.Dense) float64 {
			s := sponsor(y, 3)
			s.Fit, s.Held, s.Test = 300, 100, 200
			o := Defaults()
			o.Patience, o.Stop = 10, "nobody"
			_, l := run(t, o, 30, s, assisttest.NewWorld(spec(t, kind), parts...), nil)
			got := l.Metric("accuracy", "")
			return got[len(got)-1]
		}
		alone, both := rate(parts[0]), rate(parts...)
		if both < alone+.05 {
			t.Errorf("%s: accuracy %.3f alone, %.3f together", kind.Name, alone, both)
		}
	}
}

// TestWhenItIsOver checks what ends a run: the first no better than guessing, or nobody better; and that a model that is always
// right has a weight that is finite.
func TestWhenItIsOver(t *testing.T) {
	n := 80
	y, good, noise := mat.NewDense(n, 1, nil), mat.NewDense(n, 1, nil), mat.NewDense(n, 1, nil)
	for i := range n {
		y.Set(i, 0, float64(i%2))
		good.Set(i, 0, float64(i%2))
	}
	first := assisttest.NewWorld(stump(t), noise, good)
	_, l := run(t, Defaults(), 3, sponsor(y, 2), first, nil)
	if got := l.Metric("weight", "org-1"); len(got) != 1 || got[0] != 0 || len(l.Metric("weight", "org-2")) != 0 {
		t.Errorf("the first guesses: weights %v and %v, want the run to be over", got, l.Metric("weight", "org-2"))
	}
	o := Defaults()
	o.Stop = "nobody"
	_, l = run(t, o, 3, sponsor(y, 2), first.Fresh(), nil)
	if got := l.Metric("weight", "org-2"); len(got) != 3 || math.Abs(got[0]-most) > 1e-9 {
		t.Errorf("the second is always right: weights %v, want %g in three rounds", got, most)
	}
	_, l = run(t, o, 3, sponsor(y, 2), assisttest.NewWorld(stump(t), noise, noise), nil)
	if got := l.Metric("weight", "org-2"); len(got) != 1 {
		t.Errorf("nobody knows anything: weights %v, want one round", got)
	}
}

// TestNothingElseMatters checks that threads, arrival and a resume change no bit; that who is lost, or answers no votes, has none; and that
// means stand for entities that an organisation does not have.
func TestNothingElseMatters(t *testing.T) {
	y, x := rings(5, 90, 3, 3)
	w := assisttest.NewWorld(spec(t, learner.Spec{Name: "forest", Trees: 5}), column(x, 0, 2), column(x, 2, 3))
	d := w.Desks["org-2"]
	d.Keys, d.Features = d.Keys[:70], mat.DenseCopyOf(d.Features.Slice(0, 70, 0, 1))
	o := Defaults()
	o.Stop = "nobody"
	a, plain := run(t, o, 3, sponsor(y, 3), w, nil)
	fresh := w.Fresh()
	_, got := run(t, o, 3, a.Sponsor, fresh, func(r *fedtest.Run) { r.Members.Threads, r.Members.Shuffle = 3, 5 })
	if !slices.Equal(got.Digests(), plain.Digests()) {
		t.Error("with three threads it comes to another state")
	}
	if got, err := w.Do(a, 3, func(r *fedtest.Run) { r.From, r.Kept = &plain.Snapshots[0], plain.Kept[0] }); err != nil || !slices.Equal(got.Digests(), plain.Digests()[1:]) {
		t.Errorf("resumed after a round it comes to another state, %v", err)
	}
	e, err := a.Ensemble(plain.Final)
	if err != nil {
		t.Fatal(err)
	}
	f, l := w.Predict(t, e, a.Sponsor.Keys)
	assisttest.Near(t, "prediction", f, assisttest.Matrix(t, plain.Final, "F"), 1e-12)
	if n := l.Metric("degraded", "org-2"); len(n) != 1 || n[0] != 20 {
		t.Errorf("org-2 lacks 20 entities, degraded says %v", n)
	}
	_, liar := run(t, o, 2, a.Sponsor, w.Fresh(), func(r *fedtest.Run) {
		r.Members.Tamper = func(a *federated.Answer) {
			if a.Order.Member.Name == "org-2" && federated.Learns(a.Order.Phase) {
				a.Result.Attached = assisted.AppendMatrix(nil, assisted.Constant(90, []float64{.5, .25, .25}))
			}
		}
	})
	var notes []string
	for _, p := range liar.Phases {
		notes = append(notes, p.Notes...)
	}
	if all := strings.Join(notes, "\n"); !strings.Contains(all, "org-2 has no vote in round 1: 90 rows of its answer are no votes") || len(liar.Metric("weight", "org-2")) > 0 {
		t.Errorf("numbers that are no votes counted: %q", all)
	}
}

// elsewhere is an organisations' side that is not in this process.
type elsewhere struct{ federated.Client }

// TestLabelsAreTold checks that a run among others begins only where they may know the labels.
func TestLabelsAreTold(t *testing.T) {
	y, x := rings(5, 60, 2, 3)
	w := assisttest.NewWorld(stump(t), column(x, 0, 1), column(x, 1, 2))
	for disclose, want := range map[string]string{"": "100.0 % of the labels", "labels": ""} {
		o := Defaults()
		o.Disclosure.Disclose = disclose
		a, err := o.New(2, sponsor(y, 3), elsewhere{w.Desks})
		if err != nil {
			t.Fatal(err)
		}
		err = a.Check(federated.Server{})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("disclose %q: %v, want %q", disclose, err, want)
		}
	}
	for want, change := range map[string]func(*Options, *assisted.Sponsor){
		`weights: "all"`: func(o *Options, _ *assisted.Sponsor) { o.Weights = "all" },
		`stop: "never"`:  func(o *Options, _ *assisted.Sponsor) { o.Stop = "never" },
		"takes held-out": func(o *Options, _ *assisted.Sponsor) { o.Patience = 2 },
		"is for classes": func(_ *Options, s *assisted.Sponsor) { s.Objective = assisted.Objective{Loss: assisted.Squared} },
	} {
		o, s := Defaults(), sponsor(y, 3)
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
