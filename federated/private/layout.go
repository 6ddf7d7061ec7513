package private

import (
	"crypto/rand"
	"fmt"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/secure/dp"
	"github.com/cohort-learning/cohort/secure/secagg"
	"github.com/cohort-learning/cohort/weights"
)

// grain is what one unit of an extra word counts: addends in float64 and scalars are summed in multiples of 2⁻²⁴.
const grain = 1 << 24

// mostExtra bounds the magnitude of one such number times its weight, so that 2¹⁶ of them stay in a 64-bit word.
const mostExtra = 1 << 23

// layout says where what is in a vector. Everybody makes the same one of the same terms.
//
// Body: the float32 tensors of all folds one after the other, row-major. Extra words, in this order:
//
//	weights    one for each holding s: of the members whose holding contains s, if enough do
//	rows       for each holding s and each row: of those of them that cover the row
//	scalars    those of federated.Measured, and the method's own
//	others     the elements of float64 tensors
//
// Holdings are nested, the smallest first, so that members of holding h hold what holdings 0 … h hold.
type layout struct {
	Folds    []foldLayout    `json:"folds"`
	Holdings []weights.Index `json:"holdings"` // of the indexed folds; one null: everything
	Rows     int             `json:"rows,omitempty"`
	RowsOf   []string        `json:"rows_of,omitempty"` // tensors of whose first axis members may leave rows out
	Scalars  []string        `json:"scalars,omitempty"` // of the method, beside those of federated.Measured

	size, extra int // words
	ranges      []secagg.Ranges
}

type foldLayout struct {
	Name    string         `json:"name"`
	Indexed bool           `json:"indexed,omitempty"`
	Counts  bool           `json:"counts,omitempty"`
	Tensors []tensorLayout `json:"tensors"`
}

type tensorLayout struct {
	Name  string `json:"name"`
	Shape []int  `json:"shape"`
	Wide  bool   `json:"wide,omitempty"` // float64, in extra words
	at    int    // its first word
}

func (t tensorLayout) size() int {
	n := 1
	for _, d := range t.Shape {
		n *= d
	}
	return n
}

// foldsOf lays out the folds of a phase.
func foldsOf(p federated.Phase) []foldLayout {
	var out []foldLayout
	for _, f := range p.Folds {
		l := foldLayout{Name: f.Name, Indexed: f.Indexed, Counts: f.Counts}
		for name, t := range f.Like.All() {
			l.Tensors = append(l.Tensors, tensorLayout{Name: name, Shape: slices.Clone(t.Shape), Wide: t.F64 != nil})
		}
		out = append(out, l)
	}
	return out
}

// What bounds a layout that came over the wire: words, positions on the axes of a tensor, and runs of words in a part of the model.
const (
	mostWords     = 1 << 33
	mostPositions = 1 << 24
	mostRuns      = 1 << 26
)

// place fills in what follows from the rest, and checks it.
func (l *layout) place() error {
	if len(l.Holdings) == 0 || l.Rows < 0 || l.Rows > mostPositions || len(l.Holdings) > mostWords/(1+l.Rows) {
		return fmt.Errorf("layout of %d holdings and %d rows", len(l.Holdings), l.Rows)
	}
	l.size, l.extra = 0, len(l.Holdings)*(1+l.Rows)+len(federated.Measured)+len(l.Scalars)
	for i := range l.Folds {
		for j := range l.Folds[i].Tensors {
			t := &l.Folds[i].Tensors[j]
			n := 1
			for _, d := range t.Shape {
				if d < 0 || d > 0 && n > mostWords/d {
					return fmt.Errorf("layout of a tensor of shape %v", t.Shape)
				}
				n *= d
			}
			to := &l.size
			if t.Wide {
				to = &l.extra
			}
			t.at = *to
			if *to += n; *to > mostWords {
				return fmt.Errorf("layout of more than %d words", mostWords)
			}
		}
	}
	for _, f := range l.Folds {
		for _, t := range f.Tensors {
			if slices.Contains(l.RowsOf, t.Name) && (len(t.Shape) == 0 || t.Shape[0] != l.Rows || t.Wide) {
				return fmt.Errorf("tensor %q of shape %v has not the %d rows that others have: rows of several kinds have no secure sum", t.Name, t.Shape, l.Rows)
			}
		}
	}
	l.ranges = nil
	for h, ix := range l.Holdings {
		r, err := l.held(ix)
		if err != nil {
			return fmt.Errorf("holding %d: %w", h, err)
		}
		if h > 0 && !r.Intersect(l.ranges[h-1]).Equal(l.ranges[h-1]) {
			return fmt.Errorf("holding %d does not contain the one before: secure sums need parts of the model that are nested", h)
		}
		l.ranges = append(l.ranges, r)
	}
	return nil
}

