package gate

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"log/slog"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"time"

	"github.com/cohort-learning/cohort/identity"
)

// Options say how to open a gate. Certificate and Member are needed.
type Options struct {
	// Certificate is asked at every handshake; see [identity.Source].
	Certificate func() *tls.Certificate
	// Member returns the name of the admitted member with a key. It is asked at
	// every handshake and request and from many goroutines, so it should be quick;
	// see [identity.Roster.Who].
	Member func(identity.Public) (name string, ok bool)
	Limits Limits
	// Log gets what an operator may want to look into; nil means none.
	Log *slog.Logger
}

// Limits bound what a gate spends on others. Zero values mean the defaults.
type Limits struct {
	Connections         int // at once, all together; default 16,384 (the limit of open files has to be above)
	Strangers           int // at once, without a member's key; default 256
	StrangersPerAddress int // of one source address; default 64
	PerMember           int // at once, of one member; default 64
	Handshakes          int // that compute at the same time; default 2 for each processor

	Handshake time.Duration // from accepting to the end of the handshake; default 15 s
	Header    time.Duration // to read the header of a request; default 15 s
	Idle      time.Duration // between requests; default 2 min
	Write     time.Duration // for a peer to take what was written; default 1 min

	HeaderBytes int // default 16 KiB

	BodyRate     int64         // bytes a second that a body must bring on average; default 1,024
	BodyGrace    time.Duration // before that counts; default 20 s
	StrangerBody int64         // greatest body of a stranger's request; default 64 KiB
}

func (l Limits) defaults() Limits {
	return Limits{
		Connections:         cmp.Or(l.Connections, 16<<10),
		Strangers:           cmp.Or(l.Strangers, 256),
		StrangersPerAddress: cmp.Or(l.StrangersPerAddress, 64),
		PerMember:           cmp.Or(l.PerMember, 64),
		Handshakes:          cmp.Or(l.Handshakes, 2*runtime.GOMAXPROCS(0)),
		Handshake:           cmp.Or(l.Handshake, 15*time.Second),
		Header:              cmp.Or(l.Header, 15*time.Second),
		Idle:                cmp.Or(l.Idle, 2*time.Minute),
		Write:               cmp.Or(l.Write, time.Minute),
		HeaderBytes:         cmp.Or(l.HeaderBytes, 16<<10),
		BodyRate:            cmp.Or(l.BodyRate, 1024),
		BodyGrace:           cmp.Or(l.BodyGrace, 20*time.Second),
		StrangerBody:        cmp.Or(l.StrangerBody, 64<<10),
	}
}

// Stats are counts since the gate was made, and, for the first three, now.
type Stats struct {
	Connections int // open now
	Strangers   int // of these, without a member's key
	Members     int // distinct members with an open connection

	Accepted uint64 // connections
	Requests uint64

	RefusedFull      uint64 // connections, since all places were taken by busy ones
	RefusedAddress   uint64 // the same for the places of one address
	RefusedMember    uint64 // connections beyond those that one member may have
	Evicted          uint64 // idle strangers that made room
	FailedHandshakes uint64 // not TLS 1.3, gone away, or too slow
	SlowBodies       uint64 // requests whose body came too slowly
	RefusedNotMember uint64 // requests to what is for members only
	Cut              uint64 // connections ended by Cut
	AcceptErrors     uint64 // such as too many open files
}

// A Gate serves the public port. Its methods may be called from many goroutines.
type Gate struct {
	o     Options
	limit Limits
	log   *slog.Logger
	tls   *tls.Config
	mux   *http.ServeMux
	http  *http.Server
	queue *queue
	slots chan struct{} // one for each handshake that computes

	mu        sync.Mutex // guards what follows
	listeners []net.Listener
	closing   bool
	conns     map[*conn]struct{}
	strangers map[*conn]struct{}
	perAddr   map[source]int                // strangers of each address
	byName    map[string]map[*conn]struct{} // members' connections
	stats     Stats
}

// New makes a gate. It panics if o lacks Certificate or Member.
func New(o Options) *Gate {
	if o.Certificate == nil || o.Member == nil {
		panic("gate: Options need Certificate and Member")
	}
	g := &Gate{
		o: o, limit: o.Limits.defaults(), log: o.Log,
		tls:       identity.ServerTLS(o.Certificate),
		mux:       http.NewServeMux(),
		queue:     newQueue(),
		conns:     make(map[*conn]struct{}),
		strangers: make(map[*conn]struct{}),
		perAddr:   make(map[source]int),
		byName:    make(map[string]map[*conn]struct{}),
	}
	if g.log == nil {
		g.log = slog.New(slog.DiscardHandler)
	}
	g.slots = make(chan struct{}, g.limit.Handshakes)
	g.http = &http.Server{
		Handler:           http.HandlerFunc(g.serve),
		ReadHeaderTimeout: g.limit.Header,
		IdleTimeout:       g.limit.Idle,
		MaxHeaderBytes:    g.limit.HeaderBytes,
		ErrorLog:          slog.NewLogLogger(g.log.Handler(), slog.LevelDebug),
		// A connection keeps a buffer as large as the largest frame that came: with a thousand members this is what a server's
		// memory would be.
		HTTP2: &http.HTTP2Config{MaxConcurrentStreams: 100, MaxReadFrameSize: 16 << 10, MaxReceiveBufferPerStream: 256 << 10,
			MaxReceiveBufferPerConnection: 512 << 10},
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, c.(*tls.Conn).NetConn())
		},
		ConnState: func(c net.Conn, s http.ConnState) {
			if s == http.StateHijacked {
				c.(*tls.Conn).NetConn().(*conn).hijacked.Store(true)
			}
		},
	}
	go func() {
		if err := g.http.Serve(g.queue); !errors.Is(err, http.ErrServerClosed) {
			g.log.Error("the public port stopped serving", "err", err)
		}
	}()
	return g
}

