package systemtest

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestLiars has two members that do their proper work and, beside it, whatever they should not: one tells lies, one repeats
// itself. The run ends, its log names them, and it can be computed again. What they are answered is no secret and no success.
func TestLiars(t *testing.T) {
	brief(t)
	f := newFederation(t, strings.Replace(small, "clients: 5, per_client: 4", "clients: 6, per_client: 5", 1), 6)
	f.members[4].role, f.members[5].role = "liar", "replayer"
	f.open()
	f.joinAll()
	f.finish()
	f.say("%s", f.verify())
	for _, m := range f.members[4:] {
		for what, n := range answers(t, m) {
			t.Logf("%s, %s, %d times", m.name, what, n)
		}
	}
	checkAnswers(t, f.members[4])
}

// answers are how a member that lies was answered.
func answers(t *testing.T, m *party) (all map[string]int) {
	t.Helper()
	found := m.process.await(t, `(?m)^was answered (.*)$`, 1)
	if err := json.Unmarshal([]byte(found[0][1]), &all); err != nil {
		t.Fatal(err)
	}
	return all
}

// checkAnswers fails if a lie was taken for true.
func checkAnswers(t *testing.T, m *party) {
	t.Helper()
	for what := range answers(t, m) {
		lie, answer, _ := strings.Cut(what, ": ")
		if answer == "accepted" && lie != "result" && !strings.HasPrefix(lie, "a result that is") { // a proper one may go first
			t.Errorf("%s: %s was accepted", m.name, lie)
		}
	}
}