// held returns the words of the body that an index set holds.
func (l *layout) held(ix weights.Index) (secagg.Ranges, error) {
	r := secagg.Ranges{}
	push := func(lo, hi int) {
		if n := len(r); n > 0 && r[n-1].Hi == lo {
			r[n-1].Hi = hi
			return
		}
		r = append(r, secagg.Range{Lo: lo, Hi: hi})
	}
	for _, f := range l.Folds {
		for _, t := range f.Tensors {
			axes, held := ix[t.Name]
			switch {
			case t.Wide && f.Indexed && ix != nil:
				return nil, fmt.Errorf("tensor %q: parts of models in float64 have no secure sum", t.Name)
			case t.Wide:
			case !f.Indexed || ix == nil || held && len(axes) == 0:
				push(t.at, t.at+t.size())
			case held:
				if err := t.walk(axes, push); err != nil {
					return nil, fmt.Errorf("tensor %q: %w", t.Name, err)
				}
			}
		}
	}
	return r, nil
}

// walk calls f with the runs of words that a product of positions selects, in order.
func (t tensorLayout) walk(axes []weights.Axis, f func(lo, hi int)) error {
	if len(axes) != len(t.Shape) {
		return fmt.Errorf("%d axes for shape %v", len(axes), t.Shape)
	}
	if err := axesFit(axes, t.Shape); err != nil {
		return err
	}
	positions := make([][]int32, len(axes))
	total, visits := 0, 1
	for i, a := range axes {
		n := a.Len(t.Shape[i])
		if total += n; total > mostPositions {
			return fmt.Errorf("more than %d positions on its axes", mostPositions)
		}
		if i < len(axes)-1 {
			if visits *= n; visits > mostRuns {
				return fmt.Errorf("a part of more than %d runs of words", mostRuns)
			}
		}
	}
	for i, a := range axes {
		p := a.Positions(t.Shape[i])
		for k, x := range p {
			if k > 0 && x <= p[k-1] {
				return fmt.Errorf("positions on axis %d are not ascending", i)
			}
		}
		positions[i] = p
	}
	if len(positions) == 0 {
		f(t.at, t.at+1)
		return nil
	}
	last := len(positions) - 1
	runs := func(base int) { // the last axis in runs
		p := positions[last]
		for i := 0; i < len(p); {
			j := i + 1
			for j < len(p) && p[j] == p[j-1]+1 {
				j++
			}
			f(t.at+base*t.Shape[last]+int(p[i]), t.at+base*t.Shape[last]+int(p[j-1])+1)
			i = j
		}
	}
	var visit func(axis, base int)
	visit = func(axis, base int) {
		if axis == last {
			runs(base)
			return
		}
		for _, x := range positions[axis] {
			visit(axis+1, base*t.Shape[axis]+int(x))
		}
	}
	visit(0, 0)
	return nil
}

// axesFit returns an error unless axes fit a shape. Whether they do needs no elements.
func axesFit(axes []weights.Axis, shape []int) error {
	whole := weights.NewSet(1)
	whole.Put("t", weights.Tensor{Shape: shape})
	return weights.Index{"t": axes}.Check(whole)
}

