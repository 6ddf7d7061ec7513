package systemtest

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// noisy is a run with noise that the coordinator adds.
const noisy = `method: fedavg
rounds: 2
data: {name: glyphs, size: 8, train: 240, test: 60}
partition: {name: iid, clients: 4}
model: {name: cnn, widths: [8, 16], norm: none}
train: {epochs: 1, batch: 10}
round: {fraction: 1}
evaluate: {clients: false}
privacy: {noise: 1, clip: 0.5}
`

// spent is what "cohort privacy ledger --json" says of one data set.
type spent struct {
	Epsilon *float64
	Rounds  int
	Runs    []struct {
		Coordinator struct{ Name string }
		Run         string
		Members     []string
		Mechanisms  []string
		Trusts      []string
		Rounds      int
	}
}

func ledgerOf(t *testing.T, program, dir string) (out []spent) {
	t.Helper()
	var all struct{ Data []spent }
	if err := json.Unmarshal([]byte(run(t, program, "privacy", "ledger", dir, "--json")), &all); err != nil {
		t.Fatal(err)
	}
	return all.Data
}

// TestPrivate follows what a private run costs: every member's ledger is charged for every round, shows who took it, and is the
// same for the next federation that meets the same data, which is refused when the budget is spent.
func TestPrivate(t *testing.T) {
	brief(t)
	f := newFederation(t, noisy, 4)
	ledgers := filepath.Join(f.dir, "ledgers")
	f.open()
	for _, m := range f.members {
		m.args = []string{"--ledger", ledgers, "--budget-epsilon", "8"}
	}
	f.joinAll()
	f.finish()
	f.say("%s", f.verify())
	all := ledgerOf(t, f.program, ledgers)
	if len(all) != 4 {
		t.Fatalf("the ledgers are of %d data sets, not of 4", len(all))
	}
	for _, s := range all {
		// The exact price of two rounds of z = 1: the one Gaussian of z = 1/√2, ε 6.57 at δ 1e-5.
		if s.Epsilon == nil || *s.Epsilon < 6.3 || *s.Epsilon > 6.8 || s.Rounds != 2 || len(s.Runs) != 1 || s.Runs[0].Run != "run" ||
			len(s.Runs[0].Trusts) != 1 || !strings.HasPrefix(s.Runs[0].Trusts[0], "the coordinator at 127.0.0.1") {
			t.Errorf("the ledger of a member says %+v", s)
		}
	}
	f.say("%s", run(t, f.program, "privacy", "ledger", ledgers))

	t.Run("again", func(t *testing.T) { testSpent(t, f, ledgers) })
}

// testSpent has another federation meet data whose budget is spent.
func testSpent(t *testing.T, f *federation, ledgers string) {
	next := newFederation(t, noisy, 4)
	next.open()
	for i, m := range next.members {
		m.data = f.members[i].data
		m.args = []string{"--ledger", ledgers, "--budget-epsilon", "8"}
	}
	m := next.members[0]
	next.join(m)
	<-m.done
	if m.err == nil || !strings.Contains(m.out.String(), "declined run run") {
		t.Errorf("the budget is spent, and the member takes part (%v):\n%s", m.err, m.out.tail(10))
	}
	next.say("%s", strings.Join(m.out.lines("declined"), "\n"))
	if text := m.out.String(); !strings.Contains(text, "6.57") {
		t.Errorf("the member does not say what was spent:\n%s", text)
	}
	told := next.coordinator.await(t, `client-000 .*declined.*`, 1)
	if text := told[0][0]; strings.Contains(text, "6.") || !strings.Contains(text, "the privacy budget of this member's data does not allow it") {
		t.Errorf("the coordinator is told %q", text)
	}
	if again := ledgerOf(t, f.program, ledgers); len(again) != 4 || again[0].Rounds != 2 {
		t.Errorf("a run that was declined was charged: %+v", again)
	}
}

// TestChargeSurvives kills a member when it has paid for a round and not answered it yet. What was paid stays paid, and is paid once.
func TestChargeSurvives(t *testing.T) {
	brief(t)
	f := newFederation(t, strings.Replace(noisy, "epochs: 1,", "epochs: 100,", 1), 4)
	f.open()
	for _, m := range f.members {
		m.args = []string{"--ledger", m.dir + "-ledger"}
	}
	f.joinAll()
	victim := f.members[2]
	count := func(kind string) int {
		text, err := os.ReadFile(filepath.Join(victim.dir, "journal.jsonl"))
		if err != nil {
			return 0
		}
		return strings.Count(string(text), `"kind":"`+kind+`"`)
	}
	for begin := time.Now(); count("privacy.charged") == 0; time.Sleep(time.Millisecond) {
		if time.Since(begin) > patience || !victim.running() || !f.coordinator.running() {
			t.Fatalf("%s has not paid\n%s", victim.name, victim.out.tail(20))
		}
	}
	victim.kill()
	if n := count("result.kept"); n > 0 {
		t.Fatalf("%s had answered already", victim.name)
	}
	if all := ledgerOf(t, f.program, victim.dir+"-ledger"); len(all) != 1 || all[0].Rounds != 1 {
		t.Errorf("after the kill the ledger says %+v", all)
	}
	f.join(victim)
	f.finish()
	if all := ledgerOf(t, f.program, victim.dir+"-ledger"); len(all) != 1 || all[0].Rounds != 2 {
		t.Errorf("at the end the ledger says %+v", all)
	}
	f.say("%s", f.verify())
}

// TestDistributedNoise has members hide one another: each adds a share of the noise to its masked vector, so that nobody is
// trusted with it. Nobody can compute such a sum again, and verify says so instead of finding a difference.
func TestDistributedNoise(t *testing.T) {
	brief(t)
	f := newFederation(t, strings.Replace(noisy, "clip: 0.5}", "clip: 0.5, distributed: true}\nsecure: {sums: masked}", 1), 4)
	ledgers := filepath.Join(f.dir, "ledgers")
	f.open()
	for _, m := range f.members {
		m.args = []string{"--ledger", ledgers}
	}
	f.joinAll()
	f.finish()
	for _, s := range ledgerOf(t, f.program, ledgers) {
		if s.Epsilon == nil || s.Rounds != 2 || len(s.Runs) != 1 || len(s.Runs[0].Trusts) != 0 || fmt.Sprint(s.Runs[0].Mechanisms) != "[distributed-skellam]" {
			t.Errorf("the ledger of a member says %+v", s)
		}
	}
	out, err := exec.Command(f.program, "verify", f.run(), "--data", f.export).CombinedOutput()
	f.say("%v\n%s", err, out)
	if err != nil || !strings.Contains(string(out), "the records of all 2 rounds are whole") || !strings.Contains(string(out), "noise") {
		t.Errorf("verify says %v\n%s", err, out)
	}
}
