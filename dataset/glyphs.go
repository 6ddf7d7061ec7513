package dataset

import (
	"context"
	"fmt"
	"image"
	"image/draw"
	"math"
	"math/rand/v2"

	"golang.org/x/image/font"
	"golang.org/x/image/font/gofont/gobold"
	"golang.org/x/image/font/gofont/gobolditalic"
	"golang.org/x/image/font/gofont/goitalic"
	"golang.org/x/image/font/gofont/gomedium"
	"golang.org/x/image/font/gofont/gomediumitalic"
	"golang.org/x/image/font/gofont/gomono"
	"golang.org/x/image/font/gofont/gomonobold"
	"golang.org/x/image/font/gofont/gomonobolditalic"
	"golang.org/x/image/font/gofont/gomonoitalic"
	"golang.org/x/image/font/gofont/goregular"
	"golang.org/x/image/font/sfnt"
	"golang.org/x/image/math/fixed"
	"golang.org/x/image/vector"

	"github.com/cohort-learning/cohort/rng"
)

// glyphAlphabet lists the classes of glyphs in label order: digits, capitals, small letters.
const glyphAlphabet = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"

// Glyphs is a data set that needs no files: single characters from the ten Go fonts (Bigelow and Holmes 2016: regular,
// medium and bold, each upright and italic, and monospaced), every one rotated, sheared, stretched, moved, faded and
// drowned in noise at random. Image i is a function of (Seed, part, i) and the other fields; neither the number of
// images nor the number of threads changes it. Labels go round: image i has class i mod Classes.
//
// The zero value of every field but Train means its default.
type Glyphs struct {
	Size    int     // height and width in pixels, 8 to 512; default 28
	Classes int     // 10 (digits, the default) to 62 (digits, capitals, small letters)
	Train   int     // number of training images
	Test    int     // number of test images
	Distort float64 // strength of the random affine map; default 1, negative none
	Noise   float64 // standard deviation of the pixel noise, as a part of full brightness; default Size/80, at most ½; negative none
	Seed    uint64
}

// Validate reports the first field out of its range.
func (g Glyphs) Validate() error {
	g = g.defaults()
	switch {
	case g.Size < 8 || g.Size > 512:
		return fmt.Errorf("glyphs: size %d is outside 8..512", g.Size)
	case g.Classes < 10 || g.Classes > len(glyphAlphabet):
		return fmt.Errorf("glyphs: %d classes is outside 10..%d", g.Classes, len(glyphAlphabet))
	case g.Train < 1 || g.Test < 0:
		return fmt.Errorf("glyphs: %d training and %d test images: need at least 1 and 0", g.Train, g.Test)
	case g.Train > maxBytes/g.Size/g.Size || g.Test > maxBytes/g.Size/g.Size:
		return fmt.Errorf("glyphs: %d and %d images of %d×%d exceed %d bytes; draw fewer or smaller ones", g.Train, g.Test, g.Size, g.Size, int64(maxBytes))
	case g.Distort > 3 || math.IsNaN(g.Distort):
		return fmt.Errorf("glyphs: distort %v is above 3", g.Distort)
	case g.Noise > 1 || math.IsNaN(g.Noise):
		return fmt.Errorf("glyphs: noise %v is above 1", g.Noise)
	}
	return nil
}

func (g Glyphs) defaults() Glyphs {
	if g.Size == 0 {
		g.Size = 28
	}
	if g.Classes == 0 {
		g.Classes = 10
	}
	switch {
	case g.Distort == 0:
		g.Distort = 1
	case g.Distort < 0:
		g.Distort = 0
	}
	switch {
	case g.Noise == 0:
		g.Noise = min(float64(g.Size)/80, 0.5) // a larger character outweighs more noise
	case g.Noise < 0:
		g.Noise = 0
	}
	return g
}

