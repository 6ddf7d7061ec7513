package natsbus

import (
	"context"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nkeys"

	"github.com/cohort-learning/cohort/identity"
	"github.com/cohort-learning/cohort/transport"
	"github.com/cohort-learning/cohort/transport/transporttest"
)

// cluster is three NATS servers with routes to one another on loopback, and a coordinator as their callout.
type cluster struct {
	*roster
	nodes []*server.Server
	urls  []string
	hub   transport.Hub
	o     ExternalOptions
}

func (k *cluster) all() string { return strings.Join(k.urls, ",") }

// login are the options of a user with an NKey.
func login(t testing.TB, key identity.Key) []nats.Option {
	t.Helper()
	return []nats.Option{nats.Nkey(key.Public().String(), func(nonce []byte) ([]byte, error) { return key.Sign(nonce), nil })}
}

func openCluster(t testing.TB, system bool) *cluster {
	t.Helper()
	k := &cluster{roster: newRoster()}
	coordinator, sys := k.key(t, "coordinator"), k.key(t, "system")
	k.names = map[identity.Public]string{} // these are no members
	issuer, err := nkeys.CreateAccount()
	if err != nil {
		t.Fatal(err)
	}
	public, err := issuer.PublicKey()
	if err != nil {
		t.Fatal(err)
	}
	var routes []*url.URL
	var ports []int
	for range 3 {
		port, err := transporttest.FreePort()
		if err != nil {
			t.Fatal(err)
		}
		ports = append(ports, port)
		routes = append(routes, &url.URL{Scheme: "nats", Host: fmt.Sprintf("127.0.0.1:%d", port)})
	}
	for i := range 3 {
		members, system := server.NewAccount("COHORT"), server.NewAccount("SYS")
		ns, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprintf("node-%d", i), Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
			Cluster:  server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: ports[i]},
			Routes:   routes,
			Accounts: []*server.Account{members, system}, SystemAccount: "SYS",
			Nkeys:       []*server.NkeyUser{{Nkey: coordinator.Public().String(), Account: members}, {Nkey: sys.Public().String(), Account: system}},
			AuthCallout: &server.AuthCallout{Issuer: public, Account: "COHORT", AuthUsers: []string{coordinator.Public().String(), sys.Public().String()}},
		})
		if err != nil {
			t.Fatal(err)
		}
		ns.Start()
		if !ns.ReadyForConnections(patience) {
			t.Fatal("a node does not start")
		}
		k.nodes, k.urls = append(k.nodes, ns), append(k.urls, ns.ClientURL())
	}
	eventually(t, "the cluster is whole", func() bool {
		return !slices.ContainsFunc(k.nodes, func(ns *server.Server) bool { return ns.NumRoutes() < 2 })
	})
	k.o = ExternalOptions{URLs: k.all(), Account: "COHORT", Issuer: issuer, Connect: login(t, coordinator), Admit: k.admit, Roll: 500 * time.Millisecond}
	if system {
		k.o.System = login(t, sys)
	}
	k.hub = k.start(t)
	for _, ns := range k.nodes { // else the first members are refused, and try again
		eventually(t, "every node knows who answers the callout", func() bool {
			a, err := ns.LookupAccount("COHORT")
			return err == nil && a.SubscriptionInterest("$SYS.REQ.USER.AUTH")
		})
	}
	return k
}

func (k *cluster) start(t testing.TB) transport.Hub {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	hub, err := External(ctx, k.o)
	if err != nil {
		t.Fatal(err)
	}
	return hub
}

func (k *cluster) close() {
	k.hub.Close()
	for _, ns := range k.nodes {
		ns.Shutdown()
		ns.WaitForShutdown()
	}
}

func (k *cluster) dial(t testing.TB, name string) transport.Link {
	t.Helper()
	wait := patience
	key := k.key(t, name)
	if _, ok := k.admit(key.Public()); !ok {
		wait = 500 * time.Millisecond
	}
	ctx, cancel := context.WithTimeout(context.Background(), wait)
	defer cancel()
	l, err := Dial(ctx, DialOptions{URL: k.all(), Name: name, Key: key})
	if err != nil && wait == patience {
		t.Fatalf("dial %s: %v", name, err)
	}
	if err != nil {
		return refused{err}
	}
	return l
}

func TestExternal(t *testing.T) {
	transporttest.Run(t, func(t testing.TB) transporttest.Fixture {
		k := openCluster(t, true)
		return transporttest.Fixture{Hub: k.hub, Dial: k.dial, Deny: k.deny, Break: k.lose, Close: k.close, Members: 60, Slack: 3}
	})
}

