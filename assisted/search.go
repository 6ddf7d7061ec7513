package assisted

import (
	"cmp"
	"math"
	"slices"

	"gonum.org/v1/gonum/mat"
)

// Step is the outcome of a line search.
type Step struct {
	Rate   float64
	Capped bool // the loss falls still at the cap, where the search ended
	Flat   bool // the direction is 0, or leads nowhere but up: the rate is 0
}

// Search returns the η ≥ 0 that minimises L1(y, F + ηG), exactly (Diao, Ding and Tarokh 2022, gradient assisted learning
// rate). Losses of classification may fall for ever, on separable data: they are searched up to the cap.
//
//	squared   ⟨y − F, G⟩ / ⟨G, G⟩
//	absolute  the median of (y − F)/G, weighted by |G|, over |G| > 1e-12
//	others    the root of the derivative, which never falls, by Newton's method within a bracket
func (o Objective) Search(y, f, g *mat.Dense, most float64) Step {
	if largest(g) == 0 {
		return Step{Flat: true}
	}
	var s Step
	switch o.Loss {
	case Squared:
		s.Rate = ratio(y, f, g)
	case Absolute:
		s.Rate = median(y, f, g)
	default:
		return o.bracket(y, f, g, most)
	}
	if !(s.Rate > 0) {
		return Step{Flat: true}
	}
	return s
}

func largest(g *mat.Dense) float64 {
	most := 0.0
	for _, v := range values(g) {
		most = math.Max(most, math.Abs(v))
	}
	return most
}

// ratio is ⟨y − F, G⟩/⟨G, G⟩ over rows that are not masked.
func ratio(y, f, g *mat.Dense) float64 {
	rows, columns := f.Dims()
	var above, below float64
	for i := range rows {
		if Masked(y, i) {
			continue
		}
		for k := range columns {
			v := g.At(i, k)
			above += float64((y.At(i, k) - f.At(i, k)) * v)
			below += float64(v * v)
		}
	}
	return above / below
}

// median is the weighted median of (y − F)/G: Σ |y − F − ηG| has its kinks there, and its slope changes by 2|G| at each.
func median(y, f, g *mat.Dense) float64 {
	type kink struct{ at, weight float64 }
	var kinks []kink
	rows, columns := f.Dims()
	total := 0.0
	for i := range rows {
		if Masked(y, i) {
			continue
		}
		for k := range columns {
			if v := g.At(i, k); math.Abs(v) > 1e-12 {
				kinks = append(kinks, kink{(y.At(i, k) - f.At(i, k)) / v, math.Abs(v)})
				total += math.Abs(v)
			}
		}
	}
	slices.SortFunc(kinks, func(a, b kink) int { return cmp.Compare(a.at, b.at) })
	sum := 0.0
	for _, k := range kinks {
		sum += k.weight
		if sum >= total/2 {
			return k.at
		}
	}
	return 0
}

// curve is the second derivative by F of a loss of one output that has one.
func (o Objective) curve(y, f float64) float64 {
	switch o.Loss {
	case Poisson:
		return 2 * o.Expect(f)
	case LogCosh:
		t := math.Tanh(y - f)
		return 1 - float64(t*t)
	}
	p := sigmoid(f)
	return float64(p * (1 - p))
}

// slope returns the first and second derivative of Σ L1(y, F + ηG) by η, for losses that are no polynomials.
func (o Objective) slope(y, f, g *mat.Dense, eta float64) (first, second float64) {
	rows, columns := f.Dims()
	at, r := make([]float64, columns), make([]float64, columns)
	for i := range rows {
		gi := g.RawRowView(i)
		for k, v := range f.RawRowView(i) {
			at[k] = v + float64(eta*gi[k])
		}
		o.residual(y.RawRowView(i), at, r)
		if o.Loss != CrossEntropy {
			if Masked(y, i) {
				continue
			}
			for k, label := range y.RawRowView(i) {
				first -= float64(r[k] * gi[k])
				second += float64(o.curve(label, at[k]) * gi[k] * gi[k])
			}
			continue
		}
		softmax(at, at)
		var mean, square float64
		for k, p := range at {
			first -= float64(r[k] * gi[k])
			mean += float64(p * gi[k])
			square += float64(p * gi[k] * gi[k])
		}
		second += square - float64(mean*mean)
	}
	return first, second
}

// bracket finds the root of the slope in [0, most] by Newton's method, halving the bracket where a step leaves it, and always once many steps
// have not found it: of exponentials they come down one by one.
func (o Objective) bracket(y, f, g *mat.Dense, most float64) Step {
	begin, curve := o.slope(y, f, g, 0)
	if begin >= 0 {
		return Step{Flat: true}
	}
	if end, _ := o.slope(y, f, g, most); end < 0 {
		return Step{Rate: most, Capped: true}
	}
	lo, hi, eta, d := 0.0, most, 0.0, begin
	for steps := range 200 {
		next := eta - d/curve
		if steps > 30 || !(next > lo && next < hi) {
			next = lo + (hi-lo)/2
		}
		if math.Abs(next-eta) <= 1e-15*math.Abs(next) || hi-lo <= 1e-14*hi {
			break
		}
		eta = next
		if d, curve = o.slope(y, f, g, eta); d < 0 {
			lo = eta
		} else if hi = eta; d == 0 {
			break
		}
	}
	return Step{Rate: eta}
}

// derivative is that of the mean of L1(y, F + ηG) by η, −mean ⟨r, G⟩, and the mean itself.
func (o Objective) derivative(y, f, g *mat.Dense, eta float64) (value, slope float64) {
	var at mat.Dense
	at.Scale(eta, g)
	at.Add(f, &at)
	r := o.Residual(y, &at)
	rows, columns := f.Dims()
	n := 0
	for i := range rows {
		if Masked(y, i) {
			continue
		}
		n++
		for k := range columns {
			slope -= float64(r.At(i, k) * g.At(i, k))
		}
	}
	return o.Value(y, &at), slope / float64(n)
}

// SearchReleased returns the rate that the authors' released code comes to: η starts at 1, and PyTorch's L-BFGS (rate 1, no
// line search, 20 steps a call, 10 calls) goes on from there, which for one number is the secant method. What it comes to is
// taken positive, and at most most (300 in the released code).
func (o Objective) SearchReleased(y, f, g *mat.Dense, most float64) Step {
	if largest(g) == 0 {
		return Step{Flat: true}
	}
	const flat, still, inner, outer = 1e-7, 1e-9, 20, 10
	eta, t := 1.0, 1.0
	var d, before, curve float64
	begun := false
	for range outer {
		loss, slope := o.derivative(y, f, g, eta)
		if math.Abs(slope) <= flat {
			break
		}
		for k := 1; ; k++ {
			if !begun {
				begun, curve = true, 1
				t = math.Min(1, 1/math.Abs(slope))
			} else {
				if change, move := slope-before, float64(d*t); float64(change*move) > 1e-10 {
					curve = move / change
				}
				t = 1
			}
			d = -slope * curve
			before = slope
			if float64(slope*d) > -still {
				break
			}
			eta += float64(t * d)
			if k == inner {
				break
			}
			last := loss
			if loss, slope = o.derivative(y, f, g, eta); math.Abs(slope) <= flat ||
				math.Abs(d*t) <= still || math.Abs(loss-last) < still {
				break
			}
		}
	}
	eta = math.Abs(eta)
	return Step{Rate: math.Min(eta, most), Capped: eta > most}
}
