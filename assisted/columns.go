package assisted

import (
	"fmt"
	"math/bits"

	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// Blocks deals columns to parties in the manner of the authors of gradient assisted learning: a random order, cut into blocks of
// ⌊columns/parties⌋, of which the last takes the remainder.
func Blocks(columns, parties int, r *rng.Stream) ([][]int, error) {
	if parties < 1 || parties > columns {
		return nil, fmt.Errorf("%d columns cannot be dealt to %d organisations", columns, parties)
	}
	order, size := r.Perm(columns), columns/parties
	out := make([][]int, parties)
	for m := range out {
		out[m] = order[m*size : (m+1)*size]
	}
	out[parties-1] = order[(parties-1)*size:]
	return out, nil
}

// Patches deals the pixels of images to 2^p parties, each of which gets a patch: they lie on a grid of 2^⌊p/2⌋ by 2^(p−⌊p/2⌋),
// numbered row by row. Pixels are numbered row by row with their channels side by side.
func Patches(height, width, channels, parties int) ([][]int, error) {
	if parties < 1 || bits.OnesCount(uint(parties)) != 1 {
		return nil, fmt.Errorf("%d organisations do not lie on a grid of patches: need a power of 2", parties)
	}
	p := bits.TrailingZeros(uint(parties))
	down, across := 1<<(p/2), 1<<(p-p/2)
	if height%down != 0 || width%across != 0 {
		return nil, fmt.Errorf("images of %d×%d cannot be cut into %d×%d patches of one size", height, width, down, across)
	}
	h, w := height/down, width/across
	var out [][]int
	for m := range parties {
		top, left := m/across*h, m%across*w
		var pixels []int
		for y := top; y < top+h; y++ {
			for x := left; x < left+w; x++ {
				for c := range channels {
					pixels = append(pixels, (y*width+x)*channels+c)
				}
			}
		}
		out = append(out, pixels)
	}
	return out, nil
}

// Columns returns a copy of some columns of x, in the order given.
func Columns(x *mat.Dense, which []int) *mat.Dense {
	rows, _ := x.Dims()
	out := mat.NewDense(rows, len(which), nil)
	for i := range rows {
		from, to := x.RawRowView(i), out.RawRowView(i)
		for j, c := range which {
			to[j] = from[c]
		}
	}
	return out
}
