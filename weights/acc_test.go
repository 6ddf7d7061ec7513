package weights_test

import (
	"bytes"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/weights"
)

// contribution is what one client adds.
type contribution struct {
	x         weights.Set
	at, cover weights.Index
	weight    uint64
}

func (c contribution) add(t interface{ Fatalf(string, ...any) }, a *weights.Acc) {
	if err := a.Add(c.x, c.at, c.cover, c.weight); err != nil {
		t.Fatalf("%v", err)
	}
}

// genContribution draws a slice of like, of any kind and type, with values of any magnitude and a cover.
func genContribution(like weights.Set) *rapid.Generator[contribution] {
	return rapid.Custom(func(t *rapid.T) contribution {
		c := contribution{weight: rapid.Uint64Range(1, 1<<rapid.IntRange(0, 12).Draw(t, "weight bits")).Draw(t, "weight")}
		if rapid.Bool().Draw(t, "sliced") {
			c.at = weights.Index{}
			for n, x := range like.All() {
				if rapid.IntRange(0, 3).Draw(t, "held") > 0 {
					c.at[n] = genAxes(x.Shape).Draw(t, "axes")
				}
			}
		}
		if rapid.Bool().Draw(t, "covered") {
			c.cover = weights.Index{}
			for n, x := range like.All() {
				if rapid.IntRange(0, 3).Draw(t, "covers") > 0 {
					c.cover[n] = genAxes(x.Shape).Draw(t, "cover")
				}
			}
		}
		c.x = c.at.Slice(like)
		if rapid.Bool().Draw(t, "double") {
			c.x = c.x.Convert(weights.Float64)
		}
		for _, x := range c.x.All() {
			for i := range x.Len() {
				v := math.Ldexp(rapid.Float64Range(-1, 1).Draw(t, "value"), rapid.IntRange(-110, 10).Draw(t, "exponent"))
				if rapid.IntRange(0, 5).Draw(t, "tiny") == 0 {
					v = rapid.SampledFrom([]float64{0, negZero, 0x1p-149, -0x1p-149, 0x1p-97, 0x1.8p-96, -0x1p-97}).Draw(t, "special")
				}
				x.SetAt(i, v)
			}
		}
		return c
	})
}

func genLike(t *rapid.T) weights.Set {
	like := set("a", weights.NewTensor(weights.Float32, genShape().Draw(t, "shape")...))
	like.Put("b", weights.NewTensor(weights.Float32, genShape().Draw(t, "shape")...))
	return like
}

// toGrid returns weight·x as a multiple of 2⁻⁹⁶, rounded half to even, computed by its definition.
func toGrid(x float64, weight uint64) *big.Int {
	r := new(big.Rat).SetFloat64(x)
	r.Mul(r, new(big.Rat).SetInt(new(big.Int).SetUint64(weight)))
	r.Mul(r, new(big.Rat).SetInt(new(big.Int).Lsh(big.NewInt(1), 96)))
	floor, rest := new(big.Int).DivMod(r.Num(), r.Denom(), new(big.Int))
	if c := rest.Lsh(rest, 1).Cmp(r.Denom()); c > 0 || c == 0 && floor.Bit(0) == 1 {
		floor.Add(floor, big.NewInt(1))
	}
	return floor
}

