package psi_test

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/secure/psi"
	"pgregory.net/rapid"
)

func check(t interface {
	Helper()
	Fatal(...any)
}, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func ids(prefix string, from, to int) []string {
	var out []string
	for i := from; i < to; i++ {
		out = append(out, fmt.Sprint(prefix, i))
	}
	return out
}

// session runs the protocol through its messages.
func session(t interface {
	Helper()
	Fatal(...any)
}, x, y []string) (psi.Match, *psi.Responder, []byte, []byte) {
	t.Helper()
	a, err := psi.NewInitiator("a run", x, psi.Secret{1})
	check(t, err)
	b, err := psi.NewResponder("a run", y, psi.Secret{2})
	check(t, err)
	first := psi.AppendPoints(nil, a.First())
	points, rest, err := psi.ReadPoints(first)
	check(t, err)
	if len(rest) != 0 {
		t.Fatal("something follows the first message")
	}
	reply, err := b.Answer(points)
	check(t, err)
	second, err := reply.MarshalBinary()
	check(t, err)
	var read psi.Reply
	check(t, read.UnmarshalBinary(second))
	m, err := a.Finish(read)
	check(t, err)
	return m, b, first, second
}

// Both parties agree on who is in both lists, and on nothing else.
func TestIntersection(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		some := rapid.SliceOfNDistinct(rapid.StringN(0, 8, 16), 1, 12, rapid.ID)
		x, y := some.Draw(t, "x"), some.Draw(t, "y")
		m, b, _, _ := session(t, x, y)
		rows := b.Rows(m.Tokens)
		for i, id := range x {
			want := slices.Index(y, id)
			if m.Both[i] != (want >= 0) || rows[i] != want {
				t.Fatalf("%q: in both %v, row %d of the other; it is row %d", id, m.Both[i], rows[i], want)
			}
		}
	})
}

// What is sent tells nothing by its order, is blinded anew in every session, and is the same again for a party that starts again.
func TestTranscript(t *testing.T) {
	x, y := ids("id", 0, 64), ids("id", 32, 96)
	m, b, first, second := session(t, x, y)
	if m.Count() != 32 {
		t.Fatalf("%d in both lists, want 32", m.Count())
	}
	_, _, again, answer := session(t, x, y)
	if !bytes.Equal(first, again) || !bytes.Equal(second, answer) {
		t.Error("the same parties sent other messages the second time")
	}
	for _, id := range x {
		if bytes.Contains(first, []byte(id)) || bytes.Contains(second, []byte(id)) {
			t.Fatalf("%q can be read on the wire", id)
		}
	}

	// In order or shuffled: an initiator with one identifier shows where H(id)^a is among its points.
	points, _, err := psi.ReadPoints(first)
	check(t, err)
	moved := 0
	for i, id := range x {
		alone, err := psi.NewInitiator("a run", []string{id}, psi.Secret{1})
		check(t, err)
		switch at := slices.Index(points, alone.First()[0]); at {
		case -1:
			t.Fatalf("%q was not sent", id)
		case i:
		default:
			moved++
		}
	}
	if moved < 48 {
		t.Errorf("only %d of %d identifiers were sent at another place than their own", moved, len(x))
	}
	var reply psi.Reply
	check(t, reply.UnmarshalBinary(second))
	moved = 0
	for i, token := range b.Own() {
		switch slices.Index(reply.Own, token) {
		case -1:
			t.Fatalf("token of row %d was not sent", i)
		case i:
		default:
			moved++
		}
	}
	if moved < 48 {
		t.Errorf("only %d of %d of the responder's identifiers were sent at another place than their own", moved, len(y))
	}

	// Another session of the same parties shares no point with this one, whether secret or scope differ.
	seen := map[psi.Point]bool{}
	for _, p := range slices.Concat(points, reply.Again, reply.Own, m.Tokens[:32]) {
		seen[p] = true
	}
	for _, other := range []struct {
		scope  string
		secret psi.Secret
	}{{"a run", psi.Secret{3}}, {"another run", psi.Secret{1}}} {
		a, err := psi.NewInitiator(other.scope, x, other.secret)
		check(t, err)
		for _, p := range a.First() {
			if seen[p] {
				t.Fatalf("scope %q: a point of another session was sent", other.scope)
			}
		}
	}

	// Tokens of identifiers that the responder does not have are none of its, nor of anything that was sent.
	for i, token := range m.Tokens[:32] {
		if slices.Contains(reply.Own, token) || slices.Contains(reply.Again, token) || slices.Contains(points, token) {
			t.Errorf("the token of identifier %d, which the responder does not have, is a point that it has seen", i)
		}
	}
}

