package dataset

import (
	"fmt"
	"math"
	"slices"
)

// Examples is a data set in memory, one row an example. Exactly one of U8, F32 and Tok holds the inputs, row-major:
// row i occupies elements i·size to (i+1)·size, where size is the product of Shape.
//
// Nothing in it changes after loading; any number of goroutines may fill batches from it at once.
type Examples struct {
	Name  string
	Shape []int // one example: [height, width, channels], [features] or [tokens]

	U8  []uint8   // images 0..255 as stored
	F32 []float32 // features, or images that are not bytes (raw scale 0..1)
	Tok []int32   // token ids; of ratings, pairs of user and item

	Labels  []int32   // class of each row; nil for regression and text
	Targets []float32 // regression target of each row, or nil
	Classes []string  // class names, index = label; for text the vocabulary, index = token id

	// Mean and Std, one per channel (images) or per feature, give a batch the values (x − mean)/std, where x is v/255
	// for U8 and the stored value for F32. Nil leaves x as it is.
	Mean, Std []float32

	Keys     []string  // natural key of each row (writer, user, hospital), or nil
	Features []string  // names of the features of a table, or nil
	Encoding *Encoding // how a table's columns became features, or nil; encodes further rows the same way
	Ratings  *Ratings  // what the rows of ratings stand for; nil for all other data
}

// Split is a data set as it is loaded: examples to train on, and others to test on. Test may be nil when the source has
// no test part and none was asked for.
type Split struct{ Train, Test *Examples }

// View is a part of a data set, such as one client's share. Rows index Data and must not be changed.
type View struct {
	Data *Examples
	Rows []int32
}

// All returns the view of every row of e.
func (e *Examples) All() View {
	rows := make([]int32, e.Len())
	for i := range rows {
		rows[i] = int32(i)
	}
	return View{Data: e, Rows: rows}
}

// Len returns the number of examples.
func (v View) Len() int { return len(v.Rows) }

// LabelSet returns the sorted distinct labels of the view; nil if the data has no labels.
func (v View) LabelSet() []int32 { return labelSet(v.Data.Labels, v.Rows) }

// Histogram counts the view's examples of each class. Its length is the number of classes.
func (v View) Histogram() []int { return histogram(v.Data, v.Rows) }

// Size returns the number of values of one example, the product of Shape.
func (e *Examples) Size() int {
	n := 1
	for _, d := range e.Shape {
		n *= d
	}
	return n
}

// Len returns the number of examples.
func (e *Examples) Len() int {
	n := e.Size()
	if n == 0 {
		return 0
	}
	return max(len(e.U8), len(e.F32), len(e.Tok)) / n
}

// NumClasses returns the number of classes (for text: of tokens), or 0 for regression.
func (e *Examples) NumClasses() int { return len(e.Classes) }

// channels returns how many means and deviations e has: the last dimension of its shape.
func (e *Examples) channels() int { return e.Shape[len(e.Shape)-1] }

// Validate reports the first inconsistency of e: lengths that do not agree, labels outside the classes, values that are
// not finite, a deviation that is not positive.
func (e *Examples) Validate() error {
	for _, d := range e.Shape {
		if d < 1 {
			return fmt.Errorf("data set %s: shape %v has a dimension below 1", e.Name, e.Shape)
		}
	}
	if len(e.Shape) == 0 {
		return fmt.Errorf("data set %s: no shape", e.Name)
	}
	held, values := 0, 0
	for _, n := range []int{len(e.U8), len(e.F32), len(e.Tok)} {
		if n > 0 {
			held, values = held+1, n
		}
	}
	if held > 1 {
		return fmt.Errorf("data set %s: only one of U8, F32 and Tok may hold the inputs", e.Name)
	}
	if values%e.Size() != 0 {
		return fmt.Errorf("data set %s: %d values are not a whole number of examples of shape %v", e.Name, values, e.Shape)
	}
	n := e.Len()
	if n > math.MaxInt32 {
		return fmt.Errorf("data set %s: %d examples, at most %d are supported", e.Name, n, math.MaxInt32)
	}
	for _, c := range []struct {
		what string
		n    int
		ok   bool
	}{
		{"labels", len(e.Labels), e.Labels == nil},
		{"targets", len(e.Targets), e.Targets == nil},
		{"keys", len(e.Keys), e.Keys == nil},
	} {
		if !c.ok && c.n != n {
			return fmt.Errorf("data set %s: %d %s for %d examples", e.Name, c.n, c.what, n)
		}
	}
	if e.Ratings != nil {
		if err := e.Ratings.validate(e); err != nil {
			return err
		}
	}
	for i, l := range e.Labels {
		if l < 0 || int(l) >= len(e.Classes) {
			return fmt.Errorf("data set %s: example %d has label %d, outside 0..%d", e.Name, i, l, len(e.Classes)-1)
		}
	}
	for what, values := range map[string][]float32{"a value": e.F32, "a target": e.Targets} {
		for i, v := range values {
			if d := v - v; d != 0 { // NaN or infinite
				return fmt.Errorf("data set %s: example %d has %s of %v", e.Name, i*n/len(values), what, v)
			}
		}
	}
	if e.Mean != nil || e.Std != nil {
		if c := e.channels(); len(e.Mean) != c || len(e.Std) != c {
			return fmt.Errorf("data set %s: %d means and %d deviations for %d channels", e.Name, len(e.Mean), len(e.Std), c)
		}
		for c, s := range e.Std {
			if !(s > 0) {
				return fmt.Errorf("data set %s: standard deviation %v of channel %d is not positive", e.Name, s, c)
			}
		}
	}
	return nil
}

