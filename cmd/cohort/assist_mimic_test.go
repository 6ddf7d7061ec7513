package main

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/recipe"
	"github.com/cohort-learning/cohort/rng"
	"github.com/rogpeppe/go-internal/testscript"
)

// stays draws a stand-in for the table of examples/assist/mimic: the columns of the recipe and more besides, gaps, and lengths of stay
// that depend on what all three organisations know. Nobody in it is real.
func stays(columns []string, n int) string {
	r := rng.New(3, 0, "", "stays")
	var b strings.Builder
	fmt.Fprintf(&b, "stay,Ethnicity,%s,Length of Stay\n", strings.Join(columns, ","))
	for i := range n {
		hours := 90.0
		cells := []string{fmt.Sprint(200000 + 7*i), []string{"a", "b"}[r.IntN(2)]}
		for j := range columns {
			v := r.NormFloat64()
			hours += 12 * v * float64(1+j%3)
			if r.Float64() < .1 {
				cells = append(cells, "")
				continue
			}
			cells = append(cells, fmt.Sprintf("%.3f", 40+9*v))
		}
		fmt.Fprintf(&b, "%s,%.2f\n", strings.Join(cells, ","), max(1, hours+5*r.NormFloat64()))
	}
	return b.String()
}

// TestMIMIC runs the recipe of examples/assist/mimic as it is on a stand-in for the table, which is under licence: 17 columns, of which the
// laboratory has 3, the charts 12 and admission 2.
func TestMIMIC(t *testing.T) {
	path := filepath.Join("..", "..", "examples", "assist", "mimic", "mimic.yaml")
	r, err := recipe.LoadAssist(path)
	if err != nil {
		t.Fatal(err)
	}
	columns, has := r.Table.Columns, []int{len(r.Table.Columns)}
	for _, o := range r.Organisations {
		columns, has = append(columns, o.Table.Columns...), append(has, len(o.Table.Columns))
	}
	seen := map[string]bool{}
	for _, c := range columns {
		seen[c] = true
	}
	if fmt.Sprint(has) != "[3 12 2]" || len(seen) != 17 {
		t.Fatalf("organisations have %v columns, %d in all, want 3, 12 and 2", has, len(seen))
	}
	readme, err := os.ReadFile(filepath.Join(filepath.Dir(path), "README.md"))
	if err != nil || !strings.Contains(string(readme), "`"+r.Table.Key+"`") || !strings.Contains(string(readme), "`"+r.Table.Target+"`") {
		t.Errorf("README.md does not name the columns %q and %q: %v", r.Table.Key, r.Table.Target, err)
	}
	assistScript(t, `
exec cohort assist examples/assist/mimic/mimic.yaml --dry-run
stderr 'laboratory predicts "Length of Stay" \(squared\) from 400 rows of 3 numbers'
stderr 'charts \(forest\) has 400 rows of 12 numbers.*it knows 400 of the sponsor.s 400 entities'
stderr 'admission \(forest\) has 400 rows of 2 numbers'
exec cohort assist examples/assist/mimic/mimic.yaml --name stays --json --set learner.name=linear --set learner.leaf=0 --set rounds=3 --bounds alone
json stdout metrics/mad > 1
json stdout metrics/mad < 60
json stdout bounds/alone/mad > 1
json stdout organisations/charts/shapley > 100
exec cohort predict stays --input laboratory=examples/assist/mimic/mimic.csv --json
json stdout predictions/0/input = 200000
`, func(_ *testscript.Env, dir string) error {
		return os.WriteFile(filepath.Join(dir, "mimic", "mimic.csv"), []byte(stays(columns, 400)), 0o644)
	})
}
