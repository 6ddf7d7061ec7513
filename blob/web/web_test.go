package web_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/blob/blobtest"
	"github.com/cohort-learning/cohort/blob/web"
)

// as sends requests as a member: tests name the sender in a header, where the program looks at the TLS key.
type as struct {
	who  string
	base http.RoundTripper
}

func (a as) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Test-Who", a.who)
	return a.base.RoundTrip(r)
}

func who(r *http.Request) (string, bool) {
	w := r.Header.Get("Test-Who")
	return w, w != ""
}

// A world is a server over TLS and a way to be its member.
type world struct {
	store   blob.Keeper
	permits *web.Permits
	handler *web.Handler
	server  *httptest.Server
}

// certificate is a server's, of the kind that the program uses: httptest's own takes most of a handshake's time.
var certificate = sync.OnceValue(func() tls.Certificate {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		panic(err)
	}
	c := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		DNSNames:     []string{"example.com"},
		NotAfter:     time.Now().Add(24 * time.Hour),
		IsCA:         true, BasicConstraintsValid: true,
	}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		panic(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
})

func newWorld(t testing.TB, store blob.Keeper, o web.HandlerOptions) *world {
	t.Helper()
	w := &world{store: store, permits: web.NewPermits()}
	o.Who, o.Permits = who, w.permits
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	w.handler = web.NewHandler(store, o)
	w.server = httptest.NewUnstartedServer(w.handler)
	w.server.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	w.server.TLS = &tls.Config{Certificates: []tls.Certificate{certificate()}, MinVersion: tls.VersionTLS13}
	w.server.StartTLS()
	t.Cleanup(w.server.Close)
	return w
}

func (w *world) transport() *http.Transport {
	t := w.server.Client().Transport.(*http.Transport).Clone()
	if w.server.TLS != nil {
		t.TLSClientConfig = &tls.Config{RootCAs: t.TLSClientConfig.RootCAs, ServerName: "example.com", MinVersion: tls.VersionTLS13}
	}
	t.MaxIdleConnsPerHost = 16
	return t
}

// client returns a client of a member; at is where it thinks the server is, empty for where it is.
func (w *world) client(t testing.TB, member, at string) *web.Client {
	tr := w.transport()
	t.Cleanup(tr.CloseIdleConnections)
	if at == "" {
		at = w.server.URL
	}
	c := web.NewClient(&http.Client{Transport: as{member, tr}}, at)
	c.MinPause, c.MaxPause = time.Millisecond, 5*time.Millisecond
	return c
}

// permit issues a permit for whatever blob from has under h.
func (w *world) permit(from blob.Store, member string, h blob.Hash) {
	var bytes int64
	if m, err := blob.ReadManifest(context.Background(), from, h); err == nil {
		bytes = m.Bytes
	}
	w.permits.Issue(member, h, bytes, time.Time{})
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func write(t testing.TB, s blob.Store, seed uint64, n int64) (blob.Hash, blob.Manifest) {
	t.Helper()
	h, m, err := blob.Write(t.Context(), s, blobtest.Random(seed, n))
	check(t, err)
	return h, m
}

func wantSame(t testing.TB, s blob.Store, h blob.Hash, seed uint64, n int64) {
	t.Helper()
	r, err := blob.Open(t.Context(), s, h)
	check(t, err)
	defer r.Close()
	got, err := io.ReadAll(r)
	check(t, err)
	if !bytes.Equal(got, blobtest.Bytes(seed, int(n))) {
		t.Error("other bytes arrived")
	}
}

func openDir(t testing.TB) *blob.Dir {
	t.Helper()
	d, err := blob.OpenDir(t.TempDir(), nil)
	check(t, err)
	t.Cleanup(func() { _ = d.Close() })
	return d
}

func TestUpload(t *testing.T) {
	blobtest.TestCarrier(t, func(t *testing.T) blobtest.Carrier {
		w := newWorld(t, openDir(t), web.HandlerOptions{})
		from := blob.NewMemory()
		c := w.client(t, "anna", "")
		return blobtest.Carrier{From: from, To: w.store, Move: func(ctx context.Context, h blob.Hash) error {
			w.permit(from, "anna", h)
			err := c.Upload(ctx, from, h)
			if got := w.permits.Uploaded("anna", h); got != (err == nil) {
				t.Errorf("Uploaded says %v, the client %v", got, err)
			}
			return err
		}}
	})
}

func TestDownload(t *testing.T) {
	blobtest.TestCarrier(t, func(t *testing.T) blobtest.Carrier {
		w := newWorld(t, openDir(t), web.HandlerOptions{CacheBytes: 2 << 20})
		to := blob.NewMemory()
		c := w.client(t, "anna", "")
		c.Attempts = 2
		return blobtest.Carrier{From: w.store, To: to, Move: func(ctx context.Context, h blob.Hash) error {
			w.permits.Grant("anna", h, time.Time{})
			return c.Download(ctx, to, h)
		}}
	})
}

// ask sends a request and returns status and body.
func (w *world) ask(t testing.TB, member, method, path string, body io.Reader, head ...string) (int, string, http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, w.server.URL+path, body)
	check(t, err)
	for i := 0; i < len(head); i += 2 {
		r.Header.Set(head[i], head[i+1])
	}
	tr := w.transport()
	defer tr.CloseIdleConnections()
	var rt http.RoundTripper = tr
	if member != "" {
		rt = as{member, tr}
	}
	res, err := rt.RoundTrip(r)
	check(t, err)
	defer res.Body.Close()
	b, err := io.ReadAll(res.Body)
	check(t, err)
	return res.StatusCode, string(b), res.Header
}

