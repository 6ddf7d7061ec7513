package ascii

import (
	"math"

	"gonum.org/v1/gonum/mat"
)

// most bounds α where a model is right in every row.
var most = math.Log((1 - 1e-10) / 1e-10)

// right returns r: 1 for rows of which the votes g, n×K, name the label, 0 for others, and in between for rows of which the
// organisation does not have the entity, where the mean of its votes stands. It is yᵀg, moved and scaled to [0, 1], with labels in the same coding as
// votes: yᵀg is K/(K−1) where both name the same class and −K/(K−1)² else.
func right(labels []int, g *mat.Dense) []float64 {
	_, columns := g.Dims()
	k := float64(columns)
	out := make([]float64, len(labels))
	for i, c := range labels {
		wrong := -k / ((k - 1) * (k - 1))
		out[i] = min(1, max(0, (agreement(c, g.RawRowView(i))-wrong)/(k/(k-1)-wrong)))
	}
	return out
}

// agreement is yᵀg for a label in the coding of votes.
func agreement(label int, g []float64) float64 {
	other := 0.0
	for _, v := range g {
		other += v
	}
	other -= g[label]
	return g[label] - other/float64(len(g)-1)
}

// alpha returns the weight of a model that is right by r under ignorance scores w, when those before it in the round have come to the votes
// before = Σ_j α^j g^j, n×K, which is 0 for the first (Zhou and others, equations for two and for m organisations):
//
//	α = log(K−1) + log Σ_i w_i u_i r_i − log Σ_i w_i u_i (1 − r_i),  u_i = exp(−(1/K) y_iᵀ before_i)
//
// For the first that is log(r̄/(1−r̄)) + log(K−1) with r̄ = Σ w r/Σ w, the weight of SAMME. It is at most log((1−1e-10)/1e-10).
func alpha(labels []int, w, r []float64, before *mat.Dense) float64 {
	_, columns := before.Dims()
	k := float64(columns)
	var yes, no float64
	for i, c := range labels {
		u := w[i] * math.Exp(-agreement(c, before.RawRowView(i))/k)
		yes += float64(u * r[i])
		no += float64(u * (1 - r[i]))
	}
	return min(most, math.Log(k-1)+math.Log(yes)-math.Log(no))
}

// passed returns the ignorance scores for the next organisation: w_i exp((1 − r_i) α) / Σ.
func passed(w, r []float64, alpha float64) []float64 {
	out, sum := make([]float64, len(w)), 0.0
	for i := range w {
		out[i] = w[i] * math.Exp((1-r[i])*alpha)
		sum += out[i]
	}
	for i := range out {
		out[i] /= sum
	}
	return out
}
