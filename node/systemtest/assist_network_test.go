package systemtest

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// One network, whose first layer three organisations have between them, comes to the same bits over TLS as on one machine, also where an
// organisation is killed between its turns; and it foresees the same of people who were in no run. Nobody takes part whose policy does not say so.
func TestAssistNetwork(t *testing.T) {
	f := alliance(t, "plain")
	text, err := os.ReadFile(f.recipe)
	if err == nil {
		text = []byte(strings.NewReplacer("method: gal", "method: al-network", "rounds: 5", "rounds: 11", "learner: {name: ridge}\n", "", ", learner: {name: boosted}", "", ", learner: {name: forest}", "",
			"solve: 0.2, ", "", "patience: 0", "patience: 0, hidden: [8]").Replace(string(text)))
		err = os.WriteFile(f.recipe, text, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	one := f.dir + "/one"
	run(t, f.program, "assist", f.recipe, "--quiet", "--bounds=none", "--dir", one)
	f.open()
	telephone := f.members[1]
	for _, m := range f.members {
		run(t, f.program, "join", m.token, "--enrol", "--dir", m.dir)
		if m != telephone {
			f.allow(m, "activations: false", "activations: true")
		}
	}
	f.join(telephone)
	telephone.await(t, `what the first layer of a shared network makes of this member's columns`, 1)
	telephone.kill()
	f.allow(telephone, "activations: false", "activations: true")
	f.joinAll()
	if !f.reach(20) {
		t.Fatal("the run was over")
	}
	telephone.kill()
	f.join(telephone)
	f.finish()
	if got, want := digestOf(t, f.run()), digestOf(t, one); got != want {
		t.Errorf("the network comes to %s, one machine to %s", got, want)
	}
	for _, metric := range []string{"loss.train", "loss", "accuracy"} {
		got, want := values(t, f.run(), metric), values(t, one, metric)
		if len(want) != 11 || !slices.Equal(got, want) {
			t.Errorf("%s: the network has %v, one machine %v", metric, got, want)
		}
	}
	if acc := values(t, one, "accuracy"); acc[10] < .75 {
		t.Errorf("accuracy %v", acc)
	}
	paths := newRows(t, f)
	inputs := []string{one}
	for name, path := range paths {
		inputs = append(inputs, "--input", name+"="+path)
	}
	want := predict(t, f, inputs...)
	for _, m := range f.members {
		m.process = start(t, m.name, m.out, nil, f.program, "join", "--dir", m.dir, "--data", paths[m.name], "--threads", "1", "--stay")
	}
	got := predict(t, f, "run", "--dir", f.dir+"/server", "--input", paths["bank"])
	if !slices.Equal(got.Predictions, want.Predictions) || len(got.Predictions) != 20 || got.Degraded["shop"] != 3 {
		t.Errorf("over the network %v, on one machine %v", got, want)
	}
}
