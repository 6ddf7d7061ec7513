package weights_test

import (
	"fmt"
	"testing"

	"github.com/cohort-learning/cohort/weights"
)

// What Fits refuses, a sum refuses too, and the other way round where all values are numbers.
func TestFits(t *testing.T) {
	whole := weights.NewSet(2)
	whole.Put("a", weights.NewTensor(weights.Float32, 4, 3))
	whole.Put("b", weights.NewTensor(weights.Float32, 5))
	ix := weights.Index{"a": {weights.Prefix(2), weights.All()}, "elsewhere": nil}
	part := weights.NewSet(1)
	part.Put("a", weights.NewTensor(weights.Float32, 2, 3))
	more := part.Clone()
	more.Put("b", weights.NewTensor(weights.Float32, 5))
	for _, c := range []struct {
		name      string
		ix, cover weights.Index
		x         weights.Set
		err       string
	}{
		{"slice", ix, nil, part, "<nil>"},
		{"whole", nil, weights.Index{"b": {weights.List([]int32{4})}}, whole, "<nil>"},
		{"other shape", nil, nil, part, `tensor "a" has shape [2 3], expected [4 3]`},
		{"absent", weights.Index{"b": nil}, nil, weights.NewSet(0), `tensor "b" is missing`},
		{"whole for a slice", ix, nil, whole, `tensor "a" has shape [4 3], expected [2 3]`},
		{"not held", ix, nil, more, `tensor "b" is not expected here`},
		{"cover", ix, weights.Index{"a": {weights.Prefix(5), weights.All()}}, part, `tensor "a": cover: axis 0: prefix 5 of an axis of 4`},
		{"index", weights.Index{"a": {weights.All()}}, nil, part, `tensor "a": index: 1 axes for shape [4 3]`},
	} {
		err := c.ix.Fits(c.x, whole, c.cover)
		if fmt.Sprint(err) != c.err {
			t.Errorf("%s: error %v, want %s", c.name, err, c.err)
		}
		if sum := weights.NewAcc(whole, false).Check(c.x, c.ix, c.cover, 1); (sum == nil) != (err == nil) {
			t.Errorf("%s: Fits says %v, a sum says %v", c.name, err, sum)
		}
	}
}
