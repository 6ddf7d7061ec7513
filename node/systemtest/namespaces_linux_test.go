package systemtest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
)

// country is a network of its own on this machine: a bridge in one namespace, and one namespace for each party, joined to the
// bridge by a pair of interfaces.
type country struct {
	t      *testing.T
	name   string
	number map[string]int
}

// newCountry makes the network, or skips the test where that cannot be.
func newCountry(t *testing.T, parties []string) *country {
	t.Helper()
	c := &country{t: t, name: fmt.Sprintf("cohort%d", os.Getpid()), number: map[string]int{}}
	if why := c.impossible(); why != "" {
		if os.Getenv("COHORT_NETNS") == "required" {
			t.Fatalf("network namespaces are required: %s", why)
		}
		t.Skipf("network namespaces are not possible: %s", why)
	}
	t.Cleanup(func() {
		for who := range c.number {
			_ = exec.Command("ip", "netns", "del", c.ns(who)).Run() // what is left goes with the machine
		}
		_ = exec.Command("ip", "netns", "del", c.bridge()).Run()
	})
	run(t, "ip", "netns", "add", c.bridge())
	c.in(c.bridge(), "ip", "link", "add", "br0", "type", "bridge")
	c.in(c.bridge(), "ip", "link", "set", "br0", "up")
	for i, who := range parties {
		c.number[who] = i + 1
		run(t, "ip", "netns", "add", c.ns(who))
		c.in(c.ns(who), "ip", "link", "set", "lo", "up")
		c.in(c.bridge(), "ip", "link", "add", c.port(who), "type", "veth", "peer", "name", "eth0", "netns", c.ns(who))
		c.in(c.bridge(), "ip", "link", "set", c.port(who), "master", "br0", "up")
		c.in(c.ns(who), "ip", "addr", "add", c.address(who)+"/24", "dev", "eth0")
		c.in(c.ns(who), "ip", "link", "set", "eth0", "up")
	}
	return c
}

// impossible says why there can be no namespaces; empty if there can.
func (c *country) impossible() string {
	if os.Geteuid() != 0 {
		return "they need root"
	}
	for _, tool := range []string{"ip", "iptables"} {
		if _, err := exec.LookPath(tool); err != nil {
			return err.Error()
		}
	}
	if out, err := exec.Command("ip", "netns", "add", c.bridge()+"x").CombinedOutput(); err != nil {
		return strings.TrimSpace(string(out))
	}
	defer exec.Command("ip", "netns", "del", c.bridge()+"x").Run()
	out, err := exec.Command("ip", "netns", "exec", c.bridge()+"x", "iptables", "-A", "INPUT", "-m", "statistic", "--mode", "random", "--probability", "0.01", "-j", "DROP").CombinedOutput()
	if err != nil {
		return strings.TrimSpace(string(out))
	}
	return ""
}

func (c *country) bridge() string            { return c.name + "-net" }
func (c *country) ns(who string) string      { return fmt.Sprintf("%s-%d", c.name, c.number[who]) }
func (c *country) port(who string) string    { return fmt.Sprintf("port%d", c.number[who]) }
func (c *country) address(who string) string { return fmt.Sprintf("10.77.0.%d", c.number[who]) }

func (c *country) in(ns string, command ...string) {
	c.t.Helper()
	run(c.t, append([]string{"ip", "netns", "exec", ns}, command...)...)
}

// wrap is what the command of a party begins with.
func (c *country) wrap(who string) []string { return []string{"ip", "netns", "exec", c.ns(who)} }

// lose drops one packet in a hundred to and from a party.
func (c *country) lose(who string) {
	for _, chain := range []string{"INPUT", "OUTPUT"} {
		c.in(c.ns(who), "iptables", "-A", chain, "-m", "statistic", "--mode", "random", "--probability", "0.01", "-j", "DROP")
	}
}

// slow lets a party send so much a second, where the system can do that.
func (c *country) slow(who, rate string) bool {
	return exec.Command("ip", "netns", "exec", c.ns(who), "tc", "qdisc", "add", "dev", "eth0", "root", "tbf", "rate", rate, "burst", "64kb", "latency", "400ms").Run() == nil
}

// move gives a party another address.
func (c *country) move(who string) (to string) {
	to = fmt.Sprintf("10.77.0.%d", 100+c.number[who])
	c.in(c.ns(who), "ip", "addr", "add", to+"/24", "dev", "eth0")
	c.in(c.ns(who), "ip", "addr", "del", c.address(who)+"/24", "dev", "eth0")
	// The first address may take its secondaries with it.
	_ = exec.Command("ip", "netns", "exec", c.ns(who), "ip", "addr", "replace", to+"/24", "dev", "eth0").Run()
	return to
}

// cut takes the line of a party down, or up again.
func (c *country) cut(who, state string) {
	c.in(c.bridge(), "ip", "link", "set", c.port(who), state)
}

// mnist is HeteroFL on MNIST with a few hundred rows a member.
const mnist = `method: heterofl
rounds: 8
data: {name: mnist, train: 6600, test: 1000}
partition: {name: classes, clients: 22, per_client: 5}
model: {name: cnn, widths: [16, 32, 64]}
train: {epochs: 1, batch: 10, clip: 1, optimizer: {name: sgd, rate: 0.05, momentum: 0.9}}
round: {fraction: 1}
evaluate: {every: 2}
options: {mode: a1-b1-c1-d1-e1, levels: fixed, mask: zero}
`

