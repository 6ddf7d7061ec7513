package assisted

import (
	"context"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/rng"
	"gonum.org/v1/gonum/mat"
)

// FuzzRows: what is read of rows is consistent, and written as it is means the same.
func FuzzRows(f *testing.F) {
	keys := []string{"a", "b"}
	for _, more := range []alongside{{}, {Blocks: []string{"x", "y"}}, {Compared: [][]string{{"Ada", ""}, {"Ben", "1990-01-01"}}},
		{Blocks: []string{"x", "y"}, Compared: [][]string{{}, {}}}, {Blocks: []string{"x"}}, {Compared: [][]string{{"Ada"}, {"Ben", "b"}}}} {
		b, err := appendRows(nil, keys, more)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		named, keys, more, err := readRows(b)
		if err != nil {
			return
		}
		if n := len(keys); more.Blocks != nil && len(more.Blocks) != n && len(more.Blocks) != 0 || len(more.Compared) != n && len(more.Compared) != 0 {
			t.Errorf("%d keys, blocks of %d and values of %d", n, len(more.Blocks), len(more.Compared))
		}
		again, err := appendRows(nil, keys, more)
		if err != nil {
			t.Fatal(err)
		}
		named2, keys2, more2, err := readRows(again)
		if err != nil || !slices.Equal(named, named2) || !slices.Equal(keys, keys2) || !reflect.DeepEqual(more, more2) {
			t.Errorf("%q, %q, %+v is read again as %q, %q, %+v, %v", named, keys, more, named2, keys2, more2, err)
		}
	})
}

// recorder is an aligner that remembers what it was asked.
type recorder struct{ l Links }

func (a *recorder) Align(_ context.Context, x, _ *mat.Dense, l Links, _ *rng.Stream) (*Alignment, error) {
	a.l = l
	n, _ := x.Dims()
	return &Alignment{Pair: slices.Repeat([]int{-1}, n)}, nil
}

// TestComparedRows: an aligner gets the names of the rows that come into question, and of those that have targets; sides that compare
// otherwise are refused.
func TestComparedRows(t *testing.T) {
	a := &recorder{}
	d := &Desk{Keys: []string{"a", "b", "c"}, Aligner: a, Store: NewStore(), Features: mat.NewDense(3, 1, []float64{1, 2, 3}),
		Compared: [][]string{{"Ada"}, {"Ben"}, {"Cid"}}, index: map[string]int{"a": 0, "b": 1, "c": 2}}
	keys := []string{"c", "a", "z", "b"} // the last is not to fit
	rows := roster{fit: 3, at: d.find(keys), alongside: alongside{Compared: [][]string{{"cid"}, {"ada"}, {"zoe"}, {"ben"}}}}
	if _, err := d.findLinks(t.Context(), federated.Local{Scope: "run"}, Slot{}, rows, mat.NewDense(3, 1, []float64{3, 1, 9})); err != nil {
		t.Fatal(err)
	}
	// b is the row of one without targets, and does not come into question.
	if want := [][]string{{"Ada"}, {"Cid"}}; !reflect.DeepEqual(a.l.Compared, want) {
		t.Errorf("rows %v are compared, should be %v", a.l.Compared, want)
	}
	if want := [][]string{{"cid"}, {"ada"}, {"zoe"}}; !reflect.DeepEqual(a.l.SponsorCompared, want) {
		t.Errorf("they are compared with %v, should be %v", a.l.SponsorCompared, want)
	}
	if err := d.comparable(rows.alongside); err != nil {
		t.Error(err)
	}
	for what, theirs := range map[string]alongside{"which tells none": {}, "1 columns with 2": {Compared: [][]string{{"a", "b"}}}} {
		if err := d.comparable(theirs); err == nil || !strings.Contains(err.Error(), what) {
			t.Errorf("the error about %q is %v", what, err)
		}
	}
}
