package natsbus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/transport/internal/serial"
)

// link is a member's connection.
type link struct {
	name, tok string
	log       *slog.Logger
	final     bool // a refusal is for good

	nc     *nats.Conn
	msgs   chan *nats.Msg
	states serial.Queue
	done   chan struct{} // closed by finish
	wg     sync.WaitGroup

	mu        sync.Mutex
	connected bool
	id        string // of the connection
	end       error  // for good
	denied    bool   // the last attempt was refused
	dialling  error  // why the last dialling failed
	lost      context.Context
	lose      context.CancelFunc
	state     func(bool)
	receive   func([]byte)
	set       chan struct{} // closed when receive is set
}

// backlog is how many messages may wait for a member's handler; what comes then is lost.
const backlog = 1024

func newLink(name string, log *slog.Logger) (*link, error) {
	tok, err := token(name)
	if err != nil {
		return nil, err
	}
	if log == nil {
		log = slog.New(slog.DiscardHandler)
	}
	l := &link{name: name, tok: tok, log: log, msgs: make(chan *nats.Msg, backlog), done: make(chan struct{}), set: make(chan struct{})}
	l.lost, l.lose = context.WithCancel(context.Background())
	l.lose()
	return l, nil
}

// options are those that every member's connection has.
func (l *link) options(key identity.Key, backoff, ping time.Duration) ([]nats.Option, error) {
	pair, err := key.NKey()
	if err != nil {
		return nil, fmt.Errorf("the member's key as NKey: %w", err)
	}
	public, err := pair.PublicKey()
	if err != nil {
		return nil, fmt.Errorf("the member's key as NKey: %w", err)
	}
	return []nats.Option{
		nats.Name(l.name),
		nats.Nkey(public, func(nonce []byte) ([]byte, error) {
			if !isNonce(nonce) {
				return nil, errors.New("the server wants a signature of something else than a nonce")
			}
			return key.Sign(nonce), nil
		}),
		nats.CustomInboxPrefix(inbox + l.tok),
		nats.NoEcho(),
		nats.MaxReconnects(-1),
		nats.CustomReconnectDelay(func(n int) time.Duration { return delay(n, backoff, rand.Float64()) }),
		nats.ReconnectBufSize(-1), // what cannot be sent is not kept: its sender knows better
		nats.PingInterval(ping),
		nats.MaxPingsOutstanding(2),
		nats.Timeout(10 * time.Second),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { l.is(false, err) }),
		nats.ConnectHandler(func(nc *nats.Conn) { l.arrive(nc) }),
		nats.ReconnectHandler(func(nc *nats.Conn) { l.arrive(nc) }),
		nats.ReconnectErrHandler(func(_ *nats.Conn, err error) { l.failed(err) }),
		nats.ClosedHandler(func(*nats.Conn) { l.is(false, nil) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
			switch {
			case errors.Is(err, nats.ErrAuthorization):
				l.failed(err)
				return
			case errors.Is(err, nats.ErrPermissionViolation): // of the subjects that are this member's
				l.finish(fmt.Errorf("%w: the key is not that of %s", transport.ErrDenied, l.name))
				return
			}
			l.log.Debug("bus", "error", err)
		}),
	}, nil
}

// isNonce reports whether b can only be a nonce: the same key signs messages, which have other characters and more of them.
func isNonce(b []byte) bool {
	if len(b) < 8 || len(b) > 64 {
		return false
	}
	for _, c := range b {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '-' || c == '_' || c == '=' || c == '+' || c == '/') {
			return false
		}
	}
	return true
}

// delay is how long to wait before the nth attempt in a row, from 1: a quarter of a second, doubled each time up to most, of
// which a random part (x from 0 to 1) is cut off, so that ten thousand members do not come back at once.
func delay(n int, most time.Duration, x float64) time.Duration {
	d := most
	if n < 16 {
		d = min(most, 250*time.Millisecond<<max(n-1, 0))
	}
	return d - time.Duration(x*.75*float64(d))
}

// start connects: it returns when the first connection stands, or will never.
func (l *link) start(ctx context.Context, url string, backoff time.Duration, options []nats.Option) error {
	for n := 1; ; n++ {
		nc, err := nats.Connect(url, options...)
		if err == nil {
			if err = l.subscribe(nc); err == nil {
				return nil
			}
			nc.Close()
		}
		switch {
		case errors.Is(err, nats.ErrAuthorization) && l.final:
			return fmt.Errorf("member %s: %w", l.name, transport.ErrDenied)
		case l.ended() != nil:
			return l.ended()
		}
		l.mu.Lock()
		if l.dialling != nil && errors.Is(err, nats.ErrNoServers) {
			err = l.dialling // says more
		}
		l.mu.Unlock()
		l.log.Info("the coordinator cannot be reached", "error", err)
		wait := time.NewTimer(delay(n, backoff, rand.Float64()))
		select {
		case <-ctx.Done():
			wait.Stop()
			if errors.Is(err, nats.ErrAuthorization) {
				return fmt.Errorf("member %s: %w", l.name, transport.ErrDenied)
			}
			return fmt.Errorf("connect member %s: %w; %v", l.name, err, context.Cause(ctx))
		case <-wait.C:
		}
	}
}

func (l *link) subscribe(nc *nats.Conn) error {
	for _, subject := range []string{down + l.tok, all} {
		if _, err := nc.ChanSubscribe(subject, l.msgs); err != nil {
			return fmt.Errorf("subscribe to %s: %w", subject, err)
		}
	}
	l.mu.Lock()
	l.nc = nc
	l.mu.Unlock()
	l.wg.Go(l.deliver)
	l.arrive(nc)
	return nil
}

