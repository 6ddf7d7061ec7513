package weights

import "fmt"

// Apply returns f(base, total, count) for every coordinate, computed in float64 and rounded once to base's types: count is
// the weight that covered the coordinate, total the exact sum rounded once to float64. Where count is 0, and for tensors
// of base that are not part of the sum, the result is base to the bit. It panics if a tensor of the sum does not fit base.
func (a *Acc) Apply(base Set, f func(base, total, count float64) float64) Set {
	out := NewSet(base.Len())
	for name, t := range base.All() {
		w, ok := a.tensors[name]
		if !ok {
			out.Put(name, t.Clone())
			continue
		}
		if !sameShape(w.shape, t.Shape) {
			panic(fmt.Sprintf("weights: sum of %q has shape %v, base %v", name, w.shape, t.Shape))
		}
		u := t.Clone()
		count := float64(a.weight)
		for i := range u.Len() {
			if w.count != nil {
				count = float64(w.count[i])
			}
			if count != 0 {
				u.SetAt(i, f(t.At(i), float(w.hi[i], w.lo[i]), count))
			}
		}
		out.Put(name, u)
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