// TestNamespaces is the federation as it is among organisations, only worse: a coordinator and twenty-two members with machines
// of their own, one packet in a hundred lost, slow lines; the coordinator killed three times, five members killed, one cut off
// for a while, one that gets another address, one that lies and one that repeats itself.
func TestNamespaces(t *testing.T) {
	system(t)
	if os.Getenv("COHORT_DATA") == "" {
		if os.Getenv("CI") == "true" {
			t.Fatal("COHORT_DATA names no folder of data sets")
		}
		t.Skip("COHORT_DATA names no folder of data sets")
	}
	parties := []string{"coordinator"}
	for i := range 22 {
		parties = append(parties, fmt.Sprintf("client-%03d", i))
	}
	r := seed(t)
	c := newCountry(t, parties)
	settle := func(f *federation) {
		f.url, f.listen, f.wrap = "https://"+c.address("coordinator")+":9443", ":9443", c.wrap
	}
	var calm *federation
	length := 0
	t.Run("calm", func(t *testing.T) {
		calm = newFederation(t, mnist, 22)
		settle(calm)
		calm.say("without faults: one coordinator, 22 members, each in a network namespace of its own; TLS, identities and signatures on")
		want := calm.simulate()
		calm.say("the simulation comes to %s", want)
		calm.open()
		calm.joinAll()
		calm.finish()
		got := digestOf(t, calm.run())
		calm.say("the network comes to   %s; the journal has %d records", got, calm.length())
		if got != want {
			t.Fatal("they differ")
		}
		calm.say("%s", calm.verify())
		length = calm.length()
	})
	if t.Failed() {
		return
	}
	t.Run("faults", func(t *testing.T) {
		f := newFederation(t, mnist, 22)
		settle(f)
		for _, who := range parties[1:] {
			c.lose(who)
		}
		slow := 0
		for _, who := range parties[1:6] {
			if c.slow(who, "8mbit") {
				slow++
			}
		}
		f.say("with faults: members lose 1 %% of the packets that they get and that they send; %d send at most 8 Mbit/s", slow)
		f.members[20].role, f.members[21].role = "liar", "replayer"
		f.say("client-020 does its work and tells lies beside it; client-021 repeats whatever it has sent")
		f.open()
		f.joinAll()
		suffer(f, c, r, length)
		f.finish()
		f.say("the run ends; its digest is %s", digestOf(t, f.run()))
		f.say("%s", f.verify())
		checkAnswers(t, f.members[20])
		checkAnswers(t, f.members[21])
		report(f, calm.story)
	})
}

// suffer does to a federation what is done to it, at records of the journal that are drawn at random.
func suffer(f *federation, c *country, r *rand.Rand, length int) {
	t := f.t
	type blow struct {
		at   int
		hurt func()
	}
	var blows []blow
	begin := 2*len(f.members) + 3 // the members have joined
	add := func(hurt func()) { blows = append(blows, blow{begin + r.IntN(length-begin-30), hurt}) }
	for range 3 {
		pause := time.Duration(100+r.IntN(2000)) * time.Millisecond
		add(func() {
			f.say("SIGKILL for the coordinator at record %d, in round %d; it is started again after %v", f.length(), f.round(), pause)
			f.killCoordinator(pause)
		})
	}
	victims := r.Perm(20)
	for _, v := range victims[:5] {
		m, pause := f.members[v], time.Duration(r.IntN(1500))*time.Millisecond
		add(func() {
			f.say("SIGKILL for %s at record %d, in round %d; it is started again after %v", m.name, f.length(), f.round(), pause)
			m.kill()
			time.Sleep(pause)
			f.join(m)
		})
	}
	cut := f.members[victims[5]]
	add(func() {
		f.say("the line of %s is down at record %d, in round %d", cut.name, f.length(), f.round())
		c.cut(cut.name, "down")
		time.Sleep(8 * time.Second)
		c.cut(cut.name, "up")
		f.say("the line of %s is up again at record %d", cut.name, f.length())
	})
	mover := f.members[victims[6]]
	add(func() {
		f.say("%s has another address from record %d, round %d, on: %s instead of %s", mover.name, f.length(), f.round(), c.move(mover.name), c.address(mover.name))
	})
	slices.SortStableFunc(blows, func(a, b blow) int { return a.at - b.at })
	for _, b := range blows {
		if !f.reach(b.at) {
			t.Fatalf("the run was over before record %d", b.at)
		}
		b.hurt()
	}
}

// report writes what happened to the file that COHORT_REPORT names.
func report(f *federation, before []string) {
	path := os.Getenv("COHORT_REPORT")
	if path == "" {
		return
	}
	var b strings.Builder
	for _, line := range append(before, f.story...) {
		fmt.Fprintln(&b, strings.ReplaceAll(line, f.dir, "…"))
	}
	fmt.Fprintf(&b, "\n%s, %d processors\n\nThe coordinator's log:\n\n", runtime.GOARCH, runtime.NumCPU())
	for _, line := range f.coordOut.lines(`^\d\d:\d\d:\d\d  |^round |goes on`) {
		fmt.Fprintln(&b, line)
	}
	fmt.Fprintf(&b, "\nclient-020 and client-021, how they were answered:\n\n")
	for _, m := range f.members[20:] {
		all := answers(f.t, m)
		var lines []string
		for what, n := range all {
			lines = append(lines, fmt.Sprintf("%s  %-50s %d times", m.name, what, n))
		}
		slices.Sort(lines)
		fmt.Fprintln(&b, strings.Join(lines, "\n"))
	}
	if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
		f.t.Fatal(err)
	}
	f.t.Logf("the report is in %s", filepath.Base(path))
}
