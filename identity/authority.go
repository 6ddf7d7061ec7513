package identity

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"strings"
	"time"

	"github.com/cohort-learning/cohort/journal"
)

const (
	authorityLife = 10 * 365 * 24 * time.Hour
	// certificateLife is how long a server certificate is valid. It is renewed
	// when a third of that is left, so a server whose clock or disk is in trouble
	// has a month.
	certificateLife = 90 * 24 * time.Hour
	// clockSlack is how far a member's clock may run behind the coordinator's
	// without a new certificate seeming not to be valid yet.
	clockSlack = 24 * time.Hour
)

// An Authority is the federation's own certificate authority: an ECDSA P-256 key
// with a certificate that it signed itself, and, for a while after a rotation,
// bridges by which members that know only an older one still recognise the server.
//
// It issues the server's certificate and nothing else; members are known by their
// keys. An Authority is not changed after it was made, so it may be used by many
// goroutines.
type Authority struct {
	federation string
	key        *ecdsa.PrivateKey
	root       *x509.Certificate
	// bridges are, newest first, pairs of a certificate of some later authority's
	// key made by an earlier one, and that earlier one's own certificate.
	bridges []bridge
}

type bridge struct{ cross, old *x509.Certificate }

// NewAuthority makes an authority for the named federation, valid for ten years
// from now.
func NewAuthority(federation string, now time.Time) (*Authority, error) {
	a, err := newAuthority(federation, now)
	if err != nil {
		return nil, fmt.Errorf("make the federation's certificate authority: %w", err)
	}
	return a, nil
}

func newAuthority(federation string, now time.Time) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	spki, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, err
	}
	id := sha256.Sum256(spki)
	template := &x509.Certificate{
		SerialNumber: serial(),
		// The key's name keeps the authorities before and after a rotation apart.
		Subject: pkix.Name{
			Organization: []string{"Cohort federation " + federation},
			CommonName:   "Cohort authority " + hex.EncodeToString(id[:6]),
		},
		NotBefore:             now.Add(-clockSlack),
		NotAfter:              now.Add(authorityLife),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
		SubjectKeyId:          id[:20],
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		return nil, err
	}
	root, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &Authority{federation: federation, key: key, root: root}, nil
}

// serial draws a certificate's number, as browsers demand: 127 random bits.
func serial() *big.Int {
	b := make([]byte, 16)
	if _, err := rand.Read(b); err != nil {
		panic(err) // crypto/rand does not fail
	}
	b[0] &= 0x7f
	return new(big.Int).SetBytes(b)
}

// Rotate returns a new authority with a new key. For the time overlap, members
// that know only the fingerprints of a still recognise the server: the old
// authority signs the new one's key, and the server shows that bridge. With
// overlap 0, which is for a key that has leaked, they have to learn the new
// fingerprint first; see [Pins].
func (a *Authority) Rotate(now time.Time, overlap time.Duration) (*Authority, error) {
	b, err := NewAuthority(a.federation, now)
	if err != nil || overlap <= 0 {
		return b, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               b.root.Subject,
		NotBefore:             now.Add(-clockSlack),
		NotAfter:              earlier(now.Add(overlap), a.root.NotAfter),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
		SubjectKeyId:          b.root.SubjectKeyId,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.root, &b.key.PublicKey, a.key)
	if err != nil {
		return nil, fmt.Errorf("rotate the certificate authority: sign the new key by the old: %w", err)
	}
	cross, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, fmt.Errorf("rotate the certificate authority: %w", err)
	}
	b.bridges = []bridge{{cross, a.root}}
	for _, older := range a.bridges {
		if now.Before(older.cross.NotAfter) {
			b.bridges = append(b.bridges, older)
		}
	}
	return b, nil
}

func earlier(a, b time.Time) time.Time {
	if a.Before(b) {
		return a
	}
	return b
}

// Federation returns the name that the authority was made for.
func (a *Authority) Federation() string { return a.federation }

// Certificate returns the authority's own certificate, for browsers that are to
// trust the federation's page.
func (a *Authority) Certificate() *x509.Certificate { return a.root }

// Fingerprint returns the fingerprint of the authority's own certificate: what
// new tokens carry.
func (a *Authority) Fingerprint() Fingerprint { return FingerprintOf(a.root) }

// FingerprintOf returns the fingerprint of a certificate.
func FingerprintOf(c *x509.Certificate) Fingerprint { return sha256.Sum256(c.Raw) }

// A Pin is a fingerprint by which the server is recognised until a moment.
type Pin struct {
	Fingerprint Fingerprint `json:"fingerprint"`
	Until       time.Time   `json:"until"`
}

// Pins returns every fingerprint by which the server is recognised at the time
// now, the newest first.
func (a *Authority) Pins(now time.Time) []Pin {
	until := a.root.NotAfter
	pins := []Pin{{a.Fingerprint(), until.UTC()}}
	for _, b := range a.bridges {
		until = earlier(until, b.cross.NotAfter) // the way leads over all newer bridges
		if now.Before(until) {
			pins = append(pins, Pin{FingerprintOf(b.old), until.UTC()})
		}
	}
	return pins
}

// Issue makes a new key and a certificate for it, valid for the given host names
// and IP addresses from a day before now until 90 days after. The result holds
// the whole chain that a server shows, the authority's own certificate included,
// so that members can find their pin in it.
func (a *Authority) Issue(hosts []string, now time.Time) (tls.Certificate, error) {
	c, err := a.issue(hosts, now)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("issue the server's certificate for %s: %w", strings.Join(hosts, ", "), err)
	}
	return c, nil
}

