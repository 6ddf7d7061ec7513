package dp

import (
	"fmt"
	"math"
	"math/bits"
	"math/cmplx"

	"gonum.org/v1/gonum/dsp/fourier"
)

const (
	leastDelta  = 1e-10      // what the rounding of the Fourier transforms leaves certain
	mostRounds  = 10_000_000 // the phases of their powers too
	mostCells   = 1 << 20
	tailMass    = 1e-15   // of the composed loss, outside of the window that is kept; counted as an infinite loss
	singleCells = 1 << 16 // for the loss of one round
	cellsPerSD  = 32      // cells to a standard deviation of the loss of one round
	reach       = 9.5     // standard deviations of the noise that are integrated; P(beyond) = 1e-21, an infinite loss
)

// loss is an upper bound on the distribution of a privacy loss: the random variable L(x) = ln(P(x)/Q(x)) for x ~ P, where P
// and Q are what is published with and without the member, or the reverse. It lives on the grid ε_i = h·i: p[i−low] is the
// mass at ε_i, infinite that at +∞. Whether a mechanism is (ε, δ)-private is in it:
//
//	δ(ε) = P(L = ∞) + Σ_{ε_i > ε} (1 − e^{ε−ε_i})·p_i
//
// (Sommer, Meiser, Mohammadi, PoPETs 2019, lemma 5). Losses of rounds add, so their distributions convolve.
type loss struct {
	h        float64
	low      int
	p        []float64
	infinite float64
}

// losses are those of both neighbours: member removed, and member added. With q = 1 they are equal and one stands for both.
type losses []loss

func (l losses) epsilon(delta float64) (e float64) {
	for _, d := range l {
		e = max(e, d.epsilon(delta))
	}
	return e
}

func (l losses) delta(epsilon float64) (d float64) {
	for _, one := range l {
		d = max(d, one.delta(epsilon))
	}
	return d
}

// delta returns δ(ε).
func (l loss) delta(epsilon float64) float64 {
	sum := l.infinite
	for i := len(l.p) - 1; i >= 0; i-- {
		e := l.h * float64(l.low+i)
		if e <= epsilon {
			break
		}
		sum -= math.Expm1(epsilon-e) * l.p[i]
	}
	return min(1, sum)
}

// epsilon returns the least ε ≥ 0 with δ(ε) ≤ delta. Between two points of the grid δ(ε) = a − b·e^ε, where a is the mass above
// and b the same weighted with e^{−ε_i}; the sums run down the grid until they hold more than delta.
func (l loss) epsilon(delta float64) float64 {
	if l.infinite > delta {
		return math.Inf(1)
	}
	a, b := l.infinite, 0.0 // b·e^{ε_i}, for the ε_i at hand
	for i := len(l.p) - 1; i >= 0; i-- {
		e := l.h * float64(l.low+i)
		if a-b > delta { // δ(ε_i): the answer lies between ε_i and the point above
			return max(0, e+min(l.h, math.Log((a-delta)/b)))
		}
		if e < 0 {
			return 0
		}
		a += l.p[i]
		b = (b + l.p[i]) * math.Exp(-l.h)
	}
	// Below the grid all mass is above ε.
	if a <= delta {
		return 0
	}
	return max(0, l.h*float64(l.low))
}

// compose returns the losses of all releases together.
func compose(releases []Release) (losses, error) {
	rounds, sided := 0, false
	for _, r := range releases {
		if r.open() {
			return openLosses(releases), nil
		}
		rounds += r.Rounds
		if rounds > mostRounds || rounds < 0 {
			return nil, fmt.Errorf("more than %d rounds are too many for the PLD accountant; use RDP", mostRounds)
		}
		sided = sided || r.Fraction < 1
	}
	out := losses{composed(releases, false)}
	if sided {
		out = append(out, composed(releases, true))
	}
	return out, nil
}

// openLosses bounds releases of which some have no noise: a member is found as soon as it takes part in one of those. The
// other releases are counted as having none either, so that δ ≥ the chance to take part at all has ε = 0 and less has none.
func openLosses(releases []Release) losses {
	out := 0.0 // ln P(never taking part)
	for _, r := range releases {
		out += float64(r.Rounds) * math.Log1p(-r.Fraction)
	}
	return losses{{h: 1, p: []float64{math.Exp(out)}, infinite: -math.Expm1(out)}}
}

// round is one round of a sampled Gaussian mechanism, seen by one of both neighbours. With f(x) = ln(1−q + q·e^{(2x−1)/(2z²)}),
// and N_m the normal distribution of mean m and deviation z:
//
//	removed: P = (1−q)·N_0 + q·N_1,  Q = N_0,  L(x) =  f(x)
//	added:   P = N_0,  Q = (1−q)·N_0 + q·N_1,  L(x) = −f(x)
type round struct {
	q, z       float64
	added      bool
	logQ, logP float64 // ln q, ln(1−q)
}