// holding returns which holding an index set is.
func (l *layout) holding(ix weights.Index) (int, error) {
	r, err := l.held(ix)
	if err != nil {
		return 0, err
	}
	for h := range l.ranges {
		if l.ranges[h].Equal(r) {
			return h, nil
		}
	}
	return 0, fmt.Errorf("a part of the model that is not among the %d holdings of the session", len(l.ranges))
}

// words of extras
// measured are the scalars, in their order.
func (l *layout) measured() []string { return append(slices.Clone(federated.Measured), l.Scalars...) }

func (l *layout) weightAt(s int) int   { return s }
func (l *layout) rowAt(s, row int) int { return len(l.Holdings) + s*l.Rows + row }
func (l *layout) scalarAt(k int) int   { return len(l.Holdings)*(1+l.Rows) + k }

// shown returns of how many holdings, from the smallest on, the members' numbers may be told: of those that enough members contain,
// holders[h] of them holding h. Numbers of fewer would be nearly those of single members. The first one's is that of all.
func (l *layout) shown(holders []int, least int) int {
	n := len(holders)
	for have := 0; n > 1; n-- {
		if have += holders[n-1]; have >= least {
			break
		}
	}
	return n
}

// fixed returns weight·v in units of 2⁻²⁴.
func fixed(v float64, weight uint64) (uint64, error) {
	x := v * float64(weight)
	if !(math.Abs(x) < mostExtra) {
		return 0, fmt.Errorf("%v with weight %d is too large for a secure sum, which holds numbers below %d", v, weight, mostExtra)
	}
	return uint64(int64(math.RoundToEven(x * grain))), nil
}

func unfixed(w uint64) float64 { return float64(int64(w)) / grain }

// encode makes the vector of one member's result. Rows that are not allowed (nil: all are) are left out, in each holding those of
// its own, and so are the numbers of holdings beyond the first shown ones. The stream decides how values are rounded. With noise, values become the integers of dp.Skellam instead, modulo 2^b, and the stream is not used.
func (l *layout) encode(p secagg.Params, holding, shown int, r federated.Result, allowed []bool, random *rng.Stream, noise *dp.Skellam) (*secagg.Vector, error) {
	v := p.NewVector(l.ranges[holding].Len())
	if r.Status == federated.Abstained { // nobody shall see who did
		return v, nil
	}
	weight := max(1, r.Weight)
	if weight > p.MaxWeight {
		return nil, fmt.Errorf("a weight of %d; at most %d was agreed", weight, p.MaxWeight)
	}
	shown = min(shown, holding+1)
	for s := range shown {
		v.Extra[l.weightAt(s)] = weight
	}
	for k, name := range l.measured() {
		w, err := fixed(r.Scalars[name], 1)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		v.Extra[l.scalarAt(k)] = w
	}
	rows, err := l.rows(r.Cover, allowed)
	if err != nil {
		return nil, err
	}
	for s := range shown {
		for row := range l.Rows {
			if rows[s*l.Rows+row] {
				v.Extra[l.rowAt(s, row)] = weight
			}
		}
	}
	shell := l.shells(l.ranges[holding])
	at := 0
	var values []float64 // to be hidden together
	for _, f := range l.Folds {
		x, ok := r.Addends[f.Name]
		if !ok {
			return nil, fmt.Errorf("the result has no %q", f.Name)
		}
		for _, t := range f.Tensors {
			y, ok := x.Get(t.Name)
			if !ok {
				if _, held := l.Holdings[holding][t.Name]; f.Indexed && l.Holdings[holding] != nil && !held {
					continue
				}
				return nil, fmt.Errorf("the result has no tensor %q", t.Name)
			}
			if t.Wide && noise != nil {
				return nil, fmt.Errorf("tensor %q: noise that members add is for float32, and would leave it in the open", t.Name)
			}
			if t.Wide {
				if len(y.F64) != t.size() {
					return nil, fmt.Errorf("tensor %q of the result has shape %v, expected %v in float64", t.Name, y.Shape, t.Shape)
				}
				for i, e := range y.F64 {
					if v.Extra[t.at+i], err = fixed(e, weight); err != nil {
						return nil, fmt.Errorf("tensor %q: %w", t.Name, err)
					}
				}
				continue
			}
			n := len(y.F32)
			if y.F32 == nil || at+n > v.Len() {
				return nil, fmt.Errorf("tensor %q of the result has shape %v, which is not the part that the member holds", t.Name, y.Shape)
			}
			if noise != nil {
				for _, e := range y.F32 {
					values = append(values, float64(e))
				}
			} else if err := encode(p, v, at, y.F32, weight, random); err != nil {
				return nil, fmt.Errorf("tensor %q: %w", t.Name, err)
			}
			if rows != nil && slices.Contains(l.RowsOf, t.Name) {
				l.leaveOut(v, at, t, holding, rows, shell)
			}
			at += n
		}
	}
	if at != v.Len() {
		return nil, fmt.Errorf("the result fills %d words of the %d that the member holds", at, v.Len())
	}
	if noise == nil {
		return v, nil
	}
	hidden, err := noise.Hide(rand.Reader, values)
	if err != nil {
		return nil, err
	}
	for i, h := range hidden {
		if v.Body32 != nil {
			v.Body32[i] = uint32(h)
		} else {
			v.Body64[i] = uint64(h)
		}
	}
	return v, nil
}

