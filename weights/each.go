package weights

import (
	"fmt"
	"slices"
)

// AddEach adds count·x with a count of its own at every coordinate, as if members of that weight together had each sent x
// there: for centres that are not computed by adding, so that [Acc.Mean] returns them. Counts holds the counts by tensor;
// a tensor that it does not name has weight everywhere. Weight is what the addition weighs as a whole, no less than any
// count. Coordinates of count 0 are left alone.
//
// The mean of a single addition is x to the bit if count·x fits the 53 bits of a float64, as it does for a float32 and a
// count below 2²⁹; else it is within an ulp of it. Nothing is added if an error is returned: what [Acc.Add] refuses, and
// counts that do not fit.
func (a *Acc) AddEach(x Set, counts map[string][]uint64, weight uint64) error {
	terms, err := a.terms(x, nil, nil, weight)
	if err != nil {
		return err
	}
	for name := range x.All() {
		c, ok := counts[name]
		switch i := slices.IndexFunc(c, func(n uint64) bool { return n > weight }); {
		case ok && len(c) != len(a.tensor(name).sum):
			return fmt.Errorf("tensor %q: %d counts for %d coordinates", name, len(c), len(a.tensor(name).sum))
		case i >= 0:
			return fmt.Errorf("tensor %q: a count of %d in a weight of %d", name, c[i], weight)
		}
	}
	i := 0
	for name, v := range x.All() {
		t, c := a.tensor(name), counts[name]
		t.bound = terms[i].bound
		i++
		if c == nil {
			if a.counting {
				t.whole += weight
			}
			if v.F64 != nil {
				addFloat64(t.sum, v.F64, weight)
			} else {
				addFloat32(t.sum, v.F32, weight)
			}
			continue
		}
		if a.counting && t.part == nil {
			t.part = make([]uint64, len(t.sum))
		}
		for k, n := range c {
			if n == 0 {
				continue
			}
			t.sum[k] = t.sum[k].add(product(v.At(k), n))
			if a.counting {
				t.part[k] += n
			}
		}
	}
	a.weight += weight
	return nil
}
