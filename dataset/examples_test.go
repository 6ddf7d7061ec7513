package dataset

import (
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"github.com/cohort-learning/cohort/rng"
)

// picture is one 2×3 image with two channels, value 10·y + x in the first and 100 more in the second.
func picture() *Examples {
	e := &Examples{Name: "toy", Shape: []int{2, 3, 2}}
	for y := range 2 {
		for x := range 3 {
			e.U8 = append(e.U8, uint8(10*y+x), uint8(100+10*y+x))
		}
	}
	return e
}

// square is one 3×3 grey image, value 10·y + x + 1.
func square() *Examples {
	e := &Examples{Name: "toy", Shape: []int{3, 3, 1}}
	for y := range 3 {
		for x := range 3 {
			e.U8 = append(e.U8, uint8(10*y+x+1))
		}
	}
	return e
}

func bytesOf(values []float32) []int {
	out := make([]int, len(values))
	for i, v := range values {
		out[i] = int(math.Round(float64(v) * 255))
	}
	return out
}

// TestFillNormalises: the value is ((v/255) − mean)/std, rounded to float32 at each step as PyTorch does.
func TestFillNormalises(t *testing.T) {
	e := picture()
	e.Mean, e.Std = []float32{0.5, 0.25}, []float32{0.5, 2}
	dst := make([]float32, 12)
	e.Fill(dst, []int32{0}, Augment{}, nil)
	for j, v := range e.U8 {
		if want := (float32(v)/255 - e.Mean[j%2]) / e.Std[j%2]; dst[j] != want {
			t.Errorf("value %d is %v, not %v", j, dst[j], want)
		}
	}
	// The same values as float32 give the same batch.
	f := &Examples{Name: "toy", Shape: e.Shape, Mean: e.Mean, Std: e.Std}
	for _, v := range e.U8 {
		f.F32 = append(f.F32, float32(v)/255)
	}
	other := make([]float32, 12)
	f.Fill(other, []int32{0}, Augment{}, nil)
	if !slices.Equal(dst, other) {
		t.Errorf("bytes give %v, numbers %v", dst, other)
	}
}

// TestCropAndFlip enumerates what the weak augmentations may give: each of the (2p+1)² windows, mirrored or not, padded
// with zero pixels before normalising.
func TestCropAndFlip(t *testing.T) {
	e := square()
	e.Mean, e.Std = []float32{0.1}, []float32{0.5}
	want := make(map[string]bool)
	for dy := -1; dy <= 1; dy++ {
		for dx := -1; dx <= 1; dx++ {
			for _, flip := range []bool{false, true} {
				var s []string
				for y := range 3 {
					for x := range 3 {
						sx := x
						if flip {
							sx = 2 - x
						}
						v := byte(0)
						if y+dy >= 0 && y+dy < 3 && sx+dx >= 0 && sx+dx < 3 {
							v = e.U8[(y+dy)*3+sx+dx]
						}
						s = append(s, string(rune('A'+v)))
					}
				}
				want[strings.Join(s, "")] = true
			}
		}
	}
	r := rng.New(1, 0, "", "test")
	seen := make(map[string]bool)
	dst := make([]float32, 9)
	for range 600 {
		e.Fill(dst, []int32{0}, Augment{CropPad: 1, FlipH: true}, r)
		var s []string
		for _, v := range dst {
			s = append(s, string(rune('A'+int(math.Round(float64((v*0.5+0.1)*255))))))
		}
		seen[strings.Join(s, "")] = true
	}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Error(diff)
	}
}

// TestQuarter: turns are counter-clockwise, as numpy.rot90.
func TestQuarter(t *testing.T) {
	e := square()
	dst := make([]float32, 9)
	for quarter, want := range map[int][]int{
		0:  {1, 2, 3, 11, 12, 13, 21, 22, 23},
		1:  {3, 13, 23, 2, 12, 22, 1, 11, 21},
		2:  {23, 22, 21, 13, 12, 11, 3, 2, 1},
		3:  {21, 11, 1, 22, 12, 2, 23, 13, 3},
		-1: {21, 11, 1, 22, 12, 2, 23, 13, 3},
	} {
		e.Fill(dst, []int32{0}, Augment{Skew: Skew{Quarter: quarter}}, nil)
		if diff := cmp.Diff(want, bytesOf(dst)); diff != "" {
			t.Errorf("%d quarters: %s", quarter, diff)
		}
	}
}

