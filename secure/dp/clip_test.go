package dp_test

import (
	"math"
	"testing"

	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/secure/dp"
	"github.com/cohort-learning/cohort/weights"
	"pgregory.net/rapid"
)

func TestClip(t *testing.T) {
	var x weights.Set
	x.Put("a", weights.Of32([]float32{3, 0}, 2))
	x.Put("b", weights.Of32([]float32{4}, 1))
	y, norm, err := dp.Clip(x, 1)
	if err != nil || norm != 5 || !near(y.Norm(), 1, 1e-6) || !near(y.Must("b").At(0), .8, 1e-6) || x.Norm() != 5 {
		t.Errorf("%v %v %v, x %v", y, norm, err, x)
	}
	if y, _, _ := dp.Clip(x, 5); !y.Equal(x) {
		t.Error("an update as long as the bound changes")
	}
	if y, _, _ := dp.Clip(x, math.Inf(1)); !y.Equal(x) {
		t.Error("no bound changes an update")
	}
	if y, norm, err := dp.Clip(x.Zeros(), 1); err != nil || norm != 0 || y.Norm() != 0 {
		t.Error("zero", y, norm, err)
	}
	if y, err := dp.ClipEach(x, math.Sqrt2*2); err != nil || !near(y.Must("a").At(0), 2, 1e-6) || !near(y.Must("b").At(0), 2, 1e-6) {
		t.Error("each:", y, err)
	}
	if _, _, err := dp.Clip(vector(math.NaN(), 1), 1); err == nil {
		t.Error("NaN is clipped")
	}
	if _, _, err := dp.Clip(vector(math.MaxFloat64, math.MaxFloat64), 1); err == nil {
		t.Error("an endless update is clipped")
	}
	rapid.Check(t, func(r *rapid.T) {
		v := rapid.SliceOfN(rapid.Float32Range(-1e30, 1e30), 1, 50).Draw(r, "v")
		bound := float64(rapid.Float32Range(1e-30, 1e30).Draw(r, "bound"))
		var x weights.Set
		x.Put("w", weights.Of32(v, len(v)))
		if y, _, err := dp.Clip(x, bound); err != nil || y.Norm() > bound*(1+0x1p-22)+1e-44 {
			r.Errorf("norm %v of bound %v, %v", y.Norm(), bound, err)
		}
	})
}

func TestAdaptive(t *testing.T) {
	// Half of all norms are below 3: the bound gets there from 0.1, and then stays.
	const members = 1000
	a := dp.NewAdaptive(.2, members)
	if err := a.Validate(); err != nil || a.CountNoise != 10 {
		t.Fatal(a, err)
	}
	random, r := seeded(9), rng.New(1, 0, "", "norms")
	clip := dp.FirstClip
	var late float64
	for round := range 200 {
		var bits float64
		for range members {
			if r.Float64() < a.Fraction {
				bits += dp.Bit(3*math.Exp(r.NormFloat64()), clip)
			}
		}
		var err error
		if clip, err = a.Next(random, clip, bits); err != nil {
			t.Fatal(err)
		}
		if round >= 100 {
			late += clip / 100
		}
	}
	if !near(late, 3, .1) {
		t.Errorf("the bound settles at %v, the median is 3", late)
	}
	// Without noise it is the formula.
	a = dp.Adaptive{Quantile: .5, Rate: .2, Fraction: .5, Members: 20}
	if s, err := a.Next(nil, 2, 3-1); err != nil || !near(s, 2*math.Exp(-.2*(2./10)), 1e-12) {
		t.Error(s, err)
	}
	// Update and count together cost one release with z.
	a = dp.NewAdaptive(.1, 1000)
	z, err := a.UpdateNoise(1.5)
	if err != nil || !near(1/(z*z)+1/(4*a.CountNoise*a.CountNoise), 1/(1.5*1.5), 1e-12) {
		t.Error(z, err)
	}
	if z, err := a.UpdateNoise(10); err == nil {
		t.Error("noise beyond the count's:", z)
	}
	if z, err := a.UpdateNoise(0); z != 0 || err != nil {
		t.Error(z, err)
	}
	for _, bad := range []dp.Adaptive{{}, {Quantile: 2, Rate: 1, Fraction: 1, Members: 1}, {Rate: 1, Fraction: 1}, {Rate: 1, Members: 1},
		{Rate: math.NaN(), Fraction: 1, Members: 1}, {Rate: 1, Fraction: 1, Members: 1, CountNoise: -1}} {
		if bad.Validate() == nil {
			t.Errorf("%+v is valid", bad)
		}
	}
}

func TestCentral(t *testing.T) {
	like := vector(make([]float64, 20_000)...)
	sum := weights.NewAcc(like, false)
	c := dp.Central{Clip: .5, Noise: 2, Fraction: .1, Members: 100}
	// Nobody came: noise all the same, and the divisor is qK = 10.
	m, err := c.Mean(seeded(2), sum, weights.Float64)
	if err != nil {
		t.Fatal(err)
	}
	sd := m.Norm() / math.Sqrt(float64(m.Size()))
	if want := 2 * .5 / 10; !near(c.Deviation(), want, 1e-12) || !near(sd, want, .02) {
		t.Errorf("deviation %v, %v, want %v", sd, c.Deviation(), want)
	}
	// The sum is added to the same noise.
	one := like.Clone()
	one.Must("w").F64[7] = .5
	sum.MustAdd(one, nil, nil, 1)
	with, err := c.Mean(seeded(2), sum, weights.Float64)
	if err != nil {
		t.Fatal(err)
	}
	d := with.Sub(m)
	if got := d.Must("w").F64[7]; !near(got, .05, 1e-8) || d.Norm() > .0500001 {
		t.Errorf("an update of 0.5 makes a difference of %v, in all %v", got, d.Norm())
	}
	// No noise, no bound, everybody: uniform averaging, to the bit.
	plain := dp.Central{Clip: math.Inf(1), Fraction: 1, Members: 1}
	mean, err := plain.Mean(nil, sum, weights.Float32)
	if err != nil || !mean.Equal(sum.Mean(weights.Float32)) {
		t.Error("without noise:", err)
	}
	// What was not clipped is refused.
	one.Must("w").F64[7] = 60
	sum.MustAdd(one, nil, nil, 1)
	if _, err := c.Mean(seeded(2), sum, weights.Float64); err == nil {
		t.Error("a sum beyond K·S passes")
	}
	for _, bad := range []dp.Central{{}, {Clip: math.Inf(1), Noise: 1, Fraction: 1, Members: 1}, {Clip: 1, Noise: -1, Fraction: 1, Members: 1},
		{Clip: 1, Noise: math.NaN(), Fraction: 1, Members: 1}, {Clip: 1, Fraction: 0, Members: 1}, {Clip: 1, Fraction: 1, Members: 0}} {
		if _, err := bad.Mean(seeded(1), sum, weights.Float64); err == nil {
			t.Errorf("%+v is valid", bad)
		}
	}
}
