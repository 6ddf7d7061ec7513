package identity

import (
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"
	"unicode"
)

// tokenPrefix begins the text of a token; its digit is the format's version.
const tokenPrefix = "cohort1_"

// Errors of [ParseToken] and [Token.Check].
var (
	// ErrNotToken says that a text does not look like a token at all.
	ErrNotToken = errors.New("this is no invitation: it should begin with " + tokenPrefix)
	// ErrTruncated says that the end of a token is missing.
	ErrTruncated = errors.New("the invitation is cut short: copy all of it, in one piece")
	// ErrMistyped says that some characters of a token are wrong.
	ErrMistyped = errors.New("the invitation is mistyped: its checksum does not match; copy it again")
	// ErrTokenExpired says that a token was valid until a moment in the past.
	ErrTokenExpired = errors.New("the invitation has expired: ask the coordinator for a new one (cohort invite)")
)

// A Secret is what makes a token valid: 32 random bytes, kept by the
// coordinator as their hash only. Printing it shows nothing.
type Secret [32]byte

// NewSecret draws a secret from the system's source of randomness.
func NewSecret() (Secret, error) {
	var s Secret
	if _, err := rand.Read(s[:]); err != nil {
		return s, fmt.Errorf("draw a secret: %w", err)
	}
	return s, nil
}

// String hides the secret.
func (s Secret) String() string { return "(secret)" }

// GoString hides the secret.
func (s Secret) GoString() string { return "(secret)" }

// MarshalText returns the secret itself, in base64url: it is needed on the wire.
func (s Secret) MarshalText() ([]byte, error) {
	return base64.RawURLEncoding.AppendEncode(nil, s[:]), nil
}

// UnmarshalText reads what MarshalText returns.
func (s *Secret) UnmarshalText(text []byte) error {
	raw, err := base64.RawURLEncoding.Strict().DecodeString(string(text))
	if err != nil || len(raw) != len(s) {
		return errors.New("a secret should have 32 bytes in base64url, 43 characters")
	}
	*s = Secret(raw)
	return nil
}

// hash is what the roster keeps of a secret. A secret is uniformly random, so a
// plain hash gives nothing away.
func (s Secret) hash() [32]byte {
	return sha256.Sum256(message("cohort/secret/1", s[:]))
}

// A Fingerprint is the SHA-256 of a certificate (DER). The zero value stands for
// no certificate in particular: the server is then recognised by the
// authorities that the operating system trusts.
type Fingerprint [sha256.Size]byte

// IsZero reports whether f stands for no certificate in particular.
func (f Fingerprint) IsZero() bool { return f == Fingerprint{} }

// String returns f as 64 lower-case hexadecimal digits.
func (f Fingerprint) String() string { return hex.EncodeToString(f[:]) }

// MarshalText returns what String returns.
func (f Fingerprint) MarshalText() ([]byte, error) { return []byte(f.String()), nil }

// UnmarshalText reads 64 hexadecimal digits, in the form of String or with
// colons between the bytes, as other programs show fingerprints.
func (f *Fingerprint) UnmarshalText(text []byte) error {
	raw, err := hex.DecodeString(strings.ReplaceAll(string(text), ":", ""))
	if err != nil || len(raw) != len(f) {
		return fmt.Errorf("%.120q is not the SHA-256 fingerprint of a certificate: it should have 64 hexadecimal digits", text)
	}
	*f = Fingerprint(raw)
	return nil
}

// A Token invites one member. Whoever holds it can take the name, once, until it
// expires; so it is sent like a password.
type Token struct {
	URL        string      // where the federation's port is: https://HOST[:PORT]
	CA         Fingerprint // how to recognise it; zero: by the system's authorities
	Federation Public      // the coordinator's key, which signs the roster and every task
	Name       string      // who is invited
	Secret     Secret
	Expires    time.Time // whole seconds
}

// Check says what keeps the token from being used at the time now, or nil.
func (t Token) Check(now time.Time) error {
	if err := CheckName(t.Name); err != nil {
		return err
	}
	if _, err := ParseURL(t.URL); err != nil {
		return err
	}
	if t.Federation.IsZero() || t.Federation.Weak() {
		return errors.New("the invitation names no federation key")
	}
	if !now.Before(t.Expires) {
		return fmt.Errorf("%w; it was valid until %s", ErrTokenExpired, t.Expires.UTC().Format(time.RFC3339))
	}
	return nil
}

// ParseURL reads the address of a federation: https, a host, perhaps a port,
// and nothing else.
func ParseURL(text string) (*url.URL, error) {
	u, err := url.Parse(text)
	switch {
	case err != nil:
		return nil, fmt.Errorf("address of the federation: %w", err)
	case u.Scheme != "https" || u.Hostname() == "" || u.Opaque != "":
		return nil, fmt.Errorf("address of the federation %q: it should be https://HOST or https://HOST:PORT", text)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.ForceQuery || (u.Path != "" && u.Path != "/"):
		return nil, fmt.Errorf("address of the federation %q: it should end after the host or the port", text)
	}
	return u, nil
}

