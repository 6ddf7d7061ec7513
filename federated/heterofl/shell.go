package heterofl

import (
	"cmp"
	"slices"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/nn"
)

// byRate returns the levels from the thinnest to the widest.
func (a *Algorithm) byRate() []Level {
	levels := slices.Clone([]Level(a.Mode))
	slices.SortFunc(levels, func(x, y Level) int { return cmp.Compare(x.Rate, y.Rate) })
	return levels
}

// coverage adds, for the shell of each level (the coordinates that its leading slice holds and that of no thinner level
// does), how many members trained a coordinate on average, and the part of the shell that nobody trained: coordinates that
// only wide members hold stay stale when few of those are drawn.
func (a *Algorithm) coverage(d *federated.Diagnostics, sum *federated.Sum) {
	levels := a.byRate()
	var total, stale, size [256]float64
	w := sum.Total["w"]
	for _, p := range a.global.Params {
		a.shells(p, levels, func(i int, shell uint8) {
			c := w.Count(p.Name, i)
			size[shell]++
			total[shell] += float64(c)
			if c == 0 {
				stale[shell]++
			}
		})
	}
	for k, l := range levels {
		if size[k] > 0 {
			d.Add("updates.mean", l.Name, total[k]/(size[k]*float64(sum.Unit)))
			d.Add("updates.stale", l.Name, stale[k]/size[k])
		}
	}
}

// shells calls do for every coordinate of a parameter with the position in levels of the thinnest level whose leading
// slice holds it.
func (a *Algorithm) shells(p nn.Param, levels []Level, do func(i int, shell uint8)) {
	shape := p.Shape(a.Rate)
	axes := make([][]uint8, len(shape))
	for i, d := range p.Dims {
		axes[i] = make([]uint8, shape[i])
		for k := len(levels) - 1; k >= 0; k-- {
			for _, at := range nn.Leading(d, shape[i], d.At(levels[k].Rate)).Positions(shape[i]) {
				axes[i][at] = uint8(k)
			}
		}
	}
	n := 0
	var walk func(axis int, shell uint8)
	walk = func(axis int, shell uint8) {
		if axis == len(axes) {
			do(n, shell)
			n++
			return
		}
		for _, s := range axes[axis] {
			walk(axis+1, max(shell, s))
		}
	}
	walk(0, 0)
}