func newRound(r Release, added bool) round {
	return round{r.Fraction, r.Noise, added, math.Log(r.Fraction), math.Log1p(-r.Fraction)}
}

// f increases from ln(1−q) at −∞.
func (r round) f(x float64) float64 {
	a := (2*x - 1) / (2 * r.z * r.z)
	if math.Abs(a) > 1 {
		return logAdd(r.logP, r.logQ+a)
	}
	return math.Log1p(r.q * math.Expm1(a))
}

// inverse is the x with f(x) = y, or −∞ if y ≤ ln(1−q).
func (r round) inverse(y float64) float64 {
	if r.q == 1 {
		return r.z*r.z*y + 0.5
	}
	a := math.Expm1(y) / r.q
	if math.Abs(y) > 1 {
		a = -(1 - r.q) * math.Exp(-y)
	}
	if a <= -1 {
		return math.Inf(-1)
	}
	a = math.Log1p(a)
	if math.Abs(y) > 1 {
		a += y - r.logQ
	}
	return r.z*r.z*a + 0.5
}

// density of P at x.
func (r round) density(x float64) float64 {
	u, v := x/r.z, (x-1)/r.z
	d := math.Exp(-u * u / 2)
	if !r.added {
		d = (1-r.q)*d + r.q*math.Exp(-v*v/2)
	}
	return d / (r.z * math.Sqrt(2*math.Pi))
}

// span is where f is integrated.
func (r round) span() (from, to float64) { return -reach * r.z, 1 + reach*r.z }

// points are some of the distribution of a round's loss, with the masses of P that they stand for: enough for moments.
type points struct{ loss, mass []float64 }

func (r round) points() (p points) {
	const step = 1.0 / 16
	add := func(l, mass float64) { p.loss, p.mass = append(p.loss, l), append(p.mass, mass) }
	for u := -reach; u <= reach; u += step {
		w := step * math.Exp(-u*u/2) / math.Sqrt(2*math.Pi)
		if r.added {
			add(-r.f(r.z*u), w)
			continue
		}
		if r.q < 1 {
			add(r.f(r.z*u), (1-r.q)*w)
		}
		add(r.f(1+r.z*u), r.q*w)
	}
	return p
}

// variance of the loss.
func (p points) variance() (v float64) {
	var mean float64
	for i, l := range p.loss {
		mean += p.mass[i] * l
	}
	for i, l := range p.loss {
		v += p.mass[i] * (l - mean) * (l - mean)
	}
	return v
}

// discretise returns the loss of one round on the grid of step h, as masses by index modulo n, and the mass at +∞.
//
// Every point of the continuous distribution is divided among the two grid points around it such that its mass under P and
// under Q are both kept: with ε ≤ L ≤ ε+h the upper one gets the part (1−e^{ε−L})/(1−e^{−h}). δ(ε), a convex function of e^ε,
// becomes its chords between the grid points, so it is nowhere too small, and the error is of second order in h ("connect the
// dots", Doroshenko, Ghazi, Kamath, Kumar, Manurangsi, PoPETs 2022). P is integrated cell by cell by Gauß' rule with three
// points, over pieces of at most a twentieth of the noise's deviation, to a part of about 1e-14.
func (r round) discretise(h float64, n int) (p []float64, infinite float64) {
	p = make([]float64, n)
	at := func(i int) *float64 {
		if i %= n; i < 0 {
			i += n
		}
		return &p[i]
	}
	from, to := r.span()
	whole := -math.Expm1(-h)
	tail := math.Erfc(reach/math.Sqrt2) / 2
	first, last := int(math.Floor(r.f(from)/h)), int(math.Ceil(r.f(to)/h))
	// Outside of the span, on the side of great losses they become infinite, on the other as great as at its end.
	infinite = tail
	if r.added {
		*at(-last + 1) += tail
	} else {
		*at(first + 1) += tail
	}
	x := from
	for i := first; i < last; i++ { // the cell of f between h·i and h·(i+1)
		end := min(to, max(x, r.inverse(h*float64(i+1))))
		if i == last-1 {
			end = to
		}
		pieces := int(math.Ceil(20 * (end - x) / r.z))
		width := (end - x) / float64(pieces)
		lower := i
		if r.added {
			lower = -i - 1
		}
		var up, down float64
		for k := range pieces {
			middle := x + (float64(k)+0.5)*width
			for _, g := range gauss3 {
				y := middle + g.at*width
				l := r.f(y)
				if r.added {
					l = -l
				}
				mass := g.weight * width * r.density(y)
				share := min(1, max(0, -math.Expm1(h*float64(lower)-l)/whole))
				up += share * mass
				down += (1 - share) * mass
			}
		}
		*at(lower + 1) += up
		*at(lower) += down
		x = end
	}
	return p, infinite
}

