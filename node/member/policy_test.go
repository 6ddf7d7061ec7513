package member_test

import (
	"errors"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/cohort-learning/cohort/node/member"
	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/transport"
)

func TestPolicyFile(t *testing.T) {
	dir := t.TempDir()
	p, err := member.LoadPolicy(dir)
	if err != nil || !reflect.DeepEqual(p, member.DefaultPolicy()) && len(p.Methods) > 0 {
		t.Fatalf("a new policy is %+v, %v", p, err)
	}
	text, err := os.ReadFile(filepath.Join(dir, member.PolicyName))
	if err != nil {
		t.Fatal(err)
	}
	typ := reflect.TypeFor[member.Policy]()
	for i := range typ.NumField() {
		if field := typ.Field(i).Tag.Get("yaml"); !strings.Contains(string(text), "\n"+field+": ") {
			t.Errorf("the file does not explain %q", field)
		}
	}
	if again, err := member.ParsePolicy("policy.yaml", text); err != nil || !reflect.DeepEqual(again, p) {
		t.Errorf("read again: %+v, %v", again, err)
	}
	if err := os.WriteFile(filepath.Join(dir, member.PolicyName), []byte("rounds: 7\nupload: 1.5MB\nhours: \"22:00-06:30, 12-13\"\nmetrics: false\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, err = member.LoadPolicy(dir)
	if err != nil || p.Rounds != 7 || p.Upload != 1_500_000 || p.Metrics || p.Epochs != 100 || !p.Model {
		t.Errorf("an own policy is %+v, %v", p, err)
	}
}

func TestPolicyErrors(t *testing.T) {
	for text, want := range map[string]string{
		"epochs: 1\nepoch: 3\n":          `policy.yaml:2:1: epoch: there is no such field (did you mean "epochs"?)`,
		"\n  rounds: many\n":             "policy.yaml:2:11: ",
		"upload: 5 parsecs\n":            `"5 parsecs" is no size`,
		"upload: -1\n":                   `"-1" is no size`,
		"hours: 9 to 5\n":                `is no time of the day`,
		"hours: \"7-7\"\n":               `is no time of the day`,
		"hours: \"10:00-25:00\"\n":       `is no time of the day`,
		"steps: -4\n":                    "steps: -4",
		"methods: [fedavgg]\n":           "fedavgg",
		"metrics: true\nmetrics: false":  "policy.yaml:2:",
		"epochs: [1\n":                   "policy.yaml:",
		strings.Repeat("# \n", 1<<20):    "a policy has a few hundred",
		"methods: &a [*a]\nrounds: *b\n": "policy.yaml",
	} {
		_, err := member.ParsePolicy("policy.yaml", []byte(text))
		var e *recipe.Error
		if !errors.As(err, &e) || !strings.Contains(err.Error(), want) {
			t.Errorf("%.40q: error %v, want %q", text, err, want)
		}
	}
}

func TestPolicyCheck(t *testing.T) {
	r, err := recipe.Default("heterofl")
	if err != nil {
		t.Fatal(err)
	}
	terms := &transport.Terms{Metrics: []string{"train.loss"}}
	if no := member.DefaultPolicy().Check(member.Proposal{Terms: terms, Recipe: r}); len(no) > 0 {
		t.Errorf("the default policy declines the default recipe: %q", no)
	}
	p := member.Policy{Methods: []string{"fedavg", "scaffold"}, Rounds: 5, Epochs: 1, Steps: 10, Batch: 4}
	no := strings.Join(p.Check(member.Proposal{Terms: terms, Recipe: r}), "; ")
	for _, want := range []string{"the method is heterofl; allowed are fedavg, scaffold", "30 rounds; allowed are at most 5", "2 epochs a round",
		"10 examples a step", "the run asks for train.loss"} {
		if !strings.Contains(no, want) {
			t.Errorf("%q is not among the reasons %q", want, no)
		}
	}
	r.Train.Batch = 0
	if no := strings.Join(p.Check(member.Proposal{Terms: terms, Recipe: r}), "; "); !strings.Contains(no, "all examples in one step") {
		t.Errorf("reasons %q", no)
	}
}

func TestHours(t *testing.T) {
	p, err := member.ParsePolicy("p", []byte(`hours: "22:00-06:30, 12-13"`))
	if err != nil {
		t.Fatal(err)
	}
	day := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	for at, want := range map[time.Duration]time.Duration{
		0: 0, 6*time.Hour + 29*time.Minute: 0, 22 * time.Hour: 0, 23*time.Hour + 59*time.Minute: 0, 12*time.Hour + 30*time.Minute: 0,
		6*time.Hour + 30*time.Minute: 5*time.Hour + 30*time.Minute, 13 * time.Hour: 9 * time.Hour, 21*time.Hour + 59*time.Minute + 30*time.Second: 30 * time.Second,
	} {
		if got := p.Hours.Wait(day.Add(at)); got != want {
			t.Errorf("at %v: wait %v, want %v", at, got, want)
		}
	}
	if w := (member.Hours{}).Wait(day); w != 0 {
		t.Errorf("no hours: wait %v", w)
	}
}

func FuzzPolicy(f *testing.F) {
	for _, s := range []string{"", "epochs: 1", "hours: \"22-6\"", "upload: 1e9GB", "methods: [a, b]", "a: &a [*a]", "{", "? a"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := member.ParsePolicy("policy.yaml", text)
		if err == nil {
			if w := p.Hours.Wait(time.Unix(1e9, 0)); w < 0 || w > 24*time.Hour {
				t.Errorf("wait %v", w)
			}
		}
	})
}
