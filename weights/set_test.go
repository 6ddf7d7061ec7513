package weights_test

import (
	"encoding/hex"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/cohort-learning/cohort/weights"
)

var (
	negZero = math.Copysign(0, -1)
	nan     = math.NaN()
	inf     = math.Inf(1)
)

func TestSetOrder(t *testing.T) {
	var s weights.Set
	if s.Len() != 0 || s.Size() != 0 || s.Norm() != 0 || s.Finite() != nil {
		t.Error("the zero set is not empty")
	}
	if _, ok := s.Get("a"); ok {
		t.Error("the zero set has a tensor")
	}
	for i, n := range []string{"c", "a", "b", "a"} {
		s.Put(n, weights.Of32([]float32{float32(i)}))
	}
	if want := []string{"c", "a", "b"}; !slices.Equal(s.Names(), want) {
		t.Errorf("got order %v, expected %v", s.Names(), want)
	}
	if got := s.Must("a").At(0); got != 3 {
		t.Errorf("a replaced tensor holds %v", got)
	}
	var seen []string
	for n := range s.All() {
		if seen = append(seen, n); n == "a" {
			break
		}
	}
	if want := []string{"c", "a"}; !slices.Equal(seen, want) {
		t.Errorf("visited %v, expected %v", seen, want)
	}
	f := s.Filter(func(n string) bool { return n != "a" })
	if want := []string{"c", "b"}; !slices.Equal(f.Names(), want) || f.Must("b").At(0) != 2 {
		t.Errorf("filtered to %v, expected %v", f.Names(), want)
	}
	if s.Size() != 3 || s.Bytes() != 12 {
		t.Errorf("size %d, bytes %d", s.Size(), s.Bytes())
	}
}

// A copy of a set never sees what is put into another. The model is a list of pairs, copied whole.
func TestSetIsAValue(t *testing.T) {
	type pair struct {
		name  string
		value float64
	}
	rapid.Check(t, func(t *rapid.T) {
		sets, models := make([]weights.Set, 3), make([][]pair, 3)
		which := rapid.IntRange(0, 2)
		put := func(i int, name string, v float64) {
			k := slices.IndexFunc(models[i], func(p pair) bool { return p.name == name })
			models[i] = slices.Clone(models[i])
			if k < 0 {
				models[i] = append(models[i], pair{name, v})
			} else {
				models[i][k].value = v
			}
		}
		for step := range rapid.IntRange(1, 30).Draw(t, "steps") {
			i := which.Draw(t, "set")
			name, v := rapid.SampledFrom([]string{"a", "b", "c", "d", "e"}).Draw(t, "name"), float64(step)
			switch rapid.IntRange(0, 2).Draw(t, "step") {
			case 0:
				j := which.Draw(t, "from")
				sets[i], models[i] = sets[j], models[j]
			case 1:
				sets[i].Put(name, weights.Of64([]float64{v}))
				put(i, name, v)
			case 2:
				j := which.Draw(t, "from")
				for _, p := range models[j] {
					put(i, p.name, p.value)
				}
				sets[i].Merge(sets[j])
			}
			for i, s := range sets {
				var got []pair
				for n, x := range s.All() {
					got = append(got, pair{n, x.At(0)})
					if y, ok := s.Get(n); !ok || y.At(0) != x.At(0) {
						t.Fatalf("Get(%s) gives %v, All gives %v", n, y, x)
					}
				}
				if !slices.Equal(got, models[i]) {
					t.Fatalf("set %d is %v, expected %v", i, got, models[i])
				}
				for _, n := range []string{"a", "b", "c", "d", "e"} {
					if _, ok := s.Get(n); ok != slices.Contains(s.Names(), n) {
						t.Fatalf("set %d: Get(%s) is %v among %v", i, n, ok, s.Names())
					}
				}
			}
		}
	})
}

// Clients that extend copies of one model at the same time do not meet.
func TestSetCopiesConcurrently(t *testing.T) {
	base := set("w", weights.Of32([]float32{1}))
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			mine := base
			for k := range 100 {
				mine.Put(fmt.Sprint(i, k), weights.Of32([]float32{float32(i)}))
				mine.Put("w", weights.Of32([]float32{float32(i)}))
			}
			if mine.Len() != 101 || mine.Must("w").At(0) != float64(i) {
				t.Errorf("client %d holds %d tensors", i, mine.Len())
			}
		})
	}
	wg.Wait()
	if base.Len() != 1 || base.Must("w").At(0) != 1 {
		t.Error("a copy changed the set that it was made of")
	}
}

