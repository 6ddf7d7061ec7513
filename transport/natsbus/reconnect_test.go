package natsbus

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/transport"
)

// TestRestart: members outlive their coordinator, at the same address, and one that begins before it waits for it.
func TestRestart(t *testing.T) {
	h := open(t, Options{})
	address := h.http.Listener.Addr().String()
	h.bus.Hub().Handle(func(r transport.Request) { r.Reply([]byte("first")) })
	l, err := h.dial(t, "a")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	states := make(chan bool, 100)
	l.OnState(func(on bool) { states <- on })
	got := make(chan string, 100)
	l.Receive(func(msg []byte) { got <- string(msg) })
	if on := <-states; !on {
		t.Error("not connected at first")
	}
	h.close()
	if on := <-states; on {
		t.Error("connected to nobody")
	}
	if _, err := l.Request(t.Context(), nil); !errors.Is(err, transport.ErrDisconnected) {
		t.Errorf("nobody is there: %v", err)
	}
	early := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		b, err := Dial(ctx, DialOptions{URL: "https://" + address, Name: "b", Key: h.key(t, "b"), TLS: h.tls})
		if err == nil {
			b.Close()
		}
		early <- err
	}()
	time.Sleep(300 * time.Millisecond)

	bus, err := NewServer(Options{Admit: h.admit})
	if err != nil {
		t.Fatal(err)
	}
	defer bus.Hub().Close()
	bus.Hub().Handle(func(r transport.Request) { r.Reply([]byte("second")) })
	listener, err := net.Listen("tcp", address)
	if err != nil {
		t.Skip("the port was taken meanwhile: ", err)
	}
	again := httptest.NewUnstartedServer(bus.Handler())
	again.Listener.Close()
	again.Listener = listener
	again.StartTLS()
	defer again.Close()
	if err := <-early; err != nil {
		t.Errorf("who came early: %v", err)
	}
	if on := <-states; !on {
		t.Error("not connected again")
	}
	if b, err := l.Request(t.Context(), nil); err != nil || string(b) != "second" {
		t.Errorf("%q, %v", b, err)
	}
	eventually(t, "a is here", func() bool { return len(bus.Hub().Present()) == 1 })
	if err := bus.Hub().Push("a", []byte("x")); err != nil {
		t.Fatal(err)
	}
	if msg := <-got; msg != "x" {
		t.Errorf("%q", msg)
	}
}

// TestDialErrors: whoever cannot connect is told why.
func TestDialErrors(t *testing.T) {
	h := open(t, Options{})
	defer h.close()
	dial := func(o DialOptions) error {
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		l, err := Dial(ctx, o)
		if err == nil {
			l.Close()
		}
		return err
	}
	key := h.key(t, "a")
	web := httptest.NewTLSServer(http.NotFoundHandler())
	defer web.Close()
	for _, c := range []struct {
		o    DialOptions
		want string
	}{
		{DialOptions{URL: h.http.URL, Name: "a", TLS: h.tls}, "there is no key"},
		{DialOptions{URL: h.http.URL, Name: "", Key: key, TLS: h.tls}, "1 to 64 characters"},
		{DialOptions{URL: "ftp://x", Name: "a", Key: key, TLS: h.tls}, "should be https://"},
		{DialOptions{URL: h.http.URL, Name: "a", Key: key}, "certificate"},
		{DialOptions{URL: web.URL, Name: "a", Key: key, TLS: h.tls}, "404"},
		{DialOptions{URL: "https://127.0.0.1:1", Name: "a", Key: key, TLS: h.tls}, "refused"},
	} {
		if err := dial(c.o); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%+v: %v", c.o.URL, err)
		}
	}
	if err := dial(DialOptions{URL: h.http.URL, Name: "stranger", Key: newRoster().key(t, "x"), TLS: h.tls}); !errors.Is(err, transport.ErrDenied) {
		t.Errorf("a stranger: %v", err)
	}
	// Another name than the key's.
	l, err := Dial(t.Context(), DialOptions{URL: h.http.URL, Name: "b", Key: key, TLS: h.tls})
	if err == nil {
		defer l.Close()
		eventually(t, "it says that the key is not the name's", func() bool {
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			_, err := l.Request(ctx, nil)
			return errors.Is(err, transport.ErrDenied)
		})
	} else if !errors.Is(err, transport.ErrDenied) {
		t.Errorf("another name: %v", err)
	}
	if got := h.bus.Hub().Present(); len(got) != 0 {
		t.Errorf("present: %v", got)
	}
}

// TestProxy connects through an HTTP proxy, which sees no more than where to.
func TestProxy(t *testing.T) {
	h := open(t, Options{})
	defer h.close()
	h.bus.Hub().Handle(func(r transport.Request) { r.Reply(r.Msg) })
	var tunnels atomic.Int32
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodConnect {
			http.Error(w, "only tunnels", http.StatusMethodNotAllowed)
			return
		}
		tunnels.Add(1)
		to, err := net.Dial("tcp", r.Host)
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadGateway)
			return
		}
		from, early, err := http.NewResponseController(w).Hijack()
		if err != nil {
			to.Close()
			return
		}
		io.WriteString(from, "HTTP/1.1 200 OK\r\n\r\n")
		go func() { io.Copy(to, early); to.Close() }()
		io.Copy(from, to)
		from.Close()
	}))
	defer proxy.Close()
	u, err := url.Parse(proxy.URL)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Dial(t.Context(), DialOptions{URL: h.http.URL, Name: "a", Key: h.key(t, "a"), TLS: h.tls, Proxy: http.ProxyURL(u)})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if b, err := l.Request(t.Context(), []byte("x")); err != nil || string(b) != "x" || tunnels.Load() != 1 {
		t.Errorf("%q, %v, %d tunnels", b, err, tunnels.Load())
	}
}
