package identity

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/cohort-learning/cohort/journal"
)

// A link is a line of a roster that an attacker may change.
type link struct {
	Seq              uint64
	Time, Kind, Body string
}

// links takes the lines apart.
func links(t testing.TB, data []byte) []link {
	t.Helper()
	var out []link
	for line := range bytes.Lines(data) {
		var r struct {
			Seq        uint64
			Time, Kind string
			Body       json.RawMessage
		}
		must(t, json.Unmarshal(line, &r))
		out = append(out, link{r.Seq, r.Time, r.Kind, string(r.Body)})
	}
	return out
}

// chain writes lines with numbers and hashes that are right, as anybody can.
func chain(all []link) []byte {
	var b []byte
	prev := strings.Repeat("0", 64)
	for i, l := range all {
		start := len(b)
		b = fmt.Appendf(b, `{"seq":%d,"time":"%s","kind":"%s","body":%s,"prev":"%s"`, i, l.Time, l.Kind, l.Body, prev)
		sum := sha256.Sum256(b[start:])
		prev = hex.EncodeToString(sum[:])
		b = fmt.Appendf(b, `,"hash":"%s"}`+"\n", prev)
	}
	return b
}

func goldenRoster(t testing.TB) []byte {
	data, err := os.ReadFile("testdata/roster.jsonl")
	must(t, err)
	return data
}

func verify(data []byte) error {
	_, err := ReadRoster(bytes.NewReader(data), fixedKey(1).Public(), journal.Head{})
	return err
}

// named says which record an error names.
func named(err error) (uint64, bool) {
	var foreign *ForeignError
	var damage *journal.DamageError
	switch {
	case errors.As(err, &foreign):
		return foreign.Seq, true
	case errors.As(err, &damage):
		return damage.Seq, true
	}
	return 0, false
}

func TestChainHelper(t *testing.T) {
	data := goldenRoster(t)
	if !bytes.Equal(chain(links(t, data)), data) {
		t.Fatal("the test's own writer differs from the format")
	}
	must(t, verify(data))
}

// Every whole number of records from the start verifies; the header alone is no roster.
func TestEveryPrefixVerifies(t *testing.T) {
	all := links(t, goldenRoster(t))
	for n := 2; n <= len(all); n++ {
		if err := verify(chain(all[:n])); err != nil {
			t.Errorf("%d records: %v", n, err)
		}
	}
	for n := range 2 {
		if err := verify(chain(all[:n])); err == nil {
			t.Errorf("%d records were accepted", n)
		}
	}
}

// Any flipped bit is found, and its record named.
func TestEveryFlippedByte(t *testing.T) {
	data := goldenRoster(t)
	line := uint64(0)
	for i := range data {
		for _, bit := range []byte{1, 0x20} {
			bad := bytes.Clone(data)
			bad[i] ^= bit
			err := verify(bad)
			if err == nil {
				t.Fatalf("byte %d of record %d: not found", i, line)
			}
			if seq, ok := named(err); ok && seq != line {
				t.Errorf("byte %d: record %d is named, not %d: %v", i, seq, line, err)
			} else if !ok && i < len(data)-1 {
				t.Errorf("byte %d: no record is named: %v", i, err)
			}
		}
		if data[i] == '\n' {
			line++
		}
	}
}

// Whoever can compute hashes but has not the federation's key can change nothing:
// neither flip, nor drop, nor repeat, nor exchange, nor add.
func TestForgedChains(t *testing.T) {
	all := links(t, goldenRoster(t))
	foreign := links(t, text(t, story2(t)))
	rapid.Check(t, func(t *rapid.T) {
		forged := append([]link(nil), all...)
		i := rapid.IntRange(1, len(all)-1).Draw(t, "record")
		want := uint64(i)
		switch op := rapid.SampledFrom([]string{"body", "kind", "drop", "repeat", "exchange", "foreign", "insert", "header", "time"}).Draw(t, "op"); op {
		case "body":
			b := []byte(forged[i].Body)
			at := rapid.IntRange(0, len(b)-1).Draw(t, "byte")
			c := rapid.SampledFrom([]byte("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ+/=")).Draw(t, "to")
			if b[at] == c {
				return
			}
			b[at] = c
			if !json.Valid(b) {
				return // the journal refuses that; see TestEveryFlippedByte
			}
			forged[i].Body = string(b)
		case "kind":
			k := rapid.SampledFrom([]string{kindInvited, kindAdmitted, kindLeft, kindRevoked, kindRotated, kindFounded, journal.KindCut, "member.new"}).Draw(t, "kind")
			if k == forged[i].Kind {
				return
			}
			forged[i].Kind = k
		case "drop":
			if i == len(all)-1 {
				return // that is a prefix: only a known head tells
			}
			forged = append(forged[:i:i], all[i+1:]...)
		case "repeat":
			forged = append(forged[:i+1:i+1], all[i:]...)
			want++
		case "exchange":
			j := rapid.IntRange(1, len(all)-1).Draw(t, "with")
			if i == j {
				return
			}
			forged[i], forged[j] = forged[j], forged[i]
			want = uint64(min(i, j))
		case "foreign":
			forged[i] = foreign[rapid.IntRange(1, len(foreign)-1).Draw(t, "which")]
		case "insert":
			forged = append(append(forged[:i:i], foreign[rapid.IntRange(1, len(foreign)-1).Draw(t, "which")]), all[i:]...)
		case "header":
			forged[0] = foreign[0]
			want = 0
		case "time": // signed by way of the next record's hash
			if i == len(all)-1 {
				return
			}
			forged[i].Time = "2031-01-31T12:00:00.000000000Z"
			want++
		}
		err := verify(chain(forged))
		var fe *ForeignError
		if !errors.As(err, &fe) || fe.Seq != want || !strings.Contains(err.Error(), fmt.Sprintf("record %d ", want)) {
			t.Fatalf("record %d should be refused: %v", want, err)
		}
	})
}

