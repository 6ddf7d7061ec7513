package natsbus

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/coder/websocket"
	"github.com/nats-io/nats.go"

	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/transport"
)

// Path is where the handler of an embedded server stands on the coordinator's port.
const Path = "/bus"

// DialOptions say how a member connects. URL, Key and Name are needed.
type DialOptions struct {
	// URL is the coordinator's: https://HOST[:PORT], and [Path] if it has no other; or, for a bus outside of the coordinator,
	// tls://HOST[:PORT] or nats://HOST[:PORT], several separated by commas.
	URL  string
	Name string
	Key  identity.Key
	TLS  *tls.Config // how the server is recognised, and this member's certificate; nil: the system's authorities
	// Proxy finds the HTTP proxy; nil: from the environment (HTTPS_PROXY, NO_PROXY).
	Proxy func(*http.Request) (*url.URL, error)
	Log   *slog.Logger

	MaxWait      time.Duration // the longest time between two attempts to connect again; 0: 10 s
	PingInterval time.Duration // two unanswered pings end a connection; 0: 20 s
}

// Dial connects a member. It returns when the first connection stands; while the coordinator cannot be reached, it tries again
// until ctx ends. A member that the coordinator refuses gets [transport.ErrDenied].
//
// The link connects again by itself. Where the bus is the coordinator's own, a refusal is for good; another bus also refuses while
// the coordinator is away, so there the link goes on trying, and its requests return [transport.ErrDenied] meanwhile.
func Dial(ctx context.Context, o DialOptions) (transport.Link, error) {
	if o.Key.IsZero() {
		return nil, errors.New("connect to the coordinator: there is no key")
	}
	def(&o.MaxWait, 10*time.Second)
	def(&o.PingInterval, 20*time.Second)
	l, err := newLink(o.Name, o.Log)
	if err != nil {
		return nil, fmt.Errorf("connect to the coordinator: %w", err)
	}
	options, err := l.options(o.Key, o.MaxWait, o.PingInterval)
	if err != nil {
		return nil, err
	}
	target := o.URL
	if scheme, _, _ := strings.Cut(o.URL, "://"); scheme == "tls" || scheme == "nats" {
		if o.TLS != nil {
			options = append(options, nats.Secure(o.TLS))
		}
		options = append(options, nats.IgnoreAuthErrorAbort())
	} else {
		d, err := newDialer(l, o)
		if err != nil {
			return nil, err
		}
		l.final = true
		target = "nats://" + d.host // where, the dialer knows
		options = append(options, nats.SetCustomDialer(d), nats.SkipHostLookup(), nats.IgnoreDiscoveredServers())
	}
	if err := l.start(ctx, target, o.MaxWait, options); err != nil {
		l.finish(err)
		return nil, err
	}
	return l, nil
}

// dialer makes WebSockets to a coordinator's port.
type dialer struct {
	l      *link
	url    string
	host   string
	client *http.Client
}

func newDialer(l *link, o DialOptions) (*dialer, error) {
	u, err := url.Parse(o.URL)
	if err != nil {
		return nil, fmt.Errorf("address of the coordinator: %w", err)
	}
	switch u.Scheme {
	case "https", "http":
	case "wss":
		u.Scheme = "https"
	case "ws":
		u.Scheme = "http"
	default:
		return nil, fmt.Errorf("address of the coordinator %q: it should be https://HOST[:PORT], tls://HOST[:PORT] or nats://HOST[:PORT]", o.URL)
	}
	if u.Path == "" || u.Path == "/" {
		u.Path = Path
	}
	conf := o.TLS.Clone()
	if conf == nil {
		conf = &tls.Config{MinVersion: tls.VersionTLS13}
	}
	conf.NextProtos = []string{"http/1.1"} // which WebSockets are made of
	if o.Proxy == nil {
		o.Proxy = http.ProxyFromEnvironment
	}
	return &dialer{l: l, url: u.String(), host: u.Host, client: &http.Client{
		Transport:     &http.Transport{Proxy: o.Proxy, TLSClientConfig: conf, DisableKeepAlives: true, TLSHandshakeTimeout: 10 * time.Second},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}, nil
}

// Dial implements [nats.CustomDialer].
func (d *dialer) Dial(_, _ string) (c net.Conn, err error) {
	defer func() {
		d.l.mu.Lock()
		d.l.dialling = err
		d.l.mu.Unlock()
	}()
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	go func() {
		select {
		case <-d.l.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	ws, resp, err := websocket.Dial(ctx, d.url, &websocket.DialOptions{HTTPClient: d.client, Subprotocols: []string{Subprotocol}})
	if err != nil {
		if resp != nil && resp.Body != nil {
			text, _ := io.ReadAll(io.LimitReader(resp.Body, 200))
			return nil, fmt.Errorf("connect to %s: %s: %s", d.url, resp.Status, strings.TrimSpace(string(text)))
		}
		return nil, fmt.Errorf("connect to %s: %w", d.url, err)
	}
	if ws.Subprotocol() != Subprotocol {
		ws.CloseNow()
		return nil, fmt.Errorf("connect to %s: the server does not speak %s", d.url, Subprotocol)
	}
	return &conn{Conn: websocket.NetConn(context.Background(), ws, websocket.MessageBinary), ws: ws, l: d.l}, nil
}

// conn is a WebSocket as a connection of bytes.
type conn struct {
	net.Conn
	ws *websocket.Conn
	l  *link
}

func (c *conn) Read(p []byte) (int, error) {
	n, err := c.Conn.Read(p)
	if err != nil && websocket.CloseStatus(err) == statusReplaced {
		c.l.finish(transport.ErrReplaced)
	}
	return n, err
}

// Close does not wait for the other end.
func (c *conn) Close() error { return c.ws.CloseNow() }