// Sums, counts and means are those of exact arithmetic, for any slices, covers, types, magnitudes and weights.
func TestAccExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		like := genLike(t)
		counting := rapid.Bool().Draw(t, "counting")
		a := weights.NewAcc(like, counting)
		sums, counts := map[string][]*big.Int{}, map[string][]uint64{}
		for n, x := range like.All() {
			counts[n] = make([]uint64, x.Len())
			for range x.Len() {
				sums[n] = append(sums[n], new(big.Int))
			}
		}
		var total uint64
		for range rapid.IntRange(0, 6).Draw(t, "clients") {
			c := genContribution(like).Draw(t, "contribution")
			c.add(t, a)
			total += c.weight
			for n, x := range c.x.All() {
				covered := map[int]bool{}
				if axes, ok := c.cover[n]; ok || c.cover == nil {
					for _, g := range kept(like.Must(n).Shape, axes) {
						covered[g] = true
					}
				}
				for l, g := range kept(like.Must(n).Shape, c.at[n]) {
					if covered[g] {
						sums[n][g].Add(sums[n][g], toGrid(x.At(l), c.weight))
						counts[n][g] += c.weight
					}
				}
			}
		}
		if a.Weight() != total || !slices.Equal(a.Names(), like.Names()) {
			t.Fatalf("weight %d of %v, expected %d", a.Weight(), a.Names(), total)
		}
		mean, mean64, over := a.Mean(weights.Float32), a.Mean(weights.Float64), a.Over(3, weights.Float64)
		if err := mean.Match(like); err != nil {
			t.Fatal(err)
		}
		for n, s := range sums {
			for i, v := range s {
				want, _ := new(big.Rat).SetFrac(v, new(big.Int).Lsh(big.NewInt(1), 96)).Float64()
				if got := a.Total(n, i); got != want || math.Signbit(got) != (want < 0) {
					t.Fatalf("%s[%d]: sum %x, expected %x", n, i, got, want)
				}
				c := total
				if counting {
					c = counts[n][i]
				}
				if got := a.Count(n, i); got != c {
					t.Fatalf("%s[%d]: count %d, expected %d", n, i, got, c)
				}
				m := 0.0
				if c != 0 {
					m = want / float64(c)
				}
				if got := mean64.Must(n).At(i); got != m {
					t.Fatalf("%s[%d]: mean %x, expected %x", n, i, got, m)
				}
				if got := mean.Must(n).F32[i]; got != float32(m) {
					t.Fatalf("%s[%d]: mean %x, expected %x", n, i, got, float32(m))
				}
				if got := over.Must(n).At(i); got != want/3 {
					t.Fatalf("%s[%d]: third %x, expected %x", n, i, got, want/3)
				}
			}
		}
	})
}

func marshal(t interface{ Fatal(...any) }, a *weights.Acc) []byte {
	b, err := a.MarshalBinary()
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// I6 of the HeteroFL specification and more: any order and any grouping gives the same bits, also through bytes.
func TestAccOrderAndGrouping(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		like := genLike(t)
		counting := rapid.Bool().Draw(t, "counting")
		clients := rapid.SliceOfN(genContribution(like), 1, 6).Draw(t, "clients")
		a := weights.NewAcc(like, counting)
		for _, c := range clients {
			c.add(t, a)
		}
		groups := make([]*weights.Acc, rapid.IntRange(1, 4).Draw(t, "groups"))
		for i := range groups {
			groups[i] = weights.NewAcc(like, counting)
		}
		for _, c := range rapid.Permutation(clients).Draw(t, "order") {
			c.add(t, rapid.SampledFrom(groups).Draw(t, "group"))
		}
		b := weights.NewAcc(like, counting)
		for _, g := range rapid.Permutation(groups).Draw(t, "merge order") {
			var copied weights.Acc
			if err := copied.UnmarshalBinary(marshal(t, g)); err != nil {
				t.Fatal(err)
			}
			if err := b.Merge(&copied); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(marshal(t, a), marshal(t, b)) {
			t.Fatal("another order gives another sum")
		}
		if !a.Mean(weights.Float32).Equal(b.Mean(weights.Float32)) || !a.Mean(weights.Float64).Equal(b.Mean(weights.Float64)) {
			t.Fatal("another order gives another mean")
		}
	})
}

