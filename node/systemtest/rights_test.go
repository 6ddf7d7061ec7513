package systemtest

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/coder/websocket"
	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/blob/web"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/node/member"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/transport/natsbus"
)

// bus is a connection to the bus, spoken by hand.
type bus struct {
	net.Conn
	r *bufio.Reader
}

func dialBus(ctx context.Context, client *http.Client, url string) (*bus, error) {
	ws, _, err := websocket.Dial(ctx, url+natsbus.Path, &websocket.DialOptions{HTTPClient: client, Subprotocols: []string{natsbus.Subprotocol}})
	if err != nil {
		return nil, err
	}
	b := &bus{Conn: websocket.NetConn(ctx, ws, websocket.MessageBinary)}
	b.r = bufio.NewReader(b.Conn)
	return b, nil
}

// login proves that the key is a member's.
func (b *bus) login(k identity.Key) error {
	line, err := b.line()
	if err != nil {
		return err
	}
	var info struct{ Nonce string }
	if err := json.Unmarshal([]byte(strings.TrimPrefix(line, "INFO ")), &info); err != nil {
		return fmt.Errorf("%q: %w", line, err)
	}
	sig := base64.RawURLEncoding.EncodeToString(k.Sign([]byte(info.Nonce)))
	b.say(`CONNECT {"verbose":false,"nkey":%q,"sig":%q,"protocol":1}`+"\r\nPING\r\n", k.Public(), sig)
	for {
		line, err := b.line()
		switch {
		case err != nil:
			return err
		case line == "PONG":
			return nil
		case strings.HasPrefix(line, "-ERR"):
			return errors.New(line)
		}
	}
}

func (b *bus) say(format string, args ...any) { fmt.Fprintf(b.Conn, format, args...) }

func (b *bus) line() (string, error) {
	b.SetReadDeadline(time.Now().Add(patience))
	line, err := b.r.ReadString('\n')
	return strings.TrimSpace(line), err
}

// after says something and returns all that is answered up to the next answer to a ping.
func (b *bus) after(format string, args ...any) (lines []string) {
	b.say(format, args...)
	b.say("PING\r\n")
	for {
		line, err := b.line()
		if err != nil {
			return append(lines, "the connection ended: "+err.Error())
		}
		if line == "PONG" {
			return lines
		}
		lines = append(lines, line)
	}
}

// TestRights has a member of the federation that takes no part in the run try, with its own key, to hear and read what is
// others', and to speak for them. All is refused, and the run is what it is without.
func TestRights(t *testing.T) {
	brief(t)
	f := newFederation(t, strings.Replace(small, "rounds: 3", "rounds: 6", 1), 5)
	want := f.simulate()
	f.members = append(f.members, &party{name: "intruder", dir: filepath.Join(f.dir, "intruder")})
	f.open()
	spy := f.members[5]
	f.members = f.members[:5]
	ctx := t.Context()
	token, err := identity.ParseToken(spy.token)
	if err != nil {
		t.Fatal(err)
	}
	var folder *member.Folder
	if folder, err = member.Enrol(ctx, spy.dir, token, member.EnrolOptions{}); err != nil {
		t.Fatal(err)
	}
	client, err := httpClient(folder.Key, folder.Card)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.CloseIdleConnections)
	speaks(t, ctx, f, client, folder.Key)
	listener := listens(t, ctx, f, client, folder.Key)
	f.joinAll()
	over := make(chan struct{})
	go func() { <-f.coordinator.done; close(over) }()

	seen := map[string]bool{}
	for running := true; running; {
		select {
		case <-over:
			running = false
		default:
		}
		for _, h := range storedBlobs(f) {
			if !seen[h] && f.coordinator.running() {
				seen[h] = true
				reads(t, ctx, f, client, folder.Key, h)
			}
		}
		if f.coordinator.running() {
			asks(t, f, client)
		}
	}
	if len(seen) < 10 {
		t.Errorf("only %d blobs of others were asked for", len(seen))
	}
	f.finish()
	if got := digestOf(t, f.run()); got != want {
		t.Errorf("with the intruder the run comes to %s, without to %s", got, want)
	}
	f.verify()
	broadcasts := 0
	for _, line := range <-listener {
		if strings.HasPrefix(line, "MSG all ") {
			broadcasts++
		}
		if !strings.HasPrefix(line, "MSG all ") && strings.HasPrefix(line, "MSG ") {
			t.Errorf("the intruder heard %q", line)
		}
	}
	if broadcasts < 10 {
		t.Errorf("the intruder heard %d broadcasts: was it listening?", broadcasts)
	}
}

