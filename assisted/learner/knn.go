package learner

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/parallel"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/floats"
	"gonum.org/v1/gonum/mat"
)

// neighbours predicts the weighted mean of the k nearest rows by Euclidean distance on standardised features (Fix and Hodges
// 1951), each weighing w_i, or w_i/distance. Rows that are equally far as the last one share its place, so that the order
// of rows does not matter.
type neighbours struct {
	k         int
	distances bool
}

func newKNN(s Spec) (Learner, error) {
	l := neighbours{cmp.Or(s.Neighbours, 5), s.Distances}
	if l.k < 1 {
		return nil, fmt.Errorf("neighbours: %d, expected 1 or more", l.k)
	}
	return l, nil
}

func (l neighbours) Fit(_ context.Context, x, y *mat.Dense, w []float64, _ *rng.Stream) (Model, error) {
	_, d, _, w, err := checkFit(x, y, w)
	if err != nil {
		return nil, err
	}
	if d == 0 {
		return &Linear{Bias: columnMeans(y, w)}, nil
	}
	return l.keep(x, y, w), nil
}

// FitClasses keeps the indicators of the classes: scores are the neighbours' shares.
func (l neighbours) FitClasses(_ context.Context, x *mat.Dense, labels []int, k int, w []float64, _ *rng.Stream) (Model, error) {
	d, w, err := checkLabels(x, labels, k, w)
	if err != nil {
		return nil, err
	}
	y := indicators(labels, k)
	if d == 0 {
		return &Linear{Bias: columnMeans(y, w)}, nil
	}
	return l.keep(x, y, w), nil
}

func (l neighbours) keep(x, y *mat.Dense, w []float64) Model {
	rows := heavy(w)
	_, d := x.Dims()
	_, k := y.Dims()
	m := &nearest{k: l.k, distances: l.distances, scaling: standardise(x, w, true), z: mat.NewDense(len(rows), d, nil), y: mat.NewDense(len(rows), k, nil), w: make([]float64, len(rows))}
	for at, i := range rows {
		m.row(m.z.RawRowView(at), x.RawRowView(i))
		m.y.SetRow(at, y.RawRowView(i))
		m.w[at] = w[i]
	}
	return m
}

// nearest is the rows themselves.
type nearest struct {
	k         int
	distances bool
	scaling
	z, y *mat.Dense
	w    []float64
}

// Predict implements [Model].
func (m *nearest) Predict(x *mat.Dense) (*mat.Dense, error) {
	if err := checkPredict(x, len(m.fill)); err != nil {
		return nil, err
	}
	n, _ := x.Dims()
	if n == 0 {
		return new(mat.Dense), nil
	}
	_, k := m.y.Dims()
	out, z := mat.NewDense(n, k, nil), m.apply(x)
	parallel.Do(n, 0, func(i int) { m.mean(out.RawRowView(i), z.RawRowView(i)) })
	return finite(out)
}

// mean writes the mean of the rows nearest to z.
func (m *nearest) mean(out, z []float64) {
	distance := make([]float64, len(m.w))
	near := make([]float64, 0, min(m.k, len(m.w))+1) // the least squared distances, sorted
	for i := range distance {
		d := squaredDistance(z, m.z.RawRowView(i))
		distance[i] = d
		if len(near) < m.k || d < near[len(near)-1] {
			at, _ := slices.BinarySearch(near, d)
			near = slices.Insert(near, at, d)
			near = near[:min(len(near), m.k)]
		}
	}
	last := near[len(near)-1]
	below, above := last*(1-1e-9), last*(1+1e-9)+1e-18
	inside, tied := 0, 0
	for _, d := range distance {
		if d < below {
			inside++
		} else if d <= above {
			tied++
		}
	}
	share := math.Min(1, float64(len(near)-inside)/float64(tied))
	exact := m.distances && near[0] <= 1e-18 // rows at no distance outweigh all others
	var total float64
	for i, d := range distance {
		if d > above {
			continue
		}
		weight := m.w[i]
		if d >= below {
			weight *= share
		}
		switch {
		case exact && d > 1e-18:
			continue
		case m.distances && !exact:
			weight /= math.Sqrt(d)
		}
		total += weight
		floats.AddScaled(out, weight, m.y.RawRowView(i))
	}
	floats.Scale(1/total, out)
}

// MarshalBinary implements [Model].
func (m *nearest) MarshalBinary() ([]byte, error) {
	w := newWriter("nearest")
	w.int(m.k)
	w.flag(m.distances)
	m.scaling.write(w)
	w.floats(m.w)
	w.matrix(m.z)
	w.matrix(m.y)
	return w.b, nil
}

func readNearest(r *reader) Model {
	m := &nearest{k: r.int(), distances: r.flag(), scaling: readScaling(r), w: r.floats(), z: r.matrix(), y: r.matrix()}
	n, d := m.z.Dims()
	rows, k := m.y.Dims()
	r.check(m.k > 0 && n > 0 && k > 0 && n == rows && n == len(m.w) && d == len(m.fill), "%d neighbours among %d×%d features, %d×%d targets and %d weights", m.k, n, d, rows, k, len(m.w))
	for _, w := range m.w {
		r.check(w > 0, "a row of weight %v", w)
	}
	return m
}
