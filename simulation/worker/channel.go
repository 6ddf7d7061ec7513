package worker

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"net"

	"github.com/cohort-learning/cohort/identity"
)

// credentials are made anew for every host.
type credentials struct {
	cert   tls.Certificate
	secret identity.Secret
}

func newCredentials() (c credentials, err error) {
	key, err := identity.NewKey()
	if err != nil {
		return c, err
	}
	if c.cert, err = key.Certificate(); err != nil {
		return c, err
	}
	c.secret, err = identity.NewSecret()
	return c, err
}

func (c credentials) server() *tls.Config {
	return &tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{c.cert}, SessionTicketsDisabled: true}
}

// ErrWrongHost says that the other side is not the host that printed the address.
var ErrWrongHost = errors.New("this is not the simulation that printed the address: its certificate has another fingerprint")

// dial connects to a host and recognises it.
func dial(ctx context.Context, a Address) (*tls.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, introduction)
	defer cancel()
	d := tls.Dialer{Config: &tls.Config{
		MinVersion:         tls.VersionTLS13,
		InsecureSkipVerify: true, // authorities and names do not matter: the certificate itself is known
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) == 0 || identity.FingerprintOf(s.PeerCertificates[0]) != a.Fingerprint {
				return ErrWrongHost
			}
			return nil
		},
	}}
	c, err := d.DialContext(ctx, "tcp", a.Host)
	if err != nil {
		return nil, err
	}
	return c.(*tls.Conn), nil
}

// prove returns a worker's proof that it holds the secret: a MAC of keying material that the two ends of this one connection
// share, so that nobody can pass the proof on.
func prove(secret identity.Secret, c *tls.Conn) ([]byte, error) {
	s := c.ConnectionState()
	bind, err := s.ExportKeyingMaterial("EXPORTER-Channel-Binding", nil, 32)
	if err != nil {
		return nil, fmt.Errorf("binding the proof to the connection: %w", err)
	}
	m := hmac.New(sha256.New, secret[:])
	m.Write([]byte("cohort/worker/1\x00"))
	m.Write(bind)
	return m.Sum(nil), nil
}

// reachable returns the HOST:PORT by which others can probably reach a listener.
func reachable(l net.Addr) string {
	at, ok := l.(*net.TCPAddr)
	if !ok || !at.IP.IsUnspecified() {
		return l.String()
	}
	host := "127.0.0.1"
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		return net.JoinHostPort(host, fmt.Sprint(at.Port))
	}
	for _, a := range addrs {
		if ip, ok := a.(*net.IPNet); ok && ip.IP.IsGlobalUnicast() && (ip.IP.To4() != nil || host == "127.0.0.1") {
			host = ip.IP.String()
			if ip.IP.To4() != nil {
				break
			}
		}
	}
	return net.JoinHostPort(host, fmt.Sprint(at.Port))
}
