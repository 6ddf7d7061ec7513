package web_test

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/blob/web"
)

// CloseIdleConnections is what the client asks for when a connection seems dead.
func (a as) CloseIdleConnections() { a.base.(*http.Transport).CloseIdleConnections() }

// mortal is a connection that dies without a word: nothing that is written arrives, and nothing comes any more.
type mortal struct {
	net.Conn
	dead *atomic.Bool
	once sync.Once
	end  chan struct{}
}

func (m *mortal) Read(b []byte) (int, error) {
	n, err := m.Conn.Read(b)
	if m.dead.Load() {
		<-m.end
		return 0, net.ErrClosed
	}
	return n, err
}

func (m *mortal) Write(b []byte) (int, error) {
	if m.dead.Load() {
		return len(b), nil
	}
	return m.Conn.Write(b)
}

func (m *mortal) Close() error {
	m.once.Do(func() { close(m.end) })
	return m.Conn.Close()
}

// TestDeadConnection lets the one connection of HTTP/2 die without a word, as when the machine gets another address, and goes on
// over another.
func TestDeadConnection(t *testing.T) {
	store, permits := blob.NewMemory(), web.NewPermits()
	s := httptest.NewUnstartedServer(web.NewHandler(store, web.HandlerOptions{Who: who, Permits: permits, Log: slog.New(slog.DiscardHandler)}))
	s.EnableHTTP2 = true
	s.StartTLS()
	t.Cleanup(s.Close)
	tr := s.Client().Transport.(*http.Transport).Clone()
	tr.ForceAttemptHTTP2 = true
	var dials atomic.Int32
	dead := &atomic.Bool{}
	tr.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dials.Add(1)
		c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
		return &mortal{Conn: c, dead: dead, end: make(chan struct{})}, err
	}
	tr.TLSClientConfig = &tls.Config{RootCAs: tr.TLSClientConfig.RootCAs, ServerName: "example.com"}
	t.Cleanup(tr.CloseIdleConnections)
	c := web.NewClient(&http.Client{Transport: as{"a", tr}}, s.URL)
	c.MinPause, c.MaxPause, c.Stall = time.Millisecond, 5*time.Millisecond, 300*time.Millisecond
	to := blob.NewMemory()
	for i := range uint64(3) {
		h, _ := write(t, store, i, 5000)
		permits.Grant("a", h, time.Time{})
		if err := c.Download(t.Context(), to, h); err != nil {
			t.Fatalf("blob %d: %v", i, err)
		}
		wantSame(t, to, h, i, 5000)
		dead.Store(true)
		dead = &atomic.Bool{} // of the next connection
	}
	if n := dials.Load(); n < 3 {
		t.Errorf("%d connections were made: did one come back to life?", n)
	}
}
