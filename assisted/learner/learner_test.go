package learner_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
	"pgregory.net/rapid"
)

// fast are options under which every learner is quick on small data; learners that are not named need none.
var fast = map[string]learner.Spec{
	"boosted": {Trees: 10},
	"forest":  {Trees: 10},
	"choose":  {Among: []string{"linear", "tree"}},
	"mlp":     {Epochs: 3},
	"cnn":     {Epochs: 2, Shape: []int{1, 5, 1}, Hidden: []int{3}},
	"lstm":    {Epochs: 2, Shape: []int{5, 1}, Hidden: []int{3}},
}

func specOf(name string) learner.Spec {
	s := fast[name]
	s.Name = name
	return s
}

type fataler interface {
	Helper()
	Fatal(...any)
}

func fit(t fataler, s learner.Spec, x, y *mat.Dense, w []float64) learner.Model {
	t.Helper()
	l, err := s.New()
	if err != nil {
		t.Fatal(err)
	}
	m, err := l.Fit(context.Background(), x, y, w, rng.New(1, 0, "org", "fit"))
	if err != nil {
		t.Fatal(s.Name, err)
	}
	return m
}

func predict(t fataler, m learner.Model, x *mat.Dense) *mat.Dense {
	t.Helper()
	out, err := m.Predict(x)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func fitted(t fataler, s learner.Spec, x, y *mat.Dense, w []float64) *mat.Dense {
	t.Helper()
	return predict(t, fit(t, s, x, y, w), x)
}

// friedman draws n rows of Friedman's first problem (1991): y = 10 sin(πx₁x₂) + 20(x₃−½)² + 10x₄ + 5x₅ + N(0,1).
func friedman(n int, seed uint64) (x, y *mat.Dense) {
	r := rng.New(seed, 0, "", "friedman1")
	x, y = mat.NewDense(n, 5, nil), mat.NewDense(n, 1, nil)
	for i := range n {
		v := x.RawRowView(i)
		for j := range v {
			v[j] = r.Float64()
		}
		y.Set(i, 0, 10*math.Sin(math.Pi*v[0]*v[1])+20*(v[2]-.5)*(v[2]-.5)+10*v[3]+5*v[4]+r.NormFloat64())
	}
	return x, y
}

func Example() {
	x := mat.NewDense(4, 1, []float64{1, 2, 3, 4})
	residuals := mat.NewDense(4, 1, []float64{3, 5, 7, 9})
	l, err := learner.Spec{Name: "linear"}.New()
	if err != nil {
		panic(err)
	}
	model, err := l.Fit(context.Background(), x, residuals, nil, rng.New(1, 0, "hospital", "fit"))
	if err != nil {
		panic(err)
	}
	b, err := model.MarshalBinary()
	if err != nil {
		panic(err)
	}
	kept, err := learner.Decode(b)
	if err != nil {
		panic(err)
	}
	out, err := kept.Predict(mat.NewDense(1, 1, []float64{10}))
	if err != nil {
		panic(err)
	}
	fmt.Printf("%.3f\n", out.At(0, 0))
	// Output: 21.000
}

// regressors are the learners that fit numbers.
func regressors() (names []string) {
	for _, n := range learner.Names() {
		if n != "logistic" {
			names = append(names, n)
		}
	}
	return names
}

// What every learner promises: shapes, finite predictions, the same bits from the same stream, missing values taken, a
// binary form that predicts the same, inputs untouched.
func TestEveryLearner(t *testing.T) {
	x, y1 := friedman(60, 3)
	y := mat.NewDense(60, 2, nil)
	for i := range 60 {
		y.SetRow(i, []float64{y1.At(i, 0), -y1.At(i, 0) / 3})
		if i%7 == 0 {
			x.Set(i, i%5, math.NaN())
		}
	}
	w := make([]float64, 60)
	for i := range w {
		w[i] = float64(i % 3)
	}
	for _, name := range regressors() {
		t.Run(name, func(t *testing.T) {
			beforeX, beforeY := mat.DenseCopyOf(x), mat.DenseCopyOf(y)
			m := fit(t, specOf(name), x, y, w)
			out := predict(t, m, x)
			if r, c := out.Dims(); r != 60 || c != 2 {
				t.Fatalf("%d×%d predictions", r, c)
			}
			if !bytes.Equal(bits(beforeX), bits(x)) || !bytes.Equal(bits(beforeY), bits(y)) {
				t.Error("the inputs were changed")
			}
			again := fitted(t, specOf(name), x, y, w)
			if !bytes.Equal(bits(out), bits(again)) {
				t.Error("two fits with the same stream differ")
			}
			b, err := m.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			back, err := learner.Decode(b)
			if err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(bits(out), bits(predict(t, back, x))) {
				t.Error("the decoded model predicts something else")
			}
			if b2, err := back.MarshalBinary(); err != nil || !bytes.Equal(b, b2) {
				t.Errorf("the binary form changes on the way (%v)", err)
			}
			for i := 0; i < len(b); i += 1 + len(b)/500 {
				if _, err := learner.Decode(b[:i]); err == nil {
					t.Fatalf("the first %d of %d bytes are a model", i, len(b))
				}
			}
		})
	}
}

func bits(m *mat.Dense) []byte {
	b, err := m.MarshalBinary()
	if err != nil {
		panic(err)
	}
	return b
}

func TestRefusals(t *testing.T) {
	x, y := friedman(6, 1)
	with := func(m *mat.Dense, i, j int, v float64) *mat.Dense {
		c := mat.DenseCopyOf(m)
		c.Set(i, j, v)
		return c
	}
	inf := math.Inf(1)
	for _, name := range regressors() {
		l, err := specOf(name).New()
		if err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			x, y *mat.Dense
			w    []float64
			want string
		}{
			{with(x, 2, 3, inf), y, nil, "features: row 2, column 3"},
			{x, with(y, 4, 0, math.NaN()), nil, "targets: row 4, column 0"},
			{x, with(y, 1, 0, -inf), nil, "targets: row 1, column 0"},
			{mat.DenseCopyOf(x.Slice(0, 5, 0, 5)), y, nil, "features are 5×5, expected 6 rows"},
			{x, y, []float64{1, 2}, "weights are 2×1, expected 6 rows"},
			{x, y, []float64{1, 2, -1, 1, 1, 1}, "weights: row 2, column 0"},
			{x, y, make([]float64, 6), "no rows to fit"},
			{x, new(mat.Dense), nil, "no rows to fit"},
		} {
			_, err := l.Fit(context.Background(), c.x, c.y, c.w, rng.New(1, 0, "", "fit"))
			if err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("%s: %v, want …%s…", name, err, c.want)
			}
		}
		if name == "constant" {
			continue
		}
		m := fit(t, specOf(name), x, y, nil)
		var shape *learner.ShapeError
		if _, err := m.Predict(mat.NewDense(2, 4, nil)); !errors.As(err, &shape) {
			t.Errorf("%s: four columns for five: %v", name, err)
		}
		var value *learner.ValueError
		if _, err := m.Predict(with(x, 5, 0, inf)); !errors.As(err, &value) || value.Row != 5 || value.Column != 0 {
			t.Errorf("%s: infinite feature: %v", name, err)
		}
	}
}

