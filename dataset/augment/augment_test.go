package augment

import (
	"encoding/json"
	"math"
	"os"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/rng"
	"pgregory.net/rapid"
)

// stored is an image of testdata.
type stored struct {
	Height, Width, Channels int
	Pix                     []byte
}

func (s stored) image() Image { return Image{s.Height, s.Width, s.Channels, slices.Clone(s.Pix)} }

func readPillow(t *testing.T) (images []stored, cases []pillowCase) {
	t.Helper()
	b, err := os.ReadFile("testdata/pillow.json")
	if err != nil {
		t.Fatal(err)
	}
	var f struct {
		Images []stored
		Cases  []pillowCase
	}
	if err := json.Unmarshal(b, &f); err != nil {
		t.Fatal(err)
	}
	return f.Images, f.Cases
}

type pillowCase struct {
	Image int
	Op    string
	Value float64
	Pix   []byte
}

// TestPillow compares every operation to the library that defines it, byte for byte.
func TestPillow(t *testing.T) {
	images, cases := readPillow(t)
	seen := map[string]bool{"cutout": true} // which is not the library's: see TestCutout
	for _, c := range cases {
		im := images[c.Image].image()
		Do(c.Op, im, c.Value, nil)
		seen[c.Op] = true
		for i, v := range im.Pix {
			if v != c.Pix[i] {
				t.Errorf("%s %g of image %d: byte %d is %d, want %d", c.Op, c.Value, c.Image, i, v, c.Pix[i])
				break
			}
		}
	}
	for _, o := range Ops() {
		if !seen[o] {
			t.Errorf("no reference values of %s", o)
		}
	}
}

// ramp is x[r,c] = 4·(8r+c), 8×8.
func ramp() Image {
	im := Image{8, 8, 1, make([]uint8, 64)}
	for i := range im.Pix {
		im.Pix[i] = uint8(4 * i)
	}
	return im
}

// TestReferenceValues checks the values that the specification of SemiFL states, computed with Pillow 9.4.
func TestReferenceValues(t *testing.T) {
	up := func(from, step, n int) []uint8 {
		row := make([]uint8, n)
		for i := range row {
			row[i] = uint8(from + step*i)
		}
		return row
	}
	for _, c := range []struct {
		op    string
		value float64
		rows  map[int][]uint8 // beginnings of rows
		sum   int
	}{
		{"autocontrast", 0, map[int][]uint8{0: up(0, 4, 8), 3: up(97, 4, 8)}, 8130},
		{"brightness", 1.9, map[int][]uint8{3: {182, 190, 197, 205, 212, 220, 228, 235}}, 11900},
		{"contrast", 1.9, map[int][]uint8{0: make([]uint8, 8), 3: {69, 76, 84, 91, 99, 107, 114, 122}}, 8095},
		{"equalize", 0, map[int][]uint8{0: up(0, 4, 8), 7: up(224, 4, 8)}, 8064},
		{"posterize", 4, map[int][]uint8{0: {0, 0, 0, 0, 16, 16, 16, 16}}, 7680},
		{"solarize", 0, map[int][]uint8{3: up(159, -4, 8)}, 8256},
		{"invert", 0, map[int][]uint8{3: up(159, -4, 8)}, 8256},
		{"shear-x", 0.3, map[int][]uint8{0: up(0, 4, 8), 3: {100, 104, 108, 112, 116, 120, 124, 0}}, 6605},
		{"shear-x", -0.3, map[int][]uint8{0: {0, 3, 7, 11, 15, 19, 23, 27}, 3: {0, 96, 99, 103, 107, 111, 115, 119}}, 6353},
		{"translate-x", 2, map[int][]uint8{0: {8, 12, 16, 20, 24, 28, 0, 0}}, 6240},
		{"translate-x", -2, map[int][]uint8{0: {0, 0, 0, 4, 8, 12, 16, 20}}, 5856},
		{"rotate", 30, map[int][]uint8{0: {0, 0, 16, 20, 56, 60, 92, 0}, 3: {36, 72, 72, 108, 112, 148, 152, 188}}, 7056},
	} {
		im := ramp()
		Do(c.op, im, c.value, nil)
		for r, want := range c.rows {
			if got := im.Pix[8*r : 8*r+len(want)]; !slices.Equal(got, want) {
				t.Errorf("%s %g, row %d: %v, want %v", c.op, c.value, r, got, want)
			}
		}
		if got := total(im); got != c.sum {
			t.Errorf("%s %g: sum %d, want %d", c.op, c.value, got, c.sum)
		}
	}

	four := Image{1, 4, 1, []uint8{100, 120, 140, 160}}
	Do("autocontrast", four, 0, nil)
	if !slices.Equal(four.Pix, []uint8{0, 85, 170, 255}) {
		t.Errorf("autocontrast of 100, 120, 140, 160: %v", four.Pix)
	}
	few := Image{2, 4, 1, []uint8{10, 10, 10, 200, 10, 50, 50, 200}}
	before := slices.Clone(few.Pix)
	Do("equalize", few, 0, nil)
	if !slices.Equal(few.Pix, before) {
		t.Errorf("equalize of eight pixels: %v, want them as they were", few.Pix)
	}
	big := Image{64, 64, 1, make([]uint8, 64*64)}
	for i := range big.Pix {
		big.Pix[i] = uint8(i / 64 * (i % 64) % 64)
	}
	Do("equalize", big, 0, nil)
	if want := []uint8{0, 23, 34, 49, 58, 70, 85, 98, 107, 122, 132, 151}; !slices.Equal(big.Pix[3*64:3*64+12], want) || total(big) != 544704 {
		t.Errorf("equalize of 64×64: row 3 %v, sum %d", big.Pix[3*64:3*64+12], total(big))
	}
}

