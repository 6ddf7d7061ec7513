package dp

import (
	"fmt"
	"math"
	"slices"
)

// Curve is what some releases cost in Rényi differential privacy: at every order α of [Orders], a bound on the Rényi
// divergence D_α(with ‖ without) and back. Costs of releases add: [Curve.Add].
type Curve struct{ at []float64 }

// orders at which curves are kept: 1.1 to 10.9 in steps of 0.1, all integers from 12 to 63, then wider.
var orders = func() []float64 {
	var out []float64
	for i := 11; i < 110; i++ {
		out = append(out, float64(i)/10)
	}
	for i := 12; i < 64; i++ {
		out = append(out, float64(i))
	}
	return append(out, 64, 80, 96, 128, 192, 256, 384, 512, 768, 1024)
}()

// Orders returns the orders α at which curves are kept, ascending.
func Orders() []float64 { return slices.Clone(orders) }

// Gaussian returns the curve of releases of the sampled Gaussian mechanism: T·RDP(α) each (see [SampledGaussian]), added.
func Gaussian(releases ...Release) (Curve, error) {
	var c Curve
	for i, r := range releases {
		if err := r.Validate(); err != nil {
			return Curve{}, fmt.Errorf("release %d: %w", i+1, err)
		}
		if r.silent() {
			continue
		}
		at := make([]float64, len(orders))
		for k, a := range orders {
			at[k] = float64(r.Rounds) * SampledGaussian(r.Fraction, r.Noise, a)
		}
		c = c.Add(Curve{at})
	}
	return c, nil
}

// Add returns the cost of both: the divergences of independent releases add (Mironov, CSF 2017, proposition 1).
func (c Curve) Add(d Curve) Curve {
	if c.at == nil {
		return d
	}
	if d.at == nil {
		return c
	}
	out := slices.Clone(c.at)
	for i, v := range d.at {
		out[i] += v
	}
	return Curve{out}
}

// Times returns the cost of n ≥ 0 releases that each cost c.
func (c Curve) Times(n int) Curve {
	if n < 0 {
		panic(fmt.Sprintf("dp: %d releases", n))
	}
	if c.at == nil || n == 0 {
		return Curve{}
	}
	out := slices.Clone(c.at)
	for i := range out {
		out[i] *= float64(n)
	}
	return Curve{out}
}

// Epsilon returns the least ε over the orders,
//
//	ε(δ) = min_α  RDP(α) − (ln δ + ln α)/(α−1) + ln((α−1)/α),   at least 0
//
// (Canonne, Kamath, Steinke, NeurIPS 2020, proposition 12; Balle et al., AISTATS 2020, theorem 21).
func (c Curve) Epsilon(delta float64) float64 {
	e, _ := c.Best(delta)
	return e
}

// Best is [Curve.Epsilon] with the order at which the minimum is reached. At the first or last of [Orders] a finer choice of
// orders might give a smaller ε.
func (c Curve) Best(delta float64) (epsilon, order float64) {
	if c.at == nil || delta >= 1 {
		return 0, orders[0]
	}
	epsilon, order = math.Inf(1), orders[0]
	if !(delta > 0) {
		return epsilon, order
	}
	for i, a := range orders {
		if e := c.at[i] - (math.Log(delta)+math.Log(a))/(a-1) + math.Log1p(-1/a); e < epsilon {
			epsilon, order = e, a
		}
	}
	return max(0, epsilon), order
}

// Delta returns the least δ over the orders, the inverse of [Curve.Epsilon]:
//
//	δ(ε) = min_α  exp((α−1)·(RDP(α) − ε + ln((α−1)/α)) − ln α),   at most 1
func (c Curve) Delta(epsilon float64) float64 {
	if c.at == nil {
		return 0
	}
	least := 0.0 // log of 1
	for i, a := range orders {
		if l := (a-1)*(c.at[i]-epsilon+math.Log1p(-1/a)) - math.Log(a); l < least {
			least = l
		}
	}
	return math.Exp(least)
}

// SampledGaussian returns the Rényi divergence of order α > 1 of one round of the Poisson-sampled Gaussian mechanism with
// sampling probability q and noise multiplier z (Mironov, Talwar, Zhang, arXiv 1908.10530, section 3.3):
//
//	RDP(α) = ln A_α / (α−1),  A_α = E_{x ~ N(0, z²)} [ ((1−q) + q·e^{(2x−1)/(2z²)})^α ]
//
// It is 0 for q = 0, +Inf for z = 0, and α/(2z²) for q = 1. It panics if α ≤ 1.
func SampledGaussian(q, z, alpha float64) float64 {
	switch {
	case !(alpha > 1):
		panic(fmt.Sprintf("dp: Rényi divergence of order %v", alpha))
	case q == 0 || z > allNoise:
		return 0
	case z < noNoise:
		return math.Inf(1)
	case q == 1:
		return alpha / (2 * z * z)
	}
	return max(0, logA(q, z, alpha)) / (alpha - 1)
}

