package dp_test

import (
	"math"
	"slices"
	"testing"

	"github.com/cohort-learning/cohort/secure/dp"
)

func TestSkellamReferences(t *testing.T) {
	for _, tt := range []struct {
		alpha            int
		l1, l2, mu, want float64
	}{
		{2, 1, 1, 1, 2.5}, {2, 100, 10, 400, .25140625}, {8, 100, 10, 400, 1.00328125},
		{32, 4096, 64, 65536, 1.00001645088}, {16, 32000, 1000, 1e6, 8.000007798},
	} {
		if got := dp.SkellamDivergence(tt.alpha, tt.l1, tt.l2, tt.mu); !near(got, tt.want, 1e-10) {
			t.Errorf("%+v: %.12g", tt, got)
		}
	}
	// (Δ₁, Δ₂, µ, T, δ) = (4096, 64, 65536, 50, 1e-5): a dimension and clip bound that give these norms without rounding up.
	s := dp.Skellam{Clip: 56, Scale: 1 / (1 + 0x1p-20), Dimension: 64, Noise: 256 / 56. * (1 + 0x1p-20), Survivors: 1}
	l1, l2 := s.Norms()
	if !near(l2, 64, 1e-9) || !near(l1, 512, 1e-9) || !near(s.Variance(), 65536, 1e-9) {
		t.Fatal(l1, l2, s.Variance())
	}
	// Δ₁ is smaller here than in the reference, and hardly matters.
	if e := s.Curve(50).Epsilon(1e-5); !near(e, 9.338017, 1e-4) || e > 9.338017 {
		t.Errorf("ε = %.6f", e)
	}
}

// besselWeights returns the probabilities of Skellam noise of variance µ at −n … n, from the two Poisson distributions.
func besselWeights(mu float64, n int) []float64 {
	poisson := make([]float64, 400)
	for k := range poisson {
		l, _ := math.Lgamma(float64(k) + 1)
		poisson[k] = math.Exp(float64(k)*math.Log(mu/2) - mu/2 - l)
	}
	out := make([]float64, 2*n+1)
	for i := range out {
		for k, p := range poisson {
			if j := k + i - n; j >= 0 && j < len(poisson) {
				out[i] += poisson[j] * p
			}
		}
	}
	return out
}

// In one dimension the divergence can be summed: it stays under the bound, and the bound is not far off.
func TestSkellamBound(t *testing.T) {
	for _, mu := range []float64{1, 4, 20, 60} {
		const n = 90
		p := besselWeights(mu, n)
		for _, shift := range []int{1, 2, 3} {
			for _, alpha := range []int{2, 3, 5} {
				var sum float64
				for i := shift; i < len(p); i++ {
					if p[i] > 1e-250 && p[i-shift] > 1e-250 {
						sum += math.Exp(float64(alpha)*math.Log(p[i-shift]) - float64(alpha-1)*math.Log(p[i]))
					}
				}
				exact := math.Log(sum) / float64(alpha-1)
				bound := dp.SkellamDivergence(alpha, float64(shift), float64(shift), mu)
				if exact > bound*(1+1e-9) || mu >= 20 && bound > 1.2*exact {
					t.Errorf("µ %v, shift %d, α %d: divergence %.6f, bound %.6f", mu, shift, alpha, exact, bound)
				}
			}
		}
	}
}