// lose ends a member's connection as its network would.
func (k *cluster) lose(name string) {
	public := k.keys[name].Public().String()
	for _, ns := range k.nodes {
		z, err := ns.Connz(&server.ConnzOptions{Username: true})
		if err != nil {
			continue
		}
		for _, c := range z.Conns {
			if c.AuthorizedUser == public || c.Name == name {
				ns.DisconnectClientByID(c.Cid)
			}
		}
	}
}

// TestNodeDies kills the node that most depends on: members and the coordinator go on at the others.
func TestNodeDies(t *testing.T) {
	k := openCluster(t, true)
	defer k.close()
	k.hub.Handle(func(r transport.Request) { r.Reply(r.Msg) })
	var links []transport.Link
	got := make(chan string, 100)
	for i := range 9 {
		l := k.dial(t, fmt.Sprintf("m%d", i))
		defer l.Close()
		l.Receive(func(msg []byte) { got <- string(msg) })
		links = append(links, l)
	}
	eventually(t, "all are here", func() bool { return len(k.hub.Present()) == 9 })
	for range 2 { // whoever was on the first is on one of the others, and one of them dies too
		k.nodes[0].Shutdown()
		k.nodes[0].WaitForShutdown()
		k.nodes = k.nodes[1:]
		for _, l := range links {
			eventually(t, "a member goes on", func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				b, err := l.Request(ctx, []byte("x"))
				return err == nil && string(b) == "x"
			})
		}
		eventually(t, "all are here again", func() bool { return len(k.hub.Present()) == 9 })
		eventually(t, "all are reached", func() bool {
			for len(got) > 0 {
				<-got
			}
			if k.hub.Broadcast([]byte("y")) != nil {
				return false
			}
			for range 9 {
				select {
				case <-got:
				case <-time.After(time.Second):
					return false
				}
			}
			return true
		})
	}
}

// TestCoordinatorComesBack: members stay connected to the cluster while the coordinator is away, and a new one learns of them.
func TestCoordinatorComesBack(t *testing.T) {
	for _, system := range []bool{true, false} {
		t.Run(fmt.Sprintf("system=%v", system), func(t *testing.T) {
			k := openCluster(t, system)
			defer k.close()
			l := k.dial(t, "a")
			defer l.Close()
			eventually(t, "a is here", func() bool { return len(k.hub.Present()) == 1 })
			k.hub.(*hub).nc.Close() // as a crash does it
			second := k.start(t)
			defer second.Close()
			second.Handle(func(r transport.Request) { r.Reply(r.Msg) })
			eventually(t, "a is here again", func() bool { return slices.Equal(second.Present(), []string{"a"}) })
			if b, err := l.Request(t.Context(), []byte("x")); err != nil || string(b) != "x" {
				t.Errorf("%q, %v", b, err)
			}
			// A revoked member is cut, or at least not heard.
			k.deny("a")
			second.Cut("a")
			eventually(t, "a has gone", func() bool {
				ctx, cancel := context.WithTimeout(t.Context(), time.Second)
				defer cancel()
				_, err := l.Request(ctx, []byte("x"))
				return err != nil
			})
			time.Sleep(50 * time.Millisecond)
			if got := second.Present(); len(got) != 0 {
				t.Errorf("present: %v", got)
			}
		})
	}
}

// TestExternalRights tries what a member must not do; the embedded server's test tries more.
func TestExternalRights(t *testing.T) {
	k := openCluster(t, true)
	defer k.close()
	key := k.key(t, "mallory")
	bad := make(chan error, 100)
	nc, err := nats.Connect(k.all(), append(login(t, key), nats.Name("mallory"), nats.CustomInboxPrefix("_INBOX.mallory"),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { bad <- err }))...)
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	tries := 0
	for _, subject := range []string{">", "up.>", "down.other", "_INBOX.>", "$SYS.>", "$SYS.REQ.USER.AUTH"} {
		if _, err := nc.SubscribeSync(subject); err != nil {
			t.Fatal(err)
		}
		tries++
	}
	for _, subject := range []string{"up.other.send", "down.other", "all", "$SYS.REQ.USER.AUTH", "$SYS.REQ.SERVER.PING"} {
		if err := nc.Publish(subject, []byte("x")); err != nil {
			t.Fatal(err)
		}
		tries++
	}
	if err := nc.Flush(); err != nil {
		t.Fatal(err)
	}
	for range tries {
		select {
		case err := <-bad:
			if !strings.Contains(err.Error(), "ermissions") {
				t.Error(err)
			}
		case <-time.After(patience):
			t.Fatal("something was allowed")
		}
	}
	stranger, err := identity.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	if nc, err := nats.Connect(k.all(), login(t, stranger)...); err == nil {
		nc.Close()
		t.Error("a stranger is admitted")
	}
}