// arrive tells the coordinator, after the subscriptions, that the member is here.
func (l *link) arrive(nc *nats.Conn) {
	l.mu.Lock()
	known := l.nc == nc
	l.mu.Unlock()
	if !known {
		return // before subscribe
	}
	if l.here(nc) {
		l.is(true, nil)
	}
}

// here says that the member is here.
func (l *link) here(nc *nats.Conn) bool {
	number, err := nc.GetClientID()
	if err != nil {
		return false
	}
	id := connection(number, nc.ConnectedServerId())
	l.mu.Lock()
	l.id = id
	l.mu.Unlock()
	return nc.Publish("up."+l.tok+here+id, nil) == nil
}

// is notes and tells the state of the connection.
func (l *link) is(connected bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		l.log.Info("the connection is lost", "error", err)
	}
	if connected == l.connected || connected && l.end != nil {
		return
	}
	l.connected, l.denied = connected, false
	if connected {
		l.lost, l.lose = context.WithCancel(context.Background())
	} else {
		l.lose()
	}
	l.tell(connected)
}

func (l *link) tell(connected bool) {
	if f := l.state; f != nil {
		l.states.Do(func() { f(connected) })
	}
}

// failed is called when an attempt to connect again has failed.
func (l *link) failed(err error) {
	l.log.Info("the coordinator cannot be reached", "error", err)
	if !errors.Is(err, nats.ErrAuthorization) {
		l.mu.Lock()
		l.denied = false
		l.mu.Unlock()
		return
	}
	if l.final {
		l.finish(transport.ErrDenied)
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.denied {
		l.denied = true
		l.tell(false)
	}
}

// finish ends the link for good.
func (l *link) finish(why error) {
	l.mu.Lock()
	if l.end != nil {
		if why == transport.ErrClosed {
			l.end = why
		}
		l.mu.Unlock()
		return
	}
	l.end = why
	was, nc := l.connected, l.nc
	l.connected = false
	l.lose()
	if was || why != transport.ErrClosed {
		l.tell(false)
	}
	close(l.done)
	l.mu.Unlock()
	if nc != nil {
		go nc.Close() // may be within one of its callbacks
	}
}

func (l *link) ended() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.end
}

// deliver hands out what the coordinator pushes. What comes before there is a handler waits for it.
func (l *link) deliver() {
	set := l.set
	var early [][]byte
	hand := func(msg []byte) {
		l.mu.Lock()
		f := l.receive
		l.mu.Unlock()
		if f != nil && set == nil {
			f(msg)
		} else if len(early) < backlog {
			early = append(early, msg)
		}
	}
	for {
		select {
		case m := <-l.msgs:
			if !l.internal(m) {
				hand(m.Data)
			}
		case <-set:
			set = nil
			for _, msg := range early {
				hand(msg)
			}
			early = nil
		case <-l.done:
			return
		}
	}
}

// internal handles what the bus itself says.
func (l *link) internal(m *nats.Msg) bool {
	l.mu.Lock()
	nc, id := l.nc, l.id
	l.mu.Unlock()
	switch {
	case len(m.Data) > 0:
		return false
	case m.Reply == rollCall:
		l.here(nc)
	case m.Header.Get(headerReplaced) == id:
		l.finish(transport.ErrReplaced)
	case m.Header.Get(headerCut) == id:
		_ = nc.ForceReconnect()
	default:
		return len(m.Header) > 0
	}
	return true
}

// usable returns the connection and a context that ends with it.
func (l *link) usable() (*nats.Conn, context.Context, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.end != nil:
		return nil, nil, l.end
	case l.denied:
		return nil, nil, transport.ErrDenied
	case !l.connected:
		return nil, nil, transport.ErrDisconnected
	}
	return l.nc, l.lost, nil
}

func (l *link) Request(ctx context.Context, msg []byte) ([]byte, error) {
	if len(msg) > transport.MaxMessage {
		return nil, fmt.Errorf("request of %d bytes: %w, at most %d", len(msg), transport.ErrTooLarge, transport.MaxMessage)
	}
	nc, lost, err := l.usable()
	if err != nil {
		return nil, err
	}
	both, cancel := context.WithCancel(ctx)
	defer cancel()
	defer context.AfterFunc(lost, cancel)()
	m, err := nc.RequestWithContext(both, "up."+l.tok+sending, msg)
	switch {
	case err == nil:
		return m.Data, nil
	case ctx.Err() != nil:
		return nil, ctx.Err()
	}
	return nil, l.explain(err)
}

// explain turns the error of a connection into one of a link.
func (l *link) explain(err error) error {
	if _, _, why := l.usable(); why != nil {
		return why
	}
	return fmt.Errorf("%w: %v", transport.ErrDisconnected, err)
}

func (l *link) Send(msg []byte) error {
	if len(msg) > transport.MaxMessage {
		return fmt.Errorf("send %d bytes: %w, at most %d", len(msg), transport.ErrTooLarge, transport.MaxMessage)
	}
	nc, _, err := l.usable()
	if err != nil {
		return err
	}
	if err := nc.Publish("up."+l.tok+sending, msg); err != nil {
		return l.explain(err)
	}
	return nil
}

func (l *link) Receive(f func([]byte)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.receive == nil {
		close(l.set)
	}
	l.receive = f
}

func (l *link) OnState(f func(bool)) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.state = f
	l.tell(l.connected)
}

// Close sends what is on its way and ends the link.
func (l *link) Close() error {
	l.mu.Lock()
	nc, on := l.nc, l.connected
	l.mu.Unlock()
	if on {
		_ = nc.FlushTimeout(time.Second)
	}
	l.finish(transport.ErrClosed)
	if nc != nil {
		nc.Close()
	}
	return nil
}