func TestRefused(t *testing.T) {
	good, err := psi.NewResponder("s", []string{"x"}, psi.Secret{9})
	check(t, err)
	point := good.Own()[0]
	high := point
	high[31] |= 0x80 // at most one of the encodings of a field element is canonical
	odd := point
	odd[0] |= 1 // "negative"
	modulus := psi.Point(append(append([]byte{0xed}, bytes.Repeat([]byte{0xff}, 30)...), 0x7f))
	list := func(p ...psi.Point) []byte { return psi.AppendPoints(nil, p) }
	for name, c := range map[string]struct {
		b    []byte
		want string
	}{
		"identity":      {list(point, psi.Point{}), "point 1: it is the identity"},
		"modulus":       {list(modulus), "point 0: the bytes are no point"},
		"high bit":      {list(high), "no point"},
		"negative":      {list(odd), "no point"},
		"cut off":       {list(point)[:20], "claims 1 points and has 11 bytes"},
		"too many":      {append([]byte{1}, bytes.Repeat([]byte{0xff}, 40)...), "at most 16777216"},
		"other version": {append([]byte{7}, list(point)[1:]...), "version 7"},
		"nothing":       {nil, "cut off after 0 bytes"},
	} {
		if _, _, err := psi.ReadPoints(c.b); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	if _, err := good.Answer([]psi.Point{{}}); err == nil || !strings.Contains(err.Error(), "identity") {
		t.Errorf("the identity was raised to the secret power: %v", err)
	}
	if _, err := good.Answer(nil); err == nil {
		t.Error("an empty list was answered")
	}
	a, err := psi.NewInitiator("s", []string{"x", "y"}, psi.Secret{8})
	check(t, err)
	reply, err := good.Answer(a.First())
	check(t, err)
	for name, c := range map[string]struct {
		r    psi.Reply
		want string
	}{
		"short":  {psi.Reply{Again: reply.Again[:1], Own: reply.Own}, "1 points came back for 2"},
		"twice":  {psi.Reply{Again: reply.Again, Own: []psi.Point{point, point}}, "there twice"},
		"no own": {psi.Reply{Again: reply.Again, Own: []psi.Point{{}}}, "identity"},
	} {
		if _, err := a.Finish(c.r); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	b, err := reply.MarshalBinary()
	check(t, err)
	if err := new(psi.Reply).UnmarshalBinary(append(b, 0)); err == nil {
		t.Error("bytes after a reply were taken")
	}
	for name, c := range map[string]struct {
		ids    []string
		secret psi.Secret
		want   string
	}{
		"twice":     {[]string{"a", "b", "a"}, psi.Secret{1}, "identifier 2 is that of 0 again"},
		"none":      {nil, psi.Secret{1}, "no identifiers"},
		"no secret": {[]string{"a"}, psi.Secret{}, "all zeros"},
	} {
		if _, err := psi.NewInitiator("s", c.ids, c.secret); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("initiator, %s: %v, want %q", name, err, c.want)
		}
		if _, err := psi.NewResponder("s", c.ids, c.secret); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("responder, %s: %v, want %q", name, err, c.want)
		}
	}
}

func TestHash(t *testing.T) {
	secret := []byte("sixteen bytes, at least")
	a, err := psi.Hash(secret, "patients", ids("id", 0, 100))
	check(t, err)
	b, err := psi.Hash(secret, "patients", ids("id", 0, 100))
	check(t, err)
	if !slices.Equal(a, b) {
		t.Error("two parties with one secret hash alike identifiers unlike")
	}
	for name, other := range map[string]struct {
		secret, scope string
	}{"secret": {"another secret of some bytes", "patients"}, "scope": {string(secret), "customers"}} {
		c, err := psi.Hash([]byte(other.secret), other.scope, ids("id", 0, 100))
		check(t, err)
		for i := range c {
			if slices.Contains(a, c[i]) {
				t.Errorf("another %s gives the same hash", name)
			}
		}
	}
	if _, err := psi.Hash([]byte("short"), "patients", a); err == nil || !strings.Contains(err.Error(), "5 bytes") {
		t.Errorf("a short secret: %v", err)
	}
}

func FuzzReply(f *testing.F) {
	r, err := psi.NewResponder("s", []string{"x", "y"}, psi.Secret{9})
	check(f, err)
	reply, err := r.Answer(r.Own())
	check(f, err)
	b, err := reply.MarshalBinary()
	check(f, err)
	f.Add(b)
	f.Add(b[:50])
	f.Add([]byte{1, 255, 255, 255, 0, 0, 0, 0, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		var r psi.Reply
		if r.UnmarshalBinary(b) != nil {
			return
		}
		again, err := r.MarshalBinary()
		check(t, err)
		if !bytes.Equal(again, b) {
			t.Fatal("a reply that was read is written otherwise")
		}
	})
}

func BenchmarkSession(b *testing.B) {
	x, y := ids("id", 0, 1000), ids("id", 500, 1500)
	for b.Loop() {
		session(b, x, y)
	}
	b.ReportMetric(float64(b.Elapsed().Microseconds())/float64(b.N)/2000, "µs/identifier")
}

// A clinic and a laboratory find out which patients both know.
func Example() {
	clinic, _ := psi.NewInitiator("study 7", []string{"Ada", "Ben", "Eve"}, psi.Secret{1})
	laboratory, _ := psi.NewResponder("study 7", []string{"Eve", "Zoe", "Ada", "Ugo"}, psi.Secret{2})

	reply, _ := laboratory.Answer(clinic.First())
	match, _ := clinic.Finish(reply)
	fmt.Println(match.Count(), match.Both)
	fmt.Println(laboratory.Rows(match.Tokens))
	// Output:
	// 2 [true false true]
	// [2 -1 0]
}
