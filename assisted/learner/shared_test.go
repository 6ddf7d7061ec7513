package learner_test

import (
	"bytes"
	"context"
	"math"
	"testing"

	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

func shared(t *testing.T, s learner.Spec, x *mat.Dense, targets []*mat.Dense, start learner.Model) learner.Model {
	t.Helper()
	l, err := s.New()
	if err != nil {
		t.Fatal(err)
	}
	m, err := l.(learner.Sharer).FitShared(context.Background(), x, targets, start, rng.New(1, 0, "org", "fit"))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// One head is a fit as any other. More heads share all but the last layer, go on from where they were, and tell apart what they were
// fitted to, each in its own unit.
func TestShared(t *testing.T) {
	x, y, _ := stripes(160)
	other := mat.NewDense(160, 1, nil)
	for i := range 160 {
		other.Set(i, 0, 1000*(3+x.At(i, 7)))
	}
	for _, s := range []learner.Spec{
		{Name: "mlp", Epochs: 15},
		{Name: "cnn", Shape: []int{6, 6, 1}, Hidden: []int{6, 8}, Batch: 16, Epochs: 6, Rate: new(0.05)},
		{Name: "lstm", Shape: []int{6, 6}, Hidden: []int{12}, Epochs: 8, Rate: new(0.005)},
	} {
		one := shared(t, s, x, []*mat.Dense{y}, nil)
		if !mat.Equal(predict(t, one, x), fitted(t, s, x, y, nil)) {
			t.Errorf("%s: one head is not a plain fit", s.Name)
		}
		two := shared(t, s, x, []*mat.Dense{y, other}, one)
		afresh := shared(t, s, x, []*mat.Dense{y, other}, nil)
		all := predict(t, two, x)
		if mat.Equal(all, predict(t, afresh, x)) {
			t.Errorf("%s: where it starts makes no difference", s.Name)
		}
		for h, want := range []*mat.Dense{y, other} {
			got := mat.DenseCopyOf(all.Slice(0, 160, h, h+1))
			flat := mat.NewDense(160, 1, nil)
			flat.Apply(func(_, _ int, _ float64) float64 { return mat.Sum(want) / 160 }, flat)
			if e := rmse(got, want); e > .9*rmse(flat, want) {
				t.Errorf("%s: head %d errs by %v, a constant by %v", s.Name, h, e, rmse(flat, want))
			}
		}
		_, b1 := kept(t, one)
		back, b2 := kept(t, two)
		if len(b2) >= 2*len(b1) {
			t.Errorf("%s: two heads take %d bytes, one %d: the extractor is there twice", s.Name, len(b2), len(b1))
		}
		if again, err := back.MarshalBinary(); err != nil || !bytes.Equal(again, b2) {
			t.Errorf("%s: the binary form changes on the way (%v)", s.Name, err)
		}
	}
}

// kept is a model as it comes back from its binary form.
func kept(t *testing.T, m learner.Model) (learner.Model, []byte) {
	t.Helper()
	b, err := m.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	back, err := learner.Decode(b)
	if err != nil {
		t.Fatal(err)
	}
	return back, b
}

// Rows that a round has left out are those of its head alone; what cannot be shared is said or begun anew.
func TestSharedMasks(t *testing.T) {
	x, y := friedman(60, 1)
	y = mat.DenseCopyOf(y)
	masked := mat.DenseCopyOf(y)
	for i := range 30 {
		masked.Set(i, 0, math.NaN())
	}
	s := learner.Spec{Name: "mlp", Epochs: 4}
	if m := shared(t, s, x, []*mat.Dense{masked}, nil); mat.Equal(predict(t, m, x), fitted(t, s, x, y, nil)) {
		t.Error("a mask changes nothing")
	}
	w := make([]float64, 60)
	for i := 30; i < 60; i++ {
		w[i] = 1
	}
	if got, want := predict(t, shared(t, s, x, []*mat.Dense{masked}, nil), x), fitted(t, s, x, y, w); !mat.Equal(got, want) {
		t.Error("rows left out are not rows of weight 0")
	}
	wide := shared(t, learner.Spec{Name: "mlp", Epochs: 4, Hidden: []int{5}}, x, []*mat.Dense{y}, nil)
	both := []*mat.Dense{y, masked}
	if got, want := predict(t, shared(t, s, x, both, wide), x), predict(t, shared(t, s, x, both, nil), x); !mat.Equal(got, want) {
		t.Error("a start of another form was used")
	}
	flat := mat.NewDense(60, 1, nil)
	if got := predict(t, shared(t, s, x, []*mat.Dense{flat, flat}, nil), x); mat.Norm(got, 1) != 0 {
		t.Error("two constants are fitted by something else")
	}
	if got := predict(t, shared(t, s, x, []*mat.Dense{flat, y}, nil), x); mat.Norm(got.Slice(0, 60, 0, 1), 1) != 0 {
		t.Error("a constant among others is not met")
	}
	l, err := s.New()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := l.(learner.Sharer).FitShared(context.Background(), x, []*mat.Dense{y, mat.NewDense(60, 2, nil)}, nil, rng.New(1, 0, "", "fit")); err == nil {
		t.Error("targets of other widths are accepted")
	}
}