func TestSetArithmetic(t *testing.T) {
	a := set("x", weights.Of32([]float32{1, 2, float32(negZero), 0x1p-149}, 4))
	a.Put("y", weights.Of64([]float64{3, 1e300}, 2))
	b := set("y", weights.Of64([]float64{1, -1e300}, 2)) // another order
	b.Put("x", weights.Of32([]float32{0.5, -2, 0, 0x1p-148}, 4))
	want := set("x", weights.Of32([]float32{0.5, 4, float32(negZero), -0x1p-149}, 4))
	want.Put("y", weights.Of64([]float64{2, 2e300}, 2))
	if got := a.Sub(b); !got.Equal(want) || !slices.Equal(got.Names(), a.Names()) {
		t.Errorf("Sub: got %v, expected %v", got, want)
	}
	c := a.Clone()
	c.AddScaled(-0.5, b)
	want = set("x", weights.Of32([]float32{0.75, 3, float32(negZero), 0}, 4))
	want.Put("y", weights.Of64([]float64{2.5, 1.5e300}, 2))
	if !c.Equal(want) {
		t.Errorf("AddScaled: got %v, expected %v", c, want)
	}
	c.Scale(2)
	want = set("x", weights.Of32([]float32{1.5, 6, float32(negZero), 0}, 4))
	want.Put("y", weights.Of64([]float64{5, 3e300}, 2))
	if !c.Equal(want) {
		t.Errorf("Scale: got %v, expected %v", c, want)
	}
	if a.Must("x").At(0) != 1 {
		t.Error("Clone shares elements")
	}
	if z := a.Zeros(); !z.Equal(a.Map(a, func(x, y float64) float64 { return 0 })) {
		t.Errorf("Zeros: got %v", z)
	}
	d := a.Convert(weights.Float32)
	if got := d.Must("y").F32; !slices.Equal(got, []float32{3, float32(inf)}) {
		t.Errorf("Convert: got %v", got)
	}
	if !a.Filter(func(n string) bool { return n == "x" }).Convert(weights.Float64).Convert(weights.Float32).Equal(set("x", a.Must("x"))) {
		t.Error("Convert to float64 and back changes bits")
	}
}

// Every element is computed in float64 and rounded once to the set's type.
func TestSetArithmeticRounds(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.IntRange(0, 9).Draw(t, "n")
		types := []weights.DType{weights.Float32, weights.Float64}
		draw := func(what string) weights.Tensor {
			x := weights.NewTensor(rapid.SampledFrom(types).Draw(t, what), n)
			for i := range x.F32 {
				x.F32[i] = rapid.Float32().Draw(t, what)
			}
			for i := range x.F64 {
				x.F64[i] = rapid.Float64().Draw(t, what)
			}
			return x
		}
		x, y := draw("x"), draw("y")
		alpha := rapid.Float64().Draw(t, "alpha")
		check := func(what string, got weights.Set, f func(a, b float64) float64) {
			g := got.Must("t")
			for i := range n {
				want := f(x.At(i), y.At(i))
				if x.DType() == weights.Float32 {
					want = float64(float32(want))
				}
				if math.Float64bits(g.At(i)) != math.Float64bits(want) && !(math.IsNaN(want) && math.IsNaN(g.At(i))) {
					t.Fatalf("%s of %v and %v: got %v, expected %v", what, x.At(i), y.At(i), g.At(i), want)
				}
			}
		}
		check("difference", set("t", x).Sub(set("t", y)), func(a, b float64) float64 { return a - b })
		check("map", set("t", x).Map(set("t", y), math.Max), math.Max)
		scaled := set("t", x).Clone()
		scaled.Scale(alpha)
		check("multiple", scaled, func(a, _ float64) float64 { return alpha * a })
		if x.DType() == y.DType() {
			sum := set("t", x).Clone()
			sum.AddScaled(alpha, set("t", y))
			check("sum", sum, func(a, b float64) float64 { return a + float64(alpha*b) })
		}
	})
}

