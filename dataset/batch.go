package dataset

import (
	"fmt"
	"math"

	"github.com/cohort-learning/cohort/rng"
)

// Augment says how a batch of images is changed on its way out. The zero value changes nothing.
//
// CropPad and FlipH are the weak augmentations of training: they are drawn anew for every example of every batch. Skew
// belongs to a client's data and is the same each time a row is read, in training and in evaluation.
type Augment struct {
	CropPad int  // pad every side by this many zero pixels, then crop the original size at a random place
	Reflect bool // pad by mirroring at the edge, which is not repeated, instead of by zeros
	FlipH   bool // mirror left-right with probability ½
	Skew    Skew
}

// Random reports whether a draws random numbers for each example.
func (a Augment) Random() bool { return a.CropPad > 0 || a.FlipH }

// Skew is a client's own way of seeing: the feature skew of a partition (see [Partition.Skew]). The zero value is none.
type Skew struct {
	Variance float64 // of Gaussian noise added to every value on the raw scale (images: 0..1), before normalising
	Quarter  int     // quarter turns, counter-clockwise; odd values need square images
	Seed     uint64  // the noise of value j of row i is a function of (Seed, i, j) alone
}

// Fill writes the given rows as one batch: dst[b·size:(b+1)·size] is row rows[b], normalised by Mean and Std and
// augmented. Images come out NHWC. The draws for example b are made before those for b+1, so the result depends only on
// the arguments. Padding is a zero pixel before normalising, as torchvision pads, or mirrors the image.
//
// Fill allocates nothing and may run concurrently with different streams; r may be nil if aug draws nothing. It panics
// if len(dst) is not len(rows)·size, if a row is out of range, on token data, or if aug does not fit the shape.
func (e *Examples) Fill(dst []float32, rows []int32, aug Augment, r *rng.Stream) {
	size := e.Size()
	if len(dst) != len(rows)*size {
		panic(fmt.Sprintf("dataset: Fill of %d rows of %d values into %d", len(rows), size, len(dst)))
	}
	if e.Tok != nil {
		panic("dataset: Fill on token data; use FillTokens")
	}
	var tab [4 * 256]float32 // value of byte v in channel c at c·256+v
	ch := e.channels()
	tabled := e.U8 != nil && ch <= 4
	if tabled {
		for c := range ch {
			for v := range 256 {
				tab[c*256+v] = e.normal(c, float32(v)/255)
			}
		}
	}
	plain := !aug.Random() && aug.Skew.Quarter%4 == 0 && aug.Skew.Variance == 0
	if !plain && len(e.Shape) != 3 && (aug.Random() || aug.Skew.Quarter != 0) {
		panic(fmt.Sprintf("dataset: image augmentation %+v on examples of shape %v", aug, e.Shape))
	}
	if aug.Random() && r == nil {
		panic("dataset: Fill needs a stream for random augmentation")
	}
	for b, row := range rows {
		out := dst[b*size : (b+1)*size]
		at := int(row) * size
		switch {
		case plain && tabled && ch == 1:
			for j, v := range e.U8[at : at+size] {
				out[j] = tab[v]
			}
		case plain && tabled:
			c := 0
			for j, v := range e.U8[at : at+size] {
				out[j] = tab[c+int(v)]
				if c += 256; c == ch*256 {
					c = 0
				}
			}
		case len(e.Shape) != 3 || plain:
			for j := range out {
				out[j] = e.value(int(row), at, j, j%ch, aug.Skew)
			}
		default:
			e.fillImage(out, int(row), aug, drawWindow(aug, r), &tab, tabled)
		}
	}
}

// window is where the crop of one example begins and whether it is mirrored.
type window struct {
	y, x int
	flip bool
}

func drawWindow(aug Augment, r *rng.Stream) window {
	var w window
	if aug.CropPad > 0 {
		w.y, w.x = r.IntN(2*aug.CropPad+1)-aug.CropPad, r.IntN(2*aug.CropPad+1)-aug.CropPad
	}
	if aug.FlipH {
		w.flip = r.IntN(2) == 1
	}
	return w
}

// geometry is where the pixels of one augmented image come from.
type geometry struct {
	height, width, quarter int
	reflect                bool
	w                      window
}

func (e *Examples) geometry(aug Augment, w window) geometry {
	g := geometry{e.Shape[0], e.Shape[1], (aug.Skew.Quarter%4 + 4) % 4, aug.Reflect, w}
	if g.quarter%2 == 1 && g.height != g.width {
		panic(fmt.Sprintf("dataset: a quarter turn of a %d×%d image changes its shape", g.height, g.width))
	}
	if aug.Reflect && aug.CropPad >= min(g.height, g.width) {
		panic(fmt.Sprintf("dataset: %d×%d images have no %d pixels to mirror at an edge", g.height, g.width, aug.CropPad))
	}
	return g
}

// source returns which pixel of the stored image output pixel (y, x) is: pixel (y+w.y, x+w.x) of the skewed image, x counted
// from the right if mirrored. It is not inside where padding shows.
func (g geometry) source(y, x int) (pixel int, inside bool) {
	sy, sx := y+g.w.y, x+g.w.x
	if g.w.flip {
		sx = g.width - 1 - x + g.w.x
	}
	if g.reflect {
		sy, sx = mirrored(sy, g.height), mirrored(sx, g.width)
	}
	inside = uint(sy) < uint(g.height) && uint(sx) < uint(g.width)
	switch g.quarter {
	case 1:
		sy, sx = sx, g.width-1-sy
	case 2:
		sy, sx = g.height-1-sy, g.width-1-sx
	case 3:
		sy, sx = g.height-1-sx, sy
	}
	return sy*g.width + sx, inside
}

