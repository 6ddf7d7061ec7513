package weights_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cohort-learning/cohort/weights"
)

// genAxis draws an axis that fits the given size.
func genAxis(size int) *rapid.Generator[weights.Axis] {
	return rapid.Custom(func(t *rapid.T) weights.Axis {
		switch rapid.IntRange(0, 3).Draw(t, "kind") {
		case 0:
			return weights.All()
		case 1:
			return weights.Prefix(rapid.IntRange(0, size).Draw(t, "prefix"))
		case 2:
			var divisors []int
			for h := 1; h <= max(size, 1); h++ {
				if size%h == 0 {
					divisors = append(divisors, h)
				}
			}
			h := rapid.SampledFrom(divisors).Draw(t, "heads")
			return weights.Heads(h, rapid.IntRange(0, size/h).Draw(t, "keep"))
		}
		all := make([]int32, size)
		for i := range all {
			all[i] = int32(i)
		}
		list := rapid.Permutation(all).Draw(t, "list")[:rapid.IntRange(0, size).Draw(t, "kept")]
		if rapid.Bool().Draw(t, "sorted") {
			slices.Sort(list)
		}
		return weights.List(list)
	})
}

func genShape() *rapid.Generator[[]int] {
	return rapid.SliceOfN(rapid.IntRange(0, 6), 0, 4)
}

// genAxes draws no axes, which is the whole tensor, or one for each dimension.
func genAxes(shape []int) *rapid.Generator[[]weights.Axis] {
	return rapid.Custom(func(t *rapid.T) []weights.Axis {
		if rapid.IntRange(0, 4).Draw(t, "whole") == 0 {
			return nil
		}
		axes := make([]weights.Axis, len(shape))
		for i, n := range shape {
			axes[i] = genAxis(n).Draw(t, "axis")
		}
		return axes
	})
}

// count returns a tensor of the given shape that holds 1, 2, 3 …
func count(d weights.DType, shape ...int) weights.Tensor {
	x := weights.NewTensor(d, shape...)
	for i := range x.Len() {
		x.SetAt(i, float64(i+1))
	}
	return x
}

// kept returns the offsets in the whole of the coordinates of axes, in the order of a slice, by their definition.
func kept(shape []int, axes []weights.Axis) []int {
	at := []int{0}
	for i, n := range shape {
		positions := weights.All().Positions(n)
		if len(axes) > 0 {
			positions = axes[i].Positions(n)
		}
		var next []int
		for _, base := range at {
			for _, p := range positions {
				next = append(next, base*n+int(p))
			}
		}
		at = next
	}
	return at
}

// HeteroFL's example of heads: 16 columns in 4 heads, half of each (specification section 6a; the arithmetic is
// h·(E/H) + [0, E·s/H)).
func TestHeads(t *testing.T) {
	if got, want := weights.Heads(4, 2).Positions(16), []int32{0, 1, 4, 5, 8, 9, 12, 13}; !slices.Equal(got, want) {
		t.Errorf("got %v, expected %v", got, want)
	}
	x := weights.Index{"q": {weights.Heads(4, 2)}}.Slice(set("q", count(weights.Float32, 16))).Must("q")
	if want := []float32{1, 2, 5, 6, 9, 10, 13, 14}; !slices.Equal(x.F32, want) {
		t.Errorf("got %v, expected %v", x.F32, want)
	}
}

func TestAxisPositions(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		size := rapid.IntRange(0, 12).Draw(t, "size")
		a := genAxis(size).Draw(t, "axis")
		p := a.Positions(size)
		if len(p) != a.Len(size) {
			t.Fatalf("%v: %d positions, length %d", a, len(p), a.Len(size))
		}
		seen := map[int32]bool{}
		for _, i := range p {
			if i < 0 || int(i) >= size || seen[i] {
				t.Fatalf("%v of %d: positions %v", a, size, p)
			}
			seen[i] = true
		}
		if err := (weights.Index{"t": {a}}).Check(set("t", weights.NewTensor(weights.Float32, size))); err != nil {
			t.Fatal(err)
		}
	})
}

