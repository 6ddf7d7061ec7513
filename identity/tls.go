package identity

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"fmt"
	"math/big"
	"strings"
	"sync"
	"time"
)

// memberAuthority is the name of an authority that does not exist. The server
// asks for client certificates of it, so that a browser, which has none, does not
// trouble its user with a choice of others. Members ignore it.
const memberAuthority = "Cohort members"

// Certificate returns the client certificate of the key: signed by itself, the
// public key's text form as its name, without an end, because the roster and not
// the calendar decides who is a member. Two calls give equal certificates.
func (k Key) Certificate() (tls.Certificate, error) {
	template := &x509.Certificate{
		SerialNumber:          big.NewInt(1),
		Subject:               pkix.Name{CommonName: k.Public().String()},
		NotBefore:             time.Unix(0, 0),
		NotAfter:              time.Unix(maxSeconds, 0), // RFC 5280, 4.1.2.5: no expiry
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
		BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, k.private.Public(), k.private)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make the certificate of a key: %w", err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return tls.Certificate{}, fmt.Errorf("make the certificate of a key: %w", err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: k.private, Leaf: leaf}, nil
}

// FromCertificate returns the key of a member's certificate. Whatever else the
// certificate claims is ignored.
func FromCertificate(c *x509.Certificate) (Public, error) {
	key, ok := c.PublicKey.(ed25519.PublicKey)
	if !ok || len(key) != ed25519.PublicKeySize {
		return Public{}, fmt.Errorf("a certificate with a key of type %v is not a member's", c.PublicKeyAlgorithm)
	}
	p := Public(key)
	if p.Weak() {
		return Public{}, errors.New("the certificate's key is one for which anybody can make signatures")
	}
	return p, nil
}

// PeerKey returns the key that the other side of a connection has proved to own.
// On a server, ok is false for clients without a certificate and for those whose
// certificate is not a member's. TLS has checked the proof of possession; whether
// the key is a member's, the roster says.
func PeerKey(s tls.ConnectionState) (p Public, ok bool) {
	if !s.HandshakeComplete || len(s.PeerCertificates) != 1 {
		return Public{}, false
	}
	p, err := FromCertificate(s.PeerCertificates[0])
	return p, err == nil
}

// ServerTLS returns the configuration of the federation's port: TLS 1.3, HTTP/2
// and HTTP/1.1, and clients are asked for a certificate but need not have one.
// The certificate is asked for at every handshake; see [Source].
//
// No session is resumed: a handshake costs little, and no ticket outlives the
// key of a member who was revoked.
func ServerTLS(cert func() *tls.Certificate) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			if c := cert(); c != nil {
				return c, nil
			}
			return nil, errors.New("the server has no certificate")
		},
		ClientAuth:             tls.RequestClientCert,
		ClientCAs:              hint(),
		NextProtos:             []string{"h2", "http/1.1"},
		SessionTicketsDisabled: true,
	}
}

// hint returns a pool that holds nothing but a name.
var hint = sync.OnceValue(func() *x509.CertPool {
	name, err := asn1Name(memberAuthority)
	if err != nil {
		panic(err) // a constant
	}
	pool := x509.NewCertPool()
	pool.AddCert(&x509.Certificate{Raw: name, RawSubject: name})
	return pool
})

// Errors of a member that does not recognise the server.
var (
	// ErrUnknownServer says that none of the server's certificates is one that
	// the member knows.
	ErrUnknownServer = errors.New("the server is not the one of the invitation")
)

// ClientTLS returns the configuration of a member who knows the server by the
// given fingerprints, of its authority or of its very certificate, or, if there
// are none (or only zero ones), by the authorities that the operating system
// trusts. ServerName is the host that the certificate must name. TLS 1.3 only.
func ClientTLS(k Key, serverName string, pins ...Fingerprint) *tls.Config {
	return NewTrust(pins...).ClientTLS(k, serverName)
}

// Trust is the set of fingerprints by which a member recognises the server. It
// grows and shrinks while the member runs, when the federation changes its
// authority; configurations made from it follow. It may be used by many goroutines.
type Trust struct {
	mu   sync.Mutex
	pins []Fingerprint
}

