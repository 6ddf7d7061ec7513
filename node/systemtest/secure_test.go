package systemtest

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/transport"
)

// secure is a run of sessions: HeteroFL has two of them in each training, one of which counts who has which label.
const secure = `method: heterofl
rounds: 2
data: {name: glyphs, size: 12, train: 800, test: 100}
partition: {name: classes, clients: 8, per_client: 5}
model: {name: cnn, widths: [16, 48]}
train: {epochs: 1, batch: 10}
round: {fraction: 1}
options: {mode: a1-b1}
secure: {sums: masked, holders: 3}
`

// averaged is a smaller one, whose members may be lost: whoever does not answer in time is left out.
const averaged = `method: fedavg
rounds: 2
data: {name: glyphs, size: 8, train: 300, test: 60}
partition: {name: iid, clients: 10}
model: {name: cnn, widths: [8, 16], norm: none}
train: {epochs: 1, batch: 10}
round: {fraction: 1, deadline: 6s}
evaluate: {clients: false}
secure: {sums: masked}
`

// plainly computes the recipe in one process with sums that nothing masks.
func (f *federation) plainly() string {
	f.t.Helper()
	text, err := os.ReadFile(f.recipe)
	if err != nil {
		f.t.Fatal(err)
	}
	text, found := bytes.ReplaceAll(text, []byte("sums: masked"), []byte("sums: plain")), bytes.Contains(text, []byte("sums: masked"))
	if !found {
		f.t.Fatal("the recipe has no masked sums")
	}
	path, dir := filepath.Join(f.dir, "plain.yaml"), filepath.Join(f.dir, "plain")
	if err := os.WriteFile(path, text, 0o644); err != nil {
		f.t.Fatal(err)
	}
	run(f.t, f.program, "run", path, "--quiet", "--dir", dir)
	return digestOf(f.t, dir)
}

// TestSecure holds a run of secure sums between processes against the simulations of the same recipe, with masks and without.
func TestSecure(t *testing.T) {
	brief(t)
	f := newFederation(t, secure, 8)
	want := f.simulate()
	if plain := f.plainly(); plain != want {
		t.Errorf("the simulation comes to %s with masks, to %s without", want, plain)
	}
	f.open()
	f.joinAll()
	f.finish()
	if got := digestOf(t, f.run()); got != want {
		t.Errorf("the network comes to %s, the simulation to %s", got, want)
	}
	f.verify()
}

// phaseAt is the phase under way: its round, from 0, and name.
func phaseAt(all []record) string {
	at := ""
	for _, r := range all {
		if r.Kind != "phase.opened" {
			continue
		}
		var p struct {
			Round int    `json:"round"`
			Phase string `json:"phase"`
		}
		at = "?"
		if json.Unmarshal(r.Body, &p) == nil {
			at = fmt.Sprintf("%d.%s", p.Round, p.Phase)
		}
	}
	return at
}

