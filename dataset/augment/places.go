package augment

import (
	"math"
	"slices"

	"github.com/cohort-learning/cohort/rng"
)

// Operations that move pixels: output (x, y) shows the source at (a·(x+½) + b·(y+½) + c, d·(x+½) + e·(y+½) + f), measured from the
// outer corner of the first pixel; what lies outside is black.

// affine are the coefficients a … f.
type affine [6]float64

// nearest moves pixels without interpolating. As in the library, coefficients are rounded to 1/65536 and added up.
func (m affine) nearest(im Image) {
	fix := func(v float64) int { return int(math.Floor(v*65536 + 0.5)) }
	a, b, d, e := fix(m[0]), fix(m[1]), fix(m[3]), fix(m[4])
	x0 := fix(m[2] + float64(m[0]*0.5) + float64(m[1]*0.5))
	y0 := fix(m[5] + float64(m[3]*0.5) + float64(m[4]*0.5))
	from := slices.Clone(im.Pix)
	ch := im.Channels
	for y := range im.Height {
		sx, sy := x0, y0
		for x := range im.Width {
			out := im.Pix[(y*im.Width+x)*ch : (y*im.Width+x+1)*ch]
			if i, j := sx>>16, sy>>16; uint(i) < uint(im.Width) && uint(j) < uint(im.Height) {
				copy(out, from[(j*im.Width+i)*ch:])
			} else {
				clear(out)
			}
			sx, sy = sx+a, sy+d
		}
		x0, y0 = x0+b, y0+e
	}
}

// bilinear interpolates between the centres of four pixels, those beyond an edge being the ones at the edge, and truncates.
func (m affine) bilinear(im Image) {
	from := slices.Clone(im.Pix)
	ch := im.Channels
	for y := range im.Height {
		for x := range im.Width {
			out := im.Pix[(y*im.Width+x)*ch : (y*im.Width+x+1)*ch]
			px, py := float64(x)+0.5, float64(y)+0.5
			sx := float64(m[0]*px) + float64(m[1]*py) + m[2]
			sy := float64(m[3]*px) + float64(m[4]*py) + m[5]
			if !(sx >= 0 && sx < float64(im.Width) && sy >= 0 && sy < float64(im.Height)) {
				clear(out)
				continue
			}
			sx, sy = sx-0.5, sy-0.5
			fx, fy := math.Floor(sx), math.Floor(sy)
			dx, dy := sx-fx, sy-fy
			x0, x1 := clamp(int(fx), im.Width), clamp(int(fx)+1, im.Width)
			y0, y1 := clamp(int(fy), im.Height), clamp(int(fy)+1, im.Height)
			for c := range ch {
				at := func(y, x int) float64 { return float64(from[(y*im.Width+x)*ch+c]) }
				top := at(y0, x0) + float64((at(y0, x1)-at(y0, x0))*dx)
				bottom := at(y1, x0) + float64((at(y1, x1)-at(y1, x0))*dx)
				out[c] = uint8(top + float64((bottom-top)*dy))
			}
		}
	}
}

func clamp(i, n int) int { return min(max(i, 0), n-1) }

func shearX(im Image, v float64, _ *rng.Stream)     { affine{1, v, 0, 0, 1, 0}.bilinear(im) }
func shearY(im Image, v float64, _ *rng.Stream)     { affine{1, 0, 0, v, 1, 0}.bilinear(im) }
func translateX(im Image, v float64, _ *rng.Stream) { affine{1, 0, v, 0, 1, 0}.nearest(im) }
func translateY(im Image, v float64, _ *rng.Stream) { affine{1, 0, 0, 0, 1, v}.nearest(im) }

// rotate turns the image by v degrees counter-clockwise about its centre.
func rotate(im Image, v float64, _ *rng.Stream) {
	sin, cos := math.Sincos(-v * math.Pi / 180)
	round := func(x float64) float64 { return math.Round(x*1e15) / 1e15 }
	m := affine{round(cos), round(sin), 0, round(-sin), round(cos), 0}
	cx, cy := float64(im.Width)/2, float64(im.Height)/2
	m[2] = cx - float64(m[0]*cx) - float64(m[1]*cy)
	m[5] = cy - float64(m[3]*cx) - float64(m[4]*cy)
	m.nearest(im)
}
