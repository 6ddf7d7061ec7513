package gal

import (
	"errors"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/federated"
	"gonum.org/v1/gonum/mat"
)

// protect returns residuals as they are sent, behind the noise of the options. Noise comes from the coordinator's secrets, which
// nobody can predict.
func (a *Algorithm) protect(srv federated.Server, r *mat.Dense, round int) (*mat.Dense, error) {
	if a.Privacy == "none" {
		return r, nil
	}
	if srv.Secret == nil {
		return nil, errors.New("privacy: noise must be secret, and nobody here keeps secrets")
	}
	key, err := srv.Secret(round, "residuals")
	if err != nil {
		return nil, fmt.Errorf("privacy: %w", err)
	}
	return a.disturb(rand.New(rand.NewChaCha8(key)), r), nil
}

// disturb puts the noise of the options on residuals.
func (a *Algorithm) disturb(random *rand.Rand, r *mat.Dense) *mat.Dense {
	lo, hi := a.clip(r)
	switch a.Privacy {
	case "laplace":
		return Laplace(random, r, lo, hi, a.Budget)
	case "interval":
		return Interval(random, r, lo, hi, int(a.Budget))
	}
	return r
}

// clip is where residuals are clipped.
func (a *Algorithm) clip(r *mat.Dense) (lo, hi float64) {
	if a.Bound == 0 {
		return middle(r)
	}
	return -a.Bound, a.Bound
}

// likelihood is that of the mechanism that the options name; nil where there is none, or the mean of several intervals is about normal.
func (a *Algorithm) likelihood(r *mat.Dense) assisted.Likelihood {
	lo, hi := a.clip(r)
	switch {
	case a.Privacy == "laplace":
		return func(v, r float64) float64 { return -math.Abs(v-min(max(r, lo), hi)) * a.Budget / (hi - lo) }
	case a.Privacy == "interval" && a.Budget == 1:
		return func(v, r float64) float64 { // the threshold was on either side
			density := 1e-12
			if v <= hi && v > 2*r-hi {
				density++
			}
			if v >= lo && v <= 2*r-lo {
				density++
			}
			return math.Log(density)
		}
	}
	return nil
}

// middle returns the quantiles of 2.5 % and 97.5 % of all numbers of r, interpolated between neighbours.
func middle(r *mat.Dense) (lo, hi float64) {
	v := slices.DeleteFunc(slices.Clone(r.RawMatrix().Data), math.IsNaN)
	slices.Sort(v)
	at := func(share float64) float64 {
		x := float64(share * float64(len(v)-1))
		i := int(x)
		if i+1 == len(v) {
			return v[i]
		}
		return v[i] + float64((x-float64(i))*(v[i+1]-v[i]))
	}
	return at(0.025), at(0.975)
}

// Laplace returns r clipped to [lo, hi] with independent Laplace noise of scale (hi − lo)/epsilon on every number: its variance is
// 2((hi − lo)/epsilon)², and the number is epsilon-differentially private if lo and hi do not depend on the data. Masked rows
// stay masked.
func Laplace(random *rand.Rand, r *mat.Dense, lo, hi, epsilon float64) *mat.Dense {
	scale := (hi - lo) / epsilon
	return each(r, func(v float64) float64 {
		u := random.Float64() - 0.5
		noise := math.Copysign(float64(scale*-math.Log1p(-2*math.Abs(u))), u)
		return min(max(v, lo), hi) + noise
	})
}

// Interval returns what interval privacy tells of r: k times a threshold U is drawn uniformly from [lo, hi] for every number, and
// told is the middle of the side that the number lies on, widened so that its mean is the number: 2U − hi if it is below U,
// else 2U − lo. The mean of the k is sent. Within [lo, hi] it is unbiased, and for lo = −A, hi = A its variance is (A²/3 + r²)/k.
func Interval(random *rand.Rand, r *mat.Dense, lo, hi float64, k int) *mat.Dense {
	return each(r, func(v float64) float64 {
		sum := 0.0
		for range k {
			u := lo + float64((hi-lo)*random.Float64())
			if v < u {
				sum += 2*u - hi
			} else {
				sum += 2*u - lo
			}
		}
		return sum / float64(k)
	})
}

func each(r *mat.Dense, f func(float64) float64) *mat.Dense {
	var out mat.Dense
	out.Apply(func(_, _ int, v float64) float64 {
		if math.IsNaN(v) {
			return v
		}
		return f(v)
	}, r)
	return &out
}

// Epsilon is what the privacy of one row is worth after a run.
type Epsilon struct {
	Number   float64 // of one number in one round
	Basic    float64 // of all that is sent of a row, added up
	Advanced float64 // the same at delta, by advanced composition (Dwork and Roth 2014, theorem 3.20); the lesser of both counts
	Delta    float64
	// Holds says that clip bounds were set and not read off the data. Else the figures are not a guarantee.
	Holds bool
}

// Epsilon composes what is spent on K numbers a row in each planned round. It is about residuals, not features, and only for the
// Laplace mechanism.
func (a *Algorithm) Epsilon(delta float64) Epsilon {
	n := float64(a.Rounds * a.Sponsor.Outputs())
	e := a.Budget
	advanced := float64(math.Sqrt(2*n*math.Log(1/delta))*e) + float64(n*e*math.Expm1(e))
	return Epsilon{Number: e, Basic: n * e, Advanced: math.Min(advanced, n*e), Delta: delta, Holds: a.Bound > 0}
}
