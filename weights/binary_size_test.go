package weights_test

import (
	"bytes"
	"testing"

	"github.com/cohort-learning/cohort/weights"
)

// TestAccWriteTo: what is written by the piece is what is made whole, and its length is known before.
func TestAccWriteTo(t *testing.T) {
	like := weights.NewSet(2)
	like.Put("a", weights.Of32(make([]float32, 40_000), 40_000))
	like.Put("b", weights.Of32([]float32{1, 2, 3}, 3))
	for _, counting := range []bool{false, true} {
		acc := weights.NewAcc(like, counting)
		check := func(when string) {
			t.Helper()
			whole, err := acc.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			var b bytes.Buffer
			n, err := acc.WriteTo(&b)
			if err != nil || n != int64(len(whole)) || !bytes.Equal(b.Bytes(), whole) || acc.BinarySize() != len(whole) {
				t.Errorf("%s: %d bytes written (%v), %d made whole, %d announced", when, n, err, len(whole), acc.BinarySize())
			}
		}
		check("empty")
		acc.MustAdd(like, nil, nil, 3)
		check("everything covered")
		part := weights.NewSet(1)
		part.Put("b", weights.Of32([]float32{5}, 1))
		at := weights.Index{"b": {weights.Prefix(1)}}
		if counting {
			acc.MustAdd(part, at, nil, 2)
			check("covered in part")
		}
	}
}
