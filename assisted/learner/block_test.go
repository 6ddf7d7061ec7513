package learner_test

import (
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/diff/fd"
	"gonum.org/v1/gonum/mat"
	"pgregory.net/rapid"
)

// normal is a matrix of normal numbers.
func normal(r *rng.Stream, rows, columns int) *mat.Dense {
	x := mat.NewDense(rows, columns, nil)
	x.Apply(func(_, _ int, _ float64) float64 { return r.NormFloat64() }, x)
	return x
}

// weightsOf is w of a block that takes columns as they are: what it makes of unit vectors.
func weightsOf(t *testing.T, b *learner.Block, columns int) *mat.Dense {
	t.Helper()
	ones := mat.NewDense(columns, columns, nil)
	for j := range columns {
		ones.Set(j, j, 1)
	}
	w, err := b.Predict(ones)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

// meanSquares is the mean over rows of the squared distance from y, and its slope.
func meanSquares(y *mat.Dense) (value func(*mat.Dense) float64, slope func(*mat.Dense) *mat.Dense) {
	n, _ := y.Dims()
	value = func(f *mat.Dense) float64 {
		var e mat.Dense
		e.Sub(f, y)
		norm := mat.Norm(&e, 2)
		return norm * norm / float64(n)
	}
	slope = func(f *mat.Dense) *mat.Dense {
		var e mat.Dense
		e.Sub(f, y)
		e.Scale(2/float64(n), &e)
		return &e
	}
	return value, slope
}

// TestTurnGradient compares a plain step with finite differences of the loss of the whole network, for one to three layers.
func TestTurnGradient(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		r := rng.New(rapid.Uint64().Draw(rt, "seed"), 0, "", "gradient")
		widths := rapid.SliceOfN(rapid.IntRange(1, 4), 2, 4).Draw(rt, "widths")
		n, d, units, own := 7, 3, widths[0], rapid.Bool().Draw(rt, "own")
		x, others, y := normal(r, n, d), normal(r, n, units), normal(r, n, widths[len(widths)-1])
		h := learner.NewHead(widths, r)
		for i := range h.Theta { // no unit is to stand on the edge where it has no derivative, as some do while biases are 0
			h.Theta[i] += .3 * r.NormFloat64()
		}
		b, err := learner.NewBlock(x, units, true, r)
		if err != nil {
			rt.Fatal(err)
		}
		value, slope := meanSquares(y)
		const rate = 1e-4
		next, err := b.Update(t.Context(), learner.Turn{X: x, Others: others, Widths: widths, Head: learner.NewLayers(h), Bias: own, Slope: slope, Steps: 1, Rate: rate, Plain: true})
		if err != nil {
			rt.Fatal(err)
		}
		w := weightsOf(t, b, d)
		at := append(append([]float64{}, w.RawMatrix().Data...), h.Theta...)
		want := fd.Gradient(nil, func(v []float64) float64 {
			z := new(mat.Dense)
			z.Mul(x, mat.NewDense(d, units, v[:d*units]))
			z.Add(z, others)
			return value(learner.Head{Widths: widths, Theta: v[d*units:]}.Values(z))
		}, at, &fd.Settings{Formula: fd.Central, Step: 1e-6})
		moved := append(append([]float64{}, weightsOf(t, next, d).RawMatrix().Data...), next.Head().Theta...)
		for i := range at {
			g := (at[i] - moved[i]) / rate
			if bias := i - d*units; !own && bias >= 0 && bias < units {
				if g != 0 {
					rt.Fatalf("the bias of an assistor moves by %g", g)
				}
				continue
			}
			if math.Abs(g-want[i]) > 1e-5*max(1, math.Abs(want[i])) {
				rt.Fatalf("derivative %d of layers %v is %g, finite differences say %g", i, widths, g, want[i])
			}
		}
	})
}