// I2 of the HeteroFL specification: the mean of k equal float32 sets is that set to the bit, for any weights.
func TestAccMeanOfCopies(t *testing.T) {
	r := rng.New(7, 0, "", "copies")
	const n = 4000
	x := weights.NewTensor(weights.Float32, n)
	for i := range x.F32 {
		// Any mantissa, magnitudes from 2⁻⁷³ to 16.
		x.F32[i] = math.Float32frombits(r.Uint32()&(1<<31|1<<23-1) | uint32(r.IntN(77)+127-73)<<23)
	}
	copy(x.F32, []float32{0, 1, -1, 0.1, -0.1, 1.0 / 3, 0x1p-73, 0x1.fffffep-73, -0x1.000002p-73, 0x1p-96, 0x1.8p-95})
	s := set("x", x)
	for _, weighted := range []bool{false, true} {
		a, counted := weights.NewAcc(s, false), weights.NewAcc(s, true)
		for k := 1; k <= 1000; k++ {
			w := uint64(1)
			if weighted {
				w += uint64(r.IntN(600))
			}
			a.MustAdd(s, nil, nil, w)
			counted.MustAdd(s, nil, nil, w)
			if k < 20 || k%37 == 0 || k == 1000 {
				if !a.Mean(weights.Float32).Equal(s) || !counted.Mean(weights.Float32).Equal(s) {
					t.Fatalf("mean of %d copies differs", k)
				}
			}
		}
	}
	// What the grid does not hold comes back as documented.
	tiny := set("x", weights.Of32([]float32{float32(negZero), 0x1p-97, 0x1.000002p-97, 0x1p-149}, 4))
	a := weights.NewAcc(tiny, false)
	for range 5 {
		a.MustAdd(tiny, nil, nil, 1)
	}
	if got, want := a.Mean(weights.Float32).Must("x").F32, []float32{0, 0, 0x1p-96, 0}; !slices.Equal(got, want) || math.Signbit(float64(got[0])) {
		t.Errorf("got %x, expected %x", got, want)
	}
}

// I8 of the HeteroFL specification: one 4×4 tensor, clients 4×4 of 1, 2×2 of 2, 2×2 of 4, 1×1 of 9.
func TestAccWorkedExample(t *testing.T) {
	old := set("w", weights.NewTensor(weights.Float32, 4, 4))
	for i := range 16 {
		old.Must("w").F32[i] = float32(i)
	}
	fold := func(clients ...[2]int) weights.Set { // width, value
		a := weights.NewAcc(old, true)
		for _, c := range clients {
			ix := weights.Index{"w": {weights.Prefix(c[0]), weights.Prefix(c[0])}}
			x := ix.Like(old)
			for i := range x.Must("w").F32 {
				x.Must("w").F32[i] = float32(c[1])
			}
			a.MustAdd(x, ix, nil, 1)
		}
		return a.Apply(old, func(_, total, count float64) float64 { return total / count })
	}
	third := float32(7.0 / 3)
	if got, want := fold([2]int{4, 1}, [2]int{2, 2}, [2]int{2, 4}, [2]int{1, 9}).Must("w").F32, []float32{
		4, third, 1, 1,
		third, third, 1, 1,
		1, 1, 1, 1,
		1, 1, 1, 1,
	}; !slices.Equal(got, want) {
		t.Errorf("got %v, expected %v", got, want)
	}
	if got, want := fold([2]int{2, 2}, [2]int{2, 4}, [2]int{1, 9}).Must("w").F32, []float32{
		5, 3, 2, 3,
		3, 3, 6, 7,
		8, 9, 10, 11,
		12, 13, 14, 15,
	}; !slices.Equal(got, want) {
		t.Errorf("without the whole client: got %v, expected %v", got, want)
	}
}

// I3 of the HeteroFL specification: coordinates that nobody covered keep their bits, −0 and NaN payloads included; and
// I5: Σ count·new = Σ over clients.
func TestAccApply(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		like := genLike(t)
		base := like.Clone()
		for _, x := range base.All() {
			for i := range x.F32 {
				x.F32[i] = math.Float32frombits(rapid.Uint32().Draw(t, "bits"))
			}
		}
		a := weights.NewAcc(like, true)
		for range rapid.IntRange(0, 4).Draw(t, "clients") {
			genContribution(like).Draw(t, "contribution").add(t, a)
		}
		out := a.Apply(base, func(_, total, count float64) float64 { return total / count })
		mean := a.Mean(weights.Float32)
		for n, x := range out.All() {
			for i, v := range x.F32 {
				want := mean.Must(n).F32[i]
				if a.Count(n, i) == 0 {
					want = base.Must(n).F32[i]
				}
				if math.Float32bits(v) != math.Float32bits(want) {
					t.Fatalf("%s[%d] = %x, expected %x", n, i, v, want)
				}
				if got, sum := float64(v)*float64(a.Count(n, i)), a.Total(n, i); a.Count(n, i) > 0 && math.Abs(got-sum) > 1e-6*math.Abs(sum)+1e-30 {
					t.Fatalf("%s[%d]: count·mean = %g, sum %g", n, i, got, sum)
				}
			}
		}
	})
	base := set("w", weights.Of32([]float32{float32(negZero), 1, 2, 3}, 4))
	base.Put("other", weights.Of32([]float32{float32(nan)}, 1))
	a := weights.NewAcc(base.Filter(func(n string) bool { return n == "w" }), true)
	if got := a.AddMean(base); !got.Equal(base) {
		t.Errorf("nothing added: got %v", got)
	}
	a.MustAdd(set("w", weights.Of32([]float32{0, 4, -4}, 3)), weights.Index{"w": {weights.Prefix(3)}}, nil, 2)
	want := set("w", weights.Of32([]float32{float32(negZero), 5, -2, 3}, 4))
	want.Put("other", base.Must("other"))
	if got := a.AddMean(base); !got.Equal(want) {
		t.Errorf("got %v, expected %v", got, want)
	}
}