// TestColour checks the reference values of an image of three ramps: rising, falling, and half as steep.
func TestColour(t *testing.T) {
	colour := func() Image {
		g := ramp()
		im := Image{8, 8, 3, make([]uint8, 192)}
		for i, v := range g.Pix {
			im.Pix[3*i], im.Pix[3*i+1], im.Pix[3*i+2] = v, 255-v, v/2
		}
		return im
	}
	if got := greys(colour())[24:32]; !slices.Equal(got, []uint8{128, 127, 126, 125, 124, 123, 122, 121}) {
		t.Errorf("luma of row 3: %v", got)
	}
	im := colour()
	Do("color", im, 1.9, nil)
	if got := im.Pix[3*24 : 3*25]; !slices.Equal(got, []uint8{67, 186, 0}) {
		t.Errorf("color at [3,0]: %v", got)
	}
	if got := im.Pix[3*31 : 3*32]; !slices.Equal(got, []uint8{126, 140, 8}) {
		t.Errorf("color at [3,7]: %v", got)
	}
	im = colour()
	Do("contrast", im, 1.9, nil)
	if got := im.Pix[3*24 : 3*25]; !slices.Equal(got, []uint8{73, 193, 0}) {
		t.Errorf("contrast at [3,0]: %v", got)
	}
}

func total(im Image) (sum int) {
	for _, v := range im.Pix {
		sum += int(v)
	}
	return sum
}

// TestCutout checks that what is grey is one square within the image, and that a side of 40 on 32×32 pixels greys all of it with
// probability (21/32)²: where a corner drawn from [0, 32) falls below 21, truncation leaves 0.
func TestCutout(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, w, c := rapid.IntRange(1, 9).Draw(t, "h"), rapid.IntRange(1, 9).Draw(t, "w"), rapid.SampledFrom([]int{1, 3}).Draw(t, "c")
		v := rapid.IntRange(0, 12).Draw(t, "v")
		im := Image{h, w, c, make([]uint8, h*w*c)}
		Do("cutout", im, float64(v), rng.New(rapid.Uint64().Draw(t, "seed"), 0, "", "cutout"))
		x0, y0, x1, y1, n := w, h, -1, -1, 0
		for i, p := range im.Pix {
			if p == 127 {
				x, y := i/c%w, i/c/w
				x0, y0, x1, y1, n = min(x0, x), min(y0, y), max(x1, x), max(y1, y), n+1
			}
		}
		if n > 0 && n != (x1-x0+1)*(y1-y0+1)*c || (n == 0) != (v == 0) || x1-x0 > v || y1-y0 > v {
			t.Fatalf("%d bytes are grey within [%d,%d]×[%d,%d], side %d", n, x0, x1, y0, y1, v)
		}
	})
	whole, r := 0, rng.New(1, 0, "", "cutout")
	const trials = 4000
	for range trials {
		im := Image{32, 32, 1, make([]uint8, 1024)}
		Do("cutout", im, 40, r)
		if total(im) == 127*1024 {
			whole++
		}
	}
	// Within five standard deviations, √(p(1−p)/n).
	if p, want := float64(whole)/trials, 441./1024; math.Abs(p-want) > 5*math.Sqrt(want*(1-want)/trials) {
		t.Errorf("the whole image was grey with frequency %.3f, want %.3f", p, want)
	}
}

