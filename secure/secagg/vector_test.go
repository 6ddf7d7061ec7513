package secagg_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/rng"
	"github.com/cohort-learning/cohort/secure/secagg"
	"pgregory.net/rapid"
)

func TestRanges(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		d := rapid.IntRange(0, 50).Draw(t, "d")
		draw := func(what string) (in []bool, r secagg.Ranges) {
			var i []int
			in = rapid.SliceOfN(rapid.Bool(), d, d).Draw(t, what)
			for c, held := range in {
				if held {
					i = append(i, c)
				}
			}
			return in, secagg.Indices(i)
		}
		a, ra := draw("a")
		b, rb := draw("b")
		var both []int
		for c := range a {
			if a[c] && b[c] {
				both = append(both, c)
			}
		}
		got, want := ra.Intersect(rb), secagg.Indices(both)
		if !got.Equal(want) || got.Len() != len(both) || got.Validate(d) != nil {
			t.Errorf("%v ∩ %v = %v, want %v", ra, rb, got, want)
		}
	})
}

// A secure sum of encoded members decodes to their weighted mean within what rounding allows, and a piece at a time gives the same
// words as all at once.
func TestEncode(t *testing.T) {
	p := secagg.Params{Members: 10, Threshold: 7, Size: 2000, MaxWeight: 50}
	levels := p.Defaults().Levels
	sum := make([]uint64, p.Size)
	mean, total := make([]float64, p.Size), uint64(0)
	for i := range p.Members {
		r := rng.New(3, 0, name(i), "values")
		x := make([]float32, p.Size)
		weight := uint64(1 + r.IntN(50))
		for k := range x {
			x[k] = float32(3 * r.NormFloat64())
			mean[k] += float64(weight) * min(max(float64(x[k]), -8), 8)
		}
		total += weight
		w := make([]uint64, p.Size)
		if err := secagg.Encode(p, w, x, weight, rng.New(1, 4, name(i), "rounding")); err != nil {
			t.Fatal(err)
		}
		pieces, r2 := make([]uint64, p.Size), rng.New(1, 4, name(i), "rounding")
		for lo := 0; lo < p.Size; lo += 333 {
			hi := min(lo+333, p.Size)
			if err := secagg.Encode(p, pieces[lo:hi], x[lo:hi], weight, r2); err != nil {
				t.Fatal(err)
			}
		}
		if !slices.Equal(pieces, w) {
			t.Fatal("pieces give other words")
		}
		for k := range w {
			sum[k] += w[k]
		}
	}
	got := make([]float32, p.Size)
	if err := secagg.Decode(p, got, sum, total); err != nil {
		t.Fatal(err)
	}
	step := 16 / float64(levels-1)
	bias := 0.0
	for k := range got {
		off := float64(got[k]) - mean[k]/float64(total)
		bias += off / step
		if math.Abs(off) > step+1e-6 {
			t.Errorf("element %d: %g, want %g within %g", k, got[k], mean[k]/float64(total), step)
		}
	}
	// Rounding is right on average: the deviation of one mean is under half a step, of 2000 under 0.0112.
	if bias /= float64(p.Size); math.Abs(bias) > .05 {
		t.Errorf("means are off by %.3f steps on average", bias)
	}
}

func TestEncodeLimits(t *testing.T) {
	p := secagg.Params{Members: 2, Threshold: 2, Bits: 32, Levels: 1 << 8, MaxWeight: 3, Clip: 1.7}
	r := rng.New(1, 0, "", "")
	w := make([]uint32, 5)
	x := []float32{1.7, 100, -100, -1.7, 3.4e38}
	if err := secagg.Encode(p, w, x, 3, r); err != nil {
		t.Fatal(err)
	}
	if want := []uint32{3 * 255, 3 * 255, 0, 0, 3 * 255}; math.Abs(float64(w[3])) > 3 || !slices.Equal(w[:3], want[:3]) || w[4] != want[4] {
		t.Errorf("extremes become %v, want %v", w, want)
	}
	for _, bad := range []float32{float32(math.NaN()), float32(math.Inf(1)), float32(math.Inf(-1))} {
		if err := secagg.Encode(p, w, []float32{0, 0, bad, 0, 0}, 1, r); err == nil || !strings.Contains(err.Error(), "element 2") {
			t.Errorf("%v: %v", bad, err)
		}
	}
	if err := secagg.Encode(p, w, x, 4, r); err == nil {
		t.Error("a weight above the agreed one passes")
	}
	if err := secagg.Decode(p, make([]float32, 1), []uint32{511}, 2); err == nil {
		t.Error("a sum that weights of 2 cannot have passes")
	}
	if err := secagg.Decode(p, make([]float32, 1), []uint32{0}, 0); err == nil {
		t.Error("a mean of weight 0 passes")
	}
}