// Load draws the training and the test part on all cores.
func (g Glyphs) Load(ctx context.Context) (*Split, error) {
	if err := g.Validate(); err != nil {
		return nil, err
	}
	g = g.defaults()
	masks, err := glyphMasks(g.Classes, min(2*g.Size, 256))
	if err != nil {
		return nil, err
	}
	split := new(Split)
	for _, part := range []struct {
		name string
		n    int
		to   **Examples
	}{{"train", g.Train, &split.Train}, {"test", g.Test, &split.Test}} {
		if part.n == 0 {
			continue
		}
		e, err := g.draw(ctx, masks, part.name, part.n)
		if err != nil {
			return nil, err
		}
		*part.to = e
	}
	split.Train.Normalise(10_000)
	if split.Test != nil {
		split.Test.Mean, split.Test.Std = split.Train.Mean, split.Train.Std
	}
	return split, nil
}

func (g Glyphs) draw(ctx context.Context, masks []mask, part string, n int) (*Examples, error) {
	e := &Examples{
		Name:    "glyphs",
		Shape:   []int{g.Size, g.Size, 1},
		U8:      make([]uint8, n*g.Size*g.Size),
		Labels:  make([]int32, n),
		Classes: make([]string, g.Classes),
	}
	for c := range e.Classes {
		e.Classes[c] = glyphAlphabet[c : c+1]
	}
	key := rng.New(g.Seed, 0, part, "glyphs").Uint64()
	fonts := len(masks) / g.Classes
	const chunk = 1024
	err := parallel(ctx, (n+chunk-1)/chunk, func(k int) error {
		src := rand.NewPCG(0, 0)
		r := rand.New(src)
		for i := k * chunk; i < min((k+1)*chunk, n); i++ {
			src.Seed(key, uint64(i))
			class := i % g.Classes
			e.Labels[i] = int32(class)
			m := masks[class*fonts+r.IntN(fonts)]
			g.one(e.U8[i*g.Size*g.Size:(i+1)*g.Size*g.Size], m, r)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("drawing glyphs: %w", err)
	}
	return e, nil
}

// one draws a character through a random affine map and adds the noise. Positions are 16.16 fixed point: pixel (x, y)
// shows the mask at A·(x − s/2 − t) + side/2, bilinearly.
func (g Glyphs) one(out []uint8, m mask, r *rand.Rand) {
	d := g.Distort
	uniform := func(a float64) float64 { return (2*r.Float64() - 1) * a * d }
	angle, shear := uniform(0.30), uniform(0.25)
	sx, sy := math.Exp(uniform(0.22)), math.Exp(uniform(0.22))
	tx, ty := uniform(0.12)*float64(g.Size), uniform(0.12)*float64(g.Size)
	light := 1 - r.Float64()*min(0.5*d, 0.9) // brightness of the character

	const one = 1 << 16
	ratio := float64(m.side) / float64(g.Size)
	cos, sin := math.Cos(angle)*ratio, math.Sin(angle)*ratio
	du, dv := int32(cos/sx*one), int32(sin/sy*one) // a step to the right, in mask pixels
	eu, ev := int32((shear*cos-sin)/sx*one), int32((shear*sin+cos)/sy*one)
	half := float64(g.Size)/2 - 0.5
	offx, offy := -half-tx, -half-ty
	centre := (float64(m.side)/2 - 0.5) * one
	u0 := int32(float64(offx*float64(du)) + float64(offy*float64(eu)) + centre)
	v0 := int32(float64(offx*float64(dv)) + float64(offy*float64(ev)) + centre)

	bright := int32(light * 256)
	noise := int32(g.Noise * noiseScale)
	var bits uint64
	last := uint32(m.side - 1)
	for y := range g.Size {
		u, v := u0, v0
		for x := range g.Size {
			iu, iv := uint32(u>>16), uint32(v>>16)
			var ink int32
			if iu < last && iv < last {
				fu, fv := (u>>8)&255, (v>>8)&255
				p := m.pix[int(iv)*m.side+int(iu):]
				top := int32(p[0])*(256-fu) + int32(p[1])*fu
				bottom := int32(p[m.side])*(256-fu) + int32(p[m.side+1])*fu
				ink = (top*(256-fv) + bottom*fv) >> 16 * bright >> 8
			}
			if noise != 0 {
				if x&1 == 0 {
					bits = r.Uint64()
				} else {
					bits >>= 32
				}
				ink += bell(uint32(bits)) * noise >> 16
			}
			out[y*g.Size+x] = uint8(min(max(ink, 0), 255))
			u, v = u+du, v+dv
		}
		u0, v0 = u0+eu, v0+ev
	}
}

// bell returns a number with mean 0 and a nearly normal distribution: the sum of four uniform bytes, centred. Its
// standard deviation is √(4·(256²−1)/12) = 147.8.
func bell(bits uint32) int32 {
	return int32(bits&255+bits>>8&255+bits>>16&255+bits>>24) - 510
}

// noiseScale turns a standard deviation given as a part of 255 into the 16-bit factor of bell.
const noiseScale = 255 * 65536 / 147.8

// mask is a character in white on black, its em box centred in a square.
type mask struct {
	side int
	pix  []uint8
}

func glyphFonts() [10][]byte {
	return [10][]byte{goregular.TTF, gobold.TTF, goitalic.TTF, gobolditalic.TTF, gomedium.TTF, gomediumitalic.TTF,
		gomono.TTF, gomonobold.TTF, gomonoitalic.TTF, gomonobolditalic.TTF}
}

// glyphMasks draws every class in every font: the mask of class c in font f is element c·fonts + f.
func glyphMasks(classes, side int) ([]mask, error) {
	fonts := glyphFonts()
	masks := make([]mask, classes*len(fonts))
	for f, ttf := range fonts {
		parsed, err := sfnt.Parse(ttf)
		if err != nil {
			return nil, fmt.Errorf("glyphs: font %d: %w", f, err)
		}
		var buf sfnt.Buffer
		for c := range classes {
			pix, err := glyphMask(parsed, &buf, rune(glyphAlphabet[c]), side)
			if err != nil {
				return nil, fmt.Errorf("glyphs: character %q of font %d: %w", glyphAlphabet[c], f, err)
			}
			masks[c*len(fonts)+f] = mask{side: side, pix: pix}
		}
	}
	return masks, nil
}

// glyphMask draws one character. The em is 0.95 of the side, so that a capital fills about 70 % of the height; the
// advance is centred horizontally and the middle of a capital vertically, so that case stays recognisable.
func glyphMask(f *sfnt.Font, buf *sfnt.Buffer, char rune, side int) ([]uint8, error) {
	ppem := fixed.Int26_6(math.Round(0.95 * float64(side) * 64))
	index, err := f.GlyphIndex(buf, char)
	if err != nil {
		return nil, err
	}
	metrics, err := f.Metrics(buf, ppem, font.HintingNone)
	if err != nil {
		return nil, err
	}
	advance, err := f.GlyphAdvance(buf, index, ppem, font.HintingNone)
	if err != nil {
		return nil, err
	}
	segments, err := f.LoadGlyph(buf, index, ppem, nil)
	if err != nil {
		return nil, err
	}
	px := func(v fixed.Int26_6) float32 { return float32(v) / 64 }
	left := float32(side)/2 - px(advance)/2
	base := float32(side)/2 + px(metrics.CapHeight)/2
	z := vector.NewRasterizer(side, side)
	for _, s := range segments {
		a := s.Args
		x := func(i int) float32 { return left + px(a[i].X) }
		y := func(i int) float32 { return base + px(a[i].Y) }
		switch s.Op {
		case sfnt.SegmentOpMoveTo:
			z.ClosePath()
			z.MoveTo(x(0), y(0))
		case sfnt.SegmentOpLineTo:
			z.LineTo(x(0), y(0))
		case sfnt.SegmentOpQuadTo:
			z.QuadTo(x(0), y(0), x(1), y(1))
		case sfnt.SegmentOpCubeTo:
			z.CubeTo(x(0), y(0), x(1), y(1), x(2), y(2))
		}
	}
	z.ClosePath()
	dst := image.NewAlpha(image.Rect(0, 0, side, side))
	z.DrawOp = draw.Src
	z.Draw(dst, dst.Bounds(), image.Opaque, image.Point{})
	return dst.Pix, nil
}
