package natsbus

import (
	"bufio"
	"bytes"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/transport"
)

const patience = 20 * time.Second

// socket opens a WebSocket to the bus.
func (h *house) socket(t testing.TB, protocols ...string) *websocket.Conn {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	ws, _, err := websocket.Dial(ctx, h.http.URL+Path, &websocket.DialOptions{HTTPClient: h.http.Client(), Subprotocols: protocols})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ws.CloseNow() })
	return ws
}

// wire speaks the protocol by hand, as an attacker would.
type wire struct {
	t testing.TB
	net.Conn
	r    *bufio.Reader
	info struct {
		Nonce string `json:"nonce"`
		ID    uint64 `json:"client_id"`
	}
}

func (h *house) wire(t testing.TB) *wire {
	t.Helper()
	w := &wire{t: t, Conn: websocket.NetConn(t.Context(), h.socket(t, Subprotocol), websocket.MessageBinary)}
	w.r = bufio.NewReader(w.Conn)
	line := w.line()
	if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "INFO ")), &w.info); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	return w
}

func (w *wire) say(format string, args ...any) {
	w.t.Helper()
	if _, err := fmt.Fprintf(w.Conn, format, args...); err != nil {
		w.t.Logf("say %.40q: %v", format, err)
	}
}

// line returns the next line; empty: the connection has ended.
func (w *wire) line() string {
	w.t.Helper()
	w.SetReadDeadline(time.Now().Add(patience))
	for {
		line, err := w.r.ReadString('\n')
		if errors.Is(err, context.DeadlineExceeded) {
			w.t.Fatal("nothing more is said, and the connection does not end")
		}
		if err != nil {
			return ""
		}
		if line = strings.TrimSpace(line); line == "PING" {
			w.say("PONG\r\n")
			continue
		}
		if w.info.ID != 0 && strings.HasPrefix(line, "INFO ") {
			continue // said again after CONNECT
		}
		return line
	}
}

// connect signs the nonce and waits until the server takes it or not.
func (w *wire) connect(k identity.Key, nonce []byte) string {
	w.t.Helper()
	w.say("CONNECT %s\r\nPING\r\n", credentials(k, nonce))
	return w.line()
}

func credentials(k identity.Key, nonce []byte) string {
	return fmt.Sprintf(`{"verbose":false,"nkey":%q,"sig":%q,"headers":true,"no_responders":true,"protocol":1}`, k.Public(),
		base64.RawURLEncoding.EncodeToString(k.Sign(nonce)))
}

func (w *wire) login(k identity.Key) {
	w.t.Helper()
	if line := w.connect(k, []byte(w.info.Nonce)); line != "PONG" {
		w.t.Fatalf("not admitted: %q", line)
	}
}

const violation = "-ERR 'Permissions Violation"

