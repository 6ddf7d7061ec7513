package gate

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/journal/faultfs"
)

func must(t testing.TB, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// A site is a federation with its gate, for one test.
type site struct {
	t      testing.TB
	roster *identity.Roster
	ca     *identity.Authority
	gate   *Gate
	url    string
	addr   string
}

func newSite(t testing.TB, l Limits) *site {
	t.Helper()
	fed, err := identity.NewKey()
	must(t, err)
	r, err := identity.Found(t.TempDir(), fed, "clinics", journal.Options{FS: faultfs.New(journal.OS())})
	must(t, err)
	ca, err := identity.NewAuthority("clinics", time.Now())
	must(t, err)
	src, err := identity.NewSource(ca, []string{"localhost", "127.0.0.1"}, nil)
	must(t, err)
	s := &site{t: t, roster: r, ca: ca}
	s.gate = New(Options{Certificate: src.Certificate, Member: r.Who, Limits: l})
	s.gate.Handle("POST /join", JoinHandler(r, JoinLimits{Answer: time.Millisecond}))
	s.gate.Handle("/pins", PinsHandler(func() []byte { return identity.Pins{Serial: 1, Pins: ca.Pins(time.Now())}.Sign(fed) }))
	s.gate.HandleMembers("/blob/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, _ := s.gate.Who(r)
		n, err := io.Copy(io.Discard, r.Body)
		if err != nil {
			http.Error(w, err.Error(), http.StatusRequestTimeout)
			return
		}
		fmt.Fprint(w, name, " ", n, " ", r.Proto)
	}))
	s.gate.HandleMembers("/bus", http.HandlerFunc(upgrade))
	s.gate.HandleMembers("/wait", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusOK)
		http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	s.gate.Handle("/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name, ok := s.gate.Who(r)
		fmt.Fprint(w, "page for ", name, ok)
	}))
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	s.addr = ln.Addr().String()
	s.url = "https://" + s.addr
	done := make(chan error, 1)
	go func() { done <- s.gate.Serve(ln) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // the tests' connections are not waited for
		s.gate.Shutdown(ctx)
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
		must(t, r.Close())
	})
	return s
}

// token invites a name.
func (s *site) token(name string) identity.Token {
	s.t.Helper()
	tokens, err := s.roster.Tokens(s.url, s.ca.Fingerprint(), time.Now().Add(time.Hour), name)
	must(s.t, err)
	return tokens[0]
}

func newKey(t testing.TB) identity.Key {
	k, err := identity.NewKey()
	must(t, err)
	return k
}

func noProxy(*http.Request) (*url.URL, error) { return nil, nil }

// member admits a new key under a name and returns it with a client.
func (s *site) member(name string) (identity.Key, *http.Client) {
	s.t.Helper()
	k := newKey(s.t)
	tok := s.token(name)
	_, err := s.roster.Admit(name, tok.Secret, k.Public())
	must(s.t, err)
	return k, s.client(k)
}

func (s *site) client(k identity.Key) *http.Client {
	c, err := identity.HTTPClient(k, s.url, identity.NewTrust(s.ca.Fingerprint()), noProxy)
	must(s.t, err)
	s.t.Cleanup(c.CloseIdleConnections)
	return c
}

