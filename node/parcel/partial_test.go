package parcel

import (
	"bytes"
	"testing"

	"github.com/cohort-learning/cohort/weights"
)

func somePartial(t testing.TB) ([]byte, *Partial) {
	t.Helper()
	x := weights.NewSet(1)
	x.Put("w", weights.Of32([]float32{1, -2, 0.5}, 3))
	acc := func(n uint64) *weights.Acc {
		a := weights.NewAcc(x, true)
		if err := a.Add(x, nil, nil, n); err != nil {
			t.Fatal(err)
		}
		return a
	}
	p := &Partial{Sums: map[string]map[string]*weights.Acc{"": {"w": acc(3), "c": acc(1)}, "b": {"w": acc(9)}},
		Leaves: []Leaf{{Message: []byte(`{"v":1}`), Bytes: 12}, {Message: []byte("x"), Refused: "NaN at [0]"}}}
	var b bytes.Buffer
	n, err := p.WriteTo(&b)
	if err != nil || n != int64(b.Len()) {
		t.Fatalf("%d bytes of %d, %v", n, b.Len(), err)
	}
	return b.Bytes(), p
}

// A partial comes back as it was written; cut off anywhere, or with anything behind it, it is an error.
func TestPartial(t *testing.T) {
	b, want := somePartial(t)
	var got Partial
	if err := got.UnmarshalBinary(b); err != nil {
		t.Fatal(err)
	}
	if len(got.Leaves) != 2 || string(got.Leaves[0].Message) != `{"v":1}` || got.Leaves[1].Refused != "NaN at [0]" || got.Leaves[0].Bytes != 12 {
		t.Errorf("leaves %+v", got.Leaves)
	}
	if got.Sums[""]["w"].Weight() != 3 || got.Sums["b"]["w"].Total("w", 1) != want.Sums["b"]["w"].Total("w", 1) {
		t.Errorf("sums %+v", got.Sums)
	}
	for n := range b {
		if new(Partial).UnmarshalBinary(b[:n]) == nil {
			t.Fatalf("%d of %d bytes: no error", n, len(b))
		}
	}
	if new(Partial).UnmarshalBinary(append(bytes.Clone(b), 0)) == nil {
		t.Error("a byte too many: no error")
	}
	full := &Partial{}
	for range MaxLeaves + 1 {
		full.Leaves = append(full.Leaves, Leaf{})
	}
	var many bytes.Buffer
	if _, err := full.WriteTo(&many); err != nil {
		t.Fatal(err)
	}
	if new(Partial).UnmarshalBinary(many.Bytes()) == nil {
		t.Error("too many leaves: no error")
	}
}

// Whatever is read is written again as the same bytes: there is one form of everything.
func FuzzPartial(f *testing.F) {
	b, _ := somePartial(f)
	f.Add(b)
	f.Add([]byte(partialMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		var p Partial
		if p.UnmarshalBinary(b) != nil {
			return
		}
		var again bytes.Buffer
		if _, err := p.WriteTo(&again); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(again.Bytes(), b) {
			t.Fatalf("%d bytes come back as %d others", len(b), again.Len())
		}
	})
}