// TestRights tries, with a member's key, to hear and to say what is not the member's.
func TestRights(t *testing.T) {
	h := open(t, Options{})
	defer h.close()
	var heard atomic.Int32
	h.bus.Hub().Handle(func(r transport.Request) {
		if r.From != "other" {
			heard.Add(1)
			t.Errorf("a request of %q: %q", r.From, r.Msg)
		}
		r.Reply([]byte("for the other's eyes"))
	})
	other, err := h.dial(t, "other")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	got := make(chan string, 100)
	other.Receive(func(msg []byte) { got <- string(msg) })

	w := h.wire(t)
	w.login(h.key(t, "mallory"))
	sid := 0
	for _, subject := range []string{">", "*", "*.*", "up.>", "up.*.>", "up.other.>", "up.mallory.>", "down.>", "down.*", "down.other",
		"_INBOX.>", "_INBOX.*", "_INBOX.other.>", "_INBOX.*.>", "$SYS.>", "$SYS.REQ.>", "$SYS.ACCOUNT.>", "$JS.>", "$JS.API.>", "_R_.>", "$G.>",
		"all.>", "al*", "down.mallory.>", "down.mallory.x"} {
		sid++
		w.say("SUB %s %d\r\nPING\r\n", subject, sid)
		line := w.line()
		if !strings.HasPrefix(line, violation) && line != "-ERR 'Invalid Subject'" && line != "PONG" {
			t.Errorf("subscribe to %q: %q", subject, line)
		}
		if line == "PONG" && subject != "al*" { // names no token: a literal, which nobody publishes to
			t.Errorf("subscribe to %q: taken", subject)
			continue
		}
		if line != "PONG" {
			if line := w.line(); line != "PONG" {
				t.Fatalf("after subscribe to %q: %q", subject, line)
			}
		}
		// Queue groups have the same rights.
		w.say("SUB %s group %d\r\nPING\r\n", subject, sid+1000)
		for line := w.line(); line != "PONG"; line = w.line() {
			if line == "" {
				t.Fatalf("the connection ended after a queue on %q", subject)
			}
		}
	}
	for _, subject := range []string{"up.other.send", "up.other.here.1", "up.send", "up", "down.other", "down.mallory", "all", "_INBOX.other.x",
		"_INBOX.mallory.x", "$SYS.REQ.SERVER.PING", "$SYS.REQ.USER.INFO", "$JS.API.INFO", "x", "up.mallory", "up.Mallory.send"} {
		w.say("PUB %s _INBOX.mallory.1 5\r\nhello\r\nPING\r\n", subject)
		if line := w.line(); !strings.HasPrefix(line, violation) {
			t.Errorf("publish to %q: %q", subject, line)
			continue
		}
		if line := w.line(); line != "PONG" {
			t.Fatalf("after publish to %q: %q", subject, line)
		}
	}
	// What is allowed, with an answer that is to go to others.
	for _, reply := range []string{"down.other", "_INBOX.other.1", "all", "up.other.send", "_INBOX.mallory", "_INBOX.malloryx.1", "$SYS.REQ.SERVER.PING", "_INBOX.mallory.*", "_INBOX.mallory.>"} {
		w.say("PUB up.mallory.send %s 5\r\nhello\r\n", reply)
	}
	w.say("PUB up.mallory.here.%d 0\r\n\r\n", w.info.ID+7) // another connection's number
	w.say("PUB up.mallory.here.x 0\r\n\r\n")
	w.say("PUB up.mallory.other 2\r\nhi\r\n")
	w.say("PING\r\n")
	for line := w.line(); line != "PONG"; line = w.line() {
		if line == "" {
			t.Fatal("the connection ended")
		}
	}
	if b, err := other.Request(t.Context(), []byte("secret")); err != nil || string(b) != "for the other's eyes" {
		t.Fatalf("%q, %v", b, err)
	}
	if err := h.bus.Hub().Push("other", []byte("push")); err != nil {
		t.Fatal(err)
	}
	if msg := <-got; msg != "push" {
		t.Errorf("the other received %q", msg)
	}
	w.say("PING\r\n")
	if line := w.line(); line != "PONG" {
		t.Errorf("mallory heard %q", line)
	}
	if heard.Load() != 0 || len(got) != 0 {
		t.Errorf("%d requests heard; %d messages at the other", heard.Load(), len(got))
	}
	if got := h.bus.Hub().Present(); len(got) != 1 {
		t.Errorf("present: %v", got)
	}

	// The same connection may do what members do.
	w.say("SUB down.mallory 1\r\nSUB all 2\r\nSUB _INBOX.mallory.> 3\r\nPUB up.mallory.here.%d 0\r\n\r\nPING\r\n", w.info.ID)
	if line := w.line(); line != "PONG" {
		t.Errorf("as a good member: %q", line)
	}
}