// Whoever may not, and whatever is not there, gets one and the same answer.
func TestUnknownAndForbiddenLookAlike(t *testing.T) {
	w := newWorld(t, blob.NewMemory(), web.HandlerOptions{})
	there, m := write(t, w.store, 1, 2*blob.ChunkSize)
	other, mo := write(t, w.store, 2, 100)
	absent := blob.Sum([]byte("absent"))
	w.permits.Grant("anna", there, time.Time{})
	w.permits.Grant("anna", absent, time.Time{})
	w.permits.Issue("bob", there, m.Bytes, time.Time{})
	w.permits.Issue("late", there, m.Bytes, time.Now().Add(-time.Second))
	w.permits.Grant("late", there, time.Now().Add(-time.Second))
	w.permits.Grant("gone", there, time.Time{})
	w.permits.Issue("gone", there, m.Bytes, time.Time{})
	w.permits.RevokeAll("gone")
	manifest := m.Encode()
	chunk := func(c, b blob.Hash) string { return fmt.Sprintf("/blob/chunk/%v?blob=%v", c, b) }
	type q struct{ who, method, path string }
	var answers []string
	for _, q := range []q{
		{"", "GET", "/blob/" + there.String()},
		{"bob", "GET", "/blob/" + there.String()}, // may upload it, not read it
		{"late", "GET", "/blob/" + there.String()},
		{"gone", "GET", "/blob/" + there.String()},
		{"anna", "GET", "/blob/" + absent.String()},
		{"anna", "GET", "/blob/" + other.String()},
		{"anna", "GET", "/blob/nonsense"},
		{"anna", "GET", "/blob/chunk/" + m.Chunks[0].String()},
		{"anna", "GET", chunk(mo.Chunks[0], there)}, // is there, but not in this blob
		{"anna", "GET", chunk(absent, there)},
		{"anna", "GET", chunk(mo.Chunks[0], other)},
		{"anna", "GET", chunk(m.Chunks[0], absent)},
		{"anna", "POST", "/blob/" + there.String()}, // may read it, not upload it
		{"late", "POST", "/blob/" + there.String()},
		{"gone", "POST", "/blob/" + there.String()},
		{"bob", "POST", "/blob/" + other.String()},
		{"anna", "PUT", chunk(m.Chunks[0], there)},
		{"gone", "PUT", chunk(m.Chunks[0], there)},
		{"", "PUT", chunk(m.Chunks[0], there)},
		{"anna", "GET", "/blob/"},
		{"anna", "GET", "/blob"},
	} {
		var body io.Reader
		if q.method != "GET" {
			body = bytes.NewReader(manifest)
		}
		status, text, head := w.ask(t, q.who, q.method, q.path, body)
		head.Del("Date")
		head.Del("Connection")
		answers = append(answers, fmt.Sprint(status, text, head))
		if status != http.StatusNotFound || answers[0] != answers[len(answers)-1] {
			t.Errorf("%v: %s", q, answers[len(answers)-1])
		}
	}
	// The same with a permit works, so the requests were right.
	if status, _, _ := w.ask(t, "anna", "GET", chunk(m.Chunks[0], there), nil); status != http.StatusOK {
		t.Errorf("status %d", status)
	}
}

