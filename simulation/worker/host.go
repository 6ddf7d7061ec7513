package worker

import (
	"context"
	"crypto/hmac"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"time"
	"unicode"

	"github.com/cohort-learning/cohort/blob"
	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/simulation"
)

// Options are those of a host.
type Options struct {
	Listen  string // address to listen on, HOST:PORT; port 0 takes a free one
	Machine Machine
	Run     Run
	// Silence is how long a worker may neither send nor take anything until it is given up; 0 means 20 seconds. A worker tells
	// four times as often that it is there.
	Silence time.Duration
	// Tell, if not nil, is called with a line for people when a worker comes, goes or is turned away. Calls may overlap.
	Tell func(line string)
}

// Validate returns an error that says which option is wrong.
func (o Options) Validate() error {
	switch {
	case o.Silence < 0:
		return fmt.Errorf("silence %v is negative", o.Silence)
	case o.Run.Like == nil:
		return errors.New("the run does not say what its data are like")
	}
	if _, _, err := net.SplitHostPort(o.Listen); err != nil {
		return fmt.Errorf("%q is not HOST:PORT, such as :7443: %w", o.Listen, err)
	}
	return formOf(o.Run.Like).check()
}

const (
	defaultSilence = 20 * time.Second
	// strangers is how many connections may be open that have not proved anything.
	strangers = 64
	// introduction is how long one may take to do so.
	introduction = 10 * time.Second
)

// Tally is what one worker did for a run.
type Tally struct {
	Name     string `json:"name"`
	Threads  int    `json:"threads"`
	Clients  int    `json:"clients"`  // answers that came from it
	Given    int    `json:"given"`    // tasks it was lost with, which others computed
	Sent     int64  `json:"sent"`     // bytes to it
	Received int64  `json:"received"` // bytes from it
}

// Host is the side of a simulation that workers come to. Its methods are safe for concurrent use.
type Host struct {
	o       Options
	welcome []byte
	offers  offers // of the welcome
	creds   credentials
	l       net.Listener
	address Address
	names   *catalogue
	wg      sync.WaitGroup
	sending func(blob.Hash) // for tests; may be nil

	mu      sync.Mutex
	pool    *simulation.Pool
	guests  map[string]*guest // by ID, those that are connected
	order   []string          // IDs in the order of their coming
	tallies map[string]*Tally
	open    map[net.Conn]bool // of strangers
	wrong   bool
	closed  bool
}

// Listen opens a host. It has no work to give until [Host.Lend].
func Listen(o Options) (*Host, error) {
	if err := o.Validate(); err != nil {
		return nil, fmt.Errorf("listening for workers: %w", err)
	}
	if o.Silence == 0 {
		o.Silence = defaultSilence
	}
	o.Machine = o.Machine.here()
	h := &Host{o: o, offers: offers{}, names: newCatalogue(), guests: map[string]*guest{}, tallies: map[string]*Tally{},
		open: map[net.Conn]bool{}}
	w := welcome{Seed: o.Run.Seed, Recipe: string(o.Run.Recipe), Like: formOf(o.Run.Like)}
	if o.Run.Start != nil {
		start, err := h.names.set(*o.Run.Start, 0, h.offers)
		if err != nil {
			return nil, fmt.Errorf("initial weights: %w", err)
		}
		w.Start = &start
	}
	var err error
	if h.welcome, err = json.Marshal(w); err != nil {
		return nil, fmt.Errorf("describing the run to workers: %w", err)
	}
	if h.creds, err = newCredentials(); err != nil {
		return nil, err
	}
	if h.l, err = net.Listen("tcp", o.Listen); err != nil {
		return nil, fmt.Errorf("listening for workers: %w", err)
	}
	h.address = Address{Host: reachable(h.l.Addr()), Secret: h.creds.secret, Fingerprint: identity.FingerprintOf(h.creds.cert.Leaf)}
	h.wg.Go(h.accept)
	return h, nil
}

