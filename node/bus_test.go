package node

import (
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/transport/transporttest"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nkeys"
)

// TestExternalBus runs a federation whose messages go over a cluster of NATS servers that somebody else runs. One of them is
// killed while the run is under way; the run ends with the bits of the simulation.
func TestExternalBus(t *testing.T) {
	if testing.Short() {
		t.Skip("a cluster that loses a server takes its time where everything is slow")
	}
	write := func(name string, k nkeys.KeyPair) (file, public string) {
		seed, err := k.Seed()
		if err != nil {
			t.Fatal(err)
		}
		if public, err = k.PublicKey(); err != nil {
			t.Fatal(err)
		}
		file = filepath.Join(t.TempDir(), name)
		if err := os.WriteFile(file, seed, 0o600); err != nil {
			t.Fatal(err)
		}
		return file, public
	}
	pair := func(k nkeys.KeyPair, err error) nkeys.KeyPair {
		if err != nil {
			t.Fatal(err)
		}
		return k
	}
	issuer, issuerKey := write("issuer", pair(nkeys.CreateAccount()))
	user, userKey := write("user", pair(nkeys.CreateUser()))
	system, systemKey := write("system", pair(nkeys.CreateUser()))
	nodes := natsCluster(t, issuerKey, userKey, systemKey)
	var urls []string
	for _, n := range nodes {
		urls = append(urls, n.ClientURL())
	}
	f := newFederation(t, strings.Replace(twoSites, "rounds: 3", "rounds: 4", 1),
		&NATS{URLs: strings.Join(urls, ","), Account: "COHORT", Issuer: issuer, User: user, System: system})
	f.hold = make(chan struct{})
	run := f.start()
	f.join("client-000", 0)
	f.join("client-001", 1)
	for deadline := time.Now().Add(patience); run.Now().Round < 1; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the run does not begin: %+v", run.Now())
		}
	}
	nodes[0].Shutdown()
	close(f.hold)
	f.wait(run)
	if got, want := finalDigest(t, run.Dir()), f.simulated(); got != want {
		t.Errorf("over the cluster the run ended in %.16s…, the simulation in %.16s…", got, want)
	}
}

// natsCluster starts three servers, configured as docs/network.md shows.
func natsCluster(t *testing.T, issuer, user, system string) []*server.Server {
	t.Helper()
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
	var nodes []*server.Server
	for i := range 3 {
		members, sys := server.NewAccount("COHORT"), server.NewAccount("SYS")
		ns, err := server.NewServer(&server.Options{
			ServerName: fmt.Sprintf("node-%d", i), Host: "127.0.0.1", Port: server.RANDOM_PORT, NoLog: true, NoSigs: true,
			Cluster: server.ClusterOpts{Name: "test", Host: "127.0.0.1", Port: ports[i]}, Routes: routes,
			Accounts: []*server.Account{members, sys}, SystemAccount: "SYS",
			Nkeys:       []*server.NkeyUser{{Nkey: user, Account: members}, {Nkey: system, Account: sys}},
			AuthCallout: &server.AuthCallout{Issuer: issuer, Account: "COHORT", AuthUsers: []string{user, system}},
		})
		if err != nil {
			t.Fatal(err)
		}
		ns.Start()
		t.Cleanup(ns.Shutdown)
		if !ns.ReadyForConnections(patience) {
			t.Fatal("a server does not start")
		}
		nodes = append(nodes, ns)
	}
	for deadline := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) {
		whole := true
		for _, n := range nodes {
			whole = whole && n.NumRoutes() >= 2
		}
		if whole {
			return nodes
		}
		if time.Now().After(deadline) {
			t.Fatal("the cluster does not come together")
		}
	}
}

// simulated returns the digest of the last state of the same run as a simulation.
func (f *federation) simulated() string {
	f.t.Helper()
	plan, err := f.recipe.Plan(f.t.Context(), "")
	if err != nil {
		f.t.Fatal(err)
	}
	e, _, err := f.recipe.Engine()
	if err != nil {
		f.t.Fatal(err)
	}
	defer e.Close()
	job, err := plan.Job(e)
	if err != nil {
		f.t.Fatal(err)
	}
	s, err := job.Run(f.t.Context())
	if err != nil {
		f.t.Fatal(err)
	}
	return s.Digest()
}

func finalDigest(t *testing.T, dir string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(dir, "journal.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	_, last, ok := strings.Cut(string(text), `"kind":"`+simulation.KindEnded+`"`)
	_, last, ok2 := strings.Cut(last, `"digest":"`)
	if !ok || !ok2 {
		t.Fatalf("the run in %s has not ended", dir)
	}
	return last[:64]
}
