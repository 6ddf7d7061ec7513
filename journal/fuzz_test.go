package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"time"
)

// FuzzScanner feeds the reader anything. It must not panic, must account for
// every byte, and what it accepts must be exactly what the writer writes.
func FuzzScanner(f *testing.F) {
	var good []byte
	prev := Hash{}
	for i, body := range []string{`{"format":"cohort-journal","version":1,"run":"r"}`, `{"round":1}`, `null`} {
		r := Record{Seq: uint64(i), Time: time.Unix(1769860800, 5).UTC(), Kind: "journal.opened", Body: []byte(body), Prev: prev}
		good = appendLine(good, &r)
		prev = r.Hash
	}
	f.Add(good)
	f.Add(good[:len(good)-3])
	f.Add(append(bytes.Clone(good), `{"seq":3}`+"\n"...))
	f.Add([]byte("\n\n"))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, data []byte) {
		s := NewScanner(bytes.NewReader(data), "")
		var again []byte
		n := uint64(0)
		for {
			r, err := s.Next()
			if err != nil {
				var damage *DamageError
				switch {
				case err == io.EOF:
					if s.Offset() != int64(len(data)) {
						t.Fatalf("end at %d of %d", s.Offset(), len(data))
					}
				case errors.Is(err, ErrIncomplete):
					if bytes.IndexByte(data[s.Offset():], '\n') >= 0 {
						t.Fatal("a complete line is called incomplete")
					}
				case errors.As(err, &damage):
					if damage.Seq != n || damage.Offset != s.Offset() {
						t.Fatalf("damage %+v at record %d, byte %d", damage, n, s.Offset())
					}
				default:
					t.Fatal(err)
				}
				if _, err2 := s.Next(); err2 != err {
					t.Fatalf("%v, then %v", err, err2)
				}
				break
			}
			if r.Seq != n || r.Offset != int64(len(again)) {
				t.Fatalf("record %+v, want number %d at %d", r, n, len(again))
			}
			hash := r.Hash
			if again = appendLine(again, &r); r.Hash != hash {
				t.Fatalf("written again, record %d has another hash", n)
			}
			n++
		}
		if !bytes.Equal(again, data[:s.Offset()]) {
			t.Fatalf("read and written again:\n%q\nis not\n%q", again, data[:s.Offset()])
		}
	})
}

// The same for a line whose hash is right: the fuzzer cannot guess one.
func FuzzLine(f *testing.F) {
	f.Add([]byte(`{"seq":1,"time":"2026-01-31T12:00:00.000000000Z","kind":"a","body":{"x":[1,2]}`))
	f.Add([]byte(`{"seq":01,"time":"2026-01-31T12:00:00.000000000Z","kind":"a","body":1`))
	f.Add([]byte(`{"seq":1,"time":"2026-02-31T12:00:00.000000000Z","kind":"a-b.c_9","body":"\","`))
	f.Add([]byte(`{"seq":18446744073709551616,"time":"","kind":"","body":`))
	f.Fuzz(func(t *testing.T, front []byte) {
		line := append(bytes.Clone(front), prevKey+strings.Repeat("0", hexLen)+`"`...)
		sum := Hash(sha256.Sum256(line))
		line = append(line, hashKey[1:]+sum.String()+lineEnd...)
		r, wrong := parseLine(line)
		if wrong != "" {
			return
		}
		if !ValidKind(r.Kind) {
			t.Fatalf("accepted the kind %q", r.Kind)
		}
		if again := appendLine(nil, &r); !bytes.Equal(again, line) {
			t.Fatalf("accepted\n%q\nbut writes\n%q", line, again)
		}
	})
}

// FuzzSealed opens sealed bodies of anything, and anything that is sealed rightly. What opens can be sealed and opened again.
func FuzzSealed(f *testing.F) {
	k := &keyring{run: "r", fetch: func() ([32]byte, error) { return [32]byte{1}, nil }}
	good := Record{Seq: 3, Time: time.Unix(1769860800, 5).UTC(), Kind: "result.received", Body: []byte(`{"member":"a"}`)}
	k.seal(&good, time.Unix(1769860800, 0).UTC(), 128)
	f.Add([]byte(good.outer.Body), []byte(`{"kind":"a","time":"2026-01-31T12:00:00.000000000Z","body":null}  `))
	f.Add([]byte(`"AAAA"`), []byte(`{"kind":"sealed","time":"","body":1,"more":2}`))
	f.Add([]byte(`7`), []byte(`{}{}`))
	f.Fuzz(func(t *testing.T, body, inner []byte) {
		if r, err := k.open(Record{Seq: 3, Kind: KindSealed, Body: body}); err == nil && !bytes.Equal(r.Body, good.Body) { // salts differ
			t.Fatalf("forged: %+v", r)
		}
		salt := make([]byte, saltLen)
		key, _ := k.get()
		c, nonce, about := box(key, salt, "r", 3)
		text := append([]byte(`"`), sealText.EncodeToString(c.Seal(salt, nonce, inner, about))...)
		r, err := k.open(Record{Seq: 3, Kind: KindSealed, Body: append(text, '"')})
		if err != nil {
			return
		}
		if !ValidKind(r.Kind) || !json.Valid(r.Body) {
			t.Fatalf("opened %+v", r)
		}
		again := Record{Seq: 3, Time: r.Time, Kind: r.Kind, Body: r.Body}
		k.seal(&again, r.Time, 64)
		if back, err := k.open(*again.outer); err != nil || back.Kind != r.Kind || !back.Time.Equal(r.Time) {
			t.Fatalf("sealed again: %+v %v", back, err)
		}
	})
}
