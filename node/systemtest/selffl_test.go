package systemtest

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// self is Self-FL on members of unequal sizes, of whom some are absent in each round.
const self = `method: selffl
rounds: 5
data: {name: glyphs, size: 12, train: 200, test: 60}
partition: {name: dirichlet, clients: 5, alpha: 0.5, min_size: 10}
model: {name: linear}
train: {batch: 5, optimizer: {rate: 0.1}}
round: {fraction: 0.8}
options: {most_steps: 60}
`

// TestSelfFL holds federations of processes against simulations: over a network absent members are left out unless the recipe
// says otherwise, and either way members' own models, variances and steps come out to the same bits.
func TestSelfFL(t *testing.T) {
	for stale, options := range map[string]string{"drop": "most_steps: 60", "keep": "most_steps: 60, stale: keep"} {
		t.Run(stale, func(t *testing.T) {
			f := newFederation(t, strings.Replace(self, "most_steps: 60", options, 1), 5)
			dir := filepath.Join(f.dir, "simulation")
			run(t, f.program, "run", f.recipe, "--quiet", "--dir", dir, "--set", "options.stale="+stale)
			want := digestOf(t, dir)
			f.open()
			f.joinAll()
			f.finish()
			if got := digestOf(t, f.run()); got != want {
				t.Errorf("the network comes to %s, the simulation to %s", got, want)
			}
			text, err := os.ReadFile(filepath.Join(f.run(), "recipe.yaml"))
			if err != nil || !strings.Contains(string(text), "stale: "+stale) {
				t.Errorf("the run's recipe does not say stale: %s: %v\n%s", stale, err, text)
			}
			f.verify()
		})
	}
}
