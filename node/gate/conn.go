package gate

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cohort-learning/cohort/identity"
)

// A source is an address as far as limits tell them apart: one of IPv4, or the
// /64 of IPv6 that a single customer has.
type source netip.Prefix

func sourceOf(a net.Addr) source {
	t, ok := a.(*net.TCPAddr)
	if !ok {
		return source{}
	}
	ip := t.AddrPort().Addr().Unmap().WithZone("")
	bits := 64
	if ip.Is4() {
		bits = 32
	}
	p, err := ip.Prefix(bits)
	if err != nil {
		return source{}
	}
	return source(p)
}

// A conn is a connection below TLS. It knows when something last moved, and takes
// itself out of the gate's lists when it is closed.
type conn struct {
	net.Conn
	g      *Gate
	source source

	last     atomic.Int64 // time of the last bytes in either direction
	active   atomic.Int32 // requests under way
	hijacked atomic.Bool  // has become a WebSocket
	closed   atomic.Bool
	writeEnd atomic.Int64 // deadline that was asked for; 0: none

	greeting bool // during the handshake; only by its goroutine

	// Set at the end of the handshake, before anybody else sees the connection.
	key   identity.Public
	keyed bool

	name string // of the member, or ""; guarded by g.mu
}

// yield gives the slot of a handshake back while the peer is waited for, and
// resume takes one again.
func (c *conn) yield() {
	if c.greeting {
		<-c.g.slots
	}
}

func (c *conn) resume() {
	if c.greeting {
		c.g.slots <- struct{}{}
	}
}

func (c *conn) Read(b []byte) (int, error) {
	c.yield()
	n, err := c.Conn.Read(b)
	c.resume()
	if n > 0 {
		c.last.Store(time.Now().UnixNano())
	}
	return n, err
}

// Write fails if the peer does not take all of b within the time limit.
func (c *conn) Write(b []byte) (int, error) {
	end := time.Now().Add(c.g.limit.Write)
	if asked := c.writeEnd.Load(); asked != 0 && asked < end.UnixNano() {
		end = time.Unix(0, asked)
	}
	if err := c.Conn.SetWriteDeadline(end); err != nil {
		return 0, err
	}
	c.yield()
	n, err := c.Conn.Write(b)
	c.resume()
	if n > 0 {
		c.last.Store(time.Now().UnixNano())
	}
	return n, err
}

func (c *conn) SetWriteDeadline(t time.Time) error {
	if t.IsZero() {
		c.writeEnd.Store(0)
	} else {
		c.writeEnd.Store(t.UnixNano())
	}
	return c.Conn.SetWriteDeadline(t)
}

func (c *conn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetWriteDeadline(t), c.Conn.SetReadDeadline(t))
}

func (c *conn) Close() error {
	if c.closed.Swap(true) {
		return net.ErrClosed
	}
	c.g.forget(c)
	return c.Conn.Close()
}

// drop closes without a farewell, so that the system keeps nothing of it.
func (c *conn) drop() {
	if t, ok := c.Conn.(*net.TCPConn); ok {
		t.SetLinger(0)
	}
	c.Close()
}

// forget takes c off the lists.
func (g *Gate) forget(c *conn) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if _, ok := g.conns[c]; !ok {
		return
	}
	delete(g.conns, c)
	g.unlist(c)
}

// unlist takes c off the list of its kind. The caller holds mu.
func (g *Gate) unlist(c *conn) {
	if c.name == "" {
		delete(g.strangers, c)
		if g.perAddr[c.source]--; g.perAddr[c.source] <= 0 {
			delete(g.perAddr, c.source)
		}
		return
	}
	delete(g.byName[c.name], c)
	if len(g.byName[c.name]) == 0 {
		delete(g.byName, c.name)
	}
}

// list puts c on the list of strangers, if name is empty, or of that member. The
// caller holds mu.
func (g *Gate) list(c *conn, name string) {
	c.name = name
	if name == "" {
		g.strangers[c] = struct{}{}
		g.perAddr[c.source]++
		return
	}
	if g.byName[name] == nil {
		g.byName[name] = make(map[*conn]struct{})
	}
	g.byName[name][c] = struct{}{}
}

// idlest returns the one that has been idle longest of those that are, or nil.
func idlest(conns map[*conn]struct{}, fits func(*conn) bool) (best *conn) {
	for c := range conns {
		if c.active.Load() == 0 && fits(c) && (best == nil || c.last.Load() < best.last.Load()) {
			best = c
		}
	}
	return best
}

// enter gives a new connection a place among the strangers, for which an idle one
// may have to go. It returns nil if there is none.
func (g *Gate) enter(raw net.Conn) *conn {
	c := &conn{Conn: raw, g: g, source: sourceOf(raw.RemoteAddr())}
	c.last.Store(time.Now().UnixNano())
	g.mu.Lock()
	defer g.mu.Unlock()
	g.stats.Accepted++
	if g.closing {
		return nil
	}
	room := func(fits func(*conn) bool, refused *uint64) bool {
		old := idlest(g.strangers, fits)
		if old == nil {
			*refused++
			return false
		}
		g.stats.Evicted++
		delete(g.conns, old)
		g.unlist(old)
		go old.drop() // takes mu, which is held here
		return true
	}
	if g.perAddr[c.source] >= g.limit.StrangersPerAddress &&
		!room(func(o *conn) bool { return o.source == c.source }, &g.stats.RefusedAddress) {
		return nil
	}
	if (len(g.strangers) >= g.limit.Strangers || len(g.conns) >= g.limit.Connections) &&
		!room(func(*conn) bool { return true }, &g.stats.RefusedFull) {
		return nil
	}
	g.conns[c] = struct{}{}
	g.list(c, "")
	return c
}

