package worker

import (
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strings"

	"github.com/cohort-learning/cohort/identity"
)

// scheme begins the text of an address.
const scheme = "worker"

// Address is all that a worker needs to come to a host. Its text holds the secret, so it is passed on like a password; it is
// worth nothing once the host has ended.
type Address struct {
	Host        string               // HOST:PORT
	Fingerprint identity.Fingerprint // of the host's certificate
	Secret      identity.Secret
}

// tokenVersion is the first byte of a token.
const tokenVersion = 1

const tokenLen = 1 + 32 + 32 + 4

// String returns worker://HOST:PORT/TOKEN, where TOKEN is base64url of a version, the secret, the fingerprint and the first
// 4 bytes of the SHA-256 of all that.
func (a Address) String() string {
	b := append([]byte{tokenVersion}, a.Secret[:]...)
	b = append(b, a.Fingerprint[:]...)
	b = append(b, tokenSum(b)...)
	return (&url.URL{Scheme: scheme, Host: a.Host, Path: "/" + base64.RawURLEncoding.EncodeToString(b)}).String()
}

func tokenSum(b []byte) []byte {
	s := sha256.Sum256(append([]byte(scheme+"\x00"), b...))
	return s[:4]
}

// ParseAddress reads what String wrote.
func ParseAddress(text string) (Address, error) {
	u, err := url.Parse(strings.TrimSpace(text))
	if err != nil || u.Scheme != scheme || u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return Address{}, errors.New("expected worker://HOST:PORT/TOKEN, as \"cohort run --workers-listen\" prints it")
	}
	if _, port, err := net.SplitHostPort(u.Host); err != nil || port == "" || u.Hostname() == "" {
		return Address{}, fmt.Errorf("%q is not a HOST:PORT", u.Host)
	}
	b, err := base64.RawURLEncoding.Strict().DecodeString(strings.TrimPrefix(u.Path, "/"))
	switch {
	case len(u.Path) < 1+base64.RawURLEncoding.EncodedLen(tokenLen):
		return Address{}, errors.New("the token at its end is cut short: copy all of it")
	case err != nil || len(b) != tokenLen || string(tokenSum(b[:tokenLen-4])) != string(b[tokenLen-4:]):
		return Address{}, errors.New("the token at its end is mistyped: copy it again")
	case b[0] != tokenVersion:
		return Address{}, fmt.Errorf("the token has version %d; this program reads version %d", b[0], tokenVersion)
	}
	return Address{Host: u.Host, Secret: identity.Secret(b[1:33]), Fingerprint: identity.Fingerprint(b[33:65])}, nil
}
