package systemtest

import (
	"encoding/json"
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"
)

// region is a relay, and its leaves.
type region struct {
	*process
	name, dir, listen string
	out               *transcript
	leaves            []*party
}

// openBehind starts the coordinator for the first time, and relays, and invites the members behind these in turn.
func (f *federation) openBehind(relays int) (out []*region) {
	f.t.Helper()
	f.coordOut = newTranscript(f.t, filepath.Join(f.dir, "coordinator.log"))
	names := ""
	for i := range relays {
		r := &region{name: fmt.Sprintf("region-%d", i), listen: "127.0.0.1:" + strconv.Itoa(freePort(f.t))}
		r.dir, r.out = filepath.Join(f.dir, r.name), newTranscript(f.t, filepath.Join(f.dir, r.name+".log"))
		out = append(out, r)
		names += r.name + ","
	}
	f.launch("--invite", names[:len(names)-1])
	for i, found := range f.coordinator.await(f.t, `(?m)cohort join (cohort1_\S+)`, relays) {
		f.relay(out[i], found[1])
		out[i].await(f.t, "relays at", 1)
	}
	for i, m := range f.members {
		r := out[i%relays]
		r.leaves = append(r.leaves, m)
	}
	for _, r := range out {
		args := []string{f.program, "invite", "--dir", filepath.Join(f.dir, "server"), "--json", "--relay", r.name}
		for _, m := range r.leaves {
			args = append(args, m.name)
		}
		var list struct{ Tokens []struct{ Token string } }
		begin := time.Now()
		for { // the relay is known once it has connected
			text, err := try(args...)
			if err == nil {
				if err := json.Unmarshal([]byte(text), &list); err != nil {
					f.t.Fatal(err)
				}
				break
			}
			if time.Since(begin) > patience {
				f.t.Fatalf("%v: %s", err, text)
			}
			time.Sleep(50 * time.Millisecond)
		}
		for i, m := range r.leaves {
			m.token = list.Tokens[i].Token
		}
	}
	return out
}

// relay starts a relay: for the first time with its token, again without.
func (f *federation) relay(r *region, token string) {
	f.t.Helper()
	args := []string{f.program, "relay"}
	if token != "" {
		args = append(args, token)
	}
	args = append(args, "--dir", r.dir, "--listen", r.listen, "--url", "https://"+r.listen, "--linger", "200ms", "--verbose")
	r.process = start(f.t, r.name, r.out, f.env, f.command(r.name, args...)...)
}

// behindRelays is a run of ten members.
const behindRelays = `method: heterofl
rounds: 3
data: {name: glyphs, size: 12, train: 600, test: 100}
partition: {name: classes, clients: 10, per_client: 4}
model: {name: cnn, widths: [16, 48]}
train: {epochs: 2, batch: 10}
round: {fraction: 1}
options: {mode: a1-b1-e1}
`

// TestRelays runs ten members behind two relays, each of which is killed in the middle of a round and started again from its own
// journal; the coordinator is killed, too. The run ends in the bits of the simulation, which knows of no relays, and all results
// have come in sums.
func TestRelays(t *testing.T) {
	f := newFederation(t, behindRelays, 10)
	want := f.simulate()
	f.begin(f.openBehind(2), func(regions []*region) {
		r := seed(t)
		kill := func(i, at int) {
			if !f.reach(at) {
				t.Fatalf("the run was over before record %d", at)
			}
			f.say("killing %s at record %d", regions[i].name, at)
			regions[i].kill()
			time.Sleep(time.Duration(r.IntN(300)) * time.Millisecond)
			f.relay(regions[i], "")
		}
		first := f.length()
		kill(0, first+1+r.IntN(6))
		kill(1, f.length()+1+r.IntN(6))
		if at := f.length() + 1 + r.IntN(6); f.reach(at) {
			f.say("killing the coordinator at record %d", at)
			f.killCoordinator(time.Duration(r.IntN(300)) * time.Millisecond)
		}
	})
	f.finish()
	if got := digestOf(t, f.run()); got != want {
		t.Errorf("behind relays the run comes to %s, the simulation to %s", got, want)
	}
	sums, inside, delegated := 0, 0, map[string]bool{}
	for _, rec := range journal(t, f.run()) {
		switch rec.Kind {
		case "result.received":
			t.Errorf("a result came by itself: %s", rec.Body)
		case "relay.delegated":
			var d struct{ Relay string }
			if err := json.Unmarshal(rec.Body, &d); err != nil {
				t.Fatal(err)
			}
			delegated[d.Relay] = true
		case "partial.received":
			var p struct{ Leaves []struct{ Order int } }
			if err := json.Unmarshal(rec.Body, &p); err != nil {
				t.Fatal(err)
			}
			sums++
			inside += len(p.Leaves)
		}
	}
	// Each round asks ten members twice: to train, and for statistics and measures.
	if inside%10 != 0 || inside < 60 || sums >= inside || len(delegated) != 2 {
		t.Errorf("%d results came in %d sums of %v", inside, sums, delegated)
	}
	f.say("%d results came in %d sums", inside, sums)
	f.say("%s", f.verify())
}

// begin starts the members and, when the run has begun, whatever is to happen to it.
func (f *federation) begin(regions []*region, happen func([]*region)) {
	f.t.Helper()
	f.joinAll()
	for since := time.Now(); f.round() == 1 && len(journal(f.t, f.run())) < 22; time.Sleep(5 * time.Millisecond) {
		if time.Since(since) > patience || !f.coordinator.running() {
			f.t.Fatalf("the run does not begin\n%s\n%s\n%s", f.coordOut.tail(20), regions[0].out.tail(20), f.members[0].out.tail(20))
		}
	}
	happen(regions)
}

// try runs a command that may fail.
func try(command ...string) (string, error) {
	out, err := exec.Command(command[0], command[1:]...).Output()
	return string(out), err
}
