package natsbus

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/jwt/v2"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/transport"
)

// ExternalOptions say how a coordinator uses a NATS server or cluster that is not its own. The servers are configured with an
// account for the federation, whose user is the coordinator, and with that user as authorisation callout:
//
//	accounts {
//	  COHORT { users = [ { nkey: UCOORDINATOR… } ] }
//	  SYS    { users = [ { nkey: USYSTEM… } ] }
//	}
//	system_account: SYS
//	authorization {
//	  auth_callout { issuer: AISSUER…, account: COHORT, auth_users: [ UCOORDINATOR… ] }
//	}
//
// At least one user with an NKey is needed, so that the servers send a nonce. URLs, Account, Issuer, Connect and Admit are needed.
type ExternalOptions struct {
	URLs    string        // of the servers, separated by commas
	Account string        // "COHORT" above
	Issuer  nkeys.KeyPair // the private key of the callout's issuer, an account's (SA…)
	Connect []nats.Option // the coordinator's credentials there, as NATS has them
	// System are the credentials of a user of the system account. Without, a connection cannot be ended by the coordinator at
	// once, only asked to end (what a revoked member still says is dropped); and that a member has gone is noticed after three
	// Rolls instead of at once.
	System []nats.Option
	Admit  func(identity.Public) (name string, ok bool)
	Log    *slog.Logger
	Roll   time.Duration // how often members are asked whether they are here; 0: 15 s
}

// Headers of messages that the bus itself sends to members.
const (
	headerReplaced = "Cohort-Replaced" // the connection that has to end, as another one of the member took its place
	headerCut      = "Cohort-Cut"      // the connection that has to be made anew
)

// rollCall is the reply subject of an empty message to all: who is here says so again.
const rollCall = "here"

// external is a NATS system that is not ours.
type external struct {
	o   ExternalOptions
	hub *hub
	sys *nats.Conn

	mu      sync.Mutex
	members map[string]*guest
	done    chan struct{}
	wg      sync.WaitGroup
}

// guest is what is known of a member's connections. A connection is named by its number and its server: "12.NSERVER…".
type guest struct {
	conns  map[string]bool // admitted, and not known to have ended
	newest string
	here   string // the connection that has said that it is here
	seen   time.Time
	cut    bool // what it says is dropped until it is admitted again
}

// External returns a hub on NATS servers that somebody else runs.
func External(ctx context.Context, o ExternalOptions) (transport.Hub, error) {
	switch {
	case o.Admit == nil:
		return nil, errors.New("external bus: nobody says who is admitted (ExternalOptions.Admit)")
	case o.Account == "" || o.Issuer == nil:
		return nil, errors.New("external bus: the account and the issuer of its authorisation callout are needed")
	}
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	def(&o.Roll, 15*time.Second)
	x := &external{o: o, hub: newHub(o.Log), members: map[string]*guest{}, done: make(chan struct{})}
	x.hub.says, x.hub.kick, x.hub.close, x.hub.mute = x.says, x.kick, x.close, x.mute
	connect := func(what string, more []nats.Option) (*nats.Conn, error) {
		options := append([]nats.Option{nats.Name("cohort coordinator"), nats.MaxReconnects(-1), nats.ReconnectBufSize(-1), nats.NoEcho(),
			nats.CustomReconnectDelay(func(n int) time.Duration { return delay(n, 2*time.Second, .5) }),
			nats.ReconnectHandler(func(*nats.Conn) { x.call() }),
			nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) {
				o.Log.Warn("external bus", "connection", what, "error", err)
			})}, more...)
		if deadline, ok := ctx.Deadline(); ok {
			options = append(options, nats.Timeout(time.Until(deadline)))
		}
		nc, err := nats.Connect(o.URLs, options...)
		if err != nil {
			return nil, fmt.Errorf("external bus: %s: %w", what, err)
		}
		return nc, nil
	}
	nc, err := connect("the coordinator's connection", o.Connect)
	if err != nil {
		return nil, err
	}
	if _, err = nc.Subscribe("$SYS.REQ.USER.AUTH", x.callout); err != nil {
		nc.Close()
		return nil, fmt.Errorf("external bus: answer the authorisation callout: %w", err)
	}
	if o.System != nil {
		if x.sys, err = connect("the system account", o.System); err == nil {
			_, err = x.sys.Subscribe("$SYS.ACCOUNT."+o.Account+".DISCONNECT", x.disconnected)
		}
		if err == nil {
			err = x.sys.Flush()
		}
		if err != nil {
			nc.Close()
			if x.sys != nil {
				x.sys.Close()
			}
			return nil, err
		}
	}
	if err := x.hub.attach(nc); err != nil {
		nc.Close()
		return nil, fmt.Errorf("external bus: %w", err)
	}
	x.call()
	x.wg.Go(x.roll)
	return x.hub, nil
}