// TestRefused is everybody who must not get in.
func TestRefused(t *testing.T) {
	var who atomic.Value
	h := open(t, Options{AuthTimeout: time.Second, Who: func(*http.Request) (string, bool) {
		name, ok := who.Load().(string)
		return name, ok && name != ""
	}})
	defer h.close()
	k := h.key(t, "a")
	const no = "-ERR 'Authorization Violation'"
	refuse := func(what, line string) {
		t.Helper()
		if line != no && line != "" {
			t.Errorf("%s: %q", what, line)
		}
	}
	stranger, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	w := h.wire(t)
	refuse("an unknown key", w.connect(stranger, []byte(w.info.Nonce)))
	h.key(t, "gone")
	h.deny("gone")
	w = h.wire(t)
	refuse("a revoked key", w.connect(h.key(t, "gone"), []byte(w.info.Nonce)))

	first := h.wire(t)
	first.login(k)
	w = h.wire(t)
	if w.info.Nonce == first.info.Nonce || len(w.info.Nonce) < 11 {
		t.Errorf("nonces %q and %q", w.info.Nonce, first.info.Nonce)
	}
	refuse("a signature of another connection's nonce", w.connect(k, []byte(first.info.Nonce)))
	if !isNonce([]byte(w.info.Nonce)) {
		t.Errorf("members would not sign %q", w.info.Nonce)
	}
	w = h.wire(t)
	refuse("a signature of nothing", w.connect(k, nil))
	w = h.wire(t)
	w.say("CONNECT {\"nkey\":%q,\"sig\":%q}\r\nPING\r\n", k.Public(), base64.RawURLEncoding.EncodeToString(stranger.Sign([]byte(w.info.Nonce))))
	refuse("another's signature", w.line())
	for _, c := range []string{`{}`, `{"user":"coordinator"}`, `{"user":"coordinator","pass":""}`, fmt.Sprintf(`{"user":"coordinator","pass":%q}`, h.bus.secret),
		`{"auth_token":"x"}`, `{"jwt":"x"}`, fmt.Sprintf(`{"nkey":%q}`, k.Public()), `{"nkey":"U","sig":"x"}`} {
		w = h.wire(t)
		w.say("CONNECT %s\r\nPING\r\n", c)
		refuse(c, w.line())
	}
	w = h.wire(t)
	w.say("SUB > 1\r\nPING\r\n")
	refuse("no CONNECT", w.line())
	// A second CONNECT changes nobody.
	w = h.wire(t)
	w.login(k)
	w.say("CONNECT %s\r\nPING\r\n", credentials(h.key(t, "b"), []byte(w.info.Nonce)))
	refuse("a second CONNECT", w.line())

	who.Store("b")
	w = h.wire(t)
	refuse("the TLS certificate of another", w.connect(k, []byte(w.info.Nonce)))
	who.Store("a")
	h.wire(t).login(k)
	who.Store("")

	w = h.wire(t) // says nothing
	for line := w.line(); line != ""; line = w.line() {
		if line != "-ERR 'Authentication Timeout'" {
			t.Errorf("a silent connection: %q", line)
		}
	}
	if got := h.bus.Hub().Present(); len(got) != 0 {
		t.Errorf("present: %v", got)
	}
}

