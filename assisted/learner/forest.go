package learner

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"strconv"

	"github.com/cohort-learning/cohort/parallel"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// OutOfBag is a model that also knows what it would predict for the rows that it was fitted to if it had not seen them.
type OutOfBag interface {
	// FittedOutOfBag returns n×k values, a row's being the mean over the trees whose bootstrap sample lacks it; a row that
	// all samples have, as may happen with very few trees, gets the prediction of the whole forest. Whoever subtracts these
	// from targets but predicts with the forest lets residuals drift: they are for measuring, for weights and for stopping.
	FittedOutOfBag() *mat.Dense
}

// shape bounds the trees of a learner.
type shape struct {
	depth, leaf, bins int
	features          float64 // part of the columns that is drawn at every split
}

// anyDepth is how deep trees without a bound may grow.
const anyDepth = 64

func newShape(s Spec, depth, leaf, bins int) (shape, error) {
	t := shape{cmp.Or(s.Depth, depth), cmp.Or(s.Leaf, leaf), cmp.Or(s.Bins, bins), or(s.Features, 1)}
	switch {
	case t.depth < 1 || t.depth > anyDepth:
		return t, fmt.Errorf("depth: %d, expected 1 to %d", t.depth, anyDepth)
	case t.leaf < 1:
		return t, fmt.Errorf("leaf: %d, expected 1 or more", t.leaf)
	case t.bins < 2 || t.bins > mostBins:
		return t, fmt.Errorf("bins: %d, expected 2 to %d", t.bins, mostBins)
	case t.features <= 0 || t.features > 1:
		return t, fmt.Errorf("features: %g, expected more than 0, at most 1", t.features)
	}
	return t, nil
}

// mostBins are as many as a binned value can tell apart, beside the one for missing values.
const mostBins = math.MaxUint16 - 1

// grower returns what grows trees with k outputs of this shape on b.
func (t shape) grower(b *binned, k int, r *rng.Stream) *growth {
	draw := max(1, int(math.Ceil(t.features*float64(len(b.cuts))-1e-9)))
	return &growth{b: b, k: k, depth: t.depth, least: t.leaf, features: draw, random: r}
}

// bagging fits the mean of trees on bootstrap samples of the rows (Breiman, Random forests, 2001), all outputs by the same
// trees, which reduce the weighted squared error summed over outputs. With trees = 1 and no bootstrap it is one CART.
//
// For classes the targets are the indicators of the classes: the squared error of a node is then its Gini impurity, and
// the scores are probabilities.
type bagging struct {
	shape
	trees int
	whole bool // no bootstrap: a single tree
	few   bool // leaf was not given: a 20th of the rows, at most 20
	all   bool // features were not given: all for numbers, ⌊√d⌋ for classes
}

func newTree(s Spec) (Learner, error) {
	t, err := newShape(s, 3, 1, mostBins)
	return bagging{shape: t, trees: 1, whole: true}, err
}

func newForest(s Spec) (Learner, error) {
	t, err := newShape(s, anyDepth, 20, 255)
	l := bagging{shape: t, trees: cmp.Or(s.Trees, 100), few: s.Leaf == 0, all: s.Features == nil}
	if err == nil && l.trees < 1 {
		err = fmt.Errorf("trees: %d, expected 1 or more", l.trees)
	}
	return l, err
}

func (l bagging) Fit(ctx context.Context, x, y *mat.Dense, w []float64, r *rng.Stream) (Model, error) {
	_, d, _, w, err := checkFit(x, y, w)
	if err != nil {
		return nil, err
	}
	return l.fit(ctx, x, d, y, w, r)
}

func (l bagging) FitClasses(ctx context.Context, x *mat.Dense, labels []int, k int, w []float64, r *rng.Stream) (Model, error) {
	d, w, err := checkLabels(x, labels, k, w)
	if err != nil {
		return nil, err
	}
	if !l.whole && l.all && d > 0 {
		l.features = math.Floor(math.Sqrt(float64(d))) / float64(d)
	}
	return l.fit(ctx, x, d, indicators(labels, k), w, r)
}

// indicators returns the n×k matrix of 1 at a row's label and 0 elsewhere.
func indicators(labels []int, k int) *mat.Dense {
	y := mat.NewDense(len(labels), k, nil)
	for i, l := range labels {
		y.Set(i, l, 1)
	}
	return y
}

func (l bagging) fit(ctx context.Context, x *mat.Dense, d int, y *mat.Dense, w []float64, r *rng.Stream) (Model, error) {
	n, k := y.Dims()
	m := &ensemble{columns: d, base: columnMeans(y, w), scale: 1 / float64(l.trees)}
	if d == 0 {
		return m, nil
	}
	rows := heavy(w)
	if l.few {
		l.leaf = max(1, min(l.leaf, len(rows)/20))
	}
	b := bin(x, rows, l.bins)
	m.trees = make([]tree, l.trees)
	bags := make([][]uint16, l.trees)
	streams := make([]*rng.Stream, l.trees)
	for t := range streams {
		if !l.whole || l.features < 1 {
			streams[t] = r.Fork("tree " + strconv.Itoa(t))
		}
	}
	parallel.Do(l.trees, 0, func(t int) {
		if ctx.Err() != nil {
			return
		}
		if !l.whole {
			bags[t] = bootstrap(rows, n, streams[t])
		}
		m.trees[t] = l.grow(b, y, w, m.base, rows, bags[t], streams[t])
	})
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if l.whole {
		return m, nil
	}
	oob := mat.NewDense(n, k, nil)
	parallel.Do(n, 0, func(i int) {
		lacks := func(t int) bool { return bags[t][i] == 0 }
		for t := range bags {
			if lacks(t) {
				m.row(oob.RawRowView(i), x.RawRowView(i), lacks)
				return
			}
		}
		m.row(oob.RawRowView(i), x.RawRowView(i), nil)
	})
	return &forest{m, oob}, nil
}

// bootstrap returns how often every one of n rows was drawn: as many draws as there are rows to draw from.
func bootstrap(rows []int, n int, r *rng.Stream) []uint16 {
	bag := make([]uint16, n)
	for range rows {
		bag[rows[r.IntN(len(rows))]]++
	}
	return bag
}

// grow grows the tree of one bag; nil is every row once.
func (l bagging) grow(b *binned, y *mat.Dense, w, base []float64, rows []int, bag []uint16, r *rng.Stream) tree {
	k := len(base)
	g := l.grower(b, k, r)
	g.width = k + 2
	g.stats = make([]float64, b.n*g.width)
	in := make([]int32, 0, len(rows))
	for _, i := range rows {
		weight := w[i]
		if bag != nil {
			weight *= float64(bag[i])
		}
		if weight == 0 {
			continue
		}
		in = append(in, int32(i))
		s := g.stats[i*g.width:][:g.width]
		for c, v := range y.RawRowView(i) {
			s[c] = weight * (v - base[c])
		}
		s[k], s[k+1] = weight, 1
	}
	return g.run(in)
}

// forest is an ensemble that remembers what the rows it was fitted to look like from outside. That is not part of its
// binary form.
type forest struct {
	*ensemble
	oob *mat.Dense
}

// FittedOutOfBag implements [OutOfBag].
func (m *forest) FittedOutOfBag() *mat.Dense { return m.oob }