func TestSpecRefusals(t *testing.T) {
	for _, c := range []struct {
		spec learner.Spec
		want string
	}{
		{learner.Spec{Name: "magic"}, `unknown learner "magic": expected one of `},
		{learner.Spec{Name: "linear", Lambda: new(1.0)}, "learner linear: it has no option lambda, which is for ridge, logistic"},
		{learner.Spec{Name: "ridge", Lambda: new(-1.0)}, "learner ridge: lambda: -1, expected 0 or more"},
		{learner.Spec{Name: "logistic", Lambda: new(0.0)}, "learner logistic: lambda: 0, expected more than 0"},
		{learner.Spec{Name: "linear-sgd", Power: new(0.5)}, "learner linear-sgd: power: 0.5, expected 1 or more"},
		{learner.Spec{Name: "linear-sgd", Momentum: new(1.0)}, "learner linear-sgd: momentum: 1, expected 0 or more, below 1"},
		{learner.Spec{Name: "linear-sgd", Rate: new(0.0)}, "learner linear-sgd: rate: 0, expected more than 0"},
		{learner.Spec{Name: "linear-sgd", Decay: new(-1.0)}, "learner linear-sgd: decay: -1, expected 0 or more"},
		{learner.Spec{Name: "linear-sgd", Batch: -2}, "learner linear-sgd: batch: -2, expected 1 or more"},
		{learner.Spec{Name: "linear-sgd", Epochs: -1}, "learner linear-sgd: epochs: -1, expected 1 or more"},
		{learner.Spec{Name: "tree", Depth: 65}, "learner tree: depth: 65, expected 1 to 64"},
		{learner.Spec{Name: "tree", Trees: 5}, "learner tree: it has no option trees, which is for boosted, forest"},
		{learner.Spec{Name: "forest", Leaf: -1}, "learner forest: leaf: -1, expected 1 or more"},
		{learner.Spec{Name: "forest", Bins: 1}, "learner forest: bins: 1, expected 2 to 65534"},
		{learner.Spec{Name: "forest", Trees: -1}, "learner forest: trees: -1, expected 1 or more"},
		{learner.Spec{Name: "forest", Features: new(1.5)}, "learner forest: features: 1.5, expected more than 0, at most 1"},
		{learner.Spec{Name: "boosted", Subsample: new(0.0)}, "learner boosted: subsample: 0, expected more than 0, at most 1"},
		{learner.Spec{Name: "boosted", Rate: new(2.0)}, "learner boosted: rate: 2, expected more than 0, at most 1"},
		{learner.Spec{Name: "boosted", Trees: -1}, "learner boosted: trees: -1, expected 1 or more"},
		{learner.Spec{Name: "svr", C: new(0.0)}, "learner svr: c: 0, expected more than 0"},
		{learner.Spec{Name: "svr", Epsilon: new(-1.0)}, "learner svr: epsilon: -1, expected 0 or more"},
		{learner.Spec{Name: "svr", Gamma: new(0.0)}, "learner svr: gamma: 0, expected more than 0"},
		{learner.Spec{Name: "knn", Neighbours: -1}, "learner knn: neighbours: -1, expected 1 or more"},
		{learner.Spec{Name: "choose", Among: []string{"linear"}}, "learner choose: among: [linear], expected the names of two"},
		{learner.Spec{Name: "choose", Among: []string{"linear", "choose"}}, "learner choose: among: choose cannot choose itself"},
		{learner.Spec{Name: "choose", Among: []string{"linear", "logistic"}}, "learner choose: among: logistic fits classes"},
		{learner.Spec{Name: "choose", Among: []string{"linear", "cnn"}}, "learner choose: among: learner cnn: shape"},
		{learner.Spec{Name: "cnn"}, "learner cnn: shape: [], expected [height, width, channels]"},
		{learner.Spec{Name: "cnn", Shape: []int{4, 9, 1}}, "learner cnn: hidden: 4 convolutions halve an image of 4×9 to nothing"},
		{learner.Spec{Name: "cnn", Shape: []int{4, 0, 1}}, "learner cnn: shape: [4 0 1], expected numbers above 0"},
		{learner.Spec{Name: "cnn", Shape: []int{4, 4, 1}, Hidden: []int{}}, "learner cnn: hidden: an empty list"},
		{learner.Spec{Name: "lstm", Shape: []int{4, 4}, Hidden: []int{2, 2}}, "learner lstm: hidden: [2 2], expected one number"},
		{learner.Spec{Name: "mlp", Hidden: []int{2, -1}}, "learner mlp: hidden: [2 -1], expected numbers above 0"},
		{learner.Spec{Name: "mlp", Momentum: new(0.9)}, "learner mlp: it has no option momentum, which is for linear-sgd, cnn"},
		{learner.Spec{Name: "ridge", Lambda: new(math.NaN())}, "learner ridge: lambda: NaN, expected a finite number"},
	} {
		if _, err := c.spec.New(); err == nil || !strings.HasPrefix(err.Error(), c.want) {
			t.Errorf("%+v: %v, want %s", c.spec, err, c.want)
		}
	}
}

