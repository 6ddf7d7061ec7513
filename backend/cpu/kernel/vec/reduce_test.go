package vec

import (
	"math"
	"math/rand/v2"
	"testing"

	"pgregory.net/rapid"
)

// TestReductionErrors holds every sum to the bound that the package comment states.
func TestReductionErrors(t *testing.T) {
	f := finest()
	rapid.Check(t, func(t *rapid.T) {
		n := rapid.OneOf(lengths, rapid.IntRange(1, 60_000)).Draw(t, "n")
		r := rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "seed"), 0))
		a, b := values(r, 0, n), values(r, 0, n)
		m := float32(r.NormFloat64())
		bound := func(terms float64) float64 {
			blocks := max(1, (n+ReduceBlock-1)/ReduceBlock)
			return (71 + math.Log2(float64(blocks)) + 3) * 0x1p-24 * terms // 3: the rounding inside a term
		}
		sum := func(term func(i int) float64) (s, mag float64) {
			for i := range a {
				s += term(i)
				mag += math.Abs(term(i))
			}
			return s, mag
		}
		d := make([]float32, n)
		for _, c := range []struct {
			name string
			got  float32
			term func(i int) float64
		}{
			{"Sum", f.Sum(a), func(i int) float64 { return float64(a[i]) }},
			{"SumSq", f.SumSq(a), func(i int) float64 { return float64(a[i]) * float64(a[i]) }},
			{"Dot", f.Dot(a, b), func(i int) float64 { return float64(a[i]) * float64(b[i]) }},
			{"SumSqDiff", f.SumSqDiff(a, m), func(i int) float64 { return math.Pow(float64(a[i])-float64(m), 2) }},
			{"SumExpSub", f.SumExpSub(a, 20), func(i int) float64 { return math.Exp(float64(a[i] - 20)) }},
			{"ExpSubSum", f.ExpSubSum(d, a, 20), func(i int) float64 { return math.Exp(float64(a[i] - 20)) }},
		} {
			want, mag := sum(c.term)
			if e := math.Abs(float64(c.got) - want); e > bound(mag) {
				t.Fatalf("%s of %d elements: got %g, want %g: error %g exceeds %g", c.name, n, c.got, want, e, bound(mag))
			}
		}
	})
}

// TestColumnErrors holds the column sums to their bound.
func TestColumnErrors(t *testing.T) {
	f := finest()
	r := rand.New(rand.NewPCG(3, 4))
	for _, s := range []struct{ rows, cols int }{{1, 1}, {7, 3}, {8, 10}, {513, 64}, {5000, 33}, {100, 700}} {
		a, b, m := values(r, 0, s.rows*s.cols), values(r, 0, s.rows*s.cols), values(r, 0, s.cols)
		bound := (8.0 + RowBlock/8 + float64((s.rows+RowBlock-1)/RowBlock) + 3) * 0x1p-24
		for _, c := range []struct {
			name string
			call func(dst []float32)
			term func(i, c int) float64
		}{
			{"SumRows", func(d []float32) { f.SumRows(d, a, s.rows, s.cols) }, func(i, _ int) float64 { return float64(a[i]) }},
			{"SumMulRows", func(d []float32) { f.SumMulRows(d, a, b, s.rows, s.cols) }, func(i, _ int) float64 { return float64(a[i]) * float64(b[i]) }},
			{"SumSqDiffRows", func(d []float32) { f.SumSqDiffRows(d, a, m, s.rows, s.cols) }, func(i, c int) float64 { return math.Pow(float64(a[i])-float64(m[c]), 2) }},
		} {
			dst := make([]float32, s.cols)
			c.call(dst)
			for col := range dst {
				var want, mag float64
				for row := range s.rows {
					v := c.term(row*s.cols+col, col)
					want += v
					mag += math.Abs(v)
				}
				if e := math.Abs(float64(dst[col]) - want); e > bound*mag {
					t.Fatalf("%s of %d×%d, column %d: got %g, want %g", c.name, s.rows, s.cols, col, dst[col], want)
				}
			}
		}
	}
}