// story2 is the roster of another federation with the same names.
func story2(t testing.TB) *Roster {
	r := found(t, t.TempDir(), fixedKey(100))
	join1(t, r, "north", Secret{1}, fixedKey(2))
	must(t, r.Invite("south", Secret{2}, later), r.Revoke("north", "x"))
	return r
}

// Even the federation's own key cannot sign what is impossible: a name given to
// another key, a key rotated without its owner.
func TestSignedButImpossible(t *testing.T) {
	fed := fixedKey(1)
	base := links(t, goldenRoster(t))
	head := func() journal.Head {
		v, err := ReadRoster(bytes.NewReader(chain(base)), fed.Public(), journal.Head{})
		must(t, err)
		return v.Head()
	}()
	at := epoch
	for what, c := range map[string]struct {
		kind   string
		change any
	}{
		"founded twice":         {kindFounded, founded{1, "clinics", fed.Public(), at}},
		"member without token":  {kindAdmitted, admitted{at, "nobody", fixedKey(7).Public()}},
		"member admitted again": {kindAdmitted, admitted{at, "north", fixedKey(7).Public()}},
		"key of another":        {kindAdmitted, admitted{at, "west", fixedKey(4).Public()}},
		"key once used":         {kindAdmitted, admitted{at, "west", fixedKey(2).Public()}},
		"revoked and back":      {kindInvited, invited{at, []invitation{{Name: "east"}}}},
		"bad name":              {kindInvited, invited{at, []invitation{{Name: "a.>"}}}},
		"no names":              {kindInvited, invited{At: at}},
		"rotated alone":         {kindRotated, rotated{at, SignRotation(fed.Public(), "north", fixedKey(8), fixedKey(9))}},
		"rotated by the thief of a name": {kindRotated, rotated{at, func() Rotation {
			x := SignRotation(fed.Public(), "north", fixedKey(9), fixedKey(9))
			x.Old = fixedKey(4).Public()
			return x
		}()}},
		"unknown kind":   {"member.new", left{at, "north"}},
		"unknown member": {kindLeft, left{at, "nobody"}},
		"other fields":   {kindLeft, map[string]any{"at": at, "name": "north", "extra": 1}},
		"other order":    {kindLeft, json.RawMessage(`{"name":"north","at":"2026-01-31T12:00:00Z"}`)},
	} {
		of, err := json.Marshal(c.change)
		must(t, err)
		seq := uint64(len(base))
		sig := fed.Sign(signedRecord(fed.Public(), seq, head.Hash, c.kind, of))
		forged := append(base[:seq:seq], link{Time: base[1].Time, Kind: c.kind, Body: string(sealed(of, sig))})
		var fe *ForeignError
		if err := verify(chain(forged)); !errors.As(err, &fe) || fe.Seq != seq || !strings.Contains(err.Error(), "not possible") {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func FuzzRoster(f *testing.F) {
	data := goldenRoster(f)
	f.Add(data)
	f.Add(data[:len(data)/2])
	f.Add(chain(links(f, data)[:3]))
	f.Add(text(f, story2(f)))
	f.Fuzz(func(t *testing.T, b []byte) {
		v, err := ReadRoster(bytes.NewReader(b), fixedKey(1).Public(), journal.Head{})
		if err != nil {
			return
		}
		// Only the golden roster's own prefixes carry this federation's signatures;
		// the last record's time is all that its signature leaves open.
		got, want := links(t, b), links(t, data)
		if len(got) > len(want) || v.Head().Seq != uint64(len(got)-1) {
			t.Fatalf("accepted %d records", len(got))
		}
		got[len(got)-1].Time = want[len(got)-1].Time
		for i := range got {
			if got[i] != want[i] {
				t.Errorf("accepted a record %d that nobody signed: %v", i, got[i])
			}
		}
	})
}

// FuzzRecordBody feeds bodies that the federation did sign to the decoder: they
// may be refused, but must not harm.
func FuzzRecordBody(f *testing.F) {
	for _, l := range links(f, goldenRoster(f))[1:] {
		of, _, _ := unseal([]byte(l.Body))
		f.Add(l.Kind, of)
	}
	f.Add(kindInvited, []byte(`{"at":"2026-01-31T12:00:00Z","invited":null}`))
	f.Fuzz(func(t *testing.T, kind string, of []byte) {
		change, err := decode(kind, of)
		if err != nil {
			return
		}
		again, err := json.Marshal(change)
		if err != nil || !bytes.Equal(again, of) {
			t.Errorf("%s is written as %s (%v)", of, again, err)
		}
		v := newView(fixedKey(1).Public())
		v.head.Seq = 5
		_ = v.apply(6, change)
	})
}
