package journal

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hkdf"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"slices"
	"sync"
	"time"
)

const (
	// KindSealed is the kind that a sealed record shows to whoever lacks the key.
	KindSealed = "sealed"
	// kindFilling is what is inside of one that says nothing, see [Entry].
	kindFilling = "filling"

	saltLen = 16
)

var sealText = base64.RawStdEncoding

// keyring has the key of a journal once it has been fetched.
type keyring struct {
	run   string // whose journal it is
	fetch func() ([32]byte, error)
	mu    sync.Mutex
	key   *[32]byte
}

func (k *keyring) get() (key [32]byte, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	switch {
	case k.key != nil:
		return *k.key, nil
	case k.fetch == nil:
		return key, errors.New("the journal has sealed records, and there is no key for them")
	}
	if key, err = k.fetch(); err == nil {
		k.key = &key
	}
	return key, err
}

// box returns the cipher of record seq of a run and its nonce, which follow from the key, the salt and both, and what is
// authenticated beside the content.
func box(key [32]byte, salt []byte, run string, seq uint64) (c cipher.AEAD, nonce, about []byte) {
	info := fmt.Sprintf("cohort journal v1, record %d of %s", seq, run)
	b, err := hkdf.Key(sha256.New, key[:], salt, info, 32+12)
	var block cipher.Block
	if err == nil {
		block, err = aes.NewCipher(b[:32])
	}
	if err == nil {
		c, err = cipher.NewGCM(block)
	}
	if err != nil {
		panic(fmt.Sprintf("journal: %v", err)) // all lengths are right
	}
	return c, b[32:], []byte(info)
}

// content is what is inside of a sealed record. White space behind it hides its length.
type content struct {
	Kind string          `json:"kind"`
	Time string          `json:"time"`
	Body json.RawMessage `json:"body"`
}

// sealedLen is at most how long the body of a record becomes whose own has n bytes.
func sealedLen(n, unit int) int {
	const around = 256 // members of the content, kind and time
	return sealText.EncodedLen(saltLen+(n+around+unit)+16) + 2
}

// seal makes r a record that stands in the file as a sealed one, with the time of the one before it. The key has been fetched.
func (k *keyring) seal(r *Record, at time.Time, unit int) {
	key, err := k.get()
	var text []byte
	if err == nil {
		text, err = marshal(content{r.Kind, r.Time.Format(timeLayout), r.Body})
	}
	if err != nil {
		panic(fmt.Sprintf("journal: sealing: %v", err)) // both were there when the record was handed in
	}
	text = append(text, bytes.Repeat([]byte(" "), (unit-len(text)%unit)%unit)...)
	b := make([]byte, saltLen, saltLen+len(text)+16)
	_, _ = rand.Read(b) // never fails
	c, nonce, about := box(key, b, k.run, r.Seq)
	b = c.Seal(b, nonce, text, about)
	out := *r
	out.Kind, out.Time, out.outer = KindSealed, at, nil
	out.Body = append(sealText.AppendEncode([]byte(`"`), b), '"')
	r.outer = &out
}

// open returns what is inside of a record; one that is not sealed as it is.
func (k *keyring) open(r Record) (Record, error) {
	if r.Kind != KindSealed || r.outer != nil {
		return r, nil
	}
	fail := func(format string, args ...any) (Record, error) {
		return r, fmt.Errorf("journal record %d is sealed: %w", r.Seq, fmt.Errorf(format, args...))
	}
	key, err := k.get()
	if err != nil {
		return fail("%w", err)
	}
	var text string
	if err := r.Decode(&text); err != nil {
		return fail("%w", err)
	}
	b, err := sealText.Strict().DecodeString(text)
	if err != nil || len(b) < saltLen {
		return fail("what it holds cannot be read")
	}
	c, nonce, about := box(key, b[:saltLen], k.run, r.Seq)
	plain, err := c.Open(nil, nonce, b[saltLen:], about)
	if err != nil {
		return fail("the key does not open it: it is another run's, or the record was sealed in another place")
	}
	var x content
	d := json.NewDecoder(bytes.NewReader(plain))
	d.DisallowUnknownFields()
	if err := d.Decode(&x); err != nil || !ValidKind(x.Kind) || len(bytes.TrimLeft(plain[d.InputOffset():], " ")) > 0 || x.Body == nil {
		return fail("its content is none of this version of the program")
	}
	at, err := time.Parse(timeLayout, x.Time)
	if err != nil {
		return fail("its content is none of this version of the program")
	}
	outer := r
	r.Kind, r.Time, r.Body, r.outer = x.Kind, at, x.Body, &outer
	return r, nil
}

// Opened returns the records of a journal, from its header on, with sealed ones opened; only those of the given kinds, if any are
// given. Key is called when the first that is sealed comes.
func Opened(seq iter.Seq2[Record, error], key func() ([32]byte, error), kinds ...string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		k := &keyring{fetch: key}
		whole := func(yield func(Record, error) bool) {
			for r, err := range seq {
				if err == nil && r.Seq == 0 {
					var h Header
					h, err = readHeader(r)
					k.run = h.Run
				}
				if !yield(r, err) {
					return
				}
			}
		}
		k.opened(whole, kinds)(yield)
	}
}

// opened opens those records that are sealed and keeps those of the given kinds, all if none is given, that do not only fill up.
// An error ends it.
func (k *keyring) opened(seq iter.Seq2[Record, error], kinds []string) iter.Seq2[Record, error] {
	return func(yield func(Record, error) bool) {
		for r, err := range seq {
			if err == nil {
				r, err = k.open(r)
			}
			switch {
			case err != nil:
				yield(Record{}, err)
				return
			case r.outer != nil && r.Kind == kindFilling, len(kinds) > 0 && !slices.Contains(kinds, r.Kind):
			case !yield(r, nil):
				return
			}
		}
	}
}