// TestSecureKilled kills the coordinator in every step of sessions and members in between, in steps that are drawn at random.
// Keys, shares and masked vectors are made once whoever dies, so that the digest is that of the simulation.
func TestSecureKilled(t *testing.T) {
	system(t)
	f := newFederation(t, strings.Replace(secure, "rounds: 2", "rounds: 3", 1), 8)
	want := f.simulate()
	f.open()
	f.joinAll()
	r := seed(t)
	steps := []string{"keys", "shares", "masked", "confirm", "unmask"}
	r.Shuffle(len(steps), func(i, j int) { steps[i], steps[j] = steps[j], steps[i] })
	struck := 0
	for k := 0; k < 2*len(steps) && f.coordinator.running(); k++ {
		step := steps[k/2]
		// The step of a session from here on, at any of its records.
		begin, deadline := "", time.Now().Add(patience)
		for f.coordinator.running() && time.Now().Before(deadline) {
			if begin = phaseAt(journal(t, f.run())); strings.HasSuffix(begin, "."+step) {
				break
			}
			time.Sleep(time.Millisecond)
		}
		if !strings.HasSuffix(begin, "."+step) {
			break
		}
		time.Sleep(time.Duration(r.IntN(60)) * time.Millisecond)
		if k%2 == 0 {
			f.say("killing the coordinator in %s", phaseAt(journal(t, f.run())))
			f.killCoordinator(time.Duration(r.IntN(300)) * time.Millisecond)
		} else {
			for range 3 {
				m := f.members[r.IntN(len(f.members))]
				if !m.running() {
					continue
				}
				f.say("killing %s in %s", m.name, phaseAt(journal(t, f.run())))
				m.kill()
				f.join(m)
			}
		}
		struck++
	}
	if struck < len(steps) {
		t.Errorf("the run was over after %d blows", struck)
	}
	f.finish()
	if got := digestOf(t, f.run()); got != want {
		t.Errorf("after the crashes the run comes to %s, without to %s", got, want)
	}
	f.say("%s", f.verify())
}

func init() {
	for _, step := range []string{"keys", "shares", "masked", "confirm", "unmask"} {
		roles["deserter-"+step] = func(args []string) error {
			return disguised(args, func(l *liar) { l.deserts = "train." + step })
		}
	}
}

// desert ends the process before a result of the step leaves it.
func (l *liar) desert(e transport.Envelope) {
	if l.deserts != "" && e.Step == l.deserts && (e.Kind == transport.KindResult || e.Kind == transport.KindAsk) {
		fmt.Printf("deserts in round %d\n", e.Round+1)
		os.Exit(0)
	}
}

// TestSecureLost has members that go for good in one step of a session. Up to three of ten change only who is in the sum; with
// four the round fails, which is said in a line, and the run goes on to its end all the same.
func TestSecureLost(t *testing.T) {
	system(t)
	for _, step := range []string{"keys", "shares", "masked", "confirm", "unmask"} {
		for _, lost := range []int{3, 4} {
			t.Run(fmt.Sprintf("%s/%d", step, lost), func(t *testing.T) {
				f := newFederation(t, averaged, 10)
				for _, m := range f.members[10-lost:] {
					m.role = "deserter-" + step
				}
				f.open()
				f.joinAll()
				f.finish()
				f.say("%s", f.verify())
				var sums []float64
				failed := 0
				for _, r := range journal(t, f.run()) {
					var b struct {
						Metrics []struct {
							Name  string
							Value float64
						}
						Events []struct{ Message string }
					}
					if r.Kind != "phase.closed" || json.Unmarshal(r.Body, &b) != nil {
						continue
					}
					for _, m := range b.Metrics {
						if m.Name == "secure.members" {
							sums = append(sums, m.Value)
						}
					}
					for _, e := range b.Events {
						if strings.Contains(e.Message, "no secure sum of train") {
							failed++
							f.say("%s", e.Message)
						}
					}
				}
				f.say("sums of %v members, %d rounds failed", sums, failed)
				inSum := step == "confirm" || step == "unmask"
				switch {
				case lost == 4 && (failed != 2 || len(sums) > 0):
					t.Errorf("with four members of ten lost, %d rounds failed and %v had sums", failed, sums)
				case lost == 3 && (failed != 0 || len(sums) != 2):
					t.Errorf("with three members of ten lost, %d rounds failed and %v had sums", failed, sums)
				case lost == 3 && (sums[1] != 7 || inSum != (sums[0] == 10)):
					t.Errorf("the sums are of %v members", sums)
				}
				if log := f.coordOut.String(); lost == 4 && !strings.Contains(log, fmt.Sprintf("no secure sum of train: only 6 of 10 members answered step %q, and a sum of fewer than 7 is not opened", step)) {
					t.Errorf("the coordinator's own output does not say that rounds failed:\n%s", log)
				}
			})
		}
	}
}