// Address returns what workers need to come. Where the host listens on all interfaces it names one of them.
func (h *Host) Address() Address { return h.address }

// Lend gives a run's pool to the workers that are there and to those that come: a [simulation.Job]'s Elsewhere.
func (h *Host) Lend(p *simulation.Pool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.pool = p
	for _, g := range h.guests {
		p.Add(g, g.threads)
	}
}

// Tallies returns what workers did so far, in the order of their coming.
func (h *Host) Tallies() []Tally {
	h.mu.Lock()
	defer h.mu.Unlock()
	var out []Tally
	for _, id := range h.order {
		t := *h.tallies[id]
		if g := h.guests[id]; g != nil {
			t.Sent += g.link.out.Load()
			t.Received += g.link.in.Load()
		}
		out = append(out, t)
	}
	return out
}

// Close tells the workers that the run is over and waits until all connections have ended. A second call does nothing.
func (h *Host) Close() error {
	h.mu.Lock()
	if h.closed {
		h.mu.Unlock()
		h.wg.Wait()
		return nil
	}
	h.closed = true
	guests := make([]*guest, 0, len(h.guests))
	for _, g := range h.guests {
		guests = append(guests, g)
	}
	for c := range h.open {
		_ = c.Close()
	}
	h.mu.Unlock()
	err := h.l.Close()
	for _, g := range guests {
		// A worker that hears it closes the connection; one that does not gives up by itself.
		late := time.AfterFunc(grace, func() { g.end(errors.New("the run is over"), "") })
		defer late.Stop()
		h.wg.Go(func() { _ = g.link.send(kindBye, []byte("the run is over")) })
	}
	h.wg.Wait()
	return err
}

func (h *Host) tell(format string, args ...any) {
	if h.o.Tell != nil {
		h.o.Tell(fmt.Sprintf(format, args...))
	}
}

// accept takes connections until the listener is closed.
func (h *Host) accept() {
	for {
		c, err := h.l.Accept()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil { // of one connection, or too many open files
			time.Sleep(100 * time.Millisecond)
			continue
		}
		h.mu.Lock()
		full := h.closed || len(h.open) >= strangers
		if !full {
			h.open[c] = true
		}
		h.mu.Unlock()
		if full {
			_ = c.Close()
			continue
		}
		h.wg.Go(func() { h.receive(c) })
	}
}

// receive is one connection, from its beginning to its end.
func (h *Host) receive(c net.Conn) {
	g, err := h.introduce(c)
	h.mu.Lock()
	delete(h.open, c)
	first := err != nil && !h.wrong && !h.closed
	h.wrong = h.wrong || err != nil
	h.mu.Unlock()
	if err != nil {
		_ = c.Close()
		if first {
			h.tell("somebody at %s was turned away: %v (later ones are not told of)", c.RemoteAddr(), err)
		}
		return
	}
	if g == nil { // it was told why
		_ = c.Close()
		return
	}
	why := g.serve()
	_ = c.Close()
	h.leave(g, why)
}

