package weights

import (
	"fmt"
	"slices"
)

// Apply returns f(base, total, count) for every coordinate, computed in float64 and rounded once to base's types: count is
// the weight that covered the coordinate, total the exact sum rounded once to float64. Where count is 0, and for tensors
// of base that are not part of the sum, the result is base to the bit. Tensors of the sum that base does not have are left
// out. It panics if a tensor of the sum does not fit base.
func (a *Acc) Apply(base Set, f func(base, total, count float64) float64) Set {
	out := NewSet(base.Len())
	for name, t := range base.All() {
		u := t.Clone()
		out.add(name, u)
		k, ok := a.at[name]
		if !ok {
			continue
		}
		w := &a.tensors[k]
		if !slices.Equal(w.shape, t.Shape) {
			panic(fmt.Sprintf("weights: sum of %q has shape %v, base %v", name, w.shape, t.Shape))
		}
		all := a.weight
		if a.counting {
			all = w.whole
		}
		for i := range w.sum {
			count := all
			if w.part != nil {
				count += w.part[i]
			}
			if count != 0 {
				u.SetAt(i, f(t.At(i), w.sum[i].float(), float64(count)))
			}
		}
	}
	return out
}

// AddMean returns base + total/count: the average of what was added, on top of base. A total of exactly 0 leaves base to
// the bit.
func (a *Acc) AddMean(base Set) Set {
	return a.Apply(base, func(b, total, count float64) float64 {
		if total == 0 {
			return b
		}
		return b + total/count
	})
}