func (a *Authority) issue(hosts []string, now time.Time) (tls.Certificate, error) {
	if len(hosts) == 0 {
		return tls.Certificate{}, errors.New("no host is given")
	}
	if !now.Before(a.root.NotAfter) {
		return tls.Certificate{}, fmt.Errorf("the certificate authority was valid until %s: rotate it", a.root.NotAfter.Format(time.DateOnly))
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial(),
		Subject:               pkix.Name{Organization: a.root.Subject.Organization, CommonName: commonName(hosts[0])},
		NotBefore:             now.Add(-clockSlack),
		NotAfter:              earlier(now.Add(certificateLife), a.root.NotAfter),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		BasicConstraintsValid: true,
	}
	for _, h := range hosts {
		if ip := net.ParseIP(strings.Trim(h, "[]")); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
			continue
		}
		if !validHost(h) {
			return tls.Certificate{}, fmt.Errorf("%q is neither a host name nor an IP address", h)
		}
		template.DNSNames = append(template.DNSNames, strings.ToLower(h))
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.root, &key.PublicKey, a.key)
	if err != nil {
		return tls.Certificate{}, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, err
	}
	c := tls.Certificate{Certificate: [][]byte{der, a.root.Raw}, PrivateKey: key, Leaf: leaf}
	for _, b := range a.bridges {
		if now.Before(b.cross.NotAfter) {
			c.Certificate = append(c.Certificate, b.cross.Raw, b.old.Raw)
		}
	}
	return c, nil
}

// commonName is the host, or nothing where it exceeds what X.509 allows; nobody
// but people reads it.
func commonName(host string) string {
	if len(host) > 64 {
		return ""
	}
	return host
}

func validHost(h string) bool {
	if len(h) == 0 || len(h) > 253 {
		return false
	}
	for i, label := range strings.Split(h, ".") {
		if label == "*" && i == 0 {
			continue
		}
		if len(label) == 0 || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for _, c := range []byte(label) {
			if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' && c != '_' {
				return false
			}
		}
	}
	return true
}

// Save writes the authority to a PEM file that only its owner may read: its
// certificate, its key, then pairs of bridge and older certificate.
func (a *Authority) Save(path string) error { return a.SaveTo(journal.OS(), path) }

// SaveTo is Save on another file system.
func (a *Authority) SaveTo(fsys journal.FS, path string) error {
	der, err := x509.MarshalPKCS8PrivateKey(a.key)
	if err != nil {
		return fmt.Errorf("save the certificate authority: %w", err)
	}
	var buf bytes.Buffer
	blocks := []*pem.Block{
		{Type: "CERTIFICATE", Bytes: a.root.Raw, Headers: map[string]string{"Federation": a.federation}},
		{Type: "PRIVATE KEY", Bytes: der},
	}
	for _, b := range a.bridges {
		blocks = append(blocks, &pem.Block{Type: "CERTIFICATE", Bytes: b.cross.Raw}, &pem.Block{Type: "CERTIFICATE", Bytes: b.old.Raw})
	}
	for _, b := range blocks {
		if err := pem.Encode(&buf, b); err != nil {
			return fmt.Errorf("save the certificate authority: %w", err)
		}
	}
	if err := writeSecret(fsys, path, buf.Bytes()); err != nil {
		return fmt.Errorf("save the certificate authority: %w", err)
	}
	return nil
}

// LoadAuthority reads what [Authority.Save] wrote. Like [LoadKey] it refuses a
// file that others may read.
func LoadAuthority(path string) (*Authority, error) { return LoadAuthorityFrom(journal.OS(), path) }

// LoadAuthorityFrom is LoadAuthority on another file system.
func LoadAuthorityFrom(fsys journal.FS, path string) (*Authority, error) {
	data, err := readSecret(fsys, path, 0o077)
	if err != nil {
		return nil, fmt.Errorf("load the certificate authority: %w", err)
	}
	a, err := parseAuthority(data)
	if err != nil {
		return nil, fmt.Errorf("load the certificate authority %s: %w", path, err)
	}
	return a, nil
}

func parseAuthority(data []byte) (*Authority, error) {
	a := &Authority{}
	var certs []*x509.Certificate
	for {
		block, rest := pem.Decode(data)
		if block == nil {
			break
		}
		data = rest
		switch block.Type {
		case "CERTIFICATE":
			c, err := x509.ParseCertificate(block.Bytes)
			if err != nil {
				return nil, err
			}
			if len(certs) == 0 {
				a.federation = block.Headers["Federation"]
			}
			certs = append(certs, c)
		case "PRIVATE KEY":
			key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
			if err != nil {
				return nil, err
			}
			k, ok := key.(*ecdsa.PrivateKey)
			if !ok {
				return nil, fmt.Errorf("its key is a %T, not ECDSA", key)
			}
			a.key = k
		default:
			return nil, fmt.Errorf("holds a %q, which does not belong there", block.Type)
		}
	}
	if len(certs)%2 != 1 || a.key == nil {
		return nil, errors.New("is incomplete: restore it from a backup, or rotate the authority and tell the members")
	}
	a.root = certs[0]
	if !a.key.PublicKey.Equal(a.root.PublicKey) {
		return nil, errors.New("its key does not belong to its certificate")
	}
	for i := 1; i < len(certs); i += 2 {
		b := bridge{cross: certs[i], old: certs[i+1]}
		if err := b.cross.CheckSignatureFrom(b.old); err != nil {
			return nil, fmt.Errorf("a bridge from an older authority is wrong: %w", err)
		}
		a.bridges = append(a.bridges, b)
	}
	return a, nil
}