func encode(p secagg.Params, v *secagg.Vector, at int, x []float32, weight uint64, random *rng.Stream) error {
	if p.Bits == 32 {
		return secagg.Encode(p, v.Body32[at:at+len(x)], x, weight, random)
	}
	return secagg.Encode(p, v.Body64[at:at+len(x)], x, weight, random)
}

// leaveOut clears, in the words of a tensor that a holding has from at on, the rows that are not in.
func (l *layout) leaveOut(v *secagg.Vector, at int, t tensorLayout, holding int, in []bool, shell func(word int) int) {
	width := t.size() / max(1, t.Shape[0])
	for _, r := range l.ranges[holding].Intersect(secagg.Ranges{{Lo: t.at, Hi: t.at + t.size()}}) {
		for word := r.Lo; word < r.Hi; word++ {
			switch {
			case in[shell(word)*l.Rows+(word-t.at)/width]:
			case v.Body32 != nil:
				v.Body32[at] = 0
			default:
				v.Body64[at] = 0
			}
			at++
		}
	}
}

// rows returns, for each holding, the rows that a member covers and that may be sent; nil if the layout has none.
func (l *layout) rows(cover weights.Index, allowed []bool) ([]bool, error) {
	if l.Rows == 0 {
		return nil, nil
	}
	if n := len(l.Holdings) * l.Rows; allowed != nil && len(allowed) != n {
		return nil, fmt.Errorf("the task says of %d rows whether they may be sent; there are %d", len(allowed), n)
	}
	in := make([]bool, l.Rows)
	if cover == nil {
		for i := range in {
			in[i] = true
		}
	} else {
		for i, name := range l.RowsOf {
			axes := cover[name]
			if len(axes) == 0 {
				return nil, fmt.Errorf("the result says nothing about the rows of %q", name)
			}
			now := make([]bool, l.Rows)
			for _, x := range axes[0].Positions(l.Rows) {
				if x < 0 || int(x) >= l.Rows {
					return nil, fmt.Errorf("row %d of %d in %q", x, l.Rows, name)
				}
				now[x] = true
			}
			if i > 0 && !slices.Equal(in, now) {
				return nil, fmt.Errorf("the result covers other rows of %q than of %q", name, l.RowsOf[0])
			}
			in = now
		}
	}
	all := make([]bool, 0, len(l.Holdings)*l.Rows)
	for range l.Holdings {
		all = append(all, in...)
	}
	for i := range all {
		all[i] = all[i] && (allowed == nil || allowed[i])
	}
	return all, nil
}