func TestSetPanics(t *testing.T) {
	s := set("a", weights.Of32([]float32{1, 2}, 2))
	two := s
	two.Put("b", weights.Of32([]float32{1}, 1))
	for want, f := range map[string]func(){
		`no tensor "b" in a set of 1`:                              func() { s.Must("b") },
		`no tensor "z" in a set of 0`:                              func() { weights.Set{}.Must("z") },
		`2 elements do not fill shape [3]`:                         func() { weights.Of32([]float32{1, 2}, 3) },
		`1 elements do not fill shape [0]`:                         func() { weights.Of64([]float64{1}, 0) },
		`shape [-1 -1] is negative or too large`:                   func() { weights.Of32([]float32{1}, -1, -1) },
		`shape [4294967296 4294967296] is negative or too large`:   func() { weights.Of32(nil, 1<<32, 1<<32) },
		`shape [0 4294967296 4294967296] is negative or too large`: func() { weights.NewTensor(weights.Float32, 0, 1<<32, 1<<32) },
		`"a" is float32 [2] and float32 [1 2]`:                     func() { s.Sub(set("a", weights.Of32([]float32{1, 2}, 1, 2))) },
		`"a" is float32 [2] and float64 [2]`:                       func() { s.AddScaled(1, s.Convert(weights.Float64)) },
		`sets of 1 and 2 tensors`:                                  func() { s.Sub(two) },
		`no tensor "b" in a set of 1 `:                             func() { two.AddScaled(1, s) },
		`weights: "a" is float32 [2] and float32 [0]`:              func() { s.Map(set("a", weights.Of32(nil, 0)), math.Max) },
		`weights: index of tensor "a": axis 0: prefix 3`:           func() { weights.Index{"a": {weights.Prefix(3)}}.Slice(s) },
		`weights: index names tensor "b"`:                          func() { weights.Index{"b": nil}.Like(s) },
		`slice of "a" is float32 [2], expected float32 [1`:         func() { weights.Index{"a": {weights.Prefix(1)}}.Scatter(s, s) },
		`Prefix(-1)`:                         func() { weights.Prefix(-1) },
		`Heads(0, 1)`:                        func() { weights.Heads(0, 1) },
		`Heads(2, -1)`:                       func() { weights.Heads(2, -1) },
		`no tensor "b" in a sum of 1`:        func() { weights.NewAcc(s, true).Total("b", 0) },
		`weights: weight 0`:                  func() { weights.NewAcc(s, true).MustAdd(s, nil, nil, 0) },
		`Over(0)`:                            func() { weights.NewAcc(s, true).Over(0, weights.Float32) },
		`sum of "a" has shape [2], base [1]`: func() { weights.NewAcc(s, true).AddMean(set("a", weights.Of32([]float32{1}, 1))) },
	} {
		func() {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.Contains(got+" ", want) {
					t.Errorf("panics with %q, expected %q", got, want)
				}
			}()
			f()
		}()
	}
}

func TestMatch(t *testing.T) {
	like := set("a", weights.NewTensor(weights.Float32, 2, 3))
	like.Put("b", weights.NewTensor(weights.Float64))
	reordered := set("b", like.Must("b"))
	reordered.Put("a", like.Must("a"))
	with := func(n string, x weights.Tensor) weights.Set {
		s := like
		s.Put(n, x)
		return s
	}
	for _, c := range []struct {
		s    weights.Set
		want string
	}{
		{like, ""},
		{reordered, ""},
		{weights.Set{}, `tensor "a" is missing`},
		{set("a", like.Must("a")), `tensor "b" is missing`},
		{with("c", weights.Of32(nil, 0)), `tensor "c" is not expected here`},
		{with("a", weights.NewTensor(weights.Float32, 3, 2)), `tensor "a" is float32 [3 2], expected float32 [2 3]`},
		{with("a", weights.NewTensor(weights.Float64, 2, 3)), `tensor "a" is float64 [2 3], expected float32 [2 3]`},
		{with("b", weights.NewTensor(weights.Float64, 1)), `tensor "b" is float64 [1], expected float64 []`},
	} {
		got := ""
		if err := c.s.Match(like); err != nil {
			got = err.Error()
		}
		if got != c.want {
			t.Errorf("%v: got %q, expected %q", c.s.Names(), got, c.want)
		}
	}
}

func TestFinite(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape := []int{rapid.IntRange(1, 5).Draw(t, "rows"), rapid.IntRange(1, 5).Draw(t, "columns")}
		x := weights.NewTensor(rapid.SampledFrom([]weights.DType{weights.Float32, weights.Float64}).Draw(t, "dtype"), shape...)
		for i := range x.Len() {
			x.SetAt(i, rapid.SampledFrom([]float64{0, negZero, 1, -math.MaxFloat32, math.MaxFloat32, 0x1p-149}).Draw(t, "value"))
		}
		s := set("fine", weights.Of32([]float32{1}))
		s.Put("t", x)
		if err := s.Finite(); err != nil {
			t.Fatal(err)
		}
		i := rapid.IntRange(0, x.Len()-1).Draw(t, "at")
		bad := rapid.SampledFrom([]float64{nan, inf, -inf}).Draw(t, "bad")
		x.SetAt(i, bad)
		want := fmt.Sprintf(`tensor "t" holds %v at [%d %d]`, bad, i/shape[1], i%shape[1])
		if err := s.Finite(); err == nil || err.Error() != want {
			t.Fatalf("got %v, expected %s", err, want)
		}
	})
	for _, v := range []float64{nan, inf} {
		if err := set("s", weights.Of64([]float64{v})).Finite(); err == nil || !strings.Contains(err.Error(), fmt.Sprintf(`"s" holds %v at []`, v)) {
			t.Errorf("got %v", err)
		}
	}
	if got := set("s", weights.Of32([]float32{math.Float32frombits(0x7fffffff), math.Float32frombits(0x7f800000)}, 2)).Finite(); got == nil || !strings.Contains(got.Error(), "NaN at [0]") {
		t.Errorf("got %v", got)
	}
}