// The order of rows is nothing that these learners see.
func TestPermutedRows(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, y := drawn(t)
		n, d := x.Dims()
		_, k := y.Dims()
		order := rng.New(rapid.Uint64().Draw(t, "seed"), 0, "", "order").Perm(n)
		px, py := mat.NewDense(n, d, nil), mat.NewDense(n, k, nil)
		for i, j := range order {
			px.SetRow(i, x.RawRowView(j))
			py.SetRow(i, y.RawRowView(j))
		}
		for _, name := range []string{"linear", "ridge", "knn"} {
			a, b := predict(t, fit(t, specOf(name), x, y, nil), x), predict(t, fit(t, specOf(name), px, py, nil), x)
			if !mat.EqualApprox(a, b, 1e-9) {
				t.Fatalf("%s: %v became %v", name, a.RawMatrix().Data, b.RawMatrix().Data)
			}
		}
	})
}

// A row of weight 2 is the row twice; one of weight 0 is not there.
func TestWeightsAreCounts(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		x, y := drawn(t)
		n, d := x.Dims()
		_, k := y.Dims()
		w := make([]float64, n)
		var rows, targets []float64
		for i := range n {
			count := rapid.IntRange(0, 3).Draw(t, "weight")
			if i == 0 {
				count = 2
			}
			w[i] = float64(count)
			for range count {
				rows = append(rows, x.RawRowView(i)...)
				targets = append(targets, y.RawRowView(i)...)
			}
		}
		m := len(rows) / d
		for _, name := range []string{"linear", "ridge", "tree"} {
			a := predict(t, fit(t, specOf(name), x, y, w), x)
			b := predict(t, fit(t, specOf(name), mat.NewDense(m, d, rows), mat.NewDense(m, k, targets), nil), x)
			if !mat.EqualApprox(a, b, 1e-8) {
				t.Fatalf("%s: weighted %v, repeated %v", name, a.RawMatrix().Data, b.RawMatrix().Data)
			}
		}
	})
}