// TestSkewNoise: the noise has the variance asked for, and belongs to the row: neither the batch nor the place in it
// matters.
func TestSkewNoise(t *testing.T) {
	e := &Examples{Name: "toy", Shape: []int{20, 20, 1}, U8: make([]uint8, 50*400)}
	aug := Augment{Skew: Skew{Variance: 0.04, Seed: 3}}
	rows := identity(50)
	dst := make([]float32, len(e.U8))
	e.Fill(dst, rows, aug, nil)
	var sum, sq float64
	for _, v := range dst {
		sum, sq = sum+float64(v), sq+float64(v)*float64(v)
	}
	n := float64(len(dst))
	if mean, variance := sum/n, sq/n; math.Abs(mean) > 0.006 || math.Abs(variance-0.04) > 0.0015 {
		t.Errorf("noise has mean %.4f and variance %.4f", mean, variance)
	}
	one := make([]float32, 400)
	e.Fill(one, []int32{37}, aug, nil)
	if !slices.Equal(one, dst[37*400:38*400]) {
		t.Error("the noise of a row changed with its batch")
	}
}

func TestFillAllocatesNothing(t *testing.T) {
	e := &Examples{Name: "toy", Shape: []int{8, 8, 3}, U8: make([]uint8, 10*192), Labels: make([]int32, 10)}
	e.Mean, e.Std = []float32{0, 0, 0}, []float32{1, 1, 1}
	dst, labels, rows := make([]float32, 10*192), make([]int32, 10), identity(10)
	r := rng.New(1, 0, "", "test")
	for _, aug := range []Augment{{}, {CropPad: 4, FlipH: true}, {Skew: Skew{Variance: 1, Quarter: 1}}} {
		if n := testing.AllocsPerRun(10, func() {
			e.Fill(dst, rows, aug, r)
			e.FillLabels(labels, rows)
		}); n != 0 {
			t.Errorf("%+v: %v allocations", aug, n)
		}
	}
}

func TestFillPanics(t *testing.T) {
	text := &Examples{Shape: []int{2}, Tok: []int32{1, 2}}
	flat := &Examples{Shape: []int{4}, U8: make([]uint8, 4)}
	wide := picture()
	for want, f := range map[string]func(){
		"Fill of 1 rows of 12 values into 3":           func() { wide.Fill(make([]float32, 3), []int32{0}, Augment{}, nil) },
		"use FillTokens":                               func() { text.Fill(make([]float32, 2), []int32{0}, Augment{}, nil) },
		"on examples of shape [4]":                     func() { flat.Fill(make([]float32, 4), []int32{0}, Augment{FlipH: true}, nil) },
		"needs a stream":                               func() { wide.Fill(make([]float32, 12), []int32{0}, Augment{FlipH: true}, nil) },
		"a quarter turn of a 2×3 image":                func() { wide.Fill(make([]float32, 12), []int32{0}, Augment{Skew: Skew{Quarter: 1}}, nil) },
		"2 labels wanted for 2 rows, the data holds 0": func() { wide.FillLabels(make([]int32, 2), []int32{0, 0}) },
		"FillTokens of 1 rows of 2 tokens into 1":      func() { text.FillTokens(make([]int32, 1), []int32{0}) },
	} {
		func() {
			defer func() {
				if got, _ := recover().(string); !strings.Contains(got, want) {
					t.Errorf("panic %q, expected %q", got, want)
				}
			}()
			f()
		}()
	}
}

func TestValidate(t *testing.T) {
	good := func() *Examples {
		return &Examples{Name: "toy", Shape: []int{2}, F32: []float32{1, 2, 3, 4}, Labels: []int32{0, 1}, Classes: []string{"a", "b"}}
	}
	if err := good().Validate(); err != nil {
		t.Fatal(err)
	}
	for want, spoil := range map[string]func(*Examples){
		"no shape":                            func(e *Examples) { e.Shape = nil },
		"dimension below 1":                   func(e *Examples) { e.Shape = []int{0} },
		"only one of":                         func(e *Examples) { e.U8 = make([]uint8, 4) },
		"not a whole number of examples":      func(e *Examples) { e.F32 = e.F32[:3] },
		"1 labels for 2 examples":             func(e *Examples) { e.Labels = e.Labels[:1] },
		"3 keys for 2 examples":               func(e *Examples) { e.Keys = make([]string, 3) },
		"example 1 has label 2, outside 0..1": func(e *Examples) { e.Labels[1] = 2 },
		"example 1 has a value of NaN":        func(e *Examples) { e.F32[3] = float32(math.NaN()) },
		"1 means and 1 deviations for 2":      func(e *Examples) { e.Mean, e.Std = []float32{0}, []float32{1} },
		"standard deviation 0 of channel 1":   func(e *Examples) { e.Mean, e.Std = []float32{0, 0}, []float32{1, 0} },
	} {
		e := good()
		spoil(e)
		if err := e.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, expected %q", err, want)
		}
	}
}

