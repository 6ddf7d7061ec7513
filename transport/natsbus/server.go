package natsbus

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"

	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/transport"
)

// Options of an embedded server. Admit is needed; the zero value of all others is useful.
type Options struct {
	// Admit says whose key that is, and whether the member may connect. It is asked for every connection, by many goroutines.
	Admit func(identity.Public) (name string, ok bool)
	// Who says which member an HTTP request comes from, if the listener knows (by its TLS client certificate). A
	// connection of one member within a request of another is refused.
	Who func(*http.Request) (name string, ok bool)
	Log *slog.Logger // nil: nothing is logged

	MaxConnections int           // at once; 0: 20,000
	MaxUnknown     int           // of them not yet admitted; 0: 512
	MaxPending     int64         // bytes that may wait for a slow member before it is cut; 0: 64 MiB
	AuthTimeout    time.Duration // to prove who one is; 0: 10 s
	WriteTimeout   time.Duration // after which a member that takes nothing is cut; 0: 10 s
	PingInterval   time.Duration // a member that leaves two pings unanswered is cut; 0: 30 s
}

func (o Options) defaults() Options {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	def(&o.MaxConnections, 20000)
	def(&o.MaxUnknown, 512)
	def(&o.MaxPending, 64<<20)
	def(&o.AuthTimeout, 10*time.Second)
	def(&o.WriteTimeout, 10*time.Second)
	def(&o.PingInterval, 30*time.Second)
	return o
}

func def[T comparable](v *T, d T) {
	var zero T
	if *v == zero {
		*v = d
	}
}

// headroom is how much larger than the largest message a payload may be.
const headroom = 1 << 10

// Server is an embedded NATS server that is reached through its [Server.Handler] only.
type Server struct {
	o      Options
	nats   *server.Server
	hub    *hub
	secret string // by which the coordinator's own connection is known

	mu      sync.Mutex
	bridges map[uint64]*bridge // by the NATS server's number of the connection
	members map[string]*bridge // the newest of each member
	unknown int
	open    int
	closed  bool
	wg      sync.WaitGroup // a connection's two directions
}

// NewServer starts an embedded server. Its Hub must be closed.
func NewServer(o Options) (*Server, error) {
	if o.Admit == nil {
		return nil, errors.New("embedded bus: nobody says who is admitted (Options.Admit)")
	}
	o = o.defaults()
	s := &Server{o: o, secret: rand.Text(), hub: newHub(o.Log), bridges: map[uint64]*bridge{}, members: map[string]*bridge{}}
	ns, err := server.NewServer(&server.Options{
		ServerName:                 "cohort",
		DontListen:                 true,
		NoLog:                      true,
		NoSigs:                     true,
		NoSystemAccount:            true,
		AlwaysEnableNonce:          true,
		CustomClientAuthentication: authenticator{s},
		AuthTimeout:                o.AuthTimeout.Seconds(),
		MaxConn:                    o.MaxConnections + 8,
		MaxSubs:                    16,
		MaxPayload:                 transport.MaxMessage + headroom,
		MaxPending:                 o.MaxPending,
		WriteDeadline:              o.WriteTimeout,
		PingInterval:               o.PingInterval,
		MaxPingsOut:                2,
		MaxClosedClients:           16,
		NoFastProducerStall:        true, // the coordinator never waits for a slow member
		DisableShortFirstPing:      true,
	})
	if err != nil {
		return nil, fmt.Errorf("embedded bus: %w", err)
	}
	s.nats = ns
	ns.Start()
	if !ns.ReadyForConnections(10 * time.Second) {
		ns.Shutdown()
		return nil, errors.New("embedded bus: the server did not start")
	}
	nc, err := nats.Connect("", nats.InProcessServer(ns), nats.UserInfo("coordinator", s.secret), nats.Name("coordinator"),
		nats.MaxReconnects(-1), nats.ReconnectWait(10*time.Millisecond), nats.ReconnectBufSize(-1), nats.NoEcho(),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { o.Log.Warn("bus", "error", err) }))
	if err == nil {
		s.hub.says, s.hub.kick, s.hub.close = s.says, s.kick, s.shutdown
		err = s.hub.attach(nc)
	}
	if err != nil {
		ns.Shutdown()
		return nil, fmt.Errorf("embedded bus: the coordinator's own connection: %w", err)
	}
	return s, nil
}

