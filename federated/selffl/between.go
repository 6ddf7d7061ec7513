package selffl

import (
	"errors"
	"fmt"
	"slices"
)

// Between names an estimator of σ_0², the variance between clients, from what they sent and how uncertain that is.
type Between string

// The estimators. All work coordinate by coordinate with the same variances, and average over the coordinates. With weights
// a_m, A = Σ a_m, μ = Σ a_m θ_m/A and Q = Σ a_m (θ_m − μ)² the general method of moments (DerSimonian and Kacker 2007) is
//
//	σ_0² = (Q − Σ a_m v_m + Σ a_m² v_m/A) / (A − Σ a_m²/A)
const (
	// Naive is S² = Σ (θ_m − mean)²/(M − 1), which is too large by the mean of the v_m.
	Naive Between = "naive"
	// Moment has a_m = 1, which gives S² − mean(v_m).
	Moment Between = "moment"
	// DerSimonianLaird has a_m = 1/v_m (1986), which gives (Q − (M − 1))/(A − Σ a_m²/A). It is good where the v_m differ a lot.
	DerSimonianLaird Between = "dl"
	// PauleMandel is the s for which a_m = 1/(s + v_m) gives Q = M − 1 (1982).
	PauleMandel Between = "pm"
)

// Betweens lists the estimators.
func Betweens() []Between { return []Between{Naive, Moment, DerSimonianLaird, PauleMandel} }

// Validate returns an error unless b is one of [Betweens].
func (b Between) Validate() error {
	if !slices.Contains(Betweens(), b) {
		return fmt.Errorf("between: %q, expected naive, moment, dl or pm", b)
	}
	return nil
}

// LeastBetween is the least variance between clients that estimators return, so that clients that look alike still learn.
const LeastBetween = 1e-8

// ErrAlone says that one client alone shows no variance between clients.
var ErrAlone = errors.New("the variance between clients needs at least two of them")

// Float is the type of a coordinate.
type Float interface{ float32 | float64 }

// Spread is what a weighted sample says of its dispersion: Q and the weights, as sums. It can be computed by whoever sees
// sums only.
type Spread struct {
	Q   float64 // Σ a_m (θ_m − μ)², averaged over the coordinates
	A   float64 // Σ a_m
	AA  float64 // Σ a_m²
	AV  float64 // Σ a_m v_m
	AAV float64 // Σ a_m² v_m
	N   int     // clients
}

// Variance returns σ_0² by the general method of moments, at least [LeastBetween]; with biased the v_m are not subtracted. It
// fails with [ErrAlone] if there are fewer than two clients.
func (s Spread) Variance(biased bool) (float64, error) {
	if s.N < 2 {
		return 0, ErrAlone
	}
	q := s.Q
	if !biased {
		q -= s.AV - s.AAV/s.A
	}
	return max(LeastBetween, q/(s.A-s.AA/s.A)), nil
}

// SpreadOf returns the dispersion of theta[m][j], coordinate j of client m, with weights a and variances v.
func SpreadOf[F Float](theta [][]F, a, v []float64) Spread {
	s := Spread{N: len(theta)}
	for m := range theta {
		s.A += a[m]
		s.AA += a[m] * a[m]
		s.AV += a[m] * v[m]
		s.AAV += a[m] * a[m] * v[m]
	}
	if s.N == 0 || len(theta[0]) == 0 {
		return s
	}
	mean := make([]float64, len(theta[0]))
	for m, row := range theta {
		for j, x := range row {
			mean[j] += float64(a[m] * float64(x))
		}
	}
	for j := range mean {
		mean[j] /= s.A
	}
	for m, row := range theta {
		var d float64
		for j, x := range row {
			e := float64(x) - mean[j]
			d += float64(e * e)
		}
		s.Q += a[m] * d
	}
	s.Q /= float64(len(mean))
	return s
}

// Estimate returns σ_0² from theta[m][j], coordinate j of client m's estimate of variance v[m]. It fails with [ErrAlone] if
// there are fewer than two clients, and if a variance is negative or no number.
func Estimate[F Float](by Between, theta [][]F, v []float64) (float64, error) {
	if err := by.Validate(); err != nil {
		return 0, err
	}
	for m, x := range v {
		if !(x >= 0) {
			return 0, fmt.Errorf("the variance of client %d is %v: expected 0 or more", m, x)
		}
	}
	ones := slices.Repeat([]float64{1}, len(v))
	switch by {
	case DerSimonianLaird:
		a := make([]float64, len(v))
		for m := range v {
			a[m] = 1 / max(v[m], LeastBetween*LeastBetween) // a certain client's weight is large, not infinite
		}
		return SpreadOf(theta, a, v).Variance(false)
	case PauleMandel:
		return pauleMandel(theta, v)
	}
	return SpreadOf(theta, ones, v).Variance(by == Naive)
}

// pauleMandel finds the root by bisection between 0 and a hundred times S².
func pauleMandel[F Float](theta [][]F, v []float64) (float64, error) {
	s2, err := SpreadOf(theta, slices.Repeat([]float64{1}, len(v)), v).Variance(true)
	if err != nil {
		return 0, err
	}
	excess := func(s float64) float64 {
		a := make([]float64, len(v))
		for m := range v {
			a[m] = 1 / max(s+v[m], LeastBetween*LeastBetween)
		}
		return SpreadOf(theta, a, v).Q - float64(len(v)-1)
	}
	lo, hi := 0.0, 100*s2
	for range 100 {
		if mid := (lo + hi) / 2; excess(mid) > 0 {
			lo = mid
		} else {
			hi = mid
		}
		if hi-lo <= 1e-15*hi {
			break
		}
	}
	return max(LeastBetween, (lo+hi)/2), nil
}
