package assisted

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math"
	"slices"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/weights"
	"gonum.org/v1/gonum/mat"
)

// LeastStratum is how many rows to fit a stratum has at least; smaller ones are merged (Xian and others 2020).
const LeastStratum = 30

// mostStrata bounds how many strata an organisation fits models for.
const mostStrata = 1024

// Strata are groups of rows that are alike in a discrete column of the sponsor's. An assistor that fits a model for each takes part in
// what that column and its own columns do together, which no sum of a function of the one and a function of the others does: the
// interactions after theorem 1 of Xian and others (2020). Who fits strata sees which rows are in the same one, and not why.
type Strata struct {
	Column string         `json:"column"`
	Values map[string]int `json:"values"` // of the column: their strata, from 0
	Count  int            `json:"count"`
	// Other is the stratum of values that were not there, and of those that were merged; Merged says whether there are any.
	Other  int  `json:"other"`
	Merged bool `json:"merged,omitempty"`
}

// NewStrata makes strata of a column by its values on the rows to fit. A value of [LeastStratum] rows or more is a stratum. All others are
// one together, and while that has too few rows the smallest stratum is added to it. A value that was not there is of that merged stratum, or
// if nothing was merged, of the largest one.
func NewStrata(column string, values []string) (*Strata, error) {
	rows := map[string]int{}
	for _, v := range values {
		rows[v]++
	}
	order := slices.SortedFunc(maps.Keys(rows), func(a, b string) int { return cmp.Or(cmp.Compare(rows[b], rows[a]), cmp.Compare(a, b)) })
	large := 0
	for _, n := range rows {
		large += b2i(n >= LeastStratum)
	}
	own, small := len(order), 0
	for own > 0 && (rows[order[own-1]] < LeastStratum || own < len(order) && small < LeastStratum) {
		own--
		small += rows[order[own]]
	}
	s := &Strata{Column: column, Values: map[string]int{}, Count: own}
	if own < len(order) {
		s.Count, s.Other, s.Merged = own+1, own, true
	}
	for i, v := range order {
		s.Values[v] = min(i, own)
	}
	switch {
	case s.Count < 2:
		return nil, fmt.Errorf("strata: of the %d values of %q on the %d rows to fit, %d have %d rows or more; at least two groups of so many rows are needed",
			len(order), column, len(values), large, LeastStratum)
	case s.Count > mostStrata:
		return nil, fmt.Errorf("strata: %q makes %d groups of rows, more than %d", column, s.Count, mostStrata)
	}
	return s, nil
}

// Of returns the strata of rows by their values; nil where there are none.
func (s *Strata) Of(values []string) []int {
	if s == nil {
		return nil
	}
	out := make([]int, len(values))
	for i, v := range values {
		var known bool
		if out[i], known = s.Values[v]; !known {
			out[i] = s.Other
		}
	}
	return out
}

// Text names the strata and how many of some rows are in each.
func (s *Strata) Text(of []int) string {
	rows, names := make([]int, s.Count), make([][]string, s.Count)
	for _, stratum := range of {
		rows[stratum]++
	}
	for _, v := range slices.Sorted(maps.Keys(s.Values)) {
		names[s.Values[v]] = append(names[s.Values[v]], fmt.Sprintf("%q", v))
	}
	text := ""
	for i, n := range names {
		what := n[0]
		if s.Merged && i == s.Other {
			what = fmt.Sprintf("%d others", len(n))
		}
		text += fmt.Sprintf(", %s (%d rows)", what, rows[i])
	}
	return text[2:]
}

// strataSet is the name of the strata of a task: n×1, whole numbers from 0. Without it there are none.
const strataSet = "strata"

// strataMatrix is strata as they are sent.
func strataMatrix(strata []int) *mat.Dense {
	x := mat.NewDense(len(strata), 1, nil)
	for i, s := range strata {
		x.Set(i, 0, float64(s))
	}
	return x
}

// strataIn reads the strata of a task about so many rows; nil if it has none.
func strataIn(t federated.Task, rows int) ([]int, error) {
	set, ok := t.Sets[strataSet]
	if !ok {
		return nil, nil
	}
	x, err := matrixIn(set, strataSet)
	if err != nil {
		return nil, err
	}
	if n, _ := x.Dims(); n != rows {
		return nil, fmt.Errorf("the strata of %d rows, of which there are %d", n, rows)
	}
	return readStrata(x)
}

func readStrata(x *mat.Dense) ([]int, error) {
	n, columns := x.Dims()
	if columns != 1 {
		return nil, fmt.Errorf("strata in %d columns: expected one", columns)
	}
	out := make([]int, n)
	for i := range out {
		v := x.At(i, 0)
		if !(v >= 0 && v < mostStrata) || v != math.Trunc(v) {
			return nil, fmt.Errorf("row %d is in stratum %v: expected a whole number from 0 to %d", i, v, mostStrata-1)
		}
		out[i] = int(v)
	}
	return out, nil
}

// strataOf is how many strata there may be: one more than the greatest number; 0 for nil.
func strataOf(strata []int) int {
	if strata == nil {
		return 0
	}
	return slices.Max(strata) + 1
}

// stratum is that of row i; 0 where there are none.
func stratum(strata []int, i int) int {
	if strata == nil {
		return 0
	}
	return strata[i]
}

// stratified returns a task that says of each row in which stratum it is; for nil, as it was.
func stratified(t federated.Task, strata []int) federated.Task {
	if strata == nil {
		return t
	}
	sets := maps.Clone(t.Sets)
	if sets == nil {
		sets = map[string]weights.Set{}
	}
	sets[strataSet] = setOf(strataSet, strataMatrix(strata))
	t.Sets = sets
	return t
}

// strata are those that an organisation fits models for; nil: it fits one. The sponsor's own has the column that they are made of.
func (t *Table) strata(name string) []int {
	if !t.ByStratum || name == t.Sponsor.Own {
		return nil
	}
	return t.Sponsor.Stratum
}

// Stratify returns a task for an organisation to fit models with the strata of the rows, if it is to fit one for each.
func (t *Table) Stratify(name string, task federated.Task) federated.Task {
	return stratified(task, t.strata(name))
}

func strataName(at federated.Local, s Slot) string { return at.Scope + "/strata/" + s.String() }

// keptStrata are those that a model was asked for with; nil if there were none.
func (d *Desk) keptStrata(at federated.Local, s Slot) ([]int, error) {
	b, err := d.Store.Get(strataName(at, s))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	x, err := ReadMatrix(b)
	if err != nil {
		return nil, fmt.Errorf("the strata of model %v: %w", s, err)
	}
	return readStrata(x)
}

// within returns features with the stratum of all rows before them; as they were for count 0, where there are no strata.
func within(x *mat.Dense, stratum, count int) *mat.Dense {
	if count == 0 {
		return x
	}
	rows, columns := x.Dims()
	out := mat.NewDense(rows, columns+1, nil)
	for i := range rows {
		out.Set(i, 0, float64(stratum))
		copy(out.RawRowView(i)[1:], x.RawRowView(i))
	}
	return out
}

// apart puts the columns of x side by side for each stratum, 0 in the rows of others; x itself for nil.
func apart(x *mat.Dense, strata []int) *mat.Dense {
	if strata == nil {
		return x
	}
	rows, columns := x.Dims()
	out := mat.NewDense(rows, columns*strataOf(strata), nil)
	for i := range rows {
		copy(out.RawRowView(i)[strata[i]*columns:], x.RawRowView(i))
	}
	return out
}
