package nn

import (
	"fmt"
	"slices"
	"testing"

	"pgregory.net/rapid"

	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/weights"
)

// thinnable are small networks of every architecture.
func thinnable() map[string]Config {
	return map[string]Config{
		"linear":      {Input: []int{4, 4, 2}, Classes: 3},
		"mlp":         {Input: []int{4, 3, 2}, Classes: 3, Hidden: []int{16, 32}},
		"lenet":       {Input: []int{9, 8, 2}, Classes: 3, Widths: []int{16, 32}, Hidden: []int{16}},
		"cnn":         {Input: []int{8, 8, 2}, Classes: 3, Widths: []int{16, 32, 48}},
		"resnet":      {Input: []int{8, 8, 2}, Classes: 3, Widths: []int{16, 32}, Blocks: []int{1, 2}},
		"bottleneck":  {Input: []int{8, 8, 2}, Classes: 3, Widths: []int{16, 32}, Blocks: []int{2, 1}, Bottleneck: true},
		"wresnet":     {Input: []int{16, 16, 2}, Classes: 3, Depth: 7, Widen: 2},
		"transformer": {Vocabulary: 5, Tokens: 3, Embedding: 64, Heads: 4, FeedForward: 32, Layers: 2},
	}
}

func builderOf(name string, c Config) (Builder, error) {
	if name == "bottleneck" {
		name = "resnet"
	}
	return New(name, c)
}

// TestNestedSlices checks I4 of the HeteroFL specification: a slice of a slice is the slice, for every tensor.
func TestNestedSlices(t *testing.T) {
	for name, c := range thinnable() {
		b, err := builderOf(name, c)
		if err != nil {
			t.Fatal(err)
		}
		models := make([]*Model, len(levels))
		for i, r := range levels {
			if models[i], err = b(r); err != nil {
				t.Fatal(err)
			}
		}
		whole := models[0].Initial(weights.Float32, rng.New(1, 0, "", "slices"))
		for i, t2 := range whole.Names() { // no two scalars alike, so that a wrong position shows
			tensor := whole.Must(t2)
			for k := range tensor.Len() {
				tensor.SetAt(k, float64(k)+float64(i)/64)
			}
		}
		for i := range models {
			direct := Index(models[0], levels[i], Leading).Slice(whole)
			if err := direct.Match(models[i].Zeros(weights.Float32)); err != nil {
				t.Errorf("%s: the slice at rate %v is not a model of that rate: %v", name, levels[i], err)
			}
			for j := i; j < len(models); j++ {
				twice := Index(models[i], levels[j], Leading).Slice(direct)
				if !twice.Equal(Index(models[0], levels[j], Leading).Slice(whole)) {
					t.Errorf("%s: slicing to %v and then to %v is not slicing to %v", name, levels[i], levels[j], levels[j])
				}
			}
		}
	}
}

// TestHeadsAreSlicedOneByOne checks the worked example of the specification, section 2.2: width 16, 4 heads, rate 1/2.
func TestHeadsAreSlicedOneByOne(t *testing.T) {
	m := build(t, "transformer", Config{Vocabulary: 5, Tokens: 3, Embedding: 16, Heads: 4, FeedForward: 8, Layers: 1}, 1)
	ix := Index(m, 0.5, Leading)
	perHead := []int32{0, 1, 4, 5, 8, 9, 12, 13}
	prefix := []int32{0, 1, 2, 3, 4, 5, 6, 7}
	for name, want := range map[string][][]int32{
		"layers.0.attention.q.weight": {perHead, prefix},
		"layers.0.attention.k.weight": {perHead, prefix},
		"layers.0.attention.v.weight": {perHead, prefix},
		"layers.0.attention.v.bias":   {perHead},
		"layers.0.attention.o.weight": {prefix, perHead},
		"layers.0.norm1.weight":       {prefix},
		"layers.0.linear1.weight":     {prefix[:4], prefix},
		"decoder.linear2.weight":      {prefix[:5], prefix},
		"embedding.weight":            {prefix[:6], prefix},
		"position.weight":             {prefix[:3], prefix},
	} {
		shape := m.Zeros(weights.Float32).Must(name).Shape
		for i, a := range ix[name] {
			if got := a.Positions(shape[i]); !slices.Equal(got, want[i]) {
				t.Errorf("%s, axis %d: %v, want %v", name, i, got, want[i])
			}
		}
	}
}

