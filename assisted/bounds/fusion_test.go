package bounds

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/assisted/assisttest"
	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/federated/fedtest"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"github.com/cohort-learning/cohort/weights"
	"gonum.org/v1/gonum/mat"
)

// blobs are three classes among four organisations of two columns each.
func blobs() Problem {
	x, y := assisted.Blobs(120, 8, 3, rng.New(1, 0, "", "blobs"))
	p := Problem{Sponsor: &assisted.Sponsor{Objective: assisted.Objective{Loss: assisted.CrossEntropy, Classes: 3},
		Keys: assisttest.Keys(120), Labels: y, Fit: 90, Test: 30}}
	for m := range 4 {
		p.Parts = append(p.Parts, assisted.Columns(x, []int{2 * m, 2*m + 1}))
	}
	return p
}

// sums are quantities that are a weighted sum of three organisations' columns, far from 0.
func sums(loss string) Problem {
	r := rng.New(2, 0, "", "sums")
	x, y := mat.NewDense(200, 3, nil), mat.NewDense(200, 2, nil)
	for i := range 200 {
		for j := range 3 {
			x.Set(i, j, r.NormFloat64())
		}
		y.Set(i, 0, 100+10*x.At(i, 0)-5*x.At(i, 1)+20*x.At(i, 2))
		y.Set(i, 1, -3+x.At(i, 1))
	}
	return Problem{Sponsor: &assisted.Sponsor{Objective: assisted.Objective{Loss: loss}, Keys: assisttest.Keys(200), Labels: y, Fit: 150, Test: 50},
		Parts: []*mat.Dense{assisted.Columns(x, []int{0}), assisted.Columns(x, []int{1}), assisted.Columns(x, []int{2})}}
}

func fuse(t *testing.T, e *train.Engine, p Problem, f Fusion) *mat.Dense {
	t.Helper()
	out, err := p.Fuse(t.Context(), e, f)
	if err != nil {
		t.Fatalf("%s: %v", f.How, err)
	}
	return out
}

// measured is the first metric on the rows to test on.
func measured(p Problem, f *mat.Dense) float64 {
	test := p.Sponsor.Tested()
	return p.Sponsor.Objective.Measure(test.Of(p.Sponsor.Labels), test.Of(f))[0].Value
}

// TestFusionOfOne checks that with one organisation, which is always there, all fusions are the same network, bit for bit.
func TestFusionOfOne(t *testing.T) {
	e := fedtest.Engine(t, "go")
	p := blobs()
	p.Parts = p.Parts[:1]
	for _, hidden := range [][]int{nil, {5}, {6, 4}} {
		want := fuse(t, e, p, Fusion{How: Late, Hidden: hidden, Epochs: 5, Batch: 32})
		for _, how := range []string{Interm, VFL} {
			if got := fuse(t, e, p, Fusion{How: how, Hidden: hidden, Epochs: 5, Batch: 32, Active: 1}); !mat.Equal(got, want) {
				t.Errorf("hidden layers %v: %s of one organisation is not late fusion of one", hidden, how)
			}
		}
	}
}

// TestFusionLearns checks that networks on all columns predict well, in classification and regression, and that late fusion of weighted
// sums does not, since none of its networks sees all columns.
func TestFusionLearns(t *testing.T) {
	e := fedtest.Engine(t, "go")
	p := blobs()
	for _, f := range []Fusion{{How: Late}, {How: Interm, Hidden: []int{8}}, {How: Interm}, {How: VFL, Active: .5}, {How: VFL, Active: .5, Hidden: []int{8}}} {
		if got := measured(p, fuse(t, e, p, f)); got < .9 {
			t.Errorf("%s, hidden layers %v: accuracy %g", f.How, f.Hidden, got)
		}
	}
	for _, loss := range []string{assisted.Squared, assisted.Absolute} {
		p := sums(loss)
		if got := measured(p, fuse(t, e, p, Fusion{How: Interm, Hidden: []int{8}, Epochs: 300})); got > 2.5 {
			t.Errorf("%s: intermediate fusion is off by %g, of quantities that deviate by 23", loss, got)
		}
		if got := measured(p, fuse(t, e, p, Fusion{How: VFL, Hidden: []int{8}, Active: .5, Epochs: 300, Batch: 32})); got > 9 {
			t.Errorf("%s: the split network is off by %g, of quantities that deviate by 23", loss, got)
		}
		if got := measured(p, fuse(t, e, p, Fusion{How: Late})); got < 3 {
			t.Errorf("%s: late fusion is off by %g only", loss, got)
		}
		if got := measured(p, fuse(t, e, p, Fusion{How: Late, Raw: true, Epochs: 2})); got < 40 {
			t.Errorf("%s: in two steps of norm 1 quantities around 100 are reached as they are: off by %g", loss, got)
		}
	}
}