// TestPosition checks that a result depends neither on where an element stands nor on how many
// elements there are.
func TestPosition(t *testing.T) {
	for _, p := range Paths() {
		f := For(p)
		for _, fn := range []Unary{f.Exp, f.Log, f.Tanh, f.Erf, f.Sin, f.Logistic} {
			r := rand.New(rand.NewPCG(5, 6))
			a := values(r, 0, 300)
			whole, one := make([]float32, len(a)), make([]float32, 1)
			fn(whole, a)
			for i := range a {
				fn(one, a[i:])
				if !sameFloat(one[0], whole[i]) {
					t.Fatalf("%s: f(%g) is %g alone and %g at position %d", p, a[i], one[0], whole[i], i)
				}
			}
			fn(a, a)
			for i := range a {
				if !sameFloat(a[i], whole[i]) {
					t.Fatalf("%s: in place %g, else %g", p, a[i], whole[i])
				}
			}
		}
	}
}

func TestEmptyReductions(t *testing.T) {
	for _, p := range Paths() {
		f := For(p)
		got := [...]float32{f.Sum(nil), f.Prod(nil), f.MaxOf(nil), f.MinOf(nil), f.SumSq(nil), f.Dot(nil, nil), f.SumExpSub(nil, 0)}
		if want := [...]float32{0, 1, -inf, inf, 0, 0, 0}; got != want {
			t.Errorf("%s: %v, want %v", p, got, want)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	a, b, d := make([]float32, 5000), make([]float32, 5000), make([]float32, 5000)
	cond := make([]bool, 5000)
	for _, p := range Paths() {
		f := For(p)
		if n := testing.AllocsPerRun(5, func() {
			f.Exp(d, a)
			f.Sin(d, a)
			f.Lt(cond, a, b)
			f.Select(d, cond, a, b)
			f.And(cond, cond, cond)
			f.Sum(a)
			f.ExpSubSum(d, a, 1)
			f.SumMulRows(d[:10], a, b, 499, 10)
			f.SumSqDiffRows(d[:300], a, b, 11, 300)
		}); n != 0 {
			t.Errorf("%s: %v allocations", p, n)
		}
	}
}

func TestShortSlicesPanic(t *testing.T) {
	for _, p := range Paths() {
		f := For(p)
		for name, call := range map[string]func(){
			"Add":     func() { f.Add(make([]float32, 3), make([]float32, 3, 8), make([]float32, 2)) },
			"Exp":     func() { f.Exp(make([]float32, 3), nil) },
			"Lt":      func() { f.Lt(make([]bool, 17), make([]float32, 17), make([]float32, 16)) },
			"Dot":     func() { f.Dot(make([]float32, 3), make([]float32, 2)) },
			"SumRows": func() { f.SumRows(make([]float32, 3), make([]float32, 8), 3, 3) },
			"stride":  func() { f.SumRows(make([]float32, 3), make([]float32, 9), 3, 2) },
		} {
			func() {
				defer func() {
					if recover() == nil {
						t.Errorf("%s: %s did not panic", p, name)
					}
				}()
				call()
			}()
		}
	}
}

func TestChoose(t *testing.T) {
	ps := Paths()
	if p, err := choose(""); err != nil || p != ps[len(ps)-1] {
		t.Errorf("default is %v, %v; want %v", p, err, ps[len(ps)-1])
	}
	if p, err := choose("Portable"); err != nil || p != Portable {
		t.Errorf("portable gave %v, %v", p, err)
	}
	if _, err := choose("sse9"); err == nil {
		t.Error("an unknown path is accepted")
	}
	for p := Portable; int(p) < len(pathNames); p++ {
		if _, err := choose(p.String()); (err == nil) != p.Supported() {
			t.Errorf("%s: supported %v, error %v", p, p.Supported(), err)
		}
	}
}
