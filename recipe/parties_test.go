package recipe

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/dataset"
	"github.com/cohort-learning/cohort/federated"
	"github.com/cohort-learning/cohort/simulation"
	"github.com/cohort-learning/cohort/weights"
)

// recipesOfParties have every kind of data, augmentation and feature skew between them.
var recipesOfParties = map[string]string{
	"fedavg on classes": `
method: fedavg
rounds: 2
data: {name: glyphs, size: 8, train: 120, test: 60}
partition: {name: classes, clients: 5, per_client: 2}
model: {name: cnn, widths: [4, 8]}
round: {fraction: 1}
train: {batch: 5, crop: 1, flip: true}
`,
	"heterofl on rotated images": `
method: heterofl
rounds: 2
data: {name: glyphs, size: 8, train: 120, test: 60}
partition: {name: rotation, clients: 6}
model: {name: cnn, widths: [4, 8]}
round: {fraction: 1}
train: {batch: 5, crop: 1}
options: {mode: a1-c2, levels: fixed}
`,
	"heterofl on noisy images": `
method: heterofl
rounds: 2
data: {name: glyphs, size: 8, train: 120, test: 60}
partition: {name: noise, clients: 6, sigma: 0.2}
model: {name: cnn, widths: [4, 8]}
round: {fraction: 1}
train: {batch: 5, crop: 1, flip: true}
`,
	"fedavg on features": `
method: fedavg
rounds: 2
data: {name: synthetic, clients: 6}
partition: {name: natural, clients: 6}
model: {name: linear}
round: {fraction: 1}
`,
	"scaffold on features": `
method: scaffold
rounds: 2
data: {name: synthetic, clients: 6}
partition: {name: natural, clients: 6}
model: {name: linear}
round: {fraction: 1}
train: {optimizer: {name: sgd, rate: 0.1}}
`,
	"fedavg on a table": `
method: fedavg
rounds: 2
data: {name: csv, path: TABLE, target: price}
partition: {name: iid, clients: 3}
model: {name: mlp, hidden: [8]}
round: {fraction: 1}
`,
	"heterofl on text": `
method: heterofl
rounds: 2
data: {name: text, path: TEXT, test_path: TEXT, tokens: 8, text_rows: 6, test_rows: 3}
partition: {name: natural, clients: 6}
model: {name: transformer, embedding: 16, heads: 2, feed_forward: 8, layers: 1}
options: {mode: a1-c2}
round: {fraction: 1}
`,
}

// files writes a table with words, gaps and a quantity to predict, and a text.
func files(t *testing.T) *strings.Replacer {
	t.Helper()
	dir := t.TempDir()
	table, text := "size,colour,weight,price\n", ""
	for i := range 60 {
		gap := []string{"0.1", "2.25", ""}[i%3]
		table += strings.Join([]string{[]string{"1.7", "33", "0.001"}[i%3], []string{"red", "blue"}[i%2], gap, []string{"10.5", "11", "9", "7.25"}[i%4]}, ",") + "\n"
		text += "the quick brown " + []string{"fox", "dog", "cat"}[i%3] + " jumps over the lazy " + []string{"hen", "cow"}[i%2] + "\n"
	}
	for name, content := range map[string]string{"table.csv": table, "text.txt": text} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return strings.NewReplacer("TABLE", filepath.Join(dir, "table.csv"), "TEXT", filepath.Join(dir, "text.txt"))
}

