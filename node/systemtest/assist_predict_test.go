package systemtest

import (
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// predicted is what "cohort predict --json" prints.
type predicted struct {
	Predictions []struct {
		Input, Class string
		Probability  float64
	}
	Degraded map[string]int
	Tables   map[string]int
	Notes    []string
	Cost     map[string]float64
}

func predict(t *testing.T, f *federation, args ...string) (p predicted) {
	t.Helper()
	cmd := exec.Command(f.program, append([]string{"predict", "--json"}, args...)...)
	var said strings.Builder
	cmd.Stderr = &said
	out, err := cmd.Output()
	if err == nil {
		err = json.Unmarshal(out, &p)
	}
	if err != nil {
		t.Fatalf("%v: %v\n%s\n%s", args, err, out, said.String())
	}
	return p
}

// newRows writes tables of people who were in no run, of whom the shop does not know all, and returns their paths by organisation.
func newRows(t *testing.T, f *federation) map[string]string {
	t.Helper()
	text := map[string]string{"bank": "id,income\n", "telephone": "number,calls,complaints\n", "shop": "customer,spent,city\n"}
	r := rand.New(rand.NewPCG(7, 8))
	for i := range 20 {
		text["bank"] += fmt.Sprintf("n%02d,%.3f\n", i, r.NormFloat64())
		text["telephone"] += fmt.Sprintf("n%02d,%.3f,%.3f\n", 19-i, r.NormFloat64(), r.NormFloat64())
		if i >= 3 {
			text["shop"] += fmt.Sprintf("n%02d,%.3f,Ulm\n", i, r.NormFloat64())
		}
	}
	paths := map[string]string{}
	for name, text := range text {
		paths[name] = filepath.Join(f.dir, "new-"+name+".csv")
		if err := os.WriteFile(paths[name], []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return paths
}

// Organisations that stay answer predictions for people who were in no run, from tables that they did not have then: the same as on one
// machine. Where one is away or refuses, its mean stands for it, and that and what it costs is said.
func TestAssistPredict(t *testing.T) {
	brief(t)
	f := alliance(t, "private")
	one := filepath.Join(f.dir, "one")
	run(t, f.program, "assist", f.recipe, "--quiet", "--bounds=none", "--dir", one)
	f.open()
	f.joinAll()
	f.finish()
	paths := newRows(t, f)
	inputs := []string{one}
	for name, path := range paths {
		inputs = append(inputs, "--input", name+"="+path)
	}
	want := predict(t, f, inputs...)

	shop := f.members[2]
	f.allow(shop, "answers: 1000000", "answers: 30")
	for _, m := range f.members {
		m.process = start(t, m.name, m.out, nil, f.program, "join", "--dir", m.dir, "--data", paths[m.name], "--threads", "1", "--stay")
	}
	server := filepath.Join(f.dir, "server")
	ask := []string{"run", "--dir", server, "--input", paths["bank"]}
	got := predict(t, f, ask...) // the command is the coordinator
	if !slices.Equal(got.Predictions, want.Predictions) || len(got.Predictions) != 20 {
		t.Errorf("over the network %v, on one machine %v", got.Predictions, want.Predictions)
	}
	if got.Degraded["shop"] != 3 || len(got.Degraded) != 1 {
		t.Errorf("degraded: %v, want the three that shop does not know", got.Degraded)
	}
	for _, m := range f.members {
		if got.Tables[m.name] != 2 {
			t.Errorf("%s answered from version %d of its table, want 2", m.name, got.Tables[m.name])
		}
		m.await(t, `predictions for 20 rows, from version 2 of the table \(sha256 [0-9a-f]{12}…\); 20 rows of at most \d+ so far`, 1)
	}

	f.coordinator = start(t, "coordinator", f.coordOut, nil, f.program, "serve", "--dir", server, "--stay")
	f.members[1].kill()
	f.coordinator.await(t, `bank is here`, 2) // in training, and now
	f.coordinator.await(t, `shop is here`, 2)
	// Asked through the coordinator that is at work; again, if the two that are there are slower than it waits for the third.
	refused := func() bool {
		return slices.ContainsFunc(got.Notes, func(note string) bool {
			return strings.Contains(note, "shop does not answer in round 1: this organisation predicts for at most 30 rows and has done so for 20: its owner must allow more")
		})
	}
	for range 6 {
		var said []byte
		out, err := exec.Command(f.program, append([]string{"predict", "--json", "--wait", "15s"}, ask...)...).Output()
		if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
			said = exit.Stderr
		}
		got = predicted{}
		if err == nil {
			err = json.Unmarshal(out, &got)
		}
		if err != nil && !strings.Contains(string(said), "nobody has agreed to the terms") {
			t.Fatalf("%v: %s", err, said)
		}
		if refused() && got.Degraded["bank"] == 0 {
			break
		}
	}
	if got.Degraded["telephone"] != 20 || got.Degraded["shop"] != 20 || len(got.Degraded) != 2 {
		t.Errorf("degraded: %v, want telephone, which is away, and shop, which has answered what it may", got.Degraded)
	}
	if !(got.Cost["telephone"] > 0) {
		t.Errorf("what it costs to be without telephone is not said: %v", got.Cost)
	}
	if !refused() {
		t.Errorf("notes: %q", got.Notes)
	}
	if slices.Equal(got.Predictions, want.Predictions) {
		t.Error("it does not matter who is away")
	}
	if t.Failed() {
		t.Log(f.coordOut.tail(30))
	}
}