// decode makes of a session's sum what the driver would have summed in the open. Words outside sent, and rows that fewer than
// least members cover, count for nothing.
func (l *layout) decode(p secagg.Params, sum *secagg.Vector, sent secagg.Ranges, members int, least uint64, noise *dp.Skellam) (*federated.Sum, error) {
	total := sum.Extra[l.weightAt(0)]
	out := &federated.Sum{Total: map[string]*weights.Acc{}, Scalars: map[string]float64{}, Weight: total, N: members, Unit: 1}
	for k, name := range l.measured() {
		out.Scalars[name] = unfixed(sum.Extra[l.scalarAt(k)])
	}
	if total == 0 { // everybody abstained
		out.N = 0
		return out, nil
	}
	shell := l.shells(sent)
	step := 2 * p.Clip / float64(p.Levels-1)
	for _, f := range l.Folds {
		means, counts := weights.NewSet(len(f.Tensors)), map[string][]uint64{}
		for _, t := range f.Tensors {
			x := weights.NewTensor(weights.Float64, t.Shape...)
			means.Put(t.Name, x)
			if t.Wide {
				for i := range x.F64 {
					x.F64[i] = unfixed(sum.Extra[t.at+i]) / float64(total)
				}
				continue
			}
			byRow := l.Rows > 0 && slices.Contains(l.RowsOf, t.Name)
			width := t.size()
			if byRow {
				width /= max(1, t.Shape[0])
			}
			count := make([]uint64, t.size())
			same := true
			for i := range x.F64 {
				s := shell(t.at + i)
				if s < 0 {
					same = false
					continue
				}
				w := sum.Extra[l.weightAt(s)]
				if byRow {
					if w = sum.Extra[l.rowAt(s, i/width)]; w < least {
						w = 0
					}
				}
				same = same && w == total
				if w == 0 {
					continue
				}
				word := word(sum, t.at+i)
				if noise != nil {
					count[i] = w
					x.F64[i] = signed(word, p.Bits) / noise.Scale / float64(w)
					continue
				}
				if float64(word) > float64(w)*float64(p.Levels-1) {
					return nil, fmt.Errorf("%q: a sum of %d, more than weights of %d can come to: somebody sent what is no update", t.Name, word, w)
				}
				count[i] = w
				x.F64[i] = float64(float64(word)/float64(w)*step) - p.Clip
			}
			if !same {
				counts[t.Name] = count
			}
		}
		acc := weights.NewAcc(means, true)
		if err := acc.AddEach(means, counts, total); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		out.Total[f.Name] = acc
	}
	return out, nil
}

// signed reads a word of a ring as a number around 0.
func signed(w uint64, bits int) float64 {
	if bits == 32 {
		return float64(int32(w))
	}
	return float64(int64(w))
}

func word(v *secagg.Vector, i int) uint64 {
	if v.Body32 != nil {
		return uint64(v.Body32[i])
	}
	return v.Body64[i]
}

// shells returns a function that says, for words asked about in ascending order, which is the smallest holding that contains a
// word; −1 if it was not sent.
func (l *layout) shells(sent secagg.Ranges) func(word int) int {
	at := make([]int, len(l.ranges)+1)
	in := func(k int, r secagg.Ranges, word int) bool {
		for at[k] < len(r) && r[at[k]].Hi <= word {
			at[k]++
		}
		return at[k] < len(r) && r[at[k]].Lo <= word
	}
	return func(word int) int {
		if !in(len(l.ranges), sent, word) {
			return -1
		}
		for s, r := range l.ranges {
			if in(s, r, word) {
				return s
			}
		}
		return -1
	}
}
