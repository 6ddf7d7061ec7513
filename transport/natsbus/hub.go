package natsbus

import (
	"errors"
	"fmt"
	"hash/maphash"
	"log/slog"
	"maps"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/transport/internal/serial"
)

const (
	// lanes is how many requests are handled at once; those of a member keep to one lane and so to their order.
	lanes = 64
	// maxWaiting bounds the bytes of requests that wait for the handler. What comes then is lost, and asked again.
	maxWaiting = 256 << 20
)

// hub is a coordinator's own connection to a NATS server, with all rights there.
type hub struct {
	nc  *nats.Conn
	log *slog.Logger

	handle  atomic.Pointer[func(transport.Request)]
	pace    map[string]*bucket // of each member; only for receive, which is called for one message after the other
	lane    [lanes]serial.Queue
	seed    maphash.Seed
	waiting atomic.Int64

	mu      sync.Mutex
	present map[string]bool
	watch   []func(string, bool)
	events  serial.Queue
	closed  bool

	// What differs between an embedded server and another one.
	says  func(name, id string) // a member says that it is here, over the connection id
	kick  func(name string)
	mute  func(name string) bool // whether what the member says is dropped; may be nil
	close func()
}

func newHub(log *slog.Logger) *hub {
	return &hub{log: log, seed: maphash.MakeSeed(), present: map[string]bool{}, pace: map[string]*bucket{}}
}

// attach starts to take messages from the connection.
func (h *hub) attach(nc *nats.Conn) error {
	h.nc = nc
	sub, err := nc.Subscribe(upAll, h.receive)
	if err != nil {
		return fmt.Errorf("subscribe to the members' messages: %w", err)
	}
	if err := sub.SetPendingLimits(-1, maxWaiting); err != nil {
		return err
	}
	return nc.Flush()
}

// receive is called by the connection for one message after the other.
func (h *hub) receive(m *nats.Msg) {
	name, tok, verb, ok := sender(m.Subject)
	if !ok || len(m.Data) > transport.MaxMessage {
		return
	}
	if id, ok := strings.CutPrefix(verb, here); ok {
		h.says(name, id)
		return
	}
	f := h.handle.Load()
	if verb != sending || f == nil || h.mute != nil && h.mute(name) {
		return
	}
	p := h.pace[name]
	if p == nil {
		p = &bucket{}
		h.pace[name] = p
	}
	if !p.try(time.Now(), memberRate, memberBurst) {
		return
	}
	reply := func([]byte) {}
	if m.Reply != "" {
		// A member may not have its answer sent to somebody else.
		if !strings.HasPrefix(m.Reply, inbox+tok+".") || strings.ContainsAny(m.Reply, "*> \t") {
			h.log.Warn("a member asked for an answer to somebody else", "member", name, "subject", m.Reply)
			return
		}
		var once sync.Once
		reply = func(b []byte) {
			once.Do(func() {
				if len(b) <= transport.MaxMessage {
					_ = h.nc.Publish(m.Reply, b) // the member may be gone: it asks again
				}
			})
		}
	}
	if size := int64(len(m.Data)) + 256; h.waiting.Add(size) > maxWaiting {
		h.waiting.Add(-size)
		return
	}
	h.lane[maphash.String(h.seed, name)%lanes].Do(func() {
		defer h.waiting.Add(-int64(len(m.Data)) - 256)
		(*f)(transport.Request{From: name, Msg: m.Data, Reply: reply})
	})
}

// set notes who is here, and tells the watchers what is news.
func (h *hub) set(name string, is bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.present[name] == is || is && h.closed {
		return
	}
	if is {
		h.present[name] = true
	} else {
		delete(h.present, name)
	}
	watch := slices.Clip(h.watch)
	h.events.Do(func() {
		for _, f := range watch {
			f(name, is)
		}
	})
}

func (h *hub) Push(member string, msg []byte) error {
	if len(msg) > transport.MaxMessage {
		return fmt.Errorf("push %d bytes to %s: %w, at most %d", len(msg), member, transport.ErrTooLarge, transport.MaxMessage)
	}
	h.mu.Lock()
	is, closed := h.present[member], h.closed
	h.mu.Unlock()
	switch {
	case closed:
		return transport.ErrClosed
	case !is:
		return nil
	}
	tok, err := token(member)
	if err != nil {
		return err
	}
	return h.publish(down+tok, msg)
}

func (h *hub) Broadcast(msg []byte) error {
	if len(msg) > transport.MaxMessage {
		return fmt.Errorf("broadcast %d bytes: %w, at most %d", len(msg), transport.ErrTooLarge, transport.MaxMessage)
	}
	h.mu.Lock()
	closed := h.closed
	h.mu.Unlock()
	if closed {
		return transport.ErrClosed
	}
	return h.publish(all, msg)
}

func (h *hub) publish(subject string, msg []byte) error {
	err := h.nc.Publish(subject, msg)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, nats.ErrConnectionClosed):
		return transport.ErrClosed
	default: // between two connections to its own server: what is pushed now is lost
		return fmt.Errorf("%w: %v", transport.ErrDisconnected, err)
	}
}

func (h *hub) Handle(f func(transport.Request)) { h.handle.Store(&f) }

func (h *hub) Present() []string {
	h.mu.Lock()
	defer h.mu.Unlock()
	return slices.Sorted(maps.Keys(h.present))
}

func (h *hub) Watch(f func(string, bool)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watch = append(h.watch, f)
}

func (h *hub) Cut(member string) { h.kick(member) }

func (h *hub) Close() error {
	h.mu.Lock()
	was := h.closed
	h.closed = true
	names := slices.Sorted(maps.Keys(h.present))
	h.mu.Unlock()
	if was {
		return nil
	}
	_ = h.nc.FlushTimeout(time.Second) // the last words
	h.close()
	h.nc.Close()
	for _, name := range names {
		h.set(name, false)
	}
	return nil
}