// TestApply checks that an operation is applied half of the time, that the stream alone decides, and that signs are fair.
func TestApply(t *testing.T) {
	p := Default()
	p.Ops = []string{"translate-x"}
	p.Translate = 1
	var counts [5]int // moves by −2 … 2
	const trials = 8000
	r := rng.New(3, 0, "", "apply")
	for range trials {
		im := Image{1, 5, 1, []uint8{0, 0, 9, 0, 0}}
		p.Apply(im, r)
		counts[slices.Index(im.Pix, 9)]++
	}
	// Each of two draws moves by ±1 with probability ¼ either way and else by nothing.
	for i, want := range []float64{1. / 16, 1. / 4, 3. / 8, 1. / 4, 1. / 16} {
		if f := float64(counts[i]) / trials; math.Abs(f-want) > 5*math.Sqrt(want*(1-want)/trials) {
			t.Errorf("moved by %d with frequency %.3f, want %.3f", i-2, f, want)
		}
	}
	images, _ := readPillow(t)
	a, b := images[4].image(), images[4].image()
	for range 50 {
		Default().Apply(a, rng.New(9, 1, "m", "strong"))
		Default().Apply(b, rng.New(9, 1, "m", "strong"))
		if !slices.Equal(a.Pix, b.Pix) {
			t.Fatal("the same stream gives another image")
		}
	}
}

// TestAnyImage checks that no operation reaches beyond an image of any shape, with one channel or more.
func TestAnyImage(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		h, w, c := rapid.IntRange(1, 9).Draw(t, "h"), rapid.IntRange(1, 9).Draw(t, "w"), rapid.IntRange(1, 4).Draw(t, "c")
		pix := rapid.SliceOfN(rapid.Byte(), h*w*c, h*w*c).Draw(t, "pix")
		p := Default()
		p.Draws = 4
		p.Apply(Image{h, w, c, pix}, rng.New(rapid.Uint64().Draw(t, "seed"), 0, "", "any"))
	})
}

func TestValidate(t *testing.T) {
	for _, p := range []Policy{{}, Default(), Small()} {
		if err := p.Validate(); err != nil {
			t.Errorf("%+v: %v", p, err)
		}
	}
	for want, change := range map[string]func(*Policy){
		"draws":     func(p *Policy) { p.Draws = -1 },
		`"flip"`:    func(p *Policy) { p.Ops = []string{"flip"} },
		"factor":    func(p *Policy) { p.Factor = math.NaN() },
		"cutout":    func(p *Policy) { p.Cutout = -1 },
		"translate": func(p *Policy) { p.Translate = -1 },
		"rotate":    func(p *Policy) { p.Rotate = math.Inf(1) },
		"shear":     func(p *Policy) { p.Shear = -1 },
		"posterize": func(p *Policy) { p.Posterize = 9 },
		"solarize":  func(p *Policy) { p.Solarize = 300 },
	} {
		p := Default()
		change(&p)
		if err := p.Validate(); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v", want, err)
		}
	}
}

// TestFor checks what is filled in for grey and colour images, and that what is given stays.
func TestFor(t *testing.T) {
	if got, want := (Policy{Draws: 2}).For(3), Default(); !reflect.DeepEqual(got, want) {
		t.Errorf("colour: %+v, want %+v", got, want)
	}
	if got, want := (Policy{Draws: 2}).For(1), Small(); !reflect.DeepEqual(got, want) {
		t.Errorf("grey: %+v, want %+v", got, want)
	}
	own := Policy{Draws: 1, Ops: []string{"invert"}, Factor: 1, Cutout: 2, Translate: 3, Rotate: 4, Shear: 5, Posterize: 6, Solarize: 7}
	if got := own.For(1); !reflect.DeepEqual(got, own) {
		t.Errorf("given: %+v, want %+v", got, own)
	}
}
