package recipe

import (
	"fmt"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cohort-learning/cohort/assisted"
)

// TestCounts checks that a generalised linear model of counts is learned from tables and predicts their means.
func TestCounts(t *testing.T) {
	dir := t.TempDir()
	var clinic, pharmacy strings.Builder
	r := rand.New(rand.NewPCG(1, 2))
	visits := map[string]float64{}
	for i := range 300 {
		a, b := r.NormFloat64(), r.NormFloat64()
		mean := math.Exp(.5 + .4*a - .6*b)
		n := 0
		for sum, p := 0., math.Exp(-mean); ; n++ {
			if sum += p; sum > r.Float64() && n > 0 || n > 60 {
				break
			}
			p *= mean / float64(n+1)
		}
		fmt.Fprintf(&clinic, "p%d,%.4f,%d\n", i, a, n)
		fmt.Fprintf(&pharmacy, "p%d,%.4f\n", i, b)
		visits[fmt.Sprintf("p%d", i)] = float64(n)
	}
	for name, text := range map[string]string{"clinic.csv": "id,age,visits\n" + clinic.String(), "pharmacy.csv": "id,drugs\n" + pharmacy.String()} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	recipe, err := ParseAssist("test.yaml", fmt.Appendf(nil, `method: ae-al
rounds: 20
loss: poisson
sponsor: clinic
learner: {name: linear}
rows: {held: 0, test: 0}
options: {patience: 0}
table: {path: %s/clinic.csv, key: id, target: visits, task: regression}
organisations: [{name: pharmacy, table: {path: %s/pharmacy.csv, key: id}, learner: {name: linear}}]
`, dir, dir))
	if err != nil {
		t.Fatal(err)
	}
	p, err := recipe.Plan(true)
	if err != nil {
		t.Fatal(err)
	}
	if terms := p.Terms(); terms.Vectors != 40 || terms.Outputs != 1 {
		t.Errorf("terms of 20 rounds with labels and offsets: %+v", terms)
	}
	names, desks, err := p.Desks(func(string) (assisted.Store, error) { return assisted.NewStore(), nil })
	if err != nil {
		t.Fatal(err)
	}
	m, err := p.Method(desks)
	if err != nil {
		t.Fatal(err)
	}
	job := p.Job(m, names)
	final, err := job.Run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	e, err := m.Ensemble(final)
	if err != nil {
		t.Fatal(err)
	}
	asked, err := ask(t.Context(), recipe, e, p.Table, desks, job.Fleet)
	if err != nil {
		t.Fatal(err)
	}
	// With an intercept the means of a Poisson regression add up to the counts.
	predicted, counted := 0.0, 0.0
	for _, a := range asked.Predictions {
		if predicted += *a.Value; *a.Value <= 0 {
			t.Fatalf("%s: %g visits", a.Input, *a.Value)
		}
		counted += visits[a.Input]
	}
	if math.Abs(predicted-counted) > 1e-3*counted {
		t.Errorf("%g visits are predicted, %g were counted", predicted, counted)
	}
}