// TestNormalise: after it, batches have mean 0 and standard deviation 1 in each channel; a constant one becomes 0.
func TestNormalise(t *testing.T) {
	r := rng.New(2, 0, "", "test")
	images := &Examples{Shape: []int{4, 4, 2}, U8: make([]uint8, 100*32)}
	table := &Examples{Shape: []int{2}, F32: make([]float32, 100*2)}
	for i := range images.U8 {
		if i%2 == 0 {
			images.U8[i] = uint8(r.IntN(200))
		} else {
			images.U8[i] = 7
		}
	}
	for i := range table.F32 {
		if table.F32[i] = 1e4 + float32(r.NormFloat64()); i%2 == 1 {
			table.F32[i] = 7
		}
	}
	for _, e := range []*Examples{images, table} {
		e.Normalise(0)
		dst := make([]float32, e.Len()*e.Size())
		e.Fill(dst, identity(e.Len()), Augment{}, nil)
		var sum, sq float64
		for i, v := range dst {
			if i%2 == 0 {
				sum, sq = sum+float64(v), sq+float64(v)*float64(v)
			} else if math.Abs(float64(v)) > 1e-6 {
				t.Fatalf("constant channel: %v", v)
			}
		}
		n := float64(len(dst) / 2)
		if math.Abs(sum/n) > 1e-3 || math.Abs(sq/n-1) > 1e-3 {
			t.Errorf("mean %v, mean square %v", sum/n, sq/n)
		}
	}
}

func TestView(t *testing.T) {
	e := balanced(10, 3)
	v := View{Data: e, Rows: []int32{8, 2, 0, 5}}
	if v.Len() != 4 || !slices.Equal(v.LabelSet(), []int32{0, 2}) || !slices.Equal(v.Histogram(), []int{1, 0, 3}) {
		t.Errorf("%d rows, labels %v, counts %v", v.Len(), v.LabelSet(), v.Histogram())
	}
	labels := make([]int32, 4)
	e.FillLabels(labels, v.Rows)
	if !slices.Equal(labels, []int32{2, 2, 0, 2}) {
		t.Errorf("labels %v", labels)
	}
	s := e.Subset(v.Rows)
	if s.Len() != 4 || !slices.Equal(s.Labels, labels) || e.All().Len() != 10 {
		t.Errorf("subset of %d with labels %v", s.Len(), s.Labels)
	}
}

// TestReflect checks windows that reach over every edge against the definition: pixel −i is pixel i, pixel n−1+i is n−1−i.
func TestReflect(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, w, c := rapid.IntRange(2, 6).Draw(t, "h"), rapid.IntRange(2, 6).Draw(t, "w"), rapid.SampledFrom([]int{1, 3}).Draw(t, "c")
		e := &Examples{Shape: []int{h, w, c}, U8: make([]uint8, h*w*c)}
		for i := range e.U8 {
			e.U8[i] = uint8(i)
		}
		pad := rapid.IntRange(1, min(h, w)-1).Draw(t, "pad")
		seed := rapid.Uint64().Draw(t, "seed")
		aug := Augment{CropPad: pad, Reflect: true}
		win := drawWindow(aug, rng.New(seed, 0, "", ""))
		got := make([]uint8, len(e.U8))
		e.Bytes(got, 0, aug, rng.New(seed, 0, "", ""))
		fold := func(i, n int) int {
			for i < 0 || i >= n {
				if i < 0 {
					i = -i
				} else {
					i = 2*n - 2 - i
				}
			}
			return i
		}
		for y := range h {
			for x := range w {
				for k := range c {
					want := e.U8[(fold(y+win.y, h)*w+fold(x+win.x, w))*c+k]
					if v := got[(y*w+x)*c+k]; v != want {
						t.Fatalf("pixel (%d, %d) through the window %+v is %d, want %d", y, x, win, v, want)
					}
				}
			}
		}
	})
}

// TestBytes checks that bytes, normalised, are what Fill gives, whatever the augmentation.
func TestBytes(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		c := rapid.SampledFrom([]int{1, 3}).Draw(t, "c")
		e := &Examples{Shape: []int{4, 4, c}, U8: rapid.SliceOfN(rapid.Byte(), 32*c, 32*c).Draw(t, "pixels"),
			Mean: []float32{0.3, 0.4, 0.5}[:c], Std: []float32{0.2, 0.25, 0.3}[:c]}
		aug := Augment{CropPad: rapid.IntRange(0, 3).Draw(t, "pad"), Reflect: rapid.Bool().Draw(t, "reflect"), FlipH: rapid.Bool().Draw(t, "flip"),
			Skew: Skew{Quarter: rapid.IntRange(0, 3).Draw(t, "quarter")}}
		seed := rapid.Uint64().Draw(t, "seed")
		want, got, b := make([]float32, 16*c), make([]float32, 16*c), make([]uint8, 16*c)
		e.Fill(want, []int32{1}, aug, rng.New(seed, 0, "", ""))
		e.Bytes(b, 1, aug, rng.New(seed, 0, "", ""))
		e.NormaliseBytes(got, b)
		if !slices.Equal(got, want) {
			t.Fatalf("%+v: %v, want %v", aug, got, want)
		}
	})
}