// Subset returns a new data set that holds copies of the given rows, in that order.
func (e *Examples) Subset(rows []int32) *Examples {
	s := *e
	n := e.Size()
	s.U8, s.F32, s.Tok = pick(e.U8, rows, n), pick(e.F32, rows, n), pick(e.Tok, rows, n)
	s.Labels, s.Targets, s.Keys = pick(e.Labels, rows, 1), pick(e.Targets, rows, 1), pick(e.Keys, rows, 1)
	return &s
}

func pick[T any](from []T, rows []int32, n int) []T {
	if from == nil {
		return nil
	}
	out := make([]T, len(rows)*n)
	for i, r := range rows {
		copy(out[i*n:(i+1)*n], from[int(r)*n:])
	}
	return out
}

// Normalise sets Mean and Std from the data itself: over all examples and positions, one pair per channel (images) or
// per feature. A constant channel gets deviation 1. At most limit examples are looked at (0: all), evenly spaced.
func (e *Examples) Normalise(limit int) {
	n, size, ch := e.Len(), e.Size(), e.channels()
	if n == 0 || e.Tok != nil {
		return
	}
	step := 1
	if limit > 0 && n > limit {
		step = n / limit
	}
	sum, sq, count := make([]float64, ch), make([]float64, ch), 0
	if e.U8 != nil {
		hist := make([]int64, ch*256)
		for i := 0; i < n; i += step {
			for j, v := range e.U8[i*size : (i+1)*size] {
				hist[j%ch*256+int(v)]++
			}
			count++
		}
		for c := range ch {
			for v, k := range hist[c*256 : (c+1)*256] {
				x := float64(v) / 255
				sum[c] += float64(k) * x
				sq[c] += float64(k) * x * x
			}
		}
	} else {
		for i := 0; i < n; i += step {
			for j, v := range e.F32[i*size : (i+1)*size] {
				sum[j%ch] += float64(v)
			}
			count++
		}
		total := float64(count * (size / ch))
		for i := 0; i < n; i += step {
			for j, v := range e.F32[i*size : (i+1)*size] {
				d := float64(v) - sum[j%ch]/total
				sq[j%ch] += d * d
			}
		}
	}
	total := float64(count * (size / ch))
	e.Mean, e.Std = make([]float32, ch), make([]float32, ch)
	for c := range ch {
		mean := sum[c] / total
		variance := sq[c] / total
		if e.U8 != nil {
			variance -= mean * mean
		}
		sd := math.Sqrt(math.Max(variance, 0))
		if !(sd > 1e-12) {
			sd = 1
		}
		e.Mean[c], e.Std[c] = float32(mean), float32(sd)
	}
}

// labelSet returns the sorted distinct labels of rows.
func labelSet(labels []int32, rows []int32) []int32 {
	if labels == nil {
		return nil
	}
	var out []int32
	for _, r := range rows {
		l := labels[r]
		if i, found := slices.BinarySearch(out, l); !found {
			out = slices.Insert(out, i, l)
		}
	}
	return out
}

func histogram(e *Examples, rows []int32) []int {
	h := make([]int, e.NumClasses())
	if e.Labels == nil {
		return h
	}
	for _, r := range rows {
		h[e.Labels[r]]++
	}
	return h
}
