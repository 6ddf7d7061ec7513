package learner_test

import (
	"bytes"
	"context"
	"math"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// TestVotes checks for every learner that votes are 1 at one class and −1/(k−1) elsewhere, that they are its own where it fits classes, that
// weights count, and that they survive their binary form.
func TestVotes(t *testing.T) {
	const n, k = 60, 3
	x, y := friedman(n, 3)
	labels, w := make([]int, n), make([]float64, n)
	for i := range n {
		labels[i], w[i] = min(k-1, int(y.At(i, 0)/9)), 1
	}
	for _, name := range learner.Names() {
		l, err := specOf(name).New()
		if err != nil {
			t.Fatal(err)
		}
		m, err := learner.FitVotes(context.Background(), l, x, labels, k, w, rng.New(1, 0, "org", "fit"))
		if err != nil {
			t.Fatal(name, err)
		}
		out := predict(t, m, x)
		class := make([]int, n)
		for i := range n {
			ones := 0
			for c, v := range out.RawRowView(i) {
				if v == 1 {
					ones++
					class[i] = c
				} else if math.Abs(v+.5) > 1e-15 {
					t.Fatalf("%s: row %d votes %v", name, i, out.RawRowView(i))
				}
			}
			if ones != 1 {
				t.Fatalf("%s: row %d votes %v", name, i, out.RawRowView(i))
			}
		}
		if c, ok := l.(learner.Classifier); ok {
			own, err := c.FitClasses(context.Background(), x, labels, k, w, rng.New(1, 0, "org", "fit"))
			if err != nil {
				t.Fatal(name, err)
			}
			scores := predict(t, own, x)
			for i, c := range class {
				for _, v := range scores.RawRowView(i) {
					if v > scores.At(i, c) {
						t.Fatalf("%s: row %d is for class %d with scores %v", name, i, c, scores.RawRowView(i))
					}
				}
			}
		}
		b, err := m.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		again, err := learner.DecodeBy(l, b)
		if err != nil {
			t.Fatal(name, err)
		}
		if !bytes.Equal(bits(predict(t, again, x)), bits(out)) {
			t.Errorf("%s: it votes otherwise after it was written and read", name)
		}
		if _, err := learner.Decode(b[:len(b)-1]); err == nil {
			t.Errorf("%s: half a model was read", name)
		}
	}
	l, err := learner.Spec{Name: "constant"}.New()
	if err != nil {
		t.Fatal(err)
	}
	heavy := make([]float64, n)
	heavy[0] = 5
	m, err := learner.FitVotes(context.Background(), l, x, labels, k, heavy, nil)
	if err != nil {
		t.Fatal(err)
	}
	if got := predict(t, m, x); got.At(1, labels[0]) != 1 {
		t.Errorf("with all weight on class %d it votes %v", labels[0], mat.Formatted(got.Slice(1, 2, 0, k)))
	}
	if _, err := learner.FitVotes(context.Background(), l, x, labels, 2, w, nil); err == nil || !strings.Contains(err.Error(), "a class of 0 to 1") {
		t.Errorf("a class that there is not: %v", err)
	}
}
