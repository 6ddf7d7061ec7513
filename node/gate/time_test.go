package gate

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cohort-learning/cohort/identity"
)

// pipes is a listener of connections in memory, whose deadlines go by the clock of
// the test.
type pipes struct{ *queue }

func (p pipes) dial() net.Conn {
	a, b := net.Pipe()
	p.put(b)
	return a
}

// bubble runs a test with a gate under a clock of its own.
func bubble(t *testing.T, f func(t *testing.T, g *Gate, p pipes)) {
	synctest.Test(t, func(t *testing.T) {
		ca, err := identity.NewAuthority("clinics", time.Now())
		must(t, err)
		src, err := identity.NewSource(ca, []string{"h"}, nil)
		must(t, err)
		g := New(Options{Certificate: src.Certificate, Member: func(identity.Public) (string, bool) { return "m", true }})
		g.Handle("/", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if _, err := io.Copy(io.Discard, r.Body); err != nil {
				w.WriteHeader(http.StatusRequestTimeout)
			}
		}))
		p := pipes{newQueue()}
		done := make(chan error, 1)
		go func() { done <- g.Serve(p) }()
		f(t, g, p)
		must(t, g.Shutdown(context.Background()))
		if err := <-done; !errors.Is(err, http.ErrServerClosed) {
			t.Error(err)
		}
	})
}

// ends returns how long after start the other side hangs up.
func ends(t *testing.T, c net.Conn, start time.Time) time.Duration {
	t.Helper()
	_, err := io.Copy(io.Discard, c)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		t.Error("the client's own deadline")
	}
	c.Close()
	return time.Since(start)
}

func TestStalledHandshake(t *testing.T) {
	bubble(t, func(t *testing.T, g *Gate, p pipes) {
		start := time.Now()
		// More than there are slots: waiting takes none.
		var conns []net.Conn
		for range 5 * g.limit.Handshakes {
			conns = append(conns, p.dial())
		}
		quick := tls.Client(p.dial(), &tls.Config{InsecureSkipVerify: true})
		must(t, quick.Handshake())
		if d := time.Since(start); d != 0 {
			t.Errorf("a handshake waited %v for those that stall", d)
		}
		for _, c := range conns {
			if d := ends(t, c, start); d != g.limit.Handshake {
				t.Errorf("a silent connection was ended after %v", d)
			}
		}
		quick.Close()
		synctest.Wait()
		if st := g.Stats(); st.FailedHandshakes != uint64(len(conns)) || st.Connections != 0 || len(g.slots) != 0 {
			t.Errorf("%+v, %d slots taken", st, len(g.slots))
		}
	})
}

func TestSlowRequests(t *testing.T) {
	open := func(t *testing.T, p pipes, member bool) *tls.Conn {
		conf := &tls.Config{InsecureSkipVerify: true}
		if member {
			k, err := identity.NewKey()
			must(t, err)
			conf = identity.NewTrust().ClientTLS(k, "h")
			conf.VerifyConnection = nil
		}
		c := tls.Client(p.dial(), conf)
		must(t, c.Handshake())
		return c
	}
	bubble(t, func(t *testing.T, g *Gate, p pipes) {
		c := open(t, p, false)
		start := time.Now()
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\nX-Slow:")
		if d := ends(t, c, start); d != g.limit.Header {
			t.Errorf("half a header was waited for %v", d)
		}
		c = open(t, p, false)
		start = time.Now()
		io.WriteString(c, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
		if d := ends(t, c, start); d != g.limit.Idle {
			t.Errorf("an idle connection was kept for %v", d)
		}
		for _, member := range []bool{false, true} {
			c = open(t, p, member)
			start = time.Now()
			go io.WriteString(c, "POST / HTTP/1.1\r\nHost: h\r\nConnection: close\r\nContent-Length: 1000\r\n\r\nx")
			if d := ends(t, c, start); d < g.limit.BodyGrace || d > g.limit.BodyGrace+10*time.Second {
				t.Errorf("member %v: a body that stalls was waited for %v", member, d)
			}
		}
		synctest.Wait()
		if st := g.Stats(); st.SlowBodies != 2 {
			t.Errorf("%+v", st)
		}
	})
}

// A handler that takes its time, between pieces of a body or after it, does not
// make the body late. Over HTTP/2 a deadline that passes ends the body even while
// nobody reads.
func TestSlowHandler(t *testing.T) {
	bubble(t, func(t *testing.T, g *Gate, p pipes) {
		g.Handle("/long", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			_, err := io.ReadFull(r.Body, make([]byte, 1))
			time.Sleep(time.Hour)
			n, rest := io.Copy(io.Discard, r.Body)
			time.Sleep(time.Hour)
			if err := errors.Join(err, rest, r.Context().Err()); err != nil || n != 9999 {
				t.Errorf("%s: %d bytes, %v", r.Proto, n, err)
			}
		}))
		k, err := identity.NewKey()
		must(t, err)
		for _, h2 := range []bool{false, true} {
			conf := identity.NewTrust().ClientTLS(k, "h")
			conf.VerifyConnection = nil
			tr := &http.Transport{
				TLSClientConfig: conf, ForceAttemptHTTP2: h2,
				DialContext: func(context.Context, string, string) (net.Conn, error) { return p.dial(), nil },
			}
			resp, err := (&http.Client{Transport: tr}).Post("https://h/long", "", io.MultiReader(bytes.NewReader(make([]byte, 1)), late{}, bytes.NewReader(make([]byte, 9999))))
			must(t, err)
			resp.Body.Close()
			if (resp.ProtoMajor == 2) != h2 {
				t.Errorf("went by %s", resp.Proto)
			}
			tr.CloseIdleConnections()
		}
	})
}

// late is a piece of a body that comes to nothing, after half an hour.
type late struct{}

func (late) Read([]byte) (int, error) {
	time.Sleep(30 * time.Minute)
	return 0, io.EOF
}

// A body that keeps the rate may take as long as it needs, one below is cut, and
// the handler's own delays do not count.
func TestPaced(t *testing.T) {
	for _, c := range []struct {
		name    string
		every   time.Duration // between pieces of 1,000 bytes
		handler time.Duration // between reads
		cut     bool
	}{
		{"fast", time.Second, 0, false},
		{"slow", 3 * time.Second, 0, true},
		{"slow handler", time.Second, time.Minute, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			a, b := net.Pipe()
			done := make(chan struct{})
			go func() {
				defer close(done)
				defer a.Close()
				for range 200 {
					time.Sleep(c.every)
					if _, err := a.Write(make([]byte, 1000)); err != nil {
						return
					}
				}
			}()
			slow := 0
			p := &paced{body: b, rc: b, rate: 1000, grace: 20 * time.Second, slow: func() { slow++ }}
			buf := make([]byte, 1000)
			var err error
			for err == nil {
				_, err = p.Read(buf)
				time.Sleep(c.handler)
			}
			b.Close()
			<-done
			if cut := errors.Is(err, os.ErrDeadlineExceeded); cut != c.cut || (slow == 1) != c.cut {
				t.Errorf("%s: ended by %v after %d bytes", c.name, err, p.n)
			}
		})
	}
}
