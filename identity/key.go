package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/subtle"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nkeys"

	"github.com/cohort-learning/cohort/journal"
)

// A Key is an Ed25519 private key. Its zero value is no key; using it panics.
type Key struct {
	private ed25519.PrivateKey
}

// NewKey makes a key from the system's source of randomness.
func NewKey() (Key, error) {
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		return Key{}, fmt.Errorf("make a key: %w", err)
	}
	return Key{private}, nil
}

// ParseKey reads the text form of a key: an NKey seed of a user, which begins
// with SU and has 58 characters.
func ParseKey(text string) (Key, error) {
	prefix, raw, err := nkeys.DecodeSeed([]byte(strings.TrimSpace(text)))
	switch {
	case err != nil:
		return Key{}, errors.New("not a key: it should be one line of 58 characters that begins with SU")
	case prefix != nkeys.PrefixByteUser:
		return Key{}, errors.New("this NKey seed is not that of a user (SU…)")
	}
	return Key{ed25519.NewKeyFromSeed(raw)}, nil
}

// LoadKey reads the key that [Key.Save] wrote. It refuses a file that anybody
// but its owner may read, where the system knows such permissions.
func LoadKey(path string) (Key, error) { return LoadKeyFrom(journal.OS(), path) }

// LoadKeyFrom is LoadKey on another file system.
func LoadKeyFrom(fsys journal.FS, path string) (Key, error) {
	data, err := readSecret(fsys, path, 0o077)
	if err != nil {
		return Key{}, fmt.Errorf("load key: %w", err)
	}
	k, err := ParseKey(string(data))
	if err != nil {
		return Key{}, fmt.Errorf("load key %s: %w", path, err)
	}
	return k, nil
}

// Save writes the key to a file that only its owner may read, durably and whole
// or not at all. It refuses to replace another key: that would lose an identity.
func (k Key) Save(path string) error { return k.SaveTo(journal.OS(), path) }

// SaveTo is Save on another file system.
func (k Key) SaveTo(fsys journal.FS, path string) error {
	if _, err := fsys.Stat(path); err == nil {
		old, err := LoadKeyFrom(fsys, path)
		if err != nil {
			return fmt.Errorf("save key: %s exists already: %w", path, err)
		}
		if old.Public() != k.Public() {
			return fmt.Errorf("save key: %s exists already and holds another key (%s); move it away first", path, old.Public())
		}
		return nil
	}
	if err := writeSecret(fsys, path, []byte(k.text()+"\n")); err != nil {
		return fmt.Errorf("save key: %w", err)
	}
	return nil
}

func (k Key) text() string {
	seed, err := nkeys.EncodeSeed(nkeys.PrefixByteUser, k.private.Seed())
	if err != nil {
		panic("identity: encode seed: " + err.Error()) // 32 bytes and a valid prefix always encode
	}
	return string(seed)
}

// Seed returns the secret text form of the key, which NATS calls a seed.
func (k Key) Seed() []byte { return []byte(k.text()) }

// NKey returns the key as NATS's own type.
func (k Key) NKey() (nkeys.KeyPair, error) { return nkeys.FromSeed(k.Seed()) }

// Public returns the half of the key that others see.
func (k Key) Public() Public {
	return Public(k.private.Public().(ed25519.PublicKey))
}

// IsZero reports whether k is no key.
func (k Key) IsZero() bool { return k.private == nil }

// Sign returns the signature of msg, 64 bytes. A message should begin with a
// text that names its purpose.
func (k Key) Sign(msg []byte) []byte { return ed25519.Sign(k.private, msg) }

// String shows the public half, so that a key that strays into a log does no harm.
func (k Key) String() string {
	if k.IsZero() {
		return "no key"
	}
	return "private key of " + k.Public().String()
}

// GoString is String.
func (k Key) GoString() string { return k.String() }

// A Public is an Ed25519 public key. Its text form is the NKey of a user: U and
// 55 more characters, two of which are a checksum.
type Public [ed25519.PublicKeySize]byte

// ParsePublic reads the text form. It refuses the few keys for which anybody
// can make signatures (see [Public.Weak]).
func ParsePublic(text string) (Public, error) {
	var p Public
	err := p.UnmarshalText([]byte(text))
	return p, err
}

// String returns the text form.
func (p Public) String() string {
	text, err := nkeys.Encode(nkeys.PrefixByteUser, p[:])
	if err != nil {
		panic("identity: encode public key: " + err.Error())
	}
	return string(text)
}

// Short returns the first characters of the text form, for people who compare
// two of them at a glance. It identifies nothing.
func (p Public) Short() string { return p.String()[:9] + "…" }

// IsZero reports whether p is no key at all.
func (p Public) IsZero() bool { return p == Public{} }

// Equal compares without telling by its time where two keys differ.
func (p Public) Equal(q Public) bool { return subtle.ConstantTimeCompare(p[:], q[:]) == 1 }

// Verify reports whether sig is the signature of msg by p's owner.
func (p Public) Verify(msg, sig []byte) bool {
	return len(sig) == ed25519.SignatureSize && !p.Weak() && ed25519.Verify(p[:], msg, sig)
}

// MarshalText returns the text form.
func (p Public) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// UnmarshalText reads the text form.
func (p *Public) UnmarshalText(text []byte) error {
	raw, err := nkeys.Decode(nkeys.PrefixByteUser, text)
	if err != nil || len(raw) != len(p) {
		return fmt.Errorf("%.80q is not a public key: it should have 56 characters and begin with U", text)
	}
	q := Public(raw)
	if q.String() != string(text) {
		return fmt.Errorf("%.80q is not a public key in its usual form", text)
	}
	if q.Weak() {
		return fmt.Errorf("%.80q is a key for which anybody can make signatures", text)
	}
	*p = q
	return nil
}

// Weak reports whether p is one of the points of small order: whoever registers
// such a key could later say that any signature was somebody else's, because
// anybody can make one.
func (p Public) Weak() bool {
	p[31] &= 0x7f // the sign of x
	return weak[p]
}

// weak are the encodings of the points of order 1, 2, 4 and 8, without the sign
// of x, canonical or not. They are the roots of the eight-torsion of the curve
// (RFC 8032, section 5.1); the test makes a signature for each.
var weak = func() map[Public]bool {
	m := make(map[Public]bool)
	for _, text := range []string{
		"0000000000000000000000000000000000000000000000000000000000000000",
		"0100000000000000000000000000000000000000000000000000000000000000",
		"26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
		"c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
		"ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
		"eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
	} {
		raw, err := hex.DecodeString(text)
		if err != nil {
			panic(err)
		}
		m[Public(raw)] = true
	}
	return m
}()

// message joins what is to be signed: the purpose, then each part preceded by
// its length in four bytes.
func message(purpose string, parts ...[]byte) []byte {
	b := append([]byte(purpose), '\n')
	for _, p := range parts {
		b = binary.BigEndian.AppendUint32(b, uint32(len(p)))
		b = append(b, p...)
	}
	return b
}
