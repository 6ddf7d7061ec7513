package systemtest

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// A sponsor that has others fit a model for each value of a column of its own comes to the same bits over a network as on one machine, also
// where a member is killed on the way and the best rounds are run again on all rows, and so do predictions for new people. Members are told that there are groups, and not of what.
func TestAssistStrata(t *testing.T) {
	brief(t)
	f := alliance(t, "plain")
	grouped := func(path string) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		lines := strings.Split(strings.TrimSpace(string(text)), "\n")
		lines[0] += ",region"
		for i := range lines[1:] {
			lines[i+1] += fmt.Sprintf(",%s", []string{"north", "south"}[i%2])
		}
		if err := os.WriteFile(path, []byte(strings.Join(lines, "\n")+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	grouped(f.members[0].data)
	text, err := os.ReadFile(f.recipe)
	if err == nil {
		text = []byte(strings.NewReplacer("method: gal", "method: al", "{solve: 0.2, test: 0.3}", "{solve: 0, held: 0.2, test: 0.3}",
			"patience: 0", "patience: 2, rate: exact, start: initial, strata: region, refit: true",
			"{name: boosted}", "{name: ridge}", "{name: forest}", "{name: ridge}").Replace(string(text)))
		err = os.WriteFile(f.recipe, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.members[1].args = []string{"--key", "number", "--learner", "ridge"}
	f.members[2].args = []string{"--key", "customer", "--learner", "ridge"}
	one := filepath.Join(f.dir, "one")
	run(t, f.program, "assist", f.recipe, "--quiet", "--bounds=none", "--dir", one)
	f.open()
	f.joinAll()
	if !f.reach(20) {
		t.Fatal("the run was over")
	}
	telephone := f.members[1]
	telephone.kill()
	f.join(telephone)
	f.finish()
	if got, want := digestOf(t, f.run()), digestOf(t, one); got != want {
		t.Errorf("the network comes to %s, one machine to %s", got, want)
	}
	f.coordinator.await(t, `rounds are run again, from round \d+ on, on all 210 rows`, 1)
	telephone.await(t, `assist with .*, in 2 groups of rows with a model for each. What leaves`, 1)
	for _, m := range f.members[1:] {
		err := filepath.WalkDir(m.dir, func(path string, d os.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(path)
			if strings.Contains(string(b), "region") || strings.Contains(string(b), "north") {
				t.Errorf("%s knows of what the groups are: %s", m.name, path)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}

	paths := newRows(t, f)
	grouped(paths["bank"])
	inputs := []string{one}
	for name, path := range paths {
		inputs = append(inputs, "--input", name+"="+path)
	}
	want := predict(t, f, inputs...)
	for _, m := range f.members {
		m.process = start(t, m.name, m.out, nil, f.program, "join", "--dir", m.dir, "--data", paths[m.name], "--threads", "1", "--stay")
	}
	got := predict(t, f, "run", "--dir", filepath.Join(f.dir, "server"), "--input", paths["bank"])
	if !slices.Equal(got.Predictions, want.Predictions) || len(got.Predictions) != 20 {
		t.Errorf("over the network %v, on one machine %v", got.Predictions, want.Predictions)
	}
}

// Votes for classes, and a generalised linear model, for which organisations take turns, come to the same bits over a network as on one machine.
func TestAssistTurns(t *testing.T) {
	brief(t)
	t.Run("ascii", func(t *testing.T) { testTurns(t, "ascii", "boosted", "forest") })
	t.Run("ae-al", func(t *testing.T) { testTurns(t, "ae-al", "linear", "ridge") })
}

func testTurns(t *testing.T, method, telephone, shop string) {
	f := alliance(t, "plain")
	text, err := os.ReadFile(f.recipe)
	if err == nil {
		text = []byte(strings.NewReplacer("method: gal", "method: "+method, "rounds: 5", "rounds: 3", "{name: boosted}", "{name: "+telephone+"}", "{name: forest}", "{name: "+shop+"}").Replace(string(text)))
		err = os.WriteFile(f.recipe, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	f.members[1].args = []string{"--key", "number", "--learner", telephone}
	f.members[2].args = []string{"--key", "customer", "--learner", shop}
	one := filepath.Join(f.dir, "one")
	run(t, f.program, "assist", f.recipe, "--quiet", "--bounds=none", "--dir", one)
	f.open()
	f.joinAll()
	f.finish()
	if got, want := digestOf(t, f.run()), digestOf(t, one); got != want {
		t.Errorf("the network comes to %s, one machine to %s", got, want)
	}
}