// LogValue keeps the secret out of logs.
func (t Token) LogValue() slog.Value {
	return slog.GroupValue(slog.String("name", t.Name), slog.String("url", t.URL), slog.Time("expires", t.Expires))
}

// String returns the token as one word, for a mail or a command line:
// cohort1_ and base64url of
//
//	length    2 bytes, of everything from here to the checksum's end
//	CA       32 bytes
//	key      32 bytes, the federation's
//	secret   32 bytes
//	expires   8 bytes, seconds since 1970
//	name      1 byte of length, then the name
//	URL       2 bytes of length, then the address
//	checksum  4 bytes: the first of the SHA-256 of cohort1_ and all bytes before
//
// Numbers are big-endian. It panics if name or URL are too long for that.
// The text holds the secret.
func (t Token) String() string {
	if len(t.Name) > 255 || len(t.URL) > 1024 {
		panic(fmt.Sprintf("identity: token with a name of %d bytes and an address of %d", len(t.Name), len(t.URL)))
	}
	b := make([]byte, 2, 256)
	b = append(b, t.CA[:]...)
	b = append(b, t.Federation[:]...)
	b = append(b, t.Secret[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(t.Expires.Unix()))
	b = append(b, byte(len(t.Name)))
	b = append(b, t.Name...)
	b = binary.BigEndian.AppendUint16(b, uint16(len(t.URL)))
	b = append(b, t.URL...)
	binary.BigEndian.PutUint16(b, uint16(len(b)+checksumLen))
	b = append(b, checksum(b)...)
	return tokenPrefix + base64.RawURLEncoding.EncodeToString(b)
}

const (
	checksumLen = 4
	minToken    = 2 + 3*32 + 8 + 1 + 2 + checksumLen
	maxToken    = minToken + 255 + 1024
)

func checksum(b []byte) []byte {
	sum := sha256.Sum256(append([]byte(tokenPrefix), b...))
	return sum[:checksumLen]
}

// ParseToken reads what [Token.String] wrote; white space within is ignored, as
// mail programs break lines. Its errors are [ErrNotToken], [ErrTruncated] and
// [ErrMistyped]. Whether the token can still be used, [Token.Check] says.
func ParseToken(text string) (Token, error) {
	text = strings.Map(func(r rune) rune {
		if unicode.IsSpace(r) {
			return -1
		}
		return r
	}, text)
	body, ok := strings.CutPrefix(text, tokenPrefix)
	if !ok {
		if len(text) > 0 && len(text) < len(tokenPrefix) && strings.HasPrefix(tokenPrefix, text) {
			return Token{}, ErrTruncated
		}
		return Token{}, ErrNotToken
	}
	// The length comes first, so that a token that lost its end is told from one
	// with a wrong character.
	enc := base64.RawURLEncoding.Strict()
	if len(body) < 4 {
		return Token{}, ErrTruncated
	}
	first, err := enc.DecodeString(body[:4])
	if err != nil {
		return Token{}, ErrMistyped
	}
	n := int(binary.BigEndian.Uint16(first))
	if n < minToken || n > maxToken || len(body) > enc.EncodedLen(n) {
		return Token{}, ErrMistyped
	}
	if len(body) < enc.EncodedLen(n) {
		return Token{}, ErrTruncated
	}
	b, err := enc.DecodeString(body)
	if err != nil {
		return Token{}, ErrMistyped
	}
	if string(checksum(b[:n-checksumLen])) != string(b[n-checksumLen:]) {
		return Token{}, ErrMistyped
	}
	t, ok := decodeToken(b[2 : n-checksumLen])
	if !ok {
		return Token{}, ErrMistyped
	}
	// The checksum keeps accidents away, not people: what it says is checked too.
	if err := CheckName(t.Name); err != nil {
		return Token{}, fmt.Errorf("invitation: %w", err)
	}
	if _, err := ParseURL(t.URL); err != nil {
		return Token{}, fmt.Errorf("invitation: %w", err)
	}
	return t, nil
}

func decodeToken(b []byte) (t Token, ok bool) {
	take := func(n int) []byte {
		if len(b) < n {
			b = nil
			return make([]byte, n)
		}
		p := b[:n]
		b = b[n:]
		return p
	}
	copy(t.CA[:], take(32))
	copy(t.Federation[:], take(32))
	copy(t.Secret[:], take(32))
	seconds := int64(binary.BigEndian.Uint64(take(8)))
	if seconds < 0 || seconds > maxSeconds {
		return t, false
	}
	t.Expires = time.Unix(seconds, 0).UTC()
	n := int(take(1)[0])
	if n > len(b) {
		return t, false
	}
	t.Name = string(take(n))
	if len(b) < 2 {
		return t, false
	}
	n = int(binary.BigEndian.Uint16(take(2)))
	if n != len(b) {
		return t, false
	}
	t.URL = string(take(n))
	return t, true
}

// maxSeconds is the end of the year 9999, beyond which RFC 3339 cannot write.
const maxSeconds = 253402300799