// Hub returns the coordinator's end, always the same. Closing it ends the server.
func (s *Server) Hub() transport.Hub { return s.hub }

// authenticator is a Server as the NATS server's authentication.
type authenticator struct{ *Server }

// Check admits a connection or refuses it. It is called when a client has said CONNECT.
func (s authenticator) Check(c server.ClientAuthentication) bool {
	o := c.GetOpts()
	s.mu.Lock()
	b := s.bridges[c.GetID()]
	s.mu.Unlock()
	if b == nil { // not through the Handler: our own
		if o.Username != "coordinator" || subtle.ConstantTimeCompare([]byte(o.Password), []byte(s.secret)) != 1 {
			return false
		}
		c.RegisterUser(&server.User{Username: "coordinator"})
		return true
	}
	name, err := s.prove(o, c.GetNonce())
	if err == nil && b.who != "" && b.who != name {
		err = fmt.Errorf("the TLS certificate is that of %s", b.who)
	}
	var tok string
	if err == nil {
		tok, err = token(name)
	}
	if err == nil {
		err = s.enter(b, name)
	}
	if err != nil {
		s.o.Log.Info("a connection is refused", "remote", b.remote, "name", name, "reason", err)
		return false
	}
	c.RegisterUser(&server.User{Username: name, Permissions: rights(tok)})
	return true
}

// prove checks that the other end holds the private key of a member.
func (s *Server) prove(o *server.ClientOpts, nonce []byte) (name string, err error) {
	if o.Nkey == "" || len(nonce) == 0 {
		return "", errors.New("it shows no key")
	}
	key, err := identity.ParsePublic(o.Nkey)
	if err != nil {
		return "", err
	}
	sig, err := base64.RawURLEncoding.DecodeString(o.Sig)
	if err != nil || !key.Verify(nonce, sig) {
		return "", fmt.Errorf("the signature of the nonce is not that of %s", key.Short())
	}
	name, ok := s.o.Admit(key)
	if !ok {
		return "", fmt.Errorf("%s is not admitted", key.Short())
	}
	return name, nil
}

// enter makes a connection the member's present one.
func (s *Server) enter(b *bridge, name string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case b.name != "":
		return errors.New("it said who it is already")
	case b.ended || s.closed:
		return errors.New("it has ended")
	}
	b.name = name
	s.unknown--
	old := s.members[name]
	s.members[name] = b
	if old != nil {
		go old.end(statusReplaced, "another connection of this member")
	}
	return nil
}

// says is called when a member says that it is here. What an older connection of the member said last does not count.
func (s *Server) says(name, id string) {
	id, _, _ = strings.Cut(id, ".") // the server is this one
	n, err := strconv.ParseUint(id, 10, 64)
	s.mu.Lock()
	defer s.mu.Unlock()
	if b := s.members[name]; err == nil && b != nil && b.id == n {
		s.hub.set(name, true)
	}
}

func (s *Server) kick(name string) {
	s.mu.Lock()
	b := s.members[name]
	s.mu.Unlock()
	if b != nil {
		b.end(statusCut, "cut by the coordinator")
	}
}

// leave forgets a connection.
func (s *Server) leave(b *bridge) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open--
	delete(s.bridges, b.id)
	if b.name == "" {
		s.unknown--
	} else if s.members[b.name] == b {
		delete(s.members, b.name)
		s.hub.set(b.name, false)
	}
}

func (s *Server) shutdown() {
	s.mu.Lock()
	s.closed = true
	var open []*bridge
	for _, b := range s.bridges {
		open = append(open, b)
	}
	s.mu.Unlock()
	for _, b := range open {
		b.end(statusGoingAway, "the coordinator ends")
	}
	s.nats.Shutdown()
	s.nats.WaitForShutdown()
	s.wg.Wait()
}
