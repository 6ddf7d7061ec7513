package gate

import (
	"bufio"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/identity"
)

func code(err error) string {
	var no *Refusal
	if errors.As(err, &no) {
		return no.Code
	}
	return fmt.Sprint(err)
}

func TestJoin(t *testing.T) {
	s := newSite(t, Limits{})
	k, tok := newKey(t), s.token("north")
	reply, err := Join(t.Context(), tok, k, noProxy)
	must(t, err)
	if reply.Member != "north" || reply.Federation != "clinics" || reply.Head != s.roster.Head() {
		t.Errorf("%+v", reply)
	}
	if again, err := Join(t.Context(), tok, k, noProxy); err != nil || again.Admission != reply.Admission {
		t.Errorf("again: %+v, %v", again, err)
	}
	if c, body, _, err := get(s.client(k), s.url+"/blob/x"); err != nil || c != 200 || !strings.HasPrefix(body, "north") {
		t.Errorf("after joining: %d %s %v", c, body, err)
	}

	old := s.token("south")
	newer := s.token("south")
	gone := s.token("gone")
	must(t, s.roster.Revoke("gone", ""))
	change := func(tok identity.Token, f func(*identity.Token)) identity.Token { f(&tok); return tok }
	for _, c := range []struct {
		what string
		tok  identity.Token
		key  identity.Key
		want string
	}{
		{"used", tok, newKey(t), TokenUsed},
		{"superseded", old, newKey(t), TokenSuperseded},
		{"revoked", gone, newKey(t), NameRevoked},
		{"another's key", newer, k, KeyTaken},
		{"wrong secret", change(newer, func(t *identity.Token) { t.Secret[0]++ }), newKey(t), NoInvitation},
		{"unknown name", change(newer, func(t *identity.Token) { t.Name = "nobody" }), newKey(t), NoInvitation},
		{"another federation", change(newer, func(t *identity.Token) { t.Federation = k.Public() }), newKey(t), BadProof},
	} {
		if _, err := Join(t.Context(), c.tok, c.key, noProxy); code(err) != c.want || Passing(err) {
			t.Errorf("%s: %v, passing %v; want %s", c.what, err, Passing(err), c.want)
		}
	}
	if _, err := Join(t.Context(), change(newer, func(t *identity.Token) { t.Expires = time.Now() }), newKey(t), noProxy); !errors.Is(err, identity.ErrTokenExpired) || Passing(err) {
		t.Errorf("expired by the client's own clock: %v", err)
	}
	if _, err := Join(t.Context(), change(newer, func(t *identity.Token) { t.CA[0]++ }), newKey(t), noProxy); !errors.Is(err, identity.ErrUnknownServer) || Passing(err) {
		t.Errorf("another server: %v", err)
	}
	if _, err := Join(t.Context(), newer, newKey(t), noProxy); err != nil {
		t.Errorf("after all that, the valid token: %v", err)
	}
}

// TestPassing is about what is worth another try: whatever a server that starts, ends or is overloaded causes, and nothing else.
func TestPassing(t *testing.T) {
	s := newSite(t, Limits{})
	listen := func(serve func(net.Conn)) string {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		must(t, err)
		t.Cleanup(func() { l.Close() })
		go func() {
			for {
				c, err := l.Accept()
				if err != nil {
					return
				}
				serve(c)
				c.Close()
			}
		}()
		return "https://" + l.Addr().String()
	}
	at := func(url string) error {
		tok := s.token("north")
		tok.URL = url
		_, err := Join(t.Context(), tok, newKey(t), noProxy)
		return err
	}
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	gone.Close()
	over, cancel := context.WithCancel(t.Context())
	cancel()
	_, canceled := Join(over, s.token("north"), newKey(t), noProxy)
	for _, c := range []struct {
		what string
		err  error
		want bool
	}{
		{"nobody listens", at("https://" + gone.Addr().String()), true},
		{"a connection that breaks at once", at(listen(func(net.Conn) {})), true},
		{"a server without TLS", at(listen(func(c net.Conn) { _, _ = io.WriteString(c, "220 mail.example.org ready\r\n") })), false},
		{"a proxy whose server is away", &statusError{502, "502 Bad Gateway"}, true},
		{"something else's page", &statusError{404, "404 Not Found"}, false},
		{"too often", &Refusal{Code: TooOften}, true},
		{"a full disk", &Refusal{Code: Internal}, true},
		{"interrupted", canceled, false},
		{"none", nil, false},
	} {
		if got := Passing(c.err); got != c.want || c.err == nil && c.what != "none" {
			t.Errorf("%s: %v: passing is %v", c.what, c.err, got)
		}
	}
}