// TestParties compares a simulation with coordinator and members who plan apart, each member with nothing but its exported
// folder: initial weights, tasks and every client's results in every phase are the same bit for bit.
func TestParties(t *testing.T) {
	paths := files(t)
	for name, text := range recipesOfParties {
		t.Run(name, func(t *testing.T) {
			ctx := t.Context()
			whole, e := planOf(t, paths.Replace(text))
			dir := filepath.Join(t.TempDir(), "shares")
			manifest, err := whole.Dealt.Export(ctx, dir, whole.Split.Train, whole.Split.Test)
			if err != nil {
				t.Fatal(err)
			}
			server, err := whole.Recipe.PlanServer(ctx, ServerData{})
			if err != nil {
				t.Fatal(err)
			}
			told, err := dataset.ParseSchema(asJSON(t, server.Schema))
			if err != nil {
				t.Fatal(err)
			}
			if blind, err := whole.Recipe.PlanServer(ctx, ServerData{Schema: &told, None: true}); err != nil || blind.Split != nil {
				t.Fatalf("a coordinator without data: %v", err)
			}
			received, err := Parse("received", whole.Recipe.YAML())
			if err != nil {
				t.Fatal(err)
			}

			fleet := &simulation.Fleet{Split: whole.Split, Dealt: whole.Dealt, Engine: e, Seed: whole.Recipe.Seed}
			here, err := whole.Algorithm()
			check(t, err)
			there, err := server.Algorithm()
			check(t, err)
			s, err := here.Init(ctx, fleet.Server())
			check(t, err)
			apart, err := there.Init(ctx, server.Server(e, fleet))
			check(t, err)
			if s.Digest() != apart.Digest() {
				t.Fatal("the coordinator starts from another state")
			}
			for k := range fleet.Len() {
				mine, err := received.LoadMember(ctx, filepath.Join(dir, manifest.Members[k].Folder), told)
				check(t, err)
				member, err := received.PlanMember(told, mine, nil)
				check(t, err)
				if member.Samples() != fleet.Member(k).Samples {
					t.Errorf("client %d declares %d examples, has %d", k, member.Samples(), fleet.Member(k).Samples)
				}
				a, err := member.Algorithm()
				check(t, err)
				s := s
				for step := 0; ; step++ {
					s.Step = step
					p, ok := here.Next(s)
					if !ok {
						break
					}
					if !p.Who.Everyone && p.Who.Fraction == 0 {
						continue
					}
					task, err := here.Task(s, p, fleet.Member(k))
					check(t, err)
					task.Phase = p.Name
					want, err := here.Client().Run(ctx, fleet.Local(fleet.Member(k)), task, nil)
					check(t, err)
					got, err := a.Client().Run(ctx, member.Local(e, fleet.Member(k)), task, nil)
					check(t, err)
					compareResults(t, k, p.Name, got, want)
					if stats, ok := want.Addends["stats"]; ok && p.Name == "stats" { // so that evaluation has some
						s = s.With("stats", federatedMean(stats, want))
					}
				}
			}
		})
	}
}

// federatedMean is a member's own statistics.
func federatedMean(sum weights.Set, r federated.Result) weights.Set {
	m := sum.Clone()
	m.Scale(1 / r.Scalars["batches"])
	return m
}

func compareResults(t *testing.T, k int, phase string, got, want federated.Result) {
	t.Helper()
	if got.Status != want.Status || got.Weight != want.Weight || len(got.Addends) != len(want.Addends) {
		t.Fatalf("client %d, %s: status %v and weight %d, want %v and %d", k, phase, got.Status, got.Weight, want.Status, want.Weight)
	}
	for name, set := range want.Addends {
		if !got.Addends[name].Equal(set) {
			t.Errorf("client %d, %s: %s differs", k, phase, name)
		}
	}
	for name, v := range want.Scalars {
		if got.Scalars[name] != v {
			t.Errorf("client %d, %s: %s is %v, want %v", k, phase, name, got.Scalars[name], v)
		}
	}
	if a, b := asJSON(t, got.Cover), asJSON(t, want.Cover); string(a) != string(b) {
		t.Errorf("client %d, %s: covers %s, want %s", k, phase, a, b)
	}
	if (got.Keep == nil) != (want.Keep == nil) || got.Keep != nil && !got.Keep.Equal(*want.Keep) {
		t.Errorf("client %d, %s: keeps something else", k, phase)
	}
}

func check(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A member whose data are others than agreed is told in what, and a plan without what it needs is refused.
func TestPartiesThatDoNotFit(t *testing.T) {
	whole, _ := planOf(t, small)
	agreed := dataset.SchemaOf(whole.Split.Train)
	foreign := agreed
	foreign.Classes = append([]string(nil), agreed.Classes...)
	foreign.Classes[3] = "dog"
	var differ *dataset.DisagreementError
	if _, err := whole.Recipe.PlanMember(foreign, whole.Split, nil); !errors.As(err, &differ) ||
		!strings.Contains(err.Error(), `class 3 is "`+agreed.Classes[3]+`" here and "dog" at the coordinator`) {
		t.Errorf("another class: %v", err)
	}
	if _, err := whole.Recipe.PlanServer(t.Context(), ServerData{None: true}); err == nil {
		t.Error("a coordinator with neither data nor schema was planned")
	}
	pooled, err := Parse("test", []byte(small), "evaluate.statistics=pooled")
	check(t, err)
	if _, err := pooled.PlanServer(t.Context(), ServerData{None: true, Schema: &agreed}); err == nil || !strings.Contains(err.Error(), "statistics") {
		t.Errorf("pooled statistics without data: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := whole.Recipe.PlanServer(ctx, ServerData{}); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}

	card, err := whole.Card()
	check(t, err)
	server, err := whole.Recipe.PlanServer(t.Context(), ServerData{})
	check(t, err)
	apart, err := server.Card(whole.Dealt.Train.Clients(), whole.Split.Train.Len())
	check(t, err)
	if string(asJSON(t, card)) != string(asJSON(t, apart)) {
		t.Errorf("the coordinator describes the model as %s, the simulation as %s", asJSON(t, apart), asJSON(t, card))
	}
}

func asJSON(t *testing.T, v any) []byte {
	t.Helper()
	b, err := json.Marshal(v)
	check(t, err)
	return b
}