// NewTrust returns a set of fingerprints; zero ones are left out, and the empty
// set means the operating system's authorities.
func NewTrust(pins ...Fingerprint) *Trust {
	t := &Trust{}
	t.Set(pins...)
	return t
}

// Set replaces the fingerprints.
func (t *Trust) Set(pins ...Fingerprint) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.pins = nil
	for _, p := range pins {
		if !p.IsZero() {
			t.pins = append(t.pins, p)
		}
	}
}

// Fingerprints returns the fingerprints.
func (t *Trust) Fingerprints() []Fingerprint {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]Fingerprint(nil), t.pins...)
}

// ClientTLS is the function of that name, with the fingerprints that t has at the
// time of each handshake. The zero key shows no certificate, as a browser does.
func (t *Trust) ClientTLS(k Key, serverName string) *tls.Config {
	serverName = strings.Trim(serverName, "[]")
	conf := &tls.Config{
		MinVersion: tls.VersionTLS13,
		ServerName: serverName,
		// The usual check knows no pins. VerifyConnection takes its place and is
		// called at every handshake.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			return verifyServer(s.PeerCertificates, serverName, t.Fingerprints(), time.Now())
		},
	}
	if !k.IsZero() {
		// Not Certificates: that would heed the hint for browsers.
		cert := sync.OnceValues(k.Certificate)
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			c, err := cert()
			return &c, err
		}
	}
	return conf
}

// verifyServer checks the chain that a server showed.
func verifyServer(chain []*x509.Certificate, host string, pins []Fingerprint, now time.Time) error {
	if len(chain) == 0 {
		return errors.New("the server showed no certificate")
	}
	if host == "" {
		return errors.New("no server name is given to check the certificate against")
	}
	opts := x509.VerifyOptions{
		DNSName:       host,
		Intermediates: x509.NewCertPool(),
		CurrentTime:   now,
		KeyUsages:     []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	if len(pins) > 0 {
		opts.Roots = x509.NewCertPool()
		pinned := false
		for i, c := range chain {
			for _, p := range pins {
				if FingerprintOf(c) != p {
					continue
				}
				if i == 0 { // this very certificate; its names do not matter then
					return checkDates(c, now)
				}
				opts.Roots.AddCert(c)
				pinned = true
			}
		}
		if !pinned {
			return fmt.Errorf("%w: expected the fingerprint %s, but its certificates have %s; if the federation has changed its authority while this member was away, fetch the signed list of fingerprints or ask for a new invitation, otherwise somebody stands between",
				ErrUnknownServer, join(pins), join(fingerprints(chain)))
		}
	}
	if _, err := chain[0].Verify(opts); err != nil {
		var invalid x509.CertificateInvalidError
		if errors.As(err, &invalid) && invalid.Reason == x509.Expired {
			return fmt.Errorf("the server's certificate: %w; if the date is not what you expect, set this machine's clock (it says %s)", err, now.UTC().Format(time.RFC3339))
		}
		return fmt.Errorf("the server's certificate: %w", err)
	}
	return nil
}

func checkDates(c *x509.Certificate, now time.Time) error {
	if now.Before(c.NotBefore) || now.After(c.NotAfter) {
		return fmt.Errorf("the server's certificate is valid from %s to %s only; this machine's clock says %s",
			c.NotBefore.UTC().Format(time.RFC3339), c.NotAfter.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

func fingerprints(chain []*x509.Certificate) []Fingerprint {
	var f []Fingerprint
	for _, c := range chain {
		f = append(f, FingerprintOf(c))
	}
	return f
}

func join(f []Fingerprint) string {
	var s []string
	for _, p := range f {
		s = append(s, p.String())
	}
	return strings.Join(s, " or ")
}

// asn1Name returns the DER form of a distinguished name with this common name.
func asn1Name(common string) ([]byte, error) {
	return asn1.Marshal(pkix.Name{CommonName: common}.ToRDNSequence())
}