// listens subscribes to everything there may be. What it is sent while the run is on comes over the channel at the end.
func listens(t *testing.T, ctx context.Context, f *federation, client *http.Client, k identity.Key) <-chan []string {
	t.Helper()
	all := make(chan []string, 1)
	subjects := []string{">", "*", "up.>", "up.client-000.>", "up.*.send", "down.>", "down.*", "down.client-000", "_INBOX.>", "_INBOX.client-000.>",
		"_INBOX.*.x", "$SYS.>", "$SYS.ACCOUNT.>", "$JS.>", "all.>", "all  q"}
	var heard []string
	for _, s := range subjects { // one connection each: the server ends some
		b, err := dialBus(ctx, client, f.url)
		if err != nil {
			t.Fatal(err)
		}
		if err := b.login(k); err != nil {
			t.Fatal(err)
		}
		lines := b.after("SUB %s 1\r\n", s)
		if !strings.Contains(strings.Join(lines, "\n"), "Permissions Violation") && !strings.Contains(strings.Join(lines, "\n"), "ended") && s != "all  q" {
			t.Errorf("subscribing to %q is answered %q", s, lines)
		}
		heard = append(heard, lines...)
		b.Close()
	}
	b, err := dialBus(ctx, client, f.url)
	if err != nil {
		t.Fatal(err)
	}
	if err := b.login(k); err != nil {
		t.Fatal(err)
	}
	for i, s := range subjects {
		b.say("SUB %s %d\r\n", s, i+10)
	}
	b.say("SUB all 1\r\n")
	go func() {
		for {
			line, err := b.line()
			if err != nil {
				all <- heard
				return
			}
			if line == "PING" {
				b.say("PONG\r\n")
			}
			heard = append(heard, line)
		}
	}()
	return all
}

// speaks publishes to everything there may be, also what members and the coordinator could have said.
func speaks(t *testing.T, ctx context.Context, f *federation, client *http.Client, k identity.Key) {
	t.Helper()
	e := transport.Envelope{Fed: k.Public().String(), Run: "run", From: "client-000"}
	if err := e.Put(&transport.Leave{Reason: "forged"}); err != nil {
		t.Fatal(err)
	}
	forged, err := transport.Seal(k, e)
	if err != nil {
		t.Fatal(err)
	}
	b, err := dialBus(ctx, client, f.url)
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	if err := b.login(k); err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{"up.client-000.send", "up.client-000.here.5", "down.client-000", "down.intruder", "all", "_INBOX.client-000.1", "_INBOX.x",
		"$SYS.REQ.SERVER.PING", "$SYS.REQ.ACCOUNT.x.CONNS", "$JS.API.INFO", "anything"} {
		lines := b.after("PUB %s _INBOX.intruder.1 %d\r\n%s\r\n", s, len(forged), forged)
		if !strings.Contains(strings.Join(lines, "\n"), "Permissions Violation") {
			t.Errorf("publishing to %q is answered %q", s, lines)
		}
	}
	// On its own subject it may speak, but neither have others get the answer nor speak in another's name.
	for _, reply := range []string{"_INBOX.client-000.1", "down.client-000", "up.client-000.send"} {
		for _, line := range b.after("PUB up.intruder.send %s %d\r\n%s\r\n", reply, len(forged), forged) {
			if strings.HasPrefix(line, "MSG ") {
				t.Errorf("with an answer to %q: %q", reply, line)
			}
		}
	}
	big := bytes.Repeat([]byte("x"), transport.MaxMessage+4<<10)
	lines := b.after("PUB up.intruder.send %d\r\n%s\r\n", len(big), big)
	if text := strings.Join(lines, "\n"); !strings.Contains(text, "Maximum Payload") && !strings.Contains(text, "ended") {
		t.Errorf("a message of %d bytes is answered %q", len(big), text)
	}
}