func logA(q, z, alpha float64) float64 {
	if alpha == math.Trunc(alpha) {
		return logAInteger(q, z, int(alpha))
	}
	if l, ok := logASeries(q, z, alpha); ok {
		return l
	}
	if z >= 0.1 {
		return logAIntegral(q, z, alpha)
	}
	// ln A is convex in α and 0 at α = 1, so the chord between the integers around α is above it.
	lo := int(alpha)
	low := 0.0
	if lo > 1 {
		low = logAInteger(q, z, lo)
	}
	return low + (alpha-float64(lo))*(logAInteger(q, z, lo+1)-low)
}

// logAInteger sums the binomial expansion (section 3.3, equation 5):
//
//	A_α = Σ_{i=0}^{α} C(α,i) (1−q)^{α−i} q^i exp((i²−i)/(2z²))
func logAInteger(q, z float64, alpha int) float64 {
	logQ, logP := math.Log(q), math.Log1p(-q)
	sum := math.Inf(-1)
	logC := 0.0 // ln C(α, i)
	for i := range alpha + 1 {
		k := float64(i)
		sum = logAdd(sum, logC+k*logQ+float64(alpha-i)*logP+(k*k-k)/(2*z*z))
		logC += math.Log(float64(alpha-i)) - math.Log(k+1)
	}
	return sum
}

// logASeries sums the two series for real α (section 3.3), the integral split where both components of the mixture are
// equally likely, at x₀ = z²·ln(1/q−1) + ½. With j = α−i:
//
//	A_α = Σ_i C(α,i) q^i (1−q)^j e^{(i²−i)/(2z²)} ½erfc((i−x₀)/(√2 z))
//	    + Σ_i C(α,i) q^j (1−q)^i e^{(j²−j)/(2z²)} ½erfc((x₀−j)/(√2 z))
//
// It is not ok if the series has not settled after many terms or its differences have eaten up the digits.
func logASeries(q, z, alpha float64) (float64, bool) {
	const most, negligible = 200, -30
	logQ, logP := math.Log(q), math.Log1p(-q)
	x0 := z*z*(logP-logQ) + 0.5
	plus, minus := math.Inf(-1), math.Inf(-1)
	logC, negative := 0.0, false // ln |C(α, i)| and its sign
	for i := range most {
		k := float64(i)
		j := alpha - k
		a := logC + k*logQ + j*logP + (k*k-k)/(2*z*z) + logHalfErfc((k-x0)/(math.Sqrt2*z))
		b := logC + j*logQ + k*logP + (j*j-j)/(2*z*z) + logHalfErfc((x0-j)/(math.Sqrt2*z))
		if negative {
			minus = logAdd(minus, logAdd(a, b))
		} else {
			plus = logAdd(plus, logAdd(a, b))
		}
		if k > alpha && max(a, b) < negligible {
			if !(plus > minus) {
				return 0, false
			}
			sum := plus + math.Log1p(-math.Exp(minus-plus))
			return sum, plus-sum < 5 && !math.IsNaN(sum) && !math.IsInf(sum, 0)
		}
		f := j / (k + 1) // C(α, i+1) / C(α, i), not 0 as α is no integer
		logC += math.Log(math.Abs(f))
		negative = negative != (f < 0)
	}
	return 0, false
}

// logAIntegral is the definition by the trapezoid rule, where the series settles slowly. The integrand is analytic up to π·z²
// off the real axis, so that the error falls like e^{−2π²z²/step}.
func logAIntegral(q, z, alpha float64) float64 {
	step := min(z/8, z*z/2)
	var sum float64
	top := alpha * (alpha - 1) / (2 * z * z) // A_α is at most that of q = 1
	for x := -reach * z; x <= alpha+reach*z; x += step {
		a := (2*x - 1) / (2 * z * z)
		l := math.Log1p(q * math.Expm1(min(a, 1)))
		if a > 1 {
			l = logAdd(math.Log1p(-q), math.Log(q)+a)
		}
		sum += math.Exp(alpha*l - x*x/(2*z*z) - top)
	}
	return top + math.Log(sum*step/(z*math.Sqrt(2*math.Pi)))
}

// logAdd returns ln(e^a + e^b).
func logAdd(a, b float64) float64 {
	if a < b {
		a, b = b, a
	}
	if math.IsInf(b, -1) || math.IsInf(a, 1) {
		return a
	}
	return a + math.Log1p(math.Exp(b-a))
}

// logHalfErfc returns ln(½ erfc(x)); far in the tail by the asymptotic series erfc(x) = e^{−x²}/(x√π)·(1 − 1/(2x²) + …).
func logHalfErfc(x float64) float64 {
	if x < 20 {
		return math.Log(math.Erfc(x) / 2)
	}
	y := 1 / (2 * x * x)
	return -x*x - math.Log(2*x*math.SqrtPi) + math.Log1p(-y*(1-3*y*(1-5*y*(1-7*y))))
}