// gauss3 integrates polynomials of degree 5 over [−½, ½].
var gauss3 = [3]struct{ at, weight float64 }{
	{-0.3872983346207417, 5.0 / 18}, {0, 8.0 / 18}, {0.3872983346207417, 5.0 / 18},
}

// composed returns the loss of all rounds of the releases, by a fast Fourier transform of each, powers and products, and one
// transform back, on a circle of n grid points. What Chernoff's bound leaves outside of the circle's window could lie on either
// side, so it is counted as an infinite loss.
func composed(releases []Release, added bool) loss {
	w := windowOf(releases, added)
	h, n := w.h, w.n
	fft := fourier.NewFFT(n)
	product := make([]complex128, n/2+1)
	for i := range product {
		product[i] = 1
	}
	var coeff []complex128
	finite := 0.0            // ln P(no infinite loss in any round)
	above, below := 0.0, 0.0 // logarithms of moment generating functions at ±t
	for i, r := range releases {
		one := newRound(r, added)
		p, infinite := one.discretise(h, n)
		rounds := float64(r.Rounds)
		finite += rounds * math.Log1p(-infinite)
		above += rounds * w.above.of(w.points[i], h)
		below += rounds * w.below.of(w.points[i], h)
		coeff = fft.Coefficients(coeff, p)
		for i, c := range coeff {
			product[i] *= power(c, rounds)
		}
	}
	p := fft.Sequence(nil, product)
	l := loss{h: h, low: w.low, p: make([]float64, n), infinite: -math.Expm1(finite)}
	for i := range l.p {
		k := (w.low + i) % n
		if k < 0 {
			k += n
		}
		l.p[i] = max(0, p[k]/float64(n))
	}
	l.infinite += math.Exp(min(0, above-w.above.t*h*float64(w.low+n)))
	l.infinite += math.Exp(min(0, below-w.below.t*h*float64(w.low)))
	l.infinite = min(1, l.infinite)
	return l
}

// power returns c^k.
func power(c complex128, k float64) complex128 {
	if k == 1 || c == 0 {
		return c
	}
	return cmplx.Rect(math.Exp(k*math.Log(cmplx.Abs(c))), k*cmplx.Phase(c))
}

// tilt bounds a tail of a sum of losses: P(±Σ L ≥ y) ≤ e^{−t·y}·Π E[e^{t·L}], with t < 0 for the lower tail.
type tilt struct{ t float64 }

// of returns a bound on ln E[e^{t·L}] of one round on a grid of step h. Dividing a point L among grid points within h of one
// another leaves E[e^{−L}] as it is, so by Hoeffding's lemma it moves the mean by at most h²/8, and raises ln E[e^{tL}] by at
// most (|t| + t²)·h²/8; and by |t|·h at most in any case.
func (t tilt) of(p points, h float64) float64 {
	var m float64
	top := math.Inf(-1)
	for _, l := range p.loss {
		top = max(top, t.t*l)
	}
	for i, l := range p.loss {
		m += p.mass[i] * math.Exp(t.t*l-top)
	}
	a := math.Abs(t.t)
	return top + math.Log(m) + min(a*h, (a+a*a)*h*h/8)
}

// window is the part of the grid that composed losses are kept on: n points from low, a power of two.
type window struct {
	h            float64
	low, n       int
	above, below tilt
	points       []points // of one round of each release
}

func windowOf(releases []Release, added bool) window {
	var variance, rounds float64
	widest := 0.0
	all := make([]points, len(releases))
	for i, r := range releases {
		one := newRound(r, added)
		all[i] = one.points()
		variance += float64(r.Rounds) * all[i].variance()
		rounds += float64(r.Rounds)
		from, to := one.span()
		widest = max(widest, one.f(to)-one.f(from))
	}
	sd := math.Sqrt(variance / rounds)
	tail := func(sign, h float64) (end float64, best tilt) {
		end = math.Inf(1)
		for k := -20; k <= 20; k++ { // in units of the deviation of the sum
			t := tilt{sign * math.Exp2(float64(k)/2) / math.Sqrt(variance)}
			var m float64
			for i, r := range releases {
				m += float64(r.Rounds) * t.of(all[i], h)
			}
			if e := (m - math.Log(tailMass)) / math.Abs(t.t); e < end {
				end, best = e, t
			}
		}
		return end, best
	}
	for h := max(sd/cellsPerSD, widest/singleCells); ; h *= 2 {
		high, above := tail(1, h)
		low, below := tail(-1, h)
		if n := 1 << bits.Len(uint(max(1000, min(mostCells, (high+low)/h+8)))); n <= mostCells {
			return window{h: h, low: int(math.Floor(-low/h)) - 2, n: n, above: above, below: below, points: all}
		}
	}
}