// TestFusionLogistic checks that two classes with one output are predicted by their log-odds.
func TestFusionLogistic(t *testing.T) {
	e := fedtest.Engine(t, "go")
	p := blobs()
	two := p.Sponsor.Labels
	for i := range 120 {
		two.Set(i, 0, min(1, two.At(i, 0)))
	}
	p.Sponsor.Objective = assisted.Objective{Loss: assisted.CrossEntropy, Classes: 2}
	f := fuse(t, e, p, Fusion{How: Interm, Hidden: []int{8}})
	p.Sponsor.Objective = assisted.Objective{Loss: assisted.Logistic}
	odds := fuse(t, e, p, Fusion{How: Interm, Hidden: []int{8}})
	for i := range 120 {
		if got, want := odds.At(i, 0), f.At(i, 1)-f.At(i, 0); got != want {
			t.Fatalf("row %d: %g, the difference of the logits is %g", i, got, want)
		}
	}
	if got := measured(p, odds); got < .9 {
		t.Errorf("accuracy %g", got)
	}
}

// TestFusionAlike checks that threads change no bit, that rows without a label and missing values are left out, and that the seed counts.
func TestFusionAlike(t *testing.T) {
	p := blobs()
	f := Fusion{How: VFL, Hidden: []int{8}, Epochs: 10, Batch: 16}
	var first *mat.Dense
	for _, threads := range []int{1, 3} {
		b, err := backend.New("cpu", backend.Options{Threads: threads})
		if err != nil {
			t.Fatal(err)
		}
		e := train.NewEngine(b)
		defer e.Close()
		got := fuse(t, e, p, f)
		if first != nil && !mat.Equal(got, first) {
			t.Error("another number of threads, other predictions")
		}
		first = got
	}
	e := fedtest.Engine(t, "go")
	p.Seed = 9
	if mat.Equal(fuse(t, e, p, f), first) {
		t.Error("another seed, the same predictions")
	}
	q := sums(assisted.Squared)
	q.Parts[0].Set(3, 0, math.NaN())
	q.Sponsor.Labels.SetRow(4, []float64{math.NaN(), math.NaN()})
	out := fuse(t, e, q, Fusion{How: Interm, Epochs: 3})
	if v := mat.Sum(out); math.IsNaN(v) {
		t.Error("a missing value or label makes predictions NaN")
	}
	for i := range 150 {
		if i != 4 {
			q.Sponsor.Labels.SetRow(i, []float64{math.NaN(), math.NaN()})
		}
	}
	if _, err := q.Fuse(t.Context(), e, Fusion{How: Interm}); err == nil || !strings.Contains(err.Error(), "none has a label") {
		t.Errorf("without labels: %v", err)
	}
}

// TestWhoIsThere checks that in each step ⌈Active·M⌉ organisations are there, that with time everybody is, and that in prediction all are,
// with features multiplied by ⌈Active·M⌉/M.
func TestWhoIsThere(t *testing.T) {
	p := blobs()
	f := Fusion{How: VFL, Active: .3}.withDefaults()
	tt := p.targets(f)
	n := newNetwork(f, p.Parts, tt)
	x := n.inputs(p.Parts, tt.fit)
	if got := x.F32[8:12]; !slices.Equal(got, []float32{.5, .5, .5, .5}) {
		t.Errorf("in prediction features are multiplied by %v, want 2/4", got)
	}
	r, seen := rng.New(1, 0, "", "there"), map[int]bool{}
	for range 40 {
		b := n.batch(tt.fit[:7], x, tt, r)
		var who []int
		for m, v := range b.X[8:12] {
			if v == 1 {
				who = append(who, m)
				seen[m] = true
			}
		}
		if len(who) != 2 {
			t.Fatalf("%v are there, want 2 of 4", who)
		}
		for i := range 7 {
			if !slices.Equal(b.X[i*12+8:][:4], b.X[8:12]) || !slices.Equal(b.X[i*12:][:8], x.F32[i*12:][:8]) {
				t.Fatalf("row %d of the batch is another, or others are there for it", i)
			}
		}
	}
	if len(seen) != 4 {
		t.Errorf("in 40 steps only %v were there", seen)
	}
	s, err := fedtest.Engine(t, "go").Begin(n.spec(tt), n.model.Initial(weights.Float32, rng.New(1, 0, "", "start")), train.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	says := func(columns, there float32) weights.Tensor {
		for i := range 120 {
			x.F32[i*12], x.F32[i*12+8] = columns, there // of the first organisation
		}
		z, err := s.Predict(t.Context(), x.All(), train.EvalOptions{})
		if err != nil {
			t.Fatal(err)
		}
		return z
	}
	if !slices.Equal(says(1, 0).F32, says(5, 0).F32) {
		t.Error("columns of an organisation that is not there matter")
	}
	if slices.Equal(says(1, 1).F32, says(5, 1).F32) {
		t.Error("columns of an organisation that is there do not matter")
	}
}

func TestFusionErrors(t *testing.T) {
	p, e := blobs(), fedtest.Engine(t, "go")
	for want, f := range map[string]Fusion{
		`fused by "early"`: {How: "early"},
		"hidden layers":    {How: Interm, Hidden: []int{4, 0}},
		"none may be":      {How: Interm, Epochs: -1},
		"at most 1":        {How: VFL, Active: 1.5},
	} {
		if _, err := p.Fuse(t.Context(), e, f); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v", f, err)
		}
	}
	p.Parts = nil
	if _, err := p.Fuse(t.Context(), e, Fusion{How: Interm}); err == nil || !strings.Contains(err.Error(), "no organisation") {
		t.Errorf("without organisations: %v", err)
	}
}
