package recipe

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted"
	"github.com/cohort-learning/cohort/journal"
	"github.com/cohort-learning/cohort/record"
	"github.com/cohort-learning/cohort/simulation"
)

// TestAsk checks that organisations that are asked about the rows of a run, in another order, say what the run came to, and that a
// table that has changed is refused, in training as in prediction.
func TestAsk(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var head, shop, bank, turned strings.Builder
	for i := range 60 {
		fmt.Fprintf(&bank, "k%d,%d,%s,%d\n", i, i%7, []string{"a", "b"}[i%2], i%7+3*(i%5)+i%2)
		fmt.Fprintf(&shop, "k%d,%d\n", i, i%5)
		j := 59 - i
		fmt.Fprintf(&turned, "k%d,%d,%s\n", j, j%7, []string{"a", "b"}[j%2])
	}
	head.WriteString("method: gal\nrounds: 4\nsponsor: bank\nloss: squared\nlearner: {name: linear}\nrows: {solve: 0, held: 0, test: 0.2}\noptions: {patience: 0}\n")
	fmt.Fprintf(&head, "table: {path: %s, key: id, target: y, task: regression}\n", file("bank.csv", "id,x,w,y\n"+bank.String()))
	fmt.Fprintf(&head, "organisations: [{name: shop, table: {path: %s, key: id}, learner: {name: linear}}]\n", file("shop.csv", "id,z\n"+shop.String()))
	r, err := ParseAssist("test.yaml", []byte(head.String()))
	if err != nil {
		t.Fatal(err)
	}
	p, err := r.Plan(true)
	if err != nil {
		t.Fatal(err)
	}
	folder := filepath.Join(dir, "run")
	run, err := record.Create(folder, record.Meta{Method: r.Method, Seed: r.Seed}, r.YAML(), record.Options{})
	if err != nil {
		t.Fatal(err)
	}
	store := func(name string) (assisted.Store, error) {
		return journal.OpenValues(nil, filepath.Join(folder, ModelsName, name))
	}
	names, desks, err := p.Desks(store)
	if err != nil {
		t.Fatal(err)
	}
	m, err := p.Method(desks)
	if err != nil {
		t.Fatal(err)
	}
	fleet := &simulation.Fleet{Seed: r.Seed}
	for _, name := range names {
		fleet.Own = append(fleet.Own, simulation.Holder{Name: name})
	}
	job := &simulation.Job{Algorithm: m, Fleet: fleet, Config: p.Config()}
	final, err := job.RunIn(t.Context(), run, journal.OS(), 1)
	if err := run.Close(record.Finished, err); err != nil {
		t.Fatal(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	f, err := assisted.Matrix(final, "F")
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]float64{}
	for i, k := range p.Sponsor.Keys {
		want[k] = f.At(i, 0)
	}
	got, err := Ask(t.Context(), folder, map[string]string{"bank": file("turned.csv", "id,x,w\n"+turned.String())})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.Predictions) != 60 || !got.Regression || len(got.Away.Degraded) != 0 || got.Predictions[0].Input != "k59" {
		t.Errorf("%d predictions, regression %t, degraded %v", len(got.Predictions), got.Regression, got.Away.Degraded)
	}
	for _, a := range got.Predictions {
		if off := *a.Value - want[a.Input]; off > 1e-9 || off < -1e-9 {
			t.Errorf("%s: %v, the run came to %v", a.Input, *a.Value, want[a.Input])
		}
	}

	file("shop.csv", "id,z,extra\n"+strings.ReplaceAll(shop.String(), "\n", ",1\n"))
	if p, err = r.Plan(true); err != nil {
		t.Fatal(err)
	}
	if _, _, err := p.Desks(store); err == nil || !strings.Contains(err.Error(), "has changed since the run began") {
		t.Errorf("a table with another column: %v", err)
	}
	file("shop.csv", "id,q\n"+shop.String())
	if _, err := Ask(t.Context(), folder, map[string]string{"bank": filepath.Join(dir, "turned.csv")}); err == nil || !strings.Contains(err.Error(), `shop: `) {
		t.Errorf("a table without a column: %v", err)
	}
}