// Handle registers a handler for everybody, by the patterns of [http.ServeMux].
// It asks [Gate.Who] itself if it wants to know. Routes are registered before
// Serve is called.
func (g *Gate) Handle(pattern string, h http.Handler) { g.mux.Handle(pattern, h) }

// HandleMembers registers a handler for members only. Others get status 403.
func (g *Gate) HandleMembers(pattern string, h http.Handler) {
	g.mux.HandleFunc(pattern, func(w http.ResponseWriter, r *http.Request) {
		if _, ok := g.Who(r); !ok {
			g.count(func(s *Stats) { s.RefusedNotMember++ })
			Refuse(w, &Refusal{Code: NotMember, Status: http.StatusForbidden, Message: "this is for members: the connection shows no key of one (it may have been revoked)"})
			return
		}
		h.ServeHTTP(w, r)
	})
}

type connKey struct{}

// Who returns the name of the member that sent a request, as the roster says at
// this moment. It is false for strangers, and for requests that did not come
// through a gate.
func (g *Gate) Who(r *http.Request) (name string, ok bool) {
	c, ok := r.Context().Value(connKey{}).(*conn)
	if !ok || !c.keyed {
		return "", false
	}
	return g.o.Member(c.key)
}

// PeerKey returns the key that the sender of a request has proved to own, be it a
// member's or not.
func PeerKey(r *http.Request) (identity.Public, bool) {
	if r.TLS == nil {
		return identity.Public{}, false
	}
	return identity.PeerKey(*r.TLS)
}

func (g *Gate) count(f func(*Stats)) {
	g.mu.Lock()
	defer g.mu.Unlock()
	f(&g.stats)
}

// Stats returns the counts.
func (g *Gate) Stats() Stats {
	g.mu.Lock()
	defer g.mu.Unlock()
	s := g.stats
	s.Connections, s.Strangers, s.Members = len(g.conns), len(g.strangers), len(g.byName)
	return s
}

// headers are sent with every answer; a handler may replace them. There is no
// Strict-Transport-Security: on a federation's own authority it would keep people
// from ever looking at the page before they trust that.
var headers = map[string]string{
	"X-Content-Type-Options":       "nosniff",
	"X-Frame-Options":              "DENY",
	"Referrer-Policy":              "no-referrer",
	"Content-Security-Policy":      "default-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'; object-src 'none'",
	"Cross-Origin-Opener-Policy":   "same-origin",
	"Cross-Origin-Resource-Policy": "same-origin",
	"Permissions-Policy":           "camera=(), geolocation=(), microphone=()",
	"Cache-Control":                "no-store",
}

// serve is the handler of every request.
func (g *Gate) serve(w http.ResponseWriter, r *http.Request) {
	c := r.Context().Value(connKey{}).(*conn)
	c.active.Add(1)
	defer c.active.Add(-1)
	g.count(func(s *Stats) { s.Requests++ })
	for k, v := range headers {
		w.Header().Set(k, v)
	}
	member, ok := g.classify(c)
	if !ok {
		c.Close() // one connection too many of its member
		panic(http.ErrAbortHandler)
	}
	if r.Body != nil && r.Body != http.NoBody {
		p := &paced{body: r.Body, rc: http.NewResponseController(w), rate: g.limit.BodyRate, grace: g.limit.BodyGrace, slow: func() {
			g.count(func(s *Stats) { s.SlowBodies++ })
		}}
		r.Body = p
		if !member {
			p.rate = 0 // all of it within the grace
			r.Body = http.MaxBytesReader(w, p, g.limit.StrangerBody)
		}
	}
	g.mux.ServeHTTP(w, r)
}

// Cut ends every connection of a member at once, also those that have become
// something else, such as WebSockets, and returns how many there were. Revoke the
// member first: else it connects again.
func (g *Gate) Cut(name string) int {
	g.mu.Lock()
	var cut []*conn
	for c := range g.byName[name] {
		cut = append(cut, c)
	}
	g.stats.Cut += uint64(len(cut))
	g.mu.Unlock()
	for _, c := range cut {
		c.Close()
	}
	return len(cut)
}

// Shutdown stops accepting, waits until the requests under way are done or ctx
// is, and then ends everything that is left. WebSockets are not waited for: their
// handlers are told by their own means before.
func (g *Gate) Shutdown(ctx context.Context) error {
	g.mu.Lock()
	g.closing = true
	listeners := g.listeners
	g.listeners = nil
	g.mu.Unlock()
	var errs []error
	for _, l := range listeners {
		if err := l.Close(); err != nil && !errors.Is(err, net.ErrClosed) {
			errs = append(errs, err)
		}
	}
	errs = append(errs, g.http.Shutdown(ctx))
	g.mu.Lock()
	var rest []*conn
	for c := range g.conns {
		rest = append(rest, c)
	}
	g.mu.Unlock()
	for _, c := range rest {
		c.Close()
	}
	return errors.Join(errs...)
}

// plain answers somebody who speaks HTTP without TLS, as mistyped addresses do.
func plain(c net.Conn) {
	const text = "This port speaks HTTPS: write https:// in the address.\n"
	c.Write([]byte(strings.Join([]string{"HTTP/1.0 400 Bad Request", "Content-Type: text/plain", "Connection: close", "", text}, "\r\n")))
}
