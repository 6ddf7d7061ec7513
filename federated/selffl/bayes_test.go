package selffl

import (
	"math"
	"testing"

	"github.com/cohort-learning/cohort/rng"
)

// gaussian is one federation of the location model: estimates, their estimated variances and the truth.
func gaussian(r *rng.Stream, sizes []int, d int, between float64) (est, truth [][]float64, v []float64) {
	centre := make([]float64, d)
	for j := range centre {
		centre[j] = r.NormFloat64()
	}
	for _, n := range sizes {
		mean, own := make([]float64, d), make([]float64, d)
		variance := 0.0
		for j := range d {
			own[j] = centre[j] + math.Sqrt(between)*r.NormFloat64()
			var w Moments
			for range n {
				Observe(&w, []float64{own[j] + r.NormFloat64()})
			}
			mean[j] = w.mean[0]
			s2, _ := w.Variance(0, 1)
			variance += s2 / float64(n) / float64(d)
		}
		est, truth, v = append(est, mean), append(truth, own), append(v, variance)
	}
	return est, truth, v
}

// personalError is the mean squared error of the posterior means if σ_0² is between.
func personalError(est, truth [][]float64, v []float64, between float64) float64 {
	w, _ := Precisions(between, v)
	column := make([]float64, len(est))
	var sum float64
	for j := range est[0] {
		for m := range est {
			column[m] = est[m][j]
		}
		g := Global(column, w)
		for m := range est {
			e, _ := Posterior(est[m][j], v[m], between, g, 0)
			sum += (e - truth[m][j]) * (e - truth[m][j])
		}
	}
	return sum / float64(len(est)*len(est[0]))
}

// With fifty clients of 5 to 200 examples in twenty dimensions the plug-in of estimated variances is as good as knowing them,
// and better than staying alone or having one model for all. The errors of the others are closed forms: Σ s²/n_m/M alone,
// the exact posterior variance of the oracle, and of the sample-weighted mean σ_0² (1 − 2p_m + Σp²) + 1/N.
func TestPlugIn(t *testing.T) {
	sizes := make([]int, 50)
	for m := range sizes {
		sizes[m] = int(math.Round(5 * math.Pow(40, float64(m)/49)))
	}
	for _, c := range []struct{ between, alone, one, oracle float64 }{
		{.01, .05447517, .01036636, .00752727}, {.1, .05447517, .10031913, .02906503},
		{1, .05447517, .99984682, .04940047}, {10, .05447517, 9.99512373, .05390594},
	} {
		v := make([]float64, len(sizes))
		var alone, total, squares float64
		for m, n := range sizes {
			v[m] = 1 / float64(n)
			alone += v[m] / 50
			total += float64(n)
		}
		var one float64
		for _, n := range sizes {
			squares += float64(n*n) / total / total
		}
		for _, n := range sizes {
			one += (c.between*(1-2*float64(n)/total+squares) + 1/total) / 50
		}
		_, sum := Precisions(c.between, v)
		var oracle float64
		for m := range v {
			_, spread := Posterior(0, v[m], c.between, 0, 1/sum)
			oracle += spread / 50
		}
		for what, pair := range map[string][2]float64{"alone": {alone, c.alone}, "one model": {one, c.one}, "oracle": {oracle, c.oracle}} {
			if math.Abs(pair[0]-pair[1]) > 6e-9 {
				t.Errorf("σ_0² = %v, %s: error %.8f, want %.8f", c.between, what, pair[0], pair[1])
			}
		}
		const draws = 40
		var plug, biased, dl float64
		for i := range draws {
			est, truth, v := gaussian(rng.New(uint64(i), 0, "", "plug-in"), sizes, 20, c.between)
			s, err := Estimate(DerSimonianLaird, est, v)
			if err != nil {
				t.Fatal(err)
			}
			dl += s / draws
			plug += personalError(est, truth, v, s) / draws
			if s, err = Estimate(Naive, est, v); err != nil {
				t.Fatal(err)
			}
			biased += personalError(est, truth, v, s) / draws
		}
		t.Logf("σ_0² = %v: plug-in %.5f, oracle %.5f, naive %.5f, σ_0² estimated %.3f times", c.between, plug, oracle, biased, dl/c.between)
		if !(plug < alone && plug < one) {
			t.Errorf("σ_0² = %v: error %.5f is not below %.5f alone and %.5f with one model", c.between, plug, alone, one)
		}
		if plug/oracle > 1.03 { // 1.02 over 200 draws: see the study
			t.Errorf("σ_0² = %v: error %.5f, the oracle's is %.5f", c.between, plug, oracle)
		}
		if c.between == .01 && !(biased > one) {
			t.Errorf("without taking the clients' own variances off, the error is %.5f: it should be worse than one model's %.5f", biased, one)
		}
	}
}
