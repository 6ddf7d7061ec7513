package mismatch

import (
	"context"
	"errors"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/backend"
	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/nn"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/train"
	"gonum.org/v1/gonum/mat"
)

func engine(t *testing.T) *train.Engine {
	t.Helper()
	b, err := backend.New(backend.Default(), backend.Options{Threads: 1})
	if err != nil {
		t.Fatal(err)
	}
	e := train.NewEngine(b)
	t.Cleanup(e.Close)
	return e
}

func perceptron(t *testing.T, d, k int, hidden ...int) *nn.Model {
	t.Helper()
	name := "mlp"
	if len(hidden) == 0 {
		name = "linear"
	}
	build, err := nn.New(name, nn.Config{Input: []int{d}, Classes: k, Hidden: hidden})
	if err != nil {
		t.Fatal(err)
	}
	m, err := build(1)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func network(t *testing.T, e *train.Engine, m *nn.Model, data *dataset.Examples, classes bool, o Training, tag string) *Neural {
	t.Helper()
	n, err := NewNeural(e, m, data, classes, o, rng.New(1, 0, "", tag))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(n.Close)
	return n
}

// clouds are n points around one centre a class, of which a share came with another's class.
func clouds(n, d, k int, alpha float64) (x *mat.Dense, p Problem) {
	r := rng.New(30, 0, "", "clouds")
	x, p = mat.NewDense(n, d, nil), Problem{Count: k}
	centres := mat.NewDense(k, d, nil)
	centres.Apply(func(int, int, float64) float64 { return r.NormFloat64() }, centres)
	for i := range n {
		p.Classes = append(p.Classes, i%k)
		for c := range d {
			x.Set(i, c, centres.At(i%k, c)+r.NormFloat64())
		}
	}
	p.Own = Shuffle(n, alpha, r)
	return x, p
}

// found returns the share of rows whose likeliest class is right.
func found(soft *mat.Dense, p Problem) float64 {
	right := 0
	for i, c := range p.Classes {
		if slices.Index(soft.RawRowView(i), slices.Max(soft.RawRowView(i))) == c {
			right++
		}
	}
	return float64(right) / float64(len(p.Classes))
}

// TestCrossFittingIsNeeded: a network that sees its own wrong labels believes them.
func TestCrossFittingIsNeeded(t *testing.T) {
	x, p := clouds(300, 20, 3, .4)
	e, data := engine(t), Rows("clouds", x)
	o := Options{Warm: 1, Mixture: 2, Rounds: 4}
	alone := network(t, e, perceptron(t, 20, 3, 64), data, true, Training{Epochs: 60}, "alone")
	without, err := Fit(context.Background(), p, alone, o)
	if err != nil {
		t.Fatal(err)
	}
	folds, err := NewCrossFit(300, 3, rng.New(1, 0, "", "folds"), func(int) (Model, error) {
		return network(t, e, perceptron(t, 20, 3, 64), data, true, Training{Epochs: 10, Fresh: true}, "fold"), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	with, err := Fit(context.Background(), p, folds, o)
	if err != nil {
		t.Fatal(err)
	}
	if without.Alpha > .25 || with.Alpha < .3 || with.Alpha > .5 {
		t.Errorf("of a share of .4 of wrong links a network that learns by heart finds %.2f, a cross-fitted one %.2f", without.Alpha, with.Alpha)
	}
	if a, b := found(without.Soft, p), found(with.Soft, p); b < .9 || b < a+.1 {
		t.Errorf("the right class is found for %.2f of the rows without cross-fitting, %.2f with it", a, b)
	}
}

func TestClassesOfAnExactModel(t *testing.T) {
	x, p := clouds(300, 5, 3, .4)
	e, alpha := engine(t), .4
	for name, f := range map[string]func(m *Neural) error{
		"msl": func(m *Neural) error {
			r, err := Fit(context.Background(), p, m, Options{Warm: 3, Mixture: 5, Rounds: 10, Pair: true})
			if err != nil {
				return err
			}
			close(t, "α̂", r.Alpha, .4, .1)
			if got := found(r.Soft, p); got < .85 {
				t.Errorf("the right class is found for %.2f of the rows", got)
			}
			counts := make([]int, 3)
			for _, j := range r.Pair {
				counts[p.Classes[j]]++
			}
			if !slices.Equal(counts, []int{100, 100, 100}) {
				t.Errorf("the pairing deals out %v labels of the classes", counts)
			}
			for c := range 3 {
				close(t, "the mass of a class", mat.Sum(r.Soft.ColView(c)), 100, .2)
			}
			return nil
		},
		"forward correction": func(m *Neural) error {
			return ForwardCorrection(context.Background(), p, m, Rival{Alpha: &alpha, Rounds: 15})
		},
		"co-teaching": func(m *Neural) error {
			other := network(t, e, perceptron(t, 5, 3), Rows("clouds", x), true, Training{Epochs: 5, Rate: .02}, "peer")
			return CoTeaching(context.Background(), p, m, other, Rival{Alpha: &alpha, Rounds: 15})
		},
	} {
		m := network(t, e, perceptron(t, 5, 3), Rows("clouds", x), true, Training{Epochs: 5, Rate: .02}, "classes")
		if err := f(m); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		out := mat.NewDense(300, 3, nil)
		if err := m.Predict(context.Background(), nil, out); err != nil {
			t.Fatal(err)
		}
		if got := found(out, p); got < .85 {
			t.Errorf("%s: the model is right about %.2f of the rows", name, got)
		}
	}
}

// TestWeightsOfRows: weight 2 is a row twice, weight 0 is none, to a network as to least squares.
func TestWeightsOfRows(t *testing.T) {
	r := rng.New(31, 0, "", "rows")
	x, y, _ := LinearTable(60, 2, .1, r)
	w := make([]float64, 60)
	for i := range w {
		if i%2 == 0 {
			w[i] = 1
		} else {
			y.Set(i, 0, 100)
		}
	}
	m := network(t, engine(t), perceptron(t, 2, 1, 16), Rows("rows", x), false, Training{Epochs: 300, Batch: 20}, "weights")
	out := mat.NewDense(60, 1, nil)
	if err := m.Fit(context.Background(), nil, y, w); err != nil {
		t.Fatal(err)
	}
	if err := m.Predict(context.Background(), nil, out); err != nil {
		t.Fatal(err)
	}
	sum := 0.0
	for i := 0; i < 60; i += 2 {
		sum += math.Abs(out.At(i, 0)-y.At(i, 0)) / 30
	}
	if sum > .3 {
		t.Errorf("rows of weight 0 disturb: the others are off by %v", sum)
	}
	if err := m.Fit(context.Background(), nil, y, make([]float64, 60)); err == nil {
		t.Error("there was nothing to learn from, but no error")
	}
}

func TestNetworkOfNumbers(t *testing.T) {
	r := rng.New(32, 0, "", "friedman")
	x, y, clean := Friedman(300, 5, .5, r)
	p := Problem{Y: y, Own: Shuffle(300, .3, r)}
	data := Rows("friedman", x)
	off := func(f func(m *Neural) error) float64 {
		m := network(t, engine(t), perceptron(t, 5, 1, 32), data, false, Training{Epochs: 2, Batch: 50, Total: 160}, "net")
		if err := f(m); err != nil {
			t.Fatal(err)
		}
		out := mat.NewDense(300, 1, nil)
		if err := m.Predict(context.Background(), nil, out); err != nil {
			t.Fatal(err)
		}
		sum := 0.0
		for i, c := range clean {
			sum += (out.At(i, 0) - c) * (out.At(i, 0) - c) / 300
		}
		return math.Sqrt(sum)
	}
	naive := off(func(m *Neural) error { return Naive(context.Background(), p, m, Rival{Rounds: 80}) })
	msl := off(func(m *Neural) error {
		_, err := Fit(context.Background(), p, m, Options{Warm: 15, Mixture: 35, Rounds: 30})
		return err
	})
	if msl > .7*naive {
		t.Errorf("the error of MSL is %.2f, that of the naive fit %.2f", msl, naive)
	}
}

func TestLearned(t *testing.T) {
	x, p, beta := shuffled(33, 200, 3, .1, .4)
	l, err := learner.Spec{Name: "linear"}.New()
	if err != nil {
		t.Fatal(err)
	}
	folds, err := NewCrossFit(200, 2, rng.New(1, 0, "", "folds"), func(int) (Model, error) { return NewLearned(l, x, nil), nil })
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Fit(context.Background(), p, folds, Options{}); err != nil {
		t.Fatal(err)
	}
	for _, m := range folds.Models() {
		at, err := m.(*Learned).Learned().Predict(mat.NewDense(1, 3, []float64{1, 0, 0}))
		if err != nil {
			t.Fatal(err)
		}
		close(t, "the prediction of a learner", at.At(0, 0), beta[0], .06)
	}
	if err := folds.Fit(context.Background(), []int{1}, nil, nil); !errors.Is(err, errAllRows) {
		t.Errorf("fitting a part of a cross-fitted model: %v", err)
	}
	if _, err := NewCrossFit(3, 5, nil, nil); err == nil || !strings.Contains(err.Error(), "5 folds of 3 rows") {
		t.Errorf("more folds than rows: %v", err)
	}
}