func TestEqual(t *testing.T) {
	x := func(v ...float64) weights.Set { return set("x", weights.Of64(v, len(v))) }
	payload := math.Float64frombits(math.Float64bits(nan) ^ 1<<20)
	for _, c := range []struct {
		a, b weights.Set
		want bool
	}{
		{x(1, nan), x(1, nan), true},
		{x(nan), x(payload), false},
		{x(0), x(negZero), false},
		{x(1), x(1, 1), false},
		{x(1), x(1).Convert(weights.Float32), false},
		{weights.Set{}, weights.NewSet(3), true},
		{x(1), set("y", weights.Of64([]float64{1}, 1)), false},
		{x(), set("x", weights.Of32(nil, 0)), false},
		{set("x", weights.Of32(nil, 0, 1)), set("x", weights.Of32(nil, 1, 0)), false},
	} {
		if c.a.Equal(c.b) != c.want || c.b.Equal(c.a) != c.want {
			t.Errorf("%v and %v: equal is not %v", c.a, c.b, c.want)
		}
		if sameOrder := slices.Equal(c.a.Names(), c.b.Names()); (weights.Digest(c.a) == weights.Digest(c.b)) != (c.want && sameOrder) {
			t.Errorf("%v and %v: equal digests are not %v", c.a, c.b, c.want)
		}
	}
}

func TestNorm(t *testing.T) {
	s := set("a", weights.Of32([]float32{3, 0, 0, 0, 0}, 5))
	s.Put("b", weights.Of64([]float64{-4}))
	if got := s.Norm(); got != 5 {
		t.Errorf("norm %v, expected 5", got)
	}
	for _, scale := range []float64{1e-320, 1e-300, 1e-200, 1, 1e200, 1e307} {
		got := set("a", weights.Of64([]float64{3 * scale, 4 * scale}, 2)).Norm()
		if want := 5 * scale; math.Abs(got-want) > 1e-15*want && math.Abs(got-want) > 0x1p-1074 {
			t.Errorf("norm of (3, 4)·%g is %g", scale, got)
		}
	}
	if got := set("a", weights.Of64([]float64{1, inf}, 2)).Norm(); got != inf {
		t.Errorf("norm with infinity is %v", got)
	}
	if got := set("a", weights.Of64([]float64{nan, inf}, 2)).Norm(); !math.IsNaN(got) {
		t.Errorf("norm with NaN is %v", got)
	}
}

func TestDigest(t *testing.T) {
	a, b := weights.Of32([]float32{1, 2}, 2), weights.Of32([]float32{3}, 1)
	s := set("a", a)
	s.Put("b", b)
	d := weights.Digest(s)
	// Computed once by hand (Python's hashlib and struct) from the definition at appendLayout.
	const want = "b9e86057"
	if got := hex.EncodeToString(d[:4]); got != want {
		t.Errorf("digest begins %s, expected %s", got, want)
	}
	swapped := set("b", b)
	swapped.Put("a", a)
	moved := set("a", weights.Of32([]float32{1}, 1))
	moved.Put("b", weights.Of32([]float32{2, 3}, 2))
	for what, other := range map[string]weights.Set{
		"another order":           swapped,
		"a moved border":          moved,
		"another type":            s.Convert(weights.Float64),
		"another shape":           set("a", weights.Of32([]float32{1, 2}, 2, 1)),
		"a subset":                set("a", a),
		"the empty set":           {},
		"elements in other place": set("a", weights.Of32([]float32{2, 1}, 2)),
	} {
		if weights.Digest(other) == d {
			t.Errorf("%s has the same digest", what)
		}
	}
	if weights.Digest(s.Clone()) != d {
		t.Error("a clone has another digest")
	}
}