// TestGarbage throws things at the port; whoever behaves does not notice.
func TestGarbage(t *testing.T) {
	h := open(t, Options{AuthTimeout: time.Second, MaxUnknown: 3})
	defer h.close()
	h.bus.Hub().Handle(func(r transport.Request) { r.Reply(r.Msg) })
	good, err := h.dial(t, "good")
	if err != nil {
		t.Fatal(err)
	}
	defer good.Close()
	var lost atomic.Int32
	good.OnState(func(on bool) {
		if !on {
			lost.Add(1)
		}
	})
	ends := func(what string, ws *websocket.Conn) {
		t.Helper()
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		for {
			if _, _, err := ws.Read(ctx); err != nil {
				if ctx.Err() != nil {
					t.Errorf("%s: the connection does not end", what)
				}
				return
			}
		}
	}
	for _, text := range []string{"\x00\x01\x02\xff\xfe", "GET / HTTP/1.1\r\n\r\n", "CONNECT {\r\n", "CONNECT []\r\n", strings.Repeat("A", 100000), "PUB x 99999999999\r\n",
		"+OK\r\nINFO {}\r\nRS+ x\r\n", "\r\n\r\n\r\nMSG a 1 2\r\nxx\r\n"} {
		ws := h.socket(t, Subprotocol)
		ws.Write(t.Context(), websocket.MessageBinary, []byte(text))
		ends(fmt.Sprintf("%.20q", text), ws)
	}
	ws := h.socket(t, Subprotocol)
	ws.Write(t.Context(), websocket.MessageText, []byte("CONNECT {}\r\n"))
	ends("a text message", ws)
	ends("another subprotocol", h.socket(t, "chat"))
	ends("no subprotocol", h.socket(t))
	ends("a silent connection", h.socket(t, Subprotocol))

	resp, err := h.http.Client().Get(h.http.URL + Path)
	if err != nil || resp.StatusCode != http.StatusUpgradeRequired {
		t.Errorf("no WebSocket: %v, %v", resp, err)
	}
	resp.Body.Close()

	// Strangers have their own limit.
	eventually(t, "strangers are forgotten", func() bool {
		h.bus.mu.Lock()
		defer h.bus.mu.Unlock()
		return h.bus.unknown == 0 && h.bus.open == 1
	})
	for range 3 {
		h.socket(t, Subprotocol)
	}
	_, resp, err = websocket.Dial(t.Context(), h.http.URL+Path, &websocket.DialOptions{HTTPClient: h.http.Client(), Subprotocols: []string{Subprotocol}})
	if err == nil || resp == nil || resp.StatusCode != http.StatusServiceUnavailable {
		t.Errorf("a stranger too many: %v, %v", resp, err)
	}
	// A member waits until they have gone.
	late, err := h.dial(t, "late")
	if err != nil {
		t.Fatal(err)
	}
	late.Close()
	if b, err := good.Request(t.Context(), []byte("x")); err != nil || string(b) != "x" {
		t.Errorf("the good member: %q, %v", b, err)
	}
	if lost.Load() != 0 {
		t.Errorf("the good member lost its connection %d times", lost.Load())
	}
}

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("not after %v: %s", patience, what)
		}
	}
}

// TestOversize: a message that is too large ends its own connection, if the server cannot even read it, and is dropped else.
func TestOversize(t *testing.T) {
	h := open(t, Options{})
	defer h.close()
	h.bus.Hub().Handle(func(r transport.Request) {
		if len(r.Msg) > transport.MaxMessage {
			t.Errorf("%d bytes arrived", len(r.Msg))
		}
		r.Reply(nil)
	})
	good, err := h.dial(t, "good")
	if err != nil {
		t.Fatal(err)
	}
	defer good.Close()
	w := h.wire(t)
	w.login(h.key(t, "mallory"))
	w.say("PUB up.mallory.send 65537\r\n%s\r\nPING\r\n", strings.Repeat("x", 65537))
	if line := w.line(); line != "PONG" {
		t.Fatalf("a little too large: %q", line)
	}
	w.say("PUB up.mallory.send 1000000\r\n%s\r\nPING\r\n", strings.Repeat("x", 1000000))
	if line := w.line(); line != "-ERR 'Maximum Payload Violation'" && line != "" {
		t.Errorf("far too large: %q", line)
	}
	if line := w.line(); line != "" {
		t.Errorf("the connection goes on: %q", line)
	}
	w = h.wire(t)
	w.login(h.key(t, "mallory"))
	for i := range 30 {
		w.say("SUB _INBOX.mallory.%d %d\r\n", i, i+1)
	}
	w.say("PING\r\n")
	refused := 0
	for line := w.line(); line != "PONG" && line != ""; line = w.line() {
		if line == "-ERR 'maximum subscriptions exceeded'" {
			refused++
		}
	}
	if refused == 0 {
		t.Error("30 subscriptions are taken")
	}
	if _, err := good.Request(t.Context(), []byte("x")); err != nil {
		t.Error(err)
	}
}