// Nothing that a member can send panics or leaves a trace in the sum.
func TestAccRefuses(t *testing.T) {
	like := set("w", weights.NewTensor(weights.Float32, 2, 3))
	like.Put("b", weights.NewTensor(weights.Float32, 2))
	good := like.Clone()
	good.Must("w").SetAt(1, 5)
	with := func(n string, x weights.Tensor) weights.Set {
		s := good
		s.Put(n, x)
		return s
	}
	w := func(i int, v float64) weights.Set {
		x := good.Must("w").Clone()
		x.SetAt(i, v)
		return with("w", x)
	}
	first := func(n int) weights.Index {
		return weights.Index{"w": {weights.Prefix(n), weights.All()}, "b": {weights.Prefix(n)}}
	}
	for _, c := range []struct {
		x         weights.Set
		at, cover weights.Index
		weight    uint64
		want      string
	}{
		{good, nil, nil, 0, "weight 0"},
		{good, nil, nil, 1<<63 - 7, "weight 9223372036854775801: the weights' sum, 7 so far, must stay below 2⁶³"},
		{good, nil, nil, math.MaxUint64, "must stay below 2⁶³"},
		{weights.Set{}, nil, nil, 1, `tensor "w" is missing`},
		{set("w", good.Must("w")), nil, nil, 1, `tensor "b" is missing`},
		{set("w", good.Must("w")), weights.Index{"w": nil, "b": nil}, nil, 1, `tensor "b" is missing`},
		{good, weights.Index{"w": nil}, nil, 1, `tensor "b" is outside the task's index`},
		{with("z", weights.Of32(nil, 0)), nil, nil, 1, `tensor "z" is not part of the sum`},
		{with(strings.Repeat("z", 9999), weights.Of32(nil, 0)), nil, nil, 1, `is not part of the sum`},
		{with("b", weights.NewTensor(weights.Float32, 2, 1)), nil, nil, 1, `tensor "b" has shape [2 1], expected [2]`},
		{with("b", weights.NewTensor(weights.Float32, 0)), nil, nil, 1, `tensor "b" has shape [0], expected [2]`},
		{good, first(1), nil, 1, `tensor "w" has shape [2 3], expected [1 3]`},
		{good, first(3), nil, 1, `tensor "w": index: axis 0: prefix 3 of an axis of 2`},
		{good, nil, first(3), 1, `tensor "w": cover: axis 0: prefix 3 of an axis of 2`},
		{good, nil, weights.Index{"w": {weights.All()}}, 1, `tensor "w": cover: 1 axes for shape [2 3]`},
		{with("b", weights.Tensor{Shape: []int{2}, F32: []float32{1}}), nil, nil, 1, `tensor "b": 1 elements do not fill shape [2]`},
		{with("b", weights.Tensor{Shape: []int{2}}), nil, nil, 1, `tensor "b": 0 elements do not fill shape [2]`},
		{with("b", weights.Tensor{Shape: []int{2}, F32: []float32{1, 2}, F64: []float64{1, 2}}), nil, nil, 1, `tensor "b": it has elements of two types`},
		{with("b", weights.Tensor{Shape: []int{-2}, F32: []float32{1, 2}}), nil, nil, 1, `tensor "b" has shape [-2], expected [2]`},
		{w(4, nan), nil, nil, 1, `tensor "w" holds NaN at [1 1]`},
		{w(5, inf), nil, nil, 1, `tensor "w" holds +Inf at [1 2]`},
		{w(5, -inf), nil, weights.Index{}, 1, `tensor "w" holds -Inf at [1 2]`},
		{w(5, nan), nil, first(1), 1, `tensor "w" holds NaN at [1 2]`},
		{w(0, 1<<31), nil, nil, 1, `tensor "w": a sum could reach 2.1474836`},
		{w(0, -(1 << 31)), nil, nil, 1, `the limit is 2³¹: values or weights are too large`},
		{w(0, math.MaxFloat32), nil, nil, 1, `the limit is 2³¹`},
		{good, nil, nil, 1 << 40, `tensor "w": a sum could reach 5.49755`},
		{with("w", good.Must("w")).Convert(weights.Float64), nil, nil, 1 << 62, `the limit is 2³¹`},
	} {
		for _, counting := range []bool{false, true} {
			a := weights.NewAcc(like, counting)
			a.MustAdd(good, nil, nil, 7)
			before := marshal(t, a)
			for _, err := range []error{a.Check(c.x, c.at, c.cover, c.weight), a.Add(c.x, c.at, c.cover, c.weight)} {
				if err == nil || !strings.Contains(err.Error(), c.want) || len(err.Error()) > 300 {
					t.Errorf("got error %v, expected %s", err, c.want)
				}
			}
			if !bytes.Equal(marshal(t, a), before) {
				t.Errorf("%s: the sum changed", c.want)
			}
		}
	}
	// The limit is the same whatever the signs and the order, and exact.
	a := weights.NewAcc(like, false)
	a.MustAdd(w(0, 1<<30), nil, nil, 1)
	if err := a.Add(w(1, -(1<<30)), nil, nil, 1); err == nil {
		t.Error("accepted a bound of 2³¹")
	}
	a.MustAdd(w(1, -(1<<30-64)), nil, nil, 1)
	if err := a.Check(w(1, 64), nil, nil, 1); err == nil {
		t.Error("accepted a bound of 2³¹")
	}
	a.MustAdd(w(1, 63), nil, nil, 1)
	if err := a.Check(good, first(2), weights.Index{}, 1); err != nil {
		t.Errorf("a tensor that is not covered: %v", err)
	}
}