func TestPoisson(t *testing.T) {
	const draws = 100_000
	noise := dp.NewNoise(seeded(4))
	for _, rate := range []float64{0, .3, 9.9, 10, 57, 1e6, 1e9} {
		var sum, square float64
		counts := map[int64]int{}
		for range draws {
			v, err := noise.Poisson(rate)
			if err != nil || v < 0 {
				t.Fatal(v, err)
			}
			counts[v]++
			sum += float64(v) - rate
			square += (float64(v) - rate) * (float64(v) - rate)
		}
		mean, variance := sum/draws, square/draws
		if math.Abs(mean) > 4*math.Sqrt(rate/draws) || math.Abs(variance-rate) > 4*math.Sqrt((2*rate*rate+rate)/draws) {
			t.Errorf("rate %v: mean off by %v, variance %v", rate, mean, variance)
		}
		if rate > 100 {
			continue
		}
		var chi, bins float64
		for k := range int64(100) {
			l, _ := math.Lgamma(float64(k) + 1)
			want := draws * math.Exp(float64(k)*math.Log(rate)-rate-l)
			if want > 20 {
				chi += (float64(counts[k]) - want) * (float64(counts[k]) - want) / want
				bins++
			}
		}
		if chi > bins+4*math.Sqrt(2*bins)+4 {
			t.Errorf("rate %v: χ² = %.1f in %v bins", rate, chi, bins)
		}
	}
}

func TestSkellamSum(t *testing.T) {
	const d, members = 5000, 20
	s := dp.Skellam{Clip: 1, Scale: 1000, Dimension: d, Noise: .05, Survivors: members, Beta: math.Exp(-.5)}
	x := make([]float64, d)
	x[3] = .6
	x[4] = -.8
	random := seeded(6)
	sum := make([]float64, d)
	for range members {
		y, err := s.Hide(random, x)
		if err != nil {
			t.Fatal(err)
		}
		for i, v := range y {
			sum[i] += float64(v)
		}
	}
	if got := sum[3] / s.Scale; math.Abs(got-.6*members) > .3 {
		t.Errorf("20 times 0.6 give %v", got)
	}
	var square float64
	for _, v := range sum[5:] {
		square += v * v
	}
	if sd := math.Sqrt(square/(d-5)) / s.Scale; !near(sd, .05, .04) {
		t.Errorf("the noise has deviation %v, want 0.05", sd)
	}
	// Without noise it is the rounded update, of norm within the bound, and right on average.
	s.Noise, s.Scale, s.Dimension = 0, 2, 50
	x = slices.Repeat([]float64{.1}, 50)
	_, most := s.Norms()
	var mean float64
	for range 2000 {
		y, err := s.Hide(random, x)
		if err != nil {
			t.Fatal(err)
		}
		var square float64
		for _, v := range y {
			square += float64(v * v)
			mean += float64(v) / 2000 / 50 / s.Scale
		}
		if math.Sqrt(square) > most {
			t.Fatalf("norm %v of %v", math.Sqrt(square), most)
		}
	}
	if !near(mean, .1, .1) {
		t.Errorf("0.1 is rounded to %v on average", mean)
	}
	ok := s
	for name, change := range map[string]func(*dp.Skellam){
		"clip": func(s *dp.Skellam) { s.Clip = 0 }, "scale": func(s *dp.Skellam) { s.Scale = math.NaN() },
		"dimension": func(s *dp.Skellam) { s.Dimension = 49 }, "noise": func(s *dp.Skellam) { s.Noise = -1 },
		"survivors": func(s *dp.Skellam) { s.Survivors = 0 }, "beta": func(s *dp.Skellam) { s.Beta = 1 },
		"variance": func(s *dp.Skellam) { s.Noise, s.Scale = 1, 1e9 }, "norm": func(s *dp.Skellam) { s.Clip = .01 },
	} {
		bad := ok
		change(&bad)
		if _, err := bad.Hide(random, x); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestFinestScale: at the scale that is chosen a share can be drawn, and at twice that it cannot, or need not.
func TestFinestScale(t *testing.T) {
	for _, s := range []dp.Skellam{
		{Clip: 0.5, Noise: 2, Survivors: 41, Dimension: 10}, {Clip: 1e-3, Noise: 1, Survivors: 7, Dimension: 10},
		{Clip: 100, Noise: 5, Survivors: 1000, Dimension: 1},
	} {
		s.Scale = s.FinestScale()
		if err := s.Validate(); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
		s.Scale *= 2
		if err := s.Validate(); err == nil && s.Scale <= 1<<20 {
			t.Errorf("%+v: a finer scale would do", s)
		}
	}
}