// TestTurnsGoOn checks that moments last from turn to turn: two turns of two steps are one of four, also from what was kept.
func TestTurnsGoOn(t *testing.T) {
	r := rng.New(2, 0, "", "turns")
	x, others, y := normal(r, 20, 2), normal(r, 20, 3), normal(r, 20, 1)
	x.Set(3, 1, math.NaN())
	_, slope := meanSquares(y)
	h := learner.NewHead([]int{3, 1}, r)
	begin, err := learner.NewBlock(x, 3, false, r)
	if err != nil {
		t.Fatal(err)
	}
	turn := func(b *learner.Block, head learner.Layers, steps int) *learner.Block {
		t.Helper()
		next, err := b.Update(t.Context(), learner.Turn{X: x, Others: others, Widths: h.Widths, Head: head, Slope: slope, Steps: steps, Rate: .05})
		if err != nil {
			t.Fatal(err)
		}
		return next
	}
	four := turn(begin, learner.NewLayers(h), 4)
	two := turn(begin, learner.NewLayers(h), 2)
	kept, err := two.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	read, err := learner.Decode(kept)
	if err != nil {
		t.Fatal(err)
	}
	again := turn(read.(*learner.Block), read.(*learner.Block).Head(), 2)
	a, _ := four.Predict(x)
	b, err := again.Predict(x)
	if err != nil || !mat.Equal(a, b) {
		t.Errorf("two turns of two steps come to\n%v, one of four to\n%v, %v", mat.Formatted(b), mat.Formatted(a), err)
	}
	if first, _ := begin.Predict(x); mat.Equal(first, a) {
		t.Error("a turn changed the block that it began with, or nothing")
	}
}

// TestTurnErrors checks what cannot be done, and that it is said.
func TestTurnErrors(t *testing.T) {
	r := rng.New(3, 0, "", "errors")
	x, others, y := normal(r, 8, 2), normal(r, 8, 3), normal(r, 8, 1)
	_, slope := meanSquares(y)
	b, err := learner.NewBlock(x, 3, false, r)
	if err != nil {
		t.Fatal(err)
	}
	good := learner.Turn{X: x, Others: others, Widths: []int{3, 1}, Head: learner.NewLayers(learner.NewHead([]int{3, 1}, r)), Slope: slope, Steps: 5, Rate: .01}
	for want, change := range map[string]func(*learner.Turn){
		"give it a smaller rate":          func(t *learner.Turn) { t.Rate, t.Plain, t.Steps = 1e30, true, 50 },
		"activations of others are 8×2":   func(t *learner.Turn) { t.Others = normal(r, 8, 2) },
		"part of the first layer are 2×3": func(t *learner.Turn) { t.X = normal(r, 8, 4) },
	} {
		turn := good
		next, err := b.Update(t.Context(), turn)
		if err != nil {
			t.Fatal(err)
		}
		change(&turn)
		if _, err := next.Update(t.Context(), turn); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
	x.Set(0, 0, math.Inf(1))
	var value *learner.ValueError
	if _, err := learner.NewBlock(x, 3, false, nil); !errors.As(err, &value) {
		t.Errorf("an infinite feature: %v", err)
	}
	for want, change := range map[string]func(*learner.Layers){
		"moments of parameter 2 are 1 and -1": func(l *learner.Layers) { l.First[2], l.Second[2] = 1, -1 },
		"3 and 7 moments of 7 numbers":        func(l *learner.Layers) { l.First = l.First[:3] },
		"parameter 1 is +Inf":                 func(l *learner.Layers) { l.Theta[1] = math.Inf(1) },
	} {
		l := learner.NewLayers(learner.NewHead([]int{3, 1}, r))
		change(&l)
		if err := l.Check([]int{3, 1}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("want an error with %q, got %v", want, err)
		}
	}
	for _, h := range []learner.Head{{Widths: []int{3}}, {Widths: []int{3, 0}}, {Widths: []int{2, 1}, Theta: make([]float64, 4)}, {Widths: []int{1, 1}, Theta: []float64{0, math.NaN(), 0}}} {
		if h.Check() == nil {
			t.Errorf("%v passes for a head", h)
		}
	}
}
