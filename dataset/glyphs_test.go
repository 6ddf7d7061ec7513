package dataset

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"strings"
	"testing"
)

func glyphs(t testing.TB, g Glyphs) *Split {
	t.Helper()
	s, err := g.Load(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range []*Examples{s.Train, s.Test} {
		if e != nil {
			if err := e.Validate(); err != nil {
				t.Fatal(err)
			}
		}
	}
	return s
}

// TestGlyphsDeterministic: an image is a function of seed, part and index; threads and the number of images change
// nothing.
func TestGlyphsDeterministic(t *testing.T) {
	g := Glyphs{Size: 16, Classes: 62, Train: 3000, Test: 500, Seed: 4}
	all := glyphs(t, g)
	threads := runtime.GOMAXPROCS(1)
	g.Train, g.Test = 2000, 100
	fewer := glyphs(t, g)
	runtime.GOMAXPROCS(threads)
	if !slices.Equal(all.Train.U8[:2000*256], fewer.Train.U8) || !slices.Equal(all.Test.U8[:100*256], fewer.Test.U8) {
		t.Error("images changed with their number or the number of threads")
	}
	g.Seed++
	if slices.Equal(glyphs(t, g).Train.U8[:256], fewer.Train.U8[:256]) {
		t.Error("another seed gave the same image")
	}
	for i := range 30 {
		a, b := all.Train.U8[i*256:(i+1)*256], all.Train.U8[(i+62)*256:(i+63)*256]
		same := 0
		for j := range a {
			if a[j] == b[j] {
				same++
			}
		}
		if same > 220 { // half of the pixels are 0 in both
			t.Errorf("images %d and %d of class %d agree in %d of 256 pixels", i, i+62, i, same)
		}
	}
	if slices.Equal(all.Train.U8[:256], all.Test.U8[:256]) {
		t.Error("training and test part begin with the same image")
	}
	if all.Train.Classes[10] != "A" || all.Train.Labels[62+36] != 36 || all.Train.Classes[36] != "a" {
		t.Errorf("classes %q", all.Train.Classes)
	}
}

// TestGlyphsAnySize: every size and number of classes gives images in which something is written.
func TestGlyphsAnySize(t *testing.T) {
	for _, size := range []int{8, 9, 28, 64, 150} {
		s := glyphs(t, Glyphs{Size: size, Classes: 62, Train: 124, Noise: -1})
		for i := range 124 {
			image := s.Train.U8[i*size*size : (i+1)*size*size]
			bright := 0
			for _, v := range image {
				if v > 60 {
					bright++
				}
			}
			if share := float64(bright) / float64(size*size); share < 0.01 || share > 0.5 {
				t.Errorf("size %d: %.3f of image %d (%s) is bright", size, share, i, s.Train.Classes[s.Train.Labels[i]])
			}
		}
	}
}

// TestGlyphsDistinct: without distortion and noise, the mean images of the classes all differ, and the nearest of them
// names most characters (it cannot name all: ten fonts, and O is close to 0).
func TestGlyphsDistinct(t *testing.T) {
	s := glyphs(t, Glyphs{Size: 28, Classes: 62, Train: 62 * 40, Test: 620, Distort: -1, Noise: -1})
	const n = 28 * 28
	mean := make([][]float64, 62)
	for c := range mean {
		mean[c] = make([]float64, n)
	}
	for i, l := range s.Train.Labels {
		for j, v := range s.Train.U8[i*n : (i+1)*n] {
			mean[l][j] += float64(v) / 40
		}
	}
	right := 0
	for i, l := range s.Test.Labels {
		best, at := 1e18, -1
		for c := range mean {
			d := 0.0
			for j, v := range s.Test.U8[i*n : (i+1)*n] {
				x := float64(v) - mean[c][j]
				d += x * x
			}
			if d < best {
				best, at = d, c
			}
		}
		if at == int(l) {
			right++
		}
	}
	if right < 560 {
		t.Errorf("%d of 620 clean characters recognised", right)
	}
}

func TestGlyphsRefused(t *testing.T) {
	for want, g := range map[string]Glyphs{
		"size 7":     {Size: 7, Train: 1},
		"63 classes": {Classes: 63, Train: 1},
		"9 classes":  {Classes: 9, Train: 1},
		"0 training": {},
		"exceed":     {Train: 1 << 40},
		"noise 2":    {Train: 1, Noise: 2},
		"distort 4":  {Train: 1, Distort: 4},
	} {
		if _, err := g.Load(context.Background()); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%+v: %v, expected %q", g, err, want)
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := (Glyphs{Train: 10_000}).Load(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func BenchmarkGlyphs(b *testing.B) {
	for b.Loop() {
		glyphs(b, Glyphs{Size: 28, Train: 20_000})
	}
	b.ReportMetric(float64(b.N*20_000)/b.Elapsed().Seconds(), "images/s")
}

func BenchmarkFill(b *testing.B) {
	e := &Examples{Shape: []int{32, 32, 3}, U8: make([]uint8, 100*3072), Mean: []float32{0, 0, 0}, Std: []float32{1, 1, 1}}
	dst, rows := make([]float32, 10*3072), identity(10)
	for b.Loop() {
		e.Fill(dst, rows, Augment{}, nil)
	}
}
