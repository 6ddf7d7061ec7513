package natsbus

import (
	"context"
	"crypto/tls"
	"errors"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/transport/transporttest"
)

// roster is who is admitted.
type roster struct {
	mu     sync.Mutex
	keys   map[string]identity.Key
	names  map[identity.Public]string
	denied map[string]bool
}

func newRoster() *roster {
	return &roster{keys: map[string]identity.Key{}, names: map[identity.Public]string{}, denied: map[string]bool{}}
}

// key returns a member's key, made when it is first asked for.
func (r *roster) key(t testing.TB, name string) identity.Key {
	t.Helper()
	r.mu.Lock()
	defer r.mu.Unlock()
	k, ok := r.keys[name]
	if !ok {
		var err error
		if k, err = identity.NewKey(); err != nil {
			t.Fatal(err)
		}
		r.keys[name] = k
		r.names[k.Public()] = name
	}
	return k
}

func (r *roster) admit(p identity.Public) (string, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	name, ok := r.names[p]
	return name, ok && !r.denied[name]
}

func (r *roster) deny(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.denied[name] = true
}

// house is a coordinator's port with a bus behind it.
type house struct {
	*roster
	bus  *Server
	http *httptest.Server
	tls  *tls.Config
}

func open(t testing.TB, o Options) *house {
	t.Helper()
	h := &house{roster: newRoster()}
	if o.Admit == nil {
		o.Admit = h.admit
	}
	var err error
	if h.bus, err = NewServer(o); err != nil {
		t.Fatal(err)
	}
	mux := http.NewServeMux()
	mux.Handle(Path, h.bus.Handler())
	h.http = httptest.NewTLSServer(mux)
	h.tls = h.http.Client().Transport.(*http.Transport).TLSClientConfig
	return h
}

func (h *house) close() {
	h.bus.Hub().Close()
	h.http.Close()
}

func (h *house) dial(t testing.TB, name string) (transport.Link, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	return Dial(ctx, DialOptions{URL: h.http.URL, Name: name, Key: h.key(t, name), TLS: h.tls})
}

// lose ends the connection of a member as a network does.
func (h *house) lose(name string) {
	h.bus.mu.Lock()
	b := h.bus.members[name]
	h.bus.mu.Unlock()
	if b != nil {
		b.ws.CloseNow()
	}
}

// refused is the link of a member that got none.
type refused struct{ err error }

func (r refused) Request(context.Context, []byte) ([]byte, error) { return nil, r.err }
func (r refused) Send([]byte) error                               { return r.err }
func (r refused) Receive(func([]byte))                            {}
func (r refused) OnState(f func(bool))                            {}
func (r refused) Close() error                                    { return nil }

func TestEmbedded(t *testing.T) {
	transporttest.Run(t, func(t testing.TB) transporttest.Fixture {
		h := open(t, Options{})
		return transporttest.Fixture{
			Hub: h.bus.Hub(),
			Dial: func(t testing.TB, name string) transport.Link {
				l, err := h.dial(t, name)
				if errors.Is(err, transport.ErrDenied) {
					return refused{err}
				}
				if err != nil {
					t.Fatalf("dial %s: %v", name, err)
				}
				return l
			},
			Deny:  h.deny,
			Break: h.lose,
			Close: h.close,
		}
	})
}
