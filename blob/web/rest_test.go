package web_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/blob/web"
)

// TestRest lets a client rest right after its last answer: no connection stays, over HTTP/2 either, where a request leaves its
// connection a moment after it is answered.
func TestRest(t *testing.T) {
	ctx := context.Background()
	p := web.NewPermits()
	s := httptest.NewUnstartedServer(web.NewHandler(blob.NewMemory(), web.HandlerOptions{Permits: p, Who: func(r *http.Request) (string, bool) {
		return "a", r.ProtoMajor == 2
	}}))
	var open, made atomic.Int64
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			open.Add(1)
			made.Add(1)
		case http.StateClosed:
			open.Add(-1)
		}
	}
	s.EnableHTTP2 = true
	s.StartTLS()
	defer s.Close()
	tr := &http.Transport{ForceAttemptHTTP2: true, TLSClientConfig: &tls.Config{RootCAs: s.Client().Transport.(*http.Transport).TLSClientConfig.RootCAs}}
	c := &web.Client{HTTP: &http.Client{Transport: tr}, Base: s.URL} // whose connections may idle for ever
	for i := range 40 {
		ours := blob.NewMemory()
		h, m, err := blob.Write(ctx, ours, strings.NewReader(strings.Repeat(fmt.Sprint(i), 300_000)))
		if err != nil {
			t.Fatal(err)
		}
		p.Issue("a", h, m.Bytes, time.Time{})
		if err := c.Upload(ctx, ours, h); err != nil {
			t.Fatal(err)
		}
		c.Rest()
		for limit := time.Now().Add(10 * time.Second); open.Load() > 0; time.Sleep(time.Millisecond) {
			if time.Now().After(limit) {
				t.Fatalf("%d of %d connections are open though the client rests", open.Load(), made.Load())
			}
		}
	}
}