// mirrored returns i, or its mirror image at the first or last of n positions.
func mirrored(i, n int) int {
	if i < 0 {
		return -i
	}
	if i >= n {
		return 2*(n-1) - i
	}
	return i
}

// fillImage writes one image through its window.
func (e *Examples) fillImage(out []float32, row int, aug Augment, w window, tab *[4 * 256]float32, tabled bool) {
	g, ch, at := e.geometry(aug, w), e.Shape[2], row*e.Size()
	j := 0
	for y := range g.height {
		for x := range g.width {
			pixel, inside := g.source(y, x)
			from := pixel * ch
			for c := range ch {
				switch {
				case !inside:
					out[j] = e.normal(c, 0)
				case tabled && aug.Skew.Variance == 0:
					out[j] = tab[c*256+int(e.U8[at+from+c])]
				default:
					out[j] = e.value(row, at, from+c, c, aug.Skew)
				}
				j++
			}
		}
	}
}

// Bytes writes one row as the bytes that [Examples.Fill] would normalise: cropped, mirrored and turned. It panics unless the
// data are images of bytes and aug adds no noise; see [Examples.HasBytes].
func (e *Examples) Bytes(dst []uint8, row int32, aug Augment, r *rng.Stream) {
	if len(dst) != e.Size() || !e.HasBytes(aug.Skew) {
		panic(fmt.Sprintf("dataset: the bytes of an example of %s of shape %v into %d", e.Name, e.Shape, len(dst)))
	}
	g, ch, at := e.geometry(aug, drawWindow(aug, r)), e.Shape[2], int(row)*e.Size()
	for y := range g.height {
		for x := range g.width {
			out := dst[(y*g.width+x)*ch : (y*g.width+x+1)*ch]
			if pixel, inside := g.source(y, x); inside {
				copy(out, e.U8[at+pixel*ch:])
			} else {
				clear(out)
			}
		}
	}
}

// HasBytes reports whether examples, seen with that skew, are images of bytes.
func (e *Examples) HasBytes(s Skew) bool { return e.U8 != nil && len(e.Shape) == 3 && s.Variance == 0 }

// NormaliseBytes writes bytes of an example as [Examples.Fill] would.
func (e *Examples) NormaliseBytes(dst []float32, from []uint8) {
	ch := e.channels()
	for j, v := range from {
		dst[j] = e.normal(j%ch, float32(v)/255)
	}
}

// normal returns x normalised as channel c.
func (e *Examples) normal(c int, x float32) float32 {
	if e.Mean == nil {
		return x
	}
	return (x - e.Mean[c]) / e.Std[c]
}

// value returns value j of a row that starts at element at, noisy and normalised as channel c.
func (e *Examples) value(row, at, j, c int, s Skew) float32 { return e.normal(c, e.raw(row, at, j, s)) }

// raw returns value j of a row on the raw scale, with the noise of s.
func (e *Examples) raw(row, at, j int, s Skew) float32 {
	var x float32
	if e.U8 != nil {
		x = float32(e.U8[at+j]) / 255
	} else {
		x = e.F32[at+j]
	}
	if s.Variance > 0 {
		x += float32(math.Sqrt(s.Variance) * hashNormal(s.Seed, uint64(row), uint64(j)))
	}
	return x
}

// FillLabels writes the label of each row to dst. It panics if the lengths differ or the data has no labels.
func (e *Examples) FillLabels(dst []int32, rows []int32) { gather(dst, e.Labels, rows, "labels") }

// FillTargets writes the regression target of each row to dst. It panics if the lengths differ or there are none.
func (e *Examples) FillTargets(dst []float32, rows []int32) { gather(dst, e.Targets, rows, "targets") }

// FillTokens writes the tokens of each row to dst, of length len(rows)·size. It panics if that is not so.
func (e *Examples) FillTokens(dst []int32, rows []int32) {
	size := e.Size()
	if e.Tok == nil || len(dst) != len(rows)*size {
		panic(fmt.Sprintf("dataset: FillTokens of %d rows of %d tokens into %d", len(rows), size, len(dst)))
	}
	for b, row := range rows {
		copy(dst[b*size:(b+1)*size], e.Tok[int(row)*size:])
	}
}

func gather[T any](dst, from []T, rows []int32, what string) {
	if from == nil || len(dst) != len(rows) {
		panic(fmt.Sprintf("dataset: %d %s wanted for %d rows, the data holds %d", len(dst), what, len(rows), len(from)))
	}
	for b, row := range rows {
		dst[b] = from[row]
	}
}

// mix is a bijective scrambling of 64 bits (the finaliser of SplitMix64, Steele, Lea and Flood 2014).
func mix(x uint64) uint64 {
	x += 0x9e3779b97f4a7c15
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// hashNormal returns a standard normal number that is a function of its arguments (Box and Muller 1958).
func hashNormal(seed, row, j uint64) float64 {
	h := mix(mix(mix(seed)+row) + j)
	u := (float64(h>>32) + 1) / (1 << 32) // (0, 1]
	v := float64(uint32(h)) / (1 << 32)
	return math.Sqrt(-2*math.Log(u)) * math.Cos(2*math.Pi*v)
}