// Whatever finite numbers and missing values the features are, predictions are finite, or an error says where they are not.
func TestExtremeFeatures(t *testing.T) {
	values := []float64{math.NaN(), 0, 1, -1, 1e-300, 1e300, -1e300, math.MaxFloat64, math.SmallestNonzeroFloat64, 3}
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(1, 12).Draw(t, "n")
		x, y := mat.NewDense(n, 5, nil), mat.NewDense(n, 1, nil)
		for i := range n {
			for j := range 5 {
				x.Set(i, j, rapid.SampledFrom(values).Draw(t, "x"))
			}
			y.Set(i, 0, rapid.Float64Range(-5, 5).Draw(t, "y"))
		}
		name := rapid.SampledFrom(regressors()).Draw(t, "learner")
		out, err := fit(t, specOf(name), x, y, nil).Predict(x)
		var value *learner.ValueError
		if errors.As(err, &value) && value.Matrix == "predictions" {
			return
		}
		if err != nil {
			t.Fatal(name, err)
		}
		for i := range n {
			if v := out.At(i, 0); math.IsNaN(v) || math.Abs(v) > 1e6 {
				t.Fatalf("%s predicts %v for targets up to 5", name, v)
			}
		}
	})
}

// drawn draws a small problem whose features lie on a grid, so that ties and constant columns occur.
func drawn(t *rapid.T) (x, y *mat.Dense) {
	n, d, k := rapid.IntRange(1, 20).Draw(t, "n"), rapid.IntRange(1, 4).Draw(t, "d"), rapid.IntRange(1, 3).Draw(t, "k")
	x, y = mat.NewDense(n, d, nil), mat.NewDense(n, k, nil)
	for i := range n {
		for j := range d {
			x.Set(i, j, float64(rapid.IntRange(-4, 4).Draw(t, "x"))/2)
		}
		for j := range k {
			y.Set(i, j, rapid.Float64Range(-5, 5).Draw(t, "y"))
		}
	}
	return x, y
}

// Whatever the bytes, decoding ends with a model that predicts or an error.
func FuzzDecode(f *testing.F) {
	x, y := friedman(12, 2)
	for _, name := range regressors() {
		b, err := fit(f, specOf(name), x, y, nil).MarshalBinary()
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
		for _, i := range []int{5, len(b) / 3, len(b) - 1} {
			c := bytes.Clone(b)
			c[i] ^= 0xff
			f.Add(c)
		}
	}
	tree, err := specOf("tree").New()
	if err != nil {
		f.Fatal(err)
	}
	m, err := learner.FitVotes(context.Background(), tree, x, make([]int, 12), 2, nil, nil)
	if err != nil {
		f.Fatal(err)
	}
	b, err := m.MarshalBinary()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	block, err := learner.NewBlock(x, 3, false, nil)
	if err != nil {
		f.Fatal(err)
	}
	if b, err = block.MarshalBinary(); err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := learner.Decode(b)
		if err != nil {
			return
		}
		if out, err := m.Predict(x); err == nil {
			if n, _ := out.Dims(); n != 12 {
				t.Errorf("%d predictions for 12 rows", n)
			}
		}
		c, err := m.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := learner.Decode(c); err != nil {
			t.Errorf("what a decoded model writes is not a model: %v", err)
		}
	})
}