// get returns status and body.
func get(c *http.Client, url string) (int, string, http.Header, error) {
	resp, err := c.Get(url)
	if err != nil {
		return 0, "", nil, err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(b), resp.Header, err
}

// upgrade is a tiny WebSocket-like echo: what matters is that the connection
// changes hands.
func upgrade(w http.ResponseWriter, r *http.Request) {
	if !strings.EqualFold(r.Header.Get("Upgrade"), "websocket") {
		http.Error(w, "upgrade required", http.StatusUpgradeRequired)
		return
	}
	c, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer c.Close()
	fmt.Fprint(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	rw.Flush()
	io.Copy(c, rw)
}

// bus opens a connection that was upgraded.
func bus(c *http.Client, url string) (io.ReadWriteCloser, error) {
	req, err := http.NewRequest(http.MethodGet, url+"/bus", nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set("Connection", "Upgrade")
	req.Header.Set("Upgrade", "websocket")
	resp, err := c.Do(req)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		resp.Body.Close()
		return nil, fmt.Errorf("status %s", resp.Status)
	}
	return resp.Body.(io.ReadWriteCloser), nil
}

func echo(b io.ReadWriter, text string) error {
	if _, err := io.WriteString(b, text); err != nil {
		return err
	}
	got := make([]byte, len(text))
	if _, err := io.ReadFull(b, got); err != nil {
		return err
	}
	if string(got) != text {
		return fmt.Errorf("%q came back as %q", text, got)
	}
	return nil
}

func TestMembersAndStrangers(t *testing.T) {
	s := newSite(t, Limits{})
	_, north := s.member("north")
	stranger := s.client(identity.Key{})
	unknown := s.client(newKey(t))

	code, body, _, err := get(north, s.url+"/blob/x")
	if err != nil || code != 200 || body != "north 0 HTTP/2.0" {
		t.Errorf("member: %d %q %v", code, body, err)
	}
	h1 := s.client(identity.Key{})
	h1.Transport.(*http.Transport).ForceAttemptHTTP2 = false
	if code, body, h, err := get(h1, s.url+"/"); err != nil || code != 200 || body != "page for false" {
		t.Errorf("page over HTTP/1.1: %d %q %v", code, body, err)
	} else {
		for k := range headers {
			if h.Get(k) == "" {
				t.Errorf("the header %s is missing", k)
			}
		}
	}
	for what, c := range map[string]*http.Client{"without a key": stranger, "with an unknown key": unknown} {
		for _, path := range []string{"/blob/x", "/bus", "/wait"} {
			if code, body, _, err := get(c, s.url+path); err != nil || code != 403 || !strings.Contains(body, NotMember) {
				t.Errorf("%s, %s: %d %q %v", what, path, code, body, err)
			}
		}
		if code, body, _, err := get(c, s.url+"/"); err != nil || code != 200 || body != "page for false" {
			t.Errorf("%s, page: %d %q %v", what, code, body, err)
		}
	}
	st := s.gate.Stats()
	if st.RefusedNotMember != 6 || st.Members != 1 || st.Strangers == 0 || st.Connections != st.Strangers+1 {
		t.Errorf("%+v", st)
	}
	if _, ok := s.gate.Who(&http.Request{}); ok {
		t.Error("a request from elsewhere has a member")
	}
	// The upgrade works beside HTTP/2, with the same client.
	b, err := bus(north, s.url)
	must(t, err)
	must(t, echo(b, "hello"), b.Close())
}

func TestUploads(t *testing.T) {
	s := newSite(t, Limits{})
	_, north := s.member("north")
	resp, err := north.Post(s.url+"/blob/x", "", strings.NewReader(strings.Repeat("x", 3<<20)))
	must(t, err)
	b, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if string(b) != "north 3145728 HTTP/2.0" {
		t.Errorf("%d %s", resp.StatusCode, b)
	}
	resp, err = s.client(identity.Key{}).Post(s.url+"/join", "", strings.NewReader(strings.Repeat(" ", 70<<10)))
	if err == nil {
		resp.Body.Close()
		if resp.StatusCode != 400 {
			t.Errorf("a stranger's long body: %d", resp.StatusCode)
		}
	}
	req, _ := http.NewRequest(http.MethodGet, s.url+"/", nil)
	req.Header.Set("X", strings.Repeat("x", 64<<10))
	if resp, err := north.Do(req); err == nil {
		resp.Body.Close()
		if resp.StatusCode != http.StatusRequestHeaderFieldsTooLarge {
			t.Errorf("a long header: %d", resp.StatusCode)
		}
	}
}

// A member that is revoked is refused at its next request on a connection that it
// has; what is under way ends when it is cut.
func TestRevokeAndCut(t *testing.T) {
	s := newSite(t, Limits{})
	_, north := s.member("north")
	_, south := s.member("south")
	nb, err := bus(north, s.url)
	must(t, err, echo(nb, "x"))
	sb, err := bus(south, s.url)
	must(t, err, echo(sb, "x"))
	wait, err := north.Get(s.url + "/wait")
	must(t, err)
	defer wait.Body.Close()

	must(t, s.roster.Revoke("north", "test"))
	if code, _, _, err := get(north, s.url+"/blob/x"); err != nil || code != 403 {
		t.Errorf("after revocation, on the old connection: %d %v", code, err)
	}
	must(t, echo(nb, "still")) // not cut yet
	if n := s.gate.Cut("north"); n == 0 {
		t.Error("nothing was cut")
	}
	if err := echo(nb, "y"); err == nil {
		t.Error("the bus of a revoked member goes on")
	}
	must(t, echo(sb, "another's goes on"))
	if code, _, _, err := get(north, s.url+"/blob/x"); err != nil || code != 403 {
		t.Errorf("a new connection after revocation: %d %v", code, err)
	}
	if n := s.gate.Cut("nobody"); n != 0 {
		t.Errorf("%d connections of nobody", n)
	}
}

// The HTTP/2 connection that answered 403 above has become a stranger's; one that
// waits is cut before anybody asks.
func TestCutEndsRequestsUnderWay(t *testing.T) {
	s := newSite(t, Limits{})
	_, north := s.member("north")
	wait, err := north.Get(s.url + "/wait")
	must(t, err)
	defer wait.Body.Close()
	must(t, s.roster.Revoke("north", "test"))
	if n := s.gate.Cut("north"); n != 1 {
		t.Errorf("%d connections were cut", n)
	}
	if _, err := io.ReadAll(wait.Body); err == nil {
		t.Error("the request under way ended in peace")
	}
}

func TestKeyRotationTakesEffect(t *testing.T) {
	s := newSite(t, Limits{})
	old, c := s.member("north")
	next := newKey(t)
	if code, _, _, err := get(c, s.url+"/blob/x"); err != nil || code != 200 {
		t.Fatal(code, err)
	}
	_, err := s.roster.Rotate(identity.SignRotation(s.roster.Federation(), "north", old, next))
	must(t, err)
	if code, _, _, err := get(c, s.url+"/blob/x"); err != nil || code != 403 {
		t.Errorf("the old key: %d %v", code, err)
	}
	if code, body, _, err := get(s.client(next), s.url+"/blob/x"); err != nil || code != 200 || !strings.HasPrefix(body, "north") {
		t.Errorf("the new key: %d %s %v", code, body, err)
	}
}

// One member cannot take more than its share; its idle connections make room.
func TestPerMember(t *testing.T) {
	s := newSite(t, Limits{PerMember: 3})
	k, _ := s.member("north")
	_, south := s.member("south")
	var busy []io.ReadWriteCloser
	for range 3 {
		b, err := bus(s.client(k), s.url)
		must(t, err, echo(b, "x"))
		busy = append(busy, b)
	}
	if _, _, _, err := get(s.client(k), s.url+"/blob/x"); err == nil {
		t.Error("a fourth busy connection was let in")
	}
	for _, b := range busy {
		must(t, echo(b, "goes on"))
	}
	if code, _, _, err := get(south, s.url+"/blob/x"); err != nil || code != 200 {
		t.Errorf("another member: %d %v", code, err)
	}
	if st := s.gate.Stats(); st.RefusedMember == 0 {
		t.Errorf("%+v", st)
	}
}

func TestOtherCertificates(t *testing.T) {
	now := time.Now()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	serve := func(from, to time.Time) (*httpServer, identity.Fingerprint) {
		tmpl := &x509.Certificate{SerialNumber: big.NewInt(1), NotBefore: from, NotAfter: to, DNSNames: []string{"fl.example.org"}}
		der, err := x509.CreateCertificate(rand.Reader, tmpl, tmpl, &key.PublicKey, key)
		must(t, err)
		leaf, err := x509.ParseCertificate(der)
		must(t, err)
		cert := &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
		g := New(Options{Certificate: func() *tls.Certificate { return cert }, Member: func(identity.Public) (string, bool) { return "", false }})
		g.Handle("/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "ok") }))
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		go g.Serve(ln)
		t.Cleanup(func() { g.Shutdown(context.Background()) })
		return &httpServer{g, "https://" + ln.Addr().String()}, identity.FingerprintOf(leaf)
	}
	try := func(h *httpServer, pins ...identity.Fingerprint) error {
		c, err := identity.HTTPClient(newKey(t), h.url, identity.NewTrust(pins...), noProxy)
		must(t, err)
		defer c.CloseIdleConnections()
		_, _, _, err = get(c, h.url+"/")
		return err
	}
	own, pin := serve(now.Add(-time.Hour), now.Add(time.Hour))
	if err := try(own, pin); err != nil {
		t.Errorf("own certificate, pinned: %v", err)
	}
	if err := try(own); err == nil {
		t.Error("own certificate of nobody that the system trusts was recognised")
	}
	old, pin := serve(now.Add(-2*time.Hour), now.Add(-time.Hour))
	if err := try(old, pin); err == nil || !strings.Contains(err.Error(), "clock") {
		t.Errorf("expired certificate: %v", err)
	}
}

type httpServer struct {
	g   *Gate
	url string
}

// proxy is a tiny HTTP proxy that knows CONNECT only.
func proxy(t *testing.T) (*url.URL, *sync.Map) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	t.Cleanup(func() { ln.Close() })
	var seen sync.Map
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				br := bufio.NewReader(c)
				req, err := http.ReadRequest(br)
				if err != nil || req.Method != http.MethodConnect {
					io.WriteString(c, "HTTP/1.1 405 No\r\n\r\n")
					return
				}
				seen.Store(req.Host, true)
				up, err := net.Dial("tcp", req.Host)
				if err != nil {
					io.WriteString(c, "HTTP/1.1 502 No\r\n\r\n")
					return
				}
				defer up.Close()
				io.WriteString(c, "HTTP/1.1 200 OK\r\n\r\n")
				go func() { io.Copy(up, br); up.Close() }()
				io.Copy(c, up)
			}()
		}
	}()
	return &url.URL{Scheme: "http", Host: ln.Addr().String()}, &seen
}

