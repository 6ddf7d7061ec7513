package robust

import (
	"context"
	"errors"
	"fmt"
	"math"
	"runtime"

	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/weights"
)

// Method is one way to find the centre of updates: [Median], [TrimmedMean], [Krum], [Bulyan], [GeometricMedian], [NormClip],
// [CentredClip] or, for comparison, [Mean].
type Method interface {
	fmt.Stringer
	// Validate returns an error that says which parameter is out of range.
	Validate() error
	// Check returns an error that says why the method cannot combine n updates, and what to change.
	Check(n int) error
	// Weighs reports whether the weights of results count.
	Weighs() bool
	// Parts reports whether members may hold different parts of the model.
	Parts() bool

	// combine returns the centre of the rows. Before is what the method remembers, nil at first; it may return what to
	// remember.
	combine(ctx context.Context, v *view, before []float64) (centre, after []float64, err error)
}

// Rule is a method and how its rows are prepared.
type Rule struct {
	Method Method
	// Bucket s above 1 averages random groups of s results first, and then applies the method to the averages: unlike data
	// look less like lies. A liar spoils its whole bucket, so the method must stand as many spoilt buckets as there are
	// liars (Karimireddy, He, Jaggi, arXiv 2006.09365).
	Bucket int
	// Threads to compute on; 0 means all. The result does not depend on it.
	Threads int
}

// Centre is what a rule makes of results.
type Centre struct {
	Value  weights.Set         // float64, names and shapes of the whole; 0 where nobody holds a coordinate
	Counts map[string][]uint64 // the weights of those who hold each coordinate; nil: all hold everything
	Weight uint64              // of all results
	// Memory, if not nil, is what the rule wants back at the next round.
	Memory *weights.Set
}

// UnfitError says that a rule cannot combine the results there are. It is an outcome of a round, not a failure of the machine.
type UnfitError struct{ Err error }

func (e *UnfitError) Error() string { return e.Err.Error() }
func (e *UnfitError) Unwrap() error { return e.Err }

// Validate returns an error that says which parameter is out of range.
func (r Rule) Validate() error {
	if r.Method == nil {
		return errors.New("no method is chosen")
	}
	if r.Bucket < 0 {
		return fmt.Errorf("bucket %d: need 0, for none, or at least 2 results a bucket", r.Bucket)
	}
	return r.Method.Validate()
}

// String returns, for example, "median after buckets of 2".
func (r Rule) String() string {
	if r.Bucket > 1 {
		return fmt.Sprintf("%s after buckets of %d", r.Method, r.Bucket)
	}
	return r.Method.String()
}

// Weighs reports whether the weights of results count.
func (r Rule) Weighs() bool { return r.Method.Weighs() }

// Parts reports whether members may hold different parts of the model.
func (r Rule) Parts() bool { return r.Method.Parts() }

// Check returns an error that says why n results cannot be combined, and what to change.
func (r Rule) Check(n int) error {
	if err := r.Method.Check(r.rows(n)); err != nil {
		if r.Bucket > 1 {
			return fmt.Errorf("%d results in buckets of %d are %d: %w", n, r.Bucket, r.rows(n), err)
		}
		return err
	}
	return nil
}

// rows is how many rows are left of n after bucketing.
func (r Rule) rows(n int) int {
	if r.Bucket > 1 {
		return (n + r.Bucket - 1) / r.Bucket
	}
	return n
}

// Combine returns the centre of what a spool holds. Before is what the rule remembers of the round before, nil at first;
// random draws the buckets. An [*UnfitError] tells that these results cannot be combined; other errors are of the machine.
func (r Rule) Combine(ctx context.Context, s *Spool, before *weights.Set, random *rng.Stream) (Centre, error) {
	if err := r.Check(s.Len()); err != nil {
		return Centre{}, &UnfitError{err}
	}
	s.order()
	threads := r.Threads
	if threads < 1 {
		threads = runtime.GOMAXPROCS(0)
	}
	partial := false
	for _, x := range s.rows {
		partial = partial || x.part
		if x.part && !r.Parts() {
			return Centre{}, &UnfitError{fmt.Errorf("%s compares whole updates, and %s sent a part of the model: use median, trimmed, clip or centred",
				r.Method, x.name)}
		}
	}
	var memory []float64
	if before != nil {
		if memory = flat(*before, s.like); memory == nil {
			return Centre{}, fmt.Errorf("%s remembers a model of another shape", r.Method)
		}
	}
	x, after, err := r.Method.combine(ctx, r.view(s, threads, random), memory)
	if err != nil {
		return Centre{}, err
	}
	for _, v := range x {
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return Centre{}, &UnfitError{fmt.Errorf("%s came to %v: the results are too large", r.Method, v)}
		}
	}
	c := Centre{Value: shaped(x, s.like)}
	for _, row := range s.rows {
		c.Weight += row.weight
	}
	if after != nil {
		m := shaped(after, s.like)
		c.Memory = &m
	}
	if partial {
		counts, err := s.counts(ctx, threads)
		if err != nil {
			return Centre{}, err
		}
		c.Counts = map[string][]uint64{}
		at := 0
		for name, t := range s.like.All() {
			c.Counts[name] = counts[at : at+t.Len()]
			at += t.Len()
		}
	}
	return c, nil
}

// view returns the rows that the method works on.
func (r Rule) view(s *Spool, threads int, random *rng.Stream) *view {
	v := plain(s, threads)
	weight := func(i int) float64 {
		if r.Weighs() {
			return float64(s.rows[i].weight)
		}
		return 1
	}
	if r.Bucket < 2 {
		for i := range v.weight {
			v.weight[i] = weight(i)
		}
		return v
	}
	order := random.Perm(len(s.rows))
	v.weight = v.weight[:0]
	for lo := 0; lo < len(order); lo += r.Bucket {
		bucket := order[lo:min(len(order), lo+r.Bucket)]
		var w float64
		for _, i := range bucket {
			w += weight(i)
		}
		if !r.Weighs() {
			w = 1
		}
		v.buckets, v.weight = append(v.buckets, bucket), append(v.weight, w)
	}
	return v
}

// flat returns the elements of a set in the order of like, nil if it does not fit.
func flat(s, like weights.Set) []float64 {
	out := make([]float64, 0, like.Size())
	for name, t := range like.All() {
		x, ok := s.Get(name)
		if !ok || x.Len() != t.Len() {
			return nil
		}
		for i := range x.Len() {
			out = append(out, x.At(i))
		}
	}
	return out
}

// shaped returns numbers as a set of the names and shapes of like.
func shaped(x []float64, like weights.Set) weights.Set {
	out := weights.NewSet(like.Len())
	at := 0
	for name, t := range like.All() {
		out.Put(name, weights.Of64(x[at:at+t.Len():at+t.Len()], t.Shape...))
		at += t.Len()
	}
	return out
}