func TestSliceAndScatter(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		shape := genShape().Draw(t, "shape")
		d := rapid.SampledFrom([]weights.DType{weights.Float32, weights.Float64}).Draw(t, "dtype")
		whole := set("t", count(d, shape...))
		whole.Put("unheld", weights.Of32([]float32{7}, 1))
		axes := genAxes(shape).Draw(t, "axes")
		ix := weights.Index{"t": axes}

		part := ix.Slice(whole)
		offsets := kept(shape, axes)
		x := part.Must("t")
		if part.Len() != 1 || x.Len() != len(offsets) || x.DType() != d || len(x.Shape) != len(shape) {
			t.Fatalf("slice of %v by %v is %v", shape, axes, x)
		}
		for l, g := range offsets {
			if x.At(l) != float64(g+1) {
				t.Fatalf("slice of %v by %v is %v, expected element %d from %d", shape, axes, x, l, g)
			}
		}
		if err := ix.Like(whole).Match(part); err != nil {
			t.Fatalf("Like: %v", err)
		}
		// What is scattered back changes nothing; what is scattered elsewhere arrives, and nothing else.
		back := whole.Clone()
		ix.Scatter(back, part)
		if !back.Equal(whole) {
			t.Fatalf("scatter of the slice gives %v", back)
		}
		zero := whole.Zeros()
		ix.Scatter(zero, part)
		held := map[int]bool{}
		for _, g := range offsets {
			held[g] = true
		}
		for i := range zero.Must("t").Len() {
			if got := zero.Must("t").At(i); (got != 0) != held[i] || held[i] && got != float64(i+1) {
				t.Fatalf("scatter of %v by %v gives %v", shape, axes, zero.Must("t"))
			}
		}
		if zero.Must("unheld").At(0) != 0 {
			t.Fatal("scatter touched a tensor that is not held")
		}
		if !ix.Slice(zero).Equal(part) {
			t.Fatal("the slice of what was scattered is something else")
		}
		everything := weights.Index(nil).Slice(whole)
		if !everything.Equal(whole) {
			t.Fatal("the nil index is not everything")
		}
		everything.Must("unheld").SetAt(0, 0)
		if whole.Must("unheld").At(0) != 7 {
			t.Fatal("a slice shares elements with the whole")
		}
	})
}

// I4 of the HeteroFL specification, for any tensor: a level is the same slice of the whole and of the levels above it.
func TestSliceOfSlice(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		rank := rapid.IntRange(0, 4).Draw(t, "rank")
		shape := make([]int, rank)
		levels := make([][]weights.Axis, 3)
		for i := range shape {
			heads := rapid.IntRange(1, 3).Draw(t, "heads")
			width := rapid.IntRange(0, 5).Draw(t, "width")
			shape[i] = heads * width
			scaled := rapid.Bool().Draw(t, "scaled")
			for l := range levels {
				width = rapid.IntRange(0, width).Draw(t, "keep")
				switch {
				case !scaled:
					levels[l] = append(levels[l], weights.All())
				case heads == 1:
					levels[l] = append(levels[l], weights.Prefix(width))
				default:
					levels[l] = append(levels[l], weights.Heads(heads, width))
				}
			}
		}
		whole := set("t", count(weights.Float32, shape...))
		at := func(l int, s weights.Set) weights.Set { return weights.Index{"t": levels[l]}.Slice(s) }
		if got, want := at(2, at(1, at(0, whole))), at(2, whole); !got.Equal(want) {
			t.Fatalf("%v by %v: got %v, expected %v", shape, levels, got, want)
		}
	})
}

func TestIndexJSON(t *testing.T) {
	for want, a := range map[string]weights.Axis{
		`"all"`:                weights.All(),
		`{"prefix":0}`:         weights.Prefix(0),
		`{"prefix":12}`:        weights.Prefix(12),
		`{"heads":4,"keep":0}`: weights.Heads(4, 0),
		`{"heads":4,"keep":2}`: weights.Heads(4, 2),
		`{"list":[]}`:          weights.List(nil),
		`{"list":[3,0,1]}`:     weights.List([]int32{3, 0, 1}),
	} {
		b, err := json.Marshal(a)
		if err != nil || string(b) != want {
			t.Errorf("got %s, error %v, expected %s", b, err, want)
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		shape := genShape().Draw(t, "shape")
		ix := weights.Index{"t": genAxes(shape).Draw(t, "axes")}
		if rapid.IntRange(0, 9).Draw(t, "nil") == 0 {
			ix = nil
		}
		b, err := json.Marshal(ix)
		if err != nil {
			t.Fatal(err)
		}
		var got weights.Index
		if err := json.Unmarshal(b, &got); err != nil {
			t.Fatal(err)
		}
		whole := set("t", count(weights.Float32, shape...))
		if (got == nil) != (ix == nil) || !got.Slice(whole).Equal(ix.Slice(whole)) {
			t.Fatalf("%v comes back from %s as %v", ix, b, got)
		}
	})
}

func TestIndexJSONRefuses(t *testing.T) {
	for _, in := range []string{
		`null`, `{}`, `[]`, `1`, `"some"`, `""`, `{"prefix":-1}`, `{"prefix":1.5}`, `{"prefix":null}`, `{"heads":4}`, `{"keep":4}`,
		`{"heads":0,"keep":1}`, `{"heads":-2,"keep":1}`, `{"heads":2,"keep":-1}`, `{"prefix":1,"list":[0]}`, `{"prefix":1,"heads":2,"keep":1}`,
		`{"list":null}`, `{"list":[2147483648]}`, `{"list":["0"]}`, `{"prefix":1,"x":2}`, `{"prefix":99999999999999999999}`,
	} {
		a := weights.Prefix(7)
		if err := json.Unmarshal([]byte(in), &a); err == nil || !strings.Contains(err.Error(), "axis "+in) {
			t.Errorf("%s gives %v, error %v", in, a, err)
		}
		if a.Len(100) != 7 {
			t.Errorf("%s changes the axis", in)
		}
	}
	long := `{"list":[` + strings.Repeat("0,", 10_000) + `-]}`
	if err := json.Unmarshal([]byte(long), new(weights.Axis)); err == nil || len(err.Error()) > 300 {
		t.Errorf("got %v", err)
	}
}