func TestThroughProxy(t *testing.T) {
	s := newSite(t, Limits{})
	p, seen := proxy(t)
	by := func(*http.Request) (*url.URL, error) { return p, nil }
	k, tok := newKey(t), s.token("north")
	if _, err := Join(t.Context(), tok, k, by); err != nil {
		t.Fatal(err)
	}
	c, err := identity.HTTPClient(k, s.url, identity.NewTrust(tok.CA), by)
	must(t, err)
	defer c.CloseIdleConnections()
	if code, body, _, err := get(c, s.url+"/blob/x"); err != nil || code != 200 || body != "north 0 HTTP/2.0" {
		t.Errorf("request: %d %q %v", code, body, err)
	}
	b, err := bus(c, s.url)
	must(t, err, echo(b, "through the proxy"), b.Close())
	if _, ok := seen.Load(s.addr); !ok {
		t.Error("the proxy was not used")
	}
	secure := func(*http.Request) (*url.URL, error) { return &url.URL{Scheme: "https", Host: p.Host}, nil }
	if _, err := Join(t.Context(), tok, k, secure); err == nil || !strings.Contains(err.Error(), "http:// address") {
		t.Errorf("a proxy by TLS: %v", err)
	}
}

func TestPlainHTTPIsTold(t *testing.T) {
	s := newSite(t, Limits{})
	resp, err := http.Get("http://" + s.addr + "/")
	must(t, err)
	defer resp.Body.Close()
	if b, _ := io.ReadAll(resp.Body); resp.StatusCode != 400 || !strings.Contains(string(b), "https://") {
		t.Errorf("%d %s", resp.StatusCode, b)
	}
}

