package mismatch

import (
	"cmp"
	"context"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
)

// ForwardCorrection fits classes as if a share α of the labels had been drawn from all labels, T = (1−α)I + α·1gᵀ with g the
// frequencies: it descends −log(Tᵀp_θ)_y (Patrini et al., CVPR 2017), here through its posterior weights, which have the same
// gradient. The share must be told. It makes as many rounds as it is told, 1 fit each.
func ForwardCorrection(ctx context.Context, p Problem, m Model, v Rival) error {
	if v.Alpha == nil {
		return badInput("forward correction has to be told the share of wrong links")
	}
	if p.Classes == nil {
		return badInput("forward correction is for classes")
	}
	o := Options{Alpha: v.Alpha, Ready: v.Ready, Warm: 1, Mixture: orElse(v.Rounds, 50), Rounds: -1}
	if *v.Alpha == 0 { // nothing is weighted: it is the plain fit
		o.Warm = o.Mixture
	}
	_, err := Fit(ctx, p, m, o)
	return err
}

// CoTeaching lets two networks choose for each other which rows to learn from (Han et al., NeurIPS 2018): in round t each learns from
// the share 1 − α·min(1, t/10) of the rows whose given labels the other finds likeliest. Rows are chosen by fits instead of by
// minibatches. The share must be told.
func CoTeaching(ctx context.Context, p Problem, a, b Model, v Rival) error {
	if v.Alpha == nil {
		return badInput("co-teaching has to be told the share of wrong links")
	}
	if p.Classes == nil {
		return badInput("co-teaching is for classes")
	}
	l, err := p.layout()
	if err != nil {
		return err
	}
	if l.pairs < l.n {
		return badInput("co-teaching needs a label with every row; %d came without", l.n-l.pairs)
	}
	t := mat.NewDense(l.n, l.k, nil)
	for i, j := range l.own {
		t.SetRow(i, l.y.RawRowView(j))
	}
	pair := [2]Model{a, b}
	f := [2]*mat.Dense{mat.NewDense(l.n, l.k, nil), mat.NewDense(l.n, l.k, nil)}
	for round := range orElse(v.Rounds, 50) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		keep := int(math.Round(float64(l.n) * (1 - *v.Alpha*min(1, float64(round)/10))))
		var w [2][]float64
		for k := range pair {
			if round == 0 {
				continue
			}
			w[1-k] = likeliest(f[k], l, keep)
		}
		for k, m := range pair {
			if err := m.Fit(ctx, nil, t, w[k]); err != nil {
				return err
			}
			if err := m.Predict(ctx, nil, f[k]); err != nil {
				return err
			}
		}
	}
	return nil
}

// likeliest returns weight 1 for the rows whose labels have the highest log probabilities f, 0 for the others.
func likeliest(f *mat.Dense, l *layout, keep int) []float64 {
	order, w := make([]int, l.n), make([]float64, l.n)
	for i := range order {
		order[i] = i
	}
	at := func(i int) float64 { return f.At(i, l.classes[l.own[i]]) }
	slices.SortStableFunc(order, func(a, b int) int { return cmp.Compare(at(b), at(a)) })
	for _, i := range order[:keep] {
		w[i] = 1
	}
	return w
}
