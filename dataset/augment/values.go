package augment

import (
	"math"

	"github.com/cohort-learning/cohort/rng"
)

// Operations that change values and leave every pixel in its place.

// blend writes d + f·(x − d), clamped and truncated, where d is the degenerate image: at(i) gives its value at i. As in the
// library, the arithmetic is in float32.
func blend(im Image, f float64, at func(i int) uint8) {
	alpha := float32(f)
	for i, x := range im.Pix {
		d := at(i)
		y := float32(d) + float32(alpha*float32(int(x)-int(d)))
		im.Pix[i] = uint8(min(max(y, 0), 255))
	}
}

func brightness(im Image, f float64, _ *rng.Stream) { blend(im, f, func(int) uint8 { return 0 }) }

// saturation blends with the luma of each pixel.
func saturation(im Image, f float64, _ *rng.Stream) {
	if im.Channels != 3 {
		return
	}
	luma := greys(im)
	blend(im, f, func(i int) uint8 { return luma[i/3] })
}

// contrast blends with the mean luma of the image, rounded half up.
func contrast(im Image, f float64, _ *rng.Stream) {
	luma := greys(im)
	sum := 0
	for _, v := range luma {
		sum += int(v)
	}
	mean := uint8(float64(sum)/float64(len(luma)) + 0.5)
	blend(im, f, func(int) uint8 { return mean })
}

// sharpness blends with the image smoothed by the kernel (1,1,1; 1,5,1; 1,1,1)/13, rounded, whose border is left as it is.
func sharpness(im Image, f float64, _ *rng.Stream) {
	smooth := append([]uint8(nil), im.Pix...)
	ch, line := im.Channels, im.Width*im.Channels
	for y := 1; y < im.Height-1; y++ {
		for i := y*line + ch; i < (y+1)*line-ch; i++ {
			sum := 4 * int(im.Pix[i])
			for _, row := range [3]int{i - line, i, i + line} {
				sum += int(im.Pix[row-ch]) + int(im.Pix[row]) + int(im.Pix[row+ch])
			}
			smooth[i] = uint8((2*sum + 13) / 26)
		}
	}
	blend(im, f, func(i int) uint8 { return smooth[i] })
}

// greys returns the luma of every pixel, (19595·R + 38470·G + 7471·B + 32768) >> 16 (ITU-R 601); of images with other than three
// channels the mean of the channels, which of one is itself.
func greys(im Image) []uint8 {
	out := make([]uint8, im.Height*im.Width)
	for i := range out {
		p := im.Pix[i*im.Channels : (i+1)*im.Channels]
		if len(p) == 3 {
			out[i] = uint8((19595*int(p[0]) + 38470*int(p[1]) + 7471*int(p[2]) + 32768) >> 16)
			continue
		}
		sum := 0
		for _, v := range p {
			sum += int(v)
		}
		out[i] = uint8(sum / len(p))
	}
	return out
}

// table maps the values of each channel; make gets the channel's histogram and returns false to leave it as it is.
func table(im Image, fill func(h *[256]int, lut *[256]uint8) bool) {
	for c := range im.Channels {
		var h [256]int
		for i := c; i < len(im.Pix); i += im.Channels {
			h[im.Pix[i]]++
		}
		var lut [256]uint8
		if !fill(&h, &lut) {
			continue
		}
		for i := c; i < len(im.Pix); i += im.Channels {
			im.Pix[i] = lut[im.Pix[i]]
		}
	}
}

// autoContrast stretches each channel to 0..255: trunc((x − lo)·255/(hi − lo)).
func autoContrast(im Image, _ float64, _ *rng.Stream) {
	table(im, func(h *[256]int, lut *[256]uint8) bool {
		lo, hi := 0, 255
		for h[lo] == 0 {
			lo++
		}
		for h[hi] == 0 {
			hi--
		}
		if hi <= lo {
			return false
		}
		scale := 255 / float64(hi-lo)
		offset := -float64(float64(lo) * scale)
		for v := range lut {
			lut[v] = uint8(min(max(math.Trunc(float64(float64(v)*scale)+offset), 0), 255))
		}
		return true
	})
}

// equalize makes each channel's histogram flat: x ↦ (step/2 + number of smaller values)/step, with step = (all values − those
// equal to the greatest)/255; integer divisions. A channel of one value, or with step 0, stays as it is.
func equalize(im Image, _ float64, _ *rng.Stream) {
	table(im, func(h *[256]int, lut *[256]uint8) bool {
		total, distinct, last := 0, 0, 0
		for _, n := range h {
			if n > 0 {
				total, distinct, last = total+n, distinct+1, n
			}
		}
		step := (total - last) / 255
		if distinct < 2 || step == 0 {
			return false
		}
		below := step / 2
		for v := range lut {
			lut[v] = uint8(min(255, below/step))
			below += h[v]
		}
		return true
	})
}

func invert(im Image, _ float64, r *rng.Stream) { solarize(im, 0, r) }

// solarize inverts values of at least v.
func solarize(im Image, v float64, _ *rng.Stream) {
	for i, x := range im.Pix {
		if float64(x) >= v {
			im.Pix[i] = 255 - x
		}
	}
}

// posterize keeps the v highest bits.
func posterize(im Image, v float64, _ *rng.Stream) {
	mask := uint8(0xff) << (8 - int(v))
	for i := range im.Pix {
		im.Pix[i] &= mask
	}
}

// cutout paints a square of side v grey. Its corner is drawn uniformly, half a side up and left of a point of the image, and is
// moved into it; both corners are painted.
func cutout(im Image, v float64, r *rng.Stream) {
	const grey = 127
	side := func(n int) (from, to int) {
		from = int(max(0, r.Uniform(0, float64(n))-v/2))
		return from, int(min(float64(n), float64(from)+v))
	}
	if v <= 0 {
		return
	}
	x0, x1 := side(im.Width)
	y0, y1 := side(im.Height)
	for y := y0; y <= min(y1, im.Height-1); y++ {
		row := im.Pix[(y*im.Width+x0)*im.Channels : (y*im.Width+min(x1, im.Width-1)+1)*im.Channels]
		for i := range row {
			row[i] = grey
		}
	}
}