// TestSlow: a member that does not read is cut, and the others do not wait for it.
func TestSlow(t *testing.T) {
	h := open(t, Options{WriteTimeout: 300 * time.Millisecond, MaxPending: 4 << 20, PingInterval: 200 * time.Millisecond})
	defer h.close()
	hub := h.bus.Hub()
	hub.Handle(func(r transport.Request) { r.Reply(r.Msg) })
	good, err := h.dial(t, "good")
	if err != nil {
		t.Fatal(err)
	}
	defer good.Close()
	w := h.wire(t)
	w.login(h.key(t, "slow"))
	w.say("SUB down.slow 1\r\nPUB up.slow.here.%d 0\r\n\r\n", w.info.ID)
	eventually(t, "the slow member is here", func() bool { return len(hub.Present()) == 2 })
	go func() { // answers pings, but takes nothing
		for ; ; time.Sleep(50 * time.Millisecond) {
			if _, err := w.Conn.Write([]byte("PONG\r\n")); err != nil {
				return
			}
		}
	}()
	msg := bytes.Repeat([]byte("x"), transport.MaxMessage)
	silent := h.wire(t) // whose other end is gone without a word: it answers no ping
	silent.login(h.key(t, "silent"))
	silent.say("PUB up.silent.here.%d 0\r\n\r\n", silent.info.ID)
	eventually(t, "the silent member is here", func() bool { return slices.Contains(hub.Present(), "silent") })
	eventually(t, "the silent member is cut", func() bool { return !slices.Contains(hub.Present(), "silent") })
	eventually(t, "the slow member is cut", func() bool {
		if err := hub.Push("slow", msg); err != nil {
			t.Fatal(err)
		}
		if b, err := good.Request(t.Context(), []byte("x")); err != nil || string(b) != "x" {
			t.Fatalf("the other: %q, %v", b, err)
		}
		return len(hub.Present()) == 1
	})
}

// TestNonce: a member signs nothing that could be a message.
func TestNonce(t *testing.T) {
	msg, err := transport.Seal(newRoster().key(t, "a"), transport.Envelope{Kind: transport.KindLeave})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"", "short", "cohort message 1\n", string(msg), strings.Repeat("a", 65), "with space", "with\nnewline"} {
		if isNonce([]byte(s)) {
			t.Errorf("%.30q would be signed", s)
		}
	}
	if !isNonce([]byte("PXoWU7zWAMt75FY")) {
		t.Error("a nonce of today's servers would not be signed")
	}
}

func TestNames(t *testing.T) {
	for name, want := range map[string]string{"a": "a", "clinic-a": "clinic-a", "A_b.c": "A_b~c", "...": "~~~", strings.Repeat("x", 64): strings.Repeat("x", 64)} {
		tok, err := token(name)
		if err != nil || tok != want {
			t.Errorf("%q: %q, %v", name, tok, err)
		}
		if got, back, verb, ok := sender("up." + tok + ".here.12"); !ok || got != name || back != tok || verb != ".here.12" {
			t.Errorf("%q comes back as %q %q %q", name, got, back, verb)
		}
	}
	for _, name := range []string{"", strings.Repeat("x", 65), "a b", "a*", ">", "a>b", "ü", "a\n", "~", "a/b", "$SYS"} {
		if tok, err := token(name); err == nil {
			t.Errorf("%q is taken as %q", name, tok)
		}
	}
	if _, err := Dial(t.Context(), DialOptions{URL: "https://x", Name: "a b", Key: newRoster().key(t, "a")}); err == nil {
		t.Error("a name with a space dials")
	}
}

func TestDelay(t *testing.T) {
	for n := range 40 {
		for _, x := range []float64{0, .5, .999} {
			if d := delay(n, 10*time.Second, x); d < 60*time.Millisecond || d > 10*time.Second {
				t.Errorf("attempt %d: %v", n, d)
			}
		}
	}
	if d := delay(1, 10*time.Second, 0); d != 250*time.Millisecond {
		t.Errorf("first: %v", d)
	}
	if d := delay(30, 10*time.Second, 0); d != 10*time.Second {
		t.Errorf("last: %v", d)
	}
}