func TestIndexCheck(t *testing.T) {
	whole := set("t", weights.NewTensor(weights.Float32, 4, 6))
	for _, c := range []struct {
		ix   weights.Index
		want string
	}{
		{nil, ""},
		{weights.Index{}, ""},
		{weights.Index{"t": nil}, ""},
		{weights.Index{"t": {weights.Prefix(4), weights.Heads(3, 2)}}, ""},
		{weights.Index{"z": nil, "u": nil, "t": nil}, `index names tensor "u", which the model does not have`},
		{weights.Index{"t": {weights.All()}}, `index of tensor "t": 1 axes for shape [4 6]`},
		{weights.Index{"t": {weights.Prefix(5), weights.All()}}, `index of tensor "t": axis 0: prefix 5 of an axis of 4`},
		{weights.Index{"t": {weights.All(), weights.Heads(4, 1)}}, `axis 1: 1 positions of each of 4 heads of an axis of 6`},
		{weights.Index{"t": {weights.All(), weights.Heads(3, 3)}}, `axis 1: 3 positions of each of 3 heads of an axis of 6`},
		{weights.Index{"t": {weights.All(), weights.Heads(1<<40, 1<<40)}}, `of an axis of 6`},
		{weights.Index{"t": {weights.List([]int32{0, 4}), weights.All()}}, `axis 0: position 4 of an axis of 4`},
		{weights.Index{"t": {weights.List([]int32{-1}), weights.All()}}, `axis 0: position -1 of an axis of 4`},
		{weights.Index{"t": {weights.List([]int32{2, 0, 2}), weights.All()}}, `axis 0: position 2 twice`},
		{weights.Index{"t": {weights.List([]int32{1, 1}), weights.All()}}, `axis 0: position 1 twice`},
	} {
		err := c.ix.Check(whole)
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%v: got %v, expected %q", c.ix, err, c.want)
		}
	}
}

// An index that came over the network and passed its check can be used.
func FuzzIndex(f *testing.F) {
	whole := set("a", count(weights.Float32, 2, 6))
	whole.Put("b", count(weights.Float64))
	whole.Put("c", weights.NewTensor(weights.Float32, 0, 3))
	for _, s := range []string{
		`null`, `{}`, `{"a":null,"b":[]}`, `{"a":["all",{"prefix":3}],"c":["all","all"]}`, `{"a":[{"list":[1]},{"heads":3,"keep":1}]}`,
		`{"c":[{"heads":5,"keep":0},{"list":[]}]}`, `{"a":[{"list":[0,0]},"all"]}`, `{"a":[{"heads":99999999999,"keep":99999999999},"all"]}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var ix weights.Index
		if json.Unmarshal(b, &ix) != nil || ix.Check(whole) != nil {
			return
		}
		back := whole.Clone()
		part := ix.Slice(whole)
		ix.Scatter(back, part)
		if !back.Equal(whole) || ix.Like(whole).Match(part) != nil {
			t.Fatalf("%s: slice and scatter disagree", b)
		}
		a := weights.NewAcc(whole, true)
		a.MustAdd(part, ix, nil, 1)
		a.MustAdd(whole, nil, ix, 1)
		for n, x := range whole.All() {
			for i := range x.Len() {
				if c := a.Count(n, i); c == 1 || c > 2 || c == 2 && a.Total(n, i) != 2*x.At(i) {
					t.Fatalf("%s: %s[%d] is covered %d times with sum %v", b, n, i, c, a.Total(n, i))
				}
			}
		}
	})
}

func ExampleIndex() {
	whole := weights.NewSet(1)
	whole.Put("dense.weight", weights.Of32([]float32{
		11, 12, 13, 14,
		21, 22, 23, 24,
		31, 32, 33, 34,
	}, 3, 4))

	// The first two outputs, and of the inputs, which form two heads of two, the first of each.
	thin := weights.Index{"dense.weight": {weights.Prefix(2), weights.Heads(2, 1)}}
	part := thin.Slice(whole)
	fmt.Println(part.Must("dense.weight").F32)

	part.Scale(-1) // a member trains its slice …
	thin.Scatter(whole, part)
	fmt.Println(whole.Must("dense.weight").F32)

	wire, _ := json.Marshal(thin)
	fmt.Println(string(wire))
	// Output:
	// [11 13 21 23]
	// [-11 12 -13 14 -21 22 -23 24 31 32 33 34]
	// {"dense.weight":[{"prefix":2},{"heads":2,"keep":1}]}
}