// An index may name more than the sum has: one index serves sums of parts of a model.
func TestAccOfAPart(t *testing.T) {
	a := weights.NewAcc(set("w", weights.NewTensor(weights.Float32, 2)), true)
	ix := weights.Index{"w": {weights.Prefix(1)}, "elsewhere": {weights.Prefix(9)}}
	if err := a.Add(set("w", weights.Of32([]float32{3}, 1)), ix, ix, 2); err != nil {
		t.Fatal(err)
	}
	if a.Total("w", 0) != 6 || a.Count("w", 0) != 2 || a.Count("w", 1) != 0 {
		t.Error("wrong sum")
	}
}

// The shapes of a sum are its own.
func TestAccKeepsItsShapes(t *testing.T) {
	like := set("w", weights.NewTensor(weights.Float32, 2))
	a := weights.NewAcc(like, false)
	like.Must("w").Shape[0] = 3
	if err := a.Add(set("w", weights.Of32([]float32{1, 2}, 2)), nil, nil, 1); err != nil {
		t.Error(err)
	}
}

func TestAccMergeRefuses(t *testing.T) {
	like := set("w", weights.NewTensor(weights.Float64, 2))
	x := set("w", weights.Of64([]float64{1 << 30, 0}, 2))
	sum := func(s weights.Set, counting bool, x weights.Set, weight uint64) *weights.Acc {
		a := weights.NewAcc(s, counting)
		if weight > 0 {
			a.MustAdd(x, nil, nil, weight)
		}
		return a
	}
	two := like
	two.Put("b", weights.Of32(nil, 0))
	for want, other := range map[string]*weights.Acc{
		"with and without counts":                    sum(like, true, x, 0),
		"sums of 1 and 2 tensors":                    sum(two, false, x, 0),
		`tensor "w" is missing`:                      sum(set("v", x.Must("w")), false, x, 0),
		`tensor "w" has shapes [2] and [1 2]`:        sum(set("w", weights.NewTensor(weights.Float64, 1, 2)), false, x, 0),
		`a sum could reach 2.147483648e+09`:          sum(like, false, x, 1),
		`weights 1 and 9223372036854775807: their s`: sum(like, false, like, 1<<63-1),
	} {
		a := sum(like, false, x, 1)
		before := marshal(t, a)
		if err := a.Merge(other); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, expected %s", err, want)
		}
		if !bytes.Equal(marshal(t, a), before) {
			t.Errorf("%s: the sum changed", want)
		}
	}
	a := sum(like, true, set("w", weights.Of64([]float64{1, 2}, 2)), 3)
	if err := a.Merge(a); err != nil || a.Total("w", 1) != 12 || a.Count("w", 0) != 6 || a.Weight() != 6 {
		t.Errorf("a sum merged with itself: %v, error %v", a.Total("w", 1), err)
	}
}

