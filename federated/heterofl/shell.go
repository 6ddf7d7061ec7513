package heterofl

import (
	"cmp"
	"slices"

	"github.com/cohort-learning/cohort/nn"
)

// byRate returns the levels from the thinnest to the widest.
func (a *Algorithm) byRate() []Level {
	levels := slices.Clone([]Level(a.Mode))
	slices.SortFunc(levels, func(x, y Level) int { return cmp.Compare(x.Rate, y.Rate) })
	return levels
}

// shells returns, for every coordinate of a parameter, the position in levels of the thinnest level whose leading slice
// holds it.
func (a *Algorithm) shells(p nn.Param, levels []Level) []uint8 {
	shape := p.Shape(a.Rate)
	axes := make([][]uint8, len(shape))
	n := 1
	for i, d := range p.Dims {
		axes[i] = make([]uint8, shape[i])
		for k := len(levels) - 1; k >= 0; k-- {
			for _, at := range nn.Leading(d, shape[i], d.At(levels[k].Rate)).Positions(shape[i]) {
				axes[i][at] = uint8(k)
			}
		}
		n *= shape[i]
	}
	out := make([]uint8, n)
	for i := range out {
		rest := i
		for d := len(shape) - 1; d >= 0; d-- {
			out[i] = max(out[i], axes[d][rest%shape[d]])
			rest /= shape[d]
		}
	}
	return out
}
