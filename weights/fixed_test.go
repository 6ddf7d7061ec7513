package weights

import (
	"math"
	"math/big"
	"testing"

	"pgregory.net/rapid"
)

// big returns f in units of 2⁻⁹⁶.
func (f fixed) big() *big.Int {
	n := new(big.Int).Lsh(big.NewInt(f.hi), 64)
	return n.Add(n, new(big.Int).SetUint64(f.lo))
}

// exact returns weight·x in units of 2⁻⁹⁶, rounded half to even by its definition.
func exact(x float64, weight uint64) *big.Int {
	r := new(big.Rat).SetFloat64(x)
	r.Mul(r, new(big.Rat).SetInt(new(big.Int).SetUint64(weight)))
	r.Mul(r, new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), 96)))
	floor, rest := new(big.Int).DivMod(r.Num(), r.Denom(), new(big.Int)) // rest ≥ 0
	switch rest.Lsh(rest, 1).Cmp(r.Denom()) {
	case 1:
		floor.Add(floor, big.NewInt(1))
	case 0:
		floor.Add(floor, big.NewInt(int64(floor.Bit(0))))
	}
	return floor
}

// genTerm draws values of any exponent, denormals included, and weights with |weight·x| < 2³¹.
func genTerm(single bool) *rapid.Generator[struct {
	x      float64
	weight uint64
}] {
	return rapid.Custom(func(t *rapid.T) (v struct {
		x      float64
		weight uint64
	}) {
		v.weight = rapid.Uint64Range(0, 1<<rapid.IntRange(0, 63).Draw(t, "bits")).Draw(t, "weight") + 1
		bits := rapid.Uint64().Draw(t, "mantissa")&(1<<52-1) | 1<<52
		if rapid.Bool().Draw(t, "few bits") {
			bits &^= 1<<rapid.IntRange(0, 52).Draw(t, "zeros") - 1
		}
		exp := rapid.OneOf(rapid.IntRange(-220, 30), rapid.IntRange(-100, -90), rapid.IntRange(-1075, -1020)).Draw(t, "exponent")
		v.x = math.Ldexp(float64(bits), exp-52)
		if single {
			v.x = float64(float32(v.x))
		}
		if rapid.Bool().Draw(t, "negative") {
			v.x = -v.x
		}
		for math.Abs(v.x)*float64(v.weight) >= 1<<31 {
			v.weight = max(1, v.weight/2)
			if v.weight == 1 {
				v.x = math.Copysign(1, v.x)
			}
		}
		return v
	})
}

func TestProduct(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := genTerm(false).Draw(t, "term")
		if got, want := product(v.x, v.weight).big(), exact(v.x, v.weight); got.Cmp(want) != 0 {
			t.Fatalf("%d·%g = %v·2⁻⁹⁶, expected %v", v.weight, v.x, got, want)
		}
	})
	// Halves go to the even neighbour.
	for _, c := range []struct {
		x      float64
		weight uint64
		want   int64
	}{
		{0x1p-97, 1, 0}, {0x1p-97, 2, 1}, {0x1p-97, 3, 2}, {0x1p-97, 5, 2}, {0x1p-97, 7, 4}, {-0x1p-97, 1, 0}, {-0x1p-97, 3, -2},
		{0x1.8p-97, 1, 1}, {0x1.0000000000001p-97, 1, 1}, {0x1.fffffffffffffp-98, 1, 0}, {0x1p-98, 3, 1}, {0x1p-98, 2, 0},
		{math.SmallestNonzeroFloat64, 1 << 62, 0}, {0, 9, 0}, {math.Copysign(0, -1), 9, 0}, {0x1p-160, 1 << 63, 0}, {0x1p-160, 1<<63 + 1, 1},
	} {
		if got := product(c.x, c.weight).big(); got.Cmp(big.NewInt(c.want)) != 0 {
			t.Errorf("%d·%x = %v·2⁻⁹⁶, expected %d", c.weight, c.x, got, c.want)
		}
	}
}