// A wrong secret and an unknown name get the very same bytes.
func TestRefusalsLookAlike(t *testing.T) {
	s := newSite(t, Limits{})
	s.member("north")
	s.token("south")
	k := newKey(t)
	answer := func(name string) string {
		// The proof is not the question here: make one that is good.
		var out string
		tok := identity.Token{URL: s.url, CA: s.ca.Fingerprint(), Federation: s.roster.Federation(), Name: name, Secret: identity.Secret{7}, Expires: time.Now().Add(time.Hour)}
		_, err := Join(t.Context(), tok, k, noProxy)
		var no *Refusal
		if errors.As(err, &no) {
			out = fmt.Sprintf("%+v", *no)
		}
		return out
	}
	a, b, c := answer("nobody"), answer("north"), answer("south")
	if a == "" || a != b || b != c {
		t.Errorf("unknown: %s\nmember: %s\ninvited: %s", a, b, c)
	}
}

// A proof is good for one key, name, federation and connection.
func TestProof(t *testing.T) {
	s := newSite(t, Limits{})
	k, newcomer, tok := newKey(t), newKey(t), s.token("north")
	fed := s.roster.Federation()
	bind := []byte("this connection")
	good := JoinRequest{Name: "north", Secret: tok.Secret, Key: k.Public(), Proof: ProveKey(k, fed, "north", bind)}
	for what, f := range map[string]func(*JoinRequest, *[]byte){
		"another connection": func(r *JoinRequest, b *[]byte) { *b = []byte("that connection") },
		"no connection":      func(r *JoinRequest, b *[]byte) { *b = nil; r.Proof = ProveKey(k, fed, "north", nil) },
		"another name":       func(r *JoinRequest, b *[]byte) { r.Proof = ProveKey(k, fed, "south", bind) },
		"another federation": func(r *JoinRequest, b *[]byte) { r.Proof = ProveKey(k, k.Public(), "north", bind) },
		"another key":        func(r *JoinRequest, b *[]byte) { r.Proof = ProveKey(newKey(t), fed, "north", bind) },
		"no proof":           func(r *JoinRequest, b *[]byte) { r.Proof = nil },
	} {
		r, b := good, bind
		f(&r, &b)
		if _, err := Enrol(s.roster, r, b); code(err) != BadProof {
			t.Errorf("%s: %v", what, err)
		}
	}
	if _, err := Enrol(s.roster, good, bind); err != nil {
		t.Error(err)
	}
	// A request made for one connection, sent on another and then on its own.
	conf := identity.ClientTLS(k, "localhost", s.ca.Fingerprint())
	own, err := tls.Dial("tcp", s.addr, conf)
	must(t, err)
	defer own.Close()
	other, err := tls.Dial("tcp", s.addr, conf)
	must(t, err)
	defer other.Close()
	state := own.ConnectionState()
	value, err := binding(&state)
	must(t, err)
	tok = s.token("south")
	body, err := json.Marshal(JoinRequest{Name: "south", Secret: tok.Secret, Key: newcomer.Public(), Proof: ProveKey(newcomer, fed, "south", value)})
	must(t, err)
	for _, c := range []struct {
		conn *tls.Conn
		want int
	}{{other, 403}, {own, 200}} {
		fmt.Fprintf(c.conn, "POST /join HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
		resp, err := http.ReadResponse(bufio.NewReader(c.conn), nil)
		must(t, err)
		if b, _ := io.ReadAll(resp.Body); resp.StatusCode != c.want || c.want == 403 && !strings.Contains(string(b), BadProof) {
			t.Errorf("replayed: %d %s; want %d", resp.StatusCode, b, c.want)
		}
	}
	for _, bad := range []string{"", "{}", "null", `{"name":1}`, `{"extra":1}`, strings.Repeat("[", 5000)} {
		resp, err := s.client(k).Post(s.url+"/join", "application/json", strings.NewReader(bad))
		must(t, err)
		resp.Body.Close()
		if resp.StatusCode != 400 && resp.StatusCode != 403 {
			t.Errorf("%.20q: %d", bad, resp.StatusCode)
		}
	}
	if c, _, _, err := get(s.client(k), s.url+"/join"); err != nil || c != 405 && c != 200 {
		t.Errorf("GET: %d %v", c, err)
	}
}

func TestJoinIsLimited(t *testing.T) {
	s := newSite(t, Limits{})
	bad := identity.Token{URL: s.url, CA: s.ca.Fingerprint(), Federation: s.roster.Federation(), Name: "nobody", Expires: time.Now().Add(time.Hour)}
	limited := false
	for range 40 {
		_, err := Join(t.Context(), bad, newKey(t), noProxy)
		var no *Refusal
		if code(err) == TooOften {
			limited = errors.As(err, &no) && no.After > 0
			break
		}
	}
	if !limited {
		t.Error("forty wrong secrets in a row were looked up")
	}
}

func TestBuckets(t *testing.T) {
	b := &buckets{size: 2, every: time.Second, level: make(map[source]bucket)}
	now := time.Now()
	a := source{}
	for range 2 {
		if b.take(a, now) != 0 {
			t.Error("one of the first two was refused")
		}
	}
	if w := b.take(a, now); w != time.Second {
		t.Errorf("the third has to wait for %v", w)
	}
	if w := b.take(a, now.Add(time.Second)); w != 0 {
		t.Errorf("a second later it still has to wait for %v", w)
	}
	b.give(a)
	if w := b.take(a, now.Add(time.Second)); w != 0 {
		t.Errorf("after a success: %v", w)
	}
}

// slowRoster takes longer over some names than over others.
type slowRoster struct{ Admitter }

func (slowRoster) Federation() identity.Public { return identity.Public{7} }

func (slowRoster) Admit(name string, _ identity.Secret, _ identity.Public) (identity.Member, error) {
	if name == "known" {
		time.Sleep(50 * time.Millisecond)
	}
	return identity.Member{}, identity.ErrNotInvited
}

// The refusal comes at the same time after the request, whatever the look-up took.
func TestAnswerTime(t *testing.T) {
	bubble(t, func(t *testing.T, g *Gate, p pipes) {
		g.Handle("POST /join", JoinHandler(slowRoster{}, JoinLimits{}))
		k := newKey(t)
		conf := identity.NewTrust().ClientTLS(k, "h")
		conf.VerifyConnection = nil
		for _, name := range []string{"known", "unknown"} {
			c := tls.Client(p.dial(), conf)
			must(t, c.Handshake())
			state := c.ConnectionState()
			value, err := binding(&state)
			must(t, err)
			body, err := json.Marshal(JoinRequest{Name: name, Key: k.Public(), Proof: ProveKey(k, slowRoster{}.Federation(), name, value)})
			must(t, err)
			start := time.Now()
			go fmt.Fprintf(c, "POST /join HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
			resp, err := http.ReadResponse(bufio.NewReader(c), nil)
			must(t, err)
			d := time.Since(start)
			if b, _ := io.ReadAll(resp.Body); !strings.Contains(string(b), NoInvitation) || d != 200*time.Millisecond {
				t.Errorf("%s: answered %q after %v", name, b, d)
			}
			c.Close()
		}
	})
}

func TestPins(t *testing.T) {
	s := newSite(t, Limits{})
	p, err := FetchPins(t.Context(), s.url, s.roster.Federation(), 1, noProxy)
	if err != nil || len(p.Pins) != 1 || p.Pins[0].Fingerprint != s.ca.Fingerprint() {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := FetchPins(t.Context(), s.url, newKey(t).Public(), 0, noProxy); err == nil {
		t.Error("another federation's list was accepted")
	}
	if _, err := FetchPins(t.Context(), s.url, s.roster.Federation(), 2, noProxy); !errors.Is(err, identity.ErrOldPins) {
		t.Errorf("an old list: %v", err)
	}
	if resp, err := s.client(identity.Key{}).Get(s.url + "/pins"); err != nil || resp.StatusCode != http.StatusOK {
		t.Error(err)
	} else {
		resp.Body.Close()
	}
}
