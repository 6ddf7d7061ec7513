package learner

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/cohort-learning/cohort/parallel"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

// boosting fits, for every output on its own, a sum of small trees one after another (Friedman, Greedy function
// approximation: a gradient boosting machine, 2001, with histograms instead of sorted values). For numbers
//
//	F ← mean of y;   repeat: tree ≈ y − F by weighted least squares;   F ← F + rate·tree
//
// For k classes (section 4.6 there, with Newton's gain instead of the variance's) every step fits one tree a class to the
// indicator minus p = softmax(F), with weights p(1−p), and adds rate·(k−1)/k times it; scores are F.
type boosting struct {
	shape
	trees           int
	rate, subsample float64
}

func newBoosted(s Spec) (Learner, error) {
	t, err := newShape(s, 3, 1, 255)
	if err != nil {
		return nil, err
	}
	l := boosting{t, cmp.Or(s.Trees, 100), or(s.Rate, 0.1), or(s.Subsample, 1)}
	switch {
	case l.trees < 1:
		return nil, fmt.Errorf("trees: %d, expected 1 or more", l.trees)
	case l.rate <= 0 || l.rate > 1:
		return nil, fmt.Errorf("rate: %g, expected more than 0, at most 1", l.rate)
	case l.subsample <= 0 || l.subsample > 1:
		return nil, fmt.Errorf("subsample: %g, expected more than 0, at most 1", l.subsample)
	}
	return l, nil
}

func (l boosting) Fit(ctx context.Context, x, y *mat.Dense, w []float64, r *rng.Stream) (Model, error) {
	_, d, k, w, err := checkFit(x, y, w)
	if err != nil {
		return nil, err
	}
	m := &ensemble{columns: d, base: columnMeans(y, w), scale: 1}
	if d == 0 {
		return m, nil
	}
	rows := heavy(w)
	b := bin(x, rows, l.bins)
	streams := make([]*rng.Stream, k)
	for c := range streams {
		if l.subsample < 1 || l.features < 1 {
			streams[c] = r.Fork("output " + strconv.Itoa(c))
		}
	}
	columns := make([][]tree, k)
	parallel.Do(k, 0, func(c int) {
		columns[c] = l.column(ctx, x, mat.Col(nil, c, y), w, m.base[c], b, rows, streams[c])
		for t := range columns[c] {
			columns[c][t].first = c
		}
	})
	m.trees = slices.Concat(columns...)
	return m, ctx.Err()
}

// column boosts one output.
func (l boosting) column(ctx context.Context, x *mat.Dense, y, w []float64, base float64, b *binned, rows []int, r *rng.Stream) []tree {
	g := l.grower(b, 1, r)
	g.width = 2 // weight and count are the same, unless there are weights
	for _, i := range rows {
		if w[i] != 1 {
			g.width = 3
		}
	}
	g.stats = make([]float64, b.n*g.width)
	residual := make([]float64, b.n)
	for i := range residual {
		residual[i] = y[i] - base
	}
	grown := make([]tree, 0, l.trees)
	for range l.trees {
		if ctx.Err() != nil {
			return nil
		}
		for _, i := range rows {
			s := g.stats[i*g.width:][:g.width]
			s[0], s[1], s[g.width-1] = w[i]*residual[i], w[i], 1
		}
		t := l.step(g, x, rows, r, l.rate, residual, -1)
		grown = append(grown, t)
	}
	return grown
}

// step grows a tree on a part of the rows, scales it, and adds sign times its values to f at all rows.
func (l boosting) step(g *growth, x *mat.Dense, rows []int, r *rng.Stream, rate float64, f []float64, sign float64) tree {
	in := make([]int32, len(rows))
	for at, i := range rows {
		in[at] = int32(i)
	}
	var out []int32
	if l.subsample < 1 {
		r.Shuffle(len(in), func(i, j int) { in[i], in[j] = in[j], in[i] })
		part := max(1, int(math.Round(l.subsample*float64(len(in)))))
		in, out = in[:part], in[part:]
		slices.Sort(in)
	}
	g.leaf = func(number int, rows []int32) {
		v := sign * rate * g.tree.values[number]
		for _, i := range rows {
			f[i] += v
		}
	}
	t := g.run(in)
	t.scale(rate)
	for _, i := range out {
		f[i] += sign * t.leaf(x.RawRowView(int(i)))[0]
	}
	return t
}

// damp keeps leaves finite whose rows are all certain of their class: in rows.
const damp = 1e-3

func (l boosting) FitClasses(ctx context.Context, x *mat.Dense, labels []int, k int, w []float64, r *rng.Stream) (Model, error) {
	d, w, err := checkLabels(x, labels, k, w)
	if err != nil {
		return nil, err
	}
	rows := heavy(w)
	w = slices.Clone(w)
	floats.Scale(float64(len(rows))/floats.Sum(w), w) // so that damp does not depend on their unit
	m := &ensemble{columns: d, base: logPrior(labels, k, w), scale: 1}
	if d == 0 {
		return m, nil
	}
	b := bin(x, rows, l.bins)
	n := len(labels)
	scores, streams := make([][]float64, k), make([]*rng.Stream, k)
	for c := range scores {
		scores[c] = slices.Repeat(m.base[c:c+1], n)
		if l.subsample < 1 || l.features < 1 {
			streams[c] = r.Fork("class " + strconv.Itoa(c))
		}
	}
	growths := make([]*growth, k)
	for c := range growths {
		growths[c] = l.grower(b, 1, streams[c])
		growths[c].width, growths[c].damp, growths[c].stats = 3, damp, make([]float64, n*3)
	}
	rate := l.rate * float64(k-1) / float64(k)
	p := make([]float64, k)
	m.trees = make([]tree, l.trees*k)
	for step := range l.trees {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		for _, i := range rows {
			for c := range p {
				p[c] = scores[c][i]
			}
			log := floats.LogSumExp(p)
			for c := range p {
				v := math.Exp(p[c] - log)
				s := growths[c].stats[i*3:][:3]
				s[0], s[1], s[2] = -w[i]*v, w[i]*v*(1-v), 1
				if labels[i] == c {
					s[0] += w[i]
				}
			}
		}
		parallel.Do(k, 0, func(c int) {
			t := l.step(growths[c], x, rows, streams[c], rate, scores[c], 1)
			t.first = c
			m.trees[step*k+c] = t
		})
	}
	return m, nil
}

// logPrior returns the logarithms of the weighted class frequencies; a class without rows counts as half a row.
func logPrior(labels []int, k int, w []float64) []float64 {
	prior := make([]float64, k)
	for i, l := range labels {
		prior[l] += w[i]
	}
	total := floats.Sum(prior)
	for c, v := range prior {
		if v == 0 {
			v = 0.5
		}
		prior[c] = math.Log(v / total)
	}
	return prior
}