// TestSecurePolicies checks what a member refuses of its own: a run in the open where it wants secure sums, and a session most
// of whose members have keys that only the coordinator vouches for where it was given keys.
func TestSecurePolicies(t *testing.T) {
	brief(t)
	t.Run("open", func(t *testing.T) {
		f := newFederation(t, strings.Replace(averaged, "secure: {sums: masked}\n", "", 1), 10)
		f.open()
		m := f.members[0]
		run(t, f.program, "join", m.token, "--enrol", "--dir", m.dir)
		change(t, filepath.Join(m.dir, "policy.yaml"), "secure: false", "secure: true")
		f.join(m)
		<-m.done // it takes part in nothing
		f.say("%s", strings.Join(m.out.lines("^cohort: "), "\n"))
		if m.err == nil || !strings.Contains(m.out.String(), "the run has no secure sums: the coordinator would see this member's updates") {
			t.Errorf("a run in the open is not declined (%v):\n%s", m.err, m.out.tail(10))
		}
		f.coordinator.await(t, `client-000 .*the run has no secure sums`, 1)
	})
	t.Run("dry run", func(t *testing.T) {
		f := newFederation(t, averaged, 10)
		f.open()
		m := f.members[0]
		run(t, f.program, "join", m.token, "--enrol", "--dir", m.dir)
		out := run(t, f.program, "join", "--dir", m.dir, "--data", m.data, "--dry-run", "--threads", "1")
		out = strings.Join(strings.Fields(out), " ")
		for _, want := range []string{"train.keys", "train.shares", "train.masked", "train.confirm", "train.unmask", "masked integers",
			"Nothing of this member alone leaves in the clear",
			"leaves what the data are, but not how many examples there are (every member says 1): images 8×8×1 of 10 classes"} {
			if !strings.Contains(out, want) {
				t.Errorf("what leaves does not say %q", want)
			}
		}
		if strings.Contains(out, "float32") || strings.Contains(out, "30 examples") {
			t.Errorf("tensors leave in the open:\n%s", out)
		}
	})
	t.Run("pins", func(t *testing.T) {
		f := newFederation(t, strings.Replace(averaged, "rounds: 2", "rounds: 1", 1), 10)
		f.open()
		var all strings.Builder
		for _, m := range f.members {
			run(t, f.program, "join", m.token, "--enrol", "--dir", m.dir)
			all.WriteString(run(t, f.program, "join", "--dir", m.dir, "--show-key"))
		}
		keys := strings.SplitAfter(all.String(), "\n")
		for i, m := range f.members {
			pins := strings.Join(keys[1:9], "") // eight of ten, for everybody but the first
			if i == 0 {
				pins = strings.Join(keys[1:4], "")
			}
			path := filepath.Join(f.dir, m.name+".peers")
			if err := os.WriteFile(path, []byte(pins), 0o644); err != nil {
				t.Fatal(err)
			}
			m.args = []string{"--peers", path}
		}
		f.joinAll()
		f.finish()
		f.say("%s", f.verify())
		f.say("%s", strings.Join(f.members[0].out.lines("pinned|exchanged outside"), "\n"))
		if text := f.members[0].out.String(); !strings.Contains(text, "3 of 9 neighbours have keys that were exchanged outside: need 6") {
			t.Errorf("the member with three keys does not say what it lacks:\n%s", text)
		}
		for _, m := range f.members[1:] {
			if text := m.out.String(); strings.Contains(text, "exchanged outside") {
				t.Errorf("%s, with eight keys, refuses:\n%s", m.name, text)
			}
		}
	})
}

// change replaces a text in a file.
func change(t *testing.T, path, old, with string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(text, []byte(old)) {
		t.Fatalf("%s does not say %q:\n%s", path, old, text)
	}
	if err := os.WriteFile(path, bytes.Replace(text, []byte(old), []byte(with), 1), 0o644); err != nil {
		t.Fatal(err)
	}
}