// Every message, garbled or cut, is refused as malformed or decodes to what it says.
func FuzzDecode(f *testing.F) {
	s := open(f, secagg.Params{Members: 3, Threshold: 3, Size: 2, Extra: 1})
	if err := s.upTo(masked, all); err != nil {
		f.Fatal(err)
	}
	for _, m := range s.messages(f) {
		f.Add(m)
	}
	f.Add([]byte{})
	f.Add([]byte{1, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add(append([]byte{1, 64}, bytes.Repeat([]byte{255}, 30)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		decode[secagg.Adverts](t, b)
		decode[secagg.Advert](t, b)
		decode[secagg.Boxes](t, b)
		decode[secagg.Survivors](t, b)
		decode[secagg.Confirmations](t, b)
		decode[secagg.Confirmation](t, b)
		decode[secagg.Reveal](t, b)
		decode[secagg.Vector](t, b)
		if m, err := secagg.RestoreMember(s.p, s.book.trust(name(0)), b); err == nil {
			if again, err := m.MarshalBinary(); err != nil || !bytes.Equal(again, b) {
				t.Errorf("member's state has two encodings (%v)", err)
			}
		}
		if v, err := secagg.RestoreServer(s.p, s.book, b); err == nil {
			if again, err := v.Checkpoint(); err != nil || !bytes.Equal(again, b) {
				t.Errorf("server's state has two encodings (%v)", err)
			}
		}
	})
}

func decode[T any, P message[T]](t *testing.T, b []byte) {
	t.Helper()
	var m T
	err := P(&m).UnmarshalBinary(b)
	if err != nil {
		if !errors.Is(err, secagg.ErrMalformed) {
			t.Errorf("%T: %v", m, err)
		}
		return
	}
	again, err := P(&m).MarshalBinary()
	if err != nil || !bytes.Equal(again, b) {
		t.Errorf("%T has two encodings (%v)", m, err)
	}
}

// messages finishes a session and returns one of each message and state.
func (s *session) messages(t tb) (out [][]byte) {
	add := func(m interface{ MarshalBinary() ([]byte, error) }) {
		b, err := m.MarshalBinary()
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b)
	}
	list, err := s.server.Adverts()
	if err != nil {
		t.Fatal(err)
	}
	add(list)
	add(list[0])
	boxes, err := s.server.Inbox(name(0))
	if err != nil {
		t.Fatal(err)
	}
	add(boxes)
	y := s.masked[name(0)]
	add(y)
	m := s.members[name(0)]
	add(m)
	survivors, err := s.server.Survivors()
	if err != nil {
		t.Fatal(err)
	}
	add(survivors)
	var confirmations secagg.Confirmations
	for i := range s.p.Members {
		c, err := s.members[name(i)].Confirm(survivors)
		if err != nil {
			t.Fatal(err)
		}
		confirmations = append(confirmations, c)
	}
	add(confirmations)
	add(confirmations[0])
	add(m)
	v, err := m.Unmask(survivors, confirmations)
	if err != nil {
		t.Fatal(err)
	}
	add(v)
	add(m)
	checkpoint, err := s.server.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	return append(out, checkpoint)
}

// Cut or lengthened by one byte, no message passes.
func TestTruncation(t *testing.T) {
	s := open(t, secagg.Params{Members: 3, Threshold: 3, Size: 2, Extra: 1})
	if err := s.upTo(masked, all); err != nil {
		t.Fatal(err)
	}
	for i, b := range s.messages(t) {
		for _, bad := range [][]byte{b[:len(b)-1], append(slices.Clone(b), 0)} {
			for _, err := range []error{
				new(secagg.Adverts).UnmarshalBinary(bad), new(secagg.Boxes).UnmarshalBinary(bad), new(secagg.Survivors).UnmarshalBinary(bad),
				new(secagg.Confirmations).UnmarshalBinary(bad), new(secagg.Reveal).UnmarshalBinary(bad), new(secagg.Vector).UnmarshalBinary(bad),
			} {
				if !errors.Is(err, secagg.ErrMalformed) {
					t.Errorf("message %d with %d of %d bytes: %v", i, len(bad), len(b), err)
				}
			}
		}
	}
}

// Killed before and after every step, on both sides, a session ends as if nothing had been.
func TestRestarts(t *testing.T) {
	p := secagg.Params{Session: "restarts", Members: 5, Threshold: 4, Size: 6, Extra: 1}
	s := open(t, p)
	kill := func() {
		t.Helper()
		for n, m := range s.members {
			state, err := m.MarshalBinary()
			if err != nil {
				t.Fatal(err)
			}
			back, err := secagg.RestoreMember(p, s.book.trust(n), state)
			if err != nil {
				t.Fatal(err)
			}
			s.members[n] = back
			if again, err := back.MarshalBinary(); err != nil || !bytes.Equal(again, state) {
				t.Fatalf("state of %s changes in restoring it (%v)", n, err)
			}
		}
	}
	lost := func(i int) int { return []int{never, masked, never, never, never}[i] }
	list := s.adverts()
	kill()
	if fmt.Sprint(s.members[name(0)].Advert()) != fmt.Sprint(list[0]) {
		t.Error("a restored member has another advert")
	}
	for n, m := range s.members {
		first, err := m.Share(list)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.server.Boxes(n, first.Boxes); err != nil {
			t.Fatal(err)
		}
	}
	kill()
	for n, m := range s.members {
		again, err := m.Share(list)
		if err != nil {
			t.Fatal(err)
		}
		if err := s.server.Boxes(n, again.Boxes); err != nil { // refused if a bit differed
			t.Errorf("shares again: %v", err)
		}
	}
	for i := range p.Members {
		if lost(i) <= masked {
			continue
		}
		boxes, err := s.server.Inbox(name(i))
		if err != nil {
			t.Fatal(err)
		}
		x := s.input(i)
		s.inputs[name(i)] = x
		y, err := s.members[name(i)].Mask(boxes, x)
		if err != nil {
			t.Fatal(err)
		}
		kill()
		again, err := s.members[name(i)].Mask(boxes, x)
		if err != nil || !slices.Equal(again.Body64, y.Body64) || !slices.Equal(again.Extra, y.Extra) {
			t.Errorf("masked again: %v", err)
		}
		if err := s.server.Masked(name(i), again); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := s.server.Survivors(); err != nil {
		t.Fatal(err)
	}
	state, err := s.server.Checkpoint()
	if err != nil {
		t.Fatal(err)
	}
	if s.server, err = secagg.RestoreServer(p, s.book, state); err != nil {
		t.Fatal(err)
	}
	kill()
	got, err := s.finish(lost)
	if err != nil {
		t.Fatal(err)
	}
	s.check(got, lost)
	other := p
	other.Session = "another"
	if _, err := secagg.RestoreServer(other, s.book, state); !errors.Is(err, secagg.ErrConflict) {
		t.Errorf("a server's state under other terms: %v", err)
	}
	if b, err := s.members[name(0)].MarshalBinary(); err != nil {
		t.Error(err)
	} else if _, err := secagg.RestoreMember(other, s.book.trust(name(0)), b); !errors.Is(err, secagg.ErrConflict) {
		t.Errorf("a member's state under other terms: %v", err)
	}
}
