package dp_test

import (
	cryptorand "crypto/rand"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/secure/dp"
	"github.com/cohort-learning/cohort/weights"
)

// seeded is a source of bytes that are the same in every test.
func seeded(seed byte) io.Reader { return rand.NewChaCha8([32]byte{seed}) }

func normalCDF(x float64) float64 { return math.Erfc(-x/math.Sqrt2) / 2 }

func TestNormalIsExact(t *testing.T) {
	const n = 200_000
	for _, sigma := range []uint64{1, 7, 1<<49 + 1} {
		noise := dp.NewNoise(seeded(1))
		edges := []float64{-3, -2, -1.3, -.7, -.2, 0, .2, .7, 1.3, 2, 3}
		counts := make([]int, len(edges)+1)
		var sum, square float64
		for range n {
			v, err := noise.Normal(sigma)
			if err != nil {
				t.Fatal(err)
			}
			x := float64(v) / float64(sigma)
			sum, square = sum+x, square+x*x
			k := 0
			for k < len(edges) && float64(v) >= math.Floor(edges[k]*float64(sigma)) {
				k++
			}
			counts[k]++
		}
		// Pearson's statistic against the bins of ⌊σN⌋; with sigma 1 some are empty.
		var chi float64
		last := 0.0
		for k, c := range counts {
			p := 1.0
			if k < len(edges) {
				p = normalCDF(math.Floor(edges[k]*float64(sigma)) / float64(sigma))
			}
			if want := (p - last) * n; want > 0 {
				chi += (float64(c) - want) * (float64(c) - want) / want
			} else if c != 0 {
				t.Errorf("sigma %d: %d draws in an empty bin", sigma, c)
			}
			last = p
		}
		if chi > 33 { // 11 degrees of freedom: 1 in 2,000
			t.Errorf("sigma %d: χ² = %.1f for 11 degrees of freedom", sigma, chi)
		}
		mean, sd := sum/n+.5/float64(sigma), math.Sqrt(square/n-sum/n*sum/n)
		if want := math.Sqrt(1 + 1/(12*float64(sigma)*float64(sigma))); math.Abs(mean) > 4/math.Sqrt(n) || !near(sd, want, .01) {
			t.Errorf("sigma %d: mean %v, deviation %v", sigma, mean, sd)
		}
	}
}

// The floor is decided by digits that are drawn when they are needed; a source of long runs of zeros and ones needs many.
func TestNormalNeedsManyDigits(t *testing.T) {
	noise := dp.NewNoise(io.MultiReader(strings.NewReader(strings.Repeat("\x00\xff\x00\xff\x80\x00\x00\x01", 512)), seeded(3)))
	for range 1000 {
		if _, err := noise.Normal(1<<50 - 1); err != nil {
			t.Fatal(err)
		}
	}
}

func TestSourceThatFails(t *testing.T) {
	noise := dp.NewNoise(io.LimitReader(seeded(1), 10_000))
	var err error
	for i := 0; err == nil; i++ {
		if _, err = noise.Normal(9); i > 10_000 {
			t.Fatal("no error")
		}
	}
	if !errors.Is(err, io.ErrUnexpectedEOF) || noise.Err() == nil {
		t.Errorf("%v, %v", err, noise.Err())
	}
	if _, err = noise.Normal(9); err == nil {
		t.Error("no error the second time")
	}
	c := dp.Central{Clip: 1, Noise: 1, Fraction: 1, Members: 3}
	sum := weights.NewAcc(vector(0, 0), false)
	if _, err := c.Mean(strings.NewReader("short"), sum, weights.Float32); err == nil {
		t.Error("a mean without noise")
	}
}

func vector(x ...float64) weights.Set {
	var s weights.Set
	s.Put("w", weights.Of64(x, len(x)))
	return s
}

// TestAttack plays the best attack on the Gaussian mechanism: it guesses "there" if the sum is above a threshold. Whatever the
// threshold, P(guess | there) ≤ e^ε·P(guess | not there) + δ; with half the noise that is caught.
func TestAttack(t *testing.T) {
	const trials, delta = 40_000, 1e-2
	eps := epsilon(t, dp.PLD, delta, dp.Release{Fraction: 1, Noise: 1, Rounds: 1})
	excess := func(z float64) float64 {
		c := dp.Central{Clip: 2, Noise: z, Fraction: 1, Members: 1}
		random := seeded(5)
		draw := func(there bool) []float64 {
			sum := weights.NewAcc(vector(make([]float64, trials)...), false)
			s, err := c.Mean(random, sum, weights.Float64)
			if err != nil {
				t.Fatal(err)
			}
			out := s.Must("w").F64
			if there { // one coordinate a trial: the worst update lies along an axis
				for i := range out {
					out[i] += c.Clip
				}
			}
			return out
		}
		with, without := draw(true), draw(false)
		worst := math.Inf(-1)
		for k := range 60 {
			threshold := 2 * (-2 + float64(k)/10)
			var hit, alarm float64
			for i := range with {
				if with[i] > threshold {
					hit++
				}
				if without[i] > threshold {
					alarm++
				}
			}
			worst = max(worst, hit/trials-math.Exp(eps)*alarm/trials-delta)
		}
		return worst
	}
	// Five standard deviations of the estimate where the bound is tight.
	margin := 5 * (1 + math.Exp(eps)*.07) * .5 / math.Sqrt(trials)
	if e := excess(1); e > margin {
		t.Errorf("the attack exceeds the bound of ε = %.3f by %.4f, allowed %.4f", eps, e, margin)
	}
	if e := excess(1); e < -margin {
		t.Errorf("the best attack stays %.4f below the bound: it should reach it", -e)
	}
	if e := excess(.5); e < 3*margin {
		t.Errorf("half the noise is not noticed: excess %.4f", e)
	}
}

func BenchmarkNormal(b *testing.B) {
	noise := dp.NewNoise(cryptorand.Reader)
	for b.Loop() {
		if _, err := noise.Normal(1 << 30); err != nil {
			b.Fatal(err)
		}
	}
}
