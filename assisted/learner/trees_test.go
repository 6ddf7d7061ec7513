package learner_test

import (
	"bytes"
	"context"
	"fmt"
	"math"
	"runtime"
	"slices"
	"testing"

	"github.com/cohort-learning/cohort/assisted/learner"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// weyl returns n rows of Friedman's first problem whose features and noise are those of a Weyl sequence from offset on,
// x_ij = i·√p_j mod 1 with p = 2, 3, 5, 7, 11 (and 13 for noise in [−1, 1)), so that other programs can make the same.
func weyl(n, offset int) (x, y *mat.Dense) {
	x, y = mat.NewDense(n, 5, nil), mat.NewDense(n, 1, nil)
	for r := range n {
		i := float64(r + 1 + offset)
		v := x.RawRowView(r)
		for j, p := range []float64{2, 3, 5, 7, 11} {
			v[j] = math.Mod(i*math.Sqrt(p), 1)
		}
		noise := math.Mod(i*math.Sqrt(13), 1)*2 - 1
		y.Set(r, 0, 10*math.Sin(math.Pi*v[0]*v[1])+20*(v[2]-.5)*(v[2]-.5)+10*v[3]+5*v[4]+noise)
	}
	return x, y
}

func rmse(a, b *mat.Dense) float64 {
	var d mat.Dense
	d.Sub(a, b)
	n, _ := d.Dims()
	return mat.Norm(&d, 2) / math.Sqrt(float64(n))
}

// Errors of scikit-learn 1.9.1 on the Weyl problem: DecisionTreeRegressor(max_depth=3), GradientBoostingRegressor(),
// HistGradientBoostingRegressor(max_iter=100, max_depth=3, max_leaf_nodes=None, min_samples_leaf=1) and
// RandomForestRegressor(100, min_samples_leaf=20). Up to 255 distinct values all fit the same trees, so that training errors
// agree to many digits; elsewhere ties, the place of histograms' cuts and bootstrap samples differ.
func TestTreesAgainstScikit(t *testing.T) {
	tx, ty := weyl(500, 5000)
	for _, c := range []struct {
		spec          learner.Spec
		n             int
		train, test   float64
		within, error float64
	}{
		{learner.Spec{Name: "tree"}, 250, 2.646115958, 3.260947067, 1e-8, .05},
		{learner.Spec{Name: "tree"}, 1000, 3.074196531, 3.143634573, 1e-8, 1e-8},
		{learner.Spec{Name: "tree", Depth: 64}, 250, 0, 2.881567982, 1e-12, .15},
		{learner.Spec{Name: "boosted"}, 250, 0.419587981, 1.609674015, 1e-7, .05},
		{learner.Spec{Name: "boosted"}, 250, 0.419587982, 1.581775544, 1e-7, .05},
		{learner.Spec{Name: "boosted"}, 1000, 0.701932615, 1.208059645, .02, .03},
		{learner.Spec{Name: "boosted", Bins: 1000}, 1000, 0.680067334, 1.215406066, 1e-7, .03},
		{learner.Spec{Name: "forest", Leaf: 20}, 250, 2.646304032, 2.985994662, .1, .1},
		{learner.Spec{Name: "forest", Leaf: 20}, 1000, 2.048953055, 2.185924223, .05, .05},
		{learner.Spec{Name: "forest", Leaf: 1}, 250, 0.740939182, 2.046833602, .1, .1},
	} {
		x, y := weyl(c.n, 0)
		m := fit(t, c.spec, x, y, nil)
		train, test := rmse(predict(t, m, x), y), rmse(predict(t, m, tx), ty)
		if math.Abs(train-c.train) > c.within || math.Abs(test-c.test) > c.error {
			t.Errorf("%+v, %d rows: training error %.9f, test error %.9f; want %.9f, %.9f", c.spec, c.n, train, test, c.train, c.test)
		}
	}
}

// A third of each column is missing in turn: HistGradientBoostingRegressor as above.
func TestMissingAgainstScikit(t *testing.T) {
	tx, ty := weyl(500, 5000)
	for _, c := range []struct {
		n                   int
		train, test, within float64
	}{{250, 0.827702735, 1.821113380, 1e-6}, {1000, 1.290165831, 1.358539336, .05}} {
		x, y := weyl(c.n, 0)
		for i := range c.n {
			if i%3 == 0 {
				x.Set(i, i%5, math.NaN())
			}
		}
		m := fit(t, learner.Spec{Name: "boosted"}, x, y, nil)
		train, test := rmse(predict(t, m, x), y), rmse(predict(t, m, tx), ty)
		if math.Abs(train-c.train) > c.within || math.Abs(test-c.test) > .06 {
			t.Errorf("%d rows: training error %.9f, test error %.9f; want %.9f, %.9f", c.n, train, test, c.train, c.test)
		}
	}
}

// Four classes of the Weyl problem: GradientBoostingClassifier(), RandomForestClassifier(100, min_samples_leaf=20),
// DecisionTreeClassifier(max_depth=3), LogisticRegression() on standardised features. Ours boosts with Newton's gain.
func TestClassesAgainstScikit(t *testing.T) {
	x, y := weyl(1000, 0)
	tx, ty := weyl(500, 5000)
	labels, want := levels(y), levels(ty)
	for _, c := range []struct {
		spec            learner.Spec
		accuracy, error float64
	}{
		{learner.Spec{Name: "boosted"}, .732, .02},
		{learner.Spec{Name: "forest", Leaf: 20}, .698, .02},
		{learner.Spec{Name: "tree"}, .54, .005},
		{learner.Spec{Name: "logistic"}, .652, 1e-12},
	} {
		scores := predict(t, classify(t, c.spec, x, labels, 4, nil), tx)
		right := 0.0
		for i, l := range want {
			best := 0
			for j, v := range scores.RawRowView(i) {
				if v > scores.At(i, best) {
					best = j
				}
			}
			if best == l {
				right++
			}
		}
		if got := right / float64(len(want)); math.Abs(got-c.accuracy) > c.error {
			t.Errorf("%s: accuracy %.4f, want %.4f", c.spec.Name, got, c.accuracy)
		}
		switch c.spec.Name { // the first row's probabilities
		case "tree":
			if p := mat.NewDense(1, 4, []float64{0, 0.03488372, 0.26744186, 0.69767442}); !mat.EqualApprox(scores.Slice(0, 1, 0, 4), p, 1e-7) {
				t.Errorf("tree: %v", scores.RawRowView(0))
			}
		case "logistic":
			var sum float64
			for _, v := range scores.RawRowView(0) {
				sum += math.Exp(v)
			}
			for j, p := range []float64{0.00542519, 0.18273697, 0.54716498, 0.26467286} {
				if got := math.Exp(scores.At(0, j)) / sum; math.Abs(got-p) > 1e-5 {
					t.Errorf("logistic: probability %d is %v, want %v", j, got, p)
				}
			}
		}
	}
}

// levels puts targets into four classes.
func levels(y *mat.Dense) []int {
	n, _ := y.Dims()
	labels := make([]int, n)
	for i := range labels {
		for _, bound := range []float64{10, 14, 18} {
			if y.At(i, 0) >= bound {
				labels[i]++
			}
		}
	}
	return labels
}

// A class that nobody has gets the lowest score, and its presence changes nothing that is not finite.
func TestEmptyClass(t *testing.T) {
	x, y := weyl(60, 0)
	labels := levels(y)
	for _, name := range []string{"tree", "forest", "boosted", "logistic"} {
		scores := predict(t, classify(t, specOf(name), x, labels, 5, nil), x)
		for i, l := range labels {
			if row := scores.RawRowView(i); row[4] > row[l] {
				t.Fatalf("%s: row %d: %v", name, i, row)
			}
		}
	}
}

func TestWeightedClasses(t *testing.T) {
	x, labels := mat.NewDense(80, 1, nil), make([]int, 80)
	for i := range labels {
		x.Set(i, 0, float64(i/2%2))
		labels[i] = i % 2
	}
	for _, name := range []string{"tree", "boosted", "logistic", "forest"} {
		s := specOf(name)
		for _, unit := range []float64{1, 1e-3} { // weights of any unit
			w := slices.Repeat([]float64{3 * unit, unit, unit, 4 * unit}, 20)
			scores := predict(t, classify(t, s, x, labels, 2, w), x)
			if scores.At(0, 0) <= scores.At(0, 1) && !(name == "logistic" && unit < 1) || scores.At(2, 1) <= scores.At(2, 0) {
				t.Errorf("%s, weights of %v: %v", name, unit, scores.RawMatrix().Data)
			}
		}
	}
}

func TestThreads(t *testing.T) {
	x, y1 := friedman(700, 4)
	y := mat.NewDense(700, 3, nil)
	for i := range 700 {
		y.SetRow(i, []float64{y1.At(i, 0), x.At(i, 0), x.At(i, 1) * x.At(i, 2)})
		x.Set(i, i%5, math.Round(x.At(i, i%5)*20)/20)
	}
	labels := levels(y1)
	for _, s := range []learner.Spec{
		{Name: "boosted", Trees: 20, Subsample: new(.7), Features: new(.5)},
		{Name: "boosted", Trees: 20, Depth: 6},
		{Name: "forest", Trees: 10, Features: new(.6)},
		{Name: "tree", Depth: 10},
	} {
		var numbers, classes []byte
		for _, threads := range []int{1, 2, 7} {
			before := runtime.GOMAXPROCS(threads)
			a := bits(fitted(t, s, x, y, nil))
			b := bits(predict(t, classify(t, s, x, labels, 4, nil), x))
			runtime.GOMAXPROCS(before)
			if numbers == nil {
				numbers, classes = a, b
			}
			if !bytes.Equal(a, numbers) || !bytes.Equal(b, classes) {
				t.Errorf("%+v: %d threads give other bits", s, threads)
			}
		}
	}
}

// Missing values go where they belong, and where nothing was missing they go with the majority.
func TestMissingDirection(t *testing.T) {
	nan := math.NaN()
	x := mat.NewDense(6, 1, []float64{1, 2, 3, 4, nan, nan})
	y := mat.NewDense(6, 1, []float64{0, 0, 8, 8, 8, 8})
	for _, depth := range []int{1, 3} {
		got := fitted(t, learner.Spec{Name: "tree", Depth: depth}, x, y, nil)
		if !mat.EqualApprox(got, y, 1e-12) {
			t.Errorf("depth %d: %v", depth, got.RawMatrix().Data)
		}
	}
	y = mat.NewDense(6, 1, []float64{0, 0, 0, 0, 8, 8}) // only whether a value is there tells
	m := fit(t, learner.Spec{Name: "tree", Depth: 1}, x, y, nil)
	if got := predict(t, m, mat.NewDense(3, 1, []float64{-1e300, 1e300, nan})); got.At(0, 0) != 0 || got.At(1, 0) != 0 || got.At(2, 0) != 8 {
		t.Errorf("known, known, missing: %v", got.RawMatrix().Data)
	}
	m = fit(t, learner.Spec{Name: "tree", Depth: 1}, mat.NewDense(3, 1, []float64{1, 2, 3}), mat.NewDense(3, 1, []float64{1, 1, 5}), nil)
	if got := predict(t, m, mat.NewDense(1, 1, []float64{nan})); got.At(0, 0) != 1 {
		t.Errorf("a value is missing only now: %v, want that of the majority", got.At(0, 0))
	}
}

// Out of the bag a forest is about as good as on new rows, and on its own rows much better.
func TestOutOfBag(t *testing.T) {
	x, y := weyl(400, 0)
	tx, ty := weyl(500, 5000)
	m := fit(t, learner.Spec{Name: "forest", Leaf: 1}, x, y, nil)
	oob := rmse(m.(learner.OutOfBag).FittedOutOfBag(), y)
	train, test := rmse(predict(t, m, x), y), rmse(predict(t, m, tx), ty)
	if math.Abs(oob-test) > .2 || train > test/2 {
		t.Errorf("errors: own rows %.3f, out of the bag %.3f, new rows %.3f", train, oob, test)
	}
	one := fit(t, learner.Spec{Name: "forest", Leaf: 1, Trees: 1}, x, y, nil)
	inside := predict(t, one, x)
	known := 0
	for i := range 400 {
		if one.(learner.OutOfBag).FittedOutOfBag().At(i, 0) == inside.At(i, 0) {
			known++
		}
	}
	if known != 400 { // out of the bag of a single tree is the tree itself, for rows in it and not in it
		t.Errorf("%d of 400 rows agree", known)
	}
}

func TestCalledOff(t *testing.T) {
	x, y := friedman(50, 1)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, name := range []string{"linear", "linear-sgd", "boosted", "forest"} {
		l, err := specOf(name).New()
		if err != nil {
			t.Fatal(err)
		}
		if _, err := l.Fit(ctx, x, y, nil, rng.New(1, 0, "", "fit")); err != context.Canceled {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func BenchmarkTrees(b *testing.B) {
	x, y := friedman(10000, 1)
	for _, s := range []learner.Spec{{Name: "tree"}, {Name: "boosted"}, {Name: "forest"}} {
		for _, n := range []int{1000, 10000} {
			b.Run(fmt.Sprintf("%s/%d", s.Name, n), func(b *testing.B) {
				px, py := mat.DenseCopyOf(x.Slice(0, n, 0, 5)), mat.DenseCopyOf(y.Slice(0, n, 0, 1))
				for b.Loop() {
					fit(b, s, px, py, nil)
				}
			})
		}
	}
}