func TestShutdownWaitsForRequests(t *testing.T) {
	s := newSite(t, Limits{})
	k, north := s.member("north")
	pr, pw := io.Pipe()
	answer := make(chan string, 1)
	written := make(chan struct{})
	req, err := http.NewRequest(http.MethodPost, s.url+"/blob/x", pr)
	must(t, err)
	req = req.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{WroteHeaders: func() { close(written) }}))
	go func() {
		resp, err := north.Do(req)
		if err != nil {
			answer <- err.Error()
			return
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		answer <- string(b)
	}()
	<-written
	io.WriteString(pw, "half ")
	for s.gate.Stats().Requests == 0 {
		time.Sleep(time.Millisecond)
	}
	b, err := bus(s.client(k), s.url)
	must(t, err, echo(b, "x"))
	down := make(chan error, 1)
	go func() { down <- s.gate.Shutdown(context.Background()) }()
	io.WriteString(pw, "whole")
	pw.Close()
	if got := <-answer; !strings.HasPrefix(got, "north 10") {
		t.Errorf("the request under way: %s", got)
	}
	must(t, <-down)
	if err := echo(b, "x"); err == nil {
		t.Error("a WebSocket outlived the gate")
	}
	if n := s.gate.Stats().Connections; n != 0 {
		t.Errorf("%d connections are left", n)
	}
	if _, err := net.Dial("tcp", s.addr); err == nil {
		t.Error("the port is still open")
	}
}