// The bytes of a sum do not tell how its counts came about.
func TestAccBinaryIsCanonical(t *testing.T) {
	like := set("empty", weights.NewTensor(weights.Float32, 0, 3))
	like.Put("w", weights.NewTensor(weights.Float32, 2))
	add := func(a *weights.Acc, ix weights.Index) { a.MustAdd(ix.Slice(like), ix, nil, 2) }
	row := func(n int32) weights.Index {
		return weights.Index{"w": {weights.List([]int32{n})}, "empty": {weights.All(), weights.Prefix(2)}}
	}
	nobody := func(a *weights.Acc, weight uint64) { a.MustAdd(weights.Set{}, weights.Index{}, nil, weight) }
	a, b := weights.NewAcc(like, true), weights.NewAcc(like, true)
	add(a, nil) // both coordinates at once
	nobody(a, 2)
	add(b, row(1)) // one by one
	add(b, row(0))
	if x, y := marshal(t, a), marshal(t, b); !bytes.Equal(x, y) {
		t.Fatalf("equal counts: got\n%x\n%x", x, y)
	}
	add(a, row(0))
	nobody(a, 2)
	add(b, row(0))
	nobody(b, 2)
	if x, y := marshal(t, a), marshal(t, b); !bytes.Equal(x, y) {
		t.Fatalf("unequal counts: got\n%x\n%x", x, y)
	}
}

