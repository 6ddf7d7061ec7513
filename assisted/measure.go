package assisted

import (
	"cmp"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/federated"
	"gonum.org/v1/gonum/mat"
)

// Measure returns how good predictions F of labels y are. The first number is the one that the method is judged by:
//
//	regression      mad: mean |y − F|; rmse: √mean (y − F)²; of counts with exp(F) in place of F
//	classification  accuracy; log-loss: mean −log p_y; with two classes auroc, too
func (o Objective) Measure(y, f *mat.Dense) []federated.Metric {
	if !o.Classifies() {
		return o.errors(y, f)
	}
	out := []federated.Metric{{Name: "accuracy", Value: o.accuracy(y, f)}, {Name: "log-loss", Value: o.Value(y, f)}}
	if o.classes() == 2 {
		out = append(out, federated.Metric{Name: "auroc", Value: AUROC(y, o.scores(f))})
	}
	return out
}

func (o Objective) errors(y, f *mat.Dense) []federated.Metric {
	rows, columns := f.Dims()
	absolute, square, n := 0.0, 0.0, 0
	for i := range rows {
		if Masked(y, i) {
			continue
		}
		for k := range columns {
			e := y.At(i, k) - o.Expect(f.At(i, k))
			absolute += math.Abs(e)
			square += float64(e * e)
			n++
		}
	}
	return []federated.Metric{
		{Name: "mad", Value: absolute / float64(n)}, {Name: "rmse", Value: math.Sqrt(square / float64(n))},
	}
}

func (o Objective) accuracy(y, f *mat.Dense) float64 {
	rows, _ := f.Dims()
	right := 0
	for i := range rows {
		if o.Predict(f.RawRowView(i)) == int(y.At(i, 0)) {
			right++
		}
	}
	return float64(right) / float64(rows)
}

// Predict returns the class that a row of F stands for: the first of those with the largest logit.
func (o Objective) Predict(f []float64) int {
	if o.Loss == Logistic {
		if f[0] > 0 {
			return 1
		}
		return 0
	}
	best := 0
	for k, v := range f {
		if v > f[best] {
			best = k
		}
	}
	return best
}

// Probabilities returns those of the classes, of a row of F.
func (o Objective) Probabilities(f []float64) []float64 {
	if o.Loss == Logistic {
		f = []float64{0, f[0]}
	}
	p := make([]float64, len(f))
	softmax(f, p)
	return p
}

// scores are larger for rows that are more likely of class 1.
func (o Objective) scores(f *mat.Dense) []float64 {
	rows, columns := f.Dims()
	s := make([]float64, rows)
	for i := range s {
		s[i] = f.At(i, columns-1)
		if columns == 2 {
			s[i] -= f.At(i, 0)
		}
	}
	return s
}

// AUROC returns the probability that a row of class 1 has a larger score than one of class 0, ties counting half: the area
// under the receiver operating characteristic. It is NaN unless both classes are there.
func AUROC(y *mat.Dense, score []float64) float64 {
	order := make([]int, len(score))
	for i := range order {
		order[i] = i
	}
	slices.SortFunc(order, func(a, b int) int { return cmp.Compare(score[a], score[b]) })
	var ranks, ones float64
	for i := 0; i < len(order); {
		j := i
		for j < len(order) && score[order[j]] == score[order[i]] {
			j++
		}
		rank := float64(i+j+1) / 2 // the mean of i+1 … j
		for _, row := range order[i:j] {
			if y.At(row, 0) == 1 {
				ranks += rank
				ones++
			}
		}
		i = j
	}
	zeros := float64(len(score)) - ones
	if ones == 0 || zeros == 0 {
		return math.NaN()
	}
	return (ranks - ones*(ones+1)/2) / (ones * zeros)
}