var hexName = regexp.MustCompile(`^[0-9a-f]{64}`)

// storedBlobs are the hashes under which the coordinator stores anything now.
func storedBlobs(f *federation) (out []string) {
	_ = filepath.WalkDir(filepath.Join(f.dir, "server", "blobs"), func(path string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() {
			if h := hexName.FindString(d.Name()); h != "" {
				out = append(out, h)
			}
		}
		return nil // files come and go
	})
	return out
}

// reads tries to get, and to replace, what lies at the coordinator under a hash.
func reads(t *testing.T, ctx context.Context, f *federation, client *http.Client, k identity.Key, hash string) {
	t.Helper()
	for _, r := range [][2]string{{"GET", "/blob/" + hash}, {"GET", "/blob/chunk/" + hash + "?blob=" + hash}, {"HEAD", "/blob/chunk/" + hash + "?blob=" + hash},
		{"PUT", "/blob/chunk/" + hash + "?blob=" + hash}, {"POST", "/blob/" + hash}, {"GET", "/blob/" + strings.ToUpper(hash)}, {"GET", "/blob/../blob/" + hash}} {
		status, body := request(t, client, r[0], f.url+r[1], "what")
		if status < 400 {
			t.Errorf("%s %s: %d %.80q", r[0], r[1], status, body)
		}
	}
	var h blob.Hash
	if b, err := hex.DecodeString(hash); err != nil || copy(h[:], b) != len(h) {
		t.Fatal(hash)
	}
	w := web.NewClient(client, f.url)
	if err := w.Download(ctx, blob.NewMemory(), h); !errors.Is(err, web.ErrDenied) && f.coordinator.running() {
		t.Errorf("downloading %s: %v", hash, err)
	}
	// Unknown and forbidden look alike.
	sum := sha256.Sum256([]byte(hash))
	nothing, text := request(t, client, "GET", f.url+"/blob/"+hex.EncodeToString(sum[:]), "")
	something, same := request(t, client, "GET", f.url+"/blob/"+hash, "")
	if f.coordinator.running() && (nothing != something || text != same) {
		t.Errorf("what is there is answered %d %q, what is not %d %q", something, same, nothing, text)
	}
	store := blob.NewMemory()
	own, _, err := blob.Write(ctx, store, strings.NewReader("not asked for "+hash))
	if err != nil {
		t.Fatal(err)
	}
	if err := w.Upload(ctx, store, own); !errors.Is(err, web.ErrDenied) && f.coordinator.running() {
		t.Errorf("uploading without a permit: %v", err)
	}
}

// asks tries what members of the run may ask, and what only the coordinator's own people may.
func asks(t *testing.T, f *federation, client *http.Client) {
	t.Helper()
	for _, path := range []string{"/journal/run", "/journal/run?from=3", "/journal/other", "/journal/..%2frun", "/metrics", "/api/runs", "/run/run", "/events", "/runs"} {
		if status, body := request(t, client, "GET", f.url+path, ""); status >= 200 && status < 300 {
			t.Errorf("%s: %d %.100q", path, status, body)
		}
	}
	for _, path := range []string{"/invite", "/revoke", "/stop", "/backup", "/status"} {
		if status, body := request(t, client, "POST", f.url+path, "{}"); status >= 200 && status < 300 {
			t.Errorf("%s: %d %.100q", path, status, body)
		}
	}
}

// request returns 999 for a request that comes to nothing, as when the coordinator has ended.
func request(t *testing.T, client *http.Client, method, url, body string) (status int, text string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(r)
	if err != nil {
		return 999, ""
	}
	defer resp.Body.Close()
	b, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<16))
	return resp.StatusCode, string(b)
}