// What another member sent saves nobody the sending, and what a blob's name stands for cannot be had by listing the
// chunks of others in a manifest of one's own.
func TestOthersChunksDoNotCount(t *testing.T) {
	w := newWorld(t, blob.NewMemory(), web.HandlerOptions{})
	secret, m := write(t, w.store, 1, 3*blob.ChunkSize/2)
	w.permits.Issue("eve", secret, m.Bytes, time.Time{})
	status, text, _ := w.ask(t, "eve", "POST", "/blob/"+secret.String(), bytes.NewReader(m.Encode()))
	if want := `{"missing":[[0,2]]}`; status != http.StatusOK || strings.TrimSpace(text) != want {
		t.Errorf("status %d, %s, want %s", status, text, want)
	}
	if w.permits.Uploaded("eve", secret) {
		t.Error("counts as uploaded")
	}
	own := blob.NewMemory()
	check(t, blob.Copy(t.Context(), own, w.store, secret))
	c := w.client(t, "eve", "")
	check(t, c.Upload(t.Context(), own, secret)) // whoever has it can send it
	if c.Sent() < m.Bytes {
		t.Errorf("only %d bytes were sent", c.Sent())
	}
}

func TestHostileUploads(t *testing.T) {
	w := newWorld(t, openDir(t), web.HandlerOptions{})
	from := blob.NewMemory()
	h, m := write(t, from, 1, blob.ChunkSize+1000)
	w.permit(from, "eve", h)
	path := "/blob/" + h.String()
	last := fmt.Sprintf("/blob/chunk/%v?blob=%v", m.Chunks[1], h)
	good := blobtest.Bytes(1, blob.ChunkSize+1000)[blob.ChunkSize:]
	unsized := func(b []byte) io.Reader { return io.MultiReader(bytes.NewReader(b)) } // sent without a length
	want := func(status int, path, method string, body io.Reader) {
		t.Helper()
		got, text, _ := w.ask(t, "eve", method, path, body)
		if got != status {
			t.Errorf("status %d, want %d: %s", got, status, text)
		}
	}
	want(409, last, "PUT", bytes.NewReader(good)) // no manifest yet
	big := append(m.Encode(), make([]byte, 1000)...)
	want(413, path, "POST", bytes.NewReader(big))
	want(413, path, "POST", unsized(big))
	want(400, path, "POST", bytes.NewReader(big[:40]))
	want(422, path, "POST", bytes.NewReader(make([]byte, len(m.Encode()))))
	want(200, path, "POST", bytes.NewReader(m.Encode()))

	want(413, last, "PUT", bytes.NewReader(append(good, 1)))
	want(413, last, "PUT", unsized(append(good, 1)))
	want(413, last, "PUT", io.LimitReader(forever{}, 1<<40)) // cut off at once, or this takes hours
	want(422, last, "PUT", bytes.NewReader(blobtest.Bytes(2, 1000)))
	want(400, last, "PUT", bytes.NewReader(good[:999]))
	want(409, last+"&from=3", "PUT", bytes.NewReader(good[3:]))
	want(400, last+"&from=-1", "PUT", bytes.NewReader(good))
	want(400, last+"&from=1001", "PUT", bytes.NewReader(nil))
	if u := w.store.Usage(); u.Objects != 0 {
		t.Fatalf("something was stored: %+v", u)
	}
	want(204, last+"&from=999", "PUT", bytes.NewReader(good[999:])) // the beginning was kept
	want(204, last, "PUT", unsized(good))                           // again

	// A permit for another length does not fit the manifest; nor do bytes that are no manifest, under their own hash.
	w.permits.Issue("eve", h, m.Bytes-1, time.Time{})
	want(422, path, "POST", bytes.NewReader(m.Encode()))
	none := blobtest.Bytes(3, 48)
	w.permits.Issue("eve", blob.Sum(none), 5, time.Time{})
	want(422, "/blob/"+blob.Sum(none).String(), "POST", bytes.NewReader(none))
}

