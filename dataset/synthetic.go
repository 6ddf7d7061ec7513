package dataset

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/rng"
)

// Synthetic is the Synthetic(α, β) family of Li et al. (arXiv 1812.06127, section 5.1): every client has a softmax model
// and a distribution of features of its own.
//
//	u_k ~ N(0, α)     W_k (10×60), b_k (10): entries ~ N(u_k, 1)
//	B_k ~ N(0, β)     v_k (60): entries ~ N(B_k, 1)
//	x ~ N(v_k, Σ), Σ diagonal, Σ_jj = j^−1.2, j = 1 … 60     y = argmax(W_k·x + b_k)
//	n_k = ⌊exp(z)⌋ + 50, z normal with mean 4 and standard deviation 2
//
// α and β are variances (a well-known generator passes them as deviations). Key of a row is its client, so that the
// "natural" scheme deals each client its own; a tenth of every client's rows is its test part.
type Synthetic struct {
	Alpha, Beta float64 // variances; 0: all clients alike in that respect
	Clients     int     // default 30
	Seed        uint64
}

const (
	syntheticFeatures = 60
	syntheticClasses  = 10
	syntheticLargest  = 1 << 20 // samples of one client; the log-normal has no bound of its own
)

// Validate reports the first field out of its range.
func (y Synthetic) Validate() error {
	switch {
	case !(y.Alpha >= 0) || !(y.Beta >= 0) || math.IsInf(y.Alpha, 1) || math.IsInf(y.Beta, 1):
		return fmt.Errorf("synthetic: α %v and β %v are variances and must not be negative", y.Alpha, y.Beta)
	case y.Clients < 0 || y.Clients > 100_000:
		return fmt.Errorf("synthetic: %d clients is outside 1..100000", y.Clients)
	}
	return nil
}

// Load draws the data set. Client k depends on (Seed, α, β, k) alone, not on the number of clients.
func (y Synthetic) Load(ctx context.Context) (*Split, error) {
	if err := y.Validate(); err != nil {
		return nil, err
	}
	if y.Clients == 0 {
		y.Clients = 30
	}
	classes := make([]string, syntheticClasses)
	for c := range classes {
		classes[c] = fmt.Sprint(c)
	}
	part := func() *Examples {
		return &Examples{Name: "synthetic", Shape: []int{syntheticFeatures}, Classes: classes}
	}
	split := &Split{Train: part(), Test: part()}
	for k := range y.Clients {
		if err := ctx.Err(); err != nil {
			return nil, fmt.Errorf("drawing synthetic data: %w", err)
		}
		key := fmt.Sprintf("client-%05d", k)
		y.client(split, key, rng.New(y.Seed, 0, key, "synthetic"))
	}
	return split, nil
}

func (y Synthetic) client(split *Split, key string, r *rng.Stream) {
	u := math.Sqrt(y.Alpha) * r.NormFloat64()
	centre := math.Sqrt(y.Beta) * r.NormFloat64()
	n := int(min(math.Exp(4+2*r.NormFloat64()), syntheticLargest)) + 50
	var w [syntheticClasses][syntheticFeatures]float64
	var b [syntheticClasses]float64
	for c := range w {
		for j := range w[c] {
			w[c][j] = u + r.NormFloat64()
		}
		b[c] = u + r.NormFloat64()
	}
	var v, sd [syntheticFeatures]float64
	for j := range v {
		v[j] = centre + r.NormFloat64()
		sd[j] = math.Pow(float64(j+1), -0.6)
	}
	tests := n / 10
	var x [syntheticFeatures]float64
	var logits [syntheticClasses]float64
	for i := range n {
		for j := range x {
			x[j] = v[j] + sd[j]*r.NormFloat64()
		}
		for c := range logits {
			logits[c] = b[c]
			for j := range x {
				logits[c] += w[c][j] * x[j]
			}
		}
		label := slices.Index(logits[:], slices.Max(logits[:]))
		e := split.Train
		if i < tests {
			e = split.Test
		}
		for _, xj := range x {
			e.F32 = append(e.F32, float32(xj))
		}
		e.Labels = append(e.Labels, int32(label))
		e.Keys = append(e.Keys, key)
	}
}

func (s Spec) synthetic() Synthetic {
	variance := func(v float64) float64 {
		switch {
		case v == 0:
			return 1
		case v < 0:
			return 0
		}
		return v
	}
	return Synthetic{Alpha: variance(s.Alpha), Beta: variance(s.Beta), Clients: s.Clients, Seed: s.Seed}
}