// TestAnySliceComputesTheSame checks that all tensors agree on the chosen features, whatever they are: without norms, the
// wide network with everything else set to 0 computes what the thin one computes.
func TestAnySliceComputesTheSame(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		configs := thinnable()
		name := rapid.SampledFrom([]string{"mlp", "lenet", "cnn", "resnet", "bottleneck", "wresnet"}).Draw(t, "name")
		c := configs[name]
		c.Norm = NoNorm
		b, err := builderOf(name, c)
		if err != nil {
			t.Fatal(err)
		}
		wholeRate := rapid.SampledFrom([]float64{1, 0.75, 0.3}).Draw(t, "whole")
		rate := wholeRate * rapid.Float64Range(0.05, 1).Draw(t, "share")
		whole, err1 := b(wholeRate)
		thin, err2 := b(rate)
		if err1 != nil || err2 != nil {
			t.Fatal(err1, err2)
		}
		r := rng.New(rapid.Uint64().Draw(t, "seed"), 0, "", "pick")
		asked := map[string]bool{}
		ix := Index(whole, rate, func(d Dim, whole, keep int) weights.Axis {
			if asked[d.Name] {
				t.Fatalf("axis %s is picked twice", d.Name)
			}
			asked[d.Name] = true
			list := make([]int32, keep)
			for i, p := range r.Sample(whole, keep) {
				list[i] = int32(p)
			}
			return weights.List(list)
		})
		jb := jobFor(thin, weights.Float64, 7, 2)
		jb.cotan = weights.Tensor{}
		wide := jb
		wide.model, wide.params = whole, whole.Zeros(weights.Float64)
		ix.Scatter(wide.params, jb.params)
		if e := worst(wide.run().y, jb.run().y); e > 1e-12 {
			t.Fatalf("%s: thin and wide networks differ by %.2g", name, e)
		}
	})
}

// TestAnySliceOfTheTransformer checks the shapes of slices that choose other positions in every head.
func TestAnySliceOfTheTransformer(t *testing.T) {
	b, err := New("transformer", thinnable()["transformer"])
	if err != nil {
		t.Fatal(err)
	}
	whole, _ := b(1)
	thin, _ := b(0.25)
	r := rng.New(1, 0, "", "pick")
	ix := Index(whole, 0.25, func(d Dim, whole, keep int) weights.Axis {
		heads := max(1, d.Heads)
		var list []int32
		for h := range heads {
			for _, p := range r.Sample(whole/heads, keep/heads) {
				list = append(list, int32(h*whole/heads+p))
			}
		}
		return weights.List(list)
	})
	if err := ix.Slice(whole.Zeros(weights.Float32)).Match(thin.Zeros(weights.Float32)); err != nil {
		t.Error(err)
	}
	q, k := ix["layers.1.attention.q.weight"][0].Positions(64), ix["layers.1.attention.k.weight"][0].Positions(64)
	if !slices.Equal(q, k) {
		t.Errorf("queries keep %v and keys %v, whose products would be of other features", q, k)
	}
}

// TestAxesOfOneNameAgree checks that a name stands for one feature axis throughout a model.
func TestAxesOfOneNameAgree(t *testing.T) {
	for name, c := range thinnable() {
		b, err := builderOf(name, c)
		if err != nil {
			t.Fatal(err)
		}
		m, err := b(0.5)
		if err != nil {
			t.Fatal(err)
		}
		seen := map[string]Dim{}
		names := map[string]bool{}
		for _, p := range m.Params {
			if names[p.Name] {
				t.Errorf("%s has two parameters %s", name, p.Name)
			}
			names[p.Name] = true
			for _, d := range p.Dims {
				if d.Name == "" {
					continue
				}
				d.Block = 0
				if e, ok := seen[d.Name]; ok && e != d {
					t.Errorf("%s: axis %q is %+v and %+v", name, d.Name, e, d)
				}
				seen[d.Name] = d
			}
		}
		for _, md := range m.Modules {
			for _, p := range md.Params {
				if !names[p] {
					t.Errorf("%s: module %s counts the unknown parameter %s", name, md.Name, p)
				}
			}
		}
	}
}

func TestDimAt(t *testing.T) {
	for _, c := range []struct {
		d    Dim
		rate float64
		want int
	}{
		{Dim{Size: 10}, 0.1, 10},
		{Dim{Size: 10, Scaled: true}, 0.1, 1},
		{Dim{Size: 100, Scaled: true}, 0.07, 7}, // 100·0.07 is 7.000000000000001 in float64
		{Dim{Size: 5, Scaled: true}, 0.5, 3},
		{Dim{Size: 5, Scaled: true}, 1e-12, 1},
		{Dim{Size: 16, Scaled: true, Heads: 4}, 0.5, 8},
		{Dim{Size: 16, Scaled: true, Heads: 4}, 0.0625, 4},
		{Dim{Size: 5, Scaled: true, Block: 9}, 0.5, 27},
		{Dim{Size: 5, Block: 9}, 0.5, 45},
	} {
		if got := c.d.At(c.rate); got != c.want {
			t.Errorf("%s at rate %v: %d, want %d", fmt.Sprintf("%+v", c.d), c.rate, got, c.want)
		}
	}
}