type forever struct{}

func (forever) Read(p []byte) (int, error) { clear(p); return len(p), nil }

func TestRanges(t *testing.T) {
	w := newWorld(t, blob.NewMemory(), web.HandlerOptions{})
	h, m := write(t, w.store, 1, 1000)
	data := string(blobtest.Bytes(1, 1000))
	w.permits.Grant("anna", h, time.Time{})
	path := fmt.Sprintf("/blob/chunk/%v?blob=%v", m.Chunks[0], h)
	for _, tt := range []struct {
		header string
		status int
		want   string
	}{
		{"", 200, data},
		{"bytes=0-", 206, data},
		{"bytes=300-", 206, data[300:]},
		{"bytes=300-399", 206, data[300:400]},
		{"bytes=300-5000", 206, data[300:]},
		{"bytes=-10", 206, data[990:]},
		{"bytes=-5000", 206, data},
		{"bytes=999-999", 206, data[999:]},
		{"bytes=1000-", 416, "the chunk has 1000 bytes\n"},
		{"bytes=-0", 416, "the chunk has 1000 bytes\n"},
		{"bytes=5-4", 200, data},
		{"bytes=0-1,5-6", 200, data},
		{"lines=1-2", 200, data},
		{"bytes=x-", 200, data},
	} {
		status, got, head := w.ask(t, "anna", "GET", path, nil, "Range", tt.header)
		if status != tt.status || got != tt.want {
			t.Errorf("%q: status %d, %d bytes", tt.header, status, len(got))
		}
		if status == 206 && !strings.HasSuffix(head.Get("Content-Range"), "/1000") {
			t.Errorf("%q: Content-Range %q", tt.header, head.Get("Content-Range"))
		}
	}
}

func TestFullStore(t *testing.T) {
	w := newWorld(t, openDir(t), web.HandlerOptions{})
	from := blob.NewMemory()
	h, _ := write(t, from, 1, 2*blob.ChunkSize)
	w.permit(from, "anna", h)
	w.store.SetCap(blob.ChunkSize + 100)
	c := w.client(t, "anna", "")
	c.Attempts = 3
	if err := c.Upload(t.Context(), from, h); !errors.Is(err, blob.ErrFull) {
		t.Fatalf("upload to a full store: %v", err)
	}
	w.store.SetCap(0)
	check(t, c.Upload(t.Context(), from, h))
	wantSame(t, w.store, h, 1, 2*blob.ChunkSize)
}

// What arrives under a permit is pinned as long as the permit lasts, and no longer.
func TestUploadsArePinned(t *testing.T) {
	w := newWorld(t, openDir(t), web.HandlerOptions{})
	from := blob.NewMemory()
	h, m := write(t, from, 1, 2*blob.ChunkSize)
	w.permit(from, "anna", h)
	none := func(blob.Hash) bool { return false }
	c := w.client(t, "anna", "")
	check(t, c.UploadProgress(t.Context(), from, h, func(done, total int64) {
		if _, err := blob.CollectOlder(t.Context(), w.store, none, -time.Hour); err != nil {
			t.Error(err)
		}
	}))
	wantSame(t, w.store, h, 1, m.Bytes)
	w.permits.Revoke("anna", h)
	if w.permits.Uploaded("anna", h) {
		t.Error("a revoked permit counts")
	}
	freed, err := blob.CollectOlder(t.Context(), w.store, none, -time.Hour)
	check(t, err)
	if freed.Objects != 3 {
		t.Errorf("freed %+v", freed)
	}
}

