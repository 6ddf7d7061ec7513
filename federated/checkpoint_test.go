package federated

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/weights"
	"pgregory.net/rapid"
)

var foldOpened = PhaseOpened{Round: 3, Phase: "train", Base: 7, Roster: 9}

func foldPhase() Phase {
	like := weights.NewSet(2)
	like.Put("a.weight", weights.NewTensor(weights.Float32, 2, 2))
	like.Put("b", weights.NewTensor(weights.Float64))
	return Phase{Name: "train", Collect: []string{"loss"},
		Folds: []Fold{{Name: "w", Like: like, Indexed: true, Counts: true}, {Name: "c", Like: like, Undiscounted: true}}}
}

// answers draws what members answer in foldPhase, with some that fail, abstain or send nonsense.
func answers(rt *rapid.T) []*Answer {
	var out []*Answer
	for i := range rapid.IntRange(0, 8).Draw(rt, "answers") {
		value := rapid.Float32Range(-4, 4).Draw(rt, "value")
		x := weights.NewSet(2)
		x.Put("a.weight", weights.Of32([]float32{value, 1, -value, 0}, 2, 2))
		x.Put("b", weights.Of64([]float64{float64(value) / 3}))
		a := &Answer{Order: &Order{ID: 100 + i, Member: Member{Index: i, Name: fmt.Sprint("m", i)}, Round: 3, Phase: "train", Base: 5 + i%3},
			Task: Task{Group: rapid.SampledFrom([]string{"", "x"}).Draw(rt, "group"), Tag: rapid.SampledFrom([]string{"", "tag"}).Draw(rt, "tag"),
				Sets: map[string]weights.Set{"w": x}},
			Result: Result{Weight: uint64(i), Addends: map[string]weights.Set{"w": x, "c": x}, Scalars: map[string]float64{"loss": float64(value)}}}
		switch rapid.IntRange(0, 6).Draw(rt, "kind") {
		case 0:
			a.Err = errors.New("the battery is empty")
		case 1:
			a.Result = Result{Status: Abstained}
		case 2:
			a.Result.Scalars = map[string]float64{"loss": math.NaN()}
		case 3:
			a.Result.Scalars = nil
		case 4:
			a.Result.Cover = weights.Index{"a.weight": {weights.Prefix(1), weights.All()}, "b": nil}
		}
		out = append(out, a)
	}
	return out
}

func foldOf(all []*Answer, discount float64) *folding {
	f := newFolding(foldPhase(), discount)
	f.noting = true
	f.expect(9)
	for _, a := range all {
		f.add(a, foldOpened.Base-a.Order.Base, 2)
	}
	return f
}

func encoded(t interface{ Fatal(...any) }, f *folding) []byte {
	var b bytes.Buffer
	if err := f.encode(&b, foldOpened); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// A folding that is restored in the middle ends as one that was never interrupted.
func TestFoldCheckpoint(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		discount := rapid.SampledFrom([]float64{0, 0.5}).Draw(rt, "discount")
		all := answers(rt)
		k := rapid.IntRange(0, len(all)).Draw(rt, "before")
		b := encoded(rt, foldOf(all[:k], discount))
		f, err := decodeFold(b, foldOpened, foldPhase(), discount)
		if err != nil {
			rt.Fatal(err)
		}
		if again := encoded(rt, f); !bytes.Equal(again, b) {
			rt.Fatal("a checkpoint that was restored is written in another way")
		}
		for _, a := range all[k:] {
			f.add(a, foldOpened.Base-a.Order.Base, 2)
		}
		want := foldOf(all, discount)
		if !bytes.Equal(encoded(rt, f), encoded(rt, want)) {
			rt.Fatalf("restored after %d of %d answers: other sums or another roll", k, len(all))
		}
		for name, s := range f.sums() {
			if w := want.sums()[name]; !maps.Equal(s.Scalars, w.Scalars) || s.Weight != w.Weight || s.N != w.N || s.Unit != w.Unit ||
				!s.Total["w"].Mean(weights.Float64).Equal(w.Total["w"].Mean(weights.Float64)) {
				rt.Fatalf("group %q: %+v, want %+v", name, s, w)
			}
		}
		// Any damage is noticed.
		if len(b) > 0 {
			bad := slices.Clone(b)
			bad[rapid.IntRange(0, len(b)-1).Draw(rt, "byte")] ^= 1 << rapid.IntRange(0, 7).Draw(rt, "bit")
			if _, err := decodeFold(bad, foldOpened, foldPhase(), discount); err == nil {
				rt.Fatal("a flipped bit: no error")
			}
			if _, err := decodeFold(b[:rapid.IntRange(0, len(b)-1).Draw(rt, "length")], foldOpened, foldPhase(), discount); err == nil {
				rt.Fatal("cut off: no error")
			}
		}
	})
}

// A checkpoint of something else is refused, and the error says what it is of.
func TestFoldOfAnother(t *testing.T) {
	f := newFolding(foldPhase(), 0)
	f.group("")
	b := encoded(t, f)
	other := foldPhase()
	other.Folds = other.Folds[:1]
	wide := foldPhase()
	wide.Folds[1].Counts = true
	curious := foldPhase()
	curious.Collect = nil
	later := foldOpened
	later.Round++
	for want, err := range map[string]error{
		`of phase "train" of round 3 from version 7, not of "train" of round 4`: second(decodeFold(b, later, foldPhase(), 0)),
		"weights count 1 times, in this run 1024 times":                         second(decodeFold(b, foldOpened, foldPhase(), 0.5)),
		`group "" has 2 sums, phase train has 1`:                                second(decodeFold(b, foldOpened, other, 0)),
		"sums with and without counts":                                          second(decodeFold(b, foldOpened, wide, 0)),
		"1 scalars collected, phase collects 0":                                 second(decodeFold(b, foldOpened, curious, 0)),
		"not a checkpoint of a phase":                                           second(decodeFold([]byte("safetensors"), foldOpened, foldPhase(), 0)),
	} {
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}

func second(_ *folding, err error) error { return err }

// FuzzFold decodes arbitrary bytes with the right hash at their end: no panic, and what is accepted is written again as it was
// read or shorter.
func FuzzFold(f *testing.F) {
	all := []*Answer{}
	x := weights.NewSet(2)
	x.Put("a.weight", weights.NewTensor(weights.Float32, 2, 2))
	x.Put("b", weights.NewTensor(weights.Float64))
	for i := range 3 {
		a := &Answer{Order: &Order{ID: i, Member: Member{Index: i, Name: "m"}, Base: 7}, Task: Task{Tag: "t"},
			Result: Result{Weight: 1, Addends: map[string]weights.Set{"w": x, "c": x}, Scalars: map[string]float64{"loss": 1}}}
		if i == 2 {
			a.Err = errors.New("gone")
		}
		all = append(all, a)
		b := encoded(f, foldOf(all, 0))
		f.Add(b[:len(b)-sha256.Size])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		h := sha256.Sum256(b)
		got, err := decodeFold(append(slices.Clone(b), h[:]...), foldOpened, foldPhase(), 0)
		if err != nil {
			return
		}
		again, err := decodeFold(encoded(t, got), foldOpened, foldPhase(), 0)
		if err != nil {
			t.Fatalf("accepted, and not when it is written again: %v", err)
		}
		if !bytes.Equal(encoded(t, again), encoded(t, got)) {
			t.Fatal("written twice in two ways")
		}
	})
}