func TestAccBinaryRefuses(t *testing.T) {
	like := set("w", weights.NewTensor(weights.Float32, 2))
	like.Put("b", weights.NewTensor(weights.Float32))
	a := weights.NewAcc(like, true)
	x := set("w", weights.Of32([]float32{1}, 1))
	a.MustAdd(x, weights.Index{"w": {weights.Prefix(1)}}, nil, 2)
	good := marshal(t, a)
	var back weights.Acc
	if err := back.UnmarshalBinary(good); err != nil || !bytes.Equal(marshal(t, &back), good) {
		t.Fatalf("does not come back: %v", err)
	}
	if err := back.Add(x, weights.Index{"w": {weights.List([]int32{1})}}, nil, 3); err != nil || back.Total("w", 1) != 3 {
		t.Errorf("what came back does not go on: %v", err)
	}
	// Offsets: magic 12, counting 12, weight 13, tensors 21, name length 29, name 37, type 38, rank 39, dimension 47,
	// bound 55, sums 71, count kind 103, counts 104 to 120; the second tensor's name length 120, name 128.
	change := func(at int, v ...byte) []byte {
		b := slices.Clone(good)
		copy(b[at:], v)
		return b
	}
	for _, c := range []struct {
		b    []byte
		want string
	}{
		{nil, "not a sum, or of another version"},
		{change(11, 2), "not a sum, or of another version"},
		{change(12, 2), "counting is 2"},
		{change(20, 0x80), "weight 9223372036854775810"},
		{change(13, 1), `tensor "w": count 2 at [0] exceeds the weight 1`},
		{change(13, 0), `tensor "w": impossible bound 2`},
		{change(28, 0xff), "are too few"},
		{change(21, 1), "bytes too many"},
		{change(36, 0x7f), "are too few"},
		{change(37, 0xff), `name "\xff" is not UTF-8`},
		{change(128, 'w'), `tensor "w" twice`},
		{change(38, 1), `tensor "w": element type 1`},
		{change(46, 0x10), "are too few"},
		{change(54, 0x80), `tensor "w": dimension -`},
		{change(54, 0x10), `is too large`},
		{change(51, 1), "are too few"},
		{change(70, 0x80), `tensor "w": impossible bound -2.14748`},
		{change(63, 0, 0, 0, 0, 1), `tensor "w": sum 2 at [0] exceeds its bound 1`},
		{change(79, 0, 0, 0, 0, 0xfd, 0xff, 0xff, 0xff), `tensor "w": sum -3 at [0] exceeds its bound 2`},
		{change(103, 2), `tensor "w": counts of kind 2`},
		{change(104, 3), `tensor "w": count 3 at [0] exceeds the weight 2`},
		{change(112, 2), "equal counts one by one"},
		{append(slices.Clone(good), 0), "1 bytes too many"},
	} {
		b := new(weights.Acc)
		*b = back
		err := b.UnmarshalBinary(c.b)
		if err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, expected %s", err, c.want)
		}
		if b.Weight() != back.Weight() {
			t.Errorf("%s: the sum changed", c.want)
		}
	}
	for n := range good {
		if err := new(weights.Acc).UnmarshalBinary(good[:n]); err == nil {
			t.Errorf("accepted the first %d of %d bytes", n, len(good))
		}
	}
}

func FuzzAcc(f *testing.F) {
	like := set("w", weights.NewTensor(weights.Float32, 2, 2))
	like.Put("b", weights.NewTensor(weights.Float32))
	for _, counting := range []bool{false, true} {
		a := weights.NewAcc(like, counting)
		f.Add(marshal(f, a))
		a.MustAdd(like.Map(like, func(_, _ float64) float64 { return -1.5 }), nil, nil, 3)
		f.Add(marshal(f, a))
		ix := weights.Index{"w": {weights.Prefix(1), weights.All()}}
		a.MustAdd(ix.Like(like), ix, nil, 1<<40)
		f.Add(marshal(f, a))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var a weights.Acc
		if a.UnmarshalBinary(b) != nil {
			return
		}
		if !bytes.Equal(marshal(t, &a), b) {
			t.Fatal("another form of the same sum was accepted")
		}
		a.Mean(weights.Float32)
		twice := a
		if err := twice.UnmarshalBinary(b); err != nil {
			t.Fatal(err)
		}
		if twice.Merge(&a) == nil {
			marshal(t, &twice)
		}
	})
}

func ExampleAcc() {
	model := weights.NewSet(1)
	model.Put("w", weights.NewTensor(weights.Float32, 4))

	// One client holds all of the model, another its first two coordinates; each weighs as many samples as it has.
	sum := weights.NewAcc(model, true)
	whole, half := weights.NewSet(1), weights.NewSet(1)
	whole.Put("w", weights.Of32([]float32{0.1, 0.2, 0.3, 0.4}, 4))
	half.Put("w", weights.Of32([]float32{1, 2}, 2))
	if err := sum.Add(whole, nil, nil, 30); err != nil {
		fmt.Println(err)
	}
	if err := sum.Add(half, weights.Index{"w": {weights.Prefix(2)}}, nil, 10); err != nil {
		fmt.Println(err)
	}
	fmt.Println(sum.Mean(weights.Float32).Must("w").F32)
	fmt.Println(sum.Count("w", 0), sum.Count("w", 3))

	half.Must("w").F32[1] = float32(math.Inf(1))
	fmt.Println(sum.Add(half, weights.Index{"w": {weights.Prefix(2)}}, nil, 10))
	// Output:
	// [0.325 0.65 0.3 0.4]
	// 40 30
	// tensor "w" holds +Inf at [1]
}
