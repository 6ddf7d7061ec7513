package weights_test

import (
	"bytes"
	"io"
	"strconv"
	"testing"

	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/weights"
)

// benchmarkSet has ten million weights in a network's usual magnitudes.
func benchmarkSet(d weights.DType) weights.Set {
	r := rng.New(1, 0, "", "benchmark")
	var s weights.Set
	for i := range 20 {
		t := weights.NewTensor(d, 512, 1024)
		for k := range t.Len() {
			t.SetAt(k, r.NormFloat64()*0.02)
		}
		s.Put("layer"+strconv.Itoa(i), t)
	}
	return s
}

// perCoordinate reports the throughput in coordinates instead of bytes.
func perCoordinate(b *testing.B, n int) {
	b.ReportMetric(float64(n)*float64(b.N)/b.Elapsed().Seconds()/1e6, "Mcoords/s")
}

func BenchmarkWrite(b *testing.B) {
	s := benchmarkSet(weights.Float32)
	b.SetBytes(s.Bytes())
	for b.Loop() {
		if err := weights.Write(io.Discard, s, nil); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkRead(b *testing.B) {
	s := benchmarkSet(weights.Float32)
	var buf bytes.Buffer
	if err := weights.Write(&buf, s, nil); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(s.Bytes())
	for b.Loop() {
		if _, _, err := weights.Read(bytes.NewReader(buf.Bytes())); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDigest(b *testing.B) {
	s := benchmarkSet(weights.Float32)
	b.SetBytes(s.Bytes())
	for b.Loop() {
		weights.Digest(s)
	}
}

func BenchmarkAccAdd(b *testing.B) {
	half := weights.Index{}
	for i := range 20 {
		half["layer"+strconv.Itoa(i)] = []weights.Axis{weights.Prefix(256), weights.Prefix(512)}
	}
	for _, c := range []struct {
		name     string
		dtype    weights.DType
		counting bool
		index    weights.Index
		weight   uint64
	}{
		{"float32", weights.Float32, false, nil, 1},
		{"float32/weight=600", weights.Float32, false, nil, 600},
		{"float32/counts", weights.Float32, true, nil, 1},
		{"float32/counts/half", weights.Float32, true, half, 1},
		{"float64", weights.Float64, false, nil, 1},
	} {
		b.Run(c.name, func(b *testing.B) {
			whole := benchmarkSet(c.dtype)
			x := c.index.Slice(whole)
			a := weights.NewAcc(whole, c.counting)
			n := 0
			for b.Loop() {
				if n++; n == 1000 {
					b.StopTimer()
					a, n = weights.NewAcc(whole, c.counting), 0
					b.StartTimer()
				}
				a.MustAdd(x, c.index, nil, c.weight)
			}
			perCoordinate(b, x.Size())
		})
	}
}

// A model that fits the cache, as most that thin devices train.
func BenchmarkAccAddSmall(b *testing.B) {
	x := weights.Index{"layer0": {weights.Prefix(100), weights.All()}}.Slice(benchmarkSet(weights.Float32))
	a := weights.NewAcc(x, false)
	for b.Loop() {
		a.MustAdd(x, nil, nil, 1)
	}
	perCoordinate(b, x.Size())
}

func BenchmarkAccMean(b *testing.B) {
	s := benchmarkSet(weights.Float32)
	a := weights.NewAcc(s, true)
	a.MustAdd(s, nil, nil, 3)
	for b.Loop() {
		a.Mean(weights.Float32)
	}
	perCoordinate(b, s.Size())
}

func BenchmarkAccMerge(b *testing.B) {
	s := benchmarkSet(weights.Float32)
	a, z := weights.NewAcc(s, false), weights.NewAcc(s, false)
	z.MustAdd(s, nil, nil, 1)
	n := 0
	for b.Loop() {
		if n++; n == 1000 {
			a, n = weights.NewAcc(s, false), 0
		}
		if err := a.Merge(z); err != nil {
			b.Fatal(err)
		}
	}
	perCoordinate(b, s.Size())
}

func BenchmarkIndex(b *testing.B) {
	whole := benchmarkSet(weights.Float32)
	r := rng.New(1, 0, "", "positions")
	some := func(n, keep int) weights.Axis {
		list := make([]int32, keep)
		for i, p := range r.Perm(n)[:keep] {
			list[i] = int32(p)
		}
		return weights.List(list)
	}
	for _, c := range []struct {
		name string
		axes func() []weights.Axis
	}{
		{"all", func() []weights.Axis { return nil }},
		{"prefix", func() []weights.Axis { return []weights.Axis{weights.Prefix(256), weights.Prefix(512)} }},
		{"heads", func() []weights.Axis { return []weights.Axis{weights.Heads(8, 32), weights.Heads(8, 64)} }},
		{"list", func() []weights.Axis { return []weights.Axis{some(512, 256), some(1024, 512)} }},
	} {
		ix := weights.Index{}
		for _, n := range whole.Names() {
			ix[n] = c.axes()
		}
		part := ix.Slice(whole)
		b.Run("slice/"+c.name, func(b *testing.B) {
			b.SetBytes(part.Bytes())
			for b.Loop() {
				ix.Slice(whole)
			}
		})
		b.Run("scatter/"+c.name, func(b *testing.B) {
			b.SetBytes(part.Bytes())
			for b.Loop() {
				ix.Scatter(whole, part)
			}
		})
	}
}

func BenchmarkSet(b *testing.B) {
	x, y := benchmarkSet(weights.Float32), benchmarkSet(weights.Float32)
	for name, f := range map[string]func(){
		"Clone":     func() { x.Clone() },
		"Sub":       func() { x.Sub(y) },
		"AddScaled": func() { x.AddScaled(1e-9, y) },
		"Norm":      func() { x.Norm() },
		"Finite":    func() { x.Finite() },
		"Equal":     func() { x.Equal(x) },
	} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				f()
			}
			perCoordinate(b, x.Size())
		})
	}
}
