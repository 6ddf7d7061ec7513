package recipe

import (
	"errors"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/dataset"
)

const attacked = `
method: fedavg
rounds: 2
data: {name: glyphs, size: 8, train: 200, test: 60}
partition: {name: iid, clients: 10}
model: {name: linear}
round: {fraction: 1}
robust: {rule: krum, liars: 2, bucket: 0}
clients: {liars: 0.2, attack: sign-flip, strength: 5}
`

// The rule of a recipe runs in a simulation, and the coordinator's half has the same.
func TestRobustPlan(t *testing.T) {
	digest := func(text string, set ...string) string {
		p, e := planOf(t, text, set...)
		j, err := p.Job(e)
		if err != nil {
			t.Fatal(err)
		}
		s, err := j.Run(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s.Digest()
	}
	seen := map[string]string{}
	for _, rule := range append(RobustRules(), "") {
		set := []string{"robust.rule=" + rule, "robust.liars=0"}
		if rule == "bulyan" || strings.Contains(rule, "krum") {
			set[1] = "robust.liars=1"
		}
		text := attacked
		if rule == "" {
			text, set = without(text, "robust:"), nil
		}
		d := digest(text, set...)
		if other, ok := seen[d]; ok && !(rule == "" && other == "mean") { // clients have as many examples
			t.Errorf("rule %q ends like %q", rule, other)
		}
		seen[d] = rule
	}
	if digest(attacked) == digest(without(attacked, "clients:")) {
		t.Error("the attack changes nothing")
	}
	r, err := Parse("test", []byte(attacked))
	if err != nil {
		t.Fatal(err)
	}
	server, err := r.PlanServer(t.Context(), ServerData{})
	if err != nil {
		t.Fatal(err)
	}
	if rule := server.Config().Rule; rule == nil || rule.String() != "krum (f=2)" {
		t.Errorf("the coordinator's rule is %v", rule)
	}
	if err := server.CheckMembers(t.Context(), 7); err != nil {
		t.Errorf("7 members: %v", err)
	}
	if err := server.CheckMembers(t.Context(), 6); err == nil || !strings.Contains(err.Error(), "robust.liars") {
		t.Errorf("6 members: %v", err)
	}
}

// without leaves out the line that begins with a word.
func without(text, word string) string {
	before, rest, _ := strings.Cut(text, "\n"+word)
	_, after, _ := strings.Cut(rest, "\n")
	return before + "\n" + after
}

// What cannot work is refused with the field and the fix before anything is computed.
func TestRobustRefused(t *testing.T) {
	for want, set := range map[string][]string{
		"test:8:29: robust.liars: phase train: krum (f=2) needs at least 2f+3 = 7 results, there are 5: ask more members or set liars to 1": {"round.fraction=0.5"},
		"robust: phase train: krum (f=2) compares whole updates":                                                                            {"method=heterofl", "model={name: cnn, widths: [4]}", "options={mode: a1}"},
		"robust.spool: phase train: 10 results of":                                                                                          {"robust.spool=1000"},
		"robust.rule: phase train: krum (f=2) lets every":                                                                                   {"round={fraction: 1, quorum: 0.8, staleness: 1, discount: 1}"},
	} {
		r, err := Parse("test", []byte(attacked), set...)
		if err != nil {
			t.Fatal(err)
		}
		_, err = r.Plan(t.Context(), "")
		var e *Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v, want %q in it", err, want)
		}
	}
}

// A recipe without the section says nothing of it, and one with it is another run.
func TestRobustWritten(t *testing.T) {
	r, err := Default("fedavg")
	if err != nil {
		t.Fatal(err)
	}
	r.Partition = dataset.Scheme{Name: "iid", Clients: 10}
	other := *r
	other.Robust = Robust{Rule: "median"}
	if strings.Contains(string(r.YAML()), "robust") || !strings.Contains(string(other.YAML()), "robust:\n  rule: median\n") {
		t.Errorf("written as\n%s\nand\n%s", r.YAML(), other.YAML())
	}
	if r.SameRun(&other) {
		t.Error("a run with a rule is the same as one without")
	}
}
