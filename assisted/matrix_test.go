package assisted

import (
	"bytes"
	"math"
	"slices"
	"testing"

	"gonum.org/v1/gonum/mat"
)

func FuzzMatrix(f *testing.F) {
	f.Add(AppendMatrix(nil, mat.NewDense(2, 3, []float64{1, 2, 3, 4, math.Inf(1), math.NaN()})))
	f.Add(AppendMatrix(nil, mat.NewDense(1, 1, nil))[:20])
	f.Add(AppendMatrix(AppendMatrix(nil, mat.NewDense(2, 1, nil)), mat.NewDense(1, 3, nil)))
	f.Add([]byte("cmx1\xff\xff\xff\xff\xff\xff\xff\xff\x02\x00\x00\x00\x00\x00\x00\x80"))
	f.Fuzz(func(t *testing.T, b []byte) {
		x, err := ReadMatrix(b)
		if err == nil && !bytes.Equal(AppendMatrix(nil, x), b) {
			t.Errorf("%q is read as %v, which is written otherwise", b, mat.Formatted(x))
		}
		all, several := ReadMatrices(b)
		if (err == nil) != (several == nil && len(all) == 1) {
			t.Errorf("%q is one matrix (%v), and %d (%v)", b, err, len(all), several)
		}
		var again []byte
		for _, x := range all {
			again = AppendMatrix(again, x)
		}
		if several == nil && !bytes.Equal(again, b) {
			t.Errorf("%q is read as %d matrices, which are written otherwise", b, len(all))
		}
	})
}

func TestMatrixOfASlice(t *testing.T) {
	x := mat.NewDense(3, 3, []float64{1, 2, 3, 4, 5, 6, 7, 8, 9}).Slice(1, 3, 1, 2).(*mat.Dense)
	got, err := ReadMatrix(AppendMatrix(nil, x))
	if err != nil || !mat.Equal(got, mat.NewDense(2, 1, []float64{5, 8})) {
		t.Errorf("a part of a matrix is read as %v, %v", got, err)
	}
	if v := values(x); !slices.Equal(v, []float64{5, 8}) {
		t.Errorf("its values are %v", v)
	}
}

func FuzzKeys(f *testing.F) {
	f.Add(AppendKeys(nil, []string{"a", "", "Zoë"}))
	f.Add(AppendKeys(nil, []string{"a", "a"}))
	f.Add(AppendKeys(nil, nil))
	f.Add([]byte("\xff\xff\xff\xff\xff\xff\xff\x7f\x01\x00\x00\x00a"))
	f.Fuzz(func(t *testing.T, b []byte) {
		keys, err := ReadKeys(b)
		if err == nil && !bytes.Equal(AppendKeys(nil, keys), b) {
			t.Errorf("%q is read as %q, which is written otherwise", b, keys)
		}
	})
}