// guest returns what is known of a member. x is locked.
func (x *external) guest(name string) *guest {
	g := x.members[name]
	if g == nil {
		g = &guest{conns: map[string]bool{}}
		x.members[name] = g
	}
	return g
}

// callout answers a server that asks whether a connection is admitted.
func (x *external) callout(m *nats.Msg) {
	req, err := jwt.DecodeAuthorizationRequestClaims(string(m.Data))
	if err != nil {
		x.o.Log.Warn("external bus: a callout is not understood", "error", err)
		return
	}
	answer := jwt.NewAuthorizationResponseClaims(req.UserNkey)
	answer.Audience = req.Server.ID
	name, tok, err := x.prove(req)
	if err == nil {
		user := jwt.NewUserClaims(req.UserNkey)
		user.Name, user.Audience = name, x.o.Account
		r := rights(tok)
		user.Pub.Allow.Add(r.Publish.Allow...)
		user.Sub.Allow.Add(r.Subscribe.Allow...)
		user.Limits.Subs, user.Limits.Payload = 16, transport.MaxMessage+headroom
		answer.Jwt, err = user.Encode(x.o.Issuer)
	}
	if err != nil {
		x.o.Log.Info("a connection is refused", "remote", req.ClientInformation.Host, "name", name, "reason", err)
		answer.Jwt, answer.Error = "", "not admitted"
	} else {
		id := connection(req.ClientInformation.ID, req.Server.ID)
		x.mu.Lock()
		g := x.guest(name)
		g.conns[id], g.newest, g.cut = true, id, false
		x.mu.Unlock()
	}
	text, err := answer.Encode(x.o.Issuer)
	if err == nil {
		err = m.Respond([]byte(text))
	}
	if err != nil {
		x.o.Log.Warn("external bus: answer a callout", "error", err)
	}
}

func connection(id uint64, server string) string { return strconv.FormatUint(id, 10) + "." + server }

func (x *external) prove(req *jwt.AuthorizationRequestClaims) (name, tok string, err error) {
	o, nonce := req.ConnectOptions, []byte(req.ClientInformation.Nonce)
	if o.Nkey == "" || len(nonce) == 0 {
		return "", "", errors.New("it shows no key, or the server sent no nonce")
	}
	key, err := identity.ParsePublic(o.Nkey)
	if err != nil {
		return "", "", err
	}
	sig, err := base64.RawURLEncoding.DecodeString(o.SignedNonce)
	if err != nil || !key.Verify(nonce, sig) {
		return "", "", fmt.Errorf("the signature of the nonce is not that of %s", key.Short())
	}
	name, ok := x.o.Admit(key)
	if !ok {
		return "", "", fmt.Errorf("%s is not admitted", key.Short())
	}
	tok, err = token(name)
	return name, tok, err
}

// says is called when a member says that it is here. A connection that this coordinator has not admitted is older than it.
func (x *external) says(name, id string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	g := x.guest(name)
	switch {
	case g.cut || g.newest != "" && g.newest != id:
		return
	case g.newest == "" && x.sys != nil:
		x.wg.Go(func() { x.verify(name, id) })
		return
	}
	x.enter(g, name, id)
}

// enter makes a connection the member's present one. x is locked.
func (x *external) enter(g *guest, name, id string) {
	g.newest, g.seen = id, time.Now()
	if g.here == id {
		return
	}
	if g.here != "" { // the end of the other connection is not known yet, or never will be
		x.hub.set(name, false)
	}
	g.here = id
	g.conns[id] = true
	x.hub.set(name, true)
	tok, err := token(name)
	if err != nil {
		return
	}
	for old := range g.conns {
		if old == id {
			continue
		}
		delete(g.conns, old)
		_ = x.hub.nc.PublishMsg(&nats.Msg{Subject: down + tok, Header: nats.Header{headerReplaced: {old}}})
		time.AfterFunc(time.Second, func() { x.end(old) }) // if it does not hear
	}
}