// The fast loop gives what the general one gives.
func TestAddFloat32(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		v := genTerm(true).Draw(t, "term")
		start := fixed{rapid.Uint64().Draw(t, "lo"), rapid.Int64Range(-1<<62, 1<<62).Draw(t, "hi")}
		sum := []fixed{start}
		addFloat32(sum, []float32{float32(v.x)}, v.weight)
		if want := start.add(product(v.x, v.weight)); sum[0] != want {
			t.Fatalf("%d·%g: got %v, expected %v", v.weight, v.x, sum[0].big(), want.big())
		}
	})
	for exp := -149; exp <= 30; exp++ { // every exponent, both signs, both ends of the mantissa
		for _, man := range []float64{1, 1 + 0x1p-23, 2 - 0x1p-23, 1.5} {
			for _, x := range []float32{float32(math.Ldexp(man, exp)), -float32(math.Ldexp(man, exp))} {
				for _, w := range []uint64{1, 3, 1<<39 - 1, 1 << 39, 1<<40 + 1, 1 << 45, 1<<62 - 1} {
					if math.Abs(float64(x))*float64(w) >= 1<<31 {
						continue
					}
					var sum [1]fixed
					addFloat32(sum[:], []float32{x}, w)
					if want := product(float64(x), w); sum[0] != want {
						t.Fatalf("%d·%g: got %v, expected %v", w, x, sum[0].big(), want.big())
					}
				}
			}
		}
	}
}

func TestFixedFloat(t *testing.T) {
	check := func(f fixed) (got, want float64) {
		want, _ = new(big.Rat).SetFrac(f.big(), new(big.Int).Lsh(big.NewInt(1), 96)).Float64()
		return f.float(), want
	}
	rapid.Check(t, func(t *rapid.T) {
		f := fixed{rapid.Uint64().Draw(t, "lo"), rapid.Int64().Draw(t, "hi") >> rapid.IntRange(0, 63).Draw(t, "zeros")}
		if rapid.Bool().Draw(t, "half") { // numbers in the middle between two float64, or close to it
			n := uint(rapid.IntRange(0, 72).Draw(t, "shift"))
			m := rapid.Uint64Range(1<<52, 1<<53-1).Draw(t, "mantissa")<<2 | 2
			f = fixed{m << n, int64(m >> 1 >> (63 - min(n, 63)))}
			if n >= 64 {
				f = fixed{0, int64(m << (n - 64))}
			}
			f = f.add(fixed{uint64(rapid.Int64Range(-1, 1).Draw(t, "near")), 0})
		}
		if got, want := check(f); got != want {
			t.Fatalf("%v·2⁻⁹⁶ = %x, expected %x", f.big(), got, want)
		}
	})
	for _, f := range []fixed{{}, {1, 0}, {math.MaxUint64, -1}, {0, math.MinInt64}, {math.MaxUint64, math.MaxInt64}, {0, 1}, {0, -1}, {1, 1}} {
		if got, want := check(f); got != want {
			t.Errorf("%v·2⁻⁹⁶ = %x, expected %x", f.big(), got, want)
		}
	}
}

func TestAddBound(t *testing.T) {
	below := math.Nextafter(1<<31, 0)
	for _, c := range []struct {
		f      fixed
		x      float64
		weight uint64
		ok     bool
	}{
		{fixed{}, below, 1, true},
		{fixed{}, 1 << 31, 1, false},
		{fixed{}, 1, 1<<31 - 1, true},
		{fixed{}, 1, 1 << 31, false},
		{fixed{}, 0x1p-22, 1<<53 - 1, true},
		{fixed{}, 0x1p-22, 1 << 53, false},
		{fixed{}, math.MaxFloat64, 1, false},
		{fixed{}, math.MaxFloat64, math.MaxUint64, false},
		{fixed{}, 0, 1<<63 - 1, true},
		{fixed{math.MaxUint64, math.MaxInt64}, 0, 1, true},
		{fixed{math.MaxUint64, math.MaxInt64}, 0x1p-96, 1, false},
		{fixed{math.MaxUint64, math.MaxInt64}, 0x1p-97, 1, true}, // rounds to 0, as the sum does
		{fixed{0, 1 << 62}, 1 << 30, 1, false},
		{fixed{0, 1<<62 - 1}, 1 << 30, 1, true},
	} {
		got, ok := c.f.addBound(c.x, c.weight)
		if ok != c.ok {
			t.Errorf("%v + %d·%g: ok is %v", c.f.big(), c.weight, c.x, ok)
		}
		if want := new(big.Int).Add(c.f.big(), exact(c.x, c.weight)); ok && got.big().Cmp(want) != 0 {
			t.Errorf("%v + %d·%g = %v, expected %v", c.f.big(), c.weight, c.x, got.big(), want)
		}
	}
}