// classify looks up whose connection c is now and lists it accordingly. Fits is
// false if its member has too many.
func (g *Gate) classify(c *conn) (member, fits bool) {
	if !c.keyed {
		return false, true
	}
	name, ok := g.o.Member(c.key)
	if !ok {
		name = ""
	}
	g.mu.Lock()
	_, open := g.conns[c]
	moved := open && c.name != name
	var old *conn
	if moved && ok && len(g.byName[name]) >= g.limit.PerMember {
		if old = idlest(g.byName[name], func(o *conn) bool { return !o.hijacked.Load() }); old == nil {
			g.stats.RefusedMember++
			g.mu.Unlock()
			return true, false
		}
	}
	if moved {
		g.unlist(c)
		g.list(c, name)
	}
	g.mu.Unlock()
	if old != nil {
		old.Close()
	}
	if moved && ok {
		// Revoked between the question and the listing, Cut has not found it.
		_, ok = g.o.Member(c.key)
	}
	return ok, true
}

// Serve accepts connections from l until Shutdown, and then returns
// [http.ErrServerClosed]. It may be called for several listeners.
func (g *Gate) Serve(l net.Listener) error {
	g.mu.Lock()
	if g.closing {
		g.mu.Unlock()
		l.Close()
		return http.ErrServerClosed
	}
	g.listeners = append(g.listeners, l)
	g.mu.Unlock()
	wait := time.Duration(0)
	for {
		raw, err := l.Accept()
		if err != nil {
			g.mu.Lock()
			closing := g.closing
			g.stats.AcceptErrors++
			g.mu.Unlock()
			if closing {
				return http.ErrServerClosed
			}
			if errors.Is(err, net.ErrClosed) {
				return err
			}
			// Most likely too many open files: it passes.
			wait = min(max(2*wait, 5*time.Millisecond), time.Second)
			g.log.Warn("accepting a connection failed; trying again", "err", err, "in", wait)
			time.Sleep(wait)
			continue
		}
		wait = 0
		if c := g.enter(raw); c != nil {
			go g.greet(c)
		} else {
			raw.Close()
		}
	}
}

// greet does the handshake and hands the connection to the server.
func (g *Gate) greet(c *conn) {
	t := tls.Server(c, g.tls)
	err := c.SetDeadline(time.Now().Add(g.limit.Handshake))
	if err == nil {
		g.slots <- struct{}{}
		c.greeting = true
		err = t.Handshake()
		c.greeting = false
		<-g.slots
	}
	if err == nil {
		err = c.SetDeadline(time.Time{})
	}
	if err != nil {
		g.count(func(s *Stats) { s.FailedHandshakes++ })
		var rec tls.RecordHeaderError
		if errors.As(err, &rec) && rec.Conn != nil && looksPlain(rec.RecordHeader[:]) {
			plain(rec.Conn)
		}
		g.log.Debug("handshake failed", "from", c.RemoteAddr(), "err", err)
		c.Close()
		return
	}
	c.key, c.keyed = identity.PeerKey(t.ConnectionState())
	if _, fits := g.classify(c); !fits || !g.queue.put(t) {
		t.Close()
	}
}

func looksPlain(header []byte) bool {
	switch string(header) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO":
		return true
	}
	return false
}

// A queue is the listener that [http.Server] sees: connections after the handshake.
type queue struct {
	conns chan net.Conn
	done  chan struct{}
	once  sync.Once
}

func newQueue() *queue {
	return &queue{conns: make(chan net.Conn), done: make(chan struct{})}
}

func (q *queue) put(c net.Conn) bool {
	select {
	case q.conns <- c:
		return true
	case <-q.done:
		return false
	}
}

func (q *queue) Accept() (net.Conn, error) {
	select {
	case c := <-q.conns:
		return c, nil
	case <-q.done:
		return nil, net.ErrClosed
	}
}

func (q *queue) Close() error {
	q.once.Do(func() { close(q.done) })
	return nil
}

func (q *queue) Addr() net.Addr { return &net.TCPAddr{} }

// A deadliner is the part of [http.ResponseController] that a paced body needs.
type deadliner interface{ SetReadDeadline(time.Time) error }

// A paced body must bring rate bytes for each second that is spent waiting for
// it, after a grace; with rate 0 the grace is all there is. The time in which the
// handler does something else does not count.
type paced struct {
	body   io.ReadCloser
	rc     deadliner
	rate   int64
	grace  time.Duration
	slow   func()
	waited time.Duration
	n      int64
}

func (p *paced) Read(b []byte) (int, error) {
	allowed := p.grace
	if p.rate > 0 {
		allowed += time.Duration(float64(p.n) / float64(p.rate) * float64(time.Second))
	}
	start := time.Now()
	if err := p.rc.SetReadDeadline(start.Add(allowed - p.waited)); err != nil {
		return 0, err
	}
	n, err := p.body.Read(b)
	p.waited += time.Since(start)
	p.n += int64(n)
	// Over HTTP/2 a deadline that passes ends the body even if nobody reads.
	p.rc.SetReadDeadline(time.Time{})
	if errors.Is(err, os.ErrDeadlineExceeded) {
		p.slow()
	}
	return n, err
}

func (p *paced) Close() error { return p.body.Close() }

// seconds writes a duration for Retry-After, rounded up.
func seconds(d time.Duration) string {
	return strconv.Itoa(int((d + time.Second - 1) / time.Second))
}
