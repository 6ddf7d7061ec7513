package identity

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/journal"
)

func newAuth(t testing.TB, now time.Time) *Authority {
	t.Helper()
	a, err := NewAuthority("clinics", now)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func source(t testing.TB, a *Authority, hosts ...string) *Source {
	t.Helper()
	s, err := NewSource(a, hosts, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// shake lets a client and a server greet each other and returns what the server
// knows of the client.
func shake(t testing.TB, server, client *tls.Config) (tls.ConnectionState, error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	b, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	a, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	s, c := tls.Server(a, server), tls.Client(b, client)
	done := make(chan error, 1)
	go func() {
		err := c.HandshakeContext(context.Background())
		if err != nil {
			b.Close()
		}
		done <- err
	}()
	serr := s.HandshakeContext(context.Background())
	if serr != nil {
		a.Close()
	}
	return s.ConnectionState(), errors.Join(<-done, serr)
}

func TestHandshake(t *testing.T) {
	a := newAuth(t, time.Now())
	s := source(t, a, "fl.example.org", "10.0.0.7", "::1", "*.fl.example.org")
	server := ServerTLS(s.Certificate)
	k := newKey(t)
	for _, host := range []string{"fl.example.org", "FL.example.org", "10.0.0.7", "::1", "[::1]", "east.fl.example.org"} {
		state, err := shake(t, server, ClientTLS(k, host, a.Fingerprint()))
		if err != nil {
			t.Errorf("%s: %v", host, err)
			continue
		}
		if p, ok := PeerKey(state); !ok || p != k.Public() || state.Version != tls.VersionTLS13 {
			t.Errorf("%s: the server knows %v, %v, TLS %x", host, p, ok, state.Version)
		}
	}
	state, err := shake(t, server, ClientTLS(Key{}, "fl.example.org", a.Fingerprint()))
	if p, ok := PeerKey(state); err != nil || ok {
		t.Errorf("without a key: %v, the server knows %v", err, p)
	}
	// The certificate itself may be pinned, whatever names it has.
	if _, err := shake(t, server, ClientTLS(k, "elsewhere", FingerprintOf(s.Certificate().Leaf))); err != nil {
		t.Errorf("pinned certificate: %v", err)
	}
}

func TestServerIsNotRecognised(t *testing.T) {
	a := newAuth(t, time.Now())
	server := ServerTLS(source(t, a, "fl.example.org").Certificate)
	k := newKey(t)
	for name, c := range map[string]struct {
		server, client *tls.Config
		want           string
	}{
		"another pin":   {server, ClientTLS(k, "fl.example.org", Fingerprint{1}), ErrUnknownServer.Error()},
		"another host":  {server, ClientTLS(k, "other.example.org", a.Fingerprint()), "valid for fl.example.org"},
		"no host":       {server, ClientTLS(k, "", a.Fingerprint()), "no server name"},
		"system":        {server, ClientTLS(k, "fl.example.org"), "unknown authority"},
		"system, zero":  {server, ClientTLS(k, "fl.example.org", Fingerprint{}), "unknown authority"},
		"TLS 1.2":       {&tls.Config{GetCertificate: server.GetCertificate, MaxVersion: tls.VersionTLS12}, ClientTLS(k, "fl.example.org", a.Fingerprint()), "version"},
		"client at 1.2": {server, &tls.Config{InsecureSkipVerify: true, MaxVersion: tls.VersionTLS12}, "version"},
	} {
		if _, err := shake(t, c.server, c.client); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v; want %q", name, err, c.want)
		}
	}
}

// Somebody who shows the authority's certificate, which is public, cannot pass for
// the server: the chain has to lead to it.
func TestPinnedAuthorityMustHaveSigned(t *testing.T) {
	now := time.Now()
	a, evil := newAuth(t, now), newAuth(t, now)
	c, err := evil.Issue([]string{"fl.example.org"}, now)
	if err != nil {
		t.Fatal(err)
	}
	c.Certificate = append(c.Certificate, a.Certificate().Raw)
	server := ServerTLS(func() *tls.Certificate { return &c })
	if _, err := shake(t, server, ClientTLS(newKey(t), "fl.example.org", a.Fingerprint())); err == nil {
		t.Error("a stranger's server was recognised")
	}
	// Nor the other way round: a chain whose leaf is the pinned authority itself,
	// without its key.
	c.Certificate = [][]byte{a.Certificate().Raw}
	if _, err := shake(t, server, ClientTLS(newKey(t), "fl.example.org", a.Fingerprint())); err == nil {
		t.Error("a server that does not own the certificate was recognised")
	}
}

// A browser's certificate, or several, make nobody a member, and do no harm.
func TestOtherClientCertificates(t *testing.T) {
	a := newAuth(t, time.Now())
	server := ServerTLS(source(t, a, "h").Certificate)
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	member := newKey(t)
	mc, err := member.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	for name, cert := range map[string]tls.Certificate{
		"ECDSA": {Certificate: [][]byte{der}, PrivateKey: key},
		"two":   {Certificate: [][]byte{mc.Certificate[0], der}, PrivateKey: mc.PrivateKey},
	} {
		conf := ClientTLS(Key{}, "h", a.Fingerprint())
		conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
		state, err := shake(t, server, conf)
		if p, ok := PeerKey(state); err != nil || ok {
			t.Errorf("%s: %v, known as %v", name, err, p)
		}
	}
	// Another's certificate without its key.
	conf := ClientTLS(Key{}, "h", a.Fingerprint())
	conf.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return &tls.Certificate{Certificate: mc.Certificate, PrivateKey: newKey(t).private}, nil
	}
	state, err := shake(t, server, conf)
	if _, ok := PeerKey(state); err == nil || ok {
		t.Error("a stranger passed for a member")
	}
	// A client that obeys the hint, as browsers do, offers nothing.
	conf = ClientTLS(Key{}, "h", a.Fingerprint())
	conf.Certificates = []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	if state, err = shake(t, server, conf); err != nil || len(state.PeerCertificates) != 0 {
		t.Errorf("the hint did not keep a browser's certificate away: %v", err)
	}
}

func TestRotation(t *testing.T) {
	now := time.Now()
	day := 24 * time.Hour
	a1 := newAuth(t, now.Add(-100*day))
	a2, err := a1.Rotate(now.Add(-20*day), 30*day)
	if err != nil {
		t.Fatal(err)
	}
	a3, err := a2.Rotate(now.Add(-day), 5*day)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "ca.pem")
	if err := a3.Save(path); err != nil {
		t.Fatal(err)
	}
	loaded, err := LoadAuthority(path)
	if err != nil {
		t.Fatal(err)
	}
	if loaded.Federation() != "clinics" {
		t.Errorf("the federation's name was lost: %q", loaded.Federation())
	}
	check := func(at time.Time, who *Authority, want bool) {
		t.Helper()
		c, err := loaded.Issue([]string{"h"}, at)
		if err != nil {
			t.Fatal(err)
		}
		var chain []*x509.Certificate
		for _, der := range c.Certificate {
			cert, err := x509.ParseCertificate(der)
			if err != nil {
				t.Fatal(err)
			}
			chain = append(chain, cert)
		}
		if err := verifyServer(chain, "h", []Fingerprint{who.Fingerprint()}, at); (err == nil) != want {
			t.Errorf("recognised: %v", err)
		}
		listed := false
		for _, p := range loaded.Pins(at) {
			listed = listed || p.Fingerprint == who.Fingerprint()
		}
		if listed != want {
			t.Errorf("listed: %v", listed)
		}
	}
	for _, a := range []*Authority{a1, a2, a3} {
		check(now, a, true)
	}
	check(now.Add(5*day), a1, false) // the way to it leads over the newest bridge
	check(now.Add(5*day), a2, false)
	check(now.Add(5*day), a3, true)

	leaked, err := a3.Rotate(now, 0)
	if err != nil {
		t.Fatal(err)
	}
	if pins := leaked.Pins(now); len(pins) != 1 || pins[0].Fingerprint == a3.Fingerprint() {
		t.Errorf("after a leak the old fingerprint is still good: %v", pins)
	}
	if _, err := a1.Issue([]string{"h"}, now.Add(authorityLife)); err == nil || !strings.Contains(err.Error(), "rotate") {
		t.Errorf("expired authority: %v", err)
	}
	for _, hosts := range [][]string{nil, {""}, {"a b"}, {"https://h"}, {"h:443"}, {"-h"}} {
		if _, err := a3.Issue(hosts, now); err == nil {
			t.Errorf("issued for %q", hosts)
		}
	}
}

func TestAuthorityFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "ca.pem")
	a := newAuth(t, epoch)
	if err := a.Save(path); err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS != "windows" {
		if err := os.Chmod(path, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := LoadAuthority(path); err == nil || !strings.Contains(err.Error(), "chmod 600") {
			t.Errorf("readable by all: %v", err)
		}
	}
	block, rest := pem.Decode(data)
	other := newAuth(t, epoch)
	for name, bad := range map[string][]byte{
		"empty": nil, "no key": pem.EncodeToMemory(block), "no certificate": rest,
		"strange block": append(pem.EncodeToMemory(&pem.Block{Type: "X"}), data...),
		"another's key": append(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other.root.Raw}), rest...),
		"false bridge":  bytes.Join([][]byte{data, pem.EncodeToMemory(block), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: other.root.Raw})}, nil),
	} {
		if _, err := parseAuthority(bad); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestSourceRenews(t *testing.T) {
	now := epoch
	a := newAuth(t, now)
	s, err := NewSource(a, []string{"h"}, func() time.Time { return now })
	if err != nil {
		t.Fatal(err)
	}
	first := s.Certificate()
	now = now.Add(certificateLife*2/3 - time.Second)
	if s.Certificate() != first {
		t.Error("renewed early")
	}
	now = now.Add(2 * time.Second)
	second := s.Certificate()
	if second == first || !second.Leaf.NotAfter.After(first.Leaf.NotAfter) {
		t.Error("not renewed")
	}
	if err := s.Problem(); err != nil {
		t.Error(err)
	}
	now = epoch.Add(authorityLife)
	if s.Certificate() != second {
		t.Error("the old certificate was taken away without a new one")
	}
	if err := s.Problem(); err == nil || !strings.Contains(err.Error(), "rotate") {
		t.Errorf("an expired authority: %v", err)
	}
}

func TestFileSource(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "fullchain.pem"), filepath.Join(dir, "privkey.pem")
	now := time.Now()
	a := newAuth(t, now)
	write := func(hosts ...string) {
		t.Helper()
		c, err := a.Issue(hosts, now)
		if err != nil {
			t.Fatal(err)
		}
		der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
		if err != nil {
			t.Fatal(err)
		}
		var chain []byte
		for _, d := range c.Certificate {
			chain = append(chain, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: d})...)
		}
		if err := errors.Join(os.WriteFile(cert, chain, 0o644), os.WriteFile(key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), 0o600)); err != nil {
			t.Fatal(err)
		}
	}
	clock := func() time.Time { return now }
	if _, err := FileSource(nil, cert, key, clock); err == nil {
		t.Error("no files, no error")
	}
	write("one")
	s, err := FileSource(journal.OS(), cert, key, clock)
	if err != nil {
		t.Fatal(err)
	}
	host := func() string { return s.Certificate().Leaf.DNSNames[0] }
	write("twice-as-long")
	if host() != "one" {
		t.Error("looked at the files at every handshake")
	}
	now = now.Add(checkFiles)
	if host() != "twice-as-long" {
		t.Error("the change was not noticed")
	}
	// A pair caught half-written: the old one stays, and the new one is taken when it is whole.
	if err := os.WriteFile(cert, []byte("half"), 0o644); err != nil {
		t.Fatal(err)
	}
	now = now.Add(checkFiles)
	if host() != "twice-as-long" || s.Problem() == nil {
		t.Errorf("half a file: %s, problem %v", host(), s.Problem())
	}
	write("three")
	now = now.Add(checkFiles)
	if host() != "three" || s.Problem() != nil {
		t.Errorf("whole again: %s, problem %v", host(), s.Problem())
	}
	now = now.Add(2 * certificateLife)
	if err := s.Problem(); err == nil || !strings.Contains(err.Error(), "expired") {
		t.Errorf("expired: %v", err)
	}
	if runtime.GOOS != "windows" {
		if err := os.Chmod(key, 0o644); err != nil {
			t.Fatal(err)
		}
		if _, err := FileSource(nil, cert, key, clock); err == nil || !strings.Contains(err.Error(), "chmod") {
			t.Errorf("a key that all may read: %v", err)
		}
	}
}