// verify asks a server whose connection that is.
func (x *external) verify(name, id string) {
	number, server, _ := strings.Cut(id, ".")
	m, err := x.sys.Request("$SYS.REQ.SERVER."+server+".CONNZ", fmt.Appendf(nil, `{"cid":%s,"auth":true}`, number), 2*time.Second)
	if err != nil {
		return // asked again at the next roll call
	}
	var answer struct {
		Data struct {
			Conns []struct {
				User string `json:"authorized_user"`
				Nkey string `json:"nkey"`
			} `json:"connections"`
		} `json:"data"`
	}
	if json.Unmarshal(m.Data, &answer) != nil || len(answer.Data.Conns) != 1 {
		return
	}
	c := answer.Data.Conns[0]
	for _, text := range []string{c.User, c.Nkey} {
		if key, err := identity.ParsePublic(text); err == nil {
			if of, ok := x.o.Admit(key); ok && of == name {
				x.mu.Lock()
				defer x.mu.Unlock()
				if g := x.guest(name); !g.cut && g.newest == "" {
					x.enter(g, name, id)
				}
				return
			}
		}
	}
	x.end(id) // of nobody who is admitted
}

// disconnected is a server's report.
func (x *external) disconnected(m *nats.Msg) {
	var event struct {
		Server struct {
			ID string `json:"id"`
		} `json:"server"`
		Client struct {
			ID uint64 `json:"id"`
		} `json:"client"`
	}
	if json.Unmarshal(m.Data, &event) != nil {
		return
	}
	id := connection(event.Client.ID, event.Server.ID)
	x.mu.Lock()
	defer x.mu.Unlock()
	for name, g := range x.members {
		if g.conns[id] {
			delete(g.conns, id)
			x.gone(g, name, id)
			return
		}
	}
}

// gone notes that a connection is no more. x is locked.
func (x *external) gone(g *guest, name, id string) {
	if g.newest == id {
		g.newest = ""
	}
	if g.here == id {
		g.here = ""
		x.hub.set(name, false)
	}
	if len(g.conns) == 0 && !g.cut {
		delete(x.members, name)
	}
}

// end has a server end a connection.
func (x *external) end(id string) {
	number, server, _ := strings.Cut(id, ".")
	if x.sys != nil {
		// A server does nothing for who wants no answer.
		_ = x.sys.PublishRequest("$SYS.REQ.SERVER."+server+".KICK", "_INBOX.kicked", []byte(`{"cid":`+number+`}`))
	}
}

func (x *external) kick(name string) {
	x.mu.Lock()
	defer x.mu.Unlock()
	g := x.members[name]
	if g == nil {
		return
	}
	tok, err := token(name)
	for id := range g.conns {
		x.end(id)
		if x.sys == nil && err == nil {
			_ = x.hub.nc.PublishMsg(&nats.Msg{Subject: down + tok, Header: nats.Header{headerCut: {id}}})
		}
	}
	clear(g.conns)
	g.newest, g.here, g.cut = "", "", true
	x.hub.set(name, false)
}

// mute reports whether what a member says is to be dropped.
func (x *external) mute(name string) bool {
	x.mu.Lock()
	defer x.mu.Unlock()
	g := x.members[name]
	return g != nil && g.cut
}

// call asks who is here.
func (x *external) call() {
	if nc := x.hub.nc; nc != nil {
		_ = nc.PublishRequest(all, rollCall, nil)
	}
}

// roll calls now and then, and notes who does not answer.
func (x *external) roll() {
	t := time.NewTicker(x.o.Roll)
	defer t.Stop()
	for {
		select {
		case <-x.done:
			return
		case <-t.C:
		}
		x.call()
		x.mu.Lock()
		for name, g := range x.members {
			if g.here != "" && time.Since(g.seen) > 3*x.o.Roll {
				delete(g.conns, g.here)
				x.gone(g, name, g.here)
			}
		}
		x.mu.Unlock()
	}
}

func (x *external) close() {
	x.mu.Lock()
	for _, g := range x.members {
		for id := range g.conns {
			x.end(id)
		}
	}
	x.mu.Unlock()
	close(x.done)
	if x.sys != nil {
		_ = x.sys.FlushTimeout(time.Second)
		x.sys.Close()
	}
	x.wg.Wait()
}
