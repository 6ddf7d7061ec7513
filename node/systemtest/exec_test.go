package systemtest

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/node/program"
	"github.com/cohort-learning/cohort/weights"
)

// trainer is a program that a member brings along: it moves every weight a little towards zero.
func trainer() error {
	text, err := os.ReadFile(os.Getenv("COHORT_TASK"))
	if err != nil {
		return err
	}
	var t program.Task
	if err := json.Unmarshal(text, &t); err != nil {
		return err
	}
	w, _, err := weights.ReadFile(t.Weights)
	if err != nil {
		return err
	}
	w.Scale(0.999)
	result, err := json.Marshal(program.Outcome{Examples: 100, Loss: 2})
	if err != nil {
		return err
	}
	return errors.Join(weights.WriteFile(t.Update, w, nil), os.WriteFile(t.Result, result, 0o600))
}

// TestExec has a member train with a program of its own, beside members that train with ours: one in Go, and one in PyTorch where
// COHORT_PYTHON names an interpreter that has it. Its policy has to allow it.
func TestExec(t *testing.T) {
	brief(t)
	f := newFederation(t, `method: fedavg
rounds: 3
data: {name: glyphs, size: 12, train: 400, test: 100}
partition: {name: iid, clients: 4}
model: {name: cnn, widths: [16, 48]}
train: {epochs: 1, batch: 10}
round: {fraction: 1}
`, 4)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	commands := map[int]string{3: "'" + self + "' trainer"}
	if python := os.Getenv("COHORT_PYTHON"); python != "" {
		script, err := filepath.Abs("../../examples/trainers/pytorch/train.py")
		if err != nil {
			t.Fatal(err)
		}
		commands[2] = "'" + python + "' '" + script + "'"
	}
	f.open()
	for i, command := range commands {
		f.bring(f.members[i], command)
	}
	f.joinAll()
	f.finish()
	for i := range commands {
		m := f.members[i]
		rounds := m.out.lines(`round \d+: counted$`)
		f.say("%s: %s", m.name, strings.Join(rounds, "; "))
		if len(rounds) != 3 {
			t.Errorf("of %s count %d rounds, not 3:\n%s", m.name, len(rounds), m.out.tail(40))
		}
	}
	// Whoever computes the run again finds out where members computed something else than the recipe says.
	if kinds := kindsOf(journal(t, f.run())); !slices.Contains(kinds, "run.ended") {
		t.Errorf("the journal ends without run.ended: %v", kinds)
	}
}

// bring has a member, which is to join yet, bring a program along, and allow it.
func (f *federation) bring(m *party, command string) {
	f.t.Helper()
	run(f.t, f.program, "join", m.token, "--enrol", "--dir", m.dir)
	f.allow(m, "exec: false", "exec: true")
	m.args = append(m.args, "--exec", command)
}

// allow changes a line of a member's policy.
func (f *federation) allow(m *party, from, to string) {
	f.t.Helper()
	path := filepath.Join(m.dir, "policy.yaml")
	text, err := os.ReadFile(path)
	if err != nil {
		f.t.Fatal(err)
	}
	allowed := strings.Replace(string(text), "\n"+from, "\n"+to, 1)
	if allowed == string(text) {
		f.t.Fatalf("policy.yaml does not say %q:\n%s", from, text)
	}
	if err := os.WriteFile(path, []byte(allowed), 0o644); err != nil {
		f.t.Fatal(err)
	}
}

func kindsOf(all []record) (out []string) {
	for _, r := range all {
		out = append(out, r.Kind)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