func TestPins(t *testing.T) {
	k := newKey(t)
	a := newAuth(t, epoch)
	b, err := a.Rotate(epoch, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	p := Pins{Serial: 2, Pins: b.Pins(epoch)}
	data := p.Sign(k)
	got, err := OpenPins(append(data, '\n'), k.Public(), 2)
	if err != nil {
		t.Fatal(err)
	}
	if f := got.At(epoch.Add(time.Minute)); len(f) != 2 || f[0] != b.Fingerprint() || f[1] != a.Fingerprint() {
		t.Errorf("valid now: %v", f)
	}
	if f := got.At(epoch.Add(2 * time.Hour)); len(f) != 1 || f[0] != b.Fingerprint() {
		t.Errorf("valid after the overlap: %v", f)
	}
	if f := got.At(epoch.Add(2 * authorityLife)); len(f) == 0 {
		t.Error("a list that is all expired became trust in everybody the system trusts")
	}
	if _, err := OpenPins(data, k.Public(), 3); !errors.Is(err, ErrOldPins) {
		t.Errorf("an older list: %v", err)
	}
	if _, err := OpenPins(data, newKey(t).Public(), 0); err == nil {
		t.Error("another's list was accepted")
	}
	for i := range data {
		bad := bytes.Clone(data)
		bad[i] ^= 1
		if _, err := OpenPins(bad, k.Public(), 0); err == nil {
			t.Errorf("byte %d flipped: accepted", i)
		}
	}
	if _, err := OpenPins(bytes.Repeat([]byte("x"), maxPins+1), k.Public(), 0); err == nil {
		t.Error("a long list was accepted")
	}
}