func TestProgressAndCounters(t *testing.T) {
	w := newWorld(t, blob.NewMemory(), web.HandlerOptions{})
	from, to := blob.NewMemory(), blob.NewMemory()
	h, m := write(t, from, 1, 5*blob.ChunkSize+5)
	w.permit(from, "anna", h)
	w.permits.Grant("anna", h, time.Time{})
	c := w.client(t, "anna", "")
	var seen []int64
	progress := func(done, total int64) {
		if total != m.Bytes || len(seen) > 0 && done <= seen[len(seen)-1] {
			t.Errorf("%d of %d after %v", done, total, seen)
		}
		seen = append(seen, done)
	}
	all := m.Bytes + blob.ManifestLen(m.Bytes)
	check(t, c.UploadProgress(t.Context(), from, h, progress))
	if len(seen) != 6 || seen[5] != m.Bytes || c.Sent() != all || c.Received() != 0 || w.handler.Received() != all {
		t.Errorf("progress %v, sent %d, received %d, at the server %d, want %d", seen, c.Sent(), c.Received(), w.handler.Received(), all)
	}
	seen = nil
	check(t, c.DownloadProgress(t.Context(), to, h, progress))
	if len(seen) != 6 || seen[5] != m.Bytes || c.Received() != all || w.handler.Sent() != all {
		t.Errorf("progress %v, received %d, want %d", seen, c.Received(), all)
	}
}

// A restart of the server in the middle of a long upload costs at most some chunks; with permits issued again, the client
// just goes on.
func TestUploadAcrossRestart(t *testing.T) {
	store, from, notes := openDir(t), blob.NewMemory(), t.TempDir()
	const n = 50 * blob.ChunkSize
	h, _ := write(t, from, 1, n)
	w := newWorld(t, store, web.HandlerOptions{Notes: notes})
	w.permit(from, "anna", h)
	ctx, cancel := context.WithCancel(t.Context())
	c := w.client(t, "anna", "")
	err := c.UploadProgress(ctx, from, h, func(done, _ int64) {
		if done > 40*blob.ChunkSize {
			cancel()
		}
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
	w.server.Close()

	w = newWorld(t, store, web.HandlerOptions{Notes: notes})
	w.permit(from, "anna", h)
	w.permit(from, "eve", h)
	c = w.client(t, "anna", "")
	check(t, c.Upload(t.Context(), from, h))
	if c.Sent() > 30*blob.ChunkSize {
		t.Errorf("%d bytes were sent again", c.Sent())
	}
	wantSame(t, store, h, 1, n)
	e := w.client(t, "eve", "")
	check(t, e.Upload(t.Context(), from, h))
	if e.Sent() < n {
		t.Error("one member's note counts for another")
	}

	// After it is complete, too; but not after the permit is revoked.
	for i, revoke := range []bool{false, true, false} {
		w = newWorld(t, store, web.HandlerOptions{Notes: notes})
		w.permit(from, "anna", h)
		c = w.client(t, "anna", "")
		check(t, c.Upload(t.Context(), from, h))
		if again := c.Sent() >= n; again != (i == 2) {
			t.Errorf("restart %d: %d bytes were sent", i, c.Sent())
		}
		if revoke {
			w.permits.Revoke("anna", h)
		}
	}
}

// Ten thousand readers of one model cost one chunk of memory, not ten thousand.
func TestReadersShareChunks(t *testing.T) {
	mem := blob.NewMemory()
	counted := &countingStore{Memory: mem}
	w := newWorld(t, counted, web.HandlerOptions{CacheBytes: 1})
	h, _ := write(t, mem, 1, 3*blob.ChunkSize)
	var wg sync.WaitGroup
	for i := range 8 {
		who := fmt.Sprint("member", i)
		w.permits.Grant(who, h, time.Time{})
		wg.Go(func() {
			to := blob.NewMemory()
			if err := w.client(t, who, "").Download(t.Context(), to, h); err != nil {
				t.Error(err)
				return
			}
			wantSame(t, to, h, 1, 3*blob.ChunkSize)
		})
	}
	wg.Wait()
	if n := counted.most.Load(); n > 1 {
		t.Errorf("%d chunks were read at once, above the bound of 1", n)
	}
}

// newPlainWorld is newWorld without TLS.
func newPlainWorld(t testing.TB, store blob.Keeper, o web.HandlerOptions) *world {
	t.Helper()
	w := newWorld(t, store, o)
	w.server.Close()
	w.server = httptest.NewServer(w.handler)
	t.Cleanup(w.server.Close)
	return w
}
