package secagg

import (
	"cmp"
	"fmt"
	"slices"
	"sort"
)

// Range is the half-open interval [Lo, Hi) of coordinates.
type Range struct{ Lo, Hi int }

// Ranges are the coordinates that a member holds: non-empty, ascending, and not touching one another, so that equal sets
// are equal slices. A body that holds them stores its words one after the other in this order.
type Ranges []Range

// All returns the coordinates 0 … d−1.
func All(d int) Ranges {
	if d == 0 {
		return Ranges{}
	}
	return Ranges{{0, d}}
}

// Indices returns the set of the given strictly ascending coordinates. It panics if they are not.
func Indices(i []int) Ranges {
	r := Ranges{}
	for _, x := range i {
		if n := len(r); n > 0 && x < r[n-1].Hi {
			panic(fmt.Sprintf("secagg: coordinate %d after %d", x, r[n-1].Hi-1))
		}
		r = r.push(x, x+1)
	}
	return r
}

// push appends [lo, hi), which must not begin before the end of r.
func (r Ranges) push(lo, hi int) Ranges {
	if n := len(r); n > 0 && r[n-1].Hi == lo {
		r[n-1].Hi = hi
		return r
	}
	return append(r, Range{lo, hi})
}

// Validate returns an error unless r is in order and lies within [0, d).
func (r Ranges) Validate(d int) error {
	for i, x := range r {
		switch {
		case x.Lo < 0 || x.Hi > d:
			return fmt.Errorf("range [%d, %d) outside of [0, %d)", x.Lo, x.Hi, d)
		case x.Lo >= x.Hi:
			return fmt.Errorf("range [%d, %d) is empty", x.Lo, x.Hi)
		case i > 0 && x.Lo <= r[i-1].Hi:
			return fmt.Errorf("range [%d, %d) after [%d, %d): expected them ascending and joined where they touch", x.Lo, x.Hi, r[i-1].Lo, r[i-1].Hi)
		}
	}
	return nil
}

// Len returns the number of coordinates.
func (r Ranges) Len() (n int) {
	for _, x := range r {
		n += x.Hi - x.Lo
	}
	return n
}

// Intersect returns the coordinates that both hold, in O(len(r)+len(o)).
func (r Ranges) Intersect(o Ranges) Ranges {
	out := Ranges{}
	for i, j := 0, 0; i < len(r) && j < len(o); {
		if lo, hi := max(r[i].Lo, o[j].Lo), min(r[i].Hi, o[j].Hi); lo < hi {
			out = out.push(lo, hi)
		}
		if r[i].Hi < o[j].Hi {
			i++
		} else {
			j++
		}
	}
	return out
}

// Equal reports whether both are the same set.
func (r Ranges) Equal(o Ranges) bool { return slices.Equal(r, o) }

// from returns the index of the first range that ends after x.
func (r Ranges) from(x int) int {
	return sort.Search(len(r), func(i int) bool { return r[i].Hi > x })
}

// HeldBy returns the coordinates that at least least members hold, counts[i] of them sets[i]: with the holdings of U1 what is
// sent in a session, with those of U3 what its sum has.
func HeldBy(sets []Ranges, counts []int, least int) Ranges {
	type event struct{ at, change int }
	var events []event
	for i, s := range sets {
		if counts[i] == 0 {
			continue
		}
		for _, x := range s {
			events = append(events, event{x.Lo, counts[i]}, event{x.Hi, -counts[i]})
		}
	}
	slices.SortFunc(events, func(a, b event) int { return cmp.Compare(a.at, b.at) })
	out := Ranges{}
	for i, n, last := 0, 0, 0; i < len(events); {
		at := events[i].at
		if n >= least && at > last {
			out = out.push(last, at)
		}
		for ; i < len(events) && events[i].at == at; i++ {
			n += events[i].change
		}
		last = at
	}
	return out
}

// gather copies the words of part, a subset of held, from src, which holds held.
func gather[W Word](src []W, held, part Ranges) []W {
	dst := make([]W, 0, part.Len())
	at, j := 0, 0
	for _, h := range held {
		for ; j < len(part) && part[j].Hi <= h.Hi; j++ {
			dst = append(dst, src[at+part[j].Lo-h.Lo:at+part[j].Hi-h.Lo]...)
		}
		at += h.Hi - h.Lo
	}
	return dst
}

// scatter adds src, which holds part, to whole, which holds everything.
func scatter[W Word](whole, src []W, part Ranges) {
	for _, r := range part {
		n := r.Hi - r.Lo
		for i, x := range src[:n] {
			whole[r.Lo+i] += x
		}
		src = src[n:]
	}
}