// introduce makes sure that the other side has the secret and computes the same bits. It returns nil without an error if it
// does not.
func (h *Host) introduce(c net.Conn) (*guest, error) {
	late := time.AfterFunc(introduction, func() { _ = c.Close() })
	defer late.Stop()
	conn := tls.Server(c, h.creds.server())
	if err := conn.HandshakeContext(context.Background()); err != nil {
		return nil, err
	}
	l := &link{c: conn, silence: min(introduction, h.o.Silence)}
	k, b, err := l.receive(maxHello)
	if err != nil {
		return nil, err
	}
	if k != kindHello {
		return nil, fmt.Errorf("it began with a frame of kind %d", k)
	}
	proof, who, err := decodeHello(b)
	if err != nil {
		return nil, err
	}
	mine, err := prove(h.creds.secret, conn)
	if err != nil {
		return nil, err
	}
	if !hmac.Equal(proof, mine) {
		_ = l.send(kindRefusal, []byte("the token is not that of this simulation"))
		return nil, errors.New("wrong token")
	}
	name := presentable(who.Name)
	refuse := ""
	if who.Protocol != Protocol {
		refuse = fmt.Sprintf("the simulation speaks version %d of the protocol, the worker version %d: use the same cohort on both", Protocol, who.Protocol)
	} else {
		refuse = h.o.Machine.differs(who.Machine)
	}
	if refuse != "" {
		h.tell("worker %s was turned away: %s", name, refuse)
		return nil, l.send(kindRefusal, []byte(refuse))
	}
	if err := l.send(kindWelcome, h.welcome); err != nil {
		return nil, err
	}
	l.silence = h.o.Silence
	g := &guest{h: h, link: l, name: name, id: who.ID, threads: who.Threads, calls: map[uint64]*call{0: {offers: h.offers}}, ended: make(chan struct{})}
	return h.admit(g), nil
}

// presentable makes a worker's name fit for a line on a terminal.
func presentable(name string) string {
	name = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != ' ' {
			return r
		}
		return -1
	}, name)
	if r := []rune(name); len(r) > 64 {
		name = string(r[:64])
	}
	if name == "" {
		return "worker"
	}
	return name
}

// admit gives a worker its share of the work; nil if the host has been closed meanwhile.
func (h *Host) admit(g *guest) *guest {
	old, back, ok := h.enter(g)
	if !ok {
		return nil
	}
	word := "is here"
	if back {
		word = "is back"
	}
	h.tell("worker %s %s: %s", g.name, word, threads(g.threads))
	if old != nil {
		old.end(errors.New("it has come back"), "")
	}
	return g
}

// enter books a worker that comes, and returns its old connection if that is dead and only this side has not noticed.
func (h *Host) enter(g *guest) (old *guest, back, ok bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed {
		return nil, false, false
	}
	t, back := h.tallies[g.id]
	if !back {
		taken := func(n string) bool {
			return slices.ContainsFunc(h.order, func(id string) bool { return h.tallies[id].Name == n })
		}
		for name, i := g.name, 2; taken(g.name); i++ {
			g.name = fmt.Sprintf("%s-%d", name, i)
		}
		t = &Tally{Name: g.name}
		h.tallies[g.id] = t
		h.order = append(h.order, g.id)
	}
	g.name, t.Threads = t.Name, g.threads
	if old = h.guests[g.id]; old != nil {
		h.settle(old)
	}
	h.guests[g.id] = g
	if h.pool != nil {
		h.pool.Add(g, g.threads)
	}
	return old, back, true
}

func threads(n int) string {
	if n == 1 {
		return "1 thread"
	}
	return fmt.Sprintf("%d threads", n)
}

// settle books the bytes of a connection that has ended. The caller holds the lock.
func (h *Host) settle(g *guest) {
	if h.guests[g.id] != g {
		return
	}
	delete(h.guests, g.id)
	t := h.tallies[g.id]
	t.Sent += g.link.out.Load()
	t.Received += g.link.in.Load()
}

// leave takes a worker out whose connection has ended.
func (h *Host) leave(g *guest, why error) {
	lost := g.lost()
	h.mu.Lock()
	h.settle(g)
	closed := h.closed
	if !closed {
		h.tallies[g.id].Given += lost
	}
	h.mu.Unlock()
	if closed {
		return
	}
	given := ""
	switch {
	case lost == 1:
		given = "; its client is given to another"
	case lost > 1:
		given = fmt.Sprintf("; its %d clients are given to others", lost)
	}
	h.tell("worker %s is gone: %v%s", g.name, why, given)
}

// count books an answer.
func (h *Host) count(g *guest) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tallies[g.id].Clients++
}

// unknown is the error of a worker that asks for what it was not offered.
func unknown(h blob.Hash) error {
	return fmt.Errorf("it asked for content %s, which it was not offered", h.Short())
}
