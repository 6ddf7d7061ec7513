package blob

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
)

// A Hash is the SHA-256 of an object's bytes, and its name.
type Hash [sha256.Size]byte

// Sum returns the name of data.
func Sum(data []byte) Hash { return sha256.Sum256(data) }

// ParseHash reads what String wrote: 64 lower-case hexadecimal digits.
func ParseHash(s string) (Hash, error) {
	var h Hash
	return h, h.UnmarshalText([]byte(s))
}

// String returns 64 lower-case hexadecimal digits.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// Short returns the first 12 digits, for people.
func (h Hash) Short() string { return hex.EncodeToString(h[:6]) }

// Compare orders hashes as [bytes.Compare] does.
func (h Hash) Compare(o Hash) int { return bytes.Compare(h[:], o[:]) }

// MarshalText returns String's digits.
func (h Hash) MarshalText() ([]byte, error) { return []byte(h.String()), nil }

// UnmarshalText accepts only what MarshalText writes, so that a name has one spelling.
func (h *Hash) UnmarshalText(text []byte) error {
	var v Hash
	if len(text) != hex.EncodedLen(len(v)) || bytes.ContainsAny(text, "ABCDEF") {
		return fmt.Errorf("%.80q is no hash: 64 lower-case hexadecimal digits are", text)
	}
	if _, err := hex.Decode(v[:], text); err != nil {
		return fmt.Errorf("%.80q is no hash: 64 lower-case hexadecimal digits are", text)
	}
	*h = v
	return nil
}
